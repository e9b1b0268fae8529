"""Win rates from few gold labels and many by a judge: how often the interval holds the truth, and how much narrower it is."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from cai_cli.bias.estimate import Estimate, Floats
from cai_cli.bias.ppi import FEWEST, cross_predicted, powered_mean, powered_win_rate

PAIRS, TIMES = 2000, 150
TRUTH = 0.5 + math.asin(0.3) / math.pi  # P(the longer answer is better), quality and length being normal, correlated .3


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Pairs by a judge that loves length, and which of them a human looked at."""

    z: Floats
    length: Floats
    gold: Floats
    weight: Floats
    prompt: Floats
    truth: Floats

    @property
    def side(self) -> Floats:
        """The longer answer's."""
        return np.sign(self.length)


def judged(seed: int, looked_at: int, doubtful_first: bool = False, a_prompt: int = 1) -> Judged:
    rng = np.random.default_rng(seed)
    theta = rng.normal(size=PAIRS)
    length = 0.3 * theta + math.sqrt(1 - 0.3**2) * rng.normal(size=PAIRS)
    theta, length = (np.repeat(one[: PAIRS // a_prompt], a_prompt) for one in (theta, length))
    z = 1.5 * theta + 0.8 * length + rng.normal(0, 0.9, len(theta))
    doubt = 1 / (1 + np.abs(z)) if doubtful_first else np.ones(len(z))
    chance = looked_at * (0.5 / len(z) + 0.5 * doubt / doubt.sum())
    seen = rng.random(len(z)) < chance
    prompt = np.repeat(rng.random(PAIRS // a_prompt), a_prompt)
    truth = np.sign(theta)
    return Judged(
        z=z, length=length, gold=np.where(seen, truth, np.nan), weight=1 / chance, prompt=prompt, truth=truth
    )  # fmt: skip


def half(found: Estimate) -> float:
    assert found.ci is not None
    return (found.ci[1] - found.ci[0]) / 2


def holds(found: Estimate, truth: float) -> bool:
    return found.ci is not None and found.ci[0] <= truth <= found.ci[1]


@pytest.mark.parametrize(("doubtful_first", "a_prompt"), [(False, 1), (True, 1), (False, 4)])
def test_the_interval_holds_the_truth_and_is_narrower_than_by_gold_alone(doubtful_first: bool, a_prompt: int) -> None:
    rows = []
    for seed in range(TIMES):
        one = judged(seed, 100 * a_prompt, doubtful_first, a_prompt)
        found = powered_win_rate(one.z, one.length[:, np.newaxis], one.side, one.gold, one.weight, one.prompt)
        each = found.estimate, found.gold_only, found.judge_only
        rows.append([holds(found.estimate, TRUTH), holds(found.judge_only, TRUTH), *map(half, each)])
    ours, naive, width, gold_width, _ = np.mean(rows, axis=0)
    assert 0.91 <= ours <= 0.99  # of 150 runs; see the docstring for 2,000
    assert naive <= 0.35
    assert width < (0.8 if a_prompt == 1 else 0.9) * gold_width


def test_looking_at_the_doubtful_first_does_not_bias_the_estimate_but_forgetting_it_does() -> None:
    values = []
    for seed in range(60):
        one = judged(seed, 300, doubtful_first=True)
        right, even = (np.sign(one.z) == one.truth).astype(float), np.full(PAIRS, 0.5)
        seen = np.where(np.isfinite(one.gold), right, np.nan)
        found = [powered_mean(seen, even, weight, one.prompt).estimate.value for weight in (one.weight, np.ones(PAIRS))]
        values.append([*found, right.mean()])
    weighted, forgotten, truth = np.mean(np.array(values, dtype=float), axis=0)
    assert weighted == pytest.approx(truth, abs=0.01)
    assert forgotten < truth - 0.025


def test_a_judge_that_knows_nothing_costs_nothing() -> None:
    rng = np.random.default_rng(1)
    gold, predicted, prompt = np.full(1000, np.nan), rng.random(1000), rng.random(1000)
    gold[:200] = rng.random(200) < 0.7
    found = powered_mean(gold, predicted, np.ones(1000), prompt)
    assert found.power < 0.2
    assert half(found.estimate) <= 1.02 * half(found.gold_only)
    assert found.effective == pytest.approx(200, rel=0.05)


def test_a_judge_that_is_always_right_is_worth_all_its_labels() -> None:
    rng = np.random.default_rng(2)
    truth, prompt = (rng.random(1000) < 0.7).astype(float), rng.random(1000)
    noisy = truth + rng.normal(0, 0.05, 1000)
    gold = np.where(np.arange(1000) < 100, truth, np.nan)
    found = powered_mean(gold, noisy, np.ones(1000), prompt)
    assert found.power == pytest.approx(1, abs=0.02)
    assert found.effective is not None
    assert found.effective > 3000
    assert half(found.estimate) == pytest.approx(1.96 * truth.std() / math.sqrt(1000), rel=0.1)


def test_power_none_is_gold_alone_and_full_power_is_the_difference_estimator() -> None:
    one = judged(3, 200)
    won, predicted, known = (1 + one.side * one.gold) / 2, 1 / (1 + np.exp(-one.side * one.z)), np.isfinite(one.gold)
    without = powered_mean(won, predicted, one.weight, one.prompt, power=0.0)
    assert without.estimate.value == pytest.approx(without.gold_only.value)
    assert half(without.estimate) == pytest.approx(half(without.gold_only), rel=0.02)
    full = powered_mean(won, predicted, one.weight, one.prompt, power=1.0)
    assert full.estimate.value == pytest.approx(predicted.mean() + (won - predicted)[known].mean())


def test_swapping_the_names_of_the_answers_or_the_sides_does_what_it_must() -> None:
    one, features = judged(4, 150), judged(4, 150).length[:, np.newaxis]
    plain = powered_win_rate(one.z, features, one.side, one.gold, one.weight, one.prompt)
    renamed = powered_win_rate(-one.z, -features, -one.side, -one.gold, one.weight, one.prompt)
    other = powered_win_rate(one.z, features, -one.side, one.gold, one.weight, one.prompt)
    assert plain.estimate.value is not None
    assert renamed.estimate.value == pytest.approx(plain.estimate.value)
    assert other.estimate.value == pytest.approx(1 - plain.estimate.value)


def test_a_tie_is_half_a_win() -> None:
    one = judged(5, 150)
    known = np.flatnonzero(np.isfinite(one.gold))
    tied = one.gold.copy()
    tied[known[:40]] = 0
    found = powered_win_rate(one.z, np.zeros((PAIRS, 0)), one.side, tied, one.weight, one.prompt)
    assert found.gold_only.value == pytest.approx(np.mean((1 + one.side[known] * tied[known]) / 2))
    assert found.estimate.n == len(known)
    tied[known] = 0
    even = powered_win_rate(one.z, np.zeros((PAIRS, 0)), one.side, tied, one.weight, one.prompt)
    assert even.estimate.value == pytest.approx(0.5)
    assert (even.correlation, even.effective, even.power) == (None, None, 0)


def test_with_too_few_prompts_gold_stands_alone() -> None:
    one = judged(6, 100)
    known = np.flatnonzero(np.isfinite(one.gold))[: FEWEST - 1]
    gold = np.full(PAIRS, np.nan)
    gold[known] = one.gold[known]
    found = powered_win_rate(one.z, one.length[:, np.newaxis], one.side, gold, one.weight, one.prompt)
    assert found.estimate == found.gold_only
    assert found.effective is None
    nothing = powered_mean(np.full(4, np.nan), np.ones(4), np.ones(4), np.linspace(0, 0.9, 4))
    assert nothing.estimate.value is None
    assert nothing.judge_only.value == 1


def test_no_pair_is_predicted_by_a_fit_that_saw_the_gold_of_its_prompt() -> None:
    one = judged(7, 200, a_prompt=4)
    mine = one.prompt == one.prompt[np.flatnonzero(np.isfinite(one.gold))[0]]
    turned = np.where(mine, -one.gold, one.gold)
    features = one.length[:, np.newaxis]
    before, after = (cross_predicted(one.z, features, gold, one.weight, one.prompt) for gold in (one.gold, turned))
    assert np.array_equal(before[mine], after[mine])
    assert (before[~mine] != after[~mine]).mean() > 0.8


def test_what_cannot_be_computed_is_refused() -> None:
    one = np.ones(5)
    with pytest.raises(ValueError, match="one length"):
        powered_mean(one, one[:4], one, one)
    with pytest.raises(ValueError, match="finite"):
        powered_mean(one, one * np.nan, one, one)
    with pytest.raises(ValueError, match="above 0"):
        powered_mean(one, one, 0 * one, one)
    with pytest.raises(ValueError, match="side"):
        powered_win_rate(one, np.zeros((5, 0)), 0 * one, one, one, one)
