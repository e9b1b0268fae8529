"""What a stage puts to a model about one row, as it is sent: found by playing its flows. Nothing is asked, nothing is written.

Replies that come before it are the ledger's, where it holds them. Where it does not, the row is taken from the newest version of
the stage before; where there is none, the simulated model stands in, and the preview says so.
"""

from __future__ import annotations

import difflib
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from cai_cli.config import Config
from cai_cli.engine import expand, pilot, plan, probing, versions
from cai_cli.engine.feed import Feed, Unit, from_version
from cai_cli.engine.ledger import found_in, key_of, reading
from cai_cli.engine.plan import Step
from cai_cli.engine.retries import Retries
from cai_cli.engine.rows import Program
from cai_cli.engine.versions import Version
from cai_cli.errors import Exit, Fix
from cai_cli.flow import Flow, Outcome, Reply, Request, play
from cai_cli.providers._world import world_of
from cai_cli.providers.simulated import reply_to
from cai_cli.records import Chain, Pair
from cai_cli.reports.quantities import counted

LOOKED_AT = 200  # prompts, where no id says which one
Known = Callable[[Request], Outcome | None]  # what was answered already; None: nothing yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One request, and the draws that are made of it."""

    request: Request
    draws: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Preview:
    """What a stage asks about a row. `rests_on`: a sentence, where that is more than replies which were given; else empty."""

    questions: tuple[Question, ...]
    rests_on: str = ""


class _Asked(NamedTuple):
    request: Request
    assumed: int  # replies before it that nobody gave


class _Place(NamedTuple):
    """Where a stage's rows can come from."""

    program: Program
    feed: Feed
    version: str = ""  # empty: from the input on


def preview(config: Config, stage: str, wanted: str | None) -> Preview:
    """The requests of a stage about one row, in the order in which they are asked.

    `wanted`: the id of a row, or of a prompt, whose first row is then shown; None: the first row that is asked about. Those that
    rest on given replies only are shown, if there are any; else those of the row's first visit to the stage.
    Raises: Fix: no such stage or row, or nothing is asked about it; Fatal: the ledger cannot be read
    """
    name = asking_stage(stage, config)
    (step,) = plan.steps_of(config, [name])
    best: list[_Asked] = []
    failures: list[Fix] = []
    with _given(config) as known:
        if name in plan.table_names():
            return _of_probes(config, step, wanted, known)
        for open_place in _places(config, step):
            try:
                place = open_place()
                found = _found(place, name, wanted, known)
            except Fix as fix:
                failures.append(fix)
                continue
            if not found[0].assumed:
                return Preview(questions=_distinct(found), rests_on=f"from the rows of {place.version}" if place.version else "")
            best = best or found
    if not best:
        raise failures[0]
    return Preview(questions=_distinct(best), rests_on=_stand_ins(best[0].assumed))


def asking_stage(stage: str, config: Config) -> str:
    """The name of a stage that asks a model, written with dashes or without. Raises: Fix: there is none of that name"""
    name = stage.replace("_", "-")
    names = [one for one in plan.stage_names() if one not in plan.table_names()]
    if name in names:
        return name
    if name in plan.table_names():
        if name in plan.sections_of(config) and plan.steps_of(config, [name])[0].stage is not None:
            return name
        hint = f"these stages do: {', '.join(names)}; with {name}.probes: {{length: 50}} it asks the labelers again"
        raise Fix(f"{name} asks no model: there are no {name}.probes", hint)
    close = difflib.get_close_matches(name, names, 1)
    raise Fix(f"there is no stage '{stage}'", f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(names)}")


def _stand_ins(replies: int) -> str:
    which = "a reply that was" if replies == 1 else f"{replies} replies that were"
    return f"the simulated model stands in for {which} not given yet"


# Where rows come from: the input, through all stages before; or a version of the stage before.


def _places(config: Config, step: Step) -> Iterator[Callable[[], _Place]]:
    yield lambda: _from_the_start(config, step)
    for name in (name for name in step.reads if name not in plan.INPUTS):
        if (version := versions.latest(config.output_path, name)) is not None:
            yield functools.partial(_from_version, step, version, name)


def _from_version(step: Step, version: Version, name: str) -> _Place:
    program, feed = plan.program_of([replace(step, source="")]), from_version(version, plan.shapes()[name], None)
    if step.takes is Chain:
        units = feed.units
        feed = replace(
            feed, units=lambda: (Unit(shard, [one for row in rows for one in _reopened(row)]) for shard, rows in units())
        )
    return _Place(program, feed, f"{name} {version.name}")


def _reopened(chain: Chain) -> Sequence[Chain]:
    """A chain as it was while each of its rounds was open: its last one may have ended without a question."""
    found, response = list[Chain](), chain.initial_response
    for n, one in enumerate(chain.rounds):
        opened = replace(one, revision="", accepted=None, votes=())
        found.append(replace(chain, response=response, rounds=(*chain.rounds[:n], opened), stopped_by=""))
        response = one.revision if one.accepted else response
    return found or [chain]


def _from_the_start(config: Config, step: Step) -> _Place:
    """Raises: Fix: no input"""
    if config.prompts is not None and config.prompts.path == "-":
        raise Fix("the prompts come from stdin, which is not read here", "let prompts.path name a file", Exit.INPUT)
    if not plan.reads_of(step.name):
        return _Place(*expand.first_wave(expand.sources(config, step, None, None)))
    steps = plan.steps_of(config, _joined(config, step))
    feed = plan.feed_of(config, steps, None, None)
    return _Place(plan.program_of(pilot.ready(config, steps, feed)), feed)


def _joined(config: Config, step: Step) -> list[str]:
    """The stage, those that its rows go through before it in a run, and the one that it is looped with."""
    there = {name for name in plan.sections_of(config) if name not in plan.table_names()}
    names, at = [step.name, *([step.again] if step.again in there else [])], step
    while before := next((name for name in at.reads if name in there and name not in names), ""):
        names.append(before)
        (at,) = plan.steps_of(config, [before])
    return names


# Where a table asks labelers again.


def _of_probes(config: Config, step: Step, wanted: str | None, known: Known) -> Preview:
    """What probes ask of a pair, or of a prompt's pairs, by its id; else one of their questions. Raises: Fix: there is none"""
    pairs, rests_on = _pairs(config, step, known)
    every = probing.choose(pairs, step.stage, step.seed).every
    mine = [one for one in every if wanted in (one.pair.id, one.pair.prompt_id)] if wanted is not None else every[:1]
    if not mine:
        ids = sorted({one.pair.id for one in every})
        hint = f"its probes are about {', '.join(ids[:5])}{' and others' if len(ids) > 5 else ''}" if ids else "see `cai show`"
        raise Fix(f"{step.name} asks nothing about {'any pair' if wanted is None else repr(wanted)}", hint, Exit.INPUT)
    asked = [one for question in mine for one in _played(step.stage(question), known)]
    return Preview(questions=_distinct(asked), rests_on=rests_on)


def _pairs(config: Config, step: Step, known: Known) -> tuple[Iterable[Pair], str]:
    """What a table reads: the newest version of it, else what becomes of the first prompts. Gives: that, and what it rests on"""
    (name,) = step.reads
    if (version := versions.latest(config.output_path, name)) is not None:
        feed = from_version(version, plan.shapes()[name], None)
        return (pair for unit in feed.units() for pair in unit.rows), f"from the rows of {name} {version.name}"
    place = _from_the_start(config, plan.steps_of(config, [name])[0])
    assumed = 0

    def answer(request: Request) -> Outcome:
        nonlocal assumed
        outcome = known(request)
        assumed += outcome is None
        return outcome or _stand_in(request)

    flows = (place.program(unit.rows) for unit in itertools.islice(place.feed.units(), LOOKED_AT))
    pairs = [pair for flow in flows for pair in play(flow, answer)[name].rows]
    return pairs, _stand_ins(assumed) if assumed else ""


# What is asked there.


def _found(place: _Place, name: str, wanted: str | None, known: Known) -> list[_Asked]:
    """What the stage asks about the row, at least one request. Raises: Fix: no such row, or nothing is asked about it"""
    others: list[str] = []
    looked_at = 0
    for rows in candidates(place.feed, wanted):
        looked_at += 1
        asked = list(_played(place.program(rows), known))
        mine = list(dict.fromkeys(one.request.row for one in asked if one.request.stage == name))
        first = mine[:1] if wanted is None or wanted in {prompt_id_of(row) for row in rows} else [wanted]
        if first and (found := _of_row(asked, name, first[0])):
            return found
        others += mine
    raise _nothing(name, wanted, looked_at, others)


def candidates(feed: Feed, wanted: str | None) -> Iterator[Sequence[Any]]:
    """The rows of each prompt that may be the one with this id, or may become it, prompt by prompt; None: of the first ones."""
    if wanted is None:
        return (unit.rows for unit in itertools.islice(feed.units(), LOOKED_AT))
    return (unit.rows for unit in feed.units() if any(_may_become(row, wanted) for row in unit.rows))


def prompt_id_of(row: Any) -> str:
    """The prompt that a row belongs to; of a prompt its own id."""
    return str(getattr(row, "prompt_id", row.id))


def _may_become(row: Any, wanted: str) -> bool:
    """Whether the id is the row's, its prompt's, or of a row that is made of it: PROMPT-0, PROMPT-0-1."""
    return wanted in (row.id, prompt_id_of(row)) or wanted.startswith(f"{prompt_id_of(row)}-")


def _nothing(name: str, wanted: str | None, looked_at: int, others: Sequence[str]) -> Fix:
    if wanted is None:
        return Fix(f"{name} asks nothing about the first {counted(looked_at, 'prompt')}", "look at one by its id", Exit.INPUT)
    if not looked_at:
        return Fix(f"no row has the id or prompt_id '{wanted}'", "without an id the first row's is shown", Exit.INPUT)
    hint = f"it asks about {', '.join(others[:5])}" if others else "it may have stopped, or been rejected, before: see `cai show`"
    return Fix(f"{name} asks nothing about '{wanted}'", hint, Exit.INPUT)


def _played(flow: Flow[Any], known: Known) -> Iterator[_Asked]:
    """Every request of a flow that gets known replies, and the simulated model's where there is none."""
    assumed, outcomes = 0, None
    while True:
        try:
            requests = next(flow) if outcomes is None else flow.send(outcomes)
        except StopIteration:
            return
        yield from (_Asked(request, assumed) for request in requests)
        replies = [known(request) for request in requests]
        assumed += replies.count(None)
        outcomes = tuple(reply or _stand_in(request) for request, reply in zip(requests, replies, strict=True))


def _stand_in(request: Request) -> Reply:
    return reply_to(request, world_of(request.model.params))


def _of_row(asked: Sequence[_Asked], name: str, row: str) -> list[_Asked]:
    """What a stage asks about a row: all that rests on given replies only, else what it asks at the first visit."""
    mine = [one for one in asked if one.request.stage == name and about(row, one.request.row)]
    if given := [one for one in mine if not one.assumed]:
        return given
    since = itertools.dropwhile(lambda one: one not in mine, asked)
    visit = itertools.takewhile(lambda one: one.request.stage == name or not about(row, one.request.row), since)
    return [one for one in visit if one in mine]


def about(wanted: str, row: str) -> bool:
    """Whether a question in the name of a row is about the wanted one."""
    # A revision and what it revises are compared under a name of their own, round by round.
    return row == wanted or row.startswith(f"{wanted}-round-")


def _distinct(asked: Iterable[_Asked]) -> tuple[Question, ...]:
    """Each question once: draws and second attempts say the same."""
    same: dict[bytes, list[Request]] = {}
    for request, _ in asked:
        same.setdefault(key_of(replace(request, draw=0, attempt=0)), []).append(request)
    return tuple(
        Question(request=requests[0], draws=tuple(dict.fromkeys(request.draw for request in requests)))
        for requests in same.values()
    )


# What was answered already.


@contextmanager
def _given(config: Config) -> Iterator[Known]:
    """The ledger's replies to questions as they were put last, read without touching it. Raises: Fatal"""
    path, retries = config.state_path / "ledger.sqlite", Retries.of_config(config)
    if not path.exists():
        yield _nobody_said
        return
    with reading(path) as db:
        yield lambda request: found_in(db, key_of(retries.asked(request)))


def _nobody_said(_: Request) -> None:
    """No ledger, no reply."""
