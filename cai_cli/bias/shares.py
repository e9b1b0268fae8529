"""Differences of shares, and shares against a half: with intervals and p-values also where every row is alike.

All take one number a prompt, its mean in [0, 1]. Where that is 0 or 1 for every prompt the formulas are those of counts; else
those of means.
"""

from __future__ import annotations

import math

import numpy as np

from cai_cli.bias.differences import apart, paired
from cai_cli.bias.estimate import Estimate, Floats
from cai_cli.bias.interval import clustered_mean, clustered_share, wilson


def paired_shares(left: Floats, right: Floats) -> Estimate:
    """The difference of two shares, left minus right, on the same prompts.

    Takes: (G,) and (G,) the prompts' shares in the two groups   Gives: the difference in [-1, 1], n the prompts
    Formula: of counts Newcombe's interval with the continuity correction of phi, and McNemar's exact p; of means the t interval,
    within [-1, 1], or Newcombe's where the difference is the same on all prompts.
    Assumes: prompts are independent. Below two prompts there is the difference alone.
    Raises: ValueError on shapes that differ
    Source: Newcombe 1998, "Improved confidence intervals for the difference between binomial proportions based on paired data",
        method 10; McNemar 1947.
    """
    found = paired(left, right)
    if len(left) < 2:
        return found
    counts = _is_count(left) and _is_count(right)
    if found.ci is not None and not counts:
        return _within(found)
    only = float((left * (1 - right)).sum()), float(((1 - left) * right).sum())
    ci = _newcombe(float(left.sum()), float(right.sum()), len(left), _phi(left, right))
    p = sign_test(*only) if counts else found.p_value
    return Estimate(value=found.value, ci=ci, n=found.n, p_value=p)


def apart_shares(left: Floats, right: Floats) -> Estimate:
    """The difference of two shares, left minus right, on different prompts.

    Takes: (G,) and (H,) the prompts' shares in the two groups   Gives: the difference in [-1, 1], n = G + H
    Formula: Newcombe's interval from the Wilson intervals of both, by effective numbers of rows; p: Fisher's exact one of
    counts, Welch's of means.
    Assumes: prompts are independent. With fewer than two prompts in a group there is the difference alone.
    Source: Newcombe 1998, "Interval estimation for the difference between independent proportions", method 10; Fisher 1935.
    """
    found = apart(left, right)
    if min(len(left), len(right)) < 2 or found.value is None:
        return found
    (p, p_low, p_high), (q, q_low, q_high) = _with_ends(left), _with_ends(right)
    ci = found.value - math.hypot(p - p_low, q_high - q), found.value + math.hypot(p_high - p, q - q_low)
    exact = fisher(left.sum(), len(left), right.sum(), len(right)) if _is_count(left) and _is_count(right) else found.p_value
    return Estimate(value=found.value, ci=(max(-1.0, ci[0]), min(1.0, ci[1])), n=found.n, p_value=exact)


def against_half(hits: Floats, rows: Floats) -> Estimate:
    """A share with Wilson's interval by prompt, and the p-value of its being a half.

    Takes: (G,) hits, (G,) rows   Formula: the sign test where each prompt is all hit or all missed, else t by prompt
    Raises: ValueError on shapes that differ. With one prompt there is no p.
    """
    found, each = clustered_share(hits, rows), hits[rows > 0] / rows[rows > 0]
    if len(each) < 2:
        return found
    if _is_count(each):
        p: float | None = sign_test(float(each.sum()), float((1 - each).sum()))
    else:
        moved = clustered_mean(hits - rows / 2, rows)
        p = moved.p_value if moved.p_value is not None else float(np.isclose(moved.value or 0.0, 0)) or 0.5 ** (len(each) - 1)
    return Estimate(value=found.value, se=found.se, ci=found.ci, n=found.n, p_value=p)


def sign_test(plus: float, minus: float) -> float:
    """The exact two-sided p of so many against so many, where both are equally likely. None at all: 1"""
    from scipy.special import bdtr

    n = round(plus + minus)
    return min(1.0, 2 * float(bdtr(round(min(plus, minus)), n, 0.5))) if n else 1.0


def fisher(hits: float, n: int, others: float, m: int) -> float:
    """Fisher's exact two-sided p: the tables with these margins that are no more likely than the one seen."""
    from scipy.special import gammaln

    def log_choose(whole: int, part: Floats) -> Floats:
        return np.asarray(gammaln(whole + 1) - gammaln(part + 1) - gammaln(whole - part + 1), dtype=np.float64)

    total = round(hits + others)
    could = np.arange(max(0, total - m), min(n, total) + 1, dtype=np.float64)
    log_p = log_choose(n, could) + log_choose(m, total - could)
    p = np.exp(log_p - log_p.max())
    seen = p[round(hits) - int(could[0])]
    return min(1.0, float(p[p <= seen * (1 + 1e-9)].sum() / p.sum()))


def _is_count(shares: Floats) -> bool:
    return bool(np.isin(shares, (0.0, 1.0)).all())


def _within(found: Estimate) -> Estimate:
    assert found.ci is not None
    ci = max(-1.0, found.ci[0]), min(1.0, found.ci[1])
    return Estimate(value=found.value, se=found.se, ci=ci, n=found.n, p_value=found.p_value)


def _with_ends(shares: Floats) -> tuple[float, float, float]:
    if _is_count(shares):
        return float(shares.mean()), *wilson(float(shares.sum()), len(shares))
    found = clustered_share(shares, np.ones(len(shares)))
    assert found.value is not None
    assert found.ci is not None
    return found.value, *found.ci


def _phi(left: Floats, right: Floats) -> float:
    """The correlation of two columns of 0 and 1, drawn towards 0 where it is positive."""
    both, n = float((left * right).sum()), len(left)
    mine, theirs = float(left.sum()), float(right.sum())
    cross = n * both - mine * theirs  # ad - bc
    spread = mine * (n - mine) * theirs * (n - theirs)
    if spread <= 0:
        return 0.0
    return (max(cross - n / 2, 0.0) if cross > 0 else cross) / math.sqrt(spread)


def _newcombe(mine: float, theirs: float, n: int, phi: float) -> tuple[float, float]:
    p, q = mine / n, theirs / n
    (p_low, p_high), (q_low, q_high) = wilson(mine, n), wilson(theirs, n)

    def reach(one: float, other: float) -> float:
        return math.sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))

    low, high = p - q - reach(p - p_low, q_high - q), p - q + reach(p_high - p, q - q_low)
    return max(-1.0, low), min(1.0, high)
