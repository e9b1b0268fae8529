"""Measures that are summed while rows stream by, and their numbers with intervals at the end."""

from __future__ import annotations

from array import array
from collections.abc import Mapping
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np

from cai_cli import chance
from cai_cli.analyses._result import Number, Unit
from cai_cli.bias.estimate import Estimate, Floats
from cai_cli.bias.interval import clustered_mean, clustered_share, ratio_of_means

GROUPS = 4096
_EMPTY = bytes(8 * GROUPS)


def group_of(row: Mapping[str, Any], at: int) -> int:
    """The group of a row's prompt, in [0, 4096). Takes: the row, and its place, for rows that name neither prompt nor id"""
    return int(chance.unit(row.get("prompt_id") or row.get("prompt") or row.get("id") or at) * GROUPS)


class Tally:
    """Sums of any number of measures, by prompt: 64 kB a measure, whatever the number of rows.

    Prompts are put into 4,096 groups by a hash of their id, and a group counts as one prompt. Groups of independent prompts are
    independent themselves, so the intervals hold; below some hundred prompts nearly each has a group of its own.
    Source: random groups, Wolter 2007, Introduction to Variance Estimation, chapter 2.
    """

    def __init__(self) -> None:
        self._sums: dict[Any, array[float]] = {}
        self._rows: dict[Any, array[float]] = {}

    def add(self, measure: Any, group: int, value: float | None) -> None:
        """Add a row's value to a measure; None: the row has none, and is not counted."""
        if value is None:
            return
        if measure not in self._sums:
            self._sums[measure], self._rows[measure] = array("d", _EMPTY), array("d", _EMPTY)
        self._sums[measure][group] += value
        self._rows[measure][group] += 1

    def carry(self, old: int, new: int) -> None:
        """What every row so far had at a step, under (step, ...), it has at the next one as well: levels stay, gains are 0.

        A gain's measure is (step, "gain", name), that of its level (step, name).
        """
        for measure in [one for one in self._sums if isinstance(one, tuple) and one[0] == old and type(one[0]) is int]:
            if measure[1] == "gain":
                continue
            self._sums[new, *measure[1:]] = array("d", self._sums[measure])
            self._rows[new, *measure[1:]] = array("d", self._rows[measure])
            self._sums[new, "gain", *measure[1:]] = array("d", _EMPTY)
            self._rows[new, "gain", *measure[1:]] = array("d", self._rows[measure])

    def count(self, measure: Any) -> int:
        """Rows that had a value."""
        return round(sum(self._rows.get(measure, ())))

    def total(self, measure: Any) -> float:
        """The sum of the values."""
        return sum(self._sums.get(measure, ()))

    def mean(self, measure: Any, unit: Unit = "", within: tuple[float, float] = (-inf, inf)) -> Number:
        """The mean, with its interval by prompt. `within`: what the values can be, and so the interval"""
        found = number(clustered_mean(*self._totals(measure), within), unit)
        if found.low is None or found.high is None:
            return found
        return replace(found, low=max(found.low, within[0]), high=min(found.high, within[1]))

    def share(self, measure: Any) -> Number:
        """The share of rows whose value was 1, or True, among those that had one."""
        return number(clustered_share(*self._totals(measure)), "share")

    def ratio(self, top: Any, bottom: Any) -> Estimate:
        """The mean of one measure over that of another, which the same rows have."""
        sums, rows = self._totals(top)
        return ratio_of_means(sums, self._totals(bottom)[0], rows)

    def _totals(self, measure: Any) -> tuple[Floats, Floats]:
        sums, rows = self._sums.get(measure, _EMPTY), self._rows.get(measure, _EMPTY)
        return np.frombuffer(sums, dtype=np.float64), np.frombuffer(rows, dtype=np.float64)


def number(estimate: Estimate, unit: Unit = "") -> Number:
    """An estimate as a table shows it."""
    low, high = estimate.ci or (None, None)
    return Number(value=estimate.value, low=low, high=high, n=estimate.n, unit=unit)
