"""The votes of many pairs as columns: what measuring needs of a row, some thirty bytes a vote, and no text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from itertools import compress, islice
from typing import Any

import numpy as np

from cai_cli import chance
from cai_cli.bias.estimate import Bools, Floats, Ints, folded
from cai_cli.features import FEATURES
from cai_cli.records import Pair

_GOLD = {"a": 1, "b": -1, "tie": 0}
NO_GOLD = 9
_SLOT = {"ab": 1, "ba": -1}
_P_A = {"a": 1.0, "b": 0.0, "tie": 0.5, "abstain": float("nan")}
CLAMPED_BY = 1e-6  # less is rounding
SAMPLE = 8_000  # pairs, at least, whose manners are measured where there are more: more would not change a digit that counts
BATCH = 2_000  # pairs whose numbers are taken at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The columns of some pairs that follow one another, small, so that a process can hand them to another."""

    labelers: tuple[str, ...]  # in the order of their first votes
    softened: Mapping[str, int]  # votes nearer to .5 than their judge was, by labeler: a clamp
    # One entry a pair, in the order of the input
    prompt: Floats  # a key per prompt: 53 bits of a hash of its id
    bad: Bools  # a vote that cannot be read: the row will be rejected
    gold: Any  # +1 a, -1 b, 0 tie, 9 none
    weight: Floats  # of its gold
    harmful: Bools  # kind: harmful
    alike: Bools  # the two texts are the same
    chosen: Bools  # by a pilot, by chance; without one all are
    features: Floats  # (pairs, everywhere) a minus b
    # One entry a vote
    pair: Ints
    labeler: Ints
    slot: Any  # +1 where a was shown first, else -1
    p: Floats  # probability that a is better; NaN: abstained
    comparison: Ints  # shared by two votes: the same question in both orders
    draw: Ints  # which of several votes on one question and order, from 0
    naming: Any  # +1 where the earlier name of the two stood first, -1 second, 0 unknown
    own: Any  # +1 where the labeler wrote a, -1 b, 0 neither or both
    escalated: Bools
    # Of the pairs whose prompt is in the sample
    sample: Ints
    sampled_features: Floats  # (sample, the other features)


def part_of(pairs: Sequence[Pair], everywhere: Sequence[str], within: float = 1.0, chosen: Collection[str] = frozenset()) -> Part:
    """The numbers of some pairs.

    Takes: features that are taken of every pair, the others of those whose prompt's key is below `within`; the ids of a pilot's
    pairs
    """
    keys = [chance.unit(pair.prompt_id) for pair in pairs]
    sample = [row for row, key in enumerate(keys) if key < within]
    others = _others(everywhere)
    return Part(
        prompt=_real(keys), gold=_small([_GOLD.get(pair.gold, NO_GOLD) for pair in pairs]),
        weight=_real([pair.gold_weight or 1.0 for pair in pairs]), harmful=_yes([pair.kind == "harmful" for pair in pairs]),
        alike=_yes([pair.response_a == pair.response_b for pair in pairs]),
        chosen=_yes([not chosen or pair.id in chosen for pair in pairs]), features=_differences(pairs, everywhere),
        sample=_whole(sample), sampled_features=_differences([pairs[row] for row in sample], others), **_votes(pairs),
    )  # fmt: skip


def _others(everywhere: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in FEATURES if name not in everywhere)


def _differences(pairs: Sequence[Pair], names: Sequence[str]) -> Floats:
    found = [FEATURES[name].of for name in names]
    values = [of(pair.response_a) - of(pair.response_b) for pair in pairs for of in found]
    return _real(values).reshape(len(pairs), len(names))


def _votes(pairs: Sequence[Pair]) -> dict[str, Any]:
    """The columns of the votes; a pair with a bad one has none."""
    every = [vote for pair in pairs for vote in pair.votes]
    rows = np.repeat(np.arange(len(pairs)), _whole([len(pair.votes) for pair in pairs]))
    slots, verdicts = [_SLOT.get(vote.order, 0) for vote in every], [_P_A.get(vote.verdict, np.inf) for vote in every]
    silent = _yes([vote.p_a is None for vote in every])
    p = np.where(silent, verdicts, _real([vote.p_a for vote in every]))
    wrong = (_small(slots) == 0) | np.isposinf(verdicts) | ~((silent & np.isnan(p)) | ((p >= 0) & (p <= 1)))
    p[(p == 0.5) & _yes([vote.verdict == "abstain" for vote in every])] = np.nan
    bad = np.bincount(rows[wrong], minlength=len(pairs)) > 0
    good = ~bad[rows]
    return {"bad": bad, "pair": rows[good], "slot": _small(slots)[good], "p": p[good]} | _of_votes(
        [pair for pair, lost in zip(pairs, bad, strict=True) if not lost], list(compress(every, good)), rows[good], p[good]
    )


def _of_votes(pairs: Sequence[Pair], every: Sequence[Any], rows: Ints, p: Floats) -> dict[str, Any]:
    """What there is to know of votes that can be read. Takes: their pairs, they, each one's row and probability"""
    numbers: dict[str, int] = {}
    labeler = _whole([numbers.setdefault(vote.labeler, len(numbers)) for vote in every])
    comparison, draw = _matched(every, rows, labeler)
    sure = _real([vote.confidence for vote in every])
    clamped = np.isfinite(p) & (p != 0.5) & (np.maximum(p, 1 - p) < sure - CLAMPED_BY)
    softened = np.bincount(labeler[clamped], minlength=len(numbers))
    return {
        "labelers": tuple(numbers), "softened": dict(zip(numbers, map(int, softened), strict=True)), "labeler": labeler,
        "comparison": comparison, "draw": draw, "escalated": _yes([vote.escalated for vote in every]),
        "naming": _small([_naming(vote.labels) if vote.labels else 0 for vote in every]),
        "own": _small([_own(vote.model, pair) if vote.model else 0 for pair in pairs for vote in pair.votes]),
    }  # fmt: skip


def _matched(every: Sequence[Any], rows: Ints, labeler: Ints) -> tuple[Ints, Ints]:
    """A comparison's number, and which draw it is, for each vote.

    A labeler's k-th draw on a principle in one order meets its k-th in the other.
    """
    principles: dict[str, int] = {}
    asked = np.column_stack([
        rows, labeler, _whole([principles.setdefault(vote.principle, len(principles)) for vote in every]),
        _whole([_SLOT[vote.order] for vote in every]),
    ])  # fmt: skip
    turn = np.lexsort((np.array([vote.draw for vote in every]), rows))  # stable: equal draws as they stand
    draw = np.empty(len(every), dtype=np.int64)
    draw[turn] = _counted(asked[turn])
    question = np.column_stack([asked[:, :3], draw])
    comparison = np.empty(len(every), dtype=np.int64)
    comparison[turn] = _numbered(question[turn])
    return comparison, draw


def _groups(rows: Ints) -> tuple[Ints, Bools]:
    """An order in which equal rows stand together, in the order that they have; and where in it another row begins."""
    order = np.lexsort(rows.T[::-1])
    begins = np.ones(len(rows), dtype=np.bool_)
    begins[1:] = (rows[order[1:]] != rows[order[:-1]]).any(axis=1)
    return order.astype(np.int64), begins


def _counted(rows: Ints) -> Ints:
    """How many rows before each are equal to it."""
    order, begins = _groups(rows)
    place, before = np.arange(len(rows)), np.empty(len(rows), dtype=np.int64)
    before[order] = place - np.maximum.accumulate(np.where(begins, place, 0))
    return before


def _numbered(rows: Ints) -> Ints:
    """A number for each distinct row, from 0, in the order in which they first stand there."""
    order, begins = _groups(rows)
    group, firsts = np.cumsum(begins) - 1, order[begins]
    rank = np.empty(len(firsts), dtype=np.int64)
    rank[np.argsort(firsts)] = np.arange(len(firsts))
    numbers = np.empty(len(rows), dtype=np.int64)
    numbers[order] = rank[group]
    return numbers


def _naming(labels: Sequence[str]) -> int:
    if len(labels) != 2 or labels[0] == labels[1]:
        return 0
    return 1 if labels[0] < labels[1] else -1


def _own(model: str, pair: Pair) -> int:
    return (pair.model_a == model) - (pair.model_b == model)


def _whole(values: Sequence[int]) -> Ints:
    return np.array(values, dtype=np.int64)


def _small(values: Sequence[int]) -> Any:
    return np.array(values, dtype=np.int8)


def _yes(values: Sequence[bool]) -> Bools:
    return np.array(values, dtype=np.bool_)


def _real(values: Sequence[float | None]) -> Floats:
    return np.array(values, dtype=np.float64)  # None becomes NaN


@dataclass(slots=True)
class Gathering:
    """Parts that grow to columns. `within`: the sample's prompts have a key below it; it is halved when they become too many."""

    everywhere: tuple[str, ...] = ("length",)
    within: float = 1.0
    _parts: list[Part] = field(default_factory=list)
    _sampled: int = 0

    def add(self, part: Part) -> None:
        """The pairs that follow those before."""
        self._parts.append(part)
        self._sampled += len(part.sample)
        while self._sampled > 2 * SAMPLE and self.within > 0:
            self.within /= 2
            self._sampled = sum(int((one.prompt[one.sample] < self.within).sum()) for one in self._parts)

    def columns(self) -> Columns:
        """What was gathered, as one."""
        numbers: dict[str, int] = {}
        softened, pairs, comparisons = Counter[str](), 0, 0
        moved: dict[str, list[Ints]] = {"labeler": [], "pair": [], "comparison": [], "sample": []}
        for part in self._parts:
            own = _whole([numbers.setdefault(name, len(numbers)) for name in part.labelers])
            softened.update(part.softened)
            moved["labeler"].append(own[part.labeler])
            moved["pair"].append(part.pair + pairs)
            moved["comparison"].append(part.comparison + comparisons)
            moved["sample"].append(part.sample + pairs)
            pairs, comparisons = pairs + len(part.prompt), comparisons + int(part.comparison.max(initial=-1)) + 1
        others = [one.name for one in fields(Part) if one.name not in _TOLD | moved.keys()]
        rest = {name: [getattr(part, name) for part in self._parts] for name in others}
        self._parts.clear()
        return self._joined(tuple(numbers), softened, rest | moved)

    def _joined(self, labelers: tuple[str, ...], softened: Mapping[str, int], parts: dict[str, list[Any]]) -> Columns:
        joined = {name: _as_wide(parts.pop(name)) for name in list(parts)}
        inside = joined["prompt"][joined["sample"]] < self.within
        joined |= {name: joined[name][inside] for name in ("sample", "sampled_features")}
        joined["prompt"] = folded(joined["prompt"])
        return Columns(
            labelers=labelers, softened=softened, everywhere=self.everywhere, sampled=_others(self.everywhere), **joined
        )


_TOLD = {"labelers", "softened"}  # what is no column


def _as_wide(parts: Sequence[Any]) -> Any:
    whole = np.concatenate(parts)
    return whole.astype(np.int64) if whole.dtype == np.int8 else whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The same, as arrays. Per pair: prompt to features. Per vote: pair to escalated. Of a sample of pairs: the last three."""

    labelers: tuple[str, ...]
    softened: Mapping[str, int]  # votes by labeler
    everywhere: tuple[str, ...]
    prompt: Ints  # which prompt, or group of prompts, from 0
    bad: Bools
    gold: Ints
    weight: Floats
    harmful: Bools
    alike: Bools
    chosen: Bools
    features: Floats  # (pairs, everywhere)
    pair: Ints
    labeler: Ints
    slot: Ints
    p: Floats
    comparison: Ints
    draw: Ints
    naming: Ints
    own: Ints
    escalated: Bools
    sample: Ints  # where its pairs stand among all
    sampled: tuple[str, ...]
    sampled_features: Floats  # (sample, sampled)

    @property
    def said(self) -> Bools:
        """Which votes did not abstain."""
        return np.asarray(np.isfinite(self.p))

    @property
    def soft(self) -> Bools:
        """Which labelers gave a probability other than 0, .5 and 1 at least once."""
        graded = self.said & ~np.isin(self.p, (0.0, 0.5, 1.0))
        return np.bincount(self.labeler[graded], minlength=len(self.labelers)) > 0

    @property
    def judged(self) -> Bools:
        """Which pairs have gold that is a or b."""
        return np.asarray(np.abs(self.gold) == 1)

    def feature(self, name: str) -> Floats:
        """(pairs,) a feature that is taken of every pair, a minus b."""
        return np.asarray(self.features[:, self.everywhere.index(name)])

    def measured(self, name: str) -> tuple[Ints, Floats]:
        """The pairs that a feature was taken of, and its values."""
        if name in self.everywhere:
            return np.arange(len(self.prompt)), self.feature(name)
        return self.sample, np.asarray(self.sampled_features[:, self.sampled.index(name)])

    def label_votes(self) -> Bools:
        """The votes that a label is made of: those that say something; where stronger labelers were called in, only theirs."""
        said = self.said
        called = np.bincount(self.pair[said & self.escalated], minlength=len(self.prompt)) > 0
        return np.asarray(said & (self.escalated | ~called[self.pair]))


def everywhere_of(styles: Sequence[str]) -> tuple[str, ...]:
    """The features that are taken of every pair. Takes: those beside length that labels are corrected for"""
    return ("length", *dict.fromkeys(styles))


def within_of(prompts: int) -> float:
    """Where the sample's bound can begin, if there are so many prompts: no higher than it will end, and never below that."""
    within = 1.0
    while prompts * within >= 3 * SAMPLE:  # 2 would do, if keys were spread evenly
        within /= 2
    return within


def gather(pairs: Iterable[Pair], styles: Sequence[str] = (), chosen: Collection[str] = frozenset()) -> Columns:
    """Read the pairs once; each text is dropped as soon as its features are known.

    Takes: `styles`, features beside length that labels are corrected for; the ids of a pilot's pairs
    """
    found = Gathering(everywhere=everywhere_of(styles))
    for batch in _batches(iter(pairs)):
        found.add(part_of(batch, found.everywhere, found.within, chosen))
    return found.columns()


def _batches(pairs: Iterator[Pair]) -> Iterator[list[Pair]]:
    yield list(islice(pairs, BATCH))  # the first one, even if it is empty: it has the columns
    while batch := list(islice(pairs, BATCH)):
        yield batch
