"""One writer per output, by flock: the kernel frees it when its holder dies, so nothing is ever taken over by time."""

from __future__ import annotations

import fcntl
import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from cai_cli.config import Config
from cai_cli.engine.disk import make_private
from cai_cli.engine.versions import fingerprint
from cai_cli.errors import Exit, Fatal

IfLocked = Literal["wait", "fail", "skip"]


class Held(Fatal):
    """Another run holds the output."""

    code = Exit.STOPPED


def lock_file(config: Config) -> Path:
    """The output's lock; a state folder that several outputs share holds one for each."""
    if config.state is None:
        return config.state_path / "lock"
    return config.state_path / f"lock-{fingerprint(str(config.output_path.absolute()))[:16]}"


@contextmanager
def locked(path: Path, if_locked: IfLocked, command: str) -> Iterator[None]:
    """Hold the lock file. Raises: Held, which says who holds it and since when"""
    make_private(path)
    with open(path, "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if if_locked == "wait" else fcntl.LOCK_NB))
        except BlockingIOError as error:
            raise Held(f"this output is held by {_holder(path)}", "wait for it, or use --if-locked wait|skip") from error
        file.seek(0)
        file.truncate()
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": since, "command": command}, file)
        file.flush()
        yield


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
