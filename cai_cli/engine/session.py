"""The part of a run that asks: ledger, budget, pace and providers opened, rows driven, everything closed in order."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from cai_cli import providers
from cai_cli.config import Config
from cai_cli.engine.budget import Budget
from cai_cli.engine.clock import Clock
from cai_cli.engine.disk import Patience
from cai_cli.engine.drive import Asker
from cai_cli.engine.feed import Feed
from cai_cli.engine.ledger import Ledger
from cai_cli.engine.limits import OwnLimits
from cai_cli.engine.pace import AUTO_MOST, Pace
from cai_cli.engine.rates import Rates
from cai_cli.engine.rows import Program, Rows
from cai_cli.engine.runs import RunLog, own
from cai_cli.engine.servers import asked, held, oldest, servers
from cai_cli.engine.shared_rates import SharedRates
from cai_cli.engine.sinks import Progress, ShardSink, Sink
from cai_cli.engine.speed import Speed, in_all
from cai_cli.errors import Exit, Fatal
from cai_cli.flow import Model
from cai_cli.providers import Metered, Provider
from cai_cli.reports.quantities import unpriced

LOG_EVERY_S, LATER_LOG_EVERY_S, LATER_S = 1.0, 5.0, 60.0


@dataclass(kw_only=True)
class Snapshot:
    """Where a run stands, for a display."""

    models: Mapping[str, Sequence[Model]]  # whom each stage asks
    prompts: int
    what: str = "prompts"  # that are counted, where they are others: probes, prompts of a pilot
    progress: Progress
    asker: Asker
    patience: Patience = field(default_factory=Patience)  # says when the run waits for the disk
    started: float = field(default_factory=time.monotonic)
    speed: Speed = field(default_factory=Speed)
    before_usd: float = 0.0  # of the budget, gone before this run began

    @property
    def stages(self) -> Sequence[str]:
        return tuple(self.models)

    @property
    def asked(self) -> Sequence[Model]:
        return [model for models in self.models.values() for model in models]


class Watch(Protocol):
    """Looks on while a run goes. Called on the loop's thread: it must be quick."""

    def begin(self, snapshot: Snapshot) -> None: ...
    def tick(self, snapshot: Snapshot) -> None: ...
    def end(self, snapshot: Snapshot) -> None: ...


@dataclass
class Ended:
    """How it ended: whole, or stopped by a signal or a Fatal."""

    whole: bool
    snapshot: Snapshot
    exit: Exit = Exit.OK
    error: Fatal | None = None


class Session:
    """Opens what a run needs and drives one feed through it."""

    def __init__(self, config: Config, log: RunLog, watch: Watch) -> None:
        self.config, self.log, self.watch = config, log, watch
        self.clock = Clock()
        self.shared = SharedRates()
        self._paces: dict[tuple[str, tuple[str, ...]], Pace] = {}
        self._log_at = 0.0

    def drive(
        self, feed: Feed, program: Program, models: Mapping[str, Sequence[Model]], sink: Sink, what: str = "prompts"
    ) -> Ended:
        """Drive every prompt of the feed; `models` says whom each stage asks; `what`: what a display calls them.

        Raises: Fix and bugs, after the drain
        """
        import uvloop

        return uvloop.run(self._drive(feed, program, models, sink, what))

    async def _drive(self, feed: Feed, program: Program, models: Mapping[str, Sequence[Model]], sink: Sink, what: str) -> Ended:
        path, job = self.config.state_path / "ledger.sqlite", str(self.config.output_path.resolve())
        ledger = Ledger(path, self.log.run, job, sink.patience, own(self.config.state_path, self.config.output_path))
        budget = Budget(ledger, self.config.limits.budget_usd)
        asker = Asker(ledger, budget, self._pace_for, self._connect, self.clock, self.shared.rates)
        snapshot = Snapshot(
            models=models, prompts=feed.prompts, what=what, progress=sink.progress, asker=asker, patience=sink.patience,
            before_usd=sum(ledger.spent()),
        )  # fmt: skip
        self.log.update(unpriced=self.log.facts.get("unpriced", {}) | unpriced(models))  # a run may drive more than once
        self.watch.begin(snapshot)
        try:
            return await self._watched(Rows(feed, program, asker, sink, self.config.limits.max_abstain_rate), snapshot, sink)
        finally:
            self.watch.end(snapshot)
            sink.patience.end()  # nobody looks on any more
            await asker.close()
            asker.budget.close()
            if asker.in_flight == 0:  # else what was in flight may be billed: its money stays set aside
                with contextlib.suppress(Fatal):  # a full disk, told already; what stays set aside is no more than the cap
                    await ledger.release()
            ledger.close()
            self._leave_shared()

    async def _watched(self, rows: Rows, snapshot: Snapshot, sink: Sink) -> Ended:
        whole = await rows.run(2 * self._most(), lambda: self._tick(snapshot))
        if isinstance(rows.error, Fatal):
            if isinstance(sink, ShardSink):
                sink.forget(snapshot.asker.refused)
            return Ended(False, snapshot, rows.error.code, rows.error)
        if rows.error is not None:
            raise rows.error
        return Ended(True, snapshot) if whole else Ended(False, snapshot, rows.exit)

    def _most(self) -> int:
        limit = self.config.limits.concurrency
        return AUTO_MOST if limit == "auto" else limit

    def _pace_for(self, model: Model) -> Pace:
        key = (model.provider, model.base_urls)
        if key not in self._paces:
            limits = self.config.limits
            longest = limits.max_outage
            self._paces[key] = Pace(limits.concurrency, None, self.config.max_outage_s, self.clock, max_outage=longest)
        return self._paces[key]

    def _connect(self, model: Model) -> Provider:
        """Open a model's provider; the limits that the user set are shared by all who send there with the same key."""
        provider, pace, limits = providers.connect(model), self._pace_for(model), self.config.limits
        set_ = (limits.requests_per_minute, limits.input_tokens_per_minute, limits.output_tokens_per_minute)
        if any(set_) and not pace.own:
            places = sorted(provider.places) if isinstance(provider, Metered) else None
            rates = self.shared.rates(" ".join(places), "") if places else Rates()
            pace.own = (OwnLimits(self.clock.now, rates, *set_),)
        return provider

    def _leave_shared(self) -> None:
        for pace in self._paces.values():
            pace.own = ()
        if self.shared.problem:
            self.log.update(pace_not_shared=self.shared.problem)
        self.shared.close()

    def _tick(self, snapshot: Snapshot) -> None:
        now = time.monotonic()
        if snapshot.asker.in_flight or snapshot.asker.work.fresh:  # before, what is there by now is taken up again
            snapshot.speed.note(now, snapshot.asker.work.fresh)
        self.watch.tick(snapshot)
        if now >= self._log_at:
            self._log_at = now + (LOG_EVERY_S if now - snapshot.started < LATER_S else LATER_LOG_EVERY_S)
            with contextlib.suppress(OSError):  # a full disk: the ledger waits for room, the log can do without a line
                found = facts(snapshot)
                self.log.update(**found | {"stages": self.log.facts.get("stages", {}) | found["stages"]})


def facts(snapshot: Snapshot) -> dict[str, Any]:
    """A snapshot as displays take it and as the run's log keeps it. What only holds for the moment: `engine.runs.MOMENTARY`."""
    progress, asker, budget = snapshot.progress, snapshot.asker, snapshot.asker.budget
    paces = [pace for pace, _ in asked(asker, snapshot.asked)]
    writing = max(0, asker.in_flight - sum(pace.in_flight for pace in paces))
    return {
        "prompts": snapshot.prompts, "done": progress.prompts, "what": snapshot.what, "in_flight": asker.in_flight,
        "dollars": budget.dollars, "trouble": dict(asker.trouble),
        "stages": {stage: stage_facts(snapshot, stage) for stage in snapshot.stages},
        "budget_usd": budget.cap_usd, "budget_gone_usd": snapshot.before_usd + budget.dollars, "per_s": snapshot.speed.per_s,
        "dollars_in_all": _in_all(snapshot), "writing": writing,
        "slots": sum(int(pace.slots) for pace in paces) if paces else None, "servers": servers(asker, snapshot.asked),
        "oldest": oldest(asker), "held": snapshot.patience.reason or held(asker, snapshot.asked), "stopping": asker.stopping,
    }  # fmt: skip


def _in_all(snapshot: Snapshot) -> float | None:
    """Dollars of the budget that will be gone when this run is whole."""
    work, gone = snapshot.asker.work, snapshot.before_usd + snapshot.asker.budget.dollars
    left = snapshot.prompts - snapshot.progress.prompts
    return in_all(gone, work.ended, work.dollars, left, work.open_dollars)


def stage_facts(snapshot: Snapshot, stage: str) -> dict[str, Any]:
    """What one stage has made and asked so far, as `--json` and the log tell it."""
    progress, counts = snapshot.progress, snapshot.asker.counts[stage]
    return {
        **progress.facts(stage), "requests": counts.requests, "replayed": counts.replayed, "retries": counts.retries,
        "tokens_in": counts.tokens_in, "tokens_out": counts.tokens_out, "tokens_cache_read": counts.tokens_cache_read,
        "tokens_cache_write": counts.tokens_cache_write, "dollars": counts.dollars,
    }  # fmt: skip
