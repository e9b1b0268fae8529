"""An estimate and what it is worth, and the bootstrap that gives intervals where no formula does."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]

Z95 = 1.959963984540054
FEW = "fewer than two prompts"
ALIKE = "all of them are alike, so nothing tells how they vary"
_ROUNDING = 1e-12  # spread below this is that of numbers which are all the same
FOLDED = 4096
GRID = 500  # per-prompt totals are resampled on a grid of 1/500: an interval moves by less than .001, and the cost stays small


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its standard error, 95% interval and two-sided p-value; None where the data do not tell."""

    value: float | None = None
    se: float | None = None
    ci: tuple[float, float] | None = None
    n: int = 0  # what the estimate rests on: pairs, or conflicts
    p_value: float | None = None
    warning: str = ""

    @property
    def significant(self) -> bool:
        return self.p_value is not None and self.p_value < 0.05


def student(value: float, se: float, n: int, df: float) -> Estimate:
    """An estimate with a t interval and the t-test of value = 0.

    Takes: a standard error >= 0; df >= 1 degrees of freedom
    Where the error is 0, but for rounding, nothing tells how the units vary: there is no interval, and p is that of a sign test
    on df + 1 units with one sign, 2 * .5^(df + 1); of a value of 0 it is 1.
    """
    from scipy.special import stdtr, stdtrit  # scipy.stats says the same, and takes half a second to import

    if se <= _ROUNDING * max(1.0, abs(value)):
        p_value = 1.0 if abs(value) <= _ROUNDING else 2 * 0.5 ** (df + 1)
        return Estimate(value=value, n=n, p_value=p_value, warning=ALIKE)
    half = float(stdtrit(df, 0.975)) * se
    return Estimate(value=value, se=se, ci=(value - half, value + half), n=n, p_value=float(2 * stdtr(df, -abs(value / se))))


def resample(totals: Floats, seed: int, resamples: int = 1000) -> Floats:
    """Column totals over prompts drawn with replacement.

    Takes: totals (prompts, k), each prompt's sums of what is counted   Gives: (resamples, k)
    How: prompts with equal totals are interchangeable, so how often each distinct row is drawn is multinomial; drawing those
    counts is the same bootstrap at the cost of the distinct rows.
    Assumes: prompts are independent; rows within a prompt need not be.
    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 6; by cluster: Davison and Hinkley 1997, 3.8.
    """
    distinct, counts = np.unique(np.round(totals * GRID), axis=0, return_counts=True)
    drawn = np.random.default_rng(seed).multinomial(len(totals), counts / len(totals), size=resamples)
    return np.asarray((drawn @ distinct) / GRID, dtype=np.float64)


def groups_of(prompt: Floats | Ints) -> tuple[Ints, int]:
    """(n,) which prompt each row is of, counted from 0 in the order of their keys, and how many prompts there are.

    Takes: (n,) keys of any kind; whole numbers from 0, as `folded` gives, take a tenth of the time
    """
    if prompt.dtype.kind != "i":
        keys, at = np.unique(prompt, return_inverse=True)
        return at.astype(np.int64), len(keys)
    there = np.bincount(prompt.astype(np.int64)) > 0 if len(prompt) else np.zeros(0, dtype=np.bool_)
    number = np.cumsum(there) - 1
    return np.asarray(number[prompt], dtype=np.int64), int(there.sum())


def folded(key: Floats) -> Ints:
    """(n,) whole numbers for (n,) prompt keys, uniform in [0, 1): one each up to 8,192 prompts, else one of 4,096 random groups.

    Groups of independent prompts are independent, so what is valid over prompts is valid over groups, and with so many of them
    intervals are as good.
    Source: random groups, Wolter 2007, Introduction to Variance Estimation, chapter 2.
    """
    at, prompts = groups_of(key)
    return at if prompts <= 2 * FOLDED else groups_of((key * FOLDED).astype(np.int64))[0]


def by_prompt(columns: Floats, prompt: Floats | Ints) -> Floats:
    """Sums of (n, k) columns over rows with the same prompt key (n,): (prompts, k)."""
    at, groups = groups_of(prompt)
    if not groups:
        return np.zeros((0, columns.shape[1]))
    return np.stack([np.bincount(at, weights=column, minlength=groups) for column in columns.T], axis=1)


def interval(value: float, draws: Floats, n: int, groups: int, bounds: tuple[float, float] | None = None) -> Estimate:
    """A percentile interval and a standard error from bootstrap draws over prompts; draws that are not finite are left out.

    Takes: groups, how many prompts were drawn from; bounds, between which a prompt's value must lie, where that is known
    Formula, where all draws are alike: with u = z^2 / (G + z^2), the upper end of Wilson's interval for 0 of G prompts, at most
    u of the prompts are of another kind, and may lie at a bound: v - u * (v - low) to v + u * (high - v). For a share of 0 or 1
    that is Wilson's interval. There is none with fewer than two prompts, or without bounds.
    """
    kept = draws[np.isfinite(draws)]
    if len(kept) < 2 or not math.isfinite(value):
        return Estimate(value=value if math.isfinite(value) else None, n=n, warning="too few pairs for an interval")
    if groups < 2:
        return Estimate(value=value, n=n, warning=FEW)
    if float(np.ptp(kept)) <= _ROUNDING:
        if bounds is None:
            return Estimate(value=value, n=n, warning=ALIKE)
        unseen = Z95**2 / (groups + Z95**2)
        return Estimate(value=value, ci=(value - unseen * (value - bounds[0]), value + unseen * (bounds[1] - value)), n=n)
    low, high = np.quantile(kept, [0.025, 0.975])
    return Estimate(value=value, se=float(kept.std(ddof=1)), ci=(float(low), float(high)), n=n)


def ratio(part: Floats, whole: Floats) -> Floats:
    """part / whole, NaN where whole is 0."""
    return np.asarray(np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0), dtype=np.float64)


def mean(
    values: Floats, prompt: Floats | Ints, seed: int, bounds: tuple[float, float] | None = None, weight: Floats | None = None
) -> Estimate:
    """The weighted mean of (n,) values, with a bootstrap interval over their (n,) prompt keys.

    Takes: `bounds` of a value, where they are known; (n,) weights > 0, such as one over the probability that a row was drawn
    Raises: ValueError on shapes that differ. With n = 0 there is no number.
    """
    weight = np.ones(len(values)) if weight is None else weight
    if not values.shape == prompt.shape == weight.shape:
        raise ValueError("arrays of one length are needed")
    n = len(values)
    if not n:
        return Estimate(warning="no pairs")
    share = weight / weight.mean()
    totals = by_prompt(np.stack([values * share, share], axis=1), prompt)
    draws = resample(totals, seed)
    return interval(float(values @ share / n), ratio(draws[:, 0], draws[:, 1]), n, len(totals), bounds)
