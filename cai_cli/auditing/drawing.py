"""Which pairs are put before people: each with a known probability, more of those where a label is likelier to be wrong.

Poisson sampling with permanent random numbers: a pair is drawn where its own number u, a hash of its id, is below its
probability. So its draw depends on the pair alone, and a larger sample holds the smaller one.
Source: Brewer, Early and Joyce 1972, "Selecting several samples from a single population", Austral. J. Statist. 14; Ohlsson 1995,
"Coordination of samples using permanent random numbers".
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cai_cli import chance, votes
from cai_cli.records import Pair

UNCERTAIN = 0.5  # from here on uncertainty is told as a reason


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A pair and its label. `p_a`: of the labels under audit: after debias where it kept the pair, else the votes' own."""

    pair: Pair
    p_a: float  # in [0, 1]
    kept: bool = True  # debias kept it, so that exports train on it

    @property
    def label(self) -> str:
        """a, b or tie."""
        return votes.preference_of(self.p_a)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawn:
    """A pair that was put before people. What of it they must not see stands here, and not in what they fill in."""

    id: str
    prompt_id: str
    first: str  # a | b: which response they see as response 1
    size: float  # how likely it is to be drawn, beside a pair without any reason: 1 to 5
    content: str  # a hash of its two responses
    why: tuple[str, ...] = ()  # floor | uncertain | tie | conflict | harmful


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """One sample: the probability of a pair is min(1, scale * size)."""

    number: int  # 1 is the first
    seed: int
    scale: float  # inf: every pair
    wanted: float  # pairs that were asked for: the expected number
    labels: str  # STAGE/VERSION whose labels are audited
    fingerprint: str  # of that version
    pairs: int  # in the frame: all that have a label
    prompts: int  # they answer so many
    drawn: tuple[Drawn, ...]  # by this sample and by none before it

    def probability(self, size: float) -> float:
        """Of a pair of that size, in (0, 1]."""
        return 1.0 if math.isinf(self.scale) else min(1.0, self.scale * size)


def reasons(judged: Judged) -> Mapping[str, float]:
    """Why a pair is worth a look, each reason in [0, 1].

    uncertain: 1 - |2 p_a - 1|; tie: the label is one; conflict: a labeler contradicts itself when the order is swapped, or two
    contradict one another; harmful: its prompt is marked so.
    """
    conflict = judged.pair.consistent is False or _disagree(judged.pair)
    return {
        "uncertain": 1 - abs(2 * judged.p_a - 1), "tie": float(judged.label == "tie"), "conflict": float(conflict),
        "harmful": float(judged.pair.kind == "harmful"),
    }  # fmt: skip


def _disagree(pair: Pair) -> bool:
    """Whether one labeler prefers a and another one b."""
    names = {vote.labeler for vote in pair.votes}
    if len(names) < 2:
        return False
    pooled = (votes.pool([vote for vote in pair.votes if vote.labeler == name]) for name in names)
    return len({votes.preference_of(p) for p in pooled if p is not None} - {"tie"}) > 1


def size_of(found: Mapping[str, float]) -> float:
    """1, which every pair has, and 1 for each whole reason: no pair is more than five times as likely as another.

    Weights then differ by a factor of five at most. Neyman's optimum for a share, the root of q(1-q) with a chance q of being
    wrong, differs by less than three between .05 and .5: more of a preference would cost more than it brings.
    """
    return 1 + sum(found.values())


def scale_for(sizes: Sequence[float], wanted: float) -> float:
    """The c with sum of min(1, c * size) = wanted; inf where all are wanted.

    Takes: sizes >= 1; wanted > 0, the expected number of pairs
    """
    if wanted >= len(sizes):
        return math.inf
    ordered = sorted(sizes, reverse=True)
    rest, scale = math.fsum(ordered), 0.0
    for certain, size in enumerate(ordered):  # the largest are drawn for certain
        scale = (wanted - certain) / rest
        if scale * size <= 1:
            break
        rest -= size
    return scale


def is_drawn(seed: int, pair_id: str, probability: float) -> bool:
    """Whether the pair's own number is below its probability."""
    return chance.unit(seed, "audit", pair_id) < probability


def drawn(judged: Judged, seed: int) -> Drawn:
    """What is kept of a pair that is drawn. Which response people see first is chance, whatever the label says."""
    pair, found = judged.pair, reasons(judged)
    why = [name for name, share in found.items() if share >= UNCERTAIN]
    return Drawn(
        id=pair.id, prompt_id=pair.prompt_id, first="a" if chance.unit(seed, "audit first", pair.id) < 0.5 else "b",
        size=size_of(found), content=content_of(pair.response_a, pair.response_b), why=tuple(why) or ("floor",),
    )  # fmt: skip


def content_of(response_a: str, response_b: str) -> str:
    """A hash of two responses, by which a label is known to be about them and not about later ones of the same id.

    Blanks around them and how lines end are left out of it: spreadsheets change both.
    """
    return chance.nonce("audit", *("\n".join(text.strip().splitlines()) for text in (response_a, response_b)))


def form(pair: Pair, one: Drawn, probability: float) -> dict[str, Any]:
    """A row for people to fill in: nothing in it tells what the AI said, nor why the pair was drawn."""
    first, second = shown(pair, one)
    return {
        "id": pair.id, "prompt_id": pair.prompt_id,
        "conversation": [{"role": turn.role, "content": turn.content} for turn in pair.messages],
        "response_1": first, "response_2": second, "label": "", "reason": "", "kind": "", "annotator": "",
        "probability": round(probability, 6), "weight": round(1 / probability, 6),
    }  # fmt: skip


def shown(pair: Pair, one: Drawn) -> tuple[str, str]:
    """The responses in the order in which people see them."""
    both = pair.response_a, pair.response_b
    return both if one.first == "a" else (both[1], both[0])
