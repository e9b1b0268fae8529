"""Disk, lock and ledger of an output."""

from __future__ import annotations

import os
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cai_cli.config import Config
from cai_cli.engine.disk import filesystem, refuse_network_filesystem
from cai_cli.engine.doctor.finding import Finding, fail, ok, warn
from cai_cli.engine.ledger import DAMAGED, SCHEMA_VERSION, reading
from cai_cli.engine.lock import held_by
from cai_cli.errors import Exit, Fatal, Fix
from cai_cli.reports.quantities import count, duration, size

LITTLE, NOTHING = 1_000_000_000, 10_000_000  # bytes free: below the first a warning, below the second no run begins well
FEW_INODES = 10_000
SLOW_SYNC_S = 0.1  # an fsync that takes longer holds up the ledger's commits, one every 10 ms at best
CHECK_S = 5.0


def findings(config: Config) -> Iterator[Finding]:
    """The folders of output and state as far as they exist, who holds them, and whether the ledger is whole."""
    folders = {"output": config.output_path, "state": config.state_path}
    if config.state is None:
        del folders["state"]
    for what, folder in folders.items():
        yield _folder(f"disk {what}", folder)
    yield from _network_state(config)
    yield _lock(config)
    if (ledger := config.state_path / "ledger.sqlite").exists():
        yield _ledger(ledger)


def _folder(what: str, folder: Path) -> Finding:
    if folder.is_file():
        return fail(what, f"{folder} is a file", "name a folder in `output`", Exit.USAGE)
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    try:
        synced_s = _written(there)
    except OSError as error:
        hint = "choose another folder with -o, or mend its permissions"
        return fail(what, f"{there} cannot be written: {error.strerror}", hint, Exit.DISK, path=str(folder))
    return _room(what, folder, there, synced_s)


def _written(folder: Path) -> float:
    """Write a little, and see it to the disk. Gives: seconds of the fsync   Raises: OSError"""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".cai-doctor-") as file:
        file.write(b"\0" * 4096)
        file.flush()
        begun = time.perf_counter()
        os.fsync(file.fileno())
        return time.perf_counter() - begun


def _room(what: str, folder: Path, there: Path, synced_s: float) -> Finding:
    disk = os.statvfs(there)
    free, inodes = disk.f_bavail * disk.f_frsize, disk.f_favail if disk.f_files else None
    kind = filesystem(there)
    facts = {"path": str(folder), "free_bytes": free, "free_inodes": inodes, "filesystem": kind, "fsync_s": round(synced_s, 4)}
    new = "" if folder.exists() else ", not there yet"
    said = f"{folder}{new}: {size(free)} free{f' on {kind}' if kind else ''}, written and synced in {synced_s * 1000:.0f} ms"
    if free < NOTHING:
        return fail(what, said, "make room, or choose another folder with -o", Exit.DISK, **facts)
    if free < LITTLE:
        return warn(what, said, "make room: a reply that cannot be written waits for it, and then the run stops", **facts)
    if inodes is not None and inodes < FEW_INODES:
        return warn(what, f"{said}; only {inodes:,} more files", "delete old versions: cai run CONFIG --keep 2", **facts)
    if synced_s > SLOW_SYNC_S:
        return warn(what, f"{said}: slow", "set `state:` to a folder on a faster local disk", **facts)
    return ok(what, said, **facts)


def _network_state(config: Config) -> Iterator[Finding]:
    try:
        refuse_network_filesystem(config.state_path)
    except Fix as fix:
        yield fail("disk state", fix.message, fix.hint, fix.code)


def _lock(config: Config) -> Finding:
    if holder := held_by(config):
        return fail("lock", f"held by {holder}", "wait for it, or use --if-locked wait|skip", Exit.STOPPED, holder=holder)
    return ok("lock", "free", holder=None)


def _ledger(path: Path) -> Finding:
    found = sum(file.stat().st_size for file in (path, path.with_name(path.name + "-wal")) if file.exists())
    facts = {"path": str(path), "bytes": found}
    try:
        schema, replies, problem, whole = _looked_into(path)
    except Fatal as fatal:
        return fail("ledger", fatal.message, fatal.hint, fatal.code, **facts)
    said = f"{size(found)}, {count(replies)} replies, schema {schema}"
    if schema > SCHEMA_VERSION:
        newer = f"{said}: written by a newer cai (this one knows schema {SCHEMA_VERSION})"
        return fail("ledger", newer, "pip install --upgrade cai-cli", Exit.USAGE, **facts)
    if problem:
        return fail("ledger", f"{said}: {problem}", DAMAGED, Exit.DISK, **facts)
    checked = "whole" if whole else f"no damage found in {duration(CHECK_S)}, then given up: it is large"
    return ok("ledger", f"{said}, {checked}", **facts, replies=replies, schema=schema, checked_whole=whole)


def _looked_into(path: Path) -> tuple[int, int, str, bool]:
    """Gives: schema, replies, what is damaged, and whether all of it was looked at in time. Raises: Fatal"""
    end = time.monotonic() + CHECK_S
    with reading(path) as db:
        (schema,) = db.execute("PRAGMA user_version").fetchone()
        (replies,) = db.execute("SELECT count(*) FROM replies").fetchone()
        db.set_progress_handler(lambda: time.monotonic() > end, 100_000)
        try:
            (said,) = db.execute("PRAGMA quick_check(1)").fetchone()
        except sqlite3.OperationalError as error:
            if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_INTERRUPT:
                raise
            return schema, replies, "", False
    return schema, replies, "" if said == "ok" else str(said), True
