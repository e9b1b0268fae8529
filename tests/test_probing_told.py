"""What is told of probes: a question before it is asked, how to come by other answers, and what came of those there are."""

from __future__ import annotations

import json
import re
from pathlib import Path

from outside import SIMULATED, Cai, rows_of, write_rows
from test_probing import WORLD, config, probed


def test_a_question_of_a_probe_is_shown_as_it_is_sent(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, {"length": 3, "sycophancy": 2}, prompts=4)
    code, out, err = cai("show", "c.yaml", "--prompt", "debias", "--json")
    before = json.loads(out)["requests"]
    assert (code, "the simulated model stands in for" in err, len(before)) == (0, True, 2)
    assert cai("run", "c.yaml", "-q")[0] == 0
    code, out, err = cai("show", "c.yaml", "--prompt", "debias", "--json")
    assert (code, json.loads(out)["requests"]) == (0, before)
    assert "from the rows of label-pairs v0001" in err
    id_ = next(row["id"] for row in probed(tmp_path / "out") if row["dimension"] == "sycophancy")
    shown = json.loads(cai("show", "c.yaml", id_, "--prompt", "debias", "--json")[1])["requests"]
    sent = json.loads(cai("why", "c.yaml", id_, "--stage", "debias", "--full", "--json")[1])["requests"]
    assert [one["messages"] for one in shown] == [one["messages"] for one in sent]
    assert {"sycophancy"} <= {one["about"]["probe"] for one in shown}
    assert "debias · probe sycophancy · " in cai("show", "c.yaml", id_, "--prompt", "debias")[1]
    code, _, err = cai("show", "c.yaml", "nobody", "--prompt", "debias")
    assert (code, "debias asks nothing about 'nobody'" in err, "its probes are about" in err) == (65, True, True)


def test_a_table_without_probes_has_no_question_to_show(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, {}, prompts=4)
    code, _, err = cai("show", "c.yaml", "--prompt", "debias")
    assert (code, "debias asks no model: there are no debias.probes" in err) == (2, True)
    config(tmp_path, {"first_names": 2}, prompts=4)
    code, _, err = cai("show", "c.yaml", "--prompt", "debias")
    assert (code, "debias asks nothing about any pair" in err) == (65, True)


def test_a_retry_says_how_probes_are_asked_again(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, {"length": 2}, prompts=4)
    assert cai("run", "c.yaml", "-q")[0] == 0
    code, _, err = cai("retry", "c.yaml", "--stage", "debias")
    assert code == 2
    assert "error: debias has no row that failed by itself, so none can be asked about again" in err
    assert "raise debias.probes, and only more pairs are asked about; or ask all its probes anew: " in err
    anew = err.strip().rpartition("anew: ")[2]
    assert anew == "cai debias c.yaml --set draw_offset=1"
    assert anew in cai("retry", "c.yaml")[2]
    asked_anew = json.loads(cai(*anew.split()[1:], "--json")[1])["stages"]["debias"]
    assert (asked_anew["requests"], asked_anew["replayed"]) == (4, 0)
    config(tmp_path, {}, prompts=4)
    assert "hint: retry a stage before it: generate, label-pairs" in cai("retry", "c.yaml", "--stage", "debias")[2]
    assert "probes" not in cai("retry", "c.yaml")[2]


def test_what_was_asked_is_told_where_no_two_answers_differ_in_it(cai: Cai, tmp_path: Path) -> None:
    """Answers without any bold word still have a judge's liking for bold measured, and told in the feature's own unit."""
    config(tmp_path, {"bold": 12}, prompts=15, model=SIMULATED | {"world": WORLD | {"markdown": 0.8, "noise": 0.1}})
    code, _, err = cai("run", "c.yaml")
    document = json.loads((tmp_path / "out/debias/latest/_bias.json").read_bytes())
    found = document["labelers"]["main"]["bold"]
    assert (code, found["identified_by"], found["sd"], found["per_one"]) == (0, "probe", 0.0, found["effect"])
    assert found["ci"][0] < 0.8 < found["ci"][1]
    assert re.search(r"^  bold, log-odds per one +\+0\.[78]\d+ .* probe$", err, re.MULTILINE)
    said = next(line for line in document["warnings"] if "bold moves it by" in line)
    assert said.endswith("log-odds per one of the feature, by probe; no two answers differ in it, so there is nothing to correct")


def test_probes_that_tell_nothing_are_said_to(cai: Cai, tmp_path: Path) -> None:
    likes_nothing = SIMULATED | {"world": {"noise": 0, "length": 0}}
    config(tmp_path, {"bold": 3}, prompts=6, model=likes_nothing, label_pairs={"reasoning": True})
    assert cai("run", "c.yaml", "-q")[0] == 0
    rows = rows_of(tmp_path / "out/label-pairs/latest")
    for row in rows:
        row["votes"] = [one | {"p_a": {"a": 1.0, "b": 0.0}.get(one["verdict"], 0.5), "basis": "verdict"} for one in row["votes"]]
    given = write_rows(tmp_path / "bare.jsonl", rows)
    assert cai("debias", "c.yaml", "-i", given, "-o", "other", "-q")[0] == 0
    warnings = json.loads((tmp_path / "other/debias/latest/_bias.json").read_bytes())["warnings"]
    said = "labeler 'main': its probes of bold tell nothing: no verdict was turned by a probe, so verdicts do not tell the effect"
    assert said in warnings
