"""Estimators recover biases that were put in, their intervals cover, and they say so when there is nothing to estimate."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_cli.bias import aggregate, outcome
from cai_cli.bias.agreement import agreement
from cai_cli.bias.estimate import Estimate, Floats, by_prompt, mean, resample
from cai_cli.bias.interval import wilson
from cai_cli.bias.position import first_slot_excess, position_from_probabilities, position_from_votes, swapped
from cai_cli.bias.slope import slope

B, PAIRS, REPETITIONS = 0.679, 1000, 500
SPREAD = 2.06  # sd of the judge's opinion of a pair, in log-odds


def opinions(seed: int, *shape: int) -> tuple[np.random.Generator, Floats]:
    rng = np.random.default_rng(seed)
    return rng, rng.normal(0, SPREAD, shape)


def sigmoid(x: Floats) -> Floats:
    return np.asarray((1 + np.tanh(x / 2)) / 2)


def covered(estimates: list, truth: float) -> float:
    return float(np.mean([at.ci[0] <= truth <= at.ci[1] for at in estimates]))


def rmse(estimates: list, truth: float) -> float:
    return float(np.sqrt(np.mean([(at.value - truth) ** 2 for at in estimates])))


def test_votes_recover_the_position_bias_and_the_interval_covers() -> None:
    rng, x = opinions(1, REPETITIONS, PAIRS)
    ab, ba = rng.random(x.shape) < sigmoid(x + B), rng.random(x.shape) < sigmoid(x - B)
    first_first, second_second = (ab & ~ba).sum(axis=1), (~ab & ba).sum(axis=1)
    found = [position_from_votes(int(ff), int(ss)) for ff, ss in zip(first_first, second_second, strict=True)]
    assert np.mean([at.value for at in found]) == pytest.approx(B, abs=0.01)
    assert 0.93 <= covered(found, B) <= 0.97
    assert rmse(found, B) <= 1.15 * 0.071
    assert np.mean([at.se for at in found]) == pytest.approx(rmse(found, B), rel=0.1)


def test_probabilities_recover_the_position_bias_and_the_interval_covers() -> None:
    rng, x = opinions(2, REPETITIONS, PAIRS)
    ab, ba = (x + side * B + rng.normal(0, 0.5, x.shape) for side in (1, -1))
    found = [position_from_probabilities(*rows) for rows in zip(ab, ba, strict=True)]
    assert 0.93 <= covered(found, B) <= 0.97
    assert rmse(found, B) <= 1.15 * 0.011
    assert all(at.significant for at in found)


def test_an_unbiased_judge_is_called_biased_no_more_often_than_the_level_says() -> None:
    rng, x = opinions(3, REPETITIONS, 200)
    ab, ba = rng.random(x.shape) < sigmoid(x), rng.random(x.shape) < sigmoid(x)
    found = [position_from_votes(int((a & ~b).sum()), int((~a & b).sum())) for a, b in zip(ab, ba, strict=True)]
    assert 0.01 <= np.mean([at.significant for at in found]) <= 0.06


def test_votes_give_the_published_formula() -> None:
    found = position_from_votes(238, 7)
    assert found.value == pytest.approx(0.5 * math.log(238.5 / 7.5))
    assert found.se == pytest.approx(0.5 * math.sqrt(1 / 238.5 + 1 / 7.5))
    assert position_from_votes(5, 0).p_value == pytest.approx(2 / 32)


@given(st.integers(0, 500), st.integers(1, 500))
def test_exchanging_the_slots_flips_the_bias(first: int, second: int) -> None:
    one, other = position_from_votes(first, second), position_from_votes(second, first)
    assert one.value == pytest.approx(-other.value)
    assert one.p_value == pytest.approx(other.p_value)


def test_without_a_conflict_there_is_a_warning_and_no_number() -> None:
    found = position_from_votes(0, 0)
    assert (found.value, found.se, found.ci, found.p_value, found.n) == (None, None, None, None, 0)
    assert "votes alone do not tell" in found.warning


@pytest.mark.parametrize(("count", "value"), [(0, None), (1, 1.0)])
def test_fewer_than_two_pairs_have_no_interval(count: int, value: float | None) -> None:
    found = position_from_probabilities(np.full(count, 1.0), np.full(count, -1.0))
    assert (found.value, found.ci, found.n) == (value, None, count)
    assert found.warning


def test_bad_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        position_from_probabilities(np.zeros(3), np.zeros(2))
    with pytest.raises(ValueError, match="finite"):
        position_from_probabilities(np.array([np.inf, 0.0]), np.zeros(2))
    with pytest.raises(ValueError, match="negative"):
        position_from_votes(-1, 2)
    with pytest.raises(ValueError, match="one length"):
        mean(np.zeros(3), np.zeros(2), 1)


def test_swapped_counts_every_kind_of_comparison() -> None:
    slot_ab, slot_ba = np.array([1, -1, 1, -1, 0, 1]), np.array([1, -1, -1, 1, 1, 1])
    found = swapped(slot_ab, slot_ba, np.arange(6.0), 7)
    assert (found.n, found.first_first, found.second_second) == (6, 2, 1)
    assert found.consistency.value == pytest.approx(2 / 6)
    assert found.conflict_rate.value == pytest.approx(3 / 6)


def test_a_judge_that_looks_at_nothing_agrees_with_itself_by_chance_only() -> None:
    rng = np.random.default_rng(4)
    slots = [np.where(rng.random(2000) < 0.8, 1, -1) for _ in range(2)]
    found = swapped(*slots, np.arange(2000.0), 7)
    low, high = found.above_chance.ci
    assert low < 0 < high
    assert found.consistency.value == pytest.approx(0.32, abs=0.03)


def test_bootstrap_intervals_cover_when_pairs_share_prompts() -> None:
    rng = np.random.default_rng(5)
    prompt = np.repeat(np.arange(100.0), 4)
    rates = rng.beta(4, 2, (300, 100)).repeat(4, axis=1)
    found = [mean((rng.random(400) < row).astype(float), prompt, n) for n, row in enumerate(rates)]
    assert 0.91 <= covered(found, 2 / 3) <= 0.98


@pytest.mark.parametrize("of", [mean, first_slot_excess])
def test_one_prompt_has_no_interval_however_many_rows_it_has(of: Callable[..., Estimate]) -> None:
    for rows in (1, 4):
        found = of(np.ones(rows), np.zeros(rows), 1)
        assert (found.value, found.se, found.ci) == (1.0, None, None)
        assert "fewer than two prompts" in found.warning


def test_where_all_prompts_are_alike_the_interval_is_as_wide_as_wilsons() -> None:
    for groups in (2, 40):
        prompt = np.arange(float(groups))
        for value in (0.0, 1.0):
            found = mean(np.full(groups, value), prompt, 1, (0, 1))
            assert found.ci == pytest.approx(wilson(value * groups, groups))
        low, high = wilson(0, groups)
        assert first_slot_excess(np.ones(groups), prompt, 1).ci == pytest.approx((1 - 2 * high, 1.0))
        assert first_slot_excess(np.full(groups, 0.5), prompt, 1).ci == pytest.approx((-high, high))
        same = swapped(np.ones(groups, int), -np.ones(groups, int), prompt, 7)
        assert same.consistency.ci == pytest.approx((1 - high, 1.0))
        assert same.conflict_rate.ci == pytest.approx((low, high))
        found = agreement(np.ones(groups, int), np.ones(groups, int), prompt, 7)
        assert found.raw.ci == pytest.approx((1 - high, 1.0))
        assert found.kappa.ci == found.ac1.ci == pytest.approx((1 - 2 * high, 1.0))
    assert mean(np.full(9, 0.3), np.arange(9.0), 1).ci is None, "no bounds are known, so nothing tells"


def test_a_share_near_its_bound_is_covered_where_most_samples_are_all_alike() -> None:
    rng = np.random.default_rng(11)
    found = [mean((rng.random(40) < 0.98).astype(float), np.arange(40.0), n, (0, 1)) for n in range(REPETITIONS)]
    assert covered(found, 0.98) >= 0.93


@pytest.mark.parametrize(("pairs", "is_significant"), [(2, False), (5, False), (6, True), (200, True)])
def test_a_judge_that_says_the_same_of_every_pair_has_no_interval_and_the_p_of_a_sign_test(
    pairs: int, is_significant: bool
) -> None:
    found = position_from_probabilities(np.full(pairs, 0.8472978), np.full(pairs, -0.8472978))
    assert (found.ci, found.significant) == (None, is_significant)
    assert found.value == pytest.approx(0.8472978)
    assert found.p_value == pytest.approx(2 * 0.5**pairs)
    assert "nothing tells how they vary" in found.warning
    assert position_from_probabilities(np.zeros(pairs), np.zeros(pairs)).p_value == 1.0


def test_resampling_distinct_rows_is_the_plain_bootstrap() -> None:
    totals = np.random.default_rng(6).integers(0, 3, (60, 2)).astype(float)
    picks = np.random.default_rng(7).integers(0, 60, (4000, 60))
    plain, ours = totals[picks].sum(axis=1), resample(totals, 8, 4000)
    np.testing.assert_allclose(ours.mean(axis=0), plain.mean(axis=0), rtol=0.02)
    np.testing.assert_allclose(np.cov(ours.T), np.cov(plain.T), rtol=0.15, atol=1.0)
    np.testing.assert_array_equal(resample(totals, 8), resample(totals, 8))


def test_sums_are_by_prompt() -> None:
    found = by_prompt(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), np.array([0.9, 0.1, 0.9]))
    np.testing.assert_array_equal(found, [[3.0, 4.0], [6.0, 8.0]])


def test_first_slot_excess_is_the_gap_of_the_two_slots() -> None:
    found = first_slot_excess(np.array([1.0, 1.0, 0.0, 0.5]), np.arange(4.0), 7)
    assert found.value == pytest.approx(2 / 4 - 1 / 4)
    assert first_slot_excess(np.array([]), np.array([]), 7).value is None


def test_the_slope_covers_when_pairs_share_prompts() -> None:
    rng = np.random.default_rng(9)
    prompt = np.repeat(np.arange(150.0), 3)
    found = []
    for _ in range(300):
        length = (rng.normal(0, 1, 150).repeat(3) + rng.normal(0, 1, 450)) * 80
        shared = rng.normal(0, 1, 150).repeat(3)
        found.append(slope(0.5 * length / 80 + shared + rng.normal(0, 1, 450), length, prompt))
    assert 0.91 <= covered(found, 0.5 * math.sqrt(2)) <= 0.98


@given(st.integers(0, 2**31))
def test_the_slope_does_not_care_which_answer_is_a(seed: int) -> None:
    rng = np.random.default_rng(seed)
    logit, length, sign = rng.normal(0, 1, 20), rng.normal(0, 1, 20), rng.choice([-1.0, 1.0], 20)
    one, other = slope(logit, length, np.arange(20.0)), slope(sign * logit, sign * length, np.arange(20.0))
    assert one.value == pytest.approx(other.value)
    assert one.se == pytest.approx(other.se)


@pytest.mark.parametrize(("length", "warning"), [([0.0, 0.0, 0.0], "never differ"), ([1.0, 2.0], "fewer than three")])
def test_a_slope_that_cannot_be_seen_is_no_number(length: list[float], warning: str) -> None:
    found = slope(np.ones(len(length)), np.array(length), np.arange(float(len(length))))
    assert found.value is None
    assert warning in found.warning


def test_agreement_by_hand() -> None:
    left, right = np.array([1, 1, -1, 0, 1, -1]), np.array([1, -1, -1, 0, 0, -1])
    found = agreement(left, right, np.arange(6.0), 7)
    by_marginals = (5 / 6) * (4 / 6) / 2 + (1 / 6) * (2 / 6)
    by_mean = (2 * 0.375 * 0.625 + 0.25 * 0.75) / 2
    assert found.raw.value == pytest.approx(4 / 6)
    assert found.kappa.value == pytest.approx((4 / 6 - by_marginals) / (1 - by_marginals))
    assert found.ac1.value == pytest.approx((4 / 6 - by_mean) / (1 - by_mean))


@given(st.integers(0, 2**31))
def test_agreement_does_not_care_which_answer_is_a(seed: int) -> None:
    rng = np.random.default_rng(seed)
    left, right, sign = rng.integers(-1, 2, 30), rng.integers(-1, 2, 30), rng.choice([-1, 1], 30)
    one, other = agreement(left, right, np.arange(30.0), 7), agreement(sign * left, sign * right, np.arange(30.0), 7)
    assert one == other


def test_outcomes_of_a_pair() -> None:
    p, gold = np.array([0.9, 0.1, 0.51, 0.9, np.nan]), np.array([1, 1, -1, 0, 1])
    np.testing.assert_array_equal(outcome.correct(p, gold), [1, 0, 0.5, np.nan, np.nan])
    np.testing.assert_allclose(outcome.log_loss(p, gold)[:3], -np.log([0.9, 0.1, 0.49]))
    longer = np.array([5.0, 5.0, 5.0, 0.0, 5.0])
    np.testing.assert_array_equal(outcome.longer_wins(p, longer), [1, 0, 0.5, np.nan, np.nan])


def test_averaging_both_orders_beats_one_order() -> None:
    rng, x = opinions(10, 20000)
    gold = np.where(rng.random(20000) < sigmoid(x), 1, -1)
    both = [x + side * B + rng.normal(0, 0.5, x.shape) for side in (1, -1)]
    one, averaged = (np.mean(outcome.correct(aggregate.probability(at), gold)) for at in (both[0], (both[0] + both[1]) / 2))
    assert averaged > one + 0.01
