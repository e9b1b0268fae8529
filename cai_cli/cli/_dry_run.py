"""--dry-run: what a run would ask, and its price at most. Asks nothing and writes nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cai_cli.cli._answer import print_json
from cai_cli.config import Config
from cai_cli.engine import pilot, plan, probing
from cai_cli.engine.feed import Feed
from cai_cli.engine.ledger import key_of
from cai_cli.engine.plan import Step
from cai_cli.engine.program import MadeBy
from cai_cli.engine.rows import Program
from cai_cli.errors import Exit, Fix
from cai_cli.flow import Flow, Reply, Request, play
from cai_cli.prices import as_of, price_of
from cai_cli.providers._world import world_of
from cai_cli.providers.simulated import reply_to
from cai_cli.records import Pair
from cai_cli.reports.quantities import counted

SAMPLE = 200  # prompts that are played through


@dataclass(slots=True)
class Asked:
    """What one stage asks."""

    calls: float = 0
    tokens_in: float = 0
    tokens_out: float = 0  # at most: max_tokens of every call
    dollars: float = 0
    unpriced: set[str] = field(default_factory=set)  # models

    def add(self, request: Request, tokens_in: int, times: float = 1) -> None:
        self.calls += times
        self.tokens_in += times * tokens_in
        self.tokens_out += times * request.model.max_tokens
        if (price := price_of(request.model)) is None:
            self.unpriced.add(request.model.name)
        else:
            self.dollars += times * price.dollars(tokens_in, request.model.max_tokens)

    def document(self, scale: float) -> dict[str, Any]:
        return {
            "calls": round(self.calls * scale), "tokens_in": round(self.tokens_in * scale),
            "tokens_out_at_most": round(self.tokens_out * scale),
            "dollars_at_most": None if self.unpriced else round(self.dollars * scale, 6),
        }  # fmt: skip


def dry_run(config: Config, names: Sequence[str], given: str | None, limit: int | None, as_json: bool) -> int:
    """Play up to 200 prompts through the stages, with the simulated model's replies, and scale what they ask to all of them.

    Of `expand` the asks that would do are played, and scaled to as many as it may ask: how many it needs, only replies can tell.
    Raises: Fix: input from stdin, or none that can be used
    """
    if given == "-" or (given is None and config.prompts is not None and config.prompts.path == "-"):
        raise Fix("a dry run reads its input ahead, and stdin can be read only once", "write it to a file, and name that with -i")
    steps, path = plan.steps_of(config, names), Path(given) if given else None
    if names == ["expand"]:
        found = _expansion(config, steps, path, limit)
    else:
        feed = plan.feed_of(config, steps, path, limit)
        ready = pilot.ready(config, steps, feed)
        found = _document(*_played(ready, feed, plan.program_of(ready)))
        if said := pilot.assumed(ready):
            found["assumed"]["labels"] = said
    if prices := as_of(model for step in steps for model in step.models):
        found["assumed"]["dollars"] = f"at {prices}"
    if as_json:
        print_json(found)
    else:
        _print(found, config.limits.budget_usd)
    return Exit.OK


def _expansion(config: Config, steps: Sequence[Step], path: Path | None, limit: int | None) -> dict[str, Any]:
    from cai_cli.engine import expand
    from cai_cli.stages.expand import most_asks

    sources = expand.sources(config, steps[0], path, limit)
    expansion = sources.expansion()
    most = most_asks(expansion.strata, expansion.settings)
    enough = sum(math.ceil(one.wanted / expansion.settings.per_ask) for one in expansion.strata)
    program, feed = expand.first_wave(sources)
    asked, _, played = _played(steps, feed, program)
    found = _document(asked, most, played)
    found["assumed"]["calls"] = f"all {most:,} that max_asks allows; {enough:,} would do if every prompt were kept"
    return found


class _Player:
    """Plays flows with the simulated model's replies, and counts what they ask by stage."""

    def __init__(self, stages: Iterable[str]) -> None:
        self.asked = {stage: Asked() for stage in stages}
        self._seen: set[bytes] = set()

    def play(self, flow: Flow[MadeBy], times: float = 1) -> MadeBy:
        """Play a flow that stands for so many of its kind."""
        return play(flow, lambda request: self._answer(request, times))

    def _answer(self, request: Request, times: float) -> Reply:
        reply = reply_to(request, world_of(request.model.params))
        if (key := key_of(request)) not in self._seen:  # the same question is bought once
            self._seen.add(key)
            self.asked[request.stage].add(request, reply.tokens_in, times)
        return reply

    def probe(self, step: Step, pairs: Iterable[Pair], share: float) -> None:
        """Play what a step that probes asks about pairs, which are this share of all that there will be."""
        program = probing.program(step)
        for dimension, questions in probing.choose(pairs, step.stage, step.seed).questions.items():
            there = min(step.stage.counts[dimension], round(len(questions) / share))
            for question in questions:
                self.play(program((question,)), share * there / len(questions))


def _played(steps: Sequence[Step], feed: Feed, program: Program) -> tuple[dict[str, Asked], int, int]:
    """What each stage asks for prompts spread evenly over the input. Gives: that, all prompts, and how many were played"""
    player = _Player(step.name for step in steps)
    asks = next((step for step in steps if step.name in plan.table_names() and step.stage is not None), None)
    if all(step.name in plan.table_names() for step in steps):
        if asks is not None:
            player.probe(asks, (pair for unit in feed.units() for pair in unit.rows), 1.0)
        return player.asked, feed.prompts, feed.prompts if asks is not None else 0
    stride, prompts, pairs = -(-feed.prompts // SAMPLE), 0, list[Pair]()
    for unit in feed.units():
        if prompts % stride == 0:
            made = player.play(program(unit.rows))
            pairs += made[asks.source].rows if asks is not None else ()
        prompts += 1
    played = -(-prompts // stride)
    if asks is not None:
        player.probe(asks, pairs, played / prompts)
    return player.asked, prompts, played


def _document(asked: dict[str, Asked], prompts: int, played: int) -> dict[str, Any]:
    stages = {name: one.document(prompts / max(1, played)) for name, one in asked.items()}
    unpriced = sorted(set().union(*(one.unpriced for one in asked.values())))
    dollars = sum(one["dollars_at_most"] or 0.0 for one in stages.values())
    probes = {"probes": _PROBES} if any(stages[name]["calls"] for name in plan.table_names() if name in stages) else {}
    return {
        "dry_run": True, "prompts": prompts, "prompts_played": played, "stages": stages,
        "dollars_at_most": None if unpriced else round(dollars, 6), "unpriced": unpriced,
        "assumed": _assumed(prompts, played) | probes,
    }  # fmt: skip


_PROBES = "as many as debias.probes says, or as pairs can be varied that way; in a run, pairs of the simulated model stand in"


def _assumed(prompts: int, played: int) -> dict[str, str]:
    spread = f"on {played:,} of {prompts:,} prompts, spread evenly, and scaled"
    where = spread if played < prompts else f"on {counted(prompts, 'prompt')}, which are all"
    return {
        "calls": f"counted {where}; the simulated model answers, so rounds end when it finds nothing more to mend",
        "input": "4 characters a token; where a stage reads replies, they are as long as the simulated model's",
        "output": "every reply as long as its max_tokens allows",
        "left out": "replies that the ledger holds already, caching, retries, what is asked again because it cannot be read",
    }


def _print(found: dict[str, Any], budget_usd: float | None) -> None:
    from rich.text import Text

    from cai_cli.reports.console import console
    from cai_cli.reports.price_table import price_table
    from cai_cli.reports.run_summary import named
    from cai_cli.visible import on_one_line

    out = console()
    out.print(price_table(found))
    out.print()
    for model in found["unpriced"]:
        said = (
            f"? no price is known for '{model}': give it as model.price: {{input: ..., output: ...}}, dollars per million tokens"
        )
        out.print(Text(on_one_line(said)))
    most = found["dollars_at_most"]
    if budget_usd is not None and most is not None and most > budget_usd:
        out.print(Text(f"That is more than the budget of ${budget_usd:,.2f}: the run would stop there, and could be continued."))
    if not found["prompts_played"]:
        out.print("These stages ask nothing.")
        return
    out.print("Nothing was asked. What these numbers rest on:")
    out.print(named(found["assumed"].items()))
