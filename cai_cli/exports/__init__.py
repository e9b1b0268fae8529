"""Dialects of training data. One file here is one export (but not those that begin with _): rows in, rows out, no files.

Other packages add theirs by entry point, group cai.exports. An export module has `READS` (the stages it can be made of, the best
first), `SHAPE` (the rows it makes; they have a prompt_id), `VERSION` (raised when what it makes changes) and
`convert(record) -> Iterator[row | Left]`; it may have `TRAINERS`, the names of TRL's trainers that take its rows as they are.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any, Protocol, cast

from cai_cli.errors import Fix


@dataclass(frozen=True, slots=True)
class Left:
    """A row that is left out: why, as a snake_case word that is counted."""

    reason: str


class Dialect(Protocol):
    """What an export module holds."""

    READS: Sequence[str]
    SHAPE: type[Any]
    VERSION: int

    def convert(self, record: Any) -> Iterator[Any]: ...


def _own() -> set[str]:
    return {module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")}


def names() -> list[str]:
    """Every export that can be asked for."""
    return sorted({*_own(), *(point.name for point in entry_points(group="cai.exports"))})


def find(name: str) -> Dialect:
    """An export by its name. Raises: Fix: there is none of that name"""
    if name in _own():
        return cast("Dialect", importlib.import_module(f"{__name__}.{name}"))
    if points := entry_points(group="cai.exports", name=name):
        return cast("Dialect", next(iter(points)).load())
    close = difflib.get_close_matches(name, names(), 1)
    raise Fix(f"there is no export '{name}'", f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(names())}")
