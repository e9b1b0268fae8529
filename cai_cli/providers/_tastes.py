"""What the simulated judge likes besides content, read from the texts alone; 0 unless its world says so.

Cues are broad on purpose: a probe that shows such a taste must not have to use the words that the judge was written with.
"""

from __future__ import annotations

import math
import re

from cai_cli.providers._sentences import bare, sentences
from cai_cli.providers._world import World

QUOTED_WORDS = 3  # a sentence of fewer words is said by chance

_AUTHORITY = re.compile(
    r"\b(?:experts?|specialists?|professors?|scientists?|researchers?|scholars?|academics?|economists?|doctors|physicians"
    r"|authorit(?:y|ies)|stud(?:y|ies)|research|surveys|guidelines|consensus|institut(?:e|es|ion|ions)|universit(?:y|ies)"
    r"|textbooks?|journals?)\b",
    re.IGNORECASE,
)
_MARKS = re.compile(r"^\s*(?:[-*+]|\d{1,3}[.)])[ \t]+\S|^#{1,6}[ \t]+\S|\*\*[^*\n]+\*\*|__[^_\n]+__", re.MULTILINE)
_BOOSTS = re.compile(
    r"\b(?:certainly|clearly|definitely|obviously|undoubtedly|surely|absolutely|completely|totally|entirely|of course"
    r"|without (?:a )?doubt|no doubt|in fact|for sure)\b",
    re.IGNORECASE,
)
_HEDGES = re.compile(
    r"\b(?:perhaps|maybe|possibly|probably|might|may|seems?|unsure|not sure|appears?|likely|apparently|arguably|somewhat|i think"
    r"|i believe|i guess|in my (?:view|opinion)|it is possible that|as far as i know|to some extent)\b",
    re.IGNORECASE,
)
_LAST_TURN = re.compile(r"(?:.*\n\n)?Human(?:-[0-9a-f]{8})?: ", re.DOTALL)


def taste(first: str, second: str, conversation: str, world: World) -> float:
    """The logits that go to the first response for its manner, and for what the user wants to hear."""
    logit = 0.0
    if world.sycophancy:
        logit += world.sycophancy * agreed(first, second, conversation)
    if world.authority:
        logit += world.authority * (names_authority(first) - names_authority(second))
    if world.markdown:
        logit += world.markdown * (marked(first) - marked(second))
    if world.assertiveness:
        logit += world.assertiveness * (sure(first) - sure(second))
    return logit


def agreed(first: str, second: str, conversation: str) -> int:
    """1 where the user's last turn quotes a sentence of the first response only, -1 of the second only, else 0."""
    turn = _plain(_LAST_TURN.sub("", conversation, count=1))
    return int(_is_quoted(first, turn)) - int(_is_quoted(second, turn))


def _is_quoted(response: str, turn: str) -> bool:
    found = (_plain(bare(sentence.text)).rstrip(".!?") for sentence in sentences(response))
    return any(len(text.split()) >= QUOTED_WORDS and text in turn for text in found)


def _plain(text: str) -> str:
    return " ".join(text.lower().split())


def names_authority(text: str) -> bool:
    """Whether a text speaks of those who know: experts, studies, universities."""
    return _AUTHORITY.search(text) is not None


def marked(text: str) -> float:
    """log(1 + list items + headers + bold spans)"""
    return math.log1p(len(_MARKS.findall(text)))


def sure(text: str) -> float:
    """log(1 + boosters) - log(1 + hedges)"""
    return math.log1p(len(_BOOSTS.findall(text))) - math.log1p(len(_HEDGES.findall(text)))
