"""Intervals by formula where rows of one prompt are not independent: means, shares, and ratios of two means.

All take totals by prompt, (G,) sums over the rows of each of G prompts: that is all these formulas need, and a table of it stays
small however many rows there are. Prompts without rows count for nothing.
"""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from cai_cli.bias.estimate import Estimate, Floats, student

_Z = NormalDist().inv_cdf(0.975)
_ROUNDING = 1e-24  # a variance below this is that of numbers which are all the same
FEW = "fewer than two prompts"
ALIKE = "all prompts are alike, so nothing tells how they vary"


def wilson(hits: float, n: float) -> tuple[float, float]:
    """The 95% interval of a share, in [0, 1].

    Takes: hits in [0, n] out of n > 0 independent rows; both may be fractions, as effective numbers are
    Formula: (p + z^2/2n +- z sqrt(p(1-p)/n + z^2/4n^2)) / (1 + z^2/n)
    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    p, add = hits / n, _Z**2 / n
    half = _Z * math.sqrt(max(0.0, p * (1 - p) / n + add / (4 * n)))
    low, high = (p + add / 2 - half) / (1 + add), (p + add / 2 + half) / (1 + add)
    # Rounding must not leave the value outside its own interval.
    return max(0.0, min(low, p)), min(1.0, max(high, p))


def clustered_mean(sums: Floats, rows: Floats, within: tuple[float, float] | None = None) -> Estimate:
    """The mean of a value, or of a paired difference, with a t interval that lets rows of one prompt be alike.

    Takes: (G,) sums of the value; (G,) numbers of rows; `within`: between which limits the values lie, if there are any
    Formula: se^2 = G/(G-1) * sum over prompts of (sum of x - mean)^2 / n^2; t with G-1 degrees of freedom. Where all prompts are
        alike se says nothing: then, within limits, [mean - u * (mean - low), mean + u * (high - mean)], as at most a share u of
        prompts is another, anything within the limits; u: the upper end of Wilson's interval of 0 in G.
    Assumes: prompts are independent. A little short below about thirty prompts.
    Raises: ValueError on shapes that differ. Without rows there is no number, with one prompt no interval, and none where all are
        alike without limits.
    Source: Liang and Zeger 1986; Cameron and Miller 2015, "A practitioner's guide to cluster-robust inference". The interval
        where all are alike is ours, and rather too long.
    """
    mean, covariance, n, groups = _moments(sums[:, np.newaxis], rows)
    if not n:
        return Estimate(warning="no rows")
    value = float(mean[0])
    if groups < 2:
        return Estimate(value=value, n=n, warning=FEW)
    if covariance[0, 0] <= _ROUNDING:
        return Estimate(value=value, ci=_alike(value, groups, within), n=n, warning=ALIKE)
    return student(value, math.sqrt(covariance[0, 0]), n, groups - 1)


def _alike(value: float, groups: int, within: tuple[float, float] | None) -> tuple[float, float] | None:
    if within is None or not all(map(math.isfinite, within)):
        return None
    _, others = wilson(0, groups)
    return value - others * (value - within[0]), value + others * (within[1] - value)


def clustered_share(hits: Floats, rows: Floats) -> Estimate:
    """The share of rows that are hit, with Wilson's interval for as many independent rows as they are worth.

    Takes: (G,) numbers of rows that are hit; (G,) numbers of rows
    Formula: n_eff = p(1-p) / se^2, se by prompt as in `clustered_mean`, at most n; where all rows are alike (p 0 or 1) and
        nothing tells how alike the rows of a prompt are, G.
    Assumes: prompts are independent.
    Raises: ValueError on shapes that differ. Without rows there is no number.
    Source: Korn and Graubard 1998, "Confidence intervals for proportions with small expected number of positive counts", for the
        effective number of rows.
    """
    mean, covariance, n, groups = _moments(hits[:, np.newaxis], rows)
    if not n:
        return Estimate(warning="no rows")
    p, variance = min(1.0, float(mean[0])), float(covariance[0, 0])
    tells = groups > 1 and variance > _ROUNDING and 0 < p < 1
    worth = min(float(n), p * (1 - p) / variance) if tells else float(groups)
    return Estimate(value=p, se=math.sqrt(variance), ci=wilson(p * worth, worth), n=n)


def ratio_of_means(top: Floats, bottom: Floats, rows: Floats) -> Estimate:
    """mean(top) / mean(bottom) with Fieller's interval by prompt.

    Takes: (G,) and (G,) sums of the two values, over the same rows; (G,) numbers of rows
    Formula: the interval is the set of r for which mean(top) - r * mean(bottom) is within t standard errors of 0, with the
        covariance by prompt and t as in `clustered_mean`. It has no ends where mean(bottom) may be 0: then there is none.
    Raises: ValueError on shapes that differ. Without rows, or where mean(bottom) is 0, there is no number.
    Source: Fieller 1954, "Some problems in interval estimation".
    """
    (a, b), covariance, n, groups = _moments(np.stack([top, bottom], axis=1), rows)
    if not n or b == 0:
        return Estimate(n=n, warning="what it is divided by is 0" if n else "no rows")
    if groups < 2:
        return Estimate(value=float(a / b), n=n, warning=FEW)
    from scipy.stats import t

    t2 = float(t.ppf(0.975, groups - 1)) ** 2
    square, line, rest = b * b - t2 * covariance[1, 1], a * b - t2 * covariance[0, 1], a * a - t2 * covariance[0, 0]
    if square <= 0:
        return Estimate(value=float(a / b), n=n, warning="what it is divided by may be 0")
    root = math.sqrt(max(0.0, line * line - square * rest))
    return Estimate(value=float(a / b), ci=(float((line - root) / square), float((line + root) / square)), n=n)


def _moments(sums: Floats, rows: Floats) -> tuple[Floats, Floats, int, int]:
    """Means of k values from their (G, k) sums, the (k, k) covariance of these means by prompt, rows, prompts that have any."""
    if sums.shape[:1] != rows.shape:
        raise ValueError("arrays of one length are needed")
    sums, rows = sums[rows > 0], rows[rows > 0]
    n, groups, width = float(rows.sum()), len(rows), sums.shape[1]
    if not groups:
        return np.full(width, np.nan), np.zeros((width, width)), 0, 0
    mean = sums.sum(axis=0) / n
    apart = sums - rows[:, np.newaxis] * mean
    scale = groups / (groups - 1) if groups > 1 else 0.0
    return mean, np.asarray(scale * (apart.T @ apart) / n**2, dtype=np.float64), round(n), groups
