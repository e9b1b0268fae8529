"""What a config's run will come to, as one document: stages, their sum, hours, labels, and what all of it rests on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cai_cli.config import Config
from cai_cli.engine import expand, ledger, pilot, plan
from cai_cli.engine.estimate import guess, hours, people
from cai_cli.engine.estimate.anatomy import PARTS
from cai_cli.engine.estimate.collect import JUDGES, Collected, collect
from cai_cli.engine.estimate.hours import Bound, Load
from cai_cli.engine.estimate.playing import COLUMNS, ROWS, Known
from cai_cli.engine.estimate.survey import Interval, Survey
from cai_cli.engine.feed import Feed
from cai_cli.engine.ledger import key_of
from cai_cli.engine.plan import Step
from cai_cli.engine.retries import Retries
from cai_cli.engine.rows import Program
from cai_cli.engine.runs import own
from cai_cli.engine.waves import NAME as EXPAND
from cai_cli.flow import Model
from cai_cli.prices import as_of, price_of

_AT = {name: at for at, name in enumerate(COLUMNS)}
_INPUT = [_AT[part] for part in PARTS]
_MONEY = {"dollars_without_caching": "uncached", "dollars_batch": "batch"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What is estimated: a config's stages, what they work on, and what happens to the rows of one prompt.

    `most`: how often all of it may have to be asked; 1 but for `expand`, whose replies decide that. `what`: of what there are so
    many.
    """

    config: Config
    steps: Sequence[Step]
    feed: Feed
    program: Program
    most: float = 1.0
    what: str = "prompts"


def job_of(config: Config, names: Sequence[str], given: Path | None, limit: int | None) -> Job:
    """Read the input, and take up what a pilot found. Raises: Fix (exit 65 or 2)"""
    steps = plan.steps_of(config, names)
    if list(names) == [EXPAND]:
        return _expansion(config, steps, given, limit)
    feed = plan.feed_of(config, steps, given, limit)
    ready = pilot.ready(config, steps, feed)
    return Job(
        config=config, steps=ready, feed=feed, program=Retries.of_config(config).program(plan.program_of(ready))
    )  # fmt: skip


def _expansion(config: Config, steps: Sequence[Step], given: Path | None, limit: int | None) -> Job:
    """The asks that would do if every prompt that comes were kept, and how often so many may be asked."""
    from cai_cli.stages.expand import most_asks

    sources = expand.sources(config, steps[0], given, limit)
    expansion = sources.expansion()
    program, feed = expand.first_wave(sources)
    most = most_asks(expansion.strata, expansion.settings) / max(1, feed.prompts)
    return Job(config=config, steps=steps, feed=feed, program=program, most=most, what="asks for prompts")


def estimate(job: Job, latency_s: float | None = None) -> dict[str, Any]:
    """What the run of a job comes to. Reads the ledger, and asks nothing.

    Takes: `latency_s`: seconds a request took, where that was measured
    Gives: numbers as {value, low, high}, a 90% interval; dollars None where a model's price is not known
    Raises: Fatal: the ledger cannot be read
    """
    with _known(job.config) as known:
        collected = collect(job.steps, job.feed, job.program, known)
    return _Document(job, collected, latency_s).whole()


@contextlib.contextmanager
def _known(config: Config) -> Iterator[Known | None]:
    """The ledger's replies, read without touching it. None: there is no ledger"""
    path = config.state_path / "ledger.sqlite"
    if not path.exists():
        yield None
        return
    with ledger.reading(path) as db:
        yield lambda request: ledger.found_in(db, key_of(request))


def gone_usd(config: Config) -> float:
    """Dollars of the output's budget that are spent or set aside."""
    path = config.state_path / "ledger.sqlite"
    if not path.exists():
        return 0.0
    with ledger.reading(path) as db:
        return sum(ledger.spent(db, str(config.output_path.resolve()), own(config.state_path, config.output_path)))


class _Document:
    """An estimate, section by section."""

    def __init__(self, job: Job, collected: Collected, latency_s: float | None) -> None:
        self.job, self.collected, self.latency_s = job, collected, latency_s
        self.survey = Survey(collected.found)
        self.cells = [(at, stage, model) for at, (stage, model) in enumerate(collected.cells) if model != ROWS]
        self.unpriced = sorted({one.name for one in collected.models.values() if price_of(one) is None})

    def whole(self) -> dict[str, Any]:
        """All sections."""
        every, found = [at for at, _, _ in self.cells], self.collected.found
        bounds = self._bounds([step.name for step in self.job.steps])
        stages = {step.name: self._stage(step.name) for step in self.job.steps}
        return {
            "prompts": self.job.feed.prompts, "prompts_played": found.played, "prompts_paid": self.collected.paid,
            "stages": stages, "all": self._sums(every, []), "hours": self._hours(bounds),
            "labels": self._labels(), "budget": self._budget(every), "unpriced": self.unpriced,
            "assumed": self._assumed(bounds),
        }  # fmt: skip

    def _total(self, cells: Sequence[int], columns: Sequence[int], **which: bool) -> Interval:
        found = self.survey.sum(cells, columns, **which)
        return Interval(found.value, found.low, found.high * self.job.most)

    def _of(self, stages: Sequence[str]) -> list[int]:
        return [at for at, stage, _ in self.cells if stage in stages]

    def _stage(self, name: str) -> dict[str, Any]:
        rows = [at for at, cell in enumerate(self.collected.cells) if cell == (name, ROWS)]
        mine = self._of([name])
        paid = min((self.survey.paid(at) for at in mine), default=0)
        models = sorted({self.collected.models[self.collected.cells[at][1]].name for at in mine})
        return {"models": models, "prompts_paid": paid, **self._sums(mine, rows)}

    def _sums(self, cells: Sequence[int], rows: Sequence[int]) -> dict[str, Any]:
        total = self._total
        parts = {part: total(cells, [_AT[part]]).document(0) for part in PARTS}
        return {
            "calls": total(cells, [_AT["calls"]]).document(0),
            **({"rows": total(rows, [_AT["calls"]]).document(0)} if rows else {}),
            "tokens": {**parts, "in": total(cells, _INPUT).document(0), "reply": total(cells, [_AT["reply"]]).document(0)},
            "dollars": _document(self._in_all(cells)),
            **{name: self._money(cells, [_AT[column]]) for name, column in _MONEY.items()},
            "dollars_bought": self._money(cells, [_AT["paid"]], ahead=False),
            "dollars_to_come": self._money(cells, [_AT["dollars"]], bought=False),
        }  # fmt: skip

    def _money(self, cells: Sequence[int], columns: Sequence[int], **which: bool) -> dict[str, float] | None:
        found = self._dollars(cells, columns, **which)
        return None if found is None else found.document(6)

    def _in_all(self, cells: Sequence[int]) -> Interval | None:
        """What is spent, as it was spent, and what is to come, as the config has it now."""
        whole, (paid, now) = (
            self._dollars(cells, [_AT["dollars"]]),
            (self._dollars(cells, [_AT[name]], ahead=False) for name in ("paid", "dollars")),
        )
        if whole is None or paid is None or now is None:
            return None
        return Interval(*(one + paid.value - now.value for one in (whole.value, whole.low, whole.high)))

    def _dollars(self, cells: Sequence[int], columns: Sequence[int], **which: bool) -> Interval | None:
        """None: of a model whose price nobody knows."""
        if any(price_of(self._model(at)) is None for at in cells):
            return None
        return self._total(cells, columns, **which)

    def _model(self, at: int) -> Model:
        return self.collected.models[self.collected.cells[at][1]]

    # Time.

    def _bounds(self, stages: Sequence[str]) -> list[Bound]:
        servers: dict[tuple[str, tuple[str, ...]], list[int]] = {}
        for at in self._of(stages):
            model = self._model(at)
            servers.setdefault((model.provider, model.base_urls), []).append(at)
        ahead = {"bought": False}
        loads = [
            Load(
                models=[self._model(at) for at in cells], requests=self._total(cells, [_AT["calls"]], **ahead),
                tokens_in=self._total(cells, [_AT["counted"]], **ahead), tokens_out=self._total(cells, [_AT["reply"]], **ahead),
            )
            for cells in servers.values()
        ]  # fmt: skip
        return hours.bounds(loads, self.job.config.limits, self.latency_s)

    def _hours(self, bounds: Sequence[Bound]) -> dict[str, Any]:
        first = bounds[0] if bounds else None
        return {
            **hours.longest(bounds).document(4), "bound_by": first.limit if first else None,
            "server": first.server if first else None, "latency_s": self.latency_s,
            "limits": [{"server": one.server, "limit": one.limit, "hours": one.hours.document(4)} for one in bounds],
        }  # fmt: skip

    # Money.

    def _labels(self) -> dict[str, Any] | None:
        rows = [at for at, cell in enumerate(self.collected.cells) if cell == (JUDGES, ROWS)]
        if not rows:
            return None
        config, labels = self.job.config, self._total(rows, [_AT["calls"]])
        stages = [JUDGES, *plan.table_names()]  # probes are asked of the labelers
        verified = config.audit.rate if config.estimate.verified is None else config.estimate.verified
        run = hours.longest(self._bounds(stages))
        ways = people.ways(config.estimate, verified, labels, self._dollars(self._of(stages), [_AT["dollars"]]), run)
        return {
            "pairs": labels.document(0), "verified": verified,
            "ways": [
                {"by": one.name, "dollars_per_label": _document(one.per_label), "dollars": _document(one.dollars),
                 "hours": one.hours.document(4)}
                for one in ways
            ],
        }  # fmt: skip

    def _budget(self, cells: Sequence[int]) -> dict[str, Any] | None:
        cap = self.job.config.limits.budget_usd
        if cap is None:
            return None
        gone, ahead = gone_usd(self.job.config), self._dollars(cells, [_AT["dollars"]], bought=False)
        covers = None if ahead is None else _covered(max(0.0, cap - gone), ahead, self._done(cells))
        return {"usd": cap, "gone_usd": round(gone, 6), "covers": None if covers is None else covers.document(4)}

    def _done(self, cells: Sequence[int]) -> float:
        """Share of the calls that are paid for."""
        calls = [_AT["calls"]]
        whole = self._total(cells, calls).value
        return self._total(cells, calls, ahead=False).value / whole if whole else 1.0

    # What it rests on.

    def _assumed(self, bounds: Sequence[Bound]) -> dict[str, str]:
        feed, found = self.job.feed, self.collected.found
        said: dict[str, str] = {}
        if found.played:
            how = "all" if found.played == feed.prompts else f"{found.played:,}, drawn at random, of"
            said["played"] = f"{how} {feed.prompts:,} {self.job.what}; nothing was asked for that"
        if self.job.most > 1:
            said["calls"] = f"as many as would do if every prompt were kept; {self.job.most:.3g} times as many are allowed"
        said["replies"] = self._of_replies()
        if labels := pilot.assumed(self.job.steps):
            said["labels"] = labels
        if prices := as_of(self.collected.models.values()):
            said["dollars"] = f"at {prices}"
        if bounds:
            said["time"] = self._of_time()
        said["left out"] = "requests that are sent again after a failure, and what a timeout may cost"
        return said

    def _of_replies(self) -> str:
        """Where replies come from, and what stands in for the others."""
        if paid := self.collected.paid:
            return f"{paid:,} of them from the ledger, all replies of theirs; the others by ratio to these"
        known = list(dict.fromkeys(stage for at, stage, _ in self.cells if self.survey.told(at)))
        assumed = list(dict.fromkeys(stage for _, stage, _ in self.cells if stage not in known))
        if not assumed:
            return "from the ledger, stage by stage; the others by ratio to these"
        how = guess.stated(sorted({model.provider for model in self.collected.models.values()}))
        if known:
            return f"of {', '.join(known)} from the ledger; of {', '.join(assumed)} assumed: {how}"
        return f"assumed: {how}" + ("" if self.job.most > 1 else "; better: --sample 50")

    def _of_time(self) -> str:
        measured = f"{self.latency_s:.2g} s a request, as sampled" if self.latency_s else "seconds a request are assumed"
        more = "; concurrency auto taken for 64, from 16 to 256" if self.job.config.limits.concurrency == "auto" else ""
        return f"as if limits were used to the full; {measured}{more}"


def _document(found: Interval | None) -> Mapping[str, float] | None:
    return None if found is None else found.document(6)


def _covered(left_usd: float, ahead: Interval, done: float) -> Interval:
    """The share of a run that the rest of a cap pays for; what is paid for already counts as covered."""
    sides = [1.0 if most <= left_usd else done + (1 - done) * left_usd / most for most in (ahead.value, ahead.high, ahead.low)]
    return Interval(*sides)
