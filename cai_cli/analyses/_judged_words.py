"""What a person should know of labels, in sentences with their numbers."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cai_cli.analyses._figures import percent, told
from cai_cli.analyses._judged import Judged, alone, favours, first_won, labelled, slots
from cai_cli.analyses._pairs import SELECTED
from cai_cli.analyses._result import Number

UNSURE = 0.6  # the default of debias.min_confidence
MANY_UNSURE = 0.1  # of the rows: worth saying
ABSTAINED = 0.02  # of the votes: more is worth a look


def findings(seen: Judged) -> Iterator[str]:
    """What stands out, the most important first."""
    yield from _about_position(seen)
    yield from _about_length(seen)
    yield from _about_certainty(seen)
    yield from _about_votes(seen)


def _about_position(seen: Judged) -> Iterator[str]:
    for slot in ("first", "second"):
        favouring = {name: first for name in seen.votes.values("labeler") if favours(first := first_won(seen, name)) == slot}
        if not favouring:
            continue
        who = ", ".join(f"{name} {told(first)}" for name, first in favouring.items())
        what = "labeler favours" if len(favouring) == 1 else "labelers favour"
        single = alone(seen, favouring)
        then = "both orders were asked, which cancels it"
        if single:
            then = f"{percent(single)} of these votes have none in the other order to cancel it: label_pairs.orders: both"
        yield f"{len(favouring)} {what} the {slot} slot. Share of votes that the first shown won: {who}; {then}."


def _about_length(seen: Judged) -> Iterator[str]:
    """The share of the side that wins more, with the longer one's interval or its mirror image."""
    longer = seen.pairs.mean_share(seen.pairs["longer_won"], np.isfinite(seen.pairs["chosen_words"]))
    if not (found := favours(longer)) or longer.value is None or longer.low is None or longer.high is None:
        return
    ends = (longer.low, longer.value, longer.high)
    low, value, high = ends if found == "first" else tuple(1 - end for end in reversed(ends))
    share = told(Number(value=value, low=low, high=high, unit="share"))
    word = "longer" if found == "first" else "shorter"
    yield f"The {word} response wins in {share} of the pairs that differ in length; gold or probes tell whether that is bias."


def _about_certainty(seen: Judged) -> Iterator[str]:
    p = seen.pairs["p"][np.isfinite(seen.pairs["p"])]
    if not len(p):
        return
    unsure, ties = float((np.maximum(p, 1 - p) < UNSURE).mean()), float(seen.pairs.where("side", "tie").mean())
    if unsure > MANY_UNSURE:
        out = "debias.min_confidence and debias.ties decide whether they stay"
        yield f"{percent(unsure)} of the labels have a confidence below {UNSURE}, {percent(ties)} of the rows are ties; {out}."
    favoured = seen.pairs.share(seen.pairs.where("side", "a"), labelled(seen) & ~seen.pairs.where("side", "tie"))
    if favours(favoured):
        why = "what stands at a differs from what stands at b" + (", or the slot decides" if any(_unvaried(seen)) else "")
        yield f"a is better in {told(favoured)} of the pairs with a winner: {why}."


def _unvaried(seen: Judged) -> Iterator[str]:
    """Labelers whose votes tell their order, but most of which do not tell a slot from what stands in it."""
    for name in seen.votes.values("labeler"):
        known = np.isfinite(seen.votes["first_won"]) & seen.votes.where("labeler", name)
        if known.any() and (known & slots(seen, name)).sum() < known.sum() / 2:
            yield name


def _about_votes(seen: Judged) -> Iterator[str]:
    votes = seen.votes
    if not len(votes):
        return
    abstained = float(votes.where("said", "abstain").mean())
    if abstained > ABSTAINED:
        share = percent(abstained)
        yield f"{share} of the votes abstained; above {ABSTAINED:.0%} it is worth reading the replies: cai why CONFIG ID."
    p = votes["confidence"][np.isfinite(votes["confidence"])]
    if len(p) and np.isin(p, (0.5, 1.0)).all():
        yield "Every vote is a bare verdict: probabilities come of counting votes alone, and of how many there are."


def warnings(seen: Judged) -> Iterator[str]:
    """What is missing, by name."""
    if seen.bad_votes:
        yield f"{seen.bad_votes:,} votes could not be read: their order, verdict or p_a is none of the allowed ones"
    if not len(seen.pairs):
        return
    if seen.selected:
        yield SELECTED
    if one_order := ", ".join(_unvaried(seen)):
        yield f"asked in one order only, or nearly: {one_order}; label_pairs.orders: both shows whether a slot is liked"
    if not labelled(seen).any():
        yield "no row has a label: there is no preference, p_a or votes, so only chosen and rejected are compared"
    if not len(seen.votes):
        yield "no row has votes: nothing can be said by labeler, by criterion, or of the slots"
    if not np.isfinite(seen.pairs["p"]).any():
        yield "no row has a p_a: nothing can be said of confidence"
    if not np.isfinite(seen.pairs["chosen_words"]).any():
        yield "no row has two responses (response_a and response_b, or chosen and rejected): nothing can be said of length"
