"""cai verify"""

from __future__ import annotations

import hashlib
import shlex
import sys
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cai_cli.cli._stage import AsJson, ConfigFile, OutputFolder, verb_app
from cai_cli.errors import Exit, Fix
from cai_cli.visible import on_one_line

if TYPE_CHECKING:
    from cai_cli.cli._mending import Finding, How, Mending
    from cai_cli.engine.versions import Version

HELP = """Check every version of every stage and export: checksums, sizes, counts, ids, `latest`, dataset card. Changes nothing.

\b
Examples:
  cai verify configs/quickstart.yaml
  cai verify my.yaml --json
  cai verify my.yaml --out data/for-training
"""

_UNLISTED = {"_manifest.json"}  # what a version's folder holds besides the files that its manifest lists
_KEYS = (
    "stage",
    "version",
    "fingerprint",
    "parents",
    "shards",
    "came_in",
    "rows",
    "rejected",
    "filtered",
    "files",
)  # of a manifest

app = verb_app()


@app.command(help=HELP, no_args_is_help=True)
def command(
    config: ConfigFile,
    output: OutputFolder = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Check the exports there: what `cai export --out DIR` wrote.")
    ] = None,
    json: AsJson = False,
) -> None:
    from cai_cli.config import load

    loaded = load(config, flags={"output": output})
    checked = Check(out or loaded.output_path)
    checked.run()
    if not checked.versions and not checked.problems:
        make = f"cai export {config} --to preference --out {shlex.quote(str(out))}" if out else f"cai run {config}"
        raise Fix(f"{checked.output} holds no version yet", f"make one: {make}", Exit.INPUT)
    from cai_cli.cli._mending import Mending

    mending = Mending(loaded, checked.output, checked.findings, out is not None)
    _print(checked, json, mending)
    if checked.problems:
        from cai_cli.cli.errors import say

        for hint in mending.hints:
            say(f"hint: {hint}")
        raise typer.Exit(Exit.INPUT)


def _print(checked: Check, as_json: bool, mending: Mending) -> None:
    if as_json:
        from cai_cli.cli._answer import print_json

        document = {"versions": checked.versions, "exports": checked.exports, "files": checked.files, "rows": checked.rows,
                    "stages": {name: counts.document() for name, counts in checked.stages.items()}, "problems": checked.problems,
                    "remove": [str(folder) for folder in mending.remove], "run": mending.run,
                    "lost": [str(folder) for folder in mending.lost], "hints": mending.hints}  # fmt: skip
        print_json(document)
    elif sys.stdout.isatty():
        _print_tables(checked)
    else:
        _print_lines(checked)


def _print_tables(checked: Check) -> None:
    from cai_cli.cli._answer import print_table
    from cai_cli.cli.summary import nearest
    from cai_cli.reports.quantities import counted

    if checked.problems:
        where = [Path(problem["path"]).relative_to(checked.output) for problem in checked.problems]
        rows = [(str(path), problem["what"]) for path, problem in zip(where, checked.problems, strict=True)]
        _print_problems(rows)
        typer.echo()
        typer.echo(on_one_line(f"{counted(len(rows), 'problem')} in {nearest(checked.output)}"))
        return
    counts = [(name, one.versions, one.files, one.rows) for name, one in checked.stages.items()]
    print_table(("stage", "versions", "files", "rows"), counts)
    typer.echo()
    _print_lines(checked)


def _print_problems(rows: Sequence[tuple[str, str]]) -> None:
    """Where and what, side by side where there is room: a path that is broken cannot be copied."""
    from rich.text import Text

    from cai_cli.cli._answer import print_table
    from cai_cli.reports.console import console

    out = console()
    if max(len(where) for where, _ in rows) + max(len(what) for _, what in rows) + 2 <= out.width:
        print_table(("where", "what"), [(Text(on_one_line(where), "cyan"), what) for where, what in rows])
        return
    for where, what in rows:
        out.print(Text(on_one_line(where), "cyan"), soft_wrap=True)
        out.print(Text(on_one_line(f"    {what}")), soft_wrap=True)


def _print_lines(checked: Check) -> None:
    """One line a problem, for logs and grep."""
    for problem in checked.problems:
        typer.echo(on_one_line(f"{problem['path']}: {problem['what']}"))
    if not checked.problems:
        exports = f"{checked.exports:,} of them exports, " if checked.exports else ""
        typer.echo(
            f"{checked.versions:,} versions, {exports}{checked.files:,} files, {checked.rows:,} rows: all as their manifests say"
        )


@dataclass(slots=True)
class Counts:
    """What was looked at of one stage."""

    versions: int = 0
    files: int = 0
    rows: int = 0

    def document(self) -> dict[str, int]:
        return {"versions": self.versions, "files": self.files, "rows": self.rows}


class Check:
    """Looks at every version in an output folder, exports among them. Memory: one row, and 8 bytes for each row of a version."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.stages: dict[str, Counts] = {}
        # what is looked at: a stage, what there is of it, and a version
        self._stage, self._of, self._at = output, Counts(), output
        self.exports = 0  # of the versions
        self.problems: list[dict[str, str]] = []
        self.findings: list[Finding] = []  # what is to be mended

    def run(self) -> None:
        from cai_cli.engine.plan import stage_names

        for stage in self._stages():
            self._stage, self._of = stage, self.stages.setdefault(str(stage.relative_to(self.output)), Counts())
            for version in self._readable(stage):
                self._of.versions += 1
                self.exports += stage.name not in stage_names()
                try:
                    self._version(version)
                except PermissionError as error:
                    self._unreadable(Path(error.filename or version.path), version.path)
            self._latest(stage)

    @property
    def versions(self) -> int:
        return sum(one.versions for one in self.stages.values())

    @property
    def files(self) -> int:
        return sum(one.files for one in self.stages.values())

    @property
    def rows(self) -> int:
        return sum(one.rows for one in self.stages.values())

    def _add(self, path: Path, what: str, how: How = "version", mend: Path | None = None) -> None:
        """Note a problem. Takes: `mend`: what is mended as `how` says; None: the version that is looked at, or else the path"""
        from cai_cli.cli._mending import Finding

        self.problems.append({"path": str(path), "what": what})
        self.findings.append(Finding(stage=self._stage, path=mend or (self._at if how == "version" else path), how=how))

    def _unreadable(self, path: Path, mend: Path) -> None:
        self._add(path, "cannot be read: permission denied", "unreadable", mend)

    def _stages(self) -> list[Path]:
        """The folders that hold versions, of stages and of exports."""
        from cai_cli.engine.export import FOLDER
        from cai_cli.engine.versions import number_of

        datasets = [folder for folder in (self.output, self.output / FOLDER) if folder.is_dir()]
        found = []
        for folder in (folder for dataset in datasets for folder in sorted(dataset.iterdir()) if folder.is_dir()):
            try:
                if any(number_of(item.name) for item in folder.iterdir()):
                    found.append(folder)
            except PermissionError:
                self._stage = folder
                self._unreadable(folder, folder)
        return found

    def _readable(self, stage: Path) -> Iterator[Version]:
        from cai_cli.engine import versions

        for path in sorted(path for path in stage.iterdir() if versions.number_of(path.name)):
            self._at, manifest = path, path / versions.MANIFEST
            try:
                version = replace(versions.read(path), path=path)  # as the user named it, wherever links lead
            except Fix as fix:
                self._no_manifest(manifest, fix)
                continue
            if missing := [key for key in _KEYS if key not in version.manifest]:
                self._add(manifest, f"has no {', '.join(missing)}")
            else:
                yield version

    def _no_manifest(self, path: Path, fix: Fix) -> None:
        if isinstance(fix.__cause__, PermissionError):
            self._unreadable(path, path.parent)
        elif fix.__cause__ is None:
            self._add(path, "was written by a newer cai", "newer")
        else:
            self._add(path, "cannot be read")

    def _version(self, version: Version) -> None:
        from cai_cli.engine.card_upkeep import CARD

        manifest = version.manifest
        if version.name.partition("-")[2] != version.fingerprint[:8] or manifest["stage"] != version.path.parent.name:
            self._add(version.path, f"its manifest is that of {manifest['stage']} {manifest['version']}")
        card, files = version.path / CARD, manifest["files"]
        data = [file for file in files if file["name"] != CARD]
        whole = [file for file in data if self._file(version.path, file)]
        if len(whole) == len(data):
            self._counts(version)
            self._ids(version)
        if not card.is_file():
            self._add(card, "is missing, so the folder does not load by its own path", "card")
        for file in (file for file in files if file["name"] == CARD and card.is_file()):
            self._file(version.path, file, "edited")
        listed = {file["name"] for file in files} | _UNLISTED
        for path in sorted(version.path.iterdir()):
            if path.name not in listed:
                self._add(path, "no file of this version: the manifest does not list it", "stray")

    def _file(self, folder: Path, file: dict[str, Any], how: How = "version") -> bool:
        """One file against its entry. Gives: whether it is what the manifest says, byte for byte"""
        from cai_cli.engine.export_checks import change

        path, self._of.files = folder / file["name"], self._of.files + 1
        try:
            what = change(path, file)
        except PermissionError:
            self._unreadable(path, path)
            return False
        except OSError as error:
            what = error.strerror or "cannot be read"
        if what:
            self._add(path, what, how)
        return not what

    def _counts(self, version: Version) -> None:
        """Every row that came in is a row, rejected or filtered."""
        from cai_cli.engine.shards import REJECTS

        manifest, path = version.manifest, version.path / "_manifest.json"
        rejected, filtered = sum(manifest["rejected"].values()), sum(manifest["filtered"].values())
        if manifest["came_in"] != manifest["rows"] + rejected + filtered:
            gone = f"{manifest['rows']:,} + {rejected:,} rejected + {filtered:,} filtered"
            self._add(path, f"{manifest['came_in']:,} rows came in, but {gone} went out")
        shards = [file for file in manifest["files"] if file["shard"] is not None]
        rejects = [file for file in manifest["files"] if file["name"] == REJECTS]
        for what, files, count in (("rows", shards, manifest["rows"]), ("rejected rows", rejects, rejected)):
            if (total := sum(file["rows"] for file in files)) != count:
                self._add(path, f"its files hold {total:,} {what}, it says {count:,}")

    def _ids(self, version: Version) -> None:
        """Read every row: each file holds as many as the manifest says, and no id comes twice."""
        marks = array("Q")
        for file in (
            file for file in version.manifest["files"] if _stem(file["name"]).endswith((".jsonl", ".parquet"))
        ):  # fmt: skip
            before = len(marks)
            marks.extend(_mark(row_id) for row_id in self._row_ids(version.path / file["name"]))
            if len(marks) - before != file["rows"]:
                self._add(version.path / file["name"], f"{len(marks) - before:,} rows, the manifest says {file['rows']:,}")
            if file["shard"] is None:
                del marks[before:]  # input that could not be used may have no id
        self._of.rows += len(marks)
        if (twice := _repeated(marks)) is not None:
            ids = (row_id for path in version.files() for row_id in self._row_ids(path))
            self._add(version.path, f"two rows have the id '{next(row_id for row_id in ids if _mark(row_id) == twice)}'")

    def _row_ids(self, path: Path) -> Iterator[str]:
        from cai_cli.engine.files import File, read_file
        from cai_cli.records import Rejected

        try:
            for line in read_file(File(path, path.name), otherwise=".jsonl"):
                if isinstance(line, Rejected):
                    self._add(path, f"{line.where}: {line.detail or line.reason}")
                else:
                    yield str(line.row.get("id", line.where))  # an export of another package may have none
        except Fix as fix:
            self._add(path, fix.message)  # compressed, and the sha256 is that of a damaged file

    def _latest(self, stage: Path) -> None:
        from cai_cli.engine.card_upkeep import CARD, declares
        from cai_cli.engine.versions import number_of

        link = stage / "latest"
        target = link.resolve()
        if not link.is_symlink() or target.parent != stage.resolve() or not number_of(target.name) or not target.is_dir():
            self._add(link, "names no version of this stage", "link")
        elif any(target.glob("*-of-*")) and not declares(stage.parent, stage.name, target.name):
            what = f"does not declare {stage.name}/{target.name}, so `datasets` does not find it"
            self._add(stage.parent / CARD, what, "card")


def _stem(name: str) -> str:
    return name.removesuffix(".gz").removesuffix(".zst")


def _mark(row_id: str) -> int:
    return int.from_bytes(hashlib.blake2b(row_id.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")


def _repeated(marks: array[int]) -> int | None:
    """A number that is there twice."""
    import numpy

    ordered = numpy.sort(numpy.frombuffer(marks, dtype=numpy.uint64)) if marks else numpy.array([], dtype=numpy.uint64)
    repeats = ordered[1:][ordered[1:] == ordered[:-1]]
    return int(repeats[0]) if repeats.size else None
