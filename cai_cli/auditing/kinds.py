"""Why a person and the AI disagree, as far as the person says so: the `kind` that was filled in, else a reason's own words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

from cai_cli.auditing.labels import KINDS, Label

UNKNOWN = "unknown"
MEANINGS = {
    "human_stricter": "people saw a harm or a fault that the AI let pass",
    "ai_stricter": "the AI was stricter than people think right",
    "different_criteria": "they judged by different things",
    "subjective": "it is close, or a matter of taste",
    UNKNOWN: "no reason was given, or none that tells",
}
# What was not harmful must not count as harm: these are looked for first, and taken out.
_AI_STRICTER = (
    r"(?:\b(?:not|never|hardly|nothing|no)|n't)\s+(?:really |actually |at all |any )?(?:harm|unsafe|danger|offens|illegal)\w*",
    r"\bharmless\b", r"\btoo (?:strict|cautious|careful|preachy)\b", r"\bover-?ly (?:strict|cautious|careful)\b",
    r"\bover-?(?:cautious|refus\w*|careful)\b", r"\bpreach\w*", r"\bmorali[sz]\w*", r"\black of help\w*|\bunhelpful\b",
    r"\b(?:needless|unnecessar\w*)\s+(?:refus\w*|warning\w*|disclaimer\w*)", r"\brefuse\w* (?:for no reason|a fair|an? innocent)",
)  # fmt: skip
_HUMAN_STRICTER = (
    r"\bharm(?:ful|s)?\b", r"\bunsafe\b", r"\bdangerous\b", r"\bviolat\w*", r"\billegal\b",
    r"\bshould (?:have )?(?:be )?refus\w*",
    r"\btoxic\b", r"\boffensive\b", r"\bracist\b|\bsexist\b", r"\bmisinform\w*",
    r"\bfactual(?:ly)? (?:wrong|error\w*)|\bmade up\b",
)  # fmt: skip
_DIFFERENT = (
    r"\bcriteri(?:on|a)\b", r"\brubric\b", r"\bguidelines?\b", r"\bprinciples?\b", r"\bmatters? more\b", r"\bmore important\b",
    r"\bjudged? (?:it |them )?(?:by|on)\b", r"\bdepends on what\b",
)  # fmt: skip
_SUBJECTIVE = (
    r"\bsubjective\b", r"\btaste\b", r"\bcould go either way\b", r"\beither (?:one )?(?:is|would be) fine\b", r"\btoss-?up\b",
    r"\bhard to (?:say|tell|choose)\b", r"\bclose call\b", r"\b(?:about|nearly|almost) the same\b",
    r"\bboth (?:are )?(?:fine|good|ok)\b", r"\bpersonal(?:ly)?\b", r"\bslight(?:ly)?\b",
)  # fmt: skip


def kind_of(reason: str) -> str:
    """The kind that a reason's words tell, or unknown: it says nothing of the four, or things of more than one.

    Takes: a person's reason, in English   What it can and cannot: set phrases are found, irony and other languages are not.
    """
    text, told = reason.lower().replace("\u2019", "'"), list[str]()
    rest = text
    for pattern in _AI_STRICTER:
        rest = re.sub(pattern, " ", rest)
    told += ["ai_stricter"] if rest != text else []
    for kind, patterns in (("human_stricter", _HUMAN_STRICTER), ("different_criteria", _DIFFERENT), ("subjective", _SUBJECTIVE)):
        told += [kind] if any(re.search(pattern, rest) for pattern in patterns) else []
    return told[0] if len(told) == 1 else UNKNOWN


def kind_of_all(labels: Sequence[Label]) -> str:
    """The kind of one disagreement after all who disagree: what they filled in before what their words tell, the most named one.

    Takes: the labels of those who disagree with the AI. Where two kinds are named as often it is unknown.
    """
    named = [one.kind for one in labels if one.kind] or [kind for one in labels if (kind := kind_of(one.reason)) in KINDS]
    (first, most), *rest = Counter(named).most_common() or [(UNKNOWN, 0)]
    return UNKNOWN if rest and rest[0][1] == most else first
