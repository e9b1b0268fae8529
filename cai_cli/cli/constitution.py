"""cai constitution"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cai_cli.cli import _complete
from cai_cli.cli._answer import print_json, print_table

if TYPE_CHECKING:
    from cai_cli.constitution import Criterion, Principle
    from cai_cli.importing import Imported

    Entries = Sequence[Principle] | Sequence[Criterion]

HELP = "List, check, import or compare constitutions."

LIST = """The shipped constitutions, and those of the files given.

\b
Examples:
  cai constitution list
  cai constitution list mine.yaml
  cai constitution list --json
"""

CHECK = """Read a constitution, a YAML file or the name of a shipped one, and what it extends; say how its weight is spread, and
what looks like an oversight.

\b
Examples:
  cai constitution check constitutions/mine.yaml
  cai constitution check safety
"""

IMPORT = """Read the JSON files published with the Constitutional AI paper, in any order: principles and preferences become a
constitution, few-shot files become exemplars. Nothing that exists is overwritten.

\b
Examples:
  cai constitution import CritiqueRevisionInstructions.json RLMadisonInstructions.json
  cai constitution import *.json -o constitutions/paper.yaml --exemplars-out prompts/exemplars
"""

DIFF = """What changed between two constitutions, each a YAML file or the name of a shipped one. With a config: how many rows the
change touches, and what it costs at most to ask them again.

\b
Examples:
  cai constitution diff general mine.yaml
  cai constitution diff old.yaml new.yaml --config my.yaml
  cai constitution diff old.yaml new.yaml --json | jq .principles.added
"""

app = typer.Typer(
    help=HELP, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False, no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


@app.command("list", help=LIST)
def list_(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="Constitutions of your own.", show_default=False, autocompletion=_complete.configs),
    ] = [],  # noqa: B006
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    from cai_cli.constitution import load
    from cai_cli.shipped import shipped

    own = sorted(shipped("configs", "constitutions").glob("*.yaml"))
    found = [(f"constitutions/{path.name}", load(path)) for path in own] + [(str(path), load(path)) for path in files]
    rows = [(one.name, one.version or "-", len(one.principles), len(one.preferences), place) for place, one in found]
    if json:
        _print_json(rows)
        return
    print_table(("name", "version", "principles", "preferences", "in a config"), rows, fold="in a config")


def _print_json(rows: Sequence[tuple[str, str, int, int, str]]) -> None:
    keys = ("name", "version", "principles", "preferences", "path")
    print_json({"constitutions": [dict(zip(keys, row, strict=True)) for row in rows]})


@app.command(help=CHECK)
def check(
    file: Annotated[
        str,
        typer.Argument(
            metavar="FILE", help="It, or a shipped one's name.", show_default=False, autocompletion=_complete.constitutions
        ),
    ],
) -> None:
    from cai_cli import oversights
    from cai_cli.cli import _constitution_file
    from cai_cli.cli.errors import say
    from cai_cli.constitution import load

    found = load(_constitution_file.find(file))
    rows = [*_shares("principles", found.principles), *_shares("preferences", found.preferences)]
    print_table(("part", "category", "entries", "weight"), rows, right=("weight",))
    for warning in oversights.of(found):
        say(f"warning: {file}: {warning}")
    typer.echo(f"ok: {file}: {found.name} {found.version}".rstrip())


def _shares(part: str, entries: Entries) -> Iterator[tuple[str, str, int, str]]:
    from cai_cli import oversights

    weights, counts = oversights.weights(entries), Counter(entry.category for entry in entries)
    total = sum(weights.values())
    for category, weight in sorted(weights.items(), key=lambda item: -item[1]):
        yield part, category, counts[category], f"{weight / total:.0%}"


@app.command("import", help=IMPORT)
def import_(
    files: Annotated[list[Path], typer.Argument(metavar="FILES...", help="The JSON files.", show_default=False)],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The constitution.")] = Path("constitution.yaml"),
    exemplars_out: Annotated[
        Path | None, typer.Option("--exemplars-out", metavar="DIR", help="Where exemplars go.", show_default=False)
    ] = None,
) -> None:
    from cai_cli import importing
    from cai_cli.cli.errors import say

    found = importing.read(files)
    texts = _texts(found, output, exemplars_out)
    _refuse_existing(list(texts))
    for path, text in texts.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x", encoding="utf-8", newline="\n") as file:
            file.write(text)
    for note in found.notes:
        say(f"note: {note}")
    _say_written(found, output, exemplars_out)


def _texts(found: Imported, output: Path, folder: Path | None) -> dict[Path, str]:
    """What is to be written, by its path. Raises: Fix: something has no place, or nothing to stand on"""
    from cai_cli import importing
    from cai_cli.errors import Fix

    if found.preferences and not found.principles:
        hint = "give CritiqueRevisionInstructions.json, too; principles of another origin can be added to the file afterwards"
        raise Fix("a constitution needs principles, and these files hold preferences only", hint)
    if found.exemplars and folder is None:
        files = ", ".join(dict.fromkeys(file for stage in found.exemplars for file in found.sources[stage]))
        raise Fix(
            f"{files}: exemplars need a folder of their own", "add --exemplars-out prompts/exemplars, or leave the file out"
        )
    texts = {output: importing.constitution_yaml(found, output.stem)} if found.principles else {}
    for stage in found.exemplars:
        texts[_exemplar_file(folder or Path(), stage)] = importing.exemplars_yaml(found, stage)
    return texts


def _exemplar_file(folder: Path, stage: str) -> Path:
    return folder / f"{stage}-imported.yaml"


def _refuse_existing(paths: Sequence[Path]) -> None:
    from cai_cli.documents import all_at_once

    if there := [path for path in paths if path.exists()]:
        problems = [(f"{path} exists already, and nothing was written", "") for path in there]
        hint = "choose another place with -o or --exemplars-out, or move the old file away"
        raise all_at_once([*problems[:-1], (problems[-1][0], hint)])


def _say_written(found: Imported, output: Path, folder: Path | None) -> None:
    """What stands where now, and how it is used."""
    from cai_cli.importing import CATEGORY
    from cai_cli.reports.quantities import counted
    from cai_cli.visible import on_one_line

    def wrote(path: Path, what: str) -> None:
        typer.echo(on_one_line(f"wrote {path}: {what}"))

    if found.principles:
        made = "" if found.preferences else ", which the preferences are made from"
        also = f" and {counted(len(found.preferences), 'preference')}" if found.preferences else ""
        wrote(output, f"{counted(len(found.principles), 'principle')}{made}{also}, all of the category {CATEGORY}")
        typer.echo(f"use it with: constitution: {output}")
    for stage, rows in found.exemplars.items():
        path = _exemplar_file(folder or Path(), stage)
        how = f"in {stage.replace('label', 'label_pairs')}: exemplar_file: {path}, exemplars: {min(2, len(rows))}"
        how += ", template: paper (they have no severity)" if stage == "critique" else ""
        wrote(path, f"{counted(len(rows), 'exemplar')}; {how}")


@app.command(help=DIFF)
def diff(
    before: Annotated[
        str, typer.Argument(metavar="A", help="The old one.", show_default=False, autocompletion=_complete.constitutions)
    ],
    after: Annotated[
        str, typer.Argument(metavar="B", help="The new one.", show_default=False, autocompletion=_complete.constitutions)
    ],
    config: Annotated[
        Path | None, typer.Option("--config", metavar="CONFIG", help="Whose rows to count.", show_default=False)
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    from cai_cli.cli import _constitution_diff

    found = _constitution_diff.compared(before, after, config)
    if json:
        print_json(found)
    else:
        _constitution_diff.show(found)
