"""Label token against slot: both are recovered where names and order are crossed, and it is said where they are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_cli.bias.estimate import Floats, Ints
from cai_cli.bias.position import position_from_probabilities, position_from_votes
from cai_cli.bias.tokens import SlotAndToken, token_and_slot, token_and_slot_from_votes

B, T, NOISE, SPREAD = 0.679, 0.5, 0.5, 2.06


def judged(rng: np.random.Generator, n: int, token: float) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    x, (s_ab, s_ba) = rng.normal(0, SPREAD, n), rng.choice([-1.0, 1.0], (2, n))
    return x + B + token * s_ab, -x + B + token * s_ba, s_ab, s_ba, np.arange(float(n))


def soft(rng: np.random.Generator, n: int, token: float) -> SlotAndToken:
    f_ab, f_ba, *rest = judged(rng, n, token)
    return token_and_slot(f_ab + rng.normal(0, NOISE, n), f_ba + rng.normal(0, NOISE, n), *rest)


def votes(rng: np.random.Generator, logit: Floats) -> Ints:
    return np.where(rng.random(logit.shape) < (1 + np.tanh(logit / 2)) / 2, 1, -1)


def hard(rng: np.random.Generator, n: int, token: float) -> SlotAndToken:
    f_ab, f_ba, *rest = judged(rng, n, token)
    return token_and_slot_from_votes(votes(rng, f_ab), votes(rng, f_ba), *rest)


def coverage(found: list, truth: float) -> float:
    return float(np.mean([one.ci[0] <= truth <= one.ci[1] for one in found]))


def error(found: list, truth: float) -> float:
    return float(np.sqrt(np.mean([(one.value - truth) ** 2 for one in found])))


def test_probabilities_tell_slot_and_token_apart() -> None:
    rng = np.random.default_rng(1)
    found = [soft(rng, 100, T) for _ in range(500)]
    slots, tokens = [one.slot for one in found], [one.token for one in found]
    assert error(slots, B) < 0.040
    assert error(tokens, T) < 0.057
    assert 0.92 <= coverage(slots, B) <= 0.98
    assert 0.92 <= coverage(tokens, T) <= 0.98


@pytest.mark.parametrize("n", [100, 300])
def test_verdicts_tell_slot_and_token_apart(n: int) -> None:
    rng = np.random.default_rng(2)
    found = [hard(rng, n, T) for _ in range(400)]
    slots, tokens = [one.slot for one in found], [one.token for one in found]
    assert np.mean([one.value for one in tokens]) == pytest.approx(T, abs=0.04)
    assert np.mean([one.value for one in slots]) == pytest.approx(B, abs=0.04)
    assert coverage(slots, B) >= 0.92
    assert coverage(tokens, T) >= 0.92


@pytest.mark.parametrize("judge", [soft, hard])
def test_a_judge_without_a_favourite_name_is_not_given_one(judge: object) -> None:
    rng = np.random.default_rng(3)
    assert np.mean([judge(rng, 200, 0.0).token.significant for _ in range(400)]) <= 0.07  # type: ignore[operator]


def test_a_favourite_name_is_seen() -> None:
    rng = np.random.default_rng(4)
    assert np.mean([soft(rng, 60, T).token.significant for _ in range(100)]) == 1.0
    assert np.mean([hard(rng, 1000, T).token.significant for _ in range(60)]) >= 0.95


def test_without_names_the_slot_is_that_of_the_plain_estimators() -> None:
    rng = np.random.default_rng(5)
    f_ab, f_ba, *_ = judged(rng, 300, 0.0)
    nothing, prompt = np.zeros(300), np.arange(300.0)
    f_ba = f_ba + rng.normal(0, NOISE, 300)
    found, plain = token_and_slot(f_ab, f_ba, nothing, nothing, prompt), position_from_probabilities(f_ab, -f_ba)
    assert (found.slot.value, found.slot.se) == (pytest.approx(plain.value), pytest.approx(plain.se))
    assert (found.token.value, "is not seen" in found.token.warning) == (None, True)
    ab, ba = votes(rng, f_ab), votes(rng, f_ba)
    by_votes = token_and_slot_from_votes(ab, ba, nothing, nothing, prompt).slot
    counted = position_from_votes(int(((ab == 1) & (ba == 1)).sum()), int(((ab == -1) & (ba == -1)).sum()))
    assert by_votes.value == pytest.approx(counted.value)
    assert by_votes.se == pytest.approx(counted.se)


@pytest.mark.parametrize("estimator", [token_and_slot, token_and_slot_from_votes])
def test_one_name_in_one_slot_cannot_be_told_from_the_slot(estimator: object) -> None:
    first, second = np.array([1, -1] * 10), np.array([1, -1] * 10)
    found = estimator(first, second, np.ones(20), np.ones(20), np.arange(20.0))  # type: ignore[operator]
    assert (found.slot.value, found.token.value) == (None, None)
    assert "cannot be told apart" in found.slot.warning


def test_verdicts_without_conflict_tell_nothing() -> None:
    ones = np.ones(20, int)
    found = token_and_slot_from_votes(ones, -ones, np.ones(20), -np.ones(20), np.arange(20.0))
    assert (found.slot.value, found.token.value) == (None, None)
    assert "votes alone do not tell" in found.token.warning


def test_separated_verdicts_have_a_finite_answer() -> None:
    slot = np.array([1, 1, 1, -1, -1, -1])
    found = token_and_slot_from_votes(slot, slot, slot.astype(float), slot.astype(float), np.arange(6.0))
    assert found.token.value is not None
    assert 0 < found.token.value < 3
    assert found.slot.value == pytest.approx(0, abs=1e-6)


def test_two_prompts_are_too_few_and_bad_arrays_are_refused() -> None:
    found = token_and_slot(np.ones(4), np.ones(4), np.array([1.0, 1, -1, -1]), np.array([1.0, -1, 1, -1]), np.zeros(4))
    assert "fewer than three prompts" in found.slot.warning
    with pytest.raises(ValueError, match="one length"):
        token_and_slot(np.ones(4), np.ones(3), np.ones(4), np.ones(4), np.ones(4))
    with pytest.raises(ValueError, match="finite"):
        token_and_slot(np.array([np.nan, 1.0]), np.ones(2), np.ones(2), np.ones(2), np.ones(2))


@given(st.integers(0, 2**31))
def test_naming_the_answers_the_other_way_round_changes_nothing(seed: int) -> None:
    f_ab, f_ba, s_ab, s_ba, prompt = judged(np.random.default_rng(seed), 30, T)
    f_ab = f_ab + np.random.default_rng(seed + 1).normal(0, NOISE, 30)
    turned = np.random.default_rng(seed).random(30) < 0.5
    one = token_and_slot(f_ab, f_ba, s_ab, s_ba, prompt)
    swap = [np.where(turned, right, left) for left, right in ((f_ab, f_ba), (f_ba, f_ab), (s_ab, s_ba), (s_ba, s_ab))]
    other = token_and_slot(*swap, prompt)
    assert other.slot.value == pytest.approx(one.slot.value)
    assert other.token.ci == pytest.approx(one.token.ci)
