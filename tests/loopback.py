"""A server on 127.0.0.1 that speaks the Messages API, answers from the simulated world, and misbehaves when told to.

    python tests/loopback.py [OPTIONS]              prints {"port": N}, then serves until SIGTERM
    with serve(fail=["529@3-10"]) as server: ...    the same as a process of its own; options as keywords, a switch as True
        server.url, server.pid, server.stats(), server.reset(fail=[]), server.close()

Options
    --port N          0: any free one (default)
    --latency-ms N    wait before every reply; with --jitter 50 to 150% of it, drawn by body and attempt
    --world JSON      settings of the simulated world: '{"refusal_rate": 0.1}'; drawn anew by --sampling only
    --rate N          requests a second, as a token bucket; above it 429 with retry-after. --burst N: its size (default: N)
    --ids KIND        random (default) | constant: the id of every reply
    --sampling        the n-th request with the same body is the n-th draw; without it a body always gets the same reply
    --fail SPEC       misbehave; repeatable, the first that applies wins. SPEC is KIND, maybe :ARGUMENT, and WHEN:
      KIND  400 401 402 403 404 408 409 413 422 429 500 503 504 529   that status with the API's error body; 429:7 and 529:7 send
                                                                      retry-after: 7 (429 alone sends 1, 429: sends none)
            spend   400 because the spend limit is reached; spend:429 the same as 429 without retry-after
            reset   close the connection without a word        cut    close it in the middle of the body
            json    200 with half a JSON body                  html   200 with a web page
            body    200 with an error body                     empty  200 without content
            usage   200 without usage                          stop:X 200 that stopped because of X, such as pause_turn
            hang    never answer                               drip:S one byte every S seconds (default 0.5)
            redirect   307 to another port
      WHEN  @N, @N-M, @N-   by number of the request, from 1      %R   of share R, drawn by body and attempt: a rerun repeats it
            ^N              the first N attempts of every body    ~T   of bodies that contain the text T

It also serves
    GET /stats     total, distinct, bodies {sha256: requests}, completed {sha256: 200s sent whole}, repeated_ok (how many of these
                   were for a body that had one), in_flight, max_in_flight, statuses {status: count}, keys [sha256 of each]
    POST /reset    count from zero; a JSON body replaces options: {"fail": ["500@1-"], "latency_ms": 0}
    GET /v1/models
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import math
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent.parent))

from aiohttp import web
from faults import ERROR_TYPES, SPEND, Ask, Bucket, Fault

from cai_cli import chance
from cai_cli.errors import Reject
from cai_cli.providers._world import world_of
from cai_cli.providers.simulated import body_from_reply, reply_to, request_from_body


class Loopback:
    """The server's state and its routes."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.in_flight = options, 0
        self.reset()

    def reset(self) -> None:
        """Read the options anew and count from zero."""
        self.world = world_of({"world": self.options.world})
        self.faults = [Fault.parse(spec) for spec in self.options.fail]
        rate = self.options.rate
        self.bucket = Bucket(rate, self.options.burst or max(1.0, rate)) if rate else None
        self.seen: Counter[str] = Counter()
        self.completed: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.keys: set[str] = set()
        self.total, self.max_in_flight = 0, self.in_flight

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 28)
        app.add_routes([
            web.post("/v1/messages", self.messages), web.get("/v1/models", self.models),
            web.get("/stats", self.stats), web.post("/reset", self.start_over),
        ])  # fmt: skip
        return app

    async def stats(self, http: web.Request) -> web.Response:
        return web.json_response({
            "total": self.total, "distinct": len(self.seen), "bodies": self.seen, "completed": self.completed,
            "repeated_ok": sum(self.completed.values()) - len(self.completed), "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight, "statuses": self.statuses, "keys": sorted(self.keys),
        })  # fmt: skip

    async def start_over(self, http: web.Request) -> web.Response:
        vars(self.options).update(json.loads(await http.text() or "{}"))
        self.reset()
        return web.json_response({})

    async def models(self, http: web.Request) -> web.Response:
        model = {"type": "model", "id": "simulated", "display_name": "Simulated", "created_at": "2026-01-01T00:00:00Z"}
        return web.json_response({"data": [model], "has_more": False, "first_id": "simulated", "last_id": "simulated"})

    async def messages(self, http: web.Request) -> web.StreamResponse:
        raw = await http.read()
        digest = hashlib.sha256(raw).hexdigest()
        self.total += 1
        ask = Ask(http, raw, digest, self.total, self.seen[digest])
        self.seen[digest] += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            return await self.respond(ask)
        finally:
            self.in_flight -= 1

    async def respond(self, ask: Ask) -> web.StreamResponse:
        key = ask.http.headers.get("authorization")
        if not key:
            return await self.error(ask, 401, "The authorization header is missing")
        self.keys.add(hashlib.sha256(key.encode()).hexdigest())
        if self.bucket and (wait := self.bucket.take()):
            return await self.error(ask, 429, retry_after=str(math.ceil(wait)))
        await self.pause(ask)
        fault = next((fault for fault in self.faults if fault.hits(ask)), None)
        try:
            if fault:
                return await self.misbehave(ask, fault)
            return await self.send(ask, 200, self.answer(ask), complete=True)
        except Reject as reject:
            return await self.error(ask, 400, reject.detail)

    async def pause(self, ask: Ask) -> None:
        seconds = (self.options.latency_ms or self.world.latency_ms) / 1000
        if self.options.jitter:
            seconds *= 0.5 + chance.unit("jitter", ask.digest, ask.attempt)
        if seconds:
            await asyncio.sleep(seconds)

    def answer(self, ask: Ask) -> dict[str, Any]:
        try:
            body = json.loads(ask.raw)
        except ValueError:
            raise Reject("bad_request", "The request body is not valid JSON") from None
        request = request_from_body(body, draw=ask.attempt if self.options.sampling else 0)
        sampled = {"temperature", "top_p", "top_k"} & body.keys()
        if sampled and ask.http.headers.get("anthropic-version", "") >= "2026":
            raise Reject("bad_request", f"{min(sampled)}: Extra inputs are not permitted")
        unique = "constant" if self.options.ids == "constant" else secrets.token_hex(12)
        return body_from_reply(reply_to(request, self.world), f"msg_{unique}")

    # Sending

    async def error(self, ask: Ask, status: int, message: str = "", retry_after: str = "", **more: Any) -> web.StreamResponse:
        problem = {"type": ERROR_TYPES[status], "message": message or ERROR_TYPES[status].replace("_", " ")} | more
        body = {"type": "error", "error": problem, "request_id": f"req_{ask.number}"}
        return await self.send(ask, status, body, {"retry-after": retry_after} if retry_after else {})

    async def send(
        self, ask: Ask, status: int, body: Any, headers: dict[str, str] | None = None, complete: bool = False
    ) -> web.StreamResponse:
        """Send a reply; a `complete` one counts as sent whole once its last byte was handed to a connection that is open."""
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = await self.begin(ask, status, len(payload), headers or {})
        await response.write(payload)
        await response.write_eof()
        self.count(ask, complete)
        return response

    async def begin(self, ask: Ask, status: int, length: int, headers: dict[str, str]) -> web.StreamResponse:
        self.statuses[status] += 1
        sent = {"content-type": "application/json", "request-id": f"req_{ask.number}"}
        if self.bucket:
            sent["anthropic-ratelimit-requests-limit"] = f"{self.bucket.rate * 60:.0f}"
            sent["anthropic-ratelimit-requests-remaining"] = f"{self.bucket.level:.0f}"
            sent["anthropic-ratelimit-requests-reset"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1))
        response = web.StreamResponse(status=status, headers=sent | headers)
        response.content_length = length
        await response.prepare(ask.http)
        return response

    def count(self, ask: Ask, complete: bool) -> None:
        transport = ask.http.transport
        if complete and transport is not None and not transport.is_closing():
            self.completed[ask.digest] += 1

    # Misbehaving

    async def misbehave(self, ask: Ask, fault: Fault) -> web.StreamResponse:
        kind, argument = fault.kind, fault.argument
        if kind.isdigit():
            after = argument if argument is not None else "1" if kind == "429" else ""
            return await self.error(ask, int(kind), retry_after=after)
        if kind == "spend":
            return await self.error(ask, int(argument or 400), "You have reached your spend limit", details=SPEND)
        if kind == "redirect":
            return await self.send(ask, 307, b"", {"location": "http://127.0.0.1:9/v1/messages"})
        if kind == "hang":
            await asyncio.Event().wait()  # until the client goes away, which cancels this
        if kind == "reset":
            return self.abort(ask, web.StreamResponse())
        if kind in ("cut", "drip"):
            return await self.piecemeal(ask, kind == "cut", float(argument or 0.5))
        return await self.broken(ask, kind, argument or "")

    def abort(self, ask: Ask, response: web.StreamResponse) -> web.StreamResponse:
        if ask.http.transport is not None:
            ask.http.transport.abort()
        return response

    async def piecemeal(self, ask: Ask, cut: bool, wait_s: float) -> web.StreamResponse:
        payload = json.dumps(self.answer(ask)).encode()
        response = await self.begin(ask, 200, len(payload), {})
        if cut:
            await response.write(payload[: len(payload) // 2])
            await asyncio.sleep(0.01)  # let the half leave before the connection is torn down
            return self.abort(ask, response)
        for at in range(len(payload)):
            await response.write(payload[at : at + 1])
            await asyncio.sleep(wait_s)
        self.count(ask, complete=True)
        return response

    async def broken(self, ask: Ask, kind: str, argument: str) -> web.StreamResponse:
        """A 200 that is not what it should be."""
        body = self.answer(ask)
        whole = json.dumps(body).encode()
        if kind == "html":
            return await self.send(ask, 200, b"<html><body>Bad gateway</body></html>", {"content-type": "text/html"})
        changed: dict[str, Any] = {
            "json": whole[: len(whole) // 2],
            "body": {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}},
            "empty": body | {"content": []}, "stop": body | {"stop_reason": argument},
            "usage": {key: value for key, value in body.items() if key != "usage"},
        }  # fmt: skip
        return await self.send(ask, 200, changed[kind], complete=kind in ("stop", "usage", "empty"))


# In a process of its own


class Server:
    """A loopback server that runs as a process."""

    def __init__(self, **options: Any) -> None:
        command = [sys.executable, __file__, "--with-parent", *_arguments(options)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdout is not None
        self.pid, self.port = self.process.pid, int(json.loads(self.process.stdout.readline())["port"])
        self.url = f"http://127.0.0.1:{self.port}"

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/stats", timeout=10) as reply:
            return dict(json.load(reply))

    def reset(self, **options: Any) -> None:
        urllib.request.urlopen(f"{self.url}/reset", data=json.dumps(options).encode(), timeout=10).close()

    def close(self) -> None:
        with self.process:
            self.process.terminate()


@contextlib.contextmanager
def serve(**options: Any) -> Iterator[Server]:
    """A server for the time of a test. Options: see the top of this file."""
    server = Server(**options)
    try:
        yield server
    finally:
        server.close()


def _arguments(options: dict[str, Any]) -> list[str]:
    arguments = []
    for name, value in options.items():
        flag = f"--{name.replace('_', '-')}"
        for item in value if isinstance(value, list) else [value]:
            text = json.dumps(item) if isinstance(item, dict) else str(item)
            arguments += [flag] if item is True else [] if item is None or item is False else [f"{flag}={text}"]
    return arguments


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("--latency-ms", "--rate", "--burst"):
        parser.add_argument(name, type=float, default=0)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--world", type=json.loads, default={})
    parser.add_argument("--fail", action="append", default=[])
    parser.add_argument("--ids", choices=["random", "constant"], default="random")
    for name in ("--jitter", "--sampling", "--with-parent"):
        parser.add_argument(name, action="store_true")
    return parser


async def _main() -> None:
    options = _parser().parse_args()
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    if options.with_parent:
        # The parent holds the other end of stdin and writes nothing: it closes when the parent ends, however it ends.
        asyncio.get_running_loop().add_reader(sys.stdin, stopped.set)
    runner = web.AppRunner(Loopback(options).app(), handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", options.port, backlog=4096)
    await site.start()
    print(json.dumps({"port": runner.addresses[0][1]}), flush=True)
    await stopped.wait()
    await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(_main())
