"""`cai retry`: rows that failed are asked again, they alone; the rest comes out of the ledger, in the same bytes every time."""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback import CALM, Server, serve
from outside import Cai, Done, at, finish, manifests, published, questions, rows_of, start, unbalanced, write_config, write_rows
from outside import cai as outside_cai

Run = Callable[..., Done]
PROMPTS = 24
SHAKY = {"provider": "simulated", "name": "small-world", "world": {"empty_rate": 0.3, "unreadable_rate": 0.3}}
LENIENT = {"max_reject_rate": 1.0, "max_abstain_rate": 1.0, "concurrency": 8}


def prepare(folder: Path, **sections: Any) -> Path:
    folder.mkdir(exist_ok=True)
    write_rows(folder / "prompts.jsonl", [{"id": f"q{n}", **one} for n, one in enumerate(questions(PROMPTS))])
    return write_config(folder, **{"model": SHAKY, "limits": LENIENT, **sections})


@pytest.fixture(scope="module")
def shaky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in which rows of several stages were rejected."""
    folder = tmp_path_factory.mktemp("shaky")
    prepare(folder)
    assert outside_cai(folder, "run", "c.yaml").code == 0
    return folder


@pytest.fixture
def folder(shaky: Path, tmp_path: Path) -> Path:
    """A copy of that run."""
    return Path(shutil.copytree(shaky, tmp_path / "run", symlinks=True))


@pytest.fixture
def cai(cai: Cai, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `cai` in a folder, in this process."""

    def run(folder: Path, *arguments: object) -> Done:
        monkeypatch.chdir(folder)
        return Done(*cai(*arguments))

    return run


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve() as running:
        yield running


def rejected(folder: Path, stage: str, reason: str = "") -> set[str]:
    """Ids of the rows that the newest version of a stage rejected, for a reason or for any."""
    path = folder / "out" / stage / "latest" / "_rejects.jsonl"
    rows = [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []
    return {row["id"] for row in rows if reason in ("", row["reason"])}


def bought(folder: Path, state: str = "out/.cai") -> int:
    with sqlite3.connect(folder / state / "ledger.sqlite") as db:
        return int(db.execute("SELECT count(*) FROM replies").fetchone()[0])


# What is asked again


def test_only_what_failed_is_asked_and_the_old_version_stays(cai: Run, folder: Path) -> None:
    before, kept = manifests(folder / "out"), published(folder / "out")
    failed = rejected(folder, "critique", "no_severity")
    assert failed
    done = cai(folder, "retry", "c.yaml", "--only", "no_severity", "--json")
    assert done.code == 0, done.err
    after, told = manifests(folder / "out"), json.loads(done.out)["retried"]
    assert told["rows"] == len(failed)
    assert told["mended"] + sum(told["again"].values()) == told["rows"]
    assert told["mended"] == len(failed - rejected(folder, "critique") - rejected(folder, "revise"))
    assert after["generate"] == before["generate"], "nothing of it failed for this"
    assert after["critique"]["version"].startswith("v0002-")
    assert done.stages["generate"]["requests"] == 0
    now = published(folder / "out")
    assert {name: digest for name, digest in kept.items() if "v0001" in name}.items() <= now.items()
    assert [stage for stage, one in after.items() if unbalanced(one)] == []
    untouched = {row["id"]: row for row in rows_of(folder / "out/critique" / before["critique"]["version"])}
    rows = {row["id"]: row for row in rows_of(folder / "out/critique/latest")}
    assert {one: rows.get(one) for one in untouched} == untouched
    assert set(rows) - set(untouched) <= failed


def test_afterwards_a_plain_run_has_nothing_to_do(cai: Run, folder: Path) -> None:
    assert cai(folder, "retry", "c.yaml", "--only", "empty,no_severity").code == 0
    there = published(folder / "out")
    again = cai(folder, "run", "c.yaml")
    assert (again.code, "nothing new" in again.last) == (0, True), again.err
    assert published(folder / "out") == there
    assert cai(folder, "verify", "c.yaml").code == 0


def test_without_its_file_the_run_comes_back_to_what_it_was(cai: Run, folder: Path) -> None:
    before, kept = manifests(folder / "out"), bought(folder)
    assert cai(folder, "retry", "c.yaml", "--only", "empty").code == 0
    assert bought(folder) > kept
    (folder / "out/.cai/retries.json").unlink()
    assert cai(folder, "run", "c.yaml").code == 0
    assert manifests(folder / "out") == before


def test_the_same_retry_gives_the_same_bytes_elsewhere(cai: Run, folder: Path, tmp_path: Path) -> None:
    other = prepare(tmp_path / "other", limits=LENIENT | {"concurrency": 1}).parent
    assert cai(other, "run", "c.yaml").code == 0
    for one in (folder, other):
        assert cai(one, "retry", "c.yaml", "--only", "no_severity").code == 0
    assert published(folder / "out") == published(other / "out")


def test_until_nothing_is_left_and_then_it_says_so(cai: Run, folder: Path) -> None:
    for _ in range(12):
        done = cai(folder, "retry", "c.yaml", "--only", "empty")
        assert done.code == 0, done.err
        if "nothing new" in done.last:
            break
    assert not any(rejected(folder, stage, "empty") for stage in ("generate", "critique", "revise", "label-pairs"))
    assert "no row was rejected, or kept with a flag, for empty" in done.last
    assert "nothing was asked" in done.last


def test_a_limit_takes_the_first_rows(cai: Run, folder: Path) -> None:
    done = cai(folder, "retry", "c.yaml", "--only", "no_severity", "--limit", 2, "--json")
    assert json.loads(done.out)["retried"]["rows"] == 2
    document = json.loads((folder / "out/.cai/retries.json").read_bytes())
    rejects = next((folder / "out/critique").glob("v0001-*")) / "_rejects.jsonl"
    rows = [json.loads(line) for line in rejects.read_bytes().splitlines()]
    first = [row["id"] for row in rows if row["reason"] == "no_severity"][:2]
    assert list(dict.fromkeys(one["id"] for one in document["batches"][0]["questions"])) == first


# Invariants


def test_an_output_that_shares_the_ledger_is_not_changed(cai: Run, tmp_path: Path) -> None:
    prepare(tmp_path, state="state")
    assert cai(tmp_path, "run", "c.yaml").code == 0
    assert cai(tmp_path, "run", "c.yaml", "-o", "other").code == 0
    there, paid = published(tmp_path / "other"), bought(tmp_path, "state")
    assert cai(tmp_path, "retry", "c.yaml", "--only", "empty,no_severity").code == 0
    more = bought(tmp_path, "state")
    assert more > paid
    again = cai(tmp_path, "run", "c.yaml", "-o", "other")
    assert "nothing new" in again.last
    assert published(tmp_path / "other") == there
    same = cai(tmp_path, "retry", "c.yaml", "-o", "other", "--only", "empty,no_severity", "--json")
    assert same.asked == 0, "the first retry bought these replies"
    assert bought(tmp_path, "state") == more


def prepare_flaky(cai: Run, folder: Path, server: Server) -> None:
    """A run on a server that refuses the first attempt at some bodies, and answers the next one."""
    generate = {"samples": 1, "systems": [None, "Answer briefly."]}
    prepare(folder, model=at(server.url), generate=generate, shards={"rows": 5})
    # every body that names one of these things is refused, until the server is told otherwise
    server.reset(**CALM | {"fail": ["400~kite", "truncate:3~violin"]})
    assert cai(folder, "run", "c.yaml").code == 0


@pytest.mark.parametrize("resume", [("retry", "c.yaml", "--only", "rejected_by_provider,truncated"), ("run", "c.yaml")])
def test_killed_in_the_middle_either_command_goes_on(cai: Run, server: Server, tmp_path: Path, resume: tuple[str, ...]) -> None:
    prepare_flaky(cai, tmp_path, server)
    listed = json.loads(cai(tmp_path, "retry", "c.yaml", "--json").out)["retry"]
    reasons = ",".join({one["reason"] for one in listed if one["rows"] > one["cannot"]})
    resume = tuple(word.replace("rejected_by_provider,truncated", reasons) for word in resume)
    calm = Path(shutil.copytree(tmp_path, tmp_path.parent / f"{tmp_path.name}-calm", symlinks=True))
    server.reset(**CALM)
    assert cai(calm, "retry", "c.yaml", "--only", reasons).code == 0
    server.reset(**CALM | {"latency_ms": 60})
    process = start(tmp_path, "retry", "c.yaml", "--only", reasons)
    deadline = time.monotonic() + 60
    while server.stats()["total"] < 8:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.005)
    process.kill()
    assert finish(process).code == -signal.SIGKILL
    done = cai(tmp_path, *resume)
    assert done.code == 0, done.err
    assert server.stats()["repeated_ok"] <= LENIENT["concurrency"]
    assert published(tmp_path / "out") == published(calm / "out")
    assert "nothing new" in cai(tmp_path, "run", "c.yaml").last


def test_what_was_begun_and_not_asked_is_asked_first_or_together(cai: Run, folder: Path, tmp_path: Path) -> None:
    """As a kill leaves it right after the file of retries was written."""
    begun, other = (Path(shutil.copytree(folder, tmp_path / name, symlinks=True)) for name in ("begun", "other"))
    assert cai(folder, "retry", "c.yaml", "--only", "no_severity").code == 0
    for one in (begun, other):
        shutil.copy(folder / "out/.cai/retries.json", one / "out/.cai/retries.json")
    assert json.loads(cai(begun, "retry", "c.yaml", "--json").out)["begun"] > 0
    assert cai(begun, "retry", "c.yaml", "--only", "no_severity").code == 0
    assert published(begun / "out") == published(folder / "out")
    empty = {(stage, one) for stage in manifests(other / "out") for one in rejected(other, stage, "empty")}
    severe = rejected(other, "critique", "no_severity")
    told = json.loads(cai(other, "retry", "c.yaml", "--only", "empty", "--json").out)["retried"]
    assert told["rows"] == len(empty) + len(severe)
    assert len(json.loads((other / "out/.cai/retries.json").read_bytes())["batches"]) == 2
    assert "nothing new" in cai(other, "run", "c.yaml").last


def test_a_stream_has_the_rows_of_the_versions(cai: Run, folder: Path) -> None:
    assert cai(folder, "retry", "c.yaml", "--only", "empty").code == 0
    streamed = [json.loads(line) for line in cai(folder, "generate", "c.yaml", "-o", "-").out.splitlines()]
    assert streamed == rows_of(folder / "out/generate/latest")


# Flags, refusals, places


def test_what_was_cut_off_is_asked_again_with_more_tokens_for_these_rows_only(cai: Run, server: Server, tmp_path: Path) -> None:
    prepare(tmp_path, model=at(server.url, max_tokens=40), generate={"samples": 1}, critique=None, revise=None, label_pairs=None,
            debias=None)  # fmt: skip
    server.reset(**CALM)
    assert cai(tmp_path, "run", "c.yaml").code == 0
    before = {row["id"]: row for row in rows_of(tmp_path / "out/generate/latest")}
    cut = {one for one, row in before.items() if row["truncated"]}
    assert cut
    asked = server.stats()["total"]
    done = cai(tmp_path, "retry", "c.yaml", "--only", "truncated", "--max-tokens", 4000, "--json")
    assert done.code == 0, done.err
    assert server.stats()["total"] - asked == len(cut)
    after = {row["id"]: row for row in rows_of(tmp_path / "out/generate/latest")}
    assert not any(row["truncated"] for row in after.values())
    assert {one for one, row in after.items() if row != before[one]} == cut
    assert "nothing new" in cai(tmp_path, "retry", "c.yaml", "--only", "truncated").last


def test_a_refusal_that_is_asked_again_is_told_to_bias_the_data(cai: Run, server: Server, tmp_path: Path) -> None:
    prepare(tmp_path, model=at(server.url), generate={"samples": 1}, critique=None, revise=None, label_pairs=None, debias=None)
    server.reset(**CALM | {"fail": ["refusal~kite"]})
    assert cai(tmp_path, "run", "c.yaml").code == 0
    refused = {row["id"] for row in rows_of(tmp_path / "out/generate/latest") if row["refused"]}
    assert refused
    done = cai(tmp_path, "retry", "c.yaml", "--only", "refused", "--json")
    assert "biases the data" in done.err
    assert json.loads(done.out)["retried"]["again"] == {"refused": len(refused)}
    server.reset(**CALM)
    assert json.loads(cai(tmp_path, "retry", "c.yaml", "--only", "refused", "--json").out)["retried"]["mended"] == len(refused)
    assert not any(row["refused"] for row in rows_of(tmp_path / "out/generate/latest"))


def test_what_the_provider_refused_is_asked_again(cai: Run, server: Server, tmp_path: Path) -> None:
    prepare(tmp_path, model=at(server.url), generate={"samples": 1}, critique=None, revise=None, label_pairs=None, debias=None)
    server.reset(**CALM | {"fail": ["400~kite"]})
    assert cai(tmp_path, "run", "c.yaml").code == 0
    (reason,) = {one["reason"] for one in json.loads(cai(tmp_path, "retry", "c.yaml", "--json").out)["retry"]}
    server.reset(**CALM)
    assert json.loads(cai(tmp_path, "retry", "c.yaml", "--only", reason, "--json").out)["retried"]["mended"] == PROMPTS // 6
    assert len(rows_of(tmp_path / "out/generate/latest")) == PROMPTS


def test_a_row_of_the_input_cannot_be_asked_again_and_its_place_is_told(cai: Run, folder: Path) -> None:
    with (folder / "prompts.jsonl").open("a") as file:
        file.write('{"prompt": 3}\n')
    assert cai(folder, "run", "c.yaml").code == 0
    done = cai(folder, "retry", "c.yaml", "--only", "wrong_type")
    assert (done.code, f"prompts.jsonl:{PROMPTS + 1}" in done.last) == (0, True), done.err
    assert not (folder / "out/.cai/retries.json").exists()


# What there is


def test_without_a_reason_it_lists_them_and_asks_nothing(cai: Run, folder: Path) -> None:
    there = published(folder / "out")
    done = cai(folder, "retry", "c.yaml")
    assert done.code == 2
    assert "hint: cai retry c.yaml --only " in done.last
    assert done.out.splitlines()[0].split() == ["reason", "stage", "rows", "requests", "at", "most", "what"]
    listed = {(one["stage"], one["reason"]): one for one in json.loads(cai(folder, "retry", "c.yaml", "--json").out)["retry"]}
    counts = {(stage, reason): n for stage, one in manifests(folder / "out").items() for reason, n in one["rejected"].items()}
    assert {key: one["rows"] for key, one in listed.items()} == counts
    assert all(one["calls"] >= one["rows"] for one in listed.values())
    assert published(folder / "out") == there


def test_a_dry_run_counts_what_the_retry_then_asks_at_least(cai: Run, folder: Path) -> None:
    said = json.loads(cai(folder, "retry", "c.yaml", "--only", "no_severity", "--dry-run", "--json").out)["retry"]
    done = cai(folder, "retry", "c.yaml", "--only", "no_severity", "--json")
    assert sum(one["calls"] for one in said) == pytest.approx(done.asked, rel=0.35)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--only", "no_severty"), "did you mean 'no_severity'?"),
        (("--only", ","), "cai retry c.yaml"),
        (("--only", "empty", "--set", "generate.samples=3"), "cai run c.yaml"),
        (("--only", "empty", "-o", "nowhere"), "cai run c.yaml"),
        (("--only", "empty", "-i", "-"), "-i"),
    ],
)
def test_a_mistake_is_told_with_what_to_type(cai: Run, folder: Path, arguments: tuple[str, ...], said: str) -> None:
    done: Done = cai(folder, "retry", "c.yaml", *arguments)
    assert done.code in (2, 65), done.err
    assert done.last.startswith("hint: ")
    assert said in done.last


def test_stage_by_stage_the_first_that_failed_is_retried_and_the_rest_is_named(cai: Run, tmp_path: Path) -> None:
    prepare(tmp_path)
    for stage in ("generate", "critique", "revise"):
        assert cai(tmp_path, stage, "c.yaml").code == 0
    failed = rejected(tmp_path, "generate", "empty")
    assert failed
    done = cai(tmp_path, "retry", "c.yaml", "--only", "empty", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["retried"]["stages"] == ["generate"]
    assert "cai critique c.yaml" in done.last
    assert manifests(tmp_path / "out")["critique"]["version"].startswith("v0001-")


def test_a_run_that_was_limited_is_retried_as_it_was(cai: Run, tmp_path: Path) -> None:
    prepare(tmp_path)
    assert cai(tmp_path, "run", "c.yaml", "--limit", 12).code == 0
    done = cai(tmp_path, "retry", "c.yaml", "--only", "empty,no_severity", "--json")
    assert done.code == 0, done.err
    assert manifests(tmp_path / "out")["critique"]["prompts"] == 12
    assert "nothing new" in cai(tmp_path, "run", "c.yaml", "--limit", 12).last


# What a stopped retry leaves


def test_killed_before_the_table_the_same_command_ends_it_and_buys_nothing(cai: Run, folder: Path, tmp_path: Path) -> None:
    command = ("retry", "c.yaml", "--only", "no_severity")
    assert cai(folder, *command).code == 0
    killed = Path(shutil.copytree(folder, tmp_path / "killed", symlinks=True))
    table = killed / "out/debias"
    first, second = sorted(table.glob("v000*"))
    shutil.rmtree(second)
    (table / "latest").unlink()
    (table / "latest").symlink_to(first.name)
    paid = bought(killed)
    assert cai(killed, *command).code == 0
    assert bought(killed) == paid
    assert published(killed / "out") == published(folder / "out")


@pytest.mark.parametrize("first", [("retry", "c.yaml", "--only", "no_severity"), ("run", "c.yaml")])
def test_killed_when_all_was_published_it_is_not_begun_again(cai: Run, folder: Path, first: tuple[str, ...]) -> None:
    """The file of retries as a kill leaves it right before the end is written down."""
    command = ("retry", "c.yaml", "--only", "no_severity")
    assert cai(folder, *command).code == 0
    there, paid, file = published(folder / "out"), bought(folder), folder / "out/.cai/retries.json"
    whole = file.read_bytes()
    file.write_bytes(whole.replace(b'"ended": true', b'"ended": false'))
    done = cai(folder, *first)
    assert (done.code, "nothing new" in done.last) == (0, True), done.err
    assert (published(folder / "out"), bought(folder), file.read_bytes()) == (there, paid, whole)


def test_a_look_tells_what_is_begun_and_what_is_left(cai: Run, folder: Path, tmp_path: Path) -> None:
    begun = Path(shutil.copytree(folder, tmp_path / "begun", symlinks=True))
    done = cai(folder, "retry", "c.yaml", "--only", "no_severity", "--json")
    shutil.copy(folder / "out/.cai/retries.json", begun / "out/.cai/retries.json")
    for more in ((), ("--only", "no_severity", "--dry-run"), ("--only", "empty", "--dry-run")):
        looked = cai(begun, "retry", "c.yaml", *more, "--json")
        (one,) = [one for one in json.loads(looked.out)["retry"] if one["reason"] == "no_severity"]
        assert (one["begun"], one["cannot"]) == (one["rows"], 0)
        assert one["calls"] == pytest.approx(done.asked, rel=0.35)
        assert "retry --only no_severity" in looked.err.replace("retry c.yaml", "retry"), looked.err
    shutil.copy(folder / "out/.cai/ledger.sqlite", begun / "out/.cai/ledger.sqlite")
    (one,) = [one for one in json.loads(cai(begun, "retry", "c.yaml", "--json").out)["retry"] if one["reason"] == "no_severity"]
    assert (one["begun"], one["calls"]) == (one["rows"], 0), "all of it was answered before the stop"


# Others that share the output, and more rows


def test_another_config_of_the_output_keeps_its_versions(cai: Run, folder: Path) -> None:
    assert cai(folder, "run", "c.yaml", "--seed", 8).code == 0
    assert cai(folder, "run", "c.yaml").code == 0
    assert cai(folder, "retry", "c.yaml", "--only", "empty,no_severity").code == 0
    there = cai(folder, "run", "c.yaml", "--seed", 8)
    assert "nothing new" in there.last
    again = cai(folder, "retry", "c.yaml", "--seed", 8, "--only", "empty", "--json")
    assert again.code == 0
    assert json.loads(again.out)["retried"]["rows"] > 0
    assert "nothing new" in cai(folder, "run", "c.yaml").last, "nor does its retry touch the first"


def test_more_input_keeps_what_was_mended(cai: Run, folder: Path) -> None:
    assert cai(folder, "retry", "c.yaml", "--only", "no_severity").code == 0
    before = {row["id"]: row for row in rows_of(folder / "out/critique/latest")}
    with (folder / "prompts.jsonl").open("a") as file:
        file.write(json.dumps({"id": "one-more", "prompt": "How do I mend a clock?"}) + "\n")
    assert cai(folder, "run", "c.yaml").code == 0
    after = {row["id"]: row for row in rows_of(folder / "out/critique/latest")}
    assert {one: after.get(one) for one in before} == before


# What is said


def test_a_limit_goes_on_to_rows_that_were_not_retried_yet(cai: Run, server: Server, tmp_path: Path) -> None:
    prepare(tmp_path, model=at(server.url), generate={"samples": 1}, critique=None, revise=None, label_pairs=None, debias=None)
    server.reset(**CALM | {"fail": ["refusal~kite"]})
    assert cai(tmp_path, "run", "c.yaml").code == 0
    for _ in range(3):
        assert cai(tmp_path, "retry", "c.yaml", "--only", "refused", "--limit", 2).code == 0
    batches = json.loads((tmp_path / "out/.cai/retries.json").read_bytes())["batches"]
    first, second, third = ({one["id"] for one in batch["questions"]} for batch in batches)
    assert (len(first), len(second), first & second) == (2, 2, set())
    assert third == first, "all four were retried as often: from the front again"


def test_hints_have_the_flags_that_were_typed(cai: Run, folder: Path) -> None:
    flags = ("-i", "prompts.jsonl", "-o", "other", "--set", "generate.samples=1", "--seed", "9")
    line = " ".join(("c.yaml", *flags))
    assert cai(folder, "retry", "c.yaml", *flags).last.endswith(f"cai run {line}")
    assert cai(folder, "run", "c.yaml", *flags).code == 0
    assert f"cai retry {line} --only " in cai(folder, "retry", "c.yaml", *flags).last
    assert cai(folder, "retry", "c.yaml", *flags, "--only", ",").last.endswith(f"cai retry {line}")


def test_a_stage_behind_another_is_retried_where_it_is_named(cai: Run, tmp_path: Path) -> None:
    prepare(tmp_path)
    for stage in ("generate", "critique"):
        assert cai(tmp_path, stage, "c.yaml").code == 0
    failed = rejected(tmp_path, "critique", "empty")
    assert failed
    assert rejected(tmp_path, "generate", "empty")
    looked = cai(tmp_path, "retry", "c.yaml", "--json")
    assert {"generate", "critique"} == {one["stage"] for one in json.loads(looked.out)["retry"]}
    assert "stages made one by one: generate, critique" in looked.err
    done = json.loads(cai(tmp_path, "retry", "c.yaml", "--only", "empty", "--stage", "critique", "--json").out)["retried"]
    assert (done["stages"], done["rows"]) == (["critique"], len(failed))
    assert "there are generate, critique" in cai(tmp_path, "retry", "c.yaml", "--only", "empty", "--stage", "critic").last


def test_what_a_run_made_goes_on_with_a_run(cai: Run, tmp_path: Path) -> None:
    prepare(tmp_path)
    assert cai(tmp_path, "run", "c.yaml").code == 0
    done = cai(tmp_path, "retry", "c.yaml", "--set", "revise.rounds=3", "--only", "empty", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["retried"]["stages"] == ["generate"]
    rest = "critique, revise, label-pairs and debias rest on older rows now"
    assert done.last == f"cai: {rest}; go on with: cai run c.yaml --set revise.rounds=3"


def test_where_every_row_fails_again_it_says_that_rows_are_the_same(cai: Run, server: Server, tmp_path: Path) -> None:
    prepare(tmp_path, model=at(server.url), generate={"samples": 1}, critique=None, revise=None, label_pairs=None, debias=None)
    server.reset(**CALM | {"fail": ["refusal~kite"]})
    assert cai(tmp_path, "run", "c.yaml").code == 0
    before = rows_of(tmp_path / "out/generate/latest")
    done = cai(tmp_path, "retry", "c.yaml", "--only", "refused", "--json")
    assert "hold the same rows" in done.last
    assert json.loads(done.out)["retried"]["changed"] is False
    assert rows_of(tmp_path / "out/generate/latest") == before
    server.reset(**CALM)
    assert "the same rows" not in cai(tmp_path, "retry", "c.yaml", "--only", "refused").err


def test_rows_of_several_stages_are_counted_once_each(cai: Run, server: Server, tmp_path: Path) -> None:
    prepare(tmp_path, model=at(server.url))
    server.reset(**CALM | {"fail": ["truncate:3~violin"]})
    assert cai(tmp_path, "run", "c.yaml").code == 0
    listed = json.loads(cai(tmp_path, "retry", "c.yaml", "--json").out)["retry"]
    reasons = {one["reason"] for one in listed if one["rows"] > one["cannot"]}
    places = [
        {row["id"] for row in rows_of(tmp_path / "out/generate/latest") if row["truncated"]},
        rejected(tmp_path, "critique"),
    ]
    assert places[0] & places[1], "rows that failed in both"
    told = json.loads(cai(tmp_path, "retry", "c.yaml", "--only", ",".join(reasons), "--json").out)["retried"]
    assert sum(told["again"].values()) == told["rows"]
    assert told["mended"] == 0


def test_without_its_ledger_it_says_that_it_is_gone(cai: Run, folder: Path) -> None:
    for path in (folder / "out/.cai").glob("ledger.sqlite*"):
        path.unlink()
    for more in ((), ("--only", "empty")):
        done = cai(folder, "retry", "c.yaml", *more)
        assert (done.code, "ledger.sqlite is gone" in done.err) == (65, True), done.err
        assert "cai run c.yaml" in done.last


def test_without_a_file_of_rows_it_points_to_verify(cai: Run, folder: Path) -> None:
    next((folder / "out/generate/latest/").glob("*-of-*")).unlink()
    done = cai(folder, "retry", "c.yaml", "-o", "out")
    assert (done.code, done.last.endswith("cai verify c.yaml -o out")) == (65, True), done.err


def test_a_stream_has_nothing_to_retry(cai: Run, folder: Path) -> None:
    done = cai(folder, "retry", "c.yaml", "-o", "-", "--only", "empty")
    assert (done.code, "leave -o out: cai retry c.yaml" in done.last) == (2, True), done.err


@pytest.mark.parametrize("verb", ["retry", "diff"])
def test_alone_it_prints_its_help(cai: Run, tmp_path: Path, verb: str) -> None:
    done = cai(tmp_path, verb)
    assert f"Usage: cai {verb} " in done.out + done.err
