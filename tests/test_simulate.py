"""`cai simulate` with the SDKs as its clients: what they send is understood, and what they read is what the API would say."""

from __future__ import annotations

import asyncio
import functools
import json
import math
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import anthropic
import openai
import pytest
from answering import send
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loopback import CALM, Server

from cai_cli.flow import Model, Request
from cai_cli.logprobs import option_probabilities
from cai_cli.providers._world import World
from cai_cli.providers.simulated import reply_to
from cai_cli.records import Turn

QUESTION = "How do I bake bread?"
JUDGED = "<response-K-0a1b2c3d>Water it.</response-K-0a1b2c3d> or <response-M-0a1b2c3d>Do not water it.</response-M-0a1b2c3d>?"
VERDICT = {
    "type": "object",
    "properties": {"verdict": {"type": "string", "enum": ["K", "M", "tie"]}, "confidence": {"type": "number"}},
    "required": ["verdict", "confidence"],
    "additionalProperties": False,
}
STRICT: Any = {"type": "json_schema", "json_schema": {"name": "verdict", "strict": True, "schema": VERDICT}}


@functools.cache
def claude(url: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key="sk-test", max_retries=0, timeout=5)


@functools.cache
def gpt(url: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key="sk-test", max_retries=0, timeout=5)


def message(server: Server, text: str = QUESTION, **more: Any) -> anthropic.types.Message:
    turns: Any = [{"role": "user", "content": text}]
    return claude(server.url).messages.create(**{"model": "small", "max_tokens": 4096, "messages": turns, **more})


def completion(server: Server, text: str = QUESTION, **more: Any) -> openai.types.chat.ChatCompletion:
    turns: Any = [{"role": "user", "content": text}]
    return gpt(server.url).chat.completions.create(**{"model": "small", "messages": turns, **more})


def asking(text: str, schema: Any = None, system: str = "", options: tuple[str, ...] = (), **params: Any) -> Request:
    model = Model(provider="simulated", name="small", params={"max_tokens": 4096, **params})
    return Request(model=model, messages=(Turn(role="user", content=text),), schema=schema, system=system, options=options)


# The same world


@given(
    st.sampled_from([{}, {"harm": 0.1, "seed": 3}, {"empty_rate": 0.5, "unreadable_rate": 0.5}, {"refusal_rate": 0.5}]),
    st.sampled_from([QUESTION, JUDGED, "Tell me", "<response-0a1b2c3d>Just rush it.</response-0a1b2c3d>"]), st.text(max_size=20),
    st.sampled_from([None, VERDICT]), st.sampled_from(["", "Be careful."]), st.sampled_from([15, 4096]),
    st.sampled_from([[], ["a"]]),
)  # fmt: skip
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_body_gets_the_reply_that_is_given_in_process(
    server: Server, world: Any, text: str, more: str, schema: Any, system: str, limit: int, stops: list[str]
) -> None:
    server.reset(**CALM | {"world": world})
    request = asking(text + more, schema, system, max_tokens=limit, stop_sequences=stops)
    here = reply_to(request, World(**world))
    given: Any = {"output_config": {"format": {"type": "json_schema", "schema": schema}}} if schema else {}
    there = message(server, text + more, max_tokens=limit, stop_sequences=stops, system=system, **given)
    assert "".join(block.text for block in there.content if block.type == "text") == here.text
    assert (there.stop_reason, there.model) == (here.stop_reason, here.model)
    assert (there.usage.input_tokens, there.usage.output_tokens) == (here.tokens_in, here.tokens_out)
    form: Any = {"response_format": {**STRICT, "json_schema": {**STRICT["json_schema"], "schema": schema}}} if schema else {}
    turns: Any = [{"role": "system", "content": system}] if system else []
    done = completion(
        server, max_tokens=limit, stop=stops or None, messages=[*turns, {"role": "user", "content": text + more}], **form
    )
    choice = done.choices[0]
    assert (choice.message.content or "") == here.text
    assert choice.finish_reason == ("length" if here.truncated else "stop")
    assert (choice.message.refusal is not None) == here.refused
    assert done.usage is not None
    assert (done.usage.prompt_tokens, done.usage.completion_tokens) == (here.tokens_in, here.tokens_out)


@pytest.mark.parametrize("world", [{}, {"position": 2.0, "tie_below": 0.0}, {"position": 0, "noise": 0, "seed": 9}])
@pytest.mark.parametrize("schema", [VERDICT, None])
def test_over_http_the_judges_probabilities_are_those_in_process(
    server: Server, monkeypatch: pytest.MonkeyPatch, world: Any, schema: Any
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    server.reset(**CALM | {"world": world})
    request = asking(JUDGED, schema, options=("K", "M", "tie"))
    here = reply_to(request, World(**world, logprobs=True)).probabilities
    asked = Model(provider="openai", name="small", params=request.model.params, base_urls=(server.url,))
    there = asyncio.run(send(asked, messages=request.messages, schema=schema, options=request.options))
    assert here is not None
    assert there.probabilities == {option: pytest.approx(p, rel=1e-6, abs=1e-12) for option, p in here.items()}


def test_sampling_draws_the_same_body_anew(server: Server) -> None:
    server.reset(**CALM | {"sampling": True})
    texts = {completion(server).choices[0].message.content for _ in range(3)}
    assert len(texts) == 3
    assert reply_to(asking(QUESTION), World()).text in texts


def test_a_developer_turn_is_a_system_turn_and_parts_are_joined(server: Server) -> None:
    parts: Any = [{"type": "text", "text": QUESTION[:5]}, {"type": "text", "text": QUESTION[5:]}]
    turns: Any = [{"role": "developer", "content": "Be careful."}, {"role": "user", "content": parts}]
    here = reply_to(asking(QUESTION, system="Be careful."), World())
    assert completion(server, messages=turns).choices[0].message.content == here.text


# What stands beside it


def test_tokens_are_counted_as_they_are_billed(server: Server) -> None:
    turns: Any = [{"role": "user", "content": QUESTION}]
    counted = claude(server.url).messages.count_tokens(model="small", system="Be brief.", messages=turns)
    assert counted.input_tokens == message(server, system="Be brief.").usage.input_tokens
    assert server.stats()["total"] == 1


def test_models_have_the_form_of_the_api_that_asks(server: Server) -> None:
    ours = claude(server.url).models.list().data
    assert [(model.id, model.type, model.lifecycle) for model in ours] == [("simulated", "model", "active")]
    one = claude(server.url).models.retrieve("any-name")
    assert (one.id, one.display_name, one.created_at.year) == ("any-name", "Any name", 2026)
    theirs = gpt(server.url).models.list().data
    assert [(model.id, model.object, model.owned_by) for model in theirs] == [("simulated", "model", "cai")]
    assert gpt(server.url).models.retrieve("org/any-name").id == "org/any-name"


def test_where_models_are_named_there_are_no_others(server: Server) -> None:
    server.reset(**CALM | {"models": ["small", "large"]})
    assert [model.id for model in claude(server.url).models.list()] == ["small", "large"]
    assert message(server).content
    with pytest.raises(anthropic.NotFoundError):
        message(server, model="huge")
    with pytest.raises(openai.NotFoundError) as caught:
        completion(server, model="huge")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        gpt(server.url).models.retrieve("huge")
    with pytest.raises(anthropic.NotFoundError):
        claude(server.url).models.retrieve("huge")


def test_log_probabilities_are_told_to_those_who_ask(server: Server) -> None:
    assert completion(server, JUDGED).choices[0].logprobs is None
    bare = completion(server, JUDGED, logprobs=True).choices[0].logprobs
    assert bare is not None
    assert {len(token.top_logprobs) for token in bare.content or []} == {0}
    choice = completion(server, JUDGED, logprobs=True, top_logprobs=5, response_format=STRICT).choices[0]
    assert choice.logprobs is not None
    content = choice.logprobs.content or []
    assert "".join(token.token for token in content) == choice.message.content
    tokens = [(one.token, one.logprob, [(other.token, other.logprob) for other in one.top_logprobs]) for one in content]
    odds = option_probabilities(tokens, ("K", "M", "tie"))
    assert odds is not None
    assert max(odds, key=lambda one: odds[one]) == json.loads(choice.message.content or "")["verdict"]
    assert math.fsum(odds.values()) == pytest.approx(1)


def test_rate_limits_stand_in_the_headers(server: Server) -> None:
    server.reset(**CALM | {"rpm": 60, "itpm": 6000, "otpm": 60_000})
    turns: Any = [{"role": "user", "content": "x" * 400}]
    raw = claude(server.url).messages.with_raw_response.create(model="small", max_tokens=500, messages=turns)
    used = raw.parse().usage
    found = {name.removeprefix("anthropic-ratelimit-"): value for name, value in raw.headers.items() if "ratelimit" in name}
    assert {name.removesuffix("-limit"): int(value) for name, value in found.items() if name.endswith("-limit")} == {
        "requests": 60, "input-tokens": 6000, "output-tokens": 60_000, "tokens": 6000,
    }  # fmt: skip
    assert int(found["requests-remaining"]) == 59
    assert 0 <= int(found["input-tokens-remaining"]) - (6000 - used.input_tokens) <= 50
    assert 0 <= int(found["output-tokens-remaining"]) - (60_000 - used.output_tokens) <= used.output_tokens
    assert datetime.fromisoformat(found["tokens-reset"]).tzinfo is not None
    there = gpt(server.url).chat.completions.with_raw_response.create(model="small", messages=turns).headers
    assert (there["x-ratelimit-limit-requests"], there["x-ratelimit-limit-tokens"]) == ("60", "6000")
    assert int(there["x-ratelimit-remaining-requests"]) in (58, 59)
    assert there["x-ratelimit-reset-requests"].endswith("s")
    assert "ratelimit" not in str(completion_headers(server, **CALM))


def completion_headers(server: Server, **options: Any) -> Any:
    server.reset(**options)
    turns: Any = [{"role": "user", "content": "x"}]
    return gpt(server.url).chat.completions.with_raw_response.create(model="small", messages=turns).headers


@pytest.mark.parametrize("limits", [{"rpm": 2}, {"itpm": 150}])
def test_above_a_limit_there_is_429_and_the_time_to_wait(server: Server, limits: Any) -> None:
    server.reset(**CALM | limits)
    for _ in range(2):
        assert completion(server, "x" * 280).choices
    assert_limited(server, range(1, 31))
    assert server.stats()["statuses"] == {"200": 2, "429": 1}


def test_limits_change_while_it_counts_on(server: Server) -> None:
    server.reset(**CALM | {"rpm": 4})
    assert completion(server, "x" * 280).choices
    assert post(server, "/change", b'{"rpm": 2}')[0] == 200
    assert [completion(server, "x" * 280).choices[0].index for _ in range(2)] == [0, 0]  # three were left, and two go in
    assert_limited(server, range(1, 31))
    found = server.stats()
    assert found["statuses"] == {"200": 3, "429": 1}
    assert found["answered_s"][0] < found["answered_s"][1]
    assert post(server, "/change", b'{"rpm": 0}')[0] == 200
    assert completion(server, "x" * 280).choices


def test_max_tokens_is_reserved_until_an_answer_says_what_it_used(server: Server) -> None:
    server.reset(**CALM | {"otpm": 600, "latency_ms": 300})
    with ThreadPoolExecutor(1) as aside:
        first = aside.submit(message, server, max_tokens=600)
        while not server.stats()["in_flight"]:
            time.sleep(0.005)
        assert_limited(server, range(40, 61))
        assert first.result().usage.output_tokens < 300
    assert completion(server, max_tokens=300).choices


def test_a_client_that_goes_away_gives_its_reservation_back(server: Server) -> None:
    server.reset(**CALM | {"otpm": 600, "fail": ["hang@1"]})
    with pytest.raises(openai.APITimeoutError):
        completion(server, max_tokens=600, timeout=0.2)
    while server.stats()["in_flight"]:
        time.sleep(0.005)
    assert completion(server, max_tokens=600).choices


def assert_limited(server: Server, wait_s: range) -> None:
    with pytest.raises(openai.RateLimitError) as caught:
        completion(server, "x" * 280, max_tokens=500)
    assert caught.value.code == "rate_limit_exceeded"
    assert int(caught.value.response.headers["retry-after"]) in wait_s


# What goes wrong

CLAUDE_ERRORS = {
    "400": anthropic.BadRequestError, "401": anthropic.AuthenticationError, "402": anthropic.PaymentRequiredError,
    "403": anthropic.PermissionDeniedError, "404": anthropic.NotFoundError, "408": anthropic.RequestTimeoutError,
    "409": anthropic.ConflictError, "413": anthropic.ContentTooLargeError, "422": anthropic.UnprocessableEntityError,
    "429": anthropic.RateLimitError, "500": anthropic.InternalServerError, "503": anthropic.ServiceUnavailableError,
    "504": anthropic.GatewayTimeoutError, "529": anthropic.OverloadedError, "reset": anthropic.APIConnectionError,
    "cut": anthropic.APIConnectionError, "hang": anthropic.APITimeoutError,
}  # fmt: skip
GPT_ERRORS = {
    "400": openai.BadRequestError, "401": openai.AuthenticationError, "402": openai.APIStatusError,
    "403": openai.PermissionDeniedError, "404": openai.NotFoundError, "408": openai.APIStatusError, "409": openai.ConflictError,
    "413": openai.APIStatusError, "422": openai.UnprocessableEntityError, "429": openai.RateLimitError,
    "500": openai.InternalServerError, "502": openai.InternalServerError, "529": openai.InternalServerError,
    "reset": openai.APIConnectionError, "cut": openai.APIConnectionError, "hang": openai.APITimeoutError,
    "spend:429": openai.RateLimitError,
}  # fmt: skip


@pytest.mark.parametrize("fail", CLAUDE_ERRORS)
def test_every_error_of_the_anthropic_sdk_can_be_had(server: Server, fail: str) -> None:
    server.reset(**CALM | {"fail": [f"{fail}@1"]})
    with pytest.raises(CLAUDE_ERRORS[fail]) as caught:
        message(server, timeout=0.3)
    assert type(caught.value) is CLAUDE_ERRORS[fail]
    if isinstance(caught.value, anthropic.APIStatusError):
        assert (caught.value.status_code, caught.value.request_id) == (int(fail), "req_1")
    assert message(server).content


@pytest.mark.parametrize("fail", GPT_ERRORS)
def test_every_error_of_the_openai_sdk_can_be_had(server: Server, fail: str) -> None:
    server.reset(**CALM | {"fail": [f"{fail}@1"]})
    with pytest.raises(GPT_ERRORS[fail]) as caught:
        completion(server, timeout=0.3)
    assert type(caught.value) is GPT_ERRORS[fail]
    if isinstance(caught.value, openai.APIStatusError):
        assert (caught.value.status_code, caught.value.request_id) == (int(fail.rpartition(":")[2]), "req_1")
        assert caught.value.type
    assert getattr(caught.value, "code", None) == {"401": "invalid_api_key", "429": "rate_limit_exceeded",
                                                   "spend:429": "insufficient_quota"}.get(fail)  # fmt: skip
    assert completion(server).choices[0].message.content


def test_a_refusal_is_told_in_the_words_of_each_api(server: Server) -> None:
    server.reset(**CALM | {"fail": ["refusal@1-2"]})
    refused = message(server)
    assert (refused.stop_reason, refused.content) == ("refusal", [])
    assert refused.stop_details is not None
    assert refused.stop_details.category == "general_harms"
    choice = completion(server, logprobs=True).choices[0]
    assert (choice.finish_reason, choice.message.content) == ("stop", None)
    assert choice.message.refusal
    assert choice.logprobs is not None
    assert "".join(token.token for token in choice.logprobs.refusal or []) == choice.message.refusal
    assert message(server).stop_details is None


def test_a_truncation_is_told_in_the_words_of_each_api(server: Server) -> None:
    server.reset(**CALM | {"fail": ["truncate:5@1", "truncate@2"]})
    cut, whole = message(server), reply_to(asking(QUESTION), World()).text
    assert (cut.stop_reason, cut.usage.output_tokens, cut.content[0].text) == ("max_tokens", 5, whole[:20])  # type: ignore[union-attr]
    choice = completion(server).choices[0]
    assert (choice.finish_reason, choice.message.content) == ("length", whole[: len(whole) // 2])
    assert completion(server, max_completion_tokens=5).choices[0].finish_reason == "length"


def test_a_stop_sequence_is_named(server: Server) -> None:
    stopped = message(server, stop_sequences=["zzz", " a"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", " a")
    assert completion(server, stop=" a").choices[0].message.content == stopped.content[0].text  # type: ignore[union-attr]


def test_replies_that_are_not_what_they_should_be_in_chat_completions_too(server: Server) -> None:
    server.reset(**CALM | {"fail": ["html@1", "body@2", "empty@3", "stop:content_filter@4", "usage@5", "json@6"]})
    assert "<html>" in str(completion(server))
    assert completion(server).model_extra["error"]["type"] == "overloaded_error"  # type: ignore[index]
    assert completion(server).choices[0].message.content == ""
    assert completion(server).choices[0].finish_reason == "content_filter"
    assert completion(server).usage is None
    with pytest.raises(ValueError, match=r"Expecting|Unterminated"):
        completion(server)


BAD_MESSAGES = {
    "stream": {"stream": True}, "max_tokens": {"max_tokens": 0}, "messages": {"messages": []}, "model": {"model": 3},
    "messages.0.role": {"messages": [{"role": "system", "content": "x"}]}, "temperature": {"temperature": 1},
    "stop_sequences": {"stop_sequences": [" "]},
    "messages.0.content.0.type": {"messages": [{"role": "user", "content": [{"type": "image"}]}]},
    "output_config.format.schema": {"output_config": {"format": {"type": "json_schema", "schema": {"$ref": "#/$defs/gone"}}}},
}  # fmt: skip
BAD_COMPLETIONS = {
    "stream": {"stream": True}, "tools": {"tools": []}, "n": {"n": 2}, "max_tokens": {"max_tokens": 0}, "model": {"model": None},
    "messages[0].role": {"messages": [{"role": "tool", "content": "x"}]}, "stop": {"stop": list("abcde")},
    "messages": {"messages": []},
    "response_format.type": {"response_format": {"type": "json_object"}}, "logprobs": {"logprobs": 1},
    "top_logprobs": {"top_logprobs": 3},
    "response_format.json_schema.schema": {"response_format": STRICT | {"json_schema": {"name": "x", "schema": {}}}},
}  # fmt: skip


@pytest.mark.parametrize("param", BAD_MESSAGES)
def test_a_message_that_is_none_is_refused_with_what_is_wrong(server: Server, param: str) -> None:
    with pytest.raises(anthropic.BadRequestError) as caught:
        claude(server.url).messages.create(
            model="small", max_tokens=5, messages=[{"role": "user", "content": "x"}], extra_body=BAD_MESSAGES[param]
        )
    body: Any = caught.value.body
    assert body["error"]["type"] == "invalid_request_error"
    assert body["error"]["message"].startswith(f"{param}:")


@pytest.mark.parametrize("param", BAD_COMPLETIONS)
def test_a_completion_that_cannot_be_is_refused_with_what_is_wrong(server: Server, param: str) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        completion(server, extra_body=BAD_COMPLETIONS[param])
    assert (caught.value.param, caught.value.type) == (param, "invalid_request_error")


def post(server: Server, path: str, data: bytes, **headers: str) -> tuple[int, Any]:
    asked = urllib.request.Request(f"{server.url}{path}", data=data, headers=headers)
    try:
        with urllib.request.urlopen(asked, timeout=5) as reply:
            return reply.status, json.load(reply)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/chat/completions", "/v1/messages/count_tokens"])
def test_a_key_is_asked_for_and_any_will_do(server: Server, path: str) -> None:
    body = json.dumps({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]}).encode()
    assert post(server, path, body)[0] == 401
    assert post(server, path, body, authorization="Bearer x")[0] == 200
    assert post(server, path, body, **{"x-api-key": "x"})[0] == 200
    server.reset(**CALM | {"no_key": True})
    assert post(server, path, body)[0] == 200


def test_what_is_no_json_and_what_is_not_there_are_refused(server: Server) -> None:
    for path in ("/v1/messages", "/v1/chat/completions", "/v1/messages/count_tokens"):
        for data in (b"{", b"[]", b'"x"', b"[" * 100_000):
            assert post(server, path, data, authorization="x")[0] == 400
    assert post(server, "/v1/nothing", b"{}")[0] == 404
    assert post(server, "/v1/models", b"{}")[0] == 404


def test_options_that_cannot_be_are_refused_and_change_nothing(server: Server) -> None:
    before = server.stats()
    wrong: list[tuple[Any, str]] = [
        ({"lateny_ms": 1}, "no option 'lateny_ms'"), ({"fail": ["500@"]}, "--fail 500@"), ({"rpm": -1}, "rpm"),
        (["fail"], "option"), ({"world": {"harm": 2}}, "harm"), ({"rate": 1, "rpm": 1}, "rate and rpm"), ({"ids": "odd"}, "ids"),
    ]  # fmt: skip
    for options, said in wrong:
        status, body = post(server, "/reset", json.dumps(options).encode())
        assert (status, said in body["problems"][0]) == (400, True)
    assert post(server, "/reset", b"{")[0] == 400
    assert server.stats() == before
    assert message(server).content
