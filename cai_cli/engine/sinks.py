"""Where finished rows go: to shards, partition by partition, or to a stream, in input order."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from cai_cli.engine.disk import Patience, naming, patiently, private_opener
from cai_cli.engine.drive import Usage
from cai_cli.engine.shards import Made, Staging, as_line
from cai_cli.records import Rejected, Vote

Done = tuple[dict[str, Made], Usage]


@dataclass(slots=True)
class Progress:
    """What a run has finished so far, by stage; for the display and the run's log."""

    prompts: int = 0
    rows: Counter[str] = field(default_factory=Counter)
    rejected: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    filtered: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    votes: int = 0
    abstained: int = 0  # of these votes

    def add(self, made: dict[str, Made]) -> None:
        self.prompts += 1
        for stage, one in made.items():
            self.rows[stage] += len(one.rows)
            self.filtered[stage].update(one.filtered)
            self.rejected[stage].update(reject.reason for reject in one.rejects)
            for vote in (vote for row in one.rows for vote in _votes(stage, row)):
                self.votes += 1
                self.abstained += vote.verdict == "abstain"

    @property
    def abstain_rate(self) -> float:
        """Share of the votes that are none. A row without any verdict was rejected: it counts as one."""
        mute = sum(reasons["no_verdict"] for reasons in self.rejected.values())
        return (self.abstained + mute) / max(1, self.votes + mute)

    def reject(self, stage: str, rejects: Iterable[Rejected]) -> None:
        """Count input that could not be used."""
        self.rejected[stage].update(reject.reason for reject in rejects)

    def facts(self, stage: str) -> dict[str, Any]:
        return {"rows": self.rows[stage], "rejected": dict(self.rejected[stage]), "filtered": dict(self.filtered[stage])}

    def add_marker(self, marker: dict[str, Any]) -> None:
        """Count a partition that an earlier run finished."""
        for stage, tally in marker.items():
            self.rows[stage] += tally["rows"]
            self.rejected[stage].update(tally["rejected"])
            self.filtered[stage].update(tally["filtered"])


def _votes(stage: str, row: Any) -> Iterator[Vote]:
    """The votes that a stage bought for a row: on the pair, or on revisions."""
    if stage == "label-pairs":
        yield from row.votes
    elif stage == "revise":
        yield from (vote for one in getattr(row, "rounds", ()) for vote in one.votes)


class Sink(Protocol):
    progress: Progress
    patience: Patience

    def skip(self, shard: int) -> bool:
        """Whether a partition is whole already."""

    async def add(self, shard: int, position: int, done: Done) -> None:
        """Take what one prompt gave; `position` is its place in the partition."""

    async def close(self, shard: int, units: int) -> None:
        """All `units` prompts of a partition have been handed out."""


class ShardSink:
    """Writes a partition when its last prompt is done."""

    def __init__(self, staging: Staging) -> None:
        self.staging, self.progress, self.patience = staging, Progress(), Patience()
        self._units: defaultdict[int, dict[int, Done]] = defaultdict(dict)
        self._expected: dict[int, int] = {}
        self._skipped: dict[int, dict[str, Any] | None] = {}

    def skip(self, shard: int) -> bool:
        if shard not in self._skipped:
            self._skipped[shard] = self.staging.done(shard)
            if marker := self._skipped[shard]:
                self.progress.add_marker(marker)
        return self._skipped[shard] is not None

    async def add(self, shard: int, position: int, done: Done) -> None:
        self._units[shard][position] = done
        self.progress.add(done[0])
        await self._write_if_whole(shard)

    async def close(self, shard: int, units: int) -> None:
        self._expected[shard] = units
        await self._write_if_whole(shard)

    async def _write_if_whole(self, shard: int) -> None:
        if self._expected.get(shard) != len(self._units[shard]):
            return
        units = self._units.pop(shard)
        await asyncio.to_thread(patiently, self.patience, self.staging.write, shard, [units[at] for at in sorted(units)])

    def forget(self, reasons: set[str]) -> None:
        """Take back staged partitions that hold rejects for one of these reasons: they were not the rows' fault.

        Those of an earlier run too: where a refusal was a row's own, the ledger has it and it comes back unasked.
        """
        for shard in range(self.staging.layout.shards):
            marker = self.staging.done(shard) or {}
            if any(reasons & tally["rejected"].keys() for tally in marker.values()):
                self.staging.forget(shard)


class StreamSink:
    """Writes rows of one stage to a stream, in input order, as soon as all before them are done; rejects go to a file."""

    def __init__(self, stream: BinaryIO, stage: str, rejects: Path) -> None:
        self.stream, self.stage, self.rejects, self.progress = stream, stage, rejects, Progress()
        self.patience = Patience()
        self._waiting: dict[tuple[int, int], Done] = {}
        self._next = (0, 0)
        self._ends: dict[int, int] = {}

    def skip(self, shard: int) -> bool:
        return False

    async def add(self, shard: int, position: int, done: Done) -> None:
        self._waiting[shard, position] = done
        self._flush()

    async def close(self, shard: int, units: int) -> None:
        self._ends[shard] = units
        self._flush()

    def _flush(self) -> None:
        while True:
            shard, position = self._next
            if self._ends.get(shard) == position:
                self._next = (shard + 1, 0)
            elif (done := self._waiting.pop(self._next, None)) is not None:
                self.emit(done[0])
                self._next = (shard, position + 1)
            else:
                return

    def emit(self, made: dict[str, Made]) -> None:
        """Write what one prompt gave, now."""
        self.progress.add(made)
        with naming(getattr(self.stream, "name", "the stream of rows")):
            for row in made[self.stage].rows:
                self.stream.write(as_line(row))
            self.stream.flush()
        self.keep([reject for one in made.values() for reject in one.rejects])

    def keep(self, rejects: Sequence[Rejected]) -> None:
        """Write rejected rows to their file, which is made with the first of them."""
        if rejects:
            with naming(self.rejects), open(self.rejects, "ab", opener=private_opener) as file:
                file.writelines(map(as_line, rejects))
