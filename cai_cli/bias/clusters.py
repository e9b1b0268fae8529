"""Sums over prompts while rows stream by: bounded memory, whatever the rows."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import numpy as np

from cai_cli.bias.estimate import Floats

LIMIT = 4096  # groups kept apart; more are folded into half as many


class Totals:
    """Sums of `width` columns, kept by cluster (a prompt) as long as there are at most 4,096 of them.

    From then on clusters are merged into 2,048 groups by their key. Groups of independent clusters are independent themselves,
    so what is valid over prompts is so over groups; with 2,048 of them intervals are as good.
    Source: random groups, Wolter 2007, Introduction to Variance Estimation, chapter 2.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self._sums: dict[int, array[float]] = {}
        self._mask = (1 << 53) - 1

    def of(self, cluster: float) -> array[float]:
        """The sums of a cluster, to be added to. Takes: its key, `chance.unit(prompt_id)`, uniform in [0, 1)"""
        at = int(cluster * (1 << 53)) & self._mask
        found = self._sums.get(at)
        if found is None:
            if len(self._sums) >= LIMIT:
                self._fold()
                return self.of(cluster)
            found = self._sums[at] = array("d", bytes(8 * self.width))
        return found

    def add(self, cluster: float, values: Sequence[float]) -> None:
        """Add a row's values, `width` of them."""
        sums = self.of(cluster)
        for column, value in enumerate(values):
            sums[column] += value

    def _fold(self) -> None:
        old, self._sums, self._mask = self._sums, {}, LIMIT // 2 - 1
        for at in sorted(old):
            sums = self._sums.setdefault(at & self._mask, array("d", bytes(8 * self.width)))
            for column, value in enumerate(old[at]):
                sums[column] += value

    def matrix(self) -> Floats:
        """(clusters, width), in the order of the clusters' keys, so that the order of the rows decides nothing."""
        rows = [self._sums[at] for at in sorted(self._sums)]
        return np.array(rows, dtype=np.float64).reshape(len(rows), self.width)

    def total(self) -> Floats:
        """(width,) the sums over all rows."""
        return np.asarray(self.matrix().sum(axis=0), dtype=np.float64)
