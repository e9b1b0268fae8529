"""One small question to a model, which is paid for: whether it answers, as structured output, with log-probabilities."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from cai_cli import prompts
from cai_cli.engine.doctor.finding import Finding, fail, ok, warn
from cai_cli.errors import Exit, Fatal, Fix, Reject, Retry
from cai_cli.flow import Model, Reply, Request
from cai_cli.prices import price_of
from cai_cli.providers import Provider
from cai_cli.records import Turn
from cai_cli.reports.quantities import dollars
from cai_cli.visible import on_one_line

ANSWER_S = 60.0
MOST_TOKENS = 64
WORDS = ("yes", "no")
_SCHEMA = prompts.schema(answer={"type": "string", "enum": list(WORDS)})


def requests_to(models: Sequence[Model]) -> list[Request]:
    """The question to each model; stages whose settings come to the same one share it."""
    return list({orjson.dumps(one.identity(), option=orjson.OPT_SORT_KEYS): one for one in map(_request_to, models)}.values())


def _request_to(model: Model) -> Request:
    """The question to one. If it thinks first it keeps its own max_tokens: thinking counts towards it."""
    params = dict(model.params)
    if "thinking" not in params:
        params["max_tokens"] = min(model.max_tokens, MOST_TOKENS)
    turn = Turn(role="user", content='Is water wet? Answer with JSON and nothing else: {"answer": "yes"} or {"answer": "no"}')
    return Request(model=replace(model, params=params), messages=(turn,), schema=_SCHEMA, options=WORDS, stage="doctor")


async def asked(provider: Provider, request: Request) -> Finding:
    """What the model made of it."""
    what = f"ask {request.model.name}"
    begun = time.perf_counter()
    try:
        reply = await provider.send(request, ANSWER_S)
    except Retry as retry:
        return fail(what, f"{retry.kind}: {retry.detail}", "try again in a while", Exit.UNREACHABLE)
    except Reject as reject:
        hint = "a run would reject every row for this: take out of `model` what the server does not know"
        return fail(what, f"refused: {reject.reason} {reject.detail}", hint, Exit.USAGE)
    except (Fatal, Fix) as error:
        return fail(what, error.message, error.hint.replace("the same command", "cai doctor"), error.code)
    return _read(what, request, reply, time.perf_counter() - begun, getattr(provider, "rate_limits", {}))


def _cost(amount: float | None) -> str:
    if amount is None:
        return dollars(0, unknown=True)
    return "less than $0.0001" if 0 < amount < 0.0001 else dollars(amount)


def in_words(limits: Mapping[str, str]) -> str:
    """Rate headers as people read them: 50 requests, 40,000 input tokens. What is left and when it is full again stays out."""
    found = []
    for name, value in limits.items():
        words = name.partition("ratelimit-")[2].split("-")
        if "limit" in words and value.isdecimal():
            found.append(f"{int(value):,} {' '.join(word for word in words if word != 'limit')}")
    return ", ".join(found)


def _read(what: str, request: Request, reply: Reply, took_s: float, limits: Mapping[str, str]) -> Finding:
    is_structured = prompts.structured(reply.text, _SCHEMA) is not None
    told = reply.probabilities is not None
    price = price_of(request.model)
    cost = None if price is None else price.dollars(reply.tokens_in, reply.tokens_out)
    facts: dict[str, Any] = {
        "answered_by": reply.model, "took_s": round(took_s, 3), "dollars": cost, "structured_output": is_structured,
        "log_probabilities": told, "stop_reason": reply.stop_reason, "rate_limits": dict(limits),
    }  # fmt: skip
    parts = [
        f"answered by {on_one_line(reply.model)} in {took_s:.1f} s for {_cost(cost)}",
        f"structured output: {'yes' if is_structured else 'no'}", f"log-probabilities: {'yes' if told else 'no'}",
        *([f"limits a minute: {told_limits}"] if (told_limits := in_words(limits)) else []),
    ]  # fmt: skip
    if reply.refused or reply.truncated:
        return warn(what, f"{'; '.join(parts)}; it ended with {reply.stop_reason}", "raise model.max_tokens", **facts)
    if not is_structured:
        hint = "use critique.template: paper, or a server that takes a JSON schema"
        return warn(what, "; ".join(parts), hint, **facts)
    return ok(what, "; ".join(parts), **facts)
