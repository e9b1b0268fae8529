"""How fast one server takes one key's requests for one model: by what its headers say, by its 429s where it says nothing.

Token buckets as the servers have them: a level that refills at limit / 60 a second. What `remaining` says is drained over about
two seconds and not spread until `reset`, since a bucket that is not empty at the end was not used. The state is a row of numbers,
so that several processes can share it (`engine.shared_rates`); every function is told the time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, MutableSequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from cai_cli.engine.buckets import CELLS, Bucket

OPENS_AT, STRIKES, STRUCK_AT, COUNT, EMPTY_AT, EMPTY_COUNT, LEARNED_AT, LEARNED_PER_S, BURST_S = range(9)
GENERAL = 9  # cells before those of the buckets
REQUESTS, INPUT, RESERVED, GENERATED, BOTH_RESERVED, BOTH_GENERATED, LEARNED = range(7)
SIZE = GENERAL + 7 * CELLS
NAMES = ("requests", "input tokens", "output tokens", "output tokens", "tokens", "tokens", "requests")
TOLD = {"requests": (REQUESTS,), "input-tokens": (INPUT,), "output-tokens": (RESERVED, GENERATED),
        "tokens": (BOTH_RESERVED, BOTH_GENERATED)}  # fmt: skip
PAIRS = ((RESERVED, GENERATED), (BOTH_RESERVED, BOTH_GENERATED))  # two ways in which servers count output
LEASE_S = 0.05  # far from every limit requests are not counted one by one, for so long
LEAST_LEASE, MOST_LEASE = 50, 5000  # requests that may go in that time: with fewer it is not far
KNOWN_AFTER = 20  # answers: a server that told no limit by then tells none
NOTICED = 0.2  # of what would be held back
MOST = 1e12  # a limit above this is none

# A server that tells no limit.
BACK_TO = 0.98  # of the rate that it turned out to take
LEAST_CUT = 0.85  # of the rate at which it said 429
GROWTH = (1.0, 0.002, 0.0005, 0.00002)  # by powers of the seconds since: slowly first, then faster
MOST_BURST_S, LEAST_BURST_S = 1.0, 0.05  # seconds' worth that it is trusted to have saved up
SHORTEST_S = 0.5  # between two 429s, to say how much it takes
SOON_S = 3.0  # a 429 so soon after the gate opened: it had not saved up that much


class Cost(NamedTuple):
    """What a request takes: input tokens, output tokens that are expected, and the most that it may take (`max_tokens`)."""

    tokens_in: float = 0.0
    tokens_out: float = 0.0
    most_out: float = 0.0

    @property
    def takes(self) -> tuple[float, ...]:
        """By bucket, what is counted when the request arrives."""
        tokens_in, _, most = self
        return (1.0, tokens_in, most, 0.0, tokens_in + most, tokens_in, 1.0)

    @property
    def net(self) -> tuple[float, ...]:
        """By bucket, what will have been counted when the reply is there."""
        tokens_in, out, _ = self
        return (1.0, tokens_in, out, out, tokens_in + out, tokens_in + out, 1.0)

    @property
    def needs(self) -> tuple[float, ...]:
        """By bucket, what must be in it."""
        tokens_in, out, most = self
        return (1.0, tokens_in, most, out, tokens_in + most, tokens_in + out, 1.0)


class Ticket(NamedTuple):
    """A request that was let through: when, for what, the how manieth, and where the buckets stood."""

    at: float
    cost: Cost
    number: float
    marks: tuple[float, ...]


def told(headers: Mapping[str, str]) -> dict[str, tuple[float, float]]:
    """The limits that an answer's headers tell: a minute, and what remains, by name. What cannot be true is left out.

    Reads anthropic-ratelimit-NAME-{limit,remaining} and x-ratelimit-{limit,remaining}-NAME, NAME one of requests, tokens and, of
    Anthropic, input-tokens and output-tokens. `tokens` beside those two is the tighter of them, and says nothing new.
    """
    found = {}
    for name, limit_name, remaining_name in _HEADERS:
        limit = headers.get(limit_name)
        if limit is not None and (pair := _pair(limit, headers.get(remaining_name, ""))):
            found[name] = pair
    if "input-tokens" in found or "output-tokens" in found:
        found.pop("tokens", None)
    return found


_HEADERS = (
    *((name, f"anthropic-ratelimit-{name}-limit", f"anthropic-ratelimit-{name}-remaining") for name in TOLD),
    *((name, f"x-ratelimit-limit-{name}", f"x-ratelimit-remaining-{name}") for name in ("requests", "tokens")),
)


def _pair(limit: str, remaining: str) -> tuple[float, float] | None:
    try:
        per_minute, left = float(limit), float(remaining)
    except ValueError:
        return None
    return (per_minute, left) if 0 < per_minute <= MOST and 0 <= left <= per_minute else None


class Rates:
    """The limits of one server for one key and model.

    `cells`: SIZE numbers, all 0 at first, which may be shared memory; `lock` is held while they are read and written.
    """

    def __init__(self, cells: MutableSequence[float] | None = None, lock: AbstractContextManager[Any] | None = None) -> None:
        self.cells: MutableSequence[float] = [0.0] * SIZE if cells is None else cells
        self.lock = lock or contextlib.nullcontext()
        self.buckets = tuple(Bucket(self.cells, GENERAL + kind * CELLS) for kind in range(7))
        self.held: tuple[float, str] | None = None  # the limit that held the latest request: per minute, and of what
        self._unused = 0.0  # of max_tokens, by the latest request
        self._leased, self._lease_ends, self._answers = 0, 0.0, 0
        self._used = [0.0, 0.0, 0.0]  # by requests that were not counted one by one: how many, and tokens in and out

    def fix(self, now: float, kind: int, per_minute: float, burst: float) -> None:
        """A limit that no server tells. `burst`: how much may go at once when nothing was sent for a while"""
        with self.lock:
            if not 0 < self.buckets[kind].per_s < per_minute / 60:  # who shares it and set less is not overruled
                self.buckets[kind].fix(now, per_minute / 60, burst)

    def wait_s(self, cost: Cost, now: float) -> float:
        """Seconds until a request of this cost may be sent; 0: it may now."""
        with self.lock:
            return self._wait_s(cost, now)

    def leased(self, now: float) -> bool:
        """Whether every limit is so far that a request may go without a ticket. Its answer is told to `used`, or to `late`."""
        return self._leased > 0 and now < self._lease_ends

    def lease(self) -> None:
        """A request goes without a ticket."""
        self._leased -= 1

    def used(self, tokens_in: float, tokens_out: float) -> None:
        """What a request without a ticket took."""
        used = self._used
        used[0] += 1
        used[1] += tokens_in
        used[2] += tokens_out
        self._answers += 1

    def late(self, at: float, cost: Cost) -> Ticket:
        """A ticket for a request that was sent without one, at that time: something happened to it."""
        with self.lock:
            self._leased = 0
            return self._take(cost, at)

    def take(self, cost: Cost, now: float) -> Ticket:
        """Count a request as sent, whether it may be or not. Gives: its ticket"""
        with self.lock:
            return self._take(cost, now)

    def _wait_s(self, cost: Cost, now: float) -> float:
        self.held, needs = None, cost.needs
        longest = self.cells[OPENS_AT] - now
        for kind in self._binding():
            wait_s = self.buckets[kind].wait_s(now, needs[kind])
            if wait_s > longest:
                longest = wait_s
                self.held = (60 * self.buckets[kind].per_s, NAMES[kind])
        return longest if longest > 1e-9 else 0.0

    def _binding(self) -> list[int]:
        """The buckets that count: of the two ways to count output the one that the headers bear out, at first the careful one."""
        buckets = self.buckets
        found = [kind for kind in (REQUESTS, INPUT, LEARNED) if buckets[kind].per_s > 0]
        for careful, other in PAIRS:
            if buckets[careful].per_s > 0:
                found.append(other if self._is_wrong(buckets[careful], buckets[other]) else careful)
            elif buckets[other].per_s > 0:
                found.append(other)
        return found

    def _is_wrong(self, careful: Bucket, other: Bucket) -> bool:
        """Whether the headers show that max_tokens is not held back: each reply is off by it, by the careful count."""
        off = careful.missed * 60 * careful.per_s
        return off > NOTICED * self._unused and other.missed < careful.missed / 2

    def _take(self, cost: Cost, now: float) -> Ticket:
        takes, net = cost.takes, cost.net
        self._unused = cost.most_out - cost.tokens_out
        if self._used[0]:
            self._note_used()
        self.cells[COUNT] += 1
        if self.buckets[LEARNED].per_s > 0:
            self._grow(now)
        marks = tuple([
            bucket.take(now, takes[kind], net[kind] - takes[kind], net[kind]) for kind, bucket in enumerate(self.buckets)
        ])  # fmt: skip
        if self._answers >= KNOWN_AFTER:
            self._begin_lease(cost, now)
        return Ticket(now, cost, self.cells[COUNT], marks)

    def _note_used(self) -> None:
        used = Cost(self._used[1], self._used[2])
        self.cells[COUNT] += self._used[0]
        for kind, amount in enumerate(used.net):
            self.buckets[kind].use(amount if kind not in (REQUESTS, LEARNED) else self._used[0])
        self._used = [0.0, 0.0, 0.0]

    def _begin_lease(self, cost: Cost, now: float) -> None:
        """Not after a 429 that no limit explains, and not without room for many."""
        needs, kinds = cost.needs, self._binding()
        if self.cells[OPENS_AT] > now or (not kinds and self.cells[EMPTY_AT]):
            return
        room = min((self.buckets[kind].ahead(LEASE_S, needs[kind]) for kind in kinds), default=MOST_LEASE)
        if room >= LEAST_LEASE:
            self._leased, self._lease_ends = int(min(room, MOST_LEASE)), now + LEASE_S

    def settle(self, ticket: Ticket, now: float, used: Cost | None) -> None:
        """Put right what a request was counted for. `used`: its real tokens; None: the server did not take it at all"""
        takes, net = ticket.cost.takes, ticket.cost.net
        real = used.net if used else (0.0,) * len(net)
        self._answers += 1
        with self.lock:
            if used is None:
                self.cells[COUNT] -= 1
                for bucket in self.buckets:
                    bucket.go_on(now)
            else:
                self.cells[STRIKES] = 0.0
            for kind, bucket in enumerate(self.buckets):
                bucket.settle(now, takes[kind] - real[kind], net[kind] - takes[kind], now - ticket.at)

    def heard(self, ticket: Ticket, now: float, limits: Mapping[str, tuple[float, float]]) -> None:
        """What an answer's headers say (`told`). Settle it first."""
        with self.lock:
            for name, (limit, remaining) in limits.items():
                for kind in TOLD[name]:
                    self.buckets[kind].heard(now, limit, remaining, ticket.marks[kind], ticket.at)

    def limited(self, ticket: Ticket, now: float, after_s: float | None, backoff_s: float = 0.0) -> bool:
        """A 429: the gate closes for what the server asks, else for `backoff_s` where no limit that we know explains it.

        Settle it as not taken, and hear its headers, first. Gives: whether a limit explains it
        """
        with self.lock:
            explained = self._emptied(ticket)
            first = ticket.at > self.cells[STRUCK_AT]  # of its burst
            if first and not explained:
                self._learn(ticket, now)
            wait_s = after_s if after_s is not None else 0.0 if explained or not first else backoff_s
            if first and not explained and self.cells[STRIKES] >= 3:
                wait_s = max(wait_s, backoff_s)  # what it asks for did not help
            self.cells[OPENS_AT] = max(self.cells[OPENS_AT], now + wait_s)
            if first:
                self.cells[STRIKES] += 1
                self.cells[STRUCK_AT] = now
            return explained

    @property
    def strikes(self) -> int:
        """Bursts of 429s since the last answer."""
        return int(self.cells[STRIKES])

    def closed_s(self, now: float) -> float:
        """Seconds until the gate that a 429 closed opens again."""
        return max(0.0, self.cells[OPENS_AT] - now)

    def _emptied(self, ticket: Ticket) -> bool:
        """Whether a bucket that the server told of was about empty: then it is taken to be so."""
        takes, needs = ticket.cost.takes, ticket.cost.needs
        known = [kind for kind in self._binding() if kind != LEARNED]
        low = [kind for kind in known if self.buckets[kind].was_low(ticket.marks[kind], takes[kind], needs[kind])]
        for kind in low:
            self.buckets[kind].empty(ticket.marks[kind], takes[kind], needs[kind])
        return bool(low)

    def _learn(self, ticket: Ticket, now: float) -> None:
        """Between two moments at which a server had nothing left it took just what it refills, or less where it was full between.

        At the rate of the second moment it was taken too much; so what it refills lies between the two.
        """
        cells = self.cells
        since_s, taken = ticket.at - cells[EMPTY_AT], ticket.number - 1 - cells[EMPTY_COUNT]
        soon = ticket.at - cells[OPENS_AT] < SOON_S
        if cells[EMPTY_AT] and since_s >= SHORTEST_S and taken > 0:
            burst_s = cells[BURST_S] or 2 * MOST_BURST_S
            cells[BURST_S] = max(LEAST_BURST_S, min(MOST_BURST_S, burst_s / 2 if soon else burst_s))
            per_s = max(taken / since_s, LEAST_CUT * self.buckets[LEARNED].per_s)
            cells[LEARNED_PER_S], cells[LEARNED_AT] = BACK_TO * per_s, now
            self._grow(now)
        cells[EMPTY_AT], cells[EMPTY_COUNT] = ticket.at, ticket.number - 1
        self.buckets[LEARNED].drop()

    def _grow(self, now: float) -> None:
        cells = self.cells
        age_s = max(0.0, now - cells[LEARNED_AT])
        per_s = cells[LEARNED_PER_S] * sum(part * age_s**power for power, part in enumerate(GROWTH))
        self.buckets[LEARNED].fix(now, per_s, max(1.0, cells[BURST_S] * per_s))


class Found:
    """Opens the rates of this process alone: the same ones for the same place and model."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str], Rates] = {}

    def __call__(self, place: str, model: str) -> Rates:
        """The rates of a place (host and key label) and model."""
        return self._found.setdefault((place, model), Rates())
