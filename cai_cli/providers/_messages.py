"""The wire format of the Messages API, without a wire: a request's body, and what a message says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cai_cli.caching import LONG, cached_tokens
from cai_cli.errors import Retry
from cai_cli.flow import Reply, Request
from cai_cli.providers._answers import asked, checked, count, encoded, estimate, json_of

VERSION = "2026-10-21"
VERSION_WITH_SAMPLING = "2023-06-01"  # the last one that takes temperature, top_p and top_k, for models old enough
SAMPLING = ("temperature", "top_p", "top_k")
OPTIONAL = (*SAMPLING, "stop_sequences", "thinking")


# What is sent.


def body_of(request: Request) -> dict[str, Any]:
    """The JSON body that the SDK would send for this request. What was not set is not in it.

    What recurs from row to row is marked for the server to keep, where it keeps anything of that length.
    """
    params = request.model.params
    body: dict[str, Any] = {
        "model": request.model.name,
        "max_tokens": request.model.max_tokens,
        "messages": [{"role": turn.role, "content": turn.content} for turn in request.messages],
    }
    if request.system:
        body["system"] = request.system
    body |= {name: params[name] for name in OPTIONAL if params.get(name) is not None}
    if output := _output_config(request):
        body["output_config"] = output
    if cached_tokens(request):
        _mark(body, request)
    return body


def _mark(body: dict[str, Any], request: Request) -> None:
    """Puts one mark where what recurs ends: all before it is kept as well. The API takes no block that is blank."""
    turns, characters = request.constant
    content = request.messages[turns].content if turns < len(request.messages) else ""
    parts = content[:characters], content[characters:]
    if all(part and not part.isspace() for part in parts):
        body["messages"][turns]["content"] = [_kept(parts[0], request), {"type": "text", "text": parts[1]}]
    elif turns:
        body["messages"][turns - 1]["content"] = [_kept(request.messages[turns - 1].content, request)]
    elif request.system.strip():
        body["system"] = [_kept(request.system, request)]


def _kept(text: str, request: Request) -> dict[str, Any]:
    mark = {"type": "ephemeral", "ttl": "1h"} if request.model.caching == LONG else {"type": "ephemeral"}
    return {"type": "text", "text": text, "cache_control": mark}


def _output_config(request: Request) -> dict[str, Any]:
    output: dict[str, Any] = {}
    if request.schema is not None:
        output["format"] = {"type": "json_schema", "schema": request.schema}
    if effort := request.model.params.get("effort"):
        output["effort"] = effort
    return output


def version_of(request: Request) -> str:
    """The API version that takes the request's parameters."""
    sampled = any(request.model.params.get(name) is not None for name in SAMPLING)
    return VERSION_WITH_SAMPLING if sampled else VERSION


def encode(request: Request) -> bytes:
    """The body as JSON. Raises: Reject unencodable"""
    return encoded(body_of(request))


# What comes back.


def reply_from(body: bytes, request: Request) -> Reply:
    """Read the body of a 200, against our own schema: servers and proxies send many things with that status.

    Raises: Retry protocol
    """
    message = json_of(body)
    if not isinstance(message, dict) or message.get("type") != "message":
        raise Retry("protocol", "a 200 that is not a message")
    text, stop = _text(message.get("content")), message.get("stop_reason")
    if not isinstance(stop, str | None):
        raise Retry("protocol", "a message whose stop_reason is no text")
    answered_by = message.get("model")
    # Null stands in the events of a stream only; a server that sends it here has no word for a usual end.
    reply = Reply(text=text, stop_reason=stop or "end_turn", model=answered_by if isinstance(answered_by, str) else "",
                  **_usage(message, text, request))  # fmt: skip
    return checked(reply, request)


def _text(content: Any) -> str:
    """The text blocks, joined; thinking and tools are no part of a response. Raises: Retry protocol"""
    if not isinstance(content, list) or not all(isinstance(block, dict) for block in content):
        raise Retry("protocol", "a message whose content is no list of blocks")
    texts = [block.get("text") for block in content if block.get("type") == "text"]
    if not all(isinstance(text, str) for text in texts):
        raise Retry("protocol", "a text block without text")
    return "".join(texts)


def _usage(message: Mapping[str, Any], text: str, request: Request) -> dict[str, Any]:
    """The token counts of a reply, as Reply's fields; estimated from lengths where the server gave none that can be true."""
    usage = message.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    read, written = (count(counts, f"cache_{name}_input_tokens", absent=0) for name in ("read", "creation"))
    lifetimes = counts.get("cache_creation")
    long = count(lifetimes, "ephemeral_1h_input_tokens") if isinstance(lifetimes, dict) else None
    tokens_in, tokens_out = count(counts, "input_tokens"), count(counts, "output_tokens")
    return {
        "tokens_in": estimate(asked(request)) if tokens_in is None else tokens_in,
        "tokens_out": estimate(text) if tokens_out is None else tokens_out,
        "tokens_cache_read": read or 0, "tokens_cache_write": written or 0, "tokens_cache_write_1h": min(long or 0, written or 0),
        "estimated": None in (tokens_in, tokens_out, read, written),
    }  # fmt: skip
