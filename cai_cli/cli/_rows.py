"""`cai show`: which rows are wanted, where they lie, how they are printed."""

from __future__ import annotations

import difflib
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from cai_cli.cli._answer import print_json
from cai_cli.cli._pager import paged
from cai_cli.cli.errors import say
from cai_cli.cli.show import ANY_FLAG
from cai_cli.cli.summary import command_line
from cai_cli.config import Config
from cai_cli.engine import plan, runs, stored, where
from cai_cli.engine.row_values import FLAGS, names_of
from cai_cli.engine.stored import Staged, Stored
from cai_cli.engine.where import Filter
from cai_cli.errors import Exit, Fix
from cai_cli.records import Chain, Pair, Preference, Rejected
from cai_cli.reports.quantities import counted

ROWS, REJECTS = 3, 20  # shown by default
KINDS = 20  # named, at most, where another one was meant
# Whose rows say most comes first; stages of other packages stand before what is told at last.
_TELLING, _AT_LAST = ("revise", "critique", "label-pairs", "debias", "score"), ("generate", "expand")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the command line asks for."""

    id: str | None
    stage: str | None
    where: tuple[str, ...]
    flags: str | None
    kind: str | None
    rejects: bool
    reason: str | None
    partial: bool
    version: str | None
    limit: int | None
    offset: int

    def filter(self) -> Filter | None:
        """All that rows must satisfy; None: nothing. Raises: Fix"""
        filters = [where.parse(expression) for expression in self.where]
        if self.flags is not None:
            filters.append(where.parse(_flagged(self.flags)))
        if self.kind is not None:
            filters.append(where.equals("kind", self.kind))
        return where.all_of(filters) if filters else None


def _flagged(names: str) -> str:
    """The expression of a list of flags."""
    if names == ANY_FLAG:
        return "flags"
    for name in names.split(","):
        if name not in FLAGS:
            close = difflib.get_close_matches(name, FLAGS, 1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(FLAGS)}"
            raise Fix(f"there is no flag '{name}'", hint)
    return f"flags in ({names})"


class _Found(NamedTuple):
    """A row, or a reject, and what holds it."""

    stored: Stored
    row: Any


@dataclass(slots=True)
class _Looked:
    """What a search passed."""

    rows: int = 0
    matched: int = 0
    of: str = ""
    total: int = 0  # rows there are
    counts: Counter[str] = field(default_factory=Counter)  # rejects by reason


def show(config: Config, wanted: Wanted, as_json: bool, no_pager: bool) -> None:
    """Print the rows that are wanted, and say on stderr what they are of. Raises: Fix"""
    condition, looked = wanted.filter(), _Looked()
    staged = stored.staged(config.output_path, _stages(wanted.stage)) if wanted.partial else None
    there = _there(config, wanted, staged)
    every = _found(there, wanted, condition, looked)
    of_id = list(every) if wanted.id is not None else []
    if wanted.id is not None and not of_id:
        raise _nobody(config, wanted)
    first = next(every, None)  # before anything is printed: it raises what there is to say
    every = iter(of_id) if first is None else itertools.chain([first], every)
    limit = wanted.limit or (None if wanted.id else REJECTS if wanted.rejects else ROWS)
    shown = itertools.islice(every, wanted.offset, None if limit is None else wanted.offset + limit)
    if as_json:
        number = _as_json(shown, every, looked, condition if wanted.id is None else None, staged)
    else:
        number = _print(shown, every, looked, wanted, no_pager)
    if wanted.partial:
        say(f"cai: {_how_far(config, staged)}")
    if of_id and wanted.offset >= len(of_id):
        say(f"cai: {counted(len(of_id), 'row')} of '{wanted.id}'; --offset {wanted.offset} passes over all of them")
    if wanted.id is None and not wanted.rejects and looked.of:
        if condition is not None:
            _count(every)
        _tell(wanted, looked, number, condition)
        if not looked.matched and wanted.kind is not None:
            _tell_kinds(there.values(), wanted.kind)


def _stages(stage: str | None) -> tuple[str, ...]:
    names = plan.stage_names()
    if stage is None:
        return names
    name = stage.replace("_", "-")
    if name not in names:
        close = difflib.get_close_matches(name, names, 1)
        raise Fix(f"there is no stage '{stage}'", f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(names)}")
    return (name,)


def _there(config: Config, wanted: Wanted, staged: Staged | None) -> dict[str, Stored]:
    """What is looked at, by stage, in the order data flows. Raises: Fix: there is none"""
    stages = _stages(wanted.stage)
    if wanted.partial:
        return dict(staged.stages) if staged else {}
    if wanted.version is not None:
        return stored.named(config.output_path, stages, wanted.version)
    if found := stored.newest(config.output_path, stages):
        return found
    what = f"no version of {wanted.stage}" if wanted.stage else "no version"
    going = stored.staged(config.output_path, stages) is not None
    verb = f"{wanted.stage or 'run'} {config.path}"
    hint = f"{command_line('show', config)} --partial shows what is done so far" if going else f"make one: cai {verb}"
    raise Fix(f"{config.output_path} holds {what} yet", hint, Exit.INPUT)


def _nobody(config: Config, wanted: Wanted) -> Fix:
    if wanted.partial:
        hint = "it may be in a partition that is not whole yet; `cai why` follows single rows"
        return Fix(f"no staged row has the id or prompt_id '{wanted.id}'", hint, Exit.INPUT)
    also = " and matches" if wanted.filter() else ""
    said = f"no row of {config.output_path} has the id or prompt_id '{wanted.id}'{also}"
    return Fix(said, f"`{command_line('show', config)}` shows the first rows with their ids", Exit.INPUT)


# Finding.


def _found(there: Mapping[str, Stored], wanted: Wanted, condition: Filter | None, looked: _Looked) -> Iterator[_Found]:
    if wanted.rejects:
        return _rejected(there, wanted, condition, looked)
    if wanted.id is not None:
        return _of_id(there, wanted.id, condition)
    return _rows(there, condition, looked)


def _rows(there: Mapping[str, Stored], condition: Filter | None, looked: _Looked) -> Iterator[_Found]:
    """The rows of the stage that tells most, of those whose rows have what is asked about."""
    added = (name for name in there if name not in (*_TELLING, *_AT_LAST))
    order = [name for name in (*_TELLING, *added, *_AT_LAST) if name in there]
    if not order:
        return
    name = next((name for name in order if condition is None or where.answers(condition, there[name].shape)), "")
    if not name and any(one.partial for one in there.values()):
        return  # the stage that could answer has been published by now
    if not name:
        raise _unanswered(condition, there)
    one = there[name]
    looked.of, looked.total = one.title, sum(one.rows)
    for place in one.places():
        looked.rows += 1
        if condition is None or condition.matches(one.row(place)):
            looked.matched += 1
            yield _Found(one, place)


def _unanswered(condition: Filter | None, there: Mapping[str, Stored]) -> Fix:
    """No stage's rows have all that is asked about."""
    asked = sorted(condition.names if condition else ())
    who = {name: [stage for stage, one in there.items() if name in names_of(one.shape)] for name in asked}
    have = "; ".join(f"{name}: {', '.join(stages) or 'none'}" for name, stages in who.items())
    if len(there) == 1:
        ((stage, one),) = there.items()
        lacking = [name for name, stages in who.items() if not stages]
        return Fix(f"rows of {stage} have no {', '.join(lacking)}", f"they have: {', '.join(names_of(one.shape))}")
    return Fix(f"no stage here has rows with {' and '.join(asked)}", f"rows that have it: {have}")


def _of_id(there: Mapping[str, Stored], wanted: str, condition: Filter | None) -> Iterator[_Found]:
    """What the stages made of a row or a prompt, row by row, and where it was rejected.

    A row whose every word a later stage's row repeats is left out.
    """
    found = [_Found(one, one.record(place)) for one in there.values() for place in one.of_id(wanted)
             if condition is None or (where.answers(condition, one.shape) and condition.matches(one.row(place)))]  # fmt: skip
    told = [one for at, one in enumerate(found) if not any(_repeats(later.row, one.row) for later in found[at + 1 :])]
    if condition is None:
        told += [_Found(one, row) for one in there.values() for row in one.lost() if wanted in (row.id, row.prompt_id)]
    order = list(dict.fromkeys(one.row.id for one in told))
    return iter(sorted(told, key=lambda one: order.index(one.row.id)))


def _repeats(later: Any, row: Any) -> bool:
    """Whether a later stage's row says all that this one says."""
    if later.id != row.id:
        return False
    if isinstance(row, Pair):
        return isinstance(later, Preference) and later.votes == row.votes and later.response_a == row.response_a
    if not isinstance(later, Chain):
        return False
    if isinstance(row, Chain):
        return later.initial_response == row.initial_response and len(later.rounds) >= len(row.rounds)
    return bool(later.initial_response == row.response)


def _rejected(there: Mapping[str, Stored], wanted: Wanted, condition: Filter | None, looked: _Looked) -> Iterator[_Found]:
    reasons = _reasons(there, wanted.reason)
    if condition is not None:
        where.check_names(condition, "rejects", Rejected)
    for one in there.values():
        for row in one.lost():
            mine = wanted.id is None or wanted.id in (row.id, row.prompt_id)
            if not mine or (reasons and row.reason not in reasons):
                continue
            looked.rows += 1
            if condition is None or condition.matches(_as_row(row)):
                looked.matched += 1
                looked.counts[row.reason] += 1
                yield _Found(one, row)


def _as_row(row: Rejected) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Rejected.__slots__}


def _reasons(there: Mapping[str, Stored], given: str | None) -> tuple[str, ...]:
    """The reasons that are named. Raises: Fix: nothing was rejected for one of them"""
    known = sorted({reason for one in there.values() for reason in one.rejected})
    for reason in (names := tuple((given or "").split(",")) if given else ()):
        if reason not in known:
            close = difflib.get_close_matches(reason, known, 1)
            hint = f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(known) or 'none'}"
            raise Fix(f"no row was rejected for '{reason}'", hint, Exit.INPUT)
    return names


# Printing.


def _record(one: _Found) -> Any:
    return one.stored.record(one.row) if isinstance(one.row, stored.Place) else one.row


def _as_json(
    shown: Iterator[_Found], every: Iterator[_Found], looked: _Looked, condition: Filter | None, staged: Staged | None
) -> int:
    rows = [{"stage": one.stored.stage, "version": one.stored.version, "row": _record(one)} for one in shown]
    document: dict[str, Any] = {"rows": rows}
    if condition is not None:
        _count(every)
        document |= {"matched": looked.matched, "looked_at": looked.rows}
    if staged is not None:
        document["partitions"] = {"whole": staged.whole, "of": staged.shards}
    print_json(document)
    return len(rows)


def _count(rest: Iterator[_Found]) -> None:
    for _ in rest:
        pass


def _print(shown: Iterator[_Found], every: Iterator[_Found], looked: _Looked, wanted: Wanted, no_pager: bool) -> int:
    """Print rows one after another. Gives: how many"""
    from cai_cli.reports import stories
    from cai_cli.reports.console import plain

    number = 0
    with paged(not no_pager) as out:
        if wanted.rejects:
            return _print_rejects(out, [one.row for one in shown], every, looked)
        for one in shown:
            number += 1
            row = _record(one)
            out.print(stories.heading(f"{row.id} · {one.stored.title}"))
            told = stories.reject_story(row) if isinstance(row, Rejected) else stories.story(row, plain(out), out.width)
            for part in told:
                out.print(part)
    return number


def _print_rejects(out: Any, rows: list[Rejected], every: Iterator[_Found], looked: _Looked) -> int:
    from rich.text import Text

    from cai_cli.reports import stories

    _count(every)
    if not looked.matched:
        say("cai: no row was rejected" if not looked.rows else f"cai: none of {counted(looked.rows, 'reject')} matches")
        return 0
    for part in stories.reject_table(rows, out.width):
        out.print(part)
    out.print()
    out.print(Text(stories.reject_counts(looked.counts, len(rows))))
    return len(rows)


# What is said of it.


def _tell(wanted: Wanted, looked: _Looked, number: int, condition: Filter | None) -> None:
    """How many rows there are, where not all are shown."""
    if condition is None:
        if number < looked.total:
            say(f"cai: {looked.of} has {counted(looked.total, 'row')}{_shown(wanted, looked.total, number)}")
    elif not looked.matched:
        say(f"cai: none of {counted(looked.rows, 'row')} of {looked.of} matches")
    else:
        rows = counted(looked.rows, "row")
        say(f"cai: {looked.matched:,} of {rows} of {looked.of} match{_shown(wanted, looked.matched, number)}")


def _tell_kinds(there: Iterable[Stored], given: str) -> None:
    """Which kinds there are, where none of the rows is of the one that was given."""
    first = next(iter(there))
    kinds = sorted({str(kind) for place in first.places() if (kind := first.row(place).get("kind"))})
    close = difflib.get_close_matches(given, kinds, 1)
    if given not in kinds:
        say(f"hint: did you mean '{close[0]}'?" if close else f"hint: rows are of kind {', '.join(kinds[:KINDS]) or '(none)'}")


def _shown(wanted: Wanted, of: int, number: int) -> str:
    if number >= of:
        return ""
    first, after = wanted.offset + 1, wanted.offset + number
    numbers = f"{first:,} to {after:,}" if number > 1 else f"{first:,}" if number else "none"
    return f"; shown: {numbers}" + (f", next: --offset {after}" if number and after < of else "")


def _how_far(config: Config, staged: Staged | None) -> str:
    """What of its input a job has done, and whether it goes on."""
    last: dict[str, Any] = next(iter(list(runs.all_of(config.state_path, config.output_path))[-1:]), {})
    state = {"running": "a run goes on", "killed": "the run was killed"}.get(last.get("state", ""), "")
    if staged is None:
        return f"nothing is staged: {state or 'no run goes on'}; what is published is shown without --partial"
    # while no partition is whole, no file says how many there are
    shards = staged.shards or -(-int(last.get("prompts", 0)) // config.shards.rows)
    of = f"{staged.whole:,} of {counted(shards, 'partition')}" if shards else "no partition"
    share = f", {staged.whole / shards:.0%} of the input" if shards else ""
    return f"{of} {'is' if 1 in (staged.whole, shards) else 'are'} whole{share}" + (f"; {state}" if state else "")
