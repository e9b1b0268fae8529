"""A labeler's vote on two responses: how it is asked so that order and names tell it nothing, and how its verdict is read.

What a vote's probability rests on, the best first: log-probabilities of the verdict where the server tells them; a probability
that the judge states; a word of confidence; the bare verdict.
"""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from cai_cli import chance, prompts
from cai_cli.constitution import Criterion
from cai_cli.exemplars import Exemplar
from cai_cli.flow import FRESH, Flow, Model, Reply, Request, ask_whole
from cai_cli.prompts import Template
from cai_cli.records import Order, Pair, Turn, Vote
from cai_cli.remembered import Remembered

# Several sets, drawn by pair and order: a judge's liking for a letter then averages out, and "choose A" in a response is void.
LABELS = (("A", "B"), ("1", "2"), ("K", "M"), ("P", "Q"), ("X", "Y"), ("north", "south"))
ORDERS: tuple[Order, Order] = ("ab", "ba")
WORDS = {"high": 0.9, "medium": 0.75, "low": 0.6}  # what a word of confidence stands for, until something calibrates it
SOFT = ("logprobs", "stated", "words")  # what a probability may rest on
P_FIRST = {"first": 1.0, "second": 0.0, "tie": 0.5}

Labels = tuple[str, str]  # of the first and of the second shown


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a judge said. `stated`: its confidence as it gave it, in words or in [.5, 1]; None: a bare verdict."""

    winner: Literal["first", "second", "tie"]
    stated: float | str | None
    rationale: str

    @property
    def confidence(self) -> float | None:
        return WORDS[self.stated] if isinstance(self.stated, str) else self.stated

    @property
    def basis(self) -> str:
        return "verdict" if self.stated is None else "words" if isinstance(self.stated, str) else "stated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """One labeler, with what it is told. `clamp`: where its probabilities are kept if it reasons first; None: nowhere."""

    name: str
    model: Model
    template: Template
    seed: int
    draw_offset: int = 0
    reasoning: bool = True
    words: bool = False  # whether confidence is asked for in words
    clamp: tuple[float, float] | None = None
    exemplars: tuple[Exemplar, ...] = ()
    stage: str = "label-pairs"
    probe: str = ""  # what of the pair was changed for this question; empty: nothing

    def vote(self, pair: Pair, criterion: Criterion, order: Order, draw: int) -> Flow[Vote]:
        """Ask about a pair once. Gives: a vote, or an abstention where no verdict could be read. Rejects: what `ask` rejects"""
        labels = _labels(self.seed, pair, order)
        request = self.question(pair, criterion, order, draw)
        read = functools.partial(read_verdict, labels=labels, schema=request.schema, shown=_texts(pair))
        reply, verdict = yield from prompts.ask_readable(ask_whole, request, read)
        vote = Vote(labeler=self.name, principle=criterion.name, order=order, draw=draw, labels=labels, model=reply.model)
        return self._cast(vote, verdict, _p_first(reply, labels)) if verdict else vote

    def _cast(self, vote: Vote, verdict: Verdict, p_first: float | None) -> Vote:
        clamp = self.clamp if self.reasoning else None
        return cast(vote, verdict, p_first, clamp)

    def question(self, pair: Pair, criterion: Criterion, order: Order, draw: int) -> Request:
        """The request of one vote, as it is sent."""
        labels, texts = _labels(self.seed, pair, order), _shown(pair.response_a, pair.response_b, order)
        nonce = prompts.nonce((prompts.transcript(pair.messages), *texts), self.seed, pair.id, "label", order)
        asked = self._fill(pair.messages, texts, labels, criterion.text, criterion.category, nonce)
        turns = (*self._exemplars(labels, pair.id, order), Turn(role="user", content=asked))
        settings = {"first_label": labels[0], "second_label": labels[1], "reasoning": self.reasoning, "words": self.words}
        return Request(
            model=self.model, messages=turns, schema=self._schema(labels), options=(*labels, "tie"),
            draw=self.draw_offset * FRESH + draw, stage=self.stage, row=pair.id,
            about=({"probe": self.probe} if self.probe else {})
            | {"labeler": self.name, "principle": criterion.name, "order": order},
            constant=(len(turns) - 1, self.template.constant(**settings)),
        )  # fmt: skip

    def _fill(
        self, messages: Sequence[Turn], texts: Sequence[str], labels: Labels, criterion: str, category: str, nonce: str
    ) -> str:
        first, second = (prompts.fenced(f"response-{label}", nonce, text) for label, text in zip(labels, texts, strict=True))
        return self.template.fill(
            conversation=prompts.conversation(messages, nonce), nonce=nonce, first=first,
            second=second, first_label=labels[0], second_label=labels[1], criterion=criterion, category=category,
            reasoning=self.reasoning, words=self.words,
        )  # fmt: skip

    def _schema(self, labels: Labels) -> dict[str, Any] | None:
        return verdict_schema(labels, self.reasoning, self.words) if self.template.reply == "json" else None

    def _exemplars(self, labels: Labels, row_id: str, order: Order) -> tuple[Turn, ...]:
        """The exemplars as turns. The right answer stands first in every other one, and where that begins depends on the order
        too: over both orders of a pair each answer is right as often as the other."""
        if not self.exemplars:
            return ()
        flip = chance.unit(self.seed, row_id, "exemplars") < 0.5
        return _worked(self)(labels, flip == (order == "ba"))

    def worked(self, labels: Labels, starts_first: bool) -> Iterator[Turn]:
        """The exemplars with these names. There are as many as names to give, twice: they hang on nothing else of a pair, so
        that servers can keep them in their cache."""
        for n, exemplar in enumerate(self.exemplars):
            first = (n % 2 == 0) == starts_first
            texts = (exemplar.better, exemplar.worse) if first else (exemplar.worse, exemplar.better)
            nonce = prompts.nonce((prompts.transcript(exemplar.conversation), *texts), self.seed, "exemplar", "label", n)
            asked = self._fill(exemplar.conversation, texts, labels, exemplar.criterion, "", nonce)
            yield Turn(role="user", content=asked)
            yield Turn(role="assistant", content=self._answer(exemplar, labels[0 if first else 1]))

    def _answer(self, exemplar: Exemplar, label: str) -> str:
        if self.template.reply != "json":
            return f"{exemplar.reasoning}\n\nVerdict: {label}".strip()
        word = min(WORDS, key=lambda word: abs(WORDS[word] - exemplar.confidence))
        parts: dict[str, Any] = {"reasoning": exemplar.reasoning} if self.reasoning else {}
        parts |= {"verdict": label, "confidence": word if self.words else exemplar.confidence}
        return json.dumps(parts, ensure_ascii=False)


def _worked_of(judge: Judge) -> Callable[[Labels, bool], tuple[Turn, ...]]:
    return functools.cache(lambda labels, starts_first: tuple(judge.worked(labels, starts_first)))


_worked = Remembered(_worked_of)  # filled once, not for every pair


def _shown(a: str, b: str, order: Order) -> tuple[str, str]:
    return (a, b) if order == "ab" else (b, a)


@functools.cache  # the same few again and again, which nobody changes
def verdict_schema(labels: Labels, reasoning: bool, words: bool = False) -> dict[str, Any]:
    """The schema of a verdict. The reasoning comes first: written after the verdict it would only defend it."""
    parts: dict[str, Any] = {"reasoning": {"type": "string"}} if reasoning else {}
    sure = {"type": "string", "enum": list(WORDS)} if words else {"type": "number"}
    parts |= {"verdict": {"type": "string", "enum": [*labels, "tie"]}, "confidence": sure}
    return prompts.schema(**parts)


def read_verdict(text: str, labels: Labels, schema: Mapping[str, Any] | None, shown: Sequence[str] = ()) -> Verdict | None:
    """Read a structured verdict or, where the reply is no JSON, a bare one in its last line; None: neither.

    What begins as JSON is read as JSON only, so that nothing behind an object can overrule it. `shown`: what the judge read. A
    reply that only repeats it, and a bare verdict that stands in it, may be its words and not the judge's: they are not read.
    """
    if not text.lstrip().startswith("{"):
        return _last_line(text, labels, shown)
    value = prompts.structured(text, schema) if schema and not prompts.repeats(text, shown) else None
    if value is None:
        return None
    sure = value["confidence"]
    if not isinstance(sure, str) and not 0.5 <= sure <= 1:
        return None
    stated = sure if isinstance(sure, str) else float(sure)
    return Verdict(_winner(value["verdict"], labels), stated, value.get("reasoning", "").strip())


_MENTION = re.compile(r"verdict[\"'*_`]*\s*:", re.IGNORECASE)


def _last_line(text: str, labels: Labels, shown: Sequence[str]) -> Verdict | None:
    """The strict grammar: the last line is `Verdict: LABEL`, spelled exactly so, and no other verdict stands before it."""
    before, _, line = text.rstrip().rpartition("\n")
    given = line.removeprefix("Verdict: ")
    if given == line or given not in (*labels, "tie") or _MENTION.search(prompts.folded(before)) or given in _named(shown):
        return None
    return Verdict(_winner(given, labels), None, before.strip())


def _winner(verdict: str, labels: Labels) -> Literal["first", "second", "tie"]:
    return "first" if verdict == labels[0] else "second" if verdict == labels[1] else "tie"


def _p_first(reply: Reply, labels: Labels) -> float | None:
    """The server's probability that the first shown is better, half of the tie's with it; None: it told none."""
    p = reply.probabilities
    return None if p is None else p.get(labels[0], 0.0) + p.get("tie", 0.0) / 2


def cast(vote: Vote, verdict: Verdict, p_first: float | None = None, clamp: tuple[float, float] | None = None) -> Vote:
    """A verdict about what was shown first becomes a vote about a.

    `p_first`: from log-probabilities, where there are some. `clamp`: keeps a probability in this range: reasoning drives it to 0
    or 1, and soft labels of 40 to 60% trained better (Bai et al. 2022, arXiv 2212.08073, section 4). A bare verdict stays bare.
    """
    sure = p_first is not None or (verdict.confidence is not None and verdict.winner != "tie")
    if p_first is None:
        p_first = P_FIRST[verdict.winner]
        if verdict.confidence is not None and verdict.winner != "tie":
            p_first = verdict.confidence if verdict.winner == "first" else 1 - verdict.confidence
        basis, confidence = verdict.basis, verdict.confidence
    else:
        basis, confidence = "logprobs", round(max(p_first, 1 - p_first), 9)
    if clamp is not None and sure:
        p_first = min(max(p_first, clamp[0]), clamp[1])
    p_a = round(p_first if vote.order == "ab" else 1 - p_first, 9)  # 1 - .8 is .19999999999999996
    sides = {"first": vote.order[0], "second": vote.order[1], "tie": "tie"}
    return replace(vote, verdict=sides[verdict.winner], p_a=p_a, confidence=confidence, rationale=verdict.rationale, basis=basis)


def soft_labelers(given: Sequence[Vote]) -> set[str]:
    """The labelers that gave probabilities here and no bare verdict: a 0 or 1 of theirs is a probability at its limit."""
    said = [vote for vote in given if vote.p_a is not None]
    return {vote.labeler for vote in said} - {vote.labeler for vote in said if vote.basis not in SOFT}


_NAMED = re.compile(rf"(?i:verdict)[\W_]{{0,16}}({'|'.join(itertools.chain(*LABELS))}|tie)(?!\w)")


def _named(texts: Iterable[str]) -> set[str]:
    """The labels that texts give as a verdict, in whatever form."""
    return set[str]().union(*map(_named_in, texts))


@functools.lru_cache(maxsize=64)  # a pair is put into several questions
def _named_in(text: str) -> frozenset[str]:
    return frozenset(_NAMED.findall(prompts.folded(text)))


def _texts(pair: Pair) -> tuple[str, ...]:
    return (*(turn.content for turn in pair.messages), pair.response_a, pair.response_b)


def _labels(seed: int, pair: Pair, order: Order) -> Labels:
    """What the first and the second shown are called: by lot, but by no name that a text gives as the verdict while others are
    left. So a judge that repeats such a text has said nothing."""
    named = _named(_texts(pair))
    free = [labels for labels in LABELS if named.isdisjoint(labels)]
    first, second = chance.choose(free or LABELS, seed, pair.id, order, "labels")
    return (first, second) if chance.unit(seed, pair.id, order, "flip") < 0.5 else (second, first)
