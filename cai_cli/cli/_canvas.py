"""A few lines at the foot of a terminal that are drawn again and again.

rich's Live would do but for three things: it hides the cursor, which a kill -9 then leaves hidden; it counts rows by the width
that the terminal had, so that a window made narrower keeps old frames; and it wipes before it draws, and flickers over SSH.
All that is sent besides text and colours: carriage return, cursor up, erase to the end of the line or of the screen.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Canvas:
    """Draws on a console that is a terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._widths: list[int] = []  # of the lines that stand there, in columns
        self._columns = 0  # of the terminal, when they were drawn

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows that can be drawn on: a full last column makes some terminals wrap, a full last row scroll."""
        columns, rows = self.console.size
        return max(1, columns - 1), max(1, rows - 1)

    def draw(self, what: RenderableType) -> None:
        """Put this where the last drawing stands. What is too high is cut off below."""
        columns, rows = self.size
        lines = self._lines(what, columns)[:rows]
        resized = self._columns not in (0, self.console.width)
        body = "\n".join(f"{line}\x1b[K" for line in lines)
        self._write((self._erasure() if resized else self._home()) + body + "\x1b[J")
        self._widths, self._columns = [_width(line) for line in lines], self.console.width

    def wipe(self) -> None:
        """Take the drawing away."""
        if self._widths:
            self._write(self._erasure())
        self._widths, self._columns = [], 0

    def say(self, text: str) -> None:
        """Write a line that stays, above the drawing; a long one is broken between words. `text`: safe to print"""
        from rich.text import Text

        self.wipe()
        self._write("".join(f"{line}\n" for line in self._lines(Text(text), self.size[0])))

    def _lines(self, what: RenderableType, columns: int) -> list[str]:
        with self.console.capture() as captured:
            self.console.print(what, width=columns, no_wrap=False)
        return [line.rstrip(" ") for line in captured.get().split("\n")[:-1]]

    @property
    def _rows(self) -> int:
        """How many the drawing takes. A terminal made narrower has broken lines that were as wide as it was."""
        columns = max(1, self.console.width)
        return sum(max(1, -(-width // columns)) for width in self._widths)

    def _home(self) -> str:
        """To the drawing's first column and row."""
        return ("\r" if self._widths else "") + _up(self._rows - 1)

    def _erasure(self) -> str:
        """To the same place, with every row empty. Row by row: a whole screen erased at once, tmux would keep in its history."""
        return self._home() + "\n".join(["\x1b[K"] * self._rows) + ("\r" if self._rows > 1 else "") + _up(self._rows - 1)

    def _write(self, text: str) -> None:
        self.console.file.write(text)
        self.console.file.flush()


def _up(rows: int) -> str:
    return f"\x1b[{rows}A" if rows > 0 else ""


def _width(line: str) -> int:
    from rich.cells import cell_len

    return cell_len(_COLOUR.sub("", line))
