"""cai help"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from cai_cli.cli import _complete
from cai_cli.cli._stage import AsJson, verb_app

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from cai_cli.reports.reference import Column

HELP = """What exit codes, rows and configs mean; or the help of a verb.

\b
Examples:
  cai help
  cai help exit-codes
  cai help rows label-pairs
  cai help config revise
  cai help config --json | jq '.keys[].path'
  cai help export
"""

WIDTH = 100  # columns that prose may take
TOPICS = {
    "exit-codes": "What a command's exit code says, for scripts and cron.",
    "rows": "The columns of each stage's rows. Of one stage: cai help rows revise",
    "config": "Every key of a config: type, default, meaning. Of one section: cai help config revise",
    "environment": "The variables that are read.",
}

app = verb_app()
Entries = Iterable[tuple[str, str, str]]  # a name, what it may be, what it means


@app.command(help=HELP)
def command(
    topic: Annotated[str, typer.Argument(metavar="[TOPIC|VERB]", help="exit-codes, rows, config, environment, or a verb.",
                                         show_default=False, autocompletion=_complete.topics)] = "",
    part: Annotated[str, typer.Argument(metavar="[PART]", help="A stage of rows, a section of config.", show_default=False,
                                        autocompletion=_complete.parts)] = "",
    json: AsJson = False,
) -> None:  # fmt: skip
    from cai_cli.cli import VERBS

    pages: dict[str, Callable[[str, bool], None]] = {
        "": _topics, "exit-codes": _exit_codes, "rows": _rows, "config": _config, "environment": _environment,
    }  # fmt: skip
    if topic in pages:  # `config` is a verb, too: cai config -h
        pages[topic](part, json)
    elif topic.replace("_", "-") in VERBS:
        _verb(topic.replace("_", "-"), part)
    else:
        raise _unknown("topic", topic, [*dict.fromkeys([*TOPICS, *VERBS])])


def _unknown(what: str, given: str, known: list[str]) -> Exception:
    from cai_cli.errors import Fix
    from cai_cli.validation import near

    return Fix(f"cai help: there is no {what} '{given}'", near(given, known) or "see: cai help")


def _verb(verb: str, part: str) -> None:
    """A verb's own help, as -h prints it."""
    from cai_cli.cli import _app

    sys.argv = ["cai", verb, *([part] if part else []), "-h"]
    raise typer.Exit(_app.run())


def _topics(_part: str, as_json: bool) -> None:
    if as_json:
        from cai_cli.cli._answer import print_json

        print_json({"topics": TOPICS})
        return
    _print([_defined((f"cai help {name}", "", what) for name, what in TOPICS.items()), "",
            _defined([("cai help VERB", "", "The help of a verb, as cai VERB -h prints it."),
                      ("cai -h", "", "All verbs.")])])  # fmt: skip


def _exit_codes(_part: str, as_json: bool) -> None:
    from cai_cli.cli._answer import print_json
    from cai_cli.reports.reference import exit_codes

    found = exit_codes()
    if as_json:
        print_json({"exit_codes": found})
        return
    _print([_defined((f"{one.code:>3}", "", f"{one.name}: {one.meaning}") for one in found)])


def _rows(stage: str, as_json: bool) -> None:
    from cai_cli.cli._answer import print_json
    from cai_cli.records import Rejected
    from cai_cli.reports import reference

    stages = reference.row_stages()
    wanted = stage.replace("_", "-")
    if stage and wanted not in (*stages, "rejects"):
        raise _unknown("stage", stage, [*stages, "rejects"])
    found = {name: reference.row_fields(name) for name in stages if wanted in ("", name)}
    if wanted in ("", "rejects"):
        found["rejects"] = reference.columns(Rejected)
    if as_json:
        print_json({"rows": found})
        return
    sections: list[list[RenderableType]] = [
        [_heading(name, _of_stage(name)), "", _defined(_columns(columns), "  ")] for name, columns in found.items()
    ]
    _print(_apart(sections))


def _of_stage(name: str) -> str:
    from cai_cli.cli import VERBS

    return VERBS.get(name, "What ended on the way: _rejects.jsonl of every version.")


def _columns(columns: Iterable[Column], around: str = "") -> Iterator[tuple[str, str, str]]:
    """Every column, those of the objects in a list behind it."""
    for one in columns:
        yield f"{around}{one.name}", one.type, one.meaning
        yield from _columns(one.columns, f"{around}{one.name}[].")


def _config(section: str, as_json: bool) -> None:
    from cai_cli.cli._answer import print_json
    from cai_cli.reports.reference import config_parts

    parts = config_parts()
    wanted = section.replace("-", "_")
    shown = [one for one in parts if not section or one.path == wanted]
    if not shown:
        raise _unknown("section", section, [one.path for one in parts if one.path])
    if as_json:
        print_json({"keys": [key for one in shown for key in one.keys]})
        return
    sections: list[list[RenderableType]] = []
    for one in shown:
        entries = ((key.path.removeprefix(f"{one.path}."), _kind(key.type, key.default), key.meaning) for key in one.keys)
        sections.append([_heading(one.path or "at the top", one.meaning), "", _defined(entries)])
    _print(_apart(sections))


def _kind(type_: str, default: str) -> str:
    return f"{type_}; default {default}" if default else f"{type_}; must be given"


def _environment(_part: str, as_json: bool) -> None:
    from cai_cli.cli._answer import print_json
    from cai_cli.reports.reference import environment

    found = environment()
    if as_json:
        print_json({"environment": dict(found)})
        return
    _print([_defined((name, "", meaning) for name, meaning in found)])


def _heading(name: str, what: str) -> Text:
    from rich.text import Text

    return Text.assemble((name, "bold"), f"  {what}" if what else "")


def _apart(sections: list[list[RenderableType]]) -> list[RenderableType]:
    """Sections with an empty line between them."""
    return [part for n, section in enumerate(sections) for part in (*([""] if n else []), *section)]


def _defined(entries: Entries, between: str = "\n") -> RenderableType:
    """A name, and beside it what it may be and, behind `between`, what it means; folded at the right."""
    from rich.table import Table
    from rich.text import Text

    from cai_cli.visible import on_one_line

    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(overflow="fold")
    for name, kind, meaning in entries:
        said = Text(on_one_line(kind), "dim")
        if meaning:
            said.append((between if kind else "") + on_one_line(meaning), "not dim")
        table.add_row(f"  {name}", said)
    return table


def _print(parts: Iterable[RenderableType]) -> None:
    from cai_cli.reports.console import console

    out = console()
    for part in parts:
        out.print(part, width=min(out.width, WIDTH))
