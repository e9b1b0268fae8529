"""What an expansion made, kind by kind and topic by topic, as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cai_cli.reports.tabular import tabular

if TYPE_CHECKING:
    from rich.table import Table

_LEFT = {"near_duplicate": "near-dup.", "contaminated": "in test set"}


def diversity_table(report: Mapping[str, Any]) -> Table:
    """A table of `_diversity.json`: a row for each kind and topic, the last one for all of them.

    Takes: the parsed document   Gives: what is wanted and there, what was left out as near-duplicate or contaminated, the mean
    similarity to the nearest prompt before (low is varied), the share of distinct pairs of words (high is varied)
    """
    numbers, rows = ("wanted", "new", *_LEFT.values(), "similarity", "distinct-2"), []
    for one in report["strata"]:
        left = [one["filtered"].get(reason, 0) for reason in _LEFT]
        rows.append((one["kind"], one["topic"], one["wanted"], one["prompts"], *left, *_figures(one)))
    if len(rows) > 1:
        left = [sum(one["filtered"].get(reason, 0) for one in report["strata"]) for reason in _LEFT]
        rows.append(("all", "", report["wanted"], report["prompts"], *left, *_figures(report)))
    return tabular(("kind", "topic", *numbers), rows, right=numbers, fold=("kind", "topic"))


def _figures(one: Mapping[str, Any]) -> list[str]:
    return ["-" if one[name] is None else f"{one[name]:.2f}" for name in ("similarity", "distinct_2")]
