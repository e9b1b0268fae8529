"""Microseconds of CPU that each part of a request takes, each alone in a loop. Usage: _request_parts.py URL FOLDER

FOLDER holds the job of ceiling.py; its ledger is not touched. Prints one line of JSON: names and microseconds. The sum is more
than a run pays where parts overlap, and less where they disturb one another (caches, the other thread).
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import uvloop

from cai_cli.cli._process import OBJECTS
from cai_cli.config import load
from cai_cli.engine.budget import Budget
from cai_cli.engine.clock import Clock
from cai_cli.engine.drive import Asker
from cai_cli.engine.ledger import Ledger, key_of
from cai_cli.engine.pace import Pace
from cai_cli.engine.plan import feed_of, program_of, sections_of, steps_of
from cai_cli.flow import Flow, Reply, Request
from cai_cli.providers._http import Http
from cai_cli.providers._keys import check_address
from cai_cli.providers._messages import encode, reply_from
from cai_cli.providers.anthropic import connect

AT_ONCE, TEXT = 64, "a reply of some length, as models write them. " * 14


def spent(work: Callable[[], Any], count: int) -> float:
    """Microseconds of CPU for each of `count` things that `work` does, its threads included."""
    began = time.process_time()
    work()
    return 1e6 * (time.process_time() - began) / count


def answers(count: int) -> Iterator[Reply]:
    """Replies of one length, no two the same."""
    return (Reply(text=f"{n:08x} {TEXT}", model="cheap", tokens_in=300, tokens_out=150) for n in range(count))


def by_hand(flow: Flow[Any], replies: Iterator[Reply], asked: list[Request]) -> None:
    """Drive a flow without an engine, and keep what it asks."""
    try:
        requests = next(flow)
        while True:
            asked += requests
            requests = flow.send(tuple(next(replies) for _ in requests))
    except StopIteration:
        return


async def at_once(ask: Callable[[Request], Awaitable[Any]], requests: list[Request]) -> None:
    """Ask all, so many at once."""
    waiting = iter(requests)

    async def work() -> None:
        for request in waiting:
            await ask(request)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))


class Answered:
    """A provider that has every reply at hand: what is left of a request is the engine's."""

    host = "here"

    async def send(self, request: Request, deadline_s: float) -> Reply:
        await asyncio.sleep(0)
        return Reply(text=TEXT, model="cheap", tokens_in=300, tokens_out=150)

    async def close(self) -> None:
        pass


class Parts:
    """The requests of the job, and what is measured with them."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder, self.requests = url, folder, list[Request]()
        self.config = load(folder / "job.json")
        self.steps = steps_of(self.config, sections_of(self.config))
        self.units = [unit.rows for unit in feed_of(self.config, self.steps, None, None, folder).units()]

    def pure(self) -> dict[str, float]:
        """What happens without a wait."""
        program, count = program_of(self.steps), 3 * len(self.units)
        replies = answers(2 * count)
        flow = spent(lambda: [by_hand(program(rows), replies, self.requests) for rows in self.units], count)
        asked, body = self.requests, self._body()
        return {
            "flows and templates": flow,
            "key": spent(lambda: [key_of(one) for one in asked], count),
            "encode": spent(lambda: [encode(one) for one in asked], count),
            "parse": spent(lambda: [reply_from(body, one) for one in asked], count),
        }

    def _body(self) -> bytes:
        usage = {"input_tokens": 300, "output_tokens": 150}
        message = {"type": "message", "model": "cheap", "content": [{"type": "text", "text": TEXT}], "stop_reason": "end_turn"}
        return orjson.dumps(message | {"usage": usage})

    def stored(self) -> dict[str, float]:
        """What the ledger and the money cost."""
        asked, found = self.requests, dict[str, float]()
        keys, reply = {id(one): key_of(one) for one in asked}, next(answers(1))
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            ledger = Ledger(Path(folder, "ledger.sqlite"), "run", "job")
            budget, count = Budget(ledger, None), len(asked)
            found["lookup of what is not there"] = spent(lambda: [ledger.get(keys[id(one)]) for one in asked], count)

            async def put(one: Request) -> None:
                await ledger.put(keys[id(one)], one, reply, "host", 0.001)

            found["insert and commit"] = spent(lambda: uvloop.run(at_once(put, asked)), count)
            found["lookup of what is there"] = spent(lambda: [ledger.get(keys[id(one)]) for one in asked], count)
            found["budget"] = spent(lambda: [self._pay(budget, one, reply) for one in asked], count)
            ledger.close()
        return found

    def _pay(self, budget: Budget, request: Request, reply: Reply) -> None:
        budget.settle(budget.to_reserve(request), budget.cost(request.model, reply))

    def waited(self) -> dict[str, float]:
        """What happens on the loop: the pace, the wire, and all of it but the wire."""
        asked, count = self.requests, len(self.requests)

        async def paced(one: Request) -> None:
            await pace.enter()
            pace.leave()
            pace.succeeded()

        pace, found = Pace(AT_ONCE, None, 3600.0, Clock()), dict[str, float]()
        found["pace"] = spent(lambda: uvloop.run(at_once(paced, asked)), count)
        found["transport (aiohttp)"] = spent(lambda: uvloop.run(self._over_http(asked)), count)
        found["provider: encode, transport, parse"] = spent(lambda: uvloop.run(self._by_provider(asked)), count)
        found["engine: all but flows and provider"] = spent(lambda: uvloop.run(self._by_engine(asked)), count)
        return found

    async def _over_http(self, asked: list[Request]) -> None:
        http, address = Http(), check_address(self.url, "", False)
        headers = {"content-type": "application/json", "authorization": "Bearer none"}
        bodies = {id(one): encode(one) for one in asked}

        async def post(one: Request) -> None:
            await http.ask("POST", address, "/v1/messages", headers, data=bodies[id(one)])

        await at_once(post, asked)
        await http.close()

    async def _by_provider(self, asked: list[Request]) -> None:
        provider = connect(asked[0].model)
        await at_once(lambda one: provider.send(one, 60.0), asked)
        await provider.close()

    async def _by_engine(self, asked: list[Request]) -> None:
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            ledger = Ledger(Path(folder, "ledger.sqlite"), "run", "job")
            clock = Clock()
            pace, provider = Pace(AT_ONCE, None, 3600.0, clock), Answered()
            asker = Asker(ledger, Budget(ledger, None), lambda model: pace, lambda model: provider, clock)
            await at_once(asker.outcome, asked)
            ledger.close()


def main() -> None:
    os.environ["ANTHROPIC_API_KEY"] = "none"
    gc.set_threshold(OBJECTS)
    parts = Parts(sys.argv[1], Path(sys.argv[2]))
    print(json.dumps(parts.pure() | parts.stored() | parts.waited()))


if __name__ == "__main__":
    main()
