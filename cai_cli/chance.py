"""Chance as a function of (seed, row id, step), never of order: concurrency, resume and a cluster cannot change a row."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def _digest(key: tuple[object, ...]) -> bytes:
    return hashlib.blake2b("\x1f".join(map(str, key)).encode("utf-8", "surrogatepass"), digest_size=8).digest()


def unit(*key: object) -> float:
    """A number in [0, 1), uniform over keys."""
    return (int.from_bytes(_digest(key), "big") >> 11) / (1 << 53)


def nonce(*key: object) -> str:
    """Eight hexadecimal digits."""
    return _digest(key).hex()[:8]


def choose(options: Sequence[T], *key: object) -> T:
    """One of the options, each equally likely."""
    return options[int(unit(*key) * len(options))]


def weighted(names: Sequence[str], weights: Sequence[float], count: int, *key: object) -> list[str]:
    """`count` distinct names, drawn without replacement in proportion to their weights.

    Rendezvous hashing with exponential keys (Efraimidis and Spirakis 2006): each name's own draw decides, so a name added
    later changes only the picks that it wins. Names of weight 0 are never drawn.
    """
    drawn = ((name, weight) for name, weight in zip(names, weights, strict=True) if weight > 0)
    scores = [(-math.log(1.0 - unit(*key, name)) / weight, name) for name, weight in drawn]
    return [name for _, name in sorted(scores)[:count]]
