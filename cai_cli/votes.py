"""What a labeler's votes say of one pair: the law of aggregation, one row at a time, without numpy.

Everything is in log-odds. A vote with a probability p counts logit(p). A hard vote, a bare verdict, stands for a judge that is
right with probability sigmoid(2) when it has no favourite slot; a bare tie counts 0. Votes are averaged within each order, the
orders within the labeler, the labelers last, so that an order or a labeler that was asked more often does not weigh more. Where
a vote that was escalated to another labeler has a verdict, only escalated votes count.

Removing a position bias b where only one order was asked (o is +1 where a was shown first, else -1):

- a probability: logit - b*o, as the model l = x + b*o has it.
- a hard vote: b lives on the scale of the judge's latent logit, the vote does not, so +-2 - b*o would let a large b turn a
  verdict round. What the vote is worth is its likelihood ratio under the same model,
  ln[sigmoid(2 + s*b) / sigmoid(-2 + s*b)] for the side voted for, where s is +1 if that side was shown first: less than 2 for
  the favoured slot, more for the other, never reversed. Over both orders two agreeing votes give 4 for every b, two
  conflicting ones 0: there the bias cancels, exactly, unasked.
- a bare tie: nothing; that model has no ties.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Literal

from cai_cli.errors import Reject
from cai_cli.records import Vote

P_MIN = 1e-4  # probabilities are kept in [P_MIN, 1 - P_MIN]
TIE_BAND = 0.02  # a tie where |p_a - .5| is below this
VOTE_LOGIT = 2.0  # what one hard vote stands for, until something calibrates it

_VERDICTS = {"a": 1.0, "b": 0.0, "tie": 0.5, "abstain": None}
_BARE = (0.0, 0.5, 1.0)
_UNSHIFTED: Mapping[str, float] = {}


def clip(p: float) -> float:
    """A probability kept in [1e-4, 1 - 1e-4], so that its log-odds are finite."""
    return min(max(p, P_MIN), 1 - P_MIN)


def logit(p: float) -> float:
    """Log-odds of a probability in (0, 1)."""
    return math.log(p / (1 - p))


def sigmoid(x: float) -> float:
    """The probability whose log-odds are x; never overflows."""
    return 0.5 * (1 + math.tanh(x / 2))


def probability(vote: Vote) -> float | None:
    """The probability that a is better, or None where the vote abstained.

    A probability without a verdict is taken (the verdict of such rows reads as its default, abstain); abstain with .5 is an
    abstention that was written as a number.
    Raises: Reject bad_vote where order, verdict or probability is none of the allowed ones.
    """
    if vote.order not in ("ab", "ba") or vote.verdict not in _VERDICTS:
        raise Reject("bad_vote", f"labeler '{vote.labeler}': order '{vote.order}', verdict '{vote.verdict}'")
    p = _VERDICTS[vote.verdict] if vote.p_a is None else vote.p_a
    if p is not None and not 0 <= p <= 1:
        raise Reject("bad_vote", f"labeler '{vote.labeler}': p_a is {p}, not in [0, 1]")
    return None if vote.verdict == "abstain" and p == 0.5 else p


def is_bare(p: float) -> bool:
    """Whether a vote's probability is one that a bare verdict gives: 0, .5 or 1."""
    return p in _BARE


def slot(vote: Vote) -> int:
    """+1 where a was shown first, else -1."""
    return 1 if vote.order == "ab" else -1


def evidence(vote: Vote, p: float, *, bias: float = 0.0, bare: bool = True) -> float:
    """The log-odds that a vote with probability p gives for a, free of a position bias of `bias` log-odds."""
    if not bare:
        return logit(clip(p)) - bias * slot(vote)
    if p == 0.5:
        return 0.0
    side = 1 if p == 1 else -1
    toward = side * slot(vote) * bias
    return side * (_softplus(VOTE_LOGIT - toward) - _softplus(-VOTE_LOGIT - toward))


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def by_labeler(votes: Iterable[Vote]) -> dict[str, dict[str, list[tuple[Vote, float]]]]:
    """The votes that say something, with their probabilities, by labeler and order."""
    found: dict[str, dict[str, list[tuple[Vote, float]]]] = {}
    for vote in votes:
        if (p := probability(vote)) is not None:
            found.setdefault(vote.labeler, {}).setdefault(vote.order, []).append((vote, p))
    return found


def counted(votes: Sequence[Vote]) -> Sequence[Vote]:
    """The votes that decide: the escalated ones where one of them says something, else all. Raises: Reject bad_vote"""
    escalated = [vote for vote in votes if vote.escalated]
    return escalated if any(probability(vote) is not None for vote in escalated) else votes


def pool(votes: Sequence[Vote], shift: Mapping[str, float] = _UNSHIFTED, soft: Collection[str] = ()) -> float | None:
    """The probability that a is better, after aggregation: in [1e-4, 1 - 1e-4], or None where no vote says anything.

    shift: position bias in log-odds by labeler, removed where that labeler was asked in one order only.
    soft: labelers known to give probabilities; a 0 or 1 of theirs is a probability at its limit, not a bare verdict.
    Escalated votes stand in for all others where one of them says something.
    Raises: Reject bad_vote
    Source: Lee et al. 2023, arXiv 2309.00267 (both orders); logits instead of probabilities, because a mean of
    probabilities shrinks to .5.
    """
    logits = []
    for labeler, orders in by_labeler(counted(votes)).items():
        bias = shift.get(labeler, 0.0) if len(orders) == 1 else 0.0
        logits.append(_mean([_order_logit(asked, bias, labeler in soft) for asked in orders.values()]))
    return clip(sigmoid(_mean(logits))) if logits else None


def _order_logit(asked: list[tuple[Vote, float]], bias: float, soft: bool) -> float:
    return _mean([evidence(vote, p, bias=bias, bare=is_bare(p) and not soft) for vote, p in asked])


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)  # fsum: the same bits in whatever order the votes stand


def preference_of(p_a: float) -> Literal["a", "b", "tie"]:
    """The side that p_a prefers; a tie where |p_a - .5| < .02."""
    if abs(p_a - 0.5) < TIE_BAND:
        return "tie"
    return "a" if p_a > 0.5 else "b"


def consistent(votes: Sequence[Vote], soft: Collection[str] = ()) -> bool | None:
    """Whether every labeler that was asked in both orders came out on the same side in both; None where none was.

    Raises: Reject bad_vote
    """
    both = [orders for orders in by_labeler(counted(votes)).items() if len(orders[1]) == 2]
    if not both:
        return None
    return all(len({_outcome(asked, labeler in soft) for asked in orders.values()}) == 1 for labeler, orders in both)


def _outcome(asked: list[tuple[Vote, float]], soft: bool) -> str:
    return preference_of(sigmoid(_order_logit(asked, 0.0, soft)))


def raw_mean(votes: Sequence[Vote]) -> float | None:
    """The mean of the votes' p_a, abstentions left out; None where no vote says anything. Raises: Reject bad_vote"""
    given = [p for vote in votes if (p := probability(vote)) is not None]
    return _mean(given) if given else None
