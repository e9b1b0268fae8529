"""What was measured of each labeler: how its answers change with the order, and agree with gold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cai_cli import chance
from cai_cli.bias import aggregate, outcome, tokens
from cai_cli.bias.agreement import Agreement, agreement
from cai_cli.bias.estimate import Estimate, Floats, Ints
from cai_cli.bias.position import Swapped, first_slot_excess, position_from_probabilities, position_from_votes, swapped
from cai_cli.tables._columns import Columns
from cai_cli.tables._dimensions import Dimension, Opinions
from cai_cli.tables._evidence import Evidence
from cai_cli.tables._pilot import Pilot


@dataclass(frozen=True, slots=True, kw_only=True)
class Matched:
    """The votes of one labeler that answer one question in both orders."""

    ab: Ints  # where they stand among all votes
    ba: Ints

    @classmethod
    def of(cls, columns: Columns, k: int, pilot: Pilot) -> Matched:
        """Those of labeler k. Where its own answers decided what it was asked once more, only those that were asked anyway."""
        mine = columns.said & (columns.labeler == k)
        if columns.labelers[k] in pilot.shift:
            mine &= columns.chosen[columns.pair]
        elif pilot.pairs and not columns.soft[k]:
            mine &= columns.draw == 0
        ab, ba = (np.flatnonzero(mine & (columns.slot == first)).astype(np.int64) for first in (1, -1))
        _, in_ab, in_ba = np.intersect1d(columns.comparison[ab], columns.comparison[ba], assume_unique=True, return_indices=True)
        return cls(ab=ab[in_ab], ba=ba[in_ba])


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """How a labeler's answers change with the order. `matched`: the votes that tell it."""

    matched: Matched
    bias: Estimate
    swapped: Swapped
    excess: Estimate
    token: tokens.SlotAndToken | None  # None: nothing tells what the answers were called


@dataclass(frozen=True, slots=True, kw_only=True)
class Labeler:
    """What was measured of one labeler."""

    name: str
    soft: bool  # gives probabilities; else verdicts only
    votes: int
    abstained: int
    both_orders: int  # pairs it answered in both orders
    one_order: int
    position: Position
    dimensions: Sequence[Dimension]
    gold: Agreement
    broken: tuple[str, ...]  # what the model of a judge assumes and does not hold of it, in words


def position_of(columns: Columns, plain: Evidence, k: int, pilot: Pilot, seed: int) -> Position:
    """Takes: what all votes say, uncorrected; a labeler's number; what a pilot found"""
    matched, name = Matched.of(columns, k, pilot), columns.labelers[k]
    ab, ba = matched.ab, matched.ba
    p_ab, p_ba, prompt = columns.p[ab], columns.p[ba], columns.prompt[columns.pair[ab]]
    swaps = swapped(outcome.side(p_ab), -outcome.side(p_ba), prompt, seed_of(seed, name, "swapped"))
    if columns.soft[k]:
        both = plain.both[:, k] & (columns.chosen if name in pilot.shift else True)
        bias = position_from_probabilities(plain.orders[both, k, 0], plain.orders[both, k, 1])
    else:
        bias = position_from_votes(swaps.first_first, swaps.second_second)
    excess, token = _excess(columns, matched, k, seed), _token(columns, matched, k)
    return Position(matched=matched, bias=bias, swapped=swaps, excess=excess, token=token)


def _excess(columns: Columns, matched: Matched, k: int, seed: int) -> Estimate:
    both = np.concatenate([matched.ab, matched.ba])
    at = both if len(both) else np.flatnonzero(columns.said & (columns.labeler == k))
    p_first = np.where(columns.slot[at] > 0, columns.p[at], 1 - columns.p[at])
    return first_slot_excess(p_first, columns.prompt[columns.pair[at]], seed_of(seed, columns.labelers[k], "excess"))


def _token(columns: Columns, matched: Matched, k: int) -> tokens.SlotAndToken | None:
    """What is owed to the name of the first shown answer, and what to its slot."""
    names = columns.naming[matched.ab].astype(np.float64), columns.naming[matched.ba].astype(np.float64)
    if not (names[0].any() or names[1].any()):
        return None
    prompt = columns.prompt[columns.pair[matched.ab]]
    ab, ba = aggregate.logit(columns.p[matched.ab]), -aggregate.logit(columns.p[matched.ba])
    if columns.soft[k]:
        return tokens.token_and_slot(ab, ba, *names, prompt)
    return tokens.token_and_slot_from_votes(np.sign(ab).astype(np.int64), np.sign(ba).astype(np.int64), *names, prompt)


def opinions_of(columns: Columns, evidence: Evidence, k: int) -> Opinions:
    """A labeler's logits, free of position, and which answers are its own."""
    mine = columns.labeler == k
    own = np.zeros(len(columns.prompt))
    own[columns.pair[mine]] = columns.own[mine]
    return Opinions(logit=evidence.logits[:, k], soft=bool(columns.soft[k]), own=own)


def with_gold(columns: Columns, logit: Floats, name: str, seed: int) -> Agreement:
    """How a labeler agrees with gold, where it gave an opinion."""
    judged = np.isfinite(logit) & (np.abs(columns.gold) <= 1)
    sides = outcome.side(aggregate.probability(logit[judged]))
    return agreement(sides, columns.gold[judged], columns.prompt[judged], seed_of(seed, name, "gold"))


def seed_of(seed: int, *key: str) -> int:
    return int(chance.nonce(seed, "debias", *key), 16)
