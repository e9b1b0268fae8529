"""`cai simulate` for the time of a test, as a process of its own.

with serve(fail=["529@3-10"]) as server: ...    options as `cai simulate -h` has them: as keywords, a switch as True
    server.url, server.pid, server.stats(), server.reset(fail=[]), server.close()
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

from outside import PYTHONPATH

# What a server begins with, for a reset.
CALM: dict[str, Any] = {
    "fail": [], "world": {}, "models": [], "latency_ms": 0, "sampling": False, "rate": 0, "rpm": 0, "itpm": 0, "otpm": 0,
    "no_key": False, "ids": "random",
}  # fmt: skip


class Server:
    """A server that runs as a process. It ends with this one, however that ends."""

    def __init__(self, **options: Any) -> None:
        arguments = _arguments({"port": 0} | options)
        command = [sys.executable, "-m", "cai_cli", "simulate", "--json", "--with-parent", *arguments]
        environment = {**os.environ, "PYTHONPATH": PYTHONPATH}
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
        assert self.process.stdout is not None
        first = json.loads(self.process.stdout.readline())
        self.pid, self.port, self.url = self.process.pid, int(first["port"]), str(first["url"])

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/stats", timeout=10) as reply:
            return dict(json.load(reply))

    def reset(self, **options: Any) -> None:
        """Count from zero, with these options changed: under the names that POST /reset has for them."""
        urllib.request.urlopen(f"{self.url}/reset", data=json.dumps(options).encode(), timeout=10).close()

    def close(self) -> None:
        with self.process:
            self.process.terminate()


@contextlib.contextmanager
def serve(**options: Any) -> Iterator[Server]:
    """A server for the time of a test. Options: see the top of this file."""
    server = Server(**options)
    try:
        yield server
    finally:
        server.close()


def _arguments(options: dict[str, Any]) -> list[str]:
    arguments = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        for item in value if isinstance(value, list) else [value]:
            text = json.dumps(item) if isinstance(item, dict) else str(item)
            arguments += [flag] if item is True else [] if item is None or item is False else [f"{flag}={text}"]
    return arguments
