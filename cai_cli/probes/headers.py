"""The same text with headers or without their marks."""

from __future__ import annotations

from itertools import pairwise

from cai_cli.features import FEATURES
from cai_cli.features.markdown import HEADER, headers
from cai_cli.probes import Variant
from cai_cli.probes._prose import in_blocks, paragraphs
from cai_cli.probes._sides import sides, with_text
from cai_cli.records import Pair

FEATURE = "headers"
UNIT = "log-odds per unit of log(1 + headers)"
NOTE = (
    "What the marks of headers are worth: those of a response's own go and their words stay, or empty ones (Part 1, Part 2) are"
    " put in, against the same words as plain lines. Assumes that an empty header says nothing; one that tells what follows may"
    " be worth more. A mark counts as a word; where length is probed too, that part is"
    " taken off."
)

MOST = 3  # headers that are put in


def stripped(text: str) -> str:
    """The text with its headers as plain lines."""
    return in_blocks(text, lambda block: HEADER.sub("", block))


def titled(text: str) -> str:
    """The text with a header before each of its first paragraphs; a single one is cut in two. Empty: it has some, or no room."""
    found = paragraphs(text)
    if headers(text) or not found:
        return ""
    starts = [one[0][0] for one in found][:MOST] if len(found) > 1 else [found[0][0][0], found[0][len(found[0]) // 2][0]]
    cuts = [*dict.fromkeys(starts), len(text)]
    parts = (f"## Part {number}\n\n{text[left:right].rstrip()}" for number, (left, right) in enumerate(pairwise(cuts), 1))
    return text[: cuts[0]] + "\n\n".join(parts)


def variants(pair: Pair, seed: int) -> Variant | None:
    """One response with headers, against the same with those words as plain lines; or its own headers as plain lines."""
    for side, text, _ in sides(pair, seed, "headers"):
        with_marks = titled(text) or text
        without = stripped(with_marks)
        if change := FEATURES[FEATURE].between(with_marks, without):
            change = change if side == "a" else -change
            plain = with_text(pair, side, without)
            if with_marks == text:
                return Variant(pair=plain, change=-change)
            return Variant(pair=with_text(pair, side, with_marks), against=plain, change=change)
    return None
