"""`cai retry`: ask again about rows that were rejected, refused or cut off, and about nothing else.

What a row failed on is found by playing its prompt through the stages with the ledger's replies. Those questions go into the
output's file of retries (see cai_cli/engine/retries.py), and the run that made the versions is done again: all other replies come
out of the ledger.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from cai_cli.config import Config
from cai_cli.engine import versions
from cai_cli.engine.culprits import Failed, Known, culprits, played
from cai_cli.engine.feed import Feed
from cai_cli.engine.ledger import found_in, key_of, reading
from cai_cli.engine.preview import prompt_id_of
from cai_cli.engine.retriable import Standing, failed_rows, standings
from cai_cli.engine.retries import Again, Batch
from cai_cli.engine.run import Options, Summary, VersionRun, begun, held
from cai_cli.engine.session import Watch
from cai_cli.errors import Exit
from cai_cli.flow import Outcome, Request
from cai_cli.providers._world import world_of
from cai_cli.providers.simulated import reply_to
from cai_cli.reports.quantities import counted

PLACES = 20  # of input rows, in an answer
SAMPLE = 200  # rows of each kind that are played through to tell what a retry would ask


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What is to be asked again. `limit`: rows, at most. `max_tokens`: of each reply, at least; None: what the config says"""

    reasons: Collection[str]
    limit: int | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, kw_only=True)
class Found:
    """Questions to put again. `rows`: those they are about. `lost`: rows of which nothing can be asked again, by why."""

    questions: list[Again] = field(default_factory=list)
    rows: list[Failed] = field(default_factory=list)
    lost: Counter[str] = field(default_factory=Counter)
    places: list[str] = field(default_factory=list)  # of lost rows of the input

    def lose(self, row: Failed, why: str) -> None:
        """Count a row that nothing can be asked about again."""
        self.lost[why] += 1
        self.places.extend([row.where] if row.where else [])


# What they failed on.


def search(config: Config, standing: Standing, rows: Sequence[Failed], max_tokens: int | None = None) -> Found:
    """The questions that rows failed on. Rows that a stopped retry has begun to ask again are left out."""
    found, begun_with = Found(), {(one.stage, one.id) for one in standing.pending}
    waiting: dict[str, list[Failed]] = {}
    for row in rows:
        if row.where:
            found.lose(row, "could not be read from the input")
        elif (row.stage, row.id) not in begun_with:
            waiting.setdefault(row.prompt_id, []).append(row)
    with answered(config) as known:
        for unit_rows in _units(standing, waiting):
            asked = played(standing.program()(unit_rows), standing.base, known)
            for row in waiting.pop(prompt_id_of(unit_rows[0])):
                _add(
                    found, row, standing, None if asked is None else culprits(asked, row, standing.loop_of(row.stage)), max_tokens
                )
    return found


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

    `asked`: questions, and what hangs on their replies, with their tokens, of the `played` rows. `lost`: rows that nothing can be
    asked about again.
    """

    stage: str
    reason: str
    kept: bool
    rows: int
    where: str = ""  # of the first, if it failed in the input
    lost: int = 0
    played: int = 0
    asked: list[tuple[Request, int]] = field(default_factory=list)


def ahead(config: Config, standing: Standing, rows: Sequence[Failed]) -> list[Ahead]:
    """What a retry of these rows would ask, by stage and reason: up to 200 of each, spread evenly, played through.

    The simulated model stands in for what is not answered yet. Asks nothing, writes nothing.
    """
    found = search(config, standing, rows)
    groups = Counter((row.stage, row.reason, row.kept) for row in rows)
    good = Counter((row.stage, row.reason, row.kept) for row in found.rows)
    places = {(row.stage, row.reason, row.kept): row.where for row in reversed(rows)}
    made = {
        key: Ahead(
            stage=key[0],
            reason=key[1],
            kept=key[2],
            rows=count,
            where=places.get(key, ""),
            lost=count - good[key],
            played=min(good[key], SAMPLE),
        )
        for key, count in groups.items()
    }
    waiting: dict[str, list[Failed]] = {}
    for key in made:
        for row in _spread([row for row in found.rows if (row.stage, row.reason, row.kept) == key]):
            waiting.setdefault(row.prompt_id, []).append(row)
    with answered(config) as known:
        for unit_rows in _units(standing, waiting):
            for row in waiting.pop(prompt_id_of(unit_rows[0])):
                made[row.stage, row.reason, row.kept].asked.extend(_new(standing, found, row, unit_rows, known))
    return list(made.values())


def _spread(rows: Sequence[Failed]) -> list[Failed]:
    return [rows[at * len(rows) // SAMPLE] for at in range(SAMPLE)] if len(rows) > SAMPLE else list(rows)


def _new(standing: Standing, found: Found, row: Failed, rows: Sequence[Any], known: Known) -> list[tuple[Request, int]]:
    """What would be bought if just this row were retried, with the tokens that go in."""
    mine = tuple(one for one in found.questions if (one.stage, one.id, one.reason) == (row.stage, row.id, row.reason))
    bought: dict[bytes, tuple[Request, int]] = {}

    def answer(request: Request) -> Outcome:
        if (outcome := known(request)) is not None:
            return outcome
        reply = reply_to(request, world_of(request.model.params))
        bought[key_of(request)] = request, reply.tokens_in
        return reply

    played(standing.program()(rows), standing.base.with_batch(Batch(at=0, command="", questions=mine)), answer)
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


def execute(config: Config, wanted: Wanted, given: str | None, options: Options, watch: Watch) -> Summary:
    """Ask again about rows that failed for one of the reasons, and make new versions of what hangs on them.

    `summary.retried`: {rows, mended, again {reason: n}, lost {why: n}, stages}; `summary.nothing`: why there was nothing to do.
    Raises: as a run does
    """
    with held(config, options):
        standing, rows = chosen(standings(config, given), wanted)
        found = search(config, standing, rows, wanted.max_tokens)
        if not found.questions and not standing.pending:
            return Summary(nothing=nothing_of(wanted, found), retried=_told(standing, (), (), found))
        if found.questions:
            batch = Batch(at=time.time(), command=options.command, questions=tuple(found.questions))
            standing.retries.with_batch(batch).save(config.output_path)
        options = replace(options, limit=standing.limit, given=given)
        summary = begun(config, options, lambda log: _RetryRun(standing, config, list(standing.steps), options, watch, log))
        if summary.exit in (Exit.OK, Exit.REJECTS):
            again = {(one.stage, one.id) for one in (*standing.pending, *found.questions)}
            summary.retried = _told(standing, again, _failed_again(config, standing, again), found)
    return summary


def chosen(among: Sequence[Standing], wanted: Wanted) -> tuple[Standing, list[Failed]]:
    """The rows that failed for one of the reasons, of the first standing that has any or that a retry was begun of.

    Of rows that both failed and carry a flag each is taken once.
    """
    for standing in among:
        rows = {(row.stage, row.id, row.where): row for row in failed_rows(standing) if row.reason in wanted.reasons}
        if rows or standing.pending:
            return standing, list(rows.values())[: wanted.limit]
    return among[0], []


def nothing_of(wanted: Wanted, found: Found) -> str:
    """Why there is nothing to ask again."""
    lost = [f"{counted(count, 'row')} {why}" for why, count in found.lost.items()]
    if lost and found.places:
        lost.append(f"mend {', '.join(found.places[:3])}{' and others' if len(found.places) > 3 else ''}")
    return "; ".join(lost) or f"no row was rejected, or kept with a flag, for {' or '.join(wanted.reasons)}"


def _failed_again(config: Config, standing: Standing, again: Collection[tuple[str, str]]) -> list[Failed]:
    newest = {name: versions.latest(config.output_path, name) for name in standing.found}
    after = replace(standing, found={name: version for name, version in newest.items() if version is not None})
    ids = {(stage, row) for name, row in again for stage in standing.loop_of(name)}
    return [row for row in failed_rows(after) if (row.stage, row.id) in ids]


def _told(standing: Standing, again: Collection[tuple[str, str]], failed: Sequence[Failed], found: Found) -> dict[str, Any]:
    rows = len({row.id for row in failed})
    return {
        "rows": len(again), "mended": len(again) - rows, "again": dict(Counter(row.reason for row in failed)),
        "lost": dict(found.lost), "places": found.places[:PLACES], "stages": [step.name for step in standing.steps],
    }  # fmt: skip
