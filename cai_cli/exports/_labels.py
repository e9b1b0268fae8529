"""What a judged pair teaches: which text is to be preferred, how sure that is, and what cannot be learned from."""

from __future__ import annotations

from dataclasses import dataclass

from cai_cli import chance
from cai_cli.exports import Asked, Left
from cai_cli.records import Preference, Turn

FLIPPED = ("drawn against the likelier side", "flipped", True)  # how many rows are is told


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """A pair, the way round that it is learned."""

    chosen: str
    rejected: str
    margin: float  # log-odds of the chosen, at least 0; 0 where probabilities must not count twice
    weight: float  # |2 p_chosen - 1|, in [0, 1]; 1 where probabilities must not count twice
    p_chosen: float  # probability that the chosen is better, in (0, 1]
    flipped: bool  # drawn against the likelier side


def label_of(record: Preference, asked: Asked, ties: bool = True) -> Label | Left:
    """How a pair is learned. `ties`: with soft labels a tie stays, for its weight and margin say what it is.

    soft: the likelier text is the chosen one, and p_chosen, weight and margin say how likely. hard: the same, taken for certain.
    bernoulli: the chosen one is drawn with its probability, by seed and id; the gradient of the plain loss over such rows is, on
    average, that of the cross-entropy with soft labels, so margin and weight are 0 and 1.
    Leaves out: empty (one of the texts), identical (nothing could be learned, and trainers do not notice), unlabelled;
    tie, where its side, which means nothing, would be taken at its word: not where sides are drawn
    """
    if not record.chosen.strip() or not record.rejected.strip():
        return Left("empty")
    if record.chosen.strip() == record.rejected.strip():  # many chat templates strip, so white space is no difference
        return Left("identical")
    if record.margin is None or record.weight is None or record.confidence is None:
        return Left("unlabelled")
    if record.preference == "tie" and (asked.labels == "hard" or (asked.labels == "soft" and not ties)):
        return Left("tie")
    if asked.labels == "soft":
        margin, weight, p_chosen = record.margin, record.weight, record.confidence
        return Label(
            chosen=record.chosen, rejected=record.rejected, margin=margin, weight=weight, p_chosen=p_chosen, flipped=False
        )
    flipped = asked.labels == "bernoulli" and chance.unit(asked.seed, record.id, "label") >= record.confidence
    sides = (record.rejected, record.chosen) if flipped else (record.chosen, record.rejected)
    p_first = 1 - record.confidence if flipped else record.confidence
    return Label(
        chosen=sides[0], rejected=sides[1], margin=0.0, weight=1.0, p_chosen=1.0 if asked.labels == "hard" else p_first,
        flipped=flipped,
    )  # fmt: skip


def answer(text: str) -> tuple[Turn, ...]:
    """A response as the one assistant turn that trainers take."""
    return (Turn(role="assistant", content=text),)
