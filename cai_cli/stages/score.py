"""Samples -> scored samples: each response rated from 1 to 10 on named criteria."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields

from cai_cli.errors import Reject
from cai_cli.flow import Flow
from cai_cli.parts import Parts
from cai_cli.records import Sample, Scored
from cai_cli.scoring import Scorer, ScoreSettings, composite, scorer_of

VERSION = 1
SHAPE = Scored
READS = ("revise", "generate")
Settings = ScoreSettings


@dataclass(frozen=True, slots=True)
class ScoreSamples:
    """Rate the current response on every criterion.

    Takes: Sample   Gives: it with scores and their weighted mean   Asks: one a criterion
    Rejects: no_score (refused, cut off or twice not to be read), empty_response, and what `ask` rejects
    Source: Lee et al. 2023, arXiv 2309.00267 (direct scoring; the named criteria are ours)
    """

    settings: ScoreSettings
    scorer: Scorer

    def __call__(self, sample: Sample) -> Flow[Scored]:
        if not sample.response.strip():
            raise Reject("empty_response", "there is nothing to score")
        scores = yield from self.scorer(sample.id, sample.messages, sample.response)
        values = {field.name: getattr(sample, field.name) for field in fields(Sample)}
        return Scored(**values, scores=scores, composite=composite(scores, self.settings.criteria))

    def gather(self, samples: Sequence[Sample]) -> tuple[list[Sample], Counter[str]]:
        """The samples to score; left out: no_text (a refusal without words)."""
        told = [sample for sample in samples if sample.response.strip() or not sample.refused]
        return told, Counter({"no_text": len(samples) - len(told)} if len(told) < len(samples) else {})


def build(parts: Parts) -> ScoreSamples:
    return ScoreSamples(parts.settings, scorer_of(parts, "score"))
