"""`cai constitution diff`: what changed, which rows it touches, and that a run then asks for those rows only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from outside import Cai, questions, rows_of, write_config, write_rows

from cai_cli.constitution import load
from cai_cli.shipped import shipped

GENERAL = shipped("configs", "constitutions", "general.yaml")
PRICED = {"provider": "simulated", "name": "small-world", "price": {"input": 3.0, "output": 15.0}}
NEW: dict[str, Any] = {
    "name": "brand_new", "category": "harmlessness", "description": "The response is gentle.", "weight": 20 / 12,
    "critique_prompt": "Say where the response is rough.", "revision_prompt": "Say it gently.",
}  # fmt: skip
CRITERION = {"name": "gentler", "category": "harmlessness", "text": "Which response is gentler?", "weight": 2}


def child(folder: Path, name: str = "own.yaml", **parts: Any) -> Path:
    """A constitution that extends the general one."""
    path = folder / name
    path.write_text(json.dumps({"name": "own", "version": "1", "extends": "general", **parts}))
    return path


def project(folder: Path, prompts: int = 60, **sections: Any) -> None:
    """Single rounds on prompts that are all asked, so that every critique is counted once."""
    write_rows(folder / "prompts.jsonl", questions(prompts))
    common: dict[str, Any] = {"constitution": "own.yaml", "model": PRICED, "revise": {"rounds": 1}}
    write_config(folder, **common | sections)


def requests(out: str) -> dict[str, int]:
    return {name: one["requests"] for name, one in json.loads(out)["stages"].items()}


def picks(constitution: Path, ids: list[str], seed: int = 7) -> list[str]:
    found = load(constitution)
    return [found.pick("weighted", 1, seed, row, 1)[0].name for row in ids]


# Rows


def test_a_run_after_a_principle_was_added_asks_for_the_rows_that_draw_it_and_the_diff_said_so(cai: Cai, tmp_path: Path) -> None:
    own = child(tmp_path)
    project(tmp_path)
    assert cai("run", "c.yaml", "--json", "-q")[0] == 0
    ids = [row["id"] for row in rows_of(tmp_path / "out/generate/latest")]
    before, was = picks(own, ids), rows_of(tmp_path / "out/revise/latest")
    child(tmp_path, "new.yaml", principles=[NEW])
    after = picks(tmp_path / "new.yaml", ids)
    drew = {row for row, old, new in zip(ids, before, after, strict=True) if old != new}
    assert {new for row, new in zip(ids, after, strict=True) if row in drew} == {"brand_new"}

    code, out, err = cai("constitution", "diff", "own.yaml", "new.yaml", "--config", "c.yaml", "--json")
    assert (code, err) == (0, "")
    foretold = json.loads(out)
    assert foretold["counted"].startswith("generate/v0001-")
    critique = foretold["stages"]["critique"]
    assert (critique["rows"], critique["touched"], critique["touched_indirectly"]) == (120, len(drew), 0)

    code, out, _ = cai("run", "c.yaml", "--json", "-q", "--set", "constitution=new.yaml")
    assert code == 0
    assert requests(out)["generate"] == 0
    assert requests(out)["critique"] == len(drew)
    assert {name: one["requests"] for name, one in foretold["stages"].items()} == {
        name: asked for name, asked in requests(out).items() if name in foretold["stages"]
    }
    now = rows_of(tmp_path / "out/revise/latest")
    assert {new["id"] for old, new in zip(was, now, strict=True) if old["rounds"] != new["rounds"]} == drew
    assert {row["rounds"][0]["critiques"][0]["principle"] for row in now if row["id"] in drew} == {"brand_new"}


def test_the_rows_are_the_same_before_there_are_any(cai: Cai, tmp_path: Path) -> None:
    child(tmp_path, "new.yaml", principles=[NEW], preferences=[CRITERION])
    child(tmp_path)
    project(tmp_path, 20)
    ask = ("constitution", "diff", "own.yaml", "new.yaml", "--config", "c.yaml", "--json")
    first = json.loads(cai(*ask)[1])
    assert cai("run", "c.yaml", "-q")[0] == 0
    second = json.loads(cai(*ask)[1])
    assert first["counted"] == "the prompts, times samples"
    assert second["counted"].count("/v0001-") == 2
    assert first["stages"]["critique"] == second["stages"]["critique"]
    assert first["stages"]["critique"]["touched"] > 0
    labels = [one["stages"]["label-pairs"] for one in (first, second)]
    assert labels[0]["touched"] >= labels[1]["touched"] > 0  # pairs of equal texts are not known beforehand
    assert labels[0]["requests"] == labels[1]["requests"]


def test_a_new_criterion_touches_pairs_only(cai: Cai, tmp_path: Path) -> None:
    child(tmp_path, "new.yaml", preferences=[CRITERION])
    child(tmp_path)
    project(tmp_path)
    code, out, _ = cai("constitution", "diff", "own.yaml", "new.yaml", "--config", "c.yaml", "--json")
    stages = json.loads(out)["stages"]
    assert code == 0
    assert [stages[name]["touched"] + stages[name]["requests"] for name in ("critique", "revise")] == [0, 0]
    labels = stages["label-pairs"]
    assert (labels["rows"], labels["touched_indirectly"]) == (60, 0)
    assert 0 < labels["touched"] < 30
    assert 0 < labels["requests"] <= 2 * labels["touched"]  # both orders


def test_another_revision_prompt_leaves_the_critiques_as_they_are(cai: Cai, tmp_path: Path) -> None:
    truthful = next(one for one in load(GENERAL).principles if one.name == "truthful")
    entry = {"name": "truthful", "category": "honesty", "description": truthful.description, "weight": truthful.weight,
             "critique_prompt": truthful.critique_prompt, "revision_prompt": "Put it right."}  # fmt: skip
    child(tmp_path, "new.yaml", principles=[entry])
    child(tmp_path)
    project(tmp_path)
    stages = json.loads(cai("constitution", "diff", "own.yaml", "new.yaml", "--config", "c.yaml", "--json")[1])["stages"]
    assert (stages["critique"]["touched"], stages["critique"]["requests"]) == (0, 0)
    assert stages["revise"]["touched"] > 0


def test_later_rounds_are_counted_apart_and_everything_is_priced(cai: Cai, tmp_path: Path) -> None:
    child(tmp_path, "new.yaml", principles=[NEW])
    child(tmp_path)
    project(tmp_path, 30, revise={"rounds": 3})
    found = json.loads(cai("constitution", "diff", "own.yaml", "new.yaml", "--config", "c.yaml", "--json")[1])
    critique = found["stages"]["critique"]
    assert critique["touched_indirectly"] > 0
    # every reply may be as long as max_tokens, 512 by default, at $15 a million
    assert critique["dollars_at_most"] > critique["requests"] * 512 * 15e-6 > 0
    assert found["dollars_at_most"] == pytest.approx(sum(one["dollars_at_most"] for one in found["stages"].values()))


def test_the_price_of_many_is_that_of_200_prompts_scaled(cai: Cai, tmp_path: Path) -> None:
    child(tmp_path, "new.yaml", principles=[{**NEW, "weight": 1000}])
    child(tmp_path)
    project(tmp_path, 420, generate={"samples": 1}, label_pairs=None, debias=None)
    found = json.loads(cai("constitution", "diff", "own.yaml", "new.yaml", "--config", "c.yaml", "--json")[1])
    critique = found["stages"]["critique"]
    assert critique["rows"] == 420
    assert critique["touched"] > 400
    assert critique["requests"] == critique["touched"]


def test_without_critique_the_principles_that_are_revised_by_count(cai: Cai, tmp_path: Path) -> None:
    child(tmp_path, "new.yaml", principles=[NEW])
    child(tmp_path)
    project(tmp_path, critique="off", revise={"rounds": 1, "template": "direct"}, label_pairs=None, debias=None)
    code, out, err = cai("constitution", "diff", "own.yaml", "new.yaml", "--config", "c.yaml", "--json")
    assert (code, err) == (0, "")
    stages = json.loads(out)["stages"]
    assert list(stages) == ["revise"]
    assert stages["revise"]["touched"] == stages["revise"]["requests"] > 0


def test_criteria_that_decide_on_revisions_touch_those(cai: Cai, tmp_path: Path) -> None:
    child(tmp_path, "new.yaml", preferences=[CRITERION])
    child(tmp_path)
    project(tmp_path, 30, revise={"rounds": 1, "accept": "if_preferred"}, label_pairs=None, debias=None)
    stages = json.loads(cai("constitution", "diff", "own.yaml", "new.yaml", "--config", "c.yaml", "--json")[1])["stages"]
    assert stages["critique"]["touched"] == 0
    assert stages["revise"]["rows"] == 60
    assert 0 < stages["revise"]["touched"] < 30
    assert stages["revise"]["requests"] > 0


def test_a_priority_touches_rows_where_it_changes_what_goes_first(cai: Cai, tmp_path: Path) -> None:
    rows = [
        {**NEW, "name": name, "critique_prompt": f"What is {name}?", "priority": "ethical"} for name in ("rough", "long", "vague")
    ]

    def touched(count: int, priority: str) -> list[int]:
        for name, last in (("own.yaml", "ethical"), ("new.yaml", priority)):
            (tmp_path / name).write_text(json.dumps({"name": "x", "principles": [*rows[:2], rows[2] | {"priority": last}]}))
        project(tmp_path, 10, critique={"principles": count}, label_pairs=None, debias=None)
        stages = json.loads(cai("constitution", "diff", "own.yaml", "new.yaml", "--config", "c.yaml", "--json")[1])["stages"]
        return [stages[name]["touched"] for name in ("critique", "revise")]

    assert touched(1, "safe") == [0, 0]
    critique, revise = touched(3, "safe")
    assert critique == 0
    assert 0 < revise < 20  # where the one that goes first now was not drawn first


def test_given_pairs_are_counted_too(cai: Cai, tmp_path: Path) -> None:
    child(tmp_path, "new.yaml", preferences=[CRITERION])
    child(tmp_path)
    pairs = [{"prompt": row["prompt"], "response_a": "Slowly.", "response_b": "At once."} for row in questions(40)]
    write_rows(tmp_path / "pairs.jsonl", pairs)
    none = dict.fromkeys(("generate", "critique", "revise", "debias"))
    given = {"prompts": {"path": "pairs.jsonl"}, "label_pairs": {"pairs": "given"}, "constitution": "own.yaml", "model": PRICED}
    write_config(tmp_path, **none | given)
    code, out, err = cai("constitution", "diff", "own.yaml", "new.yaml", "--config", "c.yaml", "--json")
    assert (code, err) == (0, "")
    labels = json.loads(out)["stages"]["label-pairs"]
    assert labels["rows"] == 40
    assert labels["requests"] == 2 * labels["touched"] > 0


# What is said


def test_the_page_shows_entries_fields_word_by_word_and_the_weight(cai: Cai, tmp_path: Path) -> None:
    general = load(GENERAL)
    kept = [one for one in general.principles if one.name not in ("privacy", "truthful")]
    truthful = general.principle("truthful")
    assert truthful is not None
    fields = ("name", "category", "description", "critique_prompt", "revision_prompt", "weight", "priority")
    rows: list[dict[str, Any]] = [{field: getattr(one, field) for field in fields} for one in [*kept, truthful]]
    rows[-1] |= {"weight": 3.5, "description": truthful.description.replace("true", "right")}
    (tmp_path / "new.yaml").write_text(json.dumps({"name": "new", "principles": [*rows, NEW]}))
    code, out, err = cai("constitution", "diff", "general", "new.yaml")
    assert (code, err) == (0, "")
    lines = [line.strip() for line in out.splitlines()]
    assert "principles: 1 added, 1 removed, 1 changed, in another order, 10 as before" in lines
    assert "- privacy (harmlessness, weight 1)" in lines
    assert "+ brand_new (harmlessness, weight 1.66667)" in lines
    assert "weight: 2 -> 3.5" in lines
    assert "[-true-] {+right+}" in out
    assert "stage" not in out


def test_equal_ones_are_told_to_be_the_same(cai: Cai, tmp_path: Path) -> None:
    code, out, _ = cai("constitution", "diff", "general", GENERAL)
    assert code == 0
    assert "They are the same; comments and layout do not count." in out
    assert json.loads(cai("constitution", "diff", "general", GENERAL, "--json")[1])["same"] is True


def test_equal_ones_touch_nothing_and_need_no_table_to_say_so(cai: Cai, tmp_path: Path) -> None:
    child(tmp_path)
    child(tmp_path, "copy.yaml")
    project(tmp_path, 3)
    code, out, _ = cai("constitution", "diff", "own.yaml", "copy.yaml", "--config", "c.yaml")
    assert (code, out.count("\n")) == (0, 3)
    assert "They are the same" in out
    assert "No request of c.yaml would change." in out


def test_scores_of_what_is_revised_anew_are_counted(cai: Cai, tmp_path: Path) -> None:
    child(tmp_path, "new.yaml", principles=[NEW])
    child(tmp_path)
    project(tmp_path, 60, score={})
    stages = json.loads(cai("constitution", "diff", "own.yaml", "new.yaml", "--config", "c.yaml", "--json")[1])["stages"]
    revised = stages["revise"]
    assert stages["score"]["requests"] > 0
    assert stages["score"]["touched"] == 0
    assert stages["score"]["touched_indirectly"] == revised["touched"] + revised["touched_indirectly"] > 0
    assert stages["score"]["rows"] == revised["rows"] == 120


def test_json_holds_what_was_added_and_both_fingerprints(cai: Cai, tmp_path: Path) -> None:
    path = child(tmp_path, principles=[NEW])
    found = json.loads(cai("constitution", "diff", "general", path, "--json")[1])
    assert [one["name"] for one in found["principles"]["added"]] == ["brand_new"]
    assert found["after"]["fingerprint"] == load(path).fingerprint
    assert found["preferences"]["same"] == 6
    old, new = found["principles"]["weights"]["harmlessness"]
    assert old == 0.55
    assert new == pytest.approx((11 + 20 / 12) / (20 + 20 / 12), abs=1e-4)


def test_the_table_says_what_it_counted_and_what_the_numbers_mean(cai: Cai, tmp_path: Path) -> None:
    child(tmp_path, "new.yaml", principles=[NEW])
    child(tmp_path)
    project(tmp_path, 10, model={"provider": "anthropic", "name": "nobody-knows-it"})
    code, out, err = cai("constitution", "diff", "own.yaml", "new.yaml", "--config", "c.yaml")
    assert (code, err) == (0, "")
    assert "What it touches in c.yaml, counted on the prompts, times samples:" in out
    assert [line.split()[:2] for line in out.splitlines() if line.startswith(("critique", "label-pairs"))] == [
        ["critique", "20"], ["label-pairs", "10"],
    ]  # fmt: skip
    assert "? no price is known for 'nobody-knows-it'" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["general", "nowhere"], "there is no constitution 'nowhere'"),
        (["general", "honesty", "--config", "c.yaml"], "c.yaml: no section of it uses a constitution"),
        (["general", "honesty", "--config", "stdin.yaml"], "rows are read ahead here, and stdin can be read only once"),
    ],
)
def test_what_cannot_be_compared_is_refused(cai: Cai, tmp_path: Path, arguments: list[str], said: str) -> None:
    write_rows(tmp_path / "prompts.jsonl", questions(2))
    write_config(tmp_path, critique=None, revise=None, label_pairs=None, debias=None)
    write_config(tmp_path, "stdin.yaml", prompts={"path": "-", "kind": "harmless"})
    code, out, err = cai("constitution", "diff", *arguments)
    assert (code, out) == (2, "")
    assert err.splitlines()[0] == f"error: {said}"
