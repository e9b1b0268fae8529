"""One row that hangs: the others go on, partitions behind it are written, and how far they may run ahead has an end."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from cai_cli.engine.budget import Budget
from cai_cli.engine.clock import Clock
from cai_cli.engine.drive import Asker
from cai_cli.engine.feed import Feed, Unit
from cai_cli.engine.ledger import Ledger
from cai_cli.engine.pace import Pace
from cai_cli.engine.program import each, program
from cai_cli.engine.rows import Rows
from cai_cli.engine.shards import Layout, Staging
from cai_cli.engine.sinks import ShardSink, Sink, StreamSink
from cai_cli.flow import Flow, Model, Reply, Request, ask
from cai_cli.records import Prompt, Sample, Turn

MODEL = Model(provider="scripted", name="m", params={"max_tokens": 100})
PROMPTS, A_SHARD, WORKERS = 60, 10, 4


def generate(prompt: Prompt) -> Flow[Sample]:
    """A stage of one question."""
    reply = yield from ask(Request(model=MODEL, messages=prompt.messages, stage="generate", row=prompt.id))
    return Sample(id=f"{prompt.id}-0", prompt_id=prompt.id, messages=prompt.messages, prompt=prompt.text, response=reply.text)


class Slow:
    """Answers at once, but the first prompt only when it is `released`."""

    host = "scripted.host"

    def __init__(self) -> None:
        self.released, self.asked = asyncio.Event(), list[str]()

    async def send(self, request: Request, deadline_s: float) -> Reply:
        self.asked.append(request.row)
        await (self.released.wait() if request.row == "p0" else asyncio.sleep(0))
        return Reply(text=f"of {request.row}")

    async def close(self) -> None:
        pass


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.sqlite", "run", "job")
    yield opened
    opened.close()


def units() -> Iterator[Unit]:
    for n in range(PROMPTS):
        yield Unit(n // A_SHARD, (Prompt(id=f"p{n}", messages=(Turn(role="user", content=f"q{n}"),)),))


def rows_of(ledger: Ledger, sink: Sink, ahead: int, provider: Slow) -> Rows:
    clock = Clock()
    pace = Pace(WORKERS, None, 60.0, clock)
    asker = Asker(ledger, Budget(ledger, None), lambda model: pace, lambda model: provider, clock)
    feed = Feed(units, PROMPTS, PROMPTS // A_SHARD, "")
    return Rows(feed, program(["generate"], [each("generate", generate)]), asker, sink, ahead=ahead)


async def driven(ledger: Ledger, sink: Sink, ahead: int, still: Callable[[Slow], bool]) -> Sequence[str]:
    """Drive the rows, the first of which hangs until `still` is false. Gives: who was asked while it hung"""
    provider = Slow()
    rows = rows_of(ledger, sink, ahead, provider)
    run = asyncio.create_task(rows.run(WORKERS, lambda: None))
    while still(provider):
        await asyncio.sleep(0.01)
    meanwhile = list(provider.asked)
    provider.released.set()
    assert await asyncio.wait_for(run, 10)
    assert rows.error is None
    assert sorted(provider.asked) == sorted(f"p{n}" for n in range(PROMPTS))
    return meanwhile


def test_a_row_that_hangs_holds_back_no_partition_but_its_own(ledger: Ledger, tmp_path: Path) -> None:
    staging = Staging(tmp_path / "staging" / "job", ["generate"], Layout(PROMPTS // A_SHARD))

    def whole() -> list[bool]:
        return [staging.done(shard) is not None for shard in range(PROMPTS // A_SHARD)]

    asyncio.run(driven(ledger, ShardSink(staging), 1000, lambda provider: sum(whole()) < 5))
    assert all(whole())


def test_rows_run_ahead_of_one_that_hangs_only_so_far(ledger: Ledger, tmp_path: Path) -> None:
    """What waits for its turn in a stream waits in memory."""
    stream, seen = io.BytesIO(), list[int]()

    def still(provider: Slow) -> bool:
        seen.append(len(provider.asked))
        return seen[-30:] != [seen[-1]] * 30  # nobody was asked for 0.3 s

    meanwhile = asyncio.run(driven(ledger, StreamSink(stream, "generate", tmp_path / "rejects.jsonl"), 20, still))
    assert 20 <= len(meanwhile) <= 20 + WORKERS
    ids = [line.split(b'"')[3].decode() for line in stream.getvalue().splitlines()]
    assert ids == [f"p{n}-0" for n in range(PROMPTS)]


def test_a_run_that_stops_does_not_wait_for_the_row_that_hangs(ledger: Ledger, tmp_path: Path) -> None:
    async def main() -> bool:
        provider = Slow()
        rows = rows_of(ledger, StreamSink(io.BytesIO(), "generate", tmp_path / "rejects.jsonl"), 20, provider)
        run = asyncio.create_task(rows.run(WORKERS, lambda: None))
        while len(provider.asked) < 20:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)  # by now the others wait for the first row
        rows.asker.stopping = True
        provider.released.set()
        return await asyncio.wait_for(run, 5)

    assert not asyncio.run(main())
