"""One row's lineage as a person reads it: a table of requests, then by whom, in which runs, what became of it, what it cost."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cai_cli.engine.lineage_of import Asked, Fate, Lineage, totals
from cai_cli.errors import Reject
from cai_cli.flow import FRESH, Reply
from cai_cli.reports import quantities as say
from cai_cli.reports.run_summary import named
from cai_cli.reports.stories import heading
from cai_cli.reports.tabular import tabular
from cai_cli.visible import on_one_line, visible

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

WIDE = 150  # columns from which who answered, and when, stands in the table
FULL_PATHS = 120  # columns from which the paths of files are told whole
_KEY = 12  # digits of a key
_WELL = ("end_turn", "stop_sequence")


def page(found: Lineage, width: int) -> Iterator[RenderableType]:
    """Everything but the texts. `width`: of the terminal, in columns"""
    numbers = {run: n for n, run in enumerate(sorted(_runs(found)), 1)}
    for row in dict.fromkeys(one.row for one in found.asked):
        yield heading(row)
        yield _table(found, [one for one in found.asked if one.row == row], numbers, width)
        yield ""
    if found.others:
        yield heading("bought for it, and not what this config asks")
        yield _table(found, found.others, numbers, width)
        yield ""
    yield named(_facts(found, numbers, width))


def _runs(found: Lineage) -> set[str]:
    bought = [one.bought for one in (*found.asked, *found.others)]
    earlier = [old.bought for one in (*found.asked, *found.others) for old in one.earlier]
    return {one.run for one in (*bought, *earlier) if one} | set(found.runs)


def _table(found: Lineage, asked: Sequence[Asked], numbers: Mapping[str, int], width: int) -> RenderableType:
    more = ("answered by", "asked at") if width >= WIDE else ()
    rows = [cells for one in asked for cells in _lines(found, one, numbers, bool(more))]
    head = ("stage", "what", "key", "in", "out", "dollars", "run", *more)
    return tabular(head, rows, right=("in", "out", "dollars", "run"), fold="what")


def _lines(found: Lineage, one: Asked, numbers: Mapping[str, int], wide: bool) -> Iterator[list[str | Text]]:
    """A line for every time a question was put, as it was put last at the end."""
    for old in one.earlier:
        why = f"superseded {_day(old.at)}: {old.reason}"
        yield [one.stage, _what(one, why, old.bought), old.key[:_KEY], *_numbers(old.bought, numbers, wide)]
    state = found.state(one)
    yield [one.stage, _what(one, "" if state == "bought" else state, one.bought), one.key[:_KEY],
           *_numbers(one.bought, numbers, wide)]  # fmt: skip


def _what(one: Asked, note: str, bought: Any) -> Text:
    """What a request was about, and what is to be known of its reply, which is marked."""
    from rich.text import Text

    parts = [_about(one), f"retry {one.retried}" if one.retried and not note.startswith("superseded") else "", *_ended(bought)]
    if bought is not None and bought.row != one.row:
        parts.append(f"bought for {bought.row}")
    told = ", ".join(part for part in parts if part)
    marked = note and not note.startswith("replayed")
    return Text.assemble(on_one_line(told), "; " if told and note else "", (on_one_line(note), "yellow" if marked else "dim"))


def _about(one: Asked) -> str:
    if one.request is None:
        return ""
    about = dict(one.request.about)
    shown_first = {"ab": "a first", "ba": "b first"}.get(str(about.pop("order", "")), "")
    rounds = f"round {about.pop('round')}" if "round" in about else ""
    draw, attempt = one.request.draw % FRESH, one.request.attempt % 1000
    parts = [
        rounds,
        *map(str, about.values()),
        shown_first,
        f"draw {draw}" if draw else "",
        f"attempt {attempt + 1}" if attempt else "",
    ]
    return ", ".join(part for part in parts if part)


def _ended(bought: Any) -> list[str]:
    if bought is None:
        return []
    outcome = bought.outcome
    if isinstance(outcome, Reject):
        return [f"refused by the server: {outcome.reason} {outcome.detail}".strip()]
    how = "refused" if outcome.refused else "cut off" if outcome.truncated else outcome.stop_reason
    return [*([] if outcome.stop_reason in _WELL else [how]), *([] if outcome.text.strip() else ["no text"]),
            *(["tokens estimated"] if outcome.estimated else [])]  # fmt: skip


def _numbers(bought: Any, numbers: Mapping[str, int], wide: bool) -> list[str | Text]:
    if bought is None:
        return ["-", "-", "-", "-", *(["-", "-"] if wide else [])]
    run = str(numbers.get(bought.run, "-"))
    who = [f"{bought.model or '-'} at {bought.host}, {bought.mode}" if bought.host else "-", _clock(bought.at)] if wide else []
    if not isinstance(bought.outcome, Reply):
        return ["-", "-", "-", run, *who]
    reply = bought.outcome
    tokens_in = reply.tokens_in + reply.tokens_cache_read + reply.tokens_cache_write
    return [say.tokens(tokens_in), say.tokens(reply.tokens_out), say.dollars(bought.dollars), run, *who]


def _clock(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))


def _day(at: float) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(at))


# Below the table.


def _facts(found: Lineage, numbers: Mapping[str, int], width: int) -> Iterator[tuple[str, str]]:
    for n, (asked, line) in enumerate(_models(found)):
        yield ("" if n else "models"), f"{line}: {say.counted(asked, 'request')}"
    for run, number in numbers.items():
        yield ("run" if number == 1 else ""), f"{number}  {_run(run, found.runs.get(run))}"
    for n, fate in enumerate(found.fates):
        yield ("" if n else "fate"), _fate(fate, found.id, width)
    if not found.fates:
        yield "fate", "in no version"
    if found.missing:
        yield "unknown", f"what was asked: {found.missing}"
    if found.asked or found.others:
        yield "totals", _totals(found)


def _models(found: Lineage) -> Iterator[tuple[int, str]]:
    """Who was asked and who answered, with how many requests."""
    counts = Counter[str]()
    for one in (*found.asked, *found.others):
        if one.bought is None or not isinstance(one.bought.outcome, Reply):
            continue
        asked = one.request.model.name if one.request else ""
        answered = one.bought.model or asked
        who = answered if asked in ("", answered) else f"{answered}, asked as {asked}"
        counts[f"{who} at {one.bought.host}, {one.bought.mode}"] += 1
    return ((count, line) for line, count in counts.most_common())


def _run(run: str, facts: Mapping[str, Any] | None) -> str:
    return f"{run}: its log is gone" if facts is None else f"{run}, {_clock(facts['started'])}: {facts['command']}"


def _fate(fate: Fate, wanted: str, width: int) -> str:
    who = "" if fate.row == wanted else f"{fate.row}: "
    if fate.what == "row":
        # the version's folder is known by its name: where there is little room its file will do
        return f"{who}{fate.stage} {fate.version}, {fate.where if width >= FULL_PATHS else fate.where.rpartition('/')[2]}"
    if fate.what == "filtered":
        return f"{who}left out by {fate.stage} {fate.version}: {fate.reason}"
    detail = f", {fate.detail}" if fate.detail else ""
    where = f", {fate.where}" if fate.where else ""
    return f"{who}rejected by {fate.stage} {fate.version}: {fate.reason}{detail}{where}"


def _totals(found: Lineage) -> str:
    told = totals(found)
    states = [f"{told[name]:,} {name.replace('_', ' ')}" for name in ("bought", "replayed", "not_asked") if told[name]]
    more = f", {told['superseded']:,} superseded" if told["superseded"] else ""
    money = f"{say.tokens(told['tokens_in'])} tokens in, {say.tokens(told['tokens_out'])} out, {say.dollars(told['dollars'])}"
    return f"{say.counted(told['requests'], 'request')} ({', '.join(states)}{more}): {money}"


# With --full.


def replies(one: Asked) -> Iterator[RenderableType]:
    """What came back, word for word: superseded replies first."""
    from rich.text import Text

    for name, bought in (*((f"superseded reply, {old.reason}", old.bought) for old in one.earlier), ("reply", one.bought)):
        outcome = bought.outcome if bought else None
        told = (
            outcome.text if isinstance(outcome, Reply) else f"refused by the server: {outcome.reason}" if outcome else "not asked"
        )
        yield Text(f"[{on_one_line(name)}]", "bold cyan")
        yield Text(f"{visible(told)}\n")
