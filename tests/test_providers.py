"""What holds for every protocol: failures, fleets, and servers that say what is not so."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from answering import COMPLETION, MESSAGE, PROTOCOLS, Answer, Server, answered, model, request, send, status, well

from cai_cli.errors import Exit, Fatal, Fix, Reject, Retry
from cai_cli.flow import Request
from cai_cli.providers import connect, names
from cai_cli.records import Turn

CANARY = "canary-key-that-nobody-may-see-wxyz"
KEYS = {"anthropic": "ANTHROPIC_API_KEY", "openai": "OPENAI_API_KEY"}
RATES = {"anthropic": "anthropic-ratelimit-requests-remaining", "openai": "x-ratelimit-remaining-requests"}

pytestmark = pytest.mark.parametrize("provider", list(PROTOCOLS))


@pytest.fixture(autouse=True)
def environment_with_keys_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith(("ANTHROPIC_", "OPENAI_")) or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in KEYS.values():
        monkeypatch.setenv(name, CANARY)


def says(provider: str, text: str, stop: str = "", usage: tuple[int, int] = (3, 2), **changes: Any) -> Answer:
    """A server that answers with this text and this end, in the words of its protocol."""
    whole: dict[str, Any]
    if provider == "anthropic":
        tokens = {"input_tokens": usage[0], "output_tokens": usage[1]}
        whole = MESSAGE | {"content": [{"type": "text", "text": text}], "stop_reason": stop or "end_turn", "usage": tokens}
    else:
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": stop or "stop"}
        whole = COMPLETION | {"choices": [choice], "usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]}}
    return status(200, whole | changes)


def test_a_provider_is_found_by_its_name(provider: str) -> None:
    assert provider in names()
    assert connect(model(provider, "http://127.0.0.1:9")).host == "127.0.0.1:9"


# Keys.


def test_the_key_goes_along_and_is_named_by_its_end_when_it_is_refused(provider: str) -> None:
    async def refuse(asked: web.BaseRequest) -> web.StreamResponse:
        assert asked.headers["authorization"] == f"Bearer {CANARY}"
        return web.json_response({"error": {"message": f"unknown key {CANARY}"}}, status=401)

    with pytest.raises(Fatal, match=f"wxyz, from {KEYS[provider]}") as caught:
        answered(provider, refuse)
    assert caught.value.code is Exit.KEY
    assert CANARY not in repr(caught.value) + caught.value.message + caught.value.hint


def test_without_a_key_only_this_machine_is_asked(monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    monkeypatch.delenv(KEYS[provider])
    assert answered(provider, well).text == "hello"
    with pytest.raises(Fix, match="no key for") as caught:
        connect(model(provider))
    assert (caught.value.code, KEYS[provider] in caught.value.hint) == (Exit.KEY, True)


def test_another_host_gets_the_key_that_is_named_for_it(monkeypatch: pytest.MonkeyPatch, provider: str) -> None:
    with pytest.raises(Fix, match=r"no key is named for models\.example"):
        connect(model(provider, "https://models.example"))
    with pytest.raises(Fix, match="plain http"):
        connect(model(provider, "http://models.example"))


def test_a_server_that_repeats_the_key_does_not_get_it_into_the_rejects(provider: str) -> None:
    error = {"error": {"type": "invalid_request_error", "message": f"bad: Bearer {CANARY}"}}
    with pytest.raises(Reject) as caught:
        answered(provider, status(400, error))
    assert (caught.value.detail, caught.value.signature) == ("bad: Bearer ...", "400 invalid_request_error")


# Failures.


def test_rate_limit_headers_are_kept(provider: str) -> None:
    named = {RATES[provider].replace("-", "_"): "7", "X_Other": "1"}

    async def main() -> tuple[str, dict[str, str]]:
        async with Server(status(200, PROTOCOLS[provider], **named)) as server:
            asked = model(provider, server.url)
            opened: Any = connect(asked)
            reply = await opened.send(request(asked), 5)
            await opened.close()
            return reply.text, dict(opened.rate_limits)

    assert asyncio.run(main()) == ("hello", {RATES[provider]: "7"})


def test_a_429_tells_how_long_to_wait(provider: str) -> None:
    with pytest.raises(Retry) as caught:
        answered(provider, status(429, {"error": {"type": "rate_limit_error"}}, Retry_After="7"))
    assert (caught.value.kind, caught.value.after_s) == ("rate_limit", 7)


def test_an_unknown_model_is_told_what_there_is(provider: str) -> None:
    async def answer(asked: web.BaseRequest) -> web.StreamResponse:
        data = [{"id": "model-a"}, {"id": "model-b\x1b[2J"}, {}, 7]
        return web.json_response({"data": data}) if asked.method == "GET" else web.json_response({}, status=404)

    with pytest.raises(Fatal, match="no model 'model-x'") as caught:
        answered(provider, answer)
    assert caught.value.code is Exit.USAGE
    assert caught.value.hint == "set model.name to one that it offers: model-a, model-b [2J"


@pytest.mark.parametrize("listing", [status(404), status(200, [1]), status(200, {"data": 3})])
def test_an_unknown_model_stops_the_run_also_where_none_are_listed(provider: str, listing: Answer) -> None:
    async def answer(asked: web.BaseRequest) -> web.StreamResponse:
        return await (listing if asked.method == "GET" else status(404))(asked)

    with pytest.raises(Fatal) as caught:
        answered(provider, answer)
    assert "model.name" in caught.value.hint


def test_a_redirect_is_not_followed(provider: str) -> None:
    with pytest.raises(Fatal, match="elsewhere") as caught:
        answered(provider, status(307, None, Location="http://elsewhere.example/v1/messages"))
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
def test_the_deadline_is_for_the_whole(provider: str, answer: Answer) -> None:
    with pytest.raises(Retry, match=r"within 0\.2 s") as caught:
        answered(provider, answer, deadline_s=0.2)
    assert caught.value.kind == "timeout"


@pytest.mark.parametrize("body", [None, [], "hello", {"error": {"code": 429, "message": "slow down"}}, {"type": "error"}])
def test_a_200_that_is_no_answer_is_asked_for_again(provider: str, body: Any) -> None:
    with pytest.raises(Retry) as caught:
        answered(provider, status(200, body))
    assert caught.value.kind == "protocol"


# Fleets.


def test_the_least_busy_server_is_asked(provider: str) -> None:
    async def main() -> list[int]:
        async def slowly(asked: web.BaseRequest) -> web.StreamResponse:
            await asyncio.sleep(0.1)
            return await well(asked)

        async with Server(slowly) as first, Server(slowly) as second:
            fleet = model(provider, first.url, second.url)
            opened = connect(fleet)
            await asyncio.gather(*(opened.send(request(fleet), 5) for _ in range(10)))
            await opened.close()
            assert opened.host == f"{first.url[7:]},{second.url[7:]}"
            return [len(first.asked), len(second.asked)]

    assert asyncio.run(main()) == [5, 5]


@pytest.mark.parametrize("failing", [status(503), status(429, None, Retry_After="30"), status(200, {}), never])
def test_a_server_that_fails_rests_while_the_others_work(provider: str, failing: Answer) -> None:
    async def main() -> list[int]:
        async with Server(failing) as bad, Server() as good:
            fleet = model(provider, bad.url, good.url)
            opened = connect(fleet)
            with pytest.raises(Retry):
                await opened.send(request(fleet), 0.2)
            for _ in range(5):
                await opened.send(request(fleet), 5)
            await opened.close()
            return [len(bad.asked), len(good.asked)]

    assert asyncio.run(main()) == [1, 5]


def test_when_all_rest_the_least_busy_is_asked_all_the_same(provider: str) -> None:
    async def main() -> list[int]:
        async with Server(status(503)) as first, Server(status(503)) as second:
            fleet = model(provider, first.url, second.url)
            opened = connect(fleet)
            for _ in range(4):
                with pytest.raises(Retry):
                    await opened.send(request(fleet), 5)
            await opened.close()
            return [len(first.asked), len(second.asked)]

    counts = asyncio.run(main())
    assert (sum(counts), min(counts) > 0) == (4, True)


def test_one_provider_takes_many_requests_at_once(provider: str) -> None:
    async def main() -> set[str]:
        async with Server() as server:
            asked = model(provider, server.url)
            opened = connect(asked)
            replies = await asyncio.gather(*(opened.send(request(asked), 10) for _ in range(100)))
            await opened.close()
            return {reply.text for reply in replies}

    assert asyncio.run(main()) == {"hello"}


# Servers that say what is not so. Each was seen.


def test_a_truncation_that_is_called_an_end_is_seen_from_the_token_count(provider: str) -> None:
    assert answered(provider, says(provider, "hello", usage=(3, 63))).stop_reason == "end_turn"
    for tokens_out in (64, 65):
        assert answered(provider, says(provider, "hello", usage=(3, tokens_out))).truncated


def test_the_model_that_answered_is_recorded_whatever_was_asked(provider: str) -> None:
    assert answered(provider, says(provider, "hello", model="some-other-model")).model == "some-other-model"
    assert answered(provider, says(provider, "hello", model=None)).model == ""


def test_a_stop_sequence_that_was_passed_over_ends_the_text(provider: str) -> None:
    stops = {"stop_sequences": ["END", "\n\n"]}

    async def main(answer: Answer) -> tuple[str, str]:
        async with Server(answer) as server:
            reply = await send(model(provider, server.url, **stops))
            return reply.text, reply.stop_reason

    assert asyncio.run(main(says(provider, "one\n\ntwo END three"))) == ("one", "stop_sequence")
    assert asyncio.run(main(says(provider, "one two"))) == ("one two", "end_turn")


def test_a_schema_that_was_ignored_gives_a_text_that_its_stage_cannot_read(provider: str) -> None:
    """Whether a reply keeps to its schema is the stage's to check: the provider neither mends it nor fails."""
    schema = {"type": "object", "properties": {"verdict": {"enum": ["A", "B"]}}, "required": ["verdict"]}
    prose = "I would say that A is better."
    assert answered(provider, says(provider, prose), schema=schema).text == prose


def test_a_prefill_that_is_repeated_is_taken_off(provider: str) -> None:
    turns = (Turn(role="user", content="How?"), Turn(role="assistant", content="First, "))
    assert answered(provider, says(provider, "First, breathe."), messages=turns).text == "breathe."
    assert answered(provider, says(provider, "breathe. First, rest."), messages=turns).text == "breathe. First, rest."


def test_replies_with_the_same_id_and_counts_are_two_replies(provider: str) -> None:
    async def main() -> list[str]:
        texts = iter(["one", "two"])

        async def answer(asked: web.BaseRequest) -> web.StreamResponse:
            return await says(provider, next(texts), id="constant")(asked)

        async with Server(answer) as server:
            asked = model(provider, server.url)
            opened = connect(asked)
            replies = [await opened.send(request(asked, draw=draw), 5) for draw in (0, 1)]
            await opened.close()
            return [reply.text for reply in replies]

    assert asyncio.run(main()) == ["one", "two"]


@pytest.mark.parametrize("tokens_out", [None, -1, 1.5, "7", True, 10**12])
def test_usage_that_cannot_be_true_is_estimated_and_proves_no_truncation(provider: str, tokens_out: Any) -> None:
    reply = answered(provider, says(provider, "x" * 400, usage=(3, tokens_out)))
    assert (reply.estimated, reply.tokens_in, reply.tokens_out, reply.stop_reason) == (True, 3, 100, "end_turn")


@pytest.mark.parametrize("usage", [None, [], 7, {}])
def test_without_usage_both_counts_are_estimated(provider: str, usage: Any) -> None:
    reply = answered(provider, status(200, PROTOCOLS[provider] | {"usage": usage}))
    assert (reply.estimated, reply.tokens_in, reply.tokens_out, reply.stop_reason) == (True, 1, 2, "end_turn")


def test_what_is_not_the_protocols_is_not_sent(provider: str) -> None:
    async def main() -> str:
        async with Server() as server:
            asked: Request = request(model(provider, server.url, logprobs=True), stage="label-pairs", row="row-7", draw=5)
            opened = connect(asked.model)
            await opened.send(asked, 5)
            await opened.close()
            return json.dumps(server.asked[0].body) + json.dumps(server.asked[0].headers)

    sent = asyncio.run(main())
    assert [word for word in ("row-7", "label-pairs", "draw", "logprobs") if word in sent] == []
