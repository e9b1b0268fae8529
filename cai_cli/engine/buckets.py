"""A token bucket of a server, as we know it: a level that refills, and headers that put our count of it right."""

from __future__ import annotations

import math
from collections.abc import MutableSequence

CELLS = 14
PER_S, LEVEL, AT, CAP, DRIFT, NEXT_AT, PROMISED, MOVED, SAID, SAID_AT, MISSED, WINDOW_AT, WINDOW_SUM, STRICT = range(CELLS)
DRAIN_S = 2.0  # what is left is sent over about this long, on top of the refill
CATCH_UP_S = 0.02  # a timer that fires late costs no rate
MARGIN_S, MARGIN_SHARE = 0.02, 0.1  # left in the bucket: of the refill, and of the request, which is only estimated
WINDOW_S = 1.0  # over which it is seen how much others take
MOST_TAKEN = 0.98  # of the refill, by others: the rest is ours to look with
OTHERS_S = 20.0  # what others take is forgotten by and by, unless it is seen again
SAME_S = 1.5  # a value that is told again within this time may be the same one
FORGET_S = 60.0  # what a request promised is forgotten by and by: its process may be dead


class Bucket:
    """One bucket, in CELLS numbers of `cells` from `base`. Its `per_s` is 0 until a limit is known: then it only counts.

    MOVED sums up what headers corrected, so that a level of the past can be compared: a mark is a level without it.
    """

    __slots__ = ("base", "cells")

    def __init__(self, cells: MutableSequence[float], base: int) -> None:
        self.cells, self.base = cells, base

    @property
    def per_s(self) -> float:
        """Refilled a second; 0: no limit is known."""
        return self.cells[self.base]

    @property
    def missed(self) -> float:
        """By how much the headers were missed lately: a smoothed share of the limit."""
        return self.cells[self.base + MISSED]

    def fix(self, now: float, per_s: float, cap: float) -> None:
        """A limit that no header tells, with so much at once. Another one keeps the level."""
        cells, base = self.cells, self.base
        if cells[base + PER_S] <= 0:
            cells[base + LEVEL], cells[base + AT], cells[base + STRICT] = cap, now, 1.0
        cells[base + PER_S], cells[base + CAP] = per_s, cap

    def _speed(self) -> float:
        """Refilled a second, less what others take of it."""
        per_s: float = self.cells[self.base + PER_S]
        return per_s + max(-MOST_TAKEN * per_s, self.cells[self.base + DRIFT])

    def refill(self, now: float) -> None:
        """Bring the level up to this moment."""
        cells, base = self.cells, self.base
        passed_s = now - cells[base + AT]
        if passed_s <= 0:
            if passed_s < -FORGET_S:  # another clock wrote it
                cells[base + AT], cells[base + NEXT_AT] = now, 0.0
            return
        cells[base + AT] = now
        if cells[base + PER_S] > 0:
            cells[base + LEVEL] = min(cells[base + CAP], cells[base + LEVEL] + passed_s * self._speed())
        if cells[base + PROMISED]:
            cells[base + PROMISED] *= math.exp(-passed_s / FORGET_S)
        if cells[base + DRIFT]:
            cells[base + DRIFT] *= math.exp(-passed_s / OTHERS_S)

    def wait_s(self, now: float, needs: float) -> float:
        """Seconds until there is room for a request that needs so much. More than its size is never in it: a full one will do."""
        cells, base = self.cells, self.base
        self.refill(now)
        level = min(cells[base + LEVEL], cells[base + LEVEL] - cells[base + PROMISED])
        missing = min(needs + self._margin(needs), cells[base + CAP]) - level
        wait_s: float = cells[base + NEXT_AT] - now
        return max(wait_s, missing / self._speed()) if missing > 0 else wait_s

    def _margin(self, needs: float) -> float:
        if self.cells[self.base + STRICT]:  # ours alone: nobody else counts otherwise
            return 0.0
        return MARGIN_S * self.cells[self.base + PER_S] + MARGIN_SHARE * needs

    def take(self, now: float, takes: float, promises: float, net: float) -> float:
        """Take `takes`; when the reply is there it will have been `net` in all, so `promises` more. Gives: a mark of the level"""
        cells, base = self.cells, self.base
        self.refill(now)
        cells[base + LEVEL] -= takes
        cells[base + PROMISED] += promises
        if cells[base + PER_S] > 0:
            spare = cells[base + LEVEL] - cells[base + PROMISED] - self._margin(net)
            per_s = self._speed() + max(0.0, spare) / DRAIN_S
            cells[base + NEXT_AT] = max(cells[base + NEXT_AT], now - CATCH_UP_S) + net / per_s
        mark: float = cells[base + LEVEL] - cells[base + MOVED]
        return mark

    def settle(self, now: float, back: float, promises: float, age_s: float) -> None:
        """Give `back` what was taken too much, and take what was promised off the promises, as far as it is not forgotten."""
        cells, base = self.cells, self.base
        if back:
            cells[base + LEVEL] += back
            if cells[base + PER_S] > 0:
                cells[base + LEVEL] = min(cells[base + CAP], cells[base + LEVEL])
        if promises:
            self.refill(now)
            cells[base + PROMISED] -= promises * math.exp(-max(0.0, age_s) / FORGET_S)

    def heard(self, now: float, limit: float, remaining: float, mark: float, sent_at: float) -> None:
        """What a header says: `limit` a minute, `remaining` at some moment between sending (`mark`, `sent_at`) and now.

        Servers count at the arrival of a request or at its end, and tell integers: what lies between our two counts of then and
        now is as expected. A value that is soon told again says nothing: some servers work it out once a second.
        """
        cells, base = self.cells, self.base
        per_s = limit / 60
        if cells[base + PER_S] <= 0 or cells[base + STRICT]:
            self._begin(now, per_s, remaining, mark, sent_at)
        elif abs(per_s - cells[base + PER_S]) > 1e-9 * per_s:
            self._change(per_s)
        elif remaining != cells[base + SAID] or sent_at - cells[base + SAID_AT] > SAME_S:
            self.refill(now)
            then, level = mark + cells[base + MOVED], cells[base + LEVEL]
            off = self._off(remaining, min(then, level), max(then, level))
            cells[base + MISSED] += 0.2 * (abs(off) / limit - cells[base + MISSED])
            self._move(off)
            self._watch(now, off)
            cells[base + CAP] = min(limit, max(cells[base + CAP], remaining))
        if remaining != cells[base + SAID]:
            cells[base + SAID], cells[base + SAID_AT] = remaining, now

    @staticmethod
    def _off(remaining: float, low: float, high: float) -> float:
        """How far `remaining`, rounded down, is from what was expected."""
        if remaining > high and (remaining > 0 or high > 0):
            return 0.0 if remaining == 0 else remaining - high  # a debt is told as 0, too
        return min(0.0, remaining + 1 - low)

    def _begin(self, now: float, per_s: float, remaining: float, mark: float, sent_at: float) -> None:
        """The first header: what was left, less what was sent after it, and what came in since. It was probably full before."""
        cells, base = self.cells, self.base
        level = remaining + cells[base + LEVEL] - (mark + cells[base + MOVED]) + per_s * max(0.0, now - sent_at)
        cells[base + CAP] = min(60 * per_s, remaining + 1)
        cells[base + PER_S], cells[base + AT], cells[base + WINDOW_AT] = per_s, now, now
        cells[base + STRICT], cells[base + DRIFT] = 0.0, 0.0
        self._move(min(level, cells[base + CAP]) - cells[base + LEVEL])

    def _change(self, per_s: float) -> None:
        """The limit was changed; the size goes along, until headers say otherwise."""
        cells, base = self.cells, self.base
        cells[base + CAP] = min(60 * per_s, cells[base + CAP] * per_s / cells[base + PER_S])
        cells[base + PER_S], cells[base + DRIFT], cells[base + NEXT_AT] = per_s, 0.0, 0.0
        self._move(min(cells[base + LEVEL], cells[base + CAP]) - cells[base + LEVEL])

    def _move(self, by: float) -> None:
        cells, base = self.cells, self.base
        cells[base + LEVEL] += by
        cells[base + MOVED] += by

    def _watch(self, now: float, off: float) -> None:
        """Learn what others take of the same limit: by so much the level falls faster than ours explains."""
        cells, base = self.cells, self.base
        cells[base + WINDOW_SUM] += off
        passed_s = now - cells[base + WINDOW_AT]
        if passed_s < WINDOW_S:
            return
        drift = cells[base + DRIFT] + 0.5 * cells[base + WINDOW_SUM] / passed_s
        cells[base + DRIFT] = min(0.0, max(-MOST_TAKEN * cells[base + PER_S], drift))
        cells[base + WINDOW_AT], cells[base + WINDOW_SUM] = now, 0.0

    def was_low(self, mark: float, taken: float, needs: float) -> bool:
        """Whether a request found less than it needs and a quarter of the size, as far as we know."""
        before = mark + self.cells[self.base + MOVED] + taken
        return before < needs + max(self._margin(needs), self.cells[self.base + CAP] / 4)

    def empty(self, mark: float, taken: float, needs: float) -> None:
        """It held less than a request needed."""
        before = mark + self.cells[self.base + MOVED] + taken
        self._move(min(0.0, needs / 2 - before))

    def ahead(self, seconds: float, needs: float) -> float:
        """How many requests that need so much may go in so many seconds."""
        spare = self.cells[self.base + LEVEL] - max(0.0, self.cells[self.base + PROMISED]) - self._margin(needs)
        return seconds * (self._speed() + spare / DRAIN_S) / needs if spare > 0 and needs > 0 else 0.0

    def use(self, amount: float) -> None:
        """So much was used by requests that were not counted one by one."""
        self.cells[self.base + LEVEL] -= amount

    def mark(self) -> float:
        """A mark of the level as it is."""
        return self.cells[self.base + LEVEL] - self.cells[self.base + MOVED]

    def go_on(self, now: float) -> None:
        """The latest request was not taken: the next one need not keep its distance."""
        self.cells[self.base + NEXT_AT] = min(self.cells[self.base + NEXT_AT], now)

    def drop(self) -> None:
        """Nothing is left."""
        self.cells[self.base + LEVEL] = min(0.0, self.cells[self.base + LEVEL])
