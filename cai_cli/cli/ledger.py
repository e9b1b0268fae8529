"""cai ledger"""

from __future__ import annotations

import re
import shlex
import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from cai_cli.cli import _complete
from cai_cli.cli._stage import AsJson, ConfigFile, IfLocked, OutputFolder, verb_app

if TYPE_CHECKING:
    from cai_cli.engine.ledger_size import Sizes
    from cai_cli.engine.ledger_upkeep import Pruned, Wanted

HELP = """Every reply that was paid for: what they take, and which may go. Asks no model."""

SIZE = """What the ledger takes: its file, its replies by stage, what they cost, what compression saves, what a million more like
them would take. Changes nothing.

Under `in newest` stands how many replies the stage's newest version was made of; the others are of older versions, of rows that
failed, or were asked again. Which reply belongs to which version cannot be told from the ledger.

\b
Examples:
  cai ledger size my.yaml
  cai ledger size my.yaml --json | jq .bytes_per_million
"""

PRUNE = """Let replies go, by age, by stage, or those that a retry superseded; where several are said, all must hold. Replies of
an earlier cai are compressed, and empty room in the file is given back. Without --yes it says what would go, and
changes nothing.

Published versions stay as they are, and so does what was spent: the budget's cap holds as before. But whatever needs a
reply that is gone asks and pays for it again, and gets another text: keep them while a later stage of this output may
be made anew.

\b
Examples:
  cai ledger prune my.yaml --older-than 90d
  cai ledger prune my.yaml --older-than 90d --stage generate --yes
  cai ledger prune my.yaml --superseded --yes
"""

_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_AGE = re.compile(r"([0-9]+(?:\.[0-9]+)?)([smhdw])")

app = verb_app()


@app.callback(help=HELP)
def _ledger() -> None:
    """Both are commands of their own."""


@app.command(help=SIZE, short_help="What it takes, by stage.", no_args_is_help=True)
def size(config: ConfigFile, output: OutputFolder = None, json: AsJson = False) -> None:
    from cai_cli.config import load
    from cai_cli.engine.ledger_size import measure

    found = measure(load(config, flags={"output": output}))
    if json:
        from cai_cli.cli._answer import print_json

        print_json(found.document())
    else:
        _print_size(found)


def _print_size(found: Sizes) -> None:
    from cai_cli.cli._answer import print_table
    from cai_cli.reports.console import console
    from cai_cli.reports.ledger_table import size_head, size_lines, size_rows
    from cai_cli.reports.run_summary import named

    out = console()
    out.print(named(size_lines(found), min(out.width, 100)))
    if found.stages:
        out.print()
        print_table(size_head(found), size_rows(found), right=size_head(found)[1:])


def _age(text: str | None) -> str | None:
    if text is not None and not re.fullmatch(_AGE, text):
        raise typer.BadParameter(f"'{text}' is no age, such as 90d, 12h or 2w")
    return text


@app.command(help=PRUNE, short_help="Let replies go, and give room back.", no_args_is_help=True)
def prune(
    config: ConfigFile,
    older_than: Annotated[
        str | None,
        typer.Option("--older-than", metavar="AGE", callback=_age, help="Those of before: 90d, 12h, 2w.", show_default=False),
    ] = None,
    stage: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Those of one stage.", show_default=False, autocompletion=_complete.asking_stages),
    ] = None,
    superseded: Annotated[bool, typer.Option("--superseded", help="Those that `cai retry` asked again.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go, also with --yes.")] = False,
    output: OutputFolder = None,
    if_locked: Annotated[IfLocked, typer.Option(help="When a run holds the output: wait, fail, or skip.")] = IfLocked.fail,
    json: AsJson = False,
) -> None:
    from cai_cli.cli.errors import say
    from cai_cli.config import load
    from cai_cli.engine import ledger_upkeep
    from cai_cli.engine.lock import Held

    loaded = load(config, flags={"output": output})
    wanted = ledger_upkeep.Wanted(before=_before(older_than), stage=stage and stage.replace("_", "-"), superseded=superseded)
    command = shlex.join(["cai", *sys.argv[1:]])
    if dry_run or not yes:
        found = ledger_upkeep.look(loaded, wanted)
    else:
        try:
            found = ledger_upkeep.prune(loaded, wanted, if_locked.value, command)
        except Held as held:
            if if_locked != IfLocked.skip:
                raise
            say(f"cai: skipped: {held.message}")
            return
    if json:
        from cai_cli.cli._answer import print_json

        print_json(found.document())
        return
    _print_pruned(found)
    say(f"cai: {_said(found, wanted, command)}")


def _before(age: str | None) -> float | None:
    match = _AGE.fullmatch(age or "")
    return time.time() - float(match[1]) * _SECONDS[match[2]] if match else None


def _print_pruned(found: Pruned) -> None:
    from cai_cli.cli._answer import print_table
    from cai_cli.reports.console import console
    from cai_cli.reports.ledger_table import GOING, going_rows, pruned_lines
    from cai_cli.reports.run_summary import named

    out = console()
    out.print(named(pruned_lines(found), min(out.width, 100)))
    if found.going:
        out.print()
        print_table(GOING, going_rows(found), right=GOING[1:])


def _said(found: Pruned, wanted: Wanted, command: str) -> str:
    """The last line: what happened, or how it would."""
    from cai_cli.reports.quantities import counted, dollars

    if found.done:
        return f"{counted(found.replies, 'reply', 'replies')} went; what was spent stays counted"
    words = [word for word in shlex.split(command) if word not in ("--dry-run", "--yes")]
    then = shlex.join([*words, "--yes"])
    if found.replies:
        paid = f", which cost {dollars(found.dollars)}: whatever needs them again pays again" if found.dollars else ""
        return f"nothing was changed; {counted(found.replies, 'reply', 'replies')} would go{paid}; to do it: {then}"
    if wanted.any:
        return "no reply is such as was said; nothing was changed"
    return f"nothing is named that should go: --older-than 90d, --stage NAME or --superseded; only to compress: {then}"
