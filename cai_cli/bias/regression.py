"""Least squares and logistic regression with standard errors that let rows of one prompt be alike."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cai_cli.bias.estimate import Estimate, Floats, Ints, by_prompt, student

_STEPS, _SMALL, _LONGEST = 60, 1e-9, 2.0  # of Newton's method: how many, when to stop, the longest in any coefficient


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Fit:
    """Coefficients (k,), and their covariance (k, k) by prompt; `independent`: the one of rows which are not alike.

    `n`: rows; `groups`: prompts.
    """

    coefficients: Floats
    covariance: Floats
    independent: Floats
    n: int
    groups: int

    def along(self, *direction: float) -> Estimate:
        """A sum of coefficients, each times its part of the direction, with the larger of its standard errors.

        t with prompts - 1 degrees of freedom. The larger one, as with few rows that by prompt is too small too often.
        """
        at = np.array(direction)
        variances = [float(at @ one @ at) for one in (self.covariance, self.independent)]
        return student(float(at @ self.coefficients), math.sqrt(max(0.0, *variances)), self.n, self.groups - 1)


def told_apart(design: Floats) -> bool:
    """Whether the (n, k) columns of a design can be told apart, so that each coefficient has one answer."""
    if len(design) < design.shape[1]:
        return False
    scale = np.sqrt((design**2).mean(axis=0))
    if not scale.all():
        return False
    gram = (design / scale).T @ (design / scale) / len(design)
    return float(np.linalg.eigvalsh(gram)[0]) > _SMALL


def least_squares(outcome: Floats, design: Floats, prompt: Floats | Ints) -> Fit:
    """Least squares, with a covariance by prompt.

    Takes: (n,) outcomes; (n, k) columns that can be told apart; (n,) prompt keys, of at least two prompts
    Formula: b = (X'X)^-1 X'y; (X'X)^-1 (sum over prompts of s s') (X'X)^-1 * G/(G-1) * (n-1)/(n-k), s = sum of x * residual;
        `independent`: (X'X)^-1 * the residual variance
    Source: Liang and Zeger 1986; the factors: Cameron and Miller 2015, "A practitioner's guide to cluster-robust inference"
    """
    bread = np.asarray(np.linalg.inv(design.T @ design), dtype=np.float64)
    found = bread @ (design.T @ outcome)
    rest, (n, k) = outcome - design @ found, design.shape
    independent = bread * float(rest @ rest) / max(1, n - k)
    covariance, groups = _sandwich(bread, design * rest[:, np.newaxis], prompt)
    covariance = covariance * (n - 1) / max(1, n - k)
    return Fit(coefficients=found, covariance=covariance, independent=independent, n=n, groups=groups)


def _sandwich(bread: Floats, scores: Floats, prompt: Floats | Ints) -> tuple[Floats, int]:
    sums = by_prompt(scores, prompt)
    groups = len(sums)
    return np.asarray(bread @ (sums.T @ sums) @ bread * groups / (groups - 1), dtype=np.float64), groups


def logistic(hit: Floats, design: Floats, prompt: Floats | Ints) -> Fit:
    """Logistic regression that is finite also where hits and misses are separated, with a covariance by prompt.

    Takes: (n,) 1 or 0; (n, k) columns that can be told apart; (n,) prompt keys, of at least two prompts
    Formula: the maximum of the log-likelihood + ln|I(b)| / 2, which is that of rows that count 1 + h, with h/2 hits and h/2
        misses added, h the row's leverage; `independent`: the inverse information of these rows. With an intercept alone this
        is the .5 of Haldane and Anscombe, and the standard error of `position_from_votes`.
    Source: Firth 1993, "Bias reduction of maximum likelihood estimates"; Heinze and Schemper 2002 on separation.
    """
    columns = np.ascontiguousarray(design.T)
    b = np.zeros(len(columns))
    for _ in range(_STEPS):
        p, leverage = _at(columns, b)
        step = np.linalg.solve(_information(columns, p, leverage), columns @ _pull(hit, p, leverage))
        b = b + step / max(1.0, float(np.abs(step).max()) / _LONGEST)
        if float(np.abs(step).max()) < _SMALL:
            break
    p, leverage = _at(columns, b)
    independent = np.asarray(np.linalg.inv(_information(columns, p, leverage)), dtype=np.float64)
    covariance, groups = _sandwich(independent, (columns * _pull(hit, p, leverage)).T, prompt)
    return Fit(coefficients=b, covariance=covariance, independent=independent, n=len(hit), groups=groups)


def _at(columns: Floats, b: Floats) -> tuple[Floats, Floats]:
    """(n,) probabilities and leverages. Takes: (k, n) columns, as a row of each is contiguous then, and fast"""
    p = (1 + np.tanh(b @ columns / 2)) / 2
    spread = p * (1 - p)
    inverse = np.linalg.inv((columns * spread) @ columns.T)
    return p, spread * ((inverse @ columns) * columns).sum(axis=0)


def _information(columns: Floats, p: Floats, leverage: Floats) -> Floats:
    return np.asarray((columns * ((1 + leverage) * p * (1 - p))) @ columns.T, dtype=np.float64)


def _pull(hit: Floats, p: Floats, leverage: Floats) -> Floats:
    return np.asarray(hit - p + leverage * (0.5 - p), dtype=np.float64)
