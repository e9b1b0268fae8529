"""What a run will come to, before it is paid for: money by stage, tokens by what they are, time, labels."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cai_cli.reports import quantities as say
from cai_cli.reports.tabular import tabular

if TYPE_CHECKING:
    from rich.table import Table
    from rich.text import Text

Number = Mapping[str, float]  # value, low, high
_PARTS = ("system", "constitution", "exemplars", "template", "data", "reply")
_ENDS = (("from", "low"), ("to", "high"))
_LIMITS = {
    "requests_per_minute": "requests per minute", "input_tokens_per_minute": "input tokens per minute",
    "output_tokens_per_minute": "output tokens per minute", "concurrency": "requests at once",
    "process": "what one process can do",
}  # fmt: skip


def money_table(found: Mapping[str, Any]) -> Table:
    """A row a stage that asks, and their sum. `found`: as `cai estimate --json` gives it"""
    head = ["stage", "dollars", "90% interval", "batch"]
    cached = any(_differ(one, "dollars", "dollars_without_caching") for one in (*found["stages"].values(), found["all"]))
    bought = bool(found["all"]["dollars_bought"] and found["all"]["dollars_bought"]["value"])
    head += ["uncached"] * cached + ["bought"] * (bought and not cached) + ["to come"] * bought  # all of them pass 80 columns
    rows = [_money(name, one, cached, bought, "") for name, one in asking(found)]
    return tabular(head, [*rows, _money("all", found["all"], cached, bought, "bold")], right=head[1:])


def asking(found: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The stages that ask anything."""
    yield from ((name, one) for name, one in found["stages"].items() if one["calls"]["high"] > 0)


def _money(name: str, one: Mapping[str, Any], cached: bool, bought: bool, style: str) -> list[Text]:
    from rich.text import Text

    cells = [name, _dollars(one["dollars"]), between(one["dollars"]), _dollars(one["dollars_batch"])]
    cells += [_dollars(one["dollars_without_caching"])] * cached
    cells += [_dollars(one["dollars_bought"])] * (bought and not cached) + [_dollars(one["dollars_to_come"])] * bought
    return [Text(cell, style) for cell in cells]


def _differ(one: Mapping[str, Any], this: str, that: str) -> bool:
    return one[this] is not None and abs(one[this]["value"] - one[that]["value"]) > 0.002 * one[this]["value"]


def _dollars(number: Number | None) -> str:
    return "?" if number is None else say.dollars(number["value"])


def between(number: Number | None) -> str:
    """$1.20 to $1.40; empty where nothing is known."""
    return "" if number is None else f"{say.dollars(number['low'])} to {say.dollars(number['high'])}"


def tokens_table(found: Mapping[str, Any]) -> Table:
    """A row a stage that asks: calls, and tokens by what they are; below, their sums and the ends of the intervals."""
    from rich.text import Text

    head = ("tokens", "calls", *_PARTS)
    rows = [[Text(cell) for cell in (name, *_tokens(one, "value"))] for name, one in asking(found)]
    last = [[Text(cell, "bold") for cell in ("all", *_tokens(found["all"], "value"))]]
    ends = [[Text(cell, "dim") for cell in (f"  {name}", *_tokens(found["all"], end))] for name, end in _ENDS]
    return tabular(head, [*rows, *last, *ends], right=head[1:])


def _tokens(one: Mapping[str, Any], end: str) -> list[str]:
    return [say.count(round(one["calls"][end])), *(say.tokens(round(one["tokens"][part][end])) for part in _PARTS)]


def labels_table(labels: Mapping[str, Any]) -> Table:
    """Ways to come by labels: by a model, with people who check some, by people."""
    head = ("labels by", "a label", "all of them", "90% interval", "hours")
    rows = [
        [one["by"], _dollars(one["dollars_per_label"]), _dollars(one["dollars"]), between(one["dollars"]), _hours(one["hours"])]
        for one in labels["ways"]
    ]
    return tabular(head, rows, right=head[1:])


def _hours(number: Number) -> str:
    """Of work, so without days."""
    value = number["value"]
    return "<0.1" if value < 0.1 else f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def facts(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Time, cap and unknown prices, a line each."""
    hours, budget = found["hours"], found["budget"]
    if hours["bound_by"]:
        usual, low, high = (_at_least(3600 * hours[end]) for end in ("value", "low", "high"))
        ends = "" if usual == low == high else f" ({low} to {high})"
        yield "hours", f"{usual} at the least{ends}, bound by {_LIMITS[hours['bound_by']]} at {hours['server']}"
    for model in found["unpriced"]:
        said = f"unknown for '{model}'; give it as model.price: {{input: ..., output: ...}}, dollars per million tokens"
        yield "price", said
    if budget is not None and budget["covers"] is None:
        yield "budget", f"{say.dollars(budget['usd'])} cannot be kept without all prices: the run would be refused"
    elif budget is not None:
        yield "budget", _budget(budget)


def _at_least(seconds: float) -> str:
    return say.duration(seconds) if seconds >= 1 else "less than 1s"


def _budget(budget: Mapping[str, Any]) -> str:
    covers, gone = budget["covers"], f", of which {say.dollars(budget['gone_usd'])} is gone," if budget["gone_usd"] else ""
    cap = f"{say.dollars(budget['usd'])}{gone}"
    if covers["low"] >= 1:
        return f"{cap} covers all of it"
    ends = f"{covers['low']:.0%} to {covers['high']:.0%}"
    if covers["value"] >= 1:
        return f"{cap} may not cover all of it: {ends}"
    return f"{cap} covers about {covers['value']:.0%} of it ({ends}): the run would stop there, and could be continued"


def captions(found: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """What the numbers rest on."""
    return list(found["assumed"].items())
