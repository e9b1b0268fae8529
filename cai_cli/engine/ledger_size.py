"""What a ledger takes: its file, its replies by stage, what compression saves, what more of them would take. Changes nothing."""

from __future__ import annotations

import shutil
import sqlite3
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cai_cli.config import Config
from cai_cli.engine import plan, versions
from cai_cli.engine.ledger import reading
from cai_cli.engine.reply_bytes import unpacked
from cai_cli.engine.runs import own
from cai_cli.errors import Exit, Fix

MILLION = 1_000_000
LOOKED_AT = 2_000  # replies that are unpacked to know what compression saves

_BY_STAGE = """SELECT coalesce(stage, ''), count(*), sum(length(reply)), coalesce(sum(dollars), 0.0), min(at), max(at)
  FROM replies GROUP BY stage"""
_AFTER = "SELECT coalesce(stage, ''), reply FROM replies WHERE id >= ? ORDER BY id LIMIT 1"


@dataclass(frozen=True, slots=True, kw_only=True)
class StageSize:
    """A stage's replies. Bytes: of the replies as they are kept, and unpacked (estimated where there are very many).

    `in_newest`: replies that the rows of the stage's newest version were made of; None: it has none. A reply may serve several
    rows. `oldest`, `newest`: seconds since 1970; None: there is no reply.
    """

    stage: str
    replies: int = 0
    failures: int = 0
    bytes: int = 0
    unpacked_bytes: int = 0
    dollars: float = 0.0
    in_newest: int | None = None
    oldest: float | None = None
    newest: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """A whole ledger, in bytes. `wal_bytes`: of the log beside it. `free_bytes`: inside the file, used by the next replies.

    `outputs`: that share it. `disk_free_bytes`: on its disk.
    """

    path: Path
    bytes: int
    wal_bytes: int
    free_bytes: int
    outputs: int
    disk_free_bytes: int
    stages: tuple[StageSize, ...]

    @property
    def replies(self) -> int:
        return sum(stage.replies for stage in self.stages)

    @property
    def stored_bytes(self) -> int:
        return sum(stage.bytes for stage in self.stages)

    @property
    def compression(self) -> float | None:
        """Bytes of the replies as they are kept / unpacked; None: there are none."""
        whole = sum(stage.unpacked_bytes for stage in self.stages)
        return self.stored_bytes / whole if whole else None

    @property
    def a_million_more(self) -> int | None:
        """Bytes that a million replies like these would take; None: there are none."""
        return round((self.bytes - self.free_bytes) / self.replies * MILLION) if self.replies else None

    def document(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "path": str(self.path), "bytes": self.bytes, "wal_bytes": self.wal_bytes, "free_bytes": self.free_bytes,
            "replies": self.replies, "reply_bytes": self.stored_bytes, "compression": self.compression,
            "bytes_per_million": self.a_million_more, "outputs": self.outputs, "disk_free_bytes": self.disk_free_bytes,
            "stages": [asdict(stage) for stage in self.stages],
        }  # fmt: skip


def path_of(config: Config) -> Path:
    """A config's ledger. Raises: Fix (exit 65): there is none yet"""
    path = config.state_path / "ledger.sqlite"
    if not path.exists():
        raise Fix(f"there is no ledger yet: {path}", "the first run makes it; or name the output with -o", Exit.INPUT)
    return path


def measure(config: Config) -> Sizes:
    """What the ledger of a config takes. Raises: Fix (exit 65): there is none; Fatal: it cannot be read"""
    path, newest = path_of(config), _in_newest(config)
    with reading(path) as db:
        pages = _pragma(db, "page_size"), _pragma(db, "freelist_count")
        outputs = 1 if own(config.state_path, config.output_path) else _one(db, "SELECT count(DISTINCT job) FROM spending")
        stages = tuple(_stages(db, newest))
    return Sizes(
        path=path, bytes=path.stat().st_size, wal_bytes=_bytes(path.with_name(path.name + "-wal")),
        free_bytes=pages[0] * pages[1], outputs=outputs, disk_free_bytes=shutil.disk_usage(path.parent).free, stages=stages,
    )  # fmt: skip


def _bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _pragma(db: sqlite3.Connection, name: str) -> int:
    return _one(db, f"PRAGMA {name}")


def _one(db: sqlite3.Connection, statement: str) -> int:
    (found,) = db.execute(statement).fetchone()
    return int(found)


def _in_newest(config: Config) -> dict[str, int]:
    """Replies behind the newest version of each stage."""
    found = ((stage, versions.latest(config.output_path, stage)) for stage in plan.stage_names())
    return {stage: int(version.manifest.get("replies", 0)) for stage, version in found if version is not None}


def _stages(db: sqlite3.Connection, in_newest: Mapping[str, int]) -> Iterator[StageSize]:
    failures = dict(db.execute("SELECT coalesce(stage, ''), count(*) FROM failures GROUP BY stage"))
    replies = {stage: rest for stage, *rest in db.execute(_BY_STAGE)}
    ratio = _ratios(db, sum(count for count, *_ in replies.values()))
    order = {stage: place for place, stage in enumerate(plan.stage_names())}
    for stage in sorted({*replies, *failures}, key=lambda name: (order.get(name, len(order)), name)):
        count, stored, dollars, oldest, newest = replies.get(stage, (0, 0, 0.0, None, None))
        yield StageSize(
            stage=stage, replies=count, failures=failures.get(stage, 0), bytes=stored,
            unpacked_bytes=round(stored * ratio.get(stage, ratio[""])), dollars=dollars, in_newest=in_newest.get(stage),
            oldest=oldest, newest=newest,
        )  # fmt: skip


def _ratios(db: sqlite3.Connection, replies: int) -> dict[str, float]:
    """By stage, and under "" for all: bytes unpacked / as they are kept, of all replies or of so many that lie evenly apart."""
    kept: defaultdict[str, int] = defaultdict(int)
    whole: defaultdict[str, int] = defaultdict(int)
    for stage, reply in _some(db, replies):
        for name in {stage, ""}:
            kept[name] += len(reply)
            whole[name] += len(unpacked(reply))
    return {"": 1.0} | {name: whole[name] / kept[name] for name in kept}


def _some(db: sqlite3.Connection, replies: int) -> Iterator[tuple[str, bytes]]:
    if replies <= LOOKED_AT:
        yield from db.execute("SELECT coalesce(stage, ''), reply FROM replies")
        return
    first, last = db.execute("SELECT min(id), max(id) FROM replies").fetchone()
    for n in range(LOOKED_AT):
        yield db.execute(_AFTER, (first + n * (last - first) // LOOKED_AT,)).fetchone()
