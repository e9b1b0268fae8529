"""Servers on this machine that answer as a test tells them to, and keep what they were sent."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Self

from aiohttp import web
from hypothesis import strategies as st

from cai_cli.flow import Model, Reply, Request
from cai_cli.providers import connect
from cai_cli.records import Turn

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m-1", "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn", "usage": {"input_tokens": 3, "output_tokens": 2},
}  # fmt: skip
COMPLETION = {
    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "m-1",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
}  # fmt: skip
PROTOCOLS = {"anthropic": MESSAGE, "openai": COMPLETION}


class Asked(NamedTuple):
    method: str
    path: str
    headers: dict[str, str]  # names in lower case
    body: Any


async def well(asked: web.BaseRequest) -> web.StreamResponse:
    return web.json_response(COMPLETION if asked.path.endswith("completions") else MESSAGE)


def status(number: int, body: Any = None, **headers: str) -> Answer:
    async def answer(asked: web.BaseRequest) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=number, headers=named, text=json.dumps(body), content_type="application/json")

    return answer


def _value(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode() or None


class Server:
    """A server on this machine that answers as it is told to, and keeps what it was sent."""

    def __init__(self, answer: Answer = well, tls: ssl.SSLContext | None = None) -> None:
        self.answer, self.tls, self.url = answer, tls, ""
        self.asked: list[Asked] = []

    async def handle(self, asked: web.BaseRequest) -> web.StreamResponse:
        body = await asked.read()
        headers = {name.lower(): value for name, value in asked.headers.items()}
        self.asked.append(Asked(asked.method or "", asked.raw_path, headers, _value(body)))
        return await self.answer(asked)

    async def __aenter__(self) -> Self:
        self.runner = web.ServerRunner(web.Server(self.handle), shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0, ssl_context=self.tls)
        await site.start()
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self.runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.runner.cleanup()


def model(provider: str, *urls: str, **params: Any) -> Model:
    return Model(provider=provider, name="model-x", params={"max_tokens": 64, **params}, base_urls=urls)


def request(asked: Model, **changes: Any) -> Request:
    return Request(**{"model": asked, "messages": (Turn(role="user", content="How?"),), **changes})


async def send(asked: Model, deadline_s: float = 5.0, **changes: Any) -> Reply:
    """One request through a provider that is opened and closed for it."""
    provider = connect(asked)
    try:
        return await provider.send(request(asked, **changes), deadline_s)
    finally:
        await provider.close()


def answered(provider: str, answer: Answer, deadline_s: float = 5.0, **changes: Any) -> Reply:
    """The reply to one request to a server that answers like this; or what is raised."""

    async def main() -> Reply:
        async with Server(answer) as server:
            return await send(model(provider, server.url), deadline_s, **changes)

    return asyncio.run(main())


def sent_by_us(provider: str, path: str, params: dict[str, Any], changes: dict[str, Any]) -> Asked:
    """What one request looks like to a server whose base URL ends in `path`."""

    async def main() -> Asked:
        async with Server() as server:
            assert (await send(model(provider, server.url + path, **params), **changes)).text == "hello"
            return server.asked[0]

    return asyncio.run(main())


def json_values(*keys: str) -> st.SearchStrategy[Any]:
    """Any JSON value, with these keys where it is an object."""
    return st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(keys), inner),
        max_leaves=8,
    )
