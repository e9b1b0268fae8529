"""The answer of a verb on stdout: one JSON object for --json, or tables and texts for people."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.text import Text


def print_json(document: Any) -> None:
    """One object, indented, its keys in the order given."""
    import orjson

    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()


def print_table(
    head: Sequence[str], rows: Iterable[Sequence[str | int | Text]], right: Sequence[str] = (), fold: str | Sequence[str] = ""
) -> None:
    """A table on stdout, as `reports.tabular` makes it."""
    from cai_cli.reports.console import console
    from cai_cli.reports.tabular import tabular

    console().print(tabular(head, rows, right, fold))
