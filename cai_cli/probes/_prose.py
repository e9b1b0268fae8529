"""Where a text is prose, and where its sentences end: probes change prose, and leave code, tables and quotations alone."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Literal

from cai_cli.features.markdown import FENCED, HEADER, ITEM

Span = tuple[int, int]  # where something starts and ends in a text

_BLOCK = rf"(?:{FENCED.pattern})|^[ \t]*[|>][^\n]*$|^(?: {{4}}|\t)[^\n]*$"  # fenced or indented code, tables, quotations
_BLOCKS = re.compile(_BLOCK, re.MULTILINE | re.DOTALL)
# These, and code and addresses within a line.
_KEPT = re.compile(rf"{_BLOCK}|`[^`\n]*`|\b[a-z]{{1,20}}://\S+|[\w.+-]{{1,64}}@\S+", re.MULTILINE | re.DOTALL)
_SHORT = "".join(rf"(?<!\b{word}\.)" for word in ("Mr", "Ms", "Dr", "St", "vs", "No", "Mrs", r"e\.g", r"i\.e", "etc", "[A-Z]"))
_END = re.compile(rf"(?<=[.!?]){_SHORT}[ \t]+(?=[A-Z0-9\"'(“‘*])|(?<=[.!?])(?=[ \t\r]*(?:\n|\Z))")
_COMMON = re.compile(
    r"\b(?:the|a|an|and|or|of|to|in|is|it|that|this|you|your|for|on|with|are|be|as|at|by|from|not|can|if|i|we|but|they|what|before"
    r"|about)\b",
    re.IGNORECASE,
)
# Sentences that answers open and close with, and that say nothing of what was asked.
IDLE = re.compile(
    r"(?:^|(?<=[.!?] ))(?:(?:that's|that is|what) (?:a|an) (?:great|good|excellent|interesting) question"
    r"|(?:great|good|excellent) question|sure(?: thing)?|of course|certainly|absolutely"
    r"|i(?:'d be| would be|'m| am) (?:happy|glad) to help(?: you)?(?: with (?:that|this))?"
    r"|i hope (?:this|that) helps(?: you)?(?: out)?"
    r"|(?:please )?(?:feel free to|don't hesitate to) (?:ask|reach out)[^.!?\n]{0,80}"
    r"|(?:please )?let me know if you[^.!?\n]{0,80}"
    r"|thank you for (?:asking|your question)|thanks for asking)[.!](?:[ \t]+|$)",
    re.IGNORECASE | re.MULTILINE,
)
_OPENING = re.compile(r'[()“”"]|\*\*')
_ENOUGH = 0.1  # of all words: below it, the text is hardly English
_HEAD = 4000  # characters in which that is looked for
_WIDE = 80  # blanks that may stand between two sentences


def english(text: str) -> bool:
    """Whether a text is English prose, as far as its little words tell."""
    head = text[:_HEAD]
    return len(_COMMON.findall(head)) >= max(1.0, _ENOUGH * len(head.split()))


def _around(text: str, kept: re.Pattern[str]) -> list[Span]:
    """What is left of a text between the matches of a pattern, in order."""
    found = [one.span() for one in kept.finditer(text)]
    return [(left, right) for (_, left), (right, _) in pairwise([(0, 0), *found, (len(text), len(text))])]


def spans(text: str) -> list[Span]:
    """Where a text is prose: no code, table, quotation or address."""
    return _around(text, _KEPT)


def in_prose(text: str, change: Callable[[str], str]) -> str:
    """The text with its prose changed, piece by piece."""
    return _changed(text, spans(text), change)


def in_blocks(text: str, change: Callable[[str], str]) -> str:
    """The same in whole lines: code and addresses within a line go along."""
    return _changed(text, _around(text, _BLOCKS), change)


def _changed(text: str, where: list[Span], change: Callable[[str], str]) -> str:
    pieces, last = [], 0
    for start, end in where:
        pieces += [text[last:start], change(text[start:end])]
        last = end
    return "".join([*pieces, text[last:]])


def ends(text: str) -> list[int]:
    """Where sentences of prose paragraphs end, as offsets right after their last character.

    Not those of list items or headers, nor those within brackets, quotation marks or bold words.
    """
    found: list[int] = []
    line, last, opened = 0, 0, Counter[str]()
    # At a span's very start stands the end of what is not prose.
    for place in (end.start() for span in spans(text) for end in _END.finditer(text, *span) if end.start() > span[0]):
        if (start := text.rfind("\n", last, place) + 1) > line:
            line, last, opened = start, start, Counter()
        opened.update(_OPENING.findall(text, last, place))
        last = place
        closed = opened["("] <= opened[")"] and opened["“"] <= opened["”"] and not (opened['"'] % 2 or opened["**"] % 2)
        if closed and not (ITEM.match(text, line) or HEADER.match(text, line)):
            found.append(place)
    return found


def paragraphs(text: str) -> list[list[Span]]:
    """The prose paragraphs that are one line with nothing but blank lines around it, each as where its sentences are."""
    places = ends(text)
    lines = ["", *text.split("\n"), ""]
    found: list[list[Span]] = []
    start = 0
    for before, line, after in zip(lines, lines[1:], lines[2:], strict=False):
        end = start + len(line.rstrip())
        inner = places[bisect_right(places, start) : bisect_right(places, end)]
        if inner and inner[-1] == end and not before.strip() and not after.strip():
            first = end - len(line.strip())
            found.append([(left + _blank(text, left), right) for left, right in pairwise([first, *inner])])
        start += len(line) + 1
    return found


def _blank(text: str, at: int) -> int:
    """How many blanks there are from an offset on."""
    return next((number for number, character in enumerate(text[at : at + _WIDE]) if character not in " \t"), 0)


def with_sentences(text: str, added: list[tuple[int, str]]) -> str:
    """The text with sentences put in at offsets that ends() gave; those of one offset in the order given."""
    pieces, last = [], 0
    for place, sentence in sorted(added, key=lambda one: one[0]):
        pieces += [text[last:place], f" {sentence}"]
        last = place
    return "".join([*pieces, text[last:]])


def like(model: str, word: str) -> str:
    """The word with capitals as the model has them: none, the first letter, or all."""
    if model.isupper() and len(model) > 1:
        return word.upper()
    return word[:1].upper() + word[1:] if model[:1].isupper() else word


# Where words may stand: where a sentence starts with a capital, in lower case, anywhere.
_AT = {"start": r"(?:(?<=[.!?] )|(?<=\n)|\A)(?=[A-Z])", "lower": r"(?<![\w'’-])(?=[a-z])", "any": r"(?<![\w'’-])"}


def swapped(pairs: Mapping[str, str], at: Literal["start", "lower", "any"] = "any", before: str = "") -> Callable[[str], str]:
    """A function that puts other words for some, with capitals as they were.

    Takes: words in lower case -> theirs; where they may stand; a pattern that must follow
    """
    either = "|".join(sorted((re.escape(words).replace("'", "['’]") for words in pairs), key=len, reverse=True))
    pattern = re.compile(rf"{_AT[at]}(?i:{either})(?![\w'’-]){before}")
    return lambda text: pattern.sub(lambda found: like(found[0], pairs[found[0].lower().replace("’", "'")]), text)
