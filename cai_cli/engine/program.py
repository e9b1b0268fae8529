"""Stages joined to programs: what happens to the rows of one prompt, as one flow. Still pure; the engine only drives it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cai_cli.engine.shards import Made
from cai_cli.errors import Reject
from cai_cli.flow import Flow, together
from cai_cli.records import Chain, Rejected, Sample, rejected

Stage = Callable[[Any], Flow[Any]]
MadeBy = dict[str, Made]
Part = Callable[[Sequence[Any], MadeBy], Flow[None]]


def program(names: Iterable[str], parts: Sequence[Part]) -> Callable[[Sequence[Any]], Flow[MadeBy]]:
    """Join parts: each takes the rows of its source, by name. Gives: what every stage made of one prompt."""
    stages = tuple(names)

    def flow(rows: Sequence[Any]) -> Flow[MadeBy]:
        made = {name: Made() for name in stages}
        for part in parts:
            yield from part(rows, made)
        return made

    return flow


def each(name: str, stage: Any, source: str = "") -> Part:
    """Every row through one stage, side by side. `source`: the stage whose rows it takes; empty: what comes in.

    A stage may have `gather(rows) -> (rows, left)`: what it works on, made of a prompt's rows, and what it leaves out, by reason.
    It may give a list in the place of one row: rows, and a Rejected for each that ended.
    """

    def part(rows: Sequence[Any], made: MadeBy) -> Flow[None]:
        taken, mine = made[source].rows if source else rows, made[name]
        if hasattr(stage, "gather"):
            taken, left = stage.gather(taken)
            mine.filtered.update(left)
            mine.came_in += left.total()
        outcomes = yield from together(stage(row) for row in taken)
        for row, outcome in zip(taken, outcomes, strict=True):
            several = outcome if isinstance(outcome, list) else [outcome]
            mine.came_in += len(several)
            for one in several:
                _sort(mine, name, row, one)

    return part


def _sort(made: Made, name: str, row: Any, outcome: Any) -> None:
    if isinstance(outcome, Rejected):
        made.rejects.append(outcome)
    elif isinstance(outcome, Reject):
        made.rejects.append(rejected(outcome, name, row))
    else:
        made.rows.append(outcome)


def looped(critique: Stage, revise: Stage, source: str = "") -> Part:
    """Rounds of critique and revision until a stop rule ends them: rows as last critiqued, and as last revised."""

    def rounds(sample: Sample) -> Flow[tuple[Chain | Reject, Chain | Reject]]:
        chain = Chain.begin(sample)
        while True:
            try:
                critiqued = yield from critique(chain)
            except Reject as reject:
                return reject, chain
            try:
                chain = yield from revise(critiqued)
            except Reject as reject:
                return critiqued, reject
            if chain.stopped_by:
                return critiqued, chain

    def part(rows: Sequence[Sample], made: MadeBy) -> Flow[None]:
        samples = made[source].rows if source else rows
        outcomes = yield from together(rounds(sample) for sample in samples)
        made["critique"].came_in += len(samples)
        for sample, outcome in zip(samples, outcomes, strict=True):
            assert not isinstance(outcome, Reject)  # rounds() catches its stages' rejects
            critiqued, revised = outcome
            # A critique that fails in a later round leaves the chain with rounds behind it: the reject keeps them.
            _sort(made["critique"], "critique", revised if isinstance(critiqued, Reject) else sample, critiqued)
            if not isinstance(critiqued, Reject):
                made["revise"].came_in += 1
                _sort(made["revise"], "revise", critiqued, revised)

    return part
