"""The law of aggregation: one row at a time, and the same on columns."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_cli import votes
from cai_cli.bias import aggregate
from cai_cli.errors import Reject
from cai_cli.records import Vote

# Not nearer to 0 and 1 than a mirrored float can tell from a bare verdict.
PROBABILITIES = st.one_of(st.sampled_from([0.0, 0.5, 1.0]), st.floats(1e-9, 1 - 1e-9))
VOTES = st.lists(
    st.builds(
        Vote, labeler=st.sampled_from(["one", "two", "three"]), order=st.sampled_from(["ab", "ba"]), draw=st.integers(0, 3),
        verdict=st.sampled_from(["a", "b", "tie"]), p_a=PROBABILITIES,
    ), min_size=1, max_size=12,
)  # fmt: skip
SHIFTS = st.dictionaries(st.sampled_from(["one", "two", "three"]), st.floats(-3, 3))
EXCHANGED = {"a": "b", "b": "a", "tie": "tie", "abstain": "abstain"}


def vote(verdict: str, order: str = "ab", labeler: str = "main", p_a: float | None = None, draw: int = 0) -> Vote:
    return Vote(labeler=labeler, order=order, verdict=verdict, p_a=p_a, draw=draw)


def exchanged(given_: Vote) -> Vote:
    """The same vote had a been called b."""
    p_a = None if given_.p_a is None else 1 - given_.p_a
    return replace(given_, order=given_.order[::-1], verdict=EXCHANGED[given_.verdict], p_a=p_a)


@given(VOTES, SHIFTS, st.booleans())
def test_exchanging_a_and_b_flips_the_label(cast: list[Vote], shift: dict[str, float], soft: bool) -> None:
    known = {"one", "two"} if soft else set()
    p, flipped = votes.pool(cast, shift, known), votes.pool([exchanged(at) for at in cast], shift, known)
    assert flipped == pytest.approx(1 - p, abs=1e-9)
    assert votes.P_MIN <= p <= 1 - votes.P_MIN


@given(st.data(), VOTES, SHIFTS)
def test_the_order_of_votes_is_irrelevant(data: st.DataObject, cast: list[Vote], shift: dict[str, float]) -> None:
    shuffled = data.draw(st.permutations(cast))
    assert votes.pool(shuffled, shift) == votes.pool(cast, shift)
    assert votes.consistent(shuffled) == votes.consistent(cast)


@given(VOTES, SHIFTS, st.sampled_from([None, 0.5]), st.sampled_from(["one", "four"]), st.sampled_from(["ab", "ba"]))
def test_an_abstention_changes_nothing(cast: list[Vote], shift: dict[str, float], p: float | None, who: str, order: str) -> None:
    more = [*cast, vote("abstain", order, who, p)]
    assert votes.pool(more, shift) == votes.pool(cast, shift)
    assert votes.consistent(more) == votes.consistent(cast)
    assert votes.raw_mean(more) == votes.raw_mean(cast)


@given(VOTES, SHIFTS, st.booleans())
def test_columns_follow_the_same_law(cast: list[Vote], shift: dict[str, float], soft: bool) -> None:
    names, known = ["one", "two", "three"], {"two"} if soft else set()
    labeler = np.array([names.index(at.labeler) for at in cast])
    slot, p = np.array([votes.slot(at) for at in cast]), np.array([at.p_a for at in cast])
    bare = np.isin(p, (0, 0.5, 1)) & ~np.isin(labeler, [names.index(name) for name in known])
    bias = np.array([shift.get(name, 0.0) for name in names])[labeler]
    pair = np.zeros(len(cast), dtype=np.int64)
    plain, shifted = (
        aggregate.order_means(aggregate.evidence(p, bare, b * slot), pair, labeler, slot, (1, 3)) for b in (bias * 0, bias)
    )
    pooled = aggregate.probability(aggregate.mean_of_known(aggregate.pool(plain, shifted), 1))[0]
    assert pooled == pytest.approx(votes.pool(cast, shift, known), abs=1e-9)


def test_one_hard_vote_stands_for_sigmoid_of_two() -> None:
    assert votes.pool([vote("a")]) == pytest.approx(1 / (1 + math.exp(-2)))
    assert votes.pool([vote("b", "ba")]) == pytest.approx(1 / (1 + math.exp(2)))
    assert votes.pool([vote("tie")]) == 0.5


def test_a_conflict_is_a_tie_and_two_agreeing_votes_are_worth_one() -> None:
    assert votes.pool([vote("a", "ab"), vote("b", "ba")]) == 0.5
    assert votes.pool([vote("a", "ab"), vote("a", "ba")]) == votes.pool([vote("a")])


def test_orders_and_labelers_weigh_the_same_however_often_they_were_asked() -> None:
    often = [vote("a", "ab", draw=draw) for draw in range(5)]
    assert votes.pool([*often, vote("b", "ba")]) == 0.5
    assert votes.pool([*often, vote("b", "ab", "other")]) == pytest.approx(0.5)


def test_logits_are_averaged_not_probabilities() -> None:
    p = votes.pool([vote("a", "ab", p_a=0.99), vote("a", "ba", p_a=0.6)])
    assert votes.logit(p) == pytest.approx((votes.logit(0.99) + votes.logit(0.6)) / 2)


@given(st.floats(-4, 4), st.floats(0.01, 0.99))
def test_a_bias_is_taken_from_a_probability_where_one_order_was_asked(b: float, p: float) -> None:
    first, second = (votes.pool([vote("a", order, p_a=p)], {"main": b}, {"main"}) for order in ("ab", "ba"))
    assert votes.logit(first) == pytest.approx(votes.logit(votes.clip(votes.sigmoid(votes.logit(p) - b))))
    assert votes.logit(second) == pytest.approx(votes.logit(votes.clip(votes.sigmoid(votes.logit(p) + b))))


@given(st.floats(-6, 6))
def test_a_hard_vote_is_discounted_but_never_turned_round(b: float) -> None:
    first, second = (votes.evidence(vote("a", order), 1.0, bias=b) for order in ("ab", "ba"))
    assert min(first, second) > 0
    assert first + second == pytest.approx(2 * votes.VOTE_LOGIT)
    assert (first < second) == (b > 0) or abs(b) < 1e-6


@given(st.floats(-3, 3))
def test_a_hard_vote_is_worth_its_likelihood_ratio(b: float) -> None:
    favoured = votes.sigmoid(2 + b) / votes.sigmoid(-2 + b)
    assert votes.evidence(vote("a", "ab"), 1.0, bias=b) == pytest.approx(math.log(favoured))


@given(SHIFTS)
def test_over_both_orders_a_bias_cancels_by_itself(shift: dict[str, float]) -> None:
    both = [vote("a", "ab", "one", 0.9), vote("b", "ba", "one", 0.2)]
    assert votes.pool(both, shift) == votes.pool(both)


def test_a_certain_probability_is_not_a_bare_verdict() -> None:
    assert votes.pool([vote("a", p_a=1.0)], soft={"main"}) == 1 - votes.P_MIN
    assert votes.pool([vote("a", p_a=1.0)]) == pytest.approx(votes.sigmoid(2))


def test_a_probability_without_a_verdict_counts() -> None:
    assert votes.pool([Vote(labeler="main", p_a=0.7)]) == pytest.approx(0.7)


def test_nothing_said_is_no_label() -> None:
    assert votes.pool([]) is None
    assert votes.pool([vote("abstain")]) is None
    assert votes.raw_mean([vote("abstain")]) is None


@pytest.mark.parametrize("bad", [vote("a", "first"), vote("A"), vote("a", p_a=1.2), vote("a", p_a=math.nan)])
def test_a_vote_that_cannot_be_read_is_rejected(bad: Vote) -> None:
    with pytest.raises(Reject) as caught:
        votes.pool([bad])
    assert caught.value.reason == "bad_vote"
    assert "'main'" in caught.value.detail


@pytest.mark.parametrize(("p", "side"), [(0.9, "a"), (0.1, "b"), (0.519, "tie"), (0.481, "tie"), (0.521, "a"), (0.5, "tie")])
def test_preference(p: float, side: str) -> None:
    assert votes.preference_of(p) == side


@pytest.mark.parametrize(
    ("cast", "answer"),
    [
        ([], None),
        ([vote("a"), vote("abstain", "ba")], None),
        ([vote("a"), vote("a", "ba")], True),
        ([vote("a"), vote("b", "ba")], False),
        ([vote("a"), vote("tie", "ba")], False),
        ([vote("a"), vote("a", "ba"), vote("b", labeler="other")], True),
        ([vote("a"), vote("a", "ba"), vote("b", labeler="other"), vote("a", "ba", "other")], False),
        ([vote("b"), vote("b", "ba"), vote("a", "ba", draw=1), vote("b", "ba", draw=2)], True),
    ],
)
def test_consistent(cast: list[Vote], answer: bool | None) -> None:
    assert votes.consistent(cast) is answer
