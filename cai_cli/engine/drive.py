"""Drive flows: every request goes ledger -> pace -> budget -> provider -> ledger -> budget, and only then back to its stage."""

from __future__ import annotations

import asyncio
import json
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from cai_cli.engine.budget import Budget
from cai_cli.engine.clock import Clock
from cai_cli.engine.ledger import Ledger, key_of
from cai_cli.engine.limits import ServerLimits
from cai_cli.engine.pace import Pace
from cai_cli.engine.rates import Found, Rates
from cai_cli.engine.systemic import Systemic
from cai_cli.engine.used import Used
from cai_cli.errors import CaiError, Fatal, Reject, Retry
from cai_cli.flow import Flow, Model, Outcome, Reply, Request
from cai_cli.providers import Metered, Provider
from cai_cli.remembered import Remembered

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
    tokens_cache_read: int = 0  # of tokens_in, and so are those written
    tokens_cache_write: int = 0
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
RatesOf = Callable[[str, str], Rates]


class Asker:
    """Answers requests for all flows of a run.

    `pace_for` gives the pace of a model's server, `connect` opens it, `rates_of` gives the rates of a place (host and key) and
    model. `in_flight` counts requests that are out or whose reply is not yet on disk: at a stop it is what may be billed twice.
    """

    def __init__(
        self, ledger: Ledger, budget: Budget, pace_for: Paces, connect: Connect, clock: Clock, rates_of: RatesOf | None = None
    ) -> None:
        self.ledger, self.budget, self.pace_for, self.connect, self.clock = ledger, budget, pace_for, connect, clock
        self.counts: defaultdict[str, Counts] = defaultdict(Counts)
        self.work = Work()
        self.trouble: Counter[str] = Counter()  # what was retried, by kind
        self.said: dict[str, str] = {}  # by kind: the server and its latest failure
        self.systemic = Systemic()
        self.refused: set[str] = set()  # reasons of this run's provisional failures
        self.stopping = False
        self.in_flight = 0
        self._writing = 0  # of these, replies that wait for the disk
        self.flights: dict[object, Flight] = {}  # the oldest first
        self._rates_of = rates_of or Found()
        self._providers: dict[tuple[object, ...], Provider] = {}
        self._limits: dict[int, ServerLimits] = {}  # by the id of their provider
        self._provider = Remembered(self._opened)
        self._flying: dict[bytes, asyncio.Future[Outcome] | None] = {}  # by key; a future where somebody else waits for it, too
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
        keys = [key_of(request) for request in requests]
        known = [self._known(key, request) for key, request in zip(keys, requests, strict=True)]
        missing = [at for at, outcome in enumerate(known) if outcome is None]
        # What is asked is claimed before anything is waited for: else another flow could buy it in between.
        asking = [self._asked(keys[at], requests[at], flown) for at in missing]
        await self._breathe()
        results = await asyncio.gather(*asking, return_exceptions=True)
        for at, result in zip(missing, results, strict=True):
            if isinstance(result, BaseException) and not isinstance(result, Reject):
                raise result
            known[at] = result
        return tuple(outcome for outcome in known if outcome is not None)

    async def outcome(self, request: Request, flown: _Flown | None = None) -> Outcome:
        """The reply to a request: from the ledger, from an identical request in flight, or bought, which `flown` notes."""
        key = key_of(request)
        if (known := self._known(key, request)) is None:
            return await self._asked(key, request, flown)
        await self._breathe()
        return known

    def _known(self, key: bytes, request: Request) -> Outcome | None:
        """What the ledger has."""
        if (known := self.ledger.get(key)) is not None:
            self.counts[request.stage].replayed += 1
            self._hits += 1
        return known

    async def _breathe(self) -> None:
        if self._hits >= BREATHE_EVERY:
            self._hits = 0
            await asyncio.sleep(0)

    def _asked(self, key: bytes, request: Request, flown: _Flown | None) -> Awaitable[Outcome]:
        """What is to be awaited for the outcome; from now on nobody else asks for it. Raises: Stopped"""
        if self.stopping:
            raise Stopped
        if flown is not None:
            flown.fresh += 1
        if key in self._flying:
            return self._shared(key)
        self._flying[key] = None
        return self._claimed(key, request)

    async def _claimed(self, key: bytes, request: Request) -> Outcome:
        try:
            outcome = await self._buy(key, request)
        except BaseException as error:
            if (others := self._flying.pop(key)) is not None:
                others.set_exception(error if isinstance(error, CaiError) else Stopped())
                others.exception()  # those who waited for it may be gone
            raise
        if (others := self._flying.pop(key)) is not None:
            others.set_result(outcome)
        return outcome

    def _shared(self, key: bytes) -> Awaitable[Outcome]:
        """What will come of the request with this key, which is in flight already."""
        future = self._flying[key] = self._flying[key] or asyncio.get_running_loop().create_future()
        return asyncio.shield(future)

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
        reserved, dollars = self.budget.to_reserve(request), 0.0
        limits = self._limits.get(id(provider))
        await self._admitted(request, pace, limits, reserved)
        try:
            reply = await self._ask(request, pace, limits, provider)
            pace.succeeded()
            self.systemic.answered()
            dollars = self.budget.cost(request.model, reply)
            written = self.ledger.put(key, request, reply, provider.host, dollars)
            await self._kept(written, lambda: pace.leave(request, limits, reply), pace)
            self.in_flight -= 1
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
                dollars = self.budget.most(request)
                await self.ledger.charge(dollars)
            raise
        except asyncio.CancelledError:
            reserved = reserved if dollars else 0.0  # it may be billed: its money stays set aside
            raise
        finally:
            self.budget.settle(reserved, dollars)

    async def _admitted(self, request: Request, pace: Pace, limits: ServerLimits | None, reserved: float) -> None:
        """Wait for a slot and, with it in hand, for money: what is set aside while others have the slots, a kill would cost."""
        while True:
            await pace.enter(request, limits)
            try:
                changed = await self.budget.take(reserved) if reserved > 0 else None
            except BaseException:
                pace.leave(request, limits)
                raise
            if changed is None:
                return
            pace.leave(request, limits)
            await changed

    async def _ask(self, request: Request, pace: Pace, limits: ServerLimits | None, provider: Provider) -> Reply:
        """Send it, slot in hand, which a reply keeps. A reply, and what is cancelled, stays in flight: it may be billed and is
        not on disk."""
        sent_at, flight, reply = self.clock.now(), object(), None
        self.in_flight += 1
        try:
            if self.stopping:
                raise Stopped
            deadline_s = min(900.0, 60.0 + request.model.max_tokens / 10)
            self.flights[flight] = Flight(provider.host, sent_at, deadline_s)
            reply = await provider.send(request, deadline_s)
            return reply
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.in_flight -= 1
            if isinstance(error, Retry) and error.kind == "rate_limit" and limits is None:  # else they know
                pace.limited(sent_at, error.after_s)
            raise
        finally:
            self.flights.pop(flight, None)
            if reply is None:
                pace.leave(request, limits)

    async def _kept(self, written: Awaitable[None], leave: Callable[[], None], pace: Pace) -> None:
        """Wait until a reply is on disk; what fails there is paid for, and stays in flight. `leave` gives its slot back."""
        # The slot is free before the commit: held through it, 64 slots would carry about 2,000 requests a second. But where as
        # many replies as there are slots wait for a slow disk, the next one holds its slot: a kill costs all of them.
        crowded = self._writing >= int(pace.slots)
        if not crowded:
            leave()
        self._writing += 1
        try:
            await written
        finally:
            self._writing -= 1
            if crowded:
                leave()

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
        counts.tokens_cache_read += reply.tokens_cache_read
        counts.tokens_cache_write += reply.tokens_cache_write
        counts.dollars += dollars

    def _opened(self, model: Model) -> Provider:
        key = _connection(model)
        if key not in self._providers:
            provider = self._providers[key] = self.connect(model)
            if isinstance(provider, Metered):
                provider.meter = self._limits[id(provider)] = ServerLimits(provider, self.pace_for(model), self._rates_of)
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
