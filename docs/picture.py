"""Keep what a terminal shows after a command as an SVG: python docs/picture.py OUT.svg COLUMNS ROWS COMMAND (needs tmux)."""

from __future__ import annotations

import io
import re
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.text import Text


def tmux(*words: str) -> str:
    return subprocess.run(["tmux", "-L", "cai-picture", *words], check=True, capture_output=True, text=True).stdout


def screen(columns: str, rows: str, command: str) -> str:
    """The screen after the command, with its colours as escapes."""
    tmux("new-session", "-d", "-x", columns, "-y", rows, f"{command}; printf '\\033]2;done\\007'; sleep 30")
    while tmux("display-message", "-p", "#{pane_title}").strip() != "done":
        time.sleep(0.2)
    shown = tmux("capture-pane", "-e", "-p")
    tmux("kill-server")
    return shown.rstrip()


def main() -> None:
    out, columns, rows, command = sys.argv[1:]
    console = Console(record=True, width=int(columns), file=io.StringIO(), force_terminal=True)
    console.print(Text(f"$ {command}", style="bold"))
    console.print(Text.from_ansi(screen(columns, rows, command)))
    svg = console.export_svg(title="cai")
    Path(out).write_text(re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL))  # nothing is fetched from elsewhere to draw it


if __name__ == "__main__":
    main()
