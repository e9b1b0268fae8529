"""Replies that nobody gave yet, as they are assumed to be: the simulated model's words, at an assumed length."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from cai_cli.flow import Reply, Request
from cai_cli.providers._world import World
from cai_cli.providers.simulated import reply_to

SIMULATED = "simulated"
UNLIMITED = 100_000  # tokens
STRANGER = 1  # seed of the worlds here: the simulated model's habits, but none of its draws


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """One set of assumptions. `share`: length of a free reply as a share of max_tokens; the simulated model's is its own."""

    world: World
    share: float
    characters: float = 4.0  # of a prompt, for each token

    def reply(self, request: Request) -> Reply:
        """A stand-in for what a model would say."""
        reply = reply_to(request, self.world)
        if request.model.provider == SIMULATED:
            return _ended(request, self.world) if reply.truncated and self is not MIDDLE else reply
        return _stretched(reply, request, max(1, round(self.share * request.model.max_tokens) - 1))

    def tokens(self, characters: int, request: Request) -> float:
        """How many tokens so many characters of a question are."""
        return characters / (4.0 if request.model.provider == SIMULATED else self.characters)


# The middle is what is told; the outer ones are how wrong it is taken to be. Rounds end early where little is found, and late
# where much is found and little of it mended.
MIDDLE = Guess(world=World(seed=STRANGER), share=1 / 3)
LOW = Guess(world=World(seed=STRANGER, harm=0.15, reply_length=0.3), share=0.1, characters=5.0)
HIGH = Guess(world=World(seed=STRANGER, harm=0.9, reply_length=5, revise_keep=0.6), share=1.0, characters=3.2)


def _ended(request: Request, world: World) -> Reply:
    """A reply that would be cut off, as one that ends below max_tokens: what is cut off is asked about no more, and is cheap."""
    whole = reply_to(request.with_max_tokens(UNLIMITED), world)
    return _stretched(whole, request, max(1, request.model.max_tokens - 1))


def _stretched(reply: Reply, request: Request, tokens: int) -> Reply:
    """The same reply at another length: its free text is repeated, or cut."""
    if request.schema is None:
        text = _to(reply.text, 4 * tokens)
    else:
        name = _free(request.schema)
        try:
            value = json.loads(reply.text)
        except ValueError:
            return reply
        if not name:
            return reply  # words of a list, a number: their length is known
        rest = len(reply.text) - len(value[name])
        text = json.dumps(value | {name: _to(value[name], max(1, 4 * tokens - rest))}, ensure_ascii=False)
    return replace(reply, text=text, tokens_out=max(1, round(len(text) / 4)), stop_reason="end_turn")


def _free(schema: Mapping[str, Any]) -> str:
    """The first property that is free text; empty: none is."""
    parts: Mapping[str, Any] = schema.get("properties", {})
    return next((name for name, part in parts.items() if part.get("type") == "string" and "enum" not in part), "")


def _to(text: str, length: int) -> str:
    if not text.strip():
        return text
    times = -(-length // (len(text) + 1))
    return " ".join([text] * times)[:length].strip()


def stated(requests_of: Sequence[str]) -> str:
    """What the middle guess assumes, as a sentence. Takes: the providers that are asked"""
    if all(provider == SIMULATED for provider in requests_of):
        return "replies and rounds as the simulated model's of another seed; from a third to five times as long"
    return "free text a third of max_tokens (from a tenth to all of it), 4 characters a token, rounds as the simulated model's"
