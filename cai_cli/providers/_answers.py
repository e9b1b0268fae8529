"""What a server's answer means in every dialect: errors by status and type, waits, token counts, and what servers misreport."""

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

# Anthropic's codes, and those of servers that speak chat completions.
SPEND_LIMITS = (
    "enforced_spend_limit_reached",
    "contract_spend_limit_reached",
    "insufficient_quota",
    "billing_hard_limit_reached",
)
TOO_LONG = ("context_length_exceeded", "exceed_context_size_error")
NO_MODEL = ("model_not_found",)

LONGEST_WAIT_S = 3600.0
MOST_TOKENS = 100_000_000  # a count above this is a mistake of the server
BYTES_PER_TOKEN = 4  # of English, about
AGAIN = "then run the same command again"


# Bodies.


def encoded(body: Mapping[str, Any]) -> bytes:
    """A body as JSON. Raises: Reject unencodable"""
    try:
        return orjson.dumps(body, default=dict)
    except TypeError:  # orjson's error for what UTF-8 or JSON cannot carry
        raise Reject("unencodable", "the request holds a lone surrogate, or a parameter that is not JSON") from None


def json_of(body: bytes) -> Any:
    """The value that a body holds; None where it is not JSON."""
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None


# Replies.


def checked(reply: Reply, request: Request) -> Reply:
    """A reply put right where servers are known to misreport, by what we can see for ourselves.

    A prefill that is repeated is taken off, a stop sequence that was passed over ends the text, and an end of turn after all of
    max_tokens is a truncation. An estimated count proves nothing.
    """
    begun = request.messages[-1].content if request.messages and request.messages[-1].role == "assistant" else ""
    text = reply.text.removeprefix(begun) if begun else reply.text
    stops = [at for stop in request.model.params.get("stop_sequences") or () if (at := text.find(stop)) >= 0]
    if stops and reply.stop_reason in ("end_turn", "max_tokens"):
        return replace(reply, text=text[: min(stops)], stop_reason="stop_sequence")
    cut = reply.stop_reason == "end_turn" and not reply.estimated and reply.tokens_out >= request.model.max_tokens
    if not cut and text == reply.text:
        return reply
    return replace(reply, text=text, stop_reason="max_tokens" if cut else reply.stop_reason)


def asked(request: Request) -> str:
    """All text that a request sends."""
    return request.system + "".join(turn.content for turn in request.messages)


def count(usage: Mapping[str, Any], name: str, absent: int | None = None) -> int | None:
    """A token count of `usage`; `absent` where it has none, None where it cannot be true."""
    value = usage.get(name)
    if value is None:
        return absent
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None


def estimate(text: str) -> int:
    """About how many tokens a text is."""
    return math.ceil(len(text.encode("utf-8", "surrogatepass")) / BYTES_PER_TOKEN)


# Errors.


def error_for(status: int, headers: Mapping[str, str], body: bytes, *, host: str = "the server", key: str = "no key",
              model: str = "", route: str = "/v1/messages") -> Retry | Reject | Fatal:  # fmt: skip
    """What an answer other than 200 means, by its status and the types in it, never by its text.

    Takes: `host`, `key` (its label), `model` and `route`, for messages
    """
    kind, code, said = _explain(body)
    if status == 402 or kind == "billing_error" or (status in (400, 403, 429) and {kind, code} & {*SPEND_LIMITS}):
        return Fatal(f"{host}: the account's spend limit is reached", f"raise it or wait; {AGAIN}", Exit.STOPPED)
    if status == 404 or (status in (400, 403) and code in NO_MODEL):
        problem = f"{host} answered {status}: it has no model '{model}', or no {route}"
        return Fatal(problem, f"check model.name and model.base_url; {AGAIN}", Exit.USAGE)
    if status in (401, 403):
        return Fatal(f"{host} refused {key} ({status})", f"check the key and what it may do; {AGAIN}", Exit.KEY)
    if 300 <= status < 400:
        return _redirected(host, status, lower_names(headers).get("location", ""))
    if status == 429:
        return Retry("rate_limit", f"{host} answered 429 {kind}".rstrip(), retry_after_s(headers))
    if status in (408, 409) or status >= 500:
        return Retry("server", f"{host} answered {status} {kind}".rstrip(), retry_after_s(headers))
    if {kind, code} & {*TOO_LONG}:
        return Reject("context_exceeded", said, signature=f"{status} context_exceeded")
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
    code = details.get("error_code") if isinstance(details, dict) else error.get("code")
    kind, message = error.get("type") or error.get("status"), error.get("message")
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
