"""What of a question servers can keep: its constant beginning, and whether it is long enough to be kept at all.

A server that caches prompts bills a beginning that it has seen a short while ago at a fraction of its price, and a little more
for one that it is to keep (the multiples stand in the price list). It keeps none that is shorter than the model's minimum.
"""

from __future__ import annotations

import re

from cai_cli.flow import Model, Request
from cai_cli.prices import price_of
from cai_cli.remembered import Remembered

CHARACTERS_PER_TOKEN = 4  # of English, about
OFF, LONG = "off", "1h"  # values of Model.caching; with any other, what is kept is kept for five minutes
_CLOUDS = ("bedrock", "vertex")  # they have Anthropic's models, under names of their own
_NAMED = re.compile(r"claude-[a-z]+-\d(?:-\d)?(?!\d)")


def constant_tokens(request: Request) -> int:
    """About how many tokens of a request recur from row to row: the system prompt and what `Request.constant` says."""
    turns, characters = request.constant
    length = len(request.system) + characters + sum(len(turn.content) for turn in request.messages[:turns])
    return length // CHARACTERS_PER_TOKEN


def cached_tokens(request: Request) -> int:
    """The same where the request goes out with a mark, so that the server keeps them; 0 where it does not.

    It does unless the model's settings switch caching off, no minimum is known for the model, or they are fewer.
    """
    if (not request.system and request.constant == (0, 0)) or request.model.caching == OFF:
        return 0
    least = minimum_of(request.model)
    tokens = 0 if least is None else constant_tokens(request)
    return tokens if least is not None and tokens >= least else 0


def minimum_of(model: Model) -> int | None:
    """The tokens below which a model's server keeps nothing; None: it is not known to keep anything."""
    return _minimum(model)


def _found(model: Model) -> int | None:
    price = price_of(model)
    if (price is None or price.cache_minimum is None) and model.provider in _CLOUDS and (named := _NAMED.search(model.name)):
        price = price_of(Model(provider="anthropic", name=named[0]))
    return None if price is None else price.cache_minimum


_minimum = Remembered(_found)
