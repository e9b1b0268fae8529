"""Text of models, servers and files on a terminal: it moves no cursor, hides nothing, makes no link, and is no markup."""

from __future__ import annotations

import io
import json
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback import Server
from outside import rows_of, write_config, write_rows
from rich.console import Console
from rich.text import Text
from terminals import Screen, foreign, on_terminal

from cai_cli.cli._canvas import Canvas

HOSTILE = (
    "\x1b[2J\x1b[31mred \x1b]8;;http://x.invalid\x1b\\link\x1b]8;;\x1b\\ \x1b]0;title\x07 \x1bP1$r\x1b\\ \x9b31m \x9d0;t\x9c "
    "\x08\x08\rover \x7f\x00 \u202etxt\u202c \u2066iso\u2069 \u2028 \ufeff [bold red]markup[/bold red] [link=x]l[/link] :boom:"
)
VERBS = (
    "show c.yaml", "show c.yaml --stage debias", "show c.yaml --rejects", "show c.yaml --prompt critique", "show c.yaml {id}",
    "why c.yaml {id}", "why c.yaml {id} --full", "status c.yaml", "status c.yaml --json", "verify c.yaml", "retry c.yaml",
    "retry c.yaml --only http_400 --dry-run", "diff c.yaml --rows", "analyze preferences c.yaml", "analyze boilerplate c.yaml",
    "analyze coverage c.yaml", "doctor c.yaml", "config check c.yaml", "export c.yaml --to sft",
)  # fmt: skip


def spoiled(text: str) -> str:
    """A reply's text with hostile text in all that is free in it."""
    try:
        return json.dumps(_spoiled(json.loads(text)))
    except ValueError:
        return f"{text}\n{HOSTILE}"


def _spoiled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _spoiled(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_spoiled(one) for one in value]
    return f"{value} {HOSTILE}" if isinstance(value, str) and " " in value else value


@contextmanager
def hostile(behind: Server) -> Iterator[str]:
    """A server that asks a simulated one, and spoils its replies; some prompts it refuses, in hostile words."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if b"number 3" in body:
                error = {"type": "error", "error": {"type": "invalid_request_error", "message": f"no {HOSTILE}"}}
                return self._answer(400, error)
            headers = {"content-type": "application/json", "x-api-key": "k"}
            asked = urllib.request.Request(behind.url + self.path, body, headers)
            with urllib.request.urlopen(asked, timeout=30) as got:
                answer = json.load(got)
            answer["content"][0]["text"] = spoiled(answer["content"][0]["text"])
            answer |= {"model": f"m {HOSTILE}", "id": f"msg {HOSTILE}"}
            return self._answer(200, answer)

        def _answer(self, status: int, document: Any) -> None:
            data = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def ran(running: Server, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A run on hostile prompts with hostile replies, and what the terminal got of it."""
    folder = tmp_path_factory.mktemp("hostile")
    rows = [
        {"id": f"id{n}{HOSTILE.replace(chr(0), '')}", "prompt": f"How do I mend kite number {n}? {HOSTILE}"} for n in range(6)
    ]
    write_rows(folder / "prompts.jsonl", rows)
    running.reset(latency_ms=60, sampling=True)
    with hostile(running) as url:
        model = {"provider": "anthropic", "name": "small-world", "base_url": url}
        write_config(folder, model=model, limits={"max_reject_rate": 1.0, "concurrency": 2})
        code, shown = on_terminal(folder, "run", "c.yaml", out=True)
        assert on_terminal(folder, "run", "c.yaml", "-q", "--limit", "5")[0] == 0  # a second version, for diff
    assert code == 0, shown
    return folder, shown


def test_a_run_writes_no_escape_but_its_own(ran: tuple[Path, str]) -> None:
    folder, shown = ran
    assert foreign(shown) == []
    assert "in flight" in shown, "frames were drawn"
    assert rows_of(folder / "out" / "revise" / "latest")[0]["response"].count("\x1b]8;;") > 0, "the data keeps what came"


@pytest.mark.parametrize("words", VERBS)
def test_what_looks_at_its_rows_writes_none_either(words: str, ran: tuple[Path, str]) -> None:
    folder, _ = ran
    row = rows_of(folder / "out" / "revise" / "latest")[0]
    code, shown = on_terminal(folder, *(row["id"] if word == "{id}" else word for word in words.split()), out=True)
    assert code != 1, shown
    assert len(shown) > 20
    assert foreign(shown) == []
    if words.startswith("show"):
        assert "\\x1b" in shown, "written out"
        assert "--rejects" in words or "[bold red]" in shown, "no markup"


def test_a_message_about_a_hostile_file_writes_none(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(f"name: {json.dumps(HOSTILE)}\noutput: out\n{json.dumps(HOSTILE)}: 1\n")
    code, shown = on_terminal(tmp_path, "run", "c.yaml")
    assert code == 2
    assert foreign(shown) == []


# The check itself, and the canvas.


@pytest.mark.parametrize("bad", ["\x1b[2J", "\x1b]8;;x\x07", "\x9b1m", "a\rb", "\x08", "\u202e", "\x1b[\x1b[0m2J", "\x1b[?25l"])
def test_what_is_not_ours_is_found(bad: str) -> None:
    assert foreign(f"text{bad}text") != []
    assert foreign("\x1b[1mbold\x1b[0m\r\n\r\x1b[3A\x1b[Kx\x1b[J") == []


class Sized(Console):
    """A console on a string, as wide as it is told."""

    def __init__(self, columns: int) -> None:
        super().__init__(file=io.StringIO(), width=columns, height=24, force_terminal=True, color_system=None)

    @property
    def written(self) -> str:
        assert isinstance(self.file, io.StringIO)
        return self.file.getvalue()


@given(st.lists(st.integers(1, 9) | st.text("abc", min_size=1, max_size=15), max_size=12))
def test_frames_of_any_height_leave_nothing_behind_but_what_was_said(steps: list[int | str]) -> None:
    console = Sized(20)
    canvas, said = Canvas(console), []
    for step in steps:
        if isinstance(step, int):
            canvas.draw(Text("\n".join("frame" for _ in range(step))))
        else:
            canvas.say(step)
            said.append(step)
    canvas.wipe()
    screen = Screen(20).feed(console.written)
    assert (screen.lines[: len(said)], screen.row, screen.column) == (said, len(said), 0)
    assert not any(screen.lines[len(said) :])


@given(st.integers(3, 60), st.integers(2, 12), st.text("ab ", max_size=200))
def test_nothing_that_is_drawn_makes_the_terminal_wrap_or_scroll(columns: int, rows: int, text: str) -> None:
    console = Sized(columns)
    console.height = rows
    Canvas(console).draw(Text(text))
    screen = Screen(columns).feed(console.written)
    assert screen.wrapped == 0
    assert len(screen.lines) < rows or rows == 1


def test_a_terminal_made_narrower_is_wiped_by_the_rows_that_it_has_now() -> None:
    console = Sized(40)
    canvas = Canvas(console)
    canvas.draw(Text("x" * 30 + "\n" + "y" * 10))
    before = console.written
    console.width = 20
    canvas.draw(Text("z"))
    assert console.written[len(before) :].startswith("\r\x1b[2A\x1b[K\n\x1b[K\n\x1b[K\r\x1b[2A"), (
        "the first line is two rows by now"
    )
