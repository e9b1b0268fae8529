"""Intervals by prompt: against worked values and scipy, and how often they hold the truth where rows of a prompt are alike."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cai_cli.bias.estimate import Estimate, Floats
from cai_cli.bias.interval import ALIKE, FEW, clustered_mean, clustered_share, ratio_of_means, wilson

TIMES = 400


def held(found: list[Estimate], truth: float) -> float:
    return float(np.mean([one.ci is not None and one.ci[0] <= truth <= one.ci[1] for one in found]))


@pytest.mark.parametrize(
    ("hits", "n", "low", "high"),
    [(0, 10, 0.0, 0.27753), (5, 10, 0.23659, 0.76341), (10, 10, 0.72247, 1.0), (1, 29, 0.00611, 0.17176)],
)
def test_wilson_gives_the_published_values(hits: int, n: int, low: float, high: float) -> None:
    assert wilson(hits, n) == pytest.approx((low, high), abs=1e-5)


@given(st.floats(0, 1), st.floats(0.5, 1e6))
def test_a_share_lies_in_its_own_interval(p: float, n: float) -> None:
    low, high = wilson(p * n, n)
    assert 0 <= low <= p * n / n <= high <= 1


def test_one_row_a_prompt_is_the_t_interval() -> None:
    values = np.random.default_rng(1).normal(3, 2, 40)
    found = clustered_mean(values, np.ones(40))
    expected = stats.t.interval(0.95, 39, values.mean(), values.std(ddof=1) / np.sqrt(40))
    assert (found.value, found.ci) == (pytest.approx(values.mean()), pytest.approx(expected))


def test_saying_every_row_five_times_tells_nothing_new() -> None:
    values = np.random.default_rng(2).normal(0, 1, 30)
    once, often = clustered_mean(values, np.ones(30)), clustered_mean(5 * values, np.full(30, 5.0))
    assert often.ci == pytest.approx(once.ci)
    assert (once.n, often.n) == (30, 150)
    hits = (values > 0).astype(float)
    once, often = clustered_share(hits, np.ones(30)), clustered_share(5 * hits, np.full(30, 5.0))
    assert often.ci == pytest.approx(once.ci, abs=0.01)


def alike(seed: int) -> tuple[Floats, Floats]:
    """Sums and numbers of rows of 60 prompts whose rows share most of their value; the mean is 0."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(1, 9, 60).astype(float)
    return rows * rng.normal(0, 1, 60) + rng.normal(0, 0.3, 60) * np.sqrt(rows), rows


def test_the_interval_holds_the_truth_where_rows_of_a_prompt_are_alike_and_one_that_ignores_it_does_not() -> None:
    made = [alike(seed) for seed in range(TIMES)]
    assert 0.92 <= held([clustered_mean(*one) for one in made], 0.0) <= 0.98
    rows = [stats.norm.interval(0.95, sums.sum() / n.sum(), 1.04 / np.sqrt(n.sum())) for sums, n in made]
    assert np.mean([low <= 0 <= high for low, high in rows]) < 0.8


@pytest.mark.parametrize("truth", [0.02, 0.3])
def test_a_share_by_prompt_holds_the_truth(truth: float) -> None:
    rng = np.random.default_rng(3)
    found = []
    for _ in range(TIMES):
        each = rng.beta(truth * 2, (1 - truth) * 2, 150)
        found.append(clustered_share(rng.binomial(4, each).astype(float), np.full(150, 4.0)))
    assert held(found, truth) >= 0.92


def test_a_share_of_none_or_all_rests_on_the_number_of_prompts() -> None:
    found = clustered_share(np.zeros(10), np.full(10, 7.0))
    assert (found.value, found.ci, found.n) == (0.0, wilson(0, 10), 70)


def test_a_ratio_holds_the_truth_and_has_no_interval_where_it_may_have_no_end() -> None:
    rng = np.random.default_rng(4)
    found = []
    for _ in range(TIMES):
        shared = rng.normal(0, 1, 80)
        top, bottom = 2 + shared + rng.normal(0, 1, 80), 1 + shared / 2 + rng.normal(0, 0.5, 80)
        found.append(ratio_of_means(top, bottom, np.ones(80)))
    assert 0.92 <= held(found, 2.0) <= 0.98
    nothing = ratio_of_means(rng.normal(2, 1, 40), rng.normal(0, 1, 40), np.ones(40))
    assert (nothing.ci, nothing.warning) == (None, "what it is divided by may be 0")


def test_where_the_data_do_not_tell_it_says_so() -> None:
    none, one = np.empty(0), np.array([3.0])
    assert clustered_mean(none, none) == Estimate(warning="no rows")
    assert clustered_share(np.zeros(4), np.zeros(4)).warning == "no rows"
    assert (clustered_mean(one, one).value, clustered_mean(one, one).warning) == (1.0, FEW)
    assert clustered_mean(np.full(9, 0.3), np.ones(9)).warning == ALIKE
    assert ratio_of_means(one, np.zeros(1), one).warning == "what it is divided by is 0"
    with pytest.raises(ValueError, match="one length"):
        clustered_mean(one, none)


def test_where_all_prompts_are_alike_the_limits_of_the_values_give_an_interval() -> None:
    found = clustered_mean(np.full(500, -1.0), np.ones(500), (-1, 1))
    assert (found.value, found.ci) == (-1.0, (-1.0, pytest.approx(-1 + 2 * wilson(0, 500)[1])))
    few = clustered_mean(np.full(3, 0.3), np.ones(3), (-1, 1))
    assert few.ci is not None
    assert few.ci[0] < 0 < few.ci[1]
    assert clustered_mean(np.ones(1), np.ones(1), (-1, 1)).ci is None
    assert clustered_mean(np.ones(9), np.ones(9), (-1, float("inf"))).ci is None


@pytest.mark.parametrize("rare", [0.002, 0.01, 0.05])
def test_an_interval_within_limits_holds_the_truth_where_few_prompts_differ(rare: float) -> None:
    """Of samples of 60 prompts that hold none of those that differ."""
    rng = np.random.default_rng(6)
    drawn = 1.0 - 2 * (rng.random((TIMES, 60)) < rare)
    found = [clustered_mean(one, np.ones(60), (-1, 1)) for one in drawn if one.min() == 1]
    assert held(found, 1 - 2 * rare) == 1
