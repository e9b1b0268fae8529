"""--dry-run: what a run would ask, and its price at most. Asks nothing and writes nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cai_cli.cli._answer import print_json
from cai_cli.config import Config
from cai_cli.engine import plan
from cai_cli.engine.feed import Feed
from cai_cli.engine.ledger import key_of
from cai_cli.engine.plan import Step
from cai_cli.engine.rows import Program
from cai_cli.errors import Exit, Fix
from cai_cli.flow import Reply, Request, play
from cai_cli.prices import price_of
from cai_cli.providers._world import world_of
from cai_cli.providers.simulated import reply_to
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

    def add(self, request: Request, tokens_in: int) -> None:
        self.calls += 1
        self.tokens_in += tokens_in
        self.tokens_out += request.model.max_tokens
        if (price := price_of(request.model)) is None:
            self.unpriced.add(request.model.name)
        else:
            self.dollars += price.dollars(tokens_in, request.model.max_tokens)

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
        found = _document(*_played(steps, plan.feed_of(config, steps, path, limit), plan.program_of(steps)))
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


def _played(steps: Sequence[Step], feed: Feed, program: Program) -> tuple[dict[str, Asked], int, int]:
    """What each stage asks for prompts spread evenly over the input. Gives: that, all prompts, and how many were played"""
    asked = {step.name: Asked() for step in steps}
    row_wise = [step for step in steps if step.name not in plan.table_names()]
    if not row_wise:
        return asked, feed.prompts, 0
    stride, seen, prompts = -(-feed.prompts // SAMPLE), set[bytes](), 0

    def answer(request: Request) -> Reply:
        reply = reply_to(request, world_of(request.model.params))
        if (key := key_of(request)) not in seen:  # the same question is bought once
            seen.add(key)
            asked[request.stage].add(request, reply.tokens_in)
        return reply

    for unit in feed.units():
        if prompts % stride == 0:
            play(program(unit.rows), answer)
        prompts += 1
    return asked, prompts, -(-prompts // stride)


def _document(asked: dict[str, Asked], prompts: int, played: int) -> dict[str, Any]:
    stages = {name: one.document(prompts / max(1, played)) for name, one in asked.items()}
    unpriced = sorted(set().union(*(one.unpriced for one in asked.values())))
    dollars = sum(one["dollars_at_most"] or 0.0 for one in stages.values())
    return {
        "dry_run": True, "prompts": prompts, "prompts_played": played, "stages": stages,
        "dollars_at_most": None if unpriced else round(dollars, 6), "unpriced": unpriced, "assumed": _assumed(prompts, played),
    }  # fmt: skip


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
