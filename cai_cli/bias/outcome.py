"""How good labels are, pair by pair: values to average, NaN where a pair has none."""

from __future__ import annotations

import numpy as np

from cai_cli.bias.estimate import Floats, Ints
from cai_cli.votes import TIE_BAND


def side(p: Floats) -> Ints:
    """+1 where p prefers a, -1 where b, 0 where |p - .5| < .02. Takes: probabilities of any shape, NaN counted as a tie"""
    gap = p - 0.5
    return np.where(np.abs(gap) >= TIE_BAND, np.sign(gap), 0).astype(np.int64)


def correct(p: Floats, gold: Ints) -> Floats:
    """1 where p prefers the gold side, .5 where it prefers none, else 0.

    Takes: arrays that broadcast; gold +1 or -1, anything else is no gold and gives NaN
    """
    return np.where(np.isfinite(p) & (np.abs(gold) == 1), (1 + side(p) * gold) / 2, np.nan)


def log_loss(p: Floats, gold: Ints) -> Floats:
    """-ln of the probability given to the gold side, in nats. Takes: p in (0, 1); gold +1, -1, else no gold"""
    return np.where(np.abs(gold) == 1, -np.log(np.where(gold == 1, p, 1 - p)), np.nan)


def longer_wins(p: Floats, difference: Floats) -> Floats:
    """1 where p prefers the longer answer, .5 where it prefers none, else 0; NaN where both are equally long.

    Takes: probabilities that a is better; length of a minus length of b; arrays that broadcast
    """
    return np.where(np.isfinite(p) & (difference != 0), (1 + side(p) * np.sign(difference)) / 2, np.nan)
