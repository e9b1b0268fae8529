"""The form of hh-rlhf: the chosen and the rejected response, each as a whole transcript of Human and Assistant turns.

For a reward model, and for what reads hh-rlhf. Not for DPO: where there is no column for the prompt, TRL takes for it what both
texts begin with, the first words of two responses that begin alike among them; `preference` has that column.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cai_cli.exports import Asked, Left, Use
from cai_cli.exports._labels import FLIPPED, answer, label_of
from cai_cli.records import Preference, Turn

VERSION = 1
READS = ("debias",)
OPTIONS = ("labels",)
USES = (Use(trainer="RewardTrainer"),)
COUNTS = (FLIPPED,)

_SPEAKERS = {"user": "Human", "assistant": "Assistant"}
_MARKER = re.compile(r"\n\n(?:Human|Assistant):")


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcripts:
    """One comparison. What both texts have in common, up to the last "Assistant:", is the prompt."""

    chosen: str
    rejected: str
    flipped: bool  # labels drawn: the less likely side came out
    id: str
    prompt_id: str
    kind: str


SHAPE = Transcripts


def convert(record: Preference, asked: Asked = Asked()) -> Iterator[Transcripts | Left]:
    """One comparison of a preference, as two transcripts. Blanks around turns are lost: the form has no place for them.

    Takes: Preference   Gives: one Transcripts
    Leaves out: marker_in_text (a turn's text holds what begins a turn, so no reader could tell them apart),
    begins_with_assistant, tie, empty, identical, unlabelled
    Source: Bai et al. 2022, arXiv 2204.05862 (the published hh-rlhf files)
    """
    label = label_of(record, asked, ties=False)
    if not isinstance(label, Left):
        label = _unfit(record) or label
    if isinstance(label, Left):
        yield label
        return
    yield Transcripts(
        chosen=_transcript((*record.messages, *answer(label.chosen))),
        rejected=_transcript((*record.messages, *answer(label.rejected))),
        flipped=label.flipped, id=record.id, prompt_id=record.prompt_id, kind=record.kind,
    )  # fmt: skip


def _unfit(record: Preference) -> Left | None:
    if record.messages[0].role != "user":
        return Left("begins_with_assistant")
    texts = (*(turn.content for turn in record.messages), record.chosen, record.rejected)
    return Left("marker_in_text") if any(_MARKER.search(text.strip()) for text in texts) else None


def _transcript(turns: Sequence[Turn]) -> str:
    return "".join(f"\n\n{_SPEAKERS[turn.role]}: {turn.content.strip()}" for turn in turns)
