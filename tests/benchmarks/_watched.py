"""Run `cai` and write which of its files were at work, in seconds, as JSON. Usage: _watched.py FILE ARGUMENTS..."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from types import FrameType

EVERY_S = 0.02


def _part(frame: FrameType | None) -> str:
    """The innermost frame of the package: its file and function."""
    while frame is not None:
        if "cai_cli/" in frame.f_code.co_filename:
            return f"{frame.f_code.co_filename.rpartition('cai_cli/')[2]} {frame.f_code.co_name}"
        frame = frame.f_back
    return "start and imports"


def _look(thread: int, found: Counter[str], ended: threading.Event) -> None:
    last = time.perf_counter()
    while not ended.wait(EVERY_S):
        part, now = _part(sys._current_frames().get(thread)), time.perf_counter()
        found[part] += now - last  # type: ignore[assignment]  # seconds
        last = now


def main() -> None:
    path, sys.argv = Path(sys.argv[1]), ["cai", *sys.argv[2:]]
    found, ended = Counter[str](), threading.Event()
    looking = threading.Thread(target=_look, args=(threading.get_ident(), found, ended))
    looking.start()
    try:
        from cai_cli.cli import main as cai

        cai()
    finally:
        ended.set()
        looking.join()
        path.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
