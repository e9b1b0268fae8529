"""Which response of a pair is changed, drawn by the texts: with a and b exchanged, the same text is changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from cai_cli import chance
from cai_cli.features import FEATURES
from cai_cli.probes import Variant
from cai_cli.records import Pair, Side

Rewrite = Callable[[str, tuple[object, ...]], str]  # (text, key of what is drawn) -> the text changed; "" where it cannot be

LEAST = 1e-9  # of a feature: what moves less than this is not moved


def sides(pair: Pair, seed: int, probe: str) -> Iterator[tuple[Side, str, tuple[object, ...]]]:
    """Both responses, the one that is drawn at the front: side, text, and the key of whatever else is drawn for it.

    Gives: nothing where they are the same text, as then nothing tells a from b
    """
    if pair.response_a == pair.response_b:
        return
    both: list[tuple[Side, str]] = [("a", pair.response_a), ("b", pair.response_b)]
    drawn = [(chance.unit(seed, pair.id, probe, text), side, text) for side, text in both]
    for _, side, text in sorted(drawn, key=lambda one: one[0]):
        yield side, text, (seed, pair.id, probe, text)


def with_text(pair: Pair, side: Side, text: str) -> Pair:
    """The pair with another text on one side."""
    return replace(pair, response_a=text) if side == "a" else replace(pair, response_b=text)


def moved(pair: Pair, seed: int, probe: str, feature: str, *rewrites: Rewrite) -> Variant | None:
    """One response rewritten so that a feature of it moves: the first that can be, in the order that is drawn.

    Takes: what to try, each in turn where the one before cannot; which goes first is drawn too
    Gives: None where no rewriting moves the feature of either response
    """
    for side, text, key in sides(pair, seed, probe):
        for rewrite in sorted(rewrites, key=lambda one: chance.unit(*key, one.__name__)):
            changed = rewrite(text, key)
            change = FEATURES[feature].between(changed, text) if changed else 0.0
            if abs(change) > LEAST:
                return Variant(pair=with_text(pair, side, changed), change=change if side == "a" else -change)
    return None


def one_more(pair: Pair, seed: int, probe: str, rewrite: Rewrite) -> Variant | None:
    """One response rewritten where no feature tells how much: the change is 1, toward the response that was rewritten."""
    for side, text, key in sides(pair, seed, probe):
        if (changed := rewrite(text, key)) and changed != text:
            return Variant(pair=with_text(pair, side, changed), change=1.0 if side == "a" else -1.0)
    return None
