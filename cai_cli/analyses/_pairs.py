"""Pairs as analyses see them, from rows of ours or of anybody: the side that won, what voters said, how long the texts are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cai_cli import chance, votes
from cai_cli.errors import Reject
from cai_cli.records import Vote

SIDES = {"a": 0, "b": 1, "tie": 2}  # categories of a judgement
MIRROR = (1, 0, 2)  # what they become when the two answers change places
MOST_DRAWS = 10_000  # a draw beyond is no number of a draw
SELECTED = (
    "these are rows that debias kept, the surer ones, so that votes look better than they are: over all pairs, the rows of "
    "label-pairs, labelers and orders agree less, and more are ties"
)
Row = Mapping[str, Any]


def text(row: Row, name: str) -> str:
    """A column that may be there; empty where it is not, or holds no text."""
    value = row.get(name)
    return value if isinstance(value, str) else ""


def number(row: Row, name: str) -> float | None:
    """A column that may be there; None where it is not, or holds no finite number. A table of text has its numbers as text."""
    value = row.get(name)
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        return None
    try:
        found = float(value)
    except (ValueError, OverflowError):
        return None
    return found if math.isfinite(found) else None


def listed(row: Row, name: str) -> list[Row]:
    """The objects of a column that holds a list of them; none where it does not."""
    value = row.get(name)
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def truth(row: Row, name: str) -> float | None:
    """1 or 0 of a column that holds true or false, as such or as text; None where it is not there, or holds neither."""
    value = row.get(name)
    return {"true": 1.0, "false": 0.0}.get(str(value).lower()) if isinstance(value, (bool, str)) else None


def cluster(row: Row) -> float:
    """The key of the row's prompt, in [0, 1): of its prompt_id, else of its prompt's text, else of its id."""
    named = next((str(row[name]) for name in ("prompt_id", "prompt", "id") if row.get(name)), "")
    return chance.unit(named or last_text(row.get("chosen")))


def last_text(value: Any) -> str:
    """A response as text: of a list of messages the last one's, of a transcript what follows its last Assistant mark."""
    if isinstance(value, str):
        return value.rpartition("\n\nAssistant:")[2]
    last = value[-1] if isinstance(value, list) and value else None
    return text(last, "content") if isinstance(last, dict) else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """A vote that can be read. `p`: the probability that a is better; None: it abstained. `order`: empty where it is not told."""

    vote: Vote
    p: float | None
    order: str

    @property
    def side(self) -> str:
        """a, b or tie; empty: it abstained."""
        return "" if self.p is None else votes.preference_of(self.p)

    @property
    def first_won(self) -> float | None:
        """1 where what was shown first won, 0 where the second did; None: a tie, an abstention, or an unknown order."""
        if not self.order or self.side not in ("a", "b"):
            return None
        return float(self.side == self.order[0])


def said(row: Row) -> tuple[list[Said], int]:
    """The votes of a row that can be read, and how many cannot."""
    found = [_said(vote) for vote in listed(row, "votes")]
    known = [one for one in found if one is not None]
    return known, len(found) - len(known)


def _said(given: Row) -> Said | None:
    order, draw = text(given, "order"), given.get("draw")
    p, verdict = number(given, "p_a"), text(given, "verdict")
    vote = Vote(
        labeler=text(given, "labeler") or "labeler", principle=text(given, "principle"), order=order or "ab",
        draw=draw if isinstance(draw, int) and abs(draw) < MOST_DRAWS else 0, verdict=verdict or "abstain", p_a=p,
        confidence=number(given, "confidence"), basis=text(given, "basis"),
    )  # fmt: skip
    try:
        return Said(vote=vote, p=votes.probability(vote), order=order)
    except Reject:
        return None


def pooled(given: Sequence[Said]) -> float | None:
    """The probability that a is better after all of these votes; None where they say nothing."""
    return votes.pool([one.vote for one in given])


def side(row: Row, given: Sequence[Said]) -> tuple[str, float | None]:
    """The row's label, a, b, tie or empty, and its probability that a is better.

    From `preference` and `p_a`; where they are absent, from which response is the chosen one, or else from the votes.
    """
    p, label = number(row, "p_a"), text(row, "preference")
    p = p if p is not None and 0 <= p <= 1 else None
    if p is None and label not in SIDES:
        chosen = row.get("chosen")
        label = next((name for name in ("a", "b") if chosen and chosen == row.get(f"response_{name}")), "")
        p = None if label else pooled(given)
    if label not in SIDES:
        label = "" if p is None else votes.preference_of(p)
    return label, p


def is_selected(row: Row) -> bool:
    """Whether debias made the row, which leaves out ties and what votes do not agree on."""
    return "p_a_raw" in row and "margin" in row


def texts(row: Row, label: str) -> tuple[str, str] | None:
    """The response that won and the one that lost; None where neither won, or a text is missing."""
    if label in ("a", "b"):
        won, lost = row.get(f"response_{label}"), row.get("response_b" if label == "a" else "response_a")
    else:
        won, lost = (None, None) if "response_a" in row else (row.get("chosen"), row.get("rejected"))
    if won is None or lost is None:
        return None
    return last_text(won), last_text(lost)


def by_labeler(given: Sequence[Said]) -> dict[str, list[Said]]:
    found: dict[str, list[Said]] = {}
    for one in given:
        found.setdefault(one.vote.labeler, []).append(one)
    return found


def swapped(given: Sequence[Said]) -> Iterator[tuple[Said, Said]]:
    """Votes that answer one question in both orders, ab before ba: the same labeler, principle and draw."""
    asked: dict[tuple[str, str, int], dict[str, Said]] = {}
    for one in given:
        if one.order and one.p is not None:
            asked.setdefault((one.vote.labeler, one.vote.principle, one.vote.draw), {})[one.order] = one
    yield from ((both["ab"], both["ba"]) for both in asked.values() if len(both) == 2)
