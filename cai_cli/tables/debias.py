"""Pairs with votes become preferences; what biased the votes is measured, and corrected where it can be.

Two passes, because a bias is only seen over all rows: `measure` reads them once and keeps a few numbers a vote, `correct` turns
one pair after another into a preference by what was measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from cai_cli import votes
from cai_cli.errors import Reject
from cai_cli.records import Pair, Preference
from cai_cli.settings import Section

VERSION = 2  # raised when what it makes changes
SHAPE = Preference
READS = ("label-pairs",)


class Settings(Section):
    position: bool = True
    """Remove the measured position bias where a labeler was asked in one order only. Over both orders it cancels by itself."""
    length: Literal["auto", "off"] = "auto"
    """auto: measure how labels move with length; off: do not. Nothing is corrected for it: here, bias looks like quality."""
    style: list[str] = Field(default_factory=list)
    """Style features to correct for. Not available yet: leave it empty."""
    probes: dict[str, Any] = Field(default_factory=dict)
    """Content-preserving probes to buy. Not available yet: leave it empty."""
    min_confidence: Annotated[float, Field(ge=0.5, le=1)] = 0.6
    """Rows whose confidence, max(p_a, 1 - p_a), is below this are filtered."""
    ties: Literal["drop", "keep"] = "drop"
    """What becomes of rows with |p_a - .5| < .02. keep: they stay, whatever min_confidence says."""

    @field_validator("style", "probes")
    @classmethod
    def _refuse(cls, value: Any) -> Any:
        if value:
            raise ValueError("not available in version 0.1: leave it empty")
        return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What was measured: `document` is `_bias.json`, plain JSON values; the rest is what `correct` needs of it."""

    document: Mapping[str, Any]
    shift: Mapping[str, float]  # position bias in log-odds, by labeler, to remove where one order was asked
    soft: frozenset[str]  # labelers that give probabilities; all others are votes-only


@dataclass(frozen=True, slots=True)
class Filtered:
    """A row that the settings leave out; never a reject."""

    reason: Literal["tie", "low_confidence"]


def measure(pairs: Iterable[Pair], settings: Settings, seed: int) -> Report:
    """What biases the votes of these pairs, and what correcting it changes.

    Rows that `correct` will reject are counted in the document and left out.
    """
    from cai_cli.tables import _bias_report  # numpy and scipy, which reading a config must not pay for

    return Report(**_bias_report.measured(pairs, settings, seed))


def correct(pair: Pair, report: Report, settings: Settings) -> Preference | Filtered:
    """One pair's label, aggregated over its votes and freed of what was measured.

    Takes: a pair with votes   Gives: a preference, or why the settings leave it out   Asks: nothing
    Rejects: no_verdict, bad_vote
    Source: Lee et al. 2023, arXiv 2309.00267, section 2.1 (both orders), on logits
    """
    p_a = votes.pool(pair.votes, report.shift, report.soft)
    if p_a is None:
        raise Reject("no_verdict", f"{len(pair.votes)} votes, none with a verdict or a probability")
    preference = votes.preference_of(p_a)
    confidence = max(p_a, 1 - p_a)
    if preference == "tie":
        if settings.ties == "drop":
            return Filtered("tie")
    elif confidence < settings.min_confidence:
        return Filtered("low_confidence")
    return _preference(pair, p_a, report)


def _preference(pair: Pair, p_a: float, report: Report) -> Preference:
    a_wins = p_a >= 0.5
    chosen, rejected = (pair.response_a, pair.response_b) if a_wins else (pair.response_b, pair.response_a)
    confidence = max(p_a, 1 - p_a)
    given = {field.name: getattr(pair, field.name) for field in fields(Pair)}
    given |= {"p_a": p_a, "preference": votes.preference_of(p_a), "confidence": confidence}
    given |= {"consistent": votes.consistent(pair.votes, report.soft)}
    return Preference(
        **given, p_a_raw=votes.raw_mean(pair.votes), weight=abs(2 * p_a - 1), flags=_flags(pair, p_a, report),
        chosen=chosen, rejected=rejected, margin=votes.logit(confidence),
    )  # fmt: skip


def _flags(pair: Pair, p_a: float, report: Report) -> tuple[str, ...]:
    asked = votes.by_labeler(pair.votes)
    single = [labeler for labeler, orders in asked.items() if len(orders) == 1]
    found = {
        "inconsistent": votes.consistent(pair.votes, report.soft) is False,
        "one_order": bool(single),
        "shifted": any(labeler in report.shift for labeler in single),
        "votes_only": not any(labeler in report.soft for labeler in asked),
        "abstained": any(votes.probability(vote) is None for vote in pair.votes),
        "tie": votes.preference_of(p_a) == "tie",
        "identical": pair.response_a == pair.response_b,
    }
    return tuple(flag for flag, holds in found.items() if holds)
