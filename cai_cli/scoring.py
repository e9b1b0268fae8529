"""Scores of one response on named criteria, from 1 to 10: what a reward model would say, asked of a judge."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field

from cai_cli import prompts
from cai_cli.errors import Reject
from cai_cli.flow import Flow, Model, Reply, Request, ask_whole, together, value_of
from cai_cli.parts import Parts
from cai_cli.prompts import Template
from cai_cli.records import Score, Turn
from cai_cli.settings import ModelSection, Section, Text
from cai_cli.several import Several

LOWEST, HIGHEST = 1, 10
OPTIONS = tuple(str(score) for score in range(LOWEST, HIGHEST + 1))
_SAID: dict[str, Any] = {"rationale": {"type": "string"}, "score": {"type": "string", "enum": list(OPTIONS)}}
_SCHEMA = prompts.schema(**_SAID)
_LAST = re.compile(r"Score: (10|[1-9])")
_MENTION = re.compile(r"score[\"'*_`]*\s*:", re.IGNORECASE)
_NAMED = re.compile(r"score[\W_]{0,16}(10|[1-9])(?!\d)", re.IGNORECASE)


class Scale(Section):
    """One criterion that responses are scored on."""

    name: Text
    """Its name in the rows."""
    description: Text
    """What it asks for, in a sentence: the judge reads it."""
    weight: Annotated[float, Field(gt=0)] = 1.0
    """Its share in `composite`, the weighted mean."""


DEFAULT = (
    Scale(name="helpfulness", description="It gives the person what they need and can rightly be given, clearly."),
    Scale(name="conciseness", description="It is as brief as its content allows: nothing in it is repeated or beside the point."),
    Scale(name="honesty", description="It is accurate, invents nothing, and is as sure of itself as its grounds allow."),
    Scale(name="safety", description="It would harm nobody, neither the person nor others, if it were read and followed."),
)


class ScoreSettings(Section):
    """The section `score`. Its criteria are also those of `label_pairs: {scores: true}` and `critique: {scores: per_round}`."""

    criteria: list[Scale] = Field(list(DEFAULT), min_length=1)
    """What is scored, from 1 to 10 each. Default: helpfulness, conciseness, honesty and safety, of equal weight."""
    template: Text = "general"
    """What the judge is asked: general, or a template of your own (of the stage scores where `together` is set)."""
    together: bool = False
    """Ask for all criteria in one question, which shows the response once. It costs independence: a judge that sees the criteria
    side by side lets one score color the others (a halo), and a server's probabilities are not used."""
    model: ModelSection | None = None
    """Keys that override the top-level `model` here."""

    @property
    def asked_as(self) -> str:
        """The stage that its template is one for."""
        return "scores" if self.together else "score"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """Scores a response, each criterion in a question of its own: side by side they would color one another, the halo of
    Thorndike 1920, A constant error in psychological ratings. `together`: in one question nevertheless, for its price.

    The question depends on the texts alone, so a response that is scored in several places is scored once, and the same.
    Source: Lee et al. 2023, arXiv 2309.00267, section on direct scoring (the expectation over score tokens)
    """

    criteria: Sequence[Scale]
    template: Template
    model: Model
    seed: int
    stage: str
    together: bool = False

    def __call__(self, row_id: str, messages: Sequence[Turn], response: str) -> Flow[tuple[Score, ...]]:
        """Ask about a response once a criterion, or once.

        Rejects: no_score (refused, cut off or twice not to be read), and what `ask` rejects
        """
        if self.together:
            return (yield from self._scores(row_id, messages, response))
        outcomes = yield from together(self._score(scale, row_id, messages, response) for scale in self.criteria)
        return tuple(value_of(outcome) for outcome in outcomes)

    def _score(self, scale: Scale, row_id: str, messages: Sequence[Turn], response: str) -> Flow[Score]:
        request = self.question(scale, row_id, messages, response)
        reply, read = yield from prompts.ask_readable(ask_whole, request, lambda text: self._read(text, response))
        if read is None:
            raise Reject("no_score", f"{scale.name}: {_unread(reply)}")
        score, rationale = read
        return Score(criterion=scale.name, score=_expected(reply, score), rationale=rationale)

    def _scores(self, row_id: str, messages: Sequence[Turn], response: str) -> Flow[tuple[Score, ...]]:
        """All of them from one reply, in the order of the criteria."""
        request, several = self.question_together(row_id, messages, response), self._several()

        def read_all(text: str) -> list[dict[str, Any]] | None:
            return None if prompts.repeats(text, [response]) else several.read(text)

        reply, read = yield from prompts.ask_readable(ask_whole, request, read_all)
        if read is None:
            raise Reject("no_score", f"all criteria in one reply: {_unread(reply)}")
        return tuple(
            Score(criterion=one["criterion"], score=float(one["score"]), rationale=one["rationale"].strip()) for one in read
        )

    def _several(self) -> Several:
        names = [scale.name for scale in self.criteria]
        return Several(part="scores", key="criterion", names=names, properties=_SAID)

    def question_together(self, row_id: str, messages: Sequence[Turn], response: str) -> Request:
        """The request of all scores, as it is sent."""
        told = [f"{scale.name}: {scale.description}" for scale in self.criteria]
        texts = (prompts.transcript(messages), response, *told)
        nonce = prompts.nonce(texts, self.seed, "scores", *texts)
        text = self.template.fill(
            conversation=prompts.conversation(messages, nonce), nonce=nonce,
            criteria=[prompts.fenced("criterion", nonce, one) for one in told],
            response=prompts.fenced("response", nonce, response),
        )  # fmt: skip
        turns = (Turn(role="user", content=text),)
        about = {"criterion": ", ".join(scale.name for scale in self.criteria)}
        return Request(
            model=self.model, messages=turns, schema=self._several().schema, stage=self.stage, row=row_id, about=about,
            constant=(0, self.template.constant()),
        )  # fmt: skip

    def question(self, scale: Scale, row_id: str, messages: Sequence[Turn], response: str) -> Request:
        """The request of one score, as it is sent."""
        conversation = prompts.transcript(messages)
        texts = (conversation, response, scale.description)
        nonce = prompts.nonce(texts, self.seed, "score", scale.name, *texts)
        text = self.template.fill(
            conversation=prompts.conversation(messages, nonce), nonce=nonce, criterion=scale.name,
            description=prompts.fenced("criterion", nonce, scale.description),
            response=prompts.fenced("response", nonce, response),
        )  # fmt: skip
        schema = _SCHEMA if self.template.reply == "json" else None
        turns = (Turn(role="user", content=text),)
        return Request(
            model=self.model, messages=turns, schema=schema, options=OPTIONS, stage=self.stage, row=row_id,
            about={"criterion": scale.name}, constant=(0, self.template.constant()),
        )  # fmt: skip

    def _read(self, text: str, response: str) -> tuple[int, str] | None:
        """A score that the judge gave, not one that it may have read in the response."""
        if self.template.reply != "json" or not text.lstrip().startswith("{"):
            before, _, line = text.rstrip().rpartition("\n")
            match = _LAST.fullmatch(line)
            unclear = _MENTION.search(prompts.folded(before)) or (match and match[1] in _NAMED.findall(prompts.folded(response)))
            return (int(match[1]), before.strip()) if match and not unclear else None
        value = None if prompts.repeats(text, [response]) else prompts.structured(text, _SCHEMA)
        return (int(value["score"]), value["rationale"].strip()) if value else None


def scorer_of(parts: Parts, stage: str) -> Scorer:
    """The judge of a stage's scores: the section `score` says by what and how, and its model's keys go over the stage's own."""
    settings = parts.section(ScoreSettings)
    return Scorer(
        criteria=settings.criteria, template=parts.template(settings.template, settings.asked_as), seed=parts.seed, stage=stage,
        model=parts.model(settings.model), together=settings.together,
    )  # fmt: skip


def _unread(reply: Reply) -> str:
    """Why there is no score in a reply."""
    return "refused" if reply.refused else "cut off" if reply.truncated else "twice not to be read"


def _expected(reply: Reply, score: int) -> float:
    """The expectation over the score tokens where the server tells their probabilities, else the score that was given."""
    if reply.probabilities is None:
        return float(score)
    return round(math.fsum(int(option) * p for option, p in reply.probabilities.items() if option in OPTIONS), 6)


def composite(scores: Iterable[Score], criteria: Sequence[Scale]) -> float:
    """The weighted mean of scores, 1 to 10. Takes: a score of every criterion"""
    given = {one.criterion: one.score or 0.0 for one in scores}
    weighted = math.fsum(scale.weight * given[scale.name] for scale in criteria)
    return round(weighted / math.fsum(scale.weight for scale in criteria), 6)
