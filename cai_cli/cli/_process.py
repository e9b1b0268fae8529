"""The command as a process of its own: what holds for a whole process, and would be wrong within somebody else's."""

from __future__ import annotations

import atexit
import gc
import os
import sys

from cai_cli import cli

# New objects between two looks for garbage. Imports make some hundred thousand that stay: to look through them at every 700, as
# Python does, took a tenth of the time to the first request and of the run. While it goes, what is let go is nearly all freed
# without a search: at every 20,000 it took .15 s or more of 12,000 requests, at every 200,000 .03 s, and memory stayed the same.
OBJECTS = 200_000


def main() -> None:
    """Run the command line and end the process with its code."""
    gc.set_threshold(OBJECTS)
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # else it looks through all that is installed for some
    code: list[int] = []
    atexit.register(_leave, code)  # the first to be registered is the last to be called
    try:
        cli.main()
    except SystemExit as end:
        code.append(int(end.code or 0))
        raise


def settle() -> None:
    """A run goes, so all is loaded that will be: keep it out of the search for garbage. In somebody else's process: nothing."""
    if gc.get_threshold()[0] == OBJECTS:
        gc.freeze()


def _leave(code: list[int]) -> None:
    """End at once. To take the interpreter apart took .15 s, and gives nothing back that would not be given back anyway.

    Threads that must be waited for, and what others do at the exit, came before this.
    """
    if not code:
        return  # a traceback, or some other end that is Python's to tell
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return  # Python tells it, with a code of its own
    os._exit(code[0])
