"""Row shapes: what is written is what is read, and what is not a row says so."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_cli.errors import Reject
from cai_cli.records import (
    Chain,
    Critique,
    Pair,
    Preference,
    Prompt,
    Rejected,
    Round,
    Sample,
    Score,
    Turn,
    Vote,
    features,
    from_row,
    rejected,
)

SHAPES = [Prompt, Sample, Chain, Pair, Preference, Rejected]
TURNS = (Turn(role="user", content="q"),)
SAMPLE = Sample(id="p1-0", prompt_id="p1", messages=TURNS, prompt="q", response="first")
ROW = orjson.loads(orjson.dumps(SAMPLE))

st.register_type_strategy(str, st.text(st.characters(codec="utf-8"), max_size=20))
st.register_type_strategy(float, st.floats(allow_nan=False, allow_infinity=False))
st.register_type_strategy(int, st.integers(-(2**53), 2**53))


@pytest.mark.parametrize("shape", SHAPES)
@given(data=st.data())
def test_every_row_survives_being_written_and_read(shape: type[Any], data: st.DataObject) -> None:
    record = data.draw(st.from_type(shape))
    line = orjson.dumps(record)
    assert from_row(shape, orjson.loads(line)) == record
    assert list(orjson.loads(line)) == [field.name for field in fields(shape)]
    assert b"\n" not in line


def test_unknown_columns_are_left_out_and_absent_ones_take_their_default() -> None:
    row = {"id": "p1-0", "prompt_id": "p1", "messages": [], "prompt": "q", "of_somebody_else": [1, {}]}
    assert from_row(Sample, row) == Sample(id="p1-0", prompt_id="p1", messages=(), prompt="q")


@pytest.mark.parametrize("column", ["id", "prompt_id", "messages", "prompt"])
def test_a_missing_column_is_named(column: str) -> None:
    with pytest.raises(Reject) as caught:
        from_row(Sample, {name: value for name, value in ROW.items() if name != column})
    assert caught.value.reason == "missing_column"
    assert f"'{column}'" in caught.value.detail


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("response", None, "must be text, not null"),
        ("response", 5, "must be text, not a whole number"),
        ("response", ["a"], "must be text, not a list"),
        ("sample", "0", "must be a whole number, not text"),
        ("sample", 1.0, "must be a whole number, not a number"),
        ("sample", True, "must be a whole number, not true or false"),
        ("refused", 0, "must be true or false, not a whole number"),
        ("refused", None, "must be true or false, not null"),
        ("tokens_in", "many", "must be a whole number, not text"),
        ("messages", None, "must be a list, not null"),
        ("messages", {"role": "user"}, "must be a list, not an object"),
    ],
)
def test_a_wrong_type_is_named_with_its_column(column: str, value: Any, said: str) -> None:
    with pytest.raises(Reject) as caught:
        from_row(Sample, {**ROW, column: value})
    assert (caught.value.reason, caught.value.detail) == ("wrong_type", f"column '{column}' {said}")


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"messages": ["hello"]}, "column 'messages[0]' must be an object, not text"),
        ({"messages": [{"role": "user", "content": "q"}, {"role": "user", "content": None}]},
         "column 'messages[1].content' must be text, not null"),
        ({"messages": [{"role": "user"}]}, "column 'messages[0].content' is missing"),
        ({"rounds": [{"round": 1, "critiques": [{"principle": "p", "category": "c", "critique": "x", "severity": "high"}]}]},
         "column 'rounds[0].critiques[0].severity' must be a number, not text"),
    ],
)  # fmt: skip
def test_a_wrong_type_deep_inside_is_named_by_its_path(row: dict[str, Any], said: str) -> None:
    with pytest.raises(Reject) as caught:
        from_row(Chain, ROW | row)
    assert caught.value.detail == said


def test_a_whole_number_is_taken_where_a_number_is_meant_and_null_where_nobody_knows() -> None:
    vote = from_row(Vote, {"labeler": "main", "p_a": 1, "confidence": None})
    assert vote == Vote(labeler="main", p_a=1.0)
    assert isinstance(vote.p_a, float)


def test_a_round_is_open_until_it_is_known_whether_its_revision_was_accepted() -> None:
    chain = Chain.begin(SAMPLE)
    assert (chain.initial_response, chain.open_round) == ("first", None)
    opened = chain.with_open(Round(round=1, critiques=(Critique(principle="p", category="c", critique="bad"),)))
    assert opened.open_round is not None
    taken = opened.with_closed(Round(round=1, critiques=(), revision="second", accepted=True))
    assert (taken.response, taken.initial_response, taken.open_round, len(taken.rounds)) == ("second", "first", None, 1)
    left = opened.with_closed(Round(round=1, critiques=(), revision="second", accepted=False), stopped_by="quality")
    assert (left.response, left.stopped_by) == ("first", "quality")
    assert Chain.begin(taken) is taken


def test_a_round_needs_revision_when_one_of_its_critiques_says_so() -> None:
    fine, bad = (Critique(principle="p", category="c", critique="x", needs_revision=needs) for needs in (False, True))
    assert Round(round=1, critiques=(fine, bad)).needs_revision
    assert not Round(round=1, critiques=(fine,)).needs_revision
    assert not Round(round=1, critiques=()).needs_revision


def test_a_rejected_row_keeps_what_it_was_until_then() -> None:
    one = rejected(Reject("empty", "two replies without text"), "revise", SAMPLE)
    assert (one.id, one.prompt_id, one.stage, one.reason, one.detail) == (
        "p1-0",
        "p1",
        "revise",
        "empty",
        "two replies without text",
    )
    assert from_row(Sample, orjson.loads(one.row)) == SAMPLE
    never_made = rejected(Reject("empty"), "generate", Prompt(id="p1", messages=TURNS), "p1-3")
    assert (never_made.id, never_made.prompt_id) == ("p1-3", "p1")


@pytest.mark.parametrize("shape", [*SHAPES, Vote, Score, Turn])
def test_features_declare_every_column_in_order(shape: type[Any]) -> None:
    declared = features(shape)
    assert [feature["name"] for feature in declared] == [field.name for field in fields(shape)]
    assert all(("dtype" in feature) != ("list" in feature) for feature in declared)


def test_features_are_written_as_a_cards_yaml_takes_them() -> None:
    by_name = {feature["name"]: feature for feature in features(Chain)}
    assert by_name["tokens_in"] == {"name": "tokens_in", "dtype": "int64"}
    assert by_name["messages"] == {
        "name": "messages",
        "list": [{"name": "role", "dtype": "string"}, {"name": "content", "dtype": "string"}],
    }
    critiques = next(column for column in by_name["rounds"]["list"] if column["name"] == "critiques")
    assert {"name": "quotes", "list": "string"} in critiques["list"]
