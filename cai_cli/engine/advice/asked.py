"""What each stage asks about the first prompts of the input: the questions themselves, so that what they cost can be told."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from cai_cli.engine import plan
from cai_cli.engine.plan import Step
from cai_cli.flow import Model, Reply, Request, play
from cai_cli.prices import PER, price_of
from cai_cli.providers._fences import fenced
from cai_cli.providers._world import world_of
from cai_cli.providers.simulated import reply_to
from cai_cli.records import Pair, Prompt, Turn
from cai_cli.reports.quantities import counted, dollars

CALLS = 1000  # figures are told for so many calls, or prompts
STAND_IN = (Prompt(id="stand-in", messages=(Turn(role="user", content="What is a kite?"),)),)  # where no file is named yet


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What the stages asked about some prompts. `prompts`: how many, 0: nothing was played. `replies`: their tokens, one each"""

    prompts: int = 0
    requests: tuple[Request, ...] = ()
    replies: tuple[int, ...] = ()  # of the simulated model

    def of(self, stage: str) -> tuple[Request, ...]:
        """What one stage asked."""
        return tuple(request for request in self.requests if request.stage == stage)


def asked(steps: Sequence[Step], rows: Sequence[Any]) -> Asked:
    """Play rows of the input through a run's stages, with the simulated model's replies. Nothing is sent.

    Takes: prompts, or given pairs; none: nothing is known of them. Gives: nothing where the first stage reads other rows
    """
    joined = [step for step in steps if plan.reads_of(step.name)]
    wanted = "pairs" if rows and isinstance(rows[0], Pair) else "prompts"
    if not rows or not joined or joined[0].reads[0] != wanted:
        return Asked()
    found: list[tuple[Request, int]] = []

    def answer(request: Request) -> Reply:
        reply = reply_to(request, world_of(request.model.params))
        found.append((request, reply.tokens_out))
        return reply

    program = plan.program_of(joined)
    for row in rows:
        play(program([row]), answer)
    return Asked(
        prompts=len(rows), requests=tuple(request for request, _ in found), replies=tuple(reply for _, reply in found)
    )  # fmt: skip


def tokens(request: Request) -> int:
    """About how many tokens a question has: a quarter of its characters."""
    return math.ceil((len(request.system) + sum(len(turn.content) for turn in request.messages)) / 4)


def data_tokens(request: Request) -> int:
    """Those of them that are the row's own: what stands fenced in the last turn, or all of it where nothing does."""
    last = request.messages[-1].content
    parts = fenced(last)
    return math.ceil((sum(len(part.text) for part in parts) or len(last)) / 4)


def exemplar_tokens(request: Request) -> int:
    """Those of the worked cases before the question."""
    turns = request.messages[: request.constant[0]] or request.messages[:-1]
    return math.ceil(sum(len(turn.content) for turn in turns) / 4)


def input_dollars(asked_of: Iterable[tuple[Model, float]]) -> float | None:
    """What so many input tokens of each model cost; None: somebody's price is not known, or there is none."""
    cost = 0.0
    for model, number in asked_of:
        if (price := price_of(model)) is None:
            return None
        cost += number * price.input / PER
    return cost or None


def bill(number: float, cost: float | None) -> str:
    """So many tokens, and the dollars where they are known."""
    said = counted(_rounded(number), "token")
    return f"{said}, {dollars(cost)}" if cost else said


def _rounded(number: float) -> int:
    """To three digits: an estimate is not more exact."""
    digits = max(0, len(str(round(number))) - 3)
    return int(round(number, -digits))
