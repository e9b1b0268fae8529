"""Pairs and votes as columns: what is said of labels needs of rows, numbers and names, no text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import numpy as np

from cai_cli.analyses import Row
from cai_cli.analyses._columns import Table, column
from cai_cli.analyses._pairs import SIDES, Said, cluster, is_selected, said, side, swapped, text, texts, truth
from cai_cli.analyses._result import Number
from cai_cli.analyses._texts import length
from cai_cli.bias.estimate import Bools

BOTH_ORDERS = "both"  # of a vote whose question was asked the other way round too
BALANCED = 0.1  # how far from half the share of one order may be, where orders are drawn by chance
NOT_TOLD, NO_VERDICT = "not told", "none: abstained"
OTHER_NAME = "(none)"  # of a column that a row has not


@dataclass(slots=True)
class Judged:
    """What is kept of the rows: numbers and names, no text."""

    pairs: Table = field(
        default_factory=lambda: Table(
            ("side", "kind", "by", "source"), ("p", "longer_won", "chosen_words", "rejected_words", "consistent")
        )
    )
    votes: Table = field(
        default_factory=lambda: Table(
            ("labeler", "principle", "said", "basis", "asked"), ("confidence", "first_won", "with_label")
        )
    )
    swaps: Table = field(default_factory=lambda: Table(("labeler",), ("same_slot", "same_winner")))
    flags: Counter[str] = field(default_factory=Counter)
    bad_votes: int = 0
    selected: int = 0  # rows with votes that debias kept

    def add(self, row: Row, by: str | None) -> None:
        given, bad = said(row)
        self.bad_votes += bad
        self.selected += bool(given) and is_selected(row)
        label, p = side(row, given)
        key = cluster(row)
        won = texts(row, label)
        words = [length(one) for one in won] if won else [None, None]
        self.pairs.add(
            key, side=label or ("chosen" if won else ""), kind=text(row, "kind") or OTHER_NAME,
            by=(column(row, by) or OTHER_NAME) if by else "", source=_revised(row, label), p=p, longer_won=_longer(words),
            chosen_words=words[0], rejected_words=words[1], consistent=truth(row, "consistent"),
        )  # fmt: skip
        if isinstance(flags := row.get("flags"), list):
            self.flags.update(flag for flag in flags if isinstance(flag, str))
        self._add_votes(key, given, label)

    def _add_votes(self, key: float, given: Sequence[Said], label: str) -> None:
        both = list(swapped(given))
        asked = {id(one): BOTH_ORDERS for pair in both for one in pair}
        for one in given:
            sure = None if one.p is None else max(one.p, 1 - one.p)
            agrees = float(one.side == label) if one.side and label in SIDES else None
            self.votes.add(
                key, labeler=one.vote.labeler, principle=one.vote.principle or OTHER_NAME, said=one.side or "abstain",
                basis=one.vote.basis or _basis(one), asked=asked.get(id(one), one.order if one.p is not None else ""),
                confidence=sure, first_won=one.first_won, with_label=agrees,
            )  # fmt: skip
        for ab, ba in both:
            decided = ab.first_won is not None and ba.first_won is not None
            self.swaps.add(
                key, labeler=ab.vote.labeler, same_slot=decided and ab.first_won == ba.first_won, same_winner=ab.side == ba.side
            )


def _longer(words: Sequence[int | None]) -> float | None:
    """1 where the longer one won, 0 where the shorter one did; None: equally long, or not known."""
    won, lost = words
    return None if won is None or lost is None or won == lost else float(won > lost)


def _basis(one: Said) -> str:
    return NOT_TOLD if one.p is not None else NO_VERDICT


def _revised(row: Row, label: str) -> str:
    """Where a revision stood against a first response: which of them won. Empty: no such pair."""
    marks = {name: text(row, f"source_{name}").rpartition(":")[2] for name in ("a", "b")}
    if set(marks.values()) != {"initial", "revised"}:
        return ""
    return marks.get(label, "tie" if label == "tie" else "")


def labelled(seen: Judged) -> Bools:
    """Pairs that have a side."""
    found = [seen.pairs.where("side", name) for name in SIDES]
    return np.asarray(found[0] | found[1] | found[2])


def slots(seen: Judged, labeler: str) -> Bools:
    """The votes that tell whether a labeler likes a slot: of questions asked in both orders; where there are none, all whose
    order was drawn by chance. None where the order never varied, as then the slot is not told from what stands in it."""
    votes, mine = seen.votes, seen.votes.where("labeler", labeler)
    both = mine & votes.where("asked", BOTH_ORDERS)
    if both.any():
        return both
    one = mine & (votes.where("asked", "ab") | votes.where("asked", "ba"))
    share = votes.share(votes.where("asked", "ab"), one)
    if share.value is None or share.low is None or share.high is None or not 0 < share.value < 1:
        return both
    return one if abs(share.value - 0.5) <= BALANCED or share.low <= 0.5 <= share.high else both


def alone(seen: Judged, labelers: Collection[str]) -> float:
    """The share of these labelers' votes whose question was not answered in the other order."""
    mine = np.any([seen.votes.where("labeler", name) for name in labelers], axis=0) & np.isfinite(seen.votes["confidence"])
    return float((~seen.votes.where("asked", BOTH_ORDERS))[mine].mean())


def first_won(seen: Judged, labeler: str) -> Number:
    return seen.votes.mean_share(seen.votes["first_won"], slots(seen, labeler))


def favours(half: Number) -> str:
    """first: the interval lies above .5; second: below it; empty: neither."""
    if half.low is None or half.high is None:
        return ""
    return "first" if half.low > 0.5 else "second" if half.high < 0.5 else ""
