"""`cai audit` where responses were made anew, where several people label, and where other things come back than went out."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from outside import Cai, environment, write_rows
from test_audit_score import audited, population

from cai_cli.auditing import advising, argilla, drawing, measuring
from cai_cli.auditing.drawing import Design, Drawn
from cai_cli.auditing.labels import Label, gold_of, looked_at, merged, newest
from cai_cli.engine.audit_files import read_labels

OLD, NEW = "of the old responses", "of the new responses"


def pair(n: int, content: str) -> Drawn:
    return Drawn(id=f"p{n}-0-1", prompt_id=f"p{n}", first="a", size=1.0, content=content)


def design(number: int, scale: float, *drawn: Drawn) -> Design:
    return Design(number=number, seed=7, scale=scale, wanted=1, labels="debias/v1", fingerprint="f", pairs=9, prompts=9,
                  drawn=drawn)  # fmt: skip


def said(one: Drawn, label: str, annotator: str = "ann") -> Label:
    return Label(id=one.id, prompt_id=one.prompt_id, annotator=annotator, label=label, content=one.content)


# Responses that were made anew.


def test_what_was_said_of_earlier_responses_is_no_word_about_the_new_ones() -> None:
    designs = [design(1, 0.2, pair(0, OLD), pair(1, OLD)), design(2, 0.2, pair(0, NEW), pair(1, NEW))]
    labels = [said(pair(0, NEW), "a"), *(said(pair(0, OLD), "b", name) for name in ("ben", "cleo"))]
    gold = gold_of(labels, designs)
    assert (gold["p0-0-1"].label, gold["p0-0-1"].content) == ("a", NEW)
    assert newest(labels, designs) == labels[:1]


def test_labels_of_both_are_kept_by_the_same_person() -> None:
    kept, replaced = merged([said(pair(0, OLD), "b")], [said(pair(0, NEW), "a")])
    assert (len(kept), replaced) == (2, 0)


def test_a_sample_of_earlier_responses_makes_no_new_one_likelier_to_have_been_looked_at() -> None:
    """The first sample was wholly labelled; of the second, which drew the same pairs anew, a half was: .3 * .5."""
    first = design(1, 0.6, *(pair(n, OLD) for n in range(8)))
    second = design(2, 0.3, *(pair(n, NEW) for n in range(4)))
    answered = [*((one.id, OLD) for one in first.drawn), *((one.id, NEW) for one in second.drawn[:2])]
    found = looked_at([first, second], answered)
    assert found["p0-0-1", NEW] == pytest.approx(0.3 * 0.5)
    assert found["p0-0-1", OLD] == pytest.approx(0.6)


def test_responses_that_stayed_count_with_both_samples() -> None:
    first = design(1, 0.2, pair(0, OLD), pair(1, OLD))
    second = design(2, 0.6, pair(1, NEW), pair(2, NEW))
    found = looked_at([first, second], [("p0-0-1", OLD), ("p1-0-1", OLD), ("p1-0-1", NEW)])
    assert found["p0-0-1", OLD] == pytest.approx(0.2 + 0.4 * 0.5)
    assert found["p1-0-1", NEW] == pytest.approx(0.6 * 0.5)


# Several people.


def test_rates_by_people_do_not_depend_on_how_many_labelled_a_pair() -> None:
    """One of three says the other thing of every pair: two thirds are on the longer side, by all three as by one of them."""
    judged, _ = population(300)
    judged = [one for one in judged if one.label != "tie"]
    longer = {one.pair.id: "a" if len(one.pair.response_a) > len(one.pair.response_b) else "b" for one in judged}
    columns, labels, whole = audited(judged, longer, len(judged), 2)
    other = {"a": "b", "b": "a"}
    three = [replace(one, annotator=name) for one in labels for name in "abc"]
    three = [one if one.annotator != "c" else replace(one, label=other[one.label]) for one in three]
    document = measuring.measured(columns, three, [whole])
    (length,) = [one for one in document["bias"] if one["dimension"] == "length"]
    assert length["people"]["value"] == pytest.approx(2 / 3)
    by_one = measuring.measured(columns, [one for n, one in enumerate(three) if n % 3 == (n // 3) % 3], [whole])
    (length,) = [one for one in by_one["bias"] if one["dimension"] == "length"]
    assert length["people"]["value"] == pytest.approx(2 / 3, abs=0.01)
    (all_three,), (one_each,) = document["win_rates"], by_one["win_rates"]
    assert abs(all_three["gold"]["value"] - 0.5) < abs(_revised(judged, longer) - 0.5)
    assert one_each["gold"]["ci"][0] < all_three["gold"]["value"] < one_each["gold"]["ci"][1]


def _revised(judged: list[Any], label: dict[str, str]) -> float:
    won = [label[one.pair.id] == ("a" if one.pair.source_a.endswith("revised") else "b") for one in judged]
    return sum(won) / len(won)


def test_biased_is_what_stays_so_after_adjustment_and_it_is_named() -> None:
    ci = [0.1, 0.3]
    one: dict[str, Any] = {"ci": ci, "identified_by": "probe"}
    dimensions = {"position": {"ci": ci, "p_value": 0.001}, "length": {**one, "p_value": 0.03, "p_adjusted": 0.09},
                  "first_names": {**one, "p_value": 0.001, "p_adjusted": 0.003}}  # fmt: skip
    assert advising.identified({"labelers": {"main": dimensions}}) == (["position", "first names"], 3)
    named, count = advising.identified({"labelers": {"main": dimensions, "other": {"length": {**one, "p_value": 0.2}}}})
    assert (named, count) == (["position (main)", "first names (main)"], 4)


def test_what_swapping_cancels_is_not_to_be_corrected_again() -> None:
    ci, kept = [0.1, 0.3], {"n": 90, "raw": {"value": 0.9, "ci": [0.85, 0.95]}, "kappa": {"value": 0.8, "ci": [0.7, 0.9]}}
    humans = {"n": 9, "raw": {"value": 0.8}, "ai_with_each": {"value": 0.9}}
    document = {"agreement": {"kept": kept}, "humans": humans, "bias": [],
                "sampling": {"response_rate": 1.0, "gone": 0}}  # fmt: skip
    (told,) = advising.recommendations(document, 0.8, {"labelers": {"main": {"position": {"ci": ci, "p_value": 0.001}}}})
    assert "both orders" in told["what"]
    assert told["because"].endswith("more than 30%: position")
    said = advising.recommendations(document, 0.95, None)
    assert "sharpen what annotators are told before blaming the AI" in [one["what"] for one in said]


# What comes back.


def test_argillas_answers_carry_what_was_shown() -> None:
    fields = {"conversation": [], "response_1": "One.", "response_2": "Two."}
    nested = {"id": "p", "fields": fields, "responses": {"label": [{"value": "1", "user_id": "u"}]}}
    flat = {"id": "p", **fields, "label.responses": ["1"], "label.responses.users": ["u"]}
    for row in (nested, flat):
        (one,) = argilla.answered(row)
        assert (one["response_1"], one["response_2"]) == ("One.", "Two.")


def test_a_spreadsheets_line_ends_make_no_other_response() -> None:
    assert drawing.content_of("One.\n\nTwo. ", "x") == drawing.content_of("One.\r\n\r\nTwo.", "x")
    assert drawing.content_of("One.\n\nTwo.", "x") != drawing.content_of("One.\nTwo.", "x")


@pytest.fixture
def out(judged: Path, cai: Cai) -> Path:
    """The output of a finished run, with a sample drawn of it."""
    cai("audit", "sample", "cai.yaml", "-o", "out", "-n", 30)
    return judged


def drawn_rows(out: Path, **values: Any) -> list[dict[str, Any]]:
    lines = (out / "audit" / "sample-0001.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) | values for line in lines]


def test_texts_that_were_edited_in_argilla_are_refused(cai: Cai, out: Path) -> None:
    records = [argilla.record(row) for row in drawn_rows(out)]
    for record in records:
        record["responses"] = {"label": [{"value": "1", "user_id": "u"}]}
    records[1]["fields"]["response_1"] = "Edited."
    (out.parent / "records.json").write_text(json.dumps(records))
    code, _, err = cai("audit", "score", "cai.yaml", "-o", "out", "-i", "records.json")
    assert code == 65
    assert f"records.json:1: pair '{records[1]['id']}': the responses are not those that were handed out" in err
    assert read_labels(out) == []


def test_two_people_without_a_name_are_told_how_to_give_one(cai: Cai, out: Path) -> None:
    write_rows(out.parent / "one.jsonl", drawn_rows(out, label="1"))
    write_rows(out.parent / "two.jsonl", drawn_rows(out, label="2"))
    code, _, err = cai("audit", "score", "cai.yaml", "-o", "out", "-i", "one.jsonl", "-i", "two.jsonl")
    assert code == 65
    assert "has another label than in one.jsonl:1, and nobody's name on either" in err
    assert "--annotator NAME; nothing was taken in" in err


def test_a_file_without_rows_is_told_to_hold_no_label(cai: Cai, out: Path) -> None:
    write_rows(out.parent / "one.jsonl", drawn_rows(out, label="1"))
    cai("audit", "score", "cai.yaml", "-o", "out", "-i", "one.jsonl")
    (out.parent / "none.jsonl").write_text("")
    _, _, err = cai("audit", "score", "cai.yaml", "-o", "out", "-i", "none.jsonl")
    assert "took in 0 labels" in err
    _, _, err = cai("audit", "score", "cai.yaml", "-o", "out")
    assert "took in" not in err


def test_labels_may_be_piped_in(cai: Cai, out: Path) -> None:
    rows = drawn_rows(out, label="1", annotator="ann")
    done = subprocess.run(
        [sys.executable, "-m", "cai_cli", "audit", "score", "cai.yaml", "-o", "out", "-i", "-"], cwd=out.parent, text=True,
        input="".join(json.dumps(row) + "\n" for row in rows), capture_output=True, env=environment(out.parent), timeout=60,
    )  # fmt: skip
    assert f"took in {len(rows)} labels" in done.stderr
    assert {one.annotator for one in read_labels(out)} == {"ann"}


def test_what_to_type_next_names_the_output_where_the_config_does_not(cai: Cai, out: Path) -> None:
    shutil.copytree(out, out.parent / "moved", symlinks=True)
    _, _, err = cai("audit", "sample", "cai.yaml", "-o", "moved", "-n", 60)
    assert "once labelled: cai audit score cai.yaml -o moved -i moved/audit/sample-0002.jsonl" in err


def test_responses_made_anew_are_drawn_again_and_their_labels_are_nobody_elses(cai: Cai, out: Path) -> None:
    """Ben labelled the old responses, Ann the new ones of the same ids: only Ann's count, as gold and in the score."""
    write_rows(out.parent / "ben.jsonl", drawn_rows(out, label="1", annotator="ben"))
    cai("audit", "score", "cai.yaml", "-o", "out", "-i", "ben.jsonl")
    for stage in ("label-pairs", "debias"):
        for path in (out / stage / "latest").glob("*-of-*"):
            rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
            write_rows(path, [{**row, "response_a": f"Made anew. {row['response_a']}"} for row in rows])
    cai("audit", "sample", "cai.yaml", "-o", "out", "-n", 30)
    again = [json.loads(line) for line in (out / "audit" / "sample-0002.jsonl").read_text("utf-8").splitlines()]
    assert {row["id"] for row in again} == {row["id"] for row in drawn_rows(out)}
    write_rows(out.parent / "ann.jsonl", [{**row, "label": "2", "annotator": "ann"} for row in again])
    _, answer, _ = cai("audit", "score", "cai.yaml", "-o", "out", "-i", "ann.jsonl", "--json")
    sampling = json.loads(answer)["sampling"]
    assert (sampling["annotators"], sampling["gone"], sampling["response_rate"]) == (1, 0, 1)
    assert sampling["drawn"] == sampling["labelled"] == len(again)
    first = {one["id"]: one["first"] for one in json.loads((out / "audit" / "drawn-0002.json").read_bytes())["drawn"]}
    assert {one.annotator for one in read_labels(out)} == {"ann", "ben"}
    second = {"a": "b", "b": "a"}
    gold = gold_of(read_labels(out), [_design_of(out, n) for n in (1, 2)])
    assert {name: one.label for name, one in gold.items()} == {name: second[side] for name, side in first.items()}


def _design_of(out: Path, number: int) -> Design:
    from cai_cli.engine.audit_files import read_designs

    return read_designs(out)[number - 1]


def test_an_export_says_that_a_passed_audit_is_of_too_few_pairs(cai: Cai, out: Path) -> None:
    kept = next(iter(sorted((out / "debias" / "latest").glob("*-of-*")))).read_text("utf-8").splitlines()
    ai = {row["id"]: row["preference"] for row in map(json.loads, kept)}
    first = {one["id"]: one["first"] for one in json.loads((out / "audit" / "drawn-0001.json").read_bytes())["drawn"]}
    rows = [row for row in drawn_rows(out, annotator="ann") if ai.get(row["id"]) in ("a", "b")][:2]
    write_rows(out.parent / "two.jsonl", [row | {"label": "1" if ai[row["id"]] == first[row["id"]] else "2"} for row in rows])
    code, page, _ = cai("audit", "score", "cai.yaml", "-o", "out", "-i", "two.jsonl")
    assert (code, "people agree with 100.0%" in page) == (0, True)
    _, answer, err = cai("export", "cai.yaml", "-o", "out", "--to", "preference", "--json")
    assert "by 2 pairs: too few to rule out 70%; label more: cai audit sample cai.yaml -n 100" in err
    assert json.loads(answer)["exports"]["preference"]["audit"]["state"] == "passed"


# Numbers at their ends.


def test_a_win_rate_without_a_loss_has_the_interval_of_a_share() -> None:
    judged, _ = population(200)
    truth = {one.pair.id: "a" if one.pair.source_a.endswith("revised") else "b" for one in judged}
    columns, labels, whole = audited(judged, truth, 40, 4)
    (rate,) = measuring.measured(columns, labels, [whole])["win_rates"]
    assert rate["gold"]["value"] == rate["ppi"]["value"] == 1
    assert 0.8 < rate["ppi"]["ci"][0] < 0.95
    assert rate["ppi"]["ci"] == rate["gold"]["ci"]
    assert rate["effective"] < len(labels)


def test_an_ai_that_is_not_relied_on_is_worth_no_label() -> None:
    judged, _ = population(200)
    rng = np.random.default_rng(2)
    chance = {one.pair.id: str(rng.choice(["a", "b"])) for one in judged}
    samples = [audited(judged, chance, 60, seed) for seed in range(12)]
    rates = [measuring.measured(columns, labels, [whole])["win_rates"][0] for columns, labels, whole in samples]
    useless = [one for one in rates if one["power"] == 0 and one["correlation"]]
    assert useless
    assert all(one["effective"] <= one["gold_n"] and one["ppi"] == one["gold"] for one in useless)


def test_no_interval_is_wider_than_what_it_is_about() -> None:
    judged, truth = population(100)
    columns, labels, whole = audited(judged, truth, 3, 0)
    found = measuring.measured(columns, labels, [whole])["bias"]
    assert len(labels) > 1
    limits = {"length": 1.0, "position_of_people": 0.5}
    assert all(abs(end) <= limits[one["dimension"]] for one in found for end in one["difference"]["ci"] or ())
