"""Virtual time: a loop that leaps to the next timer instead of sleeping; and in it, servers that limit rates."""

from __future__ import annotations

import asyncio
import math
import random
import selectors
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cai_cli.engine.clock import Clock
from cai_cli.engine.limits import ServerLimits
from cai_cli.engine.pace import Pace
from cai_cli.engine.rates import Rates
from cai_cli.flow import Model, Reply, Request
from cai_cli.records import Turn

DEADLOCK_AFTER_S = 1e7


class LeapingSelector(selectors.DefaultSelector):
    """Waits for nothing: where a selector would sleep, `now` leaps ahead. A loop that would sleep for ever is an error."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        events = super().select(0)
        if not events and timeout != 0:
            assert timeout is not None and self.now < DEADLOCK_AFTER_S, "everybody waits and nobody will wake them"  # noqa: PT018
            self.now += timeout
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.leaping = LeapingSelector()
        super().__init__(self.leaping)

    def time(self) -> float:
        return self.leaping.now


class VirtualClock(Clock):
    def now(self) -> float:
        return asyncio.get_running_loop().time()


def run(main: Awaitable[Any]) -> Any:
    """Run something in virtual time."""

    async def awaited() -> Any:
        return await main

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(awaited())


@dataclass(slots=True)
class TokenBucket:
    """A server's bucket. `permitted` sums up what it would have let through, from the first request on."""

    per_minute: float
    size: float
    level: float = -1.0
    at: float = -1.0
    permitted: float = 0.0

    def refill(self, now: float) -> None:
        if self.at < 0:
            self.level, self.at, self.permitted = self.size, now, self.size
        came = (now - self.at) * self.per_minute / 60
        self.permitted += came
        self.level, self.at = min(self.size, self.level + came), now

    def change(self, now: float, per_minute: float, size: float) -> None:
        self.refill(now)
        self.level = min(size, self.level)
        self.per_minute, self.size = per_minute, size


@dataclass(slots=True, kw_only=True)
class LimitingServer:
    """Answers after `latency_s`, with 429 where a bucket is empty.

    `tells`: whether headers tell the limits, "arrival", "end" or ""; `every_s`: they are worked out anew at most so often;
    `reserves`: max_tokens is taken at the start and given back at the end, else what was generated is taken at the end.
    """

    requests: TokenBucket | None = None
    tokens_in: TokenBucket | None = None
    tokens_out: TokenBucket | None = None
    latency_s: float = 0.05
    jitter: float = 0.0
    tells: str = "arrival"
    every_s: float = 0.0
    reserves: bool = True
    retry_after: bool = True
    seed: int = 0
    arrived: int = 0
    refused: int = 0
    answered: int = 0
    out_in_all: float = 0.0
    in_all: float = 0.0
    last: float = 0.0
    _said: dict[str, str] = field(default_factory=dict)
    _said_at: float = -math.inf
    _random: random.Random = field(default_factory=random.Random)

    async def ask(self, tokens_in: int, tokens_out: int, most: int) -> tuple[dict[str, str], float | None, bool]:
        """One request. Gives: headers, retry-after, whether it was answered"""
        now = asyncio.get_running_loop().time()
        wanted = {"requests": 1.0, "input-tokens": float(tokens_in), "output-tokens": float(most if self.reserves else 1)}
        self.arrived += 1
        wait_s = 0.0
        for name, bucket in self._buckets().items():
            bucket.refill(now)
            wait_s = max(wait_s, (min(wanted[name], bucket.size) - bucket.level) * 60 / bucket.per_minute)
        if wait_s > 1e-9:
            self.refused += 1
            headers = self._headers()
            await asyncio.sleep(0.002)
            return headers, float(math.ceil(wait_s)) if self.retry_after else None, False
        for name, bucket in self._buckets().items():
            if name != "output-tokens" or self.reserves:
                bucket.level -= wanted[name]
        headers = self._headers()
        await asyncio.sleep(self.latency_s * (1 + self.jitter * (2 * self._random.random() - 1)))
        if bucket := self.tokens_out:
            bucket.refill(asyncio.get_running_loop().time())
            bucket.level = min(bucket.size, bucket.level + ((most - tokens_out) if self.reserves else -tokens_out))
        self.answered += 1
        self.in_all += tokens_in
        self.out_in_all += tokens_out
        self.last = asyncio.get_running_loop().time()
        return headers if self.tells == "arrival" else self._headers(), None, True

    def _buckets(self) -> dict[str, TokenBucket]:
        named = {"requests": self.requests, "input-tokens": self.tokens_in, "output-tokens": self.tokens_out}
        return {name: bucket for name, bucket in named.items() if bucket}

    def _headers(self) -> dict[str, str]:
        now = asyncio.get_running_loop().time()
        if not self.tells:
            return {}
        if now - self._said_at >= self.every_s:
            self._said, self._said_at = {}, now
            for name, bucket in self._buckets().items():
                bucket.refill(now)
                self._said[f"anthropic-ratelimit-{name}-limit"] = str(round(bucket.per_minute))
                self._said[f"anthropic-ratelimit-{name}-remaining"] = str(max(0, math.floor(bucket.level)))
        return self._said

    def share(self) -> float:
        """What was answered of what the tightest bucket permitted until the last answer."""
        used = {"requests": self.answered, "input-tokens": self.in_all, "output-tokens": self.out_in_all}
        for bucket in self._buckets().values():
            bucket.refill(max(bucket.at, self.last))
        return max(used[name] / bucket.permitted for name, bucket in self._buckets().items())


class Places:
    """What a provider of one server, or of several, tells its meter."""

    def __init__(self, number: int = 1) -> None:
        self.places = [f"host{n} no key" for n in range(number)]
        self.meter: Any = None

    def rank(self, let_in: Mapping[int, int]) -> Sequence[int]:
        return range(len(self.places))


def ask_for(tokens_in: int, max_tokens: int) -> Request:
    """A request of about so many tokens."""
    model = Model(provider="anthropic", name="small-world", params={"max_tokens": max_tokens})
    return Request(model=model, messages=(Turn(role="user", content="x" * (4 * tokens_in)),), stage="generate")


@dataclass(slots=True, kw_only=True)
class Work:
    """Requests to be made: how long they are, and how long their replies."""

    tokens_in: Callable[[random.Random], int] = lambda _: 100
    tokens_out: Callable[[random.Random], int] = lambda _: 60
    max_tokens: int = 256
    seed: int = 1


class Client:
    """One process: a pace, and the limits of one server, as the engine puts them together."""

    def __init__(self, limit: int | str, rates: Rates | None = None) -> None:
        self.clock = VirtualClock()
        self.pace = Pace(limit, None, 6 * 3600, self.clock)
        self.meter = ServerLimits(Places(), self.pace, lambda place, model: rates or Rates())

    async def work(self, server: LimitingServer, requests: int, work: Work) -> None:
        """Ask so often, twice as many flows alive as there are slots."""
        draw, numbers = random.Random(work.seed), iter(range(requests))

        async def flow() -> None:
            for _ in numbers:
                await self._one(server, work.tokens_in(draw), work.tokens_out(draw), work.max_tokens)

        await asyncio.gather(*(flow() for _ in range(2 * self.pace.most)))

    async def _one(self, server: LimitingServer, tokens_in: int, tokens_out: int, most: int) -> None:
        request = ask_for(tokens_in, most)
        while True:
            await self.pace.enter(request, self.meter)
            reply = None
            self.meter.server_for(request)
            headers, after_s, answered = await server.ask(tokens_in, tokens_out, most)
            if answered:
                reply = Reply(text="x", tokens_in=tokens_in, tokens_out=tokens_out)
                self.meter.answered(0, request, headers, reply)
            else:
                self.meter.limited(0, request, headers, after_s)
            self.pace.leave(request, self.meter, reply)
            if answered:
                self.pace.succeeded()
                return
