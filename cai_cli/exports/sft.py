"""Supervised fine-tuning: conversations that end with the response to learn, the revised one where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cai_cli.exports import Left
from cai_cli.records import Chain, Sample, Turn

VERSION = 1
READS = ("revise", "generate")
TRAINERS = ("SFTTrainer",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One conversation. There is no column `prompt`: beside `messages` it would make TRL read another format."""

    messages: tuple[Turn, ...]  # the system turn where there is one, the conversation, the response
    id: str
    prompt_id: str
    kind: str
    source: str  # revised | initial


SHAPE = Example


def convert(record: Sample) -> Iterator[Example | Left]:
    """One conversation of a sample.

    Takes: Sample or Chain   Gives: one Example
    Leaves out: refused, truncated (also where a revision was made of such a reply), empty
    Source: Bai et al. 2022, arXiv 2212.08073, section 3.1 (fine-tuning on the last revision)
    """
    if reason := _unfit(record):
        yield Left(reason)
        return
    # Only where there is a system prompt: an empty system turn keeps chat templates from putting in their own.
    system = (Turn(role="system", content=record.system),) if record.system else ()
    answer = Turn(role="assistant", content=record.response)
    yield Example(
        messages=(*system, *record.messages, answer), id=record.id, prompt_id=record.prompt_id, kind=record.kind,
        source="revised" if _is_revised(record) else "initial",
    )  # fmt: skip


def _unfit(record: Sample) -> str:
    if record.refused:
        return "refused"
    if record.truncated:
        return "truncated"
    return "" if record.response.strip() else "empty"


def _is_revised(record: Sample) -> bool:
    return isinstance(record, Chain) and record.response != record.initial_response
