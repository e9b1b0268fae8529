"""Many pairs with votes, shard by shard: read in large pieces, measured and labelled by processes that share the shards.

What is made is the same as row by row, and the same whatever the number of processes. Where a shard holds something that is not
just as cai writes it, that shard is read row by row, by the readers that know what to say of it.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from cai_cli.auditing.labels import Gold, with_gold
from cai_cli.engine import quick_pairs, workers
from cai_cli.engine.disk import write_soon
from cai_cli.engine.drive import Usage
from cai_cli.engine.files import unpacked
from cai_cli.engine.inputs import read_rows
from cai_cli.engine.shards import Made, Staging, Written
from cai_cli.engine.versions import REMAKE
from cai_cli.errors import Exit, Fix, Reject
from cai_cli.records import Pair, Rejected, from_row, rejected
from cai_cli.tables import debias
from cai_cli.tables._pilot import NO_PILOT, Pilot

if TYPE_CHECKING:
    from cai_cli.tables._columns import Columns, Part
    from cai_cli.tables._labels import Label, Labels

PIECE = 1 << 21  # bytes that are decoded at once, and a line more
NAME = "debias"
Quick = Callable[[bytes], "list[Any] | None"]
Files = Callable[[int], Sequence[Path]]  # a shard's files


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table of pairs, and what is to be known to work on a shard of it."""

    settings: debias.Settings
    shards: Sequence[Sequence[Path]]  # the files of each
    prompts: int
    gold: Mapping[str, Gold] = field(default_factory=dict)  # by pair id
    pilot: Pilot = NO_PILOT

    @property
    def size(self) -> int:
        """In bytes."""
        return sum(path.stat().st_size for files in self.shards for path in files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """What came of measuring a shard: its rows, and how many of them, from the first on, are just as cai writes them."""

    parts: Sequence[Part]
    rows: int
    written: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All shards' numbers as one, and what is to be known of each shard to read it again."""

    columns: Columns
    shares: Sequence[tuple[int, int]]  # rows, and how many of them are just as cai writes them


# Reading.


def _pieces(path: Path) -> Iterator[bytes]:
    """A file's whole lines, many at once; cut in the same places each time."""
    with unpacked(path) as stream:
        while data := stream.read(PIECE):
            yield data if data.endswith(b"\n") else data + stream.readline()


def _groups(files: Sequence[Path], quick: Quick) -> Iterator[list[Any]]:
    """Rows as `quick` gives them, and from the first piece on that it does not take, as pairs, read row by row.

    Raises: Fix (exit 65): a row cannot be used
    """
    taken = 0
    for data in itertools.chain.from_iterable(map(_pieces, files)):
        if (rows := quick(data)) is None:
            yield from _slowly(files, taken)
            return
        taken += len(rows)
        yield rows


def _slowly(files: Sequence[Path], after: int) -> Iterator[list[Pair]]:
    rows = itertools.islice(read_rows(Pair, files), after, None)
    while group := list(itertools.islice(map(_usable, rows), 1000)):
        yield group


def _usable(row: Pair | Rejected) -> Pair:
    if isinstance(row, Rejected):
        raise Fix(f"{row.where}: {row.reason}: {row.detail}; a published file was changed", REMAKE, Exit.INPUT)
    return row


def read_pairs(files: Sequence[Path]) -> Iterator[Pair]:
    """The pairs of files that cai wrote. Raises: Fix (exit 65): a row cannot be used"""
    return itertools.chain.from_iterable(_groups(files, quick_pairs.pairs))


def _whole(row: Any) -> Pair:
    """The pair that a quickly read row is."""
    return row if isinstance(row, Pair) else from_row(Pair, orjson.loads(quick_pairs.encode(row)))


# Measuring.


def measured(table: Table, processes: workers.Workers) -> Measured:
    """Go through all shards once. Raises: Fix (exit 65): a file was changed"""
    found, shares = debias.gathering(table.settings, table.prompts), []
    for share in processes.each(functools.partial(measure_shard, table), range(len(table.shards))):
        shares.append((share.rows, share.written))
        for part in share.parts:
            found.add(part)
    return Measured(columns=found.columns(), shares=shares)


def measure_shard(table: Table, shard: int) -> Share:
    """What measuring needs of a shard's pairs, with what people said of them for gold."""
    parts, rows, written = [], 0, 0
    for group in _groups(table.shards[shard], quick_pairs.written):
        known = [with_gold(_whole(row), table.gold) if row.id in table.gold else row for row in group]
        parts.append(debias.gathered(known, table.settings, table.prompts, table.pilot))
        rows += len(group)
        written += 0 if isinstance(group[0], Pair) else len(group)
    return Share(parts=parts or [debias.gathered([], table.settings, table.prompts)], rows=rows, written=written)


# Labelling.


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A shard to be labelled."""

    shard: int
    labels: Labels  # of its rows
    written: int  # rows that are just as cai writes them


def label_shards(
    table: Table, staging: Staging, labels: Labels, shares: Sequence[tuple[int, int]], usages: Sequence[Usage],
    processes: workers.Workers,
) -> None:  # fmt: skip
    """Write all shards. `usages`: of replies that are no row's own; the first shard accounts for them."""
    ends = list(itertools.accumulate(rows for rows, _ in shares))
    tasks = [
        Task(shard=shard, labels=_cut(labels, end - rows, end), written=written)
        for shard, (end, (rows, written)) in enumerate(zip(ends, shares, strict=True))
    ]
    for _ in processes.each(functools.partial(label_shard, table, staging, usages), tasks):
        pass
    staging.settle(NAME)


def _cut(labels: Labels, start: int, end: int) -> Labels:
    return type(labels)(**{one.name: getattr(labels, one.name)[start:end] for one in fields(labels)})


def label_shard(table: Table, staging: Staging, usages: Sequence[Usage], task: Task) -> None:
    """Write a shard's preferences, and what became of its other rows."""
    made, left = Made(), task.written

    def quick(data: bytes) -> list[Any] | None:
        nonlocal left
        rows = quick_pairs.carried(data) if left > 0 else None
        left -= len(rows or ())
        return rows

    labels = iter(task.labels)
    for group in _groups(table.shards[task.shard], quick):
        made.came_in += len(group)
        for row in group:
            _add(made, row, next(labels), table)
    first = [({NAME: Made()}, usage) for usage in usages] if task.shard == 0 else []
    staging.write(task.shard, [*first, ({NAME: made}, Usage())], write_soon)


def _add(made: Made, row: Any, label: Label | None, table: Table) -> None:
    if isinstance(row, Pair) or label is None or row.id in table.gold:
        add_corrected(made, with_gold(_whole(row), table.gold), label, table.settings)
    elif (left := debias.left_out(label, table.settings)) is not None:
        made.filtered[left.reason] += 1
    else:
        for name, value in debias.of_label(row, label).items():
            setattr(row, name, value)
        made.rows.append(Written(row.prompt_id, row.kind, quick_pairs.encode(row) + b"\n"))


def add_corrected(made: Made, pair: Pair, label: Label | None, settings: debias.Settings) -> None:
    """What becomes of one pair: a preference, a reject, or a row that the settings leave out."""
    try:
        outcome = debias.correct(pair, label, settings)
    except Reject as reject:
        made.rejects.append(rejected(reject, NAME, pair))
        return
    if isinstance(outcome, debias.Filtered):
        made.filtered[outcome.reason] += 1
    else:
        made.rows.append(outcome)
