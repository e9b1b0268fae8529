"""Chance: the same on every machine, in every process, in every order."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_cli.chance import choose, nonce, unit, weighted

NAMES = [f"principle-{n}" for n in range(8)]
keys = st.lists(st.one_of(st.integers(), st.text(), st.floats(allow_nan=False)), max_size=4).map(tuple)


def test_golden_values_never_change() -> None:
    """If one of these changes, every dataset that anybody made with a seed changes."""
    assert unit("seed", 7, "p1", 0) == 0.9029860488818046
    assert nonce(7, "p1") == "6ad2f0eb"
    assert choose(NAMES, 7, "p1") == "principle-3"
    assert weighted(NAMES, [1.0] * 8, 3, 7, "p1") == ["principle-2", "principle-4", "principle-0"]


def test_another_process_with_another_hash_seed_draws_the_same() -> None:
    code = "from cai_cli.chance import unit; print([unit('k', n) for n in range(5)])"
    said = {
        subprocess.run(
            [sys.executable, "-c", code], env={"PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout
        for seed in "12"
    }
    assert said == {f"{[unit('k', n) for n in range(5)]}\n"}


@given(keys)
def test_a_unit_is_in_its_range_and_a_choice_is_an_option(key: tuple[object, ...]) -> None:
    assert 0.0 <= unit(*key) < 1.0
    assert choose(NAMES, *key) in NAMES
    assert len(nonce(*key)) == 8
    assert int(nonce(*key), 16) >= 0


def test_parts_of_a_key_do_not_run_together() -> None:
    assert unit("ab", "c") != unit("a", "bc")
    assert unit(1, 23) != unit(12, 3)


def test_units_are_uniform_and_neighbouring_keys_are_independent() -> None:
    draws = [unit(7, f"p{n}", "side") for n in range(20_000)]
    counts = Counter(int(draw * 20) for draw in draws)
    chi_square = sum((count - 1000) ** 2 / 1000 for count in counts.values())
    assert len(counts) == 20
    assert chi_square < 43.8  # 19 degrees of freedom, p = .001
    pairs = Counter((earlier < 0.5, later < 0.5) for earlier, later in itertools.pairwise(draws))
    assert all(abs(count - 5000) < 250 for count in pairs.values())


def test_a_name_is_drawn_in_proportion_to_its_weight() -> None:
    weights = [1.0, 2.0, 3.0, 4.0]
    counts = Counter(weighted(NAMES[:4], weights, 1, "row", n)[0] for n in range(20_000))
    for name, weight in zip(NAMES, weights, strict=False):
        assert counts[name] / 20_000 == pytest.approx(weight / 10, abs=0.012)  # 3.5 standard deviations


def test_a_name_of_average_weight_takes_only_the_picks_that_it_wins() -> None:
    before = [weighted(NAMES, [1.0] * 8, 1, "row", n)[0] for n in range(9000)]
    after = [weighted([*NAMES, "new"], [1.0] * 9, 1, "row", n)[0] for n in range(9000)]
    changed = [new for old, new in zip(before, after, strict=True) if old != new]
    assert set(changed) == {"new"}
    assert len(changed) / 9000 == pytest.approx(1 / 9, abs=0.012)


@given(order=st.permutations(range(8)), count=st.integers(1, 8), key=st.integers())
def test_the_order_in_which_names_are_listed_does_not_matter(order: list[int], count: int, key: int) -> None:
    weights = [float(n + 1) for n in range(8)]
    picked = weighted(NAMES, weights, count, key)
    assert weighted([NAMES[n] for n in order], [weights[n] for n in order], count, key) == picked
    assert len(set(picked)) == count
    assert weighted(NAMES, weights, 8, key)[:count] == picked


@given(weights=st.lists(st.sampled_from([0.0, 0.5, 3.0]), min_size=8, max_size=8), count=st.integers(0, 9), key=st.integers())
def test_a_weight_of_zero_is_never_drawn(weights: list[float], count: int, key: int) -> None:
    picked = weighted(NAMES, weights, count, key)
    assert len(picked) == min(count, sum(weight > 0 for weight in weights))
    assert all(weights[NAMES.index(name)] > 0 for name in picked)
