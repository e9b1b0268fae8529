"""What can be measured of a text's manner, as one number each; a pair's value is that of a minus that of b.

No feature knows what a text says. Where labels go with one of them, that alone is no bias: good answers may differ in it, too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from cai_cli.features import manner, markdown, refusal, words


@dataclass(frozen=True, slots=True, kw_only=True)
class Feature:
    """One measure of a text."""

    name: str
    of: Callable[[str], float]  # text -> its value
    unit: str  # what one unit is, in words
    corrects: bool  # whether labels may be corrected for it, where its effect is identified
    note: str  # what it can and cannot measure

    def between(self, a: str, b: str) -> float:
        """The value of a minus that of b: exchanged, it changes its sign."""
        return self.of(a) - self.of(b)


_ALL = (
    Feature(
        name="length", of=words.length, unit="log of the number of words; 0.69 is a doubling", corrects=True,
        note="Words are runs without white space, and each character of a script that has none; a list mark is one, too. "
        "What the words say is not seen.",
    ),
    Feature(
        name="lists", of=markdown.lists, unit="log of 1 + list items", corrects=True,
        note="Markdown's bullets and numbers at the start of a line, outside code. A list in prose (first, second) is not seen.",
    ),
    Feature(
        name="headers", of=markdown.headers, unit="log of 1 + headers", corrects=True,
        note="Lines that begin with # to ######, outside code. Headings by bold or underlining are not seen.",
    ),
    Feature(
        name="bold", of=markdown.bold, unit="log of 1 + bold spans", corrects=True,
        note="Spans in ** or __ within a line, outside code. Italics and capitals are not seen.",
    ),
    Feature(
        name="formality", of=manner.formality, unit="log ratio of formal to informal words, each + 1", corrects=True,
        note="A short English list of connectives and stiff verbs against contractions, slang and exclamations. "
        "Syntax and politeness are not seen; other languages give about 0.",
    ),
    Feature(
        name="assertiveness", of=manner.assertiveness, unit="log ratio of boosting to hedging words, each + 1", corrects=True,
        note="A short English list of sure words against unsure ones. Whether the confidence is earned is not seen, nor is a "
        "plain claim without such a word; other languages give 0.",
    ),
    Feature(
        name="complexity", of=manner.complexity, unit="10 points of LIX, at most 100 points", corrects=True,
        note="Words a sentence plus the percentage of words over six letters: how hard the surface is to read, in languages that "
        "put spaces between words. Depth and accuracy are not seen; code and names count as hard words.",
    ),
    Feature(
        name="refusal", of=refusal.refusal, unit="a refusal", corrects=False,
        note="1 where the first 200 characters hold a set English phrase of declining. Partial refusals are not seen. Whether to "
        "refuse is what a label is about, so nothing is corrected for it.",
    ),
)  # fmt: skip

FEATURES: Mapping[str, Feature] = MappingProxyType({feature.name: feature for feature in _ALL})
"""Every feature by its name."""
