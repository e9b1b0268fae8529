"""Every row shape, in the order data flows: Prompt -> Sample -> Chain -> Pair -> Preference.

A shape is written once: its fields are the columns of the JSONL, in this order, and the features that `datasets` is told.
Text and lists are never null; a number (or yes/no) that nobody knows is.
"""

from __future__ import annotations

import functools
import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, asdict, dataclass, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar

from cai_cli.errors import Reject

Side = Literal["a", "b"]
Order = Literal["ab", "ba"]  # which candidate was shown first
Verdict = Literal["a", "b", "tie", "abstain"]
R = TypeVar("R")


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    role: str  # user | assistant
    content: str  # its text


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """A conversation that ends with the user turn to be answered."""

    id: str  # the input's, or a hash of the content
    messages: tuple[Turn, ...]  # up to and with the user turn to be answered
    kind: str = ""  # harmful | harmless | what the input's column says
    meta: str = "{}"  # the kept input columns, as one JSON string

    @property
    def text(self) -> str:
        return self.messages[-1].content


@dataclass(frozen=True, slots=True, kw_only=True)
class Expanded:
    """A prompt that a model wrote after a few others; as an input row it is a prompt like any other."""

    id: str  # a hash of its text
    prompt: str  # its text
    kind: str = ""  # of the seeds that were shown
    topic: str = ""  # the one that was asked for
    seeds: tuple[str, ...] = ()  # ids of those
    nearest: str = ""  # id of the most similar seed, or prompt before it
    similarity: float | None = None  # to that one: ROUGE-L over words, in [0, 1]
    model: str = ""  # the one that says it answered

    @property
    def prompt_id(self) -> str:
        return self.id


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One response to a prompt."""

    id: str  # {prompt_id}-{n}
    prompt_id: str  # the prompt's id, the same in every stage
    messages: tuple[Turn, ...]  # up to and with the user turn that is answered
    prompt: str  # that turn's text
    kind: str = ""  # harmful | harmless | what the input's column says
    system: str = ""  # the system prompt it was asked with; empty: none
    sample: int = 0  # n, from 0
    response: str = ""  # the text; from critique on the current one
    model: str = ""  # the one that says it answered
    stop_reason: str = ""  # as the server gave it
    refused: bool = False  # the provider refused; the text may be empty
    truncated: bool = False  # cut off at max_tokens; exports leave it out
    tokens_in: int | None = None  # of the request, cached ones too
    tokens_out: int | None = None  # of the reply
    meta: str = "{}"  # the kept input columns, as one JSON string


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One verdict of a labeler, in candidate coordinates whatever was shown first."""

    labeler: str  # who judged
    principle: str = ""  # the criterion's name
    order: str = "ab"  # ab | ba: which candidate was shown first
    draw: int = 0  # which of several votes on one question, from 0
    verdict: str = "abstain"  # a | b | tie | abstain
    p_a: float | None = None  # probability that a is better; 0, .5 or 1 where only a verdict was given; null: abstained
    confidence: float | None = None  # in [0, 1]
    rationale: str = ""  # what the labeler wrote before its verdict
    labels: tuple[str, ...] = ()  # what the two responses were called, the one shown first at the front
    basis: str = ""  # where p_a comes from: logprobs | stated | words | verdict; empty: not known
    model: str = ""  # the one that says it answered
    escalated: bool = False  # asked because the labelers before were unsure: with a verdict, it stands in for theirs


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    criterion: str  # its name
    score: float | None = None  # 1 to 10
    rationale: str = ""  # why


@dataclass(frozen=True, slots=True, kw_only=True)
class Critique:
    principle: str  # its name
    category: str  # the principle's
    critique: str  # what is wrong, in words
    severity: float | None = None  # in [0, 1]; null: nobody gave one
    needs_revision: bool = True  # severity above critique.needs_revision_above, or no severity
    suggestions: tuple[str, ...] = ()  # what to change
    quotes: tuple[str, ...] = ()  # words of the response that it is about


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """A critique and what came of it. Open until it is known whether a revision was accepted."""

    round: int  # from 1
    critiques: tuple[Critique, ...]  # one a principle
    severity: float | None = None  # the maximum over the critiques, in [0, 1]
    primary_issues: tuple[str, ...] = ()  # principles whose severity is above .5
    quality: float | None = None  # in [0, 1], 1 is best
    revision: str = ""  # the new text; empty while the round is open, or where none was needed
    accepted: bool | None = None  # null: the round is open
    stripped: str = ""  # what was taken off the reviser's reply: lines that announce it, notes on it
    scores: tuple[Score, ...] = ()  # of the text that was critiqued, where the config asks for scores per round
    votes: tuple[Vote, ...] = ()  # where a labeler decided: a is the text that was critiqued, b the revision

    @property
    def needs_revision(self) -> bool:
        return any(critique.needs_revision for critique in self.critiques)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain(Sample):
    """A sample on its way through rounds of critique and revision. `response` is the current text."""

    initial_response: str = ""  # the response before any revision
    initial_truncated: bool = False  # whether that one was cut off
    stopped_by: str = ""  # empty while it goes on
    rounds: tuple[Round, ...] = ()  # in order

    @classmethod
    def begin(cls, sample: Sample) -> Chain:
        if isinstance(sample, Chain):
            return sample
        values = {field.name: getattr(sample, field.name) for field in fields(sample)}
        return cls(**values, initial_response=sample.response, initial_truncated=sample.truncated)

    @property
    def open_round(self) -> Round | None:
        return self.rounds[-1] if self.rounds and self.rounds[-1].accepted is None else None

    def with_open(self, opened: Round) -> Chain:
        return replace(self, rounds=(*self.rounds, opened))

    def with_closed(self, closed: Round, stopped_by: str = "") -> Chain:
        """The open round replaced by its closed form; an accepted revision becomes the response, whole and given.

        One that repeats the response changes nothing: what was cut off stays cut off.
        """
        chain = replace(self, rounds=(*self.rounds[:-1], closed), stopped_by=stopped_by)
        if not closed.accepted or closed.revision == self.response.strip():
            return chain
        return replace(chain, response=closed.revision, stop_reason="end_turn", refused=False, truncated=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored(Sample):
    """A sample with its scores. Of a chain, the current response is scored."""

    scores: tuple[Score, ...] = ()  # one a criterion
    composite: float | None = None  # the weighted mean, 1 to 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two responses to one prompt, and what labelers said of them."""

    id: str  # {prompt_id}-{m}-{n}, by the samples' numbers
    prompt_id: str  # the prompt's id, the same in every stage
    messages: tuple[Turn, ...]  # up to and with the user turn that is answered
    prompt: str  # that turn's text
    kind: str = ""  # harmful | harmless | what the input's column says
    response_a: str  # one response
    response_b: str  # the other
    source_a: str = ""  # the sample's id, with :initial or :revised where it matters
    source_b: str = ""  # the same of b
    model_a: str = ""  # who wrote response_a; of a revision, the first response's author
    model_b: str = ""  # the same of b
    votes: tuple[Vote, ...] = ()  # of every labeler, in every order
    p_a: float | None = None  # after aggregation, in [1e-4, 1 - 1e-4]
    preference: str = ""  # a | b | tie
    confidence: float | None = None  # max(p_a, 1 - p_a)
    consistent: bool | None = None  # the same side won in both orders; null: only one order was asked
    scores_a: tuple[Score, ...] = ()  # of response_a, where the config asks for scores
    scores_b: tuple[Score, ...] = ()  # the same of b
    gold: str = ""  # what people said: a | b | tie | empty
    gold_weight: float | None = None  # one over the probability that people looked at it; null: not drawn for an audit
    meta: str = "{}"  # the kept input columns, as one JSON string


@dataclass(frozen=True, slots=True, kw_only=True)
class Preference(Pair):
    """A pair with its debiased label. `chosen` and `rejected` are the texts."""

    p_a_raw: float | None = None  # mean of the votes' p_a
    weight: float | None = None  # |2 p_a - 1|
    flags: tuple[str, ...] = ()  # what is to be known of the label: inconsistent, one_order, shifted, votes_only, ...
    chosen: str = ""  # the better text
    rejected: str = ""  # the other
    margin: float | None = None  # log-odds of the chosen


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """One question put again about a pair whose content is the same and whose manner is not: a row of `_probes.jsonl`."""

    id: str  # the pair's
    prompt_id: str  # its prompt's
    dimension: str  # the probe: length, sycophancy, ...
    labeler: str  # who judged
    principle: str = ""  # the criterion's name
    order: str = "ab"  # ab | ba: which candidate was shown first
    draw: int = 0  # which of several votes on one question, from 0
    change: float = 0.0  # how much the feature of a minus that of b was changed, in the feature's unit; else how often, toward a
    length: float = 0.0  # how much the log of the words of a minus that of b was changed along with it
    before_p_a: float | None = None  # probability that a is better, as the pair was; null: abstained
    after_p_a: float | None = None  # the same with the change
    bare_before: bool = False  # a verdict without a probability
    bare_after: bool = False  # the same with the change


@dataclass(frozen=True, slots=True, kw_only=True)
class Rejected:
    """A row that ended: why, where, and what it was until then."""

    id: str  # the row's, where it had one
    prompt_id: str  # its prompt's
    stage: str  # where it ended; input: while it was read
    reason: str  # a word that is counted
    detail: str = ""  # more, in words
    where: str = ""  # file:line, for input that could not be used
    row: str = ""  # the row so far, as JSON, or the start of the input line


def rejected(reject: Reject, stage: str, record: Prompt | Sample | Pair, row_id: str = "") -> Rejected:
    """A row that ended in a stage, with the record that the stage had; `row_id` where the row was to become another one."""
    row = json.dumps(asdict(record), ensure_ascii=False, separators=(",", ":"))
    prompt_id = record.id if isinstance(record, Prompt) else record.prompt_id
    return Rejected(id=row_id or record.id, prompt_id=prompt_id, stage=stage, reason=reject.reason, detail=reject.detail, row=row)


# Reading: a mapping from outside becomes a record, or a Reject that names the column.

_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}
Parser = Callable[[Any, str], Any]


def from_row(shape: type[R], row: Mapping[str, Any]) -> R:
    """Read a record from a JSON object; unknown columns are ignored, absent ones take their default.

    Raises: Reject missing_column, wrong_type
    """
    return _read(shape, row, "")


def _read(shape: type[R], row: Mapping[str, Any], path: str) -> R:
    values = {}
    for name, parse, required in _plan(shape):  # type: ignore[arg-type]  # a class is hashable
        if name in row:
            values[name] = parse(row[name], path + name)
        elif required:
            raise Reject("missing_column", f"column '{path}{name}' is missing")
    return shape(**values)


@functools.cache
def _plan(shape: type[Any]) -> list[tuple[str, Parser, bool]]:
    hints = typing.get_type_hints(shape)
    return [(field.name, _parser(hints[field.name]), _required(field)) for field in fields(shape)]


def _required(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _parser(hint: Any) -> Parser:
    if _nullable(hint):
        inner = _parser(_strip(hint))
        return lambda value, name: None if value is None else inner(value, name)
    if typing.get_origin(hint) is tuple:
        return functools.partial(_parse_list, _parser(typing.get_args(hint)[0]))
    if is_dataclass(hint):
        return functools.partial(_parse_struct, typing.cast("type[Any]", hint))
    return functools.partial(_parse_scalar, hint)


def _parse_scalar(kind: type, value: Any, name: str) -> Any:
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise Reject("wrong_type", f"column '{name}' must be {_WORDS[kind]}, not {_describe(value)}")
    return value


def _parse_list(parse: Parser, value: Any, name: str) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise Reject("wrong_type", f"column '{name}' must be a list, not {_describe(value)}")
    return tuple(parse(item, f"{name}[{n}]") for n, item in enumerate(value))


def _parse_struct(shape: type[Any], value: Any, name: str) -> Any:
    if not isinstance(value, dict):
        raise Reject("wrong_type", f"column '{name}' must be an object, not {_describe(value)}")
    return _read(shape, value, f"{name}.")


def _describe(value: Any) -> str:
    return "null" if value is None else f"{_WORDS.get(type(value), 'a list' if isinstance(value, list) else 'an object')}"


def _nullable(hint: Any) -> bool:
    return typing.get_origin(hint) in (typing.Union, types.UnionType) and type(None) in typing.get_args(hint)


def _strip(hint: Any) -> Any:
    return next(arg for arg in typing.get_args(hint) if arg is not type(None))


# Declaring: the features of a shape, as a dataset card's YAML writes them.

_DTYPES = {str: "string", int: "int64", float: "float64", bool: "bool"}


def features(shape: type[Any]) -> list[dict[str, Any]]:
    """The columns of a shape as `dataset_info.features` of a dataset card lists them."""
    hints = typing.get_type_hints(shape)
    return [{"name": field.name, **_feature(hints[field.name])} for field in fields(shape)]


def _feature(hint: Any) -> dict[str, Any]:
    if _nullable(hint):
        return _feature(_strip(hint))
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        return {"list": features(typing.cast("type[Any]", item)) if is_dataclass(item) else _DTYPES[item]}
    return {"dtype": _DTYPES[hint]}
