"""Pairs decoded and encoded many at a time, where nothing about them is out of the ordinary. What is goes the long way.

The shapes here are made of the records' own fields and types. They take no unknown column, and no number that JSON libraries
write or read in different ways, so that what they take is just what `records.from_row` takes of what orjson reads, and what they
write is byte for byte what orjson writes: tests/test_pairs_table.py holds them to that.
"""

from __future__ import annotations

import functools
import typing
from collections.abc import Hashable
from dataclasses import MISSING, fields, is_dataclass
from typing import Annotated, Any

import msgspec

from cai_cli.records import Pair, Preference, Vote

_WHOLE = Annotated[int, msgspec.Meta(ge=-(2**63), le=2**63 - 1)]
_REAL = Annotated[float, msgspec.Meta(gt=-1e15, lt=1e15)]
_ERRORS = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
_NEEDED = {Pair: ("votes",), Vote: ("order", "verdict", "p_a")}
_TOLD = ("id", "prompt_id", "kind")  # what is looked at of a row whose other columns are only carried over

encode = msgspec.json.Encoder().encode
_encode_lines = msgspec.json.Encoder().encode_lines


@functools.cache
def _twin(shape: Hashable, strict: bool) -> type[msgspec.Struct]:
    """A record's shape. `strict`: it has to say itself what a reader would fill in"""
    assert isinstance(shape, type)
    hints = typing.get_type_hints(shape)
    needed = _NEEDED.get(shape, ()) if strict else ()
    columns: list[Any] = [
        (one.name, _type(hints[one.name], strict), *(() if one.name in needed or one.default is MISSING else [one.default]))
        for one in fields(shape)
    ]
    return msgspec.defstruct(shape.__name__, columns, kw_only=True, forbid_unknown_fields=True)


def _type(hint: Any, strict: bool) -> Any:
    if is_dataclass(hint):
        return _twin(typing.cast("Hashable", hint), strict)
    if typing.get_origin(hint) is tuple:
        return tuple[_type(typing.get_args(hint)[0], strict), ...]  # type: ignore[misc]
    if args := typing.get_args(hint):  # X | None
        return _type(args[0], strict) | None
    return {int: _WHOLE, float: _REAL}.get(hint, hint)


@functools.cache
def _decoder(strict: bool) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(_twin(Pair, strict))


@functools.cache
def _records() -> msgspec.json.Decoder[Pair]:
    return msgspec.json.Decoder(Pair)


@functools.cache
def _carrying() -> msgspec.json.Decoder[Any]:
    """Of pairs that `written` has seen: all but a few columns stay as they are."""
    own = {one.name for one in fields(Pair)} - set(LABELLED)
    columns = [(one.name, _carried(one.name) if one.name in own else Any, None) for one in fields(Preference)]
    return msgspec.json.Decoder(msgspec.defstruct("Carried", columns))


def _carried(name: str) -> Any:
    return str if name in _TOLD else msgspec.Raw


LABELLED = ("p_a", "preference", "confidence", "consistent")  # columns of a pair that its label makes anew


def written(data: bytes) -> list[Any] | None:
    """The pairs of whole lines, with the attributes of `Pair`; None: not just as `shards.as_line` writes pairs."""
    try:
        pairs = _decoder(False).decode_lines(data)
    except _ERRORS:
        return None
    return pairs if _encode_lines(pairs) == data else None


def pairs(data: bytes) -> list[Pair] | None:
    """The same as records."""
    return None if written(data) is None else _records().decode_lines(data)


def carried(data: bytes) -> list[Any]:
    """The rows of lines that `written` takes, to be made preferences: attributes may be set, texts stay as they stand there."""
    return _carrying().decode_lines(data)


def given(line: bytes) -> Any | None:
    """A pair of a file, if it says all by itself and nothing needs to be filled in or looked at twice; else None."""
    try:
        pair = _decoder(True).decode(line)
    except _ERRORS:
        return None
    return pair if _whole(pair) else None


def _whole(pair: Any) -> bool:
    turns = pair.messages
    return bool(
        pair.id and pair.prompt_id and turns and turns[-1].role == "user" and pair.prompt == turns[-1].content
        and pair.prompt.strip() and pair.response_a.strip() and pair.response_b.strip() and pair.gold in ("", "a", "b", "tie")
        and all(turn.role in ("user", "assistant") for turn in turns) and all(map(_plain, pair.votes))
    )  # fmt: skip


def _plain(vote: Any) -> bool:
    if vote.order not in ("ab", "ba") or vote.verdict not in ("a", "b", "tie", "abstain"):
        return False
    return bool(vote.verdict == "abstain" if vote.p_a is None else 0 <= vote.p_a <= 1)
