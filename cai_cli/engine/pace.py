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


class Pace:
    """Slots that grow by one a round trip and halve at a 429, a gate that a 429 closes for all, and an outage mode.

    `limit`: requests in flight at once, or "auto". `per_minute`: send no faster, or None. `max_outage_s`: how long an outage
    is waited for. An outage begins when the retry allowance is spent; then one request probes every 30 s until one succeeds.
    """

    def __init__(self, limit: int | str, per_minute: float | None, max_outage_s: float, clock: Clock, seed: int = 0) -> None:
        self.most = AUTO_MOST if limit == "auto" else int(limit)
        self.slots = float(AUTO_START if limit == "auto" else self.most)
        self.in_flight = 0
        self.clock, self.max_outage_s = clock, max_outage_s
        self.spacing_s = 60.0 / per_minute if per_minute else 0.0
        self.allowance = ALLOWANCE
        self.outage_since: float | None = None
        self.opens_at = self.next_send_at = self.next_probe_at = float("-inf")
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._probing = False  # somebody waits for the moment of the next probe
        self._limited = 0  # cuts since the last success
        self._cut_at = float("-inf")
        self._random = random.Random(seed)  # jitter only: no row depends on it

    async def enter(self) -> None:
        """Wait until a request may be sent, and take a slot for it. Raises: Fatal: the outage was too long"""
        while True:
            if self.outage_since is not None:
                if await self._may_probe(self.outage_since):
                    break
            elif self.in_flight >= int(self.slots):
                await self._wait_turn()
            elif (wait_s := self._wait_s()) > 0:
                await self.clock.sleep(wait_s)
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
        self.allowance = min(ALLOWANCE, self.allowance + 1)
        self._limited = 0
        self.slots = min(float(self.most), self.slots + 1.0 / self.slots)
        self._wake()

    async def failed(self, retry: Retry, tries: int) -> None:
        """Wait as this failure asks: `tries` is how often this request failed so far, from 1. A 429 waits at the gate."""
        if retry.kind == "rate_limit":
            return
        self._spend(TIMEOUT_COST if retry.kind == "timeout" else RETRY_COST)
        if self.outage_since is None:
            await self.clock.sleep(max(retry.after_s or 0.0, self.backoff_s(tries)))

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

    def _spend(self, cost: int) -> None:
        self.allowance = max(0, self.allowance - cost)
        if self.allowance == 0 and self.outage_since is None:
            self.outage_since = self.clock.now()
            self.next_probe_at = self.outage_since + PROBE_EVERY_S

    def _wait_s(self) -> float:
        """Seconds until this request may go; 0 also claims the moment."""
        now = self.clock.now()
        wait_s = max(self.opens_at, self.next_send_at) - now
        if wait_s > 0:
            # spread over the gate's opening, else all that waited would knock in the same millisecond
            return wait_s + self._random.uniform(0, 0.1 * min(wait_s, 10))
        self.next_send_at = max(now, self.next_send_at) + self.spacing_s
        return 0.0

    async def _may_probe(self, since: float) -> bool:
        """In an outage one waits for the next probe's moment, all others for their turn: the first success wakes them."""
        if self._probing:
            await self._wait_turn()
            return False
        self._check_outage(since)
        self._probing = True
        try:
            await self.clock.sleep(max(0.0, self.next_probe_at - self.clock.now()))
        finally:
            self._probing = False
            self._wake()  # the next one waits for the probe after this
        now = self.clock.now()
        if self.outage_since is None or now < self.next_probe_at:
            return False
        self.next_probe_at = now + PROBE_EVERY_S
        return self.in_flight < self.most  # else those that are still out are the probe

    def _check_outage(self, since: float) -> None:
        if self.clock.now() - since > self.max_outage_s:
            self._wake()  # whoever waits learns it too
            hours = f"{self.max_outage_s / 3600:.1f} h"
            raise Fatal(f"the provider did not answer for {hours}", "nothing is lost: the same command goes on", Exit.UNREACHABLE)

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
