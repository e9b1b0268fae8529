"""`cai audit`: pairs are drawn with a known probability and shown without a hint, what people write is read strictly and kept."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from outside import Cai, write_rows

from cai_cli import chance
from cai_cli.auditing import argilla, drawing
from cai_cli.auditing.drawing import Design, Drawn, Judged
from cai_cli.auditing.labels import Gold, Label, gold_of, in_candidates, looked_at, majority, merged, read_label, with_gold
from cai_cli.engine.audit_files import read_gold, read_labels
from cai_cli.engine.lock import locked
from cai_cli.errors import Reject
from cai_cli.records import Pair, Turn, Vote

PAIR = Pair(
    id="p-0-1", prompt_id="p", messages=(Turn(role="user", content="How do kites fly?"),), prompt="How do kites fly?",
    response_a="By wind.", response_b="They do not.",
)  # fmt: skip
ONE = Drawn(id="p-0-1", prompt_id="p", first="b", size=1.0, content=drawing.content_of("By wind.", "They do not."))


def said(label: str, annotator: str = "ann", **more: Any) -> Label:
    return Label(**{"id": "p-0-1", "prompt_id": "p", "annotator": annotator, "label": label, "content": ONE.content} | more)


def design(number: int, scale: float, *drawn: Drawn) -> Design:
    return Design(number=number, seed=7, scale=scale, wanted=1, labels="debias/v0001", fingerprint="f", pairs=9, prompts=9,
                  drawn=drawn)  # fmt: skip


# Drawing.


@given(st.lists(st.floats(1, 5), min_size=1, max_size=60), st.floats(0.05, 1))
def test_probabilities_add_up_to_what_was_asked_for(sizes: list[float], share: float) -> None:
    wanted = share * len(sizes)
    scale = drawing.scale_for(sizes, wanted)
    found = [design(1, scale).probability(size) for size in sizes]
    assert math.isclose(sum(found), wanted, rel_tol=1e-9)
    assert all(0 < p <= 1 for p in found)


def test_more_than_there_are_is_all_of_them() -> None:
    assert math.isinf(drawing.scale_for([1.0, 2.0], 2))
    assert design(1, math.inf).probability(1.0) == 1


@given(st.lists(st.floats(1, 5), min_size=2, max_size=40), st.integers(0, 99))
def test_a_larger_sample_holds_the_smaller_one(sizes: list[float], seed: int) -> None:
    small, large = (drawing.scale_for(sizes, share * len(sizes)) for share in (0.3, 0.6))
    chosen = [
        {n for n, size in enumerate(sizes) if drawing.is_drawn(seed, str(n), design(1, scale).probability(size))}
        for scale in (small, large)
    ]
    assert chosen[0] <= chosen[1]


def test_a_pair_is_drawn_as_often_as_its_probability_says() -> None:
    seeds = range(4000)
    for p in (0.1, 0.5, 0.9):
        share = sum(drawing.is_drawn(seed, "p-0-1", p) for seed in seeds) / len(seeds)
        assert abs(share - p) < 4 * math.sqrt(p * (1 - p) / len(seeds))


def test_what_is_doubtful_is_worth_more_looks_and_says_why() -> None:
    sure = Judged(pair=PAIR, p_a=0.9999)
    tied = Judged(pair=replace(PAIR, kind="harmful", consistent=False), p_a=0.5)
    assert drawing.size_of(drawing.reasons(sure)) < 1.001
    assert drawing.size_of(drawing.reasons(tied)) == 5
    assert drawing.drawn(sure, 7).why == ("floor",)
    assert drawing.drawn(tied, 7).why == ("uncertain", "tie", "conflict", "harmful")


def test_labelers_that_disagree_are_a_conflict_and_a_tie_is_none() -> None:
    def of(*sides: float) -> float:
        votes = tuple(Vote(labeler=f"l{n}", verdict="a", p_a=p) for n, p in enumerate(sides))
        return drawing.reasons(Judged(pair=replace(PAIR, votes=votes), p_a=0.7))["conflict"]

    assert (of(0.9, 0.2), of(0.9, 0.8), of(0.9, 0.5)) == (1, 0, 0)


def test_a_form_shows_no_hint_of_what_the_ai_said() -> None:
    row = drawing.form(replace(PAIR, votes=(Vote(labeler="main", verdict="a", p_a=0.97),), p_a=0.97, preference="a"), ONE, 0.25)
    assert (row["response_1"], row["response_2"]) == ("They do not.", "By wind.")
    assert (row["label"], row["reason"], row["kind"], row["annotator"]) == ("", "", "", "")
    assert (row["probability"], row["weight"]) == (0.25, 4)
    assert set(row) == {"id", "prompt_id", "conversation", "response_1", "response_2", "label", "reason", "kind", "annotator",
                        "probability", "weight"}  # fmt: skip


def test_either_response_may_stand_first() -> None:
    firsts = [drawing.drawn(Judged(pair=replace(PAIR, id=str(n)), p_a=0.9), 7).first for n in range(400)]
    assert 150 < firsts.count("a") < 250


# What people say.


@pytest.mark.parametrize(("answer", "label"), [("1", "b"), (2, "a"), ("TIE", "tie"), ("skip", "skip"), (" 1 ", "b")])
def test_an_answer_is_about_the_candidate_whatever_stood_first(answer: Any, label: str) -> None:
    found = read_label({"id": "p-0-1", "label": answer}, {"p-0-1": ONE})
    assert found is not None
    assert (found.label, found.annotator) == (label, "unnamed")
    assert in_candidates("2", replace(ONE, first="a")) == "b"


@pytest.mark.parametrize("empty", ["", None, "  "])
def test_an_empty_label_is_nobodys(empty: Any) -> None:
    assert read_label({"id": "p-0-1", "label": empty, "reason": "later"}, {"p-0-1": ONE}) is None


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"label": "1"}, "missing_column"), ({"id": "p-0-1"}, "missing_column"), ({"id": "zz", "label": "1"}, "unknown_id"),
        ({"id": "p-0-1", "label": "3"}, "bad_label"), ({"id": "p-0-1", "label": True}, "bad_label"),
        ({"id": "p-0-1", "label": 1.0}, "bad_label"), ({"id": "p-0-1", "label": "1", "kind": "odd"}, "bad_kind"),
        ({"id": "p-0-1", "label": "1", "reason": 7}, "wrong_type"),
        ({"id": "p-0-1", "label": "1", "response_1": "By wind.", "response_2": "They do not."}, "other_responses"),
    ],
)  # fmt: skip
def test_what_is_filled_in_wrongly_is_refused(row: dict[str, Any], reason: str) -> None:
    with pytest.raises(Reject) as caught:
        read_label(row, {"p-0-1": ONE})
    assert caught.value.reason == reason


def test_most_people_decide_and_a_split_is_a_tie() -> None:
    assert majority([said("a"), said("b"), said("a")]) == "a"
    assert majority([said("a"), said("b")]) == "tie"
    assert majority([said("tie"), said("tie"), said("b")]) == "tie"


def test_a_later_label_replaces_the_same_persons_and_nobody_elses() -> None:
    labels, replaced = merged([said("a"), said("b", "ben")], [said("b"), said("b", "ben"), said("a", "cleo")])
    assert replaced == 1
    assert {one.annotator: one.label for one in labels} == {"ann": "b", "ben": "b", "cleo": "a"}


def test_gold_weighs_one_over_the_probability_and_skips_are_no_gold() -> None:
    skipped = said("skip", id="q-0-1")
    drawn = design(1, 0.25, ONE, replace(ONE, id="q-0-1"))
    gold = gold_of([said("a"), skipped], [drawn])
    assert gold == {"p-0-1": Gold("a", 1 / (0.25 * 0.5), ONE.content)}


def test_a_second_sample_counts_what_it_adds_with_its_own_answers() -> None:
    first = design(1, 0.2, *(replace(ONE, id=f"a{n}") for n in range(4)))
    second = design(2, 0.6, *(replace(ONE, id=f"b{n}") for n in range(8)))
    answered = [(name, ONE.content) for name in ("a0", "a1", "a2", "a3", "b0", "b1")]
    found = looked_at([first, second], answered)
    assert found[answered[0]] == found[answered[-1]] == pytest.approx(0.2 + 0.4 * 0.25)
    assert looked_at([first], answered[:4])[answered[2]] == pytest.approx(0.2)


def test_gold_finds_its_pair_by_what_was_shown() -> None:
    gold = {"p-0-1": Gold("a", 4.0, ONE.content)}
    turned = replace(PAIR, response_a=PAIR.response_b, response_b=PAIR.response_a)
    assert (with_gold(PAIR, gold).gold, with_gold(PAIR, gold).gold_weight) == ("a", 4.0)
    assert with_gold(turned, gold).gold == "b"
    other = replace(PAIR, response_a="Something else.")
    assert with_gold(other, gold) is other
    assert with_gold(PAIR, {}) is PAIR


# Argilla's format.


def test_argilla_gets_what_its_own_classes_write() -> None:
    """The keys that argilla 2.8.0 writes for these fields and questions; its classes read this back unchanged."""
    row = drawing.form(PAIR, ONE, 0.25)
    record = argilla.record(row)
    assert list(record) == ["id", "fields", "metadata", "suggestions", "responses", "vectors", "status", "_server_id"]
    settings = argilla.settings()
    assert [one["name"] for one in settings["questions"]] == ["label", "reason", "kind"]
    assert [one["name"] for one in settings["fields"]] == list(record["fields"])
    (label, *_) = settings["questions"]
    assert [one["value"] for one in label["settings"]["options"]] == ["1", "2", "tie", "skip"]
    assert not {"probability", "weight", "label"} & record["fields"].keys()


def test_argillas_answers_become_rows_a_person() -> None:
    nested = {"id": "p-0-1", "responses": {"label": [{"value": "1", "user_id": "u1"}, {"value": "tie", "user_id": "u2"}],
              "reason": [{"value": "clear", "user_id": "u1"}], "kind": [{"value": "subjective", "user_id": "u2"}]}}  # fmt: skip
    flat = {"id": "p-0-1", "label.responses": ["1", "2"], "label.responses.users": ["u1", "u2"],
            "label.responses.status": ["submitted", "draft"]}  # fmt: skip
    assert argilla.is_record(nested)
    assert argilla.is_record(flat)
    assert not argilla.is_record(drawing.form(PAIR, ONE, 0.5))
    assert [(one["annotator"], one["label"], one["reason"], one["kind"]) for one in argilla.answered(nested)] == [
        ("u1", "1", "clear", ""), ("u2", "tie", "", "subjective"),
    ]  # fmt: skip
    assert [one["annotator"] for one in argilla.answered(flat)] == ["u1"]
    unknown = {**flat, "label.responses.status": [None, None]}  # of records that were never sent to a server
    assert [one["annotator"] for one in argilla.answered(unknown)] == ["u1", "u2"]
    (nobodys,) = argilla.answered({"id": "p-0-1", "responses": {}})
    assert (nobodys["id"], nobodys["label"]) == ("p-0-1", "")


# The command.


@pytest.fixture
def audit(judged: Path, cai: Cai) -> Cai:
    """`cai audit WHAT cai.yaml -o out ...` on a copy of a finished run, in tmp_path."""
    return lambda what, *args: cai("audit", what, "cai.yaml", "-o", "out", *args)


def rows_in(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


def fill(source: Path, target: Path, **values: Any) -> list[dict[str, Any]]:
    rows = [{**row, **values} for row in rows_in(source)]
    write_rows(target, rows)
    return rows


def test_a_sample_is_written_apart_from_why_it_was_drawn(audit: Cai, tmp_path: Path) -> None:
    code, out, err = audit("sample", "-n", 20)
    folder = tmp_path / "out" / "audit"
    rows, kept = rows_in(folder / "sample-0001.jsonl"), json.loads((folder / "drawn-0001.json").read_bytes())
    assert (code, len(rows)) == (0, len(kept["drawn"]))
    assert 8 < len(rows) < 36
    assert "out/audit/sample-0001.jsonl" in out
    assert f"cai: {len(rows):,} pairs drawn; once labelled: cai audit score cai.yaml -o out -i out/audit/sample-0001.jsonl" in err
    assert [row["id"] for row in rows] == [one["id"] for one in kept["drawn"]]
    assert rows != sorted(rows, key=lambda row: row["id"])
    in_frame = rows_in_stage(tmp_path / "out", "label-pairs")
    assert kept["pairs"] == sum(row["p_a"] is not None for row in in_frame)
    by_id = {row["id"]: row for row in in_frame}
    for row, one in zip(rows, kept["drawn"], strict=True):
        pair = by_id[row["id"]]
        shown = (pair["response_a"], pair["response_b"]) if one["first"] == "a" else (pair["response_b"], pair["response_a"])
        assert (row["response_1"], row["response_2"]) == shown
        assert math.isclose(row["probability"], min(1, kept["scale"] * one["size"]), abs_tol=1e-6)
        assert chance.unit(kept["seed"], "audit", row["id"]) < row["probability"]


def rows_in_stage(output: Path, stage: str) -> list[dict[str, Any]]:
    return [row for path in sorted((output / stage / "latest").glob("*-of-*")) for row in rows_in(path)]


def test_the_same_sample_again_is_nothing_new_and_a_larger_one_adds_to_it(audit: Cai, tmp_path: Path) -> None:
    audit("sample", "-n", 15)
    folder = tmp_path / "out" / "audit"
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, _, err = audit("sample", "-n", 15)
    assert (code, "nothing new" in err) == (0, True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    code, out, _ = audit("sample", "-n", 40, "--json")
    told = json.loads(out)
    first, second = (rows_in(folder / f"sample-000{n}.jsonl") for n in (1, 2))
    assert (code, told["already_drawn"], told["new"]) == (0, len(first), len(second))
    assert not {row["id"] for row in first} & {row["id"] for row in second}


def test_another_seed_goes_on_with_the_first_ones_numbers(audit: Cai, tmp_path: Path) -> None:
    audit("sample", "-n", 15)
    config = tmp_path / "cai.yaml"
    config.write_text(config.read_text() + "seed: 99\n")
    _, out, err = audit("sample", "-n", 15, "--json")
    assert (json.loads(out)["new"], "nothing new" in err) == (0, True)


def test_the_rate_of_the_config_decides_where_no_number_does(audit: Cai) -> None:
    _, out, _ = audit("sample", "--json")
    told = json.loads(out)
    assert told["wanted"] == pytest.approx(0.05 * told["pairs"])


def test_rows_go_to_stdout_or_to_a_file_that_is_not_there_yet(audit: Cai, tmp_path: Path) -> None:
    code, out, _ = audit("sample", "-n", 20, "--out", "-")
    assert (code, all(json.loads(line)["label"] == "" for line in out.splitlines())) == (0, True)
    (tmp_path / "mine.jsonl").write_text("what people wrote\n")
    code, _, err = audit("sample", "-n", 60, "--out", "mine.jsonl")
    assert (code, "exists already, and nothing was written" in err) == (2, True)
    assert (tmp_path / "mine.jsonl").read_text() == "what people wrote\n"
    code, _, _ = audit("sample", "-n", 60, "--out", "mine.jsonl", "--force")
    assert (code, rows_in(tmp_path / "mine.jsonl")[0]["label"]) == (0, "")
    code, _, err = audit("sample", "--out", "-", "--json")
    assert (code, "writes rows to stdout" in err) == (2, True)


def test_argillas_folder_is_written_and_what_it_exports_is_scored(audit: Cai, tmp_path: Path) -> None:
    code, _, _ = audit("sample", "-n", 30, "--format", "argilla")
    folder = tmp_path / "out" / "audit" / "sample-0001-argilla"
    assert code == 0
    assert sorted(path.name for path in (folder / ".argilla").iterdir()) == ["dataset.json", "settings.json"]
    records = json.loads((folder / "records.json").read_bytes())
    for record in records:
        record["responses"] = {"label": [{"value": "1", "user_id": "u-1"}]}
    (folder / "records.json").write_text(json.dumps(records))
    code, _, err = audit("score", "-i", str(folder))
    assert code in (0, 3)
    assert f"took in {len(records)} labels" in err
    assert {one.annotator for one in read_labels(tmp_path / "out")} == {"u-1"}


def test_too_few_to_draw_anybody_says_what_to_ask_for(audit: Cai, tmp_path: Path) -> None:
    config = tmp_path / "cai.yaml"
    config.write_text(config.read_text() + "audit: {rate: 0.0000001}\n")
    code, _, err = audit("sample")
    assert (code, "no pair was drawn" in err, "cai audit sample cai.yaml -n 20" in err) == (65, True, True)


def test_without_labels_there_is_nothing_to_audit(audit: Cai, tmp_path: Path) -> None:
    code, _, err = audit("score")
    assert (code, "holds no sample yet" in err) == (65, True)
    for stage in ("debias", "label-pairs"):
        shutil.rmtree(tmp_path / "out" / stage)
    code, _, err = audit("sample")
    assert (code, "there are no labels to audit" in err) == (65, True)


def test_votes_that_say_nothing_leave_nobody_to_look_at(audit: Cai, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "out" / "debias")
    for path in (tmp_path / "out" / "label-pairs" / "latest").glob("*-of-*"):
        write_rows(path, [{**row, "p_a": None, "votes": []} for row in rows_in(path)])
    code, _, err = audit("sample")
    assert (code, "holds no pair with a label" in err) == (65, True)


def test_where_the_pairs_are_gone_only_what_was_kept_can_be_audited(audit: Cai, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "out" / "label-pairs")
    code, _, err = audit("sample", "-n", 20)
    assert (code, "note: drawn of only what debias/" in err) == (0, True)


def test_every_problem_of_a_file_is_told_with_its_place_and_nothing_is_lost(audit: Cai, tmp_path: Path) -> None:
    audit("sample", "-n", 30)
    source, target = tmp_path / "out" / "audit" / "sample-0001.jsonl", tmp_path / "filled.jsonl"
    rows = fill(source, target, label="1", annotator="ann")
    audit("score", "-i", "filled.jsonl")
    kept = (tmp_path / "out" / "audit" / "labels.jsonl").read_bytes()
    rows[0]["label"], rows[1]["id"] = "first", "nobody"
    write_rows(target, [*rows, {**rows[2], "label": "2"}])
    with target.open("a") as file:
        file.write("{broken\n")
    code, out, err = audit("score", "-i", "filled.jsonl")
    assert (code, out) == (65, "")
    assert f"error: filled.jsonl:1: pair '{rows[0]['id']}': label 'first' is none of 1, 2, tie, skip" in err
    assert "error: filled.jsonl:2: pair 'nobody': it was not drawn by any sample of this output" in err
    assert f"filled.jsonl:{len(rows) + 1}: ann says another thing of" in err
    assert f"filled.jsonl:{len(rows) + 2}: not_json" in err
    assert "nothing was taken in, and nothing that was there is lost" in err
    assert (tmp_path / "out" / "audit" / "labels.jsonl").read_bytes() == kept


def test_of_very_many_problems_the_first_are_told(audit: Cai, tmp_path: Path) -> None:
    audit("sample", "-n", 60)
    rows = fill(tmp_path / "out" / "audit" / "sample-0001.jsonl", tmp_path / "filled.jsonl", label="x")
    _, _, err = audit("score", "-i", "filled.jsonl")
    assert f"and {len(rows) - 20} more problems" in err


def test_nobody_having_filled_anything_in_is_said(audit: Cai, tmp_path: Path) -> None:
    audit("sample", "-n", 30)
    code, _, err = audit("score", "-i", "out/audit/sample-0001.jsonl")
    assert (code, "no label is filled in" in err) == (65, True)
    code, _, err = audit("score")
    assert (code, "nobody has labelled a pair yet" in err) == (65, True)


def test_labels_are_gold_with_a_digest_that_changes_with_them(audit: Cai, tmp_path: Path) -> None:
    assert read_gold(tmp_path / "out") == ({}, "")
    audit("sample", "-n", 30)
    source = tmp_path / "out" / "audit" / "sample-0001.jsonl"
    rows = fill(source, tmp_path / "ann.jsonl", label="1")
    audit("score", "-i", "ann.jsonl", "--annotator", "ann")
    gold, digest = read_gold(tmp_path / "out")
    drawn = {one["id"]: one for one in json.loads((source.parent / "drawn-0001.json").read_bytes())["drawn"]}
    assert {name: one.label for name, one in gold.items()} == {row["id"]: drawn[row["id"]]["first"] for row in rows}
    assert all(math.isclose(gold[row["id"]].weight, row["weight"], rel_tol=1e-4) for row in rows)
    audit("score", "-i", "ann.jsonl", "--annotator", "ann")
    assert read_gold(tmp_path / "out")[1] == digest
    fill(source, tmp_path / "ann.jsonl", label="2")
    _, _, err = audit("score", "-i", "ann.jsonl", "--annotator", "ann")
    assert f"{len(rows)} of them in place of earlier ones" in err
    assert read_gold(tmp_path / "out")[1] not in ("", digest)
    fill(source, tmp_path / "ben.jsonl", label="tie", annotator="ben")
    audit("score", "-i", "ben.jsonl")
    assert {one.annotator for one in read_labels(tmp_path / "out")} == {"ann", "ben"}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [("labels.jsonl", "{}\n", "this is no label that cai wrote"), ("drawn-0001.json", "[]", "how likely each pair was")],
)
def test_files_of_an_audit_that_were_changed_are_named(audit: Cai, tmp_path: Path, name: str, text: str, message: str) -> None:
    audit("sample", "-n", 30)
    fill(tmp_path / "out" / "audit" / "sample-0001.jsonl", tmp_path / "ann.jsonl", label="1")
    audit("score", "-i", "ann.jsonl")
    (tmp_path / "out" / "audit" / name).write_text(text)
    code, _, err = audit("score")
    assert (code, message in err, "hint: " in err) == (65, True, True)


def test_a_held_output_is_waited_for_or_skipped(audit: Cai, tmp_path: Path) -> None:
    with locked(tmp_path / "out" / ".cai" / "lock", "fail", "cai run"):
        for what in ("sample", "score"):
            assert audit(what)[0] == 75
            code, _, err = audit(what, "--if-locked", "skip")
            assert (code, "cai: skipped" in err) == (0, True)


def test_what_other_versions_serve_is_named_as_such(audit: Cai) -> None:
    code, _, err = audit("serve")
    assert (code, "'audit serve' is not in version" in err) == (2, True)
