"""The columns and splits of Hugging Face's open recipe of Constitutional AI: the revision is chosen, the first response rejected.

No judge is asked. Half of the prompts, by hash of their id, are in train_sft and test_sft, the others in train_prefs and
test_prefs, as in the datasets that came with the recipe.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from cai_cli.exports import Asked, Left, Use
from cai_cli.exports._labels import answer
from cai_cli.exports._rounds import Step, answered, principles, steps
from cai_cli.records import Chain, Turn

VERSION = 1
READS = ("revise",)
CONSTITUTION = True
HALVES = ("sft", "prefs")
USES = (
    # of prompt and completion it learns the completion alone, of messages every turn
    Use(trainer="SFTTrainer", split="train_sft", columns=("prompt", "chosen"), renamed=(("chosen", "completion"),)),
    Use(trainer="DPOTrainer", split="train_prefs"),
    Use(trainer="RewardTrainer", split="train_prefs"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revised:
    """One revised response.

    In the published sets `prompt` is a string and `chosen` and `rejected` repeat it as their first turns: a mixture that TRL must
    take apart by comparing the two. Here `prompt` is turns, and each of the others is one assistant turn.
    """

    init_prompt: str  # the last user turn
    init_response: str  # the first response
    critic_prompt: str  # the critique prompts of the round's principles; empty: revised without a critique
    critic_response: str
    revision_prompt: str
    revision_response: str
    prompt: tuple[Turn, ...]  # the system turn where there is one, the conversation up to that user turn
    messages: tuple[Turn, ...]  # the same, and the revision
    chosen: tuple[Turn, ...]  # the revision
    rejected: tuple[Turn, ...]  # the first response
    round: int  # the round that critic and revision are of: the last one whose revision was accepted
    id: str
    prompt_id: str
    kind: str


SHAPE = Revised


def convert(record: Chain, asked: Asked) -> Iterator[Revised | Left]:
    """One row of a sample that was revised. The recipe has one round; of several, critic and revision are the last one's.

    Takes: Chain   Gives: one Revised
    Leaves out: not_revised, identical (the revisions came back to the first response), truncated, empty (the first response),
    unknown_principle
    Source: the recipe `constitutional-ai` of huggingface/alignment-handbook, and the datasets that it names
    """
    step = next((step for step in reversed(list(steps(record))) if step.revises), None)
    if step is None:
        yield Left("not_revised")
    elif reason := _unfit(record, step):
        yield Left(reason)
    else:
        yield _row(record, step, asked)


def _unfit(chain: Chain, step: Step) -> str:
    if not chain.initial_response.strip():
        return "empty"
    if chain.initial_truncated or chain.truncated:
        return "truncated"
    return "identical" if step.round.revision.strip() == chain.initial_response.strip() else ""


def _row(chain: Chain, step: Step, asked: Asked) -> Revised | Left:
    critiques = answered(step.round, asked.constitution)
    found = principles(critiques, asked.constitution)
    if isinstance(found, Left):
        return found
    said = [critique.critique for critique in critiques if critique.critique.strip()]
    prompt = (*((Turn(role="system", content=chain.system),) if chain.system else ()), *chain.messages)
    chosen = answer(step.round.revision)
    return Revised(
        init_prompt=chain.prompt, init_response=chain.initial_response, critic_response="\n\n".join(said),
        critic_prompt=_joined(one.critique_prompt for one in found) if said else "", round=step.round.round,
        revision_prompt=_joined(one.revision_prompt for one in found), revision_response=step.round.revision,
        prompt=prompt, messages=(*prompt, *chosen), chosen=chosen, rejected=answer(chain.initial_response), id=chain.id,
        prompt_id=chain.prompt_id, kind=chain.kind,
    )  # fmt: skip


def _joined(texts: Iterable[str]) -> str:
    return "\n\n".join(dict.fromkeys(texts))
