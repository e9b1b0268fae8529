"""What an export must not do: test on what it trains on, hand on what was changed, come out empty, or not load beside another."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from exporting import ran, rows_of
from hypothesis import given
from hypothesis import strategies as st
from outside import ROOT, Cai, questions, write_config, write_rows

from cai_cli import config as configs
from cai_cli import exports
from cai_cli.config import Config
from cai_cli.engine import versions
from cai_cli.engine.export import Options, export
from cai_cli.engine.mix import Ingredient
from cai_cli.engine.shards import Layout, content_id
from cai_cli.engine.source_split import share_of
from cai_cli.errors import Exit, Fix


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return ran(tmp_path_factory.mktemp("tiny"))


# A prompt is in one split.


@given(st.integers(0, 10**6), st.integers(1, 99), st.floats(0.05, 0.95))
def test_a_repeated_prompt_is_split_as_the_first_one_is(content: int, ordinal: int, test: float) -> None:
    made = f"{content:016x}"
    for layout in (Layout(1, test), Layout(1, test, halves=("sft", "prefs"))):
        assert layout.split(f"{made}-{ordinal}") == layout.split(made)


def test_a_given_id_with_a_number_behind_it_stays_whole() -> None:
    assert [content_id(name) for name in ("garden-2", "0123456789abcdef", "0123456789abcdef-2", "0123456789abcdef-02")] == [
        "garden-2", "0123456789abcdef", "0123456789abcdef", "0123456789abcdef-02",
    ]  # fmt: skip
    layout = Layout(1, 0.5)
    assert {layout.split(f"garden-{n}") for n in range(50)} == {"train", "test"}


def splits(version: versions.Version) -> dict[str, set[str]]:
    """By the prompt's words, where its rows are."""
    found: dict[str, set[str]] = {}
    for split, row in rows_of(version):
        found.setdefault(row["prompt"][-1]["content"], set()).add(split.partition("_")[0])
    return found


@pytest.mark.parametrize("to", ["sft", "preference", "hf_recipe", "kto"])
def test_the_words_of_a_prompt_are_in_one_split_however_often_it_was_given(cai: Cai, tmp_path: Path, to: str) -> None:
    write_rows(tmp_path / "prompts.jsonl", questions(12) * 3)
    config = configs.load(write_config(tmp_path, split={"test": 0.4}, debias={"min_confidence": 0.5}), env={})
    assert cai("run", "c.yaml", "-q")[0] == 0
    found = splits(export(config, to, tmp_path / "training").version)
    assert all(len(where) == 1 for where in found.values())
    assert set.union(*found.values()) == {"train", "test"}


def test_an_export_keeps_the_split_of_its_source(cai: Cai, tiny: Config, tmp_path: Path) -> None:
    plain = export(tiny, "sft", tmp_path / "plain")
    assert plain.resplit is None
    for share in ("0", "0.9"):
        code, _, err = cai("export", tiny.path, "--to", "sft", "--out", f"other-{share}", "--set", f"split.test={share}")
        assert code == 0
        assert re.match(r"warning: sft is split as revise/v0001-\w+ is, 0\.\d+ of it test, not by split\.test of the config", err)
        version = versions.latest(tmp_path / f"other-{share}", "sft")
        assert version is not None
        assert list(rows_of(version)) == list(rows_of(plain.version))


def test_the_share_of_a_version_is_one_by_which_its_rows_lie_as_they_do(tiny: Config, tmp_path: Path) -> None:
    source = export(tiny, "sft", tmp_path).version
    assert share_of(source, 0.3) == 0.3
    assert all(Layout(1, share_of(source, 0.95)).split(row["prompt_id"]) == split for split, row in rows_of(source))
    whole = ran_without_test(tmp_path)
    assert share_of(whole, 0.0) == share_of(whole, 0.5) == 0.0


def ran_without_test(folder: Path) -> versions.Version:
    place = folder / "whole"
    place.mkdir()
    config = ran(place, test=0.0)
    return export(config, "sft", place / "training").version


# Pairs that somebody else made, without ids.


def pair(prompt: str, n: int) -> dict[str, Any]:
    return {"prompt": prompt, "response_a": f"First answer {n}.", "response_b": f"Another answer, the longer one, number {n}."}


def judged(folder: Path, rows: list[dict[str, Any]], cai: Cai, *options: str) -> Config:
    write_rows(folder / "pairs.jsonl", rows)
    none = dict.fromkeys(("generate", "critique", "revise"))
    path = write_config(
        folder, **none, label_pairs={"pairs": "given", "principles": 0}, prompts={"path": "pairs.jsonl"},
        split={"test": 0.5}, debias={"min_confidence": 0.5, "ties": "keep"}, shards={"rows": 2},
    )  # fmt: skip
    assert cai("run", path, "-q", *options)[0] == 0
    return configs.load(path, env={})


def test_the_pairs_of_a_prompt_are_of_one_prompt_also_where_they_stand_apart(cai: Cai, tmp_path: Path) -> None:
    rows = [pair("Same?", 0), pair("Same?", 1), pair("Other?", 2), pair("Third?", 3), pair("Fourth?", 4), pair("Same?", 5)]
    config = judged(tmp_path, rows, cai)
    one = export(config, "kto", tmp_path / "training")
    judgements = [row for _, row in rows_of(one.version)]
    source = [(split, row) for split, row in rows_of(one.source)]
    assert len({row["prompt_id"] for _, row in source}) == 4
    same = [(split, row) for split, row in source if row["prompt"] == "Same?"]
    (prompt_id,), (_,) = {row["prompt_id"] for _, row in same}, {split for split, _ in same}
    assert [row["id"] for _, row in same] == [f"{prompt_id}-0-1", f"{prompt_id}-2-3", f"{prompt_id}-4-5"]
    assert one.source.manifest["prompts"] == 4
    assert {row["prompt_id"] for row in judgements if row["prompt"][0]["content"] == "Same?"} == {prompt_id}


def test_each_response_of_a_prompt_is_judged_by_all_of_its_pairs(cai: Cai, tmp_path: Path) -> None:
    def compared(prompt: str, n: int) -> dict[str, Any]:
        return {"prompt": prompt, "response_a": "It depends on the soil.", "response_b": f"Water it {n} times a day, always."}

    rows = [compared("How?", n) for n in range(3)] + [compared("When?", 0)] + [compared("How?", 3)]
    config = judged(tmp_path, rows, cai)
    one = export(config, "kto", tmp_path / "training")
    common = [row for _, row in rows_of(one.version) if row["completion"][0]["content"] == "It depends on the soil."]
    of_how = [row for row in common if row["prompt"][0]["content"] == "How?"]
    assert [row["comparisons"] for row in of_how] == [4]


def test_pairs_with_votes_and_without_ids_are_gathered_too(cai: Cai, tmp_path: Path) -> None:
    votes = [{"labeler": "m", "order": order, "p_a": 0.8} for order in ("ab", "ba")]
    rows = [pair(prompt, n) | {"votes": votes} for n, prompt in enumerate(("Same?", "Other?", "Same?", "Third?", "Same?"))]
    write_rows(tmp_path / "votes.jsonl", rows)
    write_config(tmp_path, **dict.fromkeys(("generate", "critique", "revise", "label_pairs", "prompts", "constitution")))
    code, out, err = cai("debias", "c.yaml", "-i", "votes.jsonl", "-o", "-", "-q")
    assert code == 0, err
    found = [json.loads(line) for line in out.splitlines()]
    assert [row["prompt"] for row in found] == ["Other?", "Third?", "Same?", "Same?", "Same?"]
    assert len({row["prompt_id"] for row in found}) == 3
    assert len({row["id"] for row in found}) == 5


# What is mixed in.


def turns(question: str, answer: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def named(folder: Path) -> Config:
    """A run whose prompts have given ids."""
    return ran(folder, named=True)


def test_a_mixed_row_goes_where_the_sources_row_of_the_same_prompt_goes(tmp_path: Path) -> None:
    config = named(tmp_path)
    rows = [{"messages": turns(f"What about garden number {n}?", f"Mixed in {n}.")} for n in range(14)]
    rows += [row | {"prompt_id": f"theirs-{n}"} for n, row in enumerate(rows)]
    for n, row in enumerate(rows[14:]):
        row["messages"] = turns(f"What about garden number {n}?", f"Also mixed in {n}.")
    mix = (Ingredient(path=write_rows(tmp_path / "h.jsonl", rows), share=0.9),)
    one = export(config, "sft", tmp_path / "training", options=Options(mix=mix))
    assert one.mixed[0].taken == 28
    found = splits(one.version)
    assert all(len(where) == 1 for where in found.values())
    assert {split for where in found.values() for split in where} == {"train", "test"}


def test_what_another_dataset_holds_out_is_not_mixed_in_and_that_is_told(cai: Cai, tiny: Config, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for split, count in (("train", 40), ("test", 7), ("validation", 2)):
        rows = [{"messages": turns(f"{split}: how do I mend kite {n}?", "With glue.")} for n in range(count)]
        write_rows(other / f"{split}-00000-of-00001.jsonl", rows)
    code, out, _ = cai("export", tiny.path, "--to", "sft", "--out", "training", "--mix", "other:0.9")
    assert code == 0
    assert "sft: 40 of 40 rows of other; not to be used: 9 held_out\n" in out
    there = export(ran_elsewhere(tmp_path), "sft", tmp_path / "there")
    held = {row["prompt_id"] for split, row in rows_of(there.version) if split == "test"}
    mix = (Ingredient(path=tmp_path / "there", share=0.5),)
    one = export(tiny, "sft", tmp_path / "both", options=Options(mix=mix))
    assert one.mixed[0].unusable["held_out"] == sum(split == "test" for split, _ in rows_of(there.version)) > 0
    assert not held & {row["prompt_id"] for _, row in rows_of(one.version) if row["source"] == "there"}


def ran_elsewhere(folder: Path) -> Config:
    place = folder / "elsewhere"
    place.mkdir()
    return ran(place, about="kite")


def test_a_row_that_the_export_has_itself_is_not_mixed_in(tiny: Config, tmp_path: Path) -> None:
    own = export(tiny, "sft", tmp_path / "own", options=Options(shape="messages"))
    rows = [{"messages": row["messages"]} for _, row in rows_of(own.version)]
    rows += [{"messages": turns("How do I mend a kite?", "With glue.")}]
    mix = (Ingredient(path=write_rows(tmp_path / "h.jsonl", rows), share=0.5),)
    one = export(tiny, "sft", tmp_path / "training", options=Options(mix=mix))
    assert (one.mixed[0].available, one.mixed[0].unusable["in_export"]) == (1, own.rows)
    write_rows(tmp_path / "h.jsonl", rows[:-1])
    with pytest.raises(Fix, match=r"holds no row that can be learned: .* in_export") as caught:
        export(tiny, "sft", tmp_path / "training", options=Options(mix=mix))
    assert caught.value.hint.startswith("name another")


# What is learned.


def test_messages_are_printed_with_the_setting_that_learns_the_answers_alone(cai: Cai, tiny: Config) -> None:
    code, out, _ = cai("export", tiny.path, "--to", "sft", "--to", "critiques", "--shape", "messages", "--out", "training")
    assert code == 0
    line = "trl.SFTTrainer(..., args=trl.SFTConfig(..., assistant_only_loss=True), train_dataset=rows)"
    assert out.splitlines().count(line) == 2


def test_exports_of_two_shapes_load_beside_each_other(cai: Cai, tiny: Config, tmp_path: Path) -> None:
    for options in (["--to", "sft", "--shape", "messages"], ["--to", "critiques"], ["--to", "hh"]):
        assert cai("export", tiny.path, "--out", "training", *options)[0] == 0
    columns = loaded(tmp_path, "training", "sft", "critiques", "hh")
    assert "messages" in columns["sft"]
    assert {"prompt", "completion"} <= set(columns["critiques"])
    assert {"chosen", "rejected"} <= set(columns["hh"])


def loaded(folder: Path, place: str, *names: str) -> dict[str, list[str]]:
    """The columns that `datasets` finds."""
    code = ("import sys, json, datasets\nfound = {name: datasets.load_dataset(sys.argv[1], name, split='train').column_names "
            "for name in sys.argv[2:]}\nprint(json.dumps(found))")  # fmt: skip
    env = os.environ | {"HF_HOME": str(folder / "hf"), "HF_DATASETS_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", code, str(folder / place), *names], env=env, capture_output=True, text=True,
                          check=False, cwd=ROOT)  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_a_transcript_is_not_said_to_be_for_dpo() -> None:
    """TRL takes what two transcripts begin with for the prompt, the beginning of the responses among it."""
    assert [use.trainer for use in exports.uses_of("hh", {})] == ["RewardTrainer"]


# What does not load, or was changed.


def test_a_folder_holds_one_format_and_all_of_it_can_be_made_anew(cai: Cai, tiny: Config, tmp_path: Path) -> None:
    assert cai("export", tiny.path, "--to", "sft", "--out", "training", "--compression", "gzip")[0] == 0
    assert cai("export", tiny.path, "--to", "hh", "--out", "training")[0] == 0
    code, out, err = cai("export", tiny.path, "--to", "preference", "--format", "parquet", "--out", "training")
    assert (code, out) == (2, "")
    assert err.startswith("error: training holds hh, sft as jsonl, and `datasets` reads one format in a folder")
    assert not (tmp_path / "training" / "preference").exists()
    advised = re.search(r"export all of them: (--to .*)", err)
    assert advised
    assert cai("export", tiny.path, *advised[1].split(), "--out", "training")[0] == 0
    loaded(tmp_path, "training", "hh", "sft", "preference")
    assert "add --format parquet" in cai("export", tiny.path, "--to", "kto", "--out", "training")[2]


def damage(folder: Path) -> Path:
    path = sorted(folder.resolve().glob("train-*"))[0]
    data = path.read_bytes()
    path.write_bytes(data[:40] + bytes([data[40] ^ 1]) + data[41:])
    return path


def test_an_export_that_was_changed_since_is_not_called_what_was_made(cai: Cai, tiny: Config, tmp_path: Path) -> None:
    command = ("export", tiny.path, "--to", "sft", "--out", "training")
    assert cai(*command)[0] == 0
    path = damage(tmp_path / "training" / "sft" / "latest")
    code, out, err = cai(*command)
    assert (code, out) == (Exit.INPUT, "")
    assert err.startswith(f"error: {path.relative_to(tmp_path)} was changed since it was published\nhint: delete that version's")
    shutil.rmtree(path.parent)
    assert cai(*command)[0] == 0
    assert cai("verify", tiny.path, "--out", "training")[0] == 0


@pytest.mark.parametrize("options", [["--format", "parquet"], ["--rounds", "all", "--compression", "gzip"]])
def test_verify_looks_into_a_folder_of_exports_and_says_with_which_options_to_make_them_again(
    options: list[str], cai: Cai, tiny: Config, tmp_path: Path
) -> None:
    assert cai("export", tiny.path, "--to", "sft", "--to", "hh", "--out", "training", *options)[0] == 0
    rows = sum(len(list(rows_of(version))) for to in ("sft", "hh") if (version := versions.latest(tmp_path / "training", to)))
    assert f", {rows:,} rows: all as" in cai("verify", tiny.path, "--out", "training")[1]
    path = damage(tmp_path / "training" / "sft" / "latest")
    before = (path.parent / "_manifest.json").read_bytes()
    done = json.loads(cai("verify", tiny.path, "--out", "training", "--json")[1])
    assert [problem["path"] for problem in done["problems"]] == [f"training/sft/{path.parent.name}/{path.name}"]
    (again,) = done["run"]
    shutil.rmtree(done["remove"][0])
    assert cai(*shlex.split(again)[1:])[0] == 0
    assert cai("verify", tiny.path, "--out", "training")[0] == 0
    assert (path.parent / "_manifest.json").read_bytes() == before


def test_verify_of_a_folder_without_exports_says_how_to_make_one(cai: Cai, tiny: Config) -> None:
    code, _, err = cai("verify", tiny.path, "--out", "nowhere")
    assert code == Exit.INPUT
    assert f"cai export {tiny.path} --to preference --out nowhere" in err


# What is empty, in the way, or to be quiet.


def test_an_export_without_rows_is_refused_with_the_way_to_have_some(cai: Cai, tmp_path: Path) -> None:
    write_rows(tmp_path / "prompts.jsonl", questions(3))
    write_config(tmp_path, debias={"min_confidence": 0.5, "ties": "keep"})
    assert cai("run", "c.yaml", "-q")[0] == 0
    assert cai("export", "c.yaml", "--to", "preference")[0] == 0
    before = (tmp_path / "out/export/preference/latest").readlink()
    write_config(tmp_path, debias={"min_confidence": 1.0, "ties": "drop"})
    assert cai("debias", "c.yaml", "-q")[0] == 0
    code, out, err = cai("export", "c.yaml", "--to", "sft", "--to", "preference")
    assert code == Exit.INPUT
    assert "load_dataset" in out  # sft is there, and told
    assert re.search(r"error: preference would be empty: debias/v0002-\w+ has no rows: \d low_confidence", err)
    assert "cai debias c.yaml --set debias.min_confidence=0.5" in err
    assert (tmp_path / "out/export/preference/latest").readlink() == before
    assert cai("debias", "c.yaml", "-q", "--set", "debias.min_confidence=0.5", "--set", "debias.ties=keep")[0] == 0
    assert cai("export", "c.yaml", "--to", "preference")[0] == 0


def test_a_folder_that_cannot_be_written_is_named_by_its_option(cai: Cai, tiny: Config) -> None:
    code, _, err = cai("export", tiny.path, "--to", "sft", "--out", "/proc/x")
    assert code == Exit.DISK
    assert "choose another folder with --out" in err


def test_a_quiet_export_prints_nothing_that_is_no_trouble(cai: Cai, tiny: Config, tmp_path: Path) -> None:
    for _ in range(2):  # the second time there is nothing new
        assert cai("export", tiny.path, "--to", "sft", "--out", "training", "-q") == (0, "", "")
    assert (tmp_path / "training" / "sft" / "latest").is_dir()
    assert json.loads(cai("export", tiny.path, "--to", "sft", "--out", "training", "-q", "--json")[1])["exports"]["sft"]["rows"]


def test_a_source_of_two_damaged_files_is_told_before_its_rows_are_looked_at(tmp_path: Path) -> None:
    config = ran(tmp_path)
    path = damage(config.output_path / "debias" / "latest")
    with pytest.raises(Fix, match=f"{path.name} was changed since it was published"):
        export(config, "preference")
