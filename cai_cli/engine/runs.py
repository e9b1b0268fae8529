"""What runs did, for people: one folder a run under .cai/runs, with its state, money and clock. Never part of the data."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from cai_cli.engine.disk import FULL, write_durably, write_whole

GIVEN = "given"  # in a run's folder while it goes: pairs that somebody gave, written again
# What is known of a run that goes on, and of one that was killed as it last was; an end leaves nothing of it to tell.
MOMENTARY = ("per_s", "dollars_in_all", "writing", "slots", "servers", "oldest", "held", "stopping")


@dataclass
class RunLog:
    """The log of one run, rewritten whole whenever something worth knowing changed."""

    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def begin(cls, state: Path, command: str, config: str, output: str) -> RunLog:
        """Open the log of a new run. Its id sorts by time."""
        run = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}-{os.urandom(2).hex()}"
        folder = state / "runs" / run
        for private in (state, folder.parent, folder):  # one by one: mkdir gives its mode to the last folder only
            private.mkdir(mode=0o700, parents=True, exist_ok=private != folder)
        facts = {
            "run": run,
            "pid": os.getpid(),
            "born": _stat(os.getpid(), _BORN),
            "command": command,
            "folder": str(Path.cwd()),
            "config": config,
            "output": output,
            "started": time.time(),
            "ended": None,
        }
        log = cls(folder, {**facts, "state": "running"})
        log.update()
        return log

    @property
    def run(self) -> str:
        return str(self.facts["run"])

    def update(self, **facts: Any) -> None:
        """Write down what is new; not to the disk at once, for that may take as long as ten requests, every second."""
        self._write(write_whole, facts)

    def _write(self, put: Callable[[Path, bytes, int], None], facts: Mapping[str, Any]) -> None:
        """On a full disk the file stays as it was: a log must not end, nor hide the end of, a run."""
        self.facts |= {**facts, "updated": time.time()}
        try:
            put(self.folder / "run.json", orjson.dumps(self.facts, option=orjson.OPT_INDENT_2), 0o600)
        except OSError as error:
            if error.errno not in FULL:
                raise

    def end(self, state: str, exit_code: int, **facts: Any) -> None:
        """Write down how it ended, to the disk. `facts`: what else is new"""
        for name in MOMENTARY:
            self.facts.pop(name, None)
        self._write(write_durably, {**facts, "ended": time.time(), "state": state, "exit": exit_code})


def all_of(state: Path, output: Path | None) -> Iterator[dict[str, Any]]:
    """The logs of all runs for an output, or (None) in a state folder, oldest first; one that was cut off is left out."""
    for path in sorted((state / "runs").glob("*/run.json")):
        facts = _read(path)
        if facts is None or (output is not None and not own(state, output) and facts["output"] != str(output.resolve())):
            continue  # several outputs may share a state folder
        if facts["state"] == "running" and not _alive(facts["pid"], facts.get("born", "")):
            facts["state"] = "killed"
        facts["suspended"] = facts["state"] == "running" and _stat(facts["pid"], _STATE) in ("T", "t")
        yield facts


def own(state: Path, output: Path) -> bool:
    """Whether a state folder is inside the output: then all in it is of this output, under whatever path it was written."""
    return state.resolve() == output.resolve() / ".cai"


_KNOWN: dict[str, type | tuple[type, ...]] = {
    "run": str, "pid": int, "state": str, "output": str, "command": str, "started": (int, float),
    "updated": (int, float),
}  # fmt: skip


def _read(path: Path) -> dict[str, Any] | None:
    """A run's log; None: it is none, or not a whole one."""
    try:
        facts = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    whole = isinstance(facts, dict) and all(isinstance(facts.get(name), kind) for name, kind in _KNOWN.items())
    return facts if whole else None


def _alive(pid: int, born: str) -> bool:
    """Whether the process that began a run is there; another one may have its number by now."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass  # it belongs to someone else
    return not born or _stat(pid, _BORN) in (born, "")


_STATE, _BORN = 0, 19  # of /proc/PID/stat, after the name: running, stopped...; when it began, in the kernel's own count


def _stat(pid: int, field: int) -> str:
    """What the kernel says of a process; empty where it does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[field]
    except (OSError, IndexError):
        return ""
