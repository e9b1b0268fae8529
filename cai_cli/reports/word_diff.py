"""What changed between two texts, word by word."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.text import Text

Change = Literal["same", "removed", "added"]
_WORD = re.compile(r"\S+\s*")
_COMMON = 2000  # words of both texts from which very frequent words are no anchors: else long texts take minutes


def changes(before: str, after: str) -> Iterator[tuple[Change, str]]:
    """Runs of words that stayed, went, or came, in reading order; the runs that did not go make up `after`."""
    old, new = _WORD.findall(before.lstrip()), _WORD.findall(after.lstrip())
    matcher = difflib.SequenceMatcher(
        None, [word.rstrip() for word in old], [word.rstrip() for word in new], len(old) + len(new) > _COMMON
    )
    for kind, a, b, c, d in matcher.get_opcodes():
        if kind == "equal":
            yield "same", "".join(new[c:d])
            continue
        if b > a:
            yield "removed", "".join(old[a:b])
        if d > c:
            yield "added", "".join(new[c:d])


_STYLES = {"same": "", "removed": "red strike", "added": "green"}
_MARKS = {"same": ("", ""), "removed": ("[-", "-]"), "added": ("{+", "+}")}


def word_diff(before: str, after: str, marked: bool) -> Text:
    """`after`, and what changed; both texts must be visible() already.

    `marked`: by [-removed-] {+added+}, where colour cannot say it.
    """
    from rich.text import Text

    text = Text()
    for kind, words in changes(before, after):
        opening, closing = _MARKS[kind] if marked else ("", "")
        bare = words.rstrip()
        # a word at the end of the old text has no space behind it
        text.append(opening + bare + closing, _STYLES[kind])
        text.append(words[len(bare) :] or ("" if kind == "added" else " "))
    text.rstrip()
    return text
