"""Pace, in virtual time, so that an outage lasts a moment."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from virtual import VirtualClock, run

from cai_cli.engine.limits import OwnLimits
from cai_cli.engine.pace import ALLOWANCE, AUTO_START, PROBE_EVERY_S, RETRY_COST, Pace
from cai_cli.engine.rates import Rates
from cai_cli.errors import Exit, Fatal, Retry

HOUR_S = 3600.0


class Server:
    """Takes `latency_s` for a request and answers as `verdict(now)` says: None for a reply, else what went wrong."""

    def __init__(self, pace: Pace, verdict: Callable[[float], Retry | None], latency_s: float = 0.5) -> None:
        self.pace, self.verdict, self.latency_s = pace, verdict, latency_s
        self.sent: list[float] = []
        self.replied: list[float] = []
        self.most_in_flight = 0
        self.hangs: list[float] = []  # seconds that the next probes of an outage take

    async def request(self, latency_s: float | None = None) -> None:
        """One request until it is answered, as the engine puts it."""
        tries = 0
        while (retry := await self._once(latency_s)) is not None:
            tries += 1
            await self.pace.failed(retry, tries, "the.host:9")

    async def _once(self, latency_s: float | None) -> Retry | None:
        clock = self.pace.clock
        await self.pace.enter()
        sent_at = clock.now()
        self.sent.append(sent_at)
        self.most_in_flight = max(self.most_in_flight, self.pace.in_flight)
        hang_s = self.hangs.pop() if self.hangs and self.pace.outage_since is not None else None
        await asyncio.sleep(hang_s or (self.latency_s if latency_s is None else latency_s))
        retry = self.verdict(clock.now())
        if retry is None:
            self.replied.append(clock.now())
        elif retry.kind == "rate_limit":
            self.pace.limited(sent_at, retry.after_s)
        self.pace.leave()
        if retry is None:
            self.pace.succeeded()
        return retry


def make_pace(limit: int | str = "auto", max_outage_s: float = 6 * HOUR_S) -> Pace:
    return Pace(limit, None, max_outage_s, VirtualClock())


def always_well(now: float) -> None:
    return None


# Slots


@settings(max_examples=60, deadline=None)
@given(limit=st.integers(1, 8), latencies=st.lists(st.floats(0.0, 5.0), min_size=1, max_size=60))
def test_every_waiter_gets_through_and_never_more_than_the_limit_at_once(limit: int, latencies: list[float]) -> None:
    server = Server(make_pace(limit), always_well)

    async def all_of_them() -> None:
        await asyncio.gather(*map(server.request, latencies))

    run(all_of_them())
    assert len(server.replied) == len(latencies)
    assert server.most_in_flight <= limit
    assert server.pace.in_flight == 0


@settings(max_examples=60, deadline=None)
@given(
    kinds=st.lists(st.sampled_from(["ok", "rate_limit", "rate_limit:0", "rate_limit:7", "server", "timeout"]), max_size=250),
    latencies=st.lists(st.floats(0.0, 5.0), min_size=1, max_size=40),
)
def test_nobody_is_forgotten_whatever_the_server_says(kinds: list[str], latencies: list[float]) -> None:
    script = iter(kinds)

    def verdict(now: float) -> Retry | None:
        kind, _, after = next(script, "ok").partition(":")
        return None if kind == "ok" else Retry(kind, after_s=float(after) if after else None)

    server = Server(make_pace(6), verdict)

    async def all_of_them() -> None:
        await asyncio.gather(*map(server.request, latencies))

    run(all_of_them())
    assert len(server.replied) == len(latencies)
    assert server.most_in_flight <= 6


def test_a_cancelled_waiter_does_not_take_a_turn_from_another() -> None:
    server = Server(make_pace(1), always_well)

    async def cancel_the_second() -> None:
        first, second, third = (asyncio.create_task(server.request()) for _ in range(3))
        await asyncio.sleep(0.1)
        second.cancel()
        await asyncio.gather(first, third)

    run(cancel_the_second())
    assert len(server.replied) == 2


def test_slots_grow_by_one_a_round_trip_up_to_the_most() -> None:
    server = Server(make_pace(), always_well, latency_s=1.0)

    async def work(requests: int) -> None:
        await asyncio.gather(*(server.request() for _ in range(requests)))

    run(work(AUTO_START))
    assert AUTO_START + 0.9 < server.pace.slots <= AUTO_START + 1
    server.pace.slots = 255.9
    run(work(1000))
    assert server.pace.slots == server.pace.most == 256


# Rate limits


def test_a_429_closes_the_gate_for_all_until_its_retry_after() -> None:
    refused: list[float] = []

    def verdict(now: float) -> Retry | None:
        if refused:
            return None
        refused.append(now)
        return Retry("rate_limit", after_s=30.0)

    server = Server(make_pace(4), verdict)

    async def all_of_them() -> None:
        await asyncio.gather(*(server.request() for _ in range(12)))

    run(all_of_them())
    assert refused == [0.5]
    assert len([at for at in server.sent if 0.5 < at < 30.5]) == 0
    assert len(server.sent) == 13
    assert min(at for at in server.sent if at > 0.5) <= 30.5 + 1.0


@pytest.mark.parametrize("after_s", [None, 0.0, 0.2, 30.0])
def test_one_burst_of_429s_halves_the_slots_once(after_s: float | None) -> None:
    """Also when those that were out come back after the gate has opened again."""
    server = Server(make_pace(16), lambda now: Retry("rate_limit", after_s=after_s) if now < 9 else None)

    async def burst() -> float:
        tasks = [asyncio.create_task(server.request(latency)) for latency in (1.0, *[4.0] * 15)]
        await asyncio.sleep(4.1)
        slots = server.pace.slots
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return slots

    assert run(burst()) == 8


def test_a_second_burst_halves_again_and_one_slot_is_always_left() -> None:
    server = Server(make_pace(4), lambda now: Retry("rate_limit", after_s=1.0) if now < 20 else None)

    async def all_of_them() -> None:
        await asyncio.gather(*(server.request() for _ in range(8)))

    run(all_of_them())
    assert len(server.replied) == 8
    assert server.pace.slots >= 1
    assert len(server.sent) < 8 + 4 + 2 + 20  # 4, then 2, then one a second until the server takes them


def test_a_server_that_names_no_wait_is_left_alone_longer_and_longer() -> None:
    server = Server(make_pace(1), lambda now: Retry("rate_limit") if now < 600 else None)
    run(server.request())
    assert len(server.sent) < 60  # a backoff that did not grow would knock about 1,200 times


def test_requests_per_minute_is_kept_over_any_minute() -> None:
    server = Server(make_pace(50), always_well)

    async def all_of_them() -> None:
        server.pace.own = (OwnLimits(server.pace.clock.now, Rates(), requests=60),)
        await asyncio.gather(*(server.request() for _ in range(90)))

    run(all_of_them())
    gaps = [later - earlier for earlier, later in zip(server.sent, server.sent[1:], strict=False)]
    assert min(gaps) >= 1.0 - 1e-9
    assert server.sent[-1] < 89 * 1.1 + 1


# Outages


def outage_of(seconds: float, kind: str = "server") -> tuple[Server, list[float]]:
    """200 workers with plenty to do, a server that fails for so long. Gives: the server, and when it refused"""
    refused: list[float] = []

    def verdict(now: float) -> Retry | None:
        if 10 < now < 10 + seconds:
            refused.append(now)
            return Retry(kind)
        return None

    server = Server(make_pace(200), verdict)

    async def worker() -> None:
        while server.pace.clock.now() < 10 + seconds + 100:
            await server.request()

    async def all_of_them() -> None:
        await asyncio.gather(*(worker() for _ in range(200)))

    run(all_of_them())
    return server, refused


def test_in_an_outage_one_request_probes_every_half_minute() -> None:
    server, refused = outage_of(600)
    first = [at for at in refused if at < 20]
    assert len(first) <= 200 + ALLOWANCE // RETRY_COST
    assert len(refused) - len(first) <= 600 / PROBE_EVERY_S + 1
    assert server.most_in_flight <= 200


def test_all_workers_are_back_within_31_s_of_the_servers_return() -> None:
    server, _ = outage_of(600)
    back = min(at for at in server.sent if at >= 610)
    assert back <= 610 + PROBE_EVERY_S + 1
    assert len([at for at in server.sent if back < at <= 610 + 31 + 1]) >= 199


def test_a_failure_waits_with_full_jitter_before_there_is_an_outage() -> None:
    pace = make_pace(1)
    waits = [[pace.backoff_s(tries) for _ in range(200)] for tries in range(1, 12)]
    for tries, drawn in enumerate(waits):
        most = min(60.0, 2.0**tries)
        assert 0 <= min(drawn) < 0.1 * most
        assert 0.9 * most < max(drawn) <= most


def test_a_server_that_names_its_wait_is_not_asked_before() -> None:
    server = Server(make_pace(1), lambda now: Retry("server", after_s=45.0) if now < 1 else None)
    run(server.request())
    assert server.sent[1] >= 45.5


def test_an_outage_that_lasts_too_long_stops_the_run() -> None:
    server = Server(make_pace(4, max_outage_s=HOUR_S), lambda now: Retry("connection"))

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(server.request() for _ in range(4)), return_exceptions=True)

    errors = run(all_of_them())
    assert [type(error) for error in errors] == [Fatal] * 4
    assert errors[0].code is Exit.UNREACHABLE
    assert HOUR_S < server.sent[-1] + PROBE_EVERY_S < HOUR_S + 1200


def ends(server: Server, requests: int) -> tuple[list[BaseException | None], float]:
    """What so many requests at once came to, and when the last of them did, in seconds."""

    async def all_of_them() -> list[BaseException | None]:
        return await asyncio.gather(*(server.request() for _ in range(requests)), return_exceptions=True)

    async def timed() -> tuple[list[BaseException | None], float]:
        return await all_of_them(), server.pace.clock.now()

    found: tuple[list[BaseException | None], float] = run(timed())
    return found


@pytest.mark.parametrize("kind", ["server", "connection", "timeout"])
@pytest.mark.parametrize(("limit", "requests"), [(2, 2), (2, 9), (200, 400)])
def test_the_longest_outage_is_kept_however_few_requests_are_out(kind: str, limit: int, requests: int) -> None:
    server = Server(make_pace(limit, max_outage_s=5.0), lambda now: Retry(kind, "nobody listens"), latency_s=0.01)
    errors, at = ends(server, requests)
    assert {str(error) for error in errors} == {"the.host:9 did not answer for 5s: nobody listens"}
    assert {error.code for error in errors if isinstance(error, Fatal)} == {Exit.UNREACHABLE}
    assert 5.0 < at < 5.1


def test_the_longest_outage_is_told_as_it_was_configured_and_no_host_twice() -> None:
    pace = Pace(1, None, 90.0, VirtualClock(), max_outage="1m30s")
    (error,), _ = ends(Server(pace, lambda now: Retry("connection", "the.host:9: connection refused")), 1)
    assert str(error) == "the.host:9 did not answer for 1m30s: connection refused"


def test_a_long_wait_that_a_server_asked_for_ends_with_the_longest_outage() -> None:
    server = Server(make_pace(1, max_outage_s=60.0), lambda now: Retry("server", after_s=3000.0))
    errors, at = ends(server, 1)
    assert isinstance(errors[0], Fatal)
    assert at < 61


def test_those_who_wait_for_a_turn_learn_that_an_outage_was_too_long() -> None:
    """The only request that is out hangs: nobody else is there to notice."""
    server = Server(make_pace(1, max_outage_s=60.0), lambda now: Retry("timeout"))

    async def first_fails_then_hangs() -> float:
        hanging = asyncio.create_task(server.request(0.5))
        await asyncio.sleep(0.6)
        server.pace.in_flight += 1  # as if it were out again, for ever
        with pytest.raises(Fatal, match="did not answer for 60s"):
            await server.pace.enter()
        with pytest.raises(Fatal):
            await hanging
        return server.pace.clock.now()

    assert 60.5 < run(first_fails_then_hangs()) < 61


def test_a_success_sets_the_clock_of_an_outage_back() -> None:
    script = iter([Retry("server", after_s=8.0), Retry("server", after_s=8.0), None] * 5)
    server = Server(make_pace(1, max_outage_s=20.0), lambda now: next(script))
    errors, at = ends(server, 5)
    assert errors == [None] * 5
    assert at > 2 * 20


@pytest.mark.parametrize(("kind", "after_s"), [("rate_limit", 30.0), ("protocol", None)])
def test_an_answer_that_is_no_use_does_not_begin_an_outage(kind: str, after_s: float | None) -> None:
    server = Server(make_pace(1, max_outage_s=5.0), lambda now: Retry(kind, after_s=after_s) if now < 25 else None)
    assert ends(server, 1)[0] == [None]


def test_probes_stay_within_the_limit_while_older_requests_hang() -> None:
    """A limit is a promise to the server; in an outage too."""
    server = Server(make_pace(3), lambda now: Retry("timeout") if now < 3000 else None, latency_s=100.0)

    async def all_of_them() -> None:
        await asyncio.gather(*(server.request() for _ in range(30)))

    run(all_of_them())
    assert server.most_in_flight <= 3
    assert len(server.replied) == 30


def test_a_probe_that_hangs_does_not_hold_up_the_next_one() -> None:
    server = Server(make_pace(20), lambda now: Retry("server") if now < 100 else None)
    server.hangs = [5000.0]

    async def all_of_them() -> None:
        await asyncio.gather(*(server.request() for _ in range(150)))

    run(all_of_them())
    assert server.hangs == []
    assert min(server.replied) <= 100 + PROBE_EVERY_S + 1
    assert sorted(server.replied)[-2] < 200
