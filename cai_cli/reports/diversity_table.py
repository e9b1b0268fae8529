"""What an expansion made, kind by kind and topic by topic, as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cai_cli.visible import on_one_line

if TYPE_CHECKING:
    from rich.table import Table

_LEFT = {"near_duplicate": "near-dup.", "contaminated": "in test set"}


def diversity_table(report: Mapping[str, Any]) -> Table:
    """A table of `_diversity.json`: a row for each kind and topic, the last one for all of them.

    Takes: the parsed document   Gives: what is wanted and there, what was left out as near-duplicate or contaminated, the mean
    similarity to the nearest prompt before (low is varied), the share of distinct pairs of words (high is varied)
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("kind", "topic"):
        table.add_column(name, overflow="fold")
    for name in ("wanted", "new", *_LEFT.values(), "similarity", "distinct-2"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in report["strata"]:
        left = [f"{one['filtered'].get(reason, 0):,}" for reason in _LEFT]
        names = [Text(on_one_line(one[name])) for name in ("kind", "topic")]
        table.add_row(*names, f"{one['wanted']:,}", f"{one['prompts']:,}", *left, *_figures(one))
    if len(report["strata"]) > 1:
        left = [f"{sum(one['filtered'].get(reason, 0) for one in report['strata']):,}" for reason in _LEFT]
        table.add_row("all", "", f"{report['wanted']:,}", f"{report['prompts']:,}", *left, *_figures(report))
    return table


def _figures(one: Mapping[str, Any]) -> list[str]:
    return ["-" if one[name] is None else f"{one[name]:.2f}" for name in ("similarity", "distinct_2")]
