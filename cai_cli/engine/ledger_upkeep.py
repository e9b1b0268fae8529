"""What may leave a ledger: replies by age, by stage, or that a retry superseded. What was spent stays counted.

A key does not tell who may ask for it again, so nothing is taken for useless: whoever prunes names what goes. Replies go some at
a time, each group in one transaction, so that a prune which is killed has done a part of its work and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cai_cli.config import Config
from cai_cli.engine import runs
from cai_cli.engine.ledger import SCHEMA_VERSION, reading
from cai_cli.engine.ledger_size import path_of
from cai_cli.engine.lock import Held, IfLocked, lock_files, locked
from cai_cli.engine.reply_bytes import WORTH_WHILE, packed, unpacked
from cai_cli.engine.retries import Retries
from cai_cli.errors import Exit, Fatal, Fix

AT_ONCE = 2_000  # replies a transaction
SPARE = 0.1  # of the file that may lie empty before it is written anew
ROOM = 2.1  # times what is kept: a file that is written anew passes through a temporary one and the log beside it
_PLAIN = "substr(reply, 1, 1) = x'7b' AND length(reply) >= ?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Which replies are to go: all that is said must hold. Nothing said: none."""

    before: float | None = None  # written before, in seconds since 1970
    stage: str | None = None
    superseded: bool = False  # by a retry that has come to its end

    @property
    def any(self) -> bool:
        return self.before is not None or self.stage is not None or self.superseded


@dataclass(frozen=True, slots=True, kw_only=True)
class Going:
    """What goes, or went, of one stage: replies, bytes of them as they are kept, dollars that they cost."""

    stage: str
    replies: int
    bytes: int
    dollars: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What a prune does, or did. Bytes are the file's. `packable`: replies of an earlier cai that are not compressed yet.

    `packed`: those that now are. `note`: why room inside the file was not given back.
    """

    path: Path
    done: bool
    shared: bool
    going: tuple[Going, ...]
    packable: int
    before_bytes: int
    after_bytes: int
    packed: int = 0
    note: str = ""

    @property
    def replies(self) -> int:
        return sum(one.replies for one in self.going)

    @property
    def dollars(self) -> float:
        return sum(one.dollars for one in self.going)

    def document(self) -> dict[str, Any]:
        """Plain JSON values."""
        stages = [{"stage": one.stage, "replies": one.replies, "bytes": one.bytes, "dollars": one.dollars} for one in self.going]
        return {
            "path": str(self.path), "done": self.done, "shared": self.shared, "replies": self.replies, "dollars": self.dollars,
            "stages": stages, "packable": self.packable, "packed": self.packed, "bytes_before": self.before_bytes,
            "bytes_after": self.after_bytes, "note": self.note,
        }  # fmt: skip


def look(config: Config, wanted: Wanted) -> Pruned:
    """What a prune would do. Raises: Fix (exit 65): no ledger; (exit 2): no such stage in it; Fatal: it cannot be read"""
    path = path_of(config)
    with reading(path) as db:
        # what is only read for this is kept in memory, not in the ledger
        return _choose(db, config, path, wanted)


def prune(config: Config, wanted: Wanted, if_locked: IfLocked, command: str) -> Pruned:
    """Let replies go, compress what is not, and give room back. Holds the output's locks.

    Raises: Fix, Fatal as `look` does; Held: a run goes on, of this output or of another that shares the ledger
    """
    path = path_of(config)
    with ExitStack() as stack:
        for lock in lock_files(config):
            stack.enter_context(locked(lock, if_locked, command))
        _refuse_running(config)
        db = stack.enter_context(_writing(path))
        found = _choose(db, config, path, wanted)
        _delete(db)
        count, note = _pack(db), shrink(db, path)
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return replace(found, done=True, packed=count, after_bytes=path.stat().st_size, note=note)


def _refuse_running(config: Config) -> None:
    """A run that streams holds no lock, and another output's run not this one's. Raises: Held"""
    for run in runs.all_of(config.state_path, None):
        if run["state"] == "running":
            raise Held(f"a run uses this ledger: process {run['pid']} ({run['command']})", "wait for it, or stop it first")


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[sqlite3.Connection]:
    db = sqlite3.connect(path, timeout=60, isolation_level=None)
    try:
        db.execute("PRAGMA journal_mode=WAL")
        db.execute("PRAGMA synchronous=FULL")
        yield db
    except sqlite3.Error as error:
        raise Fatal(f"the ledger cannot be pruned: {path}: {error}", "what is left of it is whole; check the disk, then run the "
                    "same command again", Exit.DISK) from error  # fmt: skip
    finally:
        db.close()


def _choose(db: sqlite3.Connection, config: Config, path: Path, wanted: Wanted) -> Pruned:
    """Note the ids of all that goes in a table of this connection's own, `going`."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA_VERSION:
        raise Fix(f"{path} was written by a newer cai", "pip install --upgrade cai-cli")
    _refuse_unknown(db, wanted.stage)
    shared = not runs.own(config.state_path, config.output_path)
    db.execute("PRAGMA temp_store=MEMORY")
    db.execute("CREATE TEMP TABLE going (id INTEGER PRIMARY KEY)")
    db.execute("CREATE TEMP TABLE gone (key BLOB PRIMARY KEY)")
    db.executemany("INSERT OR IGNORE INTO gone VALUES (?)", ((key,) for key in _superseded(config, wanted)))
    if wanted.any:
        clauses, values = _clauses(wanted, str(config.output_path.resolve()) if shared else None)
        db.execute(f"INSERT INTO going SELECT id FROM replies WHERE {' AND '.join(clauses)}", values)
    by_stage = """SELECT coalesce(stage, ''), count(*), sum(length(reply)), coalesce(sum(dollars), 0.0)
      FROM going JOIN replies USING (id) GROUP BY stage ORDER BY stage"""
    going = tuple(Going(stage=one[0], replies=one[1], bytes=one[2], dollars=one[3]) for one in db.execute(by_stage))
    (packable,) = db.execute(f"SELECT count(*) FROM replies WHERE {_PLAIN}", (WORTH_WHILE,)).fetchone()
    size = path.stat().st_size
    return Pruned(path=path, done=False, shared=shared, going=going, packable=packable, before_bytes=size, after_bytes=size)


def _refuse_unknown(db: sqlite3.Connection, stage: str | None) -> None:
    if stage is None:
        return
    stages = [name for (name,) in db.execute("SELECT DISTINCT stage FROM replies")]
    if stage not in stages:
        there = ", ".join(sorted(filter(None, stages))) or "none"
        raise Fix(f"the ledger holds no reply of '{stage}'", f"stages that it has replies of: {there}")


def _superseded(config: Config, wanted: Wanted) -> Collection[bytes]:
    if not wanted.superseded:
        return ()
    every = Retries.of(config.output_path).batches
    return {bytes.fromhex(one.key) for batch in every if batch.ended for one in batch.questions}


def _clauses(wanted: Wanted, job: str | None) -> tuple[list[str], list[Any]]:
    """`job`: the output whose runs bought what may go; None: all of the ledger is its own"""
    said: Sequence[tuple[str, Any]] = (
        ("at < ?", wanted.before), ("stage = ?", wanted.stage), ("run IN (SELECT run FROM spending WHERE job = ?)", job),
    )  # fmt: skip
    clauses = [(clause, value) for clause, value in said if value is not None]
    also = ["key IN (SELECT key FROM gone)"] if wanted.superseded else []
    return [*(clause for clause, _ in clauses), *also], [value for _, value in clauses]


def _delete(db: sqlite3.Connection) -> None:
    while ids := db.execute("SELECT id FROM going ORDER BY id LIMIT ?", (AT_ONCE,)).fetchall():
        with _transaction(db):
            db.executemany("DELETE FROM replies WHERE id = ?", ids)
            db.execute("DELETE FROM going WHERE id <= ?", ids[-1])


def _pack(db: sqlite3.Connection) -> int:
    """Compress replies that an earlier cai wrote. Gives: how many"""
    done, after = 0, 0
    some = f"SELECT id, reply FROM replies WHERE id > ? AND {_PLAIN} ORDER BY id LIMIT ?"
    while rows := db.execute(some, (after, WORTH_WHILE, AT_ONCE)).fetchall():
        small = [(packed(json), number) for number, json in rows]
        # They were paid for: what is written in their place has been read back.
        assert [unpacked(data) for data, _ in small] == [json for _, json in rows]
        with _transaction(db):
            db.executemany("UPDATE replies SET reply = ? WHERE id = ?", small)
            db.execute(f"PRAGMA user_version={SCHEMA_VERSION}")
        done, after = done + len(rows), rows[-1][0]
    return done


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def shrink(db: sqlite3.Connection, path: Path, free: Callable[[Path], int] | None = None) -> str:
    """Write the file anew without what lies empty in it. Gives: why not, where that is to be told"""
    pages, spare, page = (db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size"))
    if spare <= SPARE * pages:
        return ""
    needed, there = round(ROOM * (pages - spare) * page), (free or _free)(path.parent)
    if there < needed:
        return (f"{spare * page / 1e6:,.0f} MB lie empty in the file, and the next replies take them; to give them back the disk "
                f"needs {needed / 1e6:,.0f} MB free")  # fmt: skip
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    # What is chosen is gone by now. The temporary file is as large as the ledger: not in memory, nor where /tmp is that.
    db.execute("PRAGMA temp_store=FILE")
    db.execute("PRAGMA temp_store_directory='{}'".format(str(path.parent.resolve()).replace("'", "''")))
    try:
        db.execute("VACUUM")
    finally:
        db.execute("PRAGMA temp_store_directory=''")
    return ""


def _free(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize
