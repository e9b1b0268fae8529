"""cai config"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from cai_cli.cli._stage import AsJson, ConfigFile

if TYPE_CHECKING:
    from cai_cli.config import Config
    from cai_cli.engine.advice.give import Placed
    from cai_cli.engine.plan import Step
    from cai_cli.flow import Model
    from cai_cli.judging import Judge

HELP = "Check a config, or print the schema that editors use."

CHECK = """Read a config as a run would, and say what it comes to. Every problem is told at once; nothing is asked.

Warnings are what a run allows and its results may suffer from. They change the exit code only with --strict.

\b
Examples:
  cai config check configs/quickstart.yaml
  cai config check my.yaml --set generate.samples=4
  cai config check my.yaml --strict && cai run my.yaml
"""

SCHEMA = """The JSON schema of a config, with every stage that is installed.

\b
Examples:
  cai config schema > cai.schema.json     # and `# yaml-language-server: $schema=cai.schema.json` on top of a config
"""

app = typer.Typer(
    help=HELP, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False, no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


@app.command(help=CHECK)
def check(
    config: ConfigFile,
    set_: Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override one key. Repeatable.")] = [],  # noqa: B006
    strict: Annotated[bool, typer.Option("--strict", help="Exit 2 where there is a warning.")] = False,
    json: AsJson = False,
) -> None:
    import datetime

    from cai_cli import config as configs
    from cai_cli.engine import plan
    from cai_cli.engine.advice import give

    loaded = configs.load(config, set_)
    run = plan.steps_of(loaded, plan.sections_of(loaded))
    alone = [step for name in plan.alone_of(loaded) for step in plan.steps_of(loaded, [name])]
    steps = [*run, *alone]
    warnings = list(give.on(loaded, steps, set_, datetime.date.today()))
    notes = list(_notes(loaded, steps, [*run[:1], *alone]))
    rows = [*map(_row, steps), *((name, "", "", "") for name in _added(loaded, steps))]
    refused = strict and bool(warnings)
    if json:
        _print_json(str(config), rows, warnings, notes, refused)
    else:
        _print(rows, warnings, notes)
    if refused:
        _refuse(len(warnings), config)
    if not json:
        typer.echo(f"ok: {config}")


HEAD = ("stage", "model", "template", "principles")
Row = tuple[str, str, str, str]


def _print(rows: Sequence[Row], warnings: Sequence[Placed], notes: Sequence[str]) -> None:
    from cai_cli.cli._answer import print_table

    print_table(HEAD, rows, fold="model")
    for warning in warnings:
        _say("warning", warning.line())
    for note in notes:
        _say("note", note)


def _say(kind: str, text: str) -> None:
    """One line in a log; a terminal gets it folded, and a warning in yellow."""
    import sys

    from rich.text import Text

    from cai_cli.reports.console import console
    from cai_cli.reports.folding import on_terminal
    from cai_cli.visible import on_one_line

    said = Text(on_terminal(f"{kind}: {on_one_line(text)}", sys.stderr))
    if kind == "warning":
        said.stylize("yellow", 0, len(kind) + 1)
    console(stderr=True).print(said, soft_wrap=True)


def _print_json(config: str, rows: Sequence[Row], warnings: Sequence[Placed], notes: Sequence[str], refused: bool) -> None:
    from cai_cli.cli._answer import print_json
    from cai_cli.documents import dotted

    told: list[dict[str, Any]] = [
        {"place": one.place, "key": dotted(one.advice.path), "what": one.advice.what, "why": one.advice.why,
         "write": one.advice.write} for one in warnings
    ]  # fmt: skip
    stages = [dict(zip(HEAD, row, strict=True)) for row in rows]
    print_json({"config": config, "ok": not refused, "stages": stages, "warnings": told, "notes": list(notes)})


def _refuse(count: int, config: Path) -> NoReturn:
    from cai_cli.errors import Fix
    from cai_cli.reports.quantities import counted

    raise Fix(f"{config}: {counted(count, 'warning')}, and --strict wants none", "mend what they name, or leave --strict out")


@app.command(help=SCHEMA)
def schema() -> None:
    from cai_cli import config as configs
    from cai_cli.cli._answer import print_json

    print_json(configs.schema())


def _row(step: Step) -> tuple[str, str, str, str]:
    own, *others = step.models or (None,)
    judge: Judge | None = getattr(step.stage, "judge", None)  # of revisions
    mark = f" (labeler {judge.name})" if judge else ""
    named = [_model(own), *(f"{_model(model)}{mark}" for model in others)] if own else []
    templates = ", ".join(template.name for template in step.templates)
    return step.name, ", ".join(dict.fromkeys(named)) or "none", templates or "none", _principles(step)


def _model(model: Model) -> str:
    return f"{model.provider} {model.name}".strip()


def _principles(step: Step) -> str:
    if step.constitution is None:
        return "none"
    if "critique" in step.reads:
        return "those of the critiques"
    if "label-pairs" in step.reads:
        return "those of the votes"
    count = getattr(step.settings, "principles", 0)
    if not count:
        return "the built-in one"
    entries = step.constitution.preferences if step.name == "label-pairs" else step.constitution.principles
    active = sum(entry.weight > 0 for entry in entries)
    how = getattr(step.settings, "pick", "weighted")
    return f"{step.constitution.name}: {active if how == 'all' else min(count, active)} of {active}, {how}"


def _added(config: Config, steps: list[Step]) -> list[str]:
    """Sections of stages that other packages add."""
    known = {step.name.replace("-", "_") for step in steps}
    return [name for name in config.sections if name not in known]


def _notes(config: Config, steps: list[Step], first: list[Step]) -> Iterator[str]:
    """What a run will ask for besides the config. `first`: the steps that a command can begin with"""
    from cai_cli.engine.plan import INPUTS

    for step in first if not (config.prompts and (config.prompts.path or config.prompts.dataset)) else ():
        if step.reads[0] in INPUTS:
            section = step.name.replace("-", "_")
            yield f"{section}: no prompts are named: give a run -i FILE, or add: prompts: {{path: prompts.jsonl}}"
    lacking: dict[tuple[str, str], dict[str, None]] = {}
    for step in steps:
        for said in (said for model in step.models if (said := _lacks_key(model))):
            lacking.setdefault(said, {})[step.name] = None
    for (before, after), names in lacking.items():
        yield f"{before}the model of {', '.join(names)}: {after}"


def _lacks_key(model: Model) -> tuple[str, str] | None:
    """Why requests to this model would not be sent: what to say before its name, and after. Nothing of a key is in it."""
    from cai_cli import providers
    from cai_cli.errors import Fix
    from cai_cli.providers._keys import NoKey

    try:
        providers.connect(model)  # opens no connection: that happens with the first request
    except NoKey as missing:
        return "no key is set for ", f"export {missing.variable}=..."
    except Fix as fix:
        return "", f"{fix.message}; {fix.hint}"
    return None
