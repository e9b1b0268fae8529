"""How the simulated model reads a message: the data in it stands in fences that its writer alone could have written."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_KINDS = "conversation|response|critique|request|criterion|example|topic|kind"
_OPENING = re.compile(rf"<({_KINDS})(?:-([A-Za-z0-9]{{1,16}}))?-([0-9a-f]{{8}})>")


@dataclass(frozen=True, slots=True)
class Fence:
    kind: str  # one of _KINDS
    label: str  # what the response under judgement is called, or empty
    text: str
    span: tuple[int, int]  # where it stands in the message, its tags included


def fenced(message: str) -> list[Fence]:
    """The fenced parts of a message, in order.

    A fence inside another one is part of its text: whoever wrote that text could not know the digits.
    """
    found, at = [], 0
    while opening := _OPENING.search(message, at):
        closing = "</" + opening.group()[1:]
        end = message.find(closing, opening.end())
        if end >= 0:
            text = message[opening.end() : end].removeprefix("\n").removesuffix("\n")
            found.append(Fence(opening.group(1), opening.group(2) or "", text, (opening.start(), end + len(closing))))
        at = end + len(closing) if end >= 0 else opening.end()
    return found


def outside(message: str, fences: Sequence[Fence]) -> str:
    """What a message says itself: all that stands in none of its fences."""
    edges = [0, *(edge for fence in fences for edge in fence.span), len(message)]
    return " ".join(message[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True))


def texts(fences: Sequence[Fence], kind: str) -> list[str]:
    """What stands in the fences of one kind."""
    return [fence.text for fence in fences if fence.kind == kind]
