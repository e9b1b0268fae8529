"""Seed prompts -> new prompts: a model writes more of the same kind and on the same topic, after a few of them."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from pydantic import Field, field_validator

from cai_cli import chance, prompts
from cai_cli.errors import Exit, Fix, Reject
from cai_cli.flow import FRESH, Flow, Model, Reply, Request, ask_whole
from cai_cli.parts import Parts
from cai_cli.prompts import Template
from cai_cli.records import Expanded, Turn
from cai_cli.settings import Count, ModelSection, Section, Text

VERSION = 1
SHAPE = Expanded
READS = ()  # `cai run` leaves it out: it makes the prompts that runs begin with

ASKS_FACTOR = 5  # where max_asks is not set: so many times the asks that would do if every prompt were kept
LEAST_YIELD = 0.1  # share of the prompts asked for that is expected to be kept, however few were so far

CONTRASTS = {"harmless": "harmful"}  # what may be written as the counterpart of what

REMEDIES = {
    "truncated": "raise max_tokens, or ask for fewer at once: expand.per_ask",
    "refused": "ask another model, or by another expand.template",
    "unreadable": "ask another model, or raise max_tokens",
    "near_duplicate": "raise expand.similarity or expand.max_asks, or give more seeds or topics",
    "contaminated": "give seeds that are less like expand.against, or raise expand.similarity",
    "too_long": "raise expand.max_chars",
    "empty": "ask another model",
}  # of what makes prompts go missing: rejected asks, and drafts that were left out

_SCHEMA = prompts.schema(prompts={"type": "array", "items": {"type": "string"}})
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Settings(Section):
    """The section `expand`."""

    count: Count = 100
    """New prompts wanted in all."""
    topics: list[Text] = Field(default_factory=list)
    """What they are about, in equal shares. Default: the topics of the seeds (their column `topic`), for each kind."""
    mix: dict[str, Weight] = Field(default_factory=dict)
    """Weights of the kinds, as in {harmful: 2, harmless: 1}. Each needs seeds of its own, but that harmless ones are written as
    counterparts of the harmful where there are none. Default: the kinds of the seeds, in their proportion."""
    examples: Count = 5
    """Seeds shown in one ask."""
    per_ask: Count = 10
    """Prompts asked for at once; model.max_tokens must leave room for them."""
    template: Text = "general"
    """What the model is told: general, or a template of your own."""
    similarity: Annotated[float, Field(gt=0, le=1)] = 0.7
    """A prompt this similar to a seed, or to one that was kept, is left out: ROUGE-L over words, 1 is word for word."""
    against: list[Text] = Field(default_factory=list)
    """Files of prompts, such as a test set, that nothing may be similar to. Relative to the config."""
    max_chars: Count = 2000
    """Longer prompts are left out."""
    max_asks: Count | None = None
    """Asks at most, in all. Default: five times what would do if every prompt were kept."""
    model: ModelSection | None = None
    """Keys that override the top-level `model` here."""

    @field_validator("mix")
    @classmethod
    def _some(cls, mix: dict[str, float]) -> dict[str, float]:
        if mix and not any(mix.values()):
            raise ValueError("at least one weight must be above 0")
        return mix


@dataclass(frozen=True, slots=True, kw_only=True)
class Seed:
    """A prompt that is shown as an example; of a conversation, its last turn."""

    id: str
    text: str
    kind: str = ""
    topic: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """The k-th ask for prompts of one kind on one topic."""

    kind: str
    topic: str
    k: int
    seeds: tuple[Seed, ...]

    @property
    def id(self) -> str:
        return "/".join([self.kind, self.topic, str(self.k)])

    @property
    def examples(self) -> tuple[str, ...]:
        """The ids of the seeds that are shown."""
        return tuple(seed.id for seed in self.seeds)

    @property
    def contrast(self) -> bool:
        """Whether the examples are of the other kind: what is wanted are their counterparts."""
        return any(seed.kind != self.kind for seed in self.seeds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafts:
    """What one ask gave: texts, as they came."""

    ask: Ask
    texts: tuple[str, ...]
    model: str  # the one that says it answered


@dataclass(frozen=True, slots=True)
class Expand:
    """Ask for new prompts, a few seeds shown as examples.

    Takes: Ask   Gives: Drafts   Asks: 1
    Rejects: refused, truncated, unreadable, and what `ask` rejects
    Source: Bai et al. 2022, arXiv 2212.08073, section 3.2 (140,335 of its 182,831 red-team prompts were few-shot generations)
    """

    settings: Settings
    template: Template
    model: Model
    seed: int
    draw_offset: int = 0

    @property
    def reads(self) -> tuple[str, ...]:
        """What it takes its seeds from."""
        return ("prompts",)

    def __call__(self, ask: Ask) -> Flow[Drafts]:
        reply, texts = yield from prompts.ask_readable(ask_whole, self._question(ask), _read)
        if texts is None:
            raise _failed(reply)
        return Drafts(ask=ask, texts=texts, model=reply.model or self.model.name)

    def _question(self, ask: Ask) -> Request:
        shown = [seed.text for seed in ask.seeds]
        nonce = prompts.nonce([*shown, ask.topic, ask.kind], self.seed, "expand", ask.id)
        text = self.template.fill(
            kind=ask.kind, contrast=ask.contrast, topic=prompts.fenced("topic", nonce, ask.topic) if ask.topic else "",
            examples=[prompts.fenced("example", nonce, one) for one in shown], count=self.settings.per_ask, nonce=nonce,
        )  # fmt: skip
        return Request(
            model=self.model, messages=(Turn(role="user", content=text),), schema=_SCHEMA,
            draw=self.draw_offset * FRESH + ask.k, stage="expand", row=ask.id,
            constant=(0, self.template.constant(count=self.settings.per_ask)),
        )  # fmt: skip


def _read(text: str) -> tuple[str, ...] | None:
    value = prompts.structured(text, _SCHEMA)
    return tuple(value["prompts"]) if value and value["prompts"] else None


def _failed(reply: Reply) -> Reject:
    if reply.refused:
        return Reject("refused", "the model declined to write prompts")
    if reply.truncated:
        return Reject("truncated", REMEDIES["truncated"])
    return Reject("unreadable", "two replies that are not a list of prompts")


def build(parts: Parts) -> Expand:
    settings = parts.settings
    template = parts.template(settings.template, "expand")
    return Expand(settings, template, parts.model(), parts.seed, parts.draw_offset)


# What is asked for: shares by kind and topic, and asks in waves, until every share is full.


@dataclass(frozen=True, slots=True, kw_only=True)
class Stratum:
    """The prompts wanted of one kind on one topic."""

    kind: str
    topic: str
    wanted: int
    seeds: tuple[Seed, ...]  # those of the topic, else all of the kind

    def ask(self, k: int, examples: int, seed: int) -> Ask:
        """The k-th ask, from 0: its examples and their order are drawn by seed, so it is the same in whatever wave it comes."""
        return Ask(kind=self.kind, topic=self.topic, k=k, seeds=self._drawn(min(examples, len(self.seeds)), seed, k))

    def _drawn(self, count: int, seed: int, k: int) -> tuple[Seed, ...]:
        drawn = (chance.choose(self.seeds, seed, "expand", self.kind, self.topic, k, step) for step in itertools.count())
        found: dict[str, Seed] = {}
        while len(found) < count:
            one = next(drawn)
            found.setdefault(one.id, one)
        return tuple(found.values())


def strata_of(seeds: Sequence[Seed], settings: Settings, count: int) -> list[Stratum]:
    """Who gets how many of `count` prompts: kinds by their weights, the topics of a kind alike.

    Raises: Fix (exit 65): a kind of the mix without a seed
    """
    weights = settings.mix or Counter(seed.kind for seed in seeds)
    shares = zip(weights, _split(count, list(weights.values())), strict=True)
    return [one for kind, wanted in shares if wanted for one in _topics(kind, wanted, seeds, settings.topics)]


def _topics(kind: str, wanted: int, seeds: Sequence[Seed], topics: Sequence[str]) -> list[Stratum]:
    own = _examples(kind, seeds)
    names = list(dict.fromkeys(topics or [seed.topic for seed in own]))
    numbers = zip(names, _split(wanted, [1.0] * len(names)), strict=True)
    return [
        Stratum(kind=kind, topic=name, wanted=number, seeds=tuple(seed for seed in own if seed.topic == name) or own)
        for name, number in numbers if number
    ]  # fmt: skip


def _examples(kind: str, seeds: Sequence[Seed]) -> tuple[Seed, ...]:
    """What is shown for a kind: its own seeds; for harmless ones without any the harmful, whose counterparts are wanted."""
    shown = next((source for source in (kind, CONTRASTS.get(kind)) if any(seed.kind == source for seed in seeds)), None)
    if shown is None:
        there = ", ".join(dict.fromkeys(repr(seed.kind) for seed in seeds))
        hint = f"add some, or leave '{kind}' out of expand.mix; prompts.kind names their column, and what it holds is: {there}"
        raise Fix(f"expand.mix: no seed is of the kind '{kind}'", hint, Exit.INPUT)
    return tuple(seed for seed in seeds if seed.kind == shown)


def _split(total: int, weights: Sequence[float]) -> list[int]:
    """Whole numbers in proportion to weights that add up to the total: largest remainders, the first of equal ones."""
    exact = [total * weight / sum(weights) for weight in weights]
    whole = [math.floor(number) for number in exact]
    order = sorted(range(len(exact)), key=lambda n: whole[n] - exact[n])
    for n in order[: total - sum(whole)]:
        whole[n] += 1
    return whole


def remedy(rejected: Mapping[str, int], filtered: Mapping[str, int], per_ask: int) -> str:
    """What to do about prompts that are missing: what helps against the most frequent of the reasons.

    Takes: asks that brought nothing, by reason; drafts that were left out, by reason; how many drafts an ask was to bring
    Gives: advice, where the reason is one of the stage's own; else to read the rejects; to ask more, if all was kept
    """
    lost = Counter({reason: asks * per_ask for reason, asks in rejected.items()})
    lost.update({reason: drafts for reason, drafts in filtered.items() if reason != "surplus"})
    if not lost.total():
        return "raise expand.max_asks"
    reason, _ = lost.most_common(1)[0]
    return REMEDIES.get(reason, f"see the rejects: {reason}")


def most_asks(strata: Sequence[Stratum], settings: Settings) -> int:
    """How many asks there may be in all."""
    return settings.max_asks or ASKS_FACTOR * sum(math.ceil(one.wanted / settings.per_ask) for one in strata)


def next_wave(
    strata: Sequence[Stratum], asked: Sequence[int], kept: Sequence[int], settings: Settings, seed: int
) -> list[tuple[int, Ask]]:
    """The asks that would fill every stratum if as much of what they bring is kept as was so far.

    Takes: asks made and prompts kept so far, by stratum
    Gives: asks, each with its stratum's place; none: all are full, or no more may be asked. The strata take turns, so that a wave
    that the cap cuts short has something of each.
    """
    found = (_asks(*one, settings, seed) for one in zip(range(len(strata)), strata, asked, kept, strict=True))
    wave = [ask for turn in itertools.zip_longest(*found) for ask in turn if ask is not None]
    return wave[: max(0, most_asks(strata, settings) - sum(asked))]


def _asks(at: int, stratum: Stratum, asked: int, kept: int, settings: Settings, seed: int) -> list[tuple[int, Ask]]:
    share = max(LEAST_YIELD, kept / (asked * settings.per_ask)) if asked else 1.0
    count = max(0, math.ceil((stratum.wanted - kept) / (settings.per_ask * share)))
    return [(at, stratum.ask(k, settings.examples, seed)) for k in range(asked, asked + count)]
