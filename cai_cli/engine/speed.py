"""How fast a run is lately, and what a prompt costs it: over the last minutes, since its start says nothing about the rest."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

WINDOW_S = 120.0
APART_S = 1.0  # between two looks that are kept
FEW = 20  # prompts: what fewer cost says nothing about the rest


class Look(NamedTuple):
    at: float  # on a clock that never goes back, in seconds
    prompts: int
    dollars: float


class Speed:
    """Looks at a run's progress over the last two minutes.

    Of a run that was taken up again the first look is left out: between it and the second, finished partitions are skipped.
    """

    def __init__(self) -> None:
        self._looks: deque[Look] = deque()
        self._latest: Look | None = None
        self._begun = False

    def note(self, at: float, prompts: int, dollars: float) -> None:
        """Look: `prompts` are done by now, for `dollars` of this run."""
        if not self._begun:
            self._begun = True
            return
        self._latest = Look(at, prompts, dollars)
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

    def in_all(self, prompts: int, begun: int) -> float | None:
        """Dollars that the whole run of `prompts` will come to, if the rest costs what the latest did; None: too early to tell.

        `begun`: prompts that are being worked on. They were paid for in part and are not counted as done, which weighs much
        while fewer than them are.
        """
        if self._latest is None:
            return None
        done = self._latest.prompts - self._looks[0].prompts
        if done < max(FEW, begun):
            return None
        each = (self._latest.dollars - self._looks[0].dollars) / done
        return self._latest.dollars + each * max(0, prompts - self._latest.prompts)
