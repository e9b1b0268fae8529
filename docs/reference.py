"""docs/reference/: commands, the config, rows and files, as the code has them. `python docs/reference.py` writes them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import redirect_stdout
from pathlib import Path

from cai_cli.cli import VERBS
from cai_cli.reports import reference

FOLDER = Path(__file__).parent / "reference"
MADE = "This page is made from the code by `python docs/reference.py`.\n"
GROUPS = {"config": ("check", "schema"), "constitution": ("list", "check", "import", "diff")}  # verbs that have verbs


def commands() -> Iterator[str]:
    """Every verb's help, as it prints it at 100 columns."""
    yield f"# Commands\n\n{MADE}\n"
    yield from (f"- [cai {verb}](#cai-{verb}): {said}\n" for verb, said in VERBS.items())
    for verb in VERBS:
        yield f"\n## cai {verb}\n\n```console\n$ cai {verb} -h\n{_help(verb)}```\n"
        for inner in (*GROUPS.get(verb, ()), *_analyses(verb)):
            yield f"\n### cai {verb} {inner}\n\n```console\n$ cai {verb} {inner} -h\n{_help(verb, inner)}```\n"


def _analyses(verb: str) -> list[str]:
    from cai_cli import analyses

    return analyses.names() if verb == "analyze" else []


def _help(*words: str) -> str:
    from cai_cli.cli import _app

    os.environ["COLUMNS"] = "100"
    sys.argv, said = ["cai", *words, "-h"], io.StringIO()
    with redirect_stdout(said):
        _app.run()
    return "\n".join(line.rstrip() for line in said.getvalue().strip().split("\n")) + "\n"


def config() -> Iterator[str]:
    """Every key of a config."""
    yield f"# The config\n\n{MADE}\n"
    yield "One YAML file. `cai config check FILE` looks one over; `cai config schema` prints the JSON schema that editors use.\n"
    for part in reference.config_parts():
        yield f"\n## {part.path or 'At the top'}\n\n{part.meaning}\n\n"
        yield from _table(
            ("key", "type", "default", "what"),
            ((f"`{one.path}`", one.type, _code(one.default), one.meaning) for one in part.keys),
        )
    yield "\n## The environment\n\nA flag goes over a variable, a variable over the config.\n\n"
    yield from _table(("variable", "what"), ((f"`{name}`", said) for name, said in reference.environment()))


def rows() -> Iterator[str]:
    """The columns of every stage's rows, and the exit codes."""
    yield f"# Rows, files and exit codes\n\n{MADE}\n"
    yield "JSONL, UTF-8, one object a line; every key in every row. Text and lists are never null, an unknown number is.\n"
    told: set[tuple[str, ...]] = set()
    for stage in reference.row_stages():
        yield f"\n## {stage}\n\n"
        yield from _columns(reference.row_fields(stage), told)
    yield "\n## Exit codes\n\nEvery one that is not 0 comes with a hint: what to type next.\n\n"
    yield from _table(("code", "what"), ((str(one.code), one.meaning) for one in reference.exit_codes()))


def _columns(found: Iterable[reference.Column], told: set[tuple[str, ...]]) -> Iterator[str]:
    found = tuple(found)
    yield from _table(("column", "type", "what"), ((f"`{one.name}`", one.type, one.meaning) for one in found))
    for one in found:
        names = (one.type, *(inner.name for inner in one.columns))
        if one.columns and names not in told:
            told.add(names)
            yield f"\nEach of `{one.name}`:\n\n"
            yield from _columns(one.columns, told)


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |\n|{'---|' * len(head)}\n"
    yield from (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |\n" for row in rows)


def _code(text: str) -> str:
    return f"`{text}`" if text else "must be given"


PAGES = {"commands.md": commands, "config.md": config, "rows.md": rows}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (FOLDER / name).write_text("".join(page()), "utf-8")
