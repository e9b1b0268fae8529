"""Flows played by hand, prompt by prompt: what is asked, what of it was answered already, what it costs."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from cai_cli import caching
from cai_cli.engine.estimate.anatomy import PARTS, Anatomy
from cai_cli.engine.estimate.guess import Guess
from cai_cli.engine.ledger import key_of
from cai_cli.engine.program import MadeBy
from cai_cli.engine.rows import Program
from cai_cli.flow import Flow, Model, Outcome, Reply, Request, play
from cai_cli.prices import Price, price_of

# What is counted of every cell, in this order. `counted`: input tokens that count towards a server's limits; `paid`: dollars,
# where they are spent as they were spent; `dollars`: as the config has it sent now; `uncached`: without prompt caching;
# `batch`: by the Batch API, without caching.
COLUMNS = ("calls", *PARTS, "reply", "counted", "paid", "dollars", "uncached", "batch")
ROWS = "rows"  # in the place of a model: the rows that a stage makes, counted as its calls
Known = Callable[[Request], Outcome | None]  # what was answered already; None: nothing yet
Cell = tuple[str, str]  # what is counted apart: a stage, and a model that it asks, as `name_of` names it
Sums = defaultdict[Cell, list[float]]


def _sums() -> Sums:
    return defaultdict(lambda: [0.0] * len(COLUMNS))


@dataclass(slots=True)
class Counted:
    """What one prompt comes to, by cell. `guessed`: the stages that a guess stood in for a reply in."""

    bought: Sums = field(default_factory=_sums)  # by replies that are there
    ahead: Sums = field(default_factory=_sums)  # by guesses
    guessed: set[str] = field(default_factory=set)
    made: dict[str, Sequence[Any]] = field(default_factory=dict)  # rows by stage


class Player:
    """Plays flows with known replies, and with guesses where there are none. The same question is bought, and counts, once."""

    def __init__(self, anatomy: Anatomy, guess: Guess, known: Known) -> None:
        self.anatomy, self.guess, self.known = anatomy, guess, known
        self.models: dict[str, Model] = {}
        self._seen: set[bytes] = set()
        self._kept: set[tuple[object, ...]] = set()  # beginnings that a server has in its cache by now
        self._prices: dict[tuple[str, str, str], Price | None] = {}

    def prompt(self, program: Program, rows: Sequence[Any]) -> Counted:
        """Play all stages of one prompt."""
        counted = Counted()
        made: MadeBy = play(program(rows), functools.partial(self._answer, counted))
        for stage, one in made.items():
            counted.made[stage] = one.rows
            sums = counted.ahead if stage in counted.guessed else counted.bought
            sums[stage, ROWS][0] += len(one.rows)
        return counted

    def one(self, flow: Flow[Any], counted: Counted) -> None:
        """Play a flow, adding to what was counted."""
        play(flow, functools.partial(self._answer, counted))

    def _answer(self, counted: Counted, request: Request) -> Outcome:
        outcome = self.known(request)
        if outcome is None:
            counted.guessed.add(request.stage)
        if (key := key_of(request)) in self._seen:
            return outcome or self.guess.reply(request)
        self._seen.add(key)
        self.models.setdefault(name_of(request.model), request.model)
        sums = (counted.ahead if outcome is None else counted.bought)[request.stage, name_of(request.model)]
        if outcome is None:
            outcome = self.guess.reply(request)
            self._add(sums, request, outcome, None)
        elif isinstance(outcome, Reply):
            self._add(sums, request, outcome, outcome.tokens_in + outcome.tokens_cache_read + outcome.tokens_cache_write)
        else:
            sums[0] += 1  # a refusal of the provider: it costs nothing
        return outcome

    def _add(self, sums: list[float], request: Request, reply: Reply, tokens_in: int | None) -> None:
        """Count a question and its reply. `tokens_in`: what the server counted; None: nobody did"""
        characters = self.anatomy.characters(request)
        whole = self.guess.tokens(sum(characters), request) if tokens_in is None else float(tokens_in)
        scale = whole / max(1, sum(characters))
        sums[0] += 1
        for at, one in enumerate(characters, 1):
            sums[at] += one * scale
        sums[len(PARTS) + 1] += reply.tokens_out
        sums[len(PARTS) + 2] += whole - (reply.tokens_cache_read if tokens_in is not None else self._read(request, whole))
        if (price := self._price(request.model)) is not None:
            cost = paid = self._cached(request, whole, reply, price) if tokens_in is None else _paid(reply, price)
            if reply.tokens_cache_read + reply.tokens_cache_write and not caching.cached_tokens(request):
                cost = price.dollars(round(whole), reply.tokens_out)  # caching was switched off since
            sums[-4] += paid
            sums[-3] += cost
            sums[-2] += price.dollars(round(whole), reply.tokens_out)
            sums[-1] += price.dollars(round(whole), reply.tokens_out, batch=True)

    def _price(self, model: Model) -> Price | None:
        key = (model.provider, model.name, repr(model.price))
        if key not in self._prices:
            self._prices[key] = price_of(model)
        return self._prices[key]

    def _read(self, request: Request, whole: float) -> float:
        """Tokens that are read from a cache: they count towards no limit. Called before `_cached`, which keeps the beginning."""
        return min(float(caching.cached_tokens(request)), whole) if _beginning(request) in self._kept else 0.0

    def _cached(self, request: Request, whole: float, reply: Reply, price: Price) -> float:
        """What a request costs whose beginning the server keeps: the first to have it writes it there, the others read it."""
        kept = min(caching.cached_tokens(request), round(whole))
        rest, out = round(whole) - kept, reply.tokens_out
        if not kept:
            return price.dollars(rest, out)
        if (beginning := _beginning(request)) in self._kept:
            return price.dollars(rest, out, cache_read=kept)
        self._kept.add(beginning)
        if request.model.caching == caching.LONG:
            return price.dollars(rest, out, cache_write_1h=kept)
        return price.dollars(rest, out, cache_write=kept)


def name_of(model: Model) -> str:
    """A model among those of a run: its name, with where it is asked."""
    return "\t".join((model.name or model.provider, model.provider, *model.base_urls))


def _beginning(request: Request) -> tuple[object, ...]:
    turns, characters = request.constant
    begun = request.messages[turns].content[:characters] if turns < len(request.messages) else ""
    return (name_of(request.model), request.system, request.messages[:turns], begun)


def _paid(reply: Reply, price: Price) -> float:
    brief = reply.tokens_cache_write - reply.tokens_cache_write_1h
    return price.dollars(
        reply.tokens_in, reply.tokens_out, reply.tokens_cache_read, brief, cache_write_1h=reply.tokens_cache_write_1h
    )
