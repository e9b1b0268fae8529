"""Markdown in which nothing that a file or a server says can become more than text."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from cai_cli.visible import on_one_line

_SIGNS = re.compile(r"([\\`*_\[\]<>|&#~$])")
LONGEST = 200  # characters of one text


def prose(text: str) -> str:
    """A sentence as it is: no sign in it is markup, and it stays on its line."""
    return _SIGNS.sub(r"\\\1", _comment(text, 5 * LONGEST))


def code(text: str) -> str:
    """A name, in code type."""
    return f"`{_comment(text, LONGEST).replace('`', chr(39)).replace('|', '/')}`" if text else ""


def _comment(text: str, longest: int) -> str:
    """Free of the marks of a comment, which end the part of a card that is written anew."""
    shown = on_one_line(text).replace("<!--", "<! --").replace("-->", "-- >")
    return shown if len(shown) <= longest else f"{shown[:longest]}..."


def table(head: Sequence[str], rows: Iterable[Sequence[str | int]], right: Sequence[str] = ()) -> str:
    """A table. Takes: cells that are markdown already, or numbers; `right`: heads of columns of numbers"""
    rule = ["---:" if name in right else "---" for name in head]
    shown = [[f"{cell:,}" if isinstance(cell, int) else cell for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *shown))


def bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
