"""cai show"""

from __future__ import annotations

import difflib
import itertools
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cai_cli.cli._stage import AsJson, ConfigFile, OutputFolder, verb_app
from cai_cli.errors import Exit, Fix

if TYPE_CHECKING:
    from cai_cli.engine.formats import Line
    from cai_cli.engine.versions import Version

HELP = """Rows, round by round: prompt, first response, critiques, revisions with what they changed; pairs with their votes.

Without ID the first rows of revise, else of another stage. With the id of a row or a prompt: all that every stage made of it.

With --prompt the very messages that a stage puts to its model about a row, before or after a run. Nothing is asked, no key is
needed.

\b
Examples:
  cai show configs/quickstart.yaml
  cai show my.yaml 3f9a1c2b-0
  cai show my.yaml --stage debias --limit 10 --json
  cai show my.yaml --rejects
  cai show my.yaml --prompt label-pairs
"""

ROWS, REJECTS = 3, 20  # shown by default


# Whose rows say most comes first; stages of other packages stand before what is told at last.
_TELLING, _AT_LAST = ("revise", "critique", "label-pairs", "debias", "score"), ("generate", "expand")

app = verb_app()


@dataclass(frozen=True, slots=True)
class Found:
    """A row, or a reject, and the version that holds it."""

    stage: str
    version: str
    row: Any


@app.command(help=HELP, no_args_is_help=True)
def command(
    config: ConfigFile,
    id: Annotated[str | None, typer.Argument(metavar="[ID]", help="A row's id, or a prompt's.", show_default=False)] = None,
    stage: Annotated[str | None, typer.Option(metavar="STAGE", help="Only rows of this stage.", show_default=False)] = None,
    rejects: Annotated[bool, typer.Option("--rejects", help="Rejected rows, with reason and place.")] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help=f"At most N rows. Default: {ROWS}, or {REJECTS} rejects.")
    ] = None,
    prompt: Annotated[
        str | None, typer.Option("--prompt", metavar="STAGE", help="What this stage asks about the row, word for word.")
    ] = None,
    output: OutputFolder = None,
    json: AsJson = False,
) -> None:
    from cai_cli.config import load

    loaded = load(config, flags={"output": output})
    if prompt is not None:
        _show_prompt(loaded, prompt, id, json, {"--stage": stage, "--rejects": rejects, "--limit": limit})
        return
    newest = _newest(loaded, stage)
    if rejects:
        found = list(itertools.islice(_rejected(newest.values(), id), limit or (None if id else REJECTS)))
    elif id is not None:
        found = list(itertools.islice(_of_id(newest.values(), id), limit))
    else:
        added = (name for name in newest if name not in (*_TELLING, *_AT_LAST))
        name = next(name for name in (*_TELLING, *added, *_AT_LAST) if name in newest)
        found = [_found(newest[name], line) for line in itertools.islice(_lines(newest[name]), limit or ROWS)]
    if id is not None and not found:
        raise Fix(
            f"no row of {loaded.output_path} has the id or prompt_id '{id}'",
            f"`cai show {config}` shows the first rows with their ids",
            Exit.INPUT,
        )
    _print(found, json, rejects)


def _show_prompt(config: Any, stage: str, id: str | None, as_json: bool, others: dict[str, Any]) -> None:
    if given := [name for name, value in others.items() if value]:
        raise Fix(f"--prompt shows what is asked, and {given[0]} is about what came back", f"leave {given[0]} out")
    from cai_cli.cli import _prompt

    _prompt.show(config, stage, id, as_json)


def _newest(config: Any, stage: str | None) -> dict[str, Version]:
    """The newest version of each stage, or of the one named, in the order data flows. Raises: Fix: there is none"""
    from cai_cli.engine import versions
    from cai_cli.engine.plan import stage_names

    names = stage_names()
    if stage is not None and stage not in names:
        close = difflib.get_close_matches(stage, names, 1)
        raise Fix(f"there is no stage '{stage}'", f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(names)}")
    names = (stage,) if stage else names
    found = {name: version for name in names if (version := versions.latest(config.output_path, name)) is not None}
    if not found:
        what = f"no version of {stage}" if stage else "no version"
        raise Fix(f"{config.output_path} holds {what} yet", f"make one: cai {stage or 'run'} {config.path}", Exit.INPUT)
    return found


def _lines(version: Version) -> Iterator[Line]:
    """The rows of a version, not yet taken apart, one file after another."""
    from cai_cli.engine.files import File, read_file
    from cai_cli.records import Rejected

    for path in version.files():
        for line in read_file(File(path, str(path)), otherwise=".jsonl"):
            if isinstance(line, Rejected):
                raise _changed(version, line.where, line.reason)
            yield line


def _found(version: Version, line: Line) -> Found:
    from cai_cli.engine.plan import shapes
    from cai_cli.errors import Reject
    from cai_cli.records import from_row

    stage = version.path.parent.name
    try:
        return Found(stage, version.name, from_row(shapes()[stage], line.row))
    except Reject as reject:
        raise _changed(version, line.where, reject.detail) from reject


def _changed(version: Version, where: str, why: str) -> Fix:
    hint = f"delete {version.path}, then run the command that made it again: its rows come back from the ledger"
    return Fix(f"{where}: {why}; a published file was changed", hint, Exit.INPUT)


def _of_id(newest: Iterable[Version], wanted: str) -> Iterator[Found]:
    """What the stages made of a row or a prompt, row by row, and where it was rejected.

    A row whose every word a later stage's row repeats is left out.
    """
    newest = list(newest)
    found = [one for version in newest for one in _group(version, wanted)]
    told = [one for at, one in enumerate(found) if not any(_repeats(later.row, one.row) for later in found[at + 1 :])]
    told += _rejected(newest, wanted)
    order = list(dict.fromkeys(one.row.id for one in told))
    return iter(sorted(told, key=lambda one: order.index(one.row.id)))


def _group(version: Version, wanted: str) -> Iterator[Found]:
    """The rows with that id or prompt_id. The rows of a prompt stand together: behind them the search is over."""
    inside = False
    for line in _lines(version):
        if wanted in (line.row.get("id"), line.row.get("prompt_id")):
            inside = True
            yield _found(version, line)
        elif inside:
            return


def _repeats(later: Any, row: Any) -> bool:
    """Whether a later stage's row says all that this one says."""
    from cai_cli.records import Chain, Pair, Preference

    if later.id != row.id:
        return False
    if isinstance(row, Pair):
        return isinstance(later, Preference) and later.votes == row.votes and later.response_a == row.response_a
    if not isinstance(later, Chain):
        return False
    if isinstance(row, Chain):
        return later.initial_response == row.initial_response and len(later.rounds) >= len(row.rounds)
    return bool(later.initial_response == row.response)


def _rejected(newest: Iterable[Version], wanted: str | None) -> Iterator[Found]:
    import orjson

    from cai_cli.engine.shards import REJECTS as FILE
    from cai_cli.records import Rejected, from_row

    for version in newest:
        path = version.path / FILE
        if not path.exists():
            continue
        with open(path, "rb") as lines:
            for row in (from_row(Rejected, orjson.loads(line)) for line in lines):
                if wanted is None or wanted in (row.id, row.prompt_id):
                    yield Found(version.path.parent.name, version.name, row)


def _print(found: list[Found], as_json: bool, rejects: bool) -> None:
    if as_json:
        import orjson

        document = {"rows": [{"stage": one.stage, "version": one.version, "row": one.row} for one in found]}
        sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        return
    if rejects and not found:
        from cai_cli.cli.errors import say

        say("cai: no row was rejected")
    from cai_cli.records import Rejected
    from cai_cli.reports.console import console, plain
    from cai_cli.reports.stories import heading, reject_story, story

    out = console()
    for one in found:
        if not rejects:
            out.print(heading(f"{one.row.id} · {one.stage} {one.version}"))
        for part in reject_story(one.row) if isinstance(one.row, Rejected) else story(one.row, plain(out)):
            out.print(part)
