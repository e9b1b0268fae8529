"""`cai expand`: seed prompts in, new prompts out. Ask, keep what is new, ask for what is missing, until there is enough.

Which draft is kept hangs on those before it. So they are taken in an order that nothing but config and replies decide, one wave
after the other; and a run that was stopped comes to the same choice again, because its replies are in the ledger.
"""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from cai_cli.config import Config
from cai_cli.engine import plan, run, tables, versions
from cai_cli.engine.card_upkeep import is_whole
from cai_cli.engine.disk import Patience
from cai_cli.engine.drive import Usage
from cai_cli.engine.feed import Feed, Unit
from cai_cli.engine.files import find_files, read_file
from cai_cli.engine.formats import Line
from cai_cli.engine.inputs import read_prompts
from cai_cli.engine.plan import Step
from cai_cli.engine.program import MadeBy
from cai_cli.engine.publish import Lineage, Publisher, lineages, make_latest
from cai_cli.engine.rows import Program
from cai_cli.engine.run import Options, Run, Summary
from cai_cli.engine.session import Ended, Session, Watch, stage_facts
from cai_cli.engine.shards import Layout, Made, Staging
from cai_cli.engine.sinks import Done, Progress, StreamSink
from cai_cli.engine.versions import Version, fingerprint
from cai_cli.engine.waves import NAME, Expansion, rejected
from cai_cli.errors import Exit, Reject
from cai_cli.flow import Flow
from cai_cli.records import Prompt, Rejected
from cai_cli.settings import PromptsSection
from cai_cli.stages.expand import Ask, Seed, remedy

TOPIC, DIVERSITY, AGAINST = "topic", "_diversity.json", "expand.against"
_COUNTS = ("requests", "replayed", "retries", "tokens_in", "tokens_out", "dollars")


def execute(config: Config, options: Options, watch: Watch) -> Summary:
    """Make new prompts from the config's seeds. `options.limit`: no more than so many. Raises: as a run does

    What is counted as come in: every draft (a row, or filtered), every ask that brought none (rejected, as one), and every seed
    that could not be read (rejected).
    """
    return run.execute(config, [NAME], options, watch, _ExpandRun)


@dataclass(frozen=True)
class Sources:
    """What new prompts are made from. `unread`: rows of the test set that could not be read, so that they guard nothing."""

    step: Step
    feed: Feed
    seeds: Sequence[Seed]
    against: Sequence[str]
    unread: int

    def fingerprints(self) -> dict[str, Any]:
        return self.step.fingerprints() | {"against": fingerprint(list(self.against))}

    @property
    def name(self) -> str:
        return NAME

    def expansion(self) -> Expansion:
        """An expansion of which nothing has been asked. Raises: Fix (exit 65)"""
        return Expansion(self.seeds, self.against, self.step.settings, self.step.seed)  # type: ignore[arg-type]


def sources(config: Config, step: Step, given: Path | None, limit: int | None) -> Sources:
    """Read the seeds and what nothing may be similar to. Raises: Fix (exit 65)"""
    settings: Any = step.settings
    if limit is not None:
        settings = settings.model_copy(update={"count": min(limit, settings.count)})
    step = replace(step, settings=settings)
    feed = plan.feed_of(_keeping_topics(config, given), [step], given, None)
    seeds = [_seed(prompt) for unit in feed.units() for prompt in unit.rows]
    rows = [row for name in settings.against for row in _against(config, name)]
    texts = [row.text for row in rows if isinstance(row, Prompt)]
    return Sources(step, feed, seeds, texts, len(rows) - len(texts))


def _keeping_topics(config: Config, given: Path | None) -> Config:
    """The config, with the column `topic` kept of the seeds where they have one."""
    prompts, path = config.prompts or PromptsSection(), given or config.prompts_path()
    if TOPIC in prompts.keep or path is None or not any(TOPIC in row for row in _rows(path)):
        return config
    return config.model_copy(update={"prompts": prompts.model_copy(update={"keep": [*prompts.keep, TOPIC]})})


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    return (line.row for file in find_files(path, str(path)) for line in read_file(file) if isinstance(line, Line))


def _seed(prompt: Prompt) -> Seed:
    topic = orjson.loads(prompt.meta).get(TOPIC)
    return Seed(id=prompt.id, text=prompt.text, kind=prompt.kind, topic="" if topic is None else str(topic))


def _against(config: Config, name: str) -> Iterator[Prompt | Rejected]:
    return read_prompts(PromptsSection(path=str(config.input_path(name, AGAINST))), Path(), config.seed)


def first_wave(sources: Sources) -> tuple[Program, Feed]:
    """What is asked at first, which would do if everything were kept: for a dry run."""
    wave = sources.expansion().next_wave()
    return _program(sources.step.stage), _wave_feed(wave, len(wave))


def _wave_feed(wave: Sequence[tuple[int, Ask]], asks: int) -> Feed:
    """A wave as the engine drives it: every ask by itself. `asks`: with those before it, for the display"""
    return Feed(lambda: (Unit(0, (ask,)) for _, ask in wave), asks, 1, "")


def _program(stage: Any) -> Program:
    def flow(rows: Sequence[Ask]) -> Flow[MadeBy]:
        made = Made()
        try:
            made.rows.append((yield from stage(rows[0])))
        except Reject as why:
            made.rejects.append(rejected(rows[0], why))
        return {NAME: made}

    return flow


class _WaveSink:
    """Holds what a wave brings until all of it is there; the counts go on from wave to wave."""

    def __init__(self, progress: Progress) -> None:
        self.progress, self.patience = progress, Patience()
        self._done: dict[int, Done] = {}

    def skip(self, shard: int) -> bool:
        return False

    async def add(self, shard: int, position: int, done: Done) -> None:
        self._done[position] = done
        self.progress.prompts += 1
        self.progress.reject(NAME, done[0][NAME].rejects)

    async def close(self, shard: int, units: int) -> None:
        """Nothing is written before the last wave."""

    def in_order(self) -> list[Done]:
        return [self._done[at] for at in sorted(self._done)]


class _ExpandRun(Run):
    """Asks in waves, then writes a version, or rows to a stream."""

    def run(self) -> None:
        self.sources = sources(self.config, self.steps[0], self.given(), self.options.limit)
        self.expansion = self.sources.expansion()
        self.summary.prompts = self.expansion.settings.count
        if self.sources.unread:
            what = f"{self.sources.unread:,} rows of expand.against cannot be read as prompts"
            self.summary.warnings.append(f"{what}: what is like them is not kept out")
        rows, shards = self.expansion.settings.count, self.config.shards
        self.layout = Layout(math.ceil(rows / shards.rows), self.config.split.test, shards.compression)
        lineage = lineages([self.sources], self.sources.feed, self.layout)[NAME]
        found = versions.find(self.config.output_path, NAME, lineage.fingerprint) if self.options.stream is None else None
        if found is not None:
            self._come_back(found)
        elif self._asked():
            self._give(lineage)
        else:
            return
        shutil.rmtree(self._place, ignore_errors=True)  # it is published, by this run or by one that was killed
        if self.options.keep is not None:
            self.summary.pruned += versions.prune(self.config.output_path, NAME, self.options.keep)

    @property
    def _place(self) -> Path:
        # Not beside the staging of runs: what a run that stopped has staged there must outlive this.
        return self.config.output_path / ".cai" / NAME

    def _come_back(self, version: Version) -> None:
        newest = versions.latest(self.config.output_path, NAME)
        if newest is None or newest.path != version.path or not is_whole(self.config.output_path, version):
            make_latest(self.config.output_path, self.config.name, plan.shapes(), version)
        self.summary.nothing = f"{NAME}/{version.name} is what this config makes"
        self._note(version.manifest, version.name)
        self._judge(orjson.loads((version.path / DIVERSITY).read_bytes()))

    def _asked(self) -> bool:
        """Ask wave by wave. Gives: whether it came to its end"""
        self.counts, progress = Counter[str](), Progress()
        progress.reject(NAME, self.sources.feed.rejects)
        asks = 0
        while wave := self.expansion.next_wave():
            asks += len(wave)
            sink = _WaveSink(progress)
            models = {NAME: self.steps[0].models}
            ended = Session(self.config, self.log, self.watch).drive(
                _wave_feed(wave, asks), _program(self.steps[0].stage), models, sink
            )
            self._count(ended)
            if not ended.whole:
                return False
            self.expansion.take(wave, sink.in_order())
            progress.rows[NAME] = self.summary.done = len(self.expansion.rows)
            progress.filtered[NAME] = self.expansion.filtered
        return True

    def _count(self, ended: Ended) -> None:
        """Each wave asks by an asker of its own; what they came to adds up."""
        facts, summary = stage_facts(ended.snapshot, NAME), self.summary
        self.counts.update({name: facts[name] for name in _COUNTS})
        summary.exit, summary.error, summary.in_flight = ended.exit, ended.error, ended.snapshot.asker.in_flight
        summary.dollars += ended.snapshot.asker.budget.dollars
        summary.stages[NAME] = facts | {name: self.counts[name] for name in _COUNTS} | {"version": ""}

    def _note(self, made: Any, version: str) -> None:
        asked = self.summary.stages.get(NAME, {"requests": 0, "replayed": 0})
        self.summary.stages[NAME] = asked | {key: made[key] for key in ("rows", "rejected", "filtered")} | {"version": version}

    def _give(self, lineage: Lineage) -> None:
        expansion, rejects = self.expansion, self.sources.feed.rejects
        self.summary.diversity = report = expansion.diversity()
        if self.options.stream is not None:
            sink = StreamSink(self.options.stream, NAME, self.log.folder / "rejects.jsonl")
            sink.keep(rejects)
            sink.emit({NAME: Made(rows=list(expansion.rows), rejects=expansion.rejects)})
            counts = Counter(one.reason for one in (*rejects, *expansion.rejects))
            self._note({"rows": len(expansion.rows), "rejected": dict(counts), "filtered": dict(expansion.filtered)}, "")
        else:
            version = self._publish(lineage, tables.as_document(report))
            self._note(version.manifest, version.name)
        self._judge(report)

    def _publish(self, lineage: Lineage, report: bytes) -> Version:
        staging = Staging(self._place / lineage.fingerprint[:16], [NAME], self.layout)
        for shard in range(self.layout.shards):
            staging.write(shard, [({NAME: made}, usage) for made, usage in self._parts(shard)])
        feed = replace(self.sources.feed, prompts=len(self.expansion.rows))
        publisher = Publisher(self.config.output_path, self.config.name, staging, feed, plan.shapes())
        return publisher.publish(self.sources, lineage, self.sources.feed.rejects, {DIVERSITY: report})

    def _parts(self, shard: int) -> Iterator[tuple[Made, Usage]]:
        """What a partition holds; the first one accounts for all that is no row, and for the replies."""
        size, expansion = self.config.shards.rows, self.expansion
        rows = list(expansion.rows[shard * size : (shard + 1) * size])
        yield Made(rows=rows, came_in=len(rows)), Usage()
        if shard == 0:
            left = len(expansion.rejects) + expansion.filtered.total()
            yield Made(rejects=expansion.rejects, filtered=expansion.filtered, came_in=left), expansion.usage

    def _judge(self, report: Mapping[str, Any]) -> None:
        """Say what is missing; exit 3 when more of the asks, or of the seeds, were rejected than the config allows."""
        unread = Counter(one.reason for one in self.sources.feed.rejects)
        failed = Counter(self.summary.stages[NAME]["rejected"]) - unread
        asked, seeds = sum(one["asks"] for one in report["strata"]), len(self.sources.seeds)
        shares = {"asks": failed.total() / max(1, asked), "seeds": unread.total() / (unread.total() + seeds)}
        over = [f"the {what}" for what, share in shares.items() if share > self.config.limits.max_reject_rate]
        if over:
            self.summary.exit, self.summary.over = Exit.REJECTS, " and of ".join(over)
        self.summary.done = report["prompts"]
        if missing := report["wanted"] - report["prompts"]:
            what = f"{missing:,} of {report['wanted']:,} prompts are missing"
            how = remedy(failed, self.summary.stages[NAME]["filtered"], self.expansion.settings.per_ask)
            self.summary.warnings.append(f"{what}: {asked:,} asks brought no more that are new; {how}")
