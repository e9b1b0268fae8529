"""The wire format: what each answer means, and where the SDK would do the same."""

import json
import math
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import anthropic
import httpx2
import pytest
from answering import json_values
from hypothesis import given
from hypothesis import strategies as st

from cai_cli.errors import Exit, Fatal, Reject, Retry
from cai_cli.flow import Model, Reply, Request
from cai_cli.providers._answers import error_for, retry_after_s
from cai_cli.providers._messages import body_of, encode, reply_from, version_of
from cai_cli.records import Turn


def request(**params: Any) -> Request:
    return Request(model=Model(provider="anthropic", name="m", params={"max_tokens": 8, **params}),
                   messages=(Turn(role="user", content="12345678"),))  # fmt: skip


def error(kind: Any, message: Any = "no", code: Any = None) -> bytes:
    details = {"error_code": code} if code else None
    return json.dumps(
        {"type": "error", "error": {"type": kind, "message": message, "details": details}, "request_id": "req_1"}
    ).encode()


def message(**changes: Any) -> bytes:
    whole = {
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m-1", "content": [{"type": "text", "text": "hello"}],
        "stop_reason": "end_turn", "usage": {"input_tokens": 3, "output_tokens": 2},
    }  # fmt: skip
    return json.dumps({name: value for name, value in {**whole, **changes}.items() if value != "absent"}).encode()


# Requests.


def test_only_what_was_set_is_sent() -> None:
    assert body_of(request()) == {"model": "m", "max_tokens": 8, "messages": [{"role": "user", "content": "12345678"}]}
    assert body_of(request(world={"noise": 1}, temperature=None, effort=None)) == body_of(request())


def test_sampling_parameters_choose_the_version_that_takes_them() -> None:
    assert version_of(request(thinking={"type": "adaptive"}, stop_sequences=["x"])) == "2026-10-21"
    assert [version_of(request(**{name: 1})) for name in ("temperature", "top_p", "top_k")] == ["2023-06-01"] * 3
    assert version_of(request(temperature=0.0)) == "2023-06-01"


@pytest.mark.parametrize("params", [{"stop_sequences": ["\ud800"]}, {"thinking": {"budget": 2**70}}])
def test_what_json_cannot_carry_is_a_reject(params: dict[str, Any]) -> None:
    with pytest.raises(Reject) as caught:
        encode(request(**params))
    assert caught.value.reason == "unencodable"


# Replies.


def test_a_reply_is_its_text_blocks() -> None:
    content = [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "a"},
    {"type": "redacted_thinking"},
               {"type": "text", "text": "b"}]  # fmt: skip
    usage = {"input_tokens": 3, "output_tokens": 2, "cache_read_input_tokens": 5, "cache_creation_input_tokens": None}
    reply = reply_from(message(content=content, usage=usage), request())
    assert (reply.text, reply.model, reply.stop_reason, reply.estimated) == ("ab", "m-1", "end_turn", False)
    assert (reply.tokens_in, reply.tokens_out, reply.tokens_cache_read, reply.tokens_cache_write) == (3, 2, 5, 0)


@pytest.mark.parametrize(
    ("stop", "tokens_out", "expected"),
    [
        ("end_turn", 7, "end_turn"), ("end_turn", 8, "max_tokens"), ("end_turn", 9, "max_tokens"), (None, 7, "end_turn"),
        (None, 8, "max_tokens"), ("refusal", 8, "refusal"), ("stop_sequence", 8, "stop_sequence"),
        ("something_new", 2, "something_new"),
    ],
)  # fmt: skip
def test_stop_reasons(stop: str | None, tokens_out: int, expected: str) -> None:
    usage = {"input_tokens": 1, "output_tokens": tokens_out}
    assert reply_from(message(stop_reason=stop, usage=usage), request()).stop_reason == expected


def test_a_refusal_may_be_empty() -> None:
    reply = reply_from(message(content=[], stop_reason="refusal"), request())
    assert reply.refused
    assert reply.text == ""


@pytest.mark.parametrize("count", [-1, 1.5, "7", True, None, 10**12, "absent"])
def test_a_count_that_cannot_be_true_is_estimated(count: Any) -> None:
    usage = {name: value for name, value in {"input_tokens": 3, "output_tokens": count}.items() if value != "absent"}
    reply = reply_from(message(content=[{"type": "text", "text": "x" * 400}], usage=usage), request())
    assert (reply.estimated, reply.tokens_in, reply.tokens_out, reply.stop_reason) == (True, 3, 100, "end_turn")


@pytest.mark.parametrize("usage", ["absent", None, [], 7])
def test_without_usage_both_counts_are_estimated(usage: Any) -> None:
    reply = reply_from(message(usage=usage), request())
    assert (reply.estimated, reply.tokens_in, reply.tokens_out) == (True, 2, 2)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"null", b"[]", b"<html>busy</html>", b'"message"', message()[:-1],
        error("overloaded_error"), message(type="absent"),
        message(content="absent"), message(content="hello"), message(content=["hello"]), message(content=[{"type": "text"}]),
        message(content=[{"type": "text", "text": None}]), message(stop_reason=7), b'{"type": "message", "content": NaN}',
        b'{"type": "message", "content": [{"type": "text", "text": "\\ud800"}]}', b"[" * 5000,
    ],
)  # fmt: skip
def test_a_200_that_is_no_message_is_a_protocol_error(body: bytes) -> None:
    with pytest.raises(Retry) as caught:
        reply_from(body, request())
    assert caught.value.kind == "protocol"


JSON = json_values("type", "text", "error", "message", "details")
message_parts = st.fixed_dictionaries({}, optional=dict.fromkeys(("content", "stop_reason", "usage", "model"), JSON))
bodies = st.binary() | JSON.map(lambda value: json.dumps(value).encode()) | message_parts.map(lambda parts: message(**parts))


def outcome(body: bytes) -> Reply | str:
    try:
        return reply_from(body, request())
    except Retry as retry:
        return retry.kind


@given(bodies)
def test_any_body_is_a_reply_or_a_protocol_error(body: bytes) -> None:
    found = outcome(body)
    if isinstance(found, Reply):
        assert min(found.tokens_in, found.tokens_out, found.tokens_cache_read, found.tokens_cache_write) >= 0
        assert found.stop_reason
    else:
        assert found == "protocol"


# Errors.


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (408, b"", "server"), (409, b"", "server"), (500, error("api_error"), "server"), (503, b"<html>", "server"), (504, b"",
        "server"),
        (529, error("overloaded_error"), "server"), (599, b"", "server"), (429, error("rate_limit_error"), "rate_limit"),
        (204, b"", "protocol"),
        (429, error("rate_limit_error", code="ramp_limit_exceeded"), "rate_limit"),
    ],
)  # fmt: skip
def test_what_passes_is_retried(status: int, body: bytes, kind: str) -> None:
    found = error_for(status, {"Retry-After": "7"}, body)
    assert isinstance(found, Retry)
    assert found.kind == kind
    assert found.after_s == (None if kind == "protocol" else 7)


@pytest.mark.parametrize("status", [400, 405, 413, 422])
def test_a_refused_request_ends_its_row(status: int) -> None:
    found = error_for(status, {}, error("invalid_request_error", "max_tokens:\n too\x1b[1m large"))
    assert isinstance(found, Reject)
    assert (found.reason, found.signature) == (f"http_{status}", f"{status} invalid_request_error")
    assert found.detail == "max_tokens:  too [1m large"


def test_a_reject_says_the_same_each_time() -> None:
    again = error("invalid_request_error").replace(b"req_1", b"req_2")
    first, second = error_for(400, {"request-id": "req_1"}, error("invalid_request_error")), error_for(400, {}, again)
    assert isinstance(first, Reject)
    assert isinstance(second, Reject)
    assert (first.detail, first.signature) == (second.detail, second.signature)


@pytest.mark.parametrize(
    ("body", "detail", "signature"),
    [
        (b'{"error": "no such thing"}', "no such thing", "400"), (b'{"message": "bad", "type": "BadRequest"}', "bad",
        "400 BadRequest"),
        (b'{"detail": [1]}', "", "400"), (b"<html>", "", "400"), (b'{"error": {"type": "a b", "message": 3}}', "", "400"),
    ],
)  # fmt: skip
def test_other_servers_errors_are_read_too(body: bytes, detail: str, signature: str) -> None:
    found = error_for(400, {}, body)
    assert isinstance(found, Reject)
    assert (found.detail, found.signature) == (detail, signature)


@pytest.mark.parametrize(
    ("status", "body", "code", "said"),
    [
        (400, error("invalid_request_error", code="enforced_spend_limit_reached"), Exit.STOPPED, "spend limit"),
        (429, error("rate_limit_error", code="enforced_spend_limit_reached"), Exit.STOPPED, "spend limit"),
        (429, error("rate_limit_error", code="contract_spend_limit_reached"), Exit.STOPPED, "spend limit"),
        (402, b"", Exit.STOPPED, "spend limit"), (400, error("billing_error"), Exit.STOPPED, "spend limit"),
        (401, error("authentication_error"), Exit.KEY, "h.example refused the key that ends in wxyz"),
        (403, b"", Exit.KEY, "h.example refused the key that ends in wxyz"), (404, b"", Exit.USAGE, "no model 'm-9'"),
        (307, b"", Exit.UNREACHABLE, "redirects"),
    ],
)  # fmt: skip
def test_what_stops_the_run(status: int, body: bytes, code: Exit, said: str) -> None:
    found = error_for(status, {}, body, host="h.example", key="the key that ends in wxyz", model="m-9")
    assert isinstance(found, Fatal)
    assert found.code is code
    assert said in found.message
    assert found.hint


def test_a_redirect_names_the_host_it_points_to() -> None:
    found = error_for(302, {"Location": "https://sso.example/login?token=abc"}, b"")
    assert isinstance(found, Fatal)
    assert "sso.example" in found.message
    assert "abc" not in found.message


@given(
    st.integers(100, 999),
    st.dictionaries(st.sampled_from(["retry-after", "Retry-After-Ms", "date", "location"]), st.text()),
    bodies,
)
def test_any_answer_is_one_of_three(status: int, headers: dict[str, str], body: bytes) -> None:
    found = error_for(status, headers, body)
    assert isinstance(found, (Retry, Reject, Fatal))
    if isinstance(found, Retry) and found.after_s is not None:
        assert 0 <= found.after_s <= 3600


def http_date(seconds: int) -> str:
    return format_datetime(datetime(2026, 11, 20, 12, 0, 0, tzinfo=UTC) + timedelta(seconds=seconds), usegmt=True)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"retry-after": "7"}, 7.0), ({"Retry-After": " 1.5 "}, 1.5), ({"retry-after": "0"}, 0.0),
        ({"retry-after": "86400"}, 3600.0),
        ({"retry-after": "9" * 30}, 3600.0), ({"retry-after": "-5"}, None), ({"retry-after": "soon"}, None),
        ({"retry-after": ""}, None),
        ({"retry-after": "inf"}, None), ({"retry-after": "nan"}, None), ({"retry-after": "1e3"}, None),
        ({"retry-after": "٣"}, None),
        ({}, None), ({"retry-after-ms": "250"}, 0.25), ({"retry-after-ms": "x", "retry-after": "3"}, 3.0),
        ({"retry-after": http_date(90), "date": http_date(0)}, 90.0),
        ({"retry-after": http_date(-1), "date": http_date(0)}, None),
        ({"retry-after": http_date(9 * 86400), "date": http_date(0)}, 3600.0),
        ({"retry-after": "Fri, 99 Foo 20261 99:99:99 GMT"}, None),
    ],
)  # fmt: skip
def test_retry_after(headers: dict[str, str], expected: float | None) -> None:
    assert retry_after_s(headers) == expected


def test_a_date_without_a_servers_clock_is_held_against_ours() -> None:
    wait_s = retry_after_s({"retry-after": format_datetime(datetime.now(UTC) + timedelta(seconds=60), usegmt=True)})
    assert wait_s is not None
    assert math.isclose(wait_s, 60, abs_tol=5)


# The SDK's view of the same answers.

OURS = {
    "BadRequestError": Reject, "AuthenticationError": Fatal, "PaymentRequiredError": Fatal, "PermissionDeniedError": Fatal,
    "NotFoundError": Fatal, "RequestTimeoutError": Retry, "ConflictError": Retry, "ContentTooLargeError": Reject,
    "UnprocessableEntityError": Reject, "RateLimitError": Retry, "InternalServerError": Retry, "ServiceUnavailableError": Retry,
    "GatewayTimeoutError": Retry, "OverloadedError": Retry, "APIStatusError": Reject, "EnforcedSpendLimitReachedError": Fatal,
    "ContractSpendLimitReachedError": Fatal,
}  # fmt: skip
ANSWERS: list[tuple[int, dict[str, str], bytes]] = [
    *((status, {}, error("api_error")) for status in (400, 401, 402, 403, 404, 408, 409, 413, 418, 422, 429, 500, 503, 504, 529)),
    (429, {}, error("rate_limit_error", code="enforced_spend_limit_reached")),
    (429, {}, error("rate_limit_error", code="contract_spend_limit_reached")),
    (500, {"x-should-retry": "false"}, b""),
    (400, {"x-should-retry": "true"}, error("invalid_request_error")),
]
# Where we mean to differ. A spent account is not a rate. And an outage never ends a row, whatever a header says, nor does a
# header make a request good that was refused.
DIFFERENT = [(429, {}, "EnforcedSpendLimitReachedError"), (429, {}, "ContractSpendLimitReachedError"),
             (500, {"x-should-retry": "false"}, "InternalServerError"),
             (400, {"x-should-retry": "true"}, "BadRequestError")]  # fmt: skip


def ask_sdk(status: int, headers: dict[str, str], body: bytes) -> tuple[str, bool]:
    """The name of the SDK's exception for an answer, and whether it asked again."""
    asked = []

    def answer(sent: httpx2.Request) -> httpx2.Response:
        asked.append(sent)
        return httpx2.Response(status, headers={"retry-after-ms": "1", **headers}, content=body)

    http = anthropic.DefaultHttpxClient(transport=httpx2.MockTransport(answer))
    client = anthropic.Anthropic(api_key="k" * 20, base_url="http://127.0.0.1:9", http_client=http, max_retries=1)
    with pytest.raises(anthropic.APIStatusError) as caught:
        client.messages.create(model="m", max_tokens=8, messages=[{"role": "user", "content": "x"}])
    return type(caught.value).__name__, len(asked) == 2


@pytest.mark.parametrize(("status", "headers", "body"), ANSWERS)
def test_we_retry_what_the_sdk_retries(status: int, headers: dict[str, str], body: bytes) -> None:
    name, sdk_retries = ask_sdk(status, headers, body)
    found = error_for(status, headers, body)
    assert type(found) is OURS[name]
    assert (isinstance(found, Retry) == sdk_retries) != ((status, headers, name) in DIFFERENT)
