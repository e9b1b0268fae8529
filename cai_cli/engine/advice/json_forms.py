"""JSON inside texts, and what it takes as it stands, on one line, and as prose. Pure: text in, numbers out."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

MOST_STARTS = 20  # places of a text that are looked at: a hostile one has thousands
_WORTH_TOKENS, _WORTH_SHARE = 5, 0.15  # what a change must save before anybody is told of it

# The pieces that byte-pair tokenizers cut a text into first: a word with what stands right before it, up to three digits, a run
# of signs, a run of white space. An indentation is one piece however deep it is, so a quarter of the characters would not do.
_PIECE = re.compile(r"(?:[^\r\n\w]|_)?([^\W\d_]+)|\d{1,3}| ?(?:[^\s\w]|_)+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
_WORD = 8  # letters that one token holds
_START = re.compile(r'\{\s*"[^"\n]{1,80}"\s*:|\[\s*\{\s*"|\[[^\S\n]*\n\s*["\d{\[]')
_SIGN = re.compile(r'"(?:\\.|[^"\\\n])*"|[{}\[\]]')
_BROKEN_LINE = re.compile(r'("(?:\\.|[^"\\\n])*")|\n\s*')
_TAG = re.compile(r"\{\{.*?\}\}|\{%.*?%\}|\{#.*?#\}", re.DOTALL)
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True, kw_only=True)
class Forms:
    """Tokens of the same content in three forms, estimated. `as_is`: as it stands; `compact`: on one line, without spaces."""

    as_is: int = 0
    compact: int = 0
    prose: int = 0

    def __add__(self, other: Forms) -> Forms:
        return Forms(as_is=self.as_is + other.as_is, compact=self.compact + other.compact, prose=self.prose + other.prose)

    @property
    def is_pretty(self) -> bool:
        """Whether the same on one line is worth the change."""
        return worth(self.as_is - self.compact, self.as_is)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A piece of JSON in a text. `text`: as it stands; `compact`: on one line."""

    text: str
    compact: str
    forms: Forms


def worth(saved: float, of: float) -> bool:
    """Whether saving so many of so many tokens is worth a word: more than 5, and more than 15%."""
    return saved > _WORTH_TOKENS and saved > _WORTH_SHARE * of


def tokens(text: str) -> int:
    """About how many tokens a text is, told by the pieces that tokenizers begin with; long words are several."""
    return sum(1 if not found[1] else -(-len(found[1]) // _WORD) for found in _PIECE.finditer(text))


def blocks(text: str, sketches: bool = False) -> Iterator[Block]:
    """The objects and lists of JSON in a text. `sketches`: also what is laid out like them, with stand-ins for values"""
    at = 0
    for _ in range(MOST_STARTS):
        start = _START.search(text, at)
        if start is None:
            return
        end, value = _decoded(text, start.start())
        if end == 0 and sketches:
            end, value = _balanced(text, start.start()), None
        if end:
            yield _block(text[start.start() : end], value)
        at = end or start.end()


def in_template(body: str) -> Iterator[Block]:
    """The same of a template's text: what is filled in stands for as many letters."""
    return blocks(_TAG.sub(lambda tag: "x" * len(tag[0]), body), sketches=True)


def _decoded(text: str, start: int) -> tuple[int, Any]:
    try:
        value, end = _DECODER.raw_decode(text, start)
        _prose(value)
    except (ValueError, RecursionError):  # what is nested that deeply, nobody reads
        return 0, None
    return end, value


def _balanced(text: str, start: int) -> int:
    """Where the bracket that opens at `start` closes; 0: it does not."""
    open_brackets = 0
    for sign in _SIGN.finditer(text, start):
        open_brackets += (sign[0] in "{[") - (sign[0] in "}]")
        if open_brackets == 0:
            return sign.end()
    return 0


def _block(text: str, value: Any) -> Block:
    if value is None:
        compact = _BROKEN_LINE.sub(lambda found: found[1] or "", text)
        said = re.sub(r'["{}\[\]:]+', " ", compact)
    else:
        compact, said = json.dumps(value, ensure_ascii=False, separators=(",", ":")), _prose(value)
    return Block(text=text, compact=compact, forms=Forms(as_is=tokens(text), compact=tokens(compact), prose=tokens(said)))


def _prose(value: Any) -> str:
    """The names and values as somebody would write them down: name Ann, city Paris, tags new, paid."""
    if isinstance(value, dict):
        return ", ".join(f"{key.replace('_', ' ')} {_prose(one)}" for key, one in value.items())
    if isinstance(value, list):
        return ("; " if any(isinstance(one, dict) for one in value) else ", ").join(map(_prose, value))
    return "none" if value is None else ("no", "yes")[value] if isinstance(value, bool) else str(value)
