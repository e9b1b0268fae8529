"""Exports: a published version read once, its rows in another shape written as a version of a dataset of their own."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cai_cli import exports
from cai_cli.config import Config
from cai_cli.engine import disk, tables, versions
from cai_cli.engine.feed import Feed, Unit, from_version
from cai_cli.engine.lock import IfLocked, lock_file, locked
from cai_cli.engine.plan import shapes, stage_names
from cai_cli.engine.publish import Lineage, Publisher, is_published, lineages
from cai_cli.engine.shards import Layout, Made, Staging
from cai_cli.engine.versions import Version, fingerprint
from cai_cli.errors import Exit, Fix
from cai_cli.exports import Dialect, Left

FOLDER = "export"  # in the output, where --out names no other


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export came to. `left`: rows that are not in it, by reason."""

    name: str
    version: Version
    rows: int
    left: Counter[str]
    path: Path  # the dataset's folder
    source: Version  # what it was made of
    outdated: tuple[str, ...]  # stages that were run anew since, so that `source` is not of their newest version
    unchanged: bool  # it was there already


@dataclass(frozen=True)
class _Export:
    """An export as versions and manifests see it."""

    name: str
    dialect: Dialect

    def fingerprints(self) -> dict[str, Any]:
        return {"config": "", "constitution": "", "templates": {}, "code": f"export-{self.name}/{self.dialect.VERSION}"}


def export(
    config: Config, to: str, out: Path | None = None, if_locked: IfLocked = "fail", command: str = "cai export"
) -> Exported:
    """Write the newest rows of a dataset in the shape that a trainer takes.

    Takes: `to`: sft, preference, or what another package adds; `out`: the dataset's folder, OUTPUT/export by default
    Raises: Fix: no such export, a folder that is something else; with exit 65: no source, or one that was changed; Held
    """
    making = _Export(to, exports.find(to))
    source_of(config, to)  # before a folder is made for nothing
    folder = out or config.output_path / FOLDER
    _refuse_dataset(folder)
    disk.probe(folder)
    with locked(_lock(config, folder), if_locked, command):
        return _exported(config, making, source_of(config, to), folder)


def source_of(config: Config, to: str) -> Version:
    """The version that an export is made of. Raises: Fix: no such export, or no stage that it can be made of has run"""
    reads = exports.find(to).READS
    found = (version for stage in reads if (version := versions.latest(config.output_path, stage)) is not None)
    if (version := next(found, None)) is None:
        what = f"{config.output_path} holds no {' nor '.join(reads)} yet, which the export '{to}' is made of"
        raise Fix(what, f"run `cai run {config.path}` first, or only `cai {reads[-1]} {config.path}`", Exit.INPUT)
    return version


def change(path: Path, file: Mapping[str, Any]) -> str:
    """What is not as it was when a file was published; empty: nothing, byte for byte.

    Takes: `file`: its entry in the manifest
    Raises: OSError: it cannot be read
    """
    if (size := path.stat().st_size) != file["bytes"]:
        return f"{size:,} bytes, the manifest says {file['bytes']:,}"
    with open(path, "rb") as stream:
        same = hashlib.file_digest(stream, "sha256").hexdigest() == file["sha256"]
    return "" if same else "its sha256 is not the manifest's: it was changed"


def _refuse_changed(config: Config, source: Version) -> None:
    """People train on an export: rows that nobody published must not get into one. Raises: Fix (exit 65)"""
    folder = config.output_path / source.path.parent.name / source.name
    changed = [
        folder / file["name"] for file in source.manifest["files"] if file["shard"] is not None and _is_changed(folder, file)
    ]
    if changed:
        hint = "delete that version's folder, then run the same command that made it: its rows come back from the ledger"
        *others, last = (f"{path} was changed since it was published" for path in changed)
        raise Fix(last, hint, Exit.INPUT, (*((one, "") for one in others), (last, hint)))


def _is_changed(folder: Path, file: Mapping[str, Any]) -> bool:
    path = folder / file["name"]
    try:
        return bool(change(path, file))
    except FileNotFoundError:
        return True
    except OSError as error:
        what = f"{path} cannot be read: {error.strerror}"
        raise Fix(what, "check its permissions and the disk, then run the same command again", Exit.INPUT) from error


def _refuse_dataset(folder: Path) -> None:
    """An export's card would take the place of the card of the stages."""
    if any((folder / stage).is_dir() for stage in stage_names()):
        raise Fix(f"{folder} holds the stages of a dataset, not exports", "give --out a folder of its own, or leave it out")


def _lock(config: Config, folder: Path) -> Path:
    """Inside the output its own lock holds, so that a run cannot prune what is being read."""
    inside = folder.resolve().is_relative_to(config.output_path.resolve())
    return lock_file(config) if inside else folder / ".cai" / "lock"


def _exported(config: Config, making: _Export, source: Version, folder: Path) -> Exported:
    feed = from_version(source, shapes()[source.path.parent.name], None)
    layout = Layout(source.shards, config.split.test, config.shards.compression)
    lineage = lineages([making], feed, layout)[making.name]
    found = is_published(folder, making.name, lineage)
    version = found or _write(config, making, lineage, feed, layout, folder)
    return Exported(
        name=making.name, version=version, rows=version.manifest["rows"], left=Counter(version.manifest["filtered"]), path=folder,
        source=source, outdated=_outdated(config, source), unchanged=found is not None,
    )  # fmt: skip


def _write(config: Config, making: _Export, lineage: Lineage, feed: Feed, layout: Layout, folder: Path) -> Version:
    _refuse_changed(config, feed.parents[0])
    # Not beside the staging of runs: what a run that stopped has staged there must outlive this.
    place = folder / ".cai" / "staging" / fingerprint([lineage.fingerprint])[:16]
    staging = Staging(place, [making.name], layout)
    tables.stage_table(staging, making.name, _converted(feed, making.dialect))
    made = {name: exports.find(name).SHAPE for name in exports.names()}
    version = Publisher(folder, config.name, staging, feed, made).publish(making, lineage)
    staging.remove()
    return version


def _converted(feed: Feed, dialect: Dialect) -> Iterator[tuple[int, Made]]:
    return ((unit.shard, _unit(unit, dialect)) for unit in feed.units())


def _unit(unit: Unit, dialect: Dialect) -> Made:
    made = Made()
    for outcome in (outcome for record in unit.rows for outcome in dialect.convert(record)):
        made.came_in += 1
        if isinstance(outcome, Left):
            made.filtered[outcome.reason] += 1
        else:
            made.rows.append(outcome)
    return made


def _outdated(config: Config, source: Version) -> tuple[str, ...]:
    """The stages behind a version whose newest version is not the one that it was made from."""
    newest = {stage: versions.latest(config.output_path, stage) for stage in source.manifest["lineage"]}
    return tuple(stage for stage, one in newest.items() if one and one.fingerprint != source.manifest["lineage"][stage])
