"""Advice on what stands before every question of a stage: its length, whether it is cached, exemplars longer than the data."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence

from cai_cli.caching import cached_tokens, constant_tokens, minimum_of
from cai_cli.engine.advice.asked import CALLS, data_tokens, exemplar_tokens, tokens
from cai_cli.engine.advice.look import Advice, Look
from cai_cli.flow import Model, Request
from cai_cli.prices import Price, price_of
from cai_cli.reports.quantities import dollars
from cai_cli.validation import KeyPath

LONG = 3_000  # tokens before every question from which on they are worth a word
NEAR = 0.85  # of the minimum: what is shorter would need more than a few words to be cached


def advice(look: Look) -> Iterator[Advice]:
    for name in look.steps:
        told = set[KeyPath]()
        for asking in _alike(look.asked.of(name)):
            for one in (*_beginning(look, name, asking), *_exemplars(look, name, asking)):
                if one.path not in told:
                    told.add(one.path)
                    yield one


def _alike(requests: Sequence[Request]) -> list[list[Request]]:
    """Those of one model and one system prompt, whose beginning is the same."""
    groups: list[list[Request]] = []
    for request in requests:
        fits = (group for group in groups if group[0].model == request.model and group[0].system == request.system)
        group = next(fits, None)
        if group is None:
            groups.append([request])
        else:
            group.append(request)
    return groups


def _beginning(look: Look, name: str, asking: Sequence[Request]) -> Iterator[Advice]:
    model, constant = asking[0].model, max(map(constant_tokens, asking))
    price, least = price_of(model), minimum_of(model)
    whole = statistics.median(map(tokens, asking))
    if constant > LONG:
        what = f"about {constant:,} tokens stand before every question, {min(1.0, constant / whole):.0%} of what is asked"
        is_cached = max(map(cached_tokens, asking)) > 0
        write = "leave out what this stage can do without: exemplars, worked answers, rules for other cases"
        if not is_cached and least is not None:
            write = f"leave prompt_caching at auto, or {write}"
        yield Advice(
            path=_path(look, name, asking[0]), what=what, why=_both_bills(price, model, constant, is_cached), write=write
        )
    elif least is not None and NEAR * least <= constant < least and price is not None and price.input:
        what = f"about {constant:,} tokens stand before every question, and {model.name} caches from {least:,} on"
        pays, would = _thousand(price, constant), _thousand(price, least, cached=True)
        why = f"{CALLS:,} calls pay {dollars(pays)} for them, and {dollars(would)} with {least - constant:,} more"
        yield Advice(path=_path(look, name, asking[0]), what=what, why=why, write=_more(look, name, least - constant))


def _both_bills(price: Price | None, model: Model, constant: int, is_cached: bool) -> str:
    if price is None or not price.input:
        return "every call pays for them, or waits while they are read"
    plain = dollars(_thousand(price, constant))
    if price.cache_minimum is None:
        return f"{CALLS:,} calls pay {plain} for them, and no caching is known of {model.name}"
    kept = f"{dollars(_thousand(price, constant, cached=True))} with caching, which is {'on' if is_cached else 'off'}"
    return f"{CALLS:,} calls pay {plain} for them without caching and {kept}"


def _thousand(price: Price, number: int, cached: bool = False) -> float:
    """What so many tokens cost in a thousand calls; cached: written once, then read."""
    if not cached:
        return CALLS * price.dollars(number, 0)
    return price.dollars(0, 0, cache_write=number) + (CALLS - 1) * price.dollars(0, 0, cache_read=number)


def _more(look: Look, name: str, missing: int) -> str:
    settings = look.settings(name)
    if hasattr(settings, "exemplars"):
        return f"write exemplars: {settings.exemplars + 1}, or {missing} tokens more of instructions that help"
    return f"say what helps the model in {missing} tokens more"


def _path(look: Look, name: str, request: Request) -> KeyPath:
    """What makes the beginning long: exemplars, a system prompt, or the template."""
    section, settings = name.replace("-", "_"), look.settings(name)
    if getattr(settings, "exemplars", 0):
        return (section, "exemplars")
    systems = [system or "" for system in getattr(settings, "systems", ())]
    return (section, "systems", systems.index(request.system)) if request.system in systems else (section, "template")


def _exemplars(look: Look, name: str, asking: Sequence[Request]) -> Iterator[Advice]:
    """Worked cases that take more than what is asked about. Those that are cached count as what a read costs."""
    before = round(statistics.median(map(exemplar_tokens, asking)))
    count, data = getattr(look.settings(name), "exemplars", 0), round(statistics.median(map(data_tokens, asking)))
    price = price_of(asking[0].model)
    rate = price.cache_read if price is not None and max(map(cached_tokens, asking)) else 1.0
    if look.seen is None or not count or before * rate <= data:
        return
    what = f"{count} of them take about {before:,} tokens before each question, and what it asks about takes {data:,}"
    why = "they cost more than the data"
    if price is not None and price.input:
        pays = dollars(_thousand(price, before) * rate), dollars(_thousand(price, data))
        why = f"{CALLS:,} calls pay {pays[0]} for them and {pays[1]} for the data"
    fewer = int(count * data / (before * rate))
    write = (
        f"write exemplars: {fewer}, or shorter ones" if fewer else "take shorter ones, or none where the model does well without"
    )
    yield Advice(path=(name.replace("-", "_"), "exemplars"), what=what, why=why, write=write)
