"""Bradley-Terry strengths: recovered with intervals that hold, on one scale only where pairs connect, finite where all won."""

from __future__ import annotations

import numpy as np
import pytest

from cai_cli.bias.estimate import FEW, Floats, Ints
from cai_cli.bias.strengths import ONE_SIDED, UNCONNECTED, strengths

TRUTH = np.array([-0.6, -0.2, 0.2, 0.6])
SLOT = 0.4


def games(seed: int, n: int) -> tuple[Ints, Ints, Floats, Floats, Floats]:
    """Left, right, whether left won, prompts of about two pairs each, and the slot of the left one."""
    rng = np.random.default_rng(seed)
    left = rng.integers(0, 4, n)
    right = (left + rng.integers(1, 4, n)) % 4
    home = np.where(rng.random(n) < 0.5, 1.0, -1.0)
    won = rng.random(n) < 1 / (1 + np.exp(-(TRUTH[left] - TRUTH[right] + SLOT * home)))
    return left, right, won.astype(float), rng.random(n // 2)[rng.integers(0, n // 2, n)], home


def test_strengths_and_slot_are_recovered_and_their_intervals_hold() -> None:
    inside, values = [], []
    for seed in range(100):
        left, right, won, prompt, home = games(seed, 300)
        found = strengths(left, right, won, prompt, 4, home=home)
        assert found.home is not None
        each = [*found.systems, found.home]
        values.append([one.value for one in each])
        inside += [
            one.ci is not None and one.ci[0] <= truth <= one.ci[1] for one, truth in zip(each, [*TRUTH, SLOT], strict=True)
        ]
    assert np.mean(np.array(values, dtype=float), axis=0) == pytest.approx([*TRUTH, SLOT], abs=0.06)
    assert 0.92 <= np.mean(inside) <= 0.975


def test_saying_every_pair_five_times_or_with_five_times_the_weight_tells_nothing_new() -> None:
    left, right, won, _, _ = games(1, 400)
    prompt = np.random.default_rng(2).random(400)
    once = strengths(left, right, won, prompt, 4, ridge=1e-6)
    tiled = [np.tile(one, 5) for one in (left, right)]
    often = strengths(tiled[0], tiled[1], np.tile(won, 5), np.tile(prompt, 5), 4, ridge=1e-6)
    heavy = strengths(left, right, won, prompt, 4, weight=np.full(400, 5.0), ridge=1e-6)
    for one, other, third in zip(once.systems, often.systems, heavy.systems, strict=True):
        assert other.value == pytest.approx(one.value, abs=1e-4)
        assert other.ci == pytest.approx(one.ci, abs=1e-4)
        assert third.ci == pytest.approx(one.ci, abs=1e-4)
    assert sum(one.value or 0 for one in once.systems) == pytest.approx(0, abs=1e-6)


def test_which_one_is_called_left_decides_nothing() -> None:
    left, right, won, prompt, home = games(3, 200)
    one, other = strengths(left, right, won, prompt, 4, home=home), strengths(right, left, 1 - won, prompt, 4, home=-home)
    assert [each.value for each in one.systems] == pytest.approx([each.value for each in other.systems])


def test_a_probability_is_a_share_of_a_win() -> None:
    left, right = np.zeros(400, dtype=np.int64), np.ones(400, dtype=np.int64)
    prompt = np.random.default_rng(4).random(400)
    soft = strengths(left, right, np.full(400, 0.75), prompt, 2, ridge=1e-6)
    assert soft.systems[0].value == pytest.approx(np.log(3) / 2, abs=1e-3)
    assert soft.home is None


def test_systems_that_never_met_are_not_put_on_one_scale() -> None:
    left, right = np.array([0, 1, 2, 1, 4, 5] * 20), np.array([1, 2, 0, 0, 5, 4] * 20)
    prompt = np.random.default_rng(5).random(120)
    found = strengths(left, right, np.random.default_rng(6).random(120), prompt, 7).systems
    assert [one.warning for one in found] == ["", "", "", *[UNCONNECTED] * 4]
    assert [one.value is None for one in found] == [False, False, False, True, True, True, True]
    assert [one.n for one in found] == [60, 60, 40, 0, 40, 40, 0]
    assert sum(one.value or 0 for one in found) == pytest.approx(0, abs=1e-9)


def test_one_that_always_won_is_the_strongest_at_a_finite_strength_without_an_interval() -> None:
    left, right, won, prompt, _ = games(7, 300)
    won = np.where(left == 0, 1.0, np.where(right == 0, 0.0, won))
    found = strengths(left, right, won, prompt, 4).systems
    assert found[0].value == max(one.value or 0 for one in found)
    assert np.isfinite(found[0].value)
    assert [one.warning for one in found] == [ONE_SIDED, "", "", ""]
    assert [one.ci is None for one in found] == [True, False, False, False]


def test_one_prompt_gives_no_interval_and_no_pairs_no_number() -> None:
    left, right, won, _, _ = games(8, 60)
    assert {one.warning for one in strengths(left, right, won, np.full(60, 0.5), 4).systems} == {FEW}
    none = strengths(left[:0], right[:0], won[:0], won[:0], 3, home=won[:0])
    assert {one.warning for one in none.systems} == {UNCONNECTED}
    assert none.home is not None
    assert none.home.ci is None


def test_what_makes_no_sense_is_refused() -> None:
    left, right, won, prompt, _ = games(9, 10)
    with pytest.raises(ValueError, match="one length"):
        strengths(left, right[:9], won, prompt, 4)
    with pytest.raises(ValueError, match="from 0 to 2"):
        strengths(left, right, won, prompt, 3)
    with pytest.raises(ValueError, match="with itself"):
        strengths(left, left, won, prompt, 4)
