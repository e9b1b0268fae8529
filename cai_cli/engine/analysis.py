"""The rows that an analysis looks at: of a config's newest versions, or of any file, folder or stdin."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from cai_cli.config import Config
from cai_cli.engine import versions
from cai_cli.engine.feed import spool
from cai_cli.engine.files import STDIN, File, find_files, read_file
from cai_cli.engine.formats import Line
from cai_cli.engine.plan import stage_names
from cai_cli.engine.versions import Version
from cai_cli.errors import Exit, Fix
from cai_cli.records import Rejected

SHOWN = 3  # lines that could not be read, in a warning
# What tells a label where a file has no column of that name; never the texts.
LABEL = ("preference", "p_a", "votes")
ALWAYS = ("source_a", "source_b")


@dataclass(slots=True)
class Source:
    """Rows to look at. `name`: where they are from; `notes`: what is to be known of them, complete once they are read."""

    name: str
    rows: Iterator[Mapping[str, Any]] = field(default_factory=lambda: iter(()))
    also: dict[str, Iterator[Mapping[str, Any]]] = field(default_factory=dict)
    unread: list[str] = field(default_factory=list)

    def notes(self) -> tuple[str, ...]:
        """What could not be read."""
        if not self.unread:
            return ()
        more = ", ..." if len(self.unread) > SHOWN else ""
        return (f"lines left out because they cannot be read: {len(self.unread):,} ({', '.join(self.unread[:SHOWN])}{more})",)


def of_config(config: Config, reads: Sequence[str], also: Sequence[str], limit: int | None) -> Source:
    """The newest version of the first stage of `reads` that there is, and those of `also`.

    Takes: `limit`: rows of each, at most
    Raises: Fix (exit 65): no such stage has run; while rows are read: a published file was changed
    """
    newest = {stage: version for stage in (*reads, *also) if (version := versions.latest(config.output_path, stage)) is not None}
    first = next((stage for stage in reads if stage in newest), None)
    if first is None:
        what = f"{config.output_path} holds no {' nor '.join(reads)} yet, which this is made of"
        raise Fix(what, f"make it: cai run {config.path}; or look at a file: -i FILE", Exit.INPUT)
    filtered = newest[first].manifest.get("filtered") or {}
    left = ", ".join(f"{count:,} {reason}" for reason, count in sorted(filtered.items()) if count)
    name = f"{first}/{newest[first].name}" + (f", which leaves out {left}" if left else "")
    return Source(
        name=name, rows=itertools.islice(_of_version(newest[first]), limit),
        also={stage: itertools.islice(_of_version(newest[stage]), limit) for stage in also if stage in newest and stage != first},
    )  # fmt: skip


def _of_version(version: Version) -> Iterator[Mapping[str, Any]]:
    for path in version.files():
        for line in read_file(File(path, str(path)), otherwise=".jsonl"):
            if isinstance(line, Rejected):
                raise Fix(f"{line.where}: {line.reason}; a published file was changed", versions.REMAKE, Exit.INPUT)
            yield line.row


def of_file(given: str, stdin: IO[bytes], limit: int | None) -> Source:
    """The rows of a file, a folder of files, a stage's folder (its newest version), or stdin (-).

    Lines that cannot be read are counted and left out. Raises: Fix (exit 65): nothing there, or it is damaged
    """
    source = Source(name=STDIN if given == "-" else given)
    lines = _of_stdin(stdin) if given == "-" else _of_path(Path(given), given)
    source.rows = itertools.islice(_readable(lines, source.unread), limit)
    return source


def _of_stdin(stdin: IO[bytes]) -> Iterator[Line | Rejected]:
    with tempfile.TemporaryDirectory(prefix="cai-") as folder:
        yield from read_file(File(spool(stdin, Path(folder)), STDIN))


def _of_path(path: Path, name: str) -> Iterator[Line | Rejected]:
    for file in _files(path, name):
        yield from read_file(file)


def _files(path: Path, name: str) -> list[File]:
    if (path / "latest").is_dir():
        return find_files(path / "latest", f"{name.rstrip('/')}/latest")
    stages = [stage for stage in stage_names() if (path / stage / "latest").is_dir()]
    if stages:
        folders = ", ".join(f"{name.rstrip('/')}/{stage}" for stage in stages)
        raise Fix(f"{name} is a dataset of several stages", f"name one of them: {folders}", Exit.INPUT)
    return find_files(path, name)


def _readable(lines: Iterable[Line | Rejected], unread: list[str]) -> Iterator[Mapping[str, Any]]:
    for line in lines:
        if isinstance(line, Rejected):
            unread.append(f"{line.where} {line.reason}")
        else:
            yield line.row


def by_id(given: str, columns: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """The rows of another file by their id, with these columns only; of texts nothing is kept.

    Raises: Fix (exit 65): nothing there, no row has an id, or one stands there twice
    """
    wanted, found, unread = {*(columns or LABEL), *ALWAYS}, dict[str, Mapping[str, Any]](), list[str]()
    for row in _readable(_of_path(Path(given), given), unread):
        if not (name := str(row.get("id") or row.get("prompt_id") or "")):
            continue
        if name in found:
            raise Fix(f"{given}: the id '{name}' stands there twice", "rows are matched by id: give each its own", Exit.INPUT)
        found[name] = _small({key: value for key, value in row.items() if key in wanted})
    if not found:
        raise Fix(f"{given}: no row has an id", "rows are matched by their column id, or prompt_id", Exit.INPUT)
    return found


def _small(row: dict[str, Any]) -> dict[str, Any]:
    """Without votes where the label is told anyhow, and without what they say in words."""
    if not isinstance(given := row.pop("votes", None), list) or "preference" in row:
        return row
    return row | {"votes": [{k: v for k, v in vote.items() if k != "rationale"} for vote in given if isinstance(vote, dict)]}
