"""Comparisons for a reward model: the better and the worse response to a prompt, and the margin between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cai_cli.exports import Asked, Left, Use
from cai_cli.exports._labels import FLIPPED, answer, label_of
from cai_cli.records import Preference, Turn

VERSION = 1
READS = ("debias",)
OPTIONS = ("labels",)
USES = (Use(trainer="RewardTrainer"),)
COUNTS = (FLIPPED,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """One comparison with what RewardTrainer reads, and no other number."""

    prompt: tuple[Turn, ...]
    chosen: tuple[Turn, ...]  # one assistant turn
    rejected: tuple[Turn, ...]  # one assistant turn
    margin: float  # log-odds of the chosen, at least 0: by how much its reward is to be higher
    flipped: bool  # labels drawn: the less likely side came out
    id: str
    prompt_id: str
    kind: str


SHAPE = Ranking


def convert(record: Preference, asked: Asked = Asked()) -> Iterator[Ranking | Left]:
    """One ranking of a preference.

    Takes: Preference   Gives: one Ranking
    Leaves out: tie (but not where labels are drawn), empty, identical, unlabelled
    Source: Touvron et al. 2023, arXiv 2307.09288, section 3.2.2 (the margin in the loss)
    """
    label = label_of(record, asked, ties=False)
    if isinstance(label, Left):
        yield label
        return
    yield Ranking(
        prompt=record.messages, chosen=answer(label.chosen), rejected=answer(label.rejected), margin=label.margin,
        flipped=label.flipped, id=record.id, prompt_id=record.prompt_id, kind=record.kind,
    )  # fmt: skip
