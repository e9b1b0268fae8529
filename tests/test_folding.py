"""Messages on a terminal are folded at spaces; a command, a path, an id and what is quoted stay whole, to be copied."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from outside import Cai, questions, write_config, write_rows
from terminals import Screen, on_terminal

from cai_cli.reports.folding import columns, folded
from cai_cli.reports.folding import on_terminal as as_written

words = st.lists(st.text("abc';:,.?`é字", min_size=1, max_size=12), min_size=1, max_size=40)


@given(words, st.integers(20, 120), st.sampled_from(["", "error: ", "hint: ", "  ", "  1  ", "cai: "]))
def test_folding_loses_nothing_and_no_line_is_longer_than_it_must_be(some: list[str], width: int, begins: str) -> None:
    text = begins + " ".join(some)
    lines = folded(text, width)
    assert " ".join(line.strip() for line in lines).split() == text.split()
    assert all(line.startswith(" " * len(begins)) for line in lines[1:])
    kept = [line for line in lines if columns(line) > width and " " in line.strip().removeprefix(begins.strip()).strip()]
    assert all(sign in line for line in kept for sign in ("`" if "`" in line else "'",)), kept


@pytest.mark.parametrize(
    "whole",
    [
        "cai critique configs/general.yaml -i out/generate/latest", "export ANTHROPIC_API_KEY=...", "`cai run a b c`",
        "'a name of words'", "/a/long/path/without/a/space.yaml", "pip install --upgrade cai-cli",
    ],
)  # fmt: skip
def test_what_is_copied_stays_whole_wherever_the_line_ends(whole: str) -> None:
    for width in range(30, 110):
        for text in (f"hint: first mend the file, then: {whole}", f"hint: some words; or: {whole}; that is all of it",
                     f"error: of two words: {whole}, or another"):  # fmt: skip
            lines = folded(text, width)
            assert any(whole in line for line in lines), (width, lines)
            assert all(columns(line) <= max(width, len(whole) + 8) for line in lines), (width, lines)


def test_a_command_that_ends_a_message_stays_whole_with_all_that_is_quoted_in_it() -> None:
    command = "cai show c.yaml --where 'severity > .5, and not refused; that is: all'"
    assert folded(f"cai: stopped; nothing is lost; go on with: {command}", 40)[-1] == f"     {command}"


def test_a_text_about_a_command_is_folded() -> None:
    text = "error: cai help: there is no topic of that name, and there is none that is like it in any way at all"
    assert len(folded(text, 40)) == 3


def test_no_terminal_no_folding() -> None:
    text = "hint: " + "word " * 60
    assert as_written(text, io.StringIO()) == text


def test_a_terminal_breaks_no_line_of_an_error_or_of_what_comes_next(cai: Cai, tmp_path: Path) -> None:
    write_rows(tmp_path / "prompts.jsonl", questions(4))
    path = write_config(tmp_path)
    path.write_text(path.read_text() + "labell_pairs: {}\nlimits: {max_outage: 'a while'}\nshards: {rows: many}\n")
    code, shown = on_terminal(tmp_path, "run", "c.yaml", columns=44)
    screen = Screen(44).feed(shown)
    assert (code, screen.wrapped) == (2, 0), shown
    assert sum(line.startswith("      ") for line in screen.lines) > 1, "under their beginning"
    code, shown = on_terminal(tmp_path, "init", "new", "--for", "red-team", columns=52, out=True)
    assert (code, Screen(52).feed(shown).wrapped) == (0, 0), shown
    assert {line.partition(":")[0] for line in cai("run", "c.yaml")[2].splitlines()} == {"error", "hint"}, "piped: a line each"
