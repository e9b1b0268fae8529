"""Differences of two means over prompts, the same ones or others, with a p-value also where nothing varies."""

from __future__ import annotations

import math

import numpy as np

from cai_cli.bias.estimate import Estimate, Floats, student
from cai_cli.bias.interval import ALIKE, FEW, clustered_mean


def paired(left: Floats, right: Floats) -> Estimate:
    """The mean difference, left minus right, on the same prompts.

    Takes: (G,) and (G,) the prompts' means in the two groups
    Formula: t interval of the differences; where all differences are the same there is no interval, and p is that of their signs
    falling so by chance, 2^(1 - G), or 1 where they are 0.
    Raises: ValueError on shapes that differ. Below two prompts there is the difference alone.
    """
    if left.shape != right.shape:
        raise ValueError("arrays of one length are needed")
    both = left - right
    found = clustered_mean(both, np.ones(len(both)))
    if found.ci is not None or found.warning != ALIKE:
        return found
    p = 1.0 if np.isclose(found.value or 0.0, 0) else 0.5 ** (len(both) - 1)
    return Estimate(value=found.value, n=found.n, p_value=p, warning=ALIKE)


def apart(left: Floats, right: Floats) -> Estimate:
    """The difference of two means, left minus right, on different prompts.

    Takes: (G,) and (H,) the prompts' means in the two groups
    Formula: Welch's t interval, its degrees of freedom after Satterthwaite; where neither group varies there is no interval, and
    p is that of the groups falling apart so by chance, 2 / C(G + H, G), or 1 where they are equal.
    Assumes: prompts are independent. With fewer than two prompts in a group there is the difference alone.
    Source: Welch 1947, "The generalization of 'Student's' problem when several different population variances are involved".
    """
    n, m = len(left), len(right)
    if not n or not m:
        return Estimate(warning="no rows")
    value = float(left.mean() - right.mean())
    if min(n, m) < 2:
        return Estimate(value=value, n=n + m, warning=FEW)
    mine, theirs = float(left.var(ddof=1)) / n, float(right.var(ddof=1)) / m
    if mine + theirs <= 1e-24:
        p = 1.0 if math.isclose(value, 0, abs_tol=1e-12) else min(1.0, 2 / math.comb(n + m, n))
        return Estimate(value=value, n=n + m, p_value=p, warning=ALIKE)
    df = (mine + theirs) ** 2 / (mine**2 / (n - 1) + theirs**2 / (m - 1))
    return student(value, math.sqrt(mine + theirs), n + m, df)
