"""The captures in docs/screens: every display has them, at both widths, in colour and without, and they tell of no machine."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from cai_cli.cli import VERBS

DOCS = Path(__file__).parent.parent / "docs"
SCREENS = DOCS / "screens"
# Verbs that show what `run` shows, and the one whose display is a server's address.
LIKE_RUN = {"generate", "critique", "revise", "label-pairs", "score", "debias", "expand", "simulate"}
MACHINE = re.compile(r"(?<![\w.:/<~-])/(?!home/you\b)[A-Za-z]+/[\w.-]+|cai-screens-|\b[\w-]+@[\w-]+:")  # a path of no reader's


@pytest.fixture(scope="module")
def captures() -> Any:
    sys.path.insert(0, str(DOCS))
    try:
        return importlib.import_module("screenshots").CAPTURES
    finally:
        sys.path.remove(str(DOCS))


def test_the_page_shows_all_of_them(captures: Any) -> None:
    page = (DOCS / "displays.md").read_text("utf-8")
    shown = set(re.findall(r"\((screens/[\w.-]+)\)", page))
    assert shown == {
        f"screens/{one.name}-{columns}.{kind}" for one in captures for columns in (80, 200) for kind in ("svg", "txt")
    }


def test_every_display_is_captured(captures: Any) -> None:
    captured = {capture.command.split()[1] for capture in captures}
    assert VERBS.keys() - LIKE_RUN <= captured
    names = [capture.name for capture in captures]
    assert len(set(names)) == len(names)


def test_every_capture_is_there_at_both_widths_in_colour_and_without(captures: Any) -> None:
    wanted = {f"{capture.name}-{columns}.{kind}" for capture in captures for columns in (80, 200) for kind in ("svg", "txt")}
    assert {path.name for path in SCREENS.iterdir()} == wanted, "make screenshots"


def test_captures_tell_nothing_of_the_machine_and_hold_no_escape() -> None:
    for path in SCREENS.iterdir():
        text = path.read_text("utf-8")
        assert not MACHINE.search(text), path.name
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", text), path.name
        if path.suffix == ".txt":
            columns = int(path.stem.rpartition("-")[2])
            assert max(map(len, text.splitlines())) <= columns + 2, path.name
        else:
            assert "@font-face" not in text, "nothing is fetched to draw it"
