"""Chat completions: what is sent (held against the SDK), what a completion says, and what each error means."""

import json
import math
import os
import subprocess
import sys
from typing import Any

import answering
import httpx2
import openai
import pytest
from answering import COMPLETION, Asked, json_values, sent_by_us, status
from hypothesis import given
from hypothesis import strategies as st

from cai_cli.errors import Exit, Fatal, Fix, Reject, Retry
from cai_cli.flow import Model, Reply, Request
from cai_cli.providers._answers import error_for
from cai_cli.providers._chat import body_of, reply_from, without_thoughts
from cai_cli.providers.openai import connect
from cai_cli.records import Turn

CANARY = "canary-key-that-nobody-may-see-wxyz"


@pytest.fixture(autouse=True)
def environment_with_a_key_only(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("OPENAI_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)


def model(*urls: str, **params: Any) -> Model:
    return answering.model("openai", *urls, **params)


def request(params: dict[str, Any] | None = None, **changes: Any) -> Request:
    return answering.request(model(**(params or {})), **changes)


# What is sent, held against the SDK.

SCHEMA = {
    "type": "object",
    "properties": {"verdict": {"enum": ["A", "B"]}},
    "required": ["verdict"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "strict": True, "schema": SCHEMA}}
SYSTEM = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How?"}]
REQUESTS: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [  # params, the rest of the request, the same for the SDK
    ({}, {}, {}),
    ({}, {"system": "Be brief."}, {"messages": SYSTEM}),
    ({"stop_sequences": ["\n\n"]}, {}, {"stop": ["\n\n"]}),
    ({"temperature": 0.0, "top_p": 0.5, "top_k": 3}, {}, {"temperature": 0.0, "top_p": 0.5, "extra_body": {"top_k": 3}}),
    ({"effort": "low"}, {}, {"reasoning_effort": "low"}),
    ({}, {"schema": SCHEMA}, {"response_format": FORMAT}),
    ({}, {"options": ("A", "B")}, {"logprobs": True, "top_logprobs": 20}),
    ({"logprobs": True}, {"options": ("A", "B")}, {"logprobs": True, "top_logprobs": 20}),
    ({"logprobs": False}, {"options": ("A", "B")}, {}),
    ({"logprobs": True}, {}, {}),
]
COMPARED = ("authorization", "content-type", "accept", "openai-organization", "openai-project", "x-team")


def sent_by_sdk(base_url: str | None = None, **arguments: Any) -> Asked:
    sent = []

    def answer(asked: httpx2.Request) -> httpx2.Response:
        sent.append(Asked(asked.method, asked.url.raw_path.decode(), dict(asked.headers), json.loads(asked.content)))
        return httpx2.Response(200, json=COMPLETION)

    http = openai.DefaultHttpxClient(transport=httpx2.MockTransport(answer))
    client = openai.OpenAI(base_url=base_url or "http://127.0.0.1:9/v1", http_client=http)
    turns: dict[str, Any] = {"messages": [{"role": "user", "content": "How?"}], "max_tokens": 64}
    client.chat.completions.create(**{"model": "model-x", **turns, **arguments})
    return sent[0]


@pytest.mark.parametrize(("params", "changes", "arguments"), REQUESTS)
def test_a_request_is_the_sdks(params: dict[str, Any], changes: dict[str, Any], arguments: dict[str, Any]) -> None:
    ours, theirs = sent_by_us("openai", "/v1", {**params, "world": {"noise": 1}}, changes), sent_by_sdk(**arguments)
    assert (ours.method, ours.path, ours.body) == (theirs.method, theirs.path, theirs.body)
    assert {name: ours.headers.get(name) for name in COMPARED} == {name: theirs.headers.get(name) for name in COMPARED}
    assert ours.headers["user-agent"].startswith("cai/")


@pytest.mark.parametrize(
    "environment",
    [
        {"OPENAI_ORG_ID": "org-1", "OPENAI_PROJECT_ID": "proj-1"},
        {"OPENAI_CUSTOM_HEADERS": "X-Team: blue"},
        {"OPENAI_CUSTOM_HEADERS": "authorization: Bearer other-key"},
        {"OPENAI_CUSTOM_HEADERS": "OpenAI-Project: p2", "OPENAI_PROJECT_ID": "p1"},
    ],
)
def test_the_environment_is_read_as_the_sdk_reads_it(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    ours, theirs = sent_by_us("openai", "/v1", {}, {}), sent_by_sdk()
    assert {name: ours.headers.get(name) for name in COMPARED} == {name: theirs.headers.get(name) for name in COMPARED}


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("", "/v1/chat/completions"), ("/", "/v1/chat/completions"), ("/v1", "/v1/chat/completions"),
        ("/v1/", "/v1/chat/completions"), ("/api/v1", "/api/v1/chat/completions"),
        ("/v1beta/openai/", "/v1beta/openai/chat/completions"),
    ],
)  # fmt: skip
def test_a_base_url_is_the_sdks_or_the_servers_root(base: str, expected: str) -> None:
    assert sent_by_us("openai", base, {}, {}).path == expected
    if base.strip("/"):
        assert sent_by_sdk(f"http://127.0.0.1:9{base}").path == expected


def test_the_base_url_comes_from_the_environment_if_the_config_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert connect(model()).host == "api.openai.com"
    monkeypatch.setenv("OPENAI_BASE_URL", "http://127.0.0.1:9/v1")
    assert (connect(model()).host, connect(model("http://localhost:8")).host) == ("127.0.0.1:9", "localhost:8")
    monkeypatch.setenv("OPENAI_BASE_URL", "")
    assert connect(model()).host == "api.openai.com"


def test_openai_itself_wants_another_name_for_max_tokens() -> None:
    assert body_of(request(), own=True) == {
        "model": "model-x", "messages": [{"role": "user", "content": "How?"}], "max_completion_tokens": 64,
    }  # fmt: skip
    assert "max_completion_tokens" not in body_of(request(), own=False)


@pytest.mark.parametrize("url", ["https://api.openai.com/v1", "https://eu.api.openai.com/v1"])
def test_settings_that_have_no_place_there_are_refused(url: str) -> None:
    with pytest.raises(Fix, match="thinking") as caught:
        connect(model("http://127.0.0.1:9", thinking={"type": "adaptive"}))
    assert "model.effort" in caught.value.hint
    with pytest.raises(Fix, match="top_k"):
        connect(model(url, top_k=3))
    assert connect(model("http://127.0.0.1:9", top_k=3)).host == "127.0.0.1:9"
    with pytest.raises(Fix, match="thinking"):
        body_of(request({"thinking": {"type": "adaptive"}}), own=False)


def test_the_account_is_not_told_to_other_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_ORG_ID", "org\n1")
    monkeypatch.setenv("THEIR_KEY", "their-key")
    connect(Model(provider="openai", name="m", base_urls=("https://models.example/v1",), key_env="THEIR_KEY"))
    with pytest.raises(Fix, match="OPENAI_ORG_ID"):
        connect(model())


def test_only_what_is_needed_is_imported() -> None:
    code = "import sys; from cai_cli.flow import Model; from cai_cli.providers.openai import connect; "
    code += (
        "connect(Model(provider='openai', name='m')); print([name for name in ('openai', 'anthropic') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


# What comes back.


def completion(**changes: Any) -> bytes:
    """A completion; changes of the message and the choice by their names, "absent" leaves one out."""
    message = {"role": "assistant", "content": "hello"}
    choice: dict[str, Any] = {"index": 0, "message": message, "finish_reason": "stop"}
    whole: dict[str, Any] = COMPLETION | {"choices": [choice]}
    for name, value in changes.items():
        part = message if name in ("content", "refusal", "reasoning_content", "tool_calls") else whole
        part = choice if name in ("finish_reason", "logprobs", "message") else part
        part[name] = value
        if value == "absent":
            del part[name]
    return json.dumps(whole).encode()


@pytest.mark.parametrize(
    ("finish", "expected"),
    [
        ("stop", "end_turn"), ("length", "max_tokens"), ("content_filter", "refusal"), ("tool_calls", "tool_use"),
        ("function_call", "tool_use"), ("eos_token", "end_turn"), (None, "end_turn"), ("absent", "end_turn"),
        ("end_turn", "end_turn"), ("something_new", "something_new"),
    ],
)  # fmt: skip
def test_finish_reasons(finish: str | None, expected: str) -> None:
    assert reply_from(completion(finish_reason=finish), request()).stop_reason == expected


def test_a_refusal_is_one_whichever_field_says_so() -> None:
    for body in (completion(content=None, refusal="I won't."), completion(content=[{"type": "refusal", "refusal": "I won't."}])):
        reply = reply_from(body, request())
        assert (reply.refused, reply.text) == (True, "I won't.")
    filtered = reply_from(completion(content=None, finish_reason="content_filter"), request())
    assert (filtered.refused, filtered.text) == (True, "")


def test_parts_are_joined_and_reasoning_is_no_part_of_the_text() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "b"}]
    assert reply_from(completion(content=parts), request()).text == "ab"
    assert reply_from(completion(reasoning_content="hm", content="b"), request()).text == "b"
    assert reply_from(completion(content=None, tool_calls=[], finish_reason="tool_calls"), request()).text == ""


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<think>\nhm\n</think>\n\nYes.", "Yes."), ("\n<think></think>Yes.", "Yes."), ("<think>hm, and then", ""),
        ("hm, so\n</think>\n\nYes.", "Yes."), ("hm\n</think>", ""), ("Yes.", "Yes."), (" Yes.\n", " Yes.\n"),
        ("Models write <think>x</think> first.", "Models write <think>x</think> first."),
        ("They end with </think> then.", "They end with </think> then."),
        ("First <think>\nx\n</think>\nlast", "First <think>\nx\n</think>\nlast"),
        ("<think>a</think>b <think>c</think>", "b <think>c</think>"),
    ],
)  # fmt: skip
def test_reasoning_left_in_the_text_is_taken_out(text: str, expected: str) -> None:
    assert without_thoughts(text) == expected
    assert reply_from(completion(content=text), request()).text == expected


def test_cached_tokens_are_counted_apart() -> None:
    usage = {"prompt_tokens": 10, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 8}}
    reply = reply_from(completion(usage=usage), request())
    assert (reply.tokens_in, reply.tokens_cache_read, reply.tokens_cache_write, reply.estimated) == (2, 8, 0, False)
    absurd = usage | {"prompt_tokens_details": {"cached_tokens": 11}}
    reply = reply_from(completion(usage=absurd), request())
    assert (reply.tokens_in, reply.tokens_cache_read, reply.estimated) == (10, 0, True)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"[]", b"<html>busy</html>", completion()[:-1], b'{"error": {"code": 429}}',
        completion(error={"code": 1}),
        completion(choices=[]), completion(choices=None), completion(choices=[7]), completion(message="absent"),
        completion(message="hello"), completion(content=7), completion(content=["hello"]), completion(content=[{"type": "text"}]),
        completion(refusal=7), completion(finish_reason=7), completion(finish_reason="error"), completion(finish_reason="abort"),
        completion(choices=[{"error": {"code": 502}, "message": {"content": "half"}}]),
    ],
)  # fmt: skip
def test_a_200_that_is_no_completion_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(Retry) as caught:
        reply_from(body, request())
    assert caught.value.kind == "protocol"


JSON = json_values("type", "text", "content", "token", "logprob")
PARTS = ("content", "refusal", "finish_reason", "logprobs", "usage", "model", "choices", "message")


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(PARTS, JSON)))
def test_any_body_is_a_reply_or_a_protocol_error(parts: dict[str, Any]) -> None:
    found = outcome(completion(**parts))
    if isinstance(found, Reply):
        assert min(found.tokens_in, found.tokens_out, found.tokens_cache_read) >= 0
        assert found.stop_reason
    else:
        assert found == "protocol"


def outcome(body: bytes) -> Reply | str:
    try:
        return reply_from(body, request(options=("A", "B")))
    except Retry as retry:
        return retry.kind


# Log-probabilities.


def told(*alternatives: tuple[str, float]) -> dict[str, Any]:
    """One token as the API has it: the first alternative was sampled."""
    listed = [{"token": text, "logprob": math.log(p), "bytes": list(text.encode())} for text, p in alternatives]
    return {**listed[0], "top_logprobs": listed}


def test_the_options_get_the_probabilities_that_the_server_tells() -> None:
    tokens = [told(('{"verdict": "', 1.0)), told(("A", 0.6), ("B", 0.3), ("tie", 0.1)), told(('"}', 1.0))]
    body = completion(content='{"verdict": "A"}', logprobs={"content": tokens, "refusal": None})
    assert reply_from(body, request(options=("A", "B", "tie"))).probabilities == pytest.approx({"A": 0.6, "B": 0.3, "tie": 0.1})
    assert reply_from(body, request()).probabilities is None


@pytest.mark.parametrize(
    "logprobs",
    ["absent", None, {}, {"content": None}, {"content": []}, {"content": [7]}, {"content": [{"token": "A"}]},
     {"content": [{"token": "A", "logprob": "0"}]}, {"tokens": ["A"], "token_logprobs": [0.0]}],
)  # fmt: skip
def test_log_probabilities_that_cannot_be_read_are_none(logprobs: Any) -> None:
    reply = reply_from(completion(content="Verdict: A", logprobs=logprobs), request(options=("A", "B")))
    assert (reply.text, reply.probabilities) == ("Verdict: A", None)


def test_a_token_without_alternatives_still_counts() -> None:
    tokens = [{"token": "Verdict: ", "logprob": 0.0}, {"token": "A", "logprob": math.log(0.9), "top_logprobs": None}]
    reply = reply_from(completion(content="Verdict: A", logprobs={"content": tokens}), request(options=("A", "B")))
    assert reply.probabilities == {"A": 1.0, "B": 0.0}


# Errors.


def error(kind: Any = None, code: Any = None, message: str = "no") -> bytes:
    return json.dumps({"error": {"message": message, "type": kind, "code": code, "param": None}}).encode()


def judged(status: int, body: bytes) -> Retry | Reject | Fatal:
    return error_for(status, {}, body, host="h.example", key="the key", model="m-9", route="/v1/chat/completions")


@pytest.mark.parametrize(
    ("status", "body", "code", "said"),
    [
        (429, error("insufficient_quota", "insufficient_quota"), Exit.STOPPED, "spend limit"),
        (429, error(None, "insufficient_quota"), Exit.STOPPED, "spend limit"),
        (400, error("invalid_request_error", "billing_hard_limit_reached"), Exit.STOPPED, "spend limit"),
        (401, error("invalid_request_error", "invalid_api_key"), Exit.KEY, "refused the key"),
        (403, error("request_forbidden", "unsupported_country_region_territory"), Exit.KEY, "refused the key"),
        (404, error("invalid_request_error", "model_not_found"), Exit.USAGE, "no model 'm-9', or no /v1/chat/completions"),
        (403, error("invalid_request_error", "model_not_found"), Exit.USAGE, "no model 'm-9'"),
        (404, error("NotFoundError", 404), Exit.USAGE, "no model 'm-9'"),
    ],
)  # fmt: skip
def test_what_stops_the_run(status: int, body: bytes, code: Exit, said: str) -> None:
    found = judged(status, body)
    assert isinstance(found, Fatal)
    assert (found.code, said in found.message, bool(found.hint)) == (code, True, True)


@pytest.mark.parametrize(
    ("status", "body", "reason", "signature"),
    [
        (400, error("invalid_request_error", "context_length_exceeded"), "context_exceeded", "400 context_exceeded"),
        (400, error("exceed_context_size_error", 400), "context_exceeded", "400 context_exceeded"),
        (400, error("BadRequestError", 400), "http_400", "400 BadRequestError"),
        (422, error("invalid_request_error", None), "http_422", "422 invalid_request_error"),
    ],
)  # fmt: skip
def test_what_ends_a_row(status: int, body: bytes, reason: str, signature: str) -> None:
    found = judged(status, body)
    assert isinstance(found, Reject)
    assert (found.reason, found.detail, found.signature) == (reason, "no", signature)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (429, error("requests", "rate_limit_exceeded"), "rate_limit"), (429, error(None, 429), "rate_limit"),
        (503, error("unavailable_error", 503), "server"), (500, error("server_error"), "server"), (502, b"<html>", "server"),
    ],
)  # fmt: skip
def test_what_passes_is_retried(status: int, body: bytes, kind: str) -> None:
    found = judged(status, body)
    assert isinstance(found, Retry)
    assert found.kind == kind


OURS = {
    "BadRequestError": Reject, "AuthenticationError": Fatal, "PermissionDeniedError": Fatal, "NotFoundError": Fatal,
    "ConflictError": Retry, "UnprocessableEntityError": Reject, "RateLimitError": Retry, "InternalServerError": Retry,
    "APIStatusError": (Reject, Retry, Fatal),
}  # fmt: skip


@pytest.mark.parametrize("number", [400, 401, 403, 404, 408, 409, 413, 418, 422, 429, 500, 502, 503, 504, 529])
def test_we_retry_what_the_sdk_retries(number: int) -> None:
    asked = []

    def answer(sent: httpx2.Request) -> httpx2.Response:
        asked.append(sent)
        return httpx2.Response(number, headers={"retry-after-ms": "1"}, content=error("x"))

    http = openai.DefaultHttpxClient(transport=httpx2.MockTransport(answer))
    client = openai.OpenAI(base_url="http://127.0.0.1:9/v1", http_client=http, max_retries=1)
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(model="m", messages=[{"role": "user", "content": "x"}])
    found = judged(number, error("x"))
    assert isinstance(found, OURS[type(caught.value).__name__])
    assert isinstance(found, Retry) == (len(asked) == 2)


def test_a_server_that_wants_no_log_probabilities_says_so_in_the_reject() -> None:
    refusal = json.loads(error("invalid_request_error", None, "logprobs are not supported"))
    with pytest.raises(Reject) as caught:
        answering.answered("openai", status(400, refusal), options=("A", "B"))
    assert (caught.value.reason, caught.value.detail) == ("http_400", "logprobs are not supported")


def test_a_conversation_keeps_its_turns() -> None:
    turns = tuple(Turn(role=role, content=role) for role in ("user", "assistant", "user"))
    body = body_of(request(messages=turns, system="S"), own=False)
    assert [turn["role"] for turn in body["messages"]] == ["system", "user", "assistant", "user"]


def test_a_reply_is_a_reply() -> None:
    assert reply_from(completion(), request()) == Reply(text="hello", model="m-1", tokens_in=3, tokens_out=2)
