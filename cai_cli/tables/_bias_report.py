"""What `_bias.json` says: from the columns of all votes to plain JSON values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cai_cli.bias import aggregate, outcome
from cai_cli.bias.agreement import Agreement, agreement
from cai_cli.bias.coefficients import effective
from cai_cli.bias.estimate import Bools, Estimate, Floats, mean
from cai_cli.bias.panel import error_correlation
from cai_cli.records import Pair, Probed
from cai_cli.tables import _assumptions, _bias_words, _correction, _dimensions, _probes
from cai_cli.tables._columns import Columns, gather
from cai_cli.tables._correction import Correction
from cai_cli.tables._dimensions import Dimension
from cai_cli.tables._evidence import Evidence, Removed, weigh
from cai_cli.tables._labels import Labels, labels
from cai_cli.tables._measure import Labeler, Position, opinions_of, position_of, seed_of, with_gold
from cai_cli.tables._pilot import NO_PILOT, Pilot
from cai_cli.votes import VOTE_LOGIT

if TYPE_CHECKING:
    from cai_cli.tables.debias import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known beside the pairs: answers to probes, and what a pilot found."""

    probed: Sequence[Probed] = ()
    pilot: Pilot = NO_PILOT


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Everything that the document is written from."""

    columns: Columns
    labelers: list[Labeler]
    shift: dict[str, float]
    evidence: Evidence  # of the votes that labels are made of, uncorrected
    free: Evidence  # of all votes, freed of position
    correction: Correction
    labels: Labels


def measured(pairs: Iterable[Pair] | Columns, settings: Settings, seed: int, known: Known) -> dict[str, Any]:
    """The fields of `debias.Report`."""
    columns = pairs if isinstance(pairs, Columns) else gather(pairs, settings.style, known.pilot.pairs)
    found = found_in(columns, settings, seed, known)
    document = _document(found, settings, known, seed)
    soft = frozenset(labeler.name for labeler in found.labelers if labeler.soft)
    return {"document": document, "shift": found.shift, "soft": soft, "labels": found.labels}


def found_in(columns: Columns, settings: Settings, seed: int, known: Known) -> Found:
    """Measure, correct, label."""
    names, nothing = columns.labelers, Removed.nothing(len(columns.labelers))
    plain = weigh(columns, columns.said, nothing)
    positions = [position_of(columns, plain, k, known.pilot, seed) for k in range(len(names))]
    shift = _shift(names, positions, known) if settings.position else {}
    removed = Removed(
        position=np.array([shift.get(name, 0.0) for name in names]), token=np.array([_token(one, settings) for one in positions])
    )
    free = weigh(columns, columns.said, removed)
    dimensions = _all_dimensions(columns, free, settings, known)
    evidence, correction = _correction.corrected(columns, removed, dimensions, settings)
    made = [_labeler(columns, plain, free, k, positions[k], dimensions[k], seed) for k in range(len(names))]
    return Found(
        columns=columns, labelers=sorted(made, key=lambda labeler: labeler.name), shift=shift, evidence=evidence, free=free,
        correction=correction, labels=labels(columns, evidence, correction.logit, shift),
    )  # fmt: skip


def _shift(names: Sequence[str], positions: Sequence[Position], known: Known) -> dict[str, float]:
    """The bias to subtract, by labeler: a pilot's, or the one measured here where its interval excludes 0; subtracting a guess
    would only add noise."""
    measured = {
        name: plain_number(b)
        for name, position in zip(names, positions, strict=True)
        if position.bias.significant and (b := position.bias.value) is not None
    }
    frozen = {name: b for name, b in known.pilot.shift.items() if name in names and b}
    return dict(sorted((measured | frozen).items()))


def _token(position: Position, settings: Settings) -> float:
    """The liking for the earlier of two names, to subtract: as with position, where its interval excludes 0."""
    found = position.token.token if position.token is not None and settings.position else None
    return plain_number(found.value) if found is not None and found.significant and found.value is not None else 0.0


def _all_dimensions(columns: Columns, free: Evidence, settings: Settings, known: Known) -> list[list[Dimension]]:
    soft = dict(zip(columns.labelers, map(bool, columns.soft), strict=True))
    probes = _probes.by_labeler(known.probed, soft)
    found = [
        _dimensions.dimensions(columns, opinions_of(columns, free, k), probes[name], _unasked(settings))
        for k, name in enumerate(columns.labelers)
    ]
    return _dimensions.adjusted(found)


def _unasked(settings: Settings) -> frozenset[str]:
    """Features that are not to be measured."""
    return frozenset() if settings.length == "auto" else frozenset({"length"})


def _labeler(
    columns: Columns, plain: Evidence, free: Evidence, k: int, position: Position, dimensions: Sequence[Dimension], seed: int
) -> Labeler:
    mine, name = columns.labeler == k, columns.labelers[k]
    return Labeler(
        name=name, soft=bool(columns.soft[k]), votes=int(mine.sum()), abstained=int((mine & ~columns.said).sum()),
        both_orders=int(plain.both[:, k].sum()), one_order=int(plain.one[:, k].sum()),
        position=position, dimensions=dimensions, gold=with_gold(columns, free.logits[:, k], name, seed),
        broken=tuple(_assumptions.broken(columns, free, k, position)),
    )  # fmt: skip


def _document(found: Found, settings: Settings, known: Known, seed: int) -> dict[str, Any]:
    columns, made = found.columns, found.labels
    decided, kept = np.isfinite(made.p_a), _kept(made.p_a, settings)
    single = np.where(decided[:, np.newaxis], aggregate.probability(aggregate.mean_of_known(found.evidence.orders, 1)), np.nan)
    gold = int(columns.judged.sum())
    after = _outcome(columns, made.p_a[:, np.newaxis], decided, kept, seed_of(seed, "after"))
    panel = _panel(found)
    document: dict[str, Any] = {
        "labelers": {labeler.name: _of_labeler(labeler) for labeler in found.labelers},
        "calibration": _correction.described(found.correction, VOTE_LOGIT),
        "agreement": _agreement(found, seed) | {"panel": panel},
        "aggregation": _aggregation(found, int(decided.sum())),
        "before": _outcome(columns, single, decided, decided, seed_of(seed, "before")),
        "after": after,
        "probes": _probed(known.probed),
    }
    facts = _bias_words.Facts(
        labelers=found.labelers, rows=len(decided), usable=int(decided.sum()), bad=int(columns.bad.sum()), shift=found.shift,
        gold=gold, gold_a=int((columns.gold == 1).sum()), after=after, softened=columns.softened,
        steps=found.correction.steps, correctable=_correction.correctable(settings), panel=panel,
        broken=tuple(_assumptions.broken_panel(columns, found.free)), asked=dict(settings.probes), probed=document["probes"],
        fitted=found.correction.terms, piloted=known.pilot.shift, pilot_said=known.pilot.warnings,
    )  # fmt: skip
    said = {"recommendations": _bias_words.recommendations(facts), "warnings": _bias_words.warnings(facts)}
    return {key: plain_value(value) for key, value in (document | said).items()}


def _probed(probed: Sequence[Probed]) -> dict[str, int]:
    """How many pairs were probed, by dimension."""
    pairs = {(row.dimension, row.id) for row in probed}
    return {name: sum(one == name for one, _ in pairs) for name in sorted({name for name, _ in pairs})}


def _kept(p_a: Floats, settings: Settings) -> Bools:
    """The rows that correct() lets through; NaN is never kept."""
    tie = np.isfinite(p_a) & (outcome.side(p_a) == 0)
    confident = np.maximum(p_a, 1 - p_a) >= settings.min_confidence
    return np.asarray(tie | confident if settings.ties == "keep" else ~tie & confident)


def _of_labeler(labeler: Labeler) -> dict[str, Any]:
    bias, swaps, token = labeler.position.bias, labeler.position.swapped, labeler.position.token
    found: dict[str, Any] = {
        "position": {
            "b": bias.value, "se": bias.se, "ci": bias.ci, "n": swaps.n,
            "first_first": swaps.first_first, "second_second": swaps.second_second, "p_value": bias.p_value,
            "consistency": swaps.consistency.value, "conflict_rate": swaps.conflict_rate.value,
            "first_slot_excess": labeler.position.excess.value, "identified_by": "swap",
        }
    }  # fmt: skip
    if token is not None and token.token.value is not None:
        found["label_token"] = _effect(token.token) | {"identified_by": "swap", "unit": _dimensions.PER_PROBE}
    return found | {one.name: _of_dimension(one) for one in labeler.dimensions}


def _effect(found: Estimate) -> dict[str, Any]:
    return {"effect": found.value, "se": found.se, "ci": found.ci, "p_value": found.p_value}


def _of_dimension(one: Dimension) -> dict[str, Any]:
    told = _effect(one.effect) | {"p_adjusted": one.p_adjusted, "n": one.effect.n}
    told |= {"identified_by": one.identified_by, "unit": one.unit, "sd": one.sd, "per_one": one.per_one}
    return told if one.seen is None else told | {"in_labels": _effect(one.seen)}


def _aggregation(found: Found, usable: int) -> dict[str, Any]:
    columns = found.columns
    kept = [step.what for step in found.correction.steps if step.kept and step.name == "panel"]
    return {
        "method": kept[-1] if kept else "mean of logits: over votes within an order, over orders, over labelers",
        "pairs": len(columns.prompt), "no_verdict": len(columns.prompt) - int(columns.bad.sum()) - usable,
        "bad_vote": int(columns.bad.sum()), "shift": found.shift,
        "labelers": {
            labeler.name: {
                "votes": labeler.votes, "abstained": labeler.abstained, "votes_only": not labeler.soft,
                "both_orders": labeler.both_orders, "one_order": labeler.one_order,
            } for labeler in found.labelers
        },
    }  # fmt: skip


def _panel(found: Found) -> dict[str, Any]:
    """How many independent labelers the panel is worth, by the correlation of its errors on gold."""
    columns, count = found.columns, len(found.labelers)
    if count < 2:
        return {}
    rows = columns.judged
    truth = (columns.gold[rows] + 1) / 2
    rho = error_correlation(found.evidence.logits[rows], truth, columns.prompt[rows], columns.weight[rows])
    worth = effective(count, rho)
    return {"labelers": count, "error_correlation": _with_interval(rho), "n_eff": _with_interval(worth), "n": rho.n}


def _agreement(found: Found, seed: int) -> dict[str, Any]:
    """With itself over the orders, with one another, with gold."""
    columns, logits = found.columns, found.evidence.logits
    at = {name: k for k, name in enumerate(columns.labelers)}
    sides, asked = outcome.side(aggregate.probability(logits)), np.isfinite(logits)
    between = []
    for n, left in enumerate(found.labelers):
        for right in found.labelers[n + 1 :]:
            i, j = at[left.name], at[right.name]
            both = asked[:, i] & asked[:, j]
            agreed = agreement(sides[both, i], sides[both, j], columns.prompt[both], seed_of(seed, left.name, right.name))
            between.append({"left": left.name, "right": right.name, **_of_agreement(agreed)})
    return {
        "itself": {labeler.name: _of_swaps(labeler) for labeler in found.labelers},
        "labelers": between,
        "gold": {labeler.name: _of_agreement(labeler.gold) for labeler in found.labelers if labeler.gold.n},
    }


def _of_swaps(labeler: Labeler) -> dict[str, Any]:
    swaps = labeler.position.swapped
    shares = {"consistency": swaps.consistency, "conflict_rate": swaps.conflict_rate, "above_chance": swaps.above_chance}
    return {name: _with_interval(share) for name, share in {**shares, "first_slot_excess": labeler.position.excess}.items()}


def _of_agreement(found: Agreement) -> dict[str, Any]:
    return {"n": found.n, **{name: _with_interval(getattr(found, name)) for name in ("raw", "kappa", "ac1")}}


def _with_interval(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "ci": estimate.ci}


def _outcome(columns: Columns, p: Floats, decided: Bools, kept: Bools, seed: int) -> dict[str, Any]:
    """How good labels are. Takes: (pairs, k) labels; where there are k of a pair, its values are averaged."""
    gold, longer = columns.gold[:, np.newaxis], columns.feature("length")[:, np.newaxis]
    correct = aggregate.mean_of_known(outcome.correct(p, gold), 1)
    loss = aggregate.mean_of_known(outcome.log_loss(p, gold), 1)
    wins = aggregate.mean_of_known(outcome.longer_wins(p, longer), 1)
    truth = aggregate.mean_of_known(outcome.longer_wins(np.where(np.abs(gold) == 1, (1 + gold) / 2, np.nan), longer), 1)
    usable = max(int(decided.sum()), 1)
    accuracy = _mean(correct, kept, columns, seed, (0.0, 1.0))
    return {
        "accuracy": accuracy.value, "accuracy_ci": accuracy.ci,
        "accuracy_all": _mean(correct, decided, columns, seed).value,  # of the rows that settings filter, too
        "log_loss": _mean(loss, kept, columns, seed).value,
        "log_loss_all": _mean(loss, decided, columns, seed).value,
        "longer_wins": _mean(wins, kept, columns, seed).value,
        "longer_wins_gap": _mean(wins - truth, kept, columns, seed).value,
        "kept_share": int(kept.sum()) / usable,
    }  # fmt: skip


def _mean(values: Floats, chosen: Bools, columns: Columns, seed: int, bounds: tuple[float, float] | None = None) -> Estimate:
    """A mean over pairs; those that were drawn for an audit count by one over the probability that they were."""
    rows = chosen & np.isfinite(values)
    return mean(values[rows], columns.prompt[rows], seed, bounds, columns.weight[rows])


def plain_number(value: float) -> float:
    """Six significant digits: more would differ between machines, and say nothing."""
    return float(f"{value:.6g}")


def plain_value(value: Any) -> Any:
    """JSON values: tuples become lists, what is not finite becomes null."""
    if isinstance(value, dict):
        return {key: plain_value(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain_value(item) for item in value]
    if isinstance(value, float):
        return plain_number(value) if math.isfinite(value) else None
    return value
