"""How a run, and what is known of an output, looks where there is little room, and where some of it is damaged or was moved."""

from __future__ import annotations

import io
import json
import re
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from outside import JUST_GENERATE, SIMULATED, cai, questions, write_config, write_rows
from rich.console import Console

from cai_cli.reports.forgiving import forgiving
from cai_cli.reports.standing import Standing, frame, together
from cai_cli.reports.tabular import tabular

PRICED = {**SIMULATED, "price": {"input": 1000, "output": 1000}}


def made(folder: Path, *words: object, **sections: Any) -> Path:
    """An output of one stage."""
    write_rows(folder / "prompts.jsonl", questions(4))
    path = write_config(folder, **{"model": PRICED, **JUST_GENERATE, **sections})
    done = cai(folder, "run", "c.yaml", "--budget-usd", "1000", *words)
    assert done.code == 0, done.err
    return path


def status(folder: Path, *words: object) -> dict[str, Any]:
    done = cai(folder, "status", "c.yaml", "--json", *words)
    assert done.code == 0, done.err
    return dict(json.loads(done.out))


# What an output's history is.


@pytest.mark.parametrize("name", ["sub/../out", "link/out"])
def test_a_path_that_is_written_in_another_way_is_the_same_output(tmp_path: Path, name: str) -> None:
    made(tmp_path)
    spent = status(tmp_path)["ledger"]["dollars"]
    assert spent > 0
    (tmp_path / "sub").mkdir()
    (tmp_path / "link").symlink_to(tmp_path)
    found = status(tmp_path, "-o", name)
    assert (found["ledger"]["dollars"], len(found["runs"])) == (spent, 1)


def test_an_output_that_was_moved_or_copied_keeps_its_history_and_its_cap(tmp_path: Path) -> None:
    made(tmp_path)
    spent = status(tmp_path)["ledger"]["dollars"]
    shutil.copytree(tmp_path / "out", tmp_path / "copy", symlinks=True)
    (tmp_path / "out").rename(tmp_path / "moved")
    write_rows(tmp_path / "prompts.jsonl", questions(8))
    for name in ("copy", "moved"):
        found = status(tmp_path, "-o", name)
        assert (found["ledger"]["dollars"], len(found["runs"])) == (spent, 1)
        stopped = cai(tmp_path, "run", "c.yaml", "-o", name, "--budget-usd", f"{spent:.6f}")
        assert stopped.code == 75
        assert f"${spent:.2f}" in stopped.err or f"${spent:.4f}" in stopped.err, "what was spent under the other name counts"


def test_outputs_that_share_a_state_folder_keep_their_money_apart(tmp_path: Path) -> None:
    made(tmp_path, state="both")
    assert status(tmp_path)["ledger"]["dollars"] > 0
    other = status(tmp_path, "-o", "other")
    assert (other["ledger"]["dollars"], other["runs"]) == (0, [])


# What is damaged is named, and hides nothing else.


def test_a_damaged_version_and_a_damaged_ledger_do_not_hide_the_rest(tmp_path: Path) -> None:
    made(tmp_path, critique={})
    (manifest,) = (tmp_path / "out" / "critique").glob("v*/_manifest.json")
    manifest.write_text("{")
    ledger = tmp_path / "out" / ".cai" / "ledger.sqlite"
    ledger.write_bytes(b"not a database" * 400)
    found = status(tmp_path)
    assert list(found["versions"]) == ["generate"]
    assert (found["ledger"]["dollars"], found["runs"][0]["state"]) == (None, "done")
    assert [bool(one["hint"]) for one in found["damaged"]] == [True, True]
    out = cai(tmp_path, "status", "c.yaml").out
    assert re.search(r"^damaged: .*critique", out, re.MULTILINE)
    assert re.search(r"^damaged: the ledger cannot be read: .*ledger.sqlite", out, re.MULTILINE)
    assert re.search(r"^generate +v0001-", out, re.MULTILINE)


@pytest.mark.parametrize("text", ["{}", "[]", '"a"', "{", '{"run": 1, "pid": "x"}'])
def test_a_log_that_is_none_is_left_out(tmp_path: Path, text: str) -> None:
    made(tmp_path)
    other = tmp_path / "out" / ".cai" / "runs" / "20990101-000000-1-ab"
    other.mkdir()
    (other / "run.json").write_text(text)
    assert len(status(tmp_path)["runs"]) == 1


def test_what_the_input_was_rejected_for_is_hinted_at_and_not_quoted(tmp_path: Path) -> None:
    write_rows(tmp_path / "prompts.jsonl", questions(2))
    (tmp_path / "prompts.jsonl").write_text('{"text": "a secret of the row"}\n')
    write_config(tmp_path, **JUST_GENERATE)
    code = cai(tmp_path, "run", "c.yaml").code
    out = cai(tmp_path, "status", "c.yaml").out
    assert (code, "exit 65" in out) == (65, True)
    assert re.search(r"^error +the input could not be used$", out, re.MULTILINE)
    assert re.search(r"^hint +the same command says where", out, re.MULTILINE)
    assert "secret" not in out


# Where there is little room.


def shown(what: Any, width: int) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width).print(what)
    return out.getvalue().splitlines()


@given(st.integers(12, 120), st.lists(st.integers(0, 10**9), min_size=6, max_size=6))
def test_no_table_cuts_a_number_however_narrow_it_is(width: int, numbers: list[int]) -> None:
    table = tabular(("stage", *"abcdef"), [("label-pairs", *numbers)])
    told = " ".join(shown(table, max(width, 24)))
    for number in numbers:
        assert f"{number:,}" in told


def test_where_a_table_does_not_fit_a_row_is_a_few_lines() -> None:
    table = tabular(("stage", "rows", "rejected"), [("generate", 12, 3), ("revise", 4_000_000, 0)])
    lines = [line.rstrip() for line in shown(table, 24)]
    assert lines == ["generate", "  rows      12", "  rejected  3", "revise", "  rows      4,000,000", "  rejected  0"]


@given(st.lists(st.sampled_from(["64 in flight of 64 slots", "1h 05m left", "12 prompts/min", "retried: 3 server"]), min_size=1),
       st.integers(26, 90))  # fmt: skip
def test_facts_are_broken_only_between_two_of_them(parts: list[str], width: int) -> None:
    lines = together(parts, width).split("\n")
    assert [part for line in lines for part in line.split(" · ")] == parts
    assert all(len(line) <= width for line in lines)


def test_what_a_log_holds_cannot_speak_to_the_terminal() -> None:
    one = {"rows": 1, "rejected": {"a\x1b[2Jb": 1}, "requests": 1, "replayed": 0, "tokens_in": 1, "tokens_out": 1, "dollars": 0.0}
    looks = Standing(stages={"gen\x1b[31merate": one}, prompts=2, done=1, elapsed_s=1, retried={"k\x1bind": 2}, held="he\x07ld")
    for width in (40, 100, 200):
        assert not {"\x1b", "\x07"} & set("".join(shown(frame(looks, width), width)))


def test_columns_says_how_wide_it_is_where_there_is_no_terminal(tmp_path: Path) -> None:
    made(tmp_path, *("--set", "limits.max_reject_rate=1"))
    widths = []
    for columns in ("60", "100", "none", None):
        out = cai(tmp_path, "status", "c.yaml", env={"COLUMNS": columns}).out
        widths.append(max(map(len, out.splitlines())))
    assert widths[0] <= 60
    assert widths[1] == widths[2] == widths[3]


def test_signs_that_an_encoding_has_not_come_out_as_plain_ones() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "ascii")
    forgiving(stream).write("1 · 2… é")
    stream.flush()
    assert raw.getvalue() == b"1 - 2... \\xe9"


def test_old_ledgers_count_for_the_output_that_they_lie_in(tmp_path: Path) -> None:
    made(tmp_path)
    with sqlite3.connect(tmp_path / "out" / ".cai" / "ledger.sqlite") as db:
        db.execute("UPDATE spending SET job = '/elsewhere/out', settled = 3, leased = 5")
    found = status(tmp_path)["ledger"]
    assert (found["dollars"], found["dollars_unsettled"]) == (3, 2)
