"""What runs did, for people: one folder a run under .cai/runs, with its state, money and clock. Never part of the data."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson

from cai_cli.engine.disk import FULL, write_durably


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
            "command": command,
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
        """Write down what is new. On a full disk the file stays as it was: a log must not end, nor hide the end of, a run."""
        self.facts |= facts | {"updated": time.time()}
        try:
            write_durably(self.folder / "run.json", orjson.dumps(self.facts, option=orjson.OPT_INDENT_2), 0o600)
        except OSError as error:
            if error.errno not in FULL:
                raise

    def end(self, state: str, exit_code: int) -> None:
        self.update(ended=time.time(), state=state, exit=exit_code)


def all_of(state: Path, output: Path) -> Iterator[dict[str, Any]]:
    """The logs of all runs for an output, oldest first; a log that is being replaced or was cut off is left out."""
    for path in sorted((state / "runs").glob("*/run.json")):
        try:
            facts: dict[str, Any] = orjson.loads(path.read_bytes())
        except (OSError, orjson.JSONDecodeError):
            continue
        if facts["output"] != str(output.resolve()):
            continue  # several outputs may share a state folder
        if facts["state"] == "running" and not _alive(facts["pid"]):
            facts["state"] = "killed"
        yield facts


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
