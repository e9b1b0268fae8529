"""Who answered, and what that costs by the price list: from the tokens in manifests, so that no kill or replay moves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cai_cli.engine.markdown import code, table
from cai_cli.flow import Model
from cai_cli.prices import dated, price_of
from cai_cli.reports.quantities import dollars

Facts = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Cost:
    """Dollars, from `least` to `most`; they differ where a price depends on how long each prompt is."""

    least: float
    most: float

    def __str__(self) -> str:
        least, most = dollars(self.least), dollars(self.most)
        return least if least == most else f"{least} to {most}"


def cost(used: Facts) -> Cost | None:
    """What replies of one model cost, without caches and batches. Takes: a row of `Used.rows`. None: nobody knows its price"""
    price = price_of(Model(provider=str(used["provider"]), name=str(used["name"])))
    if price is None:
        return None
    tokens = used["tokens"]
    least = price.dollars(0, int(tokens["out"])) + price.dollars(1, 0) * int(tokens["in"])
    bands = [band for band in price.above if int(tokens["longest_in"]) > band.prompt_tokens]
    most = [(int(tokens["in"]) * band.input + int(tokens["out"]) * band.output) / 1e6 for band in bands]
    return Cost(least, max([least, *most]))


def told(made: Sequence[Facts]) -> str:
    """A table of models by stage, and what they cost together; empty where no model was asked."""
    asking = [facts for facts in made if facts.get("replies")]
    if not asking:
        return ""
    rows, costs = [], []
    for facts in asking:
        for used in _models(facts):
            costs.append(cost(used) if used["name"] is not None else None)
            rows.append((code(str(facts["stage"])), *_row(used), str(costs[-1] or "not known")))
    head = ("stage", "provider", "model", "answered by", "replies", "tokens in", "tokens out", "list price")
    return f"{table(head, rows, head[4:])}\n\n{_together(costs)}"


def _models(facts: Facts) -> Sequence[Facts]:
    """The models of a version; one without a name where its manifest does not know all of them."""
    models: Sequence[Facts] = facts.get("models", ())
    if sum(int(one["replies"]) for one in models) == int(facts["replies"]):
        return models
    tokens = facts.get("tokens", {"in": 0, "out": 0})
    return [{"provider": "not recorded", "name": None, "answered": "", "replies": facts["replies"], "tokens": tokens}]


def _row(used: Facts) -> tuple[str | int, ...]:
    answered = "" if used["answered"] == used["name"] else code(str(used["answered"]))
    tokens = used["tokens"]
    return (code(str(used["provider"])), code(str(used["name"] or "")), answered, int(used["replies"]), int(tokens["in"]),
            int(tokens["out"]))  # fmt: skip


def _together(costs: Sequence[Cost | None]) -> str:
    known = [one for one in costs if one is not None]
    whole = Cost(sum(one.least for one in known), sum(one.most for one in known))
    how = f"at the list prices of {dated()}, without discounts for caches and batches, for the replies that are in these rows"
    if not known:
        return f"What this cost is not known: no price of these models was on the list of {dated()}."
    if len(known) < len(costs):
        return f"Together {whole} for the models whose price is known, {how}. What the others cost is not known."
    return f"Together {whole}, {how}. What was actually paid may differ: retries, replies nobody used, other terms."
