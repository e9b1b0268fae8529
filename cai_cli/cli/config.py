"""cai config"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, cast

import typer

from cai_cli.cli._stage import ConfigFile

if TYPE_CHECKING:
    from cai_cli.config import Config
    from cai_cli.engine.plan import Step
    from cai_cli.flow import Model
    from cai_cli.judging import Judge
    from cai_cli.stages.label_pairs import Settings as LabelPairs
    from cai_cli.tables.debias import Settings as Debias

HELP = "Check a config, or print the schema that editors use."

CHECK = """Read a config as a run would, and say what it comes to. Every problem is told at once; nothing is asked.

\b
Examples:
  cai config check configs/quickstart.yaml
  cai config check my.yaml --set generate.samples=4
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
) -> None:
    from cai_cli import config as configs
    from cai_cli.cli._table import aligned
    from cai_cli.cli.errors import say
    from cai_cli.engine import plan

    loaded = configs.load(config, set_)
    run = plan.steps_of(loaded, plan.sections_of(loaded))
    alone = [step for name in plan.alone_of(loaded) for step in plan.steps_of(loaded, [name])]
    steps = [*run, *alone]
    rows = [("stage", "model", "template", "principles"), *map(_row, steps)]
    typer.echo(aligned([*rows, *((name, "", "", "") for name in _added(loaded, steps))]))
    for warning in _warnings(loaded, {step.name: step for step in steps}):
        say(f"warning: {warning}")
    for note in _notes(loaded, steps, [*run[:1], *alone]):
        say(f"note: {note}")
    typer.echo(f"ok: {config}")


@app.command(help=SCHEMA)
def schema() -> None:
    import orjson

    from cai_cli import config as configs

    sys.stdout.buffer.write(orjson.dumps(configs.schema(), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


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


def _warnings(config: Config, steps: dict[str, Step]) -> Iterator[str]:
    if not config.sections:
        yield "there is no stage section, so there is nothing to run; add one, such as: generate: {samples: 2}"
    if (judging := steps.get("label-pairs")) is not None:
        settings = cast("LabelPairs", judging.settings)
        if (held := steps.get("debias")) is not None and _clamped_away(settings, cast("Debias", held.settings)):
            yield "label_pairs: clamp keeps labels from reaching debias.min_confidence: hardly a row is left; set that to 0.5"
        if settings.orders == "one" and settings.votes == 1 and len(judging.models) == 1:
            yield "label_pairs: one vote in one order: position bias stays in every label; better: orders: both"
        if (writing := steps.get("generate")) is not None and _judges_itself(writing, judging):
            yield "label_pairs: the only judge is the model that wrote the responses, and models favour their own: add a labeler"
    paid = any(model.provider != "simulated" for step in steps.values() for model in step.models)
    if paid and config.limits.budget_usd is None:
        yield "limits: there is no budget_usd: a run may spend without a cap"


def _clamped_away(settings: LabelPairs, debias: Debias) -> bool:
    """Whether no clamped label is surer than what debias asks for."""
    return settings.clamp is not None and max(settings.clamp[1], 1 - settings.clamp[0]) <= debias.min_confidence


def _judges_itself(writing: Step, judging: Step) -> bool:
    """The simulated model does not know its own texts, so it cannot favour them."""
    writers, judges = ({(model.provider, model.name) for model in step.models} for step in (writing, judging))
    return judges == writers and all(provider != "simulated" for provider, _ in judges)


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
