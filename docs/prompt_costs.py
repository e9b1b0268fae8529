"""What the shipped templates cost in tokens, as the table of docs/prompts.md: python docs/prompt_costs.py

Each question is the one that its stage puts, with a single character in the place of every piece of data: what is counted is what
is paid with every row, before anything of the row; `constant` is what of it stands first and recurs. Tokens are estimated as
everywhere here: 4 characters each.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from cai_cli.caching import constant_tokens
from cai_cli.constitution import Constitution, Criterion, Principle
from cai_cli.flow import Request
from cai_cli.parts import Parts
from cai_cli.providers.simulated import tokens_in
from cai_cli.records import Chain, Critique, Pair, Round, Sample, Turn
from cai_cli.scoring import Scale
from cai_cli.settings import ModelSection
from cai_cli.shipped import shipped
from cai_cli.stages import modules
from cai_cli.stages.expand import Ask, Seed

EXEMPLARS = (1, 2, 4)
TURNS = (Turn(role="user", content="."),)
SAMPLE = Sample(id="p-0", prompt_id="p", messages=TURNS, prompt=".", response=".")
OPENED = Chain.begin(SAMPLE).with_open(Round(round=1, critiques=(Critique(principle=".", category="", critique="."),)))
PAIR = Pair(id="p-0-1", prompt_id="p", messages=TURNS, prompt=".", response_a=".", response_b=".")
HELD = Constitution(
    name=".", version="",
    principles=(Principle(name=".", category="", description=".", critique_prompt=".", revision_prompt="."),),
    preferences=(Criterion(name=".", category="", text="."),),
)  # fmt: skip


def held(_: bool) -> Constitution:
    return HELD


def request(stage: str, row: Any, off: str = "", **settings: Any) -> Request:
    """The first thing that a stage with these settings asks about a row."""
    module = modules()[stage]
    parts = Parts(
        settings=module.Settings(**settings), seed=7, draw_offset=0, default=ModelSection(provider="simulated"), folder=Path(),
        find_constitution=held, off=frozenset([off]),
    )  # fmt: skip
    asked: Request = next(module.build(parts)(row))[0]
    return asked


def questions() -> Iterator[tuple[str, str, Any, dict[str, Any]]]:
    """What is counted: its name in the table, the stage, a row, settings."""
    for path in sorted(shipped("prompts").glob("critique-*.md")):
        yield path.stem, "critique", SAMPLE, {"template": path.stem.partition("-")[2]}
    yield "critiques-general", "critique", SAMPLE, {"together": True}
    yield "revise-general", "revise", OPENED, {}
    yield "revise-direct", "revise", SAMPLE, {"off": "critique"}
    yield "label-general", "label_pairs", PAIR, {}
    yield "label-general, `reasoning: false`", "label_pairs", PAIR, {"reasoning": False}
    yield "label-general, `confidence: words`", "label_pairs", PAIR, {"confidence": "words"}
    yield "score-general", "score", SAMPLE, {"criteria": [Scale(name=".", description=".")]}
    yield "scores-general", "score", SAMPLE, {"criteria": [Scale(name=".", description=".")], "together": True}
    yield "expand-general", "expand", Ask(kind="", topic="", k=0, seeds=(Seed(id=".", text="."),)), {}


def line(name: str, stage: str, row: Any, settings: dict[str, Any]) -> str:
    asked = request(stage, row, **settings)
    question = tokens_in(replace(asked, schema=None))
    schema = tokens_in(replace(asked, messages=(), system="")) if asked.schema else 0
    takes_exemplars = "exemplars" in modules()[stage].Settings.model_fields and "together" not in settings
    more = [tokens_in(request(stage, row, **settings, exemplars=n)) - tokens_in(asked) for n in EXEMPLARS if takes_exemplars]
    cells = [name, f"{question:,}", f"{constant_tokens(asked):,}", f"{schema:,}" if schema else ""]
    cells += [f"+{number:,}" for number in more] or [""] * len(EXEMPLARS)
    return f"| {' | '.join(cells)} |"


def table() -> str:
    head = ["template", "question", "constant", "schema", *(f"{n} exemplar{'s' * (n > 1)}" for n in EXEMPLARS)]
    rule = "|---|" + "---:|" * (len(head) - 1)
    return "\n".join([f"| {' | '.join(head)} |", rule, *(line(*one) for one in questions())])


if __name__ == "__main__":
    print(table())  # noqa: T201 - what it is for
