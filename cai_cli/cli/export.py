"""cai export"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cai_cli.cli._stage import ConfigFile, IfLocked

if TYPE_CHECKING:
    from cai_cli.config import Config
    from cai_cli.engine.export import Exported

HELP = """A training-ready dataset, from what was run last: sft (conversations that end with the revised response) or
preference (prompt, chosen, rejected, margin). It loads with `datasets` and trains with TRL as it is.

\b
Examples:
  cai export configs/quickstart.yaml --to sft --to preference
  cai export my.yaml --to preference --out data/for-training
"""

app = typer.Typer(
    rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


@app.command(help=HELP)
def export(
    config: ConfigFile,
    to: Annotated[list[str], typer.Option("--to", metavar="FORMAT", help="sft or preference. Repeatable.", show_default=False)],
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Its folder. Default: OUTPUT/export.")] = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="DIR", help="Look there for what was run, not where the config says.")
    ] = None,
    set_: Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override one key. Repeatable.")] = [],  # noqa: B006
    if_locked: Annotated[IfLocked, typer.Option(help="When a run holds the output: wait, fail, or skip.")] = IfLocked.fail,
    json: Annotated[bool, typer.Option("--json", help="Print what was written as one JSON object.")] = False,
) -> None:
    from cai_cli import config as configs
    from cai_cli.cli.errors import say
    from cai_cli.engine.lock import Held

    loaded = configs.load(config, set_, flags={"output": output})
    try:
        done = _export(loaded, list(dict.fromkeys(to)), out, if_locked)
    except Held as held:
        if if_locked != IfLocked.skip:
            raise
        say(f"cai: skipped: {held.message}")
        return
    for one in done:
        _warn(one)
    _print_json(done) if json else _print(done)


def _export(config: Config, names: Sequence[str], out: Path | None, if_locked: IfLocked) -> list[Exported]:
    from cai_cli.engine import export as engine

    for name in names:  # what is missing is said before anything is written
        engine.source_of(config, name)
    command = shlex.join(["cai", *sys.argv[1:]])
    return [engine.export(config, name, out, if_locked.value, command) for name in names]


def _warn(one: Exported) -> None:
    from cai_cli.cli.errors import say

    if one.outdated:
        behind = ", ".join(one.outdated)
        say(f"warning: {one.name} is made of {_place(one.source)}, but {behind} was run anew since: run `cai run` first")
    if not one.rows:
        say(f"warning: {one.name} is empty: {_reasons(one) or f'{_place(one.source)} has no rows'}")
    if one.unchanged:
        say(f"cai: nothing new: {one.path / one.name / one.version.name} is what {_place(one.source)} makes")


def _print_json(done: Sequence[Exported]) -> None:
    import orjson

    document = {one.name: _document(one) for one in done}
    sys.stdout.buffer.write(orjson.dumps({"exports": document}, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def _document(one: Exported) -> dict[str, Any]:
    return {"path": str(one.path), "version": one.version.name, "rows": one.rows, "left": dict(one.left),
            "source": _place(one.source), "outdated": one.outdated, "unchanged": one.unchanged}  # fmt: skip


def _print(done: Sequence[Exported]) -> None:
    from cai_cli.cli._table import aligned

    head = ("export", "version", "rows", "left out", "made of")
    rows = [(one.name, one.version.name, one.rows, _reasons(one) or "0", _place(one.source)) for one in done]
    typer.echo(aligned([head, *rows]))
    for one in (one for one in done if one.rows):
        typer.echo(_how_to_load(one))


def _how_to_load(one: Exported) -> str:
    """Lines of Python that load it, and what TRL does with it."""
    from cai_cli import exports
    from cai_cli.visible import on_one_line

    lines = ["", f'rows = datasets.load_dataset("{on_one_line(str(one.path))}", "{one.name}", split="train")']
    lines += [f"trl.{trainer}(..., train_dataset=rows)" for trainer in getattr(exports.find(one.name), "TRAINERS", ())]
    if len(lines) > 2:
        lines[-1] += "  # its default max_length cuts long rows or leaves them out: set it"
    return "\n".join(lines)


def _reasons(one: Exported) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(one.left.items()))


def _place(version: Any) -> str:
    return f"{version.path.parent.name}/{version.name}"
