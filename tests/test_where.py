"""The language of `--where`: what it means, what it refuses, and that nothing in it is run."""

from __future__ import annotations

import operator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_cli.engine import row_values, where
from cai_cli.engine.plan import shapes
from cai_cli.errors import Fix
from cai_cli.records import Rejected

OPENED = {"critiques": [{"principle": "privacy", "category": "harm", "critique": "Too Open.", "severity": 0.9}], "severity": 0.9,
          "quality": 0.1, "revision": "better", "accepted": True, "votes": [], "scores": []}  # fmt: skip
ROW: dict[str, Any] = {
    "id": "k1-0", "prompt_id": "k1", "prompt": "How?", "kind": "harmful", "response": "Like this.", "initial_response": "So.",
    "refused": False, "truncated": True, "tokens_out": 120, "tokens_in": None, "stopped_by": "rounds", "model": "small-world",
    "rounds": [OPENED, OPENED | {"severity": None, "quality": 0.4, "accepted": False}],
    "meta": '{"place": "hill", "size": 3, "none": null}',
}  # fmt: skip


def holds(expression: str, row: dict[str, Any] = ROW) -> bool:
    return where.parse(expression).matches(row)


@pytest.mark.parametrize(
    "expression",
    [
        "tokens_out > 100", "tokens_out>=120 and tokens_out<=1.2e2", "tokens_out = 120", "120 < tokens_out or kind = harmful",
        "kind = harmful", "kind == 'harmful'", 'kind != "harmless"', "kind in (harmless, harmful)", "kind not in (harmless)",
        "truncated", "not refused", "truncated = true and refused = False", "first_severity = .9",
        "quality < first_severity", "rounds = 2", "principle = privacy", "principle ~ PRIV", "category in (harm)",
        "critique contains open", "not (kind = harmless or tokens_out < 10)", "len(response) = 10", "len(principle) = 2",
        "flags", "flags = truncated", "flags = not_accepted and not flags = open", "changed", "not accepted",
        "stopped_by = rounds",
        "meta.place = hill", "meta.size > 2", "meta.size = 3 AND NOT meta.place = 'beach'", "not severity",
        "prompt_id != 12", "not tokens_in",
        "tokens_out", "response", "id ~ 1-0", "((((truncated))))",
    ],
)  # fmt: skip
def test_it_holds(expression: str) -> None:
    assert holds(expression)


@pytest.mark.parametrize(
    "expression",
    ["severity > .5", "severity <= .5", "not severity > .5", "severity != 3", "severity in (.1, .9)", "tokens_in < 1e9",
     "not tokens_in < 1e9", "meta.none = 1", "not meta.none = 1", "meta.nowhere ~ x", "meta.place > 3", "not meta.place > 3"],
)  # fmt: skip
def test_what_nobody_knows_matches_nothing(expression: str) -> None:
    assert not holds(expression)


@pytest.mark.parametrize(
    ("expression", "message", "hint"),
    [
        ("severty > .5", "there is no name 'severty'", "did you mean 'severity'?"),
        ("xyzzy", "there is no name 'xyzzy'", "there are: severity, "),
        ("severity > great", "there is no name 'great'", "there are: "),
        ("severity > 'high'", "severity is a number and is compared with a text", "such as"),
        ("severity = harmful", "there is no name 'harmful'", "there are: "),
        ("kind > 3", "> compares numbers", "such as"),
        ("kind < harmful", "< compares numbers", "such as"),
        ("tokens_out ~ 12", "~ looks for a text", "such as"),
        ("refused = 3", "refused is true or false and is compared with a number", "such as"),
        ("severity > .5 kind = harmful", "`and` or `or` was expected at 'kind = harmful'", "such as"),
        ("(severity > .5", "a ) was expected at its end", "such as"),
        ("severity >", "a name or a value was expected at its end", "such as"),
        ("", "a name or a value was expected at its end", "such as"),
        (".5", "a comparison was expected", "such as"),
        ("kind in harmful", "a list was expected", "such as"),
        ("kind = 'harmful", "a quote that does not end", "such as"),
        ("len(tokens_out) > 3", "len() is of a text or a list", "such as"),
        ("preference = c", "preference is never 'c'", "it is one of: a, b, tie"),
        ("flags = refusd", "flags is never 'refusd'", "did you mean 'refused'?"),
        ("meta. = 3", "there is no name 'meta.'", "did you mean 'meta'?"),
        ("(" * 60 + "refused" + ")" * 60, "more than 50 brackets", "such as"),
        ("__import__('os').system('true')", "there is no name '__import__'", "there are"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_told_with_its_place(expression: str, message: str, hint: str) -> None:
    with pytest.raises(Fix) as caught:
        where.parse(expression)
    assert message in caught.value.message
    assert hint in caught.value.hint


PARTS = ("severity", ">", ".5", "and", "not", "(", ")", "in", ",", "kind", "~", "'", "len", "meta.x")


@given(st.text(max_size=40) | st.lists(st.sampled_from(PARTS)).map(" ".join))
def test_any_text_is_read_or_refused(expression: str) -> None:
    try:
        condition = where.parse(expression)
    except Fix:
        return
    assert condition.matches(ROW) in (True, False)


SIGNS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge, "=": operator.eq, "!=": operator.ne}
NUMBERS = st.floats(-10, 10).map(lambda number: round(number, 3))


@given(NUMBERS, NUMBERS, st.sampled_from(sorted(SIGNS)))
def test_numbers_compare_as_numbers_do(value: float, limit: float, sign: str) -> None:
    row = {"tokens_out": value}
    assert holds(f"tokens_out {sign} {limit}", row) == SIGNS[sign](value, limit)
    assert holds(f"{limit} {sign} tokens_out", row) == SIGNS[sign](limit, value)
    assert holds(f"not tokens_out {sign} {limit}", row) != SIGNS[sign](value, limit)


@given(st.none() | NUMBERS, st.none() | NUMBERS)
def test_a_negated_bracket_is_what_logic_says(a: float | None, b: float | None) -> None:
    row = {"tokens_in": a, "tokens_out": b}
    assert holds("not (tokens_in > 1 and tokens_out > 1)", row) == holds("not tokens_in > 1 or not tokens_out > 1", row)
    assert holds("not (tokens_in > 1 or tokens_out > 1)", row) == holds("tokens_in <= 1 and tokens_out <= 1", row)


def test_every_scalar_column_of_every_shape_is_a_name() -> None:
    from cai_cli.records import features

    for shape in (*shapes().values(), Rejected):
        for column in (one["name"] for one in features(shape) if "dtype" in one):
            assert column in row_values.names_of(shape)
            assert column in row_values.names()
            where.parse(f"not {column}")


def test_names_that_are_made_of_a_row_answer_for_every_row_of_their_shape() -> None:
    """A row with nothing in its lists, as its stage may write it."""
    for shape in shapes().values():
        empty = dict.fromkeys(("rounds", "votes", "flags", "scores"), ()) | dict.fromkeys(("response", "initial_response"), "")
        for name, one in row_values.names_of(shape).items():
            assert one.of(empty) in (None, "", 0, [], False, ()), name


def test_a_filter_knows_which_rows_can_answer_it() -> None:
    condition = where.all_of([where.parse("severity > .5"), where.equals("kind", "harmful")])
    assert [name for name, shape in shapes().items() if where.answers(condition, shape)] == ["critique", "revise"]
    assert condition.matches(ROW | {"rounds": [OPENED]})
    assert not condition.matches(ROW | {"rounds": [OPENED], "kind": ""})
