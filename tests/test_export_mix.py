"""Other rows mixed into an export: so many as their weight says, drawn by seed, none twice, and what is missing is told."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from exporting import ran, rows_of
from outside import Cai, write_rows

from cai_cli import config as configs
from cai_cli.config import Config
from cai_cli.engine.export import Exported, Options, export
from cai_cli.engine.mix import Ingredient, ingredients
from cai_cli.errors import Exit, Fix


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return ran(tmp_path_factory.mktemp("tiny"))


def turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def helpful(count: int) -> list[dict[str, Any]]:
    return [{"messages": turns(f"How do I mend kite {n}?", f"With glue {n}.")} for n in range(count)]


def mixing(config: Config, out: Path, *parts: tuple[Path, float], to: str = "sft", **options: Any) -> Exported:
    mix = tuple(Ingredient(path=path, share=share) for path, share in parts)
    return export(config, to, out, options=Options(mix=mix, **options))


def sources(one: Exported) -> Counter[str]:
    return Counter(row["source"] for _, row in rows_of(one.version))


def test_a_share_of_the_result_comes_from_the_file(tiny: Config, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "helpful.jsonl", helpful(500))
    one, plain = mixing(tiny, tmp_path / "out", (path, 0.5)), export(tiny, "sft", tmp_path / "plain")
    found = sources(one)
    assert found["helpful.jsonl"] == plain.rows == one.rows - plain.rows
    assert (one.mixed[0].available, one.mixed[0].taken, one.mixed[0].wanted) == (500, plain.rows, plain.rows)
    assert one.version.manifest["came_in"] == one.rows + one.left.total()
    own = [row for _, row in rows_of(one.version) if row["source"] != "helpful.jsonl"]
    assert own == [row for _, row in rows_of(plain.version)]


def test_two_files_have_their_shares_of_the_whole(tiny: Config, tmp_path: Path) -> None:
    parts = [(write_rows(tmp_path / f"{name}.jsonl", helpful(400)), share) for name, share in (("a", 0.25), ("b", 0.5))]
    one = mixing(tiny, tmp_path / "out", *parts)
    found = sources(one)
    assert (found["a.jsonl"], found["b.jsonl"]) == (one.rows // 4, one.rows // 2)


def test_the_draw_goes_by_seed_and_content_and_reaches_every_shard(tiny: Config, tmp_path: Path) -> None:
    rows = helpful(300)
    path, turned = write_rows(tmp_path / "h.jsonl", rows), tmp_path / "turned" / "h.jsonl"
    turned.parent.mkdir()
    write_rows(turned, rows[::-1])
    other = configs.load(tiny.path, ["seed=8"], env={})
    one, two, three = (
        mixing(config, tmp_path / str(n), (where, 0.5))
        for n, (config, where) in enumerate(((tiny, path), (tiny, turned), (other, path)))
    )
    ids = [{row["id"] for _, row in rows_of(made.version) if row["source"] == "h.jsonl"} for made in (one, two, three)]
    assert ids[0] == ids[1] != ids[2]
    assert len(ids[0]) == one.mixed[0].taken > 4
    for shard in range(4):
        assert any(row["source"] == "h.jsonl" for _, row in rows_of(one.version, shard))


def test_too_few_rows_are_all_taken_once_and_that_is_told(cai: Cai, tiny: Config, tmp_path: Path) -> None:
    write_rows(tmp_path / "few.jsonl", [*helpful(3), *helpful(2), {"prompt": "only"}])
    code, out, err = cai("export", tiny.path, "--to", "sft", "--out", "training", "--mix", "few.jsonl:0.6")
    assert code == 0
    assert "sft: 3 of 3 rows of few.jsonl; not to be used: 2 duplicate, 1 missing_column\n" in out
    assert re.search(r"warning: few.jsonl has 3 rows where \d+ were to be mixed in: all of them are, each once, and make \d+% "
                     r"of the rows, not 60%", err)  # fmt: skip


@pytest.mark.parametrize(
    ("row", "texts"),
    [
        ({"prompt": "Hi", "completion": "Hello"}, ["Hi", "Hello"]),
        ({"prompt": turns("a", "b")[:1], "completion": turns("a", "b")[1:], "label": True}, ["a", "b"]),
        ({"messages": turns("Hi", "")[:1], "response": "Hello", "system": "Be brief."}, ["Be brief.", "Hi", "Hello"]),
        ({"messages": turns("Hi", "Hello"), "prompt_id": "mine", "kind": "harmless"}, ["Hi", "Hello"]),
    ],
)  # fmt: skip
def test_rows_come_in_more_than_one_form(row: dict[str, Any], texts: list[str], tiny: Config, tmp_path: Path) -> None:
    one = mixing(tiny, tmp_path / "out", (write_rows(tmp_path / "one.jsonl", [row]), 0.5))
    (found,) = [found for _, found in rows_of(one.version) if found["source"] == "one.jsonl"]
    assert [turn["content"] for turn in found["prompt"] + found["completion"]] == texts
    assert [turn["role"] for turn in found["prompt"][-1:] + found["completion"]] == ["user", "assistant"]
    assert (found["prompt_id"] == "mine", found["kind"]) == ("prompt_id" in row, row.get("kind", ""))


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "a", "completion": "b", "label": False}, "undesirable"), ({"prompt": "a"}, "missing_column"),
        ({"messages": turns("a", "b")[:1]}, "no_assistant_turn"), ({"messages": turns("a", " ")}, "empty"),
        ({"messages": turns("a", "b"), "refused": True}, "refused"), ({"messages": [1]}, "wrong_type"),
        ({"messages": turns("a", "b"), "truncated": True}, "truncated"),
        ({"messages": [*turns("a", "b"), {"role": "tool", "content": "c"}]}, "wrong_type"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_learned_stay_out(row: dict[str, Any], reason: str, tiny: Config, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "h.jsonl", [row, *helpful(50)])
    one = mixing(tiny, tmp_path / "out", (path, 0.5))
    assert (one.mixed[0].unusable, one.mixed[0].available) == ({reason: 1}, 50)
    write_rows(path, [row])
    with pytest.raises(Fix, match=f"holds no row that can be learned: 1 {reason}") as caught:
        mixing(tiny, tmp_path / "out", (path, 0.5))
    assert caught.value.code == Exit.INPUT


def test_another_export_is_mixed_in_by_its_folder_and_keeps_its_splits(tiny: Config, tmp_path: Path) -> None:
    other = ran(tmp_path)
    there = export(other, "sft", tmp_path / "there", options=Options(rounds="initial", format="parquet"))
    splits = {row["prompt_id"]: split for split, row in rows_of(there.version)}
    one = mixing(tiny, tmp_path / "here", (tmp_path / "there", 0.3))
    mixed = [(split, row) for split, row in rows_of(one.version) if row["source"] == "there"]
    assert len(mixed) == one.mixed[0].taken > 0
    assert all(splits[row["prompt_id"]] == split for split, row in mixed)


def test_a_prompt_is_in_the_same_split_whoever_brought_it(tiny: Config, tmp_path: Path) -> None:
    rows = [{"messages": turns(f"What about garden number {n}?", f"Mixed in {n}.")} for n in range(14)]
    one = mixing(tiny, tmp_path / "out", (write_rows(tmp_path / "h.jsonl", rows), 0.9))
    splits: dict[str, set[str]] = {}
    for split, row in rows_of(one.version):
        splits.setdefault(row["prompt_id"], set()).add(split)
    assert len(splits) == 14
    assert all(len(found) == 1 for found in splits.values())


def test_other_rows_in_the_file_are_another_version_and_the_same_are_none(tiny: Config, tmp_path: Path) -> None:
    path = write_rows(tmp_path / "h.jsonl", helpful(50))
    first, again = mixing(tiny, tmp_path / "out", (path, 0.3)), mixing(tiny, tmp_path / "out", (path, 0.3))
    assert (again.unchanged, again.mixed) == (True, first.mixed)
    write_rows(path, helpful(51))
    assert not mixing(tiny, tmp_path / "out", (path, 0.3)).unchanged


def test_an_export_is_not_mixed_into_itself(tiny: Config, tmp_path: Path) -> None:
    export(tiny, "sft", tmp_path / "out")
    for path in (tmp_path / "out", tmp_path / "out" / "sft" / "latest"):
        with pytest.raises(Fix, match="is what this export writes"):
            mixing(tiny, tmp_path / "out", (path, 0.3))


@pytest.mark.parametrize(
    ("texts", "said"),
    [
        (["h.jsonl"], "no weight behind a colon"), (["h.jsonl:much"], "no weight behind a colon"), ([":0.3"], "no weight"),
        (["h.jsonl:0"], "above 0 and below 1"), (["h.jsonl:30"], "above 0 and below 1"), (["h.jsonl:nan"], "no weight"),
        (["a:0.5", "b:0.5"], "add up to 1,"), (["x/a:0.1", "y/a:0.1"], "'a' is named twice"),
    ],
)  # fmt: skip
def test_a_mix_that_cannot_be_meant_is_refused(texts: list[str], said: str) -> None:
    with pytest.raises(Fix, match=re.escape(said)) as caught:
        ingredients(texts)
    assert caught.value.hint


def test_a_file_that_is_not_there_is_said_before_anything_is_written(cai: Cai, tiny: Config, tmp_path: Path) -> None:
    code, out, err = cai("export", tiny.path, "--to", "sft", "--out", "training", "--mix", "nowhere.jsonl:0.3")
    assert (code, out) == (Exit.INPUT, "")
    assert "there is no file or folder 'nowhere.jsonl'" in err
    assert not (tmp_path / "training" / "sft").exists()
