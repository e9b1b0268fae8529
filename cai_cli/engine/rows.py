"""Drive all prompts of a job through their program: workers, signals, and a stop that loses nothing."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

from cai_cli.engine.drive import Asker, Stopped, Usage
from cai_cli.engine.feed import Feed
from cai_cli.engine.program import MadeBy
from cai_cli.engine.sinks import Sink
from cai_cli.errors import Exit, Fatal
from cai_cli.flow import Flow

FEW_VOTES = 100  # fewer say nothing about a labeler
DRAIN_S = 20.0  # how long requests in flight are waited for at a stop
TICK_S = 0.2
# How many rows may be begun after one that is not done yet. A row that hangs holds nobody back, but rows behind it may wait in
# memory: all that are written in input order, and the rest of its partition. 20,000 rows are about 200 MB.
AHEAD = 20_000
STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Program = Callable[[Sequence[Any]], Flow[MadeBy]]


class Rows:
    """One pass over a feed. `signal` is what stopped it, or None; `error` is the first thing that went wrong.

    `ahead`: how many rows may be begun after the oldest one that is not done.
    """

    def __init__(
        self, feed: Feed, program: Program, asker: Asker, sink: Sink, max_abstain_rate: float = 1.0, ahead: int = AHEAD
    ) -> None:
        self.feed, self.program, self.asker, self.sink, self.ahead = feed, program, asker, sink, ahead
        self.max_abstain_rate = max_abstain_rate
        self.signal: signal.Signals | None = None
        self.error: BaseException | None = None
        self._hurry = False
        self._closing: list[tuple[int, int]] = []
        self._units = self._admitted()
        self._open: dict[int, None] = {}  # the numbers of the rows that are begun and not done, the oldest first
        self._begun = 0
        self._moved: asyncio.Future[None] | None = None  # resolved when the oldest of them is done, if anybody waits for that

    async def run(self, workers: int, tick: Callable[[], None]) -> bool:
        """Drive everything with so many flows alive at once; `tick` is called five times a second. Gives: whether all is done"""
        heard = self._listen()
        try:
            return await self._drive(workers, tick)
        finally:
            self._hear_no_more(heard)

    async def _drive(self, workers: int, tick: Callable[[], None]) -> bool:
        waiting = await self._watched([self._work() for _ in range(workers)], tick)
        if not self.asker.stopping:
            waiting = await self._watched([self._finish()], tick)
        if self.asker.stopping:
            await self._drain(waiting, tick)
        tick()
        return not self.asker.stopping

    async def _watched(self, work: Sequence[Coroutine[Any, Any, None]], tick: Callable[[], None]) -> set[asyncio.Task[None]]:
        """Do several things side by side until they are done or the run stops. Gives: what still goes on"""
        waiting = {asyncio.create_task(self._guarded(one)) for one in work}
        while waiting and not self.asker.stopping:
            tick()
            _, waiting = await asyncio.wait(waiting, timeout=TICK_S)
        return waiting

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Stopped:
            return
        except Exception as error:  # kept, raised by the run's owner after the drain; the others are told to stop
            self.error = self.error or error
            self.asker.stopping = True

    def _listen(self) -> dict[signal.Signals, Any]:
        """Hear signals, but none that we were started to ignore (nohup, a shell's background). Gives: who heard them before"""
        before = {number: signal.getsignal(number) for number in STOPS}
        heard = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
        for number in heard:
            asyncio.get_running_loop().add_signal_handler(number, self._stop, number)
        return heard

    def _hear_no_more(self, heard: dict[signal.Signals, Any]) -> None:
        for number, handler in heard.items():
            asyncio.get_running_loop().remove_signal_handler(number)
            signal.signal(number, handler)

    def _stop(self, number: signal.Signals) -> None:
        """First signal: admit nothing more. Second: do not wait for what is in flight."""
        self._hurry = self.signal is not None
        self.signal = self.signal or number
        self.asker.stopping = True

    async def _drain(self, waiting: set[asyncio.Task[None]], tick: Callable[[], None]) -> None:
        clock, waited = self.asker.clock, self.sink.patience.end()
        deadline = clock.now() + DRAIN_S
        while waiting and (self.asker.in_flight or waited) and clock.now() < deadline and not self._hurry:
            tick()
            _, waiting = await asyncio.wait(waiting, timeout=TICK_S)
            waited = False  # those who waited for the disk have said by now that it is full
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

    async def _work(self) -> None:
        for shard, position, rows in self._units:
            self._begun = number = self._begun + 1
            self._open[number] = None
            await self._one(shard, position, rows)
            self._done(number)
            while self._open and self._begun - next(iter(self._open)) >= self.ahead and not self.asker.stopping:
                self._moved = self._moved or asyncio.get_running_loop().create_future()
                await asyncio.shield(self._moved)
            if self.asker.stopping:
                return

    def _done(self, number: int) -> None:
        oldest = next(iter(self._open)) == number
        del self._open[number]
        if oldest and self._moved is not None:
            self._moved.set_result(None)
            self._moved = None

    async def _one(self, shard: int, position: int, rows: Sequence[Any]) -> None:
        usage = Usage()
        made = await self.asker.drive(self.program(rows), usage)
        await self.sink.add(shard, position, (made, usage))
        self._check_abstentions()
        while self._closing:
            await self.sink.close(*self._closing.pop())

    def _check_abstentions(self) -> None:
        progress = self.sink.progress
        if progress.votes >= FEW_VOTES and progress.abstain_rate > self.max_abstain_rate:
            raise Fatal(
                f"{progress.abstain_rate:.0%} of {progress.votes:,} votes are none: refused, cut off, or not to be read",
                "look at them with `cai show`, change the labeler's model, its max_tokens or the template; "
                "or allow it: limits.max_abstain_rate",
            )

    def _admitted(self) -> Iterator[tuple[int, int, Sequence[Any]]]:
        """The units that are not done yet, with their place in their partition; notes where partitions end."""
        shard, position = 0, 0
        for unit in self.feed.left(self.sink.skip):
            if unit.shard != shard:
                self._end(shard, unit.shard, position)
                shard, position = unit.shard, 0
            if self.sink.skip(unit.shard):
                self.sink.progress.prompts += 1
                continue
            yield unit.shard, position, unit.rows
            position += 1
        self._end(shard, self.feed.shards, position)

    def _end(self, shard: int, until: int, units: int) -> None:
        """Partition `shard` had so many units; those after it, up to `until`, have none."""
        for number in range(shard, until):
            if not self.sink.skip(number) or (number == shard and units):
                self._closing.append((number, units if number == shard else 0))

    async def _finish(self) -> None:
        """Write the partitions that end with the input; no cause was found behind the refusals, so they are the rows' own."""
        while self._closing:
            await self.sink.close(*self._closing.pop())
        await self.asker.ledger.confirm_failures()

    @property
    def exit(self) -> Exit:
        return Exit.INTERRUPTED if self.signal is signal.SIGINT else Exit.STOPPED
