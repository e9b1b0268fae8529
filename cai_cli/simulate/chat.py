"""Chat completions as the server speaks them, with log-probabilities. Source: the types of the openai SDK, 3.54"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cai_cli.flow import Model, Request
from cai_cli.providers.simulated import Answer
from cai_cli.records import Turn
from cai_cli.simulate.limits import State
from cai_cli.simulate.tokens import MOST, told
from cai_cli.simulate.wire import (
    CREATED,
    BadRequest,
    Body,
    Problem,
    limit_of,
    not_streamed,
    one_of,
    schema_of,
    stops_of,
    text_of,
)  # fmt: skip

REFUSAL = "I will not answer that."
FINISHES = {"max_tokens": "length", "refusal": "stop"}  # by stop_reason; all others: stop
# Read, or without a meaning in this world: it draws by the body, not by a temperature.
_KNOWN = {
    "model", "messages", "max_tokens", "max_completion_tokens", "response_format", "stop", "logprobs", "top_logprobs", "n",
    "stream", "seed", "temperature", "top_p", "top_k", "frequency_penalty", "presence_penalty", "reasoning_effort", "user",
    "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "verbosity",
}  # fmt: skip
_STREAM_ONLY = {"stream_options"}
_TYPES = {408: "timeout_error", 429: "requests", 529: "overloaded_error"}  # others: by the hundred
_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


class ChatCompletions:
    """POST /v1/chat/completions."""

    path, id_header = "/v1/chat/completions", "x-request-id"

    def question(self, body: Any, draw: int) -> Request:
        """The request that a body is. Raises: BadRequest"""
        if not isinstance(body, dict):
            raise BadRequest("the body should be a JSON object")
        body = {name: value for name, value in body.items() if value is not None}
        for name in ("model", "messages"):
            if name not in body:
                raise BadRequest(f"you must provide a {name} parameter", name, "missing_required_parameter")
        _check(body)
        turns = _turns(body)
        return Request(
            model=Model(provider="simulated", name=one_of(body["model"], str, "model"), params=_params(body)),
            messages=tuple(turn for turn in turns if turn.role != "system"),
            system="\n\n".join(turn.content for turn in turns if turn.role == "system"), schema=_schema(body), draw=draw,
        )  # fmt: skip

    def check(self, body: Body, version: str) -> None:
        """Nothing here hangs on a version."""

    def answer(self, answer: Answer, body: Body, unique: str) -> Body:
        """The completion that says the same as an answer."""
        reply = answer.reply
        content, refusal = (None, REFUSAL) if reply.refused else (reply.text, None)
        choice: Body = {
            "index": 0, "finish_reason": FINISHES.get(reply.stop_reason, "stop"), "logprobs": None,
            "message": {"role": "assistant", "content": content, "refusal": refusal},
        }  # fmt: skip
        if body.get("logprobs"):
            top = body.get("top_logprobs") or 0
            entries = {"content": content, "refusal": refusal}
            choice["logprobs"] = {
                name: None if text is None else told(text, answer.choice, answer.seed, top) for name, text in entries.items()
            }
        usage = {"prompt_tokens": reply.tokens_in, "completion_tokens": reply.tokens_out,
                 "total_tokens": reply.tokens_in + reply.tokens_out}  # fmt: skip
        return {"id": f"chatcmpl-{unique}", "object": "chat.completion", "created": CREATED, "model": reply.model,
                "choices": [choice], "usage": usage}  # fmt: skip

    def problem(self, problem: Problem, unique: str) -> Body:
        """The body of an error."""
        status = problem.status
        kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
        code = problem.code or _CODES.get(status)
        if problem.kind == "spend":
            kind = code = "insufficient_quota"
        if problem.kind == "model":
            code = "model_not_found"
        message = problem.message or kind.replace("_", " ")
        return {"error": {"message": message, "type": kind, "param": problem.param, "code": code}}

    def stopped(self, body: Body, reason: str) -> Body:
        """A completion that finished for another reason."""
        return body | {"choices": [body["choices"][0] | {"finish_reason": reason}]}

    def emptied(self, body: Body) -> Body:
        """A completion without content."""
        return body | {"choices": [body["choices"][0] | {"message": {"role": "assistant", "content": "", "refusal": None}}]}

    def rates(self, states: Mapping[str, State], now_s: float) -> dict[str, str]:
        """The headers that tell the rate limits: when they are full again is a duration, such as 1m30s."""
        found: dict[str, str] = {}
        for name in ("requests", "tokens"):
            if state := states.get(name):
                parts = {"limit": state.limit, "remaining": state.remaining, "reset": duration(state.full_in_s)}
                found |= {f"x-ratelimit-{part}-{name}": str(value) for part, value in parts.items()}
        return found


def duration(seconds: float) -> str:
    """Seconds as these headers have them: 120ms, 5s, 1m30s."""
    if seconds < 1:
        return f"{round(1000 * seconds)}ms"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"


def _check(body: Body) -> None:
    """Raises: BadRequest: what this server does not do"""
    not_streamed(body)
    for name in body.keys() - _KNOWN - _STREAM_ONLY:
        raise BadRequest(f"Unsupported parameter: '{name}' is not known to this server.", name, "unsupported_parameter")
    if _STREAM_ONLY & body.keys():
        raise BadRequest("stream_options: only with stream, which this server does not do", "stream_options")
    if body.get("n", 1) != 1:
        raise BadRequest("n: this server gives one choice; ask again for another", "n", "unsupported_value")
    logprobs, top = one_of(body.get("logprobs", False), bool, "logprobs"), body.get("top_logprobs")
    if top is not None and not logprobs:
        raise BadRequest("top_logprobs: only with logprobs: true", "top_logprobs")
    if top is not None and not 0 <= one_of(top, int, "top_logprobs") <= MOST:
        raise BadRequest(f"top_logprobs: must be from 0 to {MOST}", "top_logprobs")


def _params(body: Body) -> Body:
    if {"max_tokens", "max_completion_tokens"} <= body.keys():
        raise BadRequest("max_tokens: give this or max_completion_tokens, not both", "max_tokens")
    limits = [limit_of(body, name) for name in ("max_tokens", "max_completion_tokens") if name in body]
    stops = stops_of(body.get("stop", []), "stop")
    if len(stops) > 4:
        raise BadRequest("stop: at most 4 sequences", "stop")
    return ({"max_tokens": limits[0]} if limits else {}) | ({"stop_sequences": stops} if stops else {})


def _turns(body: Body) -> list[Turn]:
    turns = []
    for n, turn in enumerate(one_of(body["messages"], list, "messages")):
        role = one_of(turn, dict, f"messages[{n}]").get("role")
        if role not in _ROLES:
            known = ", ".join(f"'{one}'" for one in _ROLES)
            raise BadRequest(f"messages[{n}].role: '{role}' is none of {known}", f"messages[{n}].role", "invalid_value")
        turns.append(Turn(role=_ROLES[role], content=text_of(turn.get("content"), f"messages[{n}].content")))
    if not turns:
        raise BadRequest("messages: at least one is needed", "messages")
    return turns


def _schema(body: Body) -> Body | None:
    given = one_of(body.get("response_format", {"type": "text"}), dict, "response_format")
    if given.get("type") == "text":
        return None
    if given.get("type") != "json_schema":
        raise BadRequest("response_format.type: text or json_schema here", "response_format.type", "unsupported_value")
    named = one_of(given.get("json_schema"), dict, "response_format.json_schema")
    one_of(named.get("name"), str, "response_format.json_schema.name")
    return schema_of(named.get("schema"), "response_format.json_schema.schema")


def model_info(name: str) -> Body:
    """A model as GET /v1/models tells of it."""
    return {"id": name, "object": "model", "created": CREATED, "owned_by": "cai"}


def model_list(names: list[str]) -> Body:
    """All models."""
    return {"object": "list", "data": [model_info(name) for name in names]}
