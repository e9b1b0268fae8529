"""From votes to one label a pair, for whole columns: the law of cai_cli.votes, which says why, on arrays."""

from __future__ import annotations

import numpy as np

from cai_cli.bias.estimate import Bools, Floats, Ints, ratio
from cai_cli.votes import P_MIN, VOTE_LOGIT


def evidence(p: Floats, bare: Bools, offset: Floats) -> Floats:
    """Log-odds that each vote gives for a, free of what a bias added to them.

    Takes: (n,) probabilities that a is better, in [0, 1]; (n,) whether the vote is a bare verdict; (n,) the bias to remove, in
    log-odds for a: of position b where a was shown first, else -b; of length its coefficient times the difference
    Formula: a probability, logit(p) - offset; a bare verdict, its likelihood ratio under a judge of strength 2 with that bias,
    which a large bias makes worth little and never turns round; a bare tie, 0
    """
    clipped = np.clip(p, P_MIN, 1 - P_MIN)
    side = np.sign(p - 0.5)
    toward = side * offset
    hard = side * (np.logaddexp(0, VOTE_LOGIT - toward) - np.logaddexp(0, -VOTE_LOGIT - toward))
    return np.where(bare, hard, np.log(clipped / (1 - clipped)) - offset)


def order_means(value: Floats, pair: Ints, labeler: Ints, slot: Ints, shape: tuple[int, int]) -> Floats:
    """The mean of what each labeler's votes give in each order.

    Takes: (n,) log-odds with their pair, labeler and slot (+1 a first, else -1); shape (pairs, labelers)
    Gives: (pairs, labelers, 2), order ab before ba, NaN where none was given
    """
    cell = (pair * shape[1] + labeler) * 2 + (slot < 0)
    size = shape[0] * shape[1] * 2
    sums, counts = np.bincount(cell, weights=value, minlength=size), np.bincount(cell, minlength=size)
    return ratio(sums.astype(np.float64), counts.astype(np.float64)).reshape(*shape, 2)


def mean_of_known(values: Floats, axis: int) -> Floats:
    """The mean over an axis, NaN left out; NaN where all are."""
    known = np.isfinite(values)
    return ratio(np.where(known, values, 0).sum(axis=axis), known.sum(axis=axis).astype(np.float64))


def pool(plain: Floats, shifted: Floats) -> Floats:
    """One logit a pair and labeler: the mean of both orders, or the one order with its bias removed.

    Takes: (pairs, labelers, 2) order means as given, and with the bias removed   Gives: (pairs, labelers), NaN where unasked
    """
    both = np.isfinite(plain).all(axis=2)
    return np.where(both, mean_of_known(plain, 2), mean_of_known(shifted, 2))


def logit(p: Floats) -> Floats:
    """Log-odds of probabilities, clipped to [1e-4, 1 - 1e-4]."""
    clipped = np.clip(p, P_MIN, 1 - P_MIN)
    return np.asarray(np.log(clipped / (1 - clipped)), dtype=np.float64)


def probability(logit: Floats) -> Floats:
    """sigmoid(logit), clipped to [1e-4, 1 - 1e-4]."""
    return np.clip((1 + np.tanh(logit / 2)) / 2, P_MIN, 1 - P_MIN)
