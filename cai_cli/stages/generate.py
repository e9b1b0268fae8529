"""Prompts -> samples: n responses to each prompt."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field, field_validator

from cai_cli.errors import Reject
from cai_cli.flow import FRESH, Flow, Model, Reply, Request, ask_whole, together
from cai_cli.parts import Parts
from cai_cli.records import Prompt, Rejected, Sample, rejected
from cai_cli.settings import Count, ModelSection, Section

VERSION = 1
SHAPE = Sample
READS = ("prompts",)


class Settings(Section):
    """The section `generate`."""

    samples: Count = 2
    """Responses to a prompt under each of the systems."""
    systems: list[str | None] = Field([None], min_length=1)
    """System prompts; null: none. A prompt gets systems x samples responses."""
    model: ModelSection | None = None
    """Keys that override the top-level `model` here."""

    @field_validator("systems")
    @classmethod
    def _distinct(cls, systems: list[str | None]) -> list[str | None]:
        # Two equal ones would put the very same questions, which are bought once: copies, not samples.
        if len({system or "" for system in systems}) < len(systems):
            raise ValueError("the same system stands there twice; raise samples instead")
        return systems


@dataclass(frozen=True, slots=True)
class Generate:
    """Answer a prompt, several times.

    Takes: Prompt   Gives: its samples, a Rejected in the place of one that ended   Asks: systems x samples
    Rejects: empty, paused, context_exceeded, unknown_stop_reason (each sample for itself)
    Source: Bai et al. 2022, arXiv 2212.08073, section 3.1 (responses of a helpful-only model)
    """

    settings: Settings
    model: Model
    draw_offset: int = 0

    def __call__(self, prompt: Prompt) -> Flow[list[Sample | Rejected]]:
        count = len(self.settings.systems) * self.settings.samples
        outcomes = yield from together(self._sample(prompt, n) for n in range(count))
        return [
            rejected(outcome, "generate", prompt, f"{prompt.id}-{n}") if isinstance(outcome, Reject) else outcome
            for n, outcome in enumerate(outcomes)
        ]

    def _sample(self, prompt: Prompt, n: int) -> Flow[Sample]:
        at, k = divmod(n, self.settings.samples)
        system, row_id = self.settings.systems[at] or "", f"{prompt.id}-{n}"
        request = Request(
            model=self.model,
            messages=prompt.messages,
            system=system,
            draw=self.draw_offset * FRESH + k,
            stage="generate",
            row=row_id,
        )
        reply = yield from ask_whole(request)
        return _row(prompt, row_id, system, n, reply, self.model.name)


def _row(prompt: Prompt, row_id: str, system: str, n: int, reply: Reply, asked: str) -> Sample:
    return Sample(
        id=row_id, prompt_id=prompt.id, messages=prompt.messages, prompt=prompt.text, kind=prompt.kind, system=system,
        sample=n, response=reply.text, model=reply.model or asked, stop_reason=reply.stop_reason, refused=reply.refused,
        truncated=reply.truncated, tokens_out=reply.tokens_out, meta=prompt.meta,
        # Cached ones count: whether a prefix was cached hangs on what else ran, and a row must not.
        tokens_in=reply.tokens_in + reply.tokens_cache_read + reply.tokens_cache_write,
    )  # fmt: skip


def build(parts: Parts) -> Generate:
    return Generate(parts.settings, parts.model(), parts.draw_offset)
