"""Asking labelers again about pairs whose content is the same and whose manner is not: how their answers move is their bias."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cai_cli import probes, votes
from cai_cli.constitution import Criterion
from cai_cli.errors import Reject
from cai_cli.features import FEATURES
from cai_cli.flow import Flow, together, value_of
from cai_cli.judging import ORDERS, SOFT, Judge
from cai_cli.probes import Variant
from cai_cli.records import Pair, Probed, Vote

STAGE = "debias"  # on whose behalf it is asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A pair as one probe varies it."""

    dimension: str
    pair: Pair  # as it was judged, with its votes
    variant: Variant


@dataclass(frozen=True, slots=True, kw_only=True)
class Probing:
    """Put the questions that a pair's votes answered again, about a variant of it.

    Takes: Question   Gives: for each vote that counts a Probed, or the Reject that its answer ended with
    Asks: one request a vote; two where the variant brings what it is to be held against
    """

    judges: Mapping[str, Judge]  # by name
    criteria: Mapping[str, Criterion]  # by name
    counts: Mapping[str, int]  # pairs to ask about, by probe
    seed: int

    def question(self, pair: Pair, dimension: str) -> Question | None:
        """The pair as a probe varies it; None: it cannot be varied that way, or no vote of it can be asked for again."""
        variant = probes.find(dimension).variants(pair, self.seed)
        if variant is None:
            return None
        question = Question(dimension=dimension, pair=pair, variant=variant)
        return question if self.votes_of(question) else None

    def strange(self, vote: Vote) -> str:
        """What keeps a vote from being asked for again: an unknown labeler or criterion; empty: nothing."""
        if vote.labeler not in self.judges:
            return f"labeler '{vote.labeler}'"
        if vote.principle in self.criteria:
            return ""
        return f"criterion '{vote.principle}'" if vote.principle else "criterion '' (they name none)"

    def votes_of(self, question: Question) -> list[Vote]:
        """The first vote on each question, of labelers and criteria that are known.

        An abstention counts only where the variant is held against another one: else there is nothing to compare with.
        """
        found: dict[tuple[str, str, str], Vote] = {}
        for vote in question.pair.votes:
            if vote.draw == 0 and not self.strange(vote) and (question.variant.against is not None or _says(vote)):
                found.setdefault((vote.labeler, vote.principle, vote.order), vote)
        return list(found.values())

    def __call__(self, question: Question) -> Flow[list[Probed | Reject]]:
        outcomes = yield from together(self._again(question, vote) for vote in self.votes_of(question))
        return outcomes

    def _again(self, question: Question, vote: Vote) -> Flow[Probed]:
        judge = replace(self.judges[vote.labeler], stage=STAGE, probe=question.dimension)
        variant, criterion, order = question.variant, self.criteria[vote.principle], ORDERS[vote.order == "ba"]
        pairs = [variant.pair] if variant.against is None else [variant.pair, variant.against]
        outcomes = yield from together(judge.vote(pair, criterion, order, vote.draw) for pair in pairs)
        after, *others = (value_of(outcome) for outcome in outcomes)
        before = others[0] if others else vote
        if before.model and before.model != after.model:
            raise Reject("other_model", f"'{before.model}' gave the vote, '{after.model}' answers now")
        return _probed(question, before, after)


def _says(vote: Vote) -> bool:
    try:
        return votes.probability(vote) is not None
    except Reject:  # no vote that could be used: debias rejects its pair
        return False


def _probed(question: Question, before: Vote, after: Vote) -> Probed:
    pair, variant = question.pair, question.variant
    return Probed(
        id=pair.id, prompt_id=pair.prompt_id, dimension=question.dimension, labeler=after.labeler, principle=after.principle,
        order=after.order, draw=after.draw, change=variant.change,
        length=_longer(variant.pair) - _longer(variant.against or pair), before_p_a=votes.probability(before),
        after_p_a=votes.probability(after), bare_before=_is_bare(before), bare_after=_is_bare(after),
    )  # fmt: skip


def _longer(pair: Pair) -> float:
    return FEATURES["length"].between(pair.response_a, pair.response_b)


def _is_bare(vote: Vote) -> bool:
    """Whether it is a verdict without a probability."""
    p = votes.probability(vote)
    return p is not None and vote.basis not in SOFT and votes.is_bare(p)


def in_order(rows: Sequence[Probed]) -> list[Probed]:
    """Sorted, so that the same answers make the same file."""
    return sorted(rows, key=lambda row: (row.dimension, row.id, row.labeler, row.principle, row.order, row.draw))
