"""A judge of the world of judge_world.py behind HTTP: it reads which pair it sees, and how long both answers are.

What it thinks of a pair is fixed but for length, which it counts in the texts as they come; its noise hangs on the whole request.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from judge_world import Drawn, Judge

from cai_cli import chance
from cai_cli.bias.estimate import Floats
from cai_cli.providers._fences import fenced

MARK = "This is the {side} answer to question number {n}."
_READ = re.compile(r"This is the (left|right) answer to question number (\d+)\.")
_SENTENCE = ("It", "is", "one", "of", "the", "things", "that", "are", "said", "of", "it.")


def text(words: int, n: int, side: str) -> str:
    """A text of just so many words, 9 at least: sentences that a length probe can put others between."""
    said, left = [MARK.format(side=side, n=n)], words - len(MARK.split())
    while left > 0:
        size = min(left, len(_SENTENCE)) if left - len(_SENTENCE) > 2 or left <= len(_SENTENCE) else left - 3
        said.append(f"{' '.join(_SENTENCE[:size]).rstrip('.')}.")
        left -= size
    return " ".join(said)


class _World:
    def __init__(self, judge: Judge, drawn: Drawn, at: int, sd: float) -> None:
        self.judge, self.sd = judge, sd
        self.rest: Floats = drawn.x[at] - judge.c * drawn.length[at]
        self.bias: Floats = drawn.bias[at]

    def answer(self, body: bytes) -> dict[str, Any]:
        """The reply to a chat completion that asks for a verdict."""
        message = json.loads(body)["messages"][-1]["content"]
        first, second = (fence for fence in fenced(message) if fence.kind == "response")
        marks = [_READ.search(one.text) for one in (first, second)]
        assert marks[0] is not None
        n, slot = int(marks[0][2]), 1 if marks[0][1] == "left" else -1
        longer = slot * np.log(len(first.text.split()) / len(second.text.split())) / self.sd
        noise = np.random.default_rng(int(chance.nonce(message), 16)).normal()
        logit = slot * (self.rest[n] + self.judge.c * longer) + self.bias[n] + self.judge.call * noise
        sure = float(1 / (1 + np.exp(-abs(logit))))
        return {"verdict": first.label if logit > 0 else second.label, "confidence": sure}


@contextlib.contextmanager
def served(judge: Judge, drawn: Drawn, at: int, sd: float) -> Iterator[str]:
    """The judge of one repetition, as a server on this machine. Gives: its base URL"""
    world = _World(judge, drawn, at, sd)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            content = json.dumps(world.answer(self.rfile.read(int(self.headers["Content-Length"]))))
            choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
            usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
            reply = {"id": "world", "object": "chat.completion", "model": "world", "choices": [choice], "usage": usage}
            data = json.dumps(reply).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *arguments: Any) -> None:
            """A line a request would be in the way of the figures."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
