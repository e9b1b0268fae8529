"""Samples -> pairs with votes: which of two responses a labeler prefers, by which criterion, in which order."""

from __future__ import annotations

import functools
import itertools
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from cai_cli import chance, prompts, votes
from cai_cli.constitution import Constitution, Criterion
from cai_cli.errors import Reject
from cai_cli.flow import FRESH, Flow, Model, Request, ask_whole, together
from cai_cli.prompts import Template
from cai_cli.records import Chain, Pair, Sample, Turn, Vote
from cai_cli.settings import Count, ModelSection, Section, Text

VERSION = 1
SHAPE = Pair

# Several sets, drawn by pair and order: a judge's liking for a letter then averages out, and "choose A" in a response is void.
LABELS = (("A", "B"), ("1", "2"), ("K", "M"), ("P", "Q"), ("X", "Y"), ("north", "south"))
_ORDERS = ("ab", "ba")
_P_FIRST = {"first": 1.0, "second": 0.0, "tie": 0.5}


class Labeler(Section):
    """One judge of a panel."""

    name: Text
    """Its name in votes and bias reports."""
    model: ModelSection | None = None
    """Keys that override the stage's model for this judge."""


class Settings(Section):
    """The section `label_pairs`."""

    labelers: list[Labeler] = Field([])
    """Who judges. None listed: one, called main, with the stage's model."""
    pairs: Literal["samples", "initial_vs_revised", "given"] = "samples"
    """Any two samples of a prompt, a sample's first response and its revision, or pairs that the input brings."""
    orders: Literal["both", "one"] = "both"
    """both: each question is put with either response first. one: the order is drawn, and position bias only averages out."""
    principles: Annotated[int, Field(ge=0)] = 1
    """Criteria a pair is compared by, drawn by weight. 0: the built-in one, helpful, harmless and honest."""
    votes: Count = 1
    """Votes by each labeler, criterion and order."""
    reasoning: bool = True
    """Let the judge weigh both responses in writing before its verdict."""
    scores: Literal[False] = False
    """Scores of both responses. Only false, as yet."""
    adaptive: Literal[False] = False
    """Ask more where votes disagree. Only false, as yet."""
    max_pairs: Count | None = None
    """Pairs of a prompt, at most, drawn by seed. null: all."""
    template: Text = "general"
    """What the judge is asked: general, or a template of your own."""
    model: ModelSection | None = None
    """Keys that override the top-level `model` here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Question:
    labeler: str
    criterion: str
    order: str
    draw: int
    labels: tuple[str, str]  # of the first and of the second shown
    request: Request


@dataclass(frozen=True, slots=True)
class _Verdict:
    winner: str  # first | second | tie
    confidence: float | None  # in [.5, 1]; None: a bare verdict
    rationale: str


@dataclass(frozen=True, slots=True)
class LabelPairs:
    """Ask every labeler which response is better, by each criterion drawn for the pair, in both orders.

    Takes: Pair   Gives: it with votes, pooled   Asks: labelers x principles x orders x votes
    Rejects: no_verdict (every vote abstained), and what `ask` rejects
    Source: Bai et al. 2022, arXiv 2212.08073, section 4.1 (a principle drawn per comparison);
            Lee et al. 2023, arXiv 2309.00267 (both orders)
    """

    settings: Settings
    constitution: Constitution
    template: Template
    labelers: Sequence[tuple[str, Model]]
    seed: int
    draw_offset: int = 0
    retry_truncated: bool = False

    def pairs_of(self, samples: Sequence[Sample]) -> tuple[list[Pair], Counter[str]]:
        """The pairs to judge among the samples of one prompt, and how many candidates are left out, by reason.

        Left out: no_text (a refusal without words), truncated, identical, over_max_pairs. Given pairs are not made of samples.
        """
        pairs, left = list[Pair](), Counter[str]()
        for pair, truncated in self._candidates(samples):
            if reason := _incomparable(pair, truncated):
                left[reason] += 1
            else:
                pairs.append(pair)
        drawn = self._drawn(pairs)
        if len(drawn) < len(pairs):
            left["over_max_pairs"] = len(pairs) - len(drawn)
        return drawn, left

    def _candidates(self, samples: Sequence[Sample]) -> Iterator[tuple[Pair, bool]]:
        """Every pair that could be, and whether a text in it was cut off."""
        if self.settings.pairs == "initial_vs_revised":
            yield from ((_revision_pair(chain, self.seed), chain.truncated) for chain in samples if isinstance(chain, Chain))
        elif self.settings.pairs == "samples":
            yield from ((_pair(m, n), m.truncated or n.truncated) for m, n in itertools.combinations(samples, 2))

    def _drawn(self, pairs: list[Pair]) -> list[Pair]:
        if self.settings.max_pairs is None or len(pairs) <= self.settings.max_pairs:
            return pairs
        ids = [pair.id for pair in pairs]
        kept = set(chance.weighted(ids, [1.0] * len(ids), self.settings.max_pairs, self.seed, pairs[0].prompt_id, "pairs"))
        return [pair for pair in pairs if pair.id in kept]

    def __call__(self, pair: Pair) -> Flow[Pair]:
        outcomes = yield from together(self._vote(question) for question in self._questions(pair))
        given = tuple(_value(outcome) for outcome in outcomes)
        soft = _soft(given)
        p_a = votes.pool(given, soft=soft)
        if p_a is None:
            raise Reject("no_verdict", f"{len(given)} votes, all abstentions")
        return replace(
            pair, votes=given, p_a=p_a, preference=votes.preference_of(p_a), confidence=max(p_a, 1 - p_a),
            consistent=votes.consistent(given, soft),
        )  # fmt: skip

    def _questions(self, pair: Pair) -> Iterator[_Question]:
        criteria = self.constitution.pick_preferences("weighted", self.settings.principles, self.seed, pair.id, 1)
        for labeler, model in self.labelers:
            for criterion, draw in itertools.product(criteria, range(self.settings.votes)):
                for order in self._orders(pair, labeler, draw):
                    labels = _labels(self.seed, pair.id, order)
                    request = self._request(pair, criterion, order, labels, model, draw)
                    yield _Question(
                        labeler=labeler, criterion=criterion.name, order=order, draw=draw, labels=labels, request=request
                    )  # fmt: skip

    def _orders(self, pair: Pair, labeler: str, draw: int) -> Sequence[str]:
        if self.settings.orders == "both":
            return _ORDERS
        return (chance.choose(_ORDERS, self.seed, pair.id, labeler, draw, "order"),)

    def _request(self, pair: Pair, criterion: Criterion, order: str, labels: tuple[str, str], model: Model, draw: int) -> Request:
        texts = (pair.response_a, pair.response_b) if order == "ab" else (pair.response_b, pair.response_a)
        conversation = prompts.transcript(pair.messages)
        nonce = prompts.nonce((conversation, *texts), self.seed, pair.id, "label", order)
        first, second = (prompts.fenced(f"response-{label}", nonce, text) for label, text in zip(labels, texts, strict=True))
        question = self.template.fill(
            conversation=prompts.fenced("conversation", nonce, conversation), nonce=nonce, first=first, second=second,
            first_label=labels[0], second_label=labels[1], criterion=criterion.text, category=criterion.category,
            reasoning=self.settings.reasoning,
        )  # fmt: skip
        return Request(
            model=model, messages=(Turn(role="user", content=question),), schema=self._schema(labels),
            draw=self.draw_offset * FRESH + draw, stage="label-pairs", row=pair.id,
        )  # fmt: skip

    def _schema(self, labels: tuple[str, str]) -> dict[str, Any] | None:
        return verdict_schema(labels, self.settings.reasoning) if self.template.reply == "json" else None

    def _vote(self, question: _Question) -> Flow[Vote]:
        read = functools.partial(read_verdict, labels=question.labels, schema=question.request.schema)
        ask_once = functools.partial(ask_whole, retry_truncated=self.retry_truncated)
        _, verdict = yield from prompts.ask_readable(ask_once, question.request, read)
        vote = Vote(labeler=question.labeler, principle=question.criterion, order=question.order, draw=question.draw)
        return cast(vote, verdict) if verdict else vote


def verdict_schema(labels: tuple[str, str], reasoning: bool) -> dict[str, Any]:
    """The schema of a verdict. The reasoning comes first: written after the verdict it would only defend it."""
    parts: dict[str, Any] = {"reasoning": {"type": "string"}} if reasoning else {}
    parts |= {"verdict": {"type": "string", "enum": [*labels, "tie"]}, "confidence": {"type": "number"}}
    return prompts.schema(**parts)


def read_verdict(text: str, labels: tuple[str, str], schema: Mapping[str, Any] | None) -> _Verdict | None:
    """Read a structured verdict or, where the reply is no JSON, a bare one in its last line; None: neither.

    What begins as JSON is read as JSON only, so that nothing behind an object can overrule it.
    """
    if not text.lstrip().startswith("{"):
        return _last_line(text, labels)
    value = prompts.structured(text, schema) if schema else None
    if value is None or not 0.5 <= value["confidence"] <= 1:
        return None
    return _Verdict(_winner(value["verdict"], labels), float(value["confidence"]), value.get("reasoning", "").strip())


_MENTION = re.compile(r"verdict[\"'*_`]*\s*:", re.IGNORECASE)


def _last_line(text: str, labels: tuple[str, str]) -> _Verdict | None:
    """The strict grammar: the last line is `Verdict: LABEL`, spelled exactly so, and no other verdict stands before it."""
    before, _, line = text.rstrip().rpartition("\n")
    given = line.removeprefix("Verdict: ")
    if given == line or given not in (*labels, "tie") or _MENTION.search(before):
        return None
    return _Verdict(_winner(given, labels), None, before.strip())


def _winner(verdict: str, labels: tuple[str, str]) -> str:
    return {labels[0]: "first", labels[1]: "second"}.get(verdict, "tie")


def cast(vote: Vote, verdict: _Verdict) -> Vote:
    """A verdict about what was shown first becomes a vote about a."""
    p_first = _P_FIRST[verdict.winner]
    if verdict.confidence is not None and verdict.winner != "tie":
        p_first = verdict.confidence if verdict.winner == "first" else 1 - verdict.confidence
    p_a = round(p_first if vote.order == "ab" else 1 - p_first, 9)  # 1 - .8 is .19999999999999996
    sides = {"first": vote.order[0], "second": vote.order[1], "tie": "tie"}
    return replace(vote, verdict=sides[verdict.winner], p_a=p_a, confidence=verdict.confidence, rationale=verdict.rationale)


def _soft(given: Sequence[Vote]) -> set[str]:
    """The labelers that gave probabilities here: each verdict with a confidence, and not all of them certain."""
    bare = {vote.labeler for vote in given if vote.p_a is not None and vote.confidence is None}
    return {vote.labeler for vote in given if vote.p_a is not None and not votes.is_bare(vote.p_a)} - bare


def _value(vote: Vote | Reject) -> Vote:
    if isinstance(vote, Reject):
        raise vote
    return vote


def _labels(seed: int, row_id: str, order: str) -> tuple[str, str]:
    first, second = chance.choose(LABELS, seed, row_id, order, "labels")
    return (first, second) if chance.unit(seed, row_id, order, "flip") < 0.5 else (second, first)


def _pair(m: Sample, n: Sample) -> Pair:
    return Pair(
        id=f"{m.prompt_id}-{m.sample}-{n.sample}", prompt_id=m.prompt_id, messages=m.messages, prompt=m.prompt, kind=m.kind,
        meta=m.meta, response_a=m.response, response_b=n.response, source_a=_source(m), source_b=_source(n),
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
    revised = isinstance(sample, Chain) and any(round_.accepted for round_ in sample.rounds)
    return f"{sample.id}:revised" if revised else sample.id


def _revision_pair(chain: Chain, seed: int) -> Pair:
    """The first response against the current one; the side is drawn, so that neither a nor b means revised."""
    sides = [(chain.initial_response, f"{chain.id}:initial"), (chain.response, f"{chain.id}:revised")]
    (response_a, source_a), (response_b, source_b) = sides if chance.unit(seed, chain.id, "side") < 0.5 else sides[::-1]
    return Pair(
        id=f"{chain.prompt_id}-{chain.sample}-{chain.sample}", prompt_id=chain.prompt_id, messages=chain.messages,
        prompt=chain.prompt, kind=chain.kind, meta=chain.meta, response_a=response_a, response_b=response_b, source_a=source_a,
        source_b=source_b,
    )  # fmt: skip
