"""cai analyze"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cai_cli import analyses
from cai_cli.cli import _complete
from cai_cli.cli._stage import AsJson, OutputFolder, verb_app

if TYPE_CHECKING:
    from cai_cli.analyses import Analysis, Module
    from cai_cli.config import Config
    from cai_cli.constitution import Constitution
    from cai_cli.engine.analysis import Source

HELP = """What rows say, as tables with 95% intervals: of the newest versions of a config, or with -i of any file, folder or stdin
that has the columns. Asks nothing."""

# What an analysis may take, by the word in its TAKES: the parameter's name, its type, its example.
_ConfigFile = Annotated[
    Path | None,
    typer.Argument(metavar="CONFIG", help="The config, a YAML file.", show_default=False, autocompletion=_complete.configs),
]
_Input = Annotated[
    str | None,
    typer.Option("-i", "--input", metavar="PATH|-", help="Look at these rows, not at the newest versions.", show_default=False),
]
_Limit = Annotated[int | None, typer.Option("--limit", min=1, metavar="N", help="Only the first N rows.", show_default=False)]
_TAKEN: dict[str, tuple[str, Any, Any, str]] = {
    "by": (
        "by", None, Annotated[str | None, typer.Option("--by", metavar="COLUMN", show_default=False,
            autocompletion=_complete.columns,
            help="Break down by this column; meta.NAME: a kept input column.")], "{name} my.yaml --by meta.topic",
    ),
    "columns": (
        "column", [], Annotated[list[str], typer.Option("--column", metavar="NAME", show_default=False,
            autocompletion=_complete.columns,
            help="A column to compare with the others named, or with --with. Repeatable.")],
        "{name} -i rows.jsonl --column preference --column gold",
    ),
    "other": (
        "with_", None, Annotated[str | None, typer.Option("--with", metavar="FILE", show_default=False,
            help="Compare with the same rows, by id, of this file or folder.")], "{name} my.yaml --with second-opinion.jsonl",
    ),
    "n": (
        "n", 5, Annotated[int, typer.Option("--n", min=1, max=10, metavar="N", help="Words of an n-gram.")],
        "{name} my.yaml --n 4",
    ),
}  # fmt: skip

app = verb_app()


@app.callback(help=HELP)
def _analyze() -> None:
    """Every analysis is a command of its own."""


def _register(name: str) -> None:
    module = analyses.find(name)
    app.command(name, help=_help(name, module), short_help=module.SUMMARY, no_args_is_help=True)(_command(name, module))


def _takes(module: Module) -> tuple[str, ...]:
    return tuple(getattr(module, "TAKES", ()))


def _help(name: str, module: Module) -> str:
    shipped = getattr(module, "EXAMPLE", "configs/quickstart.yaml")
    examples = [f"{{name}} {shipped}", *(_TAKEN[word][3] for word in _takes(module)), "{name} -i rows.jsonl --json"]
    lines = "\n".join(f"  cai analyze {line.format(name=name)}" for line in examples)
    made_of = ", else ".join(module.READS)
    return f"{module.SUMMARY}\n\nMade of {made_of}, or of what -i gives.\n\n\b\nExamples:\n{lines}\n"


def _command(name: str, module: Module) -> Callable[..., None]:
    """A function whose signature has the options that the analysis takes, and no others."""

    def command(**given: Any) -> None:
        _run(name, module, given)

    always: list[tuple[str, Any, Any]] = [
        ("config", None, _ConfigFile), ("input", None, _Input), ("output", None, OutputFolder), ("limit", None, _Limit),
    ]  # fmt: skip
    own = [_TAKEN[word][:3] for word in _takes(module)]
    parameters = [
        inspect.Parameter(one, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=kind)
        for one, default, kind in (*always, *own, ("json", False, AsJson))
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command


def _run(name: str, module: Module, given: dict[str, Any]) -> None:
    config = _config(name, given)
    source, also = _source(config, module, given)
    options = _options(config, given)
    further: dict[str, Any] = {"also": also} if getattr(module, "ALSO", ()) else {}
    found = module.analyse(source.rows, options, **further)
    _refuse_nothing(name, found, source, config)
    _print(found, source, given["json"])


def _config(name: str, given: dict[str, Any]) -> Config | None:
    from cai_cli.config import load
    from cai_cli.errors import Fix

    if given["config"] is None and given["input"] is None:
        raise Fix(f"cai analyze {name} needs a config, or rows", f"cai analyze {name} CONFIG; or: cai analyze {name} -i FILE")
    return load(given["config"], flags={"output": given["output"]}) if given["config"] is not None else None


def _source(config: Config | None, module: Module, given: dict[str, Any]) -> tuple[Source, Any]:
    from cai_cli.engine import analysis as engine

    also = tuple(getattr(module, "ALSO", ()))
    if given["input"] is not None:
        return engine.of_file(given["input"], sys.stdin.buffer, given["limit"]), {}
    assert config is not None
    source = engine.of_config(config, module.READS, also, given["limit"])
    return source, source.also


def _options(config: Config | None, given: dict[str, Any]) -> analyses.Options:
    from cai_cli.engine.analysis import by_id

    columns = tuple(given.get("column") or ())
    return analyses.Options(
        by=given.get("by"), columns=columns, n=given.get("n", 5),
        other=by_id(given["with_"], columns) if given.get("with_") else {},
        constitution=_constitution(config) if config else None,
    )  # fmt: skip


def _constitution(config: Config) -> Constitution | None:
    """The config's constitution with the weights that its principles are drawn by."""
    from cai_cli import constitution as constitutions

    path = config.constitution_path()
    draws = config.sections.get("critique") or config.sections.get("revise")
    return constitutions.load(path).weighing(getattr(draws, "categories", {})) if path else None


def _refuse_nothing(name: str, found: Analysis, source: Source, config: Config | None) -> None:
    """Raises: Fix (exit 65): there was no row, or none that says anything to this analysis. Finding nothing is an answer"""
    from cai_cli.errors import Exit, Fix

    make = f"make them: cai run {config.path}" if config else f"what it needs: cai analyze {name} -h"
    if not found.rows:
        why = source.notes()
        raise Fix(f"{source.name} holds no rows{': ' + why[0] if why else ''}", make, Exit.INPUT)
    if not found.sections and found.unusable:
        raise Fix(f"{source.name}: {found.unusable}", make, Exit.INPUT)


def _print(found: Analysis, source: Source, as_json: bool) -> None:
    from cai_cli.cli.errors import say

    for note in source.notes():
        say(f"warning: {note}")
    if as_json:
        from cai_cli.cli._answer import print_json

        print_json({"source": source.name, **analyses.document(found)})
        return
    from cai_cli.reports.analysis_page import analysis_page
    from cai_cli.reports.console import console
    from cai_cli.reports.quantities import counted

    out = console()
    for part in analysis_page(found, f"{counted(found.rows, 'row')} of {source.name}", out):
        out.print(part)


for _name in analyses.names():
    _register(_name)
