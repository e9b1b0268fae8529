"""The consoles that reports are printed on: a terminal's own width, or 100 columns; no markup, ever."""

from __future__ import annotations

import io
import sys

from rich.console import Console

WIDTH = 100  # columns, where there is no terminal to ask


class _Console(Console):
    def on_broken_pipe(self) -> None:
        raise  # the reader has enough: the command line knows what to do, and rich would exit with 1


def console(stderr: bool = False) -> Console:
    """A console on stdout or stderr. Text from models must come as rich.text.Text, after `visible`."""
    stream = sys.stderr if stderr else sys.stdout
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")  # a row may hold what this terminal's encoding has not
    return _Console(stderr=stderr, width=None if stream.isatty() else WIDTH, highlight=False, markup=False, emoji=False)


def plain(on: Console) -> bool:
    """Whether colour says nothing there, so that words must."""
    return on.no_color or on.color_system is None
