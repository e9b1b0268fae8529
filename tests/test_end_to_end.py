"""All stages, from the command line to what `datasets` loads: complete prompts, balanced accounts, the same bytes every time."""

from __future__ import annotations

import fcntl
import gzip
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from outside import (
    JUST_GENERATE,
    SIMULATED,
    STAGES,
    Done,
    cai,
    finish,
    manifests,
    published,
    questions,
    rows_of,
    stage_bytes,
    start,
    unbalanced,
    write_config,
    write_rows,
)

TOPICS = ("bread", "kites", "violins", "maps", "clocks", "ferns")
TWO_ANSWERS = 17  # the number of the transcript whose prompt ends with an assistant turn


def transcript(*turns: str) -> str:
    """Turns in the form of hh-rlhf, a person's first."""
    return "".join(f"\n\n{('Human', 'Assistant')[n % 2]}: {turn}" for n, turn in enumerate(turns))


def conversation(n: int) -> list[str]:
    """The turns up to the one that is to be answered."""
    n %= 110  # the last ten of 120 repeat the first
    topic = TOPICS[n % 6]
    opening = f"Tell me about {topic} (number {n}).\n\nTwo points: price, and time: I have an hour."
    return [opening] if n % 3 else [opening, f"Gladly. Which {topic} do you mean?\n\nThere are many.", "The usual: small ones."]


def hh_row(n: int) -> dict[str, str]:
    turns = conversation(n)
    if n == TWO_ANSWERS:
        ending = "\n\nAssistant: One moment.\n\nAssistant: "
        return {"chosen": transcript(*turns) + ending + "Here it is.", "rejected": transcript(*turns) + ending + "No."}
    return {"chosen": transcript(*turns, "A good answer: yes."), "rejected": transcript(*turns, "A worse one.")}


def hh_rows(count: int) -> list[dict[str, str]]:
    return [hh_row(n) for n in range(count)]


def run(folder: Path, *arguments: object, verb: str = "run", config: str = "c.yaml") -> Done:
    """A stage verb that must go whole, with --json."""
    done = cai(folder, verb, config, "--json", *arguments)
    assert done.code == 0, done.err
    return done


class Whole:
    """One run over 120 transcripts, made once and looked at by many tests."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.output = folder, folder / "out"
        write_rows(folder / "prompts.jsonl", hh_rows(120))
        write_config(folder)
        self.first = run(folder)

    def copy(self, folder: Path) -> Path:
        """The same, to be changed."""
        return Path(shutil.copytree(self.folder, folder, symlinks=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return Whole(tmp_path_factory.mktemp("whole"))


# One run


def test_every_prompt_is_complete_and_in_input_order(whole: Whole) -> None:
    expected = [conversation(n) for n in range(120) if n != TWO_ANSWERS for _ in range(2)]
    rows = rows_of(whole.output / "generate/latest")
    assert [[turn["content"] for turn in row["messages"]] for row in rows] == expected
    assert all(row["prompt"] == row["messages"][-1]["content"] for row in rows)
    assert len({row["id"] for row in rows}) == 238
    assert {row["prompt_id"].partition("-")[2] for row in rows} == {"", "2"}  # the ten repeats carry an ordinal


def test_every_row_that_came_in_is_accounted_for(whole: Whole) -> None:
    found = manifests(whole.output)
    assert list(found) == list(STAGES)
    assert [name for name, manifest in found.items() if unbalanced(manifest)] == []
    assert found["generate"]["rejected"] == {"ends_with_assistant": 1}
    assert found["generate"]["came_in"] == 2 * 119 + 1
    assert found["debias"]["came_in"] == found["label-pairs"]["rows"] == 119
    (reject,) = rows_of(whole.output / "generate/latest", "_rejects.jsonl")
    assert (reject["reason"], reject["where"].rpartition(":")[2]) == ("ends_with_assistant", str(TWO_ANSWERS + 1))


def test_what_json_says_is_what_the_versions_hold(whole: Whole) -> None:
    for stage, said in whole.first.stages.items():
        manifest = manifests(whole.output)[stage]
        assert said["version"] == manifest["version"] == (whole.output / stage / "latest").readlink().name
        assert [key for key in ("rows", "rejected", "filtered") if said[key] != manifest[key]] == []
        assert manifest["rows"] == len(rows_of(whole.output / stage / "latest"))
        assert manifest["shards"] == 12


def test_a_second_run_asks_nothing_and_says_so(whole: Whole) -> None:
    before = published(whole.output)
    again = run(whole.folder)
    assert again.asked == 0
    assert json.loads(again.out)["unchanged"] is True
    assert "nothing was asked" in again.last
    assert published(whole.output) == before


def test_verify_finds_nothing_wrong_with_it(whole: Whole) -> None:
    done = cai(whole.folder, "verify", "c.yaml")
    assert done.code == 0, done.out + done.err


@pytest.mark.parametrize("streaming", [False, True])
def test_datasets_loads_every_stage_by_config_name_and_by_version_path(whole: Whole, streaming: bool) -> None:
    import datasets

    for stage in STAGES:
        rows = rows_of(whole.output / stage / "latest")
        named = datasets.load_dataset(str(whole.output), stage, split="train", streaming=streaming)
        by_path = datasets.load_dataset(str(whole.output / stage / "latest"), split="train", streaming=streaming)
        assert named.features == by_path.features
        assert list(named) == list(by_path) == rows
        assert list(named.features) == list(rows[0])


def test_datasets_gives_the_newest_rows_after_another_version(small: Path) -> None:
    # It keeps what it once read under the folder's name: a stage's `latest` must not become another's, or stay an older one.
    import datasets

    for count in (2, 3):
        run(small, "--limit", count)
        for ways in ((str(small / "out"), "generate"), (str(small / "out/generate/latest"),)):
            assert len(datasets.load_dataset(*ways, split="train")) == 2 * count


# The same rows by other ways


@pytest.mark.parametrize("concurrency", [1, 256])
def test_concurrency_changes_no_byte(whole: Whole, tmp_path: Path, concurrency: int) -> None:
    write_rows(tmp_path / "prompts.jsonl", hh_rows(120))
    write_config(tmp_path)
    run(tmp_path, "--concurrency", concurrency)
    assert published(tmp_path / "out") == published(whole.output)


def test_the_ledger_replays_a_deleted_output(whole: Whole, tmp_path: Path) -> None:
    folder = whole.copy(tmp_path / "copy")
    for stage in ("critique", "debias"):
        shutil.rmtree(folder / "out" / stage)
    again = run(folder)
    assert again.asked == 0
    assert again.stages["critique"]["replayed"] > 0
    assert published(folder / "out") == published(whole.output)


def test_more_prompts_are_the_only_ones_asked(whole: Whole, tmp_path: Path) -> None:
    folder = whole.copy(tmp_path / "copy")
    write_rows(folder / "prompts.jsonl", [*hh_rows(120), *more_transcripts(30)])
    more = run(folder)
    alone = tmp_path / "alone"
    alone.mkdir()
    write_rows(alone / "prompts.jsonl", more_transcripts(30))
    write_config(alone)
    fresh = run(alone)
    assert {name: stage["requests"] for name, stage in more.stages.items()} == {
        name: stage["requests"] for name, stage in fresh.stages.items()
    }
    assert more.stages["generate"]["requests"] == 60
    assert more.stages["generate"]["rows"] == 2 * 149
    assert sorted(path.name[:5] for path in (folder / "out/revise").glob("v*")) == ["v0001", "v0002"]


def more_transcripts(count: int) -> list[dict[str, str]]:
    texts = [row["prompt"] for row in questions(count)]
    return [{"chosen": transcript(text, "Yes."), "rejected": transcript(text, "No.")} for text in texts]


def staged(tmp_path: Path, rounds: int) -> Path:
    write_rows(tmp_path / "prompts.jsonl", questions(16))
    write_config(tmp_path, revise={"rounds": rounds}, shards={"rows": 5})
    return tmp_path


PIPE = ("generate", "critique", "revise")


def piped(folder: Path, verbs: Iterable[str]) -> dict[str, bytes]:
    """What each verb writes to its stdout, reading the one before it; of a verb that comes twice, what it wrote last."""
    wrote: dict[str, bytes] = {}
    rows: bytes | None = None
    for verb in verbs:
        done = cai(folder, verb, "c.yaml", "-o", "-", *(["-i", "-"] if rows is not None else []), stdin=rows)
        assert done.code == 0, done.err
        rows = wrote[verb] = done.out.encode()
    return wrote


@pytest.mark.parametrize(("rounds", "verbs"), [(1, PIPE), (2, (*PIPE, "critique", "revise"))])
def test_the_pipe_of_stage_commands_gives_the_rows_of_run(tmp_path: Path, rounds: int, verbs: tuple[str, ...]) -> None:
    folder = staged(tmp_path, rounds)
    wrote = piped(folder, (*verbs, "label-pairs", "debias"))
    assert run(folder).asked == 0
    assert [name for name, rows in wrote.items() if name != "critique" and rows != stage_bytes(folder / "out", name)] == []


def test_three_commands_at_once_in_a_shell_pipe(tmp_path: Path) -> None:
    folder = staged(tmp_path, 1)
    silent: dict[str, Any] = {"stderr": subprocess.DEVNULL}
    first = start(folder, "generate", "c.yaml", "-o", "-", **silent)
    second = start(folder, "critique", "c.yaml", "-i", "-", "-o", "-", stdin=first.stdout, **silent)
    third = start(folder, "revise", "c.yaml", "-i", "-", "-o", "-", stdin=second.stdout)
    assert first.stdout is not None
    assert second.stdout is not None
    first.stdout.close()
    second.stdout.close()
    rows = finish(third)
    assert [first.wait(60), second.wait(60), rows.code] == [0, 0, 0]
    run(folder)
    assert rows.out.encode() == stage_bytes(folder / "out", "revise")


def test_stage_commands_one_after_another_give_the_rows_of_run(tmp_path: Path) -> None:
    folder = staged(tmp_path, 2)
    for verb in ("generate", "critique", "revise", "critique", "revise", "label-pairs", "debias"):
        run(folder, "-o", "steps", verb=verb)
    run(folder)
    for stage in ("generate", "revise", "label-pairs", "debias"):
        assert stage_bytes(folder / "steps", stage) == stage_bytes(folder / "out", stage), stage


def test_critique_and_revise_go_on_until_nothing_is_open(tmp_path: Path) -> None:
    folder = staged(tmp_path, 2)
    run(folder, verb="generate")
    asked = []
    for _ in range(4):
        asked.append([run(folder, verb=verb).asked for verb in ("critique", "revise")])
    assert asked[0][0] == 32
    assert asked[1] > [0, 0]
    assert asked[2] == asked[3] == [0, 0]
    assert all(row["stopped_by"] for row in rows_of(folder / "out/revise/latest"))
    assert len(list((folder / "out/critique").glob("v*"))) == len(list((folder / "out/revise").glob("v*"))) == 2
    assert "is left to critique; nothing was asked" in cai(folder, "critique", "c.yaml").last


def test_single_stages_after_a_run_find_what_it_made(tmp_path: Path) -> None:
    folder = staged(tmp_path, 2)
    run(folder)
    for verb in ("revise", "label-pairs", "debias", "run"):
        assert "nothing was asked" in cai(folder, verb, "c.yaml").last, verb
    assert [path.name[:5] for path in (folder / "out").glob("*/v*")] == ["v0001"] * 5


def test_a_config_that_is_what_it_was_comes_back_to_its_versions(tmp_path: Path) -> None:
    folder = staged(tmp_path, 1)
    run(folder)
    first = (folder / "out/revise/latest").readlink()
    run(folder, "--seed", 8)
    assert (folder / "out/revise/latest").readlink() != first
    assert "nothing was asked" in cai(folder, "run", "c.yaml").last
    assert (folder / "out/revise/latest").readlink() == first
    assert f"revise/{first.name}/" in (folder / "out/README.md").read_text()
    assert cai(folder, "verify", "c.yaml").code == 0


@pytest.mark.parametrize(("unreadable", "code", "said"), [(0.2, 0, "warning: "), (0.5, 75, "votes are none")])
def test_a_labeler_that_cannot_be_read_is_told_of_then_stopped(tmp_path: Path, unreadable: float, code: int, said: str) -> None:
    write_rows(tmp_path / "prompts.jsonl", questions(120))
    model = {**SIMULATED, "world": {"unreadable_rate": unreadable}}
    write_config(tmp_path, model=model, critique=None, revise=None, debias=None, limits={"max_reject_rate": 1})
    done = cai(tmp_path, "run", "c.yaml")
    assert done.code == code, done.err
    assert said in done.err
    if code:
        assert not (tmp_path / "out/label-pairs").exists()
        assert run(tmp_path, "--set", "limits.max_abstain_rate=1").code == 0


# Options


@pytest.fixture
def small(tmp_path: Path) -> Path:
    write_rows(tmp_path / "prompts.jsonl", questions(12))
    write_config(tmp_path, **JUST_GENERATE, shards={"rows": 5})
    return tmp_path


def test_limit_takes_the_first_prompts(small: Path) -> None:
    assert run(small, "--limit", 7).stages["generate"]["rows"] == 14
    rest = run(small)
    assert (rest.asked, rest.stages["generate"]["rows"]) == (10, 24)
    prompts = [row["prompt"] for row in questions(12)]
    assert [row["prompt"] for row in rows_of(small / "out/generate/latest")][::2] == prompts


def test_seed_and_set_override_the_config(tmp_path: Path) -> None:
    folder = staged(tmp_path, 1)
    run(folder)
    run(folder, "--seed", 8, "-o", "reseeded")
    assert stage_bytes(folder / "reseeded", "generate") == stage_bytes(folder / "out", "generate")
    assert critiqued_by(folder / "reseeded") != critiqued_by(folder / "out")
    run(folder, "--set", "generate.samples=1", "--set", "label_pairs.pairs=initial_vs_revised", "-o", "one")
    assert len(rows_of(folder / "one/generate/latest")) == 16


def critiqued_by(output: Path) -> list[str]:
    return [row["rounds"][0]["critiques"][0]["principle"] for row in rows_of(output / "revise/latest")]


def test_the_environment_stands_between_flags_and_config(small: Path) -> None:
    env = {"CAI_OUTPUT": "elsewhere"}
    assert cai(small, "run", "c.yaml", env=env).code == 0
    assert cai(small, "run", "c.yaml", "-o", "flagged", env=env).code == 0
    assert [(small / name).exists() for name in ("elsewhere", "flagged", "out")] == [True, True, False]


def test_keep_prunes_old_versions(small: Path) -> None:
    for count in (3, 4, 5, 6):
        run(small, "--limit", count, *(["--keep", 2] if count == 6 else []))
    assert sorted(path.name[:5] for path in (small / "out/generate").glob("v*")) == ["v0003", "v0004"]
    assert len(rows_of(small / "out/generate/latest")) == 12


def test_a_test_split_holds_the_same_prompts_in_every_stage(tmp_path: Path) -> None:
    import datasets

    write_rows(tmp_path / "prompts.jsonl", questions(60))
    write_config(tmp_path, split={"test": 0.3})
    run(tmp_path)
    held_out = {row["prompt_id"] for row in rows_of(tmp_path / "out/generate/latest", "test-*")}
    assert 8 <= len(held_out) <= 30
    for stage in STAGES:
        version = tmp_path / "out" / stage / "latest"
        assert {row["prompt_id"] for row in rows_of(version, "test-*")} <= held_out
        assert held_out.isdisjoint(row["prompt_id"] for row in rows_of(version, "train-*"))
        loaded = datasets.load_dataset(str(tmp_path / "out"), stage)
        assert {split: len(rows) for split, rows in loaded.items()} == {
            split: len(rows_of(version, f"{split}-*")) for split in ("train", "test")
        }


def test_gzip_shards_hold_the_same_rows_and_load(small: Path) -> None:
    import datasets

    run(small)
    plain = rows_of(small / "out/generate/latest")
    run(small, "--set", "shards.compression=gzip")
    version = small / "out/generate/latest"
    assert [path.name for path in sorted(version.glob("*.gz"))] == [f"train-0000{n}-of-00003.jsonl.gz" for n in range(3)]
    assert rows_of(version) == plain == list(datasets.load_dataset(str(version), split="train"))


def test_quiet_says_nothing_and_dry_run_asks_nothing(small: Path) -> None:
    planned = cai(small, "run", "c.yaml", "--dry-run", "--json")
    assert planned.code == 0, planned.err
    assert not (small / "out/generate").exists()
    quiet = cai(small, "run", "c.yaml", "-q")
    assert (quiet.code, quiet.out, quiet.err) == (0, "", "")


# Exit codes


def refused(folder: Path, code: int, *arguments: object, env: dict[str, str | None] | None = None) -> str:
    """What a command says that must end with this code, and leave no version."""
    done = cai(folder, *arguments, env=env)
    assert done.code == code, done.err
    assert "Traceback" not in done.err
    assert list((folder / "out").glob("*/v*")) == []
    return done.err


def test_a_wrong_config_exits_2_with_its_line(small: Path) -> None:
    (small / "bad.yaml").write_text("name: bad\noutput: out\ngenerate: {sampels: 2}\n")
    said = refused(small, 2, "run", "bad.yaml")
    assert "bad.yaml:3" in said
    assert "did you mean 'samples'" in said
    assert "no `critique` section" in refused(small, 2, "critique", "c.yaml")
    refused(small, 2, "run", "missing.yaml")
    refused(small, 2, "run", "c.yaml", "--limit", "none")


@pytest.mark.parametrize(
    "data",
    [b"", b"\n\n", b'{"id": "x", "prompt": "a"}\n{"id": "x", "prompt": "b"}\n', gzip.compress(b'{"prompt": "a"}\n' * 999)[:-9]],
    ids=["empty", "blank", "duplicate-ids", "cut-gzip"],
)
def test_input_that_cannot_be_used_exits_65_before_anything_is_asked(small: Path, data: bytes) -> None:
    (small / "prompts.jsonl").write_bytes(data)
    assert "prompts.jsonl" in refused(small, 65, "run", "c.yaml")


def test_a_stage_without_its_input_exits_65(tmp_path: Path) -> None:
    folder = staged(tmp_path, 1)
    assert "cai generate" in refused(folder, 65, "critique", "c.yaml")


def test_more_rejects_than_allowed_exit_3_with_a_whole_version(small: Path) -> None:
    write_rows(small / "prompts.jsonl", [*questions(6), *({"prompt": " "} for _ in range(6))])
    done = cai(small, "run", "c.yaml", "--json")
    assert (done.code, done.stages["generate"]["rejected"]) == (3, {"empty_prompt": 6})
    assert not unbalanced(manifests(small / "out")["generate"])
    assert "cai show" in done.last
    again = cai(small, "run", "c.yaml", "--json")
    assert (again.code, again.asked) == (3, 0)


def test_a_missing_key_exits_77_and_names_the_variable(small: Path) -> None:
    write_config(small, model={"provider": "anthropic", "name": "any-model"}, **JUST_GENERATE)
    env: dict[str, str | None] = {"ANTHROPIC_API_KEY": None, "ANTHROPIC_BASE_URL": None}
    assert "ANTHROPIC_API_KEY" in refused(small, 77, "run", "c.yaml", env=env)


# One writer


def wait_for_lock(folder: Path, process: Any) -> None:
    """Return when the run holds its output."""
    lock = folder / "out/.cai/lock"
    for _ in range(1000):
        if lock.exists() and _is_held(lock):
            return
        assert process.poll() is None
        time.sleep(0.02)
    raise AssertionError("the run never took the lock")


def _is_held(lock: Path) -> bool:
    descriptor = os.open(lock, os.O_RDWR)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return lock.stat().st_size > 0
    finally:
        os.close(descriptor)
    return False


def test_a_second_writer_is_told_who_holds_the_output(small: Path) -> None:
    slow = {"provider": "simulated", "name": "small-world", "world": {"latency_ms": 4000}}
    write_config(small, model=slow, **JUST_GENERATE)
    first = start(small, "run", "c.yaml", "--concurrency", 12)
    wait_for_lock(small, first)
    refused_now = cai(small, "run", "c.yaml")
    skipped = cai(small, "run", "c.yaml", "--if-locked", "skip")
    waiting = start(small, "run", "c.yaml", "--if-locked", "wait", "--json")
    assert refused_now.code == 75
    assert f"process {first.pid}" in refused_now.err
    assert "since 20" in refused_now.err
    assert skipped.code == 0
    assert "skipped" in skipped.err
    assert finish(first).code == 0
    waited = finish(waiting)
    assert (waited.code, waited.asked) == (0, 0)
