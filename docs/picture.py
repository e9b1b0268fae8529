"""Keep what a terminal shows after a command as an SVG: python docs/picture.py OUT.svg COLUMNS ROWS COMMAND (needs tmux)."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from rich.console import Console
from rich.text import Text

DONE = "cai-picture-done"
LONGEST_S = 60.0
KEPT = ("PATH", "LANG", "LC_ALL")  # of our environment; all else is the capture's own


class Terminal:
    """A terminal of a given size in which a command runs. Used as a context: at its end the command is hung up on."""

    def __init__(
        self, columns: int, rows: int, command: str, folder: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self._own = tempfile.TemporaryDirectory(prefix="cai-picture-")  # of its socket: nothing else sees or ends this tmux
        here = {name: os.environ[name] for name in KEPT if name in os.environ}
        self._environment = {**here, "HOME": str(Path.home()), "TERM": "xterm-256color", **(environment or {})}
        shell = f"{command}\nprintf '\\033]2;{DONE}\\007'; exec sleep 600"
        size = ("-x", str(columns), "-y", str(rows))
        self._tmux("-f", os.devnull, "new-session", "-d", *size, "-c", str(folder or Path.cwd()), "sh", "-c", shell)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._tmux("kill-server")
        self._own.cleanup()

    def shown(self, colour: bool = True) -> str:
        """What stands on the screen, and what has left it at the top; with its colours as escapes."""
        lines = self._tmux("capture-pane", *(["-e"] if colour else []), "-p", "-S", "-").splitlines()
        return "\n".join(line.rstrip() for line in lines).rstrip()

    def wait(self, pattern: str | None = None) -> None:
        """Until the command is over, or this stands on the screen. Raises: TimeoutError"""
        for _ in range(int(LONGEST_S / 0.1)):
            over = self._tmux("display-message", "-p", "#{pane_title}").strip() == DONE
            if over or (pattern and re.search(pattern, self.shown(colour=False))):
                return
            time.sleep(0.1)
        raise TimeoutError(f"{pattern or 'the end'} never came:\n{self.shown(colour=False)}")

    def _tmux(self, *words: str) -> str:
        command = ["tmux", "-S", f"{self._own.name}/socket", *words]
        return subprocess.run(command, check=True, capture_output=True, text=True, env=self._environment).stdout


def svg(columns: int, command: str, shown: str) -> str:
    """A picture of a command line and of what came of it."""
    console = Console(record=True, width=columns, file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ {command}", style="bold"))
    console.print(Text.from_ansi(shown))
    picture = console.export_svg(title="cai", unique_id="cai")
    picture = re.sub(r"@font-face \{.*?\}", "", picture, flags=re.DOTALL)  # nothing is fetched from elsewhere to draw it
    return _LED_BY_SPACES.sub(_moved, picture)


_LED_BY_SPACES = re.compile(r'x="([\d.]+)"( y="[\d.]+") textLength="([\d.]+)"([^>]*)>((?:&#160;)+)(?=[^<])')
LETTER = 12.2  # units of the picture


def _moved(text: re.Match[str]) -> str:
    """A text without the spaces before it, that much to the right: some programs that draw would leave them out."""
    by = text[5].count(";") * LETTER
    return f'x="{float(text[1]) + by:.1f}"{text[2]} textLength="{float(text[3]) - by:.1f}"{text[4]}>'


def main() -> None:
    out, columns, rows, command = sys.argv[1:]
    with Terminal(int(columns), int(rows), command) as terminal:
        terminal.wait()
        Path(out).write_text(svg(int(columns), command, terminal.shown()))


if __name__ == "__main__":
    main()
