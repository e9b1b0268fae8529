"""One row's lineage: every request that was made for it, found by playing its flows with the ledger's replies.

Only what the ledger holds is told as a fact. Where it holds nothing the row's flow ends: nobody knows what came next.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cai_cli.config import Config
from cai_cli.engine import pilot, plan, probing, runs, stored
from cai_cli.engine.ledger import key_of, reading
from cai_cli.engine.preview import about, candidates, prompt_id_of
from cai_cli.engine.reply_bytes import unpack
from cai_cli.engine.retries import Retries
from cai_cli.engine.stored import Stored
from cai_cli.errors import Exit, Fix, Reject
from cai_cli.flow import Flow, Outcome, Reply, Request
from cai_cli.records import Expanded, Pair

_BOUGHT = "SELECT stage, row, model, host, mode, run, at, dollars, reply FROM replies WHERE key = ?"
_REFUSED = "SELECT stage, row, reason, detail, signature, run, at FROM failures WHERE key = ?"
_ELSE = "SELECT key FROM replies WHERE row = ? OR (row >= ? AND row < ?) ORDER BY id LIMIT 500"
_NUMBERS = re.compile(r"(\d+)-(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bought:
    """What the ledger has for a key: a reply, or the provider's refusal, and how it came. `at`: seconds since 1970"""

    outcome: Outcome
    stage: str
    row: str  # on whose behalf it was asked at first
    run: str
    at: float
    model: str = ""  # the one that says it answered
    host: str = ""
    mode: str = ""
    dollars: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """A question as it was put before a retry. `at`: when the retry was, in seconds since 1970"""

    key: str
    reason: str
    at: float
    bought: Bought | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request of a row, as it was put last. `bought` None: it was never asked, or its reply is lost."""

    stage: str
    row: str
    key: str  # 64 hexadecimal digits
    bought: Bought | None
    request: Request | None = None  # None: found in the ledger under the row's name; what is asked now is another question
    retried: int = 0
    earlier: tuple[Earlier, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """Where a row is, or how it ended, in the newest version of a stage."""

    stage: str
    version: str
    row: str
    what: str  # row | rejected | filtered
    where: str = ""  # file:line
    reason: str = ""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """All that is known of a row. `missing`: why requests could not be followed; empty: they were."""

    id: str
    asked: tuple[Asked, ...] = ()
    others: tuple[Asked, ...] = ()  # bought for the row, but not what this config asks now
    fates: tuple[Fate, ...] = ()
    runs: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # those that bought something, or published
    makers: Mapping[str, str] = field(default_factory=dict)  # by stage: the run that published its newest version
    missing: str = ""

    def state(self, one: Asked) -> str:
        """bought | replayed (the newest version of the stage was made by another run than the one that bought it) | not asked"""
        if one.bought is None:
            return "not asked"
        return "bought" if self.makers.get(one.stage, one.bought.run) == one.bought.run else "replayed"


def totals(found: Lineage) -> dict[str, Any]:
    """Requests by state, tokens and dollars of a lineage; replies that were superseded were paid for, too."""
    every = (*found.asked, *found.others)
    states = Counter(found.state(one) for one in every)
    paid = [bought for one in every for bought in (one.bought, *(old.bought for old in one.earlier)) if bought is not None]
    replies = [one.outcome for one in paid if isinstance(one.outcome, Reply)]
    return {
        "requests": len(every), "bought": states["bought"], "replayed": states["replayed"], "not_asked": states["not asked"],
        "superseded": sum(len(one.earlier) for one in every),
        "tokens_in": sum(one.tokens_in + one.tokens_cache_read + one.tokens_cache_write for one in replies),
        "tokens_out": sum(one.tokens_out for one in replies), "dollars": sum(one.dollars for one in paid),
    }  # fmt: skip


def lineage_of(config: Config, wanted: str, stage: str | None = None) -> Lineage:
    """Every request for a row, or for all rows of a prompt, stage by stage, and what became of it.

    Takes: `wanted`: the id of a sample, pair, new prompt or prompt; `stage`: only what this one asked
    Raises: Fix (exit 65): nobody knows the id; Fatal: the ledger cannot be read
    """
    stages = plan.stage_names()
    # of all outputs that share the ledger: what one bought, another may take
    logs = sorted(runs.all_of(config.state_path, None), key=lambda facts: float(facts["started"]))
    history = {facts["run"]: facts for facts in logs}
    mine = {facts["run"] for facts in runs.all_of(config.state_path, config.output_path)}
    own = {run: facts for run, facts in history.items() if run in mine}
    staged = stored.staged(config.output_path, stages)
    there = [*stored.newest(config.output_path, stages).values(), *(staged.stages.values() if staged else ())]
    fates = _fates(there, (wanted,))
    path = config.state_path / "ledger.sqlite"
    if not path.exists():
        asked, others, missing = (), (), f"there is no ledger at {path}"  # type: tuple[Asked, ...], tuple[Asked, ...], str
    else:
        asked, others, missing = _from_ledger(config, path, wanted)
    if not asked and not others and not fates:
        raise _unknown(config, wanted, missing)
    if not fates:  # of a pair that was not made: what became of its samples
        fates = _fates(there, tuple(dict.fromkeys(one.row for one in asked)))
    asked, others = (tuple(one for one in found if stage in (None, one.stage)) for found in (asked, others))
    makers = {one.stage: maker for one in there if (maker := _maker(own, one.stage, one.version))}
    every = (*asked, *others)
    bought = [*(one.bought for one in every), *(old.bought for one in every for old in one.earlier)]
    known = {one.run for one in bought if one} | {makers[one.stage] for one in asked if one.stage in makers}
    return Lineage(
        id=wanted, asked=asked, others=others, fates=tuple(fates), makers=makers, missing=missing,
        runs={run: facts for run, facts in history.items() if run in known},
    )  # fmt: skip


def _unknown(config: Config, wanted: str, missing: str) -> Fix:
    said = f"no row of {config.output_path} has the id or prompt_id '{wanted}', and nothing was asked about it"
    return Fix(f"{said}; {missing}" if missing else said, f"`cai show {config.path}` shows rows with their ids", Exit.INPUT)


# What was asked.


def _from_ledger(config: Config, path: Path, wanted: str) -> tuple[tuple[Asked, ...], tuple[Asked, ...], str]:
    """Requests that this config makes, others that were bought for the row, and why some could not be followed."""
    with reading(path) as db:
        try:
            asked, missing = (tuple(_played(config, db, wanted)) or tuple(_written(config, db, wanted))), ""
            asked += tuple(_probed(config, db, wanted))
        except Fix as fix:
            asked, missing = (), fix.message
        whole = bool(asked) and all(one.bought for one in asked)
        others = () if whole else tuple(_elsewhere(db, wanted, {one.key for one in asked}))
        return asked, others, missing


def _played(config: Config, db: sqlite3.Connection, wanted: str) -> Iterator[Asked]:
    """The requests of the wanted rows. Raises: Fix: the input cannot be read"""
    names = [name for name in plan.sections_of(config) if name not in plan.table_names()]
    if not names:
        return
    if config.prompts is not None and config.prompts.path == "-":
        raise Fix("the prompts came from stdin, which cannot be read again")
    steps, retries = plan.steps_of(config, names), Retries.of_config(config)
    feed = plan.feed_of(config, steps, None, None)
    program = plan.program_of(pilot.ready(config, steps, feed))
    for rows in candidates(feed, wanted):
        prompt_id, found = prompt_id_of(rows[0]), list(_followed(program(rows), db, retries))
        mine = found if wanted == prompt_id else [one for one in found if any(about(row, one.row) for row in _rows(rows, wanted))]
        if mine:
            yield from mine
            return


def _probed(config: Config, db: sqlite3.Connection, wanted: str) -> Iterator[Asked]:
    """What tables asked about the wanted pairs, as far as it was bought: who was drawn for a probe hangs on all pairs."""
    tables = [name for name in plan.sections_of(config) if name in plan.table_names()]
    for step in (step for name in tables for step in plan.steps_of(config, [name]) if step.stage is not None):
        there = stored.newest(config.output_path, [*step.reads, step.name])
        source = next((there[name] for name in (*step.reads, step.name) if name in there), None)
        pairs = [] if source is None else [source.record(place) for place in source.of_id(wanted)]
        questions = (step.stage.question(pair, dimension) for pair in pairs for dimension in step.stage.counts)
        for question in (one for one in questions if one is not None):
            found = _followed(probing.program(step)((question,)), db, Retries())
            yield from (one for one in found if one.bought is not None)


def _rows(rows: Sequence[Any], wanted: str) -> Collection[str]:
    """The row, and the samples that it is a pair of."""
    prompt_id = prompt_id_of(rows[0])
    numbers = _NUMBERS.fullmatch(wanted.removeprefix(f"{prompt_id}-"))
    if numbers is None or isinstance(rows[0], Pair):
        return (wanted,)
    return (*(f"{prompt_id}-{number}" for number in dict.fromkeys(numbers.groups())), wanted)


def _followed(flow: Flow[Any], db: sqlite3.Connection, retries: Retries) -> Iterator[Asked]:
    """Every request of a flow, with what the ledger has for it. A row ends where it has nothing."""
    ended, outcomes = set[str](), None
    while True:
        try:
            requests = next(flow) if outcomes is None else flow.send(outcomes)
        except StopIteration:
            return
        found = [_asked(request, db, retries) for request in requests]
        yield from (one for one in found if one.bought or one.row not in ended)
        ended |= {one.row for one in found if one.bought is None}
        outcomes = tuple(one.bought.outcome if one.bought else Reject("never_asked") for one in found)


def _asked(request: Request, db: sqlite3.Connection, retries: Retries) -> Asked:
    now = retries.asked(request)
    key = key_of(now)
    earlier = tuple(
        Earlier(key=(old := key_of(one.request)).hex(), reason=one.reason, at=one.at, bought=_bought(db, old))
        for one in retries.superseded(request)
    )
    return Asked(
        stage=request.stage, row=request.row, key=key.hex(), bought=_bought(db, key), request=now, retried=retries.times(request),
        earlier=earlier,
    )  # fmt: skip


def _bought(db: sqlite3.Connection, key: bytes) -> Bought | None:
    if found := db.execute(_BOUGHT, (key,)).fetchone():
        stage, row, model, host, mode, run, at, dollars, reply = found
        return Bought(outcome=unpack(reply), stage=stage, row=row, model=model, host=host, mode=mode, run=run,
                      at=at, dollars=dollars)  # fmt: skip
    if found := db.execute(_REFUSED, (key,)).fetchone():
        stage, row, reason, detail, signature, run, at = found
        return Bought(outcome=Reject(reason, detail, signature), stage=stage, row=row, run=run, at=at)
    return None


def _written(config: Config, db: sqlite3.Connection, wanted: str) -> Iterator[Asked]:
    """The reply that a new prompt was first written in."""
    there = stored.newest(config.output_path, plan.stage_names())
    prompts = [one.record(place).prompt for one in there.values() if one.shape is Expanded for place in one.of_id(wanted)]
    for text in prompts[:1]:
        quoted = json.dumps(text, ensure_ascii=False)[1:-1]
        for (key,) in db.execute("SELECT key FROM replies WHERE stage = 'expand' ORDER BY id").fetchall():
            bought = _bought(db, key)
            said = bought.outcome.text if bought and isinstance(bought.outcome, Reply) else ""
            if bought and (quoted in said or text in said):
                yield Asked(stage=bought.stage, row=bought.row, key=key.hex(), bought=bought)
                return


def _elsewhere(db: sqlite3.Connection, wanted: str, known: set[str]) -> Iterator[Asked]:
    """What the ledger holds in the name of the row, or of rows made of it, and that was not found by playing."""
    for (key,) in db.execute(_ELSE, (wanted, f"{wanted}-", f"{wanted}.")).fetchall():  # '.' is what comes after '-'
        if key.hex() not in known and (bought := _bought(db, key)) is not None:
            yield Asked(stage=bought.stage, row=bought.row, key=key.hex(), bought=bought)


# What became of it.


def _fates(there: Sequence[Stored], wanted: Collection[str]) -> list[Fate]:
    found: list[Fate] = []
    for one in there:
        common: dict[str, Any] = {"stage": one.stage, "version": one.version}
        for place in (place for row in wanted for place in one.of_id(row)):
            found.append(Fate(**common, row=str(one.row(place)["id"]), what="row", where=place.where))
        for lost in (lost for lost in one.lost() if lost.id in wanted or lost.prompt_id in wanted):
            ended = {"where": lost.where, "reason": lost.reason, "detail": lost.detail}
            found.append(Fate(**common, row=lost.id, what="rejected", **ended))
    return [*found, *_filtered(there, found)]


def _filtered(there: Sequence[Stored], found: Sequence[Fate]) -> Iterator[Fate]:
    """Rows that a whole-table step read and left out by its settings: it keeps counts of them only."""
    for table in (one for one in there if one.stage in plan.table_names() and any(one.filtered.values())):
        told = {fate.row for fate in found if fate.stage == table.stage}
        reasons = " or ".join(reason for reason, count in sorted(table.filtered.items()) if count)
        read = [one.stage for one in there if one.fingerprint in table.parents]
        before = [fate for fate in found if fate.stage in read and fate.what == "row"]
        for fate in (fate for fate in before if fate.row not in told):
            yield replace(fate, stage=table.stage, version=table.version, what="filtered", where="", reason=reasons)


def _maker(history: Mapping[str, Mapping[str, Any]], stage: str, version: str) -> str:
    """The first run that says of itself that it has this version."""
    made = (run for run, facts in history.items() if (facts.get("stages") or {}).get(stage, {}).get("version") == version)
    return next(made, "")
