"""From a config to what is known about its run: prompts drawn, played with the ledger's replies and with guesses, in arrays."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cai_cli import chance
from cai_cli.engine import plan, probing
from cai_cli.engine.estimate.anatomy import anatomy_of
from cai_cli.engine.estimate.guess import HIGH, LOW, MIDDLE
from cai_cli.engine.estimate.playing import COLUMNS, Cell, Counted, Known, Player, Sums
from cai_cli.engine.estimate.survey import Floats, Found
from cai_cli.engine.feed import Feed, Unit
from cai_cli.engine.plan import Step
from cai_cli.engine.rows import Program
from cai_cli.flow import Model
from cai_cli.records import Pair

PLAYED, MOST = 500, 2000  # prompts that no sample has paid for, and all; about 10 ms each
ENOUGH = 30  # prompts beyond a sample, to stand for all that are beyond it
LOOKED_AT = 200  # prompts at the input's beginning, where a run that was stopped has been
TRIED = 40  # prompts that the outer guesses are played on
JUDGES = "label-pairs"  # whose replies are like those to probes


@dataclass(frozen=True, slots=True, kw_only=True)
class Collected:
    """What was found out, and what the cells of it are. `paid`: prompts that all replies are there for"""

    found: Found
    cells: Sequence[Cell]
    models: dict[str, Model]  # by the names in cells
    paid: int


def drawn(feed: Feed, seed: int, count: int) -> list[Unit]:
    """So many prompts, drawn at random: those with the lowest hashes of their id and the seed, the lowest first.

    So more of them are these and others.
    """
    return heapq.nsmallest(count, feed.units(), key=lambda unit: chance.unit(seed, "estimate", _prompt_id(unit)))


def _prompt_id(unit: Unit) -> str:
    row = unit.rows[0]
    return str(getattr(row, "prompt_id", row.id))


def collect(steps: Sequence[Step], feed: Feed, program: Program, known: Known | None) -> Collected:
    """Play prompts: 500 drawn at random beyond a sample, and those at the beginning that are paid for. `known` None: none is"""
    work = _Work(Counts(steps=steps, prompts=feed.prompts), program, known)
    asks = next((step for step in steps if step.name in plan.table_names() and step.stage is not None), None)
    if any(step.name not in plan.table_names() for step in steps):
        pairs = work.prompts(feed, asks)
        share = work.counts.played / feed.prompts
    else:
        pairs, share = [pair for unit in feed.units() for pair in unit.rows] if asks is not None else [], 1.0
    if asks is not None:
        work.probe(asks, pairs, share)
    work.counts.models = work.guesser.models | work.payer.models
    return work.counts.collected()


class _Work:
    """Players, and what they counted."""

    def __init__(self, counts: Counts, program: Program, known: Known | None) -> None:
        self.counts, self.program, self.known = counts, program, known
        self.anatomy = anatomy_of(counts.steps)
        self.guesser = Player(self.anatomy, MIDDLE, nobody)
        self.payer = Player(self.anatomy, MIDDLE, known or nobody)

    def prompts(self, feed: Feed, asks: Step | None) -> list[Pair]:
        """Play prompts. Gives: the pairs that become of them, where a table asks about those"""
        counts, pairs = self.counts, list[Pair]()
        units = drawn(feed, counts.steps[0].seed, MOST)
        for unit in units:
            if counts.played - counts.leading >= PLAYED:
                break
            counted = self._play(unit)
            counts.played += 1
            pairs += counted.made.get(asks.source, ()) if asks is not None else ()
        units = units[: counts.played]
        if self.known is not None and len(units) < feed.prompts:
            self._look(feed, {_prompt_id(unit) for unit in units})
        if any(one.guessed for one in counts.mixed):
            for guess, some in zip((LOW, HIGH), counts.outer, strict=True):
                player = Player(self.anatomy, guess, nobody)
                some += [player.prompt(self.program, unit.rows) for unit in units[:TRIED]]
        return pairs

    def _play(self, unit: Unit) -> Counted:
        mixed = self.payer.prompt(self.program, unit.rows)
        pure = self.guesser.prompt(self.program, unit.rows) if mixed.bought else mixed
        self.counts.pure.append(pure)
        self.counts.mixed.append(mixed)
        return mixed

    def _look(self, feed: Feed, seen: set[str]) -> None:
        """Those at the beginning of the input that are paid for tell of the others, too."""
        for unit in itertools.islice(feed.units(), LOOKED_AT):
            if _prompt_id(unit) not in seen and not self._play(unit).bought:
                self.counts.pure.pop()
                self.counts.mixed.pop()

    def probe(self, step: Step, pairs: Sequence[Pair], share: float) -> None:
        """Play what a table asks about pairs, which are this share of all that there will be."""
        program = probing.program(step)
        for dimension, questions in probing.choose(pairs, step.stage, step.seed).questions.items():
            there = min(step.stage.counts[dimension], round(len(questions) / max(share, 1e-9)))
            for question in questions:
                counted = Counted()
                self.payer.one(program((question,)), counted)
                self.counts.fixed.append((there / len(questions), counted))


@dataclass(kw_only=True)
class Counts:
    """What was counted of prompts: by a guess alone, with what is paid for, by the outer guesses; and what is asked once.

    Only the first `played` of them stand for all; `fixed` says how often each of its own is asked.
    """

    steps: Sequence[Step]
    prompts: int
    played: int = 0
    pure: list[Counted] = field(default_factory=list)
    mixed: list[Counted] = field(default_factory=list)
    outer: tuple[list[Counted], list[Counted]] = field(default_factory=lambda: ([], []))
    fixed: list[tuple[float, Counted]] = field(default_factory=list)
    models: dict[str, Model] = field(default_factory=dict)

    def collected(self) -> Collected:
        """All of it, as arrays."""
        every = [*self.pure, *self.mixed, *(one for _, one in self.fixed)]
        cells = sorted({cell for one in every for cell in (*one.bought, *one.ahead)}, key=self._order)
        places = _places(self.steps)
        known = np.array([[_is_known(one, stage, places) for stage, _ in cells] for one in self.mixed], bool)
        known = known.reshape(len(self.mixed), len(cells))
        low, high = self._factors(cells)
        like = [self._like(cells, at) for at in range(len(cells))]
        found = Found(
            prompts=self.prompts, played=self.played, sampled=self.leading if self.played - self.leading >= ENOUGH else 0,
            guessed=_array([one.ahead for one in self.pure], cells),
            bought=_array([one.bought for one in self.mixed], cells), ahead=_array([one.ahead for one in self.mixed], cells),
            known=known, fixed_bought=_times(self.fixed, cells, "bought"), fixed_ahead=_times(self.fixed, cells, "ahead"),
            like=like, low=low, high=high,
        )  # fmt: skip
        return Collected(
            found=found, cells=cells, models=self.models, paid=int(known.all(1).sum()) if cells else 0
        )  # fmt: skip

    @property
    def leading(self) -> int:
        """How many of the first are paid for: those of a sample, which are drawn first."""
        return sum(1 for _ in itertools.takewhile(lambda one: one.bought, self.mixed[: self.played]))

    def _order(self, cell: Cell) -> tuple[int, str]:
        return [step.name for step in self.steps].index(cell[0]), cell[1]

    def _like(self, cells: Sequence[Cell], at: int) -> int:
        """The cell whose ratio holds for another: that of the same model as a labeler, for probes."""
        stage, model = cells[at]
        asked_once = any((stage, model) in one.bought or (stage, model) in one.ahead for _, one in self.fixed)
        return cells.index((JUDGES, model)) if asked_once and (JUDGES, model) in cells else at

    def _factors(self, cells: Sequence[Cell]) -> tuple[Floats, Floats]:
        """By what the outer guesses are below and above the middle one."""
        middle = _array([one.ahead for one in self.pure[: len(self.outer[0])]], cells).sum(0)
        below, above = (_array([one.ahead for one in counts], cells).sum(0) for counts in self.outer)
        factors = _over(below, middle, _UNTRIED[0]), _over(above, middle, _UNTRIED[1])
        return np.minimum(*factors), np.maximum(*factors)


def _over(one: Floats, middle: Floats, otherwise: float) -> Floats:
    there = (middle > 0) & (one > 0)
    return np.where(there, one / np.where(there, middle, 1.0), otherwise)


def _is_known(counted: Counted, stage: str, places: Mapping[str, int]) -> bool:
    """Whether all of a stage is paid for: its own replies, and those that its questions hang on."""
    return bool(counted.bought) and all(places[one] > places[stage] for one in counted.guessed)


_UNTRIED = (0.5, 2.0)  # where the outer guesses ask nothing


def _places(steps: Sequence[Step]) -> dict[str, int]:
    """Where stages stand. Those that go round and round have one place: each hangs on the other."""
    at = {step.name: n for n, step in enumerate(steps)}
    return {step.name: max(at[step.name], at.get(step.again, 0)) for step in steps}


def nobody(_: object) -> None:
    """What is known where no reply is there."""


def _array(sums: Sequence[Sums], cells: Sequence[Cell]) -> Floats:
    """Prompts x cells x columns."""
    nothing = [0.0] * len(COLUMNS)
    rows = [[one.get(cell, nothing) for cell in cells] for one in sums]
    return np.array(rows, float).reshape(len(sums), len(cells), len(COLUMNS))


def _times(fixed: Sequence[tuple[float, Counted]], cells: Sequence[Cell], what: str) -> Floats:
    whole = np.zeros((len(cells), len(COLUMNS)))
    for often, counted in fixed:
        whole += often * _array([getattr(counted, what)], cells)[0]
    return whole
