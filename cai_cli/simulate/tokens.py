"""Tokens and their log-probabilities, as a server tells them: where the model chose they are its own, elsewhere plausible."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cai_cli import chance
from cai_cli.providers._said import Choice

MOST = 20  # alternatives a token, as at OpenAI
LEAK = 0.002  # of the probability at a choice goes to words that begin none of the options
LEAST = 1e-30  # a probability; its logarithm is a number
_TOKEN = re.compile(r" ?[^\W\d_]+| ?\d{1,3}| ?[^\w\s]| ?_|\s")
_FILLERS = (
    " the", " a", " and", " to", " of", " in", " is", " it", " that", " for", " on", " with", " as", " this", " but", " be",
    " or", " not", " an", " so", " we", "\n", ",", ".",
)  # fmt: skip
_SHARES = [0.4**n for n in range(len(_FILLERS))]


def tokenised(text: str) -> list[str]:
    """A text cut into tokens that together are the text: a word or up to three digits, each with the space before it; a sign."""
    return _TOKEN.findall(text)


def told(text: str, choice: Choice | None, seed: float, top: int) -> list[dict[str, Any]]:
    """The entries of `logprobs.content` for a text.

    Takes: `top`, how many alternatives a token, 0 to 20. Gives: entries with token, logprob (at most 0), bytes, top_logprobs: the
    likeliest first, the token itself among them
    """
    found = tokenised(text)
    places = _places(found, choice) if choice else {}
    return [_entry(token, _odds(token, places.get(n), (seed, n)), top) for n, token in enumerate(found)]


def _places(tokens: Sequence[str], choice: Choice) -> dict[int, dict[str, float]]:
    """The probabilities of the tokens at each place of the choice, and at the one after it where that decides too.

    They are conditional on the tokens before, as a model's are: of K1 and K2, K comes first, and then 1 or 2.
    """
    first, start = 0, 0
    while start + len(tokens[first]) <= choice.at:
        first, start = first + 1, start + len(tokens[first])
    lead = "".join(tokens)[start : choice.at]
    spelled = {tuple(tokenised(lead + word)): p for word, p in choice.odds.items() if p > 0}
    path = tuple(tokenised(lead + choice.word))
    if tuple(tokens[first : first + len(path)]) != path:
        return {}  # the word has grown together with what follows it
    after = tokens[first + len(path)] if first + len(path) < len(tokens) else ""
    places = {first + n: odds for n in range(len(path) + 1) if (odds := _next(spelled, path[:n], after))}
    return places | {first: {token: p * (1 - LEAK) for token, p in places[first].items()}}


def _next(spelled: Mapping[tuple[str, ...], float], begun: tuple[str, ...], after: str) -> dict[str, float]:
    """What can follow `begun`; nothing, where all that is left is what stands after a choice."""
    found: dict[str, float] = {}
    for spelling, p in spelled.items():
        if spelling[: len(begun)] == begun:
            token = spelling[len(begun)] if len(spelling) > len(begun) else after
            found[token] = found.get(token, 0.0) + p
    total = math.fsum(found.values())
    return {token: p / total for token, p in found.items()} if set(found) != {after} and "" not in found else {}


def _odds(token: str, options: Mapping[str, float] | None, key: tuple[object, ...]) -> dict[str, float]:
    certain = 0.7 + 0.3 * chance.unit(*key, "certain")
    odds = {token: certain} if options is None else dict(options)
    shares = {filler: share for filler, share in zip(_FILLERS, _SHARES, strict=True) if filler not in odds}
    rest = max(0.0, 1 - math.fsum(odds.values())) / math.fsum(shares.values())
    return odds | {filler: rest * share for filler, share in shares.items()}


def _entry(token: str, odds: Mapping[str, float], top: int) -> dict[str, Any]:
    likeliest = sorted(odds, key=lambda one: (-odds[one], one))[:top]
    if top and token not in likeliest:
        likeliest[-1] = token
    return _scored(token, odds) | {"top_logprobs": [_scored(one, odds) for one in likeliest]}


def _scored(token: str, odds: Mapping[str, float]) -> dict[str, Any]:
    logprob = min(0.0, math.log(max(odds[token], LEAST)))
    return {"token": token, "logprob": logprob, "bytes": list(token.encode("utf-8", "surrogatepass"))}
