"""Rows that lie in an output, to look at: of the newest versions or of one by name, or of a job that goes on or was killed.

Reads only, takes no lock. Rows come as the lines of their files, so that a hundred thousand are passed over quickly.
"""

from __future__ import annotations

import difflib
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from cai_cli.engine import plan, versions
from cai_cli.engine.files import unpacked
from cai_cli.engine.formats import parse_object
from cai_cli.engine.shards import REJECTS
from cai_cli.engine.versions import Version
from cai_cli.errors import Exit, Fix, Reject
from cai_cli.records import Rejected, from_row

_NUMBER = re.compile(r"v?0*(\d+)")
NEAREST = 5  # versions that are named where one is not there
INPUT = "input"  # the stage of input that could not be used, as readers write it
PARTIAL = "partial"  # in the place of a version's name


class Place(NamedTuple):
    """A line as it stands in its file, which begins with line 1."""

    path: Path
    line: int
    raw: bytes

    @property
    def where(self) -> str:
        """file:line, as one would type it here."""
        here = self.path.relative_to(Path.cwd()) if self.path.is_relative_to(Path.cwd()) else self.path
        return f"{here}:{self.line}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """What one stage has made: `files` with so many `rows` each, and files of rejects."""

    stage: str
    version: str
    files: tuple[Path, ...]
    rows: tuple[int, ...]
    rejects: tuple[Path, ...] = ()
    rejected: Mapping[str, int] = field(default_factory=dict)
    filtered: Mapping[str, int] = field(default_factory=dict)
    partial: bool = False
    fingerprint: str = ""
    parents: tuple[str, ...] = ()  # fingerprints of the versions that it was made from

    @property
    def shape(self) -> type[Any]:
        return plan.shapes()[self.stage]

    @property
    def title(self) -> str:
        return f"{self.stage} {self.version}"

    def places(self, skip: int = 0) -> Iterator[Place]:
        """Its rows, but for the first `skip`; files that hold none of the others are not opened."""
        for path, rows in zip(self.files, self.rows, strict=True):
            if skip >= rows:
                skip -= rows
                continue
            for place in self._lines(path):
                if place.line > skip:
                    yield place
            skip = 0

    def lost(self) -> Iterator[Rejected]:
        """Its rejects."""
        for path in self.rejects:
            for place in self._lines(path):
                row = self.read(Rejected, place)
                # input that could not be used stands in the rejects of the first stage, and is counted with its
                yield replace(row, stage=self.stage) if row.stage == INPUT else row

    def _lines(self, path: Path) -> Iterator[Place]:
        try:
            with unpacked(path) as stream:
                for number, line in enumerate(stream, 1):
                    yield Place(path, number, line)
        except Fix:
            if not self.partial:
                raise
            # published, or taken back, while it was read

    def row(self, place: Place) -> dict[str, Any]:
        """A line as JSON. Raises: Fix: it is none any more"""
        try:
            return parse_object(place.raw)
        except Reject as why:
            raise _changed(place, why) from why

    def record(self, place: Place) -> Any:
        """A line as the record that it is. Raises: Fix: it is none any more"""
        return self.read(self.shape, place)

    def read(self, shape: type[Any], place: Place) -> Any:
        """A line as a record of any shape. Raises: Fix: it is none any more"""
        try:
            return from_row(shape, self.row(place))
        except Reject as why:
            raise _changed(place, why) from why

    def of_id(self, wanted: str) -> Iterator[Place]:
        """The rows with that id or prompt_id. The rows of a prompt stand together: behind them the search is over."""
        needle, inside = b":" + orjson.dumps(wanted) + b",", False
        for place in self.places():
            if needle in place.raw and wanted in ((row := self.row(place)).get("id"), row.get("prompt_id")):
                inside = True
                yield place
            elif inside:
                return


def _changed(place: Place, why: Reject) -> Fix:
    return Fix(f"{place.where}: {why.detail or why.reason}; a published file was changed", versions.REMAKE, Exit.INPUT)


# Versions.


def of_version(version: Version) -> Stored:
    """A version's rows and rejects."""
    manifest, rejects = version.manifest, version.path / REJECTS
    data = [file for file in manifest["files"] if file["shard"] is not None]
    return Stored(
        stage=version.path.parent.name, version=version.name, files=tuple(version.path / file["name"] for file in data),
        rows=tuple(file["rows"] for file in data), rejects=(rejects,) if rejects.exists() else (),
        rejected=manifest["rejected"], filtered=manifest["filtered"], fingerprint=version.fingerprint,
        parents=tuple(parent["fingerprint"] for parent in manifest["parents"]),
    )  # fmt: skip


def newest(output: Path, stages: Iterable[str]) -> dict[str, Stored]:
    """The newest version of each of these stages that has one, in their order."""
    found = ((name, versions.latest(output, name)) for name in stages)
    return {name: of_version(version) for name, version in found if version is not None}


def named(output: Path, stages: Sequence[str], wanted: str) -> dict[str, Stored]:
    """The versions of that name, or of that number (v0001, v1, 1), of any of these stages. Raises: Fix: there is none"""
    known = {name: [version.name for version in versions.all_of(output, name)] for name in stages}
    number = _NUMBER.fullmatch(wanted)
    found = {
        name: [one for one in there if one == wanted or (number and versions.number_of(one) == int(number[1]))]
        for name, there in known.items()
    }
    if not any(found.values()):
        every = [one for there in known.values() for one in there]
        raise Fix(f"{output} holds no version '{wanted}'", _nearest(wanted, every, number), Exit.INPUT)
    return {name: of_version(versions.read(output / name / one)) for name, there in found.items() for one in there[:1]}


def _nearest(wanted: str, every: Sequence[str], number: re.Match[str] | None) -> str:
    """A hint: the version that was probably meant, or the nearest few by number, else the newest."""
    if (close := difflib.get_close_matches(wanted, every, 1)) and number is None:
        return f"did you mean '{close[0]}'?"
    numbers = {versions.number_of(one) for one in every}
    goal = int(number[1]) if number else max(numbers, default=0)
    few = sorted(sorted(numbers, key=lambda one: (abs(one - goal), -one))[:NEAREST])
    more = f" and {len(numbers) - len(few):,} more" if len(numbers) > len(few) else ""
    return f"there are: {', '.join(f'v{one:04d}' for one in few) or 'none'}{more}"


# A job that goes on, or that was killed: its whole partitions, staged beside the versions.


@dataclass(frozen=True, slots=True, kw_only=True)
class Staged:
    """What is done of a job. `whole` of `shards` partitions; `came_in`: rows that its first stage had for these."""

    stages: Mapping[str, Stored]
    whole: int
    shards: int


def staged(output: Path, stages: Sequence[str]) -> Staged | None:
    """The whole partitions of the job that is staged, none of which is written again; None: no job is staged."""
    folder = output / ".cai" / "staging"
    jobs = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    found = [_of_job(job, stages) for job in sorted(jobs, key=_touched)]
    return found[-1] if found else None


def _touched(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _of_job(job: Path, stages: Sequence[str]) -> Staged:
    markers = {path.stem: marker for path in sorted((job / "parts").glob("*.json")) if (marker := _marker(path))}
    made = {name for marker in markers.values() for name in marker}
    # one whose folder is gone is being published
    stored = {name: _of_stage(job, name, markers) for name in stages if name in made and (job / name).is_dir()}
    totals = {int(file["name"].partition("-of-")[2][:5]) for one in markers.values() for tally in one.values()
              for file in tally["files"]}  # fmt: skip
    return Staged(stages=stored, whole=len(markers), shards=max(totals, default=len(markers)))


def _marker(path: Path) -> dict[str, Any] | None:
    """What is in a partition, once it is whole; None: it was taken back, or is not written yet."""
    try:
        marker: dict[str, Any] = orjson.loads(path.read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return None
    return marker


def _of_stage(job: Path, stage: str, markers: Mapping[str, Mapping[str, Any]]) -> Stored:
    tallies = {number: marker[stage] for number, marker in markers.items() if stage in marker}
    files = [file for tally in tallies.values() for file in tally["files"]]
    lost = [job / "parts" / f"{number}-{stage}.jsonl" for number in tallies]
    rejected, filtered = Counter[str](), Counter[str]()
    for tally in tallies.values():
        rejected.update(tally["rejected"])
        filtered.update(tally["filtered"])
    return Stored(
        stage=stage, version=PARTIAL, files=tuple(job / stage / file["name"] for file in files),
        rows=tuple(file["rows"] for file in files), rejects=tuple(path for path in lost if path.exists()), rejected=rejected,
        filtered=filtered, partial=True,
    )  # fmt: skip
