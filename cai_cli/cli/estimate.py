"""cai estimate"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cai_cli.cli._stage import AsJson, ConfigFile, IfLocked, OutputFolder, verb_app

if TYPE_CHECKING:
    from cai_cli.config import Config
    from cai_cli.engine.run import Summary

HELP = """What a run of this config will cost, before it does: calls, tokens by what they are, dollars, time, each with a 90%
interval; beside it what people would cost. Asks nothing and spends nothing; with --sample it first pays for a few prompts.

Replies come from the ledger where it has them, and tell of the others; where it has none, lengths are assumed, and the interval
is wide. --sample N draws N prompts at random and puts them through the stages: the run finds their replies, and pays no second
time. The last lines say what the numbers rest on.

\b
Examples:
  cai estimate my.yaml
  cai estimate my.yaml --sample 50 --budget-usd 2
  cai estimate my.yaml --json | jq .all.dollars
"""

app = verb_app()


@app.command(help=HELP)
def _estimate(
    config: ConfigFile,
    input: Annotated[
        str | None, typer.Option("-i", "--input", metavar="PATH", help="Read this instead of what the config names.")
    ] = None,
    output: OutputFolder = None,
    set_: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override one key of the config, dotted. Repeatable.")
    ] = [],  # noqa: B006
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Use only the first N prompts.")] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Override the config's seed.")] = None,
    sample: Annotated[
        int | None,
        typer.Option(min=1, max=1000, metavar="N", help="First pay for N prompts, drawn at random. The run needs them anyway."),
    ] = None,
    budget_usd: Annotated[
        float | None, typer.Option(min=0, metavar="X", help="A cap: what of the run it covers. A sample keeps it.")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, metavar="N", help="Requests in flight at once.")] = None,
    if_locked: Annotated[
        IfLocked, typer.Option(help="When a run holds the output that a sample is for: wait, fail (75), or skip (0).")
    ] = IfLocked.fail,
    json: AsJson = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No display while a sample is asked.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Timed lines, no live table.")] = False,
) -> None:
    from cai_cli import config as configs
    from cai_cli.cli import _signals

    _signals.let_them_raise()
    flags = {"seed": seed, "limits.budget_usd": budget_usd, "limits.concurrency": concurrency, "output": output}
    loaded = configs.load(config, set_, flags=flags)
    raise typer.Exit(_answer(loaded, input, limit, sample, if_locked, json, quiet, verbose))


def _answer(
    config: Config, given: str | None, limit: int | None, sample: int | None, if_locked: IfLocked, as_json: bool, quiet: bool,
    verbose: bool,
) -> int:  # fmt: skip
    from cai_cli.cli._answer import print_json
    from cai_cli.engine.estimate import make
    from cai_cli.errors import Exit

    names, path = _names(config, given), Path(given) if given else None
    spent: dict[str, Any] | None = None
    if sample is not None:
        summary = _sampled(config, names, given, limit, sample, if_locked, as_json, quiet, verbose)
        if summary is None or summary.exit != Exit.OK:
            return int(summary.exit) if summary else Exit.OK
        spent = _spent(summary, quiet)
    from cai_cli.engine.estimate.sample import latency_of

    found = make.estimate(make.job_of(config, names, path, limit), latency_of(config)) | {"sample": spent}
    if as_json:
        print_json(found)
    else:
        _print(found)
    return Exit.OK


def _names(config: Config, given: str | None) -> Sequence[str]:
    """The stages that are estimated. Raises: Fix: stdin, or nothing to estimate"""
    from cai_cli.engine import plan
    from cai_cli.errors import Fix

    if given == "-" or (given is None and config.prompts is not None and config.prompts.path == "-"):
        hint = "write it to a file, and name that with -i"
        raise Fix("an estimate reads its input several times, and stdin can be read only once", hint)
    if names := plan.sections_of(config):
        return names
    if alone := plan.alone_of(config):
        return alone[:1]
    raise Fix(f"{config.path}: the config has no stage section", "add one, such as: generate: {samples: 2}")


def _sampled(
    config: Config, names: Sequence[str], given: str | None, limit: int | None, count: int, if_locked: IfLocked, as_json: bool,
    quiet: bool, verbose: bool,
) -> Summary | None:  # fmt: skip
    """Ask about a sample. Where it stops, says how to go on. None: a run holds the output, and it is to be skipped then"""
    from cai_cli.cli._execute import answer
    from cai_cli.cli.errors import say
    from cai_cli.cli.progress import watch_for
    from cai_cli.engine import plan
    from cai_cli.engine.estimate.sample import sampled
    from cai_cli.engine.lock import Held
    from cai_cli.engine.run import Options
    from cai_cli.engine.waves import NAME
    from cai_cli.errors import Exit, Fix

    command = shlex.join(["cai", *sys.argv[1:]])
    if names == [NAME]:
        raise Fix("expand asks in waves that hang on one another, and takes no sample", "leave --sample out")
    options = Options(command=command, given=given, limit=limit, if_locked=if_locked.value)
    try:
        summary = sampled(config, plan.steps_of(config, names), count, options, watch_for(quiet, verbose))
    except Held as held:
        if if_locked != "skip":
            raise
        say(f"cai: skipped: {held.message}")
        return None
    if summary.exit != Exit.OK:
        answer(config, summary, as_json, quiet, command)
    return summary


def _spent(summary: Summary, quiet: bool) -> dict[str, Any]:
    from cai_cli.cli.errors import say
    from cai_cli.engine.estimate.sample import spent
    from cai_cli.reports.quantities import counted, dollars

    found = spent(summary)
    if not quiet:
        asked = f"{counted(found['requests'], 'request')} bought for {dollars(found['dollars'] or 0.0, found['dollars'] is None)}"
        say(f"cai: {counted(found['prompts'], 'prompt')} sampled: {asked}, {found['replayed']:,} replayed")
    return found


def _print(found: dict[str, Any]) -> None:
    from cai_cli.reports import estimate_table as tables
    from cai_cli.reports.console import WIDTH, console
    from cai_cli.reports.run_summary import named

    out = console()
    if not any(True for _ in tables.asking(found)):
        out.print("These stages ask nothing.")
        return
    out.print(tables.money_table(found))
    out.print()
    out.print(tables.tokens_table(found))
    out.print()
    if found["labels"] is not None:
        out.print(tables.labels_table(found["labels"]))
        out.print()
    width = min(out.width, WIDTH)
    if said := list(tables.facts(found)):
        out.print(named(said, width))
        out.print()
    out.print("What these numbers rest on:")
    out.print(named(tables.captions(found), width))
