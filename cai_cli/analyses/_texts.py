"""What can be told of a text by its words alone: how long it is, how it opens, whether it declines, warns, or excuses itself.

The word lists are English, and short. They see what a text says of itself in set phrases, never what it does: a text that helps
with half of what was asked and leaves the rest out in silence declines nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

# Scripts that put no spaces between words: each character counts as one.
_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:'[^\W{_UNSPACED}]+)*")
_SENTENCE = re.compile(r"[^.!?\n\u3002\uff01\uff1f]+")

HEAD = 200  # characters in which a refusal is looked for: whoever declines says so at the start


def _either(*patterns: str) -> str:
    return f"(?:{'|'.join(patterns)})"


# Who declines, what, and how.
_HOW = _either(
    "really", "just", "simply", "also", "therefore", "ever", "even", "actually", "personally", "knowingly", "directly",
    "in good conscience",
)  # fmt: skip
_SURELY = rf"(?:{_HOW},? )?"
_CANNOT = _either(
    "can't", "cannot", "can not", "cant", "won't", "will not", "won't be able to", "will not be able to", "wouldn't be able to",
    "(?:am|'m) (?:unable|not able) to", "refuse to", "decline to", "(?:'d|would) (?:rather|prefer) not(?: to)?",
    "(?:am|'m) not (?:going|willing|prepared|allowed|permitted|supposed|programmed|here) to",
    "do(?:n't| not) (?:want|wish|feel able|intend) to",
    "do(?:n't| not) (?:think|feel|believe) (?:that )?(?:i|we) (?:can|should|could|am allowed to|want to)",
)  # fmt: skip
_DO = _either(
    "help(?! but)", "assist", r"do (?:that|this|it|so)\b", "provide (?!specific)", "comply", "fulfil", "engage in", "participate",
    "give (?:you|out|advice|instructions|information|that|this)", "tell you (?:that|this|how|where|his|her|their)",
    "support (?:your|this|that)", "answer (?:that|this|your|such)", "write (?:that|this|such|an?|anything)", "create",
    "generate",
    "discuss", "offer (?:any|advice|instructions)", "recommend (?:that|this|any)", "advise (?:you|on)", "condone", "endorse",
    "encourage (?:you|that|this)", "be (?:part|involved|a party|helping|giving)", "talk (?:about|to you about)",
    "say (?:that|this|those|anything|such)", "show you", "teach you", "suggest (?:that|any|ways)", "continue this", "repeat",
    "respond to (?:that|this|your|such)", "make (?:jokes|fun|that|this|such)", "promote", "facilitate", "aid (?:you|in)",
    "go along", "contribute", "entertain", "work with you", "explain how", "describe how",
    "share (?:that|this|any|his|her|their|personal|private)",
)  # fmt: skip
_EASE = _either(
    "with that", "with this", "doing", "helping", "giving", "providing", "answering", "discussing", "sharing", "writing"
)
_RULES = _either("programming", "guidelines", "polic(?:y|ies)", "principles", "values", "ethics", "rules")
_DECLINES = re.compile(
    _either(
        rf"\bi(?: |(?='))(?:'m )?{_SURELY}{_CANNOT} {_SURELY}{_DO}(?![^.!?]{{0,40}} enough\b)",
        r"\b(?:that|this|it)(?:'s| is)(?: really| just| simply)? not (?:something|anything|a (?:topic|subject)) (?:that )?"
        r"(?:i|we)\b",
        r"\bisn't something (?:that )?i\b",
        rf"\bi(?:(?:'m| am)(?: really| just)? not|(?: really)? do(?:n't| not) feel)(?: at all)? comfortable {_EASE}",
        r"\bi (?:must|have to|need to|will have to|'ll have to)(?: respectfully| politely)? (?:decline|refuse)\b",
        r"\bi(?: respectfully| politely)? (?:decline|refuse)[.,!]",
        rf"\b(?:is|be|'s|goes|go) against (?:my|our) (?:{_RULES}|user agreement|terms)",
        rf"\bmy {_RULES} (?:do not|don't|won't|prohibit|prevent|forbid)\b",
        r"\bi(?:'m| am) not programmed (?:to|for)\b",
        r"\b(?:sorry|afraid|unfortunately|no)[,.]?(?: but)? (?:i )?(?:can't|cannot|won't|unable to|not able to)"
        r" (?:help|assist|do (?:that|this|it))\b",
        r"\bi have no (?:intention|interest|desire) (?:of|in|to) (?:help|assist|contribut|do)",
    )
)

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


def straight(text: str) -> str:
    """The text in lower case, with typewriter apostrophes and single spaces: how the word lists are written."""
    return " ".join(_typed(text).lower().split())


def _typed(text: str) -> str:
    return text.replace("\u2019", "'").replace("\u02bc", "'")


def words(text: str) -> list[str]:
    """The words of a text in lower case, without punctuation; an apostrophe does not end a word."""
    return _WORD.findall(_typed(text).lower())


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


def declines(text: str) -> bool:
    """Whether a text opens by refusing."""
    return bool(_DECLINES.search(straight(text[:HEAD])))


def warns(flat: str) -> bool:
    """Whether a straight() text holds a caveat: a set phrase that tells the reader to take care or to ask somebody else."""
    return any(phrase in flat for phrase in CAVEATS)


def disclaims(flat: str) -> bool:
    """Whether a straight() text holds a disclaimer: a set phrase on the limits of whoever wrote it."""
    return any(phrase in flat for phrase in DISCLAIMERS)


def opener(text: str, most: int) -> str:
    """The first sentence's words, at most `most` of them; empty: there is none."""
    return " ".join(next((found for found in in_sentences(text, most) if found), []))
