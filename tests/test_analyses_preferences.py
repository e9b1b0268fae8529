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


def test_where_the_order_never_varied_the_slot_is_not_told_from_what_stands_in_it() -> None:
    found = analysed([pair(n, 0.9, vote("a")) for n in range(30)])
    assert table(found, "position")["main"]["first"] is None
    assert not any("slot." in one for one in found.findings), found.findings
    once = analysed([pair(n, 0.9, vote("a"), *([vote("a", "ba")] if not n else [])) for n in range(30)])
    for warnings in (found.warnings, once.warnings):
        assert any("asked in one order only, or nearly: main" in one and "orders: both" in one for one in warnings)


def test_orders_drawn_by_chance_tell_the_slot() -> None:
    good = analysed([pair(n, 0.9, vote("a", ("ab", "ba")[n % 2])) for n in range(60)])
    assert table(good, "position")["main"]["first"] == 0.5, "a is better, whatever its place"
    assert not any("slot" in one for one in (*good.findings, *good.warnings))
    slot = analysed([pair(n, 0.5, vote(("a", "b")[n % 2], ("ab", "ba")[n % 2])) for n in range(60)])
    (said,) = [one for one in slot.findings if "favours the first slot" in one]
    assert "100.0% of these votes have none in the other order" in said


def test_it_cancels_only_where_every_vote_has_its_other_order() -> None:
    rows = [pair(n, 0.5, vote("a", "ab"), vote("b", "ba")) for n in range(30)]
    assert any("which cancels it" in one for one in analysed(rows).findings)
    more = [*rows, *(pair(n, 0.9, vote("a", "ab")) for n in range(30, 40))]
    (said,) = [one for one in analysed(more).findings if "favours the first slot" in one]
    assert ("cancels it" in said, "14.3% of these votes" in said) == (False, True)
    assert table(analysed(more), "position")["main"]["first"] == 1.0, "the ten are not looked at"


def test_votes_are_those_of_all_pairs_and_labels_are_told_before_and_after_debias() -> None:
    pairs = [pair(n, 0.9 if n < 8 else 0.55, vote("a"), vote("a" if n < 8 else "b", "ba")) for n in range(20)]
    kept = [{**one, "p_a_raw": 0.9, "margin": 2.0, "flags": ["one_order"]} for one in pairs[:8]]
    found = preferences.analyse(pairs, Options(), {"debias": iter(kept)})
    assert (found.rows, table(found, "position")["main"]["same_winner"]) == (20, 0.4)
    assert [(one["all"], one["kept"]) for one in table(found, "kept").values()][:2] == [(20, 8), (1.0, 1.0)]
    assert table(found, "kept")["confidence"]["kept"] == 0.9
    assert table(found, "flags")["one_order"]["share"] == 1.0
    assert not any("kept" in one for one in found.warnings)
    alone = analysed(kept)
    assert any(one.startswith("these are rows that debias kept") for one in alone.warnings)


def test_lengths_are_words_in_every_script() -> None:
    found = analysed([pair(n, 0.9, response_a="\u4f60\u597d\u4e16\u754c", response_b="\u4f60") for n in range(4)])
    assert [one["value"] for one in table(found, "length").values()] == [1.0, 4.0, 1.0, 3.0]


def test_an_interval_of_a_confidence_stays_within_what_it_can_be() -> None:
    found = analysed([pair(n, 0.99 if n else 0.5, kind=("x", "y")[n % 2]) for n in range(6)])
    cells = [row["confidence"] for one in found.sections if one.name == "by_kind" for row in one.rows]
    assert all(isinstance(one, Number) and (one.low is None or one.low >= 0.5) and (one.high or 1) <= 1 for one in cells)


def test_abstentions_and_ties_stay_out_of_the_slots() -> None:
    votes = [vote("tie"), vote("a", "ba"), vote("abstain", "ba", draw=1), vote("a", draw=2), vote("b", "ba", draw=2)]
    found = analysed([pair(n, 0.5, *votes) for n in range(10)])
    assert table(found, "position")["main"]["first"] == pytest.approx(2 / 3)
    assert table(found, "labelers")["main"]["abstain"] == pytest.approx(1 / 5)
    assert any("20.0% of the votes abstained" in one for one in found.findings)


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
    assert "no row has a label" in found.unusable
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
