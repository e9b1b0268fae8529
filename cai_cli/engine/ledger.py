"""Every reply that was paid for, by the question it answers. A reply is on disk before a stage sees it.

SQLite in WAL mode with synchronous=FULL. One thread writes, in groups of about 10 ms where much is written, a lone reply at once;
several processes may share the file.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import queue
import sqlite3
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from cai_cli.engine.disk import Patience, disk_full, is_full, make_private, one_at_a_time, refuse_network_filesystem
from cai_cli.engine.reply_bytes import pack, unpack
from cai_cli.errors import Exit, Fatal, Fix, Reject
from cai_cli.flow import Outcome, Reply, Request

SCHEMA_VERSION = 2  # 1: replies were plain JSON, which is still read
GROUP_S = 0.01
CLOSED = "mend its permissions, or set `state:` to another folder"
DAMAGED = ("it is damaged: move it away with its -wal and -shm; published versions are safe; replies that are only in it are "
           "asked and paid for again")  # fmt: skip

_SCHEMA = """
CREATE TABLE IF NOT EXISTS replies (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, stage TEXT, row TEXT, model TEXT, host TEXT,
  mode TEXT, run TEXT, at REAL, dollars REAL, reply BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS failures (id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, stage TEXT, row TEXT, reason TEXT,
  detail TEXT, signature TEXT, run TEXT, at REAL, provisional INTEGER);
CREATE TABLE IF NOT EXISTS spending (run TEXT PRIMARY KEY, job TEXT, leased REAL, settled REAL);
"""
_PUT = "INSERT OR IGNORE INTO replies (key, stage, row, model, host, mode, run, at, dollars, reply) VALUES "
_ROW = "(?,?,?,?,?,?,?,?,?,?)"
# Rows a statement. One row each would hand Python's lock from thread to thread for every row, and the loop would wait for it.
_SIZES = (64, 16, 4, 1)
_PUTS = {size: _PUT + ",".join([_ROW] * size) for size in _SIZES}
_FIND = """SELECT reply, '', '', '' FROM replies WHERE key = ?1
  UNION ALL SELECT NULL, reason, detail, signature FROM failures WHERE key = ?1"""
_FAIL = """INSERT OR REPLACE INTO failures (key, stage, row, reason, detail, signature, run, at, provisional)
  VALUES (?,?,?,?,?,?,?,?,1)"""
# leased is what is settled and what is set aside: between a reply's commit and the return of its reservation a little too much
_SETTLE = "UPDATE spending SET settled = settled + ?, leased = leased + ? WHERE run = ?"


def key_of(request: Request) -> bytes:
    """The request's identity, hashed: 32 bytes of SHA-256 over canonical JSON."""
    return hashlib.sha256(orjson.dumps(request.identity(), option=orjson.OPT_SORT_KEYS)).digest()


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A ledger that is only looked at, by whoever else it is written. Raises: Fatal: it cannot be read"""
    # Without a WAL nobody has it open; a plain read-only connection would then create one and leave it behind.
    how = "mode=ro" if path.with_name(path.name + "-wal").exists() else "immutable=1"
    try:
        db = sqlite3.connect(f"file:{urllib.parse.quote(str(path.absolute()))}?{how}", uri=True, timeout=5)
        try:
            yield db
        finally:
            db.close()
    except sqlite3.Error as error:
        damaged = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT)
        hint = DAMAGED if damaged else "try again in a moment; check the disk and permissions"
        raise Fatal(f"the ledger cannot be read: {path}: {error}", hint, Exit.DISK) from error


def found_in(db: sqlite3.Connection, key: bytes) -> Outcome | None:
    """The reply, or the refusal, that a ledger holds for a key."""
    # all of it, at most two rows: a statement that is not at its end keeps the file's log from being emptied
    if not (found := db.execute(_FIND, (key,)).fetchall()):
        return None
    reply, *refusal = found[0]
    return unpack(reply) if reply is not None else Reject(*refusal)


def spent(db: sqlite3.Connection, job: str, own: bool) -> tuple[float, float]:
    """Dollars (settled, unsettled) of a job over all runs, or of all jobs where the ledger is the output's `own`."""
    sums = "SELECT coalesce(sum(settled), 0.0), coalesce(sum(leased - settled), 0.0) FROM spending WHERE ? OR job = ?"
    settled, unsettled = db.execute(sums, (own, job)).fetchone()
    return settled, unsettled


Job = Callable[[sqlite3.Connection], Any]


@dataclass(slots=True)
class _Write:
    """Something to write: a bought reply, or a job of its own."""

    future: asyncio.Future[Any]
    loop: asyncio.AbstractEventLoop
    job: Job | None = None
    reply: Reply | None = None
    row: tuple[Any, ...] = ()  # what is kept beside the reply
    dollars: float = 0.0


class Ledger:
    """The ledger of one state folder, opened by one process for one run."""

    def __init__(self, path: Path, run: str, job: str, patience: Patience | None = None, own: bool = False) -> None:
        """Open or create. `job` names the output that money is counted for, `own`: all money in this ledger, whatever the output
        was called then; `patience`: how a full disk is waited for.

        Raises: Fix: a network file system, a ledger of a newer version, no permission
        """
        self.path, self.run, self.job, self.own = path, run, job, own
        refuse_network_filesystem(path.parent)
        self._reader, self._writer = self._open()
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self.patience = patience or Patience()
        self._thread = threading.Thread(target=self._write_forever, name="ledger", daemon=True)
        self._thread.start()

    def _open(self) -> tuple[sqlite3.Connection, sqlite3.Connection]:
        try:
            make_private(self.path)
            # SQLite does not wait for another process that is making the same file a WAL one.
            with one_at_a_time(self.path.parent):
                reader = self._connect()
                self._prepare(reader)
                return reader, self._connect()
        except (OSError, sqlite3.Error) as error:
            if is_full(self.path.parent):
                raise disk_full(self.path) from error
            code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
            hint = DAMAGED if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT) else CLOSED
            raise Fix(f"the ledger {self.path} cannot be opened: {error}", hint, Exit.DISK) from error

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=60, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def _prepare(self, reader: sqlite3.Connection) -> None:
        (found,) = reader.execute("PRAGMA user_version").fetchone()
        if found > SCHEMA_VERSION:
            newer = f"{self.path} was written by a newer cai (schema {found}, this one knows {SCHEMA_VERSION})"
            raise Fix(newer, "pip install --upgrade cai-cli")
        reader.executescript(_SCHEMA + f"PRAGMA user_version={SCHEMA_VERSION};")
        reader.execute("INSERT OR IGNORE INTO spending VALUES (?, ?, 0, 0)", (self.run, self.job))

    def get(self, key: bytes) -> Outcome | None:
        """The reply, or the refusal, that was written for this key."""
        return found_in(self._reader, key)

    async def put(self, key: bytes, request: Request, reply: Reply, host: str, dollars: float, mode: str = "live") -> None:
        """Write a reply and settle its price. Returns when both are on disk. The first reply for a key wins."""
        row = (key, request.stage, request.row, reply.model, host, mode, self.run, time.time(), dollars)
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._queue.put(_Write(future, loop, None, reply, row, dollars))
        await future

    async def fail(self, key: bytes, request: Request, reject: Reject) -> None:
        """Write that the provider refuses this request; provisional until the run ends whole."""
        row = (key, request.stage, request.row, reject.reason, reject.detail, reject.signature, self.run, time.time())
        await self._submit(lambda db: db.execute(_FAIL, row))

    async def void_failures(self, signature: str) -> None:
        """A systemic stop: the rows were not at fault, so they will be asked again."""
        await self._submit(lambda db: db.execute("DELETE FROM failures WHERE provisional = 1 AND signature = ?", (signature,)))

    async def confirm_failures(self) -> None:
        await self._submit(lambda db: db.execute("UPDATE failures SET provisional = 0 WHERE run = ?", (self.run,)))

    async def charge(self, dollars: float) -> None:
        """Count money that may have been billed without a reply (a timeout)."""
        await self._submit(lambda db: db.execute(_SETTLE, (dollars, dollars, self.run)))

    async def lease(self, dollars: float, cap: float) -> bool:
        """Set `dollars` of the job's budget aside for this run, if so much is left under the cap. Gives: whether it was"""

        def job(db: sqlite3.Connection) -> bool:
            taken = sum(spent(db, self.job, self.own))
            fits: bool = taken + dollars <= cap + 1e-9
            if fits:
                db.execute("UPDATE spending SET leased = leased + ? WHERE run = ?", (dollars, self.run))
            return fits

        granted: bool = await self._submit(job)
        return granted

    def unlease(self, dollars: float) -> None:
        """Give back what was set aside. Returns at once; it is written before any lease that is asked for later."""
        back = "UPDATE spending SET leased = max(settled, leased - ?) WHERE run = ?"
        written = self._enqueue(lambda db: db.execute(back, (dollars, self.run)))
        written.add_done_callback(
            lambda future: future.cancelled() or future.exception()
        )  # a disk failure stops the run elsewhere

    async def release(self) -> None:
        """A clean end: what was set aside and not spent goes back."""
        await self._submit(lambda db: db.execute("UPDATE spending SET leased = settled WHERE run = ?", (self.run,)))

    def spent(self) -> tuple[float, float]:
        """Dollars (settled, unsettled) of the job over all runs; unsettled: in flight now, or when a run was killed."""
        return spent(self._reader, self.job, self.own)

    def close(self) -> None:
        """Write what is queued, and stop; a disk that is full now is not waited for."""
        self.patience.end()
        self._queue.put(None)
        self._thread.join()
        self._writer.close()
        self._reader.close()

    # One thread owns the writing connection; every group is one transaction.

    async def _submit(self, job: Job) -> Any:
        return await self._enqueue(job)

    def _enqueue(self, job: Job) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._queue.put(_Write(future, loop, job))
        return future

    def _write_forever(self) -> None:
        busy, last = False, False
        while not last and (first := self._queue.get()) is not None:
            group, last = self._gather(first, GROUP_S if busy else 0.0)
            busy = len(group) > 1
            self._commit_or_fail(self._writer, group)

    def _gather(self, first: _Write, wait_s: float) -> tuple[list[_Write], bool]:
        time.sleep(wait_s)
        group = [first]
        while not self._queue.empty():
            item = self._queue.get()
            if item is None:
                return group, True
            group.append(item)
        return group, False

    def _commit_or_fail(self, db: sqlite3.Connection, group: list[_Write]) -> None:
        try:
            # paid replies stay in memory while somebody makes room
            results: list[Any] = self.patience.until_done(lambda: self._commit(db, group), self._waits_for)
        except Exception as error:  # handed to whoever waits for the group: the thread must live, or they would wait for ever
            self.patience.end()  # what was waited for already is not waited for again
            failure = _disk_failure(error, self.path) if isinstance(error, sqlite3.Error) else error
            self._answer(group, [failure] * len(group))
        else:
            self._answer(group, results)

    def _waits_for(self, error: Exception) -> str:
        code = getattr(error, "sqlite_errorcode", None)
        if code == sqlite3.SQLITE_BUSY:
            return f"another process holds the ledger {self.path}: waiting {self.patience.up_to}"
        return self.patience.for_room(self.path) if code == sqlite3.SQLITE_FULL else ""

    def _commit(self, db: sqlite3.Connection, group: list[_Write]) -> list[Any]:
        db.execute("BEGIN IMMEDIATE")
        try:
            self._write_replies(db, [write for write in group if write.reply is not None])
            results = [write.job(db) if write.job is not None else None for write in group]
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise
        return results

    def _write_replies(self, db: sqlite3.Connection, bought: list[_Write]) -> None:
        """All replies of a group, before its jobs: until a price is settled, its reservation stands for it."""
        if not bought:
            return
        rows, at = [(*write.row, pack(write.reply)) for write in bought if write.reply is not None], 0
        for size in _SIZES:
            while len(rows) - at >= size:
                db.execute(_PUTS[size], tuple(itertools.chain.from_iterable(rows[at : at + size])))
                at += size
        dollars = sum(write.dollars for write in bought)
        db.execute(_SETTLE, (dollars, dollars, self.run))

    def _answer(self, group: list[_Write], results: list[Any]) -> None:
        loops = {id(write.loop): write.loop for write in group}
        for loop in loops.values():
            if not loop.is_closed():
                told = [(write.future, result) for write, result in zip(group, results, strict=True) if write.loop is loop]
                loop.call_soon_threadsafe(_resolve, told)


def _resolve(told: list[tuple[asyncio.Future[Any], Any]]) -> None:
    for future, result in told:
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)


def _disk_failure(error: sqlite3.Error, path: Path) -> Fatal:
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return disk_full(path)
    return Fatal(f"the ledger cannot be written: {path}: {error}", "check the disk, then run the same command again", Exit.DISK)
