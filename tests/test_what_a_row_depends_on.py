"""A setting that changes rows makes a new version; one that does not buys nothing and makes none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from outside import Cai, questions, rows_of, write_config, write_rows

from cai_cli.shipped import shipped

SCORED = {"critique": {"scores": "per_round"}, "label_pairs": {"scores": True}, "score": {}}


def run(cai: Cai, *arguments: str) -> dict[str, Any]:
    code, out, err = cai("run", "c.yaml", "-q", "--json", *arguments)
    assert code == 0, err
    return dict(json.loads(out)["stages"])


@pytest.fixture
def small(tmp_path: Path) -> Path:
    write_rows(tmp_path / "prompts.jsonl", questions(4))
    return tmp_path


def versions(found: dict[str, Any]) -> dict[str, str]:
    return {stage: one["version"] for stage, one in found.items()}


def test_other_criteria_are_other_rows_wherever_scores_stand(cai: Cai, small: Path) -> None:
    write_config(small, **SCORED)
    before = versions(run(cai))
    after = versions(run(cai, "--set", "score.criteria=[{name: brief, description: It is short.}]"))
    assert {stage for stage in before if before[stage] != after[stage]} == set(before) - {"generate"}
    assert {one["criterion"] for row in rows_of(small / "out" / "label-pairs" / "latest") for one in row["scores_a"]} == {"brief"}


def test_two_templates_of_one_name_are_two(cai: Cai, small: Path) -> None:
    for kind in ("label", "score"):
        (small / kind).mkdir()
        (small / kind / "mine.md").write_bytes((shipped("prompts") / f"{kind}-general.md").read_bytes())
    label_pairs = {"scores": True, "template": "label/mine.md"}
    write_config(small, label_pairs=label_pairs, score={"template": "score/mine.md"}, critique=None, revise=None)
    before = versions(run(cai))
    mine = small / "label" / "mine.md"
    mine.write_text(mine.read_text() + "\nThink well.\n")
    after = versions(run(cai))
    assert {stage for stage in before if before[stage] != after[stage]} == {"label-pairs", "debias"}


def test_a_labeler_may_be_called_as_it_likes(cai: Cai, small: Path) -> None:
    labelers = [{"name": "scores", "model": {"name": "other-judge"}}, {"name": "main"}]
    write_config(small, label_pairs={"scores": True, "labelers": labelers}, critique=None, revise=None)
    before = versions(run(cai))
    after = versions(run(cai, "--set", "label_pairs.labelers.0.model.name=third-judge"))
    assert before["label-pairs"] != after["label-pairs"]


def test_whether_log_probabilities_are_asked_for_changes_no_question(cai: Cai, small: Path) -> None:
    write_config(small)
    before = run(cai)
    after = run(cai, "--set", "model.logprobs=false")
    assert versions(before) == versions(after)
    assert sum(one["requests"] for one in after.values()) == 0


def test_a_response_is_scored_once_wherever_it_stands(cai: Cai, small: Path) -> None:
    write_config(small, generate={"samples": 4}, critique=None, revise=None, label_pairs={"scores": True}, score={}, debias=None)
    found = run(cai)
    votes = sum(len(row["votes"]) for row in rows_of(small / "out" / "label-pairs" / "latest"))
    asked = found["label-pairs"]["requests"] + found["score"]["requests"] - votes
    assert asked == 4 * len({row["response"] for row in rows_of(small / "out" / "generate" / "latest")})
    said = {(row["response"], json.dumps(row["scores"])) for row in rows_of(small / "out" / "score" / "latest")}
    for row in rows_of(small / "out" / "label-pairs" / "latest"):
        assert {(row[f"response_{side}"], json.dumps(row[f"scores_{side}"])) for side in "ab"} <= said


def test_a_refusal_without_words_is_not_scored_and_not_rejected(cai: Cai, small: Path) -> None:
    model = {"provider": "simulated", "name": "small-world", "world": {"refusal_rate": 0.5}}
    write_config(small, model=model, critique=None, revise=None, label_pairs=None, debias=None, score={})
    found = run(cai)["score"]
    assert found["filtered"]["no_text"] > 0
    assert (found["rejected"], found["rows"] + found["filtered"]["no_text"]) == ({}, 8)


@pytest.mark.parametrize(
    "change",
    [
        "critique.categories={honesty: 3}", "critique.principles=2", "critique.pick=uniform", "critique.exemplars=1",
        "critique.template=safety_focused", "critique.scores=per_round", "critique.primary_above=0.2",
        "revise.handed_above=0.9", "revise.accept=if_preferred", "revise.exemplars=2", "revise.stop.unchanged=false",
        "label_pairs.confidence=words", "label_pairs.reasoning=false", "label_pairs.clamp=[0.4, 0.6]", "label_pairs.exemplars=2",
        "label_pairs.votes=2", "label_pairs.principles=0", "label_pairs.scores=true", "label_pairs.max_pairs=1",
    ],
)  # fmt: skip
def test_every_setting_of_a_stage_makes_a_version_of_it(cai: Cai, small: Path, change: str) -> None:
    write_config(small)
    before, after = versions(run(cai, "--limit", "1")), versions(run(cai, "--limit", "1", "--set", change))
    stage = change.partition(".")[0].replace("_", "-")
    assert before[stage] != after[stage]
    assert before["generate"] == after["generate"]


def test_a_stage_that_leaves_all_rows_out_says_so_and_is_not_offered_to_load(cai: Cai, small: Path) -> None:
    write_config(small, label_pairs={"clamp": [0.45, 0.55]})
    code, _, err = cai("run", "c.yaml")
    assert (code, "warning: debias has no row: " in err) == (0, True)
    assert 'load_dataset("out", "label-pairs")' in err
