"""Totals of a run from what was found out about some of its prompts, with intervals.

Every prompt that is played has an auxiliary value x, what a guess says of it; those that were paid for have the actual value y,
too. The rest of a total is the ratio estimate, sum(y)/sum(x) times the x that is still ahead, or, where x says little of y, the
mean of y times the prompts ahead. Its variance comes from the residuals of those that were paid for, with the finite population
correction: U^2 (X/x)^2 s^2/n + U s^2 for U prompts ahead whose mean guess is X, x being that of the n; where not all prompts are
played, N^2 (1/m - 1/N) s_z^2 for the m that are comes to it. Prompts that were paid for are taken as drawn at random; for those
of `--sample` that is so. Source: Cochran 1977, Sampling Techniques, 3rd ed., chapters 6 (ratios) and 12 (double sampling)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
COVERAGE = 0.9
FEW = 8  # paid prompts: fewer do not tell a ratio from a mean
NONE_SEEN = 2.303  # -ln(.1): where n prompts showed none, at most so many / n of the guess are ahead, at 90%
WIDER = 1.12  # ratio or mean is chosen by what fits, and totals are skewed: without it 86 to 89.5% of the intervals held
WIDEST = 3.0  # of half an interval, on the scale of logarithms


@dataclass(frozen=True, slots=True)
class Interval:
    """A value and its 90% interval."""

    value: float
    low: float
    high: float

    def document(self, digits: int | None = None) -> dict[str, float]:
        """As --json tells it."""
        return {name: round(getattr(self, name), digits) for name in ("value", "low", "high")}

    def times(self, factor: float) -> Interval:
        return Interval(self.value * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What was found out: arrays over prompts (played ones first), cells and columns.

    `guessed`: x; `bought`: what is paid for; `ahead`: what is guessed beyond that; `known`: which cells of a prompt are paid for
    whole. The first column is of calls. Only the first `played` prompts stand for all `prompts`; of these the first `sampled` for
    themselves alone, having been paid for because they were drawn first, and the others for all others. `fixed_bought`,
    `fixed_ahead`: what is asked once, for the whole run, and not prompt by prompt; `like`: for each cell, the cell whose ratio
    holds for it. `low`, `high`: for each cell and column, by what factor the guess may be wrong where nothing is paid for yet.
    """

    prompts: int
    played: int
    sampled: int = 0
    guessed: Floats
    bought: Floats
    ahead: Floats
    known: NDArray[np.bool_]
    fixed_bought: Floats
    fixed_ahead: Floats
    like: Sequence[int]
    low: Floats
    high: Floats


class Survey:
    """Estimates for every cell and column, which can be summed."""

    def __init__(self, found: Found) -> None:
        self.found = found
        shape = found.bought.shape
        self.weights = np.zeros(shape[0])
        self.weights[: found.sampled] = 1.0
        self.weights[found.sampled : found.played] = (found.prompts - found.sampled) / max(1, found.played - found.sampled)
        self._ahead, self._pull, self._noise = np.zeros(shape), np.zeros(shape), np.zeros(shape)
        self._fixed = np.zeros(shape[1:])
        self._under, self._over = np.zeros(shape[1:]), np.zeros(shape[1:])
        self._told = [self.paid(cell) for cell in range(shape[1])]  # prompts that an interval rests on
        for cell in range(shape[1]):
            for column in range(shape[2]):
                self._estimate(cell, column)

    def paid(self, cell: int) -> int:
        """How many prompts of a cell are paid for whole."""
        return int(self.found.known[:, self.found.like[cell]].sum())

    def told(self, cell: int) -> int:
        """How many prompts tell of a cell, whole or in part."""
        return self._told[cell]

    def _estimate(self, c: int, q: int) -> None:
        """One cell and column: what is ahead of each prompt, and what it hangs on."""
        found, source = self.found, self.found.like[c]
        known = found.known[:, source]
        y, x = found.bought[known, source, q], found.guessed[known, source, q]
        n, ahead = len(y), self.weights * found.ahead[:, c, q]
        whole = float(ahead.sum() + found.fixed_ahead[c, q])
        if n == 0 and self._by_calls(c, q, whole):
            return
        if n == 0 or (x.sum() == 0 and y.sum() == 0 and n < FEW):
            self._guess(c, q, 1.0, whole)
        elif y.sum() == 0:
            self._over[c, q] = min(1.0, NONE_SEEN / n) * whole
        elif n == 1 and x.sum() > 0:
            self._guess(c, q, float(y[0] / x[0]), whole)
        elif x.sum() > 0 and (source != c or n < FEW or _explains(x, y)):
            self._by_ratio(c, q, y, x, whole)
        else:
            self._by_mean(c, q, y)

    def _guess(self, c: int, q: int, factor: float, whole: float) -> None:
        self._ahead[:, c, q] = factor * self.found.ahead[:, c, q]
        self._fixed[c, q] = factor * self.found.fixed_ahead[c, q]
        self._under[c, q] = factor * whole * max(0.0, 1 - self.found.low[c, q])
        self._over[c, q] = factor * whole * max(0.0, self.found.high[c, q] - 1)

    def _by_ratio(self, c: int, q: int, y: Floats, x: Floats, whole: float) -> None:
        known, ratio = self.found.known[:, self.found.like[c]], float(y.sum() / x.sum())
        self._ahead[:, c, q] = ratio * self.found.ahead[:, c, q]
        self._fixed[c, q] = ratio * self.found.fixed_ahead[c, q]
        self._pull[known, c, q] = whole / x.sum() * (y - ratio * x)
        self._noise[known, c, q] = math.sqrt(self._unknown(c) / len(y)) * (y - ratio * x)

    def _by_calls(self, c: int, q: int, whole: float) -> bool:
        """By the ratio over single calls, where no prompt is paid for whole: it tells their length, and not their number."""
        found = self.found
        some = (found.bought[:, c, 0] > 0) & (found.guessed[:, c, 0] > 0)
        y, calls = found.bought[some, c, q], found.bought[some, c, 0] / found.guessed[some, c, 0]
        x = calls * found.guessed[some, c, q]  # of as many calls as are paid for
        if len(y) < FEW or x.sum() == 0:
            return False
        ratio = float(y.sum() / x.sum())
        self._ahead[:, c, q] = ratio * found.ahead[:, c, q]
        self._fixed[c, q] = ratio * found.fixed_ahead[c, q]
        self._pull[some, c, q] = whole / x.sum() * (y - ratio * x)
        self._under[c, q] = ratio * whole * max(0.0, 1 - found.low[c, 0])
        self._over[c, q] = ratio * whole * max(0.0, found.high[c, 0] - 1)
        self._told[c] = len(y)
        return True

    def _by_mean(self, c: int, q: int, y: Floats) -> None:
        known, found = self.found.known[:, c], self.found
        self._ahead[~known, c, q] = np.maximum(0.0, y.mean() - found.bought[~known, c, q])
        self._pull[known, c, q] = self._unknown(c) / len(y) * (y - y.mean())
        self._noise[known, c, q] = math.sqrt(self._unknown(c) / len(y)) * (y - y.mean())

    def _unknown(self, c: int) -> float:
        """How many prompts are ahead."""
        return float(self.weights[~self.found.known[:, c]].sum())

    def sum(self, cells: Sequence[int], columns: Sequence[int], *, bought: bool = True, ahead: bool = True) -> Interval:
        """The total of some cells and columns, with its interval: of what is bought, of what is ahead, or of both."""
        if not cells:
            return Interval(0.0, 0.0, 0.0)
        found, at = self.found, np.ix_(range(len(self.weights)), cells, columns)
        z = (found.bought[at].sum((1, 2)) if bought else 0.0) + (self._ahead[at].sum((1, 2)) if ahead else 0.0)
        here = np.ix_(cells, columns)
        fixed = (found.fixed_bought[here].sum() if bought else 0.0) + (self._fixed[here].sum() if ahead else 0.0)
        value = float((self.weights * z).sum() + fixed)
        paid = found.bought[: found.played][:, cells][:, :, columns].sum() + found.fixed_bought[here].sum()
        sure = float(paid) if bought else 0.0
        n = min((count for cell in cells if (count := self._told[cell]) > 1), default=2)
        pull, noise = (one[at].sum((1, 2)) if ahead else np.zeros(len(self.weights)) for one in (self._pull, self._noise))
        variance = float((pull**2).sum() + (noise**2).sum()) * n / (n - 1) + self._drawn(z)
        under, over = (float(one[here].sum()) if ahead else 0.0 for one in (self._under, self._over))
        return _interval(value, sure, math.sqrt(variance), n, under, over)

    def _drawn(self, z: Any) -> float:
        """Variance from playing some prompts and not all."""
        found = self.found
        every, some = found.prompts - found.sampled, found.played - found.sampled
        if some >= every or some < 2:
            return 0.0
        return float(every**2 * (1 / some - 1 / every) * np.var(z[found.sampled : found.played], ddof=1))


def _explains(x: Floats, y: Floats) -> bool:
    """Whether y goes with x so closely that the ratio leaves less than the mean does."""
    ratio = y.sum() / x.sum()
    return float(((y - ratio * x) ** 2).sum()) <= float(((y - y.mean()) ** 2).sum())


def _interval(value: float, sure: float, se: float, n: int, under: float, over: float) -> Interval:
    """An interval on the scale of logarithms, for totals are skewed to the right, of what goes beyond the sure part."""
    from scipy.special import stdtrit

    beyond, t = value - sure, float(stdtrit(n - 1, 0.5 + COVERAGE / 2))
    if beyond <= 0:
        return Interval(value, value, value + over)
    half = min(WIDEST, WIDER * t * se / beyond)
    return Interval(value, max(sure, sure + beyond * math.exp(-half) - under), sure + beyond * math.exp(half) + over)
