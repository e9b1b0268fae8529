"""Pairs with votes of a file that somebody gives: read once, by processes that share it, and written again as cai writes them.

Whatever is out of the ordinary about the file as a whole (rows without ids, ids that clash, prompts whose rows stand apart, a
format that has no lines) is left to the reader that goes row by row, which knows what to do or to say.
"""

from __future__ import annotations

import functools
import hashlib
import io
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from cai_cli.config import Config
from cai_cli.engine import pairs_table, quick_pairs, shapes
from cai_cli.engine.disk import naming, private_opener
from cai_cli.engine.feed import Feed, Unit
from cai_cli.engine.files import File, find_files, holds_lines, opened
from cai_cli.engine.formats import LINE_LIMIT, Line, numbered_lines, read_object
from cai_cli.engine.inputs import id_mark, pair_builder, reject_line
from cai_cli.engine.runs import GIVEN
from cai_cli.engine.shards import as_line
from cai_cli.engine.workers import Workers, count_for
from cai_cli.errors import Reject
from cai_cli.records import Pair, Rejected
from cai_cli.settings import PromptsSection


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Whole lines of a file."""

    name: str
    before: int  # lines that stand before them
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """What came of a piece."""

    lines: bytes  # its pairs, as cai writes them
    ends: Sequence[int]  # where in these each pair ends
    prompts: bytes  # a mark of eight bytes a pair: of its prompt's id
    ids: bytes  # the same of the id that must be its own
    rejects: Sequence[Rejected]


class _Odd(Exception):
    """It is not for this reader."""


class _Named:
    """Takes the ids that a row has. Raises: _Odd: it has none"""

    def __init__(self) -> None:
        self.own = ""

    def of_prompt(self, line: Line, _: shapes.Turns) -> str:
        self.own = shapes.given_id(line.row, "prompt_id", "id")
        if not self.own:
            raise _Odd
        return self.own

    def of_pair(self, _: Line, pair: Pair) -> Pair:
        self.own = pair.id
        return pair


def survey(source: PromptsSection, config: Config, folder: Path, processes: int | None = None) -> Feed | None:
    """Read the file of `source` to a feed whose shards can be shared out; None: it has to be read row by row.

    Takes: a private folder that outlives the feed; how many processes are to share it; None: as many as it pays for
    Raises: Fix (exit 65): there is no file, or it is cut off or damaged
    """
    files = find_files(Path(str(source.path)), str(source.path))
    if not all(map(holds_lines, files)):
        return None
    (folder / GIVEN).mkdir(mode=0o700, exist_ok=True)
    spool = _Spool(folder / GIVEN, config.shards.rows)
    count = count_for(sum(file.path.stat().st_size for file in files)) if processes is None else processes
    try:
        with Workers(count) as shared:
            for read in shared.each(functools.partial(read_piece, source, config.seed), _pieces(files)):
                spool.add(_ordinary(read))
    except _Odd:
        return None
    finally:
        spool.close()
    return spool.feed()


def _ordinary(read: Read | None) -> Read:
    if read is None:
        raise _Odd
    return read


def _pieces(files: Sequence[File]) -> Iterator[Piece]:
    for file in files:
        before = 0
        with opened(file) as stream:
            while data := stream.read(pairs_table.PIECE):
                data += b"" if data.endswith(b"\n") else stream.readline(LINE_LIMIT)
                if len(data) > LINE_LIMIT:
                    raise _Odd
                yield Piece(name=file.name, before=before, data=data)
                before += data.count(b"\n")


def read_piece(source: PromptsSection, seed: int, piece: Piece) -> Read | None:
    """The pairs of a piece, and its rejects; None: they cannot be known from the piece alone."""
    build, lines, ends = pair_builder(source, seed), bytearray(), list[int]()
    prompts, ids, rejects = list[bytes](), list[bytes](), list[Rejected]()
    for number, content in numbered_lines(io.BytesIO(piece.data), piece.before):
        try:
            found = _quickly(content) or _slowly(build, read_object(content, f"{piece.name}:{number}"))
        except _Odd:
            return None
        if isinstance(found, Rejected):
            rejects.append(found)
            continue
        line, prompt_id, own = found
        lines += line
        ends.append(len(lines))
        prompts.append(id_mark(prompt_id))
        ids.append(id_mark(own))
    return Read(lines=bytes(lines), ends=ends, prompts=b"".join(prompts), ids=b"".join(ids), rejects=rejects)


def _quickly(content: bytes) -> tuple[bytes, str, str] | None:
    pair = quick_pairs.given(content) if len(content) <= LINE_LIMIT else None
    return None if pair is None else (quick_pairs.encode(pair) + b"\n", pair.prompt_id, pair.id)


def _slowly(build: Any, line: Line | Rejected) -> tuple[bytes, str, str] | Rejected:
    if isinstance(line, Rejected):
        return line
    ids = _Named()
    try:
        pair = build(line, ids)
    except Reject as why:
        return reject_line(line, why)
    return as_line(pair), pair.prompt_id, ids.own


@dataclass(slots=True)
class _Spool:
    """Pairs as they come, written to the shards that they will be in."""

    folder: Path
    size: int  # prompts a shard
    digest: Any = None
    rejects: list[Rejected] = field(default_factory=list)
    runs: int = 0  # of rows of one prompt
    last: bytes = b""  # the mark of the last prompt
    prompts: list[Any] = field(default_factory=list)  # the marks of the runs
    ids: list[bytes] = field(default_factory=list)
    shard: int = -1  # that is being written
    file: Any = None

    def __post_init__(self) -> None:
        self.digest = hashlib.sha256(b"%d" % self.size)

    def add(self, read: Read) -> None:
        """The next piece."""
        self.rejects += read.rejects
        if not read.ends:
            return
        marks = np.frombuffer(self.last + read.prompts, dtype=np.uint64)
        begins = marks[1:] != marks[:-1] if self.last else np.append(True, marks[1:] != marks[:-1])
        run = self.runs - 1 + np.cumsum(begins)  # of each row
        self._write(read, np.asarray(run // self.size))
        self.digest.update(read.lines)
        self.prompts.append(np.frombuffer(read.prompts, dtype=np.uint64)[begins])
        self.ids.append(read.ids)
        self.runs, self.last = int(run[-1]) + 1, read.prompts[-8:]

    def _write(self, read: Read, shards: Any) -> None:
        firsts = [0, *(np.flatnonzero(np.diff(shards)) + 1).tolist()]
        for first, after in zip(firsts, [*firsts[1:], len(shards)], strict=True):
            path = self.path(int(shards[first]))
            with naming(path):
                if self.shard != shards[first]:
                    self.close()
                    self.shard, self.file = int(shards[first]), open(path, "wb", opener=private_opener)  # noqa: SIM115
                self.file.write(read.lines[read.ends[first - 1] if first else 0 : read.ends[after - 1]])

    def path(self, shard: int) -> Path:
        """A shard's file."""
        return self.folder / f"{shard:05d}.jsonl"

    def close(self) -> None:
        """No more is written."""
        if self.file is not None:
            with naming(self.path(self.shard)):
                self.file.close()
            self.file = None

    def feed(self) -> Feed | None:
        """What was written; None: it has to be read again, row by row."""
        if not self.runs or _repeats(np.concatenate(self.prompts)) or _repeats(np.frombuffer(b"".join(self.ids), np.uint64)):
            return None
        # the file's own name and line: the same input reached by another path is the same input
        self.digest.update(orjson.dumps([reject.where.rpartition("/")[2] for reject in self.rejects]))
        shards = -(-self.runs // self.size)

        def files(shard: int) -> list[Path]:
            return [self.path(shard)]

        def units() -> Iterator[Unit]:
            for shard in range(shards):
                rows = pairs_table.read_pairs(files(shard))
                yield from (Unit(shard, list(group)) for _, group in itertools.groupby(rows, key=attrgetter("prompt_id")))

        return Feed(units, self.runs, shards, self.digest.hexdigest(), self.rejects, files=files)


def _repeats(marks: Any) -> bool:
    return len(np.unique(marks)) < len(marks)
