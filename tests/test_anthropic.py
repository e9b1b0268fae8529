"""The provider against real servers on this machine: what it sends (held against the SDK), and what it makes of each failure."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Self

import anthropic
import httpx2
import pytest
from aiohttp import web

from cai_cli.errors import Exit, Fatal, Fix, Reject, Retry
from cai_cli.flow import Model, Reply, Request
from cai_cli.providers.anthropic import AnthropicProvider, connect
from cai_cli.records import Turn

CANARY = "canary-key-that-nobody-may-see-wxyz"
MESSAGE = {
    "id": "msg_1", "type": "message", "role": "assistant", "model": "m-1", "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn", "usage": {"input_tokens": 3, "output_tokens": 2},
}  # fmt: skip
Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("ANTHROPIC_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ANTHROPIC_API_KEY", CANARY)


async def well(asked: web.BaseRequest) -> web.StreamResponse:
    return web.json_response(MESSAGE)


class Server:
    """A server on this machine that answers as it is told to, and keeps what it was sent."""

    def __init__(self, answer: Answer = well) -> None:
        self.answer, self.url = answer, ""
        self.asked: list[tuple[str, str, dict[str, str], Any]] = []

    async def handle(self, asked: web.BaseRequest) -> web.StreamResponse:
        body = await asked.read()
        headers = {name.lower(): value for name, value in asked.headers.items()}
        self.asked.append((asked.method, asked.raw_path, headers, json.loads(body) if body else None))
        return await self.answer(asked)

    async def __aenter__(self) -> Self:
        self.runner = web.ServerRunner(web.Server(self.handle), shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self.runner.addresses[0][1]}"
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.runner.cleanup()


def model(*urls: str, **params: Any) -> Model:
    return Model(provider="anthropic", name="claude-x", params={"max_tokens": 64, **params}, base_urls=urls)


def request(asked: Model, **changes: Any) -> Request:
    return Request(model=asked, messages=(Turn(role="user", content="How?"),), **changes)


async def send(asked: Model, deadline_s: float = 5.0, **changes: Any) -> Reply:
    provider = connect(asked)
    try:
        return await provider.send(request(asked, **changes), deadline_s)
    finally:
        await provider.close()


def answered(answer: Answer, deadline_s: float = 5.0) -> Reply:
    """The reply to one request to a server that answers like this; or what is raised."""

    async def main() -> Reply:
        async with Server(answer) as server:
            return await send(model(server.url), deadline_s)

    return asyncio.run(main())


def status(number: int, body: Any = None, **headers: str) -> Answer:
    async def answer(asked: web.BaseRequest) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=number, headers=named, text=json.dumps(body), content_type="application/json")

    return answer


# What is sent, held against the SDK.

SCHEMA = {
    "type": "object",
    "properties": {"verdict": {"enum": ["a", "b"]}},
    "required": ["verdict"],
    "additionalProperties": False,
}
REQUESTS: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [  # params, the rest of the request, the same for the SDK
    ({}, {}, {}),
    ({}, {"system": "Be brief."}, {"system": "Be brief."}),
    ({"stop_sequences": ["\n\n"]}, {}, {"stop_sequences": ["\n\n"]}),
    ({"thinking": {"type": "adaptive"}}, {}, {"thinking": {"type": "adaptive"}}),
    ({}, {"schema": SCHEMA}, {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}}),
    ({"effort": "low"}, {}, {"output_config": {"effort": "low"}}),
    ({"effort": "low"}, {"schema": SCHEMA}, {"output_config": {"format": {"type": "json_schema",
    "schema": SCHEMA}, "effort": "low"}}),
    # The SDK takes these no more but as extra parts, to the version that has them.
    ({"temperature": 0.0, "top_p": 0.5, "top_k": 3}, {},
     {"extra_body": {"temperature": 0.0, "top_p": 0.5, "top_k": 3}, "extra_headers": {"anthropic-version": "2023-06-01"}}),
]  # fmt: skip
COMPARED = ("authorization", "anthropic-version", "content-type", "accept", "x-team", "x-api-key", "anthropic-beta")


def sent_by_sdk(base_url: str, arguments: dict[str, Any]) -> tuple[str, str, dict[str, str], Any]:
    sent = []

    def answer(asked: httpx2.Request) -> httpx2.Response:
        sent.append((asked.method, asked.url.raw_path.decode(), dict(asked.headers), json.loads(asked.content)))
        return httpx2.Response(200, json=MESSAGE)

    http = anthropic.DefaultHttpxClient(transport=httpx2.MockTransport(answer))
    turns: list[Any] = [{"role": "user", "content": "How?"}]
    client = anthropic.Anthropic(base_url=base_url, http_client=http)
    client.messages.create(model="claude-x", max_tokens=64, messages=turns, **arguments)
    return sent[0]


def sent_by_us(path: str, params: dict[str, Any], changes: dict[str, Any]) -> tuple[str, str, dict[str, str], Any]:
    async def main() -> tuple[str, str, dict[str, str], Any]:
        async with Server() as server:
            assert (await send(model(server.url + path, **params), **changes)).text == "hello"
            return server.asked[0]

    return asyncio.run(main())


@pytest.mark.parametrize(("params", "changes", "arguments"), REQUESTS)
def test_a_request_is_the_sdks(params: dict[str, Any], changes: dict[str, Any], arguments: dict[str, Any]) -> None:
    ours = sent_by_us("", {**params, "world": {"noise": 1}}, changes)
    theirs = sent_by_sdk("http://127.0.0.1:9", arguments)
    assert (ours[0], ours[1], ours[3]) == (theirs[0], theirs[1], theirs[3])
    assert {name: ours[2].get(name) for name in COMPARED} == {name: theirs[2].get(name) for name in COMPARED}
    assert ours[2]["user-agent"].startswith("cai/")


@pytest.mark.parametrize("lines", ["X-Team: blue", "authorization: Bearer other-key", "anthropic-version: 2023-06-01",
                                   "x-api-key: k",
                                   "anthropic-beta: a,b\nX-Team: red"])  # fmt: skip
def test_custom_headers_are_sent_as_the_sdk_sends_them(monkeypatch: pytest.MonkeyPatch, lines: str) -> None:
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", lines)
    ours, theirs = sent_by_us("", {}, {}), sent_by_sdk("http://127.0.0.1:9", {})
    assert {name: ours[2].get(name) for name in COMPARED} == {name: theirs[2].get(name) for name in COMPARED}


@pytest.mark.parametrize(("base", "expected"), [("", "/v1/messages"), ("/", "/v1/messages"), ("/v1", "/v1/messages"),
                                                ("/v1/", "/v1/messages"), ("/gateway", "/gateway/v1/messages"),
                                                ("/gateway/v1/", "/gateway/v1/messages")])  # fmt: skip
def test_a_base_url_may_end_in_v1(base: str, expected: str) -> None:
    assert sent_by_us(base, {}, {})[1] == expected
    if not base.strip("/").endswith("v1"):  # the SDK would ask /v1/v1/messages
        assert sent_by_sdk(f"http://127.0.0.1:9{base}", {})[1] == expected


def test_the_base_url_comes_from_the_environment_if_the_config_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9/v1")
    assert (connect(model()).host, connect(model("http://localhost:8")).host) == ("127.0.0.1:9", "localhost:8")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "")
    assert connect(model()).host == "api.anthropic.com"


def test_a_server_on_this_machine_needs_no_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    assert "authorization" not in sent_by_us("", {}, {})[2]


def test_without_a_key_anthropic_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    with pytest.raises(Fix, match="no key") as caught:
        connect(model())
    assert caught.value.code is Exit.KEY
    assert "ANTHROPIC_API_KEY" in caught.value.hint


def test_only_what_is_needed_is_imported() -> None:
    code = "import sys, cai_cli.providers.anthropic; print([name for name in ('aiohttp', 'anthropic') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
    code = "import sys; from cai_cli.flow import Model; from cai_cli.providers.anthropic import connect; "
    code += "connect(Model(provider='anthropic', name='m')); print('anthropic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


# What comes back.


def test_rate_limit_headers_are_kept() -> None:
    async def main() -> tuple[str, dict[str, str]]:
        async with Server(status(200, MESSAGE, Anthropic_RateLimit_Requests_Remaining="7", X_Other="1")) as server:
            provider = connect(model(server.url))
            reply = await provider.send(request(model(server.url)), 5)
            await provider.close()
            return reply.text, dict(provider.rate_limits)

    assert asyncio.run(main()) == ("hello", {"anthropic-ratelimit-requests-remaining": "7"})


def test_a_server_that_repeats_the_key_does_not_get_it_into_the_rejects() -> None:
    error = {"type": "error", "error": {"type": "invalid_request_error", "message": f"bad: Bearer {CANARY}"}}
    with pytest.raises(Reject) as caught:
        answered(status(400, error))
    assert (caught.value.detail, caught.value.signature) == ("bad: Bearer ...", "400 invalid_request_error")


def test_a_refused_key_is_named_by_its_end() -> None:
    with pytest.raises(Fatal, match="wxyz, from ANTHROPIC_API_KEY") as caught:
        answered(status(401, {"error": {"message": CANARY}}))
    assert caught.value.code is Exit.KEY
    assert CANARY not in repr(caught.value) + caught.value.message + caught.value.hint


def test_an_unknown_model_is_told_what_there_is() -> None:
    async def answer(asked: web.BaseRequest) -> web.StreamResponse:
        data = [{"id": "claude-a"}, {"id": "claude-b\x1b[2J"}, {}, 7]
        return web.json_response({"data": data}) if asked.method == "GET" else web.json_response({}, status=404)

    with pytest.raises(Fatal, match="no model 'claude-x'") as caught:
        answered(answer)
    assert caught.value.code is Exit.USAGE
    assert caught.value.hint == "set model.name to one that it offers: claude-a, claude-b [2J"


@pytest.mark.parametrize("listing", [status(404), status(200, [1]), status(200, {"data": 3})])
def test_an_unknown_model_stops_the_run_also_where_none_are_listed(listing: Answer) -> None:
    async def answer(asked: web.BaseRequest) -> web.StreamResponse:
        return await (listing if asked.method == "GET" else status(404))(asked)

    with pytest.raises(Fatal) as caught:
        answered(answer)
    assert "model.name" in caught.value.hint


def test_a_redirect_is_not_followed() -> None:
    with pytest.raises(Fatal, match="elsewhere") as caught:
        answered(status(307, None, Location="http://elsewhere.example/v1/messages"))
    assert caught.value.code is Exit.UNREACHABLE


async def never(asked: web.BaseRequest) -> web.StreamResponse:
    await asyncio.sleep(60)
    return web.Response()


async def drip(asked: web.BaseRequest) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(asked)
    while True:
        await response.write(b" ")
        await asyncio.sleep(0.02)


@pytest.mark.parametrize("answer", [never, drip])
def test_the_deadline_is_for_the_whole(answer: Answer) -> None:
    with pytest.raises(Retry, match=r"within 0\.2 s") as caught:
        answered(answer, deadline_s=0.2)
    assert caught.value.kind == "timeout"


# Fleets.


def test_the_least_busy_server_is_asked() -> None:
    async def main() -> list[int]:
        async def slowly(asked: web.BaseRequest) -> web.StreamResponse:
            await asyncio.sleep(0.1)
            return web.json_response(MESSAGE)

        async with Server(slowly) as first, Server(slowly) as second:
            fleet = model(first.url, second.url)
            provider = connect(fleet)
            await asyncio.gather(*(provider.send(request(fleet), 5) for _ in range(10)))
            await provider.close()
            assert provider.host == f"{first.url[7:]},{second.url[7:]}"
            return [len(first.asked), len(second.asked)]

    assert asyncio.run(main()) == [5, 5]


def test_a_server_that_fails_at_once_does_not_draw_all_requests() -> None:
    async def main() -> list[int]:
        async with Server(status(503)) as dead, Server() as alive:
            fleet = model(dead.url, alive.url)
            provider = connect(fleet)
            with pytest.raises(Retry):
                await provider.send(request(fleet), 5)
            for _ in range(5):
                await provider.send(request(fleet), 5)
            await provider.close()
            return [len(dead.asked), len(alive.asked)]

    assert asyncio.run(main()) == [1, 5]


def test_a_token_that_was_revoked_is_fetched_again_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    folder = tmp_path / ".config" / "anthropic"
    for part in ("configs", "credentials"):
        (folder / part).mkdir(parents=True)
    (folder / "configs" / "default.json").write_text('{"authentication": {"type": "user_oauth"}}')
    credentials = folder / "credentials" / "default.json"
    credentials.touch(mode=0o600)
    credentials.write_text('{"access_token": "old-token"}')

    async def answer(asked: web.BaseRequest) -> web.StreamResponse:
        credentials.write_text('{"access_token": "new-token"}')
        return await (status(401) if asked.headers["authorization"] == "Bearer old-token" else well)(asked)

    assert answered(answer).text == "hello"
    with pytest.raises(Fatal) as caught:
        answered(status(401))
    assert caught.value.code is Exit.KEY


def test_one_provider_takes_many_requests_at_once() -> None:
    async def main() -> set[str]:
        async with Server() as server:
            provider: AnthropicProvider = connect(model(server.url))
            replies = await asyncio.gather(*(provider.send(request(model(server.url)), 10) for _ in range(100)))
            await provider.close()
            return {reply.text for reply in replies}

    assert asyncio.run(main()) == {"hello"}
