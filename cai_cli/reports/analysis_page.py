"""The page of an analysis: what was found, then its tables. What does not fit the terminal gives way: charts, then intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cai_cli.analyses import Analysis, Cell, Column, Number, Section
from cai_cli.analyses._figures import decimals, ends, figure
from cai_cli.analyses._result import Unit
from cai_cli.reports import charts
from cai_cli.visible import on_one_line

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

PROSE = 100  # columns; longer lines are hard to read
CHART = 20  # columns of a bar or of whiskers
GAP = 2


@dataclass(frozen=True, slots=True)
class _Style:
    """How much of a table is shown. `fold`: columns that the one that folds keeps at least, where it needs as many."""

    charts: bool
    intervals: str  # whole | half | key: of columns with whiskers only | none
    fold: int


STYLES = (
    _Style(True, "whole", 40), _Style(False, "whole", 40), _Style(True, "whole", 24), _Style(False, "whole", 24),
    _Style(True, "half", 24), _Style(False, "half", 24), _Style(False, "half", 12), _Style(False, "key", 12),
    _Style(False, "none", 12),
)  # fmt: skip


def analysis_page(analysis: Analysis, source: str, out: Console) -> Iterator[RenderableType]:
    """What `cai analyze` prints, part by part. Takes: `source`: what was read, in a few words; the console it is for"""
    from rich.text import Text

    width = out.width
    yield Text(on_one_line(f"{analysis.name}: {source}"), "bold", overflow="fold")
    for finding in analysis.findings:
        yield from _prose("- ", finding, width)
    for warning in analysis.warnings:
        yield from _prose("note: ", warning, width, "yellow")
    if not analysis.sections and not analysis.findings:
        yield from _prose("- ", "there is nothing to show", width)
    signs: set[str] = set()
    for section in analysis.sections:
        yield Text()
        yield Text(on_one_line(section.title), "bold")
        if section.note:
            yield from _prose("", section.note, width, "dim")
        drawn = _Drawn(section, _is_ascii(out))
        yield drawn.fitted(width)
        signs |= drawn.signs
    if signs:
        yield Text()
        yield from _prose("", _legend(signs, _is_ascii(out)), width, "dim")


def _legend(signs: set[str], ascii_only: bool) -> str:
    """What the signs in the tables mean."""
    forms = [form for form, sign in (("(low to high)", "whole"), ("+-" if ascii_only else "±", "half")) if sign in signs]
    chart = "; --o--: the same drawn, | or + at 0 or a half" if "whiskers" in signs else ""
    return f"{' and '.join(forms)}: the 95% interval, by prompt{chart}." if forms else f"{chart.removeprefix('; ')}."


def _is_ascii(out: Console) -> bool:
    return not out.encoding.lower().startswith("utf")


def _prose(mark: str, text: str, width: int, style: str = "") -> Iterator[RenderableType]:
    """A sentence that goes on under its own beginning."""
    from rich.text import Text

    room = max(20, min(width, PROSE) - len(mark))
    for number, line in enumerate(_wrapped(on_one_line(text), room)):
        yield Text.assemble((mark if not number else " " * len(mark), style or "dim"), (line, "dim" if style == "dim" else ""))


def _wrapped(text: str, room: int) -> list[str]:
    import textwrap

    return textwrap.wrap(text, room, break_on_hyphens=False) or [""]


class _Drawn:
    """A section as a table, drawn as fully as the width allows."""

    def __init__(self, section: Section, ascii_only: bool) -> None:
        self.section, self.ascii_only = section, ascii_only
        self.signs: set[str] = set()  # that the table, once it is fitted, holds
        self.numeric = {one.name for one in section.head if self._is_numeric(one)}
        words = [one.name for one in section.head if one.name not in self.numeric]
        self.fold = max(words, key=self._longest, default="")

    def _is_numeric(self, column: Column) -> bool:
        cells = [cell for row in self.section.rows if (cell := row.get(column.name)) is not None]
        return bool(cells) and not any(isinstance(cell, str) for cell in cells)

    def _longest(self, name: str) -> int:
        return max((len(str(row.get(name) or "")) for row in self.section.rows), default=0)

    def fitted(self, width: int) -> RenderableType:
        """The table in the fullest style that fits, the folding column taken back as far as it may be."""
        rows = self.section.rows
        for style in STYLES:
            self.signs = set()
            cells = [self._cells(row, above, style) for above, row in zip((None, *rows), rows, strict=False)]
            if self._room(cells, width) >= min(self._needed(cells), style.fold):
                return self._table(cells, width)
        return self._table(cells, width)

    def _needed(self, cells: Sequence[Mapping[str, Text]]) -> int:
        """The width at which nothing folds, of the column that may."""
        return self._widths(cells).get(self.fold, 0)

    def _room(self, cells: Sequence[Mapping[str, Text]], width: int) -> int:
        """Columns that are left for the one that folds."""
        widths = self._widths(cells)
        taken = sum(size for name, size in widths.items() if name != self.fold)
        return width - taken - GAP * (len(widths) - 1)

    def _widths(self, cells: Sequence[Mapping[str, Text]]) -> dict[str, int]:
        heads = {one.name: len(one.title) for one in self.section.head}
        names = cells[0] if cells else heads
        return {name: max([heads.get(name, 0), *(row[name].cell_len for row in cells)]) for name in names}

    def _table(self, cells: Sequence[Mapping[str, Text]], width: int) -> RenderableType:
        from rich.table import Table

        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim", show_edge=False)
        for one in self.section.head:
            room = max(1, min(self._room(cells, width), self._needed(cells))) if one.name == self.fold else None
            table.add_column(
                on_one_line(one.title), justify="right" if one.name in self.numeric else "left", no_wrap=one.name != self.fold,
                overflow="fold", max_width=room,
            )  # fmt: skip
            if one.name + "~" in (cells[0] if cells else {}):
                table.add_column("", no_wrap=True, overflow="crop")
        for row in cells:
            table.add_row(*row.values())
        return table

    def _cells(self, row: Mapping[str, Cell], above: Mapping[str, Cell] | None, style: _Style) -> dict[str, Text]:
        from rich.text import Text

        found: dict[str, Text] = {}
        for one in self.section.head:
            repeats = one.once and above is not None and above.get(one.name) == row.get(one.name)
            found[one.name] = Text("" if repeats else self._said(one, row, style))
            if style.charts and (one.bar or one.whiskers) and one.name in self.numeric:
                self.signs |= {"whiskers"} if one.whiskers else set()
                found[one.name + "~"] = Text(self._chart(one, row), "cyan")
        return found

    def _said(self, column: Column, row: Mapping[str, Cell], style: _Style) -> str:
        cell = row.get(column.name)
        if cell is None:
            return "-"
        if isinstance(cell, str):
            return on_one_line(cell)
        if isinstance(cell, int):
            return f"{cell:,}"
        digits = self._digits(column, row)
        if isinstance(cell, float):
            return figure(cell, digits)
        intervals = ("whole" if column.whiskers else "none") if style.intervals == "key" else style.intervals
        text = said(cell, intervals, digits)
        self.signs |= {"half"} if "±" in text else {"whole"} if " to " in text else set()
        return text.replace("±", "+-") if self.ascii_only else text

    def _digits(self, column: Column, row: Mapping[str, Cell]) -> int:
        """Decimals of a cell: those of all that stand in its column with its unit. Counts have none, and decide nothing."""
        cells = [one.get(column.name) for one in self.section.rows if self._on_one_scale(row, one)]
        unit = _unit(row.get(column.name))
        alike = [cell for cell in cells if not isinstance(cell, int) and _unit(cell) == unit]
        return decimals((end for cell in alike for end in _ends(cell)), unit)

    def _chart(self, column: Column, row: Mapping[str, Cell]) -> str:
        value, low, high = _ends(row.get(column.name))
        if value is None:
            return ""
        alike = [_ends(other.get(column.name)) for other in self.section.rows if self._on_one_scale(row, other)]
        if column.bar:
            most = column.most or max(found or 0.0 for found, _, _ in alike)
            return charts.bar(value, most, CHART, self.ascii_only)
        ends = [end for found in alike for end in found if end is not None] + ([] if column.at is None else [column.at])
        return charts.whiskers(value, low, high, (min(ends), max(ends)), CHART, column.at)

    def _on_one_scale(self, row: Mapping[str, Cell], other: Mapping[str, Cell]) -> bool:
        return all(row.get(one.name) == other.get(one.name) for one in self.section.head if one.once)


def _ends(cell: Cell) -> tuple[float | None, float | None, float | None]:
    if isinstance(cell, Number):
        return cell.value, cell.low, cell.high
    return (float(cell), None, None) if isinstance(cell, (int, float)) else (None, None, None)


def _unit(cell: Cell) -> Unit:
    return cell.unit if isinstance(cell, Number) else ""


def said(number: Number, intervals: str = "whole", digits: int | None = None) -> str:
    """A number with its interval: `61.2% (58.0 to 64.4)`; in half style `61.2% ±3.2` where it is centred; or without.

    Takes: whole, half or none; the decimals, by default those of the number itself
    """
    if number.value is None:
        return "-"
    shown = decimals(ends(number), number.unit) if digits is None else digits
    value, low, high = (None if end is None else 100 * end if number.unit == "share" else end for end in ends(number))
    assert value is not None
    text = figure(value, shown) + ("%" if number.unit == "share" else "")
    if low is None or high is None or intervals == "none":
        return text
    # Half of an interval that is not centred would give wrong limits.
    if intervals == "half" and abs((high - value) - (value - low)) < 10**-shown:
        return f"{text} ±{figure((high - low) / 2, shown)}"
    return f"{text} ({figure(low, shown)} to {figure(high, shown)})"
