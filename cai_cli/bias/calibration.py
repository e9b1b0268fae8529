"""From a judge's logits to probabilities that gold bears out: fitted on few gold labels, tried on gold it has not seen.

Nothing here has an intercept, and all features are differences f(a) - f(b): naming the two answers the other way round flips p.
With an intercept what is fitted depends on which answer was called a, and costs accuracy where gold is scarce.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cai_cli.bias.estimate import Estimate, Floats, Ints, by_prompt
from cai_cli.bias.interval import clustered_mean
from cai_cli.votes import P_MIN

Method = Literal["platt", "temperature", "isotonic", "none"]

RIDGE = 1.0  # of 0.01, 0.3, 1, 3 and 10 the best at 100 gold, where c = .8 and where c = 0; at 300 it hardly matters
FOLDS = 10
LEAN = 0.01  # an isotonic map keeps this much of the logit, or half of what stands on a step at 1/2 would become a tie
_STEPS = 100
_SMALL = 1e-10
_FARTHEST = math.log((1 - P_MIN) / P_MIN)  # labels are written within [P_MIN, 1 - P_MIN]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Calibration:
    """A map from a judge's logit and feature differences to a calibrated logit.

    `coefficients`: (1 + k,), of the logit, then of each feature in its own unit; those of an isotonic map are 1, 0, ... and say
    nothing. `knots`: (2, m), of an isotonic map: rising |logit|, and the calibrated logit there. `n`: gold labels it rests on.
    """

    method: Method
    coefficients: Floats
    knots: Floats
    n: int

    def logits(self, z: Floats, features: Floats) -> Floats:
        """(n,) calibrated logits that a is better. -z and -features give exactly the negative.

        Takes: (n,) logits; (n, k) feature differences, in the order of the fit
        Raises: ValueError on shapes that differ from each other or from the fit
        """
        if features.shape != (len(z), len(self.coefficients) - 1):
            raise ValueError(f"{len(self.coefficients) - 1} features of {len(z)} pairs are needed, not {features.shape}")
        if self.method == "isotonic":
            known = np.concatenate([np.zeros((2, 1)), self.knots], axis=1)
            return np.asarray(np.sign(z) * np.interp(np.abs(z), known[0], known[1]) + LEAN * z, dtype=np.float64)
        return np.asarray(z * self.coefficients[0] + features @ self.coefficients[1:], dtype=np.float64)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fitted:
    """`whole`: fitted on all gold. `held_out`: (n,) logits of the gold pairs, each by a fit that did not see its prompt."""

    whole: Calibration
    held_out: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Harm:
    """What a step does to the log-loss on gold it has not seen, in nats a pair: below 0 it helps.

    `before` and `after`: mean log-loss without and with the step. `difference`: after - before, pair by pair.
    """

    before: float
    after: float
    difference: Estimate

    @property
    def refused(self) -> bool:
        """Whether it is worse by more than one standard error; where none is known, whether it is worse at all."""
        return (self.difference.value or 0.0) > (self.difference.se or 0.0)


def fit(z: Floats, features: Floats, gold: Ints, weight: Floats, method: Method = "platt", ridge: float = RIDGE) -> Calibration:
    """Calibrate logits on gold labels.

    Takes: (n,) logits; (n, k) feature differences; (n,) gold, +1 where a is better, else -1; (n,) weights > 0, one over the
        chance that a pair had to be looked at; ridge > 0
    Formula: platt: p = sigmoid(b1 * z + sum of b_k * f_k), the maximum of sum w * log p(gold) - ridge / 2 * ((b1 - 1)^2 +
        sum of (b_k * rms(f_k))^2); w are the weights scaled to add up to (sum w)^2 / sum w^2, what they are worth. temperature:
        the same without features. isotonic: the rising step function of |z| nearest to being right, by pool adjacent
        violators, at least 1/2, straight between its knots in logits, plus z / 100; features are ignored. A top step that was
        always right for a weight of m is put at (m + .5) / (m + 1), so that no loss is infinite. none: the logits as they are.
    Assumes: platt: the truth is logistic in z and the features. isotonic: more confident is never less often right.
    Ridge 1 is worth little gold, and makes the maximum finite where gold is separated. On the plain scale and not on that of
        log(b1) because it is convex, and a judge that is the wrong way round can be turned: log-loss at 100 gold .363 either way.
    Measured (60 seeds; theta ~ N(0,1), x = 1.5 theta + .8 L + N(0,.8^2), call noise .5, L correlated .3 with theta; 2,000
        pairs): share of the way from one random order to the oracle .95 at 100 gold and .99 at 300, log-loss .008 and .003
        above the oracle's. On a judge without length bias accuracy rises by .0005 at 100 gold and .002 at 300.
    Raises: ValueError on shapes that differ, on no gold, on gold other than +1 and -1, on what is not finite
    Source: Platt 1999, "Probabilistic outputs for support vector machines"; Guo et al. 2017, arXiv 1706.04599 (temperature);
        Zadrozny and Elkan 2002 (isotonic); Dubois et al. 2024, arXiv 2404.04475 (length in the regression).
    """
    _check(z, features, gold, weight)
    k = features.shape[1]
    plain, empty = np.concatenate([[1.0], np.zeros(k)]), np.zeros((2, 0))
    worth = weight * (weight.sum() / (weight @ weight))
    if method == "none":
        return Calibration(method=method, coefficients=plain, knots=empty, n=len(z))
    if method == "isotonic":
        return Calibration(method=method, coefficients=plain, knots=_isotonic(z, gold, worth), n=len(z))
    columns = np.concatenate([z[:, np.newaxis], features], axis=1)[:, : 1 if method == "temperature" else None]
    scale = np.sqrt(worth @ columns**2 / worth.sum())
    penalty = np.where(scale > 0, ridge * scale**2, ridge)
    penalty[0] = ridge
    found = penalized(columns, gold, worth, plain[: columns.shape[1]], penalty)
    return Calibration(method=method, coefficients=np.concatenate([found, np.zeros(k + 1 - len(found))]), knots=empty, n=len(z))


def penalized(columns: Floats, gold: Ints, weight: Floats, prior: Floats, penalty: Floats) -> Floats:
    """(k,) coefficients b of p = sigmoid(columns @ b), by Newton's method with halved steps.

    Takes: (n, k) columns; (n,) gold, +1 or -1; (n,) weights; (k,) what b is drawn to, and (k,) how strongly, > 0
    Formula: the minimum of sum w * log(1 + exp(-gold * columns @ b)) + sum of penalty / 2 * (b - prior)^2; strictly convex
    """

    def cost(b: Floats) -> float:
        return float(weight @ np.logaddexp(0, -gold * (columns @ b)) + penalty @ (b - prior) ** 2 / 2)

    b, at = prior, cost(prior)
    for _ in range(_STEPS):
        wrong = (1 - np.tanh(gold * (columns @ b) / 2)) / 2
        slope = columns.T @ (weight * gold * wrong) - penalty * (b - prior)
        curve = (columns.T * (weight * wrong * (1 - wrong))) @ columns + np.diag(penalty)
        step = np.asarray(np.linalg.solve(curve, slope), dtype=np.float64)
        gain = float(slope @ step)
        if gain < _SMALL:
            return np.asarray(b + step, dtype=np.float64)
        b, at = _downhill(cost, b, at, step, gain)
    return b


def _downhill(cost: Callable[[Floats], float], b: Floats, at: float, step: Floats, gain: float) -> tuple[Floats, float]:
    """A step that is short enough to gain what its slope promises (Armijo), and the cost after it."""
    part = 1.0
    while part > _SMALL:
        after = cost(b + part * step)
        if after <= at - 1e-4 * part * gain:
            break
        part /= 2
    return b + part * step, after


def _isotonic(z: Floats, gold: Ints, worth: Floats) -> Floats:
    """(2, m) knots: both ends of every step of P(right) over |z|, and its logit. Logits of 0 say nothing."""
    from scipy.optimize import isotonic_regression

    told = z != 0
    score, at = np.unique(np.abs(z[told]), return_inverse=True)
    if not len(score):
        return np.zeros((2, 0))
    weight = np.bincount(at, weights=worth[told])
    right = np.bincount(at, weights=worth[told] * (np.sign(z[told]) == gold[told])) / weight
    found = isotonic_regression(right, weights=weight)
    ends = np.unique(np.concatenate([found.blocks[:-1], found.blocks[1:] - 1]))
    mass = np.add.reduceat(weight, found.blocks[:-1])
    share = np.minimum(found.x[found.blocks[:-1]], (mass + 0.5) / (mass + 1))
    level = np.maximum.accumulate(np.maximum(share, 0.5))
    p = np.repeat(level, np.diff(found.blocks))[ends]
    return np.stack([score[ends], np.log(p / (1 - p))])


def folds_of(prompt: Floats | Ints, folds: int = FOLDS) -> Ints:
    """(n,) which fold each row is in: whole prompts, dealt out in turn by rank of key, so that the order of rows decides nothing.

    Takes: (n,) prompt keys; at least two folds, and no more are made than there are prompts
    Raises: ValueError on fewer than two prompts, or folds
    """
    keys, rank = np.unique(prompt, return_inverse=True)
    if min(len(keys), folds) < 2:
        raise ValueError("at least two prompts, and two folds, are needed")
    return np.asarray(rank % min(folds, len(keys)), dtype=np.int64)


def cross_fitted(
    z: Floats, features: Floats, gold: Ints, weight: Floats, prompt: Floats | Ints,
    method: Method = "platt", folds: int = FOLDS, ridge: float = RIDGE,
) -> Fitted:  # fmt: skip
    """A calibration by all gold, and what calibrations by the other folds say of each gold pair.

    Takes: as `fit`; (n,) prompt keys, of rows that may be alike   Raises: as `fit` and `folds_of`
    """
    whole, held_out, fold = fit(z, features, gold, weight, method, ridge), np.zeros(len(z)), folds_of(prompt, folds)
    for one in np.unique(fold):
        out, rest = fold == one, fold != one
        fitted = fit(z[rest], features[rest], gold[rest], weight[rest], method, ridge)
        held_out[out] = fitted.logits(z[out], features[out])
    return Fitted(whole=whole, held_out=held_out)


def no_harm(before: Floats, after: Floats, gold: Ints, weight: Floats, prompt: Floats | Ints) -> Harm:
    """Whether a step makes labels worse, by gold that it has not seen.

    Takes: (n,) and (n,) logits of the gold pairs without and with the step; (n,) gold, +1 or -1; (n,) weights > 0; (n,) keys
    Formula: loss = log(1 + exp(-gold * l)), l kept to the logits of [1e-4, 1 - 1e-4], as labels are; the weighted mean of
        loss(after) - loss(before), with its standard error by prompt (`interval.clustered_mean`)
    Raises: ValueError on shapes that differ, on no gold, on gold other than +1 and -1, on what is not finite
    """
    _check(before, after[:, np.newaxis], gold, weight)
    share = weight / weight.mean()
    loss = [share * np.logaddexp(0, -gold * np.clip(logit, -_FARTHEST, _FARTHEST)) for logit in (before, after)]
    sums = by_prompt(np.stack([loss[1] - loss[0], share], axis=1), prompt)
    return Harm(before=float(loss[0].mean()), after=float(loss[1].mean()), difference=clustered_mean(sums[:, 0], sums[:, 1]))


def _check(z: Floats, features: Floats, gold: Ints, weight: Floats) -> None:
    if not len(z) or not z.shape == features.shape[:1] == gold.shape == weight.shape or features.ndim != 2:
        raise ValueError("gold labels, and logits, features and weights of as many pairs are needed")
    if not (np.isfinite(z).all() and np.isfinite(features).all() and np.isfinite(weight).all()):
        raise ValueError("logits, features and weights must be finite")
    if (np.abs(gold) != 1).any() or (weight <= 0).any():
        raise ValueError("gold is +1 or -1, and its weight above 0")
