"""What a request costs. Prices are data (configs/prices.yaml), dated; an unknown model has no price, never a price of 0."""

from __future__ import annotations

import datetime
import functools
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from cai_cli.flow import Model
from cai_cli.shipped import shipped

PER = 1_000_000  # prices are per million tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """The price of a request whose prompt is longer than `prompt_tokens`."""

    prompt_tokens: int
    input: float  # dollars per million tokens
    output: float  # dollars per million tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """A model's price. The rates are multiples of the price of an input token; `batch` is one of the whole."""

    input: float  # dollars per million tokens
    output: float  # dollars per million tokens
    cache_read: float = 1.0
    cache_write: float = 1.25  # kept 5 minutes
    cache_write_1h: float = 2.0
    batch: float = 1.0
    above: tuple[Band, ...] = ()  # by rising prompt_tokens
    cache_minimum: int | None = None  # tokens below which nothing is cached; None: no caching is known
    dated: str = ""  # the day of the list that it stands in, as YYYY-MM-DD; empty: the config says it
    retires: datetime.date | None = None  # as such a list of the user's own says

    def dollars(self, tokens_in: int, tokens_out: int, cache_read: int = 0, cache_write: int = 0, *, cache_write_1h: int = 0,
                batch: bool = False) -> float:  # fmt: skip
        """What one request costs. Bands make sums of requests cost something else than their sum of tokens.

        Takes: tokens, `tokens_in` without those read from or written to the cache
        """
        band = self._band(tokens_in + cache_read + cache_write + cache_write_1h)
        weighted = (
            tokens_in + cache_read * self.cache_read + cache_write * self.cache_write + cache_write_1h * self.cache_write_1h
        )
        whole = (weighted * band.input + tokens_out * band.output) / PER
        return whole * self.batch if batch else whole

    def _band(self, prompt_tokens: int) -> Price | Band:
        found: Price | Band = self
        for band in self.above:
            found = band if prompt_tokens > band.prompt_tokens else found
        return found


def price_of(model: Model) -> Price | None:
    """The price of a model: the config's, else the list's by its name or its name with a date behind; None: nobody knows it.

    A price from the config keeps what the list says of the model's caching and batches, or its provider's rates; not its bands.
    """
    if model.price is not None:
        stated = _listed(model.provider, model.name) or Price(input=0.0, output=0.0, **_provider(model.provider)["default"])
        bands = tuple(sorted((Band(**band) for band in model.price.get("above", ())), key=lambda band: band.prompt_tokens))
        return replace(stated, **{"dated": "", **model.price, "above": bands})
    if model.provider == "simulated":
        return Price(input=0.0, output=0.0)
    return _listed(model.provider, model.name)


def near_name(model: Model) -> str:
    """The listed name of the same provider that is nearly this model's: a slip of the pen; empty: there is none."""
    import difflib

    known = _provider(model.provider)["models"]
    return "" if model.name in known else next(iter(difflib.get_close_matches(model.name.lower(), known, 1, 0.85)), "")


def dated() -> str:
    """The day that the shipped price list is of, as YYYY-MM-DD."""
    return str(_price_list()["dated"])


def as_of(models: Iterable[Model]) -> str:
    """Which prices hold for models, to be told beside dollars: "prices of 2026-11-20"; empty: none is known, or all are free."""
    held = [price for model in models if (price := price_of(model)) is not None and (price.input or price.output)]
    days = sorted({price.dated for price in held if price.dated})
    return " and ".join([*([f"prices of {', '.join(days)}"] if days else []),
                         *(["prices of the config"] if any(not price.dated for price in held) else [])])  # fmt: skip


def retires(model: Model) -> datetime.date | None:
    """The day from which the provider no longer offers a model, where the list knows one."""
    own: datetime.date | None = (model.price or {}).get("retires")
    days: dict[str, datetime.date] = _provider(model.provider).get("retires", {})
    return own or days.get(model.name) or days.get(undated(model.name))


def undated(name: str) -> str:
    """A model's name without the date at its end, if there is one."""
    return re.sub(r"-20\d{6}$", "", name)


@functools.cache
def _listed(provider: str, name: str) -> Price | None:
    prices = _provider(provider)
    said = prices["models"].get(name) or prices["models"].get(undated(name))
    if said is None:
        return None
    bands = tuple(Band(**band) for band in said.get("above", ()))
    return Price(**{**prices["default"], **said, "above": bands, "dated": dated()})


def _provider(name: str) -> dict[str, Any]:
    found: dict[str, Any] = _price_list()["providers"].get(name, {"default": {}, "models": {}})
    return found


@functools.cache
def _price_list() -> dict[str, Any]:
    import yaml

    read: dict[str, Any] = yaml.safe_load(shipped("configs", "prices.yaml").read_text("utf-8"))
    return read
