"""What was made of an object that comes again and again, such as a stage's model: made once, found by who it is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")
MOST = 64  # objects; more than a job has models


class Remembered(Generic[K, V]):
    """A function of one object, whose latest results are kept.

    Found by identity, not by equality: a model holds dicts, so it has no hash, and comparing it costs more than what is saved.
    The objects must not change. Those found again are kept alive, so that nobody else can have their place in memory.
    """

    __slots__ = ("_known", "make")

    def __init__(self, make: Callable[[K], V]) -> None:
        self.make = make
        self._known: dict[int, tuple[K, V]] = {}

    def __call__(self, thing: K) -> V:
        """What `make` gives, or gave. Raises: what it raises"""
        if (known := self._known.get(id(thing))) is not None:
            return known[1]
        if len(self._known) >= MOST:
            self._known.clear()
        value = self.make(thing)
        self._known[id(thing)] = (thing, value)
        return value
