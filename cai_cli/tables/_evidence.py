"""From columns of votes to one logit a pair and labeler: both orders averaged, biases that are known removed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from cai_cli.bias import aggregate
from cai_cli.bias.estimate import Bools, Floats
from cai_cli.tables._columns import Columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What the votes of some kind give, in log-odds for a; NaN where there is none."""

    orders: Floats  # (pairs, labelers, 2) the mean of each order, ab before ba
    logits: Floats  # (pairs, labelers) over both orders, or of the one order, freed of the position bias where that is removed

    @property
    def both(self) -> Bools:
        """(pairs, labelers) whether both orders were answered."""
        return np.asarray(np.isfinite(self.orders).all(axis=2))

    @property
    def one(self) -> Bools:
        """(pairs, labelers) whether one order was, and the other not."""
        return np.asarray(np.isfinite(self.orders).sum(axis=2) == 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Removed:
    """What is taken off votes, in log-odds, by labeler; 0: nothing."""

    position: Floats  # (labelers,) the liking for what is shown first, where one order was asked; over both orders it cancels
    token: Floats  # (labelers,) the liking for what has the earlier name of two
    features: Floats | None = None  # (pairs, labelers) what else moved them toward a

    @classmethod
    def nothing(cls, labelers: int) -> Removed:
        return cls(position=np.zeros(labelers), token=np.zeros(labelers))


def weigh(columns: Columns, use: Bools, removed: Removed) -> Evidence:
    """Pool the votes that are to be used (n,) within orders, and orders within labelers."""
    both = _order_means(columns, use, replace(removed, position=np.zeros_like(removed.position)))
    if not removed.position.any():
        return Evidence(orders=both, logits=aggregate.mean_of_known(both, 2))
    return Evidence(orders=both, logits=aggregate.pool(both, _order_means(columns, use, removed)))


def _order_means(columns: Columns, use: Bools, removed: Removed) -> Floats:
    p, pair, labeler, slot = columns.p[use], columns.pair[use], columns.labeler[use], columns.slot[use]
    bare = np.isin(p, (0.0, 0.5, 1.0)) & ~columns.soft[labeler]
    toward = (removed.position[labeler] + removed.token[labeler] * columns.naming[use]) * slot
    if removed.features is not None:
        toward = toward + removed.features[pair, labeler]
    value = aggregate.evidence(p, bare, toward)
    return aggregate.order_means(value, pair, labeler, slot, (len(columns.prompt), len(columns.labelers)))
