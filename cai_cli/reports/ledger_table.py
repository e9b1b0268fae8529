"""What a ledger takes, and what leaves it, as lines and rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from cai_cli.reports.quantities import count, counted, dollars, size

if TYPE_CHECKING:
    from cai_cli.engine.ledger_size import Sizes
    from cai_cli.engine.ledger_upkeep import Pruned

GOING = ("stage", "replies", "bytes", "cost")


def size_lines(found: Sizes) -> Iterator[tuple[str, str]]:
    """Facts of the whole file, as name and text."""
    yield "ledger", str(found.path)
    beside = f", {size(found.wal_bytes)} in its log" if found.wal_bytes else ""
    empty = f"; {size(found.free_bytes)} of it lie empty, for the next replies" if found.free_bytes else ""
    yield "file", f"{size(found.bytes)}{beside}{empty}"
    if found.replies:
        cost = sum(stage.dollars for stage in found.stages)
        each = size(found.stored_bytes / found.replies)
        yield "replies", f"{found.replies:,}, which cost {dollars(cost)}; {each} each, as kept"
    if found.compression is not None and found.a_million_more is not None:
        yield "packed", f"to {found.compression:.0%} of what they are"
        room = f"; the disk has {size(found.disk_free_bytes)} free"
        yield "1M more", f"would take about {size(found.a_million_more)}, with all that is kept beside a reply{room}"
    if found.outputs > 1:
        yield "shared", f"by {found.outputs} outputs; all of them are counted here"


def size_head(found: Sizes) -> tuple[str, ...]:
    """The columns of `size_rows`."""
    failures = ("failures",) if any(stage.failures for stage in found.stages) else ()
    return ("stage", "replies", *failures, "kept", "unpacked", "cost", "in newest")


def size_rows(found: Sizes) -> Iterator[tuple[str, ...]]:
    """A row a stage."""
    told = "failures" in size_head(found)
    for one in found.stages:
        newest = "-" if one.in_newest is None else count(one.in_newest)
        failures = (count(one.failures),) if told else ()
        yield (one.stage or "-", count(one.replies), *failures, size(one.bytes), size(one.unpacked_bytes), dollars(one.dollars),
               newest)  # fmt: skip


def pruned_lines(found: Pruned) -> Iterator[tuple[str, str]]:
    """What changes of the file, as name and text."""
    yield "ledger", str(found.path)
    yield "file", f"{size(found.before_bytes)} before, {size(found.after_bytes)} now" if found.done else size(found.before_bytes)
    if found.packed:
        yield "packed", f"{counted(found.packed, 'reply', 'replies')} of an earlier cai"
    elif found.packable and not found.done:
        yield "packed", f"{counted(found.packable, 'reply', 'replies')} of an earlier cai would be"
    if found.note:
        yield "room", found.note
    if found.shared:
        yield "shared", "with other outputs, which may have been given the same replies; only what this output bought goes"


def going_rows(found: Pruned) -> Iterator[tuple[str, ...]]:
    """A row a stage."""
    for one in found.going:
        yield one.stage or "-", count(one.replies), size(one.bytes), dollars(one.dollars)
