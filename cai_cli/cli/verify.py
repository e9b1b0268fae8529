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
    from cai_cli.config import Config
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
    remove, again = list(dict.fromkeys(checked.broken)), list(_mending(checked, loaded, out is not None))
    _print(checked, json, remove, again)
    if checked.problems:
        from cai_cli.cli.errors import say

        say(f"hint: {_advice(remove, again)}")
        raise typer.Exit(Exit.INPUT)


def _advice(remove: Sequence[Path], again: Sequence[str]) -> str:
    """What to type. A version that is not as it was is made anew; a link or a card is mended by the run itself."""
    from cai_cli.cli.summary import nearest

    run = f"run: {' && '.join(again)}"
    if not remove:
        return run
    removal = shlex.join(["rm", "-r", *(str(nearest(folder)) for folder in remove)])
    return f"delete what is damaged: {removal}; then {run}; its rows come back from the ledger, nothing is paid twice"


def _mending(checked: Check, config: Config, of_exports: bool) -> Iterator[str]:
    """The command lines that make damaged stages and exports again. Takes: `of_exports`: whether --out named what was checked"""
    from cai_cli.cli.summary import command_line, nearest
    from cai_cli.engine.plan import reads_of, stage_names

    stages = [folder.name for folder in checked.damaged if folder.name in stage_names()]
    if any(map(reads_of, stages)):
        yield command_line("run", config)
    yield from (command_line(name, config) for name in stages if not reads_of(name))
    damaged = [folder for folder in checked.damaged if folder.name not in stage_names()]
    for folder in damaged:
        words = shlex.join(["--to", folder.name, *_options_of(folder)])
        if folder.parent != checked.output:
            yield f"{command_line('export', config)} {words}"
        else:  # -o, too, may name a folder that `cai export --out` wrote
            command = command_line("export", config) if of_exports else shlex.join(["cai", "export", str(config.path)])
            yield f"{command} {words} --out {shlex.quote(str(nearest(checked.output)))}"


def _options_of(folder: Path) -> list[str]:
    """The options that the newest version of an export was made with, as far as its manifest can be read."""
    from cai_cli.engine import versions
    from cai_cli.engine.export import words_of

    try:
        newest = versions.latest(folder.parent, folder.name) or list(versions.all_of(folder.parent, folder.name))[-1]
        return words_of(newest.manifest)
    except (Fix, IndexError, KeyError):
        return []


def _print(checked: Check, as_json: bool, remove: Sequence[Path], again: Sequence[str]) -> None:
    if as_json:
        from cai_cli.cli._answer import print_json

        document = {"versions": checked.versions, "exports": checked.exports, "files": checked.files, "rows": checked.rows,
                    "stages": {name: counts.document() for name, counts in checked.stages.items()}, "problems": checked.problems,
                    "remove": [str(folder) for folder in remove], "run": list(again)}  # fmt: skip
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
        self._of = Counts()  # of the stage that is looked at
        self.exports = 0  # of the versions
        self.problems: list[dict[str, str]] = []
        self.broken: list[Path] = []  # folders of versions that have a problem
        self.damaged: list[Path] = []  # folders of stages and exports that have a problem

    def run(self) -> None:
        from cai_cli.engine.plan import stage_names

        for stage in self._stages():
            before = len(self.problems)
            self._of = self.stages.setdefault(str(stage.relative_to(self.output)), Counts())
            for version in self._readable(stage):
                self._of.versions += 1
                self.exports += stage.name not in stage_names()
                problems = len(self.problems)
                self._version(version)
                self.broken += [version.path] * (len(self.problems) > problems)
            self._latest(stage)
            if len(self.problems) > before:
                self.damaged.append(stage)

    @property
    def versions(self) -> int:
        return sum(one.versions for one in self.stages.values())

    @property
    def files(self) -> int:
        return sum(one.files for one in self.stages.values())

    @property
    def rows(self) -> int:
        return sum(one.rows for one in self.stages.values())

    def _add(self, path: Path, what: str) -> None:
        self.problems.append({"path": str(path), "what": what})

    def _stages(self) -> list[Path]:
        """The folders that hold versions, of stages and of exports."""
        from cai_cli.engine.export import FOLDER
        from cai_cli.engine.versions import number_of

        datasets = [folder for folder in (self.output, self.output / FOLDER) if folder.is_dir()]
        folders = [folder for dataset in datasets for folder in sorted(dataset.iterdir())]
        return [folder for folder in folders if folder.is_dir() and any(number_of(item.name) for item in folder.iterdir())]

    def _readable(self, stage: Path) -> Iterator[Version]:
        from cai_cli.engine import versions

        for path in sorted(path for path in stage.iterdir() if versions.number_of(path.name)):
            try:
                version = replace(versions.read(path), path=path)  # as the user named it, wherever links lead
            except Fix:
                self._add(path / versions.MANIFEST, "cannot be read, or was written by a newer cai")
                self.broken.append(path)
                continue
            if missing := [key for key in _KEYS if key not in version.manifest]:
                self._add(path / versions.MANIFEST, f"has no {', '.join(missing)}")
                self.broken.append(path)
            else:
                yield version

    def _version(self, version: Version) -> None:
        manifest = version.manifest
        if version.name.partition("-")[2] != version.fingerprint[:8] or manifest["stage"] != version.path.parent.name:
            self._add(version.path, f"its manifest is that of {manifest['stage']} {manifest['version']}")
        whole = [file for file in manifest["files"] if self._file(version.path, file)]
        if len(whole) == len(manifest["files"]):
            self._counts(version)
            self._ids(version)
        listed = {file["name"] for file in manifest["files"]} | _UNLISTED
        if not (version.path / "README.md").is_file():
            self._add(version.path / "README.md", "is missing, so the folder does not load by its own path")
        for path in sorted(version.path.iterdir()):
            if path.name not in listed:
                self._add(path, "no file of this version: the manifest does not list it")

    def _file(self, folder: Path, file: dict[str, Any]) -> bool:
        """One file against its entry. Gives: whether it is what the manifest says, byte for byte"""
        from cai_cli.engine.export_checks import change

        path, self._of.files = folder / file["name"], self._of.files + 1
        try:
            what = change(path, file)
        except OSError as error:
            what = error.strerror or "cannot be read"
        if what:
            self._add(path, what)
        return not what

    def _counts(self, version: Version) -> None:
        """Every row that came in is a row, rejected or filtered."""
        manifest, path = version.manifest, version.path / "_manifest.json"
        rejected, filtered = sum(manifest["rejected"].values()), sum(manifest["filtered"].values())
        if manifest["came_in"] != manifest["rows"] + rejected + filtered:
            gone = f"{manifest['rows']:,} + {rejected:,} rejected + {filtered:,} filtered"
            self._add(path, f"{manifest['came_in']:,} rows came in, but {gone} went out")
        for what, named, count in (("rows", True, manifest["rows"]), ("rejected rows", False, rejected)):
            total = sum(file["rows"] for file in manifest["files"] if (file["shard"] is not None) == named)
            if total != count:
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
        from cai_cli.engine.versions import number_of

        link = stage / "latest"
        target = link.resolve()
        if not link.is_symlink() or target.parent != stage.resolve() or not number_of(target.name) or not target.is_dir():
            self._add(link, "names no version of this stage")
        elif any(target.glob("*-of-*")) and not self._declared(stage, target.name):
            self._add(stage.parent / "README.md", f"does not declare {stage.name}/{target.name}, so `datasets` does not find it")
            self.broken.append(stage / target.name)  # made again, it is declared again

    def _declared(self, stage: Path, version: str) -> bool:
        import yaml

        try:
            _, _, rest = (stage.parent / "README.md").read_text("utf-8").partition("---\n")
            front = yaml.safe_load(rest.partition("\n---\n")[0])
            paths = [file["path"] for one in front["configs"] if one["config_name"] == stage.name for file in one["data_files"]]
        except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
            return False
        return any(str(path).startswith(f"{stage.name}/{version}/") for path in paths)


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
