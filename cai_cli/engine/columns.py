"""What the rows of a version are measured by: numbers, and shares of rows that have this or that. Reads, line by line."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping
from math import nan
from typing import Any

import orjson

from cai_cli.engine.files import unpacked
from cai_cli.engine.versions import REMAKE, Version, not_permitted
from cai_cli.errors import Exit, Fix

KINDS_MOST = 20  # values of a column whose shares are told; one with more tells rows apart, it does not sort them
_TEXTS = ("response", "response_a", "response_b", "chosen", "rejected")
_KINDS = ("kind", "topic", "model", "stop_reason", "stopped_by", "preference", "gold")


class Table:
    """The rows of a version in reading order, without their texts: ids, a hash of each line, and columns of numbers.

    `columns`: by name, a number a row, nan where it has none. `shares`: by (column, value), 1 where a row has it, else 0, nan
    where it cannot be told.
    """

    def __init__(self, version: Version) -> None:
        self.index: dict[str, int] = {}
        self.prompts = array("q")  # which rows are of one prompt, numbered as they come
        self.lines = array("q")
        self.columns: dict[str, array[float]] = {}
        self.shares: dict[tuple[str, str], array[float]] = {}
        self._numbers: dict[str, int] = {}
        for line in lines_of(version):
            self._add(hash(line), row_in(version, line))
        for names, other in ((self.columns, nan), (self.shares, 0.0)):
            for column in names.values():
                _extend(column, len(self.lines), other)
        self._leave_out_names()

    def _add(self, line: int, row: Mapping[str, Any]) -> None:
        at = len(self.lines)
        self.index[row["id"]] = at
        self.prompts.append(self._numbers.setdefault(row.get("prompt_id", row["id"]), len(self._numbers)))
        self.lines.append(line)
        for name, number in numbers_of(row):
            _put(self.columns.setdefault(name, array("d")), at, number, nan)
        for column, value, share in shares_of(row):
            _put(self.shares.setdefault((column, value), array("d")), at, share, 0.0)

    def _leave_out_names(self) -> None:
        counts: dict[str, int] = {}
        for column, _ in self.shares:
            counts[column] = counts.get(column, 0) + 1
        for key in [key for key in self.shares if counts[key[0]] > KINDS_MOST]:
            del self.shares[key]


def _put(column: array[float], at: int, value: float, otherwise: float) -> None:
    _extend(column, at, otherwise)
    column.append(value)


def _extend(column: array[float], size: int, value: float) -> None:
    column.extend([value] * (size - len(column)))


def numbers_of(row: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a row: its own columns, lengths of its texts in characters, its rounds, its scores from 1 to 10."""
    for name, value in row.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and name != "sample":
            yield name, value
    for name in _TEXTS:
        if isinstance(row.get(name), str):
            yield "length" if name == "response" else f"length {name}", len(row[name])
    if rounds := row.get("rounds"):
        yield "rounds", len(rounds)
        yield from ((name, rounds[-1][name]) for name in ("severity", "quality") if rounds[-1].get(name) is not None)
    for name in ("scores", "scores_a", "scores_b"):
        scores = (one for one in row.get(name) or () if one["score"] is not None)
        yield from ((f"{name} {one['criterion']}", one["score"]) for one in scores)


def shares_of(row: Mapping[str, Any]) -> Iterator[tuple[str, str, float]]:
    """What a row has, as (column, value, 1), and what it has not of yes and no, as (column, empty, 0)."""
    for name, value in row.items():
        if isinstance(value, bool):
            yield name, "", float(value)
        elif name in _KINDS and value:
            yield name, value, 1.0
    yield from (("flags", flag, 1.0) for flag in row.get("flags") or ())
    if row.get("rounds"):
        yield "revised", "", float(any(one["accepted"] for one in row["rounds"]))
    if "consistent" in row and row["consistent"] is None:
        yield "consistent", "", nan


def lines_of(version: Version) -> Iterator[bytes]:
    """The lines of a version's rows, file by file. Raises: Fix: a file is gone, damaged, or may not be read"""
    for path in version.files():
        try:
            with unpacked(path) as lines:
                yield from lines
        except Fix as fix:
            raise not_permitted(path) if isinstance(fix.__cause__, PermissionError) else fix from fix.__cause__
        except (OSError, EOFError) as error:
            raise changed(version) from error


def row_in(version: Version, line: bytes) -> dict[str, Any]:
    """One line as a row. Raises: Fix: it is none"""
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise changed(version) from error
    if not isinstance(row, dict) or not isinstance(row.get("id"), str):
        raise changed(version)
    return row


def changed(version: Version) -> Fix:
    """A published version that is not what was published."""
    return Fix(f"{version.path.parent.name}/{version.name} was changed or damaged since it was published", REMAKE, Exit.INPUT)
