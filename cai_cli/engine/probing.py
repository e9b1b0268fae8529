"""The probes of a run: which pairs are asked about, and driving their questions like those of any stage."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cai_cli import chance
from cai_cli.engine.disk import Patience
from cai_cli.engine.drive import Usage
from cai_cli.engine.feed import Feed, Unit
from cai_cli.engine.plan import Step
from cai_cli.engine.program import MadeBy
from cai_cli.engine.rows import Program
from cai_cli.engine.session import Ended, Session
from cai_cli.engine.shards import Made, as_line
from cai_cli.engine.sinks import Done, Progress
from cai_cli.errors import Fix, Reject
from cai_cli.flow import Flow
from cai_cli.probing import Probing, Question, in_order
from cai_cli.records import Pair, Probed, rejected
from cai_cli.reports.quantities import counted, reasons

FILE = "_probes.jsonl"
WHAT = "probes"  # are counted while they are asked
MUTE = 0.02  # of the answers: what is to be told
_NAMED = 3  # in a warning
_MORE = "for others raise debias.probes, or ask all anew with --set draw_offset"

Heap = list[tuple[float, int, Question]]  # minus the place that chance gives the pair, its number in the input


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """What will be asked, by probe, and what there is to say of it."""

    questions: Mapping[str, Sequence[Question]]
    warnings: Sequence[str] = ()

    @property
    def every(self) -> list[Question]:
        return [question for _, some in sorted(self.questions.items()) for question in some]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What probes came to. `usages`: what the replies to each question add up to; `ended` None: nothing was asked for."""

    rows: Sequence[Probed] = ()
    usages: Sequence[Usage] = ()
    warnings: Sequence[str] = ()
    ended: Ended | None = None

    @property
    def files(self) -> dict[str, bytes]:
        """What is kept of them beside the rows that they were bought for."""
        return {} if self.ended is None else {FILE: b"".join(map(as_line, self.rows))}


def choose(pairs: Iterable[Pair], probing: Probing, seed: int) -> Chosen:
    """The pairs that each probe asks about: of those that it can vary and that have votes, the first ones by chance.

    Which pairs these are hangs on their ids alone, so more of them later are these and others. Memory: what is asked, no more.
    Raises: Fix: not one vote is by a labeler, and a criterion, that the config has
    """
    heaps: dict[str, Heap] = {dimension: [] for dimension in probing.counts}
    strange, known, number = Counter[str](), 0, 0
    for number, pair in enumerate(pairs, 1):
        kinds = [probing.strange(vote) for vote in pair.votes]
        strange.update(kind for kind in kinds if kind)
        known += kinds.count("")
        if "" in kinds:
            for dimension, heap in heaps.items():
                _offer(heap, probing, dimension, pair, number, seed)
    if strange and not known:
        raise _nobody(strange)
    questions = {dimension: sorted((one[2] for one in heap), key=lambda one: one.pair.id) for dimension, heap in heaps.items()}
    nameless = _nameless((one for some in questions.values() for one in some), probing)
    return Chosen(questions=questions, warnings=[*_left_out(strange), *nameless, *_too_few(questions, probing.counts, number)])


def _offer(heap: Heap, probing: Probing, dimension: str, pair: Pair, number: int, seed: int) -> None:
    place, wanted = chance.unit(seed, dimension, pair.id), probing.counts[dimension]
    if len(heap) == wanted and place >= -heap[0][0]:
        return  # before it is varied: that costs more than all the rest
    if (question := probing.question(pair, dimension)) is not None:
        put = heapq.heappush if len(heap) < wanted else heapq.heapreplace
        put(heap, (-place, number, question))


def _some(strange: Counter[str]) -> str:
    names = [name for name, _ in strange.most_common(_NAMED)]
    return ", ".join(names) + (f" and {len(strange) - _NAMED} more" if len(strange) > _NAMED else "")


def _nobody(strange: Counter[str]) -> Fix:
    return Fix(
        f"debias.probes: not one of the pairs' votes could be asked for again; this config does not have their {_some(strange)}",
        "give label_pairs the labelers, and the config the constitution, that the votes are from; or leave debias.probes out",
    )


def _left_out(strange: Counter[str]) -> list[str]:
    if not strange:
        return []
    return [f"probes leave {counted(strange.total(), 'vote')} out: this config does not have their {_some(strange)}"]


def _nameless(questions: Iterable[Question], probing: Probing) -> list[str]:
    held = [one for one in questions if one.variant.against is None]
    votes = sum(not vote.model for one in held for vote in probing.votes_of(one))
    if not votes:
        return []
    return [f"probes hold answers against {counted(votes, 'vote')} of which no model is known: if others gave them, effects blur"]


def _too_few(questions: Mapping[str, Sequence[Question]], counts: Mapping[str, int], pairs: int) -> list[str]:
    return [
        f"debias.probes.{dimension}: {len(questions[dimension]):,} of {counted(pairs, 'pair')} can be varied that way, "
        f"{wanted:,} were asked for"
        for dimension, wanted in counts.items()
        if len(questions[dimension]) < wanted
    ]


def ask(step: Step, feed: Feed, session: Session) -> Answers:
    """Ask what a table's config asks for. Gives: the answers in order; `ended` says whether they are whole. Raises: Fix, bugs"""
    if step.stage is None:
        return Answers()
    chosen = choose((pair for unit in feed.units() for pair in unit.rows), step.stage, step.seed)
    units = [Unit(0, (question,)) for question in chosen.every]
    sink = _Gathered(step.name)
    asking = Feed(lambda: iter(units), len(units), 1, "")
    ended = session.drive(asking, program(step), {step.name: step.models}, sink, WHAT)
    done = sink.in_order()
    rows = in_order([row for made, _ in done for row in made[step.name].rows])
    warnings = [*chosen.warnings, *_missing(sink.progress, step.name)]
    return Answers(rows=rows, usages=[usage for _, usage in done], warnings=warnings, ended=ended)


def program(step: Step) -> Program:
    """What happens to one question of a step that probes."""

    def flow(rows: Sequence[Question]) -> Flow[MadeBy]:
        made = Made()
        for outcome in (yield from step.stage(rows[0])):
            if isinstance(outcome, Reject):
                made.rejects.append(rejected(outcome, step.name, rows[0].pair))
            else:
                made.rows.append(outcome)
        return {step.name: made}

    return flow


class _Gathered:
    """Holds all answers until they are whole."""

    def __init__(self, name: str) -> None:
        self.name, self.progress, self.patience = name, Progress(), Patience()
        self._done: dict[int, Done] = {}

    def skip(self, shard: int) -> bool:
        return False

    async def add(self, shard: int, position: int, done: Done) -> None:
        made, progress = done[0][self.name], self.progress
        self._done[position] = done
        progress.prompts += 1
        progress.rows[self.name] += len(made.rows)
        progress.reject(self.name, made.rejects)
        progress.votes += len(made.rows)
        progress.abstained += sum(row.after_p_a is None for row in made.rows)

    async def close(self, shard: int, units: int) -> None:
        """Nothing is written before the last answer."""

    def in_order(self) -> list[Done]:
        return [self._done[at] for at in sorted(self._done)]


def _missing(progress: Progress, name: str) -> list[str]:
    found = []
    if lost := progress.rejected[name]:
        every = progress.votes + lost.total()
        found.append(f"probes: {lost.total():,} of {counted(every, 'answer')} are missing: {reasons(lost)}; {_MORE}")
    if progress.abstained > MUTE * progress.votes:
        share = progress.abstained / progress.votes
        found.append(f"probes: {share:.1%} of the answers are no verdict: refused, cut off, or not to be read")
    return found
