"""A price list of the user's own: a file of the form of configs/prices.yaml, whose models go before the shipped ones."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, Field

from cai_cli import documents
from cai_cli.documents import Document
from cai_cli.prices import undated
from cai_cli.settings import Price, Rates, Section
from cai_cli.validation import KeyPath, Mistake, near, validated

S = TypeVar("S", bound=Section)
Named = tuple[str, str]  # a model: its provider, its name


def _day(text: str) -> str:
    try:
        return datetime.date.fromisoformat(text).isoformat()
    except ValueError:
        raise ValueError(f"must be a day such as 2026-11-20, not '{text}'") from None


Day = Annotated[str, AfterValidator(_day)]


class _File(Section):
    dated: str
    providers: dict[str, dict[str, Any]]


class _Provider(Section):
    default: dict[str, Any] = Field({})
    retires: dict[str, Day] = Field({})
    models: dict[str, dict[str, Any]] = Field({})


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceList:
    """Prices by model, each as the fields of `prices.Price` that the file says."""

    prices: Mapping[Named, Mapping[str, Any]]

    def of(self, provider: str, name: str) -> Mapping[str, Any] | None:
        """What the list says of a model, by its name or its name without a date behind; None: nothing."""
        return self.prices.get((provider, name)) or self.prices.get((provider, undated(name)))


def load(path: Path) -> PriceList:
    """Read a price list: `default` holds for the models of the same provider in this file.

    Raises: Fix, with every problem as file:line
    """
    reading = _Reading(documents.load(path))
    prices = dict(reading.prices())
    if reading.mistakes:
        document = reading.document
        ordered = sorted(reading.mistakes, key=lambda one: document.line(one.path))
        raise documents.all_at_once([(f"{document.where(one.path)}: {one.what}", one.hint) for one in ordered])
    return PriceList(prices=prices)


class _Reading:
    """A file on its way to be prices: part by part, so that each mistake is told with the keys that there are."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.mistakes: list[Mistake] = []

    def prices(self) -> Iterator[tuple[Named, dict[str, Any]]]:
        file = self.part(_File, self.document.value, ())
        if file and not any(one.path == ("dated",) for one in self.mistakes):
            self.day(file.dated)
        for provider, value in file.providers.items() if file else ():
            at: KeyPath = ("providers", provider)
            held = self.part(_Provider, value, at)
            if held is not None:
                yield from self.models(provider, held, {"dated": file.dated if file else ""}, at)

    def models(self, provider: str, held: _Provider, common: dict[str, Any], at: KeyPath) -> Iterator[tuple[Named, Any]]:
        rates = self.part(Rates, held.default, (*at, "default"))
        for name in sorted(held.retires.keys() - held.models.keys()):
            what = f"retires: this file has no price of '{name}'"
            self.mistakes.append(Mistake((*at, "retires", name), what, near(name, held.models)))
        for name, value in held.models.items():
            price = self.part(Price, value, (*at, "models", name))
            if price is not None and rates is not None:
                day = held.retires.get(name)
                retires = {"retires": datetime.date.fromisoformat(day)} if day else {}
                yield (provider, name), common | rates.said() | price.said() | retires

    def day(self, text: str) -> None:
        try:
            _day(text)
        except ValueError as error:
            self.mistakes.append(Mistake(("dated",), f"dated: {error}"))

    def part(self, kind: type[S], value: Any, at: KeyPath) -> S | None:
        read, mistakes = validated(kind, value, at, self.document.written)
        self.mistakes += mistakes
        return read
