"""Pairs with votes become preferences; what biased the votes is measured, and corrected where something identifies it.

Two passes, because a bias is only seen over all rows: `measure` reads them once, keeps a few numbers a vote and makes all labels,
`correct` puts one label after another to its pair.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, field_validator

from cai_cli import votes
from cai_cli.errors import Reject
from cai_cli.features import FEATURES
from cai_cli.records import Pair, Preference, Probed
from cai_cli.settings import Count, Section
from cai_cli.tables._pilot import NO_PILOT, Pilot
from cai_cli.validation import near

if TYPE_CHECKING:
    from cai_cli.tables._columns import Columns, Gathering, Part
    from cai_cli.tables._labels import Label, Labels

VERSION = 3  # raised when what it makes changes
SHAPE = Preference
READS = ("label-pairs",)
STYLES = tuple(name for name, feature in FEATURES.items() if feature.corrects and name != "length")


class Settings(Section):
    position: bool = True
    """Remove the measured liking for what is shown first where a labeler was asked in one order only (over both orders it cancels
    by itself), and for what is called A rather than B."""
    length: Literal["auto", "off"] = "auto"
    """auto: measure how labels move with length, and take it off where probes or gold tell it from quality. off: neither."""
    style: list[str] = Field(default_factory=list)
    """Features to take off beside length, where probes or gold (50 pairs more for each) identify what they do: lists, headers,
    bold, formality, assertiveness, complexity. All of them are measured anyway."""
    probes: dict[str, Count] = Field(default_factory=dict)
    """How many pairs to put to the labelers again with one thing changed that is not content, by what is changed: {length: 50}.
    This asks: each costs as much as labelling its pair; twice that where two variants are compared, as of sycophancy."""
    aggregate: Literal["auto", "mean", "weighted", "dawid_skene"] = "auto"
    """How several labelers become one label. auto: weighted by gold where there is enough, else the mean of their log-odds.
    dawid_skene: by how often each is right, estimated from the votes alone; it takes three labelers."""
    calibrate: Literal["auto", "platt", "temperature", "isotonic", "off"] = "auto"
    """How confidence is fitted to gold, from 50 pairs with gold on. auto: platt, a logistic fit with length and styles in it.
    temperature: one factor. isotonic: any rising curve."""
    min_confidence: Annotated[float, Field(ge=0.5, le=1)] = 0.6
    """Rows whose confidence, max(p_a, 1 - p_a), is below this are filtered."""
    ties: Literal["drop", "keep"] = "drop"
    """What becomes of rows with |p_a - .5| < .02. keep: they stay, whatever min_confidence says."""

    @field_validator("style")
    @classmethod
    def _known_style(cls, value: list[str]) -> list[str]:
        for name in value:
            if name not in STYLES:
                raise ValueError(f"labels cannot be corrected for '{name}': {near(name, STYLES)}")
        return value

    @field_validator("probes")
    @classmethod
    def _known_probes(cls, value: dict[str, int]) -> dict[str, int]:
        from cai_cli import probes

        for name in value:
            if name not in probes.names():
                raise ValueError(f"there is no probe '{name}': {near(name, probes.names())}")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was measured: `document` is `_bias.json`, plain JSON values; `labels` are the pairs', in the order of the input."""

    document: Mapping[str, Any]
    labels: Labels
    shift: Mapping[str, float]  # position bias in log-odds, by labeler, removed where one order was asked
    soft: frozenset[str]  # labelers that give probabilities; all others are votes-only


@dataclass(frozen=True, slots=True)
class Filtered:
    """A row that the settings leave out; never a reject."""

    reason: Literal["tie", "low_confidence"]


def gathering(settings: Settings, prompts: int) -> Gathering:
    """What takes the parts of a table of so many prompts, in order; its `columns` can be measured."""
    from cai_cli.tables import _columns

    return _columns.Gathering(everywhere=_columns.everywhere_of(settings.style), within=_columns.within_of(prompts))


def gathered(pairs: Sequence[Pair], settings: Settings, prompts: int, pilot: Pilot = NO_PILOT) -> Part:
    """What measuring needs of some pairs. Takes: the prompts of the whole table, at least so many"""
    from cai_cli.tables import _columns

    return _columns.part_of(pairs, _columns.everywhere_of(settings.style), _columns.within_of(prompts), pilot.pairs)


def measure(
    pairs: Iterable[Pair] | Columns, settings: Settings, seed: int, *, probed: Sequence[Probed] = (),
    pilot: Pilot = NO_PILOT,
) -> Report:  # fmt: skip
    """What biases the votes of these pairs, the labels that remain when it is corrected, and what that changes.

    Takes: pairs with votes, or what was gathered of them; `probed`: answers to probes; `pilot`: what a pilot found
    Rows that `correct` will reject are counted in the document and left out.
    """
    from cai_cli.tables import _bias_report  # numpy and scipy, which reading a config must not pay for

    known = _bias_report.Known(probed=probed, pilot=pilot)
    return Report(**_bias_report.measured(pairs, settings, seed, known))


def correct(pair: Pair, label: Label | None, settings: Settings) -> Preference | Filtered:
    """One pair with its label, freed of what was measured.

    Takes: a pair with votes, and its label in a report   Gives: a preference, or why the settings leave it out   Asks: nothing
    Rejects: no_verdict, bad_vote
    Source: Lee et al. 2023, arXiv 2309.00267, section 2.1 (both orders), on logits
    """
    if label is None:
        for vote in pair.votes:
            votes.probability(vote)
        raise Reject("no_verdict", f"{len(pair.votes)} votes, none with a verdict or a probability")
    return left_out(label, settings) or Preference(**{name: getattr(pair, name) for name in _PAIR} | of_label(pair, label))


def left_out(label: Label, settings: Settings) -> Filtered | None:
    """Why the settings leave a pair with this label out; None: it stays."""
    if votes.preference_of(label.p_a) == "tie":
        return Filtered("tie") if settings.ties == "drop" else None
    return Filtered("low_confidence") if max(label.p_a, 1 - label.p_a) < settings.min_confidence else None


_PAIR = tuple(field.name for field in fields(Pair))


def of_label(pair: Pair, label: Label) -> dict[str, Any]:
    """The columns of a preference that its label makes, by name."""
    p_a = label.p_a
    a_wins = p_a >= 0.5
    chosen, rejected = (pair.response_a, pair.response_b) if a_wins else (pair.response_b, pair.response_a)
    confidence = max(p_a, 1 - p_a)
    return {
        "p_a": p_a, "preference": votes.preference_of(p_a), "confidence": confidence, "consistent": label.consistent,
        "p_a_raw": label.p_a_raw, "weight": abs(2 * p_a - 1), "flags": label.flags,
        "chosen": chosen, "rejected": rejected, "margin": votes.logit(confidence),
    }  # fmt: skip
