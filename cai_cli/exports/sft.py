"""Supervised fine-tuning: conversations with the response to learn, the revised one where there is one.

By default as prompt and completion: TRL then learns the completion alone, where it would learn every turn of `messages`, those
of a user who means harm among them, unless told otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cai_cli.exports import Asked, Left, Shape, Use
from cai_cli.records import Chain, Sample, Turn

VERSION = 3
READS = ("revise", "generate")
OPTIONS = ("rounds", "shape", "mix")
USES = (Use(trainer="SFTTrainer"),)
COUNTS = (("revised", "source", "revised"), ("initial", "source", "initial"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One response, and what it answers."""

    prompt: tuple[Turn, ...]  # the system turn where there is one, the conversation up to the turn that is answered
    completion: tuple[Turn, ...]  # one assistant turn: the response
    id: str
    prompt_id: str
    kind: str
    source: str  # revised | initial | the name of the file that was mixed in
    round: int  # the round whose revision the response is; 0: of none


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """The same in one list. There is no column `prompt`: beside `messages` it would make TRL read another format."""

    messages: tuple[Turn, ...]  # the system turn where there is one, the conversation, the response
    id: str
    prompt_id: str
    kind: str
    source: str  # revised | initial | the name of the file that was mixed in
    round: int  # the round whose revision the response is; 0: of none


SHAPE = Example
SHAPES = {"prompt": Example, "messages": Conversation}


def convert(record: Sample, asked: Asked = Asked()) -> Iterator[Example | Conversation | Left]:
    """The conversations of a sample.

    last: one, with the last accepted revision, or with the first response where none was. all: one for every accepted revision
    that is not the text before it; initial: one, with the first response.
    Takes: Sample or Chain   Gives: one Example or Conversation, or one a revision
    Leaves out: refused, truncated, empty; a revision of such a response is one to learn like any other
    Source: Bai et al. 2022, arXiv 2212.08073, section 3.1 (fine-tuning on the revisions of all steps)
    """
    texts = _texts(record) if isinstance(record, Chain) else [(0, record.response)]
    if asked.rounds == "initial":
        texts = texts[:1]
    elif asked.rounds == "last":
        texts = texts[-1:]
    elif len(texts) > 1:  # the first response is what the revisions are to replace
        texts = texts[1:]
    for number, text in texts:
        reason = _unfit(record, number, text)
        yield Left(reason) if reason else shaped(_conversation(record, number, text, asked.rounds == "all"), asked.shape)


def _texts(chain: Chain) -> list[tuple[int, str]]:
    """The first response and every accepted revision that changed it, each with its round."""
    found = [(0, chain.initial_response)]
    for one in chain.rounds:
        if one.accepted and one.revision.strip() != found[-1][1].strip():
            found.append((one.round, one.revision))
    # Rows from elsewhere may hold a response that is none of their rounds'.
    return found if found[-1][1].strip() == chain.response.strip() else [*found, (found[-1][0] + 1, chain.response)]


def shaped(row: Conversation, shape: Shape) -> Example | Conversation:
    """A conversation in the shape that was asked for."""
    if shape == "messages":
        return row
    return Example(
        prompt=row.messages[:-1], completion=row.messages[-1:], id=row.id, prompt_id=row.prompt_id, kind=row.kind,
        source=row.source, round=row.round,
    )  # fmt: skip


def turns_of(row: Example | Conversation) -> tuple[Turn, ...]:
    """All turns of a row, the response last."""
    return row.messages if isinstance(row, Conversation) else (*row.prompt, *row.completion)


def _conversation(record: Sample, number: int, text: str, numbered: bool) -> Conversation:
    # Only where there is a system prompt: an empty system turn keeps chat templates from putting in their own.
    system = (Turn(role="system", content=record.system),) if record.system else ()
    return Conversation(
        messages=(*system, *record.messages, Turn(role="assistant", content=text)), prompt_id=record.prompt_id,
        id=f"{record.id}:{number}" if numbered else record.id, kind=record.kind, source="revised" if number else "initial",
        round=number,
    )  # fmt: skip


def _unfit(record: Sample, number: int, text: str) -> str:
    current = text == record.response
    if current and record.refused:
        return "refused"
    if (current and record.truncated) or (not number and isinstance(record, Chain) and record.initial_truncated):
        return "truncated"
    return "" if text.strip() else "empty"
