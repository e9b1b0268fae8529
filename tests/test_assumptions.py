"""What breaks the model of a judge is noticed, and a judge that follows it is left in peace: by the sizes of the known world."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_cli.bias.assumptions import (
    abstains_by,
    certain_and_wrong,
    fades,
    fades_from_votes,
    heterogeneity,
    knows_nothing,
    lapses,
    reversed_against_panel,
    reversed_sign,
    varies_with,
)
from cai_cli.bias.dependence import Dependence, correlated
from cai_cli.bias.estimate import Estimate, Floats, Ints

B, NOISE, SPREAD = 0.679, 0.5, 2.06
RIGHT = 0.07  # the most false alarms at the level .05, in as many runs as are made here
Rng = np.random.Generator


def rate(of: Callable[[Rng], bool], runs: int, seed: int) -> float:
    rng = np.random.default_rng(seed)
    return float(np.mean([of(rng) for _ in range(runs)]))


def said(rng: Rng, logit: Floats, lapse: float = 0.0) -> Floats:
    lapsed = rng.random(logit.shape) < lapse
    return np.where(lapsed, rng.choice([-4.0, 4.0], logit.shape), logit + rng.normal(0, NOISE, logit.shape))


def votes(rng: Rng, logit: Floats) -> Ints:
    return np.where(rng.random(logit.shape) < (1 + np.tanh(logit / 2)) / 2, 1, -1)


def keys(n: int) -> Floats:
    return np.arange(float(n))


# A bias that varies by item


def varying(rng: Rng, pairs: int, repeats: int, sd: float, lapse: float = 0.0) -> Estimate:
    x, b = rng.normal(0, SPREAD, pairs), B + sd * rng.normal(size=pairs)
    ab, ba = said(rng, x + b, lapse), said(rng, x - b, lapse)
    return heterogeneity((ab - ba) / 2, ab[:repeats] - said(rng, x[:repeats] + b[:repeats], lapse))


@pytest.mark.parametrize(("pairs", "repeats", "lapse"), [(60, 60, 0.0), (100, 30, 0.0), (100, 30, 0.05), (300, 300, 0.05)])
def test_noise_alone_is_not_taken_for_a_bias_that_varies(pairs: int, repeats: int, lapse: float) -> None:
    assert rate(lambda rng: varying(rng, pairs, repeats, 0.0, lapse).significant, 400, 1) <= RIGHT + 0.01


@pytest.mark.parametrize(("pairs", "repeats", "sd", "least"), [(60, 60, 0.5, 0.95), (100, 30, 0.5, 0.93), (300, 300, 0.3, 0.97)])
def test_a_bias_that_varies_by_item_is_noticed_and_measured(pairs: int, repeats: int, sd: float, least: float) -> None:
    rng = np.random.default_rng(2)
    found = [varying(rng, pairs, repeats, sd) for _ in range(300)]
    assert np.mean([one.significant for one in found]) >= least
    assert np.mean([one.value for one in found]) == pytest.approx(sd, abs=0.03)
    assert np.mean([one.ci[0] <= sd <= one.ci[1] for one in found]) >= 0.9


def test_a_deterministic_judge_varies_by_item_only() -> None:
    half = np.random.default_rng(3).normal(B, 0.2, 60)
    found = heterogeneity(half, np.zeros(30))
    assert found.value == pytest.approx(half.std(ddof=1))
    assert found.p_value < 1e-6
    same = heterogeneity(np.full(60, B), np.zeros(30))
    assert (same.value, same.p_value) == (pytest.approx(0.0, abs=1e-9), 1.0)


def test_a_bias_that_depends_on_something_is_noticed_without_repeats() -> None:
    def noticed(rng: Rng, by: float) -> bool:
        size = np.abs(rng.normal(size=100)) * 1.659  # of sd 1
        return varies_with(B + by * size + rng.normal(0, NOISE / 2**0.5, 100), size, keys(100)).significant

    assert rate(lambda rng: noticed(rng, 0.0), 400, 4) <= RIGHT + 0.01
    assert rate(lambda rng: noticed(rng, 0.1), 400, 5) == pytest.approx(0.8, abs=0.07)


# One that fades


def halves(rng: Rng, n: int, reach: float | None) -> tuple[Floats, Floats, Floats]:
    x = rng.normal(0, SPREAD, n)
    b = B if reach is None else B * np.exp(-np.abs(x) / reach)
    ab, ba = said(rng, x + b), said(rng, x - b)
    return (ab - ba) / 2, (ab + ba) / 2, keys(n)


def test_a_bias_that_fades_with_the_gap_is_noticed() -> None:
    assert rate(lambda rng: fades(*halves(rng, 100, None)).significant, 500, 6) <= RIGHT + 0.01
    rng = np.random.default_rng(7)
    found = [fades(*halves(rng, 100, 2.0)) for _ in range(200)]
    assert np.mean([one.significant and (one.value or 0) < 0 for one in found]) >= 0.95


def test_a_judge_that_says_yes_or_no_only_is_not_said_to_fade() -> None:
    half, gap = np.tile([9.2, 0.0, 0.0], 20), np.tile([0.0, 9.2, -9.2], 20)
    assert fades(half, gap, keys(60)).warning == "it is the same for all pairs"


def test_verdicts_whose_bias_fades_are_noticed_by_how_sure_others_are() -> None:
    def found(rng: Rng, reach: float | None) -> Estimate:
        x = rng.normal(0, SPREAD, 1000)
        b = B if reach is None else B * np.exp(-np.abs(x) / reach)
        return fades_from_votes(votes(rng, x + b), votes(rng, -x + b), np.abs(x + rng.normal(0, 0.6, 1000)), keys(1000))

    assert rate(lambda rng: found(rng, None).significant, 300, 8) <= RIGHT
    assert 0.3 <= rate(lambda rng: found(rng, 2.0).significant, 300, 9) <= 0.6


# One that lapses


def test_lapses_are_noticed_and_noise_is_not() -> None:
    def found(rng: Rng, n: int, lapse: float) -> Estimate:
        x = rng.normal(0, SPREAD, n)
        return lapses((said(rng, x + B, lapse) - said(rng, x - B, lapse)) / 2)

    assert max(rate(lambda rng, n=n: found(rng, n, 0.0).significant, 300, 10) for n in (20, 100, 1000)) <= 0.04  # type: ignore[misc]
    assert rate(lambda rng: found(rng, 100, 0.05).significant, 200, 11) >= 0.95
    assert rate(lambda rng: found(rng, 300, 0.01).significant, 200, 12) >= 0.85
    assert found(np.random.default_rng(13), 4000, 0.05).value == pytest.approx(0.062, abs=0.01)


def test_a_judge_with_few_grades_gives_no_scale_to_measure_lapses_with() -> None:
    assert "more than half" in lapses(np.repeat([0.7, 3.0], [30, 5])).warning


def test_one_that_is_wrong_where_it_is_certain_is_noticed_by_gold() -> None:
    def found(rng: Rng, n: int, lapse: float) -> Estimate:
        theta, length = rng.normal(size=(2, n))
        x = 1.5 * theta + 0.8 * length + 0.8 * rng.normal(size=n)
        return certain_and_wrong(said(rng, x, lapse), np.where(theta > 0, 1, -1), keys(n))

    assert rate(lambda rng: found(rng, 300, 0.0).significant, 200, 14) <= 0.02
    assert rate(lambda rng: found(rng, 1000, 0.05).significant, 100, 15) >= 0.95


# One that knows nothing, or the opposite


def of_itself(rng: Rng, n: int, spread: float) -> Estimate:
    x = spread * rng.normal(size=n)
    return knows_nothing(said(rng, x + B), said(rng, x - B), keys(n))


@pytest.mark.parametrize("n", [20, 50, 200])
def test_a_judge_without_an_opinion_is_not_taken_to_have_one(n: int) -> None:
    rng = np.random.default_rng(16)
    found = [of_itself(rng, n, 0.0) for _ in range(300)]
    assert np.mean([one.significant and one.value > 0 for one in found]) <= RIGHT


def test_an_opinion_is_found_with_an_interval_that_holds_it() -> None:
    rng = np.random.default_rng(17)
    found = [of_itself(rng, 50, 0.5) for _ in range(300)]
    assert np.mean([one.significant for one in found]) >= 0.94
    assert np.mean([one.ci[0] <= 0.5 <= one.ci[1] for one in found]) >= 0.91


def test_a_judge_that_says_one_thing_of_all_pairs_has_no_correlation() -> None:
    assert "same of all" in knows_nothing(np.zeros(30), np.zeros(30), keys(30)).warning
    same = knows_nothing(keys(30) + 1, keys(30) - 1, keys(30))
    assert (same.value, same.ci) == (1.0, None)


def test_a_reversed_judge_is_found_by_gold_and_one_that_knows_nothing_is_not_called_so() -> None:
    def reversed_by_gold(rng: Rng, n: int, knows: float) -> bool:
        theta, length = rng.normal(size=(2, n))
        logit = said(rng, -knows * (1.5 * theta + 0.8 * length) + 0.8 * rng.normal(size=n))
        ci = reversed_sign(logit, np.where(theta > 0, 1, -1), keys(n)).ci
        return ci is not None and ci[1] < 0

    assert rate(lambda rng: reversed_by_gold(rng, 50, 1.0), 200, 18) >= 0.97
    assert rate(lambda rng: reversed_by_gold(rng, 100, 0.0), 300, 19) <= 0.05


def test_a_reversed_judge_is_found_by_the_rest_of_its_panel() -> None:
    rng = np.random.default_rng(20)
    x = rng.normal(0, SPREAD, 60)
    panel = np.stack([said(rng, sign * x) for sign in (1, 1, 1, 1, -1)])
    found = [reversed_against_panel(panel[one], (panel.sum(axis=0) - panel[one]) / 4, keys(60)) for one in range(5)]
    assert [one.ci[1] < 0 for one in found if one.ci is not None] == [False] * 4 + [True]


def test_gold_that_is_too_little_gives_no_number() -> None:
    logit, gold = np.ones(30), np.repeat([1, 0], [10, 20])
    assert "fewer than twenty gold" in reversed_sign(logit, gold, keys(30)).warning
    assert "fewer than a hundred gold" in certain_and_wrong(logit, gold, keys(30)).warning
    assert "same of all" in reversed_sign(np.zeros(30), np.ones(30, int), keys(30)).warning
    assert "certain of none" in certain_and_wrong(np.repeat([1.0, 0.0], [10, 90]), np.ones(100, int), keys(100)).warning


# One that keeps silent, but not by chance


def test_refusals_that_depend_on_the_kind_of_prompt_are_noticed() -> None:
    def found(rng: Rng, n: int, harmful: float, other: float) -> bool:
        kind = rng.random(n) < 0.5
        return abstains_by(rng.random(n) < np.where(kind, harmful, other), kind.astype(float), keys(n)).significant

    assert rate(lambda rng: found(rng, 300, 0.1, 0.1), 400, 21) <= RIGHT
    assert rate(lambda rng: found(rng, 1000, 0.01, 0.01), 200, 22) <= RIGHT
    assert rate(lambda rng: found(rng, 100, 0.3, 0.03), 200, 23) >= 0.9


def test_silence_that_cannot_be_explained_gives_no_number() -> None:
    some, none = np.arange(30) < 5, np.zeros(30, bool)
    assert "none abstained" in abstains_by(none, keys(30), keys(30)).warning
    assert "all abstained" in abstains_by(~none, keys(30), keys(30)).warning
    assert "same for all" in abstains_by(some, np.ones(30), keys(30)).warning


# A panel that errs together


def panel(rng: Rng, n: int, twins: float = 0.0, hard: bool = False) -> Dependence:
    better, accuracy = rng.choice([-1.0, 1.0], n), np.linspace(0.65, 0.85, 5)
    given = better[:, np.newaxis] * np.where(rng.random((n, 5)) < accuracy, 1.0, -1.0)
    if hard:
        given = np.sign(1.5 * rng.normal(size=n)[:, np.newaxis] + 1.15 * rng.normal(size=(n, 5)))
    copied = rng.random(n) < twins
    given[copied, 1] = given[copied, 0]
    return correlated(given, keys(n))


def test_independent_labelers_are_left_in_peace() -> None:
    rng = np.random.default_rng(24)
    found = [panel(rng, 300) for _ in range(300)]
    assert np.mean([one.pairs.significant for one in found]) <= 0.05
    assert np.mean([one.p_value < 0.05 for one in found if one.p_value is not None]) <= RIGHT + 0.01
    assert np.mean([one.lumps.significant for one in found]) <= RIGHT + 0.01


def test_two_labelers_that_share_votes_are_found_and_named() -> None:
    rng = np.random.default_rng(25)
    found = [panel(rng, 300, twins=0.5) for _ in range(60)]
    assert np.mean([one.pairs.significant and one.worst == (0, 1) for one in found]) >= 0.97
    assert np.mean([one.pairs.value for one in found]) > 0.25


def test_items_that_are_hard_for_all_show_as_lumps_and_not_as_two_labelers() -> None:
    rng = np.random.default_rng(26)
    found = [panel(rng, 300, hard=True) for _ in range(100)]
    assert np.mean([one.lumps.significant for one in found]) >= 0.95
    assert np.mean([one.pairs.significant for one in found]) <= 0.08


def test_votes_that_are_missing_are_left_out() -> None:
    rng = np.random.default_rng(27)
    given = rng.choice([-1.0, 1.0], 400)[:, np.newaxis] * np.where(rng.random((400, 5)) < 0.8, 1.0, -1.0)
    given[:, 1] = given[:, 0]
    given[::3, 4] = np.nan
    given[::7, 1] = 0.0
    given[1::7, 1] *= -1
    found = correlated(given, keys(400))
    assert (found.pairs.significant, found.worst) == (True, (0, 1))


@pytest.mark.parametrize(
    ("shape", "warning"), [((300, 3), "fewer than four labelers"), ((50, 5), "too few prompts"), ((300, 5), "vote alike")]
)
def test_a_panel_that_tells_nothing_gives_no_number(shape: tuple[int, int], warning: str) -> None:
    rng = np.random.default_rng(28)
    found = correlated(np.repeat(rng.choice([-1.0, 1.0], shape[0])[:, np.newaxis], shape[1], axis=1), keys(shape[0]))
    assert (found.pairs.value, found.worst, found.p_value) == (None, None, None)
    assert warning in found.pairs.warning


def test_labelers_that_never_meet_and_rows_that_nobody_shares() -> None:
    given = np.random.default_rng(29).choice([-1.0, 1.0], (300, 5))
    given[::2, 0] = given[1::2, 1] = np.nan
    found = correlated(given, keys(300))
    assert "never voted on the same pair" in found.pairs.warning
    given[:5, :2] = 1.0
    assert "fewer than thirty pairs" in correlated(given, keys(300)).lumps.warning


# For all


@pytest.mark.parametrize("of", [varies_with, fades, reversed_against_panel])
def test_a_few_pairs_give_no_number_and_bad_arrays_are_refused(of: Callable[[Floats, Floats, Floats], Estimate]) -> None:
    assert "fewer than twenty" in of(np.ones(5), keys(5), keys(5)).warning
    with pytest.raises(ValueError, match="one length"):
        of(np.ones(5), np.ones(4), keys(5))
    with pytest.raises(ValueError, match="finite"):
        of(np.full(5, np.nan), np.ones(5), keys(5))


def test_each_needs_enough_pairs() -> None:
    assert "fewer than twenty" in heterogeneity(keys(30), keys(5)).warning
    assert "fewer than twenty" in lapses(keys(5)).warning
    assert "fewer than twenty" in knows_nothing(keys(5), keys(5), keys(5)).warning
    assert "fewer than twenty" in fades_from_votes(np.ones(5, int), np.ones(5, int), keys(5), keys(5)).warning
    assert "same for all" in fades_from_votes(np.ones(30, int), np.ones(30, int), np.ones(30), keys(30)).warning
    with pytest.raises(ValueError, match="votes and"):
        correlated(np.ones((3, 4)), keys(4))


@given(st.integers(0, 2**31))
def test_naming_the_answers_the_other_way_round_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, sign = rng.normal(0, SPREAD, 40), rng.choice([-1.0, 1.0], 40)
    ab, ba = said(rng, x + B), said(rng, x - B)
    turned = np.where(sign > 0, ab, -ba), np.where(sign > 0, ba, -ab)
    assert knows_nothing(*turned, keys(40)).ci == pytest.approx(knows_nothing(ab, ba, keys(40)).ci)
    gold = np.sign(x).astype(np.int64)
    mine, theirs = reversed_sign(ab, gold, keys(40)), reversed_sign(sign * ab, (sign * gold).astype(np.int64), keys(40))
    assert theirs.value == pytest.approx(mine.value, rel=1e-6)
