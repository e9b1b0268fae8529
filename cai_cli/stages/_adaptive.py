"""Fewer calls at the same accuracy: which question about a pair is worth asking next, by what a pilot has found of its labeler.

The pilot's findings are frozen in a file and read from it, so that a row hangs on them and on its own replies, never on order.

- A judge that gives probabilities and whose position bias b is the same for every pair is asked once, in an order drawn by
  chance; its logit l becomes z = l - b*o, o being +1 where a was shown first, else -1. The other order is asked only where z
  is near 0, or near what of it may be a liking for length that is taken off later, or between them: elsewhere it would not change
  the side.
- Any other judge that gives probabilities is asked in both orders.
- Bare verdicts are bought in pairs, one in each order, until a pair agrees, at most four of them: position cancels in every
  pair, whatever it is, and what is clear ends after two votes. The rule looks at each pair alone and needs no pilot.

Measured in a world whose truth is known (tests/benchmarks/adaptive.py, 2,000 pairs, 24 repetitions): 1.24 calls a label, the
pilot included, and accuracy .0014 (SE .0005) above that of both orders, .0015 below it once length is taken off, .0029 (.0006)
where 200 gold labels do that; by |z| alone it was .0061 (.0011). Log-loss rises by .012: a single call is noisier. Bare verdicts:
3.10 calls, .0005 (SE .0007) above six.

A cascade is as good as its cheap judge knows where it errs. A strong judge, asked about the share that a cheap one was least
sure of, came .012 (SE .001) below its own accuracy at a share of .4 and .002 (.002) at .6, with .56 and .76 of its calls a
label in place of 2, where both like length alike; .026 (.002) at .4 where the cheap one likes it more: then it is sure for a bad
reason.

What was asked in both orders is then no fair sample: outside the pilot it is where a judge is unsure. A position bias estimated
from all of it is off by .126 where the bias fades as the judge gets surer, and its intervals hold the true one in .83 of runs
where calls are as noisy as opinions differ; those of the pilot's pairs alone hold it in .95 to .96. So biases are measured there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cai_cli import votes
from cai_cli.features import FEATURES
from cai_cli.flow import Flow
from cai_cli.judging import ORDERS, soft_labelers
from cai_cli.records import Order, Pair, Vote

PAIRS_OF_VOTES = 4  # bare verdicts: one in each order, at most so often
DIGITS = 9  # certainties are compared after rounding: a file must not decide on the last bit

Ask = Callable[[Sequence[Order], int], Flow[list[Vote]]]  # one labeler, in these orders, as a draw; by every criterion


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How a labeler is asked. `one_call`: once, where it is sure; `bias`: b, `unsure_below`: |z|, both in log-odds; `length`:
    what of z may be taken off later, in log-odds per unit of the feature of length."""

    one_call: bool = False
    bias: float = 0.0
    unsure_below: float = 0.0
    length: float = 0.0

    def is_sure(self, z: float, longer: float) -> bool:
        """Whether log-odds z would stay on their side whatever is taken off. `longer`: by how much a is longer than b"""
        off = self.length * longer
        return not min(0.0, off) - self.unsure_below < z < max(0.0, off) + self.unsure_below


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """Where a labeler of a cascade is asked: at certainties (|log-odds|) `below` this, and of those just there the share `at`."""

    below: float
    at: float

    def escalates(self, certainty: float, drawn: float) -> bool:
        """Whether a pair goes on to the labeler. Takes: `drawn`: a number in [0, 1), the pair's own"""
        certainty = round(certainty, DIGITS)
        return certainty < self.below or (certainty == self.below and drawn < self.at)


NEVER = Cut(below=0.0, at=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pilot:
    """What a pilot found, as a stage needs it; `document`: all of it, `_pilot.json`.

    `pairs`: ids that were asked in both orders, whatever came of it. `repeated`: those of them that were asked once more.
    """

    pairs: frozenset[str] = frozenset()
    repeated: frozenset[str] = frozenset()
    plans: Mapping[str, Plan] = field(default_factory=dict)
    cuts: Mapping[str, Cut] = field(default_factory=dict)
    document: Mapping[str, Any] = field(default_factory=dict)

    @property
    def shift(self) -> dict[str, float]:
        """Position bias in log-odds, by labeler, to remove where only one order was asked."""
        return {name: plan.bias for name, plan in self.plans.items() if plan.one_call}


NO_PILOT = Pilot()


def pilot_of(document: Mapping[str, Any]) -> Pilot:
    """A pilot from its file. Raises: KeyError, TypeError: that is no such file"""
    plans = {
        name: Plan(one_call=True, bias=one["position"]["b"], unsure_below=one["swap_below"], length=one["length_doubt"])
        for name, one in document["labelers"].items()
        if one["policy"] == "one_call"
    }
    cuts = {name: Cut(below=math.inf if one["below"] is None else one["below"], at=one["at"])
            for name, one in document["cascade"].items()}  # fmt: skip
    return Pilot(
        pairs=frozenset(document["pairs"]), repeated=frozenset(document["repeated"]), plans=plans, cuts=cuts, document=document
    )


def cut_at(certainties: Sequence[float], share: float) -> Cut:
    """The cut below which a share of certainties lies; those that are equal are told apart by lot, so the share is kept.

    Takes: |log-odds| of a pilot's pairs, none of them negative; share in [0, 1]   Gives: for 1 or no pairs, all go on
    """
    ranked = sorted(round(one, DIGITS) for one in certainties)
    wanted = share * len(ranked)
    if share >= 1 or not ranked:
        return Cut(below=math.inf, at=0.0)
    if share == 0:
        return NEVER
    below = ranked[min(int(wanted), len(ranked) - 1)]
    less, equal = sum(one < below for one in ranked), ranked.count(below)
    # A single one at the cut is no group to draw from: in new pairs none is just there.
    return Cut(below=below, at=(wanted - less) / equal if equal > 1 else 0.0)


def longer(pair: Pair) -> float:
    """By how much a is longer than b, in units of the feature of length: the log ratio of their words."""
    return FEATURES["length"].between(pair.response_a, pair.response_b)


def opinion(ask: Ask, first: Order, plan: Plan, longer: float = 0.0) -> Flow[list[Vote]]:
    """A labeler's votes on a pair, no more of them than it takes.

    Takes: the order that is asked first, if only one is; by how much a is longer than b
    """
    if plan.one_call:
        given = yield from ask((first,), 0)
        if _is_sure(given, plan, longer):
            return given
        given += yield from ask((_other(first),), 0)
    else:
        given = yield from ask(ORDERS, 0)
    return given + (yield from _until_agreed(ask, given))


def piloted(ask: Ask, first: Order, again: bool) -> Flow[list[Vote]]:
    """A labeler's votes on a pair of the pilot: in both orders, and `again` in the first one, so that its noise can be told."""
    given = yield from ask(ORDERS, 0)
    more = yield from _until_agreed(ask, given)
    if again and not more and _is_soft(given):
        more = yield from ask((first,), 1)
    return given + more


def _until_agreed(ask: Ask, given: Sequence[Vote]) -> Flow[list[Vote]]:
    """Further pairs of votes, where those given are bare verdicts and do not agree."""
    last, more = list(given), list[Vote]()
    for draw in range(1, PAIRS_OF_VOTES):
        if _is_soft(last) or _is_settled(last):
            break
        last = yield from ask(ORDERS, draw)
        more += last
    return more


def _is_soft(given: Sequence[Vote]) -> bool:
    return bool(soft_labelers(given))


def _is_settled(given: Sequence[Vote]) -> bool:
    """Whether both orders came to the same end; where neither came to any, more of the same would not."""
    return votes.consistent(given) is True or all(votes.probability(vote) is None for vote in given)


def _is_sure(given: Sequence[Vote], plan: Plan, longer: float) -> bool:
    z = _log_odds(given, {vote.labeler: plan.bias for vote in given})
    return _is_soft(given) and z is not None and plan.is_sure(z, longer)


def certainty(given: Sequence[Vote], shift: Mapping[str, float]) -> float | None:
    """|log-odds| of the side that votes come to, freed of position; None: they say nothing."""
    z = _log_odds(given, shift)
    return None if z is None else abs(z)


def _log_odds(given: Sequence[Vote], shift: Mapping[str, float]) -> float | None:
    p_a = votes.pool(given, shift, soft_labelers(given))
    return None if p_a is None else votes.logit(p_a)


def _other(order: Order) -> Order:
    return "ba" if order == "ab" else "ab"
