"""Drive flows: every request goes ledger -> pace -> budget -> provider -> ledger -> budget, and only then back to its stage."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from cai_cli.engine.budget import Budget
from cai_cli.engine.clock import Clock
from cai_cli.engine.ledger import Ledger, key_of
from cai_cli.engine.pace import Pace
from cai_cli.engine.systemic import Systemic
from cai_cli.engine.used import Used
from cai_cli.errors import CaiError, Fatal, Reject, Retry
from cai_cli.flow import Flow, Model, Outcome, Reply, Request
from cai_cli.providers import Provider

T = TypeVar("T")
BREATHE_EVERY = 64  # ledger hits never suspend: give the loop a turn now and then
PROTOCOL_TRIES = 3  # replies that cannot be read before the row is rejected
UNREADABLE = "200 unreadable"  # the signature of a reply that is none


class Stopped(Exception):
    """The run is stopping: this flow is not asked on. Its replies are in the ledger, it will be replayed."""


@dataclass(slots=True)
class Counts:
    """What one stage asked in this run."""

    requests: int = 0  # replies bought
    replayed: int = 0  # replies found in the ledger
    retries: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    dollars: float = 0.0


@dataclass(slots=True)
class Usage:
    """What the replies that one flow used add up to, bought now or replayed: it depends on the data alone."""

    replies: Counter[str] = field(default_factory=Counter)
    tokens_in: Counter[str] = field(default_factory=Counter)
    tokens_out: Counter[str] = field(default_factory=Counter)
    models: defaultdict[str, Used] = field(default_factory=lambda: defaultdict(Used))

    def add(self, request: Request, reply: Reply) -> None:
        tokens_in = reply.tokens_in + reply.tokens_cache_read + reply.tokens_cache_write
        self.replies[request.stage] += 1
        self.tokens_in[request.stage] += tokens_in
        self.tokens_out[request.stage] += reply.tokens_out
        asked = (request.model.provider, request.model.name, reply.model)
        self.models[request.stage].add(asked, 1, tokens_in, reply.tokens_out, tokens_in)


@dataclass(slots=True)
class _Flown:
    """One flow, as this run had it."""

    used: int = 0  # replies
    dollars: float = 0.0  # what they cost, in whatever run they were bought
    fresh: int = 0  # requests that the ledger had no reply to


@dataclass(slots=True)
class Work:
    """What the flows of a run came to, for its speed and for what the rest will cost."""

    ended: int = 0
    fresh: int = 0  # of these, flows that did not come from the ledger alone
    dollars: float = 0.0  # what the replies of those that ended cost, in whatever run they were bought
    open_dollars: float = 0.0  # the same of the flows that go on

    def use(self, flown: _Flown, dollars: float) -> None:
        flown.used += 1
        flown.dollars += dollars
        self.open_dollars += dollars

    def end(self, flown: _Flown) -> None:
        self.ended += 1
        self.fresh += flown.fresh > 0 or flown.used == 0
        self.dollars += flown.dollars
        self.open_dollars -= flown.dollars


class Flight(NamedTuple):
    """A request that was sent and not answered yet."""

    host: str
    sent_at: float  # on the run's clock
    deadline_s: float


Connect = Callable[[Model], Provider]
Paces = Callable[[Model], Pace]


class Asker:
    """Answers requests for all flows of a run.

    `pace_for` gives the pace of a model's server, `connect` opens it. `in_flight` counts requests that are out or whose reply
    is not yet on disk: at a stop it is what may be billed twice.
    """

    def __init__(self, ledger: Ledger, budget: Budget, pace_for: Paces, connect: Connect, clock: Clock) -> None:
        self.ledger, self.budget, self.pace_for, self.connect, self.clock = ledger, budget, pace_for, connect, clock
        self.counts: defaultdict[str, Counts] = defaultdict(Counts)
        self.work = Work()
        self.trouble: Counter[str] = Counter()  # what was retried, by kind
        self.said: dict[str, str] = {}  # by kind: the server and its latest failure
        self.systemic = Systemic()
        self.refused: set[str] = set()  # reasons of this run's provisional failures
        self.stopping = False
        self.in_flight = 0
        self.flights: dict[object, Flight] = {}  # the oldest first
        self._providers: dict[tuple[object, ...], Provider] = {}
        self._flying: dict[bytes, asyncio.Future[Outcome]] = {}
        self._hits = 0

    async def drive(self, flow: Flow[T], usage: Usage) -> T:
        """Run a flow to its end. Gives: what it returns. Raises: Stopped, Fatal"""
        flown = _Flown()
        try:
            requests = next(flow)
            while True:
                outcomes = await self.wave(requests, flown)
                for request, outcome in zip(requests, outcomes, strict=True):
                    if isinstance(outcome, Reply):
                        usage.add(request, outcome)
                        self.work.use(flown, self.budget.cost(request.model, outcome))
                requests = flow.send(outcomes)
        except StopIteration as end:
            self.work.end(flown)
            result: T = end.value
            return result
        finally:
            flow.close()

    async def wave(self, requests: tuple[Request, ...], flown: _Flown | None = None) -> tuple[Outcome, ...]:
        """Ask several requests at once; those in flight are waited for even when one of them stops the run."""
        if len(requests) == 1:
            return (await self.outcome(requests[0], flown),)
        results = await asyncio.gather(*(self.outcome(one, flown) for one in requests), return_exceptions=True)
        outcomes: list[Outcome] = []
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, Reject):
                raise result
            outcomes.append(result)
        return tuple(outcomes)

    async def outcome(self, request: Request, flown: _Flown | None = None) -> Outcome:
        """The reply to a request: from the ledger, from an identical request in flight, or bought, which `flown` notes."""
        key = key_of(request)
        if (known := self.ledger.get(key)) is not None:
            self.counts[request.stage].replayed += 1
            await self._breathe()
            return known
        if self.stopping:
            raise Stopped
        if flown is not None:
            flown.fresh += 1
        if (flying := self._flying.get(key)) is not None:
            return await asyncio.shield(flying)
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._flying[key] = future
        try:
            outcome = await self._buy(key, request)
        except BaseException as error:
            future.set_exception(error if isinstance(error, CaiError) else Stopped())
            future.exception()  # nobody may be waiting for it
            raise
        finally:
            del self._flying[key]
        future.set_result(outcome)
        return outcome

    async def _breathe(self) -> None:
        self._hits += 1
        if self._hits % BREATHE_EVERY == 0:
            await asyncio.sleep(0)

    async def _buy(self, key: bytes, request: Request) -> Outcome:
        pace, provider = self.pace_for(request.model), self._provider(request.model)
        tries, unreadable = 0, 0
        while True:
            try:
                return await self._send(key, request, pace, provider, first=tries == 0)
            except Reject as reject:
                await self.ledger.fail(key, request, reject)
                return reject
            except Retry as retry:
                tries += 1
                self._note_retry(request, retry, provider.host)
                unreadable += retry.kind == "protocol"
                if unreadable >= PROTOCOL_TRIES:
                    failure = Reject("protocol_error", retry.detail, UNREADABLE)
                    await self.ledger.fail(key, request, failure)
                    return failure
                await pace.failed(retry, tries, provider.host)

    async def _send(self, key: bytes, request: Request, pace: Pace, provider: Provider, first: bool) -> Reply:
        reserved, dollars = self.budget.most(request), 0.0
        await self._admitted(pace, reserved)
        try:
            with self._flight():
                reply = await self._ask(request, pace, provider)
                pace.succeeded()
                self.systemic.answered()
                dollars = self.budget.cost(request.model, reply)
                await self._keep(key, request, reply, provider.host, dollars)
            self._count(request, reply, dollars)
            return reply
        except Reject as reject:
            pace.succeeded()
            await self._suspect(reject, first)
            raise
        except Retry as retry:
            if retry.kind == "protocol":
                await self._suspect(Reject("protocol_error", retry.detail, UNREADABLE), first)
            if retry.kind == "timeout":  # the server may have finished, and billed, what we no longer waited for
                dollars = reserved
                await self.ledger.charge(dollars)
            raise
        finally:
            self.budget.settle(reserved, dollars)

    async def _admitted(self, pace: Pace, reserved: float) -> None:
        """Wait for a slot and, with it in hand, for money: what is set aside while others have the slots, a kill would cost."""
        while True:
            await pace.enter()
            try:
                changed = await self.budget.take(reserved)
            except BaseException:
                pace.leave()
                raise
            if changed is None:
                return
            pace.leave()
            await changed

    async def _ask(self, request: Request, pace: Pace, provider: Provider) -> Reply:
        sent_at, deadline_s = self.clock.now(), min(900.0, 60.0 + request.model.max_tokens / 10)
        flight = object()
        try:
            if self.stopping:
                raise Stopped
            self.flights[flight] = Flight(provider.host, sent_at, deadline_s)
            return await provider.send(request, deadline_s)
        except Retry as retry:
            if retry.kind == "rate_limit":
                pace.limited(sent_at, retry.after_s)
            raise
        finally:
            self.flights.pop(flight, None)
            # The slot is free before the commit: held through it, 64 slots would carry about 2,000 requests a second.
            pace.leave()

    async def _keep(self, key: bytes, request: Request, reply: Reply, host: str, dollars: float) -> None:
        try:
            await self.ledger.put(key, request, reply, host, dollars)
        except Exception:
            self.in_flight += 1  # stays counted: it is paid for, and not on disk
            raise

    @contextmanager
    def _flight(self) -> Iterator[None]:
        self.in_flight += 1
        try:
            yield
        except asyncio.CancelledError:
            raise  # stays counted: it may be billed and its reply is not on disk
        except BaseException:
            self.in_flight -= 1
            raise
        self.in_flight -= 1

    async def _suspect(self, reject: Reject, first: bool) -> None:
        """Count a refusal; when it turns out systemic, forget those written for it: no row was at fault."""
        self.refused.add(reject.reason)
        try:
            self.systemic.refused(reject, first)
        except Fatal:
            await self.ledger.void_failures(reject.signature)
            raise

    def _note_retry(self, request: Request, retry: Retry, host: str) -> None:
        self.counts[request.stage].retries += 1
        self.trouble[retry.kind] += 1
        named = any(retry.detail.startswith(f"{one}: ") for one in host.split(","))  # of a fleet, the one that failed
        self.said[retry.kind] = retry.detail if named else f"{host}: {retry.detail}"

    def _count(self, request: Request, reply: Reply, dollars: float) -> None:
        counts = self.counts[request.stage]
        counts.requests += 1
        counts.tokens_in += reply.tokens_in + reply.tokens_cache_read + reply.tokens_cache_write
        counts.tokens_out += reply.tokens_out
        counts.dollars += dollars

    def _provider(self, model: Model) -> Provider:
        key = _connection(model)
        if key not in self._providers:
            self._providers[key] = self.connect(model)
        return self._providers[key]

    def opened(self, model: Model) -> Provider | None:
        """The provider that answers for a model; None before the first request."""
        return self._providers.get(_connection(model))

    async def close(self) -> None:
        for provider in self._providers.values():
            await provider.close()


def _connection(model: Model) -> tuple[object, ...]:
    """What models share that are asked through the same provider."""
    # A provider refuses at once what it cannot send, so models that differ in that are connected apart.
    told = {name: model.params.get(name) for name in ("world", "thinking", "top_k")}
    return (model.provider, model.base_urls, model.key_env, json.dumps(told, sort_keys=True))
