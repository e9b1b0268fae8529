"""Variants of a pair that keep what is said and change one thing about how: what a labeler's logit moves by is its bias.

One file here is one probe (but not those that begin with _). Other packages add theirs by entry point, group cai.probes. A probe
has

    FEATURE    the name of the feature in cai_cli.features that it moves; empty: there is none
    UNIT       what its effect is counted in, in words
    NOTE       what the effect is, what is assumed, and what the probe cannot tell, in a sentence or two
    variants   (pair, seed) -> Variant | None; None: this pair cannot be probed that way

What `variants` draws, it draws by the seed, the pair's id and the texts themselves, never by which of them is a: a pair with a
and b exchanged has the same variant with a and b exchanged, and its change has the other sign.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Protocol, cast

from cai_cli import registry
from cai_cli.errors import Fix
from cai_cli.records import Pair

__all__ = ["Probe", "Variant", "find", "names"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """A pair whose manner was changed, and what a judge's opinion of it is held against."""

    pair: Pair  # the same id
    against: Pair | None = None  # None: the pair as it was
    change: float  # toward a: of the probe's feature, a minus b, in its unit; else 1 for one change, 2 for one and its opposite


class Probe(Protocol):
    """What a probe module holds."""

    FEATURE: str
    UNIT: str
    NOTE: str

    def variants(self, pair: Pair, seed: int) -> Variant | None: ...


def names() -> list[str]:
    """Every probe that can be asked for."""
    return registry.names(__name__, __path__)


def find(name: str) -> Probe:
    """A probe by its name. Raises: Fix: there is none of that name"""
    if (found := registry.find(__name__, __path__, name)) is not None:
        return cast("Probe", found)
    close = difflib.get_close_matches(name.lower(), names(), 1)
    raise Fix(f"there is no probe '{name}'", f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(names())}")
