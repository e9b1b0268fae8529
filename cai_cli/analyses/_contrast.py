"""Two kinds of texts held against each other by their phrases, each prompt counted once."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from cai_cli import chance
from cai_cli.analyses._phrases import Phrases, Sampled, ngrams
from cai_cli.analyses._texts import opener

OPENER = 12  # words of a first sentence that count
HELD = 20_000_000  # characters of texts that wait for more rows of their prompt
REMEMBERED = 500_000  # prompts of which it is known that they were counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Contrast:
    """Which texts are held against which."""

    name: str
    here: str
    there: str  # empty: against nothing


class Compared:
    """One contrast: the texts of a prompt come together, and each phrase counts once for a prompt and side.

    Rows of a prompt may stand apart by up to `held` characters of text; where they stand farther apart, the prompt counts again
    with what comes then, and `again` says how often that was, among the first 500,000 prompts.
    """

    def __init__(self, contrast: Contrast, n: int, held: int = HELD) -> None:
        self.contrast, self.n = contrast, n
        self.rows = self.again = 0
        self.phrases, self.openers, self.sample = Phrases(), Phrases(), Sampled()
        self._limit, self._size = held, 0
        self._held: OrderedDict[object, tuple[set[str], set[str]]] = OrderedDict()  # the prompt seen last at the end
        self._counted: set[float] = set()

    def add(self, prompt: object, here: str, there: str) -> None:
        """Add a row's texts. Takes: the key of its prompt; `there` is not looked at where here is held against nothing"""
        self.rows += 1
        if prompt not in self._held:
            self._held[prompt] = set(), set()
            self.again += chance.unit(prompt) in self._counted
        self._held.move_to_end(prompt)
        for texts, text in zip(self._held[prompt], (here, there), strict=True):
            self._size += len(text) if text not in texts else 0
            texts.add(text)
        while self._size > self._limit:
            self._count()

    def flush(self) -> None:
        """Count the texts of the prompts that are over."""
        while self._held:
            self._count()

    def _count(self) -> None:
        prompt, texts = self._held.popitem(last=False)
        self._size -= sum(map(len, texts[0])) + sum(map(len, texts[1]))
        if len(self._counted) < REMEMBERED:
            self._counted.add(chance.unit(prompt))
        sides = texts[: 2 if self.contrast.there else 1]
        found = [set().union(*(ngrams(text, self.n) for text in side)) for side in sides]
        for at, side in enumerate(sides):
            self.phrases.add(at, found[at])
            self.openers.add(at, {opener(text, OPENER) for text in side} - {""})
        self.sample.add(prompt, found)
