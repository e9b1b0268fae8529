"""Phrases that two sets of texts share, counted in bounded memory, and how much more often one side says them."""

from __future__ import annotations

import heapq
import math
from array import array
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from cai_cli import chance
from cai_cli.analyses._result import Number
from cai_cli.analyses._texts import in_sentences
from cai_cli.bias.interval import wilson
from cai_cli.bias.multiple import benjamini_hochberg

LIMIT = 500_000  # phrases kept at once, some 100 MB
SAMPLED = 1000  # prompts whose phrases are all remembered
MOST_WORDS = 1000  # of a text, that are looked at
PRIOR = 0.1  # weight of the prior, as a share of what was counted
FALSE = 0.05  # share of the phrases called distinctive that may be so by chance
_Z = 1.959964
_JOINED = 16  # words that a phrase joined of several has at most
_ALIKE = 0.8  # a part lengthens a phrase where it is that frequent, as a share of the first part's: else it goes on in many ways


def ngrams(text: str, n: int) -> set[str]:
    """The different runs of n words within the sentences of a text."""
    found: set[str] = set()
    for sentence in in_sentences(text, MOST_WORDS):
        found.update(map(" ".join, zip(*(sentence[at:] for at in range(n)), strict=False)))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Phrase:
    """A phrase, and the share of prompts of either side that have it in a text."""

    text: str
    here: Number
    there: Number
    log_odds: Number  # above 0: more of it here


class Phrases:
    """In how many prompts' texts each phrase stands, on two sides: here, which is looked at, and there, which it is held against.

    When more than 500,000 phrases are kept, the rarest half is forgotten (lossy counting: Manku and Motwani 2002). A count is
    then too low by at most `missed`, and no phrase of more prompts than that is lost.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.prompts = [0, 0]
        self.missed = 0
        self._limit = limit
        self._both: Counter[str] = Counter()
        self._here: Counter[str] = Counter()

    def add(self, side: int, phrases: Collection[str]) -> None:
        """Add what the texts of one prompt hold. Takes: 0 for here, 1 for there; different phrases"""
        self.prompts[side] += 1
        self._both.update(phrases)
        if side == 0:
            self._here.update(phrases)
        if len(self._both) > self._limit:
            self._forget()

    def _forget(self) -> None:
        sizes, left, least = Counter(self._both.values()), len(self._both), 0
        while left > self._limit // 2:
            least += 1
            left -= sizes[least]
        self._both = Counter({text: count for text, count in self._both.items() if count > least})
        self._here = Counter({text: count for text, count in self._here.items() if text in self._both})
        self.missed += least

    def frequent(self, least: int, most: int) -> list[Phrase]:
        """Those in the texts of at least `least` prompts here, the most frequent first; equally frequent ones by the alphabet."""
        found = ((count, text) for text, count in self._here.items() if count >= least)
        return [self.phrase(text) for _, text in heapq.nsmallest(most, found, key=lambda one: (-one[0], one[1]))]

    def distinctive(self, least: int, most: int) -> list[Phrase]:
        """Those in the texts of at least `least` prompts here that are more frequent here beyond chance, the surest first.

        Tested: every phrase of at least `least` prompts on both sides together, so that no side chooses which, two-sided, with
        Benjamini-Hochberg over all of them: of what is given at most 5% is expected to be chance.
        """
        tested = [text for text, count in self._both.items() if count >= least]
        chances = benjamini_hochberg([self._p(text) for text in tested]) if all(self.prompts) else [1.0] * len(tested)
        few = [text for text, p in zip(tested, chances, strict=True) if p < FALSE and self._here[text] >= least]
        found = (one for one in map(self.phrase, few) if (one.log_odds.value or 0.0) > 0)
        return heapq.nsmallest(most, found, key=lambda one: (-(one.log_odds.low or 0.0), one.text))

    def _p(self, text: str) -> float:
        here = self._here[text]
        value, error = self._difference(here, self._both[text] - here)
        return math.erfc(abs(value) / error / math.sqrt(2))

    def phrase(self, text: str) -> Phrase:
        """A phrase with its numbers."""
        here = self._here[text]
        there = self._both[text] - here
        return Phrase(
            text=text,
            here=_share(here, self.prompts[0]),
            there=_share(there, self.prompts[1]),
            log_odds=self._log_odds(here, there),
        )

    def _log_odds(self, here: int, there: int) -> Number:
        """How much more often it stands here, as a difference of log-odds with an informative prior.

        Formula: with a = PRIOR * (here + there) and A = PRIOR * all prompts of both sides, log((here + a) / (n + A - here - a))
        minus the same there; variance: the sum of 1 / each of the four.
        Assumes: prompts are independent, and both sides of one prompt as well, which makes the interval rather too long.
        Source: Monroe, Colaresi and Quinn 2008, "Fightin' words", section 3.3.5, with two outcomes, a prompt has it or not. The
            size of the prior, a tenth of the counts, is ours.
        """
        if not all(self.prompts) or not here + there:
            return Number(value=None, unit="log-odds")
        value, error = self._difference(here, there)
        half = _Z * error
        return Number(value=value, low=value - half, high=value + half, n=sum(self.prompts), unit="log-odds")

    def _difference(self, here: int, there: int) -> tuple[float, float]:
        """The difference of log-odds, and its standard error."""
        a, total = PRIOR * (here + there), PRIOR * sum(self.prompts)
        have = [here + a, there + a]
        lack = [max(n + total - one, PRIOR) for n, one in zip(self.prompts, have, strict=True)]
        value = math.log(have[0] / lack[0]) - math.log(have[1] / lack[1])
        return value, math.sqrt(sum(1 / one for one in (*have, *lack)))


def _share(hits: int, n: int) -> Number:
    low, high = wilson(hits, n) if n else (None, None)
    return Number(value=hits / n if n else None, low=low, high=high, n=n, unit="share")


class Sampled:
    """The phrases of up to 1,000 prompts, those with the smallest hash of their id, so that no order of rows decides which."""

    def __init__(self) -> None:
        self._kept: list[tuple[float, int, tuple[array[int], ...]]] = []
        self._added = 0

    def add(self, key: object, sides: Iterable[Collection[str]]) -> None:
        """Takes: the prompt's key; its different phrases on each side"""
        self._added += 1
        rank = -chance.unit("boilerplate", key)
        if len(self._kept) < SAMPLED or rank > self._kept[0][0]:
            one = (rank, self._added, tuple(array("q", map(hash, side)) for side in sides))
            (heapq.heappush if len(self._kept) < SAMPLED else heapq.heapreplace)(self._kept, one)

    def touched(self, side: int, phrases: Iterable[str]) -> Number:
        """The share of prompts whose texts on a side hold any of the phrases."""
        sought = set(map(hash, phrases))
        return _share(sum(not sought.isdisjoint(one[2][side]) for one in self._kept), len(self._kept))


def joined(phrases: Sequence[Phrase], most: int) -> list[tuple[Phrase, str]]:
    """Runs of words that overlap by more than half, put together, as they are parts of one phrase.

    Takes: the phrases, the first to be shown at the front
    Gives: at most `most` of them, each with the words of all its parts; its numbers are those of the part that came first.
    """
    found: list[tuple[Phrase, list[str], list[list[str]]]] = []
    for one in phrases:
        parts = one.text.split()
        group = next((group for group in found if any(_overlap(member, parts) for member in group[2])), None)
        if group is None:
            if len(found) < most:
                found.append((one, parts[:], [parts]))
            continue
        group[2].append(parts)
        if (one.here.value or 0) >= _ALIKE * (group[0].here.value or 0):
            group[1][:] = _extended(group[1], parts)
    return [(one, " ".join(whole)) for one, whole, _ in found]


def _overlap(left: list[str], right: list[str]) -> bool:
    return any(_meets(left, right, size) or _meets(right, left, size) for size in range(len(left) // 2 + 1, len(left)))


def _meets(left: list[str], right: list[str], size: int) -> bool:
    return left[-size:] == right[:size]


def _extended(whole: list[str], part: list[str]) -> list[str]:
    """The words with those of a part that begins before them or ends after them; as they are where it meets neither end."""
    for size in range(len(part) - 1, len(part) // 2, -1):
        if len(whole) + len(part) - size > _JOINED:
            break
        if _meets(whole, part, size):
            return whole + part[size:]
        if _meets(part, whole, size):
            return part[:-size] + whole
    return whole
