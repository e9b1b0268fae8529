"""Whole-table steps: they see all rows, ask nothing, and write the shards of their input again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, cast

import orjson

from cai_cli.engine.drive import Usage
from cai_cli.engine.feed import Feed, Unit
from cai_cli.engine.plan import Step
from cai_cli.engine.shards import Made, Staging
from cai_cli.errors import Reject
from cai_cli.records import rejected
from cai_cli.tables import debias

Debiased = tuple[dict[str, Any], Iterator[tuple[int, Made]]]


def debiased(step: Step, feed: Feed) -> Debiased:
    """Measure all pairs of a feed, then correct them one by one.

    Gives: `_bias.json`, and what each prompt's pairs became, by shard
    """
    settings = cast("debias.Settings", step.settings)
    report = debias.measure((pair for unit in feed.units() for pair in unit.rows), settings, step.seed)
    made = ((unit.shard, _corrected(unit, report, settings)) for unit in feed.units())
    return dict(report.document), made


def _corrected(unit: Unit, report: debias.Report, settings: debias.Settings) -> Made:
    made = Made(came_in=len(unit.rows))
    for pair in unit.rows:
        try:
            outcome = debias.correct(pair, report, settings)
        except Reject as reject:
            made.rejects.append(rejected(reject, "debias", pair))
            continue
        if isinstance(outcome, debias.Filtered):
            made.filtered[outcome.reason] += 1
        else:
            made.rows.append(outcome)
    return made


def stage_table(staging: Staging, name: str, made: Iterator[tuple[int, Made]]) -> None:
    """Write a table's rows to the shards that their prompts are in."""
    written = -1
    for shard, group in itertools.groupby(made, key=lambda one: one[0]):
        for empty in range(written + 1, shard):
            staging.write(empty, [])
        staging.write(shard, [({name: one}, Usage()) for _, one in group])
        written = shard
    for empty in range(written + 1, staging.layout.shards):
        staging.write(empty, [])


def as_document(report: dict[str, Any]) -> bytes:
    return orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
