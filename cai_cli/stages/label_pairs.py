"""Samples -> pairs with votes: which of two responses a labeler prefers, by which criterion, in which order."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from cai_cli import chance, votes
from cai_cli.constitution import Constitution, Criterion
from cai_cli.errors import Fix, Reject
from cai_cli.flow import Flow, together, value_of
from cai_cli.judging import ORDERS, Judge, soft_labelers
from cai_cli.parts import Parts
from cai_cli.records import Chain, Order, Pair, Sample, Vote
from cai_cli.scoring import Scorer, scorer_of
from cai_cli.settings import Count, ModelSection, Panelist, Section, Share, Text
from cai_cli.stages import _adaptive
from cai_cli.stages._adaptive import NO_PILOT, Pilot, Plan

VERSION = 4
SHAPE = Pair
READS = ("revise", "generate")


class Settings(Section):
    """The section `label_pairs`."""

    labelers: list[Panelist] = Field([])
    """Who judges. None listed: one, called main, with the stage's model."""
    pairs: Literal["samples", "initial_vs_revised", "given"] = "samples"
    """Any two samples of a prompt, a sample's first response and its revision, or pairs that the input brings."""
    orders: Literal["both", "one"] = "both"
    """both: each question is put with either response first. one: the order is drawn, and position bias only averages out."""
    principles: Annotated[int, Field(ge=0)] = 1
    """Criteria a pair is compared by, drawn by weight. 0: the built-in one, helpful, harmless and honest."""
    categories: dict[str, Annotated[float, Field(ge=0)]] = Field({})
    """Weights of categories, over those of the preferences: harmlessness: 2 picks its criteria twice as often, 0 never.
    1 where none is given."""
    votes: Count = 1
    """Votes by each labeler, criterion and order."""
    reasoning: bool = True
    """Let the judge weigh both responses in writing before its verdict."""
    confidence: Literal["number", "words"] = "number"
    """How sure the judge is, where the server tells no log-probabilities: a probability, or high, medium, low (.9, .75, .6)."""
    clamp: list[Share] | None = Field(None, min_length=2, max_length=2)
    """Keep probabilities in this range where the judge reasons first, which drives them to 0 and 1: [0.4, 0.6] in the paper.
    A bare verdict, of a judge that tells none, stays bare."""
    exemplars: Annotated[int, Field(ge=0)] = 0
    """Worked cases put before the question, the right answer as often first as second."""
    exemplar_file: Text = "general"
    """Where they come from: general (shipped), or a YAML file of your own."""
    scores: bool = False
    """Score both responses, too, on the criteria of the section `score`."""
    adaptive: bool = False
    """Ask no more than it takes. A judge that gives probabilities, and whose position bias a pilot of some 80 pairs finds to be
    the same for every pair, is asked in one order, and in the other where that leaves it unsure; else in both. Bare verdicts are
    bought in pairs, one in each order, until a pair agrees, at most eight. Orders and votes are then no settings of yours."""
    max_pairs: Count | None = None
    """Pairs of a prompt, at most, drawn by seed. null: all."""
    template: Text = "general"
    """What the judge is asked: general, or a template of your own."""
    model: ModelSection | None = None
    """Keys that override the top-level `model` here."""

    @model_validator(mode="after")
    def _used(self) -> Settings:
        if self.clamp is not None and not self.reasoning:
            raise ValueError("clamp is for judges that reason first; write reasoning: true, or leave clamp out")
        if self.adaptive and self.orders == "one":
            raise ValueError("adaptive asks in one order by itself, where a pilot in both allows it; leave orders out")
        if self.adaptive and self.votes > 1:
            raise ValueError("adaptive decides by itself how many votes are asked; leave votes out")
        if self.labelers and all(one.escalate is not None for one in self.labelers):
            raise ValueError("one labeler must be asked about every pair, before others can be; leave its escalate out")
        if self.pairs == "given" and self.max_pairs is not None:
            raise ValueError("pairs that are given are all judged; leave max_pairs out")
        return self

    @field_validator("clamp")
    @classmethod
    def _around_half(cls, clamp: list[float] | None) -> list[float] | None:
        if clamp is not None and not clamp[0] < 0.5 < clamp[1]:
            raise ValueError("must have .5 between its ends, as in [0.4, 0.6]")
        return clamp


@dataclass(frozen=True, slots=True)
class LabelPairs:
    """Ask every labeler which response is better, by each criterion drawn for the pair, in both orders.

    Takes: Pair   Gives: it with votes, pooled   Asks: labelers x principles x orders x votes, and scores where they are wanted;
    adaptive: as many as it takes; a labeler with `escalate`: about a share of the pairs
    Rejects: no_verdict (every vote abstained), no_score, and what `ask` rejects
    Source: Bai et al. 2022, arXiv 2212.08073, section 4.1 (a principle drawn per comparison);
            Lee et al. 2023, arXiv 2309.00267 (both orders)
    """

    settings: Settings
    constitution: Constitution
    judges: Sequence[Judge]
    seed: int
    scorer: Scorer | None = None
    pilot: Pilot = NO_PILOT

    @property
    def escalated(self) -> Mapping[str, float]:
        """Labelers that are asked about a share of the pairs, with that share."""
        return {one.name: one.escalate for one in self.settings.labelers if one.escalate is not None}

    @property
    def needs_pilot(self) -> bool:
        """Whether how it asks hangs on what a pilot finds."""
        return self.settings.adaptive or bool(self.escalated)

    @property
    def reads(self) -> tuple[str, ...]:
        """Where its pairs come from."""
        return ("pairs",) if self.settings.pairs == "given" else READS

    def gather(self, samples: Sequence[Any]) -> tuple[list[Pair], Counter[str]]:
        """The pairs to judge among the samples of one prompt, and how many candidates are left out, by reason.

        Left out: no_text (a refusal without words), truncated, identical, over_max_pairs, no_partner (a single response).
        Given pairs are judged as they are.
        """
        if self.settings.pairs == "given":
            return list(samples), Counter()
        pairs, left = list[Pair](), Counter[str]()
        for pair, truncated in self._candidates(samples):
            if reason := _incomparable(pair, truncated):
                left[reason] += 1
            else:
                pairs.append(pair)
        drawn = self._drawn(pairs)
        if len(drawn) < len(pairs):
            left["over_max_pairs"] = len(pairs) - len(drawn)
        if samples and not drawn and not left:
            left["no_partner"] = 1
        return drawn, left

    def _candidates(self, samples: Sequence[Sample]) -> Iterator[tuple[Pair, bool]]:
        """Every pair that could be, and whether a text in it was cut off."""
        if self.settings.pairs == "initial_vs_revised":
            yield from (
                (_revision_pair(chain, self.seed), chain.truncated or chain.initial_truncated)
                for chain in samples
                if isinstance(chain, Chain)
            )
        elif self.settings.pairs == "samples":
            yield from ((_pair(m, n), m.truncated or n.truncated) for m, n in itertools.combinations(samples, 2))

    def _drawn(self, pairs: list[Pair]) -> list[Pair]:
        if self.settings.max_pairs is None or len(pairs) <= self.settings.max_pairs:
            return pairs
        ids = [pair.id for pair in pairs]
        kept = set(chance.weighted(ids, [1.0] * len(ids), self.settings.max_pairs, self.seed, pairs[0].prompt_id, "pairs"))
        return [pair for pair in pairs if pair.id in kept]

    def __call__(self, pair: Pair) -> Flow[Pair]:
        texts = (pair.response_a, pair.response_b)
        scoring = [self.scorer(pair.id, pair.messages, text) for text in texts] if self.scorer else []
        asked: list[Flow[Any]] = [self._votes(pair), *scoring]
        given, *scores = [value_of(outcome) for outcome in (yield from together(asked))]
        judged = _judged(pair, tuple(given), self.pilot.shift)
        return replace(judged, scores_a=scores[0], scores_b=scores[1]) if self.scorer else judged

    def _votes(self, pair: Pair) -> Flow[list[Vote]]:
        """The votes of those who are asked about every pair, then of those who are asked where these are unsure."""
        given = yield from self._panel(pair, [judge for judge in self.judges if judge.name not in self.escalated])
        if not self.escalated:
            return given
        sure = _adaptive.certainty(given, self.pilot.shift) or 0.0
        chosen = [judge for judge in self.judges if judge.name in self.escalated and self._escalates(pair, judge.name, sure)]
        more = yield from self._panel(pair, chosen)
        return [*given, *(replace(vote, escalated=True) for vote in more)]

    def _escalates(self, pair: Pair, labeler: str, sure: float) -> bool:
        if pair.id in self.pilot.pairs:
            return True  # its own bias must be known, too
        drawn = chance.unit(self.seed, pair.id, labeler, "escalate")
        cut = self.pilot.cuts.get(labeler)
        return cut.escalates(sure, drawn) if cut is not None else drawn < self.escalated[labeler]

    def _panel(self, pair: Pair, judges: Sequence[Judge]) -> Flow[list[Vote]]:
        if self.settings.adaptive:
            outcomes = yield from together([self._opinion(pair, judge) for judge in judges])
            return [vote for outcome in outcomes for vote in value_of(outcome)]
        asked = [judge.vote(pair, *question) for judge in judges for question in self._asked(pair, judge)]
        return (yield from _side_by_side(asked))

    def _opinion(self, pair: Pair, judge: Judge) -> Flow[list[Vote]]:
        """A labeler's votes, as many as it takes."""
        criteria, first = self._criteria(pair), self.first_order(pair, judge.name)

        def ask(orders: Sequence[Order], draw: int) -> Flow[list[Vote]]:
            return _side_by_side([judge.vote(pair, criterion, order, draw) for criterion in criteria for order in orders])

        if pair.id in self.pilot.pairs:
            return _adaptive.piloted(ask, first, pair.id in self.pilot.repeated)
        return _adaptive.opinion(ask, first, self.pilot.plans.get(judge.name, Plan()), _adaptive.longer(pair))

    def first_order(self, pair: Pair, labeler: str) -> Order:
        """The order in which a labeler is asked, if it is asked in one."""
        return chance.choose(ORDERS, self.seed, pair.id, labeler, 0, "order")

    def _asked(self, pair: Pair, judge: Judge) -> Iterator[tuple[Criterion, Order, int]]:
        """The questions of one labeler where their number is fixed."""
        for criterion, draw in itertools.product(self._criteria(pair), range(self.settings.votes)):
            for order in self._orders(pair, judge.name, draw):
                yield criterion, order, draw

    def _criteria(self, pair: Pair) -> Sequence[Criterion]:
        return self.constitution.pick_preferences("weighted", self.settings.principles, self.seed, pair.id, 1)

    def _orders(self, pair: Pair, labeler: str, draw: int) -> Sequence[Order]:
        if self.settings.orders == "both":
            return ORDERS
        return (chance.choose(ORDERS, self.seed, pair.id, labeler, draw, "order"),)


def _side_by_side(asked: Sequence[Flow[Vote]]) -> Flow[list[Vote]]:
    """Votes that are asked in one wave. Rejects: what the first one that failed rejects"""
    return [value_of(outcome) for outcome in (yield from together(asked))]


def _judged(pair: Pair, given: tuple[Vote, ...], shift: Mapping[str, float]) -> Pair:
    """A pair with its votes pooled. A conflict of bare verdicts is a tie, never settled by a coin."""
    soft = soft_labelers(given)
    p_a = votes.pool(given, shift, soft)
    if p_a is None:
        raise Reject("no_verdict", f"{len(given)} votes, all abstentions")
    return replace(
        pair, votes=given, p_a=p_a, preference=votes.preference_of(p_a), confidence=max(p_a, 1 - p_a),
        consistent=votes.consistent(given, soft),
    )  # fmt: skip


def _pair(m: Sample, n: Sample) -> Pair:
    return Pair(
        id=f"{m.prompt_id}-{m.sample}-{n.sample}", prompt_id=m.prompt_id, messages=m.messages, prompt=m.prompt, kind=m.kind,
        meta=m.meta, response_a=m.response, response_b=n.response, source_a=_source(m), source_b=_source(n),
        model_a=m.model, model_b=n.model,
    )  # fmt: skip


def _incomparable(pair: Pair, truncated: bool) -> str:
    """Why two texts make no pair; empty: they do."""
    a, b = pair.response_a.strip(), pair.response_b.strip()
    if not a or not b:
        return "no_text"
    if truncated:
        return "truncated"
    return "identical" if a == b else ""


def _source(sample: Sample) -> str:
    revised = isinstance(sample, Chain) and sample.response != sample.initial_response
    return f"{sample.id}:revised" if revised else sample.id


def _revision_pair(chain: Chain, seed: int) -> Pair:
    """The first response against the current one; the side is drawn, so that neither a nor b means revised."""
    sides = [(chain.initial_response, f"{chain.id}:initial"), (chain.response, f"{chain.id}:revised")]
    (response_a, source_a), (response_b, source_b) = sides if chance.unit(seed, chain.id, "side") < 0.5 else sides[::-1]
    return Pair(
        id=f"{chain.prompt_id}-{chain.sample}-{chain.sample}", prompt_id=chain.prompt_id, messages=chain.messages,
        prompt=chain.prompt, kind=chain.kind, meta=chain.meta, response_a=response_a, response_b=response_b, source_a=source_a,
        source_b=source_b, model_a=chain.model, model_b=chain.model,
    )  # fmt: skip


def build(parts: Parts) -> LabelPairs:
    """Raises: Fix: a template, exemplars or a constitution that cannot be used, or two labelers that are one"""
    settings: Settings = parts.settings
    listed = settings.labelers or [Panelist(name="main")]
    template = parts.template(settings.template, "label")
    exemplars = parts.exemplars(settings.exemplar_file, "label", settings.exemplars)
    if settings.reasoning and template.reply == "json" and not all(exemplar.reasoning for exemplar in exemplars):
        raise Fix(
            f"label_pairs: exemplars '{settings.exemplar_file}' have no reasoning, and would teach the judge to give none",
            "write reasoning: false, or give each exemplar its reasoning",
        )
    if settings.confidence == "words" and template.reply != "json":
        hint = "write confidence: number, or use a template whose reply is json"
        raise Fix(f"label_pairs: the template '{template.name}' asks for a bare verdict, without words of confidence", hint)
    judges = [
        Judge(
            name=one.name, model=parts.model(one.model), template=template, seed=parts.seed,
            draw_offset=parts.draw_offset, reasoning=settings.reasoning, words=settings.confidence == "words",
            clamp=(settings.clamp[0], settings.clamp[1]) if settings.clamp else None, exemplars=exemplars,
        )
        for one in listed
    ]  # fmt: skip
    _refuse_copies(judges)
    scorer = scorer_of(parts, "label-pairs") if settings.scores else None
    constitution = parts.principles(needed=settings.principles > 0).weighing(settings.categories)
    return LabelPairs(settings, constitution, judges, parts.seed, scorer)


def _refuse_copies(judges: Sequence[Judge]) -> None:
    """Two labelers that ask the very same thing are one, bought once: copies of a vote, not a panel."""
    for one, other in itertools.combinations(judges, 2):
        if (one.model.provider, one.model.name, one.model.params) == (other.model.provider, other.model.name, other.model.params):
            raise Fix(
                f"label_pairs: labelers '{one.name}' and '{other.name}' ask the same model with the same settings",
                "give one another model, or raise label_pairs.votes to ask one model more often",
            )
