"""Samples -> samples with an open round: what is wrong with the current response, principle by principle."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from cai_cli import prompts
from cai_cli.constitution import Constitution, How, Principle
from cai_cli.errors import Fix, Reject
from cai_cli.exemplars import SEVERITIES as WORDS
from cai_cli.exemplars import Exemplar
from cai_cli.flow import Flow, Model, Reply, Request, ask_whole, together, value_of
from cai_cli.parts import Parts
from cai_cli.prompts import Template
from cai_cli.records import Chain, Round, Sample, Turn
from cai_cli.records import Critique as Finding
from cai_cli.remembered import Remembered
from cai_cli.scoring import Scorer, scorer_of
from cai_cli.settings import ModelSection, Section, Share, Text
from cai_cli.several import Several

VERSION = 3
SHAPE = Chain
READS = ("generate",)
AGAIN = "revise"  # further rounds read what it wrote

SEVERITIES = dict(zip(WORDS, (0.0, 0.3, 0.6, 0.9), strict=True))
CATEGORY_WEIGHTS = {"harmlessness": 2.0, "honesty": 1.5, "helpfulness": 1.0}  # in `quality`; any other category: 1

_TEXTS = {"type": "array", "items": {"type": "string"}}
_SAID: dict[str, Any] = {
    "critique": {"type": "string"}, "severity": {"type": "string", "enum": list(SEVERITIES)}, "quotes": _TEXTS,
    "suggestions": _TEXTS,
}  # fmt: skip
_SCHEMA = prompts.schema(**_SAID)


class Settings(Section):
    """The section `critique`."""

    template: Text = "general"
    """What the critic is asked: general, safety_focused, helpfulness_focused, honesty_focused (all with a severity), paper (free
    text), or a template of your own."""
    exemplars: Annotated[int, Field(ge=0)] = 0
    """Worked cases put before the question. They help small models most, and cost their tokens with every question."""
    exemplar_file: Text = "general"
    """Where they come from: general (shipped), or a YAML file of your own."""
    principles: Annotated[int, Field(ge=0)] = 1
    """Principles a response is held to in each round. 0: the built-in one, helpful, harmless and honest."""
    together: bool = False
    """Ask about all principles of a round in one question, which shows the response once. It costs independence: a fault found by
    one principle colors what is said by the others (a halo). The template is then general, or one of your own of the stage
    critiques."""
    pick: How = "weighted"
    """How they are picked: weighted, uniform, in_order (the next ones each round), or all."""
    categories: dict[str, Annotated[float, Field(ge=0)]] = Field({})
    """Weights of categories, over those of the principles: harmlessness: 2 picks its principles twice as often, 0 never.
    1 where none is given."""
    scores: Literal["off", "per_round"] = "off"
    """per_round: score the text that each round criticises, too, on the criteria of the section `score`. `cai score` adds
    those of the last revision; a text that was scored already is not asked about again."""
    needs_revision_above: Share = 0.3
    """A critique asks for a revision when its severity is above this: none 0, minor .3, moderate .6, severe .9."""
    primary_above: Share = 0.5
    """A principle is listed in `primary_issues` when its severity is above this."""
    max_suggestions: Annotated[int, Field(ge=0)] = 5
    """Suggestions kept of each critique."""
    model: ModelSection | None = None
    """Keys that override the top-level `model` here."""

    @model_validator(mode="after")
    def _alone(self) -> Settings:
        if self.together and self.exemplars:
            raise ValueError("exemplars answer for one principle, and together asks about several; leave one of the two out")
        return self

    @property
    def asked_as(self) -> str:
        """The stage that its template is one for."""
        return "critiques" if self.together else "critique"


@dataclass(frozen=True, slots=True)
class Critique:
    """Critique the current response against each principle picked for the round.

    Takes: Sample   Gives: it with an open round; unchanged if it is finished or has one
    Asks: one a principle, or one where they go together; and one a criterion where rounds are scored
    Rejects: refused, truncated, no_severity, no_score, empty_response, and what `ask` rejects
    Source: Bai et al. 2022, arXiv 2212.08073, section 3.1 (severity, quotes and suggestions are ours)
    """

    settings: Settings
    constitution: Constitution
    template: Template
    model: Model
    seed: int
    exemplars: tuple[Exemplar, ...] = ()
    scorer: Scorer | None = None

    def __call__(self, sample: Sample) -> Flow[Chain]:
        chain = Chain.begin(sample)
        if chain.stopped_by or chain.open_round:
            return chain
        if not chain.response.strip():
            return _without_response(chain)
        number = len(chain.rounds) + 1
        picked = self.constitution.pick(self.settings.pick, self.settings.principles, self.seed, chain.id, number)
        asked: list[Flow[Any]] = [self._find_all(chain, number, picked)]
        if self.scorer:
            asked.append(self.scorer(chain.id, chain.messages, chain.response))
        findings, *scores = [value_of(outcome) for outcome in (yield from together(asked))]
        opened = _round(number, findings, self.settings.primary_above)
        return chain.with_open(replace(opened, scores=scores[0]) if self.scorer else opened)

    def _find_all(self, chain: Chain, number: int, picked: Sequence[Principle]) -> Flow[list[Finding]]:
        if not self.settings.together:
            outcomes = yield from together([self._find(chain, number, principle) for principle in picked])
            return [value_of(outcome) for outcome in outcomes]
        request, several = self._question_together(chain, number, picked), _several(picked)
        reply, values = yield from prompts.ask_readable(ask_whole, request, several.read)
        _check_reply(reply, values, f"all of {', '.join(several.names)} in one reply")
        return [self._finding(chain.response, one, value) for one, value in zip(picked, values or (), strict=True)]

    def _question_together(self, chain: Chain, number: int, picked: Sequence[Principle]) -> Request:
        conversation = prompts.transcript(chain.messages)
        nonce = prompts.nonce((conversation, chain.response), self.seed, chain.id, "critiques", number)
        told = tuple(map(_told, picked))
        text = self.template.fill(
            conversation=prompts.conversation(chain.messages, nonce), nonce=nonce,
            response=prompts.fenced("response", nonce, chain.response), max_suggestions=self.settings.max_suggestions,
            principles=told,
        )  # fmt: skip
        about: dict[str, str | int] = {"round": number, "principle": ", ".join(principle.name for principle in picked)}
        turns = (Turn(role="user", content=text),)
        same = {"principles": told} if self.settings.pick == "all" else {}
        constant = self.template.constant(max_suggestions=self.settings.max_suggestions, **same)
        return Request(
            model=self.model, messages=turns, schema=_several(picked).schema, stage="critique", row=chain.id, about=about,
            constant=(0, constant),
        )  # fmt: skip

    def _find(self, chain: Chain, number: int, principle: Principle) -> Flow[Finding]:
        request = self._question(chain, number, principle)
        reply, value = yield from prompts.ask_readable(ask_whole, request, self._read)
        _check_reply(reply, value, f"'{principle.name}'")
        return self._finding(chain.response, principle, value or {})

    def _question(self, chain: Chain, number: int, principle: Principle) -> Request:
        conversation = prompts.transcript(chain.messages)
        nonce = prompts.nonce((conversation, chain.response), self.seed, chain.id, "critique", number)
        turns = (*_worked(self), Turn(role="user", content=self._fill(chain.messages, chain.response, principle, nonce)))
        schema = _SCHEMA if self.template.reply == "json" else None
        about: dict[str, str | int] = {"round": number, "principle": principle.name}
        constant = len(turns) - 1, self.template.constant(max_suggestions=self.settings.max_suggestions)
        return Request(
            model=self.model, messages=turns, schema=schema, stage="critique", row=chain.id, about=about, constant=constant
        )

    def _fill(self, messages: Sequence[Turn], response: str, principle: Principle, nonce: str) -> str:
        return self.template.fill(
            conversation=prompts.conversation(messages, nonce), nonce=nonce,
            response=prompts.fenced("response", nonce, response), max_suggestions=self.settings.max_suggestions,
            principle=principle.name, category=principle.category, description=principle.description,
            critique_prompt=principle.critique_prompt, examples=principle.examples,
        )  # fmt: skip

    def worked(self) -> Iterator[Turn]:
        """The exemplars as turns, the same ones before every question, so that servers can keep them in their cache."""
        for n, exemplar in enumerate(self.exemplars):
            conversation = prompts.transcript(exemplar.conversation)
            nonce = prompts.nonce((conversation, exemplar.response), self.seed, "exemplar", "critique", n)
            held = Principle(
                name=exemplar.principle or "the principle", category="", description=exemplar.request,
                critique_prompt=exemplar.request, revision_prompt="",
            )  # fmt: skip
            yield Turn(role="user", content=self._fill(exemplar.conversation, exemplar.response, held, nonce))
            yield Turn(role="assistant", content=self._answer(exemplar))

    def _answer(self, exemplar: Exemplar) -> str:
        if self.template.reply != "json":
            return exemplar.critique
        parts = {"critique": exemplar.critique, "severity": exemplar.severity, "quotes": exemplar.quotes,
                 "suggestions": exemplar.suggestions}  # fmt: skip
        return json.dumps(parts, ensure_ascii=False)

    def _read(self, text: str) -> dict[str, Any] | None:
        """Never searched for in prose: "none of this is severe" names two severities and means neither."""
        return prompts.structured(text, _SCHEMA) if self.template.reply == "json" else {"critique": text}

    def _finding(self, response: str, principle: Principle, value: dict[str, Any]) -> Finding:
        finding = Finding(principle=principle.name, category=principle.category, critique=value["critique"].strip())
        if "severity" not in value:
            return finding
        severity = SEVERITIES[value["severity"]]
        suggestions = [text.strip() for text in value["suggestions"] if text.strip()]
        # A quote that does not stand in the response word for word is made up.
        quotes = dict.fromkeys(quote for quote in value["quotes"] if quote.strip() and quote in response)
        return replace(
            finding, severity=severity, needs_revision=severity > self.settings.needs_revision_above,
            suggestions=tuple(suggestions[: self.settings.max_suggestions]), quotes=tuple(quotes),
        )  # fmt: skip


def _check_reply(reply: Reply, value: object, of: str) -> None:
    if reply.refused or reply.truncated:
        raise Reject("refused" if reply.refused else "truncated", f"the critique by {of}")
    if value is None:
        raise Reject("no_severity", f"two replies by {of} that are not what was asked for")


def _several(picked: Sequence[Principle]) -> Several:
    names = [principle.name for principle in picked]
    return Several(part="critiques", key="principle", names=names, properties=_SAID)


def _told(principle: Principle) -> str:
    """A principle in one paragraph, as a question about several of them tells it."""
    examples = f" By example: {' / '.join(principle.examples)}" if principle.examples else ""
    return f"{principle.name}: {principle.description} {principle.critique_prompt}{examples}"


_worked = Remembered[Critique, tuple[Turn, ...]](lambda stage: tuple(stage.worked()))  # filled once, not for every row


def _without_response(chain: Chain) -> Chain:
    if not chain.refused:
        raise Reject("empty_response", "there is nothing to critique")
    return replace(chain, stopped_by="refused")


def _round(number: int, critiques: Sequence[Finding], primary_above: float) -> Round:
    known = [(critique, critique.severity) for critique in critiques if critique.severity is not None]
    if not known:
        return Round(round=number, critiques=tuple(critiques))
    weights = [CATEGORY_WEIGHTS.get(critique.category, 1.0) for critique, _ in known]
    quality = sum(weight * (1 - severity) for weight, (_, severity) in zip(weights, known, strict=True)) / sum(weights)
    return Round(
        round=number, critiques=tuple(critiques), severity=max(severity for _, severity in known), quality=round(quality, 6),
        primary_issues=tuple(critique.principle for critique, severity in known if severity > primary_above),
    )  # fmt: skip


def build(parts: Parts) -> Critique:
    """Raises: Fix: a template, exemplars or a constitution that cannot be used"""
    settings: Settings = parts.settings
    template = parts.template(settings.template, settings.asked_as)
    exemplars = parts.exemplars(settings.exemplar_file, "critique", settings.exemplars)
    if template.reply == "json" and any(not exemplar.severity for exemplar in exemplars):
        raise Fix(
            f"critique: exemplars '{settings.exemplar_file}' have no severity, which the template '{settings.template}' asks for",
            "use them with the template paper, or give each a severity",
        )
    model = parts.model()  # before the scorer's: a stage's own model stands first
    scorer = scorer_of(parts, "critique") if settings.scores == "per_round" else None
    constitution = parts.principles(needed=settings.principles > 0).weighing(settings.categories)
    return Critique(settings, constitution, template, model, parts.seed, exemplars, scorer)
