"""The command line. A verb's module is imported when the verb is used, so that `cai --help` stays quick."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from cai_cli.cli import errors
from cai_cli.errors import Exit

VERBS = {
    "run": "All stages of the config, prompt by prompt.",
    "generate": "Prompts to samples: n responses each.",
    "critique": "Samples to critiques, each against a principle.",
    "revise": "Critiqued samples to revisions.",
    "label-pairs": "Pairs of responses to a labeler's votes.",
    "debias": "Votes to preferences, with a bias report.",
    "export": "A dataset to train on: sft, preference.",
    "status": "What is done, spent, rejected and running.",
    "show": "Rows, round by round.",
    "verify": "Check every file against its manifest.",
    "config": "Check a config, or print its schema.",
    "constitution": "List or check constitutions.",
    "init": "Start a folder: config, constitution, prompts.",
}


class _Enough(Exception):
    """Whoever read our output has closed it."""


class LazyGroup(TyperGroup):
    """Knows its verbs by name and help line, and imports one only to run it."""

    listing = False

    def list_commands(self, ctx: Any) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in VERBS:
            return None
        if self.listing:
            return TyperCommand(name=cmd_name, help=VERBS[cmd_name])
        module = importlib.import_module(f"cai_cli.cli.{cmd_name.replace('-', '_')}")
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
            raise errors.Terminated(Exit.INTERRUPTED) from None  # Click would end without a word

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        self.commands = dict.fromkeys(VERBS)  # type: ignore[assignment]  # the names, for "did you mean"
        return super().resolve_command(ctx, args)


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


def main() -> None:
    """Run the command line and exit with its code."""
    sys.exit(_code())


def _code() -> int:
    try:
        return int(typer.main.get_command(app).main(prog_name="cai", standalone_mode=False) or 0)
    except _Enough:
        # whoever read our output has enough; stdout is closed for good, or the interpreter would complain at its exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BaseException as error:
        return errors.report(error)
