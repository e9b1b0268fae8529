"""Label token against slot: does a judge prefer what is shown first, or what is called A?

The model: the judge's logit that the first shown wins is x*o + b + t*s, with o = +1 if a is shown first, else -1, x what it
thinks of the pair, b the bias toward the slot, t that toward the name, and s = +1 if the first shown has the earlier name of its
set (A of A and B), else -1. Names are drawn by pair and order, so slot and name are crossed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cai_cli.bias.estimate import Bools, Estimate, Floats, Ints, groups_of
from cai_cli.bias.regression import Fit, least_squares, logistic, told_apart

FEW = "fewer than three prompts"
UNNAMED = "no pair has names that favour one slot over both orders, so what a name does is not seen"
ONE_NAME = "the same slot had the earlier name throughout, so slot and name cannot be told apart"
NO_CONFLICT = "no pair had the same slot win in both orders, so votes alone do not tell the bias"


@dataclass(frozen=True, slots=True, kw_only=True)
class SlotAndToken:
    """Both in log-odds: `slot` for what is shown first, `token` for what has the earlier name."""

    slot: Estimate
    token: Estimate


def token_and_slot(f_ab: Floats, f_ba: Floats, s_ab: Floats, s_ba: Floats, prompt: Floats | Ints) -> SlotAndToken:
    """The two biases of a judge that gives probabilities.

    Takes: (n,) and (n,) logits that the FIRST shown wins, in order ab and in order ba; (n,) and (n,) +1 where the first shown had
        the earlier name, -1 where the second had it, 0 where that is not known; (n,) prompt keys
    Formula: (f_ab + f_ba)/2 = b + t*m with m = (s_ab + s_ba)/2, as x cancels: least squares with an intercept
        (`regression.least_squares`), the larger of two standard errors, t with prompts - 1 degrees of freedom.
    Assumes: names are drawn by chance; then an unknown one is noise. t is the mean over the sets of names.
    Where m is the same throughout the design does not tell slot and name apart: at m = 0 there is the slot alone, else neither.
    Measured (call noise .5, b .679): at 100 pairs the RMSE of t is .050, of b .035; intervals cover .95 (.94 at 40 pairs), false
        alarms .04.
    Raises: ValueError on shapes that differ or values that are not finite. With fewer than three prompts there is no number.
    Source: the 2x2 of order and naming; Zheng et al. 2023, arXiv 2309.03882, on the bias toward option names.
    """
    _check(f_ab, f_ba, s_ab, s_ba, prompt)
    design = _design(s_ab, s_ba)
    outcome = (f_ab + f_ba) / 2
    if groups_of(prompt)[1] < 3:
        return _neither(len(prompt), FEW)
    if told_apart(design):
        return _both(least_squares(outcome, design, prompt), 1.0)
    if design[:, 1].any():
        return _neither(len(prompt), ONE_NAME)
    return _slot_alone(least_squares(outcome, design[:, :1], prompt), 1.0)


def token_and_slot_from_votes(slot_ab: Ints, slot_ba: Ints, s_ab: Floats, s_ba: Floats, prompt: Floats | Ints) -> SlotAndToken:
    """The two biases of a judge that gives verdicts only.

    Takes: (n,) and (n,) which slot won in order ab and in order ba, +1 first, -1 second, 0 tie; the rest as `token_and_slot`
    Formula: of the pairs where the same slot won twice, P(first, first) / P(second, second) = exp(2*b + 2*t*m) for every x: a
        logistic regression on 2 and 2*m (`regression.logistic`), with the larger of its SE by prompt and that of independent
        rows.
    Assumes: votes are Bernoulli(sigmoid(logit)), independent given x; as `position_from_votes`, which it is where t = 0.
    Measured (x ~ N(0, 2.06^2), b .679, t .5): at 100, 300, 1,000 pairs the RMSE of t is .34, .19, .10; intervals
        cover .98, .96, .96. False alarms at t = 0: .02 at 100, .05 at 300.
    Raises: ValueError on shapes that differ or names that are not finite. Without conflicts in three prompts there is no number.
    """
    _check(slot_ab, slot_ba, s_ab, s_ba, prompt)
    conflict: Bools = slot_ab * slot_ba == 1
    first, design, prompt = (slot_ab[conflict] == 1).astype(np.float64), _design(s_ab, s_ba)[conflict], prompt[conflict]
    if groups_of(prompt)[1] < 3:
        return _neither(len(prompt), NO_CONFLICT if not len(prompt) else FEW)
    if told_apart(design):
        return _both(logistic(first, design, prompt), 0.5)
    if design[:, 1].any():
        return _neither(len(prompt), ONE_NAME)
    return _slot_alone(logistic(first, design[:, :1], prompt), 0.5)


def _design(s_ab: Floats, s_ba: Floats) -> Floats:
    return np.stack([np.ones(len(s_ab)), (s_ab + s_ba) / 2], axis=1)


def _both(fit: Fit, scale: float) -> SlotAndToken:
    return SlotAndToken(slot=fit.along(scale, 0.0), token=fit.along(0.0, scale))


def _slot_alone(fit: Fit, scale: float) -> SlotAndToken:
    return SlotAndToken(slot=fit.along(scale), token=Estimate(n=fit.n, warning=UNNAMED))


def _neither(n: int, warning: str) -> SlotAndToken:
    return SlotAndToken(slot=Estimate(n=n, warning=warning), token=Estimate(n=n, warning=warning))


def _check(*columns: Floats | Ints) -> None:
    if len({column.shape for column in columns}) != 1 or columns[0].ndim != 1:
        raise ValueError("flat arrays of one length are needed")
    if not all(np.isfinite(column).all() for column in columns):
        raise ValueError("logits and names must be finite: clip probabilities first")
