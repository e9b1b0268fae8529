"""What a request costs. Prices are data (configs/prices.yaml), dated; an unknown model has no price, never a price of 0."""

from __future__ import annotations

import datetime
import functools
import re
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

    def _band(self, prompt_tokens: int) -> Band:
        found = Band(prompt_tokens=0, input=self.input, output=self.output)
        for band in self.above:
            found = band if prompt_tokens > band.prompt_tokens else found
        return found


def price_of(model: Model) -> Price | None:
    """The price of a model: the config's, else the list's by its name or its name with a date behind; None: nobody knows it.

    A price from the config keeps the provider's rates for caching and batches.
    """
    if model.price is not None:
        stated = _listed(model.provider, model.name) or Price(input=0.0, output=0.0, **_provider(model.provider)["default"])
        return replace(stated, input=float(model.price["input"]), output=float(model.price["output"]), above=())
    if model.provider == "simulated":
        return Price(input=0.0, output=0.0)
    return _listed(model.provider, model.name)


def near_name(model: Model) -> str:
    """The listed name of the same provider that is nearly this model's: a slip of the pen; empty: there is none."""
    import difflib

    known = _provider(model.provider)["models"]
    return "" if model.name in known else next(iter(difflib.get_close_matches(model.name.lower(), known, 1, 0.85)), "")


def dated() -> str:
    """The day that the price list is of, as YYYY-MM-DD."""
    return str(_price_list()["dated"])


def retires(model: Model) -> datetime.date | None:
    """The day from which the provider no longer offers a model, where the list knows one."""
    days: dict[str, datetime.date] = _provider(model.provider).get("retires", {})
    return days.get(model.name) or days.get(_undated(model.name))


def _undated(name: str) -> str:
    return re.sub(r"-20\d{6}$", "", name)


@functools.cache
def _listed(provider: str, name: str) -> Price | None:
    prices = _provider(provider)
    said = prices["models"].get(name) or prices["models"].get(_undated(name))
    if said is None:
        return None
    bands = tuple(Band(**band) for band in said.get("above", ()))
    return Price(**{**prices["default"], **said, "above": bands})


def _provider(name: str) -> dict[str, Any]:
    found: dict[str, Any] = _price_list()["providers"].get(name, {"default": {}, "models": {}})
    return found


@functools.cache
def _price_list() -> dict[str, Any]:
    import yaml

    read: dict[str, Any] = yaml.safe_load(shipped("configs", "prices.yaml").read_text("utf-8"))
    return read
