"""What changed between two texts, word by word."""

from __future__ import annotations

import difflib
import itertools
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
    for old, new, same in _runs(before, after):
        if same:
            yield "same", new
            continue
        if old:
            yield "removed", old
        if new:
            yield "added", new


def _runs(before: str, after: str) -> Iterator[tuple[str, str, bool]]:
    """Both texts in runs: as it was, as it is now, whether these are the same words. Spaces are each text's own."""
    old, new = _WORD.findall(before.lstrip()), _WORD.findall(after.lstrip())
    matcher = difflib.SequenceMatcher(
        None, [word.rstrip() for word in old], [word.rstrip() for word in new], len(old) + len(new) > _COMMON
    )
    for kind, a, b, c, d in matcher.get_opcodes():
        yield "".join(old[a:b]), "".join(new[c:d]), kind == "equal"


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


# Side by side.

_END = re.compile(r"\S*[.!?:;][\"')\]]*(?:\s+|\Z)|\S*\n\s*")  # of a sentence, or of a line
_ENDED = re.compile(r"(?s).*([.!?:;][\"')\]]*\s*|\n\s*)")


def side_by_side(before: str, after: str, marked: bool) -> list[tuple[Text, Text]]:
    """Both texts, cut where they say the same, so that what was changed stands beside what it was. Both must be visible().

    `marked`: what changed is marked by [-removed-] {+added+}, where colour cannot say it.
    """
    from rich.text import Text

    rows = [(Text(), Text())]
    for pieces, same in _pieces(list(_runs(before, after))):
        for n, (left, right) in enumerate(pieces):
            if n:
                rows.append((Text(), Text()))
            _put(rows[-1][0], left, "same" if same else "removed", marked)
            _put(rows[-1][1], right, "same" if same else "added", marked)
    for text in (text for row in rows for text in row):
        text.rstrip()
    return [row for row in rows if row[0].plain or row[1].plain]


Pieces = list[tuple[str, str]]


def _pieces(runs: list[tuple[str, str, bool]]) -> Iterator[tuple[Pieces, bool]]:
    """The runs, each in pieces that begin a row of their own but for the first, which goes on in the row before."""
    for at, (old, new, same) in enumerate(runs):
        if not same:
            yield [(old, new)], False
            continue
        changed = runs[at - 1][:2] if at else ("", "")
        whole = all(_ENDED.fullmatch(text) for text in changed if text)  # the change ends where a sentence does
        pieces = _cut(old, new, at > 0 and not whole, at < len(runs) - 1)
        yield ([("", ""), *pieces] if at and whole else pieces), True


def _put(text: Text, words: str, kind: Change, marked: bool) -> None:
    opening, closing = _MARKS[kind] if marked and words else ("", "")
    bare = words.rstrip()
    text.append(opening + bare + closing, _STYLES[kind])
    text.append(words[len(bare) :])


def _cut(old: str, new: str, first: bool, last: bool) -> Pieces:
    """The same words of both texts, cut behind the first sentence that ends in them, where a change ended in it, and before
    the last one that begins in them, where the next change may be in it.
    """
    ends = [(one.end(), other.end()) for one, other in zip(_END.finditer(old), _END.finditer(new), strict=False)]
    if len(ends) != len(_END.findall(new)) or len(ends) != len(_END.findall(old)):
        return [(old, new)]  # other line ends
    wanted = [*(ends[:1] if first else []), *(ends[-1:] if last else [])]
    marks = [(0, 0), *dict.fromkeys(wanted), (len(old), len(new))]
    return [(old[a:b], new[c:d]) for (a, c), (b, d) in itertools.pairwise(marks)]
