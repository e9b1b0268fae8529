"""What the votes of a pilot tell of each labeler, and how it may be asked from then on: the document that is frozen."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cai_cli import chance, votes
from cai_cli.flow import Flow, play
from cai_cli.judging import ORDERS, SOFT, soft_labelers
from cai_cli.records import Order, Pair, Vote
from cai_cli.stages import _adaptive
from cai_cli.stages._adaptive import Plan, pilot_of

if TYPE_CHECKING:
    from cai_cli.bias.estimate import Estimate, Floats
    from cai_cli.stages.label_pairs import LabelPairs

LEAST = 30  # pairs answered in both orders, below which nothing is concluded
REPEATED = 32  # of them are asked once more, about: from 20 on their noise can be told
GRADED = 0.9  # of a labeler's votes, for it to count as one that gives probabilities
SURE = 0.01  # the level of the test that the position bias varies by pair
MATERIAL = 0.15  # and of the spread of what it thinks of pairs, what the bias must vary by: less costs no accuracy worth telling
UNSURE = 2.2  # times a single call's noise over the spread: so many noises from 0 the other order is asked,
FEWEST, MOST = 0.5, 0.9  # no fewer and no more: where calls are noisy, one that is far from 0 is none the surer for it
DOUBT = 0.45  # of what its log-odds rise with length: so much may be taken off for length later
MOST_SWAPS = 0.6  # of the pairs: beyond, both orders at once cost hardly more
HELD = 0.1  # of a labeler's probabilities, beyond which they hang on the clamp: what it held back is moved by no bias
CLAMPED_BY = 1e-6  # less is rounding
DIGITS = 6  # kept: the last bits differ between machines, and a version's fingerprint must not

Rows = Sequence[tuple[Pair, Sequence[Vote]]]  # a pilot's pairs, each with one labeler's votes


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """A labeler's answers in log-odds: `half` is (ab - ba)/2, `gap` (ab + ba)/2; `repeat`: a second answer less the first.
    `longer`: by how much a is longer than b."""

    half: Floats
    gap: Floats
    longer: Floats
    repeat: Floats


def findings(stage: LabelPairs, pairs: Sequence[Pair], repeats: float) -> dict[str, Any]:
    """What a pilot found, as plain JSON values.

    Takes: the pilot's pairs with their votes; the share of them that was asked once more; 0: they were not asked so that biases
    can be told, only to know how sure the labelers are
    """
    labelers = {judge.name: _finding(judge.name, pairs, repeats > 0) for judge in stage.judges} if stage.settings.adaptive else {}
    asked = [pair.id for pair in pairs] if repeats else []
    found: dict[str, Any] = {
        "pairs": asked, "repeated": sorted(one for one in asked if is_repeated(stage.seed, one, repeats)), "labelers": labelers,
        "cascade": {}, "warnings": [f"{name}: {one['why']}" for name, one in labelers.items() if one["warn"]],
    }  # fmt: skip
    return found | {"cascade": dict(_cascade(stage, pairs, found))}


def is_repeated(seed: int, pair_id: str, share: float) -> bool:
    """Whether a pair of the pilot is asked once more in one order: a share of them, drawn by chance."""
    return chance.unit(seed, pair_id, "repeated") < share


def _finding(name: str, pairs: Sequence[Pair], chosen: bool) -> dict[str, Any]:
    given = [(pair, [vote for vote in pair.votes if vote.labeler == name]) for pair in pairs]
    said = [vote for _, mine in given for vote in mine if votes.probability(vote) is not None]
    graded = sum(vote.basis in SOFT for vote in said) / len(said) if said else 0.0
    answers = _answers(given)
    basis = "" if not said else "probabilities" if graded >= GRADED else "mixed" if graded > 1 - GRADED else "verdicts"
    common: dict[str, Any] = {"basis": basis, "n": len(answers.half), "repeats": len(answers.repeat)}
    if said and graded < GRADED:
        why = "it gives verdicts without probabilities" + ("" if graded <= 1 - GRADED else ", at times")
        return common | {"policy": "both", "why": f"{why}: they are asked for in pairs until one agrees", "warn": False}
    if not chosen:
        return common | _both("there are too few prompts to tell whether its position bias varies from pair to pair")
    held = sum(_is_held(vote) for vote in said) / max(1, len(said))
    if held > HELD:
        return common | _both(f"{held:.0%} of its probabilities are held back by `clamp`, so that they tell no bias")
    if len(answers.half) < LEAST:
        few = f"only {len(answers.half)} of {len(pairs)} pairs have its probability in both orders, and not next to 0 or 1"
        return common | _both(few)
    return common | _policy(answers)


def _is_held(vote: Vote) -> bool:
    """Whether its probability is nearer to .5 than the judge was."""
    p_a = vote.p_a
    return p_a is not None and p_a != 0.5 and max(p_a, 1 - p_a) < (vote.confidence or 0.0) - CLAMPED_BY


def _both(why: str) -> dict[str, Any]:
    return {"policy": "both", "why": f"{why}: both orders are asked", "warn": True}


def _policy(answers: Answers) -> dict[str, Any]:
    """Whether one call will do, from a labeler's probabilities.

    Rule: both orders where (l_ab - l_ba)/2 varies more than repeated calls do (`heterogeneity`, p < .01) and by more than .15 of
    the sd of (l_ab + l_ba)/2. Else one call, and the other order where z = l - b*o is within .5 to .9 sd of a single call's noise
    of 0, of .45 of what z rises with length, or between them: only later do probes or gold tell how much of that is bias.
    Simulated (call noise .5, 80 pairs, 32 of them repeated; 30 and 30): false alarms below .01; a bias with sd .5 by pair is seen
    in .86 (.51), of .7 in 1.0 (.87) and of 1 in 1.0 (.99) of pilots; one of .3 in .24 (.10), and overlooked it costs .001 of
    accuracy. A bias that fades as the judge gets surer costs less than .002, so it is no reason against.
    """
    from cai_cli.bias.assumptions import heterogeneity
    from cai_cli.bias.position import position_from_probabilities

    b = position_from_probabilities(answers.gap + answers.half, answers.gap - answers.half)
    varies = heterogeneity(answers.half, answers.repeat)
    spread, noise = float(answers.gap.std(ddof=1)), math.sqrt(2) * float(answers.half.std(ddof=1))
    swap_below = min(max(UNSURE * noise / spread, FEWEST), MOST) * noise if spread else 0.0
    doubt = DOUBT * _slope(answers)
    plan = Plan(unsure_below=swap_below, length=doubt)
    swaps = sum(not plan.is_sure(z, by) for z, by in zip(answers.gap, answers.longer, strict=True)) / len(answers.gap)
    found = {
        "position": _numbers("b", b), "varies": _numbers("sd", varies), "spread": _short(spread), "call_noise": _short(noise),
        "swap_below": _short(swap_below), "length_doubt": _short(doubt), "swaps": _short(swaps),
    }  # fmt: skip
    if varies.value is None or varies.p_value is None:
        return found | _both("too few repeated answers tell whether its position bias varies from pair to pair")
    if varies.p_value < SURE and varies.value > MATERIAL * spread:
        how = f"its position bias varies from pair to pair (sd {varies.value:.2f} log-odds around {b.value or 0.0:.2f})"
        return found | _both(how)
    if swaps > MOST_SWAPS:
        return found | _both(f"{swaps:.0%} of the pairs are closer than its answers are noisy, and would be asked twice")
    why = "its position bias is one for all pairs, as far as the pilot tells: one order is asked, the other where it is unsure"
    return found | {"policy": "one_call", "why": why, "warn": False}


def _slope(answers: Answers) -> float:
    """By how much log-odds rise with one unit of length; 0 where all are of one length."""
    spread = float(answers.longer @ answers.longer)
    return float(answers.gap @ answers.longer) / spread if spread else 0.0


def _numbers(name: str, one: Estimate) -> dict[str, Any]:
    ci = None if one.ci is None else [_short(end) for end in one.ci]
    return {name: _short(one.value), "se": _short(one.se), "ci": ci, "n": one.n, "p_value": _short(one.p_value)}


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, DIGITS)


def _answers(given: Rows) -> Answers:
    """A labeler's logits where it gave probabilities in both orders; those that limits bend are left out."""
    import numpy as np

    from cai_cli.bias.assumptions import SATURATED

    half, gap, longer, repeat = list[float](), list[float](), list[float](), list[float]()
    for pair, mine in given:
        logits = {order: _logit([vote for vote in mine if vote.order == order and vote.draw == 0]) for order in ORDERS}
        ab, ba = logits["ab"], logits["ba"]
        if ab is None or ba is None or abs(ab + ba) / 2 > SATURATED:
            continue
        half.append((ab - ba) / 2)
        gap.append((ab + ba) / 2)
        longer.append(_adaptive.longer(pair))
        again = [vote for vote in mine if vote.draw == 1]
        once, more = (ab if again and again[0].order == "ab" else ba), _logit(again)
        if once is not None and more is not None:
            repeat.append(more - once)
    return Answers(half=np.array(half), gap=np.array(gap), longer=np.array(longer), repeat=np.array(repeat))


def _logit(asked: Sequence[Vote]) -> float | None:
    """The mean log-odds of probabilities of one order and draw; None: there are none, or a verdict among them has none."""
    said = [vote for vote in asked if votes.probability(vote) is not None]
    if not said or not soft_labelers(said):
        return None
    return math.fsum(votes.evidence(vote, vote.p_a or 0.0, bare=False) for vote in said) / len(said)


# How sure the labelers of a cascade are, asked as they will be.


def _cascade(stage: LabelPairs, pairs: Sequence[Pair], found: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    if not stage.escalated:
        return
    pilot = pilot_of(found)
    always = [judge.name for judge in stage.judges if judge.name not in stage.escalated]
    sure = [_certainty(stage, pair, always, pilot) for pair in pairs]
    for name, share in stage.escalated.items():
        cut = _adaptive.cut_at(sure, share)
        below = None if math.isinf(cut.below) else cut.below
        yield name, {"share": share, "below": below, "at": _short(cut.at), "n": len(sure)}


def _certainty(stage: LabelPairs, pair: Pair, always: Sequence[str], pilot: _adaptive.Pilot) -> float:
    """How sure the labelers that are asked about every pair would be if this one were no pair of the pilot."""
    given: list[Vote] = []
    for name in always:
        mine = [vote for vote in pair.votes if vote.labeler == name]
        if stage.settings.adaptive:
            first = stage.first_order(pair, name)
            plan = pilot.plans.get(name, Plan())
            mine = play(_adaptive.opinion(_recorded(mine), first, plan, _adaptive.longer(pair)), ())
        given += mine
    return _adaptive.certainty(given, pilot.shift) or 0.0


def _recorded(mine: Sequence[Vote]) -> _adaptive.Ask:
    def ask(orders: Sequence[Order], draw: int) -> Flow[list[Vote]]:
        yield from ()
        return [vote for vote in mine if vote.order in orders and vote.draw == draw]

    return ask
