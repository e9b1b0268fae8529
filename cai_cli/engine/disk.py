"""Durable files: private, atomic, and on a disk that can be trusted."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from cai_cli.errors import Exit, Fatal, Fix

T = TypeVar("T")
DISK_WAIT_S = 600.0  # how long a full disk is waited for before the run stops
FULL = (errno.ENOSPC, errno.EDQUOT)
LEAST = 256_000  # bytes without which no run begins: an empty ledger and its log take nearly that

_NETWORK = {
    "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "lustre", "gpfs", "glusterfs", "beegfs",
    "fuse.sshfs", "fuse.s3fs", "fuse.glusterfs",
}  # fmt: skip


def make_private(path: Path) -> None:
    """Create a file that only its owner reads (0600) in a folder that only its owner enters (0700); leave an existing one."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not path.exists():  # opening and closing a SQLite file would drop the locks that this process has on it
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


@contextmanager
def one_at_a_time(folder: Path) -> Iterator[None]:
    """Let processes do something in a folder one after the other; the kernel frees it when its holder dies."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def private_opener(path: str, flags: int) -> int:
    """For open(): what it creates, only its owner reads."""
    return os.open(path, flags, 0o600)


def write_durably(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Replace `path` by `data`, wholly or not at all, also across a power loss."""
    write_whole(path, data, mode, synced=True)
    with naming(path):
        sync_folder(path.parent)


def write_whole(path: Path, data: bytes, mode: int = 0o644, *, synced: bool = False) -> None:
    """Replace `path` by `data`, wholly or not at all for whoever reads it. A power loss may undo it, or leave the file empty."""
    part = path.with_name(path.name + ".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with naming(path):
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            if synced:
                os.fsync(file.fileno())
        part.rename(path)


def write_soon(path: Path, data: bytes) -> None:
    """Write `path`, which a power loss may still undo: for what would be made again then, until `sync_file`."""
    with naming(path):
        path.write_bytes(data)


def sync_file(path: Path) -> None:
    """Make what was written to a file durable."""
    with naming(path), open(path, "rb") as file:
        os.fsync(file.fileno())


@contextmanager
def naming(file: object) -> Iterator[None]:
    """Let what goes wrong inside say of which file: the system names it where one is opened, not where one is written."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(file)
        raise


class Patience:
    """How long the writers of a run wait for room on a full disk, and the end of all their waits when the run stops."""

    def __init__(self, wait_s: float = DISK_WAIT_S) -> None:
        self.wait_s = wait_s
        self._waits: dict[int, str] = {}  # by thread: what it waits for
        self._over = threading.Event()

    @property
    def up_to(self) -> str:
        return f"up to {self.wait_s / 60:.0f} min"

    @property
    def reason(self) -> str:
        """What is waited for at the moment; empty: nothing."""
        return next(iter(list(self._waits.values())), "")

    def for_room(self, place: str | Path) -> str:
        """A full disk as a reason. `place`: a file or folder on it"""
        return f"{_fullness(place)}: waiting {self.up_to} for room"

    def end(self) -> bool:
        """Wait no more, now and later: whoever waits tries a last time. Gives: whether anybody waited"""
        waited = bool(self._waits)
        self._over.set()
        return waited

    def until_done(self, write: Callable[[], T], reason: Callable[[Exception], str]) -> T:
        """Call `write` until it succeeds, once a second. `reason` says of an error what is waited for; empty: do not wait.

        Raises: what `write` raised last
        """
        deadline = time.monotonic() + self.wait_s
        try:
            while True:
                try:
                    return write()
                except (OSError, sqlite3.Error) as error:
                    if not (why := reason(error)) or self._over.is_set() or time.monotonic() > deadline:
                        raise
                self._waits[threading.get_ident()] = why
                self._over.wait(1)
        finally:
            self._waits.pop(threading.get_ident(), None)


def patiently(patience: Patience, write: Callable[..., T], *arguments: object) -> T:
    """Write files; a full disk is waited for. Raises: Fatal (exit 74): it is still full"""

    def reason(error: Exception) -> str:
        return patience.for_room(error.filename or ".") if isinstance(error, OSError) and error.errno in FULL else ""

    try:
        return patience.until_done(lambda: write(*arguments), reason)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise disk_full(error.filename or ".") from error


def disk_full(place: str | Path) -> Fatal:
    """What to say of a full disk that was waited for long enough. `place`: a file or folder on it"""
    hint = "make room, then run the same command again; every reply that was written is kept"
    return Fatal(_fullness(place), hint, code=Exit.DISK)


def _fullness(place: str | Path) -> str:
    folder = Path(place) if Path(place).is_dir() else Path(place).parent
    free = os.statvfs(folder)
    return f"the disk of {folder} is full ({free.f_bavail * free.f_frsize >> 20} MB free)"


def is_full(folder: Path) -> bool:
    """Whether not even a run's beginning has room there."""
    free = os.statvfs(folder)
    return free.f_bavail * free.f_frsize < LEAST


def sync_folder(path: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def probe(folder: Path, mode: int = 0o777, option: str = "-o") -> None:
    """Check, before anything is bought, that `folder` can be written, making it if need be.

    Takes: `option`: what names the folder on the command line   Raises: Fix, or Fatal where the disk is full (exit 74)
    """
    try:
        folder.mkdir(mode, parents=True, exist_ok=True)
        trial = folder / f".probe-{os.getpid()}"
        try:
            trial.write_bytes(bytes(LEAST))
        finally:
            trial.unlink(missing_ok=True)
    except OSError as error:
        if error.errno in FULL:
            raise disk_full(folder) from error
        hint = f"choose another folder with {option}, or mend its permissions"
        raise Fix(f"{folder} cannot be written: {error.strerror}", hint, Exit.DISK) from error


def refuse_network_filesystem(folder: Path, mounts: str | None = None) -> None:
    """SQLite's WAL needs shared memory that network file systems do not have.

    Takes: the text of a mountinfo file; None: the kernel's own   Raises: Fix
    """
    kind = filesystem(folder, mounts)
    if kind in _NETWORK:
        raise Fix(f"{folder} lies on a network file system ({kind}), where the ledger would not be safe",
                  "set `state:` in the config (or CAI_STATE) to a folder on a local disk", Exit.USAGE)  # fmt: skip


def filesystem(folder: Path, mounts: str | None = None) -> str:
    """The type of the file system that holds `folder`, as the kernel names it; empty where that cannot be read.

    Takes: the text of a mountinfo file; None: the kernel's own
    """
    try:
        mounts = Path("/proc/self/mountinfo").read_text() if mounts is None else mounts
    except OSError:
        return ""
    return filesystem_in(mounts, os.path.realpath(folder))


def filesystem_in(mounts: str, target: str) -> str:
    """The type of the file system that holds the absolute path `target`, by the text of a mountinfo file."""
    best, kind = "", ""
    for line in mounts.splitlines():
        left, _, right = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), left.split()[4])
        inside = target == point or target.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best):
            best, kind = point, right.split()[0]
    return kind
