"""What people's labels say of the AI's: agreement, why not, win rates and biases, as `cai audit score --json` gives it."""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cai_cli.auditing import kinds, winning
from cai_cli.auditing.columns import Columns
from cai_cli.auditing.drawing import Design
from cai_cli.auditing.labels import Gold, Label, by_pair, gold_of, leading, newest
from cai_cli.bias import outcome, weighted
from cai_cli.bias.coefficients import MISSING, Coefficients, Ratings
from cai_cli.bias.estimate import Bools, Estimate, Floats, Ints
from cai_cli.votes import TIE_BAND

CODES = {"a": 0, "b": 1, "tie": 2}
SIDES = {"a": 1, "b": -1, "tie": 0}
MIRROR = (1, 0, 2)  # what they become when a and b change places
MOST_RATERS = 12
EXAMPLES, EXCERPT = 3, 160  # of each kind of disagreement; characters of a reason
SURE = (0.6, 0.8)  # where bins of confidence end
_NAMES = {1: "a", -1: "b", 0: "tie"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Labelled:
    """The pairs that people labelled, as arrays of one length."""

    ids: tuple[str, ...]
    human: Ints  # +1 a, -1 b, 0 tie
    ai: Ints
    leaning: (
        Floats  # the mean of what the pair's people say, in [-1, 1]: however many they are, what one of them is expected to say
    )
    agreed: Floats  # the share of the pair's people who say what the AI says
    weight: Floats  # one over the probability of having been labelled
    row: Ints  # in the frame
    prompt: Floats
    kept: Bools


def measured(columns: Columns, labels: Sequence[Label], designs: Sequence[Design]) -> dict[str, Any]:
    """The numbers of an audit, as plain JSON values.

    Takes: the frame as it is now, and in it the pairs of the `newest` labels; every label that there is; every sample, in order.
    Labels of pairs that are in no frame any more are counted and left out.
    """
    gold, labels = gold_of(labels, designs), newest(labels, designs)
    said = by_pair(labels)
    found = _labelled(columns, gold, said)
    sampling, kept = _sampling(columns, labels, designs, found), found.kept
    return {
        "sampling": sampling,
        "agreement": {"kept": _agreement(found, said, kept), "all": _agreement(found, said, np.ones_like(kept))},
        "humans": _humans(found, said), "disagreements": _disagreements(found, said),
        "by": list(_split(found, columns)), "bias": list(_biases(found, columns, labels, designs)),
        "win_rates": list(winning.rates(columns, found.row, found.human, found.leaning, found.weight)),
    }  # fmt: skip


def _labelled(columns: Columns, gold: Mapping[str, Gold], said: Mapping[str, Sequence[Label]]) -> Labelled:
    ids = tuple(name for name in sorted(gold) if name in columns.place)
    row = np.array([columns.place[name] for name in ids], dtype=np.int64)
    p_a, kept, prompt = np.asarray(columns.p_a), np.asarray(columns.kept, dtype=np.int64), np.asarray(columns.prompt)
    ai = outcome.side(p_a[row])
    agreed = [_share_of(_NAMES[int(side)], said[name]) for name, side in zip(ids, ai, strict=True)]
    leaning = [sum(SIDES[one.label] for one in said[name]) / len(said[name]) for name in ids]
    return Labelled(
        ids=ids, row=row, human=np.array([SIDES[gold[name].label] for name in ids], dtype=np.int64), ai=ai,
        leaning=np.array(leaning, dtype=np.float64), agreed=np.array(agreed, dtype=np.float64),
        weight=np.array([gold[name].weight for name in ids], dtype=np.float64), prompt=prompt[row], kept=kept[row] > 0,
    )  # fmt: skip


def _share_of(answer: str, labels: Sequence[Label]) -> float:
    return sum(one.label == answer for one in labels) / len(labels)


def _sampling(columns: Columns, labels: Sequence[Label], designs: Sequence[Design], found: Labelled) -> dict[str, Any]:
    drawn, said = len({one.id for design in designs for one in design.drawn}), by_pair(labels)
    skipped = {one.id for one in labels if one.label == "skip"} - said.keys()
    weight, kept = found.weight, int(np.asarray(columns.kept, dtype=np.int64).sum())
    effect = len(weight) / weighted.effective_rows(weight) if len(weight) else None
    return {
        "samples": len(designs), "pairs": len(columns.prompt), "kept": kept, "prompts": len(set(columns.prompt)),
        "drawn": drawn, "labelled": len(said), "skipped": len(skipped), "labels": sum(len(those) for those in said.values()),
        "annotators": len({one.annotator for one in labels}), "response_rate": len(said) / drawn if drawn else None,
        "gone": len(said) - len(found.ids), "design_effect": effect,
        "effective": weighted.effective_rows(weight) if len(weight) else None,
    }  # fmt: skip


def _agreement(found: Labelled, said: Mapping[str, Sequence[Label]], where: Bools) -> dict[str, Any]:
    """Of people with the AI's label, over pairs of the frame that are like these. A pair counts once, its people in equal parts.

    So a pair on which people are split is half an agreement, and not a tie that the AI has missed.
    """
    weight, at = weighted.levelled(found.weight[where]), np.flatnonzero(where).tolist()
    ratings = Ratings(2, len(CODES), MIRROR)
    for row, one in zip(at, weight.tolist(), strict=True):
        labels, ai = said[found.ids[row]], CODES[_NAMES[int(found.ai[row])]]
        for label in labels:
            ratings.add(float(found.prompt[row]), (CODES[label.label], ai), one / len(labels))
    return _of(ratings.two(0, 1), weighted.share(found.agreed[where], weight, found.prompt[where]), len(at))


def _of(coefficients: Coefficients, raw: Estimate, n: int) -> dict[str, Any]:
    return {"n": n, "raw": told(raw), **{name: told(getattr(coefficients, name)) for name in ("kappa", "ac1", "alpha")}}


def told(found: Estimate) -> dict[str, Any]:
    """An estimate as JSON values."""
    return {"value": found.value, "ci": None if found.ci is None else list(found.ci)}


def _humans(found: Labelled, said: Mapping[str, Sequence[Label]]) -> dict[str, Any]:
    """Of people with one another, and of the AI with each of them, over the pairs that at least two of them labelled."""
    several = np.array([len(said[name]) > 1 for name in found.ids], dtype=bool)
    if not several.any():
        return {"n": 0}
    weight = weighted.levelled(found.weight[several])
    ids = [name for name, both in zip(found.ids, several, strict=True) if both]
    counts: dict[str, int] = {}
    for name in ids:
        for one in said[name]:
            counts[one.annotator] = counts.get(one.annotator, 0) + 1
    raters = sorted(counts, key=lambda name: (-counts[name], name))[:MOST_RATERS]
    ratings, prompt = Ratings(len(raters), len(CODES), MIRROR), found.prompt[several]
    for name, key, one in zip(ids, prompt, weight, strict=True):
        given = {label.annotator: CODES[label.label] for label in said[name]}
        ratings.add(float(key), [given.get(rater, MISSING) for rater in raters], float(one))
    panel = ratings.panel()
    return {**_of(panel, panel.raw, len(ids)), "ai_with_each": told(weighted.share(found.agreed[several], weight, prompt))}


def _disagreements(found: Labelled, said: Mapping[str, Sequence[Label]]) -> dict[str, Any]:
    """Pairs of what is trained on where no answer leads, or leads with others, that is the AI's: by kind, with a few examples."""
    apart = [_NAMES[int(ai)] not in leading(said[name]) for name, ai in zip(found.ids, found.ai, strict=True)]
    where = found.kept & np.array(apart, dtype=bool)
    weight, by_kind = found.weight / found.weight.sum() if len(found.weight) else found.weight, dict[str, list[int]]()
    for at in np.flatnonzero(where).tolist():
        differ = [one for one in said[found.ids[at]] if SIDES[one.label] != found.ai[at]]
        by_kind.setdefault(kinds.kind_of_all(differ), []).append(at)
    total = float(weight[where].sum())
    return {
        "n": int(where.sum()),
        "kinds": [
            {"kind": kind, "n": len(rows), "share": float(weight[rows].sum()) / total,
             "examples": [_example(found, said, one) for one in rows[:EXAMPLES]]}
            for kind in kinds.MEANINGS if (rows := by_kind.get(kind, []))
        ],
    }  # fmt: skip


def _example(found: Labelled, said: Mapping[str, Sequence[Label]], at: int) -> dict[str, str]:
    name = found.ids[at]
    reason = next((one.reason for one in said[name] if one.reason and SIDES[one.label] != found.ai[at]), "")
    excerpt = reason if len(reason) <= EXCERPT else reason[:EXCERPT].rstrip() + "..."
    return {"id": name, "people": _NAMES[int(found.human[at])], "ai": _NAMES[int(found.ai[at])], "reason": excerpt}


def _split(found: Labelled, columns: Columns) -> Iterator[dict[str, Any]]:
    """Agreement by what the pair is like and what the AI chose, over all judged pairs."""
    longer, own = _column(columns.longer, found.row), _column(columns.own, found.row)
    conflict, harmful = _column(columns.conflict, found.row), _column(columns.harmful, found.row)
    p = np.asarray(columns.p_a)[found.row] if len(found.row) else np.empty(0)
    sure = np.maximum(p, 1 - p)
    groups = {
        f"confidence below {SURE[0]}": sure < SURE[0], f"confidence {SURE[0]} to {SURE[1]}": (sure >= SURE[0]) & (sure < SURE[1]),
        f"confidence {SURE[1]} and above": sure >= SURE[1], "AI says tie": np.abs(p - 0.5) < TIE_BAND,
        "AI chose the longer": found.ai * longer == 1, "AI chose the shorter": found.ai * longer == -1,
        "AI chose its own text": found.ai * own == 1, "AI chose another's": found.ai * own == -1,
        "orders or labelers conflict": conflict == 1, "they do not": conflict == 0,
        "harmful prompt": harmful == 1, "other prompt": harmful == 0,
    }  # fmt: skip
    for name, where in groups.items():
        if where.any() and not where.all():
            agreed = weighted.share(found.agreed[where], found.weight[where], found.prompt[where])
            yield {"where": name, "n": int(where.sum()), "raw": told(agreed)}


def _column(values: array[int], row: Ints) -> Ints:
    return np.asarray(values, dtype=np.int64)[row]


def _biases(found: Labelled, columns: Columns, labels: Sequence[Label], designs: Sequence[Design]) -> Iterator[dict[str, Any]]:
    """How much more often than people the AI sides with what should not matter: in shares of pairs, identified by gold."""
    for name, values in (("length", columns.longer), ("self_preference", columns.own)):
        sign = _column(values, found.row)
        where = sign != 0
        if not where.any():
            continue
        ai, human = (1 + found.ai * sign)[where] / 2, (1 + found.leaning * sign)[where] / 2
        weight, prompt = found.weight[where], found.prompt[where]
        gap = weighted.mean(ai - human, weight, prompt, (-1.0, 1.0))
        yield {
            "dimension": name, "n": int(where.sum()), "ai": told(weighted.share(ai, weight, prompt)),
            "people": told(weighted.share(human, weight, prompt)), "difference": told(gap), "p_value": gap.p_value,
            "identified_by": "gold",
        }  # fmt: skip
    yield from _position_of_people(columns, labels, designs)


def _position_of_people(columns: Columns, labels: Sequence[Label], designs: Sequence[Design]) -> Iterator[dict[str, Any]]:
    """Whether people favour what they are shown first: sides were drawn by chance, so half is no favour."""
    first = {one.id: SIDES[one.first] for design in designs for one in design.drawn}
    chose = [one for one in labels if one.label in ("a", "b") and one.id in columns.place]
    if not chose:
        return
    hits = np.array([1 + SIDES[one.label] * first[one.id] for one in chose], dtype=np.float64) / 2
    prompt, even = np.asarray(columns.prompt)[[columns.place[one.id] for one in chose]], np.ones(len(chose))
    gap = weighted.mean(hits - 0.5, even, prompt, (-0.5, 0.5))
    yield {
        "dimension": "position_of_people", "n": len(hits), "ai": None, "people": told(weighted.share(hits, even, prompt)),
        "difference": told(gap), "p_value": gap.p_value, "identified_by": "sides drawn by chance",
    }  # fmt: skip
