"""cai doctor"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cai_cli.cli._stage import AsJson, OutputFolder, verb_app

if TYPE_CHECKING:
    from rich.text import Text

    from cai_cli.engine.doctor.finding import Finding

HELP = """What stands between this machine and a run: Python, packages, keys, servers, models, disk, lock, ledger.

Without CONFIG the machine and its keys. Nothing is asked that costs money, unless with --ask.

\b
Examples:
  cai doctor
  cai doctor my.yaml
  cai doctor my.yaml --ask            # one small question to each model, which is paid for
  cai doctor my.yaml --offline --json | jq '.checks[] | select(.mark != "ok")'
"""

WIDTH = 100  # columns that prose may take

app = verb_app()


@app.command(help=HELP)
def command(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="The config of the run.", show_default=False)
    ] = None,
    output: OutputFolder = None,
    offline: Annotated[bool, typer.Option("--offline", help="Reach no server.")] = False,
    ask: Annotated[bool, typer.Option("--ask", help="Put one small question to each model; it is paid for.")] = False,
    json: AsJson = False,
) -> None:  # fmt: skip
    from cai_cli.engine.doctor import examine

    _refuse_contradictions(config, output, offline, ask)
    found = list(examine.of_machine() if config is None else examine.of_config(config, output, offline, ask))
    code = examine.code_of(found)
    if json:
        from cai_cli.cli._answer import print_json

        print_json({"exit": int(code), "checks": [one.document() for one in found]})
    else:
        _print(found)
    _conclude(found, config)
    raise typer.Exit(code)


def _refuse_contradictions(config: Path | None, output: str | None, offline: bool, ask: bool) -> None:
    from cai_cli.errors import Fix

    if offline and ask:
        raise Fix("--offline reaches no server, and --ask asks one", "leave one of them out")
    if config is None and (output or ask):
        raise Fix("without a config there is no output and nobody to ask", "name it: cai doctor CONFIG")


def _print(found: Sequence[Finding]) -> None:
    from rich.table import Table
    from rich.text import Text

    from cai_cli.reports.console import console

    out, table = console(), Table.grid(padding=(0, 2, 0, 0))
    width = min(out.width, WIDTH)
    taken = len("fail") + 2 + max((len(one.what.partition(" ")[0]) for one in found), default=0) + 2
    for name in ("mark", "what"):
        table.add_column(name, no_wrap=True)
    table.add_column("detail", overflow="fold")
    styles = {"ok": "green", "warn": "yellow", "fail": "red"}
    for one in found:
        table.add_row(Text(one.mark, styles[one.mark]), Text(one.what.partition(" ")[0]), _said(one, max(20, width - taken)))
    out.print(table, width=width)


def _said(one: Finding, width: int) -> Text:
    """What was found and what to do, commands unbroken; of one of several, with its name in front."""
    from rich.text import Text

    from cai_cli.reports.folding import folded
    from cai_cli.visible import on_one_line

    which, detail = on_one_line(one.what.partition(" ")[2]), on_one_line(one.detail)
    said = Text("\n".join(folded(f"{which}: {detail}" if which else detail, width)))
    said.stylize("cyan", 0, len(which))
    if one.hint:
        hint = "\n".join(folded(f"hint: {on_one_line(one.hint)}", width))
        said.append(f"\n{hint}", "" if one.mark == "ok" else "bold")
    return said


def _conclude(found: Sequence[Finding], config: Path | None) -> None:
    """The last line: what is wrong in sum, and what to type."""
    import shlex

    from cai_cli.cli.errors import say
    from cai_cli.reports.quantities import counted

    marks = [one.mark for one in found]
    failing, warning = marks.count("fail"), marks.count("warn")
    warned = f", {counted(warning, 'warning')}" if warning else ""
    again = shlex.join(["cai", "doctor", *([str(config)] if config else [])])
    if failing:
        say(f"cai: {counted(failing, 'thing')} in the way{warned}; mend what fails, then: {again}")
    elif config:
        say(f"cai: nothing in the way{warned}; go on with: {shlex.join(['cai', 'run', str(config)])}")
    else:
        say(f"cai: nothing in the way{warned}; of a run: cai doctor CONFIG")
