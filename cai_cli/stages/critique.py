"""Samples -> samples with an open round: what is wrong with the current response, principle by principle."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import Field

from cai_cli import prompts
from cai_cli.constitution import Constitution, How, Principle
from cai_cli.errors import Reject
from cai_cli.flow import Flow, Model, Request, ask_whole, together
from cai_cli.prompts import Template
from cai_cli.records import Chain, Round, Sample, Turn
from cai_cli.records import Critique as Finding
from cai_cli.settings import ModelSection, Section, Share, Text

VERSION = 1
SHAPE = Chain

SEVERITIES = {"none": 0.0, "minor": 0.3, "moderate": 0.6, "severe": 0.9}
CATEGORY_WEIGHTS = {"harmlessness": 2.0, "honesty": 1.5, "helpfulness": 1.0}  # in `quality`; any other category: 1

_TEXTS = {"type": "array", "items": {"type": "string"}}
_SCHEMA = prompts.schema(
    critique={"type": "string"}, severity={"type": "string", "enum": list(SEVERITIES)}, quotes=_TEXTS, suggestions=_TEXTS
)


class Settings(Section):
    """The section `critique`."""

    template: Text = "general"
    """What the critic is asked: general (with a severity), paper (free text), or a template of your own."""
    principles: Annotated[int, Field(ge=0)] = 1
    """Principles a response is held to in each round. 0: the built-in one, helpful, harmless and honest."""
    pick: How = "weighted"
    """How they are picked: weighted, uniform, in_order (the next ones each round), or all."""
    scores: Literal["off"] = "off"
    """Scores of the rounds. Only off, as yet; `cai score` rates samples."""
    needs_revision_above: Share = 0.3
    """A critique asks for a revision when its severity is above this: none 0, minor .3, moderate .6, severe .9."""
    primary_above: Share = 0.5
    """A principle is listed in `primary_issues` when its severity is above this."""
    max_suggestions: Annotated[int, Field(ge=0)] = 5
    """Suggestions kept of each critique."""
    model: ModelSection | None = None
    """Keys that override the top-level `model` here."""


@dataclass(frozen=True, slots=True)
class Critique:
    """Critique the current response against each principle picked for the round.

    Takes: Sample   Gives: it with an open round; unchanged if it is finished or has one   Asks: one a principle
    Rejects: refused, truncated, no_severity, empty_response, and what `ask` rejects
    Source: Bai et al. 2022, arXiv 2212.08073, section 3.1 (severity, quotes and suggestions are ours)
    """

    settings: Settings
    constitution: Constitution
    template: Template
    model: Model
    seed: int
    retry_truncated: bool = False

    def __call__(self, sample: Sample) -> Flow[Chain]:
        chain = Chain.begin(sample)
        if chain.stopped_by or chain.open_round:
            return chain
        if not chain.response.strip():
            return _without_response(chain)
        number = len(chain.rounds) + 1
        picked = self.constitution.pick(self.settings.pick, self.settings.principles, self.seed, chain.id, number)
        findings = yield from together(self._find(chain, number, principle) for principle in picked)
        critiques = [_value(finding) for finding in findings]
        return chain.with_open(_round(number, critiques, self.settings.primary_above))

    def _find(self, chain: Chain, number: int, principle: Principle) -> Flow[Finding]:
        ask_once = functools.partial(ask_whole, retry_truncated=self.retry_truncated)
        request = self._question(chain, number, principle)
        reply, value = yield from prompts.ask_readable(ask_once, request, self._read)
        if reply.refused or reply.truncated:
            raise Reject("refused" if reply.refused else "truncated", f"the critique by '{principle.name}'")
        if value is None:
            raise Reject("no_severity", f"two replies by '{principle.name}' that are not what was asked for")
        return self._finding(chain.response, principle, value)

    def _question(self, chain: Chain, number: int, principle: Principle) -> Request:
        conversation = prompts.transcript(chain.messages)
        nonce = prompts.nonce((conversation, chain.response), self.seed, chain.id, "critique", number)
        text = self.template.fill(
            conversation=prompts.fenced("conversation", nonce, conversation), nonce=nonce,
            response=prompts.fenced("response", nonce, chain.response), max_suggestions=self.settings.max_suggestions,
            principle=principle.name, category=principle.category, description=principle.description,
            critique_prompt=principle.critique_prompt, examples=principle.examples,
        )  # fmt: skip
        schema = _SCHEMA if self.template.reply == "json" else None
        return Request(
            model=self.model, messages=(Turn(role="user", content=text),), schema=schema, stage="critique", row=chain.id
        )

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


def _without_response(chain: Chain) -> Chain:
    if not chain.refused:
        raise Reject("empty_response", "there is nothing to critique")
    return replace(chain, stopped_by="refused")


def _value(finding: Finding | Reject) -> Finding:
    if isinstance(finding, Reject):
        raise finding
    return finding


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
