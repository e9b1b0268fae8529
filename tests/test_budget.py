"""The cap: never exceeded by settled money, whatever the interleaving, the restarts, the processes."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cai_cli.engine.budget import Budget
from cai_cli.engine.ledger import Ledger
from cai_cli.errors import Fatal, Fix
from cai_cli.flow import Model, Reply, Request
from cai_cli.records import Turn

EPSILON = 1e-9
COSTLY = Model(provider="scripted", name="m", params={"max_tokens": 100}, price={"input": 1.0, "output": 5.0})
UNKNOWN = Model(provider="scripted", name="nobody-knows-it", params={"max_tokens": 100})


@contextmanager
def opened(path: Path, run: str) -> Iterator[Ledger]:
    ledger = Ledger(path, run, "job")
    try:
        yield ledger
    finally:
        ledger.close()


class Buyers:
    """Requests of one run: each reserves, is out for some turns of the loop, is charged for, settles."""

    def __init__(self, ledger: Ledger, cap: float) -> None:
        self.ledger, self.cap = ledger, cap
        self.budget = Budget(ledger, cap)
        self.out = 0
        self.refused = 0

    async def buy(self, most: float, share: float, turns: int) -> None:
        try:
            await self.budget.reserve(most)
        except Fatal:
            assert self.out == 0, "given up while money was still to come back"
            self.refused += 1
            return
        self.out += 1
        for _ in range(turns):
            await asyncio.sleep(0)
        await self.ledger.charge(most * share)
        self.out -= 1
        self.budget.settle(most, most * share)
        assert self.ledger.spent()[0] <= self.cap + EPSILON


requests = st.lists(st.tuples(st.floats(0.01, 2.0), st.floats(0.0, 1.0), st.integers(0, 5)), min_size=1, max_size=14)


@settings(max_examples=25, deadline=None)
@given(wanted=requests, cap=st.floats(0.5, 8.0))
def test_settled_money_stays_under_the_cap_and_none_is_left_that_was_enough(
    wanted: list[tuple[float, float, int]], cap: float
) -> None:
    async def all_of_them(ledger: Ledger) -> Buyers:
        buyers = Buyers(ledger, cap)
        await asyncio.gather(*(buyers.buy(*one) for one in wanted))
        await ledger.release()
        return buyers

    with tempfile.TemporaryDirectory() as folder, opened(Path(folder) / "ledger.sqlite", "run-1") as ledger:
        buyers = asyncio.run(all_of_them(ledger))
        settled, unsettled = ledger.spent()
        assert settled <= cap + EPSILON
        assert settled == pytest.approx(buyers.budget.dollars)
        assert unsettled == pytest.approx(0.0)
        if buyers.refused:
            assert cap - settled < max(most for most, _, _ in wanted) + EPSILON


@settings(max_examples=15, deadline=None)
@given(first=requests, second=requests, cap=st.floats(0.5, 8.0))
def test_two_runs_on_one_ledger_share_the_cap(
    first: list[tuple[float, float, int]], second: list[tuple[float, float, int]], cap: float
) -> None:
    async def all_of_them(ledgers: list[Ledger]) -> None:
        one, other = (Buyers(ledger, cap) for ledger in ledgers)
        await asyncio.gather(*(one.buy(*request) for request in first), *(other.buy(*request) for request in second))

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        with opened(path, "run-1") as one, opened(path, "run-2") as other:
            asyncio.run(all_of_them([one, other]))
            assert one.spent() == other.spent()
            assert one.spent()[0] <= cap + EPSILON


@settings(max_examples=15, deadline=None)
@given(before=requests, after=requests, in_flight=st.floats(0.0, 2.0), cap=st.floats(0.5, 8.0))
def test_the_cap_holds_over_a_crash_and_what_was_in_flight_then(
    before: list[tuple[float, float, int]], after: list[tuple[float, float, int]], in_flight: float, cap: float
) -> None:
    """A run that dies between a reservation and its reply has perhaps been billed: that money is not spent a second time."""

    async def one_run(ledger: Ledger, wanted: list[tuple[float, float, int]], crashes_with: float) -> float:
        buyers = Buyers(ledger, cap)
        await asyncio.gather(*(buyers.buy(*one) for one in wanted))
        try:
            await buyers.budget.reserve(crashes_with)
        except Fatal:
            return 0.0
        return crashes_with

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        with opened(path, "run-1") as ledger:
            perhaps_billed = asyncio.run(one_run(ledger, before, in_flight))
        with opened(path, "run-2") as ledger:
            asyncio.run(one_run(ledger, after, 0.0))
            assert ledger.spent()[0] + perhaps_billed <= cap + EPSILON


def test_processes_share_the_cap(tmp_path: Path) -> None:
    code = """
        import asyncio, sys
        from pathlib import Path
        from cai_cli.engine.budget import Budget
        from cai_cli.engine.ledger import Ledger
        from cai_cli.errors import Fatal

        async def buy(ledger, budget):
            try:
                await budget.reserve(0.02)
            except Fatal:
                return 0
            await ledger.charge(0.01)
            budget.settle(0.02, 0.01)
            return 1

        async def main():
            ledger = Ledger(Path(sys.argv[1]), sys.argv[2], "job")
            budget = Budget(ledger, 3.0)
            print(sum(await asyncio.gather(*(buy(ledger, budget) for _ in range(250)))))
            ledger.close()

        asyncio.run(main())
    """
    path = tmp_path / "ledger.sqlite"
    command = [sys.executable, "-c", textwrap.dedent(code), str(path)]
    buyers = [subprocess.Popen([*command, f"run-{n}"], stdout=subprocess.PIPE, text=True) for n in range(2)]
    bought = [int(buyer.communicate(timeout=60)[0]) for buyer in buyers]
    with opened(path, "run-9") as ledger:
        settled, _ = ledger.spent()
    assert settled == pytest.approx(0.01 * sum(bought))
    assert 1.0 < settled <= 3.0 + EPSILON
    assert sum(bought) < 500  # else the cap was never felt


def test_a_run_that_dies_leaves_no_more_set_aside_than_was_in_flight(tmp_path: Path) -> None:
    async def some_settled_some_in_flight(ledger: Ledger) -> None:
        budget = Budget(ledger, 10.0)
        for _ in range(5):
            await budget.reserve(1.0)
        for _ in range(3):
            await ledger.charge(0.1)
            budget.settle(1.0, 0.1)
        await ledger.confirm_failures()

    with opened(tmp_path / "ledger.sqlite", "run-1") as ledger:
        asyncio.run(some_settled_some_in_flight(ledger))
        assert ledger.spent() == pytest.approx((0.3, 2.0))


def test_with_many_in_flight_a_quarter_more_is_set_aside_at_most_and_all_of_it_comes_back(tmp_path: Path) -> None:
    async def some_in_flight(ledger: Ledger) -> None:
        budget = Budget(ledger, 1000.0)
        await asyncio.gather(*(budget.reserve(1.0) for _ in range(40)))
        for _ in range(60):
            await ledger.charge(0.3)
            budget.settle(1.0, 0.3)
            await budget.reserve(1.0)
            await ledger.confirm_failures()
            assert 40.0 <= ledger.spent()[1] + 1e-6 <= 50.0 + 1e-3
        for _ in range(40):
            await ledger.charge(0.3)
            budget.settle(1.0, 0.3)
        budget.close()
        await ledger.confirm_failures()

    with opened(tmp_path / "ledger.sqlite", "run-1") as ledger:
        asyncio.run(some_in_flight(ledger))
        assert ledger.spent() == pytest.approx((30.0, 0.0))


def test_what_is_set_aside_ahead_is_given_up_before_a_request_is_refused(tmp_path: Path) -> None:
    async def to_the_last(ledger: Ledger) -> int:
        budget = Budget(ledger, 20.5)
        await asyncio.gather(*(budget.reserve(1.0) for _ in range(16)))
        await asyncio.sleep(0.2)  # four more are set aside
        for _ in range(4):
            assert await budget.take(1.0) is None
        return int((await budget.take(1.0)) is not None)

    with opened(tmp_path / "ledger.sqlite", "run-1") as ledger:
        assert asyncio.run(to_the_last(ledger)) == 1
        assert ledger.spent() == pytest.approx((0.0, 20.0))


def test_giving_up_says_how_to_go_on(tmp_path: Path) -> None:
    said = r"\$1\.00 does not cover the next request: \$0\.00 is spent or set aside, it may cost \$1\.50"
    with opened(tmp_path / "ledger.sqlite", "run-1") as ledger, pytest.raises(Fatal, match=said) as caught:
        asyncio.run(Budget(ledger, 1.0).reserve(1.5))
    assert "--budget-usd" in caught.value.hint


def test_without_a_cap_money_is_counted_and_never_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "ledger.sqlite", "run-1") as ledger:
        budget = Budget(ledger, None)
        asyncio.run(budget.reserve(1e9))
        budget.settle(1e9, 7.0)
        assert budget.dollars == 7.0


def test_an_unknown_price_and_a_cap_do_not_go_together(tmp_path: Path) -> None:
    asked = Request(model=UNKNOWN, messages=(Turn(role="user", content="q"),))
    with opened(tmp_path / "ledger.sqlite", "run-1") as ledger:
        with pytest.raises(Fix, match="nobody-knows-it") as caught:
            Budget(ledger, 1.0).most(asked)
        assert caught.value.hint.startswith("set model.price")
        with pytest.raises(Fix) as caught:
            Budget(ledger, 1.0).price(Model(provider="anthropic", name="claude-opus-55"))
        assert caught.value.hint.startswith("did you mean 'claude-opus-5-5'? if not, set model.price")
        assert Budget(ledger, None).most(asked) == 0.0
        assert Budget(ledger, None).cost(UNKNOWN, Reply(text="a", tokens_in=5)) == 0.0


def test_one_name_at_two_prices_is_two_prices(tmp_path: Path) -> None:
    cheap = Model(provider="scripted", name="m", params={"max_tokens": 100}, price={"input": 0.0, "output": 1.0})
    with opened(tmp_path / "ledger.sqlite", "run-1") as ledger:
        budget = Budget(ledger, None)
        reply = Reply(text="a", tokens_in=0, tokens_out=1_000_000)
        assert (budget.cost(COSTLY, reply), budget.cost(cheap, reply)) == (5.0, 1.0)


@settings(max_examples=30, deadline=None)
@given(text=st.text(max_size=200), system=st.text(max_size=50), cached=st.booleans())
def test_a_reservation_covers_the_dearest_reply(text: str, system: str, cached: bool) -> None:
    """A tokenizer on bytes may make a token of every byte, and all of them may be written to the cache, which costs more."""
    schema = {"type": "object", "description": "long " * 50}
    asked = Request(model=COSTLY, messages=(Turn(role="user", content=text),), system=system, schema=schema)
    tokens = len(text.encode()) + len(system.encode()) + len(str(schema))
    reply = Reply(text="", tokens_in=0 if cached else tokens, tokens_cache_write=tokens if cached else 0, tokens_out=100)
    with tempfile.TemporaryDirectory() as folder, opened(Path(folder) / "ledger.sqlite", "run-1") as ledger:
        budget = Budget(ledger, 1.0)
        assert budget.most(asked) >= budget.cost(COSTLY, reply)
