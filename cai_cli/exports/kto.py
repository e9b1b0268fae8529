"""Single responses that are good or bad, for KTO: each text of a prompt once, by how it fared in all of its comparisons."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from cai_cli.exports import Asked, Left, Use
from cai_cli.exports._labels import answer, label_of
from cai_cli.records import Preference, Turn

VERSION = 1
READS = ("debias",)
GROUPED = True
USES = (Use(trainer="KTOTrainer"),)
COUNTS = (("desirable", "label", True), ("undesirable", "label", False))

SOFT = Asked()  # whatever is asked: the mean is over probabilities
UNDECIDED = 0.02  # a mean this near to .5 says nothing, as in `preference`


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One response, and whether it is one to learn."""

    prompt: tuple[Turn, ...]
    completion: tuple[Turn, ...]  # one assistant turn
    label: bool  # true: desirable
    p_better: float  # the mean, over its comparisons, of the probability that it is the better one; in (0, 1)
    comparisons: int  # how many those are
    id: str  # of its first comparison, with the side that it stood on
    prompt_id: str
    kind: str


SHAPE = Judged


@dataclass(slots=True)
class _Text:
    record: Preference
    side: str  # a | b
    text: str
    chances: list[float] = field(default_factory=list)


def convert(records: Sequence[Preference], _: Asked = Asked()) -> Iterator[Judged | Left]:
    """The responses to a prompt, each once: one that was compared with three others would else be there three times, and as
    desirable and undesirable at once.

    Takes: the Preferences of one prompt   Gives: a Judged for each response
    Leaves out: undecided (it won as often as it lost), and comparisons that are empty, identical or unlabelled
    Source: Ethayarajh et al. 2024, arXiv 2402.01306 (one label a response, made of preferences)
    """
    texts: dict[tuple[object, ...], _Text] = {}
    for record in records:
        label = label_of(record, SOFT)
        if isinstance(label, Left):
            yield label
            continue
        for text, p_better in ((label.chosen, label.p_chosen), (label.rejected, 1 - label.p_chosen)):
            side = "a" if text == record.response_a else "b"
            one = texts.setdefault((record.messages, text.strip()), _Text(record, side, text))
            one.chances.append(p_better)
    yield from map(_judged, texts.values())


def _judged(one: _Text) -> Judged | Left:
    p_better = sum(one.chances) / len(one.chances)
    if abs(p_better - 0.5) < UNDECIDED:
        return Left("undecided")
    record = one.record
    return Judged(
        prompt=record.messages, completion=answer(one.text), label=p_better > 0.5, p_better=round(p_better, 6),
        comparisons=len(one.chances), id=f"{record.id}:{one.side}", prompt_id=record.prompt_id, kind=record.kind,
    )  # fmt: skip
