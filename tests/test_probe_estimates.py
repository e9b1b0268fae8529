"""Probes give back the effect that was put in, with intervals that hold it, in the world where every bias is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_cli.bias.estimate import Estimate, Floats, Ints
from cai_cli.bias.probe import detectable, from_probabilities, from_votes, without

C, B, NOISE, SPREAD = 0.8, 0.679, 0.5, 2.06
Asked = tuple[Floats, Floats, Floats, Floats]


def changes(rng: np.random.Generator, n: int) -> Floats:
    return rng.uniform(0.5, 1.4, n) * rng.choice([-1.0, 1.0], n)


def said(rng: np.random.Generator, logit: Floats, lapses: float) -> Floats:
    lapsed = rng.random(logit.shape) < lapses
    return np.where(lapsed, rng.choice([-4.0, 4.0], logit.shape), logit + rng.normal(0, NOISE, logit.shape))


def both_orders(rng: np.random.Generator, pairs: int, c: float, lapses: float = 0.0) -> Asked:
    x, change = rng.normal(0, SPREAD, pairs), changes(rng, pairs)
    before, after = (np.concatenate([said(rng, x + moved + slot * B, lapses) for slot in (1, -1)]) for moved in (0.0, c * change))
    return np.tile(change, 2), before, after, np.tile(np.arange(float(pairs)), 2)


def verdicts(rng: np.random.Generator, n: int, c: float) -> tuple[Floats, Ints, Ints, Floats]:
    x, change = rng.normal(0, SPREAD, n) + B * rng.choice([-1, 1], n), changes(rng, n)
    sides = [np.where(rng.random(n) < (1 + np.tanh(at / 2)) / 2, 1, -1) for at in (x, x + c * change)]
    return change, sides[0], sides[1], np.arange(float(n))


def coverage(found: list[Estimate], truth: float) -> float:
    return float(np.mean([one.ci[0] <= truth <= one.ci[1] for one in found if one.ci is not None]))


def error(found: list[Estimate], truth: float) -> float:
    return float(np.sqrt(np.mean([(one.value - truth) ** 2 for one in found if one.value is not None])))


def test_fifty_probes_with_probabilities_recover_the_effect() -> None:
    rng = np.random.default_rng(1)
    found = [from_probabilities(*both_orders(rng, 50, C)) for _ in range(600)]
    assert error(found, C) < 0.080
    assert 0.93 <= coverage(found, C) <= 0.97
    assert np.mean([detectable(one) for one in found]) == pytest.approx(0.20, abs=0.01)


def test_an_effect_of_nothing_is_found_no_more_often_than_the_level_says() -> None:
    rng = np.random.default_rng(2)
    assert np.mean([from_probabilities(*both_orders(rng, 50, 0.0)).significant for _ in range(600)]) <= 0.07
    assert np.mean([from_votes(*verdicts(rng, 200, 0.0)).significant for _ in range(400)]) <= 0.08


def test_what_is_detectable_is_found_in_four_runs_of_five() -> None:
    rng = np.random.default_rng(3)
    soft = [from_probabilities(*both_orders(rng, 50, 0.20)).significant for _ in range(400)]
    hard = [from_votes(*verdicts(rng, 200, 0.82)).significant for _ in range(400)]
    assert (np.mean(soft), np.mean(hard)) == (pytest.approx(0.8, abs=0.06), pytest.approx(0.8, abs=0.08))


def test_a_few_lapses_cost_less_than_they_cost_least_squares() -> None:
    rng = np.random.default_rng(4)
    asked = [both_orders(rng, 50, C, lapses=0.05) for _ in range(400)]
    found = [from_probabilities(*one) for one in asked]
    plain = [Estimate(value=float(d @ (after - before) / (d @ d))) for d, before, after, _ in asked]
    assert error(found, C) < 0.9 * error(plain, C)
    assert 0.92 <= coverage(found, C) <= 0.98


def test_what_one_probe_in_eight_does_is_part_of_the_effect() -> None:
    change, moved = np.ones(80), np.repeat([0.0, 1.0], [70, 10])
    assert from_probabilities(change, np.zeros(80), moved, np.arange(80.0)).value == pytest.approx(10 / 80)


@pytest.mark.parametrize(("n", "least"), [(50, 0.93), (200, 0.92), (1000, 0.92)])
def test_verdicts_recover_the_effect_and_the_interval_covers(n: int, least: float) -> None:
    rng = np.random.default_rng(n)
    found = [from_votes(*verdicts(rng, n, C)) for _ in range(400)]
    assert np.mean([one.value for one in found if one.value is not None]) == pytest.approx(C, abs=0.09)
    assert coverage(found, C) >= least
    assert error(found, C) < {50: 0.68, 200: 0.32, 1000: 0.14}[n]


def test_verdicts_all_turned_one_way_have_a_finite_answer_with_a_wide_interval() -> None:
    found = from_votes(np.ones(6), -np.ones(6, int), np.ones(6, int), np.arange(6.0))
    assert found.value == pytest.approx(np.log(6.5 / 0.5))
    assert found.ci is not None
    assert found.ci[0] > 0
    assert found.p_value is not None
    assert found.p_value < 0.05


@given(st.integers(0, 2**31))
def test_naming_the_answers_the_other_way_round_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    change, before, after, prompt = both_orders(rng, 12, C)
    sign = rng.choice([-1.0, 1.0], len(change))
    one, other = (
        from_probabilities(change, before, after, prompt),
        from_probabilities(sign * change, sign * before, sign * after, prompt),
    )
    assert other.value == pytest.approx(one.value)
    assert other.se == pytest.approx(one.se)
    change, first, second, prompt = verdicts(rng, 40, C)
    turned = rng.choice([-1, 1], 40)
    assert from_votes(turned * change, turned * first, turned * second, prompt) == from_votes(change, first, second, prompt)


def test_rows_of_one_prompt_that_are_alike_do_not_make_an_interval_shorter() -> None:
    change, before, after, prompt = verdicts(np.random.default_rng(5), 60, C)
    one = from_votes(change, before, after, prompt)
    copies = from_votes(*(np.tile(column, 4) for column in (change, before, after, prompt)))
    assert one.ci is not None
    assert copies.ci is not None
    assert copies.ci[1] - copies.ci[0] > 0.85 * (one.ci[1] - one.ci[0])


def test_abstentions_are_left_out() -> None:
    change, before, after, prompt = both_orders(np.random.default_rng(6), 30, C)
    whole = from_probabilities(change[5:], before[5:], after[5:], prompt[5:])
    before[:5] = np.nan
    assert from_probabilities(change, before, after, prompt) == whole


@pytest.mark.parametrize(
    ("change", "prompts", "warning"), [(np.zeros(9), 9, "no probe changed"), (np.ones(9), 2, "fewer than three prompts")]
)
def test_probes_that_tell_nothing_give_no_number(change: Floats, prompts: int, warning: str) -> None:
    found = from_probabilities(change, np.zeros(9), np.arange(9.0), np.arange(9.0) % prompts)
    assert (found.value, detectable(found)) == (None, None)
    assert warning in found.warning


def test_verdicts_that_tell_nothing_give_no_number() -> None:
    ones, prompt = np.ones(5, int), np.arange(5.0)
    assert "no verdict was turned" in from_votes(np.ones(5), ones, ones, prompt).warning
    assert "no probe changed" in from_votes(np.zeros(5), ones, -ones, prompt).warning
    assert "turned in fewer than three prompts" in from_votes(np.ones(5), ones, -ones, np.zeros(5)).warning


def test_changes_that_all_probes_share_have_the_p_of_a_sign_test() -> None:
    found = from_probabilities(np.ones(8), np.zeros(8), np.ones(8), np.arange(8.0))
    assert (found.value, found.ci) == (1.0, None)
    assert found.p_value == pytest.approx(2 * 0.5**8)


def test_bad_arrays_are_refused() -> None:
    with pytest.raises(ValueError, match="one length"):
        from_probabilities(np.ones(3), np.ones(2), np.ones(3), np.ones(3))
    with pytest.raises(ValueError, match="finite"):
        from_votes(np.array([np.nan, 1.0]), np.ones(2, int), np.ones(2, int), np.ones(2))


def test_an_effect_is_freed_of_what_its_probes_moved_along() -> None:
    """Lists are worth .4 and words 1.2: what a list mark is worth as a word is taken off, and its uncertainty is added."""
    rng, freed, plain = np.random.default_rng(11), [], []
    for _ in range(60):
        d = rng.choice([-1.0, 1.0], 60) * rng.uniform(1.0, 1.8, 60)
        along, prompt, before = d * rng.uniform(0.03, 0.08, 60), np.arange(60), rng.normal(0, 2, 60)
        after = before + 0.4 * d + 1.2 * along + rng.normal(0, 0.3, 60)
        length = changes(rng, 60)
        other = from_probabilities(length, before, before + 1.2 * length + rng.normal(0, 0.3, 60), prompt)
        plain.append(from_probabilities(d, before, after, prompt))
        freed.append(without(plain[-1], d, along, other, prompt))
    assert coverage(plain, 0.4) < 0.8
    assert coverage(freed, 0.4) >= 0.9
    assert np.mean([one.value for one in freed]) == pytest.approx(0.4, abs=0.01)
    assert all(one.se > other.se for one, other in zip(freed, plain, strict=True))
    nothing = Estimate(warning="few")
    assert without(plain[0], d, along, nothing, prompt) is plain[0]
    assert without(nothing, d, along, plain[0], prompt) is nothing
    assert without(plain[0], d, np.zeros(60), plain[0], prompt) is plain[0]
