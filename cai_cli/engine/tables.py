"""Whole-table steps: they see all rows, ask nothing, and write the shards of their input again."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import orjson

from cai_cli.auditing.labels import Gold, with_gold
from cai_cli.engine.drive import Usage
from cai_cli.engine.feed import Feed, Unit
from cai_cli.engine.plan import Step
from cai_cli.engine.shards import Made, Staging
from cai_cli.errors import Reject
from cai_cli.records import Probed, rejected
from cai_cli.tables import debias

if TYPE_CHECKING:
    from cai_cli.tables._labels import Labels

Debiased = tuple[dict[str, Any], Iterator[tuple[int, Made]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What is known beside the pairs: answers to probes, what people said in an audit, position biases that a pilot froze."""

    probed: Sequence[Probed] = ()
    gold: Mapping[str, Gold] = field(default_factory=dict)  # by pair id
    pilot: Mapping[str, float] = field(default_factory=dict)  # log-odds by labeler


def debiased(step: Step, feed: Feed, beside: Beside) -> Debiased:
    """Measure all pairs of a feed, then correct them one by one.

    Gives: `_bias.json`, and what each prompt's pairs became, by shard
    """
    settings = cast("debias.Settings", step.settings)
    pairs = (pair for unit in _audited(feed, beside.gold) for pair in unit.rows)
    report = debias.measure(pairs, settings, step.seed, probed=beside.probed, pilot=beside.pilot)
    rows = itertools.count()
    made = ((unit.shard, _corrected(unit, rows, report.labels, settings)) for unit in _audited(feed, beside.gold))
    return dict(report.document), made


def _audited(feed: Feed, gold: Mapping[str, Gold]) -> Iterator[Unit]:
    """The pairs, with what people said of them for gold."""
    if not gold:
        return feed.units()
    return (Unit(unit.shard, [with_gold(pair, gold) for pair in unit.rows]) for unit in feed.units())


def _corrected(unit: Unit, rows: Iterator[int], labels: Labels, settings: debias.Settings) -> Made:
    made = Made(came_in=len(unit.rows))
    for pair in unit.rows:
        try:
            outcome = debias.correct(pair, labels[next(rows)], settings)
        except Reject as reject:
            made.rejects.append(rejected(reject, "debias", pair))
            continue
        if isinstance(outcome, debias.Filtered):
            made.filtered[outcome.reason] += 1
        else:
            made.rows.append(outcome)
    return made


def stage_table(staging: Staging, name: str, made: Iterator[tuple[int, Made]], usages: Sequence[Usage] = ()) -> None:
    """Write a table's rows to the shards that their prompts are in. `usages`: of replies that are no row's own; the first shard
    accounts for them."""
    written, more = -1, [({name: Made()}, usage) for usage in usages]
    for shard, group in itertools.groupby(made, key=lambda one: one[0]):
        for empty in range(written + 1, shard):
            staging.write(empty, more if empty == 0 else [])
        staging.write(shard, [*(more if shard == 0 else ()), *(({name: one}, Usage()) for _, one in group)])
        written = shard
    for empty in range(written + 1, staging.layout.shards):
        staging.write(empty, more if empty == 0 else [])


def as_document(report: dict[str, Any]) -> bytes:
    return orjson.dumps(report, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
