"""The same sentences in stiffer or in looser words."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from cai_cli.probes import Variant
from cai_cli.probes._prose import english, in_prose, swapped
from cai_cli.probes._sides import moved
from cai_cli.records import Pair

FEATURE = "formality"
UNIT = "log-odds per unit of log (1 + formal words) / (1 + informal words)"
NOTE = (
    "What formal words are worth: contractions and some everyday words of one response become formal, or the other way round."
    " Assumes that they mean the same; a word or two in a text is a small change, so that many pairs are needed."
    " A contraction is one word and not two; where length is probed too, that part is taken off."
)

_CONTRACTED = {
    "don't": "do not", "doesn't": "does not", "didn't": "did not", "can't": "cannot", "couldn't": "could not",
    "won't": "will not", "wouldn't": "would not", "shouldn't": "should not", "isn't": "is not", "aren't": "are not",
    "wasn't": "was not",
    "weren't": "were not", "haven't": "have not", "hasn't": "has not", "hadn't": "had not", "i'm": "I am", "i'll": "I will",
    "you're": "you are", "you'll": "you will", "we're": "we are", "we'll": "we will", "they're": "they are",
    "they'll": "they will",
    **{
        f"{word}'s {after}": f"{word} is {after}" for word in ("it", "that", "there", "here")
        for after in ("a", "an", "the", "not", "no", "why", "what", "how", "also", "important", "best", "good")
    },
}  # fmt: skip
_OPENINGS = {
    "also,": "additionally,", "so,": "consequently,", "plus,": "furthermore,", "besides,": "moreover,", "still,": "nevertheless,",
}  # fmt: skip
_STIFFER = {
    "i've": "I have", "you've": "you have", "we've": "we have", "they've": "they have", "let's": "let us", "gonna": "going to",
    "wanna": "want to", "kinda": "somewhat", "sorta": "somewhat", "gimme": "give me", "dunno": "do not know", "folks": "people",
    "guys": "people", "a bunch of": "a number of", "mom": "mother", "mum": "mother", "dad": "father", "yeah": "yes",
    "yep": "yes", "nope": "no", "weird": "strange", "try to": "attempt to", "buy": "purchase", "kids": "children",
    "figure out": "determine", "look into": "investigate",
}  # fmt: skip
_LOOSER = {"let us": "let's", "children": "kids", "determine": "figure out", "investigate": "look into"}


def _back(pairs: Mapping[str, str]) -> dict[str, str]:
    return {formal.lower(): informal for informal, formal in pairs.items()}


_STIFFEN = (swapped(_CONTRACTED | _STIFFER), swapped(_OPENINGS, "start", "(?= )"))
# "Yes, I am." does not contract, so something has to follow.
_LOOSEN = (swapped(_back(_CONTRACTED) | _LOOSER, before="(?= [a-z])"), swapped(_back(_OPENINGS), "start", "(?= )"))


def formal(text: str, _key: tuple[object, ...]) -> str:
    """The text in formal words."""
    return in_prose(text, lambda prose: _all(_STIFFEN, prose)) if english(text) else ""


def informal(text: str, _key: tuple[object, ...]) -> str:
    """The text in everyday words."""
    return in_prose(text, lambda prose: _all(_LOOSEN, prose)) if english(text) else ""


def _all(changes: tuple[Callable[[str], str], ...], text: str) -> str:
    return functools.reduce(lambda one, change: change(one), changes, text)


def variants(pair: Pair, seed: int) -> Variant | None:
    """One response with its informal words made formal, or its formal ones informal."""
    return moved(pair, seed, "formality", FEATURE, formal, informal)
