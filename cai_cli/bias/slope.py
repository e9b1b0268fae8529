"""How much a judge's opinion moves with a difference between the two answers: length, style."""

from __future__ import annotations

import math

import numpy as np

from cai_cli.bias.estimate import Estimate, Floats, Ints, by_prompt, student


def slope(logit: Floats, difference: Floats, prompt: Floats | Ints) -> Estimate:
    """Log-odds for a, per standard deviation of difference(a) - difference(b).

    Takes: (n,) pooled logits that a wins; (n,) a minus b of the feature; (n,) prompt keys
    Formula: least squares through the origin on d = difference / rms(difference): swapping a and b flips both signs, so there
    is no intercept and nothing to centre. SE by prompt: sum over prompts of (sum d*e)^2 / (sum d^2)^2, times G/(G-1); t with
    G-1 degrees of freedom for G prompts.
    Assumes: nothing makes better answers longer. Where something does, this is bias *plus* honest correlation, and subtracting
    it over-corrects: only gold labels or content-preserving probes tell the two apart.
    Raises: ValueError on shapes that differ. With fewer than three prompts, or no difference at all, there is no number.
    Source: the attribute-controlled win rate of Dubois et al. 2024, arXiv 2404.04475; SE: Liang and Zeger 1986.
    """
    if not logit.shape == difference.shape == prompt.shape:
        raise ValueError("arrays of one length are needed")
    n, scale = len(logit), math.sqrt(float(np.mean(difference**2))) if len(difference) else 0.0
    if scale == 0:
        return Estimate(n=n, warning="the two answers never differ in it")
    d = difference / scale
    effect = float(d @ logit / (d @ d))
    scores = by_prompt((d * (logit - effect * d))[:, np.newaxis], prompt)[:, 0]
    groups = len(scores)
    if groups < 3:
        return Estimate(n=n, warning="fewer than three prompts")
    se = math.sqrt(float(scores @ scores) * groups / (groups - 1)) / float(d @ d)
    return student(effect, se, n, groups - 1)
