"""All advice on a config, each with its place."""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cai_cli import documents
from cai_cli.config import Config
from cai_cli.engine import plan
from cai_cli.engine.advice import bills, buried, inputs, json_leaks, models, prefixes, sections, separate
from cai_cli.engine.advice.asked import STAND_IN, asked
from cai_cli.engine.advice.look import Advice, Look
from cai_cli.engine.plan import Step
from cai_cli.validation import KeyPath

PARTS = (sections, models, inputs, json_leaks, buried, prefixes, separate, bills)


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """Advice and where its key stands: file:line, or the flag that set it."""

    place: str
    advice: Advice

    def line(self) -> str:
        """As one line: where, what, why, what to write."""
        return f"{self.place}: {self.advice.line()}"


def on(config: Config, steps: Sequence[Step], overrides: Sequence[str], today: datetime.date) -> Iterator[Placed]:
    """Everything that there is to say, line by line; 20,000 prompts are read at most. `overrides`: of --set   Raises: Fix"""
    wanted = {step.reads[0] for step in steps} & {*plan.INPUTS}
    seen = inputs.read(config, wanted == {"pairs"}) if len(wanted) == 1 else None
    questions = asked(steps, seen.first if seen else STAND_IN)
    look = Look(config=config, steps={step.name: step for step in steps}, seen=seen, asked=questions, today=today)
    document = documents.load(config.path, os.environ)
    given = [tuple(one.partition("=")[0].strip().split(".")) for one in overrides]
    found = dict.fromkeys(advice for part in PARTS for advice in part.advice(look))
    for advice in sorted(found, key=lambda one: document.line(one.path)):
        yield Placed(place=_place(document, advice.path, given), advice=advice)


def _place(document: documents.Document, path: KeyPath, given: Sequence[tuple[str, ...]]) -> str:
    flag = next((one for one in given if one and path[: len(one)] == one), None)
    return f"--set {'.'.join(flag)}" if flag else document.where(path)
