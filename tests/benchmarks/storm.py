"""Print what a storm costs: ten minutes in which a server answers every request with 529, at 200 in flight. In virtual time.

    python tests/benchmarks/storm.py [SEEDS]

Rows of three requests each, as many alive as the engine keeps; a server that takes 0.5 to 1.5 s for a reply and a tenth of that
to refuse. Retries are what was sent in vain beyond the 200 that were in flight when it began; recovery is how long after its end
200 requests are in flight again. When it begins is drawn, and up to half a minute
that it lasts longer: when the next probe comes is chance.
"""

from __future__ import annotations

import asyncio
import random
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from virtual import Places, VirtualClock, ask_for, run

from cai_cli.engine.limits import ServerLimits
from cai_cli.engine.pace import Pace
from cai_cli.engine.rates import Rates
from cai_cli.errors import Retry
from cai_cli.flow import Reply

AT_ONCE, ROWS, STEPS = 200, 5_000, 3
LASTS_S, LONGER_S = 600.0, 30.0


@dataclass(slots=True)
class Storm:
    """What came of one storm."""

    rows: int = 0  # that were done in the end
    refused: int = 0  # answers of 529
    recovered_s: float = -1.0  # after its end


class _Storm:
    def __init__(self, seed: int) -> None:
        self.pace = Pace(AT_ONCE, None, 6 * 3600, VirtualClock(), seed)
        self.meter = ServerLimits(Places(), self.pace, lambda place, model: Rates())
        self.draw, self.found = random.Random(seed), Storm()
        self.begins_s = self.draw.uniform(10, 40)
        self.ends_s = self.begins_s + LASTS_S + self.draw.uniform(0, LONGER_S)
        self.rows = iter(range(ROWS))

    def rages(self) -> bool:
        return self.begins_s < self.pace.clock.now() < self.ends_s

    async def worker(self) -> None:
        for _ in self.rows:
            for _ in range(STEPS):
                await self.request()
            self.found.rows += 1

    async def request(self) -> None:
        tries, request = 0, ask_for(100, 256)
        while True:
            await self.pace.enter(request, self.meter)
            self.note_recovery()
            is_refused = not await self.answer()
            reply = None if is_refused else Reply(text="x", tokens_in=100, tokens_out=60)
            self.meter.answered(self.meter.server_for(request) or 0, request, {}, reply)
            self.pace.leave(request, self.meter, reply)
            if not is_refused:
                return self.pace.succeeded()
            tries += 1
            self.found.refused += 1
            await self.pace.failed(Retry("server", "529 overloaded_error"), tries)

    async def answer(self) -> bool:
        latency_s = self.draw.uniform(0.5, 1.5)
        await asyncio.sleep(latency_s / 10 if self.rages() else latency_s)
        return not self.rages()

    def note_recovery(self) -> None:
        after_s = self.pace.clock.now() - self.ends_s
        if after_s > 0 and self.found.recovered_s < 0 and self.pace.in_flight == AT_ONCE:
            self.found.recovered_s = after_s

    async def all_rows(self) -> None:
        await asyncio.gather(*(self.worker() for _ in range(2 * AT_ONCE)))


def storm(seed: int) -> Storm:
    """One storm."""

    async def weather() -> Storm:
        one = _Storm(seed)
        await one.all_rows()
        return one.found

    found: Storm = run(weather())
    return found


def main() -> None:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    print("seed  retries  rows lost  back after s")
    for seed in range(seeds):
        one = storm(seed)
        print(f"{seed:4}  {one.refused - AT_ONCE:7}  {ROWS - one.rows:9}  {one.recovered_s:12.1f}", flush=True)


if __name__ == "__main__":
    main()
