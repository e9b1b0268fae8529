"""Samples with an open round -> samples with it closed: the response rewritten to answer its critiques."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field

from cai_cli import prompts
from cai_cli.constitution import Constitution
from cai_cli.errors import Reject
from cai_cli.flow import Flow, Model, Request, ask_whole
from cai_cli.prompts import Template
from cai_cli.records import Chain, Critique, Round, Turn
from cai_cli.settings import Count, ModelSection, Section, Share, Text

VERSION = 1
SHAPE = Chain

MINOR = 0.2  # critiques of at most this severity are not handed to the reviser beside worse ones


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


class Settings(Section):
    """The section `revise`."""

    template: Text = "general"
    """What the reviser is asked: general, or a template of your own."""
    rounds: Count = 2
    """Rounds of critique and revision, at most."""
    stop: Stop = Stop()
    """When to stop earlier."""
    accept: Literal["always"] = "always"
    """Which revisions become the response. Only always, as yet."""
    labeler: None = None
    """Reserved for who judges revisions; only null, as yet."""
    model: ModelSection | None = None
    """Keys that override the top-level `model` here."""


@dataclass(frozen=True, slots=True)
class Revise:
    """Rewrite a response to answer its critiques.

    Takes: Chain with an open round   Gives: it with that round closed; unchanged if none is open
    Asks: 1, or 0 where a stop rule holds
    Rejects: refused, truncated, empty_revision, unknown_principle, and what `ask` rejects
    Source: Bai et al. 2022, arXiv 2212.08073, section 3.1 (the stop rules are ours)
    """

    settings: Settings
    constitution: Constitution
    template: Template
    model: Model
    seed: int
    retry_truncated: bool = False

    def __call__(self, chain: Chain) -> Flow[Chain]:
        opened = chain.open_round
        if opened is None:
            return chain
        before = chain.rounds[-2] if len(chain.rounds) > 1 else None
        if rule := stopped_by(self.settings.stop, opened, before):
            return chain.with_closed(replace(opened, accepted=False), rule)
        request, nonce = self._question(chain, opened)
        reply = yield from ask_whole(request, self.retry_truncated)
        if reply.refused or reply.truncated:
            raise Reject("refused" if reply.refused else "truncated", f"the revision of round {opened.round}")
        revision = clean(reply.text, nonce, chain.response)
        return chain.with_closed(replace(opened, revision=revision, accepted=True), self._end(chain, revision))

    def _end(self, chain: Chain, revision: str) -> str:
        if revision == chain.response.strip():
            return "unchanged"
        return "rounds" if len(chain.rounds) >= self.settings.rounds else ""

    def _question(self, chain: Chain, opened: Round) -> tuple[Request, str]:
        conversation, critiques = prompts.transcript(chain.messages), _handed(opened)
        texts = [_text(critique) for critique in critiques]
        nonce = prompts.nonce((conversation, chain.response, *texts), self.seed, chain.id, "revise", opened.round)
        text = self.template.fill(
            conversation=prompts.fenced("conversation", nonce, conversation), nonce=nonce,
            response=prompts.fenced("response", nonce, chain.response),
            critiques="\n\n".join(prompts.fenced("critique", nonce, text) for text in texts),
            revision_prompts=list(dict.fromkeys(self._revision_prompt(critique.principle) for critique in critiques)),
        )  # fmt: skip
        return Request(model=self.model, messages=(Turn(role="user", content=text),), stage="revise", row=chain.id), nonce

    def _revision_prompt(self, name: str) -> str:
        principle = self.constitution.principle(name)
        if principle is None:
            raise Reject("unknown_principle", f"critiqued by '{name}', which the constitution no longer has")
        return principle.revision_prompt


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


def _handed(opened: Round) -> tuple[Critique, ...]:
    weighty = tuple(critique for critique in opened.critiques if critique.severity is None or critique.severity > MINOR)
    return weighty or opened.critiques


def _text(critique: Critique) -> str:
    suggestions = "\n".join(f"- {suggestion}" for suggestion in critique.suggestions)
    return f"{critique.critique}\n\nSuggestions:\n{suggestions}" if suggestions else critique.critique


_YES = r"(?:(?:sure|certainly|of course|absolutely|okay|ok|understood|got it|no problem)\b[^\n:]{0,40}?[,.!;—-]*\s*)?"
_HERE = r"(?:here(?:['\u2019]s|\s+is|\s+are)|below\s+is|this\s+is|the\s+following\s+is)\b[^\n:]{0,80}?\b"
_I_HAVE = r"i(?:['\u2019]ve|\s+have)\s+(?:revised|rewritten)\b"
_DONE = r"(?:revised|rewritten|reworked|reworded|improved|updated|corrected)"
_NEW = rf"{_DONE},?\s+(?:[\w,-]+\s+){{0,3}}(?:response|version|answer|reply)\b"
_WHAT = rf"(?:(?:the|my|a|an)\s+)?(?:{_NEW}|revision\b|rewrite\b)"
_REST = r"[^\n:]{0,80}"
_META = re.compile(rf"{_YES}(?:{_HERE}{_WHAT}{_REST}|{_I_HAVE}{_REST}|{_WHAT})", re.IGNORECASE)


def clean(text: str, nonce: str, current: str) -> str:
    """A reply without what is not the revision: our fences, white space, an opener such as "Sure, here is the revised response:".

    Takes: current: the text that was revised; where it opens like that itself, the opener belongs to the answer and stays
    Raises: Reject empty_revision
    """
    text = re.sub(rf"</?(?:conversation|response|critique)-{nonce}>", "", text).strip()
    opener, rest = _opener(text)
    revision = rest if opener and not _opener(current.strip())[0] else text
    if not revision:
        raise Reject("empty_revision", "the reply holds no revised response")
    return revision


def _opener(text: str) -> tuple[str, str]:
    """The first line, or the first paragraph, where it only announces a revision; and the text after it."""
    for end in ("\n", "\n\n"):
        head, _, rest = text.partition(end)
        bare = " ".join(head.split()).strip("*_#> ")
        if len(bare) <= 200 and bare.endswith(":") and _META.fullmatch(bare[:-1].rstrip("*_ ")):
            return head, rest.strip()
    return "", text
