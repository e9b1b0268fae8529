"""When a request may be sent: one gate, one number of slots and one retry allowance for all requests to a model's server."""

from __future__ import annotations

import asyncio
import random
from collections import deque

from cai_cli.engine.clock import Clock
from cai_cli.errors import Exit, Fatal, Retry

AUTO_START, AUTO_MOST = 16, 256  # slots
BACKOFF_FIRST_S, BACKOFF_MOST_S = 1.0, 60.0
ALLOWANCE, RETRY_COST, TIMEOUT_COST = 500, 5, 10  # a success gives one back
PROBE_EVERY_S = 30.0
MOMENT_S = 0.01  # timers may fire a little early
SILENCE = ("server", "connection", "timeout")  # failures that say nothing but that nobody is there


class Pace:
    """Slots that grow by one a round trip and halve at a 429, a gate that a 429 closes for all, and an outage mode.

    `limit`: requests in flight at once, or "auto". `per_minute`: send no faster, or None. `max_outage_s`: how long a server is
    waited for, from the first failure that no success followed; `max_outage`: the same as the user wrote it. When the retry
    allowance is spent, one request probes every 30 s until one succeeds.
    """

    def __init__(
        self, limit: int | str, per_minute: float | None, max_outage_s: float, clock: Clock, seed: int = 0, max_outage: str = ""
    ) -> None:
        self.most = AUTO_MOST if limit == "auto" else int(limit)
        self.slots = float(AUTO_START if limit == "auto" else self.most)
        self.in_flight = 0
        self.clock, self.max_outage_s = clock, max_outage_s
        self.max_outage = max_outage or f"{max_outage_s:g}s"
        self.spacing_s = 60.0 / per_minute if per_minute else 0.0
        self.allowance = ALLOWANCE
        self.failing_since: float | None = None  # the first failure that no success followed
        self.outage_since: float | None = None  # the same, from when the allowance is spent
        self.opens_at = self.next_send_at = self.next_probe_at = float("-inf")
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._probing = False  # somebody waits for the moment of the next probe
        self._limited = 0  # cuts since the last success
        self._cut_at = float("-inf")
        self._host, self._detail = "", ""  # of the latest failure
        self._timer: asyncio.TimerHandle | None = None
        self._random = random.Random(seed)  # jitter only: no row depends on it

    async def enter(self) -> None:
        """Wait until a request may be sent, and take a slot for it. Raises: Fatal: the outage was too long"""
        while True:
            self._check_outage()
            if self.outage_since is not None:
                if await self._may_probe():
                    break
            elif self.in_flight >= int(self.slots):
                await self._wait_turn()
            elif (wait_s := self._wait_s()) > 0:
                await self._sleep(wait_s)
            else:
                break
        self.in_flight += 1

    def leave(self) -> None:
        """Give the slot back."""
        self.in_flight -= 1
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
        now = self.clock.now()
        if sent_at > self._cut_at:  # one cut a burst: what was out when the slots were halved says nothing of the half
            self._limited, self._cut_at = self._limited + 1, now
            self.slots = max(1.0, self.slots / 2)
        wait_s = self.backoff_s(self._limited) if after_s is None else after_s
        self.opens_at = max(self.opens_at, now + wait_s)

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

    def _wait_s(self) -> float:
        """Seconds until this request may go; 0 also claims the moment."""
        now = self.clock.now()
        wait_s = max(self.opens_at, self.next_send_at) - now
        if wait_s > 0:
            # spread over the gate's opening, else all that waited would knock in the same millisecond
            return wait_s + self._random.uniform(0, 0.1 * min(wait_s, 10))
        self.next_send_at = max(now, self.next_send_at) + self.spacing_s
        return 0.0

    async def _may_probe(self) -> bool:
        """In an outage one waits for the next probe's moment, all others for their turn: the first success wakes them."""
        if self._probing:
            await self._wait_turn()
            return False
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

    async def _wait_turn(self) -> None:
        turn = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        await turn

    def _wake(self) -> None:
        free = int(self.slots) - self.in_flight if self.outage_since is None else int(not self._probing)
        while self._waiting and free > 0:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                free -= 1

    def _wake_all(self) -> None:
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
