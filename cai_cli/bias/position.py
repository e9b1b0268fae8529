"""Position bias: does a judge prefer an answer because of the slot it was shown in?

The model throughout: the judge's logit that candidate a wins is x + b*o, where x is what it thinks of the pair and o is +1 if a
was shown first, else -1. Neither gold labels nor a model of quality are needed: both orders of a pair share x.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cai_cli.bias.estimate import Z95, Estimate, Floats, Ints, by_prompt, interval, mean, ratio, resample, student


def position_from_probabilities(logit_ab: Floats, logit_ba: Floats) -> Estimate:
    """The position bias b, in log-odds, of a judge that gives probabilities.

    Takes: (n,) and (n,) logits that a wins, with a shown first and with a shown second
    Formula: b = mean((l_ab - l_ba) / 2), SE = sd / sqrt(n), t interval with n - 1 degrees of freedom
    Assumes: pairs are independent given their content. A bias that varies by item is averaged, not detected.
    Raises: ValueError on shapes that differ or values that are not finite. With n < 2, or where all pairs say the same, there
    is no interval, with n = 0 no number.
    Source: the paired difference of swapped orders; Wang et al. 2023, arXiv 2305.17926, on why both are needed.
    """
    if logit_ab.shape != logit_ba.shape or logit_ab.ndim != 1:
        raise ValueError(f"two flat arrays of one length are needed, not {logit_ab.shape} and {logit_ba.shape}")
    half = (logit_ab - logit_ba) / 2
    n = len(half)
    if not np.isfinite(half).all():
        raise ValueError("logits must be finite: clip probabilities first")
    if n < 2:
        return Estimate(value=float(half[0]) if n else None, n=n, warning="fewer than two pairs were seen in both orders")
    return student(float(half.mean()), float(half.std(ddof=1)) / math.sqrt(n), n, n - 1)


def position_from_votes(n_first_first: int, n_second_second: int) -> Estimate:
    """The position bias b, in log-odds, of a judge that gives verdicts only.

    Takes: how many pairs had the first shown answer win in both orders, and how many the second shown
    Formula: P(first, first) / P(second, second) = exp(2b) for every item, so b = ln((FF + .5) / (SS + .5)) / 2 and
    SE = sqrt(1 / (FF + .5) + 1 / (SS + .5)) / 2, normal interval; p is the exact binomial one of FF among FF + SS at 1/2.
    Assumes: votes are Bernoulli(sigmoid(x + b*o)), independent given x. Noise from call to call on top shrinks b (.65 for
    .68); a judge that thresholds its opinion inflates it.
    Coverage, simulated with x ~ N(0, 2.06^2), 4,000 runs: .947-.954 at 1,000 pairs and b from 0 to 1.7; .949-.961 at 100 and
    300 pairs but for .935 at (100, 1.7); at 30 pairs .96-.99, .91 at b = 1.7. Without the .5 in the SE it falls to .75 at
    (100, 1.7) and .31 at (30, 1.7), and breaks down at a count of 0; the variance of Gart and Zweifel 1967 covers slightly less.
    Raises: ValueError on a negative count. Without a single conflict there is no number.
    Source: Haldane 1955 and Anscombe 1956 for the .5.
    """
    from scipy.stats import binomtest

    if min(n_first_first, n_second_second) < 0:
        raise ValueError("counts cannot be negative")
    n = n_first_first + n_second_second
    if n == 0:
        return Estimate(warning="no pair had the same slot win in both orders, so votes alone do not tell the bias")
    first, second = n_first_first + 0.5, n_second_second + 0.5
    b, se = 0.5 * math.log(first / second), 0.5 * math.sqrt(1 / first + 1 / second)
    return Estimate(value=b, se=se, ci=(b - Z95 * se, b + Z95 * se), n=n, p_value=float(binomtest(n_first_first, n).pvalue))


@dataclass(frozen=True, slots=True, kw_only=True)
class Swapped:
    """How a judge's answers change when the order is swapped: shares of the comparisons it answered in both orders."""

    n: int
    first_first: int
    second_second: int
    consistency: Estimate  # the same candidate won in both orders
    conflict_rate: Estimate  # the same slot won in both orders; the rest involves a tie
    above_chance: Estimate  # consistency minus that of a judge with these slot preferences that looks at nothing


def swapped(slot_ab: Ints, slot_ba: Ints, prompt: Floats | Ints, seed: int) -> Swapped:
    """Consistency, conflict rate, and whether consistency is more than chance, with bootstrap intervals over prompts.

    Takes: (n,) and (n,) which slot won in order ab and in order ba, +1 first, -1 second, 0 tie; (n,) prompt keys
    Formula: with f = P(first), a judge that looks at nothing but slots agrees with itself on 2*f*(1-f) of what it decides.
    Raises: ValueError on shapes that differ. With n = 0 there are no numbers.
    """
    if not slot_ab.shape == slot_ba.shape == prompt.shape:
        raise ValueError("arrays of one length are needed")
    patterns = [(slot_ab == 1) & (slot_ba == 1), (slot_ab == -1) & (slot_ba == -1), slot_ab * slot_ba == -1]
    columns = np.stack([*patterns, np.ones(len(prompt))], axis=1).astype(np.float64)
    counts, n = columns.sum(axis=0), len(prompt)
    totals = by_prompt(columns, prompt)
    draws = resample(totals, seed) if n else np.empty((0, 4))
    values = [
        interval(float(share(counts[np.newaxis])[0]), share(draws), n, len(totals), bounds)
        for share, bounds in ((_same, (0.0, 1.0)), (_conflict, (0.0, 1.0)), (_above_chance, (-0.5, 0.5)))
    ]
    return Swapped(
        n=n, first_first=int(counts[0]), second_second=int(counts[1]),
        consistency=values[0], conflict_rate=values[1], above_chance=values[2],
    )  # fmt: skip


def _same(counts: Floats) -> Floats:
    return ratio(counts[:, 2], counts[:, 3])


def _conflict(counts: Floats) -> Floats:
    return ratio(counts[:, 0] + counts[:, 1], counts[:, 3])


def _above_chance(counts: Floats) -> Floats:
    decided = counts[:, :3].sum(axis=1)
    first = ratio(counts[:, 0] + counts[:, 2] / 2, decided)
    return ratio(counts[:, 2], decided) - 2 * first * (1 - first)


def first_slot_excess(p_first: Floats, prompt: Floats | Ints, seed: int) -> Estimate:
    """P(first shown wins) - P(second shown wins), with a bootstrap interval over prompts; a tie is half of each.

    Takes: (n,) probabilities, or verdicts as 0, .5, 1, that the first shown answer is better; (n,) prompt keys
    Formula: mean(2*p_first - 1)
    Assumes: each pair stands in it in both orders, or sides were drawn by chance; else quality is mixed in.
    Raises: ValueError on shapes that differ. With n = 0 there is no number.
    """
    return mean(2 * p_first - 1, prompt, seed, (-1.0, 1.0))
