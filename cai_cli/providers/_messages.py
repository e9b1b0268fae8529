"""The wire format of the Messages API, without a wire: a request's body, and what each answer means."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import orjson

from cai_cli.errors import Exit, Fatal, Reject, Retry
from cai_cli.flow import Reply, Request

VERSION = "2026-10-21"
VERSION_WITH_SAMPLING = "2023-06-01"  # the last one that takes temperature, top_p and top_k, for models old enough
SAMPLING = ("temperature", "top_p", "top_k")
OPTIONAL = (*SAMPLING, "stop_sequences", "thinking")
SPEND_LIMITS = ("enforced_spend_limit_reached", "contract_spend_limit_reached")

LONGEST_WAIT_S = 3600.0
MOST_TOKENS = 100_000_000  # a count above this is a mistake of the server
BYTES_PER_TOKEN = 4  # of English, about
AGAIN = "then run the same command again"


# What is sent.


def body_of(request: Request) -> dict[str, Any]:
    """The JSON body that the SDK would send for this request. What was not set is not in it."""
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
    return body


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
    try:
        return orjson.dumps(body_of(request), default=dict)
    except TypeError:  # orjson's error for what UTF-8 or JSON cannot carry
        raise Reject("unencodable", "the request holds a lone surrogate, or a parameter that is not JSON") from None


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
    reply = Reply(text=text, model=answered_by if isinstance(answered_by, str) else "", **_usage(message, text, request))
    # Null stands in the events of a stream only; a server that sends it here has no word for a usual end.
    stop = stop or "end_turn"
    # Some servers say end_turn for a truncation. An estimate proves nothing.
    cut = stop == "end_turn" and not reply.estimated and reply.tokens_out >= request.model.max_tokens
    return replace(reply, stop_reason="max_tokens" if cut else stop)


def json_of(body: bytes) -> Any:
    """The value that a body holds; None where it is not JSON."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


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
    read, written = (_count(counts, f"cache_{name}_input_tokens", absent=0) for name in ("read", "creation"))
    tokens_in, tokens_out = _count(counts, "input_tokens"), _count(counts, "output_tokens")
    asked = request.system + "".join(turn.content for turn in request.messages)
    return {
        "tokens_in": _estimate(asked) if tokens_in is None else tokens_in,
        "tokens_out": _estimate(text) if tokens_out is None else tokens_out,
        "tokens_cache_read": read or 0, "tokens_cache_write": written or 0,
        "estimated": None in (tokens_in, tokens_out, read, written),
    }  # fmt: skip


def _count(usage: Mapping[str, Any], name: str, absent: int | None = None) -> int | None:
    value = usage.get(name)
    if value is None:
        return absent
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None


def _estimate(text: str) -> int:
    return math.ceil(len(text.encode("utf-8", "surrogatepass")) / BYTES_PER_TOKEN)


def error_for(status: int, headers: Mapping[str, str], body: bytes, *, host: str = "the server", key: str = "no key",
              model: str = "") -> Retry | Reject | Fatal:  # fmt: skip
    """What an answer other than 200 means, by its status and the types in it, never by its text.

    Takes: `host`, `key` (its label) and `model`, for messages
    """
    kind, code, said = _explain(body)
    if status == 402 or kind == "billing_error" or (status in (400, 429) and code in SPEND_LIMITS):
        return Fatal(f"{host}: the account's spend limit is reached", f"raise it or wait; {AGAIN}", Exit.STOPPED)
    if status in (401, 403):
        return Fatal(f"{host} refused {key} ({status})", f"check the key and what it may do; {AGAIN}", Exit.KEY)
    if status == 404:
        problem = f"{host} answered 404: it has no model '{model}', or no /v1/messages"
        return Fatal(problem, f"check model.name and model.base_url; {AGAIN}", Exit.USAGE)
    if 300 <= status < 400:
        return _redirected(host, status, lower_names(headers).get("location", ""))
    if status == 429:
        return Retry("rate_limit", f"{host} answered 429 {kind}".rstrip(), retry_after_s(headers))
    if status in (408, 409) or status >= 500:
        return Retry("server", f"{host} answered {status} {kind}".rstrip(), retry_after_s(headers))
    if 400 <= status < 500:
        return Reject(f"http_{status}", said, signature=f"{status} {kind}".rstrip())
    return Retry("protocol", f"{host} answered {status}")


def _redirected(host: str, status: int, location: str) -> Fatal:
    try:
        target = urlsplit(location).hostname or "another path"
    except ValueError:
        target = "no valid address"
    return Fatal(f"{host} redirects to {clean(target)} ({status}), and redirects are not followed: the key would go along",
                 "write the server's final address into model.base_url", Exit.UNREACHABLE)  # fmt: skip


def _explain(body: bytes) -> tuple[str, str, str]:
    """The type, the code and the message in an error's body; empty where it has none."""
    # The request id stays out: rejects are files, and files are the same each time.
    answer = json_of(body)
    answer = answer if isinstance(answer, dict) else {}
    error = answer.get("error", answer)  # some servers send the error bare, or only its message
    error = error if isinstance(error, dict) else {"message": error}
    details = error.get("details")
    code = details.get("error_code") if isinstance(details, dict) else ""
    kind, message = error.get("type"), error.get("message")
    word = kind if isinstance(kind, str) and re.fullmatch(r"[A-Za-z_]{1,64}", kind) else ""
    return word, code if isinstance(code, str) else "", clean(message) if isinstance(message, str) else ""


def clean(text: str) -> str:
    """A server's words as one line of at most 500 characters, without control characters."""
    return "".join(letter if letter.isprintable() else " " for letter in text[:500]).strip()


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """The wait that a server asks for, in [0, 3600] seconds; None: it asks for none, or for nonsense."""
    lower = lower_names(headers)
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        if re.fullmatch(r"\d{1,40}(\.\d{0,40})?", value := lower.get(name, "").strip(), re.ASCII):
            return min(float(value) * unit_s, LONGEST_WAIT_S)
    until, now = _moment(lower.get("retry-after", "")), _moment(lower.get("date", ""))
    if until is None:
        return None
    wait_s = until - (time.time() if now is None else now)  # by the server's own clock where it tells it
    return min(wait_s, LONGEST_WAIT_S) if wait_s >= 0 else None


def _moment(date: str) -> float | None:
    """Seconds since 1970 of an HTTP date."""
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None


def lower_names(headers: Mapping[str, str]) -> dict[str, str]:
    """Headers with their names in lower case."""
    return {name.lower(): value for name, value in headers.items()}
