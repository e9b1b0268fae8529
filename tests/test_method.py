"""What the method does to text whose harm is known: the simulated world can be asked how harmful a response really is."""

from __future__ import annotations

import itertools
from collections import Counter
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
from outside import cai, questions, rows_of, write_config, write_rows

from cai_cli.providers._judge import utility
from cai_cli.providers._sentences import read
from cai_cli.providers._world import World

PROMPTS = 150
NO_RULES = {"no_revision_needed": False, "severity_below": None, "improvement_below": None}


def revised(folder: Path, world: dict[str, Any], critique: Any = None, **revise: Any) -> list[dict[str, Any]]:
    """The rows of revise, of a run in a world."""
    write_rows(folder / "prompts.jsonl", questions(PROMPTS))
    model = {"provider": "simulated", "name": "small-world", "world": world}
    write_config(folder, model=model, critique=critique or {}, revise=revise, label_pairs="off", debias="off")
    done = cai(folder, "run", "c.yaml", "-q")
    assert done.code == 0, done.err
    return rows_of(folder / "out" / "revise" / "latest")


def texts(row: dict[str, Any]) -> list[str]:
    """The response before each round, and at the end."""
    found = [row["initial_response"]]
    for one in row["rounds"]:
        found.append(one["revision"] if one["accepted"] else found[-1])
    return found


def by_round(rows: list[dict[str, Any]], rounds: int) -> tuple[list[float], list[float]]:
    """Mean severity, and mean true share of harmful sentences, of the text before each round; a row that ended stays as it is."""
    severities = [[one["severity"] for one in row["rounds"]] for row in rows]
    harms = [[read(text).harm for text in texts(row)] for row in rows]
    return tuple([mean(one[min(k, len(one) - 1)] for one in found) for k in range(rounds)] for found in (severities, harms))  # type: ignore[return-value]


def test_severity_and_true_harm_fall_in_every_round_and_most_in_the_first(tmp_path: Path) -> None:
    rows = revised(tmp_path, {}, rounds=4, stop=NO_RULES)
    for found in by_round(rows, 4):
        falls = [before - after for before, after in itertools.pairwise(found)]
        assert min(falls) > 0
        assert falls[0] == max(falls)


def test_without_critiques_harm_falls_too(tmp_path: Path) -> None:
    rows = revised(tmp_path, {}, critique="off", rounds=3)
    assert {one["severity"] for row in rows for one in row["rounds"]} == {None}
    harms = [
        mean(read(text).harm for text in pair) for pair in zip(*((texts(row)[0], texts(row)[-1]) for row in rows), strict=True)
    ]
    assert harms[1] < 0.3 * harms[0]


def better_kept(rows: list[dict[str, Any]]) -> float:
    """Share of revised texts of which the one that is worth more became the response."""
    world, right = World(), Counter[bool]()
    for row in rows:
        before = texts(row)
        for n, one in enumerate(row["rounds"]):
            worth = [utility(read(text), world) for text in (before[n], one["revision"] or before[n])]
            if worth[0] != worth[1]:
                right[one["accepted"] == (worth[1] > worth[0])] += 1
    assert right.total() > PROMPTS
    return right[True] / right.total()


def test_a_labeler_keeps_the_better_text_where_revisions_may_be_worse(tmp_path: Path) -> None:
    world = {"noise": 0.1, "spoil_rate": 0.4}
    shares = {
        accept: better_kept(revised(folder, world, rounds=3, accept=accept, stop=NO_RULES))
        for accept in ("if_preferred", "always")
        if (folder := tmp_path / accept).mkdir() is None
    }
    print(shares)
    assert shares["always"] < 0.75
    assert shares["if_preferred"] >= 0.95


@pytest.mark.parametrize(
    ("rule", "stop"),
    [
        ("no_revision_needed", {**NO_RULES, "no_revision_needed": True}), ("severity_below", {**NO_RULES, "severity_below": 0.2}),
        ("improvement_below", {**NO_RULES, "improvement_below": 0.05}), ("quality_above", {**NO_RULES, "quality_above": 0.5}),
        ("rounds", NO_RULES), ("unchanged", NO_RULES),
    ],
)  # fmt: skip
def test_every_stop_rule_ends_rows(rule: str, stop: dict[str, Any], tmp_path: Path) -> None:
    rows = revised(tmp_path, {"revise_keep": 0.6}, rounds=2, stop=stop)
    ended = Counter(row["stopped_by"] for row in rows)
    assert ended[rule] > 0
    assert set(ended) <= {rule, "rounds", "unchanged"}
