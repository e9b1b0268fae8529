"""`cai retry`: ask again about rows that were rejected, refused or cut off, and about nothing else.

What a row failed on is found by playing its prompt through the stages with the ledger's replies. Those questions go into the
output's file of retries (see cai_cli/engine/retries.py), and the run that made the versions is done again: all other replies come
out of the ledger.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from cai_cli.config import Config
from cai_cli.engine import versions
from cai_cli.engine.culprits import Failed, Known, culprits, played
from cai_cli.engine.feed import Feed
from cai_cli.engine.ledger import found_in, key_of, reading
from cai_cli.engine.preview import prompt_id_of
from cai_cli.engine.retriable import Standing, Typed, failed_rows, standings
from cai_cli.engine.retries import Again, Batch, Retries, origins_of
from cai_cli.engine.run import Options, Summary, VersionRun, begun, held
from cai_cli.engine.session import Watch
from cai_cli.engine.shards import REJECTS
from cai_cli.engine.versions import Version
from cai_cli.errors import Exit, Fix
from cai_cli.flow import Outcome, Request
from cai_cli.providers._world import world_of
from cai_cli.providers.simulated import reply_to
from cai_cli.reports.quantities import counted

PLACES = 20  # of input rows, in an answer
SAMPLE = 200  # rows of each kind that are played through to tell what a retry would ask


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be asked again. `limit`: rows, at most; those that were retried least often go first. `stage`: of this one only.
    `max_tokens`: of each reply, at least; None: what the config says. `reasons`: empty: any"""

    reasons: Collection[str]
    limit: int | None = None
    max_tokens: int | None = None
    stage: str | None = None

    def of(self, rows: Iterable[Failed]) -> list[Failed]:
        """Those of the stage that failed for one of the reasons."""
        return [row for row in rows if self.stage in (None, row.stage) and (not self.reasons or row.reason in self.reasons)]


@dataclass(frozen=True, kw_only=True)
class Found:
    """Questions to put again. `rows`: those they are about. `begun`: rows that a stopped retry has begun to ask about.
    `lost`: rows that nothing can be asked about again, by why."""

    questions: list[Again] = field(default_factory=list)
    rows: list[Failed] = field(default_factory=list)
    begun: list[Failed] = field(default_factory=list)
    lost: dict[str, list[Failed]] = field(default_factory=dict)

    def lose(self, row: Failed, why: str) -> None:
        """Keep a row that nothing can be asked about again."""
        self.lost.setdefault(why, []).append(row)

    @property
    def places(self) -> list[str]:
        """Where in the input the lost rows stand that failed there."""
        return [row.where for rows in self.lost.values() for row in rows if row.where]

    def said(self) -> str:
        """The rows that are lost, for people; empty: none."""
        lost = [f"{counted(len(rows), 'row')} {why}" for why, rows in self.lost.items()]
        if self.places:
            lost.append(f"mend {', '.join(self.places[:3])}{' and others' if len(self.places) > 3 else ''}")
        return "; ".join(lost)


# What they failed on.


def search(config: Config, standing: Standing, rows: Sequence[Failed], wanted: Wanted, typed: Typed) -> Found:
    """The questions that rows failed on. Raises: Fix: the ledger is not there"""
    found, begun_with = Found(), {(one.stage, one.id) for one in standing.pending}
    waiting: dict[str, list[Failed]] = {}
    for row in rows:
        if row.where:
            found.lose(row, "could not be read from the input")
        elif (row.stage, row.id) in begun_with:
            found.begun.append(row)
        else:
            waiting.setdefault(row.prompt_id, []).append(row)
    if waiting or found.begun:
        _check_ledger(config, typed)
    with answered(config) as known:
        for unit_rows in _units(standing, waiting):
            asked = played(standing.program()(unit_rows), standing.base, known)
            for row in waiting.pop(prompt_id_of(unit_rows[0])):
                requests = None if asked is None else culprits(asked, row, standing.loop_of(row.stage))
                _add(found, row, standing, requests, wanted.max_tokens)
    return found if wanted.limit is None else _least_retried(found, rows, standing, wanted.limit)


def _check_ledger(config: Config, typed: Typed) -> None:
    path = config.state_path / "ledger.sqlite"
    if not path.exists():
        said = f"{path} is gone, and with it the replies that rows failed on: none can be asked again by itself"
        raise Fix(said, f"put it back; or buy all anew, with another -o: {typed('run')}", Exit.INPUT)


def _least_retried(found: Found, rows: Sequence[Failed], standing: Standing, limit: int) -> Found:
    """The rows that were retried least often, those before others that come first. What was begun counts among them."""
    times = Counter(place for batch in standing.base.batches for place in {(one.stage, one.id) for one in batch.questions})
    able = {(row.stage, row.id) for row in (*found.rows, *found.begun)}
    ranked = sorted(dict.fromkeys((row.stage, row.id) for row in rows), key=lambda place: times[place])
    taken = set([place for place in ranked if place in able][:limit])
    return replace(
        found,
        rows=[row for row in found.rows if (row.stage, row.id) in taken],
        questions=[one for one in found.questions if (one.stage, one.id) in taken],
    )


def _units(standing: Standing, waiting: Mapping[str, Any]) -> Iterator[Sequence[Any]]:
    """The rows of the prompts that are waited for, in input order."""
    for unit in standing.feed.units() if waiting else ():
        if prompt_id_of(unit.rows[0]) in waiting:
            yield unit.rows
            if not waiting:
                return


def _add(found: Found, row: Failed, standing: Standing, requests: Sequence[Request] | None, max_tokens: int | None) -> None:
    if not requests:
        found.lose(
            row, "whose replies are not all in the ledger" if requests is None else "that failed before anything was asked"
        )
        return
    found.rows.append(row)
    found.questions.extend(
        Again(
            stage=request.stage, row=request.row, key=key_of(request).hex(), times=standing.base.times(request) + 1,
            max_tokens=max_tokens, id=row.id, reason=row.reason,
        )
        for request in requests
    )  # fmt: skip


@contextmanager
def answered(config: Config) -> Iterator[Known]:
    """What the ledger holds, read without touching it. Raises: Fatal"""
    path = config.state_path / "ledger.sqlite"
    if not path.exists():
        yield lambda _: None
        return
    with reading(path) as db:
        yield lambda request: found_in(db, key_of(request))


# What it would come to.


@dataclass(frozen=True, kw_only=True)
class Ahead:
    """What a retry of the rows that failed in one stage for one reason would ask.

    `rows`: of them `begun` by a retry that was stopped, and `lost` that nothing can be asked about again. `asked`: questions, and
    what hangs on their replies, with their tokens, of the `played` rows; of what was begun, what is left.
    """

    stage: str
    reason: str
    kept: bool
    rows: int
    where: str = ""  # of the first, if it failed in the input
    begun: int = 0
    lost: int = 0
    played: int = 0
    asked: list[tuple[Request, int]] = field(default_factory=list)


def ahead(config: Config, standing: Standing, found: Found) -> list[Ahead]:
    """What a retry of what was found would ask, by stage and reason: up to 200 rows of each, spread evenly, played through.

    The simulated model stands in for what is not answered yet. Asks nothing, writes nothing.
    """
    lost = [row for rows in found.lost.values() for row in rows]
    able, order = [*found.rows, *found.begun], [step.name for step in standing.steps]
    groups = sorted({_kind(row) for row in (*able, *lost)}, key=lambda kind: (order.index(kind[0]), kind))
    made = {kind: _group(kind, found, lost) for kind in groups}
    waiting: dict[str, list[Failed]] = {}
    for kind in made:
        for row in _spread([row for row in able if _kind(row) == kind]):
            waiting.setdefault(row.prompt_id, []).append(row)
    questions: dict[_Kind, list[Again]] = {}
    for one in (*found.questions, *standing.pending):
        questions.setdefault((one.stage, one.id, one.reason), []).append(one)
    with answered(config) as known:
        for unit_rows in _units(standing, waiting):
            for row in waiting.pop(prompt_id_of(unit_rows[0])):
                mine = questions.get((row.stage, row.id, row.reason), [])
                made[_kind(row)].asked.extend(_new(standing, mine, unit_rows, known))
    return list(made.values())


_Kind = tuple[str, str, Any]


def _kind(row: Failed) -> _Kind:
    return row.stage, row.reason, row.kept


def _group(kind: _Kind, found: Found, lost: Sequence[Failed]) -> Ahead:
    able, begun, gone = ([row for row in rows if _kind(row) == kind] for rows in (found.rows, found.begun, lost))
    count = len(able) + len(begun)
    return Ahead(
        stage=kind[0], reason=kind[1], kept=kind[2], rows=count + len(gone), begun=len(begun), lost=len(gone),
        where=gone[0].where if gone else "", played=min(count, SAMPLE),
    )  # fmt: skip


def _spread(rows: Sequence[Failed]) -> list[Failed]:
    return [rows[at * len(rows) // SAMPLE] for at in range(SAMPLE)] if len(rows) > SAMPLE else list(rows)


def _new(standing: Standing, mine: Sequence[Again], rows: Sequence[Any], known: Known) -> list[tuple[Request, int]]:
    """What would be bought if just these questions were put again, with the tokens that go in."""
    bought: dict[bytes, tuple[Request, int]] = {}

    def answer(request: Request) -> Outcome:
        if (outcome := known(request)) is not None:
            return outcome
        reply = reply_to(request, world_of(request.model.params))
        bought[key_of(request)] = request, reply.tokens_in
        return reply

    trial = Batch(at=0, command="", questions=tuple(mine), origins={})
    played(standing.program()(rows), standing.base.with_batch(trial), answer)
    return list(bought.values())


# Doing it.


class _RetryRun(VersionRun):
    """The run that made the versions, done again on the same input."""

    def __init__(self, standing: Standing, *others: Any) -> None:
        super().__init__(*others)
        self._feed = standing.feed

    def feed(self) -> Feed:
        """The input, surveyed before."""
        self.summary.prompts = self._feed.prompts
        return self._feed


def execute(config: Config, wanted: Wanted, given: str | None, options: Options, watch: Watch, typed: Typed) -> Summary:
    """Ask again about rows that failed for one of the reasons, and make new versions of what hangs on them.

    What a retry that was stopped has begun is asked with it, or alone where the same rows are wanted.
    Takes: `typed`: a verb's command line, for hints
    Gives: `summary.retried`: {rows, mended, again {reason: n}, lost {why: n}, places, stages, changed}; `summary.nothing`: why
    there was nothing to do
    Raises: as a run does
    """
    with held(config, options):
        standing, rows = chosen(standings(config, given, typed), wanted, typed)
        found = search(config, standing, rows, wanted, typed)
        if not found.questions and not standing.pending:
            return Summary(nothing=nothing_of(wanted, found), retried=_told(standing, {}, (), found))
        if found.questions:
            _begin(config, options.command, found.questions)
        options = replace(options, limit=standing.limit, given=given)
        summary = begun(config, options, lambda log: _RetryRun(standing, config, list(standing.steps), options, watch, log))
        if summary.exit in (Exit.OK, Exit.REJECTS):
            again = {(one.stage, one.id): one.reason for one in (*standing.pending, *found.questions)}
            after = _after(config, standing)
            told = _told(standing, again, list(failed_rows(after, typed)), found)
            summary.retried = told | {"changed": _changed(standing, after)}
        return summary


def _begin(config: Config, command: str, questions: Sequence[Again]) -> None:
    """Write down what is asked again, before anything is."""
    stages = {one.stage for one in questions}
    origins = {stage: origin for stage, origin in origins_of(config).items() if stage in stages}
    batch = Batch(at=time.time(), command=command, questions=tuple(questions), origins=origins)
    Retries.of(config.output_path).with_batch(batch).save(config.output_path)


def chosen(among: Sequence[Standing], wanted: Wanted, typed: Typed) -> tuple[Standing, list[Failed]]:
    """The rows that failed for one of the reasons, of the first standing that has any or that a retry was begun of.

    Of rows that both failed and carry a flag each is taken once. Raises: Fix: there is no such stage
    """
    among = of_stage(among, wanted)
    for standing in among:
        rows = {(row.stage, row.id, row.where): row for row in wanted.of(failed_rows(standing, typed))}
        if rows or standing.pending:
            return standing, list(rows.values())
    return among[0], []


def of_stage(among: Sequence[Standing], wanted: Wanted) -> list[Standing]:
    """Those that the wanted stage is part of. Raises: Fix: none is"""
    found = [one for one in among if wanted.stage is None or wanted.stage in one.found]
    if not found:
        names = ", ".join(name for one in among for name in one.found)
        raise Fix(f"'{wanted.stage}' is no stage whose rows could be asked about again", f"there are {names}")
    return found


def nothing_of(wanted: Wanted, found: Found) -> str:
    """Why there is nothing to ask again."""
    where = f" in {wanted.stage}" if wanted.stage else ""
    return found.said() or f"no row was rejected, or kept with a flag, for {' or '.join(wanted.reasons)}{where}"


def _after(config: Config, standing: Standing) -> Standing:
    """The same, with the versions that are there now."""
    newest = {name: versions.latest(config.output_path, name) for name in standing.found}
    return replace(standing, found={name: version for name, version in newest.items() if version is not None})


def _changed(before: Standing, after: Standing) -> bool:
    """Whether any row is another one than before, of those that are rejected, too."""
    return any(_data(version) != _data(after.found[name]) for name, version in before.found.items())


def _data(version: Version) -> list[tuple[str, str]]:
    files = version.manifest["files"]
    return [(one["name"], one["sha256"]) for one in files if one["shard"] is not None or one["name"] == REJECTS]


def _told(standing: Standing, again: Mapping[tuple[str, str], str], failed: Sequence[Failed], found: Found) -> dict[str, Any]:
    """What became of the rows that were asked about, each counted once.

    Takes: `again`: reasons by stage and row
    """
    by_place: dict[tuple[str, str], list[str]] = {}
    for one in failed:
        by_place.setdefault((one.stage, one.id), []).append(one.reason)
    still: Counter[str] = Counter()
    for (stage, row), before in again.items():
        reasons = [reason for name in sorted(standing.loop_of(stage)) for reason in by_place.get((name, row), ())]
        still.update([before] if before in reasons else reasons[:1])
    return {
        "rows": len(again), "mended": len(again) - still.total(), "again": dict(sorted(still.items())),
        "lost": {why: len(rows) for why, rows in found.lost.items()}, "places": found.places[:PLACES],
        "stages": [step.name for step in standing.steps],
    }  # fmt: skip
