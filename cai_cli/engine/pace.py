"""When a request may be sent: one gate, one number of slots and one retry allowance for all requests to a model's server."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol

from cai_cli.engine.clock import Clock
from cai_cli.errors import Exit, Fatal, Retry
from cai_cli.flow import Reply, Request

AUTO_START, AUTO_MOST = 16, 256  # slots
BACKOFF_FIRST_S, BACKOFF_MOST_S = 1.0, 60.0
ALLOWANCE, RETRY_COST, TIMEOUT_COST = 500, 5, 10  # a success gives one back
PROBE_EVERY_S = 30.0
MOMENT_S = 0.01  # timers may fire a little early
SPREAD = 0.1  # of a gate's time, in which those who waited go one by one
SILENCE = ("server", "connection", "timeout")  # failures that say nothing but that nobody is there


class Limits(Protocol):
    """What holds requests back, beside slots: limits that the user set, and those of the servers that are asked."""

    held: tuple[float, str] | None
    """The limit that held the latest request: how many a minute, and of what."""

    def wait_s(self, request: Request | None) -> float:
        """Seconds until this request may be sent, 0 if it may now. None: any request"""

    def take(self, request: Request | None) -> None:
        """Count it as sent."""

    def release(self, request: Request | None, reply: Reply | None) -> None:
        """It is not in flight any more. `reply`: what came; None: nothing, or it was not sent after all"""


class _Waiting(NamedTuple):
    """A request that waits for its turn. The turn's result: whether it is admitted, else it was woken to look again."""

    turn: asyncio.Future[bool]
    request: Request | None
    limits: Sequence[Limits]


class Pace:
    """Slots that grow by one a round trip and halve at a 429, a gate that a 429 closes for all, and an outage mode.

    `limit`: requests in flight at once, or "auto". `own`: limits that the user set. `max_outage_s`: how long a server is waited
    for, from the first failure that no success followed; `max_outage`: the same as the user wrote it. When the retry allowance is
    spent, one request probes every 30 s until one succeeds. Who waits is admitted in order, the requests for each model in a line
    of their own, so that the limits of one model hold back no other.
    """

    def __init__(
        self, limit: int | str, own: Limits | None, max_outage_s: float, clock: Clock, seed: int = 0, max_outage: str = ""
    ) -> None:
        self.most = AUTO_MOST if limit == "auto" else int(limit)
        self.slots = float(AUTO_START if limit == "auto" else self.most)
        self.in_flight = 0
        self.clock, self.max_outage_s = clock, max_outage_s
        self.max_outage = max_outage or f"{max_outage_s:g}s"
        self.own: tuple[Limits, ...] = (own,) if own else ()
        self.allowance = ALLOWANCE
        self.failing_since: float | None = None  # the first failure that no success followed
        self.outage_since: float | None = None  # the same, from when the allowance is spent
        self.opens_at = self.next_probe_at = float("-inf")
        self._lines: dict[object, deque[_Waiting]] = {}
        self._probing = False  # somebody waits for the moment of the next probe
        self._limited = 0  # cuts since the last success
        self._cut_at = float("-inf")
        self._next_send_at = self._spread_from = self._spread_until = float("-inf")
        self._host, self._detail = "", ""  # of the latest failure
        self._timer: asyncio.TimerHandle | None = None  # for the end of the longest outage
        self._alarm: asyncio.Task[None] | None = None  # for the next one who waits
        self._alarm_at = 0.0
        self._random = random.Random(seed)  # jitter only: no row depends on it

    async def enter(self, request: Request | None = None, limits: Limits | None = None) -> None:
        """Wait until a request may be sent, and take a slot for it, and its share of the limits.

        Raises: Fatal: the outage was too long
        """
        both = (*self.own, limits) if limits else self.own
        while True:
            self._check_outage()
            if self.outage_since is not None and not self._probing:
                if await self._may_probe():
                    self._wait_s(request, both)  # which server it goes to is found anew
                    break
            elif self.outage_since is None and not self._lines and self._free() and not self._wait_s(request, both):
                break
            elif await self._turn(request, both, limits):
                return
        self._admit(request, both)

    def leave(self, request: Request | None = None, limits: Limits | None = None, reply: Reply | None = None) -> None:
        """Give the slot back, and what was taken too much of the limits."""
        self.in_flight -= 1
        for one in self.own:
            one.release(request, reply)
        if limits:
            limits.release(request, reply)
        self._wake()

    def succeeded(self) -> None:
        """A reply came: one slot more a round trip, one retry given back, and an outage is over."""
        if self.outage_since is not None:
            self.outage_since, self.allowance = None, ALLOWANCE
        self.failing_since = None
        if self._timer is not None:
            self._timer.cancel()
        self.allowance = min(ALLOWANCE, self.allowance + 1)
        self._limited = 0
        self.slots = min(float(self.most), self.slots + 1.0 / self.slots)
        self._wake()

    def allowed(self) -> None:
        """A server that tells its limits took a request: one slot more a reply, since its limits hold requests back."""
        self.slots = min(float(self.most), self.slots + 1.0)

    async def failed(self, retry: Retry, tries: int, host: str = "the provider") -> None:
        """Wait as this failure asks: `tries` is how often this request failed so far, from 1. A 429 waits at the gate.

        Raises: Fatal: the outage was too long
        """
        if retry.kind == "rate_limit":
            return
        if retry.kind in SILENCE:
            self._host, self._detail = host, retry.detail.removeprefix(f"{host}: ") or retry.kind
            self._begin_outage()
        self._spend(TIMEOUT_COST if retry.kind == "timeout" else RETRY_COST)
        self._check_outage()
        if self.outage_since is None:
            await self._sleep(max(retry.after_s or 0.0, self.backoff_s(tries)))

    def backoff_s(self, tries: int) -> float:
        """Full jitter: uniform between 0 and 1, 2, 4, ... 60 s (Brooker 2015, Exponential Backoff and Jitter)."""
        return self._random.uniform(0, min(BACKOFF_MOST_S, BACKOFF_FIRST_S * 2 ** min(tries - 1, 10)))

    def limited(self, sent_at: float, after_s: float | None) -> None:
        """A 429 to what was sent at `sent_at`: the gate closes for all, for `after_s` or for a backoff."""
        self.cut(sent_at)
        wait_s = self.backoff_s(self._limited) if after_s is None else after_s
        self.opens_at = max(self.opens_at, self.clock.now() + wait_s)
        self.spread(self.opens_at, wait_s)

    def cut(self, sent_at: float) -> None:
        """Halve the slots, once a burst: what was out when they were halved says nothing of the half."""
        if sent_at > self._cut_at:
            self._limited, self._cut_at = self._limited + 1, self.clock.now()
            self.slots = max(1.0, self.slots / 2)

    def spread(self, opens_at: float, wait_s: float) -> None:
        """Let in one by one those who wait for a gate: else all would knock in the same millisecond."""
        if (until := opens_at + SPREAD * min(wait_s, 10.0)) > self._spread_until:
            self._spread_from, self._spread_until = opens_at, until

    @property
    def held(self) -> tuple[float, str] | None:
        """The limit that those who wait wait for, how many a minute and of what; None where it is none, or nobody waits."""
        if self.outage_since is not None or not self._free():
            return None
        heads = [one for _, one in self._heads()]
        found = [limits.held for one in heads for limits in one.limits]
        return next((held for held in found if held), None)

    @property
    def failing_s(self) -> float | None:
        """Seconds since the first failure that no success followed; None where requests are answered."""
        return None if self.failing_since is None else self.clock.now() - self.failing_since

    @property
    def closed_s(self) -> float:
        """Seconds until the gate that a 429 closed opens again."""
        return max(0.0, self.opens_at - self.clock.now())

    def _spend(self, cost: int) -> None:
        self.allowance = max(0, self.allowance - cost)
        if self.allowance == 0 and self.outage_since is None:
            now = self.clock.now()
            self.outage_since = now if self.failing_since is None else self.failing_since
            self.next_probe_at = now + PROBE_EVERY_S

    def _free(self) -> bool:
        return self.in_flight < int(self.slots)

    def _wait_s(self, request: Request | None, limits: Sequence[Limits]) -> float:
        """Seconds until this request may go, were there a slot."""
        longest = max(self.opens_at, self._next_send_at) - self.clock.now()
        for one in limits:
            longest = max(longest, one.wait_s(request))
        return max(0.0, longest)

    def _admit(self, request: Request | None, limits: Sequence[Limits]) -> None:
        self.in_flight += 1
        for one in limits:
            one.take(request)
        now = self.clock.now()
        if self._spread_from <= now < self._spread_until:  # before, what goes is for another server, or another model
            self._next_send_at = now + self._random.uniform(0, 2) * (self._spread_until - now) / self.slots

    async def _may_probe(self) -> bool:
        """In an outage one waits for the next probe's moment, all others for their turn: the first success wakes them."""
        self._probing = True
        try:
            await self._sleep(max(0.0, self.next_probe_at - self.clock.now()))
        finally:
            self._probing = False
            self._wake()  # the next one waits for the probe after this
        now = self.clock.now()
        if self.outage_since is None or now < self.next_probe_at:
            return False
        self.next_probe_at = now + PROBE_EVERY_S
        return self.in_flight < self.most  # else those that are still out are the probe

    def _begin_outage(self) -> None:
        """The clock of an outage runs from its first failure, long before the allowance is spent where few requests are out."""
        if self.failing_since is None:
            self.failing_since = self.clock.now()
            self._expire()

    def _left_s(self) -> float:
        """Seconds until an outage has lasted too long; infinite where there is none."""
        return float("inf") if self.failing_since is None else self.failing_since + self.max_outage_s - self.clock.now()

    def _expire(self) -> None:
        """Wake all who wait for a turn when an outage has lasted too long: perhaps nobody else is awake to say so."""
        if (left_s := self._left_s()) >= 0:
            self._timer = asyncio.get_running_loop().call_later(left_s + MOMENT_S, self._expire)
        else:
            self._wake_all()

    def _check_outage(self) -> None:
        if self._left_s() < 0:
            self._wake_all()
            raise Fatal(
                f"{self._host} did not answer for {self.max_outage}: {self._detail}",
                "nothing is lost: run the same command again when it answers; limits.max_outage says how long it is waited for",
                Exit.UNREACHABLE,
            )

    async def _sleep(self, seconds: float) -> None:
        """Sleep, but not beyond the end of the longest outage. Raises: Fatal: the outage was too long"""
        await self.clock.sleep(min(seconds, max(0.0, self._left_s()) + MOMENT_S))
        self._check_outage()

    async def _turn(self, request: Request | None, both: Sequence[Limits], line: Limits | None) -> bool:
        """Wait in line. Gives: whether it was admitted, else it has to look again"""
        key = (id(line), request.model.name if request else "")
        one = _Waiting(asyncio.get_running_loop().create_future(), request, both)
        self._lines.setdefault(key, deque()).append(one)
        if self.outage_since is None:
            self._let_in()
        try:
            return await one.turn
        except asyncio.CancelledError:
            if one.turn.done() and not one.turn.cancelled() and one.turn.result():
                self.leave(request, line)
            raise

    def _wake(self) -> None:
        """Let in who may go; in an outage, wake one to probe where nobody does."""
        if self.outage_since is None:
            self._let_in()
        elif not self._probing and (one := next(self._heads(), None)):
            self._lines[one[0]].popleft().turn.set_result(False)

    def _heads(self) -> Iterator[tuple[object, _Waiting]]:
        """Who is first in each line."""
        for key in list(self._lines):
            line = self._lines[key]
            while line and line[0].turn.done():  # cancelled meanwhile
                line.popleft()
            if line:
                yield key, line[0]
            else:
                del self._lines[key]

    def _let_in(self) -> None:
        """Admit those who may go, a line after the other, and set the alarm for the next."""
        waits: list[float] = [0.0]
        while waits and self._free():
            waits = []
            for key, one in self._heads():
                if wait_s := self._wait_s(one.request, one.limits):
                    waits.append(wait_s)
                    continue
                self._admit(one.request, one.limits)
                self._lines[key].popleft().turn.set_result(True)
                self._lines[key] = self._lines.pop(key)  # the other lines come first now
                waits = [0.0]
                if not self._free():
                    break
            if waits and min(waits) > 0:
                self._set_alarm(min(waits))
                return

    def _set_alarm(self, wait_s: float) -> None:
        """Look again then; where that is done sooner anyway, once is enough."""
        at = self.clock.now() + wait_s
        if self._alarm is not None and not self._alarm.done():
            if self._alarm_at <= at:
                return
            self._alarm.cancel()
        self._alarm_at, self._alarm = at, asyncio.get_running_loop().create_task(self._ring(wait_s))

    async def _ring(self, wait_s: float) -> None:
        await self.clock.sleep(wait_s)
        self._alarm = None
        self._wake()

    def _wake_all(self) -> None:
        while one := next(self._heads(), None):
            self._lines[one[0]].popleft().turn.set_result(False)
