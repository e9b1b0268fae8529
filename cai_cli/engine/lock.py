"""One writer per output, by flock: the kernel frees it when its holder dies, so nothing is ever taken over by time."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from cai_cli.config import Config
from cai_cli.engine.disk import FULL, disk_full, make_private
from cai_cli.engine.versions import fingerprint
from cai_cli.errors import Exit, Fatal
from cai_cli.visible import on_one_line

IfLocked = Literal["wait", "fail", "skip"]


class Held(Fatal):
    """Another run holds the output."""

    code = Exit.STOPPED


def lock_file(config: Config) -> Path:
    """The output's lock, whatever path leads to it and wherever its ledger is."""
    return config.output_path.resolve() / ".cai" / "lock"


def lock_files(config: Config) -> list[Path]:
    """All locks of a run: the output's and, where `state` is on another disk because the output's may not lock, one there."""
    if config.state is None:
        return [lock_file(config)]
    mark = fingerprint(str(config.output_path.resolve()))[:16]
    return [lock_file(config), config.state_path / f"lock-{mark}"]


@contextmanager
def locked(path: Path, if_locked: IfLocked, command: str) -> Iterator[None]:
    """Hold the lock file; with `wait`, say on stderr who is waited for. Raises: Held, which says who holds it and since when"""
    make_private(path)
    with open(path, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if if_locked != "wait":
                raise Held(f"this output is held by {_holder(path)}", "wait for it, or use --if-locked wait|skip") from error
            sys.stderr.write(f"cai: waiting for {on_one_line(_holder(path))}\n")
            sys.stderr.flush()
            fcntl.flock(file, fcntl.LOCK_EX)
        _sign(file.fileno(), path, command)
        yield


def _sign(descriptor: int, path: Path, command: str) -> None:
    """Write down who holds the lock. Raises: Fatal: the disk is full"""
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    try:
        os.ftruncate(descriptor, 0)
        holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": since, "command": command}
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
    except OSError as error:
        if error.errno not in FULL:
            raise
        raise disk_full(path) from error


def held_by(config: Config) -> str:
    """Who holds the output, as the kernel tells it: the lock is not touched. Empty: nobody, or a system that does not tell."""
    path = lock_file(config)
    try:
        mark = f":{path.stat().st_ino}"
        held = any("FLOCK" in words and any(word.endswith(mark) for word in words) for words in _locks())
    except OSError:
        return ""
    return _holder(path) if held else ""


def _locks() -> Iterator[list[str]]:
    yield from (line.split() for line in Path("/proc/locks").read_text().splitlines())


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        said = f"process {holder['pid']} on {holder['host']} since {holder['since']} ({holder['command']})"
        return said + _stopped(holder["pid"])
    except (OSError, ValueError, KeyError):
        return "another run that has only just begun"


def _stopped(pid: int) -> str:
    """Say so when the holder sleeps by Ctrl-Z: it holds the lock, and will not let go by itself."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""
    return f"; it is stopped: `kill -CONT {pid}` lets it go on" if state in "Tt" else ""
