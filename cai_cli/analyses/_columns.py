"""Columns that grow while rows stream by, a few bytes a row and no text, and the numbers that are made of them."""

from __future__ import annotations

import json
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import replace
from math import inf
from typing import Any

import numpy as np

from cai_cli.analyses._result import Number, Unit
from cai_cli.analyses._tally import number
from cai_cli.bias.estimate import Bools, Floats, by_prompt
from cai_cli.bias.interval import clustered_mean, clustered_share

NAN = float("nan")


class Table:
    """Rows of names and numbers. A name is kept once, and as a code in its column; a number that is not known is NaN."""

    def __init__(self, names: Iterable[str], numbers: Iterable[str]) -> None:
        self._codes: dict[str, array[int]] = {name: array("l") for name in names}
        self._known: dict[str, dict[str, int]] = {name: {} for name in self._codes}
        self._numbers: dict[str, array[float]] = {name: array("d") for name in ("cluster", *numbers)}

    def add(self, cluster: float, **values: str | float | None) -> None:
        """One row. Every column of names and numbers must be given."""
        self._numbers["cluster"].append(cluster)
        for name, value in values.items():
            if name in self._codes:
                known = self._known[name]
                self._codes[name].append(known.setdefault(str(value), len(known)))
            else:
                self._numbers[name].append(NAN if value is None else float(value))

    def __len__(self) -> int:
        return len(self._numbers["cluster"])

    def __getitem__(self, name: str) -> Floats:
        """(n,) a column of numbers."""
        return np.asarray(self._numbers[name], dtype=np.float64)

    def values(self, name: str) -> list[str]:
        """The names of a column, in the order of their coming."""
        return list(self._known[name])

    def where(self, name: str, value: str) -> Bools:
        """(n,) whether a row has this name."""
        return np.asarray(np.asarray(self._codes[name], dtype=np.int64) == self._known[name].get(value, -1))

    def share(self, hits: Bools, among: Bools) -> Number:
        """The share of hits among some rows, with an interval by prompt."""
        return number(clustered_share(*self.totals(hits.astype(np.float64), among)), "share")

    def mean(self, values: Floats, among: Bools, unit: Unit = "", within: tuple[float, float] = (-inf, inf)) -> Number:
        """The mean of values among some rows, where they are known, with an interval by prompt. `within`: what they can be"""
        return clipped(number(clustered_mean(*self.totals(values, among), within), unit), within)

    def mean_share(self, values: Floats, among: Bools) -> Number:
        """The share of ones among values that are 0, 1 or not known."""
        return number(clustered_share(*self.totals(values, among)), "share")

    def totals(self, values: Floats, among: Bools) -> tuple[Floats, Floats]:
        """Sums and numbers of rows by prompt, of the values that are known."""
        known = among & np.isfinite(values)
        both = np.stack([values[known], np.ones(int(known.sum()))], axis=1)
        sums = by_prompt(both, self["cluster"][known])
        return sums[:, 0], sums[:, 1]


def clipped(one: Number, within: tuple[float, float]) -> Number:
    """The number with its interval cut to what it can be."""
    if one.low is None or one.high is None:
        return one
    return replace(one, low=max(one.low, within[0]), high=min(one.high, within[1]))


def column(row: Mapping[str, Any], name: str) -> str | None:
    """A column's value as a name; meta.NAME looks into the kept input columns; None: there is no such column, or it is null."""
    value: Any
    if name.startswith("meta.") and name not in row:
        meta = row.get("meta")
        try:
            inside = json.loads(meta) if isinstance(meta, str) else meta
        except ValueError:
            return None
        value = inside.get(name.removeprefix("meta.")) if isinstance(inside, dict) else None
    else:
        value = row.get(name)
    if value is None or isinstance(value, (list, dict)):
        return None
    return str(value).lower() if isinstance(value, bool) else str(value)
