"""What people wrote: read strictly, several of them a pair, and the gold that comes of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from cai_cli.auditing.drawing import Design, Drawn, content_of
from cai_cli.errors import Reject
from cai_cli.records import Pair

ANSWERS = ("1", "2", "tie", "skip")
KINDS = ("human_stricter", "ai_stricter", "different_criteria", "subjective")
UNNAMED = "unnamed"  # an annotator who left no name
_TEXTS = ("reason", "kind", "annotator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What one person said of one pair. A row of OUTPUT/audit/labels.jsonl."""

    id: str  # the pair's
    prompt_id: str
    annotator: str = UNNAMED
    label: str  # a | b | tie | skip: in candidate coordinates, whatever was shown first
    reason: str = ""  # in the person's own words
    kind: str = ""  # of a disagreement with the AI, where the person named it; empty: not named
    content: str = ""  # a hash of the two responses


class Gold(NamedTuple):
    """What people say of a pair, and how many pairs of the frame it stands for."""

    label: str  # a | b | tie
    weight: float  # one over the probability that people looked at it
    content: str = ""  # a hash of the two responses


def read_label(row: Mapping[str, Any], known: Mapping[str, Drawn]) -> Label | None:
    """A filled row as a label; None: its label is empty, so nobody has looked at it yet.

    Takes: a row of the file that was handed out; the pairs that were drawn, by id
    Raises: Reject: missing_column, wrong_type, unknown_id, bad_label, bad_kind, other_responses
    """
    one = known_pair(row, known)
    texts = {name: _text(row, name) for name in _TEXTS}
    answer = _answer(row)
    if answer == "":
        return None
    if texts["kind"] and texts["kind"] not in KINDS:
        raise Reject("bad_kind", f"kind '{texts['kind']}' is none of {', '.join(KINDS)}")
    _check_responses(row, one)
    return Label(
        id=one.id, prompt_id=one.prompt_id, annotator=texts["annotator"] or UNNAMED, label=in_candidates(answer, one),
        reason=texts["reason"], kind=texts["kind"], content=one.content,
    )  # fmt: skip


def known_pair(row: Mapping[str, Any], known: Mapping[str, Drawn]) -> Drawn:
    """The drawn pair that a row is about. Raises: Reject: missing_column, unknown_id"""
    name = row.get("id")
    if not isinstance(name, str) or not name:
        raise Reject("missing_column", "column 'id' is missing: it says which pair the label is about")
    if name not in known:
        raise Reject("unknown_id", "it was not drawn by any sample of this output")
    return known[name]


def _answer(row: Mapping[str, Any]) -> str:
    if "label" not in row:
        raise Reject("missing_column", "column 'label' is missing: 1, 2, tie or skip; empty where nobody has looked yet")
    given = row["label"]
    answer = "" if given is None else str(given).strip().lower() if type(given) in (str, int) else None
    if answer is None or (answer and answer not in ANSWERS):
        raise Reject("bad_label", f"label {given!r} is none of 1, 2, tie, skip")
    return answer


def _text(row: Mapping[str, Any], name: str) -> str:
    given = row.get(name)
    if given is not None and not isinstance(given, str):
        raise Reject("wrong_type", f"column '{name}' must be text")
    return (given or "").strip()


def in_candidates(answer: str, one: Drawn) -> str:
    """1 and 2, as a person saw them, as a and b."""
    second = "b" if one.first == "a" else "a"
    return {"1": one.first, "2": second}.get(answer, answer)


def _check_responses(row: Mapping[str, Any], one: Drawn) -> None:
    given = [row.get(name) for name in ("response_1", "response_2")]
    texts = [text for text in given if isinstance(text, str)]
    if len(texts) == 2 and content_of(*(texts if one.first == "a" else texts[::-1])) != one.content:
        raise Reject("other_responses", "the responses are not those that were handed out, or stand the other way round")


def merged(old: Iterable[Label], new: Iterable[Label]) -> tuple[list[Label], int]:
    """Labels by what was shown and to whom; a later one replaces an earlier one. Gives: all, and how many others replaced"""
    found = {(one.id, one.content, one.annotator): one for one in old}
    changed = 0
    for one in new:
        key = one.id, one.content, one.annotator
        changed += key in found and found[key] != one
        found[key] = one
    return list(found.values()), changed


def newest(labels: Sequence[Label], designs: Sequence[Design]) -> list[Label]:
    """Those that are about the responses which their pair was last labelled with.

    Responses that are made anew have the ids of those before: what somebody said of these is no word about the new ones.
    """
    number = {(one.id, one.content): design.number for design in designs for one in design.drawn}
    last: dict[str, tuple[int, str]] = {}
    for one in labels:
        about = number.get((one.id, one.content), 0), one.content
        last[one.id] = max(about, last.get(one.id, about))
    return [one for one in labels if one.content == last[one.id][1]]


def by_pair(labels: Iterable[Label]) -> dict[str, list[Label]]:
    """The labels of each pair by its id, those who skipped it left out."""
    found: dict[str, list[Label]] = {}
    for one in labels:
        if one.label != "skip":
            found.setdefault(one.id, []).append(one)
    return found


def majority(labels: Sequence[Label]) -> str:
    """What most people say of a pair: a, b or tie. Where two answers lead together people are split, which is a tie.

    Takes: at least one label that is no skip
    """
    first, *others = leading(labels)
    return "tie" if others else first


def leading(labels: Sequence[Label]) -> list[str]:
    """The answers that most people give, one or several. Takes: at least one label that is no skip"""
    counts = Counter(one.label for one in labels)
    most = max(counts.values())
    return [answer for answer, count in counts.items() if count == most]


Shown = tuple[str, str]  # a pair's id, and a hash of its two responses


def looked_at(designs: Sequence[Design], labelled: Iterable[Shown]) -> dict[Shown, float]:
    """The probability that people looked at a pair and answered, by its id and its responses, for those that are labelled.

    Takes: all samples, in the order of their numbers; the pairs that have a label
    Formula: with p_k = min(1, c_k * size) and r_k the share of what sample k drew anew that has a label,
    sum over k of max(0, p_k - max of the p before) * r_k. Samples from before responses were made anew, as a pair tells that
    was drawn with others, count only for what they drew themselves.
    Assumes: within a sample it is chance which rows were answered: they are handed out in an order of chance. How doubtful a pair
    is, its size, is taken from the sample that drew it.
    """
    answered, since = set(labelled), _since(designs)
    rates = [_rate(design, answered) for design in designs]
    found = {}
    for design, first in zip(designs, since, strict=True):
        for one in design.drawn:
            if (one.id, one.content) in answered:
                chances = [later.probability(one.size) for later in designs[first:]]
                found[one.id, one.content] = _summed(chances, rates[first:])
    return found


def _since(designs: Sequence[Design]) -> list[int]:
    """For each sample the first one whose pairs had the same responses."""
    shown: dict[str, str] = {}
    first, found = 0, []
    for at, design in enumerate(designs):
        if any(shown.get(one.id, one.content) != one.content for one in design.drawn):
            first = at
        shown |= {one.id: one.content for one in design.drawn}
        found.append(first)
    return found


def _rate(design: Design, answered: set[Shown]) -> float:
    return sum((one.id, one.content) in answered for one in design.drawn) / len(design.drawn) if design.drawn else 0.0


def _summed(probabilities: Sequence[float], rates: Sequence[float]) -> float:
    total = most = 0.0
    for p, rate in zip(probabilities, rates, strict=True):
        total += max(0.0, p - most) * rate
        most = max(most, p)
    return total


def gold_of(labels: Sequence[Label], designs: Sequence[Design]) -> dict[str, Gold]:
    """What people say of each pair by its id, with its weight, 1/probability; pairs that everybody skipped have no gold."""
    chances = looked_at(designs, ((one.id, one.content) for one in labels if one.label != "skip"))
    return {
        name: Gold(majority(those), 1 / chances[name, content], content)
        for name, those in by_pair(newest(labels, designs)).items()
        if (name, content := those[0].content) in chances
    }


def with_gold(pair: Pair, gold: Mapping[str, Gold]) -> Pair:
    """The pair with what people said of it in an audit, in place of any gold that it came with.

    A label about other responses is none of this pair's: a pair is known by its id and by what was shown. Where the same two
    stand the other way round, so does the label.
    """
    found = gold.get(pair.id)
    if found is None:
        return pair
    if found.content == content_of(pair.response_a, pair.response_b):
        return replace(pair, gold=found.label, gold_weight=found.weight)
    if found.content == content_of(pair.response_b, pair.response_a):
        return replace(pair, gold={"a": "b", "b": "a"}.get(found.label, found.label), gold_weight=found.weight)
    return pair
