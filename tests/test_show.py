"""Looking at finished data: rows round by round, rejects, and whether every file is what its manifest says."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from outside import Cai
from rich.console import Console

from cai_cli.cli import main
from cai_cli.cli.verify import _repeated
from cai_cli.records import Chain, Critique, Pair, Preference, Rejected, Round, Turn, Vote
from cai_cli.reports.stories import heading, reject_story, story
from cai_cli.reports.word_diff import changes, word_diff

CONFIG = """
name: bees
output: out
constitution: constitutions/general.yaml
model: {provider: simulated, name: small-world, world: {empty_rate: 0.35}}
prompts: {path: p.jsonl}
shards: {rows: 5, compression: gzip}
generate: {}
critique: {}
revise: {}
label_pairs: {}
debias: {}
"""


@pytest.fixture
def cai(cai: Cai, made: Path, tmp_path: Path) -> Cai:
    """The same, in a copy of a finished dataset."""
    shutil.copytree(made, tmp_path, symlinks=True, dirs_exist_ok=True)
    return cai


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset with rejects, in two gzipped shards."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "c.yaml").write_text(CONFIG)
    (folder / "p.jsonl").write_text(
        "\n".join(json.dumps({"prompt": f"How do I keep {n} bees?", "id": f"b{n}"}) for n in range(9))
    )
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, "argv", ["cai", "run", "c.yaml", "-q"])
        with pytest.raises(SystemExit) as caught:
            main()
    assert caught.value.code in (0, 3)
    return folder


# What changed


@given(st.text(alphabet="ab \n"), st.text(alphabet="ab \n"))
def test_a_diff_holds_both_texts(before: str, after: str) -> None:
    found = list(changes(before, after))
    assert "".join(words for kind, words in found if kind != "removed").split() == after.split()
    assert " ".join(words for kind, words in found if kind != "added").split() == before.split()


def test_removed_and_added_words_are_told_apart_with_and_without_colour() -> None:
    before, after = "Keep the old wooden hive.", "Keep the new hive."
    assert word_diff(before, after, marked=True).plain == "Keep the [-old wooden-] {+new+} hive."
    coloured = word_diff(before, after, marked=False)
    assert {coloured.plain[span.start : span.end].strip(): str(span.style) for span in coloured.spans} == {
        "old wooden": "red strike", "new": "green",
    }  # fmt: skip


def test_a_long_text_is_compared_at_once() -> None:
    before = "word and " * 20_000
    assert word_diff(before, before + "end", marked=True).plain.endswith("{+end+}")


# Text of others stays text


HOSTILE = "\x1b[2J\x9b31m \u202eevil\u2066 [red]not markup[/red] [link=file:///]x[/] :warning: \r\x07"


def plain_text(*parts: Any) -> str:
    console = Console(file=io.StringIO(), width=80, markup=False, emoji=False)
    for part in parts:
        console.print(part)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def chain(text: str) -> Chain:
    critique = Critique(principle=text, category=text, critique=text, severity=0.6, suggestions=(text,), quotes=(text,))
    opened = Round(round=1, critiques=(critique,), severity=0.6, revision=f"{text} better", accepted=True)
    said = tuple(Turn(role=role, content=text) for role in ("user", text, "user"))
    return Chain(
        id=text, prompt_id=text, messages=said,
        prompt=text, kind=text, system=text or "s", response=text, model=text, initial_response=text, stopped_by=text,
        rounds=(opened, replace(opened, round=2, accepted=None, revision="")),
    )  # fmt: skip


def preference(text: str) -> Preference:
    vote = Vote(labeler=text, principle=text, order="ab", verdict=text, p_a=0.7, rationale=text)
    return Preference(
        id=text, prompt_id=text, messages=(Turn(role="user", content=text),), prompt=text, response_a=text, response_b=text,
        source_a=text, source_b=text, votes=(vote, replace(vote, order="ba")), p_a=0.7, preference="a", flags=(text,),
    )  # fmt: skip


@given(st.one_of(st.just(HOSTILE), st.text(st.characters(exclude_categories=["Cs"]), max_size=30)))
def test_nothing_in_a_row_moves_the_cursor_or_turns_the_text(text: str) -> None:
    reject = Rejected(id=text, prompt_id=text, stage="revise", reason=text, detail=text, where=text)
    for marked in (True, False):
        parts = [heading(text), *story(chain(text), marked), *story(preference(text), marked), *reject_story(reject)]
        shown = plain_text(*parts)
        assert not re.search("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]", shown)


def test_markup_is_shown_as_it_stands(cai: Cai, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text(json.dumps({"prompt": HOSTILE, "id": "x\x1b]0;title\x07"}))
    assert cai("generate", "c.yaml", "-q", "-o", "other", "--set", "model.world={}")[0] == 0
    code, out, _ = cai("show", "c.yaml", "-o", "other")
    assert code == 0
    assert "[red]not markup[/red]" in out
    assert ":warning:" in out
    assert "\\x1b[2J" in out
    assert not re.search("[\x1b\x9b\r\x07\u202e\u2066]", out)


# Rows


def test_the_first_rows_are_those_of_revise(cai: Cai) -> None:
    code, out, err = cai("show", "c.yaml")
    assert code == 0
    assert re.fullmatch(r"cai: revise v0001-\w+ has 9 rows; shown: 1 to 3, next: --offset 3\n", err)
    assert len(re.findall(r"^b\d-\d · revise v0001-", out, re.MULTILINE)) == 3
    assert "initial response" in out
    assert "round 1  severity" in out
    assert "\x1b" not in out
    _, out, _ = cai("show", "c.yaml", "--stage", "debias", "--limit", "1")
    assert re.search(r"response [ab], chosen", out)
    assert re.search(r"labeler +criterion +a shown first +b shown first", out)
    assert "weight" in out


def test_a_prompt_is_shown_in_every_stage_and_nothing_twice(cai: Cai, tmp_path: Path) -> None:
    _, out, _ = cai("show", "c.yaml", "--json", "--stage", "debias", "--limit", "1")
    wanted = json.loads(out)["rows"][0]["row"]["prompt_id"]
    code, out, _ = cai("show", "c.yaml", wanted, "--json")
    rows = json.loads(out)["rows"]
    assert code == 0
    assert [(row["stage"], row["row"]["id"]) for row in rows] == [
        ("revise", f"{wanted}-0"), ("revise", f"{wanted}-1"), ("debias", f"{wanted}-0-1"),
    ]  # fmt: skip
    _, out, _ = cai("show", "c.yaml", f"{wanted}-1", "--stage", "generate", "--json")
    assert [row["row"]["id"] for row in json.loads(out)["rows"]] == [f"{wanted}-1"]
    shutil.rmtree(tmp_path / "out" / "revise")
    _, out, _ = cai("show", "c.yaml", f"{wanted}-1", "--json")
    assert [row["stage"] for row in json.loads(out)["rows"]] == ["critique"]


def test_rejects_say_where_and_why(cai: Cai) -> None:
    _, out, _ = cai("show", "c.yaml", "--rejects", "--json")
    first = json.loads(out)["rows"][0]["row"]
    assert first["reason"] == "empty"
    _, out, _ = cai("show", "c.yaml", "--rejects", "--limit", "1")
    head, row, space, counts = out.splitlines()
    assert head.split() == ["id", "stage", "reason", "detail"]
    assert re.split(r"\s{2,}", row) == [first["id"], first["stage"], "empty", "two replies without text"]
    assert [row.index(word) for word in (first["id"], first["stage"], "empty", "two")] == [
        head.index(word) for word in ("id", "stage", "reason", "detail")
    ]
    assert space == ""
    assert re.fullmatch(r"1 of \d+ rejects shown: \d+ empty", counts)
    code, out, _ = cai("show", "c.yaml", first["id"])
    assert code == 0
    assert f"{first['stage']}: empty" in out


def test_an_id_that_nobody_has_and_an_output_that_is_not_there(cai: Cai) -> None:
    code, out, err = cai("show", "c.yaml", "nobody")
    assert (code, out) == (65, "")
    assert "'nobody'" in err
    assert "hint: " in err
    code, _, err = cai("show", "c.yaml", "-o", "nowhere")
    assert code == 65
    assert "cai run c.yaml" in err


# Whether the files are what they were


def version(folder: Path, stage: str) -> Path:
    return (folder / "out" / stage / "latest").resolve()


def shard(folder: Path, stage: str) -> Path:
    return sorted(version(folder, stage).glob("train-*"))[0]


def flip(folder: Path) -> None:
    path = shard(folder, "generate")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def recount(folder: Path) -> None:
    path = version(folder, "revise") / "_manifest.json"
    path.write_text(re.sub(r'"came_in": \d+', '"came_in": 99', path.read_text()))


def twice(folder: Path) -> None:
    """One row a second time, with a manifest that agrees."""
    import gzip

    path, manifest = shard(folder, "debias"), version(folder, "debias") / "_manifest.json"
    lines = gzip.decompress(path.read_bytes()).splitlines(keepends=True)
    data = gzip.compress(b"".join([lines[0], *lines]))
    path.write_bytes(data)
    found = json.loads(manifest.read_bytes())
    entry = next(file for file in found["files"] if file["name"] == path.name)
    entry |= {"rows": entry["rows"] + 1, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    found |= {"rows": found["rows"] + 1, "came_in": found["came_in"] + 1}
    manifest.write_text(json.dumps(found))


def undeclare(folder: Path) -> None:
    path = folder / "out" / "README.md"
    path.write_text(path.read_text().replace("critique/v0001", "critique/v0009"))


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a flipped byte": (flip, r"out/generate/v0001-\w+/train-00000-of-00002.jsonl.gz: its sha256"),
    "a missing file": (lambda folder: shard(folder, "revise").unlink(), r"out/revise/v0001-\w+/train-0.*: No such file"),
    "a cut file": (lambda folder: shard(folder, "revise").write_bytes(b""), r"revise/v0001-\w+/train-0.*: 0 bytes, the manif"),
    "a foreign file": (lambda folder: (version(folder, "critique") / "x.txt").touch(), r"critique/v0001-\w+/x.txt: no file of"),
    "a row twice": (twice, r"out/debias/v0001-\w+: two rows have the id 'b\d-0-1'"),
    "counts that do not add up": (recount, r"out/revise/v0001-\w+/_manifest.json: 99 rows came in"),
    "no manifest": (lambda folder: (version(folder, "debias") / "_manifest.json").unlink(), r"_manifest.json: cannot be read"),
    "half a manifest": (lambda folder: (version(folder, "debias") / "_manifest.json").write_text("{}"), r"json: has no stage"),
    "no latest": (lambda folder: (folder / "out" / "revise" / "latest").unlink(), r"out/revise/latest: names no version"),
    "no card": (lambda folder: (folder / "out" / "README.md").unlink(), r"out/README.md: does not declare debias/v0001"),
    "a card of another version": (undeclare, r"out/README.md: does not declare critique/v0001"),
}  # fmt: skip


@pytest.mark.parametrize("what", DAMAGE)
def test_verify_finds(what: str, cai: Cai, tmp_path: Path) -> None:
    damage, told = DAMAGE[what]
    damage(tmp_path)
    code, out, err = cai("verify", "c.yaml")
    assert code == 65
    assert re.search(told, out), out
    assert ("cai run c.yaml" in err) is (what != "a foreign file")


def test_verify_of_a_whole_dataset_counts_what_it_checked(cai: Cai) -> None:
    code, out, err = cai("verify", "c.yaml")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"5 versions, \d+ files, \d+ rows: all as their manifests say\n", out)
    _, out, _ = cai("verify", "c.yaml", "--json")
    found = json.loads(out)
    assert found["problems"] == []
    assert found["versions"] == 5
    assert cai("verify", "c.yaml", "-o", "nowhere")[0] == 65


@pytest.mark.parametrize("out", ["out/export", "training"])
def test_verify_checks_exports_as_it_checks_stages_and_says_how_to_make_them_again(out: str, cai: Cai, tmp_path: Path) -> None:
    options = [] if out == "out/export" else ["-o", out]
    assert cai("export", "c.yaml", "--to", "sft", "--to", "preference", *(["--out", out] if options else []))[0] == 0
    code, told, _ = cai("verify", "c.yaml", *options)
    assert (code, re.sub(r", \d+ files.*\n", "", told)) == (
        0,
        "2 versions, 2 of them exports" if options else "7 versions, 2 of them exports",
    )
    before = sorted((tmp_path / out / "sft" / "latest").resolve().glob("train-*"))[0]
    data = before.read_bytes()
    before.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    code, told, err = cai("verify", "c.yaml", *options)
    assert (code, told) == (65, f"{before.relative_to(tmp_path)}: its sha256 is not the manifest's: it was changed\n")
    advised = re.search(r"then run: cai (export .*?);", err)
    assert advised, err
    shutil.rmtree(before.parent)
    assert cai(*advised[1].split())[0] == 0
    assert before.read_bytes() == data
    assert json.loads(cai("verify", "c.yaml", "--json", *options)[1])["exports"] == 2


def test_verify_looks_through_a_link_to_exports_that_lie_elsewhere(cai: Cai, tmp_path: Path) -> None:
    assert cai("export", "c.yaml", "--to", "sft")[0] == 0
    (tmp_path / "out" / "export").rename(tmp_path / "elsewhere")
    (tmp_path / "out" / "export").symlink_to("../elsewhere")
    (tmp_path / "elsewhere" / "README.md").unlink()
    code, told, _ = cai("verify", "c.yaml")
    assert code == 65
    assert re.fullmatch(r"out/export/README.md: does not declare sft/v0001-\w+, so .*\n", told)


def test_what_verify_advises_mends_it_and_asks_nothing(cai: Cai, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in version(tmp_path, "critique").iterdir()}
    flip(tmp_path)
    shutil.rmtree(version(tmp_path, "generate"))
    _, out, _ = cai("run", "c.yaml", "--json", "-q")
    assert sum(stage["requests"] for stage in json.loads(out)["stages"].values()) == 0
    assert cai("verify", "c.yaml")[0] == 0
    assert {path.name: path.read_bytes() for path in version(tmp_path, "critique").iterdir()} == before


@given(st.lists(st.integers(0, 2**64 - 1), max_size=20))
def test_a_repeated_number_is_found(numbers: list[int]) -> None:
    from array import array

    found = _repeated(array("Q", numbers))
    assert (found is None) == (len(set(numbers)) == len(numbers))
    assert found is None or numbers.count(found) > 1


def test_a_pair_without_votes_is_shown() -> None:
    pair = Pair(id="p", prompt_id="p", messages=(Turn(role="user", content="q"),), prompt="q", response_a="one", response_b="two")
    assert "none" in plain_text(*story(pair, marked=True))
