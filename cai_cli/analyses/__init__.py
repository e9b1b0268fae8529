"""Analyses of rows. One file here is one analysis (but not those that begin with _); it asks nothing and touches no disk.

Other packages add theirs by entry point, group cai.analyses. An analysis module has
    SUMMARY    one line of help
    READS      the stages it can be made of, the best first
    analyse    (rows, options) -> Analysis; the rows are plain objects as a file holds them, looked at once, in bounded memory
and may have
    ALSO       further stages that it looks at where there are rows of them; `analyse` then takes `also`, stage -> rows, as well
    TAKES      which options mean something to it: by, columns, other, n
    EXAMPLE    a config that its help names, where a run of configs/quickstart.yaml says nothing to it
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

from cai_cli import registry
from cai_cli.analyses._result import Analysis, Cell, Column, Number, Section, document
from cai_cli.constitution import Constitution
from cai_cli.errors import Fix

__all__ = ["Analysis", "Cell", "Column", "Number", "Options", "Row", "Section", "document", "find", "names"]

Row = Mapping[str, Any]  # as a file holds it


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What all analyses can be told."""

    by: str | None = None  # a column whose values are compared; meta.NAME: one of the kept input columns
    columns: tuple[str, ...] = ()  # columns that say the same thing, as two raters would
    other: Mapping[str, Row] = field(default_factory=dict)  # rows of another file by id, of `columns` only
    n: int = 5  # words an n-gram has
    top: int = 20  # rows that a table without an end of its own shows at most
    constitution: Constitution | None = None  # the config's own, where there is a config


class Module(Protocol):
    """What an analysis module holds."""

    SUMMARY: str
    READS: tuple[str, ...]

    def analyse(self, rows: Iterable[Row], options: Options) -> Analysis: ...


def names() -> list[str]:
    """Every analysis that can be asked for."""
    return registry.names(__name__, __path__)


def find(name: str) -> Module:
    """An analysis by its name. Raises: Fix: there is none of that name"""
    if (found := registry.find(__name__, __path__, name)) is not None:
        return cast("Module", found)
    close = difflib.get_close_matches(name, names(), 1)
    raise Fix(f"there is no analysis '{name}'", f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(names())}")
