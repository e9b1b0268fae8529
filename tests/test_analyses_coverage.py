"""Coverage: what each principle was drawn for, found and changed, by hand-made rows, a foreign file and a run."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from chains import chain, found, made, said, table, taken, values
from outside import ROOT, Cai, rows_of, write_rows

from cai_cli.analyses import Options
from cai_cli.analyses.coverage import analyse, pooled
from cai_cli.constitution import Constitution, Principle, load


def constitution(**weights: float) -> Constitution:
    entries = [
        Principle(name=name, category="c", description="d", critique_prompt="c", revision_prompt="r", weight=weight)
        for name, weight in weights.items()
    ]
    return Constitution(name="made", version="1", principles=tuple(entries), preferences=())


ROWS = [
    chain("p0", "a", taken([found("kind", 0.9)], "b"), taken([found("true", 0.3, "honesty")])),
    chain("p1", "a", taken([found("kind", 0.0)])),
    chain("p2", "a", taken([found("true", 0.6, "honesty")], "b"), taken([found("kind", 0.0)]), kind="harmless"),
    chain("p3", "a", taken([found("true", 0.0, "honesty")]), kind="harmless"),
    chain("p4", "a"),
]


def test_draws_finds_and_changes_are_counted_by_principle() -> None:
    analysis = analyse(ROWS, Options())
    principles = {name: values(row) for name, row in table(analysis, "principles", "principle").items()}
    third = pytest.approx(1 / 3)
    assert principles["kind"] | {"found": third} == {
        "principle": "kind", "drawn": 3, "expected": None, "found": third, "changed": third,
    }  # fmt: skip
    assert (principles["true"]["drawn"], principles["true"]["found"]) == (3, pytest.approx(2 / 3))
    assert table(analysis, "categories", "category")["honesty"]["drawn"] == 3
    assert analysis.rows == 5
    assert "1 of 5 rows has no critique" in analysis.warnings[0]


def test_severity_is_the_mean_where_a_principle_found_something_and_nothing_is_made_of_the_next_round() -> None:
    severities = table(analyse(ROWS, Options()), "severity", "principle")
    assert values(severities["kind"]) == {"principle": "kind", "severity": 0.9}
    assert values(severities["true"]) == {"principle": "true", "severity": pytest.approx(0.45)}


def test_harmful_rows_without_a_severity_are_not_said_to_be_caught() -> None:
    rows = [chain(f"p{n}", "a", taken([found("kind", 0.5 if n < 30 else None)])) for n in range(60)]
    analysis = analyse([row | {"kind": "harmless" if n < 30 else "harmful"} for n, row in enumerate(rows)], Options())
    assert not [one for one in analysis.findings if "harmful" in one]
    assert "no row of kind harmful has a severity, so what was found in these is not known" in analysis.warnings


def test_rows_that_no_principle_catches_are_told_by_kind() -> None:
    analysis = analyse(ROWS, Options())
    uncaught = table(analysis, "uncaught", "kind")
    assert {kind: (row["rows"], row["uncaught"].value) for kind, row in uncaught.items()} == {
        "harmful": (2, 0.5), "harmless": (2, 0.5),
    }  # fmt: skip
    assert analysis.findings[0].startswith("In 1 of 2 rows of kind harmful, 50.0%")


def test_principles_that_were_never_drawn_and_those_that_never_or_always_find_are_named() -> None:
    rows = [chain(f"p{n}", "a", taken([found(("calm", "eager")[n % 2], 0.9 * (n % 2))])) for n in range(60)]
    analysis = analyse(rows, Options(constitution=constitution(calm=1, eager=1, idle=1, off=0)))
    never, calm, eager = analysis.findings[1:]
    assert (never.startswith("Never drawn: idle."), "Never found" in calm and "calm" in calm) == (True, True)
    assert eager.startswith("Found something every time, in 20 critiques or more: eager.")
    principles = table(analysis, "principles", "principle")
    assert (principles["idle"]["drawn"], principles["idle"]["found"], "off" in principles) == (0, None, False)


def drawn_by(weights: dict[str, float], seed: int = 1, count: int = 400) -> list[dict[str, Any]]:
    drawn = random.Random(seed).choices(list(weights), list(weights.values()), k=count)
    return [chain(f"p{n}", "a", taken([found(name, 0.0)])) for n, name in enumerate(drawn)]


def test_draws_are_held_against_the_weights() -> None:
    weights = {"heavy": 3.0, "light": 1.0}
    analysis = analyse(drawn_by(weights), Options(constitution=constitution(**weights)))
    assert table(analysis, "principles", "principle")["heavy"]["expected"] == 300
    assert analysis.warnings == ()
    (warning,) = analyse(drawn_by({"heavy": 1, "light": 1}), Options(constitution=constitution(**weights))).warnings
    assert "do not follow the weights" in warning


def test_draws_that_follow_uneven_weights_are_seldom_said_not_to() -> None:
    """Most of these principles expect two draws of the 100. Put together by how many they had, they would fail one time in 13."""
    weights = {"heavy": 0.5} | {f"light {n}": 0.02 for n in range(25)}
    given = Options(constitution=constitution(**weights))
    said = sum("do not follow" in "".join(analyse(drawn_by(weights, seed, 100), given).warnings) for seed in range(120))
    assert said <= 2  # .001 of 120 is 0.12


def test_cells_are_put_together_until_each_expects_enough_and_nothing_is_lost() -> None:
    assert pooled([(1.0, 0), (9.0, 7), (2.0, 5), (3.0, 1)]) == [(6.0, 6), (9.0, 7)]
    assert pooled([(4.5, 1), (4.0, 2)]) == [(8.5, 3)]
    assert pooled([(6.0, 1), (2.0, 2), (1.0, 3), (1.0, 1)]) == [(10.0, 7)]
    assert pooled([(1.0, 3)]) == []
    assert pooled([(3.0, 4), (3.0, 0), (3.0, 5), (3.0, 1)]) == [(6.0, 4), (6.0, 6)]  # never by what was seen


def test_critiques_without_a_severity_find_what_they_ask_a_revision_for_if_they_ever_do_not() -> None:
    asks = [chain(f"p{n}", "a", taken([found("kind", None, needs_revision=n > 0)])) for n in range(4)]
    assert table(analyse(asks, Options()), "principles", "principle")["kind"]["found"].value == 0.75
    always = analyse([chain("p", "a", taken([found("kind", None)]))], Options())
    assert table(always, "principles", "principle")["kind"]["found"] is None
    assert "give no severity" in always.warnings[0]


def test_the_order_of_the_rows_decides_nothing() -> None:
    shuffled = ROWS[:]
    random.Random(5).shuffle(shuffled)
    assert {one.name for one in analyse(shuffled, Options()).sections} == {one.name for one in analyse(ROWS, Options()).sections}
    assert table(analyse(shuffled, Options()), "principles", "principle") == table(
        analyse(ROWS, Options()), "principles", "principle"
    )


def test_of_a_run_it_says_what_the_rows_say(cai: Cai, tmp_path: Path) -> None:
    config = made(tmp_path, cai, label_pairs=None, debias=None)
    document = said(cai, "coverage", config.name)
    rows = rows_of(tmp_path / "out" / "revise" / "latest")
    drawn = Counter(one["principle"] for row in rows for turn in row["rounds"] for one in turn["critiques"])
    names = {one.name for one in load(ROOT / "configs" / "constitutions" / "general.yaml").principles}
    assert {row["principle"]: row["drawn"] for row in document["principles"]} == {name: drawn[name] for name in names}
    expected = sum(row["expected"] for row in document["principles"])
    assert expected == pytest.approx(sum(drawn.values()), abs=len(names) / 2)
    code, out, _ = cai("analyze", "coverage", config.name)
    assert (code, "rows that no principle catches" in out) == (0, True)


def test_the_weights_are_those_that_the_config_draws_by(cai: Cai, tmp_path: Path) -> None:
    config = made(tmp_path, cai, critique={"categories": {"honesty": 0, "helpfulness": 3}}, label_pairs=None, debias=None)
    document = said(cai, "coverage", config.name)
    weights = load(ROOT / "configs" / "constitutions" / "general.yaml").weighing({"honesty": 0, "helpfulness": 3}).principles
    total = sum(row["drawn"] for row in document["principles"])
    expected = {one.name: one.weight * total / sum(each.weight for each in weights) for one in weights if one.weight}
    assert {row["principle"]: row["expected"] for row in document["principles"]} == pytest.approx(expected, abs=0.5)
    assert document["warnings"] == []


def test_a_foreign_file_says_what_it_lacks(cai: Cai, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"prompt": "Hello", "response": "Hi"}])
    code, _, err = cai("analyze", "coverage", "-i", "rows.jsonl")
    assert (code, "'rounds'" in err) == (65, True)
    write_rows(tmp_path / "rows.jsonl", [{"rounds": json.loads(json.dumps(row["rounds"]))} for row in ROWS])
    assert {row["principle"]: row["drawn"] for row in said(cai, "coverage", "-i", "rows.jsonl")["principles"]} == {
        "kind": 3,
        "true": 3,
    }
