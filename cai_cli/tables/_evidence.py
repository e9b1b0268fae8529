"""From columns of votes to one logit a pair and labeler: both orders averaged, biases that are known removed."""

from __future__ import annotations

from dataclasses import dataclass

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


def weigh(columns: Columns, use: Bools, shift: Floats, offset: Floats | None = None) -> Evidence:
    """Pool votes within orders, and orders within labelers.

    Takes: which votes (n,); position bias by labeler, in log-odds, removed where one order was asked; (pairs, labelers) what else
    biased them toward a, removed everywhere
    """
    plain = _order_means(columns, use, np.zeros(len(columns.labelers)), offset)
    if not shift.any():
        return Evidence(orders=plain, logits=aggregate.mean_of_known(plain, 2))
    return Evidence(orders=plain, logits=aggregate.pool(plain, _order_means(columns, use, shift, offset)))


def _order_means(columns: Columns, use: Bools, shift: Floats, offset: Floats | None) -> Floats:
    p, pair, labeler, slot = columns.p[use], columns.pair[use], columns.labeler[use], columns.slot[use]
    bare = np.isin(p, (0.0, 0.5, 1.0)) & ~columns.soft[labeler]
    toward = shift[labeler] * slot
    if offset is not None:
        toward = toward + offset[pair, labeler]
    value = aggregate.evidence(p, bare, toward)
    return aggregate.order_means(value, pair, labeler, slot, (len(columns.prompt), len(columns.labelers)))
