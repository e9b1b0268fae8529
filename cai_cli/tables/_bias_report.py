"""What `_bias.json` says: from the columns of all votes to plain JSON values."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cai_cli import chance
from cai_cli.bias import aggregate, outcome
from cai_cli.bias.agreement import Agreement, agreement
from cai_cli.bias.estimate import Bools, Estimate, Floats, Ints, mean
from cai_cli.bias.position import Swapped, first_slot_excess, position_from_probabilities, position_from_votes, swapped
from cai_cli.bias.slope import slope
from cai_cli.records import Pair
from cai_cli.tables import _bias_words
from cai_cli.tables._columns import Columns, gather
from cai_cli.votes import VOTE_LOGIT

if TYPE_CHECKING:
    from cai_cli.tables.debias import Settings

CONFOUNDED = "nothing: confounded with quality"


@dataclass(frozen=True, slots=True, kw_only=True)
class Labeler:
    """What was measured of one labeler."""

    name: str
    soft: bool  # gives probabilities; else verdicts only
    votes: int
    abstained: int
    both_orders: int  # pairs it answered in both orders
    one_order: int
    position: Estimate
    swapped: Swapped
    excess: Estimate
    length: Estimate | None  # None: not asked for
    gold: Agreement


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """One label a pair, at three stages; NaN where a pair has no verdict."""

    single: Floats  # (pairs, 2) what asking in order ab only, or ba only, would have given
    logits: Floats  # (pairs, labelers) after both orders and correction
    p_a: Floats  # (pairs,) what comes out


def measured(pairs: Iterable[Pair], settings: Settings, seed: int) -> dict[str, Any]:
    """The fields of `debias.Report`."""
    columns = gather(pairs)
    plain = _order_means(columns, np.zeros(len(columns.labelers)))
    positions = [_position(columns, plain, k, seed) for k in range(len(columns.labelers))]
    shift = _shift(columns.labelers, [estimate for estimate, _, _ in positions]) if settings.position else {}
    labels = _labels(columns, plain, shift)
    labelers = [_labeler(columns, plain, labels, k, positions[k], settings, seed) for k in range(len(columns.labelers))]
    labelers.sort(key=lambda labeler: labeler.name)
    document = _document(columns, labelers, labels, shift, settings, seed)
    soft = frozenset(labeler.name for labeler in labelers if labeler.soft)
    return {"document": document, "shift": shift, "soft": soft}


def _order_means(columns: Columns, bias: Floats) -> Floats:
    said = columns.said
    p, labeler, slot = columns.p[said], columns.labeler[said], columns.slot[said]
    bare = np.isin(p, (0.0, 0.5, 1.0)) & ~columns.soft[labeler]
    value = aggregate.evidence(p, slot, bare, bias[labeler])
    return aggregate.order_means(value, columns.pair[said], labeler, slot, (len(columns.prompt), len(columns.labelers)))


def _position(columns: Columns, plain: Floats, k: int, seed: int) -> tuple[Estimate, Swapped, Estimate]:
    """The bias in log-odds, how answers change with the order, and the first slot's excess, of labeler k."""
    ab, ba = _matched(columns, k)
    p_ab, p_ba, prompt = columns.p[ab], columns.p[ba], columns.prompt[columns.pair[ab]]
    name = columns.labelers[k]
    swaps = swapped(outcome.side(p_ab), -outcome.side(p_ba), prompt, _seed(seed, name, "swapped"))
    if columns.soft[k]:
        both = np.isfinite(plain[:, k]).all(axis=1)
        estimate = position_from_probabilities(plain[both, k, 0], plain[both, k, 1])
    else:
        estimate = position_from_votes(swaps.first_first, swaps.second_second)
    if len(ab):
        p_first, prompt = np.concatenate([p_ab, 1 - p_ba]), np.concatenate([prompt, prompt])
    else:
        mine = columns.said & (columns.labeler == k)
        p_first = np.where(columns.slot[mine] > 0, columns.p[mine], 1 - columns.p[mine])
        prompt = columns.prompt[columns.pair[mine]]
    return estimate, swaps, first_slot_excess(p_first, prompt, _seed(seed, name, "excess"))


def _matched(columns: Columns, k: int) -> tuple[Ints, Ints]:
    """The votes of labeler k that answer one question in both orders: where they stand, order ab and order ba."""
    mine = columns.said & (columns.labeler == k)
    ab, ba = (np.flatnonzero(mine & (columns.slot == first)).astype(np.int64) for first in (1, -1))
    _, in_ab, in_ba = np.intersect1d(columns.comparison[ab], columns.comparison[ba], assume_unique=True, return_indices=True)
    return ab[in_ab], ba[in_ba]


def _shift(names: tuple[str, ...], estimates: list[Estimate]) -> dict[str, float]:
    """A bias is subtracted where its interval excludes 0; subtracting a guess would only add noise."""
    found = dict(zip(names, estimates, strict=True))
    return {name: plain_number(b) for name in sorted(found) if found[name].significant and (b := found[name].value) is not None}


def _labels(columns: Columns, plain: Floats, shift: dict[str, float]) -> Labels:
    shifted = _order_means(columns, np.array([shift.get(name, 0.0) for name in columns.labelers]))
    logits = aggregate.pool(plain, shifted)
    single = aggregate.probability(aggregate.mean_of_known(plain, 1))
    return Labels(single=single, logits=logits, p_a=aggregate.probability(aggregate.mean_of_known(logits, 1)))


def _labeler(
    columns: Columns, plain: Floats, labels: Labels, k: int,
    position: tuple[Estimate, Swapped, Estimate], settings: Settings, seed: int,
) -> Labeler:  # fmt: skip
    mine, orders, logit = columns.labeler == k, np.isfinite(plain[:, k]).sum(axis=1), labels.logits[:, k]
    asked = np.isfinite(logit)
    judged = asked & (np.abs(columns.gold) <= 1)
    name, sides = columns.labelers[k], outcome.side(aggregate.probability(logit))
    length = slope(logit[asked], columns.longer[asked], columns.prompt[asked]) if settings.length == "auto" else None
    gold = agreement(sides[judged], columns.gold[judged], columns.prompt[judged], _seed(seed, name, "gold"))
    return Labeler(
        name=name, soft=bool(columns.soft[k]), votes=int(mine.sum()), abstained=int((mine & ~columns.said).sum()),
        both_orders=int((orders == 2).sum()), one_order=int((orders == 1).sum()),
        position=position[0], swapped=position[1], excess=position[2], length=length, gold=gold,
    )  # fmt: skip


def _document(
    columns: Columns, labelers: list[Labeler], labels: Labels, shift: dict[str, float], settings: Settings, seed: int
) -> dict[str, Any]:
    decided, kept = np.isfinite(labels.p_a), _kept(labels.p_a, settings)
    before = _outcome(columns, np.where(decided[:, np.newaxis], labels.single, np.nan), decided, decided, _seed(seed, "before"))
    after = _outcome(columns, labels.p_a[:, np.newaxis], decided, kept, _seed(seed, "after"))
    gold = int((np.abs(columns.gold) == 1).sum())
    document = {
        "labelers": {labeler.name: _of_labeler(labeler) for labeler in labelers},
        "calibration": {"method": "none", "vote_logit": VOTE_LOGIT, "gold": gold},
        "agreement": _agreement(columns, labelers, labels, seed),
        "aggregation": _aggregation(columns, labelers, int(decided.sum()), shift),
        "before": before,
        "after": after,
    }
    facts = _bias_words.Facts(
        labelers=labelers, rows=len(decided), usable=int(decided.sum()), bad=columns.bad, shift=shift,
        gold=gold, gold_a=int((columns.gold == 1).sum()), after=after, softened=columns.softened,
    )  # fmt: skip
    document |= {"recommendations": _bias_words.recommendations(facts), "warnings": _bias_words.warnings(facts)}
    return {key: plain_value(value) for key, value in document.items()}


def _kept(p_a: Floats, settings: Settings) -> Bools:
    """The rows that correct() lets through; NaN is never kept."""
    tie = np.isfinite(p_a) & (outcome.side(p_a) == 0)
    confident = np.maximum(p_a, 1 - p_a) >= settings.min_confidence
    return np.asarray(tie | confident if settings.ties == "keep" else ~tie & confident)


def _of_labeler(labeler: Labeler) -> dict[str, Any]:
    position, swaps = labeler.position, labeler.swapped
    found: dict[str, Any] = {
        "position": {
            "b": position.value, "se": position.se, "ci": position.ci, "n": swaps.n,
            "first_first": swaps.first_first, "second_second": swaps.second_second, "p_value": position.p_value,
            "consistency": swaps.consistency.value, "conflict_rate": swaps.conflict_rate.value,
            "first_slot_excess": labeler.excess.value,
        }
    }  # fmt: skip
    if labeler.length is not None:
        length = labeler.length
        found["length"] = {"effect": length.value, "se": length.se, "ci": length.ci, "p_value": length.p_value}
        found["length"]["identified_by"] = CONFOUNDED
    return found


def _aggregation(columns: Columns, labelers: list[Labeler], usable: int, shift: dict[str, float]) -> dict[str, Any]:
    return {
        "method": "mean of logits: over votes within an order, over orders, over labelers",
        "pairs": len(columns.prompt) + columns.bad, "no_verdict": len(columns.prompt) - usable, "bad_vote": columns.bad,
        "shift": shift,
        "labelers": {
            labeler.name: {
                "votes": labeler.votes, "abstained": labeler.abstained, "votes_only": not labeler.soft,
                "both_orders": labeler.both_orders, "one_order": labeler.one_order,
            } for labeler in labelers
        },
    }  # fmt: skip


def _agreement(columns: Columns, labelers: list[Labeler], labels: Labels, seed: int) -> dict[str, Any]:
    """With itself over the orders, with one another, with gold."""
    at = {name: k for k, name in enumerate(columns.labelers)}
    sides, asked = outcome.side(aggregate.probability(labels.logits)), np.isfinite(labels.logits)
    between = []
    for n, left in enumerate(labelers):
        for right in labelers[n + 1 :]:
            i, j = at[left.name], at[right.name]
            both = asked[:, i] & asked[:, j]
            found = agreement(sides[both, i], sides[both, j], columns.prompt[both], _seed(seed, left.name, right.name))
            between.append({"left": left.name, "right": right.name, **_of_agreement(found)})
    return {
        "itself": {labeler.name: _of_swaps(labeler) for labeler in labelers},
        "labelers": between,
        "gold": {labeler.name: _of_agreement(labeler.gold) for labeler in labelers if labeler.gold.n},
    }


def _of_swaps(labeler: Labeler) -> dict[str, Any]:
    swaps = labeler.swapped
    shares = {"consistency": swaps.consistency, "conflict_rate": swaps.conflict_rate, "above_chance": swaps.above_chance}
    return {name: _with_interval(share) for name, share in {**shares, "first_slot_excess": labeler.excess}.items()}


def _of_agreement(found: Agreement) -> dict[str, Any]:
    return {"n": found.n, **{name: _with_interval(getattr(found, name)) for name in ("raw", "kappa", "ac1")}}


def _with_interval(estimate: Estimate) -> dict[str, Any]:
    return {"value": estimate.value, "ci": estimate.ci}


def _outcome(columns: Columns, p: Floats, decided: Bools, kept: Bools, seed: int) -> dict[str, Any]:
    """How good labels are. Takes: (pairs, k) labels; where there are k of a pair, its values are averaged."""
    gold, longer = columns.gold[:, np.newaxis], columns.longer[:, np.newaxis]
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
        "longer_wins": _mean(wins, kept, columns, seed).value,
        "longer_wins_gap": _mean(wins - truth, kept, columns, seed).value,
        "kept_share": int(kept.sum()) / usable,
    }  # fmt: skip


def _mean(values: Floats, chosen: Bools, columns: Columns, seed: int, bounds: tuple[float, float] | None = None) -> Estimate:
    rows = chosen & np.isfinite(values)
    return mean(values[rows], columns.prompt[rows], seed, bounds)


def _seed(seed: int, *key: str) -> int:
    return int(chance.nonce(seed, "debias", *key), 16)


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
