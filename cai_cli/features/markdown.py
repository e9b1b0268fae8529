"""How much markdown a text has, outside fenced code.

Each is log(1 + count): 0 for a text without any, and the first one weighs more than the twentieth. Arena's style control divides
the difference of two counts by their sum, which does as much for pairs but gives no text a value of its own.
Source: Li, Angelopoulos and Chiang 2024, "Does style matter?", lmsys.org; the log is ours.
"""

from __future__ import annotations

import math
import re

FENCED = re.compile(
    r"^ {0,3}(?P<fence>`{3,}+(?=[^`\n]*+$)|~{3,}+)[^\n]*+(?:\n(?:.*?\n)??(?: {0,3}(?P=fence)[`~]*[ \t]*$)|.*\Z)",
    re.MULTILINE | re.DOTALL,
)
ITEM = re.compile(r"^[ \t]*(?:[-*+•]|\d{1,3}[.)])[ \t]+(?=\S)", re.MULTILINE)
HEADER = re.compile(r"^ {0,3}#{1,6}[ \t]+(?=\S)", re.MULTILINE)
STARRED = re.compile(r"\*\*(?=[^\s*])([^\n*]{0,300}?[^\s*])\*\*")
UNDERLINED = re.compile(r"__(?<!\w__)(?=[^\s_])([^\n_]{0,300}?[^\s_])__(?!\w)")  # __name__ within a word is a name


def plain(text: str) -> str:
    """The text without its fenced code."""
    return FENCED.sub("", text) if "```" in text or "~~~" in text else text


def lists(text: str) -> float:
    """log(1 + list items): lines that begin with -, *, +, a bullet, or a number with . or ) after it."""
    return math.log1p(len(ITEM.findall(plain(text))))


def headers(text: str) -> float:
    """log(1 + headers): lines that begin with one to six # and a space."""
    return math.log1p(len(HEADER.findall(plain(text)))) if "#" in text else 0.0


def bold(text: str) -> float:
    """log(1 + bold spans): words in ** or __, within a line, of at most 300 characters."""
    starred, underlined = "**" in text, "__" in text
    if not (starred or underlined):
        return 0.0
    text = plain(text)
    return math.log1p((len(STARRED.findall(text)) if starred else 0) + (len(UNDERLINED.findall(text)) if underlined else 0))
