"""The provider against real servers on this machine: what it sends (held against the SDK), and what it makes of each failure."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import answering
import anthropic
import httpx2
import pytest
from aiohttp import web
from answering import MESSAGE, Answer, Asked, status, well

from cai_cli.errors import Exit, Fatal, Fix, Reject
from cai_cli.flow import Model, Reply
from cai_cli.providers.anthropic import connect

CANARY = "canary-key-that-nobody-may-see-wxyz"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("ANTHROPIC_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ANTHROPIC_API_KEY", CANARY)


def model(*urls: str, **params: Any) -> Model:
    return answering.model("anthropic", *urls, **params)


def answered(answer: Answer, deadline_s: float = 5.0) -> Reply:
    return answering.answered("anthropic", answer, deadline_s)


def sent_by_us(path: str, params: dict[str, Any], changes: dict[str, Any]) -> Asked:
    return answering.sent_by_us("anthropic", path, params, changes)


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


def sent_by_sdk(base_url: str, arguments: dict[str, Any]) -> Asked:
    sent = []

    def answer(asked: httpx2.Request) -> httpx2.Response:
        sent.append(Asked(asked.method, asked.url.raw_path.decode(), dict(asked.headers), json.loads(asked.content)))
        return httpx2.Response(200, json=MESSAGE)

    http = anthropic.DefaultHttpxClient(transport=httpx2.MockTransport(answer))
    turns: list[Any] = [{"role": "user", "content": "How?"}]
    client = anthropic.Anthropic(base_url=base_url, http_client=http)
    client.messages.create(model="model-x", max_tokens=64, messages=turns, **arguments)
    return sent[0]


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
