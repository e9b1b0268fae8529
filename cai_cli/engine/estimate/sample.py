"""`cai estimate --sample`: a few prompts drawn at random go through the stages for real, under the cap, into the ledger."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from cai_cli.config import Config
from cai_cli.engine import pilot, plan
from cai_cli.engine.disk import Patience
from cai_cli.engine.estimate.collect import drawn
from cai_cli.engine.feed import Feed
from cai_cli.engine.plan import Step
from cai_cli.engine.run import Options, Run, Summary, begun, held
from cai_cli.engine.runs import RunLog, all_of
from cai_cli.engine.session import Session, Snapshot, Watch, stage_facts
from cai_cli.engine.sinks import Done, Progress
from cai_cli.errors import Exit

WHAT = "sampled prompts"  # are counted while they are asked
LATENCY = "latency_s"  # in a run's log: of a request, from sending to reply
TICKS, ENOUGH = 10, 20  # looks at a run, and requests, that a latency is measured from


def sampled(config: Config, steps: Sequence[Step], count: int, options: Options, watch: Watch) -> Summary:
    """Ask about so many prompts what the run would ask about them, and keep the replies for it.

    Nothing is asked that hangs on a pilot which was not asked yet, nor what tables ask.
    Raises: Fix, before anything is asked; Held; bugs. Other stops come back in the summary, and the same call goes on from there.
    """
    with held(config, options):
        return begun(config, options, lambda log: _Sample(config, list(steps), options, watch, log, count))


def latency_of(config: Config) -> float | None:
    """Seconds that a request took in the newest sample of this output; None: nobody measured."""
    measured = [facts[LATENCY] for facts in all_of(config.state_path, config.output_path) if facts.get(LATENCY)]
    return float(measured[-1]) if measured else None


class _Sample(Run):
    """Drives the sampled prompts, and keeps no row of them."""

    def __init__(
        self, config: Config, steps: list[Step], options: Options, watch: Watch, log: RunLog, count: int
    ) -> None:  # fmt: skip
        super().__init__(config, steps, options, watch, log)
        self.count = count

    def run(self) -> None:
        feed, summary = self.feed(), self.summary
        asked = _without_pilot(self.config, self.steps, feed)
        units = drawn(feed, self.steps[0].seed, self.count) if asked else []
        summary.prompts, summary.what = len(units), WHAT
        if not units:
            return
        some = Feed(lambda: iter(units), len(units), 1, feed.fingerprint, [], feed.parents)
        models = {step.name: step.models for step in asked}
        watch, program = _Timed(self.watch), self.retries.program(plan.program_of(asked))
        ended = Session(self.config, self.log, watch).drive(some, program, models, _Thrown(), WHAT)
        snapshot = ended.snapshot
        summary.exit, summary.error, summary.in_flight = ended.exit, ended.error, snapshot.asker.in_flight
        summary.done = len(units) if ended.whole else snapshot.progress.prompts
        summary.dollars = snapshot.asker.budget.dollars
        summary.stages = {name: stage_facts(snapshot, name) | {"version": ""} for name in models}
        requests = sum(one["requests"] for one in summary.stages.values())
        if requests >= ENOUGH and (latency_s := watch.latency_s(requests)) is not None:
            self.log.update(**{LATENCY: latency_s})


def _without_pilot(config: Config, steps: Sequence[Step], feed: Feed) -> list[Step]:
    """The row-wise steps that can be asked now."""
    row_wise = [step for step in steps if step.name not in plan.table_names()]
    ready = pilot.frozen(config, row_wise, feed)
    if ready is not None:
        return ready
    return row_wise[: [step.name for step in row_wise].index(pilot.NAME)]


@dataclass
class _Thrown:
    """Counts rows and keeps none: their replies are in the ledger."""

    progress: Progress = field(default_factory=Progress)
    patience: Patience = field(default_factory=Patience)

    def skip(self, shard: int) -> bool:
        return False

    async def add(self, shard: int, position: int, done: Done) -> None:
        self.progress.add(done[0])

    async def close(self, shard: int, units: int) -> None:
        """Nothing is written."""


class _Timed:
    """A display, and beside it the mean number in flight: by Little's law, with the rate, how long a request takes."""

    def __init__(self, watch: Watch) -> None:
        self.watch, self._ticks, self._sum = watch, 0, 0
        self._began = self._last = time.monotonic()

    def begin(self, snapshot: Snapshot) -> None:
        self._began = time.monotonic()
        self.watch.begin(snapshot)

    def tick(self, snapshot: Snapshot) -> None:
        self._ticks, self._sum, self._last = self._ticks + 1, self._sum + snapshot.asker.in_flight, time.monotonic()
        self.watch.tick(snapshot)

    def end(self, snapshot: Snapshot) -> None:
        self.watch.end(snapshot)

    def latency_s(self, requests: int) -> float | None:
        """Seconds a request; None: it went too fast to see."""
        if self._ticks < TICKS:
            return None
        return self._sum / self._ticks * (self._last - self._began) / requests


def is_whole(summary: Summary) -> bool:
    """Whether all that was to be sampled is there."""
    return summary.exit == Exit.OK


def spent(summary: Summary) -> dict[str, Any]:
    """What a sample came to, as --json tells it; dollars None: of a model whose price is not known."""
    requests, replayed = (sum(one[key] for one in summary.stages.values()) for key in ("requests", "replayed"))
    dollars = None if summary.unpriced else round(summary.dollars, 6)
    return {"prompts": summary.prompts, "requests": requests, "replayed": replayed, "dollars": dollars}
