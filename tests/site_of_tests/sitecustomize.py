"""Which messages a process made: the places in cai_cli that made them, one a line, in a file of REACHED_DIR.

Python runs this in every process that a test starts with this folder on its PYTHONPATH, and tests/conftest.py runs it in its own.
"""

import os
import sys
from typing import Any

EVENT, FRAMES = "cai.told", 6


def record(folder: str) -> None:
    """From now on write down where messages are made."""
    seen: set[str] = set()
    path = f"{folder}/{os.getpid()}-{os.urandom(3).hex()}"

    def hook(event: str, _: Any) -> None:
        if event != EVENT:
            return
        fresh = set(_places()) - seen
        if fresh:
            seen.update(fresh)
            with open(path, "a", encoding="utf-8") as file:
                file.write("".join(f"{place}\n" for place in sorted(fresh)))

    sys.addaudithook(hook)


def _places() -> list[str]:
    """Where it was called from, as far up as an error's constructors may stand."""
    found, frame = [], sys._getframe(2)
    for _ in range(FRAMES):
        if frame is None:
            break
        if f"{os.sep}cai_cli{os.sep}" in frame.f_code.co_filename:
            inside = frame.f_code.co_filename.rpartition(f"{os.sep}cai_cli{os.sep}")[2]
            found.append(f"{inside}:{frame.f_lineno}")
        frame = frame.f_back
    return found


if "REACHED_DIR" in os.environ:
    record(os.environ["REACHED_DIR"])
