"""Several judges, one label: workers whose errors are estimated without gold, weights that gold gives, and what they share.

Nothing depends on which answer is called a: naming them the other way round gives exactly the negative logits.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from cai_cli.bias.aggregate import mean_of_known
from cai_cli.bias.calibration import FOLDS, fit, folds_of, penalized
from cai_cli.bias.estimate import ALIKE, FEW, Bools, Estimate, Floats, Ints, ratio, student

WORKERS = 3  # so many must share items: two that differ do not tell which of them is wrong
RIDGES = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0)
INNER = 5  # folds that choose the ridge
GROUPS = 500  # prompts are joined in at most so many groups for the jackknife
_RIGHT, _WRONG = 1.4, 0.6  # votes that each worker starts with on either answer: right seven times of ten, worth two votes
_MOVED = 1e-5  # in probability; less says that it has converged
_ROUNDING = 1e-12


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class DawidSkene:
    """Labels and workers that explain each other best.

    `logit`: (items,) log-odds that a is better, 0 where nobody voted. `first_if_first` and `first_if_second`: (workers,)
    P(says the first shown | it is better) and P(says the first shown | the second is better). `votes`: (workers,) votes given.
    """

    logit: Floats
    first_if_first: Floats
    first_if_second: Floats
    votes: Ints
    iterations: int
    converged: bool

    @property
    def accuracy(self) -> Floats:
        """(workers,) P(right), in (0, 1), where either slot is as likely to hold the better answer."""
        return (self.first_if_first + 1 - self.first_if_second) / 2

    @property
    def slot_excess(self) -> Floats:
        """(workers,) P(says first) - P(says second), in (-1, 1), where either slot is as likely to hold the better answer."""
        return self.first_if_first + self.first_if_second - 1


def unidentified(item: Ints, worker: Ints) -> str:
    """Why workers cannot be told apart from their votes alone, as a sentence; empty where they can be.

    Takes: (n,) and (n,) items and workers of the votes, counted from 0
    """
    workers = int(worker.max()) + 1 if len(worker) else 0
    shared = np.bincount(np.unique(item.astype(np.int64) * max(workers, 1) + worker) // max(workers, 1))
    if (shared >= WORKERS).any():
        return ""
    return f"no pair was judged by {WORKERS} labelers: fewer that differ do not tell which of them is wrong"


def dawid_skene(
    item: Ints, worker: Ints, says_first: Floats, first_is_a: Bools, items: int, workers: int, iterations: int = 200
) -> DawidSkene:
    """The posterior of every item, and every worker's errors in slot coordinates, so that a position bias is part of a worker.

    Takes: (n,) items in [0, items) and (n,) workers in [0, workers); (n,) says_first in [0, 1], 1 the first shown is better, .5 a
        tie; (n,) whether a was shown first
    Formula: EM. logit of a = sum over its votes of o * [s * log(h/f) + (1-s) * log((1-h)/(1-f))], o = +1 if a was first, else -1,
        h and f the worker's P(says first) where the first and the second is better; the prior of a is 1/2. Then h = (1.4 +
        sum q*s) / (2 + sum q) and f = (.6 + sum (1-q)*s) / (2 + sum (1-q)), q the posterior that the first is better: a worker
        starts as one who is right seven times of ten, worth two votes. Begun from the votes counted.
    Assumes: given which is better, votes are independent: where labelers err together, logits are too sure of themselves
        (`error_correlation` tells, `calibration.fit` mends it). Several draws of one labeler do so most: give their mean as one
        vote. Most workers are better than chance: had all of them swapped right and wrong, the votes would be the same.
    Measured: 1,000,000 items with six votes in 3 s.
    Raises: ValueError on shapes that differ, and where `unidentified` says that nothing tells the workers apart
    Source: Dawid and Skene 1979, "Maximum likelihood estimation of observer error-rates using the EM algorithm".
    """
    if not item.shape == worker.shape == says_first.shape == first_is_a.shape:
        raise ValueError("arrays of one length are needed")
    if why := unidentified(item, worker):
        raise ValueError(why)
    from scipy.sparse import csr_array

    cell, shape = worker * 2 + ~first_is_a, (items, 2 * workers)
    said, asked = csr_array((says_first, (item, cell)), shape=shape), csr_array((np.ones(len(item)), (item, cell)), shape=shape)
    side = np.tile([1.0, -1.0], workers)
    logit = said @ (2 * side) - asked @ side
    rates, moved, count = np.full((2, workers), 0.5), math.inf, 0
    while moved > _MOVED and count < iterations:
        after = _rates(logit, said, asked)
        logit = _logits(after, said, asked, side)
        rates, moved, count = after, float(np.abs(after - rates).max()), count + 1
    votes = np.bincount(worker, minlength=workers)
    return DawidSkene(
        logit=logit, first_if_first=rates[0], first_if_second=rates[1], votes=votes, iterations=count, converged=moved <= _MOVED
    )  # fmt: skip


def _rates(logit: Floats, said: Any, asked: Any) -> Floats:
    """(2, workers): P(says first) where the first shown is better, and where the second is. Takes: (items, 2 * workers) sums"""
    a = (1 + np.tanh(logit / 2)) / 2
    moments = []
    for sums in (said, asked):
        if_a, if_b = (np.asarray(q @ sums).reshape(-1, 2) for q in (a, 1 - a))
        moments.append((if_a[:, 0] + if_b[:, 1], if_b[:, 0] + if_a[:, 1]))
    (said_first, said_second), (first, second) = moments
    whole = _RIGHT + _WRONG
    return np.stack([(said_first + _RIGHT) / (first + whole), (said_second + _WRONG) / (second + whole)])


def _logits(rates: Floats, said: Any, asked: Any, side: Floats) -> Floats:
    says_first, says_second = np.log(rates[0] / rates[1]), np.log((1 - rates[0]) / (1 - rates[1]))
    slope, rest = side * np.repeat(says_first - says_second, 2), side * np.repeat(says_second, 2)
    return np.asarray(said @ slope + asked @ rest, dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weights:
    """`coefficients`: (labelers + k,), of each labeler's logit, then of each feature. `ridge`: how much they were held together.
    `n`: gold labels they rest on."""

    coefficients: Floats
    ridge: float
    n: int

    def logits(self, logits: Floats, features: Floats) -> Floats:
        """(n,) logits that a is better. Takes: (n, labelers) logits, NaN where not asked, which counts as 0; (n, k) features"""
        return np.asarray(_columns(logits, features) @ self.coefficients, dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weighted:
    """`whole`: weights by all gold. `held_out`: (n,) logits of the gold pairs, each by weights that did not see its prompt."""

    whole: Weights
    held_out: Floats


def weights(
    logits: Floats, features: Floats, gold: Ints, weight: Floats, prompt: Floats | Ints, folds: int = FOLDS
) -> Weighted:  # fmt: skip
    """What each labeler's logit is worth beside those of the others, from gold.

    Takes: (n, labelers) logits of the gold pairs, NaN where not asked; (n, k) feature differences; (n,) gold, +1 or -1; (n,)
        weights > 0; (n,) prompt keys
    Formula: p = sigmoid(sum of w_j * l_j + sum of b_k * f_k), no intercept, with the penalty ridge / 2 * (sum of ((w_j - s/J) *
        rms(l_j))^2 + sum of (b_k * rms(f_k))^2): toward equal weights, s what temperature scaling gives the mean of the logits,
        at least 0. The ridge is the one of .3 to 300 with the least log-loss over five folds within the gold that is seen.
        A labeler that is wrong more often than right gets a negative weight, one that another repeats a small one.
    Assumes: gold pairs are asked of the same labelers as the rest.
    Measured on LLMBar's published judgements (419 pairs, five judges, verdicts in both orders, two of them worse than chance),
        five folds: right on .874 of the pairs, and .900 with the log ratio of lengths, where the best judge by the other four
        folds is right on .845 (differences +.029, .006 to .052, and +.055, .030 to .079) and the majority on .634.
    Raises: ValueError on shapes that differ, on fewer than two prompts, and as `calibration.fit`
    Source: Breiman 1996, "Stacked regressions"; Wolpert 1992, "Stacked generalization".
    """
    if logits.ndim != 2 or len(prompt) != len(logits):
        raise ValueError("logits of (pairs, labelers), and as many prompt keys, are needed")
    held_out, fold = np.zeros(len(gold)), folds_of(prompt, folds)
    whole = _chosen(logits, features, gold, weight, prompt)
    for one in np.unique(fold):
        out, rest = fold == one, fold != one
        fitted = _chosen(logits[rest], features[rest], gold[rest], weight[rest], prompt[rest])
        held_out[out] = fitted.logits(logits[out], features[out])
    return Weighted(whole=whole, held_out=held_out)


def _chosen(logits: Floats, features: Floats, gold: Ints, weight: Floats, prompt: Floats | Ints) -> Weights:
    """Weights with the ridge that does best on folds within this gold; on one prompt, which has none, with the strongest."""
    columns = _columns(logits, features)
    prior = np.zeros(columns.shape[1])
    pooled = np.nan_to_num(mean_of_known(logits, 1))
    prior[: logits.shape[1]] = max(0.0, fit(pooled, features, gold, weight).coefficients[0]) / logits.shape[1]
    if len(np.unique(prompt)) < 2:
        return Weights(coefficients=_ridged(columns, gold, weight, prior, RIDGES[-1]), ridge=RIDGES[-1], n=len(gold))
    fold, losses = folds_of(prompt, INNER), np.zeros(len(RIDGES))
    for one in np.unique(fold):
        out, rest = fold == one, fold != one
        for at, ridge in enumerate(RIDGES):
            found = _ridged(columns[rest], gold[rest], weight[rest], prior, ridge)
            losses[at] += weight[out] @ np.logaddexp(0, -gold[out] * (columns[out] @ found))
    best = RIDGES[int(losses.argmin())]
    return Weights(coefficients=_ridged(columns, gold, weight, prior, best), ridge=best, n=len(gold))


def _ridged(columns: Floats, gold: Ints, weight: Floats, prior: Floats, ridge: float) -> Floats:
    worth = weight * (weight.sum() / (weight @ weight))
    square = worth @ columns**2 / worth.sum()
    return penalized(columns, gold, worth, prior, ridge * np.where(square > 0, square, 1.0))


def _columns(logits: Floats, features: Floats) -> Floats:
    return np.concatenate([np.where(np.isfinite(logits), logits, 0.0), features], axis=1)


def error_correlation(logits: Floats, p: Floats, prompt: Floats | Ints, weight: Floats | None = None) -> Estimate:
    """The mean correlation of two labelers' errors, in [-1, 1]: 0, they err apart; 1, they are one labeler.

    Takes: (n, labelers) logits that a is better, NaN where not asked; (n,) the probability that a is better: gold as 0 or 1, or
        a posterior; (n,) prompt keys; (n,) weights > 0, by default all 1
    Formula: for every two labelers the correlation (phi) of being wrong, over the pairs that both judged, a tie half wrong; its
        mean, with a jackknife over prompts (over 500 groups of them, where there are more) and a t interval. Where p is not 0
        or 1 both truths count, by their probability. `coefficients.effective` makes it a number of independent labelers.
    Assumes: prompts are independent. Against a posterior made from the same votes it is too low: what all get wrong together
        looks right. Then n_eff is too high.
    Raises: ValueError on shapes that differ. With fewer than two labelers, or where no two of them ever err, there is no number.
    Source: Pearson 1900 (phi); Kish 1965; Efron and Tibshirani 1993, chapter 11 (jackknife)
    """
    weight = np.ones(len(p)) if weight is None else weight
    if not logits.shape[:1] == p.shape == prompt.shape == weight.shape:
        raise ValueError("arrays of one length are needed")
    if not len(p) or logits.shape[1] < 2:
        return Estimate(n=len(p), warning="fewer than two labelers judged a pair")
    keys, group = np.unique(prompt, return_inverse=True)
    group = group % min(len(keys), GROUPS)
    sums = np.stack([_moments(logits[:, [j, k]], p, weight, group) for j, k in combinations(range(logits.shape[1]), 2)])
    total = sums.sum(axis=1, keepdims=True)
    return _jackknife(float(_correlation(total)[0]), _correlation(total - sums), len(p))


def _moments(logits: Floats, p: Floats, weight: Floats, group: Ints) -> Floats:
    """(groups, 6) sums over the pairs that two labelers judged: weight, errors of either, their squares, both wrong."""
    known = np.isfinite(logits).all(axis=1)
    verdict, sums = (1 + np.sign(logits[known].T)) / 2, np.zeros((6, int(group.max()) + 1))
    for share, (one, other) in ((p[known], 1 - verdict), (1 - p[known], verdict)):
        for row, value in zip(sums, (np.ones(len(one)), one, other, one**2, other**2, one * other), strict=True):
            row += np.bincount(group[known], weights=weight[known] * share * value, minlength=len(row))
    return sums.T


def _correlation(sums: Floats) -> Floats:
    """(m,) mean correlations. Takes: (labelers' pairs, m, 6) moments; two labelers that tell nothing are left out"""
    n, one, other, one_square, other_square, both = np.moveaxis(sums, 2, 0)
    spread = np.maximum(n * one_square - one**2, 0) * np.maximum(n * other_square - other**2, 0)
    return mean_of_known(ratio(n * both - one * other, np.sqrt(np.where(spread > _ROUNDING * n**4, spread, 0))), 0)


def _jackknife(value: float, left_out: Floats, n: int) -> Estimate:
    """Takes: a correlation, and its (groups,) values without each group"""
    groups = len(left_out)
    if not math.isfinite(value):
        return Estimate(n=n, warning="no two labelers erred on pairs that both judged")
    if groups < 2 or not np.isfinite(left_out).all():
        return Estimate(value=value, n=n, warning=FEW)
    se = math.sqrt((groups - 1) * float(left_out.var()))
    if se < _ROUNDING:
        return Estimate(value=value, n=n, warning=ALIKE)
    found = student(value, se, n, groups - 1)
    low, high = found.ci or (value, value)
    return Estimate(value=value, se=se, ci=(max(-1.0, low), min(1.0, high)), n=n, p_value=found.p_value)
