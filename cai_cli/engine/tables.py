"""Whole-table steps: they see all rows, ask nothing, and write the shards of their input again."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import orjson

from cai_cli.auditing.labels import Gold, with_gold
from cai_cli.engine import pairs_table
from cai_cli.engine.drive import Usage
from cai_cli.engine.feed import Feed, Unit
from cai_cli.engine.plan import Step
from cai_cli.engine.shards import Made, Staging
from cai_cli.engine.workers import Workers, count_for
from cai_cli.records import Pair, Probed
from cai_cli.tables import debias
from cai_cli.tables._pilot import NO_PILOT, Pilot

if TYPE_CHECKING:
    from cai_cli.tables._columns import Columns
    from cai_cli.tables._labels import Label

Debiased = tuple[dict[str, Any], Iterator[tuple[int, Made]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """What is known beside the pairs: answers to probes, what people said in an audit, what a pilot found."""

    probed: Sequence[Probed] = ()
    gold: Mapping[str, Gold] = field(default_factory=dict)  # by pair id
    pilot: Pilot = NO_PILOT


def debiased(step: Step, feed: Feed, beside: Beside) -> Debiased:
    """Measure all pairs of a feed, then correct them one by one.

    Gives: `_bias.json`, and what each prompt's pairs became, by shard
    """
    settings = cast("debias.Settings", step.settings)
    table = _table(feed, settings, beside)
    if table is None:
        pairs = (pair for unit in _audited(feed, beside.gold) for pair in unit.rows)
        report = _measured(pairs, step, beside)
    else:
        with Workers(count_for(table.size)) as processes:
            report = _measured(pairs_table.measured(table, processes).columns, step, beside)
    labels = iter(report.labels)
    made = ((unit.shard, _corrected(unit, labels, settings)) for unit in _audited(feed, beside.gold))
    return dict(report.document), made


def _table(feed: Feed, settings: debias.Settings, beside: Beside) -> pairs_table.Table | None:
    """The feed as shards that can be shared out; None: it has to be read row by row."""
    if feed.files is None:
        return None
    shards = [feed.files(shard) for shard in range(feed.shards)]
    return pairs_table.Table(settings=settings, shards=shards, prompts=feed.prompts, gold=beside.gold, pilot=beside.pilot)


def _measured(pairs: Iterable[Pair] | Columns, step: Step, beside: Beside) -> debias.Report:
    settings = cast("debias.Settings", step.settings)
    return debias.measure(pairs, settings, step.seed, probed=beside.probed, pilot=beside.pilot)


def stage_debiased(
    step: Step, feed: Feed, beside: Beside, staging: Staging, usages: Sequence[Usage], processes: int | None = None
) -> dict[str, Any]:
    """Measure all pairs of a feed, correct them, and write them to the shards that they come from.

    Takes: `usages`: of replies that are no row's own; how many processes are to share it; None: as many as it pays for
    Gives: `_bias.json`   Raises: as `pairs_table` does
    """
    table = _table(feed, cast("debias.Settings", step.settings), beside)
    if table is None:
        report, made = debiased(step, feed, beside)
        stage_table(staging, step.name, made, usages)
        return report
    with Workers(count_for(table.size) if processes is None else processes) as shared:
        seen = pairs_table.measured(table, shared)
        found = _measured(seen.columns, step, beside)
        pairs_table.label_shards(table, staging, found.labels, seen.shares, usages, shared)
    return dict(found.document)


def _audited(feed: Feed, gold: Mapping[str, Gold]) -> Iterator[Unit]:
    """The pairs, with what people said of them for gold."""
    if not gold:
        return feed.units()
    return (Unit(unit.shard, [with_gold(pair, gold) for pair in unit.rows]) for unit in feed.units())


def _corrected(unit: Unit, labels: Iterator[Label | None], settings: debias.Settings) -> Made:
    made = Made(came_in=len(unit.rows))
    for pair in unit.rows:
        pairs_table.add_corrected(made, pair, next(labels), settings)
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
