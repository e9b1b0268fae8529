"""How fast a run is lately, since its start says nothing about the rest; and what the rest will cost."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

WINDOW_S = 120.0
APART_S = 1.0  # between two looks that are kept
FEW = 20  # prompts: what fewer cost says nothing about the rest


class Look(NamedTuple):
    at: float  # on a clock that never goes back, in seconds
    prompts: int


class Speed:
    """Looks at a run's progress over the last two minutes."""

    def __init__(self) -> None:
        self._looks: deque[Look] = deque()
        self._latest: Look | None = None

    def note(self, at: float, prompts: int) -> None:
        """Look: `prompts` are done by now, not counted those that an earlier run had asked all about."""
        self._latest = Look(at, prompts)
        if not self._looks or at >= self._looks[-1].at + APART_S:
            self._looks.append(self._latest)
        while len(self._looks) > 2 and self._looks[1].at <= at - WINDOW_S:
            self._looks.popleft()

    @property
    def per_s(self) -> float | None:
        """Prompts a second; None: too early to tell, or none was finished."""
        if self._latest is None or self._latest.at <= self._looks[0].at:
            return None
        done = self._latest.prompts - self._looks[0].prompts
        return done / (self._latest.at - self._looks[0].at) if done > 0 else None


def in_all(gone: float, ended: int, dollars: float, left: int, open_dollars: float) -> float | None:
    """Dollars that all will come to, if each prompt that is left costs what those cost that ended; None: too early to tell.

    Takes: `gone`: spent by now; `ended`: prompts that ended in this run, and what their replies cost, whenever they were bought;
    `left`: prompts that have not ended, of which `open_dollars` are paid for already
    """
    if ended < FEW:
        return None
    return gone + max(0.0, dollars / ended * left - open_dollars)
