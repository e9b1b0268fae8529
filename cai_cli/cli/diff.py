"""cai diff"""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cai_cli.cli import _complete
from cai_cli.cli._stage import AsJson, ConfigFile, OutputFolder, verb_app
from cai_cli.errors import Exit, Fix

if TYPE_CHECKING:
    from cai_cli.engine.version_diff import Difference, Measure, Side
    from cai_cli.engine.versions import Version

HELP = """What changed between two versions: rows that came, changed and went, rejects, why, and how the distributions moved.

Without V1 and V2: the two newest versions of every stage that has two. With V1 alone: that one and the newest. A version is given
by its name or the start of it, its number (3, v3), the start of its fingerprint, or `latest`. With ID, of a row: its texts, word
by word.

Differences of means are of the rows in both versions, with their standard error; the rows of a prompt count as one draw, and a *
marks what is more than two errors. The exit code is 0 whatever changed; scripts look at `same` in --json.

\b
Examples:
  cai diff my.yaml
  cai diff my.yaml --stage revise --rows
  cai diff my.yaml 1 latest --only changed
  cai diff my.yaml q12-0
  cai diff my.yaml v0001-3f9a1c2b v0002-77e0a1d4 q12-0
  cai diff my.yaml --json | jq -e .same
"""

SHOWN = 20  # ids of a kind, by default
LISTED = 8  # versions, the newest
_KEYS = ("fingerprint", "fingerprints", "parents", "shards", "rows", "rejected", "filtered", "files")  # of a manifest

app = verb_app()


class Kind(StrEnum):
    added = "added"
    changed = "changed"
    gone = "gone"


@app.command(help=HELP, no_args_is_help=True)
def command(
    config: ConfigFile,
    v1: Annotated[
        str | None,
        typer.Argument(metavar="V1", help="The older version.", show_default=False, autocompletion=_complete.versions_or_ids),
    ] = None,
    v2: Annotated[
        str | None,
        typer.Argument(metavar="V2", help="The newer one.", show_default=False, autocompletion=_complete.versions_or_ids),
    ] = None,
    id: Annotated[
        str | None, typer.Argument(metavar="ID", help="A row's id.", show_default=False, autocompletion=_complete.ids)
    ] = None,
    stage: Annotated[
        str | None,
        typer.Option(metavar="STAGE", help="Only this stage.", show_default=False, autocompletion=_complete.stages),
    ] = None,
    rows: Annotated[bool, typer.Option("--rows", help="List the ids of rows that came, changed and went.")] = False,
    only: Annotated[Kind | None, typer.Option("--only", help="List the ids of these.", show_default=False)] = None,
    limit: Annotated[int, typer.Option(min=1, metavar="N", help="Ids of each kind, at most.")] = SHOWN,
    output: OutputFolder = None,
    json: AsJson = False,
) -> None:
    from cai_cli.config import load

    loaded = load(config, flags={"output": output})
    there = _there(loaded.output_path, stage := _stage(stage))
    row = id
    if v1 is not None and v2 is None and _is_a_row(there, v1):
        v1, row = None, v1
    chosen = list(_chosen(there, loaded.output_path, config, stage, v1, v2))
    if row is not None:
        _show_row(chosen, row, config, json)
        return
    _show(loaded.output_path, chosen, limit, rows or only is not None, str(only or ""), json)


# Which versions.


def _is_a_row(there: Mapping[str, Sequence[Version]], word: str) -> bool:
    """Whether a word that stands in the place of a version names none, and a row of the newest two."""
    from cai_cli.engine.version_diff import rows_with_id

    if word == "latest" or any(_match(found, word) for found in there.values()):
        return False
    return any(rows_with_id(version, word) is not None for found in there.values() for version in found[-2:])


def _there(output: Path, stage: str | None) -> dict[str, list[Version]]:
    """Every version of every stage, or of the one named, in the order data flows; stages without any are left out.

    A version that cannot be read is left out, too; where it is one of the newest two of its stage, that is said.
    """
    from cai_cli.engine.plan import stage_names

    found = {name: _readable(output, name) for name in stage_names() if stage in (None, name)}
    return {name: all_ for name, all_ in found.items() if all_}


def _readable(output: Path, stage: str) -> list[Version]:
    from cai_cli.engine import versions

    found: list[Version] = []
    names = versions.names_of(output, stage)
    for name in names:
        try:
            found.append(_checked(versions.read(output / stage / name)))
        except Fix as fix:
            if name in names[-2:]:
                _left_out(f"{stage} {name}", fix)
    return found


def _checked(version: Version) -> Version:
    """A version whose manifest has all that a comparison reads. Raises: Fix"""
    from cai_cli.engine import columns

    if missing := [key for key in _KEYS if key not in version.manifest]:
        raise Fix(f"its manifest has no {', '.join(missing)}", columns.changed(version).hint, Exit.INPUT)
    return version


def _left_out(what: str, fix: Fix) -> None:
    from cai_cli.cli.errors import say

    say(f"warning: {what} is left out: {fix.message}")
    say(f"hint: {fix.hint}")


def _stage(given: str | None) -> str | None:
    """The stage that --stage names, with dashes or without. Raises: Fix: there is none of that name"""
    from cai_cli.engine.plan import stage_names

    names, name = stage_names(), given.replace("_", "-") if given is not None else None
    if name is None or name in names:
        return name
    close = difflib.get_close_matches(name, names, 1)
    raise Fix(f"there is no stage '{given}'", f"did you mean '{close[0]}'?" if close else f"there are: {', '.join(names)}")


def _chosen(
    there: Mapping[str, Sequence[Version]], output: Path, config: Path, stage: str | None, v1: str | None, v2: str | None
) -> Iterator[tuple[Version, Version]]:
    """The versions to compare, stage by stage in the order data flows. Raises: Fix: there are none, or not these"""
    if not there:
        raise Fix(f"{output} holds no version{f' of {stage}' if stage else ''} yet", f"make one: cai run {config}", Exit.INPUT)
    if v1 is None:
        pairs = {name: (found[-2], found[-1]) for name, found in there.items() if len(found) > 1}
    else:
        olds, news = _named(there, v1, config), _named(there, v2 or "latest", config)
        pairs = {name: (olds[name], news[name]) for name in there if name in olds and name in news}
    different = [(old, new) for old, new in pairs.values() if old.path != new.path]
    if not different:
        raise _no_pair(there, v1, v2, config, bool(pairs))
    yield from different


def _named(there: Mapping[str, Sequence[Version]], word: str, config: Path) -> dict[str, Version]:
    """The versions that a word names, by stage. Raises: Fix: it names none"""
    found = {name: version for name, all_ in there.items() if (version := _match(all_, word)) is not None}
    if found:
        return found
    if word == "latest":
        of = ", ".join(f"{name}/latest" for name in there)
        raise Fix(f"{of} names no version that can be read", f"see how it is mended: cai verify {config}", Exit.INPUT)
    names = ["latest", *(version.name for all_ in there.values() for version in all_)]
    if close := difflib.get_close_matches(word, names, 1, 0.5):
        raise Fix(f"there is no version '{word}'", f"did you mean '{close[0]}'?")
    numbers = sorted({version.number for all_ in there.values() for version in all_})[-LISTED:]
    raise Fix(f"there is no version '{word}'", f"there are: {', '.join(map(str, numbers))}, latest")


def _match(all_: Sequence[Version], word: str) -> Version | None:
    """The version of one stage that a word names: `latest`, its number, the start of its name or of its fingerprint."""
    if word == "latest":
        newest = (all_[0].path.parent / "latest").resolve()
        return next((version for version in all_ if version.path == newest), None)
    number = word.removeprefix("v")
    if number.isdecimal() and (found := [version for version in all_ if version.number == int(number)]):
        return found[-1]
    begun = word.partition("-")[0] in (version.name.partition("-")[0] for version in all_)  # v0001 is whole: v0001-3f9a
    same = [version for version in all_ if (begun and version.name.startswith(word))
            or (len(word) >= 4 and version.fingerprint.startswith(word))]  # fmt: skip
    return same[-1] if same else None


def _no_pair(there: Mapping[str, Sequence[Version]], v1: str | None, v2: str | None, config: Path, same: bool) -> Fix:
    """Why there are no two versions to compare. `same`: both words name one"""
    if v1 is None:
        held = ", ".join(f"{name} {found[-1].name}" for name, found in there.items())
        return Fix(f"no stage has two versions yet: there are {held}", f"see the rows: cai show {config}", Exit.INPUT)
    newer = v2 or "latest"
    hint = f"the newest two of each stage: cai diff {config}"
    if same:
        return Fix(f"'{v1}' and '{newer}' are the same version", hint)
    of = [" and ".join(_named(there, word, config)) for word in (v1, newer)]
    return Fix(f"'{v1}' is a version of {of[0]}, '{newer}' of {of[1]}: only versions of one stage can be compared", hint)


# What differs.


def _show(output: Path, chosen: Sequence[tuple[Version, Version]], limit: int, rows: bool, only: str, as_json: bool) -> None:
    failed = list[Fix]()
    if as_json:
        from cai_cli.cli._answer import print_json

        found = list(_whole(output, chosen, limit, failed))
        print_json({"same": all(_same(one) for one in found) and not failed, "stages": found})
    else:
        _print(_whole(output, chosen, limit, failed), rows, only)
    if failed:
        raise Fix(failed[-1].message, failed[-1].hint, Exit.INPUT, tuple((one.message, one.hint) for one in failed))


def _whole(output: Path, chosen: Sequence[tuple[Version, Version]], limit: int, failed: list[Fix]) -> Iterator[dict[str, Any]]:
    """Each comparison as `--json` gives it; those that fail, since a file is damaged, are kept for the end."""
    from cai_cli.engine.version_diff import compare

    for old, new in chosen:
        try:
            document = _document(compare(old, new), output, limit)
        except Fix as fix:
            failed.append(fix)
        else:
            yield document


def _print(documents: Iterator[dict[str, Any]], rows: bool, only: str) -> None:
    from cai_cli.reports.console import console
    from cai_cli.reports.version_diff import any_marked, difference_parts, id_lines, sign_line

    out, marked = console(), False
    for at, document in enumerate(documents):
        out.print() if at else None
        for part in difference_parts(document, out.width < WIDE):
            out.print(part)
        lines = list(id_lines(document, only)) if rows else []
        out.print() if lines else None
        for line in lines:
            out.print(line, soft_wrap=True)
        marked = marked or any_marked(document)
    if marked:
        out.print()
        out.print(sign_line())


WIDE = 120  # columns from which quartiles are shown


def _same(document: Mapping[str, Any]) -> bool:
    rows = document["rows"]
    return not (rows["added"] or rows["changed"] or rows["gone"])


def _document(found: Difference, output: Path, limit: int) -> dict[str, Any]:
    """A comparison as `--json` gives it."""
    from cai_cli.engine.causes import causes

    old, new = found.old.manifest, found.new.manifest
    kinds = {"added": found.added, "changed": found.changed, "gone": found.gone}
    return {
        "stage": found.stage, "old": found.old.name, "new": found.new.name,
        "rows": {"old": old["rows"], "new": new["rows"], **{name: len(ids) for name, ids in kinds.items()}, "same": found.same},
        "columns": dict(found.columns.most_common()),
        "words": {name: {"rows": rows, "share": round(share, 4)} for name, (rows, share) in found.words.items()},
        "rejected": _then_and_now(old["rejected"], new["rejected"]), "filtered": _then_and_now(old["filtered"], new["filtered"]),
        "why": [{"what": what, "how": how} for what, how in causes(output, found.old, found.new)],
        "numbers": [_measure(one) for one in found.numbers], "shares": [_measure(one) for one in found.shares],
        "ids": {name: ids[:limit] for name, ids in kinds.items()},
    }  # fmt: skip


def _then_and_now(old: Mapping[str, int], new: Mapping[str, int]) -> dict[str, dict[str, int]]:
    return {reason: {"old": old.get(reason, 0), "new": new.get(reason, 0)} for reason in sorted(old.keys() | new.keys())}


def _measure(one: Measure) -> dict[str, Any]:
    return {"name": one.name, "value": one.value, "old": _side(one.old), "new": _side(one.new), "pairs": one.pairs,
            "difference": one.difference, "se": one.se}  # fmt: skip


def _side(side: Side | None) -> dict[str, Any] | None:
    return None if side is None else {"count": side.count, "mean": side.mean, "quartiles": side.quartiles}


# One row.


def _show_row(chosen: Sequence[tuple[Version, Version]], wanted: str, config: Path, as_json: bool) -> None:
    from cai_cli.engine.version_diff import rows_with_id

    found = [(old, new, rows_with_id(old, wanted), rows_with_id(new, wanted)) for old, new in chosen]
    found = [one for one in found if one[2] is not None or one[3] is not None]
    if not found:
        places = "; ".join(f"{new.path.parent.name} {old.name} and {new.name}" for old, new in chosen)
        hint = f"what became of it: cai show {shlex.join([str(config), wanted])}; ids of changed rows: --rows"
        raise Fix(f"no row has the id '{wanted}' in {places}", hint, Exit.INPUT)
    if as_json:
        from cai_cli.cli._answer import print_json

        print_json({"rows": [{"stage": new.path.parent.name, "old": {"version": old.name, "row": was},
                              "new": {"version": new.name, "row": now}} for old, new, was, now in found]})  # fmt: skip
        return
    _print_rows(wanted, found)


def _print_rows(wanted: str, found: Sequence[tuple[Version, Version, Any, Any]]) -> None:
    from rich.text import Text

    from cai_cli.reports.console import console, plain
    from cai_cli.reports.version_diff import PROSE, row_parts
    from cai_cli.visible import on_one_line

    out = console()
    for old, new, was, now in found:
        stage = new.path.parent.name
        out.print(Text(f"{on_one_line(wanted)}  {stage} {old.name} -> {new.name}", "bold"))
        if was is None or now is None:
            out.print(Text("added: it is in the new version only" if was is None else "gone: it was in the old version only"))
        elif was == now:
            out.print(Text("the same in both"))
        else:
            for part in row_parts(was, now, plain(out)):
                out.print(part, width=min(out.width, PROSE))
