"""Constitutions: what loads, what is refused and where, what is inherited, and the law of the pick."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_cli.constitution import BUILT_IN, HHH, PRIORITIES, Constitution, How, Principle, load
from cai_cli.errors import Fix
from cai_cli.shipped import shipped

ENTRY = "  - {{name: {0}, category: honesty, description: d {0}, critique_prompt: c {0}, revision_prompt: r {0}}}\n"


def write(folder: Path, text: str, name: str = "own.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def entries(*names: str) -> str:
    return "principles:\n" + "".join(ENTRY.format(name) for name in names)


def made(*names: str, weights: dict[str, float] | None = None) -> Constitution:
    principles = tuple(
        Principle(
            name=name,
            category="c",
            description="d",
            critique_prompt="q",
            revision_prompt="r",
            weight=(weights or {}).get(name, 1.0),
        )
        for name in names
    )
    return replace(BUILT_IN, principles=principles)


def problems(path: Path) -> list[str]:
    with pytest.raises(Fix) as caught:
        load(path)
    return [message.removeprefix(str(path.parent) + "/") for message, _ in caught.value.problems]


def test_the_shipped_one_loads_and_covers_the_three_categories() -> None:
    general = load(shipped("configs", "constitutions", "general.yaml"))
    assert {principle.category for principle in general.principles} == {"harmlessness", "honesty", "helpfulness"}
    assert {criterion.category for criterion in general.preferences} == {"harmlessness", "honesty", "helpfulness"}


def test_json_is_yaml(tmp_path: Path) -> None:
    entry = {"name": "p", "category": "c", "description": "d", "critique_prompt": "q", "revision_prompt": "r", "weight": 2}
    found = load(write(tmp_path, json.dumps({"name": "j", "version": "1", "principles": [entry]})))
    assert (found.version, found.principles[0].weight, found.preferences[0].text) == ("1", 2.0, "d")


def test_all_problems_at_once_with_file_and_line(tmp_path: Path) -> None:
    text = (
        "name: x\nversion: 3.10\nprincipals: []\nprinciples:\n"
        "  - name: a\n    categry: c\n    description: d\n    critique_prompt: q\n    revision_prompt: 7\n    weight: -1\n"
        "  - name: hhh\n    category: c\n    description: d\n    critique_prompt: q\n    revision_prompt: r\n"
    )
    found = problems(write(tmp_path, text))
    assert [message.split(":")[:2] for message in found] == [["own.yaml", n] for n in ("3", "2", "6", "5", "9", "10", "11")]
    assert "unknown key 'principals'" in found[0]
    assert "must be text" in found[1]
    assert "'category' is missing" in found[3]


def test_a_near_miss_is_named(tmp_path: Path) -> None:
    with pytest.raises(Fix) as caught:
        load(write(tmp_path, "name: x\nprincipels: []\n"))
    assert "'principles'" in caught.value.problems[0][1]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: x\n", "there are none"),
        ("name: x\nprinciples: {}\n", "must be a list"),
        ("name: x\n" + entries("a", "a"), "'a' is there twice"),
        ("name: x\nextends: genral\n", "there is no constitution 'genral'"),
        ("name: x\n" + entries("a").replace("}", ", weight: 0}"), "every weight is 0"),
        ("name: x\n" + entries("a").replace("}", ", weight: .inf}"), "own.yaml"),
        ("name: x\n" + entries("a").replace("}", ", examples: [1]}"), "examples[0]: must be text"),
    ],
)
def test_refused(tmp_path: Path, text: str, said: str) -> None:
    assert any(said in message for message in problems(write(tmp_path, text)))


def test_extends_puts_the_inherited_first_and_lets_a_name_be_overridden(tmp_path: Path) -> None:
    write(tmp_path, "name: base\n" + entries("a", "b"), "base.yaml")
    child = "name: child\nextends: base.yaml\n" + entries("c", "a").replace("d a", "mine")
    found = load(write(tmp_path, child))
    assert [(p.name, p.description) for p in found.principles] == [("a", "mine"), ("b", "d b"), ("c", "d c")]
    assert [criterion.text for criterion in found.preferences] == ["mine", "d b", "d c"]


def test_extends_a_shipped_name_and_keeps_its_written_preferences(tmp_path: Path) -> None:
    general = load(shipped("configs", "constitutions", "general.yaml"))
    found = load(write(tmp_path, "name: child\nextends: general\n" + entries("extra")))
    assert found.preferences == general.preferences
    assert found.principles[:-1] == general.principles


def test_a_cycle_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "name: b\nextends: own.yaml\n" + entries("b"), "b.yaml")
    path = write(tmp_path, "name: a\nextends: b.yaml\n" + entries("a"))
    assert problems(path) == ["b.yaml:2: extends: 'own.yaml' extends this one in turn"]


def test_the_fingerprint_sees_the_text_and_not_the_layout(tmp_path: Path) -> None:
    first = load(write(tmp_path, "name: x\n" + entries("a")))
    again = load(write(tmp_path, "# why\nname:   x\n\n" + entries("a")))
    other = load(write(tmp_path, "name: x\n" + entries("a").replace("c a", "c b")))
    assert first.fingerprint == again.fingerprint != other.fingerprint


def test_count_0_is_the_built_in_principle() -> None:
    assert made("a").pick("all", 0, 1, "row", 1) == (HHH,)
    assert made("a").pick_preferences("weighted", 0, 1, "row", 1)[0].name == "hhh"
    assert made("a").principle("hhh") is HHH


def test_in_order_rotates_by_step() -> None:
    constitution = made("a", "b", "c")
    steps = [[p.name for p in constitution.pick("in_order", 2, 1, "row", step)] for step in (1, 2, 3)]
    assert steps == [["a", "b"], ["c", "a"], ["b", "c"]]


def test_all_and_weight_0() -> None:
    constitution = made("a", "b", "c", weights={"b": 0.0})
    assert [p.name for p in constitution.pick("all", 1, 1, "row", 1)] == ["a", "c"]
    for how in ("weighted", "uniform", "in_order"):
        assert {p.name for n in range(40) for p in constitution.pick(how, 3, n, "row", 1)} == {"a", "c"}


def test_weights_are_shares_and_uniform_ignores_them() -> None:
    constitution = made("a", "b", weights={"a": 3.0})
    picked = [constitution.pick("weighted", 1, 1, f"row{n}", 1)[0].name for n in range(2000)]
    assert 0.72 < picked.count("a") / 2000 < 0.78
    evenly = [constitution.pick("uniform", 1, 1, f"row{n}", 1)[0].name for n in range(2000)]
    assert 0.46 < evenly.count("a") / 2000 < 0.54


@given(st.permutations(["a", "b", "c", "d", "e"]), st.integers(), st.text(max_size=8), st.integers(1, 9), st.integers(1, 5))
def test_a_pick_does_not_hang_on_the_order_of_principles(names: list[str], seed: int, row: str, step: int, count: int) -> None:
    shuffled, sorted_ = made(*names), made(*sorted(names))
    for how in ("weighted", "uniform"):
        assert shuffled.pick(how, count, seed, row, step) == sorted_.pick(how, count, seed, row, step)


GENERAL = shipped("configs", "constitutions", "general.yaml")


@pytest.mark.parametrize("how", ["weighted", "uniform"])
@pytest.mark.parametrize("base", [load(GENERAL), made("a", "b", "c", weights={"a": 5.0, "b": 0.5})], ids=["general", "three"])
def test_a_principle_of_average_weight_takes_its_share_of_the_picks_and_moves_no_other(base: Constitution, how: How) -> None:
    ids, n = [f"row-{k}" for k in range(10_000)], len(base.principles)
    average = sum(one.weight for one in base.principles) / n
    new = replace(base.principles[0], name="brand_new", weight=average)
    more = replace(base, principles=(*base.principles, new))
    before = [base.pick(how, 1, 7, row, 1)[0].name for row in ids]
    after = [more.pick(how, 1, 7, row, 1)[0].name for row in ids]
    changed = [now for was, now in zip(before, after, strict=True) if was != now]
    expected = 1 / (n + 1)
    assert set(changed) == {"brand_new"}
    assert abs(len(changed) / len(ids) - expected) <= 3 * (expected * (1 - expected) / len(ids)) ** 0.5


def test_a_principle_added_changes_only_the_picks_that_it_wins() -> None:
    few, more = made("a", "b", "c", "d"), made("a", "b", "c", "d", "new")
    before = [few.pick("weighted", 1, 7, f"row{n}", 1)[0].name for n in range(3000)]
    after = [more.pick("weighted", 1, 7, f"row{n}", 1)[0].name for n in range(3000)]
    assert all(now in (was, "new") for was, now in zip(before, after, strict=True))
    assert 0.17 < after.count("new") / 3000 < 0.23


def test_rounds_draw_independently() -> None:
    constitution = made("a", "b", "c", "d")
    same = sum(
        constitution.pick("weighted", 1, 1, f"r{n}", 1) == constitution.pick("weighted", 1, 1, f"r{n}", 2) for n in range(2000)
    )
    assert 0.21 < same / 2000 < 0.29


# Priorities


def test_a_constitution_without_priorities_keeps_the_fingerprint_that_it_had_before_there_were_any(tmp_path: Path) -> None:
    found = load(write(tmp_path, "name: x\n" + entries("a").replace("}", ", weight: 2}")))
    assert found.fingerprint == "ca26b6d7e5532310f38cc66f10272f61287548d5a7acc978fe2f31dfe876053b"
    with_one = load(write(tmp_path, "name: x\n" + entries("a").replace("}", ", weight: 2, priority: safe}")))
    assert with_one.fingerprint != found.fingerprint


def test_rank_puts_safe_first_and_what_has_no_priority_last(tmp_path: Path) -> None:
    rows = "".join(ENTRY.format(name).replace("}", f", priority: {name}}}") for name in reversed(PRIORITIES))
    found = load(write(tmp_path, "name: x\nprinciples:\n" + rows + ENTRY.format("plain")))
    assert sorted(["plain", *reversed(PRIORITIES)], key=found.rank) == ["safe", "ethical", "guidelines", "helpful", "plain"]
    assert found.rank("plain") == found.rank("hhh") == found.rank("unknown") == len(PRIORITIES)


@pytest.mark.parametrize(
    ("given_", "hint"), [("saef", "did you mean 'safe'?"), ("3", "known are: safe, ethical"), ("''", "known are")]
)
def test_a_priority_that_is_none_is_refused_with_the_ones_there_are(tmp_path: Path, given_: str, hint: str) -> None:
    path = write(tmp_path, "name: x\n" + entries("a").replace("}", f", priority: {given_}}}"))
    with pytest.raises(Fix) as caught:
        load(path)
    ((message, said),) = caught.value.problems
    assert message == f"{path}:3: principles[0].priority: is no priority"
    assert hint in said


def test_a_priority_is_inherited_with_its_principle_and_replaced_with_it(tmp_path: Path) -> None:
    write(tmp_path, "name: base\n" + entries("a", "b").replace("}", ", priority: safe}"), "base.yaml")
    found = load(write(tmp_path, "name: child\nextends: base.yaml\n" + entries("b")))
    assert [one.priority for one in found.principles] == ["safe", ""]
