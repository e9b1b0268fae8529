"""What all stage verbs share: their options, and one call of the engine."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cai_cli.cli import _complete, _signals

ConfigFile = Annotated[
    Path,
    typer.Argument(metavar="CONFIG", help="The config, a YAML file.", show_default=False, autocompletion=_complete.configs),
]
OutputFolder = Annotated[
    str | None, typer.Option("-o", "--output", metavar="DIR", help="Look there, not where the config says.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]


class IfLocked(StrEnum):
    wait = "wait"
    fail = "fail"
    skip = "skip"


def _only(option: str, wanted: str, *later: str) -> Callable[[str | None], str | None]:
    """A check of an option that has one value in this version. `later`: values of other versions"""

    def check(value: str | None) -> str | None:
        if value in later:
            from cai_cli.cli._app import refuse_later

            refuse_later(f"{option} {value}")
        if value not in (None, wanted):
            raise typer.BadParameter(f"'{value}' is not '{wanted}'")
        return value

    return check


def _no_shard(value: str | None) -> None:
    if value is not None:
        from cai_cli.cli._app import refuse_later

        refuse_later("--shard")


Mode = Annotated[
    str,
    typer.Option(
        metavar="live",
        callback=_only("--mode", "live", "batch", "auto"),
        help="How requests are sent.",
        autocompletion=_complete.live,
    ),
]
Engine = Annotated[
    str,
    typer.Option(
        metavar="local",
        callback=_only("--engine", "local", "ray"),
        help="What runs the partitions.",
        autocompletion=_complete.local,
    ),
]


def verb_app() -> typer.Typer:
    """The app of one verb, as the lazy group takes it."""
    return typer.Typer(
        rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False, no_args_is_help=True,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )  # fmt: skip


def stage_app(stage: str | None, help_text: str) -> typer.Typer:
    """The command of one stage, or of `run` (None)."""
    app = verb_app()
    app.command(help=help_text)(_command(stage))
    return app


def _command(stage: str | None) -> Callable[..., None]:
    def command(
        config: ConfigFile,
        input: Annotated[
            str | None, typer.Option("-i", "--input", metavar="PATH|-", help="Read this instead of what the config names.")
        ] = None,
        output: Annotated[
            str | None, typer.Option("-o", "--output", metavar="DIR|-", help="Write there. -: rows to stdout, unversioned.")
        ] = None,
        set_: Annotated[
            list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override one key of the config, dotted. Repeatable.")
        ] = [],  # noqa: B006
        limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="Use only the first N prompts.")] = None,
        seed: Annotated[int | None, typer.Option(metavar="N", help="Override the config's seed.")] = None,
        budget_usd: Annotated[
            float | None, typer.Option(min=0, metavar="X", help="Stop before more than X dollars are spent.")
        ] = None,
        concurrency: Annotated[int | None, typer.Option(min=1, metavar="N", help="Requests in flight at once.")] = None,
        mode: Mode = "live",  # noqa: ARG001 - the only one yet
        engine: Engine = "local",  # noqa: ARG001 - the same
        shard: Annotated[str | None, typer.Option(metavar="I/N", callback=_no_shard, hidden=True)] = None,  # noqa: ARG001
        if_locked: Annotated[
            IfLocked, typer.Option(help="When another run holds the output: wait, fail (75), or skip (0).")
        ] = IfLocked.fail,
        keep: Annotated[
            int | None, typer.Option(min=1, metavar="N", help="Afterwards delete all but the newest N versions.")
        ] = None,
        dry_run: Annotated[
            bool, typer.Option("--dry-run", help="Ask nothing: count what would be asked, and its price at most.")
        ] = False,
        json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object on stdout.")] = False,
        quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Errors and warnings only.")] = False,
        verbose: Annotated[
            bool, typer.Option("-v", "--verbose", help="Timed lines, no live table; tells each kind of trouble.")
        ] = False,
    ) -> None:
        flags = {
            "seed": seed,
            "limits.budget_usd": budget_usd,
            "limits.concurrency": concurrency,
            "output": None if output == "-" else output,
        }
        from cai_cli.cli import _execute

        _signals.let_them_raise()
        raise typer.Exit(
            _execute.execute(
                stage, config, flags, set_, given=input, to_stdout=output == "-", limit=limit, if_locked=if_locked.value,
                keep=keep, dry_run=dry_run, as_json=json, quiet=quiet, verbose=verbose,
                command=shlex.join(["cai", *sys.argv[1:]]),
            )
        )  # fmt: skip

    return command
