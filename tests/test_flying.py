"""Requests that are in flight already: who asks again waits for the same reply, alone or in a wave, whatever ends first."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from cai_cli.engine.budget import Budget
from cai_cli.engine.clock import Clock
from cai_cli.engine.drive import Asker, Stopped
from cai_cli.engine.ledger import Ledger
from cai_cli.engine.pace import Pace
from cai_cli.flow import Model, Outcome, Reply, Request
from cai_cli.records import Turn

MODEL = Model(provider="scripted", name="m", params={"max_tokens": 100})


def question(text: str) -> Request:
    return Request(model=MODEL, messages=(Turn(role="user", content=text),), stage="generate", row=text)


class Gated:
    """Answers when the gate is open, with how often it was asked."""

    host = "scripted.host"

    def __init__(self) -> None:
        self.gate, self.asked = asyncio.Event(), list[str]()

    async def send(self, request: Request, deadline_s: float) -> Reply:
        self.asked.append(request.row)
        await self.gate.wait()
        return Reply(text=f"{request.row} {self.asked.count(request.row)}")

    async def close(self) -> None:
        pass


class Engine:
    """An asker whose provider waits at a gate."""

    def __init__(self, folder: Path) -> None:
        clock = Clock()
        self.provider, self.ledger = Gated(), Ledger(folder / "ledger.sqlite", "run", "job")
        pace = Pace(8, None, 60.0, clock)
        self.asker = Asker(self.ledger, Budget(self.ledger, None), lambda model: pace, lambda model: self.provider, clock)


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Engine]:
    made = Engine(tmp_path)
    yield made
    made.ledger.close()


def texts(outcomes: tuple[Outcome, ...]) -> list[str]:
    assert all(isinstance(outcome, Reply) for outcome in outcomes)
    return [outcome.text for outcome in outcomes if isinstance(outcome, Reply)]


def test_a_wave_of_known_new_and_equal_requests_is_answered_in_order_and_asks_each_once(engine: Engine) -> None:
    async def main() -> list[str]:
        engine.provider.gate.set()
        await engine.asker.outcome(question("known"))
        wave = tuple(map(question, ("new", "known", "twice", "other", "twice", "known")))
        return texts(await engine.asker.wave(wave))

    assert asyncio.run(main()) == ["new 1", "known 1", "twice 1", "other 1", "twice 1", "known 1"]
    assert sorted(engine.provider.asked) == ["known", "new", "other", "twice"]
    assert engine.asker.counts["generate"].replayed == 2


def test_many_waves_of_one_request_at_every_moment_of_its_flight_buy_it_once(engine: Engine) -> None:
    async def main() -> list[list[str]]:
        waves = []
        for turn in range(60):
            waves.append(asyncio.create_task(engine.asker.wave((question("q"), question(f"own {turn}")))))
            if turn == 20:
                engine.provider.gate.set()
            await asyncio.sleep(0.001)  # some before the reply, some between reply and commit, some after
        return [texts(await wave) for wave in waves]

    assert asyncio.run(main()) == [["q 1", f"own {turn} 1"] for turn in range(60)]
    assert engine.provider.asked.count("q") == 1


def test_one_who_shares_a_request_may_leave_without_ending_it(engine: Engine) -> None:
    async def main() -> Outcome:
        first = asyncio.create_task(engine.asker.outcome(question("q")))
        second = asyncio.create_task(engine.asker.outcome(question("q")))
        await asyncio.sleep(0.01)
        second.cancel()
        await asyncio.wait((second,))
        engine.provider.gate.set()
        return await first

    assert asyncio.run(main()) == Reply(text="q 1")


def test_those_who_share_a_request_that_is_cancelled_are_told_that_the_run_stops(engine: Engine) -> None:
    async def main() -> None:
        first = asyncio.create_task(engine.asker.outcome(question("q")))
        second = asyncio.create_task(engine.asker.outcome(question("q")))
        await asyncio.sleep(0.01)
        first.cancel()
        with pytest.raises(Stopped):
            await second

    asyncio.run(main())


def test_on_a_disk_that_does_not_write_a_kill_costs_twice_the_slots_at_most(engine: Engine, tmp_path: Path) -> None:
    async def blocked() -> tuple[int, int]:
        engine.provider.gate.set()
        other = sqlite3.connect(tmp_path / "ledger.sqlite", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")  # nothing is committed until it ends
        asking = [asyncio.create_task(engine.asker.outcome(question(f"q{n}"))) for n in range(100)]
        await asyncio.sleep(0.2)
        meanwhile = len(engine.provider.asked)
        other.execute("ROLLBACK")
        other.close()
        await asyncio.gather(*asking)
        return meanwhile, engine.asker.in_flight

    assert asyncio.run(blocked()) == (2 * 8, 0)
    assert len(engine.provider.asked) == 100
