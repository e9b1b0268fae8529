"""What becomes of each pair: its label and what is to be known of it, as columns, read one by one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np

from cai_cli.bias import aggregate, outcome
from cai_cli.bias.estimate import Bools, Floats, Ints, ratio
from cai_cli.tables._columns import Columns
from cai_cli.tables._evidence import Evidence

FLAGS = ("inconsistent", "one_order", "shifted", "votes_only", "abstained", "tie", "identical", "escalated", "turned")


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """One pair's label."""

    p_a: float  # in [1e-4, 1 - 1e-4]
    p_a_raw: float | None  # mean of the votes' p_a
    consistent: bool | None
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Labels:
    """The labels of all pairs, in the order of the input; NaN where a pair has none."""

    p_a: Floats
    p_a_raw: Floats
    consistent: Ints  # 1, 0; -1: only one order was asked
    marks: Ints  # bit k: the k-th of FLAGS holds

    def __getitem__(self, row: int) -> Label | None:
        p_a, raw, same = float(self.p_a[row]), float(self.p_a_raw[row]), int(self.consistent[row])
        if p_a != p_a:  # NaN
            return None
        return Label(p_a=p_a, p_a_raw=raw, consistent=None if same < 0 else bool(same), flags=_named(int(self.marks[row])))

    def __iter__(self) -> Iterator[Label | None]:
        """One by one, quicker than by their numbers."""
        columns = (self.p_a.tolist(), self.p_a_raw.tolist(), self.consistent.tolist(), self.marks.tolist())
        for p_a, raw, same, marks in zip(*columns, strict=True):
            known = None if same < 0 else bool(same)
            yield None if p_a != p_a else Label(p_a=p_a, p_a_raw=raw, consistent=known, flags=_named(marks))


@cache
def _named(marks: int) -> tuple[str, ...]:
    return tuple(flag for at, flag in enumerate(FLAGS) if marks >> at & 1)


def labels(columns: Columns, plain: Evidence, logit: Floats, shift: Mapping[str, float]) -> Labels:
    """Takes: what the votes say before correction, and (pairs,) corrected logits"""
    p_a = aggregate.probability(logit)
    consistent = _consistent(plain)
    return Labels(p_a=p_a, p_a_raw=_raw(columns), consistent=consistent, marks=_marks(columns, plain, p_a, consistent, shift))


def _raw(columns: Columns) -> Floats:
    said, pairs = columns.said, len(columns.prompt)
    sums = np.bincount(columns.pair[said], weights=columns.p[said], minlength=pairs)
    return ratio(sums.astype(np.float64), np.bincount(columns.pair[said], minlength=pairs).astype(np.float64))


def _consistent(plain: Evidence) -> Ints:
    """Whether every labeler that was asked in both orders came out on the same side in both."""
    sides, both = outcome.side(aggregate.probability(plain.orders)), plain.both
    same = (sides[:, :, 0] == sides[:, :, 1]) | ~both
    return np.where(both.any(axis=1), same.all(axis=1), -1).astype(np.int64)


def _marks(columns: Columns, plain: Evidence, p_a: Floats, consistent: Ints, shift: Mapping[str, float]) -> Ints:
    asked = np.isfinite(plain.logits)
    moved = np.array([name in shift for name in columns.labelers], dtype=np.bool_)
    mute = np.bincount(columns.pair[~columns.said], minlength=len(p_a)) > 0
    called = np.bincount(columns.pair[columns.said & columns.escalated], minlength=len(p_a)) > 0
    before = outcome.side(aggregate.probability(aggregate.mean_of_known(plain.logits, 1)))
    held: dict[str, Bools] = {
        "inconsistent": consistent == 0,
        "one_order": np.asarray(plain.one.any(axis=1)),
        "shifted": np.asarray((plain.one & moved).any(axis=1)),
        "votes_only": np.asarray(~(asked & columns.soft).any(axis=1)),
        "abstained": mute,
        "tie": outcome.side(p_a) == 0,
        "identical": columns.alike,
        "escalated": called,
        "turned": outcome.side(p_a) * before < 0,
    }
    return sum((held[flag].astype(np.int64) << at for at, flag in enumerate(FLAGS)), np.zeros(len(p_a), dtype=np.int64))
