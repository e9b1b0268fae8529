"""What filters ask of a row, as JSON has it: its columns, and what is made of them (the last severity, principles, flags)."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from cai_cli.engine import plan
from cai_cli.records import Rejected, features

Row = Mapping[str, Any]
Kind = Literal["number", "text", "flag", "texts"]  # flag: true or false

_KINDS: Mapping[str, Kind] = {"string": "text", "int64": "number", "float64": "number", "bool": "flag"}
_SIDES = ("a", "b", "tie", "")

FLAGS = {
    "refused": "the model declined to answer",
    "truncated": "the text was cut off",
    "not_accepted": "a revision was made and not accepted",
    "open": "a round has no revision yet",
    "inconsistent": "another winner in the other order",
    "abstained": "a vote without a verdict",
    "tie": "neither response is preferred",
    "one_order": "asked in one order only",
    "shifted": "corrected for position bias",
    "votes_only": "no labeler gave probabilities",
    "identical": "both responses are the same",
}
# What a name can be equal to, where that is one of a few.
VALUES: Mapping[str, tuple[str, ...]] = {
    "preference": _SIDES, "gold": _SIDES, "verdict": ("a", "b", "tie", "abstain"), "flags": tuple(FLAGS),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Name:
    """One value of a row. `needs`: the column that it is made of, or the first of several that will do."""

    kind: Kind
    of: Callable[[Row], Any]
    needs: tuple[str, ...]
    note: str = ""


def _rounds(row: Row) -> list[dict[str, Any]]:
    return list(row.get("rounds") or ())


def _of_round(at: int, key: str) -> Callable[[Row], Any]:
    """A value of the first or last round; null where there is no round."""
    return lambda row: rounds[at].get(key) if (rounds := _rounds(row)) else None


def _critiques(row: Row) -> Iterator[dict[str, Any]]:
    return (critique for one in _rounds(row) for critique in one["critiques"])


def _votes(row: Row) -> Iterator[dict[str, Any]]:
    """Votes on a pair, or on revisions."""
    yield from row.get("votes") or ()
    yield from (vote for one in _rounds(row) for vote in one.get("votes") or ())


def _each(rows: Callable[[Row], Iterable[dict[str, Any]]], key: str) -> Callable[[Row], list[str]]:
    return lambda row: [text for one in rows(row) if (text := one.get(key))]


def _principles(row: Row) -> list[str]:
    return [*_each(_critiques, "principle")(row), *_each(_votes, "principle")(row)]


def _changed(row: Row) -> bool:
    return bool(row["response"].strip() != row["initial_response"].strip())


def flags_of(row: Row) -> list[str]:
    """What is to be known of a row: see FLAGS. Of a pair before debias, what its votes tell."""
    rounds, preference = _rounds(row), row.get("preference")
    found = {
        "refused": row.get("refused"),
        "truncated": row.get("truncated"),
        "not_accepted": any(one.get("accepted") is False and one.get("revision") for one in rounds),
        "open": any(one.get("accepted") is None for one in rounds),
        "inconsistent": row.get("consistent") is False,
        "abstained": any(vote.get("verdict") == "abstain" for vote in _votes(row)),
        "tie": preference == "tie",
    }
    return list(dict.fromkeys([*(name for name, holds in found.items() if holds), *(row.get("flags") or ())]))


_MADE: dict[str, Name] = {
    "severity": Name("number", _of_round(-1, "severity"), ("rounds",), "of the last round, 0 to 1"),
    "first_severity": Name("number", _of_round(0, "severity"), ("rounds",), "of the first round, 0 to 1"),
    "quality": Name("number", _of_round(-1, "quality"), ("rounds",), "of the last round, 0 to 1"),
    "rounds": Name("number", lambda row: len(_rounds(row)), ("rounds",), "how many"),
    "votes": Name("number", lambda row: len(list(_votes(row))), ("votes", "rounds"), "how many"),
    "changed": Name("flag", _changed, ("initial_response",), "the response is not the first one"),
    "accepted": Name("flag", _of_round(-1, "accepted"), ("rounds",), "the last revision"),
    "principle": Name("texts", _principles, ("rounds", "votes"), "of critiques and votes"),
    "category": Name("texts", _each(_critiques, "category"), ("rounds",), "of critiques"),
    "critique": Name("texts", _each(_critiques, "critique"), ("rounds",), "texts of critiques"),
    "revision": Name("texts", _each(_rounds, "revision"), ("rounds",), "texts of revisions"),
    "labeler": Name("texts", _each(_votes, "labeler"), ("votes", "rounds"), "who voted"),
    "verdict": Name("texts", _each(_votes, "verdict"), ("votes", "rounds"), "of votes: a, b, tie, abstain"),
    "rationale": Name("texts", _each(_votes, "rationale"), ("votes", "rounds"), "texts of votes"),
    "flags": Name("texts", flags_of, ("rounds", "votes", "refused"), "what `--flags` shows"),
}


def names_of(shape: type[Any]) -> dict[str, Name]:
    """The names that rows of a shape answer to, its columns first."""
    return _names_of(shape)  # type: ignore[arg-type]  # a class is hashable


@functools.cache
def _names_of(shape: type[Any]) -> dict[str, Name]:
    there = features(shape)
    columns = {one["name"]: _column(one["name"], one["dtype"]) for one in there if "dtype" in one}
    has = {one["name"] for one in there}
    return columns | {name: one for name, one in _MADE.items() if has.intersection(one.needs)}


def _column(name: str, dtype: str) -> Name:
    get = operator.methodcaller("get", name)
    kind = _KINDS[dtype]
    return Name(kind, (lambda row: get(row) or "") if kind == "text" else get, (name,))


@functools.cache
def names() -> dict[str, Name]:
    """Every name that some stage's rows, or rejects, answer to; what is made of columns first."""
    found = dict(_MADE)
    for shape in (*plan.shapes().values(), Rejected):
        found |= {name: one for name, one in names_of(shape).items() if name not in found}
    return found
