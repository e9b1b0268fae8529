"""A terminal for tests: what a command writes to one, whether all of its escapes are ours, and what one would see of it."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path

ROOT = Path(__file__).parent.parent
# Colours; and of the live display: so many rows up, erase to the end of the line, erase to the end of the screen.
OURS = re.compile(r"\x1b\[(?:[0-9;]*m|[0-9]*A|0?K|0?J)")
HIDING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\u2028\u2029\ufeff]")


def on_terminal(folder: Path, *args: str, columns: int = 80, rows: int = 24, out: bool = False, **env: str) -> tuple[int, str]:
    """Run `cai ARGS` with a terminal as its stderr, and as its stdout too where `out` is set. Gives: exit code, all it wrote"""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    settings = {**os.environ, "PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "PAGER": "cat", **env}
    for name in ("COLUMNS", "LINES"):
        settings.pop(name, None)
    command = [sys.executable, "-m", "cai_cli", *args]
    process = subprocess.Popen(
        command, cwd=folder, env=settings, stdin=subprocess.DEVNULL, stdout=slave if out else subprocess.DEVNULL, stderr=slave
    )
    os.close(slave)
    shown = b""
    try:
        while chunk := os.read(master, 65536):
            shown += chunk
    except OSError:  # EIO: the other end is closed
        pass
    os.close(master)
    return process.wait(60), shown.decode()  # strictly: half a character is an error too


def foreign(shown: str) -> list[str]:
    """All in a terminal's input that is neither text, nor a line's end, nor an escape of ours; each with what is around it."""
    found = []
    plain = OURS.sub("\x00", shown)  # in its place: what would be an escape only without it, is none
    for bad in HIDING.finditer(plain):
        at = bad.start()
        ours = bad[0] == "\x00" or (bad[0] == "\r" and plain[at + 1 : at + 2] in ("\n", "\x00"))
        if not ours:
            found.append(repr(plain[max(0, at - 20) : at + 20]))
    return found


class Screen:
    """What one sees: rows of text, under the escapes that are ours."""

    def __init__(self, columns: int) -> None:
        self.columns, self.lines, self.row, self.column = columns, [""], 0, 0
        self.wrapped = 0  # lines that the terminal had to break

    def feed(self, shown: str) -> Screen:
        for part in re.split(rf"({OURS.pattern}|[\r\n])", shown):
            self._part(part)
        return self

    def _part(self, part: str) -> None:
        if part == "\n":
            self.row, self.column = self.row + 1, 0
            self.lines += [""] * (self.row + 1 - len(self.lines))
        elif part == "\r":
            self.column = 0
        elif part.startswith("\x1b"):
            self._escape(part[-1], part[2:-1])
        else:
            self._text(part)

    def _escape(self, kind: str, argument: str) -> None:
        if kind == "A":
            self.row = max(0, self.row - int(argument or 1))
        elif kind in "KJ":
            self.lines[self.row] = self.lines[self.row][: self.column]
            if kind == "J":
                del self.lines[self.row + 1 :]

    def _text(self, text: str) -> None:
        for letter in text:
            if self.column == self.columns:
                self.wrapped += 1
                self._part("\n")
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + letter + line[self.column + 1 :]
            self.column += 1
