"""Conversations to train a critic and a reviser: what they are asked, and the critique or the revision as the one reply.

The questions are those of the templates critique-paper and revise-general, as `cai critique` and `cai revise` put them: a model
trained on these rows answers under `critique: {template: paper}`. No question says whether a text is a revision.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from cai_cli import prompts
from cai_cli.constitution import Principle
from cai_cli.exports import Asked, Left, Use
from cai_cli.exports._labels import answer
from cai_cli.exports._rounds import Step, answered, principles, steps
from cai_cli.records import Chain, Critique, Turn

VERSION = 2
READS = ("revise", "critique")
OPTIONS = ("shape",)
CONSTITUTION = True
TEMPLATES = (("paper", "critique"), ("general", "revise"))
USES = (Use(trainer="SFTTrainer"),)
COUNTS = (("critiques", "task", "critique"), ("revisions", "task", "revision"))

Task = Literal["critique", "revision"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """One question and its answer. The response under review stands in the question: it is nothing to learn."""

    prompt: tuple[Turn, ...]  # one user turn, which asks
    completion: tuple[Turn, ...]  # one assistant turn: the critique or the revision
    task: str  # critique | revision
    principles: tuple[str, ...]  # by name
    severity: float | None  # that the critique gave, in [0, 1]; of a revision: the round's; null: nobody gave one
    round: int  # from 1
    id: str
    prompt_id: str
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """The same in one list."""

    messages: tuple[Turn, ...]  # a user turn that asks, an assistant turn that is the critique or the revision
    task: str  # critique | revision
    principles: tuple[str, ...]  # by name
    severity: float | None  # that the critique gave, in [0, 1]; of a revision: the round's; null: nobody gave one
    round: int  # from 1
    id: str
    prompt_id: str
    kind: str


SHAPE = Lesson
SHAPES = {"prompt": Lesson, "messages": Exchange}


def convert(record: Chain, asked: Asked) -> Iterator[Lesson | Exchange | Left]:
    """A lesson for every critique, and one for every revision that was taken.

    Takes: Chain   Gives: Lessons or Exchanges
    Leaves out: no_rounds (nothing was criticised), no_critique (revised without one), not_accepted, unchanged (revisions),
    unknown_principle
    """
    if not record.rounds:
        yield Left("no_rounds")
    for one in _lessons(record, asked):
        yield one if isinstance(one, Left) or asked.shape == "prompt" else _in_one_list(one)


def _lessons(record: Chain, asked: Asked) -> Iterator[Lesson | Left]:
    for step in steps(record):
        for number, critique in enumerate(step.round.critiques):
            yield _critique(record, step, critique, number, asked)
        if step.round.revision:
            yield _revision(record, step, asked)


def _in_one_list(one: Lesson) -> Exchange:
    return Exchange(
        messages=(*one.prompt, *one.completion), task=one.task, principles=one.principles, severity=one.severity,
        round=one.round, id=one.id, prompt_id=one.prompt_id, kind=one.kind,
    )  # fmt: skip


def _critique(chain: Chain, step: Step, critique: Critique, number: int, asked: Asked) -> Lesson | Left:
    if not critique.critique.strip():
        return Left("no_critique")
    found = principles([critique], asked.constitution)
    if isinstance(found, Left):
        return found
    nonce = _nonce(chain, step, "critique", asked)
    question = asked.templates["critique"].fill(
        **_shown(chain, step, nonce), principle=found[0].name, category=found[0].category, description=found[0].description,
        critique_prompt=found[0].critique_prompt, examples=found[0].examples,
    )  # fmt: skip
    return _lesson(chain, step, "critique", found, question, critique.critique, critique.severity, f"{number + 1}")


def _revision(chain: Chain, step: Step, asked: Asked) -> Lesson | Left:
    if not step.revises:
        return Left("unchanged" if step.round.accepted else "not_accepted")
    critiques = [critique for critique in answered(step.round, asked.constitution) if critique.critique.strip()]
    found = principles(critiques, asked.constitution)
    if isinstance(found, Left):
        return found
    if not found:
        return Left("no_critique")
    nonce = _nonce(chain, step, "revise", asked)
    question = asked.templates["revise"].fill(
        **_shown(chain, step, nonce), revision_prompts=list(dict.fromkeys(one.revision_prompt for one in found)),
        critiques="\n\n".join(prompts.fenced("critique", nonce, one.critique) for one in critiques),
    )  # fmt: skip
    return _lesson(chain, step, "revision", found, question, step.round.revision, step.round.severity)


def _nonce(chain: Chain, step: Step, stage: str, asked: Asked) -> str:
    """Digits that no text holds, so that no text can close the fence around it."""
    texts = (prompts.transcript(chain.messages), step.before, *(one.critique for one in step.round.critiques))
    return prompts.nonce(texts, asked.seed, chain.id, stage, step.round.round)


def _shown(chain: Chain, step: Step, nonce: str) -> dict[str, object]:
    return {
        "conversation": prompts.conversation(chain.messages, nonce), "nonce": nonce,
        "response": prompts.fenced("response", nonce, step.before), "max_suggestions": 0,
    }  # fmt: skip


def _lesson(
    chain: Chain, step: Step, task: Task, held: Sequence[Principle], question: str, reply: str, severity: float | None,
    *ordinal: str,
) -> Lesson:  # fmt: skip
    return Lesson(
        prompt=(Turn(role="user", content=question),), completion=answer(reply), task=task,
        principles=tuple(dict.fromkeys(one.name for one in held)), severity=severity, round=step.round.round,
        id="-".join([f"{chain.id}:{step.round.round}-{task}", *ordinal]), prompt_id=chain.prompt_id, kind=chain.kind,
    )  # fmt: skip
