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


def by_prompt(columns: Floats, prompt: Floats) -> Floats:
    """Sums of (n, k) columns over rows with the same prompt key (n,): (prompts, k)."""
    _, group = np.unique(prompt, return_inverse=True)
    sums = np.zeros((int(group.max()) + 1 if len(group) else 0, columns.shape[1]))
    np.add.at(sums, group, columns)
    return sums


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


def mean(values: Floats, prompt: Floats, seed: int, bounds: tuple[float, float] | None = None) -> Estimate:
    """The mean of (n,) values, with a bootstrap interval over their (n,) prompt keys; `bounds` of a value, where they are known.

    Raises: ValueError on shapes that differ. With n = 0 there is no number.
    """
    if values.shape != prompt.shape:
        raise ValueError("arrays of one length are needed")
    n = len(values)
    if not n:
        return Estimate(warning="no pairs")
    totals = by_prompt(np.stack([values, np.ones(n)], axis=1), prompt)
    draws = resample(totals, seed)
    return interval(float(values.mean()), ratio(draws[:, 0], draws[:, 1]), n, len(totals), bounds)
