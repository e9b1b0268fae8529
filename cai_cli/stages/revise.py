"""Samples with an open round -> samples with it closed: the response rewritten to answer its critiques."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from cai_cli import prompts, votes
from cai_cli.constitution import Constitution, How
from cai_cli.errors import Fix, Reject
from cai_cli.exemplars import Exemplar
from cai_cli.flow import Flow, Model, Request, ask_whole, together, value_of
from cai_cli.judging import ORDERS, Judge, soft_labelers
from cai_cli.parts import Parts
from cai_cli.prompts import Template
from cai_cli.records import Chain, Critique, Pair, Round, Sample, Turn
from cai_cli.remembered import Remembered
from cai_cli.settings import Count, Labeler, ModelSection, Section, Share, Text

VERSION = 3
SHAPE = Chain
READS = ("critique",)


class Stop(Section):
    """When a chain ends before its last round. Looked at in this order, before anything is asked; null: never."""

    no_revision_needed: bool = True
    """No critique of the round asks for a revision."""
    severity_below: Share | None = 0.2
    """The round's severity is below this."""
    improvement_below: Annotated[float, Field(ge=-1, le=1)] | None = 0.05
    """The severity fell by less than this since the round before."""
    quality_above: Share | None = None
    """The round's quality is above this."""
    unchanged: bool = True
    """The revision is the text that it revised. Looked at after the revision; false: the next round draws other principles."""


class Settings(Section):
    """The section `revise`."""

    template: Text = "general"
    """What the reviser is asked: general, direct (where critique is off), or a template of your own.
    Default: the one that fits."""
    rounds: Count = 2
    """Rounds of critique and revision, at most."""
    stop: Stop = Stop()
    """When to stop earlier."""
    handed_above: Share = 0.2
    """Critiques of a severity above this are handed to the reviser; where none is, all are."""
    accept: Literal["always", "if_preferred"] = "always"
    """Which revisions become the response: always, or if_preferred: a labeler compares both texts, in both orders."""
    ties: Literal["by_severity", "revision", "original"] = "by_severity"
    """What stays where the labeler prefers neither. by_severity: the revision, unless the round's severity is below
    tie_severity."""
    tie_severity: Share = 0.3
    """See ties."""
    labeler: Labeler | None = None
    """Who compares the texts for if_preferred. Default: one called main, with the top-level model."""
    principles: Annotated[int, Field(ge=1)] = 1
    """Where critique is off: how many principles a round revises by."""
    pick: How = "weighted"
    """Where critique is off: how they are picked, as in critique."""
    categories: dict[str, Annotated[float, Field(ge=0)]] = Field({})
    """Where critique is off: weights of categories, as in critique."""
    exemplars: Annotated[int, Field(ge=0)] = 0
    """Worked cases put before the question."""
    exemplar_file: Text = "general"
    """Where they come from: general (shipped), or a YAML file of your own."""
    model: ModelSection | None = None
    """Keys that override the top-level `model` here."""


@dataclass(frozen=True, slots=True)
class Revise:
    """Rewrite a response to answer its critiques or, where critique is off, to meet principles drawn for it.

    Takes: Chain with an open round   Gives: it with that round closed; unchanged if none is open. Direct: Sample, all its rounds
    Asks: 1, or 0 where a stop rule holds; 2 more where a labeler decides
    Rejects: refused, truncated, empty_revision, meta_revision, unknown_principle, no_verdict, and what `ask` rejects
    Source: Bai et al. 2022, arXiv 2212.08073, section 3 (3.1: the loop; direct revisions too; the stop rules are ours)
    """

    settings: Settings
    constitution: Constitution
    template: Template
    model: Model
    seed: int
    direct: bool = False
    exemplars: tuple[Exemplar, ...] = ()
    judge: Judge | None = None

    @property
    def reads(self) -> tuple[str, ...]:
        """Whose rows it takes."""
        return ("generate",) if self.direct else READS

    @property
    def takes(self) -> type[Chain] | None:
        """The record that it reads rows as; None where critique is off: samples will do."""
        return None if self.direct else Chain

    def __call__(self, sample: Sample) -> Flow[Chain]:
        chain = Chain.begin(sample)
        if not self.direct:
            return (yield from self._round(chain)) if chain.open_round else chain
        if not chain.response.strip():
            return _without_response(chain)
        while not chain.stopped_by:
            chain = yield from self._round(chain if chain.open_round else self._opened(chain))
        return chain

    def _opened(self, chain: Chain) -> Chain:
        """A round without a critique: only the principles that the revision is to meet."""
        number = len(chain.rounds) + 1
        picked = self.constitution.pick(self.settings.pick, self.settings.principles, self.seed, chain.id, number)
        held = tuple(Critique(principle=one.name, category=one.category, critique="") for one in picked)
        return chain.with_open(Round(round=number, critiques=held))

    def _round(self, chain: Chain) -> Flow[Chain]:
        opened = chain.rounds[-1]
        before = chain.rounds[-2] if len(chain.rounds) > 1 else None
        if rule := stopped_by(self.settings.stop, opened, before):
            return chain.with_closed(replace(opened, accepted=False), rule)
        request, nonce = self.question(chain)
        reply = yield from ask_whole(request)
        if reply.refused or reply.truncated:
            raise Reject("refused" if reply.refused else "truncated", f"the revision of round {opened.round}")
        from cai_cli.openers import clean  # its patterns take 40 ms to compile: a run's first request need not wait for that

        cleaned = clean(reply.text, nonce, chain.response)
        closed = replace(opened, revision=cleaned.revision, stripped=cleaned.stripped, accepted=True)
        if self.judge is not None and closed.revision != chain.response.strip():
            closed = yield from self._compared(self.judge, chain, closed)
        return chain.with_closed(closed, self._end(chain, closed.revision))

    def _compared(self, judge: Judge, chain: Chain, closed: Round) -> Flow[Round]:
        """The round with the votes of both orders, and with their verdict on the revision."""
        pair = Pair(
            id=f"{chain.id}-round-{closed.round}", prompt_id=chain.prompt_id, messages=chain.messages, prompt=chain.prompt,
            response_a=chain.response, response_b=closed.revision,
        )  # fmt: skip
        (criterion,) = self.constitution.pick_preferences("weighted", 1, self.seed, chain.id, closed.round)
        outcomes = yield from together(judge.vote(pair, criterion, order, 0) for order in ORDERS)
        given = tuple(value_of(outcome) for outcome in outcomes)
        p_a = votes.pool(given, soft=soft_labelers(given))
        if p_a is None:
            raise Reject("no_verdict", f"whether to accept the revision of round {closed.round}")
        return replace(closed, votes=given, accepted=self._accepts(votes.preference_of(p_a), closed.severity))

    def _accepts(self, preferred: str, severity: float | None) -> bool:
        if preferred != "tie" or self.settings.ties != "by_severity":
            return preferred == "b" or (preferred == "tie" and self.settings.ties == "revision")
        return severity is None or severity >= self.settings.tie_severity

    def _end(self, chain: Chain, revision: str) -> str:
        if self.settings.stop.unchanged and revision == chain.response.strip():
            return "unchanged"
        return "rounds" if len(chain.rounds) >= self.settings.rounds else ""

    def question(self, chain: Chain) -> tuple[Request, str]:
        """The request that closes the open round, as it is sent, and the digits of its fences."""
        opened = chain.rounds[-1]
        critiques = self._handed(opened)
        requests = list(dict.fromkeys(self._revision_prompt(critique.principle) for critique in critiques))
        texts = [text for critique in critiques if (text := _text(critique))]
        fixed = (self.seed, chain.id, "revise", opened.round)
        asked, nonce = self._fill(chain.messages, chain.response, texts, requests, fixed)
        turns = (*_worked(self), Turn(role="user", content=asked))
        request = Request(
            model=self.model, messages=turns, stage="revise", row=chain.id, about={"round": opened.round},
            constant=(len(turns) - 1, self.template.constant()),
        )  # fmt: skip
        return request, nonce

    def _fill(
        self, messages: Sequence[Turn], response: str, critiques: Sequence[str], requests: Sequence[str], key: Sequence[object]
    ) -> tuple[str, str]:
        nonce = prompts.nonce((prompts.transcript(messages), response, *critiques), *key)
        text = self.template.fill(
            conversation=prompts.conversation(messages, nonce), nonce=nonce,
            response=prompts.fenced("response", nonce, response), revision_prompts=requests,
            critiques="\n\n".join(prompts.fenced("critique", nonce, text) for text in critiques),
        )  # fmt: skip
        return text, nonce

    def worked(self) -> Iterator[Turn]:
        """The exemplars as turns, the same ones before every question, so that servers can keep them in their cache."""
        for n, one in enumerate(self.exemplars):
            key = (self.seed, "exemplar", "revise", n)
            asked, _ = self._fill(one.conversation, one.response, [] if self.direct else [one.critique], [one.request], key)
            yield Turn(role="user", content=asked)
            yield Turn(role="assistant", content=one.revision)

    def _handed(self, opened: Round) -> tuple[Critique, ...]:
        """The critiques that are answered, the principle that goes first where they conflict at the top."""
        known = opened.critiques
        weighty = tuple(one for one in known if one.severity is None or one.severity > self.settings.handed_above)
        return tuple(sorted(weighty or known, key=lambda one: self.constitution.rank(one.principle)))

    def _revision_prompt(self, name: str) -> str:
        principle = self.constitution.principle(name)
        if principle is None:
            raise Reject("unknown_principle", f"critiqued by '{name}', which the constitution no longer has")
        return principle.revision_prompt


_worked = Remembered[Revise, tuple[Turn, ...]](lambda stage: tuple(stage.worked()))  # filled once, not for every row


def _without_response(chain: Chain) -> Chain:
    if not chain.refused:
        raise Reject("empty_response", "there is nothing to revise")
    return replace(chain, stopped_by="refused")


def stopped_by(stop: Stop, opened: Round, before: Round | None) -> str:
    """The first stop rule that holds for a round; empty: none. A severity or quality that nobody gave meets no rule."""
    severity, earlier = opened.severity, before.severity if before else None
    fell = earlier - severity if earlier is not None and severity is not None else None
    rules = {
        "no_revision_needed": stop.no_revision_needed and not opened.needs_revision,
        "severity_below": _below(severity, stop.severity_below),
        "improvement_below": _below(fell, stop.improvement_below),
        "quality_above": _below(stop.quality_above, opened.quality),
    }
    return next((rule for rule, holds in rules.items() if holds), "")


def _below(value: float | None, limit: float | None) -> bool:
    return value is not None and limit is not None and value < limit


def _text(critique: Critique) -> str:
    suggestions = "\n".join(f"- {suggestion}" for suggestion in critique.suggestions)
    return f"{critique.critique}\n\nSuggestions:\n{suggestions}" if suggestions else critique.critique


def build(parts: Parts) -> Revise:
    """Raises: Fix: a template, exemplars or a constitution that cannot be used"""
    settings: Settings = parts.settings
    direct = "critique" in parts.off
    template = parts.template("direct" if direct and settings.template == "general" else settings.template, "revise")
    if not direct and "critiques" not in template.variables:
        hint = "use {{ critiques }} in it, or write critique: off"
        raise Fix(f"revise: the template '{template.name}' does not show the critiques", hint)
    if direct and "revision_prompts" not in template.variables:
        hint = "use {{ revision_prompts }} in it, or take revise.template: direct"
        raise Fix(f"revise: the template '{template.name}' does not show what a revision is to meet", hint)
    exemplars = parts.exemplars(settings.exemplar_file, "revise", settings.exemplars)
    model = parts.model()  # before the labeler's: a stage's own model stands first
    judge = _judge(parts, settings.labeler) if settings.accept == "if_preferred" else None
    if not direct and (idle := sorted({"principles", "pick", "categories"} & settings.model_fields_set)):
        raise Fix(f"revise: {idle[0]} is for critique: off; critiques are answered as they come", f"set critique.{idle[0]}")
    constitution = parts.principles(needed=direct).weighing(settings.categories)
    return Revise(settings, constitution, template, model, parts.seed, direct, exemplars, judge)


def _judge(parts: Parts, labeler: Labeler | None) -> Judge:
    """Who compares a revision with what it revised: never the reviser's settings by default, always in both orders."""
    named = labeler or Labeler(name="main")
    model = parts.default_model(named.model)
    return Judge(
        name=named.name, model=model, template=parts.template("general", "label"), seed=parts.seed,
        draw_offset=parts.draw_offset, stage="revise",
    )  # fmt: skip
