"""What moves a labeler's opinion beside the order: by dimension an effect, its interval, and what identifies it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cai_cli.bias import calibration
from cai_cli.bias.differences import apart
from cai_cli.bias.estimate import Bools, Estimate, Floats, Ints, by_prompt, ratio, student
from cai_cli.bias.multiple import benjamini_hochberg
from cai_cli.bias.slope import slope
from cai_cli.features import FEATURES
from cai_cli.tables._columns import Columns
from cai_cli.tables._probes import Probes

CONFOUNDED = "nothing: confounded with quality"
PER_SD = "log-odds per sd"
PER_ONE = "log-odds per one of the feature"  # where no two answers differ in it, so that there is no sd
PER_PROBE = "log-odds"
ENOUGH_GOLD = 50  # labels, below which nothing is fitted on them; a style term takes as many again
LEVEL = 0.05
_GROUPS = 40  # of prompts, left out in turn

SELF = "self_preference"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """One dimension of one labeler."""

    name: str
    effect: Estimate  # toward a, per `unit`
    unit: str
    identified_by: str
    sd: float | None = None  # root mean square of the difference a minus b; None: the effect is per probe
    per_one: float | None = None  # the effect per one of the feature: what a correction takes off
    seen: Estimate | None = None  # the plain slope in the labels, where something better identifies the effect
    p_adjusted: float | None = None
    mute: str = ""  # why probes that were asked give no number; empty: they give one, or none were asked

    @property
    def identified(self) -> bool:
        return self.identified_by != CONFOUNDED

    @property
    def significant(self) -> bool:
        """Whether it is there after all comparisons are counted."""
        return self.p_adjusted is not None and self.p_adjusted < LEVEL


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinions:
    """One labeler's logits (pairs,), NaN where it was not asked, and whether they are on it as probabilities or verdicts."""

    logit: Floats
    soft: bool
    own: Floats  # (pairs,) +1 where the labeler wrote a, -1 b, else 0


def dimensions(columns: Columns, opinions: Opinions, probes: Probes, without: Collection[str] = ()) -> list[Dimension]:
    """Every dimension of one labeler that can be measured here, in a fixed order.

    Takes: its opinions free of position; what its probes showed; features that are not to be measured
    """
    found = [_of_feature(columns, opinions, probes, name) for name in FEATURES if name not in without]
    found += [_of_probe(probes, name) for name in probes.names if probes.feature(name) == ""]
    if (own := _of_own(columns, opinions)) is not None:
        found.append(own)
    return [one for one in found if one.effect.value is not None or one.identified or one.mute]


def _of_feature(columns: Columns, opinions: Opinions, probes: Probes, name: str) -> Dimension:
    at, values = columns.measured(name)
    asked = np.isfinite(opinions.logit[at])
    at, values = at[asked], values[asked]
    sd = float(np.sqrt(np.mean(values**2))) if len(values) else 0.0
    seen = slope(opinions.logit[at], values, columns.prompt[at])
    probed = probes.of_feature(name)
    plain = Dimension(name=name, effect=seen, unit=PER_SD, identified_by=CONFOUNDED, sd=sd, mute=_mute(probed))
    for by, effect in (("probe", probed), ("gold", _by_gold(columns, opinions, name))):
        if effect is not None and effect.value is not None:
            known = replace(plain, identified_by=by, per_one=effect.value, seen=seen)
            return replace(known, effect=_times(effect, sd)) if sd > 0 else replace(known, effect=effect, unit=PER_ONE)
    return plain


def _mute(probed: Estimate | None) -> str:
    return "" if probed is None or probed.value is not None else probed.warning


def _of_probe(probes: Probes, name: str) -> Dimension:
    effect = probes.effect(name)
    return Dimension(name=name, effect=effect, unit=PER_PROBE, identified_by="probe", mute=_mute(effect))


def _times(effect: Estimate, factor: float) -> Estimate:
    ci = None if effect.ci is None else (effect.ci[0] * factor, effect.ci[1] * factor)
    value = None if effect.value is None else effect.value * factor
    return replace(effect, value=value, se=None if effect.se is None else effect.se * factor, ci=ci)


# By gold


def _by_gold(columns: Columns, opinions: Opinions, name: str) -> Estimate | None:
    """What a labeler adds per one of a feature, beyond what makes people prefer an answer.

    Formula: with p(gold) = sigmoid(b1 * logit + b2 * feature [+ b3 * length]) the labeler is biased by -b2 / b1: that much is to
    be taken off its logit. Interval by leaving out groups of prompts in turn.
    Assumes: people's own liking of the feature is no bias. None: too little gold, or a labeler that says nothing of it (b1 <= 0).
    """
    at, values = columns.measured(name)
    with_length = name != "length"
    rows = columns.judged[at] & np.isfinite(opinions.logit[at])
    if rows.sum() < ENOUGH_GOLD * (1 + with_length) or not values[rows].any():
        return None
    at, values = at[rows], values[rows]
    features = np.stack([values, *([columns.feature("length")[at]] if with_length else [])], axis=1)
    whole = _bias_of(columns, opinions, at, features)
    group = calibration.folds_of(columns.prompt[at], _GROUPS)
    left_out = np.array([_bias_of(columns, opinions, at[group != one], features[group != one]) for one in np.unique(group)])
    if not np.isfinite([whole, *left_out]).all():
        return None
    count = len(left_out)
    se = float(np.sqrt((count - 1) / count * ((left_out - left_out.mean()) ** 2).sum()))
    return student(whole, se, int(rows.sum()), count - 1)


def _bias_of(columns: Columns, opinions: Opinions, at: Ints, features: Floats) -> float:
    fitted = calibration.fit(opinions.logit[at], features, columns.gold[at], columns.weight[at])
    b1, b2 = fitted.coefficients[:2]
    return float(-b2 / b1) if b1 > 0 else float("nan")


# Its own voice


def _of_own(columns: Columns, opinions: Opinions) -> Dimension | None:
    """Self-preference, where the labeler wrote one of the two answers."""
    asked = np.isfinite(opinions.logit) & (opinions.own != 0)
    if not asked.any():
        return None
    by_gold = _recall_gap(columns, opinions, asked)
    if by_gold is not None:
        return Dimension(name=SELF, effect=by_gold, unit="share", identified_by="gold")
    seen = slope(opinions.logit[asked], opinions.own[asked], columns.prompt[asked])
    return Dimension(name=SELF, effect=seen, unit="log-odds for its own answer", identified_by=CONFOUNDED)


def _recall_gap(columns: Columns, opinions: Opinions, asked: Bools) -> Estimate | None:
    """How much more often the labeler is right where the better answer, by gold, is its own: 0 without self-preference.

    Formula: P(right | its own is better) - P(right | the other is better), Welch's interval over prompts
    Source: the gap in recall of Wataoka et al. 2024, arXiv 2410.21819
    """
    rows = asked & columns.judged
    if rows.sum() < ENOUGH_GOLD:
        return None
    right = (np.sign(opinions.logit[rows]) * columns.gold[rows] + 1) / 2
    mine, prompt = opinions.own[rows] * columns.gold[rows] > 0, columns.prompt[rows]
    return apart(_by_prompt(right[mine], prompt[mine]), _by_prompt(right[~mine], prompt[~mine]))


def _by_prompt(values: Floats, prompt: Ints) -> Floats:
    sums = by_prompt(np.stack([values, np.ones(len(values))], axis=1), prompt)
    return ratio(sums[:, 0], sums[:, 1])


# All at once


def adjusted(found: Sequence[Sequence[Dimension]]) -> list[list[Dimension]]:
    """The same with p-values that count all comparisons of all labelers.

    Those that are identified are one family, those that are confounded another: the second is large, and would hide the first.
    """
    level: dict[int, float] = {}
    flat = [one for of_labeler in found for one in of_labeler]
    for identified in (True, False):
        family = [one for one in flat if one.identified is identified and one.effect.p_value is not None]
        given = [one.effect.p_value for one in family if one.effect.p_value is not None]
        level |= dict(zip(map(id, family), benjamini_hochberg(given), strict=True))
    return [[replace(one, p_adjusted=level.get(id(one))) for one in of_labeler] for of_labeler in found]
