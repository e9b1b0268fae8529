"""Run `cai` and write which of its files were at work, in seconds of CPU, as JSON. Usage: _watched.py FILE ARGUMENTS...

A timer's signal looks, not a thread: a thread gets its turn mostly where the command waits for a file, and would blame that.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import defaultdict
from pathlib import Path
from types import FrameType

EVERY_S = 0.01


class Watch:
    """Seconds of CPU by part of the package, in this process."""

    def __init__(self) -> None:
        self.found: defaultdict[str, float] = defaultdict(float)
        self._last = time.process_time()

    def look(self, number: int, frame: FrameType | None) -> None:
        """Blame what is at work for the time since the last look."""
        now = time.process_time()
        self.found[_part(frame)] += now - self._last
        self._last = now


def _part(frame: FrameType | None) -> str:
    """The innermost frame of the package: its file and function."""
    while frame is not None:
        if "cai_cli/" in frame.f_code.co_filename:
            return f"{frame.f_code.co_filename.rpartition('cai_cli/')[2]} {frame.f_code.co_name}"
        frame = frame.f_back
    return "start and imports"


def main() -> None:
    path, sys.argv = Path(sys.argv[1]), ["cai", *sys.argv[2:]]
    watch = Watch()
    signal.signal(signal.SIGPROF, watch.look)
    signal.setitimer(signal.ITIMER_PROF, EVERY_S, EVERY_S)
    try:
        from cai_cli.cli import main as cai

        cai()
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        path.write_text(json.dumps(watch.found))


if __name__ == "__main__":
    main()
