"""The wire format of chat completions, without a wire: a request's body, and what a completion says."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from cai_cli.errors import Fix, Retry
from cai_cli.flow import Reply, Request
from cai_cli.logprobs import Token, option_probabilities
from cai_cli.providers._answers import asked, checked, count, estimate, json_of

TOP = 20  # alternatives a token: the most that OpenAI and vLLM give
# By finish_reason. The Messages API's own words pass as they are: some gateways mix the two.
STOPS = {
    "stop": "end_turn", "eos": "end_turn", "eos_token": "end_turn", "length": "max_tokens", "content_filter": "refusal",
    "tool_calls": "tool_use", "function_call": "tool_use",
}  # fmt: skip
BROKEN_OFF = ("error", "abort", "insufficient_system_resource")  # the server gave up: OpenRouter, vLLM, DeepSeek
_THOUGHT = re.compile(r"\s*<think>.*?(?:</think>\s*|\Z)", re.DOTALL)
_THOUGHT_END = re.compile(r"^</think>[ \t]*(?:\n+|\Z)", re.MULTILINE)


# What is sent.


def check_params(params: Mapping[str, Any], own: bool) -> None:
    """Refuse settings that chat completions have no place for: left out in silence, they would be taken to hold.

    Takes: `own`, whether OpenAI itself is asked. Raises: Fix
    """
    if params.get("thinking") is not None:
        raise Fix("model.thinking is the Messages API's; chat completions have no place for it",
                  "use model.effort, or provider: anthropic")  # fmt: skip
    if own and params.get("top_k") is not None:
        raise Fix("model.top_k is not known at OpenAI", "leave it out; servers such as vLLM take it")


def body_of(request: Request, own: bool) -> dict[str, Any]:
    """The JSON body for a request. What was not set is not in it.

    Takes: `own`, whether OpenAI itself is asked: there it is max_completion_tokens, elsewhere (vLLM, llama.cpp...) max_tokens
    Raises: Fix: as `check_params`
    """
    params = request.model.params
    check_params(params, own)
    body: dict[str, Any] = {"model": request.model.name, "messages": list(_turns(request))}
    body["max_completion_tokens" if own else "max_tokens"] = request.model.max_tokens
    body |= {name: params[name] for name in ("temperature", "top_p", "top_k") if params.get(name) is not None}
    if params.get("stop_sequences"):
        body["stop"] = params["stop_sequences"]
    if params.get("effort"):
        body["reasoning_effort"] = params["effort"]
    if request.schema is not None:
        named = {"name": "answer", "strict": True, "schema": request.schema}
        body["response_format"] = {"type": "json_schema", "json_schema": named}
    if request.options and params.get("logprobs") is not False:
        body |= {"logprobs": True, "top_logprobs": TOP}
    return body


def _turns(request: Request) -> Iterator[dict[str, str]]:
    if request.system:
        yield {"role": "system", "content": request.system}
    for turn in request.messages:
        yield {"role": turn.role, "content": turn.content}


# What comes back.


def reply_from(body: bytes, request: Request) -> Reply:
    """Read the body of a 200, against our own schema. Raises: Retry protocol"""
    completion = json_of(body)
    if not isinstance(completion, dict) or completion.get("error"):
        raise Retry("protocol", "a 200 that is not a completion")
    choice, message = _choice(completion)
    text, refusal = _parts(message)
    finish = choice.get("finish_reason")
    if not isinstance(finish, str | None) or finish in BROKEN_OFF:
        raise Retry("protocol", "a completion that was broken off")
    stop = "refusal" if refusal else STOPS.get(finish or "stop", finish or "")
    answered_by = completion.get("model")
    reply = Reply(
        text=without_thoughts(text) or refusal, stop_reason=stop, model=answered_by if isinstance(answered_by, str) else "",
        probabilities=_probabilities(choice, request), **_usage(completion, text, request),
    )  # fmt: skip
    return checked(reply, request)


def _choice(completion: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """The first choice, and its message. Raises: Retry protocol"""
    choices = completion.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(message, dict) or choice.get("error"):
        raise Retry("protocol", "a completion without a message")
    return choice, message


def _parts(message: Mapping[str, Any]) -> tuple[str, str]:
    """What a message says, and with which words it refuses; reasoning stands in fields of its own and is neither.

    Raises: Retry protocol
    """
    content, refusal = message.get("content"), message.get("refusal") or ""
    blocks = [{"type": "text", "text": content or ""}] if isinstance(content, str | None) else content
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks) or not isinstance(refusal, str):
        raise Retry("protocol", "a message whose content is neither text nor a list of parts")
    texts = [block.get("text") for block in blocks if block.get("type") == "text"]
    refusals = [block.get("refusal") for block in blocks if block.get("type") == "refusal"]
    if not all(isinstance(text, str) for text in (*texts, *refusals)):
        raise Retry("protocol", "a part of a message without text")
    return "".join(texts), refusal + "".join(refusals)


def without_thoughts(text: str) -> str:
    """A response without reasoning that a server left in it.

    That is a <think> block at its beginning (all of it, where the block does not end), and what stands before a </think> alone on
    its line where the template opened the block itself. A <think> further on is the response's own.
    """
    if thought := _THOUGHT.match(text):
        return text[thought.end() :]
    end = _THOUGHT_END.search(text)
    return text[end.end() :] if end and "<think>" not in text[: end.start()] else text


def _usage(completion: Mapping[str, Any], text: str, request: Request) -> dict[str, Any]:
    """The token counts of a reply, as Reply's fields; estimated from lengths where the server gave none that can be true."""
    usage = completion.get("usage")
    counts = usage if isinstance(usage, dict) else {}
    details = counts.get("prompt_tokens_details")
    cached = count(details if isinstance(details, dict) else {}, "cached_tokens", absent=0)
    tokens_in, tokens_out = count(counts, "prompt_tokens"), count(counts, "completion_tokens")
    if tokens_in is not None and cached is not None and cached > tokens_in:
        cached = None
    return {
        "tokens_in": estimate(asked(request)) if tokens_in is None else tokens_in - (cached or 0),
        "tokens_out": estimate(text) if tokens_out is None else tokens_out,
        "tokens_cache_read": (cached or 0) if tokens_in is not None else 0,
        "estimated": None in (tokens_in, tokens_out, cached),
    }  # fmt: skip


def _probabilities(choice: Mapping[str, Any], request: Request) -> dict[str, float] | None:
    """The options' probabilities; None where the server told no log-probabilities, or none that can be read."""
    told = choice.get("logprobs")
    content = told.get("content") if isinstance(told, dict) else None
    if not request.options or not isinstance(content, list):
        return None
    tokens = [token for entry in content if (token := _token(entry))]
    return option_probabilities(tokens, request.options) if len(tokens) == len(content) else None


def _token(entry: Any) -> Token | None:
    if (sampled := _alternative(entry)) is None:
        return None
    others = entry.get("top_logprobs")
    listed = others if isinstance(others, list) else []
    return (*sampled, [other for one in listed if (other := _alternative(one))])


def _alternative(entry: Any) -> tuple[str, float] | None:
    text, logprob = (entry.get("token"), entry.get("logprob")) if isinstance(entry, dict) else (None, None)
    return (text, float(logprob)) if isinstance(text, str) and isinstance(logprob, int | float) else None
