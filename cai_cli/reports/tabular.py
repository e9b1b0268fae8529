"""Tables, as every verb prints them: no lines, two spaces between columns, numbers to the right, the head dim.

Where a terminal is too narrow for them, a row becomes a few lines, a cell each: nothing is ever cut.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rich.table import Table

from cai_cli.visible import on_one_line

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult
    from rich.text import Text

GAP = 2  # columns between two columns
FOLDED = 12  # columns that a column which gives way needs


class _Fitting(Table):
    """A table that stacks the cells of a row where it does not fit beside one another."""

    body: Sequence[tuple[Text, ...]] = ()

    @property
    def least(self) -> int:
        """Columns below which it is stacked."""
        widths = [max([len(str(one.header)), *(row[at].cell_len for row in self.body)]) for at, one in enumerate(self.columns)]
        kept = (width if one.no_wrap else min(width, FOLDED) for one, width in zip(self.columns, widths, strict=True))
        return sum(kept) + GAP * (len(widths) - 1)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        if options.max_width >= self.least:
            yield from super().__rich_console__(console, options)
        else:
            yield from self._stacked()

    def _stacked(self) -> RenderResult:
        from rich.text import Text

        names = [str(one.header) for one in self.columns]
        hang = max(map(len, names[1:]), default=0)
        for row in self.body:
            yield row[0]
            grid = Table.grid(padding=(0, GAP, 0, 0))
            grid.add_column(width=GAP + hang, no_wrap=True, overflow="ellipsis")
            grid.add_column(overflow="fold")
            for name, cell in zip(names[1:], row[1:], strict=True):
                grid.add_row(Text(f"{'':{GAP}}{name}", "dim"), cell)
            yield grid


def least_width(table: Table) -> int:
    """Columns that a table needs to show a row as a row; 0 for one that is not ours."""
    return table.least if isinstance(table, _Fitting) else 0


def tabular(
    head: Sequence[str], rows: Iterable[Sequence[str | int | Text]], right: Sequence[str] = (), fold: str | Sequence[str] = ""
) -> Table:
    """Rows of cells under a head. Texts are made safe to print; an int gets its thousands marked and stands to the right.

    Takes: `right`: more columns, by their head, that stand to the right; `fold`: the one column that gives way where the terminal
    is narrow, or several, and goes on under its beginning; the others are never broken
    """
    table = _Fitting(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    body, folding = [tuple(row) for row in rows], [fold] if isinstance(fold, str) else fold
    for at, name in enumerate(head):
        numbers = bool(body) and all(isinstance(row[at], int) for row in body)
        justify = "right" if numbers or name in right else "left"
        table.add_column(name, justify=justify, no_wrap=name not in folding, overflow="fold")  # type: ignore[arg-type]
    table.body = [tuple(map(_cell, row)) for row in body]
    for cells in table.body:
        table.add_row(*cells)
    return table


def _cell(value: str | int | Text) -> Text:
    from rich.text import Text

    if isinstance(value, Text):
        return value
    return Text(f"{value:,}" if isinstance(value, int) else on_one_line(value))
