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
        if request.model.provider == SIMULATED:
            reply = reply_to(request, self.world)
            return _ended(request, self.world) if reply.truncated and self is not MIDDLE else reply
        whole = reply_to(request.with_max_tokens(UNLIMITED), self.world)
        return _stretched(whole, request, max(1, round(self.share * request.model.max_tokens) - 1))

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
        try:
            value = json.loads(reply.text)
        except ValueError:
            return reply
        places = _free(value, request.schema)
        if not places:
            return reply  # words of a list, a number: their length is known
        rest = len(reply.text) - sum(len(entry[name]) for entry, name in places)
        for entry, name in places:
            entry[name] = _to(entry[name], max(1, (4 * tokens - rest) // len(places)))
        text = json.dumps(value, ensure_ascii=False)
    # What must be there may be more than max_tokens: `config check` warns of that, and no more is billed.
    tokens_out = min(max(1, round(len(text) / 4)), request.model.max_tokens)
    return replace(reply, text=text, tokens_out=tokens_out, stop_reason="end_turn")


def _free(value: Any, schema: Mapping[str, Any]) -> list[tuple[dict[str, Any], str]]:
    """Where free text stands: in the first property that is some, or in the entries of the first list of objects that have it."""
    for name, part in schema.get("properties", {}).items():
        if part.get("type") == "string" and "enum" not in part:
            return [(value, name)]
        if part.get("type") == "array" and part["items"].get("type") == "object":
            return [place for entry in value[name] for place in _free(entry, part["items"])]
    return []


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
