"""Write what a run makes: one file a partition and stage, staged until all partitions are there, then published as versions.

A partition's files are written once, when all its rows are done, in input order. Its marker is written after them: where there
is a marker, the partition is whole and is never asked again.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from cai_cli.chance import choose, unit
from cai_cli.engine.disk import sync_file, write_durably, write_whole
from cai_cli.engine.drive import Usage
from cai_cli.engine.used import Used
from cai_cli.records import Rejected

REJECTS = "_rejects.jsonl"
SETTLING = 8  # files at once: the disk's journal takes them together
Put = Callable[[Path, bytes], None]
_SPLITS = ("train", "test")
_REPEAT = re.compile(r"([0-9a-f]{16})-[1-9]\d*")  # an id that was made of the content, of a prompt that came before
_ENDING = {"none": ".jsonl", "gzip": ".jsonl.gz", "zstd": ".jsonl.zst"}


class Written(NamedTuple):
    """A row that is a line already, and what is to be known of it beside."""

    prompt_id: str
    kind: str
    line: bytes


@dataclass(slots=True)
class Made:
    """What one prompt gave at one stage."""

    rows: list[Any] = field(default_factory=list)
    rejects: list[Rejected] = field(default_factory=list)
    filtered: Counter[str] = field(default_factory=Counter)
    came_in: int = 0  # rows that this stage had to account for


@dataclass(slots=True)
class Tally:
    """What a partition, or a version, adds up to. `came_in` = rows + rejected + filtered, always."""

    came_in: int = 0
    rows: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    filtered: Counter[str] = field(default_factory=Counter)
    marks: Counter[str] = field(default_factory=Counter)  # rows by what a card tells of them: see `marks`
    replies: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    models: list[dict[str, Any]] = field(default_factory=list)  # the same by model: see `Used.rows`
    files: list[dict[str, Any]] = field(default_factory=list)

    def add(self, other: Mapping[str, Any]) -> None:
        """Add the tally that a marker holds."""
        for name in ("came_in", "rows", "replies", "tokens_in", "tokens_out"):
            setattr(self, name, getattr(self, name) + other[name])
        self.rejected.update(other["rejected"])
        self.filtered.update(other["filtered"])
        self.marks.update(other.get("marks", {}))  # a marker may be of an earlier cai
        self.models = Used.of(self.models, other.get("models", ())).rows()
        self.files.extend(other["files"])


@dataclass(frozen=True, slots=True)
class Layout:
    """How rows go to files: `shards` partitions, a share of test prompts, a compression; exports choose a format, too.

    `halves`: names of parts that train and test are cut in, as in train_sft and train_prefs; none: they are whole.
    """

    shards: int
    test: float = 0.0
    compression: str = "none"
    format: str = "jsonl"  # jsonl | parquet
    halves: tuple[str, ...] = ()

    @property
    def splits(self) -> list[str]:
        return [f"{split}_{half}" for split in _SPLITS for half in self.halves] if self.halves else list(_SPLITS)

    def split(self, prompt_id: str) -> str:
        """train or test: by the prompt's id alone, so every stage, run and export agrees."""
        split = "test" if self.test and place(prompt_id) < self.test else "train"
        return f"{split}_{choose(self.halves, 'half', content_id(prompt_id))}" if self.halves else split

    def file(self, split: str, shard: int) -> str:
        ending = ".parquet" if self.format == "parquet" else _ENDING[self.compression]
        return f"{split}-{shard:05d}-of-{self.shards:05d}{ending}"


def content_id(prompt_id: str) -> str:
    """A prompt's id without the ordinal of a repeat: the same words again, which must not be tested on where they are learned."""
    match = _REPEAT.fullmatch(prompt_id)
    return match[1] if match else prompt_id


def place(prompt_id: str) -> float:
    """Where a prompt lies in [0, 1): below the share of test prompts, it is one."""
    return unit("split", content_id(prompt_id))


def compress(data: bytes, how: str) -> bytes:
    """The bytes as they go to disk; the same input gives the same output."""
    if how == "gzip":
        import gzip

        buffer = io.BytesIO()
        with gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0, filename="") as file:
            file.write(data)
        return buffer.getvalue()
    if how == "zstd":
        import zstandard

        return zstandard.ZstdCompressor().compress(data)
    return data


def as_line(record: Any) -> bytes:
    return record.line if isinstance(record, Written) else orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


class Staging:
    """A folder where a job's partitions gather. Named by the job's fingerprint, so it only ever resumes the same job.

    `shapes`: the rows of each stage, which Parquet has to know.
    """

    def __init__(
        self, folder: Path, stages: Sequence[str], layout: Layout, shapes: Mapping[str, type[Any]] | None = None
    ) -> None:
        self.folder, self.stages, self.layout, self.shapes = folder, stages, layout, shapes or {}
        for other in folder.parent.iterdir() if folder.parent.is_dir() else ():
            if other != folder:  # of a job whose input or config changed since; its replies are in the ledger
                shutil.rmtree(other)
        for name in (*stages, "parts"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def _marker(self, shard: int) -> Path:
        return self.folder / "parts" / f"{shard:05d}.json"

    def done(self, shard: int) -> dict[str, Any] | None:
        """What the marker of a partition says, if it is whole."""
        try:
            marker: dict[str, Any] = orjson.loads(self._marker(shard).read_bytes())
        except FileNotFoundError:
            return None
        return marker

    def forget(self, shard: int) -> None:
        """Take a partition back: its rows will be driven again."""
        self._marker(shard).unlink(missing_ok=True)

    def write(self, shard: int, units: Sequence[tuple[dict[str, Made], Usage]], put: Put = write_durably) -> None:
        """Write a partition's files, then its marker. `put`: how; what is not durable at once must be settled later"""
        of = {stage: [(made[stage], usage) for made, usage in units] for stage in self.stages}
        tallies = {stage: self._write_stage(stage, shard, of[stage], put) for stage in self.stages}
        put(self._marker(shard), orjson.dumps(tallies))

    def _write_stage(self, stage: str, shard: int, units: Sequence[tuple[Made, Usage]], put: Put) -> Tally:
        tally, rejects, used = Tally(), bytearray(), Used()
        lines: dict[str, list[bytes]] = {split: [] for split in self.layout.splits}
        for made, usage in units:
            tally.came_in += made.came_in
            if made.filtered:
                tally.filtered.update(made.filtered)
            tally.replies += usage.replies[stage]
            tally.tokens_in += usage.tokens_in[stage]
            tally.tokens_out += usage.tokens_out[stage]
            used.merge(usage.models[stage])
            for row in made.rows:
                lines[self.layout.split(row.prompt_id)].append(as_line(row))
            tally.marks.update(itertools.chain.from_iterable(map(marks, made.rows)))
            for reject in made.rejects:
                rejects += as_line(reject)
                tally.rejected[reject.reason] += 1
        tally.rows = sum(map(len, lines.values()))
        tally.models = used.rows()
        filled = [(split, some) for split, some in lines.items() if some]
        tally.files = [self._write_file(stage, shard, split, b"".join(some), len(some), put) for split, some in filled]
        put(self._reject_file(stage, shard), bytes(rejects))
        return tally

    def _write_file(self, stage: str, shard: int, split: str, data: bytes, rows: int, put: Put) -> dict[str, Any]:
        packed, name = self._packed(stage, data), self.layout.file(split, shard)
        put(self.folder / stage / name, packed)
        return described(name, packed, rows, shard)

    def settle(self, stage: str) -> None:
        """Make a stage's files durable that were written soon."""
        with ThreadPoolExecutor(SETTLING) as threads:
            for _ in threads.map(sync_file, sorted((self.folder / stage).iterdir())):
                pass

    def _packed(self, stage: str, data: bytes) -> bytes:
        if self.layout.format != "parquet":
            return compress(data, self.layout.compression)
        from cai_cli.engine.parquet import as_parquet

        return as_parquet(data, self.shapes[stage], self.layout.compression)

    def _reject_file(self, stage: str, shard: int) -> Path:
        return self.folder / "parts" / f"{shard:05d}-{stage}.jsonl"

    def tally(self, stage: str) -> Tally:
        """A stage's tally over all partitions."""
        total = Tally()
        for shard in range(self.layout.shards):
            marker = self.done(shard)
            assert marker is not None, f"partition {shard} is not whole"
            total.add(marker[stage])
        return total

    def gather_rejects(self, stage: str, first: Iterable[Rejected]) -> dict[str, Any] | None:
        """Write a stage's rejects file: `first` (input that could not be used), then each partition's. None: no rejects."""
        data = b"".join([*map(as_line, first), *self._reject_bytes(stage)])
        if not data:
            return None
        write_durably(self.folder / stage / REJECTS, data)
        return described(REJECTS, data, data.count(b"\n"), None)

    def _reject_bytes(self, stage: str) -> Iterator[bytes]:
        for shard in range(self.layout.shards):
            yield self._reject_file(stage, shard).read_bytes()

    def seal(self, stage: str, files: Mapping[str, bytes]) -> Path:
        """Write the last files of a stage's folder, in the given order. Gives: the folder; its names are synced by the rename."""
        folder = self.folder / stage
        for name, data in files.items():
            write_whole(folder / name, data, synced=True)
        return folder

    def remove(self) -> None:
        shutil.rmtree(self.folder)


def marks(row: Any) -> Iterator[str]:
    """What a card counts of a row: its kind, if that is a known one, and what was refused or cut off."""
    if (kind := getattr(row, "kind", None)) is not None:
        yield kind if kind in ("harmful", "harmless") else "other_kind" if kind else "no_kind"
    yield from (name for name in ("refused", "truncated") if getattr(row, name, False))


def described(name: str, data: bytes, rows: int, shard: int | None) -> dict[str, Any]:
    """A file as manifests list it. `shard` None: no data shard."""
    return {"name": name, "sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data), "rows": rows, "shard": shard}
