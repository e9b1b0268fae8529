"""The same sentences as a list or as a paragraph."""

from __future__ import annotations

import re

from cai_cli import chance
from cai_cli.features.markdown import ITEM
from cai_cli.probes import Variant
from cai_cli.probes._prose import in_blocks, paragraphs
from cai_cli.probes._sides import moved
from cai_cli.records import Pair

FEATURE = "lists"
UNIT = "log-odds per unit of log(1 + list items)"
NOTE = (
    "What list marks are worth: a paragraph becomes a list, an item a sentence, or lists become paragraphs. Assumes that the text"
    " reads as well either way; where steps are easier to follow as a list, that is in the effect. A mark counts as a word;"
    " where length is probed too, that part is taken off."
)

FEWEST = 3  # sentences of a paragraph that becomes a list
_NESTED = re.compile(rf"{ITEM.pattern}[^\n]*\n{{1,2}}[ \t]+\S", re.MULTILINE)
_LISTS = [
    re.compile(rf"(?:^{mark}[ \t]+\S[^\n]*(?:\n{{1,2}}(?={mark}[ \t])|$)){{2,}}+", re.MULTILINE)
    for mark in (r"[-*+•]", r"\d{1,3}[.)]")
]


def listed(text: str, key: tuple[object, ...]) -> str:
    """The text with one paragraph as a list, an item a sentence. Empty: no paragraph has three."""
    long = [one for one in paragraphs(text) if len(one) >= FEWEST]
    if not long:
        return ""
    sentences = chance.choose(long, *key, "paragraph")
    items = "\n".join(f"- {text[start:end]}" for start, end in sentences)
    return text[: sentences[0][0]] + items + text[sentences[-1][1] :]


def joined(text: str, _key: tuple[object, ...]) -> str:
    """The text with each list as a paragraph. Empty: there are items of more than a line, or lists within lists."""
    return "" if _NESTED.search(text) else in_blocks(text, _joined)


def _joined(block: str) -> str:
    for pattern in _LISTS:
        block = pattern.sub(lambda found: _paragraph(found[0]), block)
    return block


def _paragraph(block: str) -> str:
    items = [ITEM.sub("", line).strip() for line in block.split("\n") if line.strip()]
    return " ".join(item if item[-1] in ".!?:;," else f"{item}." for item in items)


def variants(pair: Pair, seed: int) -> Variant | None:
    """One response with a paragraph as a list, or with its lists as paragraphs."""
    return moved(pair, seed, "lists", FEATURE, listed, joined)
