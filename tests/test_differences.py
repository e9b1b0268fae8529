"""Differences of groups: against scipy, published values, and how often their intervals hold the truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from cai_cli.bias.differences import apart, paired
from cai_cli.bias.estimate import student
from cai_cli.bias.shares import against_half, apart_shares, fisher, paired_shares, sign_test


@given(st.floats(-50, 50), st.floats(0.01, 50), st.integers(1, 5000))
def test_the_t_interval_is_that_of_scipy_stats(value: float, se: float, df: int) -> None:
    found = student(value, se, 9, df)
    assert found.ci == pytest.approx(stats.t.interval(0.95, df, value, se), rel=1e-9, abs=1e-9)
    assert found.p_value == pytest.approx(2 * stats.t.sf(abs(value / se), df), rel=1e-7, abs=1e-300)


def both(a: int, b: int, c: int, d: int) -> tuple[np.ndarray, np.ndarray]:
    """Prompts where both are hit, the left one, the right one, none."""
    return np.repeat([1.0, 1.0, 0.0, 0.0], [a, b, c, d]), np.repeat([1.0, 0.0, 1.0, 0.0], [a, b, c, d])


@pytest.mark.parametrize(
    ("counts", "low", "high"),
    [
        # Newcombe 1998, paired data, table III, method 10
        ((36, 12, 2, 0), 0.0569, 0.3404),
        ((20, 12, 2, 16), 0.0562, 0.3290),
        ((0, 30, 0, 0), 0.8395, 1.0),
        ((54, 0, 0, 0), -0.0664, 0.0664),
    ],
)
def test_paired_intervals_are_the_published_ones(counts: tuple[int, int, int, int], low: float, high: float) -> None:
    assert paired_shares(*both(*counts)).ci == pytest.approx((low, high), abs=5e-4)


def test_intervals_of_different_prompts_are_the_published_ones() -> None:
    # Newcombe 1998, independent proportions, table II, method 10: 56/70 against 48/80, 9/10 against 3/10, 10/10 against 0/10
    for hits, n, others, m, low, high in (
        (56, 70, 48, 80, 0.0524, 0.3339),
        (9, 10, 3, 10, 0.1705, 0.8090),
        (10, 10, 0, 10, 0.6075, 1.0),
    ):
        found = apart_shares(*(np.repeat([1.0, 0.0], [k, size - k]) for k, size in ((hits, n), (others, m))))
        assert found.ci == pytest.approx((low, high), abs=5e-4), (hits, n)
        assert found.p_value == pytest.approx(stats.fisher_exact([[hits, n - hits], [others, m - others]]).pvalue)


@given(st.integers(0, 30), st.integers(0, 30), st.integers(0, 30), st.integers(0, 30))
def test_exact_tests_are_those_of_scipy(a: int, b: int, c: int, d: int) -> None:
    if b + c:
        assert sign_test(b, c) == pytest.approx(stats.binomtest(b, b + c).pvalue)
    assert fisher(a, a + b, c, c + d) == pytest.approx(stats.fisher_exact([[a, b], [c, d]]).pvalue, rel=1e-6)


def test_a_perfect_difference_is_one() -> None:
    ones, nones = np.ones(500), np.zeros(500)
    for found in (paired_shares(ones, nones), apart_shares(ones, nones)):
        assert found.value == 1.0
        assert found.ci is not None
        assert found.ci[0] > 0.98
        assert found.p_value is not None
        assert found.p_value < 1e-9
    for found in (paired(ones * 7, nones), apart(ones * 7, nones)):
        assert (found.value, found.ci) == (7.0, None)
        assert found.p_value is not None
        assert found.p_value < 1e-9


def test_where_nothing_differs_p_is_one_and_below_two_prompts_there_is_none() -> None:
    same = np.full(9, 3.0)
    assert (paired(same, same).p_value, apart(same, same).p_value, paired_shares(same * 0, same * 0).p_value) == (1.0, 1.0, 1.0)
    one, none = np.ones(1), np.zeros(1)
    assert [test(one, none).p_value for test in (paired, apart, paired_shares, apart_shares)] == [None] * 4
    with pytest.raises(ValueError, match="one length"):
        paired(one, same)


def test_means_of_other_prompts_are_welchs() -> None:
    rng = np.random.default_rng(1)
    left, right = rng.normal(1, 3, 5), rng.normal(0, 1, 300)
    found, expected = apart(left, right), stats.ttest_ind(left, right, equal_var=False)
    assert found.p_value == pytest.approx(expected.pvalue)
    assert found.ci == pytest.approx(tuple(expected.confidence_interval()))


@pytest.mark.parametrize(("p", "q", "n"), [(0.9, 0.7, 20), (0.98, 0.9, 60), (0.5, 0.4, 15)])
def test_intervals_of_shares_hold_the_truth(p: float, q: float, n: int) -> None:
    rng, held = np.random.default_rng(7), np.zeros(2)
    for _ in range(600):
        shared = rng.random(n) < 0.5
        left, right = (np.where(shared, rng.random(n) < rate, rng.random(n) < rate).astype(float) for rate in (p, q))
        for at, test in enumerate((paired_shares, apart_shares)):
            ci = test(left, right).ci
            assert ci is not None
            held[at] += ci[0] <= p - q <= ci[1]
    assert (held / 600).min() >= 0.93


def test_a_share_against_a_half() -> None:
    assert against_half(np.repeat([1.0, 0.0], [9, 1]), np.ones(10)).p_value == pytest.approx(22 / 1024)
    assert against_half(np.full(10, 3.0), np.full(10, 3.0)).p_value == pytest.approx(2 / 1024)
    assert against_half(np.full(10, 1.0), np.full(10, 2.0)).p_value == 1.0
    assert against_half(np.ones(1), np.ones(1)).p_value is None
    mixed = against_half(np.array([1.0, 2.0, 0.0, 2.0, 1.0, 2.0]), np.full(6, 2.0))
    assert mixed.p_value == pytest.approx(stats.ttest_1samp([0.5, 1, 0, 1, 0.5, 1], 0.5).pvalue)
