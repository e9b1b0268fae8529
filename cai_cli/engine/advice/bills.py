"""Advice on the bill as a whole: a cap that is far too low for what the config asks, a price list that is old."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import replace

from cai_cli.caching import cached_tokens
from cai_cli.engine.advice.asked import Asked, tokens
from cai_cli.engine.advice.look import Advice, Look, is_paid
from cai_cli.flow import Request
from cai_cli.prices import Price, price_of
from cai_cli.reports.quantities import counted, dollars
from cai_cli.validation import KeyPath

FAR = 2.0  # times the cap: a first estimate may be off by that
OLD_DAYS = 365
_LIST: KeyPath = ("prices",)


def advice(look: Look) -> Iterator[Advice]:
    yield from _cap(look)
    yield from _age(look)


def _cap(look: Look) -> Iterator[Advice]:
    """Of a cap that covers less than half. Whether there is one at all is said beside the models."""
    cap, whole = look.config.limits.budget_usd, _expected(look.asked)
    if cap is None or whole is None or look.seen is None or not look.seen.rows:
        return
    rows = look.seen.rows
    if cap < whole * rows / FAR:
        of = f"{'over ' * (not look.seen.whole)}{rows:,}"
        what = f"{dollars(cap)} is enough for about {counted(int(cap / whole), 'prompt')} of {of}"
        why = f"by a first estimate they cost {dollars(whole * rows)}, with replies as long as the simulated model's"
        write = "cai estimate tells it closer; raise it, or write prompts: {limit: ...}"
        yield Advice(path=("limits", "budget_usd"), what=what, why=why, write=write)


def _expected(asked: Asked) -> float | None:
    """Dollars a prompt; None: nothing was played, or nobody knows a price."""
    costs = [_cost(request, reply) for request, reply in zip(asked.requests, asked.replies, strict=True)]
    known = [cost for cost in costs if cost is not None]
    return sum(known) / asked.prompts if known and len(known) == len(costs) else None


def _cost(request: Request, reply: int) -> float | None:
    price, kept = price_of(request.model), cached_tokens(request)
    return None if price is None else price.dollars(max(0, tokens(request) - kept), reply, cache_read=kept)


def _age(look: Look) -> Iterator[Advice]:
    """Of the lists that prices are taken from: the shipped one, and the config's own."""
    listed = [(price, model) for model in look.models if is_paid(model) and (price := price_of(model)) and price.dated]
    oldest = min((price.dated for price, _ in listed), default="")
    if oldest and (look.today - datetime.date.fromisoformat(oldest)).days > OLD_DAYS:
        what, why = f"prices are of {oldest}", "budgets and estimates go by them, and prices change"
        yield Advice(path=_LIST, what=what, why=why, write="upgrade cai, or name a list of your own: prices: FILE.yaml")
        return
    for price, model in listed:
        shipped = price_of(replace(model, price=None))
        if shipped and price.dated < shipped.dated and (price.input, price.output) != (shipped.input, shipped.output):
            what = f"of {price.dated}, it has {_rates(price)} for {model.name}"
            why = f"the shipped list, of {shipped.dated}, has {_rates(shipped)}"
            yield Advice(path=_LIST, what=what, why=why, write="bring it up to date, or take the model out of it")


def _rates(price: Price) -> str:
    return f"{dollars(price.input)} and {dollars(price.output)} a million tokens"
