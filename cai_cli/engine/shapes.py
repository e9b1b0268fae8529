"""Shapes of input rows: where a row holds its conversation and its two responses, whoever wrote it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from cai_cli import chance
from cai_cli.errors import Reject
from cai_cli.records import Pair, Turn, from_row

Row = Mapping[str, Any]
Turns = tuple[Turn, ...]

ROLES = frozenset({"user", "assistant"})
KINDS = frozenset({"", "harmful", "harmless"})
SIDES = frozenset({"a", "b", "tie"})

_HUMAN = "\n\nHuman:"
_MARKER = re.compile(r"\n\n(Human|Assistant):")
_ROLE = {"Human": "user", "Assistant": "assistant"}


# Conversations.


def conversation(row: Row, column: str | None) -> Turns:
    """The turns up to the user turn that is to be answered.

    Taken from `column`, else from a `messages` list, a `prompt`, or the `chosen` of two hh-rlhf transcripts.
    Rejects: missing_column, wrong_type, system_in_messages, empty_prompt, ends_with_assistant, no_assistant_turn
    """
    text = row.get(column or "prompt")
    if isinstance(text, str) and (column or not isinstance(row.get("messages"), list)):  # as nearly every row has it
        return _answerable((Turn(role="user", content=text),))
    name = column or ("messages" if isinstance(row.get("messages"), list) else "prompt")
    if name not in row and not column and is_transcript(row):
        return _answerable(_last_answer(_transcript(row["chosen"]))[0])
    if name not in row:
        raise Reject("missing_column", missing(name, row) if column else missing("prompt", row, "messages"))
    return _answerable(_turns(row[name], name))


def _turns(value: Any, name: str) -> Turns:
    if isinstance(value, str):
        return (Turn(role="user", content=value),)
    if not isinstance(value, list):
        raise Reject("wrong_type", f"column '{name}' must be text or a list of messages, not {_type(value)}")
    return tuple(_turn(item, f"{name}[{number}]") for number, item in enumerate(value))


def _turn(item: Any, name: str) -> Turn:
    turn = from_row(Turn, item) if isinstance(item, dict) else None
    if turn is None:
        raise Reject("wrong_type", f"'{name}' must be an object with role and content, not {_type(item)}")
    if turn.role == "system":
        raise Reject("system_in_messages", f"'{name}' is a system message; system prompts go into generate.systems")
    if turn.role not in ROLES:
        raise Reject("wrong_type", f"the role of '{name}' must be user or assistant, not {turn.role[:40]!r}")
    return turn


def _answerable(turns: Turns) -> Turns:
    if turns and turns[-1].role == "assistant":
        raise Reject("ends_with_assistant", "a prompt must end with a user turn")
    if not turns or not turns[-1].content.strip():
        raise Reject("empty_prompt", "there is no text to answer")
    return turns


def is_transcript(row: Row) -> bool:
    """Whether a row is two hh-rlhf transcripts, whose prompt stands in them."""
    return _is_transcript(row.get("chosen"), row.get("rejected"))


def _is_transcript(*texts: Any) -> bool:
    return all(isinstance(text, str) and text.startswith(_HUMAN) for text in texts)


def _transcript(text: str) -> Turns:
    """The turns of an hh-rlhf transcript. Only its two markers end a turn: text may hold colons and blank lines."""
    _, *parts = _MARKER.split(text)
    return tuple(Turn(role=_ROLE[name], content=said.strip()) for name, said in zip(parts[::2], parts[1::2], strict=True))


def _last_answer(turns: Turns) -> tuple[Turns, str]:
    """What stands before the last assistant turn, and that turn's text."""
    last = max((number for number, turn in enumerate(turns) if turn.role == "assistant"), default=None)
    if last is None:
        raise Reject("no_assistant_turn", "the prompt is what stands before the last assistant turn, and there is none")
    return turns[:last], turns[last].content


# Columns.


def given_id(row: Row, *columns: str) -> str:
    """The first of the columns that holds an id, as text; empty where none does. Rejects: wrong_type"""
    for name in columns:
        value = row.get(name)
        if value is not None and type(value) not in (str, int):
            raise Reject("wrong_type", f"column '{name}' must be text or a whole number, not {_type(value)}")
        if value is not None and value != "":
            return str(value)
    return ""


def kind(row: Row, name: str) -> str:
    """What a prompt is: `name` itself if it is harmful or harmless, else what the column of that name says.

    Rejects: missing_column, wrong_type
    """
    if name in KINDS:
        return name
    if name not in row:
        raise Reject("missing_column", missing(name, row))
    value = row[name]
    if not isinstance(value, str):
        raise Reject("wrong_type", f"column '{name}' must be text, not {_type(value)}")
    return value


def kept(row: Row, columns: Iterable[str]) -> str:
    """The columns as one JSON object with sorted keys; null where the row has none."""
    return orjson.dumps({name: row.get(name) for name in columns}, default=str, option=orjson.OPT_SORT_KEYS).decode()


def missing(name: str, row: Iterable[str], *also: str) -> str:
    """The sentence that says that a column is missing, which one may be meant, and which there are."""
    columns = list(row)
    near = [match for wanted in (name, *also) for match in difflib.get_close_matches(wanted, columns, 1)]
    hint = f"; did you mean '{near[0]}'?" if near else ""
    return f"there is no column {' or '.join(repr(wanted) for wanted in (name, *also))}{hint} (columns: {_listed(columns)})"


def _listed(columns: Iterable[str]) -> str:
    return ", ".join(list(columns)[:20]) or "none"


def _type(value: Any) -> str:
    return "null" if value is None else type(value).__name__


# Pairs.


def given_pair(row: Row, column: str | None, seed: int, gold: bool, identify: Callable[[Turns], str]) -> Pair:
    """A pair from two responses, or from a chosen and a rejected one, whose side is then drawn.

    `identify`: gives the prompt_id; called once all else is known to be good. `gold`: the chosen one is the truth.
    Rejects: what `conversation` does; prompts_differ, empty_response
    """
    drawn = not ("response_a" in row and "response_b" in row)
    names = ("chosen", "rejected") if drawn else ("response_a", "response_b")
    if not all(name in row for name in names):
        raise Reject(
            "missing_column", f"there are neither response_a and response_b nor chosen and rejected (columns: {_listed(row)})"
        )
    messages, one, other = _responses(row, *names, column)
    _check_responses(one, other)
    prompt_id = identify(messages)
    side = chance.choose("ab", seed, prompt_id, "side") if drawn else "a"
    truth = (side if gold else "") if drawn else _gold(row)
    a, b = (one, other) if side == "a" else (other, one)
    return Pair(
        id=f"{prompt_id}-0-1", prompt_id=prompt_id, messages=messages, prompt=messages[-1].content,
        response_a=a, response_b=b, gold=truth, source_a="" if drawn else text(row, "source_a"),
        source_b="" if drawn else text(row, "source_b"),
    )  # fmt: skip


def _responses(row: Row, first: str, second: str, column: str | None) -> tuple[Turns, str, str]:
    one, other = row[first], row[second]
    if _is_transcript(one, other):
        return _same_prompt(_last_answer(_transcript(one)), _last_answer(_transcript(other)))
    if isinstance(one, str) and isinstance(other, str):
        return conversation(row, column), one, other
    if not (isinstance(one, list) and isinstance(other, list)):
        raise Reject("wrong_type", f"'{first}' and '{second}' must both be text or both be lists of messages")
    return _same_prompt(*(_completion(row, name, column) for name in (first, second)))


def _completion(row: Row, name: str, column: str | None) -> tuple[Turns, str]:
    """What a list of messages answers, and its answer. It may be a whole conversation, or go on where the prompt ends."""
    turns = _turns(row[name], name)
    if not turns or turns[-1].role != "assistant":
        raise Reject("no_assistant_turn", f"'{name}' must end with an assistant turn")
    whole = turns[0].role == "user"
    return (() if whole else conversation(row, column)) + turns[:-1], turns[-1].content


def _same_prompt(one: tuple[Turns, str], other: tuple[Turns, str]) -> tuple[Turns, str, str]:
    messages = _answerable(one[0])
    if other[0] != messages:
        raise Reject("prompts_differ", "the two responses answer different conversations")
    return messages, one[1], other[1]


def _check_responses(*responses: str) -> None:
    if not all(response.strip() for response in responses):
        raise Reject("empty_response", "a response has no text")


def text(row: Row, name: str) -> str:
    """A column that may be there; empty where it is not, or is no text."""
    value = row.get(name)
    return value if isinstance(value, str) else ""


def _gold(row: Row) -> str:
    value = row.get("gold")
    return value if isinstance(value, str) and value in SIDES else ""


def voted_pair(row: Row, column: str | None) -> Pair:
    """A pair that was judged already; what follows from other columns is filled in, and ids may be left empty.

    Rejects: what `conversation` does; missing_column, wrong_type, empty_response
    """
    messages = conversation(row, column)
    filled = {
        **row, "messages": [], "prompt": messages[-1].content, "gold": _gold(row), "votes": _votes(row["votes"]),
        "id": given_id(row, "id", "prompt_id"), "prompt_id": given_id(row, "prompt_id", "id"),
    }  # fmt: skip
    pair = from_row(Pair, filled)
    _check_responses(pair.response_a, pair.response_b)
    return replace(pair, messages=messages)


def _votes(votes: Any) -> Any:
    return [_vote(vote, f"votes[{number}]") for number, vote in enumerate(votes)] if isinstance(votes, list) else votes


def _vote(vote: Any, name: str) -> Any:
    """A vote with its verdict made from its probability, or the other way round."""
    if not isinstance(vote, dict):
        return vote
    known = {key: value for key, value in vote.items() if value is not None}
    for wanted in ("labeler", "order"):
        if wanted not in known:
            raise Reject("missing_column", f"'{name}' has no {wanted}")
    if "verdict" not in known and "p_a" not in known:
        raise Reject("missing_column", f"'{name}' has neither verdict nor p_a")
    _one_of(known["order"], ("ab", "ba"), f"{name}.order")
    if "p_a" in known:
        _probability(known["p_a"], f"{name}.p_a")
    known.setdefault("verdict", _verdict(known.get("p_a", 0.5)))
    _one_of(known["verdict"], (*_P_A, "abstain"), f"{name}.verdict")
    return {"p_a": _P_A.get(known["verdict"]), **known}


_P_A = {"a": 1.0, "b": 0.0, "tie": 0.5}


def _verdict(p_a: float) -> str:
    return "tie" if p_a == 0.5 else "a" if p_a > 0.5 else "b"


def _one_of(value: Any, allowed: Sequence[str], name: str) -> None:
    if value not in allowed:
        raise Reject("wrong_type", f"'{name}' must be one of {', '.join(allowed)}")


def _probability(value: Any, name: str) -> None:
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise Reject("wrong_type", f"'{name}' must be a number from 0 to 1")
