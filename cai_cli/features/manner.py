"""How a text speaks: formal or not, sure or not, hard or easy to read. The lists are ours, short, and English."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable


def _lexicon(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split())


FORMAL = _lexicon(
    "accordingly additionally aforementioned albeit ascertain attempt commence comprise comprises consequently",
    "constitute constitutes demonstrate demonstrates determine endeavor endeavour facilitate furthermore hence",
    "henceforth hereby herein inform inquire investigate moreover nevertheless nonetheless notwithstanding obtain permit",
    "permits prior purchase pursuant regarding reside retain subsequent subsequently sufficient terminate thereby",
    "therefore thereof thus upon utilise utilize whereas whereby whilst whom",
)
INFORMAL = _lexicon(
    "ain't awesome bunch cool crazy cuz dad damn dude dunno folks fun gimme gonna gotta guy guys heck hey hi kid kidding",
    "kids kinda lemme loads lol lots mess mom mum nah nope ok okay oops pal plus sorta stuff sucks super tons wanna",
    "weird whatever wow ya yay yeah yep yup",
)
HEDGES = _lexicon(
    "apparently approximately arguably could doubtful generally likely mainly may maybe might mostly occasionally often",
    "perhaps possible possibly potentially presumably probable probably roughly seem seemingly seems sometimes somewhat",
    "suggest suggests suppose tend tends typically unclear unlikely unsure usually",
)
BOOSTERS = _lexicon(
    "absolutely always assuredly certain certainly clearly completely conclusively definite definitely entirely",
    "evidently fully guarantee guaranteed guarantees indeed inevitably invariably must never obvious obviously plainly",
    "precisely proven sure surely totally truly undeniable undeniably undoubtedly unquestionably utterly",
)
# Whatever stands around words, by the characters that do; an apostrophe within a word stays.
_APART = str.maketrans({**dict.fromkeys('.,;:!?()[]{}"*_“”«»…–—/|', " "), "’": "'"})
_CONTRACTED = re.compile(r"n't\b|\w'(?:re|ve|ll|d|m)\b|\b(?:it|that|there|here|what|who|he|she|let|where|how)'s\b")
LONG = 6  # letters that a long word has more than
HARDEST = 100.0  # points of LIX: what is above is no prose


def _log_ratio(more: int, less: int) -> float:
    return math.log((1 + more) / (1 + less))


def _hits(words: Iterable[str], wanted: frozenset[str]) -> int:
    return sum(map(wanted.__contains__, words))


def formality(text: str) -> float:
    """log((1 + formal words) / (1 + informal words)): above 0, more formal.

    Informal are slang, contractions and exclamation marks. Heylighen and Dewaele's F-score (2002) counts parts of speech, which
    takes a tagger; this one sees single words, English alone.
    """
    spoken = text.lower()
    words = spoken.translate(_APART).split()
    contracted = len(_CONTRACTED.findall(spoken.replace("’", "'"))) if "'" in spoken or "’" in spoken else 0
    return _log_ratio(_hits(words, FORMAL), _hits(words, INFORMAL) + contracted + spoken.count("!"))


def assertiveness(text: str) -> float:
    """log((1 + boosters) / (1 + hedges)): above 0, more assertive.

    The terms are Hyland's (1998, Text 18(3)); the lists are ours.
    """
    words = text.lower().translate(_APART).split()
    return _log_ratio(_hits(words, BOOSTERS), _hits(words, HEDGES))


def complexity(text: str) -> float:
    """LIX / 10, in [0, 10]: (words a sentence + 100 * words over six letters / words) / 10; 0 for a text without words.

    A sentence ends at . ! or ? before a space, or with its line, as in lists.
    Source: Björnsson 1968, Läsbarhet; Anderson 1983, Journal of Reading 26(6).
    """
    sizes = list(map(len, text.translate(_APART).split()))
    if not sizes:
        return 0.0
    lines = sum(map(bool, map(str.strip, text.split("\n"))))
    sentences = lines + sum(map(text.count, (". ", "! ", "? ")))
    lix = len(sizes) / sentences + 100 * sum(map(LONG.__lt__, sizes)) / len(sizes)
    return min(lix, HARDEST) / 10
