"""A fleet in trouble, lines and own limits, a shared file in a bad state, and money that may be billed: in virtual time."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import resource
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson
import pytest
from room import no_room
from test_drive import PRICE, Engine, Script, question
from virtual import VirtualClock, ask_for, run

from cai_cli.engine.limits import OwnLimits, ServerLimits
from cai_cli.engine.pace import PROBE_EVERY_S, Pace
from cai_cli.engine.rates import REQUESTS, Cost, Found, Rates
from cai_cli.engine.shared_rates import TRIES, VERSION, FileLock, SharedRates
from cai_cli.errors import Retry
from cai_cli.flow import Model, Reply, Request
from cai_cli.providers._fleet import Fleet, endpoint
from cai_cli.providers._http import Answer, Http
from cai_cli.providers._keys import Address, check_address
from cai_cli.providers.anthropic import Messages
from cai_cli.records import Turn

WELL = orjson.dumps({"type": "message", "role": "assistant", "model": "m", "content": [{"type": "text", "text": "well"}],
                     "stop_reason": "end_turn", "usage": {"input_tokens": 5, "output_tokens": 5}})  # fmt: skip
BOOT = Path("/proc/sys/kernel/random/boot_id")
Verdict = Callable[[float, int], Answer]


def now() -> float:
    return asyncio.get_running_loop().time()


def refused(**headers: str) -> Answer:
    return Answer(429, {name.replace("_", "-"): value for name, value in headers.items()}, b"{}")


class Wires(Http):
    """Servers behind connections of no length: after `latency_s` one answers as `verdict(now, its number)` says."""

    def __init__(self, verdict: Verdict, latency_s: float) -> None:
        super().__init__()
        self.verdict, self.latency_s = verdict, latency_s
        self.sent: list[tuple[float, int]] = []

    async def ask(self, method: str, address: Address, path: str, headers: Mapping[str, str], **options: Any) -> Answer:
        server = int(address.url.rstrip("/").rpartition(":")[2]) - 9000
        self.sent.append((now(), server))
        await asyncio.sleep(self.latency_s)
        return self.verdict(now(), server)


class Farm:
    """A fleet, its meter and its pace, as the engine puts them together; so many flows ask until a time."""

    def __init__(self, servers: int, verdict: Verdict, latency_s: float = 0.2, *, limit: int = 8) -> None:
        self.wires = Wires(verdict, latency_s)
        self.pace = Pace(limit, None, 6 * 3600, VirtualClock())
        addresses = [check_address(f"http://127.0.0.1:{9000 + n}", "own.host") for n in range(servers)]
        found = [endpoint(address, None, "NO_SUCH_HEADERS") for address in addresses]
        self.fleet = Fleet(dialect=Messages(), endpoints=found, http=self.wires)
        self.meter = self.fleet.meter = ServerLimits(self.fleet, self.pace, Found())

    async def work(self, until: float, flows: int = 16, idle_s: float = 0.0) -> None:
        async def flow() -> None:
            while now() < until:
                await asyncio.sleep(idle_s)
                await self._one(ask_for(10, 100))

        await asyncio.gather(*(flow() for _ in range(flows)))

    async def _one(self, request: Request) -> None:
        tries = 0
        while True:
            await self.pace.enter(request, self.meter)
            reply = None
            try:
                reply = await self.fleet.send(request, 60)
                self.pace.succeeded()
                return
            except Retry as failure:
                retry = failure
            finally:
                self.pace.leave(request, self.meter, reply)
            tries += 1
            await self.pace.failed(retry, tries, self.fleet.host)

    def sent(self, begin: float, end: float) -> Counter[int]:
        """How many requests went to each server in that time."""
        return Counter(server for at, server in self.wires.sent if begin <= at < end)


# A fleet in trouble


@pytest.mark.parametrize("back", [0, 1])
def test_a_fleet_comes_out_of_an_outage_whichever_server_returns(back: int) -> None:
    def verdict(at: float, server: int) -> Answer:
        if at > 5 and not (at > 400 and server == back):
            raise Retry("connection", "down")
        return Answer(200, {}, WELL)

    async def outage() -> Farm:
        farm = Farm(2, verdict)
        await farm.work(until=405 + 3 * PROBE_EVERY_S)
        return farm

    farm = run(outage())
    assert farm.pace.outage_since is None
    assert set(farm.sent(150, 400)) == {0, 1}  # both are probed
    assert farm.sent(480, 490)[back] > 100


def test_a_long_rest_of_one_server_does_not_slow_the_other() -> None:
    def verdict(at: float, server: int) -> Answer:
        return refused(retry_after="300") if server == 1 and 5 < at < 100 else Answer(200, {}, WELL)

    async def limited() -> Farm:
        farm = Farm(2, verdict)
        await farm.work(until=60)
        return farm

    farm = run(limited())
    assert farm.sent(10, 60)[1] == 0
    assert farm.sent(30, 60)[0] > 0.9 * 30 * 8 / 0.2  # all slots are the other's


def test_those_who_waited_for_a_gate_still_go_one_by_one() -> None:
    def verdict(at: float, server: int) -> Answer:
        return refused(retry_after="30") if 5 < at < 6 else Answer(200, {}, WELL)

    async def limited() -> Farm:
        farm = Farm(1, verdict, limit=16)
        await farm.work(until=40, flows=32)
        return farm

    after = [at for at, _ in run(limited()).wires.sent if at > 10]
    assert after[7] - after[0] > 0.05


@pytest.mark.parametrize("headers", [{"retry_after": "0"}, {"retry_after_ms": "5"}])
def test_a_server_that_asks_for_no_wait_is_not_asked_in_a_hot_loop(headers: dict[str, str]) -> None:
    async def limited() -> Farm:
        farm = Farm(1, lambda at, _: refused(**headers) if 5 < at < 65 else Answer(200, {}, WELL), latency_s=0.005)
        await farm.work(until=66, idle_s=0.3)
        return farm

    assert run(limited()).sent(5, 65)[0] < 200  # as it asks, it would be some thousands


# Lines, and limits of one's own


def test_lines_take_turns() -> None:
    """Many who ask one model all the time do not keep the only one who asks another waiting."""

    async def order() -> list[str]:
        pace, went = Pace(4, None, 3600, VirtualClock()), list[str]()

        async def one(name: str, took_s: float) -> None:
            request = Request(model=Model(provider="x", name=name, params={}), messages=(Turn(role="user", content="q"),))
            await pace.enter(request)
            went.append(name)
            await asyncio.sleep(took_s)
            pace.leave(request)

        async def often(flow: int) -> None:
            for n in range(30):
                await one("often", 1 + (31 * flow + n) % 7 / 10)

        async def seldom() -> None:
            await asyncio.sleep(0.5)
            await one("seldom", 1)

        await asyncio.gather(seldom(), *(often(flow) for flow in range(6)))
        return went

    assert run(order()).index("seldom") <= 6  # 4 had slots, and one of the other line may go before


def sent_in_a_minute(limits: OwnLimits, clock: list[float]) -> int:
    sent, end = 0, clock[0] + 60
    while clock[0] < end:
        if wait_s := limits.wait_s(None):
            clock[0] += wait_s
        else:
            limits.take(None)
            sent += 1
    return sent


def test_of_two_who_share_a_limit_of_their_own_the_smaller_one_holds() -> None:
    clock, rates = [1000.0], Rates()
    small = OwnLimits(lambda: clock[0], rates, 60)
    large = OwnLimits(lambda: clock[0], rates, 6000)
    assert 58 <= sent_in_a_minute(small, clock) <= 62
    assert 58 <= sent_in_a_minute(large, clock) <= 62
    OwnLimits(lambda: clock[0], rates, 30)
    assert 28 <= sent_in_a_minute(small, clock) <= 32


# A shared file in a bad state


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], SharedRates]]:
    """Opens the rates as a process of its own would."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    made: list[SharedRates] = []

    def make() -> SharedRates:
        made.append(SharedRates())
        return made[-1]

    yield make
    for one in made:
        one.close()


def state_in(folder: Path) -> Path:
    (path,) = (path for path in (folder / "cai").iterdir() if path.suffix != ".live")
    return path


def opened_soon(found: SharedRates) -> Rates:
    """The rates, opened in a thread: what hangs must not hang the tests."""
    rates: list[Rates] = []
    thread = threading.Thread(target=lambda: rates.append(found.rates("host", "model")), daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive(), "it waits for a lock that nobody gives back"
    return rates[0]


@pytest.mark.parametrize("left", [None, b"", b"short"])
def test_a_state_that_is_gone_or_cut_while_others_live_begins_anew(
    shared: Callable[[], SharedRates], tmp_path: Path, left: bytes | None
) -> None:
    shared().rates("host", "model").fix(10.0, REQUESTS, 60, 1)
    path = state_in(tmp_path)
    path.unlink()  # who has it open keeps it
    if left is not None:
        path.write_bytes(left)
    one, other = shared(), shared()
    one.rates("host", "model").fix(10.0, REQUESTS, 60, 1)
    one.rates("host", "model").take(Cost(), 10.0)
    assert other.rates("host", "model").wait_s(Cost(), 10.25) == 0.75
    assert (one.problem, other.problem) == ("", "")


def test_without_room_for_the_state_nobody_waits_for_whoever_came_first(shared: Callable[[], SharedRates]) -> None:
    first, second, third = shared(), shared(), shared()
    with no_room():
        assert first.rates("host", "model").wait_s(Cost(), 1.0) == 0
        opened_soon(second)
    assert "too large" in first.problem
    assert "too large" in second.problem
    opened_soon(third).fix(10.0, REQUESTS, 60, 1)
    assert third.problem == ""


def test_who_was_stopped_before_it_said_that_it_is_there_is_not_waited_for(
    shared: Callable[[], SharedRates], tmp_path: Path
) -> None:
    shared().rates("host", "model")
    shared_by_all = shared()
    live = state_in(tmp_path).with_suffix(".live")
    live.unlink()
    with live.open("w") as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        opened_soon(shared_by_all)
    assert shared_by_all.problem


@pytest.mark.skipif(not BOOT.exists(), reason="only Linux tells one start of a machine from another")
def test_machines_with_one_home_folder_have_files_of_their_own(shared: Callable[[], SharedRates], tmp_path: Path) -> None:
    """Their clocks are not the same one: a gate's time of the one may be days ahead of the other's."""
    shared().rates("host key", "model")
    named = f"{VERSION}\0{BOOT.read_text()}\0host key\0model"
    assert state_in(tmp_path).name == hashlib.sha256(named.encode()).hexdigest()[:32]


def test_beside_one_who_was_stopped_with_the_lock_it_is_waited_for_once_and_not_each_time(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with path.open("w") as stopped, path.open("w") as own:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        rates = Rates(lock=FileLock(own.fileno()))
        waited = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
        for n in range(15):
            rates.take(Cost(), float(n))
        waited = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - waited
    assert waited >= TRIES / 2
    assert waited < 5 * TRIES


# Money that may be billed


@pytest.fixture
def capped(tmp_path: Path) -> Iterator[Callable[[Script], Engine]]:
    made: list[Engine] = []

    def make(script: Script) -> Engine:
        made.append(Engine(tmp_path, script, 1.0, "run"))
        return made[-1]

    yield make
    made[-1].ledger.close()


def cancelled(one: Engine, *texts: str) -> tuple[float, float]:
    """Ask, and cancel it all when nothing moves any more. Gives: dollars spent, and set aside, as the disk has it"""

    async def main() -> None:
        tasks = [asyncio.create_task(one.asker.outcome(question(text))) for text in texts]
        await asyncio.sleep(0.1)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        one.budget.close()
        await one.ledger.charge(0.0)  # written after all that was queued

    one.run(main())
    return one.ledger.spent()


async def answers_only_the_first(request: Request, tries: int) -> Reply:
    if request.row != "first":
        await asyncio.sleep(60)
    return Reply(text="well", tokens_in=10, tokens_out=20)


COST = (10 * PRICE["input"] + 20 * PRICE["output"]) / 1e6


def test_the_money_of_what_was_in_flight_at_a_cancel_stays_set_aside(capped: Callable[[Script], Engine]) -> None:
    """It may be billed, and its reply is not on disk: what a kill keeps aside, a second Ctrl-C must, too."""
    one = capped(answers_only_the_first)
    spent, aside = cancelled(one, "first", "second", "third")
    assert one.asker.in_flight == 2
    assert spent == pytest.approx(COST)
    assert aside == pytest.approx(sum(one.budget.most(question(text)) for text in ("second", "third")))


def test_what_waited_for_its_turn_at_a_cancel_sets_nothing_aside(capped: Callable[[Script], Engine]) -> None:
    one = capped(answers_only_the_first)
    one.pace.slots = 1.0
    assert cancelled(one, "second", "third")[1] == pytest.approx(one.budget.most(question("second")))


def test_what_was_answered_when_it_is_cancelled_costs_what_it_cost(capped: Callable[[Script], Engine]) -> None:
    async def cancels_itself(request: Request, tries: int) -> Reply:
        task = asyncio.current_task()
        assert task
        task.cancel()  # it ends where it waits next: for its reply to be written
        return Reply(text="well", tokens_in=10, tokens_out=20)

    assert cancelled(capped(cancels_itself), "first") == (pytest.approx(COST), pytest.approx(0.0))
