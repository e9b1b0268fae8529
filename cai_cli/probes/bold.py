"""The same words with emphasis or without."""

from __future__ import annotations

import re

from cai_cli.features.markdown import STARRED, UNDERLINED, bold
from cai_cli.probes import Variant
from cai_cli.probes._prose import in_prose, spans
from cai_cli.probes._sides import moved
from cai_cli.records import Pair

FEATURE = "bold"
UNIT = "log-odds per unit of log(1 + bold spans)"
NOTE = (
    "What bold is worth: the marks of a response's bold words go, or its longest words get some. Assumes that which words stand"
    " out says nothing; emphasis that helps a reader to find the point may be worth more than this."
)

MOST = 8  # words that are put in bold
_WORD = re.compile(r"^#.*|(?<![\w*_'’-])([^\W\d_]{6,20})(?![\w*_'’-])", re.MULTILINE)  # a header stands out already


def stripped(text: str, _key: tuple[object, ...]) -> str:
    """The text without the marks of its bold words."""
    return in_prose(text, lambda prose: UNDERLINED.sub(r"\1", STARRED.sub(r"\1", prose)))


def emphasised(text: str, _key: tuple[object, ...]) -> str:
    """The text with its longest words in bold, each where it stands first. Empty: it has bold words, or no long ones."""
    if bold(text):
        return ""
    places: dict[str, int] = {}
    for start, end in spans(text):
        for found in _WORD.finditer(text, start, end):
            if found[1]:
                places.setdefault(found[1], found.start())
    longest = sorted(places, key=len, reverse=True)[:MOST]
    for word in sorted(longest, key=places.__getitem__, reverse=True):
        at = places[word]
        text = f"{text[:at]}**{word}**{text[at + len(word) :]}"
    return text if longest else ""


def variants(pair: Pair, seed: int) -> Variant | None:
    """One response with up to eight of its words in bold, or with none of those it had."""
    return moved(pair, seed, "bold", FEATURE, stripped, emphasised)
