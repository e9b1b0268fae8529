"""Shares and means of a population from a sample whose rows were drawn with unequal, known probabilities.

All take (n,) weights, one over the probability of having been drawn, and (n,) prompt keys. Estimates are Hajek's, sum of w*x over
sum of w: they need no size of the population, and a constant factor in all weights changes nothing.
Source: Hajek 1971; Särndal, Swensson and Wretman 1992, Model Assisted Survey Sampling, sections 5.7 (the ratio and its linearised
variance) and 8 (clusters).
"""

from __future__ import annotations

import numpy as np

from cai_cli.bias.estimate import Estimate, Floats, Ints, by_prompt, student
from cai_cli.bias.interval import clustered_mean, clustered_share, wilson


def levelled(weight: Floats) -> Floats:
    """Weights with a mean of 1. Raises: ValueError: one is not above 0"""
    if len(weight) and not float(weight.min()) > 0:
        raise ValueError("weights must be above 0")
    return weight / weight.mean() if len(weight) else weight


def effective_rows(weight: Floats) -> float:
    """How many equally weighted rows these are worth: (sum of w)^2 / sum of w^2, in [1, n]; 0 without rows.

    n divided by it is the design effect of the weights.
    Source: Kish 1965, Survey Sampling, section 11.7
    """
    return float(weight.sum() ** 2 / (weight**2).sum()) if len(weight) else 0.0


def share(hits: Floats, weight: Floats, prompt: Floats | Ints) -> Estimate:
    """The share of a population's rows that are hit, with an interval within [0, 1].

    Takes: (n,) hits in [0, 1]; weights; prompt keys
    Formula: `interval.clustered_share` on weighted sums by prompt; where all rows are alike, Wilson's interval of as many prompts
        as their weights are worth.
    Coverage, simulated with weights that differ by a factor of five and misses that are likelier where weights are small, one and
        three rows a prompt, shares of .66, .85 and .95, 300 runs a cell: .94-.98 from 30 to 300 rows; kappa, AC1 and alpha of
        `coefficients.Ratings` with these weights .92-.99, the lowest at 30 rows.
    Raises: ValueError on shapes that differ. Without rows there is no number.
    """
    sums, rows = _by_prompt(hits, weight, prompt)
    found = clustered_share(sums, rows)
    if found.value is None:
        return found
    worth, alike = effective_rows(rows), not found.se or found.value in (0, 1)
    ci = wilson(found.value * worth, worth) if alike else found.ci
    return Estimate(value=found.value, se=found.se, ci=ci, n=len(hits))


def mean(values: Floats, weight: Floats, prompt: Floats | Ints, within: tuple[float, float]) -> Estimate:
    """The mean of a population's values with a t interval by prompt, cut at their limits, and the p-value of its being 0.

    Takes: (n,) values; weights; prompt keys; between which limits values lie
    Raises: ValueError on shapes that differ. Without rows there is no number, with one prompt no interval.
    """
    found = clustered_mean(*_by_prompt(values, weight, prompt), within)
    ci = None if found.ci is None else (max(within[0], found.ci[0]), min(within[1], found.ci[1]))
    return Estimate(value=found.value, se=found.se, ci=ci, n=len(values), p_value=found.p_value, warning=found.warning)


def difference(left: Estimate, right: Estimate) -> Estimate:
    """left - right of two groups that share no prompt, or few: a normal interval from both standard errors.

    Takes: estimates with standard errors   Without one of them there is the difference alone.
    """
    if left.value is None or right.value is None:
        return Estimate(n=left.n + right.n)
    value, n = left.value - right.value, left.n + right.n
    if not left.se or not right.se:
        return Estimate(value=value, n=n)
    return student(value, float(np.hypot(left.se, right.se)), n, max(1, n - 2))


def _by_prompt(values: Floats, weight: Floats, prompt: Floats | Ints) -> tuple[Floats, Floats]:
    if not values.shape == weight.shape == prompt.shape:
        raise ValueError("arrays of one length are needed")
    sums = by_prompt(np.stack([values * weight, weight], axis=1), prompt)
    return sums[:, 0], sums[:, 1]
