"""Do two labelers, or a labeler and gold, say the same?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cai_cli.bias.estimate import Estimate, Floats, Ints, by_prompt, interval, ratio, resample

_BOUNDS = ((0.0, 1.0), (-1.0, 1.0), (-1.0, 1.0))  # of raw agreement, kappa, AC1


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreement:
    n: int
    raw: Estimate  # share of pairs with the same outcome
    kappa: Estimate
    ac1: Estimate


def agreement(left: Ints, right: Ints, prompt: Floats | Ints, seed: int) -> Agreement:
    """Raw agreement, Cohen's kappa and Gwet's AC1, with bootstrap intervals over prompts.

    Takes: (n,) and (n,) outcomes, +1 a, -1 b, 0 tie; (n,) prompt keys
    Formula: (raw - e) / (1 - e). Kappa: e from each side's own marginals. AC1: e = sum of q*(1-q) / (categories - 1), q the mean
    marginal. Which answer is called a is chance, so marginals are those of the table averaged with its mirror image (a and b
    exchanged): what randomising the slots gives on average, without the draw.
    Assumes: prompts are independent. Without ties kappa and AC1 are then both 2*raw - 1.
    Raises: ValueError on shapes that differ. With n = 0 there are no numbers.
    Source: Cohen 1960; Gwet 2008, "Computing inter-rater reliability and its variance in the presence of high agreement".
    """
    if not left.shape == right.shape == prompt.shape:
        raise ValueError("arrays of one length are needed")
    n = len(left)
    columns = np.stack([left == right, left == 0, right == 0, np.ones(n)], axis=1).astype(np.float64)
    categories = 3 if bool((columns[:, 1:3] > 0).any()) else 2
    totals = by_prompt(columns, prompt)
    draws = resample(totals, seed) if n else np.empty((0, 4))
    observed, drawn = (_coefficients(counts, categories) for counts in (columns.sum(axis=0)[np.newaxis], draws))
    raw, kappa, ac1 = (
        interval(float(value[0]), resampled, n, len(totals), bounds)
        for value, resampled, bounds in zip(observed, drawn, _BOUNDS, strict=True)
    )
    return Agreement(n=n, raw=raw, kappa=kappa, ac1=ac1)


def _coefficients(counts: Floats, categories: int) -> tuple[Floats, Floats, Floats]:
    same, tie_left, tie_right = (ratio(counts[:, column], counts[:, 3]) for column in range(3))
    by_marginals = (1 - tie_left) * (1 - tie_right) / 2 + tie_left * tie_right
    tie = (tie_left + tie_right) / 2
    decided = (1 - tie) / 2
    by_mean = (2 * decided * (1 - decided) + tie * (1 - tie)) / (categories - 1)
    return same, ratio(same - by_marginals, 1 - by_marginals), ratio(same - by_mean, 1 - by_mean)
