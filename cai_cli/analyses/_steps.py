"""Rows of critique and revise as analyses look at them: plain objects, also from elsewhere, of which a column may be missing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A critique: by which principle, and what it found."""

    principle: str
    category: str
    severity: float | None  # in [0, 1]
    needs_revision: bool | None  # None: it does not say


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A round: the text that was critiqued, what was found, and the text after it."""

    before: str
    after: str  # what was critiqued, where the round is open or its revision was not accepted
    revision: str  # empty: none was made
    accepted: bool
    open: bool
    findings: Sequence[Finding]
    severity: float | None  # of `before`, the maximum over the findings
    scores: Mapping[str, float]  # of `before`, by criterion, 1 to 10

    @property
    def changed(self) -> bool:
        """Whether the round gave another text."""
        return self.after != self.before


def said(row: Mapping[str, Any], name: str) -> str:
    """A text column; empty where there is none."""
    value = row.get(name)
    return value if isinstance(value, str) else ""


def answer(row: Mapping[str, Any], name: str) -> str:
    """The last turn that a column of a pair holds: a text, an hh-rlhf transcript, or a list of turns."""
    value = row.get(name)
    if isinstance(value, str):
        return (value.rpartition("\n\nAssistant:")[2] if value.startswith("\n\nHuman:") else value).strip()
    turns = list(_list(row, name))
    return said(turns[-1], "content").strip() if turns else ""


def numeric(value: Any, most: float = 1e9) -> float | None:
    """A number in [0, most], anything else as None."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= most else None


def first_response(row: Mapping[str, Any]) -> str:
    """The response before any revision."""
    return said(row, "initial_response") or ("" if any(_accepted(one) for one in _list(row, "rounds")) else said(row, "response"))


def steps(row: Mapping[str, Any]) -> list[Step]:
    """The rounds of a row, in order; none where it has no such column."""
    found, text = [], first_response(row).strip()
    for one in _list(row, "rounds"):
        step = _step(one, text)
        found.append(step)
        text = step.after
    return found


def _step(one: Mapping[str, Any], text: str) -> Step:
    revision = said(one, "revision").strip()
    findings = tuple(map(_finding, _list(one, "critiques")))
    severities = [finding.severity for finding in findings if finding.severity is not None]
    severity = numeric(one.get("severity"), 1)
    return Step(
        before=text, after=revision if _accepted(one) and revision else text, revision=revision, accepted=_accepted(one),
        open=one.get("accepted") is None, findings=findings, scores=scores(one),
        severity=max(severities, default=None) if severity is None else severity,
    )  # fmt: skip


def _accepted(one: Mapping[str, Any]) -> bool:
    return one.get("accepted") is True


def _finding(one: Mapping[str, Any]) -> Finding:
    needs = one.get("needs_revision")
    return Finding(
        principle=said(one, "principle"), category=said(one, "category"), severity=numeric(one.get("severity"), 1),
        needs_revision=needs if isinstance(needs, bool) else None,
    )  # fmt: skip


def scores(one: Mapping[str, Any]) -> dict[str, float]:
    """The scores that a round or a scored row holds, by criterion."""
    given = ((said(score, "criterion"), numeric(score.get("score"))) for score in _list(one, "scores"))
    return {criterion: value for criterion, value in given if criterion and value is not None}


def _list(row: Mapping[str, Any], name: str) -> Iterator[Mapping[str, Any]]:
    value = row.get(name)
    return (
        one for one in (value if isinstance(value, Sequence) and not isinstance(value, str) else ()) if isinstance(one, Mapping)
    )


def kind_of(row: Mapping[str, Any]) -> str:
    """What a row's prompt is said to be: harmful, harmless, another word; not said."""
    return said(row, "kind") or "not said"


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names as a sentence holds them; of many, the first."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def of_rows(some: int, all_rows: int) -> str:
    """The start of a sentence on some of the rows: 3 of 1,200 rows have."""
    return f"{some:,} of {all_rows:,} rows {'has' if some == 1 else 'have'}"


def are(number: int) -> str:
    """The verb for so many."""
    return "is" if number == 1 else "are"
