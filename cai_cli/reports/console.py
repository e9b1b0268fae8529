"""The consoles that reports are printed on: a terminal's own width, or that of COLUMNS, or 100 columns; no markup, ever."""

from __future__ import annotations

import os
import re
import sys
from typing import IO, Any, TextIO, cast

from rich.console import Console

from cai_cli.reports.forgiving import forgiving

_PADDING = re.compile(r" +(?=\n)")
WIDTH = 100  # columns, where there is no terminal to ask
LEAST = 20  # columns; who says less does not know


class _Trimmed:
    """A stream whose lines end where their text does: tables pad, and what was piped is compared and copied."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        return self._stream.write(_PADDING.sub("", text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise  # the reader has enough: the command line knows what to do, and rich would exit with 1


def console(stderr: bool = False) -> Console:
    """A console on stdout or stderr. Text from models must come as rich.text.Text, after `visible`."""
    stream = forgiving(sys.stderr if stderr else sys.stdout)
    if stream.isatty():
        return _Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    return _Console(file=cast("IO[str]", _Trimmed(stream)), width=_columns(), highlight=False, markup=False, emoji=False)


def _columns() -> int:
    """Where there is no terminal: `watch` says in COLUMNS how wide its own is."""
    said = os.environ.get("COLUMNS", "")
    return int(said) if said.isdecimal() and int(said) >= LEAST else WIDTH


def plain(on: Console) -> bool:
    """Whether colour says nothing there, so that words must."""
    return on.no_color or on.color_system is None
