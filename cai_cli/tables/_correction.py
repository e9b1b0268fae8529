"""From each labeler's logits to one label a pair: what is identified is taken off, and what gold does not bear out is refused."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cai_cli.bias import aggregate, calibration, panel
from cai_cli.bias.calibration import Harm
from cai_cli.bias.estimate import Bools, Floats
from cai_cli.features import FEATURES
from cai_cli.tables._columns import Columns
from cai_cli.tables._dimensions import ENOUGH_GOLD, Dimension
from cai_cli.tables._evidence import Evidence, Removed, weigh

if TYPE_CHECKING:
    from cai_cli.tables.debias import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One correction: whether it was made, and what gold says of it."""

    name: str  # position | token | probes | panel | calibration
    what: str  # in words
    kept: bool
    why: str = ""  # it was not made, or cannot be tried
    harm: Harm | None = None  # None: there is too little gold to try it on


@dataclass(slots=True)
class Correction:
    """Labels on their way: (pairs,) logits, NaN where there is none. Of pairs with gold they are held out: no gold decides on its
    own label."""

    logit: Floats
    gold: Bools  # (pairs,) those that corrections are tried on
    steps: list[Step] = field(default_factory=list)
    method: str = "none"
    coefficients: dict[str, float] = field(default_factory=dict)
    terms: tuple[str, ...] = ()  # features in it
    knots: list[list[float]] = field(default_factory=list)

    def offer(self, name: str, what: str, logit: Floats, columns: Columns) -> bool:
        """Take a correction, unless gold says that it does harm. Gives: whether it was taken"""
        harm = None
        if self.gold.sum() >= ENOUGH_GOLD:
            rows = self.gold
            harm = calibration.no_harm(
                self.logit[rows], logit[rows], columns.gold[rows], columns.weight[rows], columns.prompt[rows]
            )
        refused = harm is not None and harm.refused
        why = "its log-loss on gold it has not seen is worse by more than one standard error" if refused else ""
        self.steps.append(Step(name=name, what=what, kept=not refused, why=why, harm=harm))
        if not refused:
            self.logit = logit
        return not refused

    def refuse(self, name: str, what: str, why: str) -> None:
        self.steps.append(Step(name=name, what=what, kept=False, why=why))


def corrected(
    columns: Columns, known: Removed, dimensions: Sequence[Sequence[Dimension]], settings: Settings
) -> tuple[Evidence, Correction]:
    """One label a pair.

    Takes: the biases toward slots and names that are known; what was measured of each labeler
    Gives: what the votes say before anything but their order is corrected, and the labels
    """
    use, removed = columns.label_votes(), Removed.nothing(len(columns.labelers))
    plain = weigh(columns, use, removed)
    mean = aggregate.mean_of_known(plain.logits, 1)
    found = Correction(logit=mean, gold=columns.judged & np.isfinite(mean))
    logits = plain.logits
    for name, what, more in _identified(columns, plain, known, dimensions, settings):
        tried = replace(removed, **more)
        freed = weigh(columns, use, tried).logits
        if found.offer(name, what, aggregate.mean_of_known(freed, 1), columns):
            removed, logits = tried, freed
    _gold(found, columns, plain, logits, settings)
    return plain, found


def _identified(
    columns: Columns, plain: Evidence, known: Removed, dimensions: Sequence[Sequence[Dimension]], settings: Settings
) -> Iterator[tuple[str, str, dict[str, Floats]]]:
    """What swaps and probes identify: the step, in words, and what is to be taken off."""
    if single := int(plain.one[:, known.position != 0].any(axis=1).sum()):
        yield "position", f"position, of {single:,} seen in one order", {"position": known.position}
    if known.token.any():
        yield "token", "names of labels by swaps", {"token": known.token}
    offset, taken = np.zeros(plain.logits.shape), dict[str, None]()
    for k, of_labeler in enumerate(dimensions):
        for one in of_labeler:
            if one.identified_by == "probe" and one.name in correctable(settings) and one.per_one is not None and one.significant:
                offset[:, k] += one.per_one * columns.feature(one.name)
                taken[one.name] = None
    if taken:
        yield "probes", f"{', '.join(taken)} by probes", {"features": offset}


def correctable(settings: Settings) -> tuple[str, ...]:
    """The features that labels are corrected for, where something identifies their effect."""
    return (*(("length",) if settings.length == "auto" else ()), *dict.fromkeys(settings.style))


# What gold, or the panel itself, decides


def _gold(found: Correction, columns: Columns, plain: Evidence, logits: Floats, settings: Settings) -> None:
    if settings.aggregate == "dawid_skene":
        _dawid_skene(found, columns, plain)
    golden = int(found.gold.sum())
    if golden < ENOUGH_GOLD:
        if golden and settings.calibrate != "off":
            found.refuse("calibration", "calibration on gold", f"{golden} pairs with gold are too few: it takes {ENOUGH_GOLD}")
        return
    weighted = settings.aggregate in ("auto", "weighted") and logits.shape[1] > 1 and _weighted(found, columns, logits, settings)
    if weighted and settings.calibrate in ("temperature", "isotonic"):
        why = "weighing labelers by gold calibrates them, too; it is for aggregate: mean"
        found.refuse("calibration", f"calibrate: {settings.calibrate}", why)
    if not weighted and settings.calibrate != "off":
        _calibrated(found, columns, settings)


def _dawid_skene(found: Correction, columns: Columns, plain: Evidence) -> None:
    """Labels by how often labelers are right, each in both of its orders, as their votes alone tell it."""
    what = "Dawid-Skene over labelers"
    pair, labeler, order = np.nonzero(np.isfinite(plain.orders))
    first_is_a, p = order == 0, aggregate.probability(plain.orders[pair, labeler, order])
    says_first = np.where(first_is_a, p, 1 - p)
    try:
        said = panel.dawid_skene(pair, labeler, says_first, first_is_a, len(columns.prompt), len(columns.labelers))
    except ValueError as error:
        found.refuse("panel", what, str(error))
        return
    if found.offer("panel", what, np.where(np.isfinite(found.logit), said.logit, np.nan), columns):
        found.method = "dawid_skene"
        names = (f"accuracy of {name}" for name in columns.labelers)
        found.coefficients = dict(zip(names, map(float, said.accuracy), strict=True))


def _terms(found: Correction, settings: Settings) -> tuple[str, ...]:
    """The features that gold is asked about: styles with as much gold again each, since each costs accuracy."""
    names, golden = correctable(settings), int(found.gold.sum())
    if golden >= ENOUGH_GOLD * (1 + len(settings.style)):
        return names
    found.refuse("calibration", f"styles ({', '.join(settings.style)})", f"each takes {ENOUGH_GOLD} more pairs with gold")
    return tuple(name for name in names if name == "length")


def _weighted(found: Correction, columns: Columns, logits: Floats, settings: Settings) -> bool:
    """Labelers weighted by what gold says of each, and the features in one."""
    names, rows = _terms(found, settings), found.gold
    features = _features(columns, names)
    fitted = panel.weights(logits[rows], features[rows], columns.gold[rows], columns.weight[rows], columns.prompt[rows])
    what = f"{', '.join(('weights of labelers', *names))} by {int(rows.sum()):,} gold labels"
    offered = fitted.whole.logits(logits, features)
    offered[rows] = fitted.held_out
    offered = np.where(np.isfinite(found.logit), offered, np.nan)
    if not found.offer("panel", what, offered, columns):
        return False
    found.method, found.terms = "weighted", names
    found.coefficients = dict(zip((*columns.labelers, *names), map(float, fitted.whole.coefficients), strict=True))
    return True


def _calibrated(found: Correction, columns: Columns, settings: Settings) -> None:
    method: calibration.Method = settings.calibrate if settings.calibrate in ("temperature", "isotonic") else "platt"
    names = _terms(found, settings) if method == "platt" else ()
    features, rows = _features(columns, names), found.gold
    z = np.where(np.isfinite(found.logit), found.logit, 0.0)
    fitted = calibration.cross_fitted(
        z[rows], features[rows], columns.gold[rows], columns.weight[rows], columns.prompt[rows], method
    )
    offered = fitted.whole.logits(z, features)
    offered[rows] = fitted.held_out
    what = f"{', '.join(('confidence', *names))} by {int(rows.sum()):,} gold labels"
    if found.offer("calibration", what, np.where(np.isfinite(found.logit), offered, np.nan), columns):
        found.method, found.terms = method, names
        found.coefficients = dict(zip(("logit", *names), map(float, fitted.whole.coefficients), strict=True))
        found.knots = fitted.whole.knots.tolist() if method == "isotonic" else []


def _features(columns: Columns, names: Sequence[str]) -> Floats:
    return np.stack([np.zeros(len(columns.prompt)), *map(columns.feature, names)], axis=1)[:, 1:]


def described(found: Correction, vote_logit: float) -> dict[str, Any]:
    """What `_bias.json` says under `calibration`."""
    return {
        "method": found.method, "vote_logit": vote_logit, "gold": int(found.gold.sum()), "coefficients": found.coefficients,
        "units": {name: FEATURES[name].unit for name in found.terms}, "knots": found.knots,
        "steps": [_of_step(step) for step in found.steps],
    }  # fmt: skip


def _of_step(step: Step) -> dict[str, Any]:
    told: dict[str, Any] = {"step": step.name, "what": step.what, "kept": step.kept, "why": step.why}
    harm = step.harm
    told |= {"log_loss_before": harm and harm.before, "log_loss_after": harm and harm.after}
    return told | {"difference": harm and harm.difference.value, "se": harm and harm.difference.se}


def refused(found: Correction) -> Iterator[Step]:
    return (step for step in found.steps if not step.kept)
