"""What a job works on: rows, prompt by prompt, cut into partitions, and readable twice."""

from __future__ import annotations

import hashlib
import itertools
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from cai_cli.engine.disk import private_opener
from cai_cli.engine.files import STDIN, header_hint, shown
from cai_cli.engine.inputs import group_by_prompt, read_rows
from cai_cli.engine.spool import Spool
from cai_cli.engine.versions import REMAKE, Version
from cai_cli.errors import Exit, Fix
from cai_cli.records import Rejected

REASONS = 10  # in a message


class Unit(NamedTuple):
    """The rows of one prompt."""

    shard: int
    rows: Sequence[Any]


Past = Callable[[Callable[[int], bool]], Iterator[Unit]]


@dataclass(frozen=True)
class Feed:
    """Input that was read once already: counted, hashed, its unusable rows set aside."""

    units: Callable[[], Iterator[Unit]]
    prompts: int
    shards: int
    fingerprint: str
    rejects: list[Rejected] = field(default_factory=list)
    parents: tuple[Version, ...] = ()
    files: Callable[[int], Sequence[Path]] | None = None  # a shard's, where these hold its rows just as cai writes them
    past: Past | None = None  # see `left`; None: all has to be read

    def left(self, done: Callable[[int], bool]) -> Iterator[Unit]:
        """The same units; those of partitions that are done may come without their rows, where these need not be read."""
        return self.past(done) if self.past is not None else self.units()


def alone(rows: Iterable[Any]) -> Iterator[Any]:
    """Every row a group of its own: prompts."""
    return (row if isinstance(row, Rejected) else (row,) for row in rows)


def from_reader(
    read: Callable[[], Iterable[Any]], size: int, limit: int | None, name: str, check: bool = True, folder: Path | None = None
) -> Feed:
    """Survey groups of rows (or Rejected) that `read` gives anew each time it is called.

    `size`: prompts a partition. `limit`: the first so many prompts only. `check`: look for rows that cannot be told apart.
    `folder`: a private one, for prompts, each a group of its own, that are written down to be read once; None: `read` gives them.
    Raises: Fix (exit 65) when nothing is usable, ids clash, or the rows of a prompt are scattered
    """
    digest, prompts, rejects, seen = hashlib.sha256(b"%d" % size), 0, list[Rejected](), _Seen()
    spool = Spool(folder, size) if folder is not None else None
    written = _written if spool is None else spool.add
    for group in _limited(read(), limit):
        if isinstance(group, Rejected):
            rejects.append(group)
            continue
        prompts += 1
        if check:
            seen.check(group)
        for row in group:
            digest.update(written(row))
    if not prompts:
        raise _nothing_usable(shown(name), rejects, check)
    # the file's own name and line: the same input reached by another path is the same input
    digest.update(orjson.dumps([reject.where.rpartition("/")[2] for reject in rejects]))
    units, past = (_again(read, size, limit), None) if spool is None else _spooled(spool)
    return Feed(units, prompts, -(-prompts // size), digest.hexdigest(), rejects, past=past)


def _written(row: Any) -> bytes:
    return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)


def _again(read: Callable[[], Iterable[Any]], size: int, limit: int | None) -> Callable[[], Iterator[Unit]]:
    def units() -> Iterator[Unit]:
        usable = (group for group in _limited(read(), limit) if not isinstance(group, Rejected))
        return (Unit(number // size, group) for number, group in enumerate(usable))

    return units


def _spooled(spool: Spool) -> tuple[Callable[[], Iterator[Unit]], Past]:
    spool.end()

    def past(done: Callable[[int], bool]) -> Iterator[Unit]:
        return spool.units(Unit, done)

    return (lambda: past(lambda _: False)), past


def _limited(groups: Iterable[Any], limit: int | None) -> Iterator[Any]:
    taken = 0
    for group in groups:
        if limit is not None and taken >= limit:
            return
        taken += not isinstance(group, Rejected)
        yield group


class _Seen:
    """Finds what cannot be told apart later: rows with one id, and prompts whose rows are scattered."""

    def __init__(self) -> None:
        self.rows: set[int] = set()
        self.prompts: set[int] = set()

    def check(self, group: Sequence[Any]) -> None:
        if self._again(self.prompts, group[0].prompt_id):
            raise Fix(
                f"the rows of prompt_id '{group[0].prompt_id}' are not next to each other",
                "sort the input by prompt_id",
                Exit.INPUT,
            )
        for row in group:
            if self._again(self.rows, row.id):
                raise Fix(f"two rows have the id '{row.id}'", "give every row its own id", Exit.INPUT)

    def _again(self, seen: set[int], value: str) -> bool:
        mark = hash(value)
        found = mark in seen
        seen.add(mark)
        return found


def _nothing_usable(name: str, rejects: Sequence[Rejected], of_a_stage: bool) -> Fix:
    """Every reason once, with the first row that has it and how many more do."""
    places: dict[tuple[str, str], list[str]] = {}
    for reject in rejects:
        places.setdefault((reject.reason, reject.detail), []).append(reject.where)
    said = [f"{_first_of(where)}: {reason}: {detail}".removesuffix(": ") for (reason, detail), where in places.items()]
    first = [(message, "") for message in said[:REASONS]]
    hint = header_hint(name) + _what_to_give([reason for reason, _ in places], of_a_stage)
    head = (f"{name} holds no usable row", "")
    return Fix(head[0], hint, Exit.INPUT, (head, *first[:-1], (first[-1][0], hint)))


def _first_of(places: Sequence[str]) -> str:
    return f"{places[0]} and {len(places) - 1:,} more" if len(places) > 1 else places[0]


def _what_to_give(reasons: Sequence[str], of_a_stage: bool) -> str:
    if "not_json" in reasons or "not_an_object" in reasons:
        return 'a file of rows holds one JSON object a line, as in {"prompt": "..."}'
    if of_a_stage:
        return "this stage reads rows that a stage before it wrote, such as those of: cai generate CONFIG -o - > rows.jsonl"
    if "missing_column" in reasons:
        return ("prompts: name their column with --set prompts.column=NAME; pairs have response_a and response_b, or chosen and "
                "rejected; debias reads what `cai label-pairs` wrote")  # fmt: skip
    return "mend these rows, or give others with -i"


def from_version(version: Version, shape: type[Any], limit: int | None) -> Feed:
    """The rows of a published version: shard k of what is made from it holds the prompts of its shard k."""

    def units() -> Iterator[Unit]:
        return itertools.islice(_version_units(version, shape), limit)

    prompts = int(version.manifest["prompts"])
    limit = limit if limit is not None and limit < prompts else None  # one that cuts nothing changes nothing
    # the version itself is a parent, which the lineage holds: only what is taken of it is told here
    files = version.files if limit is None else None
    return Feed(units, limit or prompts, version.shards, f"limit {limit}" if limit else "", [], (version,), files)


def _version_units(version: Version, shape: type[Any]) -> Iterator[Unit]:
    for shard in range(version.shards):
        for group in group_by_prompt(read_rows(shape, version.files(shard))):
            if isinstance(group, Rejected):
                raise Fix(f"{group.where}: {group.reason}: {group.detail}; a published file was changed", REMAKE, Exit.INPUT)
            yield Unit(shard, group)


def spool(stream: Any, folder: Path) -> Path:
    """Copy stdin to a file, so that it can be read twice. Gives: its path"""
    path = folder / STDIN
    with open(path, "wb", opener=private_opener) as file:
        shutil.copyfileobj(stream, file)
    return path
