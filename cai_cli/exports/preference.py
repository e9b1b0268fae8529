"""Preferences: a prompt, the response that won and the one that lost, with how sure that is; for DPO and reward models."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cai_cli.exports import Left
from cai_cli.records import Preference, Turn

VERSION = 1
READS = ("debias",)
TRAINERS = ("DPOTrainer", "RewardTrainer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One comparison. All three texts are lists of turns: TRL does not take strings and lists side by side."""

    prompt: tuple[Turn, ...]
    chosen: tuple[Turn, ...]  # one assistant turn
    rejected: tuple[Turn, ...]  # one assistant turn
    margin: float  # log-odds of the chosen, at least 0; RewardTrainer reads it, and wants it in every row
    weight: float  # |2 p_chosen - 1|, in [0, 1]
    p_chosen: float  # probability that the chosen is better, in [.5, 1)
    id: str
    prompt_id: str
    kind: str
    flags: tuple[str, ...]  # what the debiasing noted


SHAPE = Comparison


def convert(record: Preference) -> Iterator[Comparison | Left]:
    """One comparison of a preference. Ties stay, with weight and margin 0 or nearly: `debias.ties` decides about them.

    Takes: Preference   Gives: one Comparison
    Leaves out: empty (one of the texts), identical (nothing could be learned, and trainers do not notice), unlabelled
    """
    if not record.chosen.strip() or not record.rejected.strip():
        yield Left("empty")
    elif record.chosen.strip() == record.rejected.strip():  # many chat templates strip, so white space is no difference
        yield Left("identical")
    elif record.margin is None or record.weight is None or record.confidence is None:
        yield Left("unlabelled")
    else:
        yield Comparison(
            prompt=record.messages, chosen=_answer(record.chosen), rejected=_answer(record.rejected), margin=record.margin,
            weight=record.weight, p_chosen=record.confidence, id=record.id, prompt_id=record.prompt_id, kind=record.kind,
            flags=record.flags,
        )  # fmt: skip


def _answer(text: str) -> tuple[Turn, ...]:
    return (Turn(role="assistant", content=text),)
