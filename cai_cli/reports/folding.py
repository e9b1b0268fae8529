"""Messages folded for a terminal: at spaces, under their own beginning, and never inside of a command, a path or an id."""

from __future__ import annotations

import os
import re
from typing import TextIO

WIDTH = 100  # columns that prose may take
_LEAST = 20  # columns; a terminal that says less does not know
_BEGINNING = re.compile(r" *(?:(?:error|hint|warning|note|cai): |[0-9] +)?")
# What stays whole: text in backticks; a short one in quotes or braces; a command, to the end of its clause, or of the line where
# it is all that follows; whatever has no space.
_WHOLE = re.compile(
    r"(?:`[^`]*`|(?<!\w)'[^']{1,40}'(?!\w)|\{[^{}]{1,40}\}|(?<=go on with: ).+|(?<=once more: ).+|(?<=, then: ).+"
    r"|(?<=[:;,] )(?:cai|export|pip|sort|getent) .*?(?=[;:,?)]? *$|[;:,?)] )|\S)+"
)


def on_terminal(text: str, stream: TextIO) -> str:
    """A message as it is written there: folded at the terminal's width, one line a line where there is no terminal."""
    if not stream.isatty():
        return text
    width = min(_columns(stream), WIDTH)
    return "\n".join(part for line in text.split("\n") for part in folded(line, width))


def folded(line: str, width: int) -> list[str]:
    """A line as lines of at most `width` columns, all but the first under its words; what stays whole may be longer.

    Takes: text without a line's end, `width` in columns > 0
    """
    begins = _BEGINNING.match(line)
    hang = begins.end() if begins else 0
    lines, end = [line[:hang]], hang
    for found in _WHOLE.finditer(line, hang):
        gap = line[end : found.start()]
        if end > hang and columns(lines[-1] + gap + found[0]) > width:
            lines.append(" " * hang + found[0])
        else:
            lines[-1] += gap + found[0]
        end = found.end()
    return lines


def columns(text: str) -> int:
    """How many columns a text takes."""
    if text.isascii():
        return len(text)
    from rich.cells import cell_len

    return cell_len(text)


def _columns(stream: TextIO) -> int:
    """The terminal's width; COLUMNS says otherwise, as it does to rich."""
    said = os.environ.get("COLUMNS", "")
    try:
        found = int(said) if said.isdecimal() else os.get_terminal_size(stream.fileno()).columns
    except OSError:
        return WIDTH
    return found if found >= _LEAST else WIDTH
