"""Preferences: counts, shares and sentences of rows whose truth is known, ours and other people's."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_cli.analyses import Options, preferences
from cai_cli.analyses._result import Analysis, Number


def vote(verdict: str, order: str = "ab", p_a: float | None = None, **more: Any) -> dict[str, Any]:
    return {"labeler": "main", "principle": "harm", "order": order, "draw": 0, "verdict": verdict, "p_a": p_a, **more}


def pair(number: int, p_a: float | None, *votes: dict[str, Any], **more: Any) -> dict[str, Any]:
    given = {"response_a": "one two three", "response_b": "one"} | more
    return {"id": f"{number}-0-1", "prompt_id": str(number), "kind": "harmful", "p_a": p_a, "votes": list(votes), **given}


def analysed(rows: list[dict[str, Any]], **options: Any) -> Analysis:
    return preferences.analyse(rows, Options(**options))


def table(found: Analysis, name: str) -> dict[Any, dict[str, Any]]:
    """A section's rows by their first cell, with numbers as values."""
    (section,) = [one for one in found.sections if one.name == name]
    plain = [{key: cell.value if isinstance(cell, Number) else cell for key, cell in one.items()} for one in section.rows]
    return {one[section.head[0].name]: one for one in plain}


def test_labels_ties_and_rows_without_a_verdict_are_counted() -> None:
    rows = [pair(n, p) for n, p in enumerate([0.9, 0.9, 0.1, 0.5, 0.51])] + [pair(9, None)]
    assert {name: one["rows"] for name, one in table(analysed(rows), "labels").items()} == {
        "a is better": 2, "b is better": 1, "tie": 2, "no verdict": 1,
    }  # fmt: skip


def test_confidence_falls_into_the_bin_it_is_in() -> None:
    rows = [pair(n, p) for n, p in enumerate([0.5, 0.55, 0.6, 0.4, 0.05, 0.99, 1.0])]
    counts = [one["rows"] for one in table(analysed(rows), "confidence").values()]
    assert counts == [1, 1, 2, 0, 0, 0, 0, 0, 0, 3]


def test_a_probability_that_is_none_is_not_believed() -> None:
    found = analysed([pair(0, 7.0, vote("a")), pair(1, 0.9, vote("a"))])
    assert sum(one["rows"] for one in table(found, "confidence").values()) == 2, "the first one's is that of its vote"
    assert table(found, "confidence")["0.85 to 0.90"]["rows"] == 1


def test_margins_are_log_odds_of_the_side_that_is_better() -> None:
    (one,) = table(analysed([pair(0, 0.2), pair(1, 0.8), pair(2, 0.8)]), "margins").values()
    assert set(one.values()) == {round(math.log(4), 3)}


def test_the_slot_that_wins_is_found_and_said() -> None:
    rows = [pair(n, 0.5, vote("a", "ab"), vote("b", "ba")) for n in range(30)]
    found = analysed(rows)
    assert table(found, "position")["main"] == {"labeler": "main", "first": 1.0, "both": 30, "same_slot": 1.0, "same_winner": 0.0}
    assert any("favours the first slot" in one and "100.0%" in one for one in found.findings)


def test_a_labeler_that_looks_at_answers_favours_no_slot() -> None:
    found = analysed([pair(n, 0.9, vote("a", "ab"), vote("a", "ba")) for n in range(30)])
    assert table(found, "position")["main"]["first"] == 0.5
    assert not any("slot" in one for one in found.findings)


def test_one_order_that_wins_always_is_said_with_what_to_set() -> None:
    found = analysed([pair(n, 0.9, vote("a")) for n in range(30)])
    assert any("label_pairs.orders: both" in one for one in found.findings)


def test_ties_and_abstentions_stay_out_of_the_slots() -> None:
    found = analysed([pair(n, 0.5, vote("tie"), vote("abstain", "ba"), vote("a", draw=1)) for n in range(10)])
    assert table(found, "position")["main"]["first"] == 1.0
    assert table(found, "labelers")["main"]["abstain"] == pytest.approx(1 / 3)
    assert any("33.3% of the votes abstained" in one for one in found.findings)


def test_the_longer_one_wins_where_it_does() -> None:
    rows = [pair(n, 0.9) for n in range(20)]
    lengths = table(analysed(rows), "length")
    assert [one["value"] for one in lengths.values()] == [1.0, 3.0, 1.0, 2.0]
    assert any("longer response wins in 100.0%" in one for one in analysed(rows).findings)
    shorter = analysed([pair(n, 0.1) for n in range(20)])
    assert any("shorter response wins in 100.0%" in one for one in shorter.findings)


def test_revisions_against_first_responses_are_told_apart_by_their_sources() -> None:
    turned = {"source_a": "x:initial", "source_b": "x:revised"}
    rows = [pair(n, 0.1 if n < 8 else 0.9, **turned) for n in range(10)]
    assert table(analysed(rows), "revisions")["the revision"]["share"] == 0.8


def test_votes_are_broken_down_by_labeler_criterion_and_basis() -> None:
    rows = [pair(n, 0.9, vote("a", p_a=0.8, basis="stated"), vote("b", principle="help", labeler="other")) for n in range(4)]
    found = analysed(rows)
    assert {name: (one["a"], one["with_label"]) for name, one in table(found, "principles").items()} == {
        "harm": (1.0, 1.0), "help": (0.0, 0.0),
    }  # fmt: skip
    assert table(found, "labelers")["main"]["confidence"] == 0.8
    assert {one["basis"] for one in table(found, "soft_labels").values()} == {"stated", "not told"}


def test_any_column_can_break_labels_down_and_kept_input_columns_too() -> None:
    rows = [pair(n, 0.9 if n % 2 else 0.1, meta=f'{{"topic": "t{n % 2}"}}') for n in range(6)]
    assert {name: one["a"] for name, one in table(analysed(rows, by="meta.topic"), "by").items()} == {"t0": 0.0, "t1": 1.0}


def test_rows_without_a_label_get_it_from_their_votes() -> None:
    row = {"id": "1", "prompt": "hi", "response_a": "x", "response_b": "y", "votes": [vote("b"), vote("b", "ba")]}
    assert table(analysed([row]), "labels")["b is better"]["rows"] == 1


def test_chosen_and_rejected_alone_tell_the_lengths_and_what_is_missing() -> None:
    rows = [{"chosen": "\n\nHuman: one two\n\nAssistant: three", "rejected": "\n\nHuman: one two\n\nAssistant: four five"}]
    found = analysed(rows)
    assert [one.name for one in found.sections] == ["length"]
    assert [one["value"] for one in table(found, "length").values()] == [0.0, 1.0, 2.0, -1.0]
    assert [word for word in ("label", "votes", "p_a") if not any(word in one for one in found.warnings)] == []


def test_conversations_as_messages_are_read_too() -> None:
    turns = [{"role": "user", "content": "hi there"}]
    rows = [
        {
            "chosen": [*turns, {"role": "assistant", "content": "a b c"}],
            "rejected": [*turns, {"role": "assistant", "content": "a"}],
        }
    ]
    assert [one["value"] for one in table(analysed(rows), "length").values()] == [1.0, 3.0, 1.0, 2.0]


def test_votes_that_cannot_be_read_are_counted_not_believed() -> None:
    found = analysed([pair(0, 0.9, vote("a"), vote("maybe"), vote("a", p_a=7.0))])
    assert table(found, "labelers")["main"]["votes"] == 1
    assert any(one.startswith("2 votes could not be read") for one in found.warnings)


def test_nothing_at_all_is_no_section() -> None:
    found = analysed([{"prompt": "hi"}])
    assert found.sections == ()
    assert any("response_a" in one for one in found.warnings)


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from("ab"), st.integers(0, 5)), min_size=1, max_size=25), st.randoms())
def test_counts_add_up_and_the_order_of_rows_changes_nothing(given_rows: list[tuple[float, str, int]], random: Any) -> None:
    rows = [pair(prompt, p, vote(verdict)) for p, verdict, prompt in given_rows]
    found = analysed(rows)
    assert sum(one["rows"] for one in table(found, "labels").values()) == len(rows)
    assert sum(one["rows"] for one in table(found, "confidence").values()) == len(rows)
    shuffled = random.sample(rows, len(rows))
    for name in ("labels", "confidence", "position"):
        left, right = table(found, name), table(analysed(shuffled), name)
        assert left.keys() == right.keys()
        assert all(list(left[key].values()) == pytest.approx(list(right[key].values())) for key in left if name != "confidence")
