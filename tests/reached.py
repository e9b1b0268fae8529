"""Which messages of the catalogue no test reached."""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).parent.parent / "docs"
sys.path.insert(0, str(DOCS))

from catalogue import Message, messages  # noqa: E402

# What no test can bring about where tests run, and why.
OUT_OF_REACH: dict[str, str] = {}


def unreached(folder: Path) -> list[str]:
    """Messages, as `file:line: message`, at whose place no process made one.

    Takes: `folder`: where processes wrote down the places they came by
    """
    places = {line for file in folder.iterdir() for line in file.read_text("utf-8").splitlines()}
    return [_named(one) for one in messages() if not _reached(one, places) and one.said not in OUT_OF_REACH]


def _reached(one: Message, places: set[str]) -> bool:
    return any(f"{one.path}:{line}" in places for line in one.lines)


def _named(one: Message) -> str:
    return f"{one.place}: {one.kind}: {one.said}"
