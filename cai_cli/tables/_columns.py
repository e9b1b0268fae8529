"""The votes of many pairs as columns: what measuring needs of a row, some thirty bytes a vote, and no text."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cai_cli import chance, votes
from cai_cli.bias.estimate import Bools, Floats, Ints
from cai_cli.errors import Reject
from cai_cli.records import Pair, Vote

_GOLD = {"a": 1, "b": -1, "tie": 0}
NO_GOLD = 9
CLAMPED_BY = 1e-6  # less is rounding


@dataclass(slots=True)
class Gathering:
    """Columns that grow while rows stream by."""

    labelers: dict[str, int] = field(default_factory=dict)
    bad: int = 0  # pairs with a vote that cannot be read; correct() rejects them
    comparisons: int = 0
    softened: Counter[str] = field(default_factory=Counter)  # votes nearer to .5 than their judge was, by labeler: a clamp
    prompt: array[float] = field(default_factory=lambda: array("d"))  # a key per prompt: 53 bits of a hash of its id
    longer: array[int] = field(default_factory=lambda: array("q"))  # characters of a minus characters of b
    gold: array[int] = field(default_factory=lambda: array("b"))  # +1 a, -1 b, 0 tie, 9 none
    pair: array[int] = field(default_factory=lambda: array("q"))  # from here on, one entry a vote
    labeler: array[int] = field(default_factory=lambda: array("i"))
    slot: array[int] = field(default_factory=lambda: array("b"))  # +1 where a was shown first, else -1
    p: array[float] = field(default_factory=lambda: array("d"))  # probability that a is better; NaN: abstained
    comparison: array[int] = field(default_factory=lambda: array("q"))  # shared by two votes: the same question in both orders

    def add(self, pair: Pair) -> None:
        try:
            given = [votes.probability(vote) for vote in pair.votes]
        except Reject:
            self.bad += 1
            return
        row = len(self.prompt)
        self.prompt.append(chance.unit(pair.prompt_id))
        self.longer.append(len(pair.response_a) - len(pair.response_b))
        self.gold.append(_GOLD.get(pair.gold, NO_GOLD))
        for vote, p, comparison in zip(pair.votes, given, self._matched(pair.votes), strict=True):
            self.pair.append(row)
            self.labeler.append(self.labelers.setdefault(vote.labeler, len(self.labelers)))
            self.slot.append(votes.slot(vote))
            self.p.append(float("nan") if p is None else p)
            self.comparison.append(comparison)
            sure = vote.confidence if p not in (None, 0.5) else None
            self.softened[vote.labeler] += sure is not None and p is not None and max(p, 1 - p) < sure - CLAMPED_BY

    def _matched(self, given: Sequence[Vote]) -> list[int]:
        """A comparison's number for each vote: a labeler's k-th draw on a principle in one order meets its k-th in the other."""
        numbers: dict[tuple[str, str, int], int] = {}
        seen: dict[tuple[str, str, str], int] = {}
        matched = [0] * len(given)
        for at in sorted(range(len(given)), key=lambda at: given[at].draw):
            vote = given[at]
            asked = (vote.labeler, vote.principle, vote.order)
            seen[asked] = seen.get(asked, -1) + 1
            matched[at] = numbers.setdefault((vote.labeler, vote.principle, seen[asked]), self.comparisons + len(numbers))
        self.comparisons += len(numbers)
        return matched


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The same, as arrays. Per pair: prompt, longer, gold. Per vote: the rest."""

    labelers: tuple[str, ...]
    bad: int
    softened: Mapping[str, int]  # votes by labeler
    prompt: Floats
    longer: Floats
    gold: Ints
    pair: Ints
    labeler: Ints
    slot: Ints
    p: Floats
    comparison: Ints

    @property
    def said(self) -> Bools:
        """Which votes did not abstain."""
        return np.asarray(np.isfinite(self.p))

    @property
    def soft(self) -> Bools:
        """Which labelers gave a probability other than 0, .5 and 1 at least once."""
        graded = self.said & ~np.isin(self.p, (0.0, 0.5, 1.0))
        return np.bincount(self.labeler[graded], minlength=len(self.labelers)) > 0


def gather(pairs: Iterable[Pair]) -> Columns:
    """Read the pairs once; each text is dropped as soon as its length is known."""
    found = Gathering()
    for pair in pairs:
        found.add(pair)
    return Columns(
        labelers=tuple(found.labelers), bad=found.bad, softened=found.softened, gold=_whole(found.gold), pair=_whole(found.pair),
        labeler=_whole(found.labeler), slot=_whole(found.slot), comparison=_whole(found.comparison),
        prompt=_real(found.prompt), longer=_real(found.longer), p=_real(found.p),
    )  # fmt: skip


def _whole(column: array[int]) -> Ints:
    return np.asarray(column, dtype=np.int64)


def _real(column: array[float] | array[int]) -> Floats:
    return np.asarray(column, dtype=np.float64)
