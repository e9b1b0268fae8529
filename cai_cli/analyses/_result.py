"""What every analysis gives: sections of rows whose numbers carry their interval, what was found, and one JSON object of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Unit = Literal["", "share", "score", "words", "tokens", "chars", "rounds", "log-odds", "dollars"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Number:
    """A value with its 95% interval, and how many rows it rests on. None: it could not be computed."""

    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None
    unit: Unit = ""  # share: in [0, 1], printed as a percentage


Cell = str | int | float | Number | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table, and how it is drawn where the terminal is wide enough."""

    name: str  # snake_case, the key of the rows
    title: str
    bar: bool = False  # draw a bar: of counts, or of shares
    most: float | None = None  # what a full bar stands for; None: the column's largest
    whiskers: bool = False  # draw a dot with its interval, on one scale for all rows that share their `once` value
    at: float | None = None  # where a | stands on that scale, such as 0, or .5
    once: bool = False  # a value like the one above is not repeated


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One table. `note`: one sentence that says what it shows, or how to read it."""

    name: str  # snake_case, the key in the JSON
    title: str
    head: tuple[Column, ...]
    rows: tuple[Mapping[str, Cell], ...]
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Analysis:
    """What an analysis found in some rows."""

    name: str
    rows: int  # looked at
    sections: tuple[Section, ...]
    findings: tuple[str, ...] = ()  # a sentence each, the most important first: the numbers, and what to do
    warnings: tuple[str, ...] = ()  # what was missing, or cannot be concluded, and why
    unusable: str = ""  # why no row says anything to this analysis; empty: some do, even where nothing was found


def document(analysis: Analysis) -> dict[str, Any]:
    """The analysis as `--json` gives it: a Number as {value, low, high, n, unit}, every other cell as it is."""
    sections = {
        one.name: {"title": one.title, "note": one.note, "rows": [_row(one, row) for row in one.rows]}
        for one in analysis.sections
    }
    return {
        "analysis": analysis.name, "rows": analysis.rows, "findings": list(analysis.findings),
        "warnings": list(analysis.warnings), "sections": sections,
    }  # fmt: skip


def _row(section: Section, row: Mapping[str, Cell]) -> dict[str, Any]:
    return {column.name: _plain(row.get(column.name)) for column in section.head}


def _plain(cell: Cell) -> Any:
    if isinstance(cell, Number):
        return {"value": cell.value, "low": cell.low, "high": cell.high, "n": cell.n, "unit": cell.unit}
    return cell
