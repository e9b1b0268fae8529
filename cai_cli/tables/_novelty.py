"""Which of many drafted prompts are new: near-duplicates and what a test set holds are left out, and how varied the rest is.

Two texts are compared word by word, by ROUGE-L: 2 L / (m + n), where m and n are their numbers of words and L is the length of
the longest common subsequence. 1: the same words in the same order; 0: no word in common. Case and punctuation do not count.
The same filter, at the same .7, is in Wang et al. 2023, arXiv 2212.10560, section 2.2.
"""

from __future__ import annotations

import hashlib
import itertools
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Reason = Literal["empty", "too_long", "contaminated", "near_duplicate", "surplus"]

CHUNK = 64  # texts compared at once: with 100,000 others that is a table of 26 MB
_SURROGATES, _HALVES = 0xD800, 0x800  # code points that are no characters
# Scripts that put no spaces between words: each character counts as one.
_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_WORD = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+")


def words(text: str) -> list[str]:
    """The words of a text, folded, without punctuation."""
    return _WORD.findall(unicodedata.normalize("NFKC", text).casefold())


@dataclass(frozen=True, slots=True)
class Near:
    """The most similar of the texts that a text was compared with. `at`: its place; -1: none has a word in common with it."""

    at: int = -1
    similarity: float = 0.0  # in [0, 1], to four digits


class Vocabulary:
    """Spells a text with one character a word: rapidfuzz compares strings many times faster than lists of words."""

    def __init__(self) -> None:
        self._characters: dict[str, str] = {}

    def spelled(self, text: str) -> str:
        """Raises: ValueError after 1,112,063 different words, which is as many characters as there are"""
        return "".join(self._characters.get(word) or self._new(word) for word in words(text))

    def _new(self, word: str) -> str:
        number = len(self._characters) + 1
        self._characters[word] = chr(number if number < _SURROGATES else number + _HALVES)
        return self._characters[word]


def similarities(some: Sequence[str], others: Sequence[str]) -> Any:
    """ROUGE-L of each spelled text with each of the others: a numpy table in [0, 1], in single precision."""
    from rapidfuzz.distance import Indel  # not needed to read a config
    from rapidfuzz.process import cdist

    # 2 L / (m + n) is what this similarity is. Threads change when a cell is filled, not what is in it.
    return cdist(some, others, scorer=Indel.normalized_similarity, dtype="float32", workers=-1)


def nearest(some: Sequence[str], others: Sequence[str]) -> list[Near]:
    """The most similar text to each of some spelled texts, the first of equally similar ones."""
    if not others or not some:
        return [Near()] * len(some)
    table = similarities(some, others)
    best = ((int(at), _rounded(table[n, at])) for n, at in enumerate(table.argmax(axis=1)))
    return [Near(at, similarity) if similarity else Near() for at, similarity in best]


def _rounded(similarity: Any) -> float:
    return round(float(similarity), 4)


@dataclass(frozen=True, slots=True)
class New:
    """A draft that is kept, under which id, and what comes nearest to it."""

    id: str
    nearest: str  # an id; empty: no word in common with anything
    similarity: float


@dataclass(frozen=True, slots=True)
class Filtered:
    """A draft that is left out; never a reject."""

    reason: Reason


class Selection:
    """Decides over drafts one after the other: each is compared with the test set, the seeds and what was kept before it.

    Takes: the seeds as (id, text), the texts of the test set, how many are wanted of each stratum, the similarity from which
    on two texts count as one, in (0, 1], the most characters of a text
    """

    def __init__(
        self, seeds: Iterable[tuple[str, str]], against: Iterable[str], wanted: Sequence[int], similarity: float, max_chars: int
    ) -> None:
        self.wanted, self.similarity, self.max_chars = wanted, similarity, max_chars
        self.kept = [0] * len(wanted)
        self._vocabulary = Vocabulary()
        self._against = [self._vocabulary.spelled(text) for text in against]
        self._ids: list[str] = []
        self._seen: list[str] = []
        for name, text in seeds:
            self._see(name, self._vocabulary.spelled(text))

    def _see(self, name: str, spelled: str) -> None:
        self._ids.append(name)
        self._seen.append(spelled)

    def sort(self, drafts: Sequence[tuple[int, str]]) -> Iterator[New | Filtered]:
        """What becomes of each draft, a stratum's place and a text, in order."""
        for start in range(0, len(drafts), CHUNK):
            yield from self._sort(drafts[start : start + CHUNK])

    def _sort(self, drafts: Sequence[tuple[int, str]]) -> Iterator[New | Filtered]:
        spelled = [self._vocabulary.spelled(text) for _, text in drafts]
        tested, known = nearest(spelled, self._against), nearest(spelled, self._seen)
        among = similarities(spelled, spelled)
        fresh: dict[int, int] = {}  # drafts of this chunk that are kept -> their place among all that is kept
        for n, (stratum, text) in enumerate(drafts):
            here = [Near(place, _rounded(among[n, other])) for other, place in fresh.items()]
            near = max([known[n], *here], key=lambda one: one.similarity)
            reason = self._reason(stratum, text, spelled[n], tested[n], near)
            if reason is not None:
                yield Filtered(reason)
                continue
            fresh[n] = len(self._ids)
            yield self._keep(stratum, text, spelled[n], near)

    def _reason(self, stratum: int, text: str, spelled: str, tested: Near, near: Near) -> Reason | None:
        found: dict[Reason, bool] = {
            "empty": not spelled,
            "too_long": len(text) > self.max_chars,
            "contaminated": tested.similarity >= self.similarity,
            "near_duplicate": near.similarity >= self.similarity,
            "surplus": self.kept[stratum] >= self.wanted[stratum],
        }
        return next((reason for reason, holds in found.items() if holds), None)

    def _keep(self, stratum: int, text: str, spelled: str, near: Near) -> New:
        new = New(name_of(text), self._ids[near.at] if near.similarity else "", near.similarity)
        self.kept[stratum] += 1
        self._see(new.id, spelled)
        return new


def name_of(text: str) -> str:
    """A prompt's id: the beginning of its text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# How varied a set of prompts is.


def distinct_2(texts: Iterable[str]) -> float | None:
    """The share of pairs of neighbouring words that are different ones, over all texts, in (0, 1]; None: there is no pair.

    It falls as a set grows, so compare sets of one size. Source: Li et al. 2016, arXiv 1510.03055, who divide by the number of
    words.
    """
    pairs = [pair for text in texts for pair in itertools.pairwise(words(text))]
    return len(set(pairs)) / len(pairs) if pairs else None


def mean(numbers: Sequence[float]) -> float | None:
    """None: of nothing."""
    return sum(numbers) / len(numbers) if numbers else None
