"""Do the labelers of a panel err together? What can be told of that without gold.

The model of a panel (Dawid and Skene): given which answer is better, votes are independent, each right with its labeler's own
probability. Then with votes of +1 and -1 the mean product of two labelers is m_j * m_l, m = 2 * accuracy - 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from cai_cli.bias.estimate import Estimate, Floats, Ints, groups_of, student

FEWEST = 4  # labelers
GROUPS = 2048  # of prompts, at most: groups of independent prompts are independent, and this many tell as much
LEFT = 0.01  # of what a pair has too much; where accuracies can take up more of it than the rest, it is not seen
_STEPS, _SMALL = 200, 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependence:
    """What is left of a panel's agreement when accuracies have explained what they can.

    `pairs`: of the two labelers `worst`, who agree most beyond that: the excess as a share of items, its p counting all pairs.
    `p_value`: of no pair doing so. `lumps`: the excess of the mean product of four votes, in [-1, 1].
    """

    pairs: Estimate
    worst: tuple[int, int] | None
    p_value: float | None
    lumps: Estimate


def correlated(votes: Floats, prompt: Floats | Ints) -> Dependence:
    """Tests what conditional independence says of a panel's agreement.

    Takes: (n, k) votes of k labelers, free of position: +1 a, -1 b, NaN or 0 where there is none; (n,) prompt keys
    Formula: pairs: the k(k-1)/2 mean products against m_j * m_l, fitted by generalised least squares with their covariance by
        prompt; what is left is Hotelling's T^2 with k(k-3)/2 degrees of freedom, as F. lumps: of rows where all voted, the mean
        product of four votes less that of two times that of the other two.
    Needs four: three mean products are met by three accuracies, whatever they are, so three labelers' agreement says nothing.
    Sees in `pairs`: some labelers sharing errors that others do not, such as two of one family. In `lumps`: that agreement comes
        in lumps, with items that are hard for all, or errors that all share; it cannot tell these two apart, and either way
        a posterior by Dawid and Skene is too sure of itself. Does not see errors that all share in the same measure where a
        panel has no easy and hard items: they look like the truth. Gold sees them (`coefficients.Ratings.correlation`).
    Measured (five labelers, accuracies .65-.85): p_value below .05 in .04-.06 of runs at 100 to 1,000 items where the model holds
        (.09 for eight labelers at 300), `pairs` in .01-.03 and `lumps` in .04-.07. Two that share half of their votes: found in
        .87 of runs at 100 items, 1.0 at 300. Two that share half of their own noise: .14, .55, .99 at 100, 300, 1,000. Items of
        normal quality, so that some are hard: `pairs` .02-.03, lumps .69 at 100 items, .99 at 300.
    Raises: ValueError on shapes that differ. With fewer than four labelers, or fewer prompts than eight for each two
        labelers and twenty more, there are no numbers. Of four labelers a pair and the other two look the same.
    Source: Dawid and Skene 1979; tetrads: Spearman 1904; Hansen 1982 for the statistic.
    """
    n, k = votes.shape if votes.ndim == 2 else (0, 0)
    if votes.ndim != 2 or prompt.shape != (n,):
        raise ValueError("(n, k) votes and (n,) prompts are needed")
    if k < FEWEST:
        return _untold(n, "fewer than four labelers: their agreement alone cannot show shared errors, gold can")
    sides = np.sign(np.nan_to_num(votes))
    at, groups = groups_of(prompt)
    at, groups = at % GROUPS, min(groups, GROUPS)
    if groups < 8 * math.comb(k, 2) + 20:
        return _untold(n, "too few prompts")
    products = _sums_of_two(sides, at, groups)
    counts = _sums_of_two(np.abs(sides), at, groups)
    if not counts.sum(axis=0).all():
        return _untold(n, "two labelers never voted on the same pair")
    seen = products.sum(axis=0) / counts.sum(axis=0)
    pulls = (products - counts * seen) / counts.sum(axis=0)
    pairs, worst, p_value = _beyond_accuracies(seen, pulls, k, n)
    return Dependence(pairs=pairs, worst=worst, p_value=p_value, lumps=_lumps(sides, at, groups))


def _sums_of_two(columns: Floats, at: Ints, groups: int) -> Floats:
    """(groups, k(k-1)/2) sums of the products of each two columns."""
    two = combinations(columns.T, 2)
    return np.stack([np.bincount(at, weights=one * other, minlength=groups) for one, other in two], axis=1)


def _untold(n: int, warning: str) -> Dependence:
    return Dependence(pairs=Estimate(n=n, warning=warning), worst=None, p_value=None, lumps=Estimate(n=n, warning=warning))


def _beyond_accuracies(seen: Floats, pulls: Floats, k: int, n: int) -> tuple[Estimate, tuple[int, int] | None, float | None]:
    """Takes: (pairs,) mean products; (groups, pairs) what each group of prompts adds to their errors"""
    from scipy.special import fdtrc

    groups, width = pulls.shape
    covariance = pulls.T @ pulls * groups / (groups - 1)
    if np.linalg.cond(covariance) > 1 / _SMALL:
        return Estimate(n=n, warning="two labelers vote alike throughout"), None, None
    weight = np.linalg.inv(covariance)
    slopes, rest = _accuracies(seen, weight, k)
    df = width - k
    statistic = float(rest @ weight @ rest)
    p_value = float(fdtrc(df, groups - df, statistic * (groups - df) / (df * (groups - 1))))
    explained = slopes @ np.linalg.pinv(slopes.T @ weight @ slopes) @ slopes.T
    # What one pair has too much, were it the only one, by generalised least squares beside the accuracies.
    told = np.diag(weight - weight @ explained @ weight)
    pull = weight @ rest
    scores = np.divide(pull, np.sqrt(np.maximum(told, 0)), out=np.zeros(width), where=told > LEFT * np.diag(weight))
    worst = int(np.argmax(scores))
    if scores[worst] <= 0:
        return Estimate(n=n, warning="no two labelers agree more than accuracies explain"), None, p_value
    found = student(float(pull[worst] / told[worst]) / 2, 1 / math.sqrt(float(told[worst])) / 2, n, groups - 1)
    assert found.p_value is not None
    return replace(found, p_value=min(1.0, found.p_value * width)), list(combinations(range(k), 2))[worst], p_value


def _accuracies(seen: Floats, weight: Floats, k: int) -> tuple[Floats, Floats]:
    """(pairs, k) derivatives of m_j * m_l, and (pairs,) what is left of the mean products, at the best m (Levenberg's steps)."""
    left, right = (np.array(one) for one in zip(*combinations(range(k), 2), strict=True))
    m, rows = np.full(k, math.sqrt(max(0.01, float(seen.mean())))), np.arange(len(seen))
    matrix = np.zeros((k, k))
    matrix[left, right] = matrix[right, left] = seen
    values, vectors = np.linalg.eigh(matrix)
    m = vectors[:, -1] * math.sqrt(max(0.01, float(values[-1]) * (k - 1) / k))
    damping = 1e-3
    slopes, rest = np.zeros((len(seen), k)), seen - m[left] * m[right]
    cost = float(rest @ weight @ rest)
    for _ in range(_STEPS):
        slopes = np.zeros((len(seen), k))
        slopes[rows, left], slopes[rows, right] = m[right], m[left]
        curve = slopes.T @ weight @ slopes
        step = np.linalg.solve(curve + damping * np.diag(np.diag(curve) + 1e-12), slopes.T @ weight @ rest)
        tried = seen - (m + step)[left] * (m + step)[right]
        after = float(tried @ weight @ tried)
        if after > cost:
            damping = min(damping * 10, 1e6)
            continue
        m, rest, gain, cost, damping = m + step, tried, cost - after, after, damping / 10
        if gain <= 1e-10 * max(1.0, cost):
            break
    return slopes, rest


def _lumps(sides: Floats, at: Ints, groups: int) -> Estimate:
    """By the sum s of a row's k votes: of +1 and -1, the products of four add up to (s^4 - (6k - 8) s^2 + 3k^2 - 6k) / 24."""
    whole = (sides != 0).all(axis=1)
    k, rows, at = sides.shape[1], sides[whole], at[whole]
    n = len(rows)
    if n < 30:
        return Estimate(n=n, warning="fewer than thirty pairs have every labeler's vote")
    fours = math.comb(k, 4)
    square = rows.sum(axis=1) ** 2
    of_four = (square**2 - (6 * k - 8) * square + 3 * k * k - 6 * k) / 24 / fours
    means = rows.T @ rows / n
    np.fill_diagonal(means, 0)
    of_each, total = means.sum(axis=1), means.sum() / 2
    # Of two pairs without a common labeler, the products of their means; and how these move with each mean.
    apart = (total**2 + (means**2).sum() / 2 - (of_each**2).sum()) / 2 / (3 * fours)
    slopes = (total + means - of_each[:, np.newaxis] - of_each) / (3 * fours)
    np.fill_diagonal(slopes, 0)
    moved = (rows @ slopes * rows).sum(axis=1) / 2
    pulls = of_four - of_four.mean() - (moved - moved.mean())
    sums = np.bincount(at, weights=pulls, minlength=groups)
    return student(float(of_four.mean() - apart), math.sqrt(float(sums @ sums) * groups / (groups - 1)) / n, n, groups - 1)
