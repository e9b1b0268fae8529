"""How many words a text has."""

from __future__ import annotations

import math
import re

# Scripts that put no spaces between words (Thai, Lao, Burmese, Khmer, kana, Han): each character counts as one.
UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_CHARACTER = re.compile(f"[{UNSPACED}]")
_STOP = re.compile(rf"[{UNSPACED}\u3000-\u303f\uff01-\uff0f\uff1a-\uff20]")  # and the punctuation that goes with them


def count(text: str) -> int:
    """The number of words: runs without white space, and each character of a script that puts no spaces between words."""
    if text.isascii():
        return len(text.split())
    if not (characters := len(_CHARACTER.findall(text))):
        return len(text.split())
    return characters + len(_STOP.sub(" ", text).split())


def length(text: str) -> float:
    """The natural logarithm of the number of words, at least 0: a difference of two is the log of the ratio."""
    return math.log(max(1, count(text)))
