"""What a probe shows: the same contents, one feature of an answer changed, and the same judge asked again.

The model: where a feature's difference a minus b changes by d, the judge's logit that a wins changes by c*d; what it thinks of
the contents does not. So c is what the feature does to this judge, and no gold label is needed. What it cannot tell: whether the
change is felt as worse writing, which then is part of c.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from cai_cli.bias.estimate import Estimate, Floats, Ints, by_prompt, groups_of, student
from cai_cli.bias.regression import Fit, logistic

FEW = "fewer than three prompts were probed"
UNCHANGED = "no probe changed the feature"
NO_TURN = "no verdict was turned by a probe, so verdicts do not tell the effect"
FEW_TURNED = "verdicts were turned in fewer than three prompts, so they do not tell the effect"
FAR = 3.0  # a change farther off than this many standard deviations counts as this many
POWER = 0.8
_STEPS, _SMALL = 60, 1e-10
_HELD = 0.9950073  # E[min(z^2, 9)]: the mean square of a normal variable held within 3


def from_probabilities(change: Floats, before: Floats, after: Floats, prompt: Floats | Ints) -> Estimate:
    """The change of a judge's logit per unit of the feature, from a judge that gives probabilities.

    Takes: (n,) how much the feature of a minus that of b was changed, in its unit; (n,) and (n,) logits that a wins before and
        after, in the same order of showing, clipped to be finite, NaN where it abstained; (n,) prompt keys
    Formula: after - before = c*change + noise, least squares through the origin, with residuals held within 3 standard deviations
        (Huber's proposal 2: the scale is estimated together with c, from the held residuals). SE by prompt, t with prompts - 1.
    Why held, and no tighter: a lapse, an answer that has nothing to do with the pair, moves a logit by several units, and one
        in twenty doubles the SE. A tighter limit would hold back what a judge with few grades of confidence says when it moves:
        at 3 whatever at least one probe in nine does is part of the effect.
    Assumes: noise is independent of the change, as a change drawn by chance has it. A small change tells little and weighs
        little; both answers to a question at the limit of what is clipped make c too small.
    Measured (c .8, call noise .5, changes of .5 to 1.4 in size, both orders of 50 pairs): RMSE .071, intervals cover .95; with 5%
        lapses .13 and .95, where plain least squares has .17. False alarms at c = 0: .05. 80% power at c = .20. At 10 pairs .16
        and .95.
    Raises: ValueError on shapes that differ, or changes that are not finite. With fewer than three prompts, or no change at all,
        there is no number.
    Source: Huber 1964, "Robust estimation of a location parameter", proposal 2; SE: Liang and Zeger 1986.
    """
    _check(change, before, after, prompt)
    told = np.isfinite(before) & np.isfinite(after)
    d, moved, prompt = change[told], (after - before)[told], prompt[told]
    if not d.any():
        return Estimate(n=len(d), warning=UNCHANGED)
    c, limit = _held_slope(d, moved)
    rest = moved - c * d
    inside = np.abs(rest) <= limit
    scores = by_prompt((d * np.clip(rest, -limit, limit))[:, np.newaxis], prompt)[:, 0]
    groups = len(scores)
    if groups < 3:
        return Estimate(n=len(d), warning=FEW)
    curve = float(d[inside] @ d[inside])
    if curve <= 0:
        return Estimate(n=len(d), warning=UNCHANGED)
    return student(c, math.sqrt(float(scores @ scores) * groups / (groups - 1)) / curve, len(d), groups - 1)


def without(found: Estimate, change: Floats, along: Floats, other: Estimate, prompt: Floats | Ints) -> Estimate:
    """An effect from probabilities, freed of another feature that its probes moved along with its own, as a list mark is a word.

    Takes: the effect; (n,) changes of its feature; (n,) those of the other one, in its unit; what that one does to the same
        judge, from probes of its own; (n,) prompt keys
    Formula: c - k*c2 with k = sum(change*along) / sum(change^2), as after - before = c*change + c2*along + noise has it for least
        squares; SE^2 is the sum of both, since the two kinds of probes are asked apart.
    Assumes: few residuals are held, so that k is that of all rows.
    Measured (a list in one of two answers, 40 to 60 pairs in both orders; c .4, c2 1.2): mean .436 and 83% coverage without it
        (24 runs), .402 and 98% with it (90 runs).
    Raises: nothing. Where either has no standard error, the effect stays as it is.
    """
    if found.value is None or found.se is None or other.value is None or other.se is None or not along.any():
        return found
    k = float(change @ along / (change @ change))
    se = math.hypot(found.se, k * other.se)
    return student(found.value - k * other.value, se, found.n, groups_of(prompt)[1] - 1)


def _held_slope(d: Floats, moved: Floats) -> tuple[float, float]:
    """The slope through the origin, and how far from it a residual may lie."""
    c = float(d @ moved / (d @ d))
    limit = math.inf
    for _ in range(_STEPS):
        rest = moved - c * d
        held = np.clip(rest, -limit, limit)
        scale = math.sqrt(float(held @ held) / max(1, len(d) - 1) / (_HELD if math.isfinite(limit) else 1.0))
        step, limit_was, limit = float(d @ np.clip(rest, -FAR * scale, FAR * scale) / (d @ d)), limit, FAR * scale
        c += step
        if abs(step) <= _SMALL * max(1.0, abs(c)) and abs(limit - limit_was) <= 1e-6 * limit:
            break
    return c, limit


def from_votes(change: Floats, before: Ints, after: Ints, prompt: Floats | Ints) -> Estimate:
    """The change of a judge's logit per unit of the feature, from a judge that gives verdicts only.

    Takes: (n,) changes as `from_probabilities`; (n,) and (n,) which answer won before and after, in the same order of showing, +1
        a, -1 b, 0 tie or abstained; (n,) prompt keys
    Formula: a vote for a has probability s(l) = 1/(1 + exp(-l)) before and s(l + c*d) after. As s(l)/(1 - s(l)) = exp(l),
        P(b then a) / P(a then b) = (1 - s(l)) s(l + c*d) / (s(l) (1 - s(l + c*d))) = exp(c*d), whatever l: what the judge thinks,
        and its liking of slots, cancel. So of the verdicts that turned, those toward a are Bernoulli(s(c*d)): a logistic
        regression on d without intercept (`regression.logistic`); a tie says nothing.
    Assumes: votes are Bernoulli(s(logit)), independent given l. A judge that always gives its likeliest verdict turns where the
        change crosses its boundary: the sign is right, and c too large.
    Interval: where twice the penalised log-likelihood is within 3.84 of its maximum, stretched by the ratio of the SE by prompt
        to that of independent rows where that is above 1; p from the same.
    Measured (x ~ N(0, 2.06^2), c .8, changes of .5 to 1.4): RMSE .62 at 50 probes, .29 at 200, .13 at 1,000; intervals cover
        .957, .955, .946 (.96 at 30). False alarms at c = 0: .04, .06, .04. 80% power at c = 1.7, .82 and .36: a thousand verdicts
        tell less than fifty probabilities.
    Raises: ValueError on shapes that differ, or changes that are not finite. Without turned verdicts in three prompts there is no
        number.
    Source: the conditional likelihood of matched pairs, Cox 1958; Firth 1993; Heinze and Schemper 2002 for the interval.
    """
    _check(change, before, after, prompt)
    turned = (before * after == -1) & (change != 0)
    if not turned.any():
        return Estimate(n=0, warning=NO_TURN if change.any() else UNCHANGED)
    d, toward_a, prompt = change[turned], after[turned] == 1, prompt[turned]
    # A probe of b is one of a with both signs turned: along |d| separation is a matter of one side.
    hit, size = (toward_a == (d > 0)).astype(np.float64), np.abs(d)
    if groups_of(prompt)[1] < 3:
        return Estimate(n=len(d), warning=FEW_TURNED)
    return _profiled(hit, size, logistic(hit, size[:, np.newaxis], prompt))


def _profiled(hit: Floats, size: Floats, fit: Fit) -> Estimate:
    from scipy.special import chdtrc, chdtri

    value, apart = float(fit.coefficients[0]), math.sqrt(float(fit.independent[0, 0]))
    stretch = max(1.0, math.sqrt(float(fit.covariance[0, 0])) / apart)
    law = _Penalised(hit=hit, size=size, best=value)
    drop = float(chdtri(1, 0.05)) * stretch**2
    low, high = law.end(-apart, drop), law.end(apart, drop)
    p_value = float(chdtrc(1, law.fall(0.0) / stretch**2))
    return Estimate(value=value, se=apart * stretch, ci=(low, high), n=len(hit), p_value=p_value)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Penalised:
    hit: Floats
    size: Floats
    best: float

    def fall(self, c: float) -> float:
        """Twice what the penalised log-likelihood at c is below its maximum."""
        return max(0.0, 2 * (self._height(self.best) - self._height(c)))

    def _height(self, c: float) -> float:
        eta = c * self.size
        p = (1 + np.tanh(eta / 2)) / 2
        information = float((self.size**2) @ (p * (1 - p)))
        return float(self.hit @ eta - np.logaddexp(0, eta).sum()) + 0.5 * math.log(max(information, 1e-300))

    def end(self, step: float, drop: float) -> float:
        """Where the fall reaches `drop`, on the side that `step` points to: the fall is nearly a square of the distance."""
        away = step * math.sqrt(drop)
        for _ in range(_STEPS):
            ratio = math.sqrt(drop / self.fall(self.best + away))
            away *= ratio
            if abs(ratio - 1) < _SMALL:
                break
        return self.best + away


def detectable(found: Estimate) -> float | None:
    """The smallest effect that as many probes of this kind would show at the level .05 in four runs of five.

    Takes: an effect with its standard error   Formula: (z(.975) + z(.8)) * SE. None where there is no standard error.
    """
    from scipy.special import ndtri

    return None if found.se is None else float(ndtri(0.975) + ndtri(POWER)) * found.se


def _check(change: Floats, *others: Floats | Ints) -> None:
    if any(other.shape != change.shape for other in others) or change.ndim != 1:
        raise ValueError("flat arrays of one length are needed")
    if not np.isfinite(change).all():
        raise ValueError("changes must be finite")
