"""Rates: as fast as a server's limits allow and no faster, learnt from headers or from 429s; against servers in virtual time."""

from __future__ import annotations

import asyncio
import os
import random
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from outside import PYTHONPATH
from virtual import Client, LimitingServer, Places, TokenBucket, VirtualClock, Work, ask_for, run

from cai_cli.engine.buckets import FORGET_S
from cai_cli.engine.limits import OwnLimits, ServerLimits
from cai_cli.engine.pace import Pace
from cai_cli.engine.rates import GENERATED, INPUT, KNOWN_AFTER, REQUESTS, RESERVED, SIZE, Cost, Rates, told
from cai_cli.engine.servers import why
from cai_cli.engine.shared_rates import SharedRates
from cai_cli.errors import Retry
from cai_cli.flow import Reply
from cai_cli.providers._fleet import Endpoint, Fleet, endpoint
from cai_cli.providers._http import Http
from cai_cli.providers._keys import check_address
from cai_cli.providers.anthropic import Messages

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))

import storm

LIMITS = {
    name: f"anthropic-ratelimit-{name}" for name in ("requests", "input-tokens", "output-tokens", "tokens")
}  # fmt: skip


def headers(**limits: tuple[object, object]) -> dict[str, str]:
    """Rate headers: name, with _ for -, and limit and remaining."""
    found = {}
    for name, (limit, remaining) in limits.items():
        prefix = LIMITS[name.replace("_", "-")]
        found |= {f"{prefix}-limit": str(limit), f"{prefix}-remaining": str(remaining)}
    return found


# Headers


def test_limits_are_read_in_both_dialects() -> None:
    assert told(headers(requests=(6000, 99), input_tokens=(50_000, 0))) == {"requests": (6000, 99), "input-tokens": (50_000, 0)}
    theirs = {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "59", "x-ratelimit-limit-tokens": "9",
              "x-ratelimit-remaining-tokens": "3"}  # fmt: skip
    assert told(theirs) == {"requests": (60, 59), "tokens": (9, 3)}


def test_the_tighter_of_two_token_limits_says_nothing_beside_them() -> None:
    assert set(told(headers(tokens=(60, 5), output_tokens=(60, 5)))) == {"output-tokens"}


@pytest.mark.parametrize(
    ("limit", "remaining"),
    [(0, 0), (-5, 0), ("nan", 1), ("inf", 1), (60, "nan"), (60, -1), (60, 61), ("many", 5), (60, ""), (10**30, 5), ("", "")],
)
def test_what_cannot_be_true_is_ignored(limit: object, remaining: object) -> None:
    assert told(headers(requests=(limit, remaining))) == {}


# Properties of the buckets

costs = st.builds(Cost, st.floats(1, 500), st.floats(1, 200), st.floats(200, 1000))


@settings(max_examples=60, deadline=None)
@given(
    per_minute=st.floats(6, 6000),
    burst=st.integers(1, 20),
    idles=st.lists(st.sampled_from([0.0, 0.0, 0.0, 0.3, 5.0]), min_size=5, max_size=80),
)
def test_never_more_than_the_limit_over_any_window_plus_the_burst(per_minute: float, burst: int, idles: list[float]) -> None:
    rates, now, sent = Rates(), 100.0, []
    rates.fix(now, REQUESTS, per_minute, burst)
    for idle_s in idles:
        now += idle_s
        while wait_s := rates.wait_s(Cost(), now):
            now += wait_s
        rates.take(Cost(), now)
        sent.append(now)
    for first in range(len(sent)):
        for last in range(first, len(sent)):
            assert last - first + 1 <= burst + (sent[last] - sent[first]) * per_minute / 60 + 1e-6


@settings(max_examples=60, deadline=None)
@given(sent=st.lists(st.tuples(costs, st.one_of(st.none(), costs)), min_size=1, max_size=12), order=st.randoms())
def test_refunds_conserve(sent: list[tuple[Cost, Cost | None]], order: random.Random) -> None:
    """When all replies are there, what was taken is what they used, in whatever order; what was not sent took nothing."""
    rates, size = Rates(), 1e6
    for kind in (REQUESTS, INPUT, RESERVED, GENERATED):
        rates.fix(0.0, kind, 60e6, 2 * size)
        rates.buckets[kind].use(size)
    tickets = [(rates.take(cost, 0.0), used) for cost, used in sent]
    order.shuffle(tickets)
    for ticket, used in tickets:
        rates.settle(ticket, 0.0, used)
    used = [one for _, one in sent if one]
    left = {kind: size - rates.buckets[kind].mark() for kind in (REQUESTS, INPUT, RESERVED, GENERATED)}
    tokens_out = sum(one.tokens_out for one in used)
    expected = {REQUESTS: len(used), INPUT: sum(one.tokens_in for one in used), RESERVED: tokens_out, GENERATED: tokens_out}
    assert left == pytest.approx(expected, abs=1e-3)


def test_the_reservations_of_a_dead_process_are_forgotten() -> None:
    rates = Rates()
    rates.fix(0.0, GENERATED, 6000, 500)
    for _ in range(5):
        rates.take(Cost(1, 400, 400), 0.0)  # and then its process was killed
    assert rates.wait_s(Cost(1, 400, 400), 0.1) > 10
    assert rates.wait_s(Cost(1, 400, 400), 5 * FORGET_S) == 0


def test_state_of_another_clock_does_not_stop_anybody() -> None:
    rates = Rates()
    rates.fix(1e9, REQUESTS, 60, 1)
    rates.take(Cost(), 1e9)
    rates.wait_s(Cost(), 50.0)
    assert rates.wait_s(Cost(), 51.5) == 0


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), per_minute=st.sampled_from([60.0, 600.0]))
def test_two_who_share_obey_one_limit(seed: int, per_minute: float) -> None:
    cells, draw, now, sent = [0.0] * SIZE, random.Random(seed), 10.0, []
    both = Rates(cells), Rates(cells)
    for one in both:
        one.fix(now, REQUESTS, per_minute, 3)
    for _ in range(60):
        one = draw.choice(both)
        if one.wait_s(Cost(), now) == 0:
            one.take(Cost(), now)
            sent.append(now)
        now += draw.uniform(0, 30 / per_minute)
    assert len(sent) <= 3 + (sent[-1] - sent[0]) * per_minute / 60 + 1e-6
    assert len(sent) > 0.8 * (now - 10.0) * per_minute / 60


# Against servers


def play(server: LimitingServer, requests: int, *, clients: int = 1, shared: bool = True, limit: int | str = 64,
         work: Work | None = None, changes: tuple[tuple[float, float, float], ...] = ()) -> LimitingServer:  # fmt: skip
    """So many requests of so many processes, and changes of the requests limit: at, a minute, size."""
    rates = Rates()

    async def all_of_them() -> None:
        async def change() -> None:
            for at, per_minute, size in changes:
                await asyncio.sleep(at - asyncio.get_running_loop().time())
                assert server.requests
                server.requests.change(at, per_minute, size)

        changing = asyncio.create_task(change())
        each = [Client(limit, rates if shared else Rates()) for _ in range(clients)]
        await asyncio.gather(*(one.work(server, requests // clients, work or Work()) for one in each))
        changing.cancel()

    run(all_of_them())
    assert server.answered == requests
    return server


def assert_fast(server: LimitingServer, share: float = 0.97, refused: float = 0.01) -> None:
    assert server.share() >= share, "slower than it may be"
    assert server.refused <= refused * server.arrived, "too many 429s"


def hundred() -> TokenBucket:
    """100 a second, and as many at once."""
    return TokenBucket(6000, 100)


@pytest.mark.parametrize(("tells", "every_s"), [("arrival", 0.0), ("arrival", 1.0), ("end", 0.0)])
def test_a_limit_on_requests_is_used_up_and_kept(tells: str, every_s: float) -> None:
    assert_fast(play(LimitingServer(requests=hundred(), tells=tells, every_s=every_s), 1500))


@pytest.mark.parametrize("tells", ["arrival", "end"])
def test_a_limit_that_changes_is_followed_up_and_down(tells: str) -> None:
    server = LimitingServer(requests=hundred(), tells=tells)
    assert_fast(play(server, 1800, changes=((5.0, 3000, 50), (12.0, 12_000, 200))))


@pytest.mark.parametrize("tells", ["arrival", "end"])
def test_input_tokens_are_estimated_and_put_right(tells: str) -> None:
    server = LimitingServer(tokens_in=TokenBucket(600_000, 20_000), tells=tells)
    assert_fast(play(server, 700, work=Work(tokens_in=lambda draw: draw.randint(100, 500))))


@pytest.mark.parametrize("tells", ["arrival", "end"])
@pytest.mark.parametrize("reserves", [True, False])
def test_output_tokens_are_counted_as_the_server_counts_them(tells: str, reserves: bool) -> None:
    server = LimitingServer(tokens_out=TokenBucket(120_000, 20_000), tells=tells, reserves=reserves)
    assert_fast(play(server, 900, work=Work(tokens_out=lambda draw: draw.randint(20, 120))))


def test_max_tokens_is_not_held_back_where_the_server_counts_what_was_generated() -> None:
    """Were it, five requests would be in flight, and a fifth of the limit used."""
    work = Work(tokens_out=lambda draw: draw.randint(20, 120), max_tokens=4096)
    server = LimitingServer(tokens_out=TokenBucket(120_000, 20_000), reserves=False, latency_s=1.0, tells="end")
    assert_fast(play(server, 1200, work=work), share=0.93)  # a span that ends with a whole second of latency


def test_two_processes_obey_one_limit() -> None:
    assert_fast(play(LimitingServer(requests=hundred()), 3000, clients=2))


def test_two_machines_find_out_what_the_other_takes() -> None:
    assert_fast(play(LimitingServer(requests=hundred()), 3000, clients=2, shared=False), refused=0.02)


@pytest.mark.parametrize("retry_after", [True, False])
def test_a_server_without_headers_is_sent_what_it_turned_out_to_take(retry_after: bool) -> None:
    assert_fast(play(LimitingServer(requests=hundred(), tells="", retry_after=retry_after), 4000), share=0.95)


def test_without_headers_less_is_sent_when_the_server_takes_less() -> None:
    server = LimitingServer(requests=hundred(), tells="")
    assert_fast(play(server, 5000, changes=((20.0, 3000, 50),)), share=0.9, refused=0.015)


def test_slots_double_where_a_server_tells_how_much_it_takes() -> None:
    """By one a round trip they would need five minutes for this."""
    server = LimitingServer(requests=hundred(), latency_s=2.0, jitter=0.5)
    play(server, 3000, limit="auto")
    assert server.share() >= 0.75
    assert server.refused < 25


def test_far_from_every_limit_requests_are_not_counted_one_by_one() -> None:
    rates = Rates()
    for at in range(KNOWN_AFTER + 1):
        ticket = rates.take(Cost(100, 50, 500), at / 100)
        rates.settle(ticket, at / 100, Cost(100, 50, 50))
        rates.heard(ticket, at / 100, {"requests": (1e6, 999_000), "input-tokens": (1e8, 9e7)})
    assert rates.leased(0.21)
    rates.lease()
    rates.used(100, 50)
    before = rates.buckets[INPUT].mark()
    rates.take(Cost(100, 50, 500), 0.2)
    assert rates.buckets[INPUT].mark() == pytest.approx(before - 200)
    assert not rates.leased(0.21 + 1)


def test_near_a_limit_every_request_is_counted() -> None:
    rates = Rates()
    for at in range(KNOWN_AFTER + 1):
        ticket = rates.take(Cost(), at / 100)
        rates.settle(ticket, at / 100, Cost())
        rates.heard(ticket, at / 100, {"requests": (6000, 80)})
    assert not rates.leased(0.2)


# 429s


def in_time(check: Callable[[], Any]) -> Any:
    async def checked() -> Any:
        return await check()

    return run(checked())


@pytest.mark.parametrize(("remaining", "slots"), [(0, 16), (None, 8)])
def test_a_429_costs_slots_only_where_no_limit_explains_it(remaining: int | None, slots: int) -> None:
    async def refused() -> float:
        pace = Pace(16, None, 3600, VirtualClock())
        meter, request = ServerLimits(Places(), pace, lambda place, model: Rates()), ask_for(10, 100)
        await asyncio.sleep(1)
        await pace.enter(request, meter)
        said = {} if remaining is None else headers(requests=(60, remaining))
        meter.limited(meter.server_for(request) or 0, request, said, 3.0)
        pace.leave(request, meter)
        assert meter.closed_s == 3.0
        await pace.enter(request, meter)
        assert pace.clock.now() >= 4.0
        return pace.slots

    assert in_time(refused) == slots


def test_what_was_let_in_and_not_sent_takes_nothing() -> None:
    async def given_back() -> float:
        pace, rates = Pace(16, None, 3600, VirtualClock()), Rates()
        meter = ServerLimits(Places(), pace, lambda place, model: rates)
        await asyncio.sleep(1)
        rates.fix(1.0, REQUESTS, 60, 1)
        for _ in range(5):
            request = ask_for(10, 100)
            await pace.enter(request, meter)
            pace.leave(request, meter)
        return pace.clock.now()

    assert in_time(given_back) == 1.0


def test_limits_of_ones_own_count_what_replies_used() -> None:
    """6,000 output tokens a minute, of which a reply uses 50: two a second, whatever max_tokens is."""

    async def asked() -> float:
        pace = Pace(16, None, 3600, VirtualClock())
        pace.own = (OwnLimits(pace.clock.now, Rates(), requests=None, tokens_in=None, tokens_out=6000),)
        for _ in range(100):
            request = ask_for(10, 500)
            await pace.enter(request)
            pace.leave(request, None, Reply(text="x", tokens_in=10, tokens_out=50))
        assert pace.held is None
        return pace.clock.now()

    assert 45 < in_time(asked) < 60


def test_each_model_waits_in_a_line_of_its_own() -> None:
    async def both() -> tuple[float, float]:
        pace = Pace(16, None, 3600, VirtualClock())
        slow, fast = Rates(), Rates()
        slow.fix(0.0, REQUESTS, 6, 1)
        meters = [ServerLimits(Places(), pace, lambda place, model, rates=rates: rates) for rates in (slow, fast)]

        async def ask(meter: ServerLimits, requests: int) -> float:
            for _ in range(requests):
                request = ask_for(10, 100)
                await pace.enter(request, meter)
                await asyncio.sleep(0.1)
                pace.leave(request, meter)
            return pace.clock.now()

        for meter in meters:
            meter.server_for = lambda request, meter=meter: None
        first, second = await asyncio.gather(ask(meters[0], 3), ask(meters[1], 50))
        return first, second

    slow_s, fast_s = in_time(both)
    assert fast_s < 6 < slow_s


# Several servers, several processes, and what is said of it


def fleet(number: int = 3) -> list[Endpoint]:
    """Servers that nobody listens at."""
    addresses = [check_address(f"http://127.0.0.1:{9000 + n}", "own.host") for n in range(number)]
    return [endpoint(address, None, "NO_SUCH_HEADERS") for address in addresses]


def test_a_server_that_fails_is_set_aside_for_longer_and_longer_and_tried_by_one_request() -> None:
    async def tried() -> None:
        good, bad = servers = fleet(2)
        rank = Fleet(dialect=Messages(), endpoints=servers, http=Http()).rank
        rests = []
        for _ in range(5):
            bad.failed(Retry("connection"))
            bad.failed(Retry("connection"))  # of the same burst
            assert rank({}) == [0]
            rests.append(bad.rests_until - asyncio.get_running_loop().time())
            good.flights["busy"] = 0.0
            await asyncio.sleep(rests[-1])
            assert rank({}) == [1, 0]
            assert rank({1: 1}) == [0]  # the one that tries is on its way
            bad.flights["trying"] = 0.0
            assert rank({}) == [0]
            del bad.flights["trying"], good.flights["busy"]
        assert rests == [10.0, 20.0, 40.0, 60.0, 60.0]
        bad.answered()
        assert rank({0: 1}) == [1, 0]

    in_time(tried)


def test_where_all_servers_fail_all_may_be_asked() -> None:
    async def failing() -> None:
        servers = fleet(3)
        for one in servers:
            one.failed(Retry("server"))
        servers[0].flights["one"] = 0.0
        assert Fleet(dialect=Messages(), endpoints=servers, http=Http()).rank({2: 2}) == [1, 0, 2]

    in_time(failing)


def test_processes_share_a_file_that_only_this_user_can_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    one, other = SharedRates(), SharedRates()
    mine, theirs = (each.rates("host key sk-...beef", "large") for each in (one, other))
    mine.fix(10.0, REQUESTS, 60, 1)
    mine.take(Cost(), 10.0)
    assert theirs.wait_s(Cost(), 10.25) == 0.75
    assert one.rates("host key sk-...beef", "small").wait_s(Cost(), 10.25) == 0
    assert (one.problem, other.problem) == ("", "")
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "cai").iterdir()} == {0o600}
    assert stat.S_IMODE((tmp_path / "cai").stat().st_mode) == 0o700
    assert all("beef" not in path.name and b"beef" not in path.read_bytes() for path in (tmp_path / "cai").iterdir())
    one.close()
    other.close()
    assert SharedRates().rates("host key sk-...beef", "large").wait_s(Cost(), 10.25) == 0  # nobody was left: it begins anew


def test_a_process_that_was_killed_or_stopped_with_the_lock_blocks_nobody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    mine = SharedRates().rates("host", "model")
    mine.fix(10.0, REQUESTS, 60, 1)
    program = (
        "import sys, time; from cai_cli.engine.shared_rates import SharedRates; from cai_cli.engine.rates import Cost\n"
        "found = SharedRates(); rates = found.rates('host', 'model'); rates.take(Cost(), 10.0)\n"
        "rates.lock.__enter__(); print('ready', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": PYTHONPATH}
    ) as other:
        assert other.stdout
        assert other.stdout.readline() == b"ready\n"
        begun = time.monotonic()
        assert mine.wait_s(Cost(), 10.5) == 0.5
        assert time.monotonic() - begun < 0.5
        other.kill()
    assert mine.wait_s(Cost(), 11.0) == 0


def test_where_no_file_can_be_written_each_process_has_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cai").write_text("not a folder")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    found = SharedRates()
    assert found.rates("host", "model").wait_s(Cost(), 1.0) == 0
    assert found.problem


def test_a_limit_that_holds_requests_is_told() -> None:
    async def told_so() -> str:
        pace = Pace(16, None, 3600, VirtualClock())
        pace.own = (OwnLimits(pace.clock.now, Rates(), requests=6000),)
        asking = [asyncio.create_task(pace.enter(ask_for(10, 100))) for _ in range(12)]
        await asyncio.sleep(0.02)
        said = why(pace, others=False, closed_s=0.0)
        await asyncio.gather(*asking)
        assert why(pace, others=False, closed_s=0.0) == ""
        return said

    assert in_time(told_so) == "at the limit of 6,000 requests a minute"


def test_a_storm_costs_little_and_is_over_soon() -> None:
    found = storm.storm(3)
    assert found.refused - storm.AT_ONCE <= 120
    assert found.rows == storm.ROWS
    assert 0 < found.recovered_s <= 31
