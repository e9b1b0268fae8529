"""Standard input, output and error, for a process that was started without one of them (cron jobs, services, `<&-`)."""

from __future__ import annotations

import os
import sys

_NAMES = ("stdin", "stdout", "stderr")


def open_missing() -> None:
    """Let every closed one lead to /dev/null.

    Else the next file that is opened would take its number: whatever is then written to it, by anybody, ends up in the ledger.
    """
    for number, name in enumerate(_NAMES):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gives the lowest number that is free, and those below are open
            os.set_inheritable(number, True)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "w" if number else "r", encoding="utf-8", closefd=False))  # noqa: SIM115
