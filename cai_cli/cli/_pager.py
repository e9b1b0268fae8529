"""A pager for what is longer than the terminal: $PAGER, else less; never where stdout is no terminal."""

from __future__ import annotations

import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

if TYPE_CHECKING:
    from rich.console import Console


@contextmanager
def paged(wanted: bool = True) -> Iterator[Console]:
    """A console on stdout, behind a pager as soon as more is printed than the terminal has lines.

    `wanted`: False: never. What is printed after the reader has left the pager ends the block in silence.
    """
    from cai_cli.reports.console import console

    out = console()
    command = _command() if wanted and sys.stdout.isatty() else []
    if not command:
        yield out
        return
    stream = _Stream(command, out.height)
    try:
        out.file = cast("IO[str]", stream)
        yield out
    except BrokenPipeError:
        if not stream.begun:
            raise
    finally:
        stream.close()


def _command() -> list[str]:
    """The pager's command line; empty: none is wanted, or there is none. Colours pass through less."""
    if os.environ.get("TERM", "dumb") == "dumb":
        return []
    given = os.environ.get("PAGER")
    with suppress(ValueError):  # a quote that does not end
        words = shlex.split("less" if given is None else given)
        if words and words != ["cat"] and shutil.which(words[0]):
            return [*words, "-R"] if Path(words[0]).name == "less" else words
    return []


class _Stream(io.TextIOBase):
    """Holds text back until it is known to be longer than the screen."""

    def __init__(self, command: list[str], height: int) -> None:
        self._command, self._height = command, height
        self._held: list[str] = []
        self._lines = 0
        self._pager: subprocess.Popen[bytes] | None = None
        self._interrupt = signal.getsignal(signal.SIGINT)

    @property
    def begun(self) -> bool:
        return self._pager is not None

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self._pager is None:
            self._held.append(text)
            self._lines += text.count("\n")
            if self._lines < self._height:
                return len(text)
            self._begin()
            text, self._held = "".join(self._held), []
        self._pass_on(text)
        return len(text)

    def _begin(self) -> None:
        # F: what fits after all is just printed; R: colours; X: it stays on the screen afterwards. As git has it.
        environment = {"LESS": "FRX", **os.environ}
        self._pager = subprocess.Popen(self._command, stdin=subprocess.PIPE, env=environment)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the pager's now

    def _pass_on(self, text: str) -> None:
        assert self._pager is not None
        assert self._pager.stdin is not None
        self._pager.stdin.write(text.encode(sys.stdout.encoding or "utf-8", "backslashreplace"))
        self._pager.stdin.flush()

    def close(self) -> None:
        """Print what was short, or wait until the reader has left."""
        if self._pager is None:
            sys.stdout.write("".join(self._held))
            sys.stdout.flush()
            self._held = []
            return
        assert self._pager.stdin is not None
        with suppress(BrokenPipeError):
            self._pager.stdin.close()
        self._pager.wait()
        signal.signal(signal.SIGINT, self._interrupt)
