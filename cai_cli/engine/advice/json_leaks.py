"""Advice on JSON that takes more tokens than it says: in the rows, and in the texts that go with every call."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cai_cli.engine.advice.asked import CALLS, bill, input_dollars
from cai_cli.engine.advice.inputs import JsonRows
from cai_cli.engine.advice.json_forms import Block, Forms, blocks, in_template, worth
from cai_cli.engine.advice.look import Advice, Look, template_path
from cai_cli.exemplars import Exemplar
from cai_cli.flow import Request
from cai_cli.reports.quantities import counted
from cai_cli.validation import KeyPath

MOST_SHOWN = 90  # characters of a block that can be typed as it is shown
MOST_HOLDING = 0.5  # where fewer rows than this hold JSON, prose is not proposed: those are about the JSON itself


def advice(look: Look) -> Iterator[Advice]:
    if look.seen is not None:
        yield from _rows(look, look.seen.json)
    yield from _systems(look)
    for name, step in look.steps.items():
        asking = look.asked.of(name)
        for template in step.templates:
            yield from _constant(
                list(in_template(template.body)), template_path(template), f"the template {template.name} spells", asking
            )
        found = [block for one in exemplars_of(step.stage) for text in _texts(one) for block in blocks(text)]
        yield from _constant(found, (name.replace("-", "_"), "exemplar_file"), "the exemplars spell", asking)


def exemplars_of(stage: Any) -> tuple[Exemplar, ...]:
    """The worked cases that a stage puts before its questions: its own, or its judges', who share them."""
    judges = getattr(stage, "judges", ())
    own = judges[0] if isinstance(judges, list) and judges else stage
    found: tuple[Exemplar, ...] = getattr(own, "exemplars", ())
    return found


def _texts(one: Exemplar) -> list[str]:
    return [*(turn.content for turn in one.conversation), one.response, one.critique, one.revision, one.better, one.worse]


# In the rows


def _rows(look: Look, seen: JsonRows) -> Iterator[Advice]:
    forms = seen.forms
    pretty = _saves(seen, forms.as_is - forms.compact)
    prose = _saves(seen, forms.compact - forms.prose) and seen.holding >= MOST_HOLDING * seen.rows
    if not (pretty or prose):
        return
    among = f"{'the first ' * (look.seen is not None and seen.rows < look.seen.rows)}{seen.rows:,} rows"
    what = f"{seen.holding:,} of {among} hold JSON{', pretty-printed' * pretty}: a row has {_three_forms(forms, seen.rows)}"
    saved = (forms.as_is - (forms.compact if pretty else forms.prose)) / seen.rows
    write = _one_line(look, seen) if pretty else "where only what it says counts, write it as prose: name Ann, city Paris"
    yield Advice(path=("prompts", "path"), what=what, why=_why(look, saved), write=write)


def _saves(seen: JsonRows, saved: int) -> bool:
    return seen.rows > 0 and worth(saved / seen.rows, seen.tokens / seen.rows)


def _three_forms(forms: Forms, rows: int) -> str:
    as_is, compact, prose = (round(number / rows) for number in (forms.as_is, forms.compact, forms.prose))
    return f"about {counted(as_is, 'token')} as it stands, {compact:,} on one line, {prose:,} as prose"


def _why(look: Look, saved: float) -> str:
    """What so many tokens a row come to over all calls that the row is put into."""
    if not look.asked.prompts:
        return "every stage that is shown a row pays for it again"
    calls = len(look.asked.requests) / look.asked.prompts
    cost = input_dollars((request.model, saved * CALLS / look.asked.prompts) for request in look.asked.requests)
    return f"each goes into {calls:.2g} calls, so {CALLS:,} rows pay for {bill(saved * calls * CALLS, cost)} too many"


# Not jq: up to 1.6 it writes 1.0 as 1 and rounds long numbers. One expression in brackets: folded by a terminal it still runs.
_COMPACT = (
    '[print(json.dumps(row | {"COLUMN": json.dumps(json.loads(row["COLUMN"]), ensure_ascii=False, separators=(",", ":"))})) '
    'for json in [__import__("json")] for row in map(json.loads, open(0, "rb"))]'
)


def _one_line(look: Look, seen: JsonRows) -> str:
    path, column = look.config.prompts_path(), look.config.prompts.column if look.config.prompts else None
    if path is None or path.suffix != ".jsonl" or seen.nothing_else < seen.rows:
        return "write it on one line where the rows are made: json.dumps(value, separators=(',', ':'))"
    change = shlex.quote(_COMPACT.replace("COLUMN", column or "prompt"))
    return f"write it on one line: python3 -c {change} < {shlex.quote(_shown(path))} > compact.jsonl"


def _shown(path: Path) -> str:
    return path.name if path.parent == Path() else str(path)


# In what goes with every call


def _systems(look: Look) -> Iterator[Advice]:
    systems = getattr(look.settings("generate"), "systems", ())
    for n, system in enumerate(systems):
        asking = [request for request in look.asked.of("generate") if request.system == (system or "")]
        yield from _constant(list(blocks(system or "")), ("generate", "systems", n), "it spells", asking)


def _constant(found: list[Block], path: KeyPath, who: str, asking: list[Request] | tuple[Request, ...]) -> Iterator[Advice]:
    pretty = [block for block in found if block.forms.is_pretty]
    if not pretty:
        return
    forms = sum((block.forms for block in pretty), Forms())
    spread = sum(block.text.count("\n") + 1 for block in pretty)
    what = f"{who} out JSON over {spread} lines: {_three_forms(forms, 1)}"
    saved = CALLS * (forms.as_is - forms.compact)
    cost = input_dollars((request.model, saved / len(asking)) for request in asking)
    why = f"it goes with every call, and {CALLS:,} calls pay for {bill(saved, cost)} too many"
    shown = pretty[0].compact if len(pretty) == 1 and len(pretty[0].compact) <= MOST_SHOWN else '{"a":"...","b":["..."]}'
    yield Advice(path=path, what=what, why=why, write=f"write it on one line, as in {shown}, or say it in prose")
