"""One pace for all processes of a user on this machine that send with one key to one server and model.

The state of the rates (`engine.rates`) is a small file in memory: $XDG_RUNTIME_DIR/cai, or cai/pace in the user's cache folder.
Its name is a hash of host, key label and model, and nothing but numbers stand in it. Times are CLOCK_MONOTONIC, which all
processes of a machine have in common. A process that is killed leaves nothing behind that blocks: the kernel frees its locks,
levels refill, and what it promised to take is forgotten. Whoever comes when nobody else is there begins anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import mmap
import os
import stat
import time
from collections.abc import MutableSequence
from pathlib import Path
from typing import cast

from cai_cli.engine.rates import SIZE, Rates

VERSION = 1  # of what the cells mean; it is part of the name
PASSED_S = 1.0  # who was passed over is not waited for again
TRY_S, TRIES = 0.0005, 40  # a lock is held for microseconds: who holds it for longer was stopped, and is not waited for
FOLDER_MODE, FILE_MODE = 0o700, 0o600


def folder() -> Path:
    """Where the state is kept."""
    if runtime := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(runtime, "cai")
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "cai", "pace")


class SharedRates:
    """Opens rates that other processes have, too. `problem` says why they could not be shared; empty: they are."""

    def __init__(self) -> None:
        self.problem = ""
        self._found: dict[tuple[str, str], Rates] = {}
        self._open: list[int] = []

    def rates(self, place: str, model: str) -> Rates:
        """The rates of a place (host and key label) and model, those of this process alone where they cannot be shared."""
        if (place, model) not in self._found:
            try:
                self._found[place, model] = self._shared(place, model)
            except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
                self.problem = str(error)
                self._found[place, model] = Rates()
        return self._found[place, model]

    def close(self) -> None:
        """Leave. The rates that were opened must not be used any more; others may be opened."""
        self._found.clear()
        while self._open:
            os.close(self._open.pop())

    def _shared(self, place: str, model: str) -> Rates:
        where = folder()
        where.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        path = where / hashlib.sha256(f"{VERSION}\0{_machine()}\0{place}\0{model}".encode()).hexdigest()[:32]
        live, state = self._opened(path.with_suffix(".live")), self._opened(path)
        lock = FileLock(state)
        with lock:
            alone = _only(live)
            # Not waited for: who keeps others out of it was stopped, or failed, before it said that it is there.
            fcntl.flock(live, fcntl.LOCK_SH | fcntl.LOCK_NB)
            if alone or os.fstat(state).st_size < 8 * SIZE:
                os.pwrite(state, bytes(8 * SIZE), 0)
        cells = memoryview(mmap.mmap(state, 8 * SIZE)).cast("d")
        return Rates(cast("MutableSequence[float]", cells), lock)

    def _opened(self, path: Path) -> int:
        found = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, FILE_MODE)
        self._open.append(found)
        told = os.fstat(found)
        if told.st_uid != os.geteuid() or not stat.S_ISREG(told.st_mode):
            raise PermissionError(f"{path} belongs to somebody else")
        return found


def _machine() -> str:
    """What tells this machine, since it was started, from others that have the same home folder: their clocks are not ours."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text()
    except OSError:
        return os.uname().nodename


def _only(live: int) -> bool:
    """Whether nobody else has it open: everybody holds a shared lock for as long as he lives."""
    try:
        fcntl.flock(live, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class FileLock:
    """Keeps other processes out for some microseconds. Who is stopped with the lock in hand is passed over in the end."""

    def __init__(self, file: int) -> None:
        self._file, self._passed_until = file, 0.0

    def __enter__(self) -> None:
        for _ in range(TRIES):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            if time.monotonic() < self._passed_until:
                return
            time.sleep(TRY_S)
        self._passed_until = time.monotonic() + PASSED_S

    def __exit__(self, *_: object) -> None:
        fcntl.flock(self._file, fcntl.LOCK_UN)
