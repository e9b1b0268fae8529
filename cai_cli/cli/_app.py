"""The verbs as Typer takes them."""

from __future__ import annotations

import importlib
import os
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NoReturn

import typer
from typer.core import TyperCommand, TyperGroup

from cai_cli.cli import VERBS, _signals
from cai_cli.errors import Exit, Fix

# These say themselves when a signal may raise.
ASKING = ("run", "generate", "critique", "revise", "label-pairs", "debias", "expand", "retry", "estimate")
LATER = (
    "report", "merge",
)  # fmt: skip


class _Enough(Exception):
    """Whoever read our output has closed it."""


def refuse_later(what: str) -> NoReturn:
    """What the documentation of other versions names. Raises: Fix"""
    from cai_cli import __version__

    verb = "" if what.startswith("'") else f" {sys.argv[1]}"  # of an option: what its verb takes
    raise Fix(f"{what} is not in version {__version__}", f"see what there is: cai{verb} -h")


class LazyGroup(TyperGroup):
    """Knows its verbs by name and help line, and imports one only to run it."""

    listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in VERBS:
            return _added_stage(cmd_name)
        if self.listing:
            return TyperCommand(name=cmd_name, help=VERBS[cmd_name])
        module = importlib.import_module(f"cai_cli.cli.{cmd_name.replace('-', '_')}")
        if cmd_name not in ASKING:
            _signals.let_them_raise()
        return typer.main.get_command(module.app)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.listing = True
        super().format_help(ctx, formatter)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise _Enough from None  # Click would end with 1
        except KeyboardInterrupt:
            raise _signals.Terminated(Exit.INTERRUPTED) from None  # Click would end without a word

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        if args and args[0] in LATER:
            refuse_later(f"'{args[0]}'")
        if args and not args[0].startswith("-") and args[0] not in VERBS and _added_stage(args[0]) is None:
            _refuse_unknown(args[0])
        return super().resolve_command(ctx, args)


def _refuse_unknown(verb: str) -> NoReturn:
    """Raises: Fix"""
    import difflib

    close = difflib.get_close_matches(verb, VERBS, 1)
    hint = f"did you mean 'cai {close[0]}'? all of them: cai -h" if close else "see what there is: cai -h"
    raise Fix(f"there is no command '{verb}'", hint)


def _added_stage(name: str) -> Any:
    """The command of a stage that another package adds, or None."""
    from importlib.metadata import entry_points

    point = next(iter(entry_points(group="cai.stages", name=name.replace("-", "_"))), None)
    if point is None:
        return None
    from cai_cli.cli._stage import stage_app

    return typer.main.get_command(stage_app(name, f"{point.load().__doc__}\n\n\b\nExamples:\n  cai {name} my.yaml\n"))


app = typer.Typer(
    cls=LazyGroup, rich_markup_mode=None, pretty_exceptions_enable=False, no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)  # fmt: skip


def _print_version(wanted: bool) -> None:
    if wanted:
        from cai_cli import __version__

        typer.echo(f"cai {__version__}")
        raise typer.Exit


@app.callback()
def _cai(
    version: bool = typer.Option(False, "--version", callback=_print_version, is_eager=True, help="Print the version."),
) -> None:
    """Build Constitutional AI and RLAIF datasets: generate, critique, revise, label, debias.

    Start with `cai init my-dataset`, or run one of the configs that ship with cai.
    """


def _asked_by_the_shell() -> AbstractContextManager[None]:
    """What a command line begins with that bash asks about; nothing for any other."""
    if os.environ.get("_CAI_COMPLETE") != "complete_bash":
        return nullcontext()
    from cai_cli.cli import _bash

    return _bash.whole_words()


def run() -> int:
    """Parse the command line and run its verb. Gives: the exit code"""
    try:
        with _asked_by_the_shell():
            return int(typer.main.get_command(app).main(prog_name="cai", standalone_mode=False) or 0)
    except _Enough:
        # whoever read our output has enough; stdout is closed for good, or the interpreter would complain at its exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
