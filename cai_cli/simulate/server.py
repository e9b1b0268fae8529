"""The server: what it counts, whom it answers, and how it fails when it is told to.

POST /v1/messages, /v1/messages/count_tokens, /v1/chat/completions      GET /v1/models, /v1/models/ID
GET /stats     its own: total, distinct, bodies {sha256: requests}, completed {sha256: 200s sent whole}, repeated_ok (how many
               of these were for a body that had one), in_flight, max_in_flight, statuses {status: count},
               keys [sha256 of each], tokens {model: those of 200s sent whole, by what they cost: input, cache_read,
               cache_write_5m, cache_write_1h, output}
               answered_s: when the first and the last of these were sent, in seconds of the server's clock
POST /reset    its own: count from zero; a JSON body changes options: {"fail": ["500@1-"], "latency_ms": 0}
POST /change   its own: the same, but it counts on, and what is left of the limits stays as it is
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import secrets
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from aiohttp import web

from cai_cli import chance
from cai_cli.errors import Fix
from cai_cli.flow import Request
from cai_cli.providers.simulated import Answer, answer_to, tokens, tokens_in
from cai_cli.simulate import chat, messages
from cai_cli.simulate.caches import Bill, Caches, parts_of
from cai_cli.simulate.faults import Ask, Fault
from cai_cli.simulate.options import Options
from cai_cli.simulate.wire import BadRequest, Body, Dialect, Problem

LARGEST = 1 << 28  # bytes of a request
UNLIMITED = 4096  # output tokens that are reserved for a request that says no limit
_DRIP_S = 0.5


class Server:
    """The server's state and its routes. Raises: Fix: options that cannot be followed"""

    def __init__(self, options: Options) -> None:
        self.in_flight = 0
        self.messages, self.chat = messages.Messages(), chat.ChatCompletions()
        self.limits = options.limits()
        self.reset(options)

    def reset(self, options: Options) -> None:
        """Take other options, and count from zero. Raises: Fix, and keeps the old ones"""
        self.change(options)
        self.limits = options.limits()
        self.answered_s: list[float] = []
        self.seen: Counter[str] = Counter()
        self.completed: Counter[str] = Counter()
        self.statuses: Counter[int] = Counter()
        self.keys: set[str] = set()
        self.caches = Caches()
        self.tokens: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self.total, self.max_in_flight = 0, self.in_flight

    def change(self, options: Options) -> None:
        """Take other options, and count on. Raises: Fix, and keeps the old ones"""
        world, faults, limits = options.simulated(), options.faults(), options.limits()
        self.options, self.world, self.faults, self.limits = options, world, faults, limits.left_as(self.limits)

    def app(self) -> web.Application:
        """The routes."""
        app = web.Application(client_max_size=LARGEST)
        app.add_routes([
            web.post("/v1/messages", self.ask_messages), web.post("/v1/chat/completions", self.ask_chat),
            web.post("/v1/messages/count_tokens", self.count_tokens), web.get("/v1/models", self.list_models),
            web.get("/v1/models/{id:.+}", self.one_model), web.get("/stats", self.stats), web.post("/reset", self.start_over),
            web.post("/change", self.go_on), web.route("*", "/{path:.*}", self.nothing),
        ])  # fmt: skip
        return app

    # Its own

    async def stats(self, http: web.Request) -> web.Response:
        return web.json_response({
            "total": self.total, "distinct": len(self.seen), "bodies": self.seen, "completed": self.completed,
            "repeated_ok": sum(self.completed.values()) - len(self.completed), "in_flight": self.in_flight,
            "max_in_flight": self.max_in_flight, "statuses": self.statuses, "keys": sorted(self.keys),
            "tokens": self.tokens, "answered_s": self.answered_s,
        })  # fmt: skip

    async def start_over(self, http: web.Request) -> web.Response:
        return await self.told_options(http, self.reset)

    async def go_on(self, http: web.Request) -> web.Response:
        return await self.told_options(http, self.change)

    async def told_options(self, http: web.Request, take: Callable[[Options], None]) -> web.Response:
        try:
            values = json.loads(await http.text() or "{}")
            take(self.options.changed(values if isinstance(values, dict) else {"": values}))
        except ValueError:
            return web.json_response({"problems": ["this is no JSON"]}, status=400)
        except Fix as fix:
            return web.json_response({"problems": [": ".join(problem) for problem in fix.problems]}, status=400)
        return web.json_response({})

    # What is small

    async def count_tokens(self, http: web.Request) -> web.Response:
        if problem := self.refused(http):
            return self.told(self.messages, problem)
        try:
            return web.json_response({"input_tokens": tokens_in(self.messages.counted(_json(await http.read())))})
        except BadRequest as bad:
            return self.told(self.messages, _bad(bad))

    async def list_models(self, http: web.Request) -> web.Response:
        dialect = self.dialect(http)
        if problem := self.refused(http):
            return self.told(dialect, problem)
        form = messages.model_list if dialect is self.messages else chat.model_list
        return web.json_response(form(list(self.options.models) or ["simulated"]))

    async def one_model(self, http: web.Request) -> web.Response:
        dialect, name = self.dialect(http), http.match_info["id"]
        if problem := self.refused(http) or self.unknown(name):
            return self.told(dialect, problem)
        form = messages.model_info if dialect is self.messages else chat.model_info
        return web.json_response(form(name))

    async def nothing(self, http: web.Request) -> web.Response:
        return self.told(self.dialect(http), Problem(404, f"there is no {http.method} {http.path} here"))

    def dialect(self, http: web.Request) -> Dialect:
        """Which of the two protocols a client speaks, where the path does not tell."""
        return self.messages if "anthropic-version" in http.headers else self.chat

    def told(self, dialect: Dialect, problem: Problem) -> web.Response:
        unique = f"req_{secrets.token_hex(12)}"
        return web.json_response(dialect.problem(problem, unique), status=problem.status, headers={dialect.id_header: unique})

    def refused(self, http: web.Request) -> Problem | None:
        """Why a request is not answered: it brings no key."""
        key = http.headers.get("authorization") or http.headers.get("x-api-key")
        if key:
            self.keys.add(hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest())
        return None if key or self.options.no_key else Problem(401, "there is no authorization and no x-api-key header")

    def unknown(self, name: str) -> Problem | None:
        """Why a model is not to be had: the server has others."""
        known = not self.options.models or name in self.options.models
        return None if known else Problem(404, f"model: {name}", "model", "model", "model_not_found")

    # Questions

    async def ask_messages(self, http: web.Request) -> web.StreamResponse:
        return await self.ask(http, self.messages)

    async def ask_chat(self, http: web.Request) -> web.StreamResponse:
        return await self.ask(http, self.chat)

    async def ask(self, http: web.Request, dialect: Dialect) -> web.StreamResponse:
        """Answer a question. It is in flight until its last byte is sent, or its client is gone."""
        raw = await http.read()
        digest = hashlib.sha256(raw).hexdigest()
        self.total += 1
        exchange = Exchange(self, dialect, Ask(http, raw, digest, self.total, self.seen[digest]))
        self.seen[digest] += 1
        self.in_flight += 1
        self.max_in_flight = max(self.max_in_flight, self.in_flight)
        try:
            return await exchange.run()
        finally:
            self.in_flight -= 1


class Exchange:
    """One question and its answer."""

    def __init__(self, server: Server, dialect: Dialect, ask: Ask) -> None:
        self.server, self.dialect, self.ask_ = server, dialect, ask
        self.bill, self.tokens_out, self.model = Bill(fresh=0), 0, ""

    async def run(self) -> web.StreamResponse:
        """Check, wait, and answer or fail."""
        server, ask = self.server, self.ask_
        if problem := server.refused(ask.http):
            return await self.problem(problem)
        try:
            body = _json(ask.raw)
            request = self.dialect.question(body, draw=ask.attempt if server.options.sampling else 0)
            self.dialect.check(body, ask.http.headers.get("anthropic-version", ""))
            parts = parts_of(body) if self.dialect is server.messages else []
        except BadRequest as bad:
            return await self.problem(_bad(bad))
        if problem := server.unknown(request.model.name):
            return await self.problem(problem)
        self.model, self.bill = request.model.name, server.caches.bill(request, parts)
        return await self.limited(request, body)

    async def limited(self, request: Request, body: Body) -> web.StreamResponse:
        limits, longest = self.server.limits, request.model.params.get("max_tokens", UNLIMITED)
        wait_s, reserved = limits.admit(tokens_in(request) - self.bill.read, longest)
        if wait_s:
            message = "this request would exceed the rate limit"
            return await self.problem(Problem(429, message), {"retry-after": str(math.ceil(wait_s))})
        used = 0
        try:
            await self.pause()
            fault = next((fault for fault in self.server.faults if fault.hits(self.ask_)), None)
            if fault and (failed := await self.failed(fault)):
                return failed
            answer = _altered(answer_to(request, self.server.world), fault)
            used = answer.reply.tokens_out
            self.server.limits.settle(reserved, used)
            reserved = used
            return await self.answered(answer, body, fault)
        finally:
            self.server.limits.settle(reserved, used)

    async def pause(self) -> None:
        options = self.server.options
        seconds = (options.latency_ms or self.server.world.latency_ms) / 1000
        if options.jitter:
            seconds *= 0.5 + chance.unit("jitter", self.ask_.digest, self.ask_.attempt)
        if seconds:
            await asyncio.sleep(seconds)

    # Failing, before there is an answer

    async def failed(self, fault: Fault) -> web.StreamResponse | None:
        """Fail as told; None: the fault is one of the answer."""
        kind, argument, http = fault.kind, fault.argument, self.ask_.http
        if kind.isdigit():
            after = argument if argument is not None else "1" if kind == "429" else ""
            return await self.problem(Problem(int(kind)), {"retry-after": after} if after else {})
        if kind == "spend":
            return await self.problem(Problem(int(argument or 400), "You have reached your spend limit", kind))
        if kind == "redirect":
            return await self.send(307, b"", {"location": f"http://127.0.0.1:9{http.path}"})
        if kind == "html":
            return await self.send(200, b"<html><body>Bad gateway</body></html>", {"content-type": "text/html"})
        if kind == "body":
            return await self.send(200, self.dialect.problem(Problem(529, "Overloaded"), self.id))
        if kind == "hang":
            await asyncio.Event().wait()  # until the client goes away, which cancels this
        if kind == "reset":
            return self.abort(web.StreamResponse())
        return None

    def abort(self, response: web.StreamResponse) -> web.StreamResponse:
        if (transport := self.ask_.http.transport) is not None:
            transport.abort()
        return response

    # Answering

    async def answered(self, answer: Answer, body: Body, fault: Fault | None) -> web.StreamResponse:
        """Send an answer, or what a fault makes of it."""
        unique = "constant" if self.server.options.ids == "constant" else secrets.token_hex(12)
        self.tokens_out = answer.reply.tokens_out
        self.server.caches.keep(self.bill)
        sent = self.dialect.answer(self.bill.put_into(answer), body, unique)
        kind, argument = (fault.kind, fault.argument) if fault else ("", None)
        if kind in ("cut", "drip"):
            return await self.piecemeal(json.dumps(sent).encode(), kind == "cut", float(argument or _DRIP_S))
        if kind == "json":
            whole = json.dumps(sent).encode()
            return await self.send(200, whole[: len(whole) // 2])
        if kind == "usage":
            sent = {name: value for name, value in sent.items() if name != "usage"}
        if kind == "empty":
            sent = self.dialect.emptied(sent)
        if kind == "stop":
            sent = self.dialect.stopped(sent, argument or "")
        return await self.send(200, sent, complete=True)

    async def piecemeal(self, payload: bytes, cut: bool, wait_s: float) -> web.StreamResponse:
        response = await self.begin(200, len(payload), {})
        if cut:
            await response.write(payload[: len(payload) // 2])
            await asyncio.sleep(0.01)  # let the half leave before the connection is torn down
            return self.abort(response)
        for at in range(len(payload)):
            await response.write(payload[at : at + 1])
            await asyncio.sleep(wait_s)
        self.count()
        return response

    @property
    def id(self) -> str:
        return f"req_{self.ask_.number}"

    async def problem(self, problem: Problem, headers: dict[str, str] | None = None) -> web.StreamResponse:
        return await self.send(problem.status, self.dialect.problem(problem, self.id), headers)

    async def send(
        self, status: int, body: Any, headers: dict[str, str] | None = None, complete: bool = False
    ) -> web.StreamResponse:
        """Send a body; a `complete` one counts as sent whole once its last byte was handed to a connection that is open."""
        payload = body if isinstance(body, bytes) else json.dumps(body).encode()
        response = await self.begin(status, len(payload), headers or {})
        await response.write(payload)
        await response.write_eof()
        if complete:
            self.count()
        return response

    async def begin(self, status: int, length: int, headers: dict[str, str]) -> web.StreamResponse:
        self.server.statuses[status] += 1
        sent = {"content-type": "application/json", self.dialect.id_header: self.id}
        sent |= self.dialect.rates(self.server.limits.states(), time.time())
        response = web.StreamResponse(status=status, headers=sent | headers)
        response.content_length = length
        await response.prepare(self.ask_.http)
        return response

    def count(self) -> None:
        transport = self.ask_.http.transport
        if transport is not None and not transport.is_closing():
            self.server.completed[self.ask_.digest] += 1
            self.server.answered_s = [*self.server.answered_s[:1], time.monotonic()]
            self.server.tokens[self.model].update({
                "input": self.bill.fresh, "cache_read": self.bill.read, "cache_write_5m": self.bill.written,
                "cache_write_1h": self.bill.written_1h, "output": self.tokens_out,
            })  # fmt: skip


def _json(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        raise BadRequest("The request body is not valid JSON") from None


def _bad(bad: BadRequest) -> Problem:
    return Problem(400, bad.message, param=bad.param, code=bad.code)


def _altered(answer: Answer, fault: Fault | None) -> Answer:
    """The answer that a fault makes of one: a refusal, or its beginning."""
    kind, argument = (fault.kind, fault.argument) if fault else ("", None)
    text = answer.reply.text
    if kind == "refusal":
        text, stop = "", "refusal"
    elif kind == "truncate":
        text, stop = text[: 4 * int(argument) if argument else len(text) // 2], "max_tokens"
    else:
        return answer
    reply = replace(answer.reply, text=text, stop_reason=stop, tokens_out=tokens(text))
    return replace(answer, reply=reply, choice=None, stop_sequence=None)
