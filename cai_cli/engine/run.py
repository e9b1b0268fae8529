"""One run, from the lock to the last version: what `cai run` and every stage command do."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from cai_cli.config import Config
from cai_cli.engine import disk, pilot, versions
from cai_cli.engine.budget import Spent
from cai_cli.engine.card_upkeep import is_whole
from cai_cli.engine.feed import Feed, from_version, spool
from cai_cli.engine.files import STDIN
from cai_cli.engine.lock import IfLocked, lock_files, locked
from cai_cli.engine.plan import Step, feed_of, nothing_left, pairs_feed, program_of, shape_of, shapes_in, steps_of, table_names
from cai_cli.engine.publish import Publisher, lineages, make_latest
from cai_cli.engine.retries import Retries
from cai_cli.engine.runs import GIVEN, RunLog
from cai_cli.engine.session import Ended, Session, Watch, stage_facts
from cai_cli.engine.shards import Layout, Staging
from cai_cli.engine.sinks import ShardSink, StreamSink
from cai_cli.engine.versions import Version, fingerprint
from cai_cli.errors import CaiError, Exit, Fatal
from cai_cli.reports.quantities import reasons

if TYPE_CHECKING:
    from cai_cli.engine import probing, tables
    from cai_cli.records import Probed

ABSTENTIONS_TO_WARN_OF = 0.02
PAIRS = "pairs.jsonl"  # of the row-wise steps, where a table streams its rows


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line adds to the config."""

    command: str = "cai"
    given: str | None = None  # -i: a path, or - for stdin
    stream: BinaryIO | None = None  # -o -: where rows go instead of to versions
    limit: int | None = None
    if_locked: IfLocked = "fail"
    keep: int | None = None


@dataclass
class Summary:
    """What a run came to. `stages` holds, by name: rows, rejected, filtered, requests, replayed, version, and more."""

    exit: Exit = Exit.OK
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)
    dollars: float = 0.0
    unpriced: list[str] = field(default_factory=list)  # models that were asked and whose price is not known
    prompts: int = 0
    done: int = 0
    what: str = "prompts"  # these are, where they are others: probes
    in_flight: int = 0
    nothing: str = ""  # why there was nothing to do
    over: str = "a stage's rows"  # what more was rejected of than may be, at exit 3
    error: Fatal | None = None
    report: dict[str, Any] | None = None  # _bias.json
    diversity: dict[str, Any] | None = None  # _diversity.json
    retried: dict[str, Any] | None = None  # rows that were asked again, and what became of them
    warnings: list[str] = field(default_factory=list)
    pruned: list[Path] = field(default_factory=list)


def execute(config: Config, names: Sequence[str], options: Options, watch: Watch, kind: type[Run] | None = None) -> Summary:
    """Run the named stages; `kind`: in another way than partition by partition.

    Raises: Fix, before anything is asked; Held; bugs. Other stops come back in the summary.
    """
    steps = steps_of(config, names)
    chosen = kind or (VersionRun if options.stream is None else _StreamRun)
    with held(config, options):
        return begun(config, options, lambda log: chosen(config, steps, options, watch, log))


@contextmanager
def held(config: Config, options: Options) -> Iterator[None]:
    """Check that the folders can be written, and hold the output's locks, but for a stream. Raises: Fix, Held"""
    disk.probe(config.state_path, 0o700)
    disk.refuse_network_filesystem(config.state_path)
    with ExitStack() as stack:
        if options.stream is None:
            disk.probe(config.output_path)
            for lock in lock_files(config):
                stack.enter_context(locked(lock, options.if_locked, options.command))
        yield


def begun(config: Config, options: Options, make: Callable[[RunLog], Run]) -> Summary:
    """Do a run, and keep a log of it; its locks are held. Raises: as `execute` does"""
    log = RunLog.begin(config.state_path, options.command, str(config.path), str(config.output_path.resolve()))
    try:
        run = make(log)
        run.run()
    except BaseException as error:
        log.end("failed", int(getattr(error, "code", Exit.BUG)), **_said(error))
        raise
    finally:
        for spooled in (STDIN, PAIRS):  # texts, which have no place among the logs of runs
            (log.folder / spooled).unlink(missing_ok=True)
        shutil.rmtree(log.folder / GIVEN, ignore_errors=True)
    summary = run.summary
    unknown: Mapping[str, str] = log.facts.get("unpriced", {})
    summary.unpriced = sorted({unknown[name] for name, one in summary.stages.items() if one["requests"] and name in unknown})
    log.end(
        "done" if summary.exit in (Exit.OK, Exit.REJECTS) else "stopped", summary.exit,
        stages=summary.stages, dollars=summary.dollars, prompts=summary.prompts, done=summary.done, what=summary.what,
        in_flight=summary.in_flight, **_said(summary.error),
    )  # fmt: skip
    return summary


def _said(error: BaseException | None) -> dict[str, Any]:
    """What the log keeps of an error, for `cai status`. One about the input may quote a row: its words stay out."""
    if not isinstance(error, CaiError):
        return {}
    if error.code is Exit.INPUT:
        return {"error": "the input could not be used", "hint": "the same command says where, and why", "raise_cap": False}
    return {"error": error.message, "hint": error.hint, "raise_cap": isinstance(error, Spent)}


class Run:
    """What all kinds of run share: where rows come from, and who drives them."""

    def __init__(self, config: Config, steps: list[Step], options: Options, watch: Watch, log: RunLog) -> None:
        self.config, self.options, self.watch, self.log = config, options, watch, log
        self.steps = steps
        self.row_wise = [step for step in steps if step.name not in table_names()]
        self.table = next((step for step in steps if step.name in table_names()), None)
        self.retries = Retries.of_config(config)
        self.summary = Summary()

    def run(self) -> None:
        raise TypeError("a run writes versions or a stream")

    def given(self) -> Path | None:
        """The file that -i names; stdin is spooled to one, because it is read twice."""
        given, prompts = self.options.given, self.config.prompts
        if given == "-" or (given is None and prompts is not None and prompts.path == "-"):
            return spool(sys.stdin.buffer, self.log.folder)
        return Path(given) if given else None

    def feed(self) -> Feed:
        """The input of the first step, surveyed."""
        feed = feed_of(self.config, self.steps, self.given(), self.options.limit, self.log.folder)
        self.summary.prompts = feed.prompts
        return feed

    def drive(self, feed: Feed, sink: ShardSink | StreamSink) -> bool:
        """Drive the row-wise steps. Gives: whether all rows are done"""
        models = {step.name: step.models for step in self.row_wise}
        sink.progress.reject(self.row_wise[0].name, feed.rejects)
        if isinstance(sink, StreamSink):
            sink.keep(feed.rejects)
        program = self.retries.program(program_of(self.row_wise))
        ended = Session(self.config, self.log, self.watch).drive(feed, program, models, sink)
        snapshot, summary = ended.snapshot, self.summary
        summary.exit, summary.error, summary.in_flight = ended.exit, ended.error, snapshot.asker.in_flight
        summary.done = feed.prompts if ended.whole else snapshot.progress.prompts
        summary.dollars += snapshot.asker.budget.dollars
        if (rate := snapshot.progress.abstain_rate) > ABSTENTIONS_TO_WARN_OF:
            summary.warnings.append(f"{rate:.1%} of the votes are none: refused, cut off, or not to be read")
        asked = summary.stages  # by a pilot, before
        summary.stages |= {name: pilot.added(asked.get(name), stage_facts(snapshot, name)) | {"version": ""} for name in models}
        if ended.whole:
            summary.warnings += pilot.warnings(self.steps)
        return ended.whole

    def go_by_pilot(self, feed: Feed) -> bool:
        """Let the steps go by what a pilot finds, and ask it first if it was not asked yet. Gives: whether that could be done"""
        steps = pilot.frozen(self.config, self.steps, feed)
        if steps is None:
            trial, answered = pilot.trial(self.steps, feed), pilot.Answered()
            if trial.feed.prompts and not self._piloted(trial, answered):
                return False
            steps = pilot.freeze(self.config, self.steps, feed, trial, answered)
        self.steps, self.row_wise = steps, [step for step in steps if step.name not in table_names()]
        return True

    def _piloted(self, trial: pilot.Trial, answered: pilot.Answered) -> bool:
        program, session = self.retries.program(trial.program), Session(self.config, self.log, self.watch)
        ended, summary = session.drive(trial.feed, program, trial.models, answered, pilot.WHAT), self.summary
        summary.exit, summary.error, summary.in_flight = ended.exit, ended.error, ended.snapshot.asker.in_flight
        summary.dollars += ended.snapshot.asker.budget.dollars
        summary.stages |= {name: stage_facts(ended.snapshot, name) | {"version": ""} for name in trial.models}
        self._note_stop(ended)
        return ended.whole

    def probe(self, step: Step, feed: Feed) -> probing.Answers | None:
        """Ask what the config of a table asks of the labelers. Gives: the answers; None: it stopped before it had them all"""
        from cai_cli.engine import probing

        answers, summary = probing.ask(step, feed, Session(self.config, self.log, self.watch)), self.summary
        summary.warnings += answers.warnings
        if (ended := answers.ended) is None:
            return answers
        snapshot = ended.snapshot
        summary.exit, summary.error, summary.in_flight = ended.exit, ended.error, snapshot.asker.in_flight
        summary.dollars += snapshot.asker.budget.dollars
        summary.stages[step.name] = stage_facts(snapshot, step.name) | {"version": ""}
        self._note_stop(ended)
        return answers if ended.whole else None

    def _note_stop(self, ended: Ended) -> None:
        """How far it is, where it stopped before its own rows were driven or after."""
        if not ended.whole:
            snapshot, summary = ended.snapshot, self.summary
            summary.prompts, summary.done, summary.what = snapshot.prompts, snapshot.progress.prompts, snapshot.what

    def beside(self, probed: Sequence[Probed], feed: Feed) -> tables.Beside:
        """What a table knows beside the pairs."""
        from cai_cli.engine import tables
        from cai_cli.engine.audit_files import read_gold

        gold, _ = read_gold(self.config.output_path)
        return tables.Beside(probed=probed, gold=gold, pilot=pilot.known(self.steps, feed))

    def judge_rejects(self) -> None:
        """Exit 3 when a stage rejected more of its rows than the config allows; a warning where it left all of them out."""
        for name, stage in self.summary.stages.items():
            rejected, filtered = (sum(stage[how].values()) for how in ("rejected", "filtered"))
            came_in = stage["rows"] + rejected + filtered
            if filtered and not stage["rows"]:
                self.summary.warnings.append(f"{name} has no row: {reasons(stage['filtered'])}")
            if came_in and rejected / came_in > self.config.limits.max_reject_rate:
                self.summary.exit = Exit.REJECTS


class VersionRun(Run):
    """Writes versions: staged partition by partition, published when whole."""

    def run(self) -> None:
        feed = self.feed()
        if not self.go_by_pilot(feed):
            return
        self.layout = Layout(feed.shards, self.config.split.test, self.config.shards.compression)
        self.lineages = lineages(self.steps, feed, self.layout, self.retries.digests())
        found = self._published()
        self.summary.done = feed.prompts
        if not found and nothing_left(self.steps, feed):
            self.summary.nothing = (
                f"no row of {feed.parents[0].path.parent.name} {feed.parents[0].name} is left to {self.steps[0].name}"
            )
            self._prune()
            return
        if all(step.name in found for step in self.steps):
            self.summary.nothing = f"every version in {self.config.output} is what this config makes"
        if not all(step.name in found for step in self.row_wise) and not self._row_wise(feed):
            return
        self._come_back(found)
        if self.table is not None and self.table.name not in found and not self._table(self.table, feed):
            return
        shutil.rmtree(self._staging, ignore_errors=True)  # all of it is published, by this run or by one that was killed
        self.retries.end(self.config, [step.name for step in self.steps])
        self.judge_rejects()
        self._prune()

    def _come_back(self, found: Mapping[str, Version]) -> None:
        """Let `latest` and cards name versions that were there already: the config is what it was, or a run was killed."""
        for name, version in found.items():
            newest = versions.latest(self.config.output_path, name)
            if newest is None or newest.path != version.path or not is_whole(self.config.output_path, version):
                make_latest(self.config.output_path, self.config.name, self._shapes, version)

    def _published(self) -> dict[str, Version]:
        """The steps that have a version which is just what this run would make: not always the newest."""
        output = self.config.output_path
        found = {step.name: versions.find(output, step.name, self.lineages[step.name].fingerprint) for step in self.steps}
        for name, version in found.items():
            if version is not None:
                self._note(name, version)
        return {name: version for name, version in found.items() if version is not None}

    @property
    def _shapes(self) -> dict[str, type[Any]]:
        return shapes_in(self.config.output_path, (step.name for step in self.steps))

    @property
    def _staging(self) -> Path:
        return self.config.output_path / ".cai" / "staging"  # beside the versions, so that a rename is enough

    def _publisher(self, feed: Feed, steps: Sequence[Step]) -> Publisher:
        names = [step.name for step in steps]
        job = fingerprint([self.lineages[name].fingerprint for name in names])
        staging = Staging(self._staging / job[:16], names, self.layout)
        return Publisher(self.config.output_path, self.config.name, staging, feed, self._shapes)

    def _row_wise(self, feed: Feed) -> bool:
        publisher = self._publisher(feed, self.row_wise)
        if not self.drive(feed, ShardSink(publisher.staging)):
            return False
        made = list[Version]()
        for step in self.row_wise:
            rejects = feed.rejects if step is self.steps[0] else ()
            made.append(publisher.made(step, self.lineages[step.name], rejects, pilot.files(step)))
            self._note(step.name, made[-1])
        # together: a card takes as long to write as 20 requests
        make_latest(self.config.output_path, self.config.name, self._shapes, *made)
        return True

    def _table(self, step: Step, feed: Feed) -> bool:
        from cai_cli.engine import tables

        if self.row_wise:
            version = versions.latest(self.config.output_path, "label-pairs")
            assert version is not None  # published a moment ago
            feed = from_version(version, shape_of("label-pairs"), None)
        if (probed := self.probe(step, feed)) is None:
            return False
        publisher = self._publisher(feed, [step])
        report = tables.stage_debiased(step, feed, self.beside(probed.rows, feed), publisher.staging, probed.usages)
        rejects = () if self.row_wise else feed.rejects
        extra = {"_bias.json": tables.as_document(report), **probed.files}
        version = publisher.publish(step, self.lineages[step.name], rejects, extra)
        self.summary.report = report
        self._note(step.name, version)
        return True

    def _note(self, name: str, version: Version) -> None:
        manifest: Mapping[str, Any] = version.manifest
        asked = self.summary.stages.get(name, {"requests": 0, "replayed": 0})
        made = {key: manifest[key] for key in ("rows", "rejected", "filtered")}
        made |= pilot.calls(self.steps, name, manifest["replies"], manifest["rows"])
        self.summary.stages[name] = asked | made | {"version": version.name}

    def _prune(self) -> None:
        for step in self.steps if self.options.keep is not None else ():
            self.summary.pruned += versions.prune(self.config.output_path, step.name, self.options.keep or 1)


class _StreamRun(Run):
    """Writes the last step's rows to a stream, in input order; nothing is versioned."""

    def run(self) -> None:
        stream = self.options.stream
        assert stream is not None
        feed = self.feed()
        if not self.go_by_pilot(feed):
            return
        if self.table is None:
            if self._streamed(feed, stream):
                self.judge_rejects()
            return
        if self.row_wise and not (feed := self._spooled(feed)):  # type: ignore[assignment]
            return
        if self._stream_table(self.table, feed, stream):
            self.judge_rejects()

    def _streamed(self, feed: Feed, stream: BinaryIO) -> bool:
        whole = self.drive(feed, StreamSink(stream, self.row_wise[-1].name, self._rejects))
        for name, stage in self.summary.stages.items() if whole else ():
            stage |= pilot.calls(self.steps, name, stage["requests"] + stage["replayed"], stage["rows"])
        return whole

    @property
    def _rejects(self) -> Path:
        return self.log.folder / "rejects.jsonl"

    def _spooled(self, feed: Feed) -> Feed | None:
        """The pairs of the row-wise steps, in a file, since a table reads them twice. None: it stopped, or made no pair."""
        path = self.log.folder / PAIRS
        with open(path, "wb", opener=disk.private_opener) as file:
            whole = self._streamed(feed, file)
        return pairs_feed(path, self.config, None, self.log.folder) if whole and path.stat().st_size else None

    def _stream_table(self, step: Step, feed: Feed, stream: BinaryIO) -> bool:
        if (probed := self.probe(step, feed)) is None:
            return False
        from cai_cli.engine import tables

        report, made = tables.debiased(step, feed, self.beside(probed.rows, feed))
        sink = StreamSink(stream, step.name, self._rejects)
        sink.progress.reject(step.name, () if self.row_wise else feed.rejects)
        sink.keep(() if self.row_wise else feed.rejects)
        for _, one in made:
            sink.emit({step.name: one})
        asked = self.summary.stages.get(step.name, {"requests": 0, "replayed": 0})
        self.summary.stages[step.name] = asked | sink.progress.facts(step.name) | {"version": ""}
        self.summary.report, self.summary.done = report, feed.prompts
        return True
