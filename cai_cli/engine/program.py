"""Stages joined to programs: what happens to the rows of one prompt, as one flow. Still pure; the engine only drives it."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from cai_cli.engine.shards import Made
from cai_cli.errors import Reject
from cai_cli.flow import Flow, together
from cai_cli.records import Chain, Pair, Prompt, Rejected, Sample, rejected

Stage = Callable[[Any], Flow[Any]]
MadeBy = dict[str, Made]
Part = Callable[[Sequence[Any], MadeBy], Flow[list[Any]]]


def program(names: Iterable[str], parts: Sequence[Part]) -> Callable[[Sequence[Any]], Flow[MadeBy]]:
    """Join parts: each takes the rows that the one before it gave. Gives: what every stage made of one prompt."""
    stages = tuple(names)

    def flow(rows: Sequence[Any]) -> Flow[MadeBy]:
        made = {name: Made() for name in stages}
        for part in parts:
            rows = yield from part(rows, made)
        return made

    return flow


def generated(generate: Stage, responses: int) -> Part:
    """Prompts to samples, `responses` of them each."""

    def part(prompts: Sequence[Prompt], made: MadeBy) -> Flow[list[Sample]]:
        outcomes = yield from together(generate(prompt) for prompt in prompts)
        for outcome in itertools.chain.from_iterable(map(_given, outcomes)):
            (made["generate"].rejects if isinstance(outcome, Rejected) else made["generate"].rows).append(outcome)
        made["generate"].came_in += len(prompts) * responses
        return made["generate"].rows

    return part


def _given(samples: Any) -> list[Any]:
    if isinstance(samples, Reject):
        raise samples  # a bug: generate rejects single samples, never a prompt
    return list(samples)


def each(name: str, stage: Stage) -> Part:
    """Every row through one stage, side by side."""

    def part(rows: Sequence[Any], made: MadeBy) -> Flow[list[Any]]:
        outcomes = yield from together(stage(row) for row in rows)
        made[name].came_in += len(rows)
        for row, outcome in zip(rows, outcomes, strict=True):
            _sort(made[name], name, row, outcome)
        return made[name].rows

    return part


def _sort(made: Made, name: str, row: Any, outcome: Any) -> None:
    if isinstance(outcome, Reject):
        made.rejects.append(rejected(outcome, name, row))
    else:
        made.rows.append(outcome)


def looped(critique: Stage, revise: Stage) -> Part:
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

    def part(samples: Sequence[Sample], made: MadeBy) -> Flow[list[Chain]]:
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
        return made["revise"].rows

    return part


def paired(pairs_of: Callable[[Sequence[Sample]], tuple[list[Pair], Counter[str]]], label: Stage) -> Part:
    """Samples of one prompt to labelled pairs. What cannot be compared is filtered, by reason."""
    labelled = each("label-pairs", label)

    def part(samples: Sequence[Sample], made: MadeBy) -> Flow[list[Pair]]:
        pairs, left = pairs_of(samples)
        if samples and not pairs and not left:
            left["no_partner"] = 1  # a single response
        made["label-pairs"].filtered.update(left)
        made["label-pairs"].came_in += left.total()
        rows = yield from labelled(pairs, made)
        return rows

    return part
