"""The Messages API as the server speaks it. Source: the types of the anthropic SDK, 2.11"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from cai_cli.flow import Model, Request
from cai_cli.providers.simulated import Answer
from cai_cli.records import Turn
from cai_cli.simulate.limits import State
from cai_cli.simulate.wire import BadRequest, Body, Problem, limit_of, not_streamed, one_of, schema_of, stops_of, text_of

WITHOUT_SAMPLING = "2026"  # API versions from then on have no temperature, top_p and top_k
_SAMPLING = {"temperature", "top_p", "top_k"}
_INVALID, _GONE = "invalid_request_error", "timeout_error"
TYPES = {
    400: _INVALID, 401: "authentication_error", 402: "billing_error", 403: "permission_error", 404: "not_found_error",
    405: _INVALID, 408: _GONE, 409: "conflict_error", 413: "request_too_large", 422: _INVALID, 429: "rate_limit_error",
    500: "api_error", 502: "api_error", 503: "api_error", 504: _GONE, 529: "overloaded_error",
}  # fmt: skip


class Messages:
    """POST /v1/messages."""

    path, id_header = "/v1/messages", "request-id"

    def question(self, body: Any, draw: int) -> Request:
        """The request that a body is. Raises: BadRequest"""
        if not isinstance(body, dict):
            raise BadRequest("Input should be a valid dictionary")
        for name in ("model", "max_tokens", "messages"):
            if name not in body:
                raise BadRequest(f"{name}: Field required", name)
        not_streamed(body)
        return self._request(body, {"max_tokens": limit_of(body, "max_tokens")}, draw)

    def counted(self, body: Any) -> Request:
        """The request whose tokens are to be counted: a body like the others, without max_tokens. Raises: BadRequest"""
        return self.question(body | {"max_tokens": 1} if isinstance(body, dict) else body, 0)

    def _request(self, body: Body, params: Body, draw: int) -> Request:
        if body.get("stop_sequences"):
            params["stop_sequences"] = stops_of(one_of(body["stop_sequences"], list, "stop_sequences"), "stop_sequences")
        given = one_of(body.get("output_config") or {}, dict, "output_config").get("format") or {}
        schema = one_of(given, dict, "output_config.format").get("schema")
        return Request(
            model=Model(provider="simulated", name=one_of(body["model"], str, "model"), params=params), messages=_turns(body),
            system=text_of(body.get("system") or "", "system"), draw=draw,
            schema=None if schema is None else schema_of(schema, "output_config.format.schema"),
        )  # fmt: skip

    def check(self, body: Body, version: str) -> None:
        """Raises: BadRequest: a sampling parameter under an API version that has none"""
        if version >= WITHOUT_SAMPLING and (sampled := _SAMPLING & body.keys()):
            raise BadRequest(f"{min(sampled)}: Extra inputs are not permitted", min(sampled))

    def answer(self, answer: Answer, body: Body, unique: str) -> Body:
        """The message that says the same as an answer."""
        reply = answer.reply
        refusal = {"type": "refusal", "category": "general_harms", "explanation": None} if reply.refused else None
        return {
            "id": f"msg_{unique}", "type": "message", "role": "assistant", "model": reply.model,
            "content": [{"type": "text", "text": reply.text}] if reply.text else [],
            "stop_reason": reply.stop_reason, "stop_sequence": answer.stop_sequence, "stop_details": refusal,
            "usage": {
                "input_tokens": reply.tokens_in, "output_tokens": reply.tokens_out,
                "cache_creation_input_tokens": reply.tokens_cache_write, "cache_read_input_tokens": reply.tokens_cache_read,
                "cache_creation": {
                    "ephemeral_5m_input_tokens": reply.tokens_cache_write - reply.tokens_cache_write_1h,
                    "ephemeral_1h_input_tokens": reply.tokens_cache_write_1h,
                },
            },
        }  # fmt: skip

    def problem(self, problem: Problem, unique: str) -> Body:
        """The body of an error."""
        kind = TYPES.get(problem.status, "api_error")
        error: Body = {"type": kind, "message": problem.message or kind.replace("_", " ")}
        if problem.kind == "spend":
            error["details"] = {"error_code": "enforced_spend_limit_reached"}
        return {"type": "error", "error": error, "request_id": unique}

    def stopped(self, body: Body, reason: str) -> Body:
        """A message that stopped for another reason."""
        return body | {"stop_reason": reason}

    def emptied(self, body: Body) -> Body:
        """A message without content."""
        return body | {"content": []}

    def rates(self, states: Mapping[str, State], now_s: float) -> dict[str, str]:
        """The headers that tell the rate limits: when they are full again is a moment, RFC 3339."""
        found: dict[str, str] = {}
        for name, state in states.items():
            moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now_s + state.full_in_s))
            parts = {"limit": state.limit, "remaining": state.remaining, "reset": moment}
            found |= {f"anthropic-ratelimit-{name}-{part}": str(value) for part, value in parts.items()}
        return found


def _turns(body: Body) -> tuple[Turn, ...]:
    given = one_of(body["messages"], list, "messages")
    if not given:
        raise BadRequest("messages: at least one message is required", "messages")
    turns = []
    for n, turn in enumerate(given):
        role = one_of(turn, dict, f"messages.{n}").get("role")
        if role not in ("user", "assistant"):
            raise BadRequest(f"messages.{n}.role: Input should be 'user' or 'assistant'", f"messages.{n}.role")
        turns.append(Turn(role=role, content=text_of(turn.get("content"), f"messages.{n}.content")))
    return tuple(turns)


def model_info(name: str) -> Body:
    """A model as GET /v1/models tells of it."""
    return {
        "type": "model", "id": name, "display_name": name.replace("-", " ").capitalize(), "created_at": "2026-01-01T00:00:00Z",
        "lifecycle": "active", "max_input_tokens": 200_000, "max_tokens": 64_000,
    }  # fmt: skip


def model_list(names: list[str]) -> Body:
    """All models, as one page."""
    return {"data": [model_info(name) for name in names], "has_more": False, "first_id": names[0], "last_id": names[-1]}
