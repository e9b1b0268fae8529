"""What breaks the model of a judge: tests of what `position` and the correction of labels take for granted.

The model: the logit that a wins is l = x + b*o + noise, o = +1 where a is shown first, else -1; noise is drawn anew at each call.
Then half = (l_ab - l_ba)/2 is b and noise, and gap = (l_ab + l_ba)/2 is x and noise. Calling the answers the other way round
changes the sign of gap and leaves half as it is: so what half is compared with must not depend on which answer is a.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from cai_cli.bias.estimate import Z95, Bools, Estimate, Floats, Ints, by_prompt, groups_of, student
from cai_cli.bias.interval import clustered_mean, wilson
from cai_cli.bias.regression import least_squares, logistic, told_apart

FEW = "fewer than twenty pairs"
ENOUGH = 20  # pairs, below which nothing is tested
SATURATED = 7.0  # log-odds: what lies beyond is bent by the limits within which probabilities are kept
FAR = 4.0  # robust standard deviations from the middle, beyond which hardly any answer lies by noise
_NORMAL_MAD = 1.482602218505602  # of a normal variable, its sd over its median distance from the middle


# Does the position bias vary?


def heterogeneity(half: Floats, repeat: Floats) -> Estimate:
    """The standard deviation of the position bias over items, in log-odds.

    Takes: (n,) (l_ab - l_ba)/2 of pairs; (m,) differences of two draws of one question in one order, of a random sample of them
    Formula: sd^2 = var(half) - mean(repeat^2)/4, as both hold the same noise; interval: of both variances by their kurtosis on a
        log scale, combined as differences are (MOVER), its ends at least 0. p, one-sided: where b does not vary half - b and
        repeat/2 have one distribution, whatever it is, so their mean distances from 0, held within four
        common medians so that a few lapses do not decide, are compared (Welch's t; after Brown and Forsythe).
    Assumes: repeats are drawn like the other calls. Sees a bias that varies by any cause, the contents or the names of the
        answers among them; does not see what it varies with (`varies_with`). Where draws are cached or the server is
        deterministic repeat is 0, and all variation is of the items.
    Measured (call noise .5): false alarms .02-.04 with as many repeats as pairs, 30 to 300, as both then hold the same calls;
        .05-.07 with 30 for 100 or 100 for 2,000 pairs, also with t(4) noise or 5% lapses. Power at sd .5: .81 with 30 of both,
        .99 with 60; at sd .3: .30 and .56, .98 with 2,000 pairs and 100 repeats. Intervals cover .93-.98.
    Raises: ValueError on values that are not finite. With fewer than twenty of either there is no number.
    Source: Brown and Forsythe 1974; Bonett 2006 for the interval of a variance; Zou and Donner 2008 for MOVER.
    """
    _check(half)
    _check(repeat)
    n, m = len(half), len(repeat)
    if min(n, m) < ENOUGH:
        return Estimate(n=n, warning=FEW)
    mine, low, high = _variance(half - half.mean(), n - 1)
    noise, noise_low, noise_high = (one / 4 for one in _variance(repeat, m))
    apart = mine - noise
    ends = apart - math.hypot(mine - low, noise_high - noise), apart + math.hypot(high - mine, noise - noise_low)
    low, value, high = (math.sqrt(max(0.0, one)) for one in (ends[0], apart, ends[1]))
    return Estimate(value=value, ci=(low, high), n=n, p_value=_farther(np.abs(half - np.median(half)), np.abs(repeat) / 2))


def _variance(centred: Floats, df: int) -> tuple[float, float, float]:
    """A variance and its 95% interval, of values of any kurtosis."""
    squares = centred**2
    value = float(squares.sum()) / df
    if value <= 0:
        return 0.0, 0.0, 0.0
    kurtosis = float((squares**2).mean() / squares.mean() ** 2)
    reach = math.exp(Z95 * math.sqrt(max(kurtosis - 1, 0.1) / df))
    return value, value / reach, value * reach


def _farther(mine: Floats, theirs: Floats) -> float:
    """One-sided p of the mean of the first not being above that of the second, both >= 0 and held within 4 common medians."""
    from scipy.special import stdtr

    most = FAR * float(np.median(np.concatenate([mine, theirs]))) or math.inf
    mine, theirs = np.minimum(mine, most), np.minimum(theirs, most)
    v, w = float(mine.var(ddof=1)) / len(mine), float(theirs.var(ddof=1)) / len(theirs)
    if v + w <= 0:
        return 1.0 if mine.mean() <= theirs.mean() else 0.0
    df = (v + w) ** 2 / (v**2 / (len(mine) - 1) + w**2 / (len(theirs) - 1))
    return float(stdtr(df, -(mine.mean() - theirs.mean()) / math.sqrt(v + w)))


def varies_with(half: Floats, covariate: Floats, prompt: Floats | Ints) -> Estimate:
    """The change of the position bias per unit of something about the pair, in log-odds; needs no repeats.

    Takes: (n,) (l_ab - l_ba)/2; (n,) what it may depend on, the same whichever answer is called a: the size of the length
        difference, whether the prompt is harmful; (n,) prompt keys
    Formula: least squares with an intercept (`regression.least_squares`), the larger of two standard errors, t. Sees a bias that
        rises or falls with it, and nothing else.
    Measured: false alarms .05 at 100 to 1,000 pairs; at call noise .5 a bias that moves by .1 per sd shows in .80 of runs at
        100 pairs.
    Raises: ValueError on shapes that differ or values that are not finite. With fewer than twenty pairs, fewer than three
        prompts, or where the covariate is the same throughout, there is no number.
    """
    _check(half, covariate, prompt)
    if len(half) < ENOUGH or groups_of(prompt)[1] < 3:
        return Estimate(n=len(half), warning=FEW)
    centred = covariate - covariate.mean()
    design = np.stack([np.ones(len(half)), centred], axis=1)
    if not told_apart(design):
        return Estimate(n=len(half), warning="it is the same for all pairs")
    return least_squares(half, design, prompt).along(0.0, 1.0)


def fades(half: Floats, gap: Floats, prompt: Floats | Ints) -> Estimate:
    """The change of the position bias per unit of |gap|: below 0 for a judge that leans on slots only where it is unsure.

    Takes: (n,) (l_ab - l_ba)/2 and (n,) (l_ab + l_ba)/2 of the same pairs; (n,) prompt keys
    Formula: `varies_with` |gap|. Under the model the expected half is b at every gap: exchanging the noise of the two calls turns
        the sign of half's noise and leaves gap's as it is.
    Assumes: the calls of both orders are equally noisy. Pairs beyond 7 log-odds are left out, as a probability that is kept
        within limits makes half small where gap is large, and so would a judge that says 0 and 1 only: see `fades_from_votes`.
    Measured (b .679, call noise .5): false alarms .05 at 100 pairs, .04 at 300 and 1,000; a bias of b*exp(-|x|/2) is seen in .98
        of runs at 100 pairs.
    Raises: as `varies_with`
    """
    _check(half, gap, prompt)
    within = np.abs(gap) <= SATURATED
    return varies_with(half[within], np.abs(gap[within]), prompt[within])


def fades_from_votes(slot_ab: Ints, slot_ba: Ints, sure: Floats, prompt: Floats | Ints) -> Estimate:
    """The same for a judge that gives verdicts, by how sure others are: the change of b per unit of `sure`, in log-odds.

    Takes: (n,) and (n,) which slot won in order ab and in order ba, +1 first, -1 second, 0 tie; (n,) |logit| of the rest of the
        panel, or of a model of the pair, which does not use these two votes; (n,) prompt keys
    Formula: where the same slot won twice P(first)/P(second) = exp(2*b) for every x: a logistic regression of it on 2 and 2 *
        sure.
    Measured (b .679 or b*exp(-|x|/2), others within .6 of x): false alarms .03 at 300 pairs, .04 at 1,000; power .15 and .43:
        verdicts tell little of it.
    Raises: as `varies_with`; what is counted is pairs where the same slot won twice
    """
    _check(slot_ab, slot_ba, sure, prompt)
    conflict: Bools = slot_ab * slot_ba == 1
    first, sure, prompt = (slot_ab[conflict] == 1).astype(np.float64), sure[conflict], prompt[conflict]
    if len(sure) < ENOUGH or groups_of(prompt)[1] < 3:
        return Estimate(n=len(sure), warning=FEW)
    design = np.stack([np.full(len(sure), 2.0), 2 * (sure - sure.mean())], axis=1)
    if not told_apart(design):
        return Estimate(n=len(sure), warning="it is the same for all pairs")
    return logistic(first, design, prompt).along(0.0, 1.0)


# Does it lapse?


def lapses(half: Floats) -> Estimate:
    """The share of pairs, in [0, 1], whose two orders are too far apart for noise: an answer that had nothing to do with the
        pair.

    Takes: (n,) (l_ab - l_ba)/2
    Formula: the share beyond 4 robust standard deviations from the median, with Wilson's interval. As a pair is two calls, at
        least half of that share of calls lapses: at least, as a lapse that lands near the answer it replaced is not seen. p:
        binomial, against the normal tail beyond 4 sd, these made as small as their own sampling error allows (one-sided 95%).
    Assumes: noise about normal. Cannot tell lapses from noise with heavy tails, or from a few pairs with a position bias of their
        own, or from one that fades; `heterogeneity` with repeats can.
    Measured (call noise .5, lapses to +-4): false alarms .00-.02 at 20 to 2,000 pairs, but .6 at 300 with t(4) noise; 5% of
        calls are seen in .85 of runs at 50 pairs and .99 at 100, 1% in .39 at 100 and .93 at 300. The share is .06 and .014.
    Raises: ValueError on values that are not finite. With fewer than twenty pairs, or where more than half of them say the same,
        there is no number.
    Source: the median absolute deviation, Hampel 1974; Wilson 1927.
    """
    from scipy.special import bdtrc, ndtr

    _check(half)
    n = len(half)
    if n < ENOUGH:
        return Estimate(n=n, warning=FEW)
    off = np.abs(half - np.median(half))
    scale = _NORMAL_MAD * float(np.median(off))
    if scale <= 0:
        return Estimate(n=n, warning="more than half of the pairs say the same")
    far = int((off > FAR * scale).sum())
    tail = 2 * float(ndtr(-FAR * max(0.3, 1 - 1.92 / math.sqrt(n))))
    return Estimate(value=far / n, ci=wilson(far, n), n=n, p_value=float(bdtrc(far - 1, n, tail)) if far else 1.0)


def certain_and_wrong(logit: Floats, gold: Ints, prompt: Floats | Ints) -> Estimate:
    """How much more often than its own certainty explains a judge is wrong in the tenth where it is most certain: in [-1, 1].

    Takes: (n,) logits that a wins, free of position; (n,) gold, +1 a, -1 b, anything else is none; (n,) prompt keys
    Formula: with p(right) = sigmoid(s * |logit|), s fitted on the other nine tenths, the mean of wrong - (1 - p) in that tenth;
        SE by prompt; p, one-sided, of its not being above 0. About 0, or below, for a judge that is right as its logits say; far
        above where it lapses.
    Cannot tell lapses from an overconfidence that grows with the logit; `reversed_sign` says whether it is the wrong way round.
    Measured (x = 1.5 theta + .8 L + N(0, .8^2)): no false alarm in 2,000 runs; 5% of lapses to +-4 are seen in .85 of runs at 300
        gold and 1.0 at 1,000, in single calls; hardly in means of both orders, which a lapse in one of them pulls to the middle.
    Raises: ValueError on shapes that differ or values that are not finite. With fewer than a hundred gold labels there is no
        number.
    """
    logit, gold, prompt = _judged(logit, gold, prompt)
    n = len(logit)
    if n < 5 * ENOUGH:
        return Estimate(n=n, warning="fewer than a hundred gold labels")
    rank = np.argsort(np.argsort(-np.abs(logit), kind="stable"), kind="stable")
    most: Bools = rank < n // 10
    size, wrong = np.abs(logit), (np.sign(logit) * gold < 0).astype(np.float64)
    if not size[~most].any() or groups_of(prompt[~most])[1] < 2:
        return Estimate(n=n, warning="the judge is certain of none of the others")
    steep = float(logistic(1 - wrong[~most], size[~most, np.newaxis], prompt[~most]).coefficients[0])
    excess = wrong[most] - (1 - np.tanh(steep * size[most] / 2)) / 2
    sums = by_prompt(np.stack([excess, np.ones(len(excess))], axis=1), prompt[most])
    found = clustered_mean(sums[:, 0], sums[:, 1])
    if found.p_value is None or found.value is None:
        return found
    return replace(found, p_value=found.p_value / 2 if found.value > 0 else 1 - found.p_value / 2)


# Has it an opinion, and the right way round?


def knows_nothing(l_ab: Floats, l_ba: Floats, prompt: Floats | Ints) -> Estimate:
    """The correlation, in [-1, 1], of a judge with itself over the two orders, its position bias removed.

    Takes: (n,) and (n,) logits that a wins, with a shown first and second; (n,) prompt keys
    Formula: u = l_ab - b, v = l_ba + b, b the mean of (l_ab - l_ba)/2: sum of 2uv / sum of (u^2 + v^2), which does not care which
        answer is a. SE by prompt, t on Fisher's z. An upper end near 0: swapping the order is all that moves it, and it knows
        nothing of the pair; below 0: it takes back what it said.
    Cannot see a judge that sticks to an opinion which has nothing to do with quality: `reversed_sign` with gold can. A bias that
        varies much by item lowers it too (`heterogeneity`).
    Measured: a judge with an opinion of 0 and call noise .5 is taken for one that knows in .06 of runs at 20 pairs and .03-.04
        from 50; one with an opinion of sd .5 is found to know in .72 of runs at 20, .97 at 50 and 1.0 at 100.
    Raises: ValueError on shapes that differ or values that are not finite. Below twenty pairs, or where all are alike, no number.
    Source: the intraclass correlation, Fisher 1925; `swapped` does it for verdicts.
    """
    _check(l_ab, l_ba, prompt)
    b = float((l_ab - l_ba).mean()) / 2 if len(l_ab) else 0.0
    u, v = l_ab - b, l_ba + b
    squares = u**2 + v**2
    return _correlation(2 * u * v, squares, squares, prompt)


def reversed_against_panel(logit: Floats, others: Floats, prompt: Floats | Ints) -> Estimate:
    """The correlation, in [-1, 1], of a judge with the mean of the others on the panel: below 0, it or most of them are reversed.

    Takes: (n,) logits that a wins, free of position; (n,) the mean of the other labelers' logits; (n,) prompt keys
    Formula: sum of uv / sqrt(sum of u^2 * sum of v^2), not centred, as naming a and b the other way round turns both signs; SE by
        prompt, t on Fisher's z. Which side is right, only gold tells (`reversed_sign`).
    Raises: as `knows_nothing`
    """
    _check(logit, others, prompt)
    return _correlation(logit * others, logit**2, others**2, prompt)


def _correlation(cross: Floats, mine: Floats, theirs: Floats, prompt: Floats | Ints) -> Estimate:
    n = len(cross)
    if n < ENOUGH or groups_of(prompt)[1] < 3:
        return Estimate(n=n, warning=FEW)
    left, right = float(mine.sum()), float(theirs.sum())
    if left <= 0 or right <= 0:
        return Estimate(n=n, warning="it says the same of all pairs")
    scale = math.sqrt(left * right)
    r = float(cross.sum()) / scale
    if abs(r) >= 1 - 1e-12:
        return Estimate(value=math.copysign(1.0, r), n=n, warning="the two are the same, so nothing tells how they vary")
    each = (cross - r / 2 * (mine * math.sqrt(right / left) + theirs * math.sqrt(left / right))) / scale
    pulls = by_prompt(each[:, np.newaxis], prompt)
    groups = len(pulls)
    se = math.sqrt(float((pulls**2).sum()) * groups / (groups - 1))
    on_z = student(math.atanh(r), se / (1 - r * r), n, groups - 1)
    ci = None if on_z.ci is None else (math.tanh(on_z.ci[0]), math.tanh(on_z.ci[1]))
    return Estimate(value=r, se=se, ci=ci, n=n, p_value=on_z.p_value)


def reversed_sign(logit: Floats, gold: Ints, prompt: Floats | Ints) -> Estimate:
    """How much the log-odds of gold rise per unit of a judge's logit: below 0, the judge is the wrong way round.

    Takes: (n,) logits that a wins, free of position; (n,) gold, +1 a, -1 b, anything else is none; (n,) prompt keys
    Formula: p(gold is a) = sigmoid(s * logit), without intercept (`regression.logistic`), the larger of two standard errors.
        Reversed where the interval is below 0; where it holds 0 the judge may know nothing, or gold is too little.
    Measured (x = 1.5 theta + .8 L + N(0, .8^2), call noise .5): with 20 gold a reversed judge is found in .72 of runs, with 50
        in 1.0; one that knows nothing is called reversed in .00 and .02.
    Raises: ValueError on shapes that differ or values that are not finite. Below twenty gold labels there is no number.
    """
    logit, gold, prompt = _judged(logit, gold, prompt)
    if len(logit) < ENOUGH or groups_of(prompt)[1] < 3 or not logit.any():
        return Estimate(
            n=len(logit), warning="fewer than twenty gold labels" if len(logit) < ENOUGH else "it says the same of all"
        )
    return logistic((gold == 1).astype(np.float64), logit[:, np.newaxis], prompt).along(1.0)


# Does it keep silent by chance?


def abstains_by(abstained: Bools, feature: Floats, prompt: Floats | Ints) -> Estimate:
    """How much the log-odds of abstaining rise per unit of a feature: other than 0, what is missing is not missing by chance.

    Takes: (n,) whether it gave no verdict; (n,) a feature: 1 of a harmful prompt, else 0; +1 of order ab, else -1; the length
        difference, of what is shown first less what is shown second, or its size; (n,) prompt keys
    Formula: a logistic regression with intercept (`regression.logistic`), the larger of two standard errors. With a feature of 0
        and 1 it is the log of the odds ratio. Many features are many comparisons: the caller's to control.
    Cannot see what depends on something that was not measured, such as the quality of the answers.
    Measured (10% abstain): false alarms .02 at 100 pairs, .04 at 300, .06 at 2,000; 30% of harmful and 3% of other prompts are
        told apart in .13 of runs at 30 pairs, .96 at 100.
    Raises: ValueError on shapes that differ or values that are not finite. Where none or all abstained, there is no number.
    """
    missing = abstained.astype(np.float64)
    _check(missing, feature, prompt)
    n = len(missing)
    if missing.sum() in (0, n) or groups_of(prompt)[1] < 3:
        return Estimate(n=n, warning="none abstained" if not missing.any() else "fewer than three prompts, or all abstained")
    design = np.stack([np.ones(n), feature - feature.mean()], axis=1)
    if not told_apart(design):
        return Estimate(n=n, warning="it is the same for all pairs")
    return logistic(missing, design, prompt).along(0.0, 1.0)


def _judged(logit: Floats, gold: Ints, prompt: Floats | Ints) -> tuple[Floats, Ints, Floats | Ints]:
    _check(logit, gold, prompt)
    told: Bools = np.abs(gold) == 1
    return logit[told], gold[told], prompt[told]


def _check(*columns: Floats | Ints) -> None:
    if len({column.shape for column in columns}) != 1 or columns[0].ndim != 1:
        raise ValueError("flat arrays of one length are needed")
    if not all(np.isfinite(column).all() for column in columns):
        raise ValueError("values must be finite: clip probabilities, and leave out what was not answered")
