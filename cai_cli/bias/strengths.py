"""How strong each of several systems is, from which of two won: one scale for all, though not every two have met."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cai_cli.bias.calibration import penalized
from cai_cli.bias.estimate import FEW, Bools, Estimate, Floats, Ints, by_prompt, student

RIDGE = 0.1  # worth a fortieth of a pair of equals a system; it keeps one that won every time at a finite strength
UNCONNECTED = "no chain of pairs connects it with the others"
ONE_SIDED = "wins and losses do not lead both to it and from it, so the data set no end to its strength"


@dataclass(frozen=True, slots=True, kw_only=True)
class Strengths:
    """`systems`: each one's log-odds of winning against an opponent of average strength. `home`: log-odds that the slot adds.

    Of two systems that have both a number the first wins with probability sigmoid(first - second).
    """

    systems: tuple[Estimate, ...]
    home: Estimate | None


def strengths(
    left: Ints, right: Ints, left_won: Floats, prompt: Floats | Ints, systems: int,
    weight: Floats | None = None, home: Floats | None = None, ridge: float = RIDGE,
) -> Strengths:  # fmt: skip
    """Bradley-Terry strengths of systems, with intervals over prompts.

    Takes: (n,) and (n,) systems in [0, systems), two different ones in a row; (n,) in [0, 1], 1 where the left one won, .5 a tie,
        or a probability; (n,) prompt keys; (n,) weights > 0, by default 1; `home`, by default left out, (n,) +1 where the
        left one was shown first, -1 where the right one was, 0 where both orders were asked
    Formula: P(left wins) = sigmoid(s_left - s_right + h * home), the maximum of sum w * log p - ridge / 2 * (sum of s^2 + h^2),
        the s of mean 0. Covariance by prompt, H^-1 (G/(G-1) * sum of u u') H^-1, u a prompt's gradient, H the curvature; t with
        G - 1 degrees of freedom.
    Assumes: one number a system says it all: no rock, paper, scissors. Prompts are independent. Systems that no chain of pairs
        connects with the largest group have no number. One with wins only, or losses only, has a strength that the ridge sets,
        and no interval.
    Measured (400 runs; four systems at -.6, -.2, .2 and .6, a slot worth .4, two pairs a prompt): intervals hold the truth
        in .94 to .97 at 60 pairs in all, .93 to .96 at 200, .94 to .96 at 1,000.
    Raises: ValueError on shapes that differ, systems out of range, or a system against itself
    Source: Bradley and Terry 1952; Ford 1957 on when a maximum exists; Davidson and Beaver 1977 (order of presentation).
    """
    weight = np.ones(len(left)) if weight is None else weight
    _check(left, right, left_won, prompt, weight, systems)
    met, reached, balanced = _graph(left, right, left_won, systems)
    used = reached[left] if len(left) else np.zeros(0, dtype=np.bool_)
    columns = _design(left[used], right[used], systems, None if home is None else home[used])
    values, variances, groups = _fit(columns, left_won[used], weight[used], prompt[used], ridge, systems)
    found = [
        _estimate(float(value), float(variance), int(n), groups)
        for value, variance, n in zip(values, variances, [*met, len(columns)], strict=False)
    ]
    for at in range(systems):
        if not reached[at]:
            found[at] = Estimate(n=int(met[at]), warning=UNCONNECTED)
        elif not balanced[at]:
            found[at] = Estimate(value=found[at].value, n=int(met[at]), warning=ONE_SIDED)
    return Strengths(systems=tuple(found[:systems]), home=None if home is None else found[-1])


def _check(left: Ints, right: Ints, left_won: Floats, prompt: Floats | Ints, weight: Floats, systems: int) -> None:
    if not left.shape == right.shape == left_won.shape == prompt.shape == weight.shape:
        raise ValueError("arrays of one length are needed")
    both = np.concatenate([left, right])
    if len(both) and not 0 <= both.min() <= both.max() < systems:
        raise ValueError(f"systems are counted from 0 to {systems - 1}")
    if (left == right).any():
        raise ValueError("no system can be compared with itself")


def _graph(left: Ints, right: Ints, left_won: Floats, systems: int) -> tuple[Ints, Bools, Bools]:
    """(systems,) pairs of each; whether pairs connect it with the largest group; and whether wins do, in both directions."""
    from scipy.sparse.csgraph import connected_components

    beat = np.bincount(left * systems + right, weights=left_won, minlength=systems**2)
    beat += np.bincount(right * systems + left, weights=1 - left_won, minlength=systems**2)
    square = beat.reshape(systems, systems)
    met = np.bincount(np.concatenate([left, right]), minlength=systems)
    masks = []
    for connection in ("weak", "strong"):
        _, member = connected_components(square > 0, directed=True, connection=connection)
        masks.append(member == np.bincount(member, weights=met + 1).argmax())
    return met, masks[0] & (met > 0), masks[1]


def _design(left: Ints, right: Ints, systems: int, home: Floats | None) -> Floats:
    """(n, systems, and one for the slot): +1 for the left one, -1 for the right one, and where the left one was shown."""
    rows, columns = np.arange(len(left)), np.zeros((len(left), systems + (home is not None)))
    columns[rows, left], columns[rows, right] = 1.0, -1.0
    if home is not None:
        columns[:, -1] = home
    return columns


def _fit(
    columns: Floats, won: Floats, weight: Floats, prompt: Floats | Ints, ridge: float, systems: int
) -> tuple[Floats, Floats, int]:
    """Coefficients, their variances by prompt, and the number of prompts."""
    width = columns.shape[1]
    gold = np.concatenate([np.ones(len(won)), -np.ones(len(won))]).astype(np.int64)
    share = np.concatenate([weight * won, weight * (1 - won)])  # a tie is half a win of either
    values = penalized(np.tile(columns, (2, 1)), gold, share, np.zeros(width), np.full(width, ridge))
    p = (1 + np.tanh(columns @ values / 2)) / 2
    gradients = by_prompt(columns * (weight * (won - p))[:, np.newaxis], prompt)
    level = np.append(
        np.ones(systems), np.zeros(width - systems)
    )  # no gradient has a part in it: a small ridge there costs digits
    curve = (columns.T * (weight * p * (1 - p))) @ columns + ridge * np.eye(width) + np.outer(level, level)
    moved = np.linalg.solve(curve, gradients.T)
    groups = len(gradients)
    scale = groups / (groups - 1) if groups > 1 else 0.0
    return values, np.asarray(scale * (moved**2).sum(axis=1), dtype=np.float64), groups


def _estimate(value: float, variance: float, n: int, groups: int) -> Estimate:
    if groups < 2:
        return Estimate(value=value, n=n, warning=FEW)
    return student(value, math.sqrt(variance), n, groups - 1)
