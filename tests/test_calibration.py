"""Calibration: what it reaches in a world whose truth is known; names and order decide nothing; which steps are refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr

from cai_cli.bias.calibration import Calibration, Method, cross_fitted, fit, folds_of, no_harm
from cai_cli.bias.estimate import Floats, Ints

SEEDS = 24
METHODS: tuple[Method, ...] = ("platt", "temperature", "isotonic", "none")


class World:
    """theta ~ N(0,1); the judge's opinion is 1.5 theta + c * length + noise; length is correlated rho with theta."""

    def __init__(self, seed: int, c: float = 0.8, rho: float = 0.3, pairs: int = 2000) -> None:
        rng = np.random.default_rng(seed)
        theta = rng.normal(size=pairs)
        self.length = rho * theta + math.sqrt(1 - rho**2) * rng.normal(size=pairs)
        opinion = 1.5 * theta + c * self.length + rng.normal(0, 0.8, pairs)
        ab, ba = opinion + 0.679 + rng.normal(0, 0.5, pairs), opinion - 0.679 + rng.normal(0, 0.5, pairs)
        self.z, self.one = (ab + ba) / 2, np.where(rng.random(pairs) < 0.5, ab, ba)
        self.gold: Ints = np.where(theta > 0, 1, -1)
        self.prompt, self.features = rng.random(pairs), self.length[:, np.newaxis]
        spread = 0.8**2 + 0.5**2 / 2
        precision = 1 / (1 - rho**2) + 1.5**2 / spread
        found = (rho * self.length / (1 - rho**2) + 1.5 * (self.z - c * self.length) / spread) / precision
        p = np.clip(ndtr(found * math.sqrt(precision)), 1e-4, 1 - 1e-4)
        self.oracle: Floats = np.log(p / (1 - p))


def accuracy(logits: Floats, gold: Ints) -> float:
    return float(np.mean((np.sign(logits) == gold) + (logits == 0) / 2))


def loss(logits: Floats, gold: Ints) -> float:
    return float(np.logaddexp(0, -gold * logits).mean())


def calibrated(world: World, gold: int, method: Method = "platt") -> Floats:
    known = slice(gold)
    found = fit(world.z[known], world.features[known], world.gold[known], np.ones(gold), method)
    return found.logits(world.z, world.features)


@pytest.mark.parametrize(("gold", "recovered", "beyond"), [(100, 0.85, 0.02), (300, 0.94, 0.01)])
def test_a_hundred_gold_labels_recover_most_of_what_a_length_bias_took(gold: int, recovered: float, beyond: float) -> None:
    rows = []
    for seed in range(SEEDS):
        world = World(seed)
        rest = slice(gold, None)
        found = [one[rest] for one in (world.one, calibrated(world, gold), world.oracle)]
        rows.append([*(accuracy(one, world.gold[rest]) for one in found), *(loss(one, world.gold[rest]) for one in found)])
    raw, ours, oracle, _, our_loss, oracle_loss = np.mean(rows, axis=0)
    assert (ours - raw) / (oracle - raw) >= recovered
    assert our_loss <= oracle_loss + beyond


def test_a_judge_without_length_bias_loses_nothing_to_the_length_term() -> None:
    worlds = [World(seed, c=0) for seed in range(SEEDS)]
    fell = [accuracy(one.z[100:], one.gold[100:]) - accuracy(calibrated(one, 100)[100:], one.gold[100:]) for one in worlds]
    assert np.mean(fell) <= 0.005


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None)  # the first example imports scipy
@given(seed=st.integers(0, 10_000))
def test_naming_the_answers_the_other_way_round_gives_the_negative_logit(method: Method, seed: int) -> None:
    world, rng = World(seed, pairs=60), np.random.default_rng(seed)
    flip = np.where(rng.random(60) < 0.5, -1, 1)
    weight = rng.uniform(0.5, 3, 60)
    one = fit(world.z, world.features, world.gold, weight, method)
    other = fit(flip * world.z, flip[:, np.newaxis] * world.features, flip * world.gold, weight, method)
    logits = one.logits(world.z, world.features)
    assert np.array_equal(one.logits(-world.z, -world.features), -logits)
    assert np.allclose(other.logits(world.z, world.features), logits, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_rows_decides_nothing(method: Method) -> None:
    world, mixed = World(3, pairs=200), np.random.default_rng(4).permutation(200)
    weight, prompt = np.linspace(1, 4, 200), np.round(world.prompt, 2)
    one = cross_fitted(world.z, world.features, world.gold, weight, prompt, method)
    z, features, gold = world.z[mixed], world.features[mixed], world.gold[mixed]
    other = cross_fitted(z, features, gold, weight[mixed], prompt[mixed], method)
    assert np.allclose(other.held_out, one.held_out[mixed], atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_a_held_out_logit_never_saw_the_gold_of_its_own_prompt(method: Method) -> None:
    world, prompt = World(5, pairs=120), np.repeat(np.random.default_rng(6).random(40), 3)
    mine = prompt == prompt[0]
    turned = np.where(mine, -world.gold, world.gold)
    before = cross_fitted(world.z, world.features, world.gold, np.ones(120), prompt, method)
    after = cross_fitted(world.z, world.features, turned, np.ones(120), prompt, method)
    assert np.array_equal(before.held_out[mine], after.held_out[mine])
    assert method == "none" or not np.array_equal(before.held_out, after.held_out)


def test_gold_that_separates_perfectly_gives_finite_coefficients() -> None:
    z = np.concatenate([np.full(50, 8.0), np.full(50, -8.0)])
    gold = np.where(z > 0, 1, -1)
    features = np.stack([gold * 1e3, gold * 1e-3, np.zeros(100)], axis=1)
    for method in METHODS:
        found = fit(z, features, gold, np.ones(100), method)
        logits = found.logits(z, features)
        assert np.isfinite(logits).all()
        assert (np.sign(logits) == gold).all()
    assert fit(z, features, gold, np.ones(100)).coefficients[-1] == 0


def test_weights_count_as_rows_and_their_scale_says_nothing() -> None:
    world = World(7, pairs=100)
    weight = np.random.default_rng(8).uniform(1, 5, 100)
    one, scaled = (fit(world.z, world.features, world.gold, each, "platt") for each in (weight, 7 * weight))
    assert scaled.coefficients == pytest.approx(one.coefficients)
    heavy = np.where(np.arange(100) < 50, 1e6, 1.0)
    alone = fit(world.z[:50], world.features[:50], world.gold[:50], np.ones(50))
    assert fit(world.z, world.features, world.gold, heavy).coefficients == pytest.approx(alone.coefficients, abs=1e-3)


def test_an_overconfident_judge_is_cooled_and_a_reversed_one_is_turned() -> None:
    world = World(9, c=0)
    known = slice(200)
    sure, turned = (
        fit(scale * world.z[known], world.features[known], world.gold[known], np.ones(200), "temperature") for scale in (5, -1)
    )
    assert 0.2 < sure.coefficients[0] < 0.5
    assert turned.coefficients[0] < -1
    assert (sure.coefficients[1], sure.n, sure.knots.size) == (0, 200, 0)


def test_isotonic_rises_keeps_the_judges_order_and_sees_a_wrong_level() -> None:
    rng = np.random.default_rng(10)
    z = rng.normal(0, 3, 4000)
    right = rng.random(4000) < np.where(np.abs(z) > 2, 0.9, 0.6)  # two levels, which no temperature gives
    gold, none = np.where(right, np.sign(z), -np.sign(z)).astype(np.int64), np.zeros((4000, 0))
    found = fit(z, none, gold, np.ones(4000), "isotonic")
    at = np.array([0.5, 1.0, 1.5, 3.0, 4.0, 5.0])
    p = 1 / (1 + np.exp(-found.logits(at, np.zeros((6, 0)))))
    assert p == pytest.approx([0.6, 0.6, 0.6, 0.9, 0.9, 0.9], abs=0.05)
    line = found.logits(np.linspace(-9, 9, 999), np.zeros((999, 0)))
    assert (np.diff(line) > 0).all()
    assert found.logits(np.zeros(1), np.zeros((1, 0))) == [0]


def test_isotonic_of_ties_alone_says_nothing() -> None:
    found = fit(np.zeros(4), np.zeros((4, 1)), np.array([1, -1, 1, 1]), np.ones(4), "isotonic")
    assert found.logits(np.array([2.0]), np.zeros((1, 1))) == pytest.approx([0.02])


def test_a_step_that_hurts_is_refused_and_one_that_helps_or_does_nothing_is_not() -> None:
    world = World(11)
    known = slice(300)
    z, gold, prompt = world.z[known], world.gold[known], world.prompt[known]
    found = cross_fitted(z, world.features[known], gold, np.ones(300), prompt)
    helps = no_harm(z, found.held_out, gold, np.ones(300), prompt)
    assert not helps.refused
    assert helps.after < helps.before
    hurts = no_harm(found.held_out, -z, gold, np.ones(300), prompt)
    assert hurts.refused
    assert hurts.difference.value == pytest.approx(hurts.after - hurts.before)
    assert not no_harm(z, z, gold, np.ones(300), prompt).refused


def test_harm_within_one_standard_error_is_not_refused() -> None:
    rng = np.random.default_rng(12)
    gold, before, prompt = np.where(rng.random(40) < 0.5, 1, -1), rng.normal(0, 1, 40), rng.random(40)
    found = [no_harm(before, before + rng.normal(0, 1, 40), gold, np.ones(40), prompt) for _ in range(40)]
    sizes = [(one.difference.value or 0) / (one.difference.se or 1) for one in found]
    assert [one.refused for one in found] == [size > 1 for size in sizes]
    assert any(0 < size < 1 for size in sizes)
    assert any(size > 1 for size in sizes)


def test_harm_counts_rows_of_one_prompt_as_one() -> None:
    rng = np.random.default_rng(13)
    gold, before, after, prompt = np.ones(40, dtype=np.int64), rng.normal(1, 1, 40), rng.normal(1, 1, 40), rng.random(40)
    once = no_harm(before, after, gold, np.ones(40), prompt)
    five = [np.tile(each, 5) for each in (before, after, prompt)]
    often = no_harm(five[0], five[1], np.tile(gold, 5), np.ones(200), five[2])
    assert often.difference.se == pytest.approx(once.difference.se)
    heavy = no_harm(before, after, gold, np.full(40, 9.0), prompt)
    assert heavy.difference.ci == pytest.approx(once.difference.ci)


def test_on_one_prompt_any_harm_is_refused() -> None:
    gold, prompt = np.array([1, 1]), np.array([0.5, 0.5])
    assert no_harm(np.ones(2), np.array([0.9, 1.0]), gold, np.ones(2), prompt).refused
    assert not no_harm(np.ones(2), np.array([1.1, 1.0]), gold, np.ones(2), prompt).refused


def test_folds_hold_whole_prompts_and_are_even() -> None:
    prompt = np.repeat(np.random.default_rng(14).random(33), 2)
    fold = folds_of(prompt, 10)
    assert all(len(set(fold[prompt == key])) == 1 for key in prompt)
    assert set(np.bincount(fold) // 2) == {3, 4}
    assert set(folds_of(prompt[:6], 10)) == {0, 1, 2}


def test_what_cannot_be_fitted_is_refused() -> None:
    z, none, gold, one = np.ones(3), np.zeros((3, 0)), np.array([1, -1, 1]), np.ones(3)
    with pytest.raises(ValueError, match="as many pairs"):
        fit(z, none, gold[:2], one)
    with pytest.raises(ValueError, match="as many pairs"):
        fit(z[:0], none[:0], gold[:0], one[:0])
    with pytest.raises(ValueError, match="finite"):
        fit(np.array([1, np.nan, 1]), none, gold, one)
    with pytest.raises(ValueError, match=r"\+1 or -1"):
        fit(z, none, np.array([1, 0, 1]), one)
    with pytest.raises(ValueError, match="above 0"):
        fit(z, none, gold, np.zeros(3))
    with pytest.raises(ValueError, match="two prompts"):
        cross_fitted(z, none, gold, one, np.full(3, 0.5))
    with pytest.raises(ValueError, match="1 features of 3 pairs"):
        Calibration(method="platt", coefficients=np.ones(2), knots=np.zeros((2, 0)), n=1).logits(z, none)
