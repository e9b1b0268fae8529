"""What a labeler's answers to probes show: the change of its logit, by dimension."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cai_cli import chance, probes
from cai_cli.bias import probe
from cai_cli.bias.estimate import Estimate
from cai_cli.records import Probed
from cai_cli.votes import clip, logit

LENGTH = "length"


@dataclass(frozen=True, slots=True, kw_only=True)
class Probes:
    """The probes of one labeler. `rows`: by dimension, what was asked and answered both times."""

    soft: bool  # the labeler gives probabilities
    rows: Mapping[str, Sequence[Probed]]

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(self.rows))

    def feature(self, name: str) -> str:
        """The feature that a probe moves; empty: none."""
        return probes.find(name).FEATURE if name in probes.names() else ""

    def of_feature(self, feature: str) -> Estimate | None:
        """The effect per one of a feature, from the probe that moves it; None: none was asked."""
        moved = next((name for name in self.names if self.feature(name) == feature), None)
        return None if moved is None else self.effect(moved)

    def effect(self, name: str) -> Estimate:
        """The change of the labeler's logit per one of the probe's change.

        Of a labeler with probabilities it is freed of what the probe changed in length, where probes of length tell what that
        does; verdicts are too coarse to tell.
        """
        rows = self.rows[name]
        change = np.array([row.change for row in rows])
        prompt = np.array([chance.unit(row.prompt_id) for row in rows])
        before, after = (np.array([_logit(p) for p in given]) for given in zip(*map(_answers, rows), strict=True))
        if self.soft:
            found = probe.from_probabilities(change, before, after, prompt)
            along = np.array([row.length for row in rows])
            length = self.of_feature(LENGTH) if along.any() and self.feature(name) != LENGTH else None
            return found if length is None else probe.without(found, change, along, length, prompt)
        return probe.from_votes(change, np.sign(before).astype(np.int64), np.sign(after).astype(np.int64), prompt)


def _answers(row: Probed) -> tuple[float, float]:
    assert row.before_p_a is not None
    assert row.after_p_a is not None
    return row.before_p_a, row.after_p_a


def _logit(p: float) -> float:
    return logit(clip(p))


def by_labeler(probed: Sequence[Probed], soft: Mapping[str, bool]) -> dict[str, Probes]:
    """The probes of each labeler; those that it abstained from, before or after, are left out."""
    found: dict[str, dict[str, list[Probed]]] = {name: {} for name in soft}
    for row in probed:
        if row.labeler in found and row.before_p_a is not None and row.after_p_a is not None:
            found[row.labeler].setdefault(row.dimension, []).append(row)
    return {name: Probes(soft=soft[name], rows=rows) for name, rows in found.items()}
