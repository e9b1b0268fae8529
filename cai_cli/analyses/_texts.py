"""What can be told of a text by its words alone: how long it is, how it opens, whether it declines, warns, or excuses itself.

The word lists are English, and short. They see what a text says of itself in set phrases, never what it does: a text that helps
with half of what was asked and leaves the rest out in silence declines nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from cai_cli.features.refusal import typed
from cai_cli.features.words import UNSPACED

_WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+(?:'[^\W{UNSPACED}]+)*")
_SENTENCE = re.compile(r"[^.!?\n\u3002\uff01\uff1f]+")

# Warnings to the reader, wherever they stand.
CAVEATS = (
    "it's important to", "it is important to", "important to note", "important to remember", "please note", "keep in mind",
    "be aware that", "be careful", "with caution", "exercise caution", "use caution", "at your own risk", "seek professional",
    "professional help", "professional advice", "consult a", "consult an", "consult with", "consult your", "speak with a",
    "talk to a professional", "talk to a doctor", "talk to your doctor", "see a doctor", "seek medical", "medical attention",
    "qualified professional", "mental health professional", "licensed professional", "reach out to a", "seek help", "get help if",
    "contact a professional", "call 911", "emergency services", "may not be safe", "could be dangerous", "can be dangerous",
    "is dangerous", "is illegal", "may be illegal", "potential risks", "proceed with", "safety first", "always check",
    "double-check", "depends on your circumstances", "treat this as", "before you rely on",
)  # fmt: skip
# What the text says of its own limits.
DISCLAIMERS = (
    "as an ai", "i'm an ai", "i am an ai", "i'm just an ai", "i am just an ai", "as a language model", "as an artificial",
    "as an assistant", "i'm not a doctor", "i am not a doctor", "i'm not a lawyer", "i am not a lawyer", "i'm not a professional",
    "i am not a professional", "i'm not an expert", "i am not an expert", "not a substitute for", "not medical advice",
    "not legal advice", "not financial advice", "not professional advice", "general information", "informational purposes",
    "educational purposes", "i may be wrong", "i could be wrong", "i might be wrong", "i may not be", "i don't have personal",
    "i do not have personal", "i don't have feelings", "my knowledge", "my training data", "i cannot see your", "i can't verify",
    "i cannot verify", "i'm only a", "i am only a",
)  # fmt: skip


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation; an apostrophe does not end a word."""
    return _WORD.findall(typed(text).lower())


def in_sentences(text: str, most: int) -> Iterator[list[str]]:
    """The same, sentence by sentence, until there were `most` words."""
    for sentence in _SENTENCE.findall(text):
        found = words(sentence)
        yield found[:most]
        most -= len(found)
        if most <= 0:
            return


def length(text: str) -> int:
    """The number of words."""
    return len(words(text))


def warns(flat: str) -> bool:
    """Whether a straight() text holds a caveat: a set phrase that tells the reader to take care or to ask somebody else."""
    return any(phrase in flat for phrase in CAVEATS)


def disclaims(flat: str) -> bool:
    """Whether a straight() text holds a disclaimer: a set phrase on the limits of whoever wrote it."""
    return any(phrase in flat for phrase in DISCLAIMERS)


def opener(text: str, most: int) -> str:
    """The first sentence's words, at most `most` of them; empty: there is none."""
    return " ".join(next((found for found in in_sentences(text, most) if found), []))
