"""Preferences: a prompt, the response that won and the one that lost, with how sure that is; for DPO and reward models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cai_cli.exports import Asked, Left, Use
from cai_cli.exports._labels import FLIPPED, answer, label_of
from cai_cli.records import Preference, Turn

VERSION = 2
READS = ("debias",)
OPTIONS = ("labels",)
USES = (Use(trainer="DPOTrainer"), Use(trainer="RewardTrainer"))
COUNTS = (FLIPPED,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One comparison. All three texts are lists of turns: TRL does not take strings and lists side by side."""

    prompt: tuple[Turn, ...]
    chosen: tuple[Turn, ...]  # one assistant turn
    rejected: tuple[Turn, ...]  # one assistant turn
    margin: float  # log-odds of the chosen, at least 0; RewardTrainer reads it, and wants it in every row
    weight: float  # |2 p_chosen - 1|, in [0, 1]
    p_chosen: float  # probability that the chosen is better: in [.5, 1), or below where the row was flipped
    flipped: bool  # labels drawn: the less likely side came out
    id: str
    prompt_id: str
    kind: str
    flags: tuple[str, ...]  # what the debiasing noted


SHAPE = Comparison


def convert(record: Preference, asked: Asked = Asked()) -> Iterator[Comparison | Left]:
    """One comparison of a preference. Ties stay, with weight and margin 0 or nearly: `debias.ties` decides about them.

    Takes: Preference   Gives: one Comparison
    Leaves out: empty (one of the texts), identical (nothing could be learned, and trainers do not notice), unlabelled, and with
    hard labels tie
    """
    label = label_of(record, asked)
    if isinstance(label, Left):
        yield label
        return
    yield Comparison(
        prompt=record.messages, chosen=answer(label.chosen), rejected=answer(label.rejected), margin=label.margin,
        weight=label.weight, p_chosen=label.p_chosen, flipped=label.flipped, id=record.id, prompt_id=record.prompt_id,
        kind=record.kind, flags=record.flags,
    )  # fmt: skip
