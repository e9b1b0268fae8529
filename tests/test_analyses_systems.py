"""Systems: groups compared on the same prompts, by labelers' preferences, and with how many comparisons were made."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from cai_cli.analyses import Options, systems
from cai_cli.analyses._result import Analysis, Number
from cai_cli.errors import Exit, Fix


def sample(prompt: int, n: int, words: int, **more: Any) -> dict[str, Any]:
    own = {"id": f"{prompt}-{n}", "prompt_id": str(prompt), "response": "w " * words, "system": "", "model": "m"}
    return {**own, "refused": False, "truncated": False} | more


def two_systems(prompts: int, gain: int, seed: int = 1) -> list[dict[str, Any]]:
    """Lengths that differ by prompt far more than by system; the second system's are `gain` words longer."""
    rng, rows = np.random.default_rng(seed), []
    for prompt in range(prompts):
        base = int(rng.integers(20, 200))
        for n, system in enumerate(("", "be kind")):
            rows.append(sample(prompt, n, base + gain * n + int(rng.integers(-3, 4)), system=system))
    return rows


def pair(prompt: int, preference: str, **more: Any) -> dict[str, Any]:
    sources = {"source_a": f"{prompt}-0", "source_b": f"{prompt}-1:revised"}
    return {
        "id": f"{prompt}-0-1",
        "prompt_id": str(prompt),
        "response_a": "x",
        "response_b": "y",
        "preference": preference,
        **sources,
        **more,
    }


def rows_of(found: Analysis, name: str) -> list[dict[str, Any]]:
    return [dict(row) for one in found.sections if one.name == name for row in one.rows]


def difference(found: Analysis, measure: str, name: str = "differences") -> dict[str, Any]:
    (one,) = [row for row in rows_of(found, name) if row["measure"] == measure]
    return one


def test_a_difference_is_found_prompt_by_prompt_where_the_means_alone_would_hide_it() -> None:
    found = systems.analyse(two_systems(60, gain=5), Options())
    length = difference(found, "length, words")
    assert length["prompts"] == 60
    assert length["difference"].low > -7
    assert length["difference"].high < -3, "the first minus the second"
    means = [row["mean"] for row in rows_of(found, "measures") if row["measure"] == "length, words"]
    assert means[0].high > means[1].low, "each by itself they overlap"
    assert any("length, words: (no system prompt) minus be kind is -" in one for one in found.findings)


def test_where_nothing_differs_that_is_what_is_said() -> None:
    found = systems.analyse(two_systems(60, gain=0), Options())
    assert found.findings == ("No difference is beyond chance after adjustment for the number of comparisons.",)


def test_intervals_cover_the_difference() -> None:
    inside = 0
    for seed in range(100):
        one = difference(systems.analyse(two_systems(40, gain=2, seed=seed), Options()), "length, words")["difference"]
        inside += one.low <= -2 <= one.high
    assert 88 <= inside <= 100


def test_groups_without_a_shared_prompt_are_compared_by_their_means_and_that_is_said() -> None:
    rng = np.random.default_rng(3)
    rows = [sample(n, 0, 40 + 20 * (n % 2) + int(rng.integers(0, 9)), kind=("harmful", "harmless")[n % 2]) for n in range(60)]
    found = systems.analyse(rows, Options(by="kind"))
    assert rows_of(found, "differences") == []
    apart = difference(found, "length, words", "differences_apart")
    assert (apart["prompts"], round(apart["difference"].value)) == (60, -20)
    assert any("share fewer than half of their prompts" in one for one in found.warnings)


def test_p_values_are_adjusted_for_the_number_of_comparisons() -> None:
    rng = np.random.default_rng(1)
    rows = [
        sample(prompt, n, 50, model=f"m{n}", scores=[{"criterion": f"c{c}", "score": float(rng.normal(5, 1))} for c in range(4)])
        for prompt in range(30) for n in range(3)
    ]  # fmt: skip
    found = systems.analyse(rows, Options())
    scores = [row for row in rows_of(found, "differences") if row["measure"].startswith("score")]
    assert len(scores) == 12, "each of three models with each, on four criteria"
    alone = [row for row in scores if not row["difference"].low <= 0 <= row["difference"].high]
    assert alone, "by itself one of twelve looks like a difference"
    assert min(row["p"] for row in scores) > 0.05


def test_chains_tell_severity_and_revisions() -> None:
    rounds = [{"severity": 0.8, "accepted": True}, {"severity": 0.2, "accepted": False}]
    found = systems.analyse([sample(n, 0, 5, rounds=rounds) for n in range(3)], Options())
    means = {row["measure"]: row["mean"].value for row in rows_of(found, "measures")}
    told = [means[name] for name in ("severity, first round", "severity, last round", "revisions accepted")]
    assert told == pytest.approx([0.8, 0.2, 1.0])
    single = systems.analyse([sample(n, 0, 5, rounds=rounds[:1]) for n in range(3)], Options())
    assert not any(row["measure"] == "severity, last round" for row in rows_of(single, "measures")), "it is the first"


def test_labelers_prefer_one_of_two_systems() -> None:
    samples = two_systems(40, gain=0)
    pairs = [pair(n, "b" if n < 30 else "tie") for n in range(40)]
    found = systems.analyse(samples, Options(), {"score": iter(()), "label-pairs": iter(pairs), "debias": _never()})
    (won,) = rows_of(found, "wins")
    assert (won["winner"], won["against"], won["pairs"]) == ("(no system prompt)", "be kind", 40)
    assert won["won"].value == pytest.approx(5 / 40), "ten ties are five wins"
    assert any("wins 12.5%" in one for one in found.findings)


def _never() -> Iterator[dict[str, Any]]:
    raise AssertionError("debias holds some of the pairs of label-pairs")
    yield {}


def test_scores_of_another_stage_are_told_beside() -> None:
    scored = [row | {"composite": 5.0 + n % 2} for n, row in enumerate(two_systems(20, gain=0))]
    found = systems.analyse(two_systems(20, gain=0), Options(), {"score": iter(scored)})
    assert difference(found, "score, composite")["difference"].value == -1.0
    assert [row["rows"] for row in rows_of(found, "groups")] == [20, 20]


def test_pairs_alone_tell_by_their_own_columns() -> None:
    rows = [pair(n, "a" if n < 9 else "b", model_a="x", model_b="y") for n in range(12)]
    (won,) = rows_of(systems.analyse(rows, Options(by="model")), "wins")
    assert (won["winner"], won["against"], won["won"].value) == ("x", "y", 0.75)


def test_pairs_that_do_not_tell_are_counted() -> None:
    rows = [{"id": str(n), "prompt": "q", "response_a": "x", "response_b": "y", "preference": "a"} for n in range(3)]
    found = systems.analyse(rows, Options())
    assert any(one.startswith("3 pairs do not tell") for one in found.warnings)


def test_long_names_get_letters_and_are_told_once() -> None:
    rows = [row | {"system": row["system"] and "be kind " * 20} for row in two_systems(10, gain=0)]
    found = systems.analyse(rows, Options())
    assert [row["group"] for row in rows_of(found, "groups")] == ["A", "B"]
    assert {row["between"] for row in rows_of(found, "differences")} == {"A minus B"}


def test_a_column_of_very_many_values_is_refused() -> None:
    with pytest.raises(Fix, match="more than 24 values") as caught:
        systems.analyse([sample(n, 0, 5) for n in range(40)], Options(by="id"))
    assert caught.value.code == Exit.INPUT


def test_one_group_is_described_and_a_missing_column_named() -> None:
    rows = [sample(n, 0, 10) for n in range(4)]
    assert any("nothing to compare" in one for one in systems.analyse(rows, Options()).warnings)
    assert any("no row has a column 'tone'" in one for one in systems.analyse(rows, Options(by="tone")).warnings)
    assert isinstance(rows_of(systems.analyse(rows, Options()), "measures")[0]["mean"], Number)


def test_a_perfect_difference_is_found_and_has_an_interval() -> None:
    for apart in (False, True):
        rows = [sample(n + 500 * apart * m, m, 5, model=f"m{m}", refused=not m) for n in range(500) for m in range(2)]
        found = systems.analyse(rows, Options())
        refused = difference(found, "refused", "differences_apart" if apart else "differences")
        assert (refused["difference"].value, refused["difference"].low > 0.98, refused["p"] < 1e-9) == (1.0, True, True)
        assert any(one.startswith("refused: m0 minus m1 is +100.0 points (+9") for one in found.findings), found.findings


def test_a_difference_that_never_varies_is_found_too() -> None:
    rows = [sample(n, m, 5 + 2 * m, model=f"m{m}") for n in range(30) for m in range(2)]
    assert "length, words: m0 minus m1 is -2.0, p < 0.001." in systems.analyse(rows, Options()).findings


def test_what_could_not_be_tested_is_not_called_equal() -> None:
    rows = [sample(0, m, 5 + 9 * m, model=f"m{m}") for m in range(2)]
    findings = systems.analyse(rows, Options()).findings
    assert findings == ("3 of 3 comparisons could not be tested: a group has fewer than two prompts.",)


def test_one_shared_prompt_does_not_discard_all_others() -> None:
    rng = np.random.default_rng(4)
    rows = [sample(n if n else -1, 0, int(rng.integers(20, 40)), model="x") for n in range(50)]
    rows += [sample(-n - 1, 1, int(rng.integers(60, 90)), model="y") for n in range(50)]
    found = systems.analyse(rows, Options())
    length = difference(found, "length, words", "differences_apart")
    assert (length["prompts"], length["difference"].high < -30) == (100, True)
    assert any("compared on all" in one for one in found.warnings)


def test_wins_of_many_groups_are_adjusted_for_their_number() -> None:
    rng, claimed = np.random.default_rng(0), 0
    for _ in range(20):
        rows = [
            pair(28 * 60 * at + n, "ab"[int(rng.integers(2))], model_a=left, model_b=right)
            for at, (left, right) in enumerate(itertools.combinations("ABCDEFGH", 2)) for n in range(60)
        ]  # fmt: skip
        claimed += any(" wins " in one for one in systems.analyse(rows, Options(by="model")).findings)
    assert claimed <= 4, "28 comparisons without a difference: each data set claims one with a chance of 5%"


def test_the_limit_of_groups_is_the_same_with_and_without_by() -> None:
    rows = [sample(n, 0, 5, model=f"m{n % 25}") for n in range(50)]
    for by in (None, "model"):
        with pytest.raises(Fix, match="model: more than 24 values"):
            systems.analyse(rows, Options(by=by))
    assert systems.analyse([row for row in rows if row["model"] != "m24"], Options()).sections


def test_lengths_are_words_in_every_script() -> None:
    rows = [sample(n, 0, 0, response="\u4f60\u597d\u4e16\u754c") for n in range(3)]
    (words,) = [
        row["mean"].value for row in rows_of(systems.analyse(rows, Options()), "measures") if row["measure"] == "length, words"
    ]
    assert words == 4.0


def test_an_interval_stays_within_what_its_measure_can_be() -> None:
    rows = [sample(n, 0, 5, rounds=[{"severity": 1.0 if n else 0.2, "accepted": True}]) for n in range(3)]
    (mean,) = [
        row["mean"] for row in rows_of(systems.analyse(rows, Options()), "measures") if row["measure"] == "severity, first round"
    ]
    assert 0 <= mean.low <= mean.high <= 1


def three_models(prompts: int) -> list[dict[str, Any]]:
    """Pairs of three models, the last of which meets the first only through the second."""
    rng, rows = np.random.default_rng(8), []
    for prompt in range(prompts):
        a, b = (("good", "fair"), ("fair", "poor"))[prompt % 2]
        won = "a" if rng.random() < 0.75 else "b"
        rows.append(pair(prompt, won, source_a="", source_b="", model_a=a, model_b=b))
    return rows


def test_three_groups_are_put_on_one_scale_though_not_all_have_met() -> None:
    found = systems.analyse(three_models(200), Options(by="model"))
    rows = rows_of(found, "strengths")
    assert [row["group"] for row in rows] == ["good", "fair", "poor"]
    strong: list[Number] = [row["strength"] for row in rows]
    assert strong[0].value == pytest.approx(np.log(3), abs=0.4)
    assert strong[0].low is not None
    assert strong[0].low > 0
    assert [row["pairs"] for row in rows] == [100, 200, 100]


def test_two_groups_have_no_strengths_beside_their_wins() -> None:
    found = systems.analyse([row for row in three_models(200) if row["model_a"] == "good"], Options(by="model"))
    assert rows_of(found, "wins")
    assert not rows_of(found, "strengths")


def test_groups_that_no_pair_connects_are_told_so() -> None:
    apart = [row | {"model_a": "x" + row["model_a"], "model_b": "y" + row["model_b"]} for row in three_models(40)]
    rows = rows_of(systems.analyse([*three_models(200), *apart], Options(by="model")), "strengths")
    assert [row["group"] for row in rows[:3]] == ["good", "fair", "poor"]
    assert {row["why"] for row in rows[3:]} == {"no chain of pairs connects it with the others"}
