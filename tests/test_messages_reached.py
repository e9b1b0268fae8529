"""Messages that few ever see, each brought about as it happens: what is said, what to type next, and the exit code."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from outside import JUST_GENERATE, Cai, questions, rows_of, write_config, write_rows

from cai_cli.errors import Exit, Fix
from cai_cli.flow import Model
from cai_cli.providers import connect, names

GENERATED = JUST_GENERATE | {"shards": {"rows": 2}}


@pytest.fixture(autouse=True)
def _prompts(tmp_path: Path) -> None:
    write_rows(tmp_path / "prompts.jsonl", [{"id": f"q{n}", **one} for n, one in enumerate(questions(4))])


def refused(cai: Cai, *arguments: object) -> tuple[int, str, str]:
    """Run `cai`, which has nothing to print but what is wrong. Gives: its exit code, the message, the hint"""
    code, out, err = cai(*arguments)
    said = err.splitlines()
    assert (out, said[0][:7], said[1][:6]) == ("", "error: ", "hint: "), err
    return code, said[0].removeprefix("error: "), said[1].removeprefix("hint: ")


def generated(cai: Cai, tmp_path: Path, **sections: Any) -> list[dict[str, Any]]:
    """Run stages (`generate` alone by default) to the end. Gives: what generate wrote"""
    write_config(tmp_path, **(sections or GENERATED))
    assert cai("run", "c.yaml", "-q")[0] == 0
    return rows_of(tmp_path / "out" / "generate" / "latest")


# A config whose parts do not fit


def test_zstd_without_its_package_is_said_before_anything_is_asked(
    cai: Cai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "zstandard", None)  # as the interpreter marks what cannot be imported
    write_config(tmp_path, shards={"compression": "zstd"})
    code, said, hint = refused(cai, "run", "c.yaml")
    assert (code, said.partition(": ")[2]) == (2, "shards: 'compression' cannot be zstd without the package zstandard")
    assert hint == "pip install zstandard, or use gzip"
    assert not (tmp_path / "out").exists()


def test_categories_that_leave_nothing_are_refused(cai: Cai, tmp_path: Path) -> None:
    none = dict.fromkeys(("harmlessness", "honesty", "helpfulness"), 0)
    write_config(tmp_path, critique={"categories": none})
    code, said, hint = refused(cai, "run", "c.yaml")
    assert (code, hint) == (2, "leave one category above 0")
    assert said == "categories: every principle or every preference has weight 0 then"


def test_two_labelers_that_ask_the_same_are_refused(cai: Cai, tmp_path: Path) -> None:
    write_config(tmp_path, label_pairs={"labelers": [{"name": "one"}, {"name": "two"}]})
    code, said, hint = refused(cai, "run", "c.yaml")
    assert (code, said) == (2, "label_pairs: labelers 'one' and 'two' ask the same model with the same settings")
    assert "raise label_pairs.votes" in hint


def test_a_stage_that_reads_what_none_before_it_makes_is_refused(cai: Cai, tmp_path: Path) -> None:
    write_config(tmp_path, critique=None, revise=None, label_pairs=None)
    code, said, hint = refused(cai, "run", "c.yaml")
    assert (code, said) == (2, "c.yaml: debias reads label-pairs, which generate does not make")
    assert hint.startswith("give it a config of its own")


def test_a_retry_needs_a_stage_whose_rows_can_be_asked_about_again(cai: Cai, tmp_path: Path) -> None:
    write_config(tmp_path, **JUST_GENERATE | {"generate": None, "expand": {}})
    code, said, hint = refused(cai, "retry", "c.yaml")
    assert (code, said) == (2, "c.yaml: there is no stage whose rows could be asked about again")
    assert "expand.max_asks" in hint


def test_a_dataset_has_no_place_for_a_user_without_a_home(cai: Cai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "~")  # all that is left of a home where neither the environment nor the system names one
    write_config(tmp_path, prompts={"dataset": "some/prompts"}, **JUST_GENERATE)
    code, said, hint = refused(cai, "run", "c.yaml", "-q")
    assert (code, hint) == (2, "export HF_HOME=/a/folder/of/its/own")
    assert said == "the dataset 'some/prompts' needs a cache, and this user has no home folder to keep it in"
    assert not (tmp_path / "~").exists()


# Templates


FRONT = "---\npurpose: {purpose}\nstage: critique\nvariables: [principle]\n---\nText.\n"


@pytest.mark.parametrize(
    ("data", "said", "hint"),
    [
        (b"---\npurpose: caf\xe9\n---\n", "t.md:1: this is not UTF-8", "save the file as UTF-8"),
        (FRONT.format(purpose="x" * 1_000_001).encode(), "t.md:2: this is longer than 1000000 characters", "data belongs in"),
    ],
)
def test_a_template_that_is_no_text_or_far_too_long_is_refused(
    cai: Cai, tmp_path: Path, data: bytes, said: str, hint: str
) -> None:
    (tmp_path / "t.md").write_bytes(data)
    write_config(tmp_path, critique={"template": "t.md"})
    code, told, what = refused(cai, "run", "c.yaml")
    assert (code, said in told) == (2, True), told
    assert what.startswith(hint)


def unreadable(path: Path) -> None:
    """A file that is there and fails when it is read, whoever reads it: permissions do not stop root."""
    path.symlink_to("/proc/self/mem")


def test_a_template_that_cannot_be_read_is_refused(cai: Cai, tmp_path: Path) -> None:
    unreadable(tmp_path / "t.md")
    write_config(tmp_path, critique={"template": "t.md"})
    code, told, hint = refused(cai, "run", "c.yaml")
    assert (code, "t.md: cannot be read: Input/output error" in told, hint) == (2, True, "check the path"), told


# Rows


def test_rows_that_cannot_be_read_are_refused(cai: Cai, tmp_path: Path) -> None:
    unreadable(tmp_path / "rows.jsonl")
    write_config(tmp_path)
    code, said, hint = refused(cai, "run", "c.yaml", "-i", "rows.jsonl")
    assert (code, said) == (65, "rows.jsonl cannot be read: Input/output error")
    assert hint == "check the path and its permissions"


def test_rows_of_one_prompt_that_are_scattered_are_refused(cai: Cai, tmp_path: Path) -> None:
    rows = generated(cai, tmp_path)
    write_rows(tmp_path / "rows.jsonl", [rows[0], rows[2], rows[1]])
    write_config(tmp_path)
    code, said, hint = refused(cai, "critique", "c.yaml", "-i", "rows.jsonl", "-o", "-")
    assert (code, said) == (65, f"the rows of prompt_id '{rows[0]['prompt_id']}' are not next to each other")
    assert hint == "sort the input by prompt_id"


def test_two_rows_with_one_id_are_refused(cai: Cai, tmp_path: Path) -> None:
    rows = generated(cai, tmp_path)
    write_rows(tmp_path / "rows.jsonl", [rows[0], rows[0]])
    write_config(tmp_path)
    code, said, hint = refused(cai, "critique", "c.yaml", "-i", "rows.jsonl", "-o", "-")
    assert (code, said, hint) == (65, f"two rows have the id '{rows[0]['id']}'", "give every row its own id")


def test_one_open_round_is_enough_wherever_it_stands(cai: Cai, tmp_path: Path) -> None:
    samples = generated(cai, tmp_path)
    write_config(tmp_path)
    critiqued = [json.loads(line) for line in cai("critique", "c.yaml", "-o", "-")[1].splitlines()]
    to_revise = next(row for row in critiqued if not row["stopped_by"])
    others = [row for row in samples if row["prompt_id"] != to_revise["prompt_id"]]
    write_rows(tmp_path / "rows.jsonl", [*others, to_revise])
    code, out, err = cai("revise", "c.yaml", "-i", "rows.jsonl", "-o", "-")
    assert code == 0, err
    *same, revised = [json.loads(line) for line in out.splitlines()]
    assert [row["response"] for row in same] == [row["response"] for row in others]
    assert (revised["id"], len(revised["rounds"])) == (to_revise["id"], 1)
    assert (to_revise["rounds"][0]["accepted"], type(revised["rounds"][0]["accepted"])) == (None, bool)


def test_a_stage_does_not_read_a_version_that_was_changed(cai: Cai, tmp_path: Path) -> None:
    generated(cai, tmp_path)
    shard = next((tmp_path / "out/generate/latest").glob("*-00000-of-*"))
    shard.write_bytes(b"no row" + shard.read_bytes())
    write_config(tmp_path)
    code, said, hint = refused(cai, "critique", "c.yaml", "-q")
    assert (code, "not_json" in said, said.endswith("; a published file was changed")) == (65, True, True), said
    assert hint == "`cai verify CONFIG` says what is damaged, and what brings it back"


def test_a_stage_that_was_made_once_cannot_be_compared_with_itself(cai: Cai, tmp_path: Path) -> None:
    generated(cai, tmp_path)
    code, said, hint = refused(cai, "diff", "c.yaml")
    assert (code, hint) == (65, "see the rows: cai show c.yaml")
    assert said.startswith("no stage has two versions yet: there are generate v0001-")


def test_an_export_does_not_begin_on_a_shard_that_cannot_be_read(cai: Cai, tmp_path: Path) -> None:
    generated(cai, tmp_path, generate={"samples": 2})
    shard = next((tmp_path / "out/debias/latest").glob("*-00000-of-*"))
    shard.unlink()
    shard.symlink_to(shard)  # as a disk that fails: it is there, and nobody gets to it
    code, said, hint = refused(cai, "export", "c.yaml", "--to", "preference")
    assert (code, "cannot be read: " in said) == (65, True), said
    assert hint == "check its permissions and the disk, then run the same command again"


def test_a_sample_without_words_gets_no_score_and_is_counted(cai: Cai, tmp_path: Path) -> None:
    rows = generated(cai, tmp_path)
    write_rows(tmp_path / "rows.jsonl", [rows[0], rows[1] | {"response": " "}])
    write_config(tmp_path, score={}, limits={"max_reject_rate": 1})
    code, out, err = cai("score", "c.yaml", "-i", "rows.jsonl", "--json")
    assert code == 0, err
    assert json.loads(out)["stages"]["score"]["rejected"] == {"empty_response": 1}


# Models


def test_a_provider_that_nobody_installed_is_named_with_those_there_are() -> None:
    with pytest.raises(Fix, match="there is no provider 'nobody'") as caught:
        connect(Model(provider="nobody", name="m"))
    assert (caught.value.code, caught.value.hint) == (Exit.USAGE, f"there are: {', '.join(names())}")


def test_a_world_that_is_no_mapping_is_refused() -> None:
    with pytest.raises(Fix, match=r"must be a mapping of settings, not 0\.1") as caught:
        connect(Model(provider="simulated", name="m", params={"world": 0.1}))
    assert "such as world:" in caught.value.hint


def test_a_share_of_faults_above_one_is_refused(cai: Cai) -> None:
    code, said, hint = refused(cai, "simulate", "--fail", "500%2")
    assert (code, said) == (2, "--fail 500%2: %2 is no share")
    assert "from 0 to 1" in hint
