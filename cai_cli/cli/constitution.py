"""cai constitution"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from cai_cli.constitution import Constitution, Criterion, Principle

    Entries = Sequence[Principle] | Sequence[Criterion]

HELP = "List or check constitutions."

LIST = """The shipped constitutions, and those of the files given.

\b
Examples:
  cai constitution list
  cai constitution list mine.yaml
  cai constitution list --json
"""

CHECK = """Read a constitution and what it extends; say how its weight is spread, and what looks like an oversight.

\b
Examples:
  cai constitution check constitutions/mine.yaml
"""

CATEGORIES = ("harmlessness", "honesty", "helpfulness")
ONE_SIDED = 0.8  # share of the weight in one category, or .5 in one entry of many, above which the others hardly come up
app = typer.Typer(
    help=HELP, rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False, no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


@app.command("list", help=LIST)
def list_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE", help="Constitutions of your own.", show_default=False)] = [],  # noqa: B006
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
    from cai_cli.cli._table import aligned

    typer.echo(aligned([("name", "version", "principles", "preferences", "in a config"), *rows]))


def _print_json(rows: Sequence[tuple[str, str, int, int, str]]) -> None:
    import orjson

    keys = ("name", "version", "principles", "preferences", "path")
    document = {"constitutions": [dict(zip(keys, row, strict=True)) for row in rows]}
    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


def _later(name: str) -> None:
    @app.command(name, hidden=True, context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
    def refuse() -> None:
        from cai_cli.cli._app import refuse_later

        refuse_later(f"'constitution {name}'")


for _name in ("import", "diff"):
    _later(_name)


@app.command(help=CHECK)
def check(file: Annotated[Path, typer.Argument(metavar="FILE", help="A YAML file.", show_default=False)]) -> None:
    from cai_cli.cli._table import aligned
    from cai_cli.cli.errors import say
    from cai_cli.constitution import load

    found = load(file)
    rows = [*_shares("principles", found.principles), *_shares("preferences", found.preferences)]
    typer.echo(aligned([("part", "category", "entries", "weight"), *rows]))
    for warning in warnings(found):
        say(f"warning: {file}: {warning}")
    typer.echo(f"ok: {file}: {found.name} {found.version}".rstrip())


def _shares(part: str, entries: Entries) -> Iterator[tuple[str, str, int, str]]:
    weights, counts = _weights(entries), Counter(entry.category for entry in entries)
    total = sum(weights.values())
    for category, weight in sorted(weights.items(), key=lambda item: -item[1]):
        yield part, category, counts[category], f"{weight / total:.0%}"


def _weights(entries: Entries) -> dict[str, float]:
    weights: defaultdict[str, float] = defaultdict(float)
    for entry in entries:
        weights[entry.category] += entry.weight
    return weights


def warnings(constitution: Constitution) -> Iterator[str]:
    """What a constitution's writer may not have meant. What cannot be used at all, load() refuses."""
    for part, entries in (("principles", constitution.principles), ("preferences", constitution.preferences)):
        yield from (f"{part}: {what}" for what in (*_one_sided(entries), *_missing(entries), *_idle(entries)))
    yield from _same_texts([(entry.name, entry.critique_prompt) for entry in constitution.principles], "principles")
    yield from _same_texts([(entry.name, entry.text) for entry in constitution.preferences], "preferences")


def _one_sided(entries: Entries) -> Iterator[str]:
    weights, total = _weights(entries), sum(entry.weight for entry in entries)
    for category, weight in weights.items():
        if len(weights) > 1 and weight > ONE_SIDED * total:
            yield f"{weight / total:.0%} of the weight is on {category}: the other categories hardly come up"
    for entry in entries:
        if len(entries) > 2 and entry.weight > 0.5 * total:
            yield f"{entry.weight / total:.0%} of the weight is on '{entry.name}' alone"


def _missing(entries: Entries) -> Iterator[str]:
    have = {entry.category for entry in entries if entry.weight > 0}
    if missing := [category for category in CATEGORIES if category not in have]:
        yield f"none is about {' or '.join(missing)}; a model trained on this is not taught it"


def _idle(entries: Entries) -> Iterator[str]:
    yield from (f"'{entry.name}' has weight 0: it is never picked" for entry in entries if entry.weight == 0)


def _same_texts(texts: Sequence[tuple[str, str]], part: str) -> Iterator[str]:
    """Names are told apart by load(); a text that was copied and not changed is not."""
    first: dict[str, str] = {}
    for name, text in texts:
        key = " ".join(text.lower().split())
        if key in first:
            yield f"{part}: '{name}' asks the same as '{first[key]}'"
        first.setdefault(key, name)
