"""Tables, as every verb prints them: no lines, two spaces between columns, numbers to the right, the head dim."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from cai_cli.visible import on_one_line

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text


def tabular(
    head: Sequence[str], rows: Iterable[Sequence[str | int | Text]], right: Sequence[str] = (), fold: str | Sequence[str] = ""
) -> Table:
    """Rows of cells under a head. Texts are made safe to print; an int gets its thousands marked and stands to the right.

    Takes: `right`: more columns, by their head, that stand to the right; `fold`: the one column that gives way where the terminal
    is narrow, or several, and goes on under its beginning; the others are never broken
    """
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    body, folding = [tuple(row) for row in rows], [fold] if isinstance(fold, str) else fold
    for at, name in enumerate(head):
        numbers = bool(body) and all(isinstance(row[at], int) for row in body)
        justify = "right" if numbers or name in right else "left"
        table.add_column(name, justify=justify, no_wrap=name not in folding, overflow="fold")  # type: ignore[arg-type]
    for row in body:
        table.add_row(*map(_cell, row))
    return table


def _cell(value: str | int | Text) -> Text:
    from rich.text import Text

    if isinstance(value, Text):
        return value
    return Text(f"{value:,}" if isinstance(value, int) else on_one_line(value))
