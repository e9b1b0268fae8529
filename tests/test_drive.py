"""The engine's inner ring: real ledger, real budget, real pace, a scripted provider, and a clock that does not wait."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from cai_cli.engine.budget import Budget
from cai_cli.engine.clock import Clock
from cai_cli.engine.drive import Asker, Stopped, Usage
from cai_cli.engine.ledger import Ledger, key_of
from cai_cli.engine.pace import Pace
from cai_cli.engine.systemic import IN_A_ROW
from cai_cli.errors import Exit, Fatal, Fix, Reject, Retry
from cai_cli.flow import Flow, Model, Outcome, Reply, Request, ask, ask_all
from cai_cli.records import Turn

PRICE = {"input": 1.0, "output": 5.0}
MODEL = Model(provider="scripted", name="m", params={"max_tokens": 100}, price=PRICE)
Script = Callable[[Request, int], Awaitable[Reply]]
BAD = Reject("http_400", "said so", "400 invalid_request_error")


class ImpatientClock(Clock):
    """A wait is over at once, and counted as if it had been waited."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> float:
        self.seconds += 0.001
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.seconds += seconds
        await asyncio.sleep(0)


class Scripted:
    """Answers as `script` says: it gets the request and how often that one was sent before."""

    host = "scripted.host"

    def __init__(self, script: Script) -> None:
        self.script = script
        self.sent: Counter[bytes] = Counter()
        self.texts: list[str] = []
        self.deadlines: list[float] = []
        self.closed = False

    async def send(self, request: Request, deadline_s: float) -> Reply:
        key = key_of(request)
        self.sent[key] += 1
        self.texts.append(request.messages[0].content)
        self.deadlines.append(deadline_s)
        return await self.script(request, self.sent[key] - 1)

    async def close(self) -> None:
        self.closed = True


def says(*outcomes: Reply | Exception) -> Script:
    """Every request gets these, one after the other; the last one for ever."""

    async def script(request: Request, tries: int) -> Reply:
        await asyncio.sleep(0)
        outcome = outcomes[min(tries, len(outcomes) - 1)]
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return script


def question(text: str, **more: Any) -> Request:
    return Request(model=MODEL, messages=(Turn(role="user", content=text),), stage="generate", row=text, **more)


class Engine:
    """An asker and what it stands on."""

    def __init__(self, folder: Path, script: Script, cap: float | None, run: str) -> None:
        self.clock = ImpatientClock()
        self.ledger = Ledger(folder / "ledger.sqlite", run, "job")
        self.budget = Budget(self.ledger, cap)
        self.provider = Scripted(script)
        self.pace = Pace(64, None, 3600.0, self.clock)
        self.asker = Asker(self.ledger, self.budget, lambda model: self.pace, lambda model: self.provider, self.clock)

    def run(self, main: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run(main)

    def ask(self, *requests: Request) -> list[Outcome]:
        async def all_of_them() -> list[Outcome]:
            return list(await asyncio.gather(*map(self.asker.outcome, requests)))

        outcomes: list[Outcome] = asyncio.run(all_of_them())
        return outcomes


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Callable[..., Engine]]:
    made: list[Engine] = []

    def make(*outcomes: Any, cap: float | None = None) -> Engine:
        for before in made:
            before.ledger.close()
        script = outcomes[0] if outcomes and callable(outcomes[0]) else says(*outcomes)
        made.append(Engine(tmp_path, script, cap, f"run-{len(made)}"))
        return made[-1]

    yield make
    made[-1].ledger.close()


Make = Callable[..., Engine]


# Asking


def test_a_reply_is_in_the_ledger_and_paid_for_before_it_is_used(engine: Make) -> None:
    one = engine(Reply(text="hello", tokens_in=1_000_000, tokens_out=1_000_000))
    (reply,) = one.ask(question("q"))
    assert one.ledger.get(key_of(question("q"))) == reply
    assert one.ledger.spent()[0] == one.budget.dollars == 6.0
    counts = one.asker.counts["generate"]
    assert (counts.requests, counts.replayed, counts.tokens_in, counts.dollars) == (1, 0, 1_000_000, 6.0)


def test_what_was_bought_once_is_never_bought_again(engine: Make) -> None:
    engine(Reply(text="first")).ask(question("q"))
    again = engine(Reply(text="second"))
    (reply,) = again.ask(question("q"))
    assert reply == Reply(text="first")
    assert again.provider.texts == []
    assert again.asker.counts["generate"].replayed == 1


def test_identical_requests_in_flight_are_asked_once(engine: Make) -> None:
    one = engine(Reply(text="hello"))
    outcomes = one.ask(*[question("q")] * 20, question("other"))
    assert len(outcomes) == 21
    assert one.provider.texts == ["q", "other"]


def test_draws_of_one_question_are_asked_apart(engine: Make) -> None:
    one = engine(Reply(text="hello"))
    one.ask(*(question("q", draw=draw) for draw in range(4)))
    assert one.provider.texts == ["q"] * 4


def test_a_flow_is_driven_to_its_result_and_its_usage_does_not_depend_on_the_ledger(engine: Make) -> None:
    def flow() -> Flow[list[str]]:
        first = yield from ask(question("q"))
        rest = yield from ask_all(question(f"{first.text}-{n}") for n in range(3))
        return [reply.text for reply in rest]

    def drive(one: Engine) -> Usage:
        usage = Usage()
        assert one.run(one.asker.drive(flow(), usage)) == ["hello"] * 3
        return usage

    bought, replayed = (
        drive(engine(Reply(text="hello", tokens_in=2, tokens_out=3))),
        drive(engine(Fatal("nothing is asked twice"))),
    )
    assert bought == replayed
    assert (bought.replies["generate"], bought.tokens_in["generate"], bought.tokens_out["generate"]) == (4, 8, 12)


def test_a_deadline_grows_with_the_reply_and_has_an_end(engine: Make) -> None:
    one = engine(Reply(text="hello"))
    one.ask(question("a"), question("b").with_max_tokens(1_000_000))
    assert sorted(one.provider.deadlines) == [70.0, 900.0]


# Waiting and asking again


def test_a_server_in_trouble_is_asked_again_and_the_row_lives(engine: Make) -> None:
    one = engine(Retry("server"), Retry("connection"), Retry("rate_limit", after_s=30.0), Reply(text="at last"))
    assert one.ask(question("q")) == [Reply(text="at last")]
    assert one.clock.seconds >= 30
    assert one.asker.trouble == {"server": 1, "connection": 1, "rate_limit": 1}
    assert set(one.asker.said) == set(one.asker.trouble)
    assert one.asker.counts["generate"].retries == 3
    assert one.pace.slots < 64


def test_a_burst_of_429s_halves_the_slots_once(engine: Make) -> None:
    one = engine(Retry("rate_limit", after_s=0.0), Reply(text="at last"))
    one.ask(*(question(f"q{n}") for n in range(40)))
    assert 32 <= one.pace.slots < 34  # the half, and what 40 successes gave back


def test_a_server_that_never_comes_back_is_named_with_what_it_said_last(engine: Make) -> None:
    one = engine(Retry("connection", "connection refused"))
    with pytest.raises(Fatal, match=r"scripted\.host did not answer for 3600s: connection refused") as caught:
        one.ask(question("q"))
    assert caught.value.code is Exit.UNREACHABLE
    assert one.asker.said == {"connection": "scripted.host: connection refused"}


def test_a_reply_that_could_not_be_written_counts_as_in_flight(engine: Make) -> None:
    """It is paid for and will be bought again: the user is told so, and its money stays set aside."""
    one = engine(Reply(text="paid for"))
    db = sqlite3.connect(one.ledger.path)
    db.execute("DROP TABLE replies")
    db.execute("CREATE TABLE replies (key, reply)")
    db.close()
    with pytest.raises(Fatal, match="cannot be written"):
        one.ask(question("q"))
    assert one.asker.in_flight == 1
    assert one.pace.in_flight == 0


def test_unreadable_replies_are_asked_three_times_then_the_row_is_rejected(engine: Make) -> None:
    one = engine(Retry("protocol", "half a body"))
    (outcome,) = one.ask(question("q"))
    assert isinstance(outcome, Reject)
    assert (outcome.reason, outcome.detail) == ("protocol_error", "half a body")
    assert one.provider.texts == ["q"] * 3
    assert one.asker.in_flight == one.pace.in_flight == 0


def test_two_unreadable_replies_and_a_good_one_are_a_reply(engine: Make) -> None:
    assert engine(Retry("protocol"), Retry("protocol"), Reply(text="ok")).ask(question("q")) == [Reply(text="ok")]


def test_a_timeout_is_charged_as_if_it_had_been_answered(engine: Make) -> None:
    one = engine(Retry("timeout"), Reply(text="ok", tokens_out=10), cap=1.0)
    most = one.budget.most(question("q"))
    one.ask(question("q"))
    assert one.ledger.spent()[0] == pytest.approx(most + 10 * 5 / 1e6)
    assert one.budget.dollars == pytest.approx(one.ledger.spent()[0])


def test_a_connection_that_failed_is_not_charged(engine: Make) -> None:
    one = engine(Retry("connection"), Reply(text="ok", tokens_out=10), cap=1.0)
    one.ask(question("q"))
    assert one.ledger.spent()[0] == pytest.approx(10 * 5 / 1e6)


def test_the_budget_stops_the_run_before_it_is_exceeded(engine: Make) -> None:
    reply = Reply(text="ok", tokens_in=10, tokens_out=100)
    one = engine(reply)
    cap = 20.5 * one.budget.most(question("q10"))
    one = engine(reply, cap=cap)

    async def until_it_stops() -> list[BaseException | Outcome]:
        return await asyncio.gather(*(one.asker.outcome(question(f"q{n:03}")) for n in range(200)), return_exceptions=True)

    outcomes = one.run(until_it_stops())
    stopped = [outcome for outcome in outcomes if isinstance(outcome, Fatal)]
    assert {fatal.code for fatal in stopped} == {Exit.STOPPED}
    assert len(outcomes) - len(stopped) >= 20
    assert cap - one.budget.most(question("q000")) < one.ledger.spent()[0] <= cap
    assert one.asker.in_flight == 0


def test_a_model_without_a_price_and_a_cap_stop_before_anything_is_sent(engine: Make) -> None:
    one = engine(Reply(text="ok"), cap=1.0)
    unknown = Model(provider="scripted", name="nobody-knows-it", params={"max_tokens": 10})
    with pytest.raises(Fix, match="nobody-knows-it"):
        one.ask(Request(model=unknown, messages=question("q").messages))
    assert one.provider.texts == []


# Refusals, one or many


def test_a_refused_request_is_a_reject_and_replays_as_one(engine: Make) -> None:
    (outcome,) = engine(BAD).ask(question("q"))
    assert isinstance(outcome, Reject)
    again = engine(Reply(text="never sent"))
    (replayed,) = again.ask(question("q"))
    assert isinstance(replayed, Reject)
    assert (replayed.reason, replayed.detail, replayed.signature) == (BAD.reason, BAD.detail, BAD.signature)
    assert again.provider.texts == []


def refuses_those_with(word: str) -> Script:
    async def script(request: Request, tries: int) -> Reply:
        await asyncio.sleep(0)
        if word in request.messages[0].content:
            raise BAD
        return Reply(text="ok")

    return script


def test_the_same_refusal_of_many_rows_stops_the_run_and_rejects_none_of_them(engine: Make) -> None:
    one = engine(BAD)

    async def one_by_one() -> int:
        for n in range(100):
            await one.asker.outcome(question(f"q{n}"))
        return 100

    with pytest.raises(Fatal, match="400 invalid_request_error: said so"):
        one.run(one_by_one())
    assert len(one.provider.texts) == IN_A_ROW
    assert [one.ledger.get(key_of(question(f"q{n}"))) for n in range(IN_A_ROW)] == [None] * IN_A_ROW
    assert one.asker.refused == {"http_400"}


def test_the_same_refusal_of_many_rows_at_once_leaves_none_of_them_rejected(engine: Make) -> None:
    """Those that were still out when the run was told to stop bring the same refusal: they are not the rows' fault either."""
    one = engine(BAD)

    async def all_at_once() -> list[BaseException | Outcome]:
        return await asyncio.gather(*(one.asker.outcome(question(f"q{n}")) for n in range(60)), return_exceptions=True)

    outcomes = one.run(all_at_once())
    assert sum(isinstance(outcome, Fatal) for outcome in outcomes) >= 60 - IN_A_ROW
    assert [one.ledger.get(key_of(question(f"q{n}"))) for n in range(60)] == [None] * 60


def test_a_late_refusal_of_a_row_that_was_asked_twice_is_not_kept_after_the_stop(engine: Make) -> None:
    released: list[asyncio.Event] = []

    async def script(request: Request, tries: int) -> Reply:
        if request.messages[0].content == "late":
            if tries == 0:
                raise Retry("server")
            released.append(asyncio.Event())
            await released[0].wait()
        raise BAD

    one = engine(script)

    async def main() -> None:
        late = asyncio.create_task(one.asker.outcome(question("late")))
        while not released:
            await asyncio.sleep(0)
        for n in range(IN_A_ROW - 1):
            await one.asker.outcome(question(f"q{n}"))
        with pytest.raises(Fatal):
            await one.asker.outcome(question("the last straw"))
        released[0].set()
        with pytest.raises(Fatal):
            await late

    one.run(main())
    assert one.ledger.get(key_of(question("late"))) is None


def test_unreadable_replies_to_everything_stop_the_run(engine: Make) -> None:
    one = engine(Retry("protocol", "a web page"))

    async def all_at_once() -> list[BaseException | Outcome]:
        return await asyncio.gather(*(one.asker.outcome(question(f"q{n}")) for n in range(60)), return_exceptions=True)

    outcomes = one.run(all_at_once())
    assert any(isinstance(outcome, Fatal) for outcome in outcomes)
    assert [one.ledger.get(key_of(question(f"q{n}"))) for n in range(60)] == [None] * 60


def test_one_odd_refusal_does_not_stop_the_run(engine: Make) -> None:
    one = engine(refuses_those_with("odd"))
    outcomes = one.ask(*(question(f"odd {n}" if n % 10 == 3 else f"q{n}") for n in range(200)))
    assert Counter(type(outcome) for outcome in outcomes) == {Reply: 180, Reject: 20}


def test_a_row_that_cannot_even_be_sent_never_counts_as_systemic(engine: Make) -> None:
    """It comes without a server's signature, however many good replies there were before it, and however many of it."""
    unsendable = Reject("unencodable", "the row's own affair")

    async def script(request: Request, tries: int) -> Reply:
        if "odd" in request.messages[0].content:
            raise unsendable
        return Reply(text="ok")

    outcomes = engine(script).ask(*(question(f"q{n}") for n in range(60)), *(question(f"odd {n}") for n in range(60)))
    assert Counter(type(outcome) for outcome in outcomes) == {Reply: 60, Reject: 60}


# Stopping


def test_stopping_sends_nothing_new_and_keeps_what_comes_back(engine: Make) -> None:
    gate: list[asyncio.Event] = []

    async def script(request: Request, tries: int) -> Reply:
        await gate[0].wait()
        return Reply(text="late but kept")

    one = engine(script)
    one.pace.slots = 3.0

    async def main() -> list[BaseException | Outcome]:
        gate.append(asyncio.Event())
        tasks = [asyncio.create_task(one.asker.outcome(question(f"q{n}"))) for n in range(10)]
        while one.asker.in_flight < 3:
            await asyncio.sleep(0)
        one.asker.stopping = True
        gate[0].set()
        return await asyncio.gather(*tasks, return_exceptions=True)

    outcomes = one.run(main())
    assert [type(outcome) for outcome in outcomes] == [Reply] * 3 + [Stopped] * 7
    assert one.provider.texts == ["q0", "q1", "q2"]
    assert [type(one.ledger.get(key_of(question(f"q{n}")))) for n in range(4)] == [Reply, Reply, Reply, type(None)]
    assert one.asker.in_flight == one.pace.in_flight == 0


def test_what_is_known_is_still_told_while_stopping(engine: Make) -> None:
    one = engine(Reply(text="hello"))
    one.ask(question("q"))
    one.asker.stopping = True
    assert one.ask(question("q")) == [Reply(text="hello")]
    with pytest.raises(Stopped):
        one.ask(question("new"))


def test_a_run_that_stops_does_not_wait_for_its_turn_first(engine: Make) -> None:
    one = engine(Reply(text="hello"))
    one.pace.slots = 0.0
    one.asker.stopping = True
    with pytest.raises(Stopped):
        one.run(asyncio.wait_for(one.asker.outcome(question("new")), 5))


@pytest.mark.parametrize("failure", [BAD, Fatal("key refused", code=Exit.KEY), ZeroDivisionError("a bug")])
def test_nothing_is_in_flight_after_a_failure(engine: Make, failure: Exception) -> None:
    one = engine(failure, cap=1.0)

    async def main() -> None:
        await asyncio.gather(one.asker.outcome(question("q")), return_exceptions=True)
        await one.ledger.release()

    one.run(main())
    assert one.asker.in_flight == one.pace.in_flight == 0
    assert one.ledger.spent() == (0.0, 0.0)


def test_a_cancelled_request_counts_as_in_flight_and_frees_its_slot(engine: Make) -> None:
    """It may be billed and its reply is not on disk: the user is told so."""

    async def script(request: Request, tries: int) -> Reply:
        await asyncio.sleep(60)
        return Reply(text="never")

    one = engine(script)

    async def main() -> None:
        tasks = [asyncio.create_task(one.asker.outcome(question(text))) for text in ("a", "b")]
        while one.asker.in_flight < 2:
            await asyncio.sleep(0)
        tasks[0].cancel()
        await asyncio.gather(tasks[0], return_exceptions=True)
        assert one.asker.in_flight == 2
        assert one.pace.in_flight == 1
        tasks[1].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    one.run(main())
    assert one.asker.in_flight == 2
    assert one.pace.in_flight == 0


def test_a_request_that_waits_for_its_turn_is_not_in_flight_when_it_is_cancelled(engine: Make) -> None:
    one = engine(Reply(text="ok"))
    one.pace.slots = 0.0

    async def main() -> None:
        task = asyncio.create_task(one.asker.outcome(question("q")))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    one.run(main())
    assert one.asker.in_flight == 0
    assert one.provider.texts == []


def test_those_who_share_a_request_share_its_end(engine: Make) -> None:
    one = engine(Fatal("the key was refused", code=Exit.KEY))

    async def main() -> list[BaseException | Outcome]:
        return await asyncio.gather(*(one.asker.outcome(question("q")) for _ in range(5)), return_exceptions=True)

    outcomes = one.run(main())
    assert [str(outcome) for outcome in outcomes] == ["the key was refused"] * 5
    assert one.provider.texts == ["q"]


def test_a_wave_waits_for_all_of_it_even_when_one_part_stops_the_run(engine: Make) -> None:
    async def script(request: Request, tries: int) -> Reply:
        if request.messages[0].content == "stop":
            raise Fatal("stop")
        await asyncio.sleep(0.05)
        return Reply(text="bought")

    one = engine(script)
    with pytest.raises(Fatal, match="stop"):
        one.run(one.asker.wave((question("stop"), question("slow"))))
    assert one.ledger.get(key_of(question("slow"))) == Reply(text="bought")


def test_providers_are_opened_once_and_closed_at_the_end(engine: Make) -> None:
    one = engine(Reply(text="ok"))
    one.ask(question("a"), question("b"))
    one.run(one.asker.close())
    assert one.provider.closed
