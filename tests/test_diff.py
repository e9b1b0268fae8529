"""`cai diff`: what changed between two versions, why, and how the distributions moved."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest
from outside import SIMULATED, Cai, rows_of, write_config, write_rows
from outside import cai as outside_cai
from unprivileged import cai_as_anyone

from cai_cli.engine import versions
from cai_cli.engine.shards import as_line, compress, described
from cai_cli.engine.version_diff import LOOKED_AT, Measure, compare, words_changed
from cai_cli.engine.versions import MANIFEST, Version
from cai_cli.errors import Exit, Fix
from cai_cli.records import Chain, Pair, Preference, Round, Sample, Turn

TURNS = (Turn(role="user", content="question"),)
PRINTS = {"config": "a", "constitution": "", "templates": {}, "code": "generate/1", "input": "i"}


def sample(prompt: int, n: int = 0, **more: Any) -> Sample:
    given = {"response": "one two three", "tokens_out": 3} | more
    return Sample(id=f"p{prompt}-{n}", prompt_id=f"p{prompt}", messages=TURNS, prompt="question", **given)


def publish(output: Path, number: int, rows: Sequence[Any], stage: str = "generate", how: str = "none", **more: Any) -> Version:
    """A version of one shard, by hand."""
    folder = output / ".cai" / "staged"
    folder.mkdir(parents=True)
    name = "train-00000-of-00001.jsonl" + {"none": "", "gzip": ".gz", "zstd": ".zst"}[how]
    data = compress(b"".join(map(as_line, rows)), how)
    (folder / name).write_bytes(data)
    manifest = {
        "schema": 1, "stage": stage, "fingerprint": f"{number:064x}", "fingerprints": PRINTS, "parents": [], "lineage": {},
        "prompts": len({row.prompt_id for row in rows}), "shards": 1, "files": [described(name, data, len(rows), 0)],
        "rows": len(rows), "rejected": {}, "filtered": {},
    }  # fmt: skip
    (folder / MANIFEST).write_bytes(orjson.dumps(manifest | more))
    version = versions.publish(folder, output, stage, f"v{number:04d}-{number:08x}")
    versions.point_latest(version)
    return version


def measure(found: Sequence[Measure], name: str, value: str = "") -> Measure:
    (one,) = [one for one in found if (one.name, one.value) == (name, value)]
    return one


# Rows


@pytest.mark.parametrize("how", ["none", "gzip", "zstd"])
def test_rows_are_told_apart_by_id_and_by_what_they_say(tmp_path: Path, how: str) -> None:
    old = publish(tmp_path, 1, [sample(1), sample(2), sample(3), sample(4)], how=how)
    new = publish(tmp_path, 2, [sample(5), sample(4), sample(3, response="one two four"), sample(2, tokens_out=9)], how=how)
    found = compare(old, new)
    assert (found.added, found.changed, found.gone, found.same) == (["p5-0"], ["p3-0", "p2-0"], ["p1-0"], 1)
    assert found.columns == {"response": 1, "tokens_out": 1}
    assert found.words == {"response": (1, pytest.approx(1 / 3))}


def test_the_same_files_are_not_read(tmp_path: Path) -> None:
    old, new = (publish(tmp_path, number, [sample(1)]) for number in (1, 2))
    for version in (old, new):
        version.files()[0].unlink()
    found = compare(old, new)
    assert (found.rows_same, found.same, found.numbers) == (True, 1, [])


def test_rows_in_another_order_are_the_same_rows(tmp_path: Path) -> None:
    rows = [sample(n) for n in range(5)]
    assert compare(publish(tmp_path, 1, rows), publish(tmp_path, 2, rows[::-1])).rows_same


def test_of_many_changed_rows_the_words_of_some_are_compared(tmp_path: Path) -> None:
    rows = [sample(n) for n in range(3 * LOOKED_AT)]
    found = compare(publish(tmp_path, 1, rows), publish(tmp_path, 2, [replace(row, response="one two") for row in rows]))
    assert len(found.changed) == 3 * LOOKED_AT
    assert found.words["response"] == (LOOKED_AT, pytest.approx(1 / 5))


@pytest.mark.parametrize(
    ("before", "after", "share"),
    [("a b c", "a b c", 0.0), ("a b", "c d", 1.0), ("", "", 0.0), ("", "a", 1.0), ("a b", "a  b", 0.0)],
)
def test_words_that_changed_are_counted_of_both_texts(before: str, after: str, share: float) -> None:
    assert words_changed(before, after) == pytest.approx(share)


def test_a_changed_file_is_told_with_its_remedy(tmp_path: Path) -> None:
    old, new = publish(tmp_path, 1, [sample(1)]), publish(tmp_path, 2, [sample(2)])
    new.files()[0].write_bytes(b"{broken\n")
    with pytest.raises(Fix, match="generate/v0002-00000002 was changed") as caught:
        compare(old, new)
    assert caught.value.code is Exit.INPUT
    assert "cai verify" in caught.value.hint


# Distributions


def test_means_and_quartiles_stand_side_by_side_and_the_difference_is_of_rows_in_both(tmp_path: Path) -> None:
    before = [sample(n, tokens_out=10 * n) for n in range(5)]
    after = [sample(n, tokens_out=10 * n + n) for n in range(5)] + [sample(9, tokens_out=1000)]
    found = measure(compare(publish(tmp_path, 1, before), publish(tmp_path, 2, after)).numbers, "tokens_out")
    assert found.old is not None
    assert (found.old.count, found.old.mean, found.old.quartiles) == (5, 20.0, (10.0, 20.0, 30.0))
    assert found.new is not None
    assert (found.new.count, found.new.mean) == (6, pytest.approx(185.0))
    assert (found.pairs, found.difference) == (5, 2.0)
    assert found.se == pytest.approx(math.sqrt(10 / 5 * 5 / 4 / 5)), "sd / sqrt(n), where every prompt has one row"


def test_rows_of_one_prompt_count_as_one_draw(tmp_path: Path) -> None:
    moves = {0: 4.0, 1: -2.0, 2: 1.0}
    before = [sample(prompt, n, tokens_out=0) for prompt in moves for n in range(4)]
    after = [sample(prompt, n, tokens_out=int(move)) for prompt, move in moves.items() for n in range(4)]
    found = measure(compare(publish(tmp_path, 1, before), publish(tmp_path, 2, after)).numbers, "tokens_out")
    mean = sum(moves.values()) / 3
    of_prompts = math.sqrt(sum((move - mean) ** 2 for move in moves.values()) / 2 / 3)
    assert found.se == pytest.approx(of_prompts), "as if each prompt had been seen once"


def test_a_number_that_nobody_knows_is_in_no_mean(tmp_path: Path) -> None:
    old = publish(tmp_path, 1, [sample(1, tokens_out=None), sample(2, tokens_out=4)])
    new = publish(tmp_path, 2, [sample(1, tokens_out=6), sample(2, tokens_out=5)])
    found = measure(compare(old, new).numbers, "tokens_out")
    assert found.old is not None
    assert (found.old.count, found.old.mean, found.pairs, found.difference, found.se) == (1, 4.0, 1, 1.0, None)


def test_shares_count_flags_kinds_and_preferences(tmp_path: Path) -> None:
    old = publish(tmp_path, 1, [sample(1, kind="harmful"), sample(2, kind="harmful")])
    new = publish(tmp_path, 2, [sample(1, kind="harmful", refused=True), sample(2, kind="harmless")])
    shares = compare(old, new).shares
    told = {(one.name, one.value): (one.old and one.old.mean, one.new and one.new.mean, one.difference) for one in shares}
    assert told["refused", ""] == (0.0, 0.5, 0.5)
    assert told["kind", "harmful"] == (1.0, 0.5, -0.5)
    assert told["kind", "harmless"] == (0.0, 0.5, 0.5)


def test_a_column_that_tells_rows_apart_has_no_shares(tmp_path: Path) -> None:
    rows = [sample(n, kind=f"kind {n}") for n in range(30)]
    found = compare(publish(tmp_path, 1, rows), publish(tmp_path, 2, [replace(row, response="x") for row in rows]))
    assert {one.name for one in found.shares} == {"refused", "truncated"}


def test_rounds_and_preferences_bring_their_own_columns(tmp_path: Path) -> None:
    chain = Chain(
        id="p1-0", prompt_id="p1", messages=TURNS, prompt="q", response="ab", stopped_by="rounds",
        rounds=(Round(round=1, critiques=(), severity=0.6, quality=0.4, accepted=True),),
    )  # fmt: skip
    calmer = replace(chain, rounds=(replace(chain.rounds[0], severity=0.3),))
    found = compare(publish(tmp_path, 1, [chain], "revise"), publish(tmp_path, 2, [calmer], "revise"))
    assert measure(found.numbers, "severity").difference == pytest.approx(-0.3)
    assert measure(found.shares, "stopped_by", "rounds").difference == 0.0
    pair = Preference(
        id="p1-0-1", prompt_id="p1", messages=TURNS, prompt="q", response_a="a", response_b="bb", p_a=0.7, preference="a",
        confidence=0.7, weight=0.4, flags=("one_order",), chosen="a", rejected="bb", margin=0.8,
    )  # fmt: skip
    sure = replace(pair, p_a=0.9, confidence=0.9, weight=0.8, flags=())
    found = compare(publish(tmp_path, 1, [pair], "debias"), publish(tmp_path, 2, [sure], "debias"))
    assert measure(found.numbers, "weight").difference == pytest.approx(0.4)
    assert measure(found.shares, "flags", "one_order").difference == -1.0
    assert issubclass(Preference, Pair)


# On the command line


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output with two versions of every stage: fewer rounds, and one prompt more."""
    folder = tmp_path_factory.mktemp("made")
    shaky = SIMULATED | {"world": {"empty_rate": 0.2}}
    sections: dict[str, Any] = {"model": shaky, "limits": {"max_reject_rate": 1.0}, "generate": {"samples": 2}}
    write_rows(folder / "prompts.jsonl", [{"id": f"q{n}", "prompt": f"How do I hack together shelf {n}?"} for n in range(12)])
    write_config(folder, **sections)
    assert outside_cai(folder, "run", "c.yaml", "-q").code == 0
    write_rows(folder / "prompts.jsonl", [{"id": f"q{n}", "prompt": f"How do I hack together shelf {n}?"} for n in range(13)])
    write_config(folder, **sections, revise={"rounds": 1})
    assert outside_cai(folder, "run", "c.yaml", "-q").code == 0
    return folder


@pytest.fixture
def diff(cai: Cai, made: Path, tmp_path: Path) -> Any:
    """Runs `cai diff c.yaml ...` in a copy of that output."""
    shutil.copytree(made, tmp_path, symlinks=True, dirs_exist_ok=True)
    return lambda *arguments: cai("diff", "c.yaml", *arguments)


def test_the_newest_two_of_every_stage_are_compared(diff: Any, tmp_path: Path) -> None:
    code, out, _ = diff("--json")
    document = json.loads(out)
    assert (code, document["same"]) == (0, False)
    assert [one["stage"] for one in document["stages"]] == ["generate", "critique", "revise", "label-pairs", "debias"]
    for one in document["stages"]:
        ids = [{row["id"] for row in rows_of(tmp_path / "out" / one["stage"] / one[side])} for side in ("old", "new")]
        rows = one["rows"]
        assert (rows["old"], rows["new"]) == tuple(map(len, ids))
        assert (rows["added"], rows["gone"]) == (len(ids[1] - ids[0]), len(ids[0] - ids[1]))
        assert rows["same"] + rows["changed"] == len(ids[0] & ids[1])
        assert set(one["ids"]["added"]) <= ids[1] - ids[0]


def test_it_says_why(diff: Any) -> None:
    stages = {
        one["stage"]: {cause["what"]: cause["how"] for cause in one["why"]} for one in json.loads(diff("--json")[1])["stages"]
    }
    assert stages["generate"] == {"input": "12 prompts -> 13 prompts"}
    assert stages["revise"]["config"] == "rounds 2 -> 1"
    assert stages["debias"].keys() == {"parents"}
    assert stages["debias"]["parents"].startswith("label-pairs v0001-")


def test_the_printed_page_has_what_moved_and_fits(diff: Any) -> None:
    code, out, _ = diff("--stage", "revise", "--rows")
    assert code == 0
    assert out.splitlines()[0].startswith("revise  v0001-")
    assert "rounds 2 -> 1" in out
    assert "\nadded   q12-" in out
    assert all(len(line) <= 100 for line in out.splitlines())


@pytest.mark.parametrize("word", ["1", "v1", "v0001", "name", "fingerprint"])
def test_a_version_is_named_in_several_ways(diff: Any, tmp_path: Path, word: str) -> None:
    first = next(versions.all_of(tmp_path / "out", "revise"))
    word = {"name": first.name, "fingerprint": first.fingerprint[:6]}.get(word, word)
    code, out, _ = diff(word, "latest", "--stage", "revise", "--json")
    (one,) = json.loads(out)["stages"]
    assert (code, one["old"]) == (0, first.name)
    assert json.loads(diff(word, "--stage", "revise", "--json")[1])["stages"] == [one], "without V2: the newest"


def test_one_row_is_shown_word_by_word(diff: Any, tmp_path: Path) -> None:
    before, after = (
        {row["id"]: row["response"] for row in rows_of(version.path)} for version in versions.all_of(tmp_path / "out", "revise")
    )
    wanted = next(one for one in before.keys() & after.keys() if before[one] != after[one])
    code, out, _ = diff("1", "2", wanted, "--stage", "revise")
    assert code == 0
    assert out.startswith(f"{wanted}  revise v0001-")
    assert "[-" in out or "{+" in out
    assert "\nresponse\n" in out
    assert diff(wanted, "--stage", "revise")[1] == out, "the newest two, where no version is named"
    (told,) = json.loads(diff("1", "2", wanted, "--stage", "revise", "--json")[1])["rows"]
    assert (told["old"]["row"]["response"], told["new"]["row"]["response"]) == (before[wanted], after[wanted])


def test_only_one_kind_of_ids_and_no_more_than_wanted(diff: Any) -> None:
    lines = diff("--stage", "generate", "--only", "added", "--limit", "1")[1].splitlines()
    listed = [line for line in lines if line.startswith(("added", "changed ", "gone "))]
    assert [line.split()[0] for line in listed] == ["added", "added"]
    assert listed[1].endswith("and 1 more")


@pytest.mark.parametrize(
    ("arguments", "said", "hint"),
    [
        (("lates",), "there is no version 'lates'", "did you mean 'latest'?"),
        (("7",), "there is no version '7'", "there are: 1, 2, latest"),
        (("--stage", "revse"), "there is no stage 'revse'", "did you mean 'revise'?"),
        (("2", "latest"), "are the same version", "cai diff c.yaml"),
        (("1", "2", "nobody"), "no row has the id 'nobody'", "cai show c.yaml nobody"),
        (("-o", "nowhere"), "holds no version yet", "make one: cai run c.yaml"),
    ],
)
def test_a_mistake_is_told_with_what_to_type(diff: Any, arguments: tuple[str, ...], said: str, hint: str) -> None:
    code, out, err = diff(*arguments)
    assert (code in (2, 65), out) == (True, "")
    assert said in err
    assert hint in err.splitlines()[-1]


def test_versions_of_two_stages_are_not_compared(diff: Any, tmp_path: Path) -> None:
    names = [next(versions.all_of(tmp_path / "out", stage)).name for stage in ("generate", "revise")]
    code, _, err = diff(*names)
    assert (code, "only versions of one stage" in err) == (2, True)


def test_hostile_text_stays_text(cai: Cai, tmp_path: Path) -> None:
    write_config(tmp_path)
    (tmp_path / "prompts.jsonl").touch()
    evil = "\x1b[2J\u202e[red]x[/red]"
    publish(tmp_path / "out", 1, [sample(1, kind=evil, response=f"{evil} a")])
    publish(tmp_path / "out", 2, [sample(1, kind="k", response=f"{evil} b"), replace(sample(2), id=f"p2{evil}")])
    for arguments in (("--rows",), ("1", "2", "p1-0")):
        code, out, err = cai("diff", "c.yaml", *arguments)
        assert code == 0, err
        assert "\x1b" not in out
        assert "\u202e" not in out
        assert "\\x1b[2J\\u202e[red]x[/red]" in out


# What cannot be compared


def test_one_damaged_stage_does_not_hide_the_others(diff: Any, tmp_path: Path) -> None:
    damaged = sorted((tmp_path / "out/revise").glob("v*"))[-1]
    next(damaged.glob("train-*")).write_bytes(b"{broken\n")
    code, out, err = diff()
    assert code == Exit.INPUT
    assert "critique  v0001" in out
    assert "debias  v0001" in out
    assert "revise  v0001" not in out
    assert f"error: revise/{damaged.name} was changed" in err


@pytest.mark.parametrize("manifest", [None, "{}"])
def test_a_version_without_a_whole_manifest_is_left_out_and_named(diff: Any, tmp_path: Path, manifest: str | None) -> None:
    foreign = tmp_path / "out/critique/v0009-0badf00d"
    foreign.mkdir()
    if manifest is not None:
        (foreign / MANIFEST).write_text(manifest)
    code, out, err = diff()
    assert code == 0
    assert "revise  v0001" in out
    assert "warning: critique v0009-0badf00d is left out: " in err
    assert "cai verify" in err


def test_a_file_that_may_not_be_read_is_not_damaged(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path, symlinks=True, dirs_exist_ok=True)
    (file, *_) = sorted((tmp_path / "out/revise/latest").resolve().glob("train-*"))
    file.chmod(0)
    done = cai_as_anyone(tmp_path, "diff", "c.yaml")
    assert done.code == Exit.INPUT
    assert f"{file.name} cannot be read: permission denied" in done.err
    assert "chmod -R u+rX" in done.err
    assert "debias  v0001" in done.out


def test_a_latest_that_names_nothing_is_told_as_such(diff: Any, tmp_path: Path) -> None:
    for link in (tmp_path / "out").glob("*/latest"):
        link.unlink()
        link.symlink_to("v0099-00000000")
    code, _, err = diff("1", "latest")
    assert code == Exit.INPUT
    assert "latest names no version" in err
    assert "cai verify c.yaml" in err
    assert "did you mean" not in err


def test_stages_and_versions_are_named_as_elsewhere(diff: Any, tmp_path: Path) -> None:
    old, new = (path.name for path in sorted((tmp_path / "out/label-pairs").glob("v*")))
    code, out, _ = diff(old[:8], new[:10], "--stage", "label_pairs", "--json")
    (stage,) = json.loads(out)["stages"]
    assert (code, stage["stage"], stage["old"], stage["new"]) == (0, "label-pairs", old, new)


def test_what_a_star_says_stands_below(tmp_path: Path, cai: Cai) -> None:
    write_rows(tmp_path / "prompts.jsonl", [{"prompt": "question"}])
    write_config(tmp_path)
    old = [sample(n, tokens_out=n) for n in range(20)]
    for number, more in enumerate((lambda n: 0, lambda n: 10 + n % 3, lambda n: n % 3 - 1), 1):
        rows = [replace(row, tokens_out=n + more(n)) for n, row in enumerate(old)]
        publish(tmp_path / "out", number, rows)
    assert cai("diff", "c.yaml", "1", "2")[1].endswith("\n\n*  beyond twice its standard error\n")
    assert "*" not in cai("diff", "c.yaml", "1", "3")[1]
