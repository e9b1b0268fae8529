"""The limits of a run's requests: those that the user set, and those of every server that a provider asks, by model."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from cai_cli.engine.pace import Pace
from cai_cli.engine.rates import GENERATED, INPUT, REQUESTS, Cost, Rates, Ticket, told
from cai_cli.flow import Reply, Request
from cai_cli.providers import Metered

CHARACTERS_PER_TOKEN = 4  # of English, about; put right by what replies say
LEARN = 0.1  # the weight of the latest reply, once there are some
FIRST_SHARE = 0.5  # of max_tokens, before any reply tells how long they are
SHORTEST_BURST_S = 0.05  # of a limit of one's own goes at once when nothing was sent for a while, and one request at least
Open = Callable[..., Rates]


@dataclass(slots=True)
class _Stage:
    """What replies of one stage taught."""

    replies: int = 0
    tokens_in: float = 1.0  # that count, for each that was estimated
    tokens_out: float = FIRST_SHARE  # for each of max_tokens


@dataclass(slots=True)
class Costs:
    """What requests take, by their length and by what their stage's replies took before."""

    stages: defaultdict[tuple[str, str], _Stage] = field(default_factory=lambda: defaultdict(_Stage))

    def of(self, request: Request) -> Cost:
        """What a request will probably take."""
        stage, most = self.stages[request.stage, request.model.name], request.model.max_tokens
        return Cost(_estimate(request) * stage.tokens_in, most * stage.tokens_out, most)

    def learn(self, request: Request, reply: Reply) -> Cost:
        """What it took. Tokens that were read from a cache do not count."""
        stage, tokens_in = self.stages[request.stage, request.model.name], reply.tokens_in + reply.tokens_cache_write
        if not reply.estimated:
            stage.replies += 1
            weight = max(LEARN, 1 / stage.replies)
            stage.tokens_in += weight * (tokens_in / _estimate(request) - stage.tokens_in)
            stage.tokens_out += weight * (reply.tokens_out / request.model.max_tokens - stage.tokens_out)
        return Cost(tokens_in, reply.tokens_out, reply.tokens_out)


def _estimate(request: Request) -> float:
    return (len(request.system) + sum(len(turn.content) for turn in request.messages)) / CHARACTERS_PER_TOKEN + 1


class OwnLimits:
    """Limits that the user set, a minute, for all requests of a pace. `rates` may be shared with other processes."""

    def __init__(
        self, now: Callable[[], float], rates: Rates, requests: float | None = None, tokens_in: float | None = None,
        tokens_out: float | None = None,
    ) -> None:  # fmt: skip
        self._now, self._rates, self._costs = now, rates, Costs()
        self._counts_tokens = bool(tokens_in or tokens_out)
        self._tickets: dict[int, Ticket] = {}
        self.held: tuple[float, str] | None = None
        for kind, per_minute in ((REQUESTS, requests), (INPUT, tokens_in), (GENERATED, tokens_out)):
            if per_minute:
                rates.fix(now(), kind, per_minute, max(1.0, per_minute / 60 * SHORTEST_BURST_S))

    def _cost(self, request: Request | None) -> Cost:
        return self._costs.of(request) if request and self._counts_tokens else Cost()

    def wait_s(self, request: Request | None) -> float:
        """Seconds until this request may be sent."""
        wait_s = self._rates.wait_s(self._cost(request), self._now())
        self.held = self._rates.held
        return wait_s

    def take(self, request: Request | None) -> None:
        """Count it as sent."""
        self._tickets[id(request)] = self._rates.take(self._cost(request), self._now())

    def release(self, request: Request | None, reply: Reply | None) -> None:
        """Put right what it was counted for. Without a reply it stays counted: it may have been sent."""
        ticket = self._tickets.pop(id(request), None)
        if ticket and self._counts_tokens:
            used = self._costs.learn(request, reply) if request and reply else ticket.cost
            self._rates.settle(ticket, self._now(), used)


class _Gauge:
    """One server and model: its rates, and the requests that are out."""

    __slots__ = ("rates", "tickets")

    def __init__(self, rates: Rates) -> None:
        self.rates = rates
        self.tickets: dict[int, Ticket | float] = {}  # for one that is not counted, when it was sent


class ServerLimits:
    """What the servers of one provider allow, learnt from their answers: the provider's meter, and a pace's limits.

    `open_rates` opens the rates of a place (host and key) and a model; the provider says which of its servers it would ask next.
    """

    def __init__(self, provider: Metered, pace: Pace, open_rates: Callable[[str, str], Rates]) -> None:
        self._provider, self._pace, self._open, self._costs = provider, pace, open_rates, Costs()
        self._gauges: dict[tuple[int, str], _Gauge] = {}
        self._placed: dict[int, int] = {}  # requests that are let in and not sent yet, and to which server
        self._let_in: Counter[int] = Counter()  # how many of these, by server
        self._next = 0  # the server that the next request goes to
        self.held: tuple[float, str] | None = None

    def _gauge(self, server: int, model: str) -> _Gauge:
        found = self._gauges.get((server, model))
        if found is None:
            found = self._gauges[server, model] = _Gauge(self._open(self._provider.places[server], model))
        return found

    def wait_s(self, request: Request | None) -> float:
        """Seconds until one of the servers that can be asked has room for this request."""
        assert request is not None
        now, cost, shortest = self._pace.clock.now(), None, float("inf")
        for server in self._provider.rank(self._let_in):
            rates = self._gauge(server, request.model.name).rates
            if rates.leased(now):
                self._next = server
                return 0.0
            cost = cost or self._costs.of(request)
            wait_s = rates.wait_s(cost, now)
            if wait_s < shortest:
                shortest, self.held, self._next = wait_s, rates.held, server
            if wait_s == 0:
                break
        return shortest

    def take(self, request: Request | None) -> None:
        """Place it with the server that `wait_s` found for it: the least busy one that has room, else the one that will first."""
        assert request is not None
        now, server = self._pace.clock.now(), self._next
        gauge = self._gauge(server, request.model.name)
        if gauge.rates.leased(now):
            gauge.rates.lease()
            gauge.tickets[id(request)] = now
        else:
            gauge.tickets[id(request)] = gauge.rates.take(self._costs.of(request), now)
        self._placed[id(request)] = server
        self._let_in[server] += 1

    def release(self, request: Request | None, reply: Reply | None) -> None:
        """Take it back where it was let in, and not sent."""
        if request is None or (server := self.server_for(request)) is None:
            return
        gauge = self._gauge(server, request.model.name)
        ticket = gauge.tickets.pop(id(request), None)
        if isinstance(ticket, Ticket):
            gauge.rates.settle(ticket, self._pace.clock.now(), None)

    def server_for(self, request: Request) -> int | None:
        """The server that a request was let in for, which sends it now; None: for none."""
        server = self._placed.pop(id(request), None)
        if server is not None:
            self._let_in[server] -= 1
        return server

    def answered(self, server: int, request: Request, headers: Mapping[str, str], reply: Reply | None) -> None:
        """A server's answer, or with no headers that none came. `reply`: what was made of it; None: it was of no use"""
        gauge = self._gauge(server, request.model.name)
        ticket = gauge.tickets.pop(id(request), None)
        if isinstance(ticket, Ticket):
            now, used = self._pace.clock.now(), self._costs.learn(request, reply) if reply else Cost(ticket.cost.tokens_in)
            gauge.rates.settle(ticket, now, used)
            if self._hear(gauge, ticket, now, headers):
                self._pace.allowed()
        elif reply:
            gauge.rates.used(reply.tokens_in + reply.tokens_cache_write, reply.tokens_out)

    def limited(self, server: int, request: Request, headers: Mapping[str, str], after_s: float | None) -> None:
        """A 429 of a server, which asked for a wait of `after_s`."""
        gauge, now = self._gauge(server, request.model.name), self._pace.clock.now()
        ticket = gauge.tickets.pop(id(request), None)
        if ticket is None:
            return
        if not isinstance(ticket, Ticket):
            ticket = gauge.rates.late(ticket, self._costs.of(request))
        gauge.rates.settle(ticket, now, None)
        self._hear(gauge, ticket, now, headers)
        if not gauge.rates.limited(ticket, now, after_s, self._pace.backoff_s(gauge.rates.strikes + 1)):
            self._pace.cut(ticket.at)
            closed_s = gauge.rates.closed_s(now)
            self._pace.spread(now + closed_s, closed_s)

    @staticmethod
    def _hear(gauge: _Gauge, ticket: Ticket, now: float, headers: Mapping[str, str]) -> bool:
        if limits := told(headers):
            gauge.rates.heard(ticket, now, limits)
        return bool(limits)

    @property
    def closed_s(self) -> float:
        """Seconds until one of the servers is asked again that closed their gates by a 429; 0 where one is open."""
        now = self._pace.clock.now()
        return min((gauge.rates.closed_s(now) for gauge in self._gauges.values()), default=0.0)
