"""What a pilot found, as far as measuring goes by it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Pilot:
    """`shift`: position biases in log-odds, by labeler, that pairs with one order were labelled by. `pairs`: ids of those that
    chance chose; of the others it depends on a labeler's answers in which orders they were seen, so they are no fair sample.
    `warnings`: why labelers could not be asked less.
    """

    shift: Mapping[str, float] = field(default_factory=dict)
    pairs: frozenset[str] = frozenset()
    warnings: tuple[str, ...] = ()


NO_PILOT = Pilot()
