"""Estimators of position, names, probes and agreement against independent ones of statsmodels, scipy and scikit-learn.

Tolerances: 1e-6 relative where the other one computes the same thing in another way. Where it maximises the likelihood without
Firth's term, which goes away as 1/n, the tolerance stands in the test's docstring, with the number of rows that it is for.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import optimize, stats
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score
from statsmodels.discrete.conditional_models import ConditionalLogit
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint
from statsmodels.tools.sm_exceptions import ModelWarning

from cai_cli.bias import assumptions
from cai_cli.bias.coefficients import Ratings
from cai_cli.bias.differences import apart
from cai_cli.bias.estimate import Floats, Ints
from cai_cli.bias.interval import clustered_mean, wilson
from cai_cli.bias.multiple import benjamini_hochberg
from cai_cli.bias.position import position_from_probabilities, position_from_votes
from cai_cli.bias.probe import from_probabilities, from_votes
from cai_cli.bias.regression import least_squares, logistic
from cai_cli.bias.slope import slope
from cai_cli.bias.tokens import token_and_slot, token_and_slot_from_votes

SAME = 1e-6


def close(value: float, rel: float = SAME) -> object:
    return pytest.approx(value, rel=rel, abs=1e-9)


def sigmoid(x: Floats) -> Floats:
    return np.asarray((1 + np.tanh(x / 2)) / 2)


def clustered(rng: np.random.Generator, groups: int, size: int) -> tuple[Floats, Floats]:
    """Prompt keys, and noise of which rows of a prompt share half."""
    prompt = np.repeat(rng.random(groups), size)
    return prompt, rng.normal(size=groups).repeat(size) + rng.normal(size=groups * size)


def by_cluster(model: object, prompt: Floats) -> object:
    _, group = np.unique(prompt, return_inverse=True)
    return model.fit(cov_type="cluster", cov_kwds={"groups": group, "use_correction": True}, use_t=True)  # type: ignore[attr-defined]


def votes(rng: np.random.Generator, logit: Floats) -> Ints:
    return np.where(rng.random(logit.shape) < sigmoid(logit), 1, -1)


# Least squares: position, slope, token and slot, probes


def test_position_from_probabilities_is_a_t_test() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(0, 2, 80)
    ab, ba = x + 0.7 + rng.normal(0, 0.5, 80), x - 0.7 + rng.normal(0, 0.5, 80)
    found, theirs = position_from_probabilities(ab, ba), stats.ttest_rel(ab / 2, ba / 2)
    assert found.ci == close(theirs.confidence_interval())
    assert found.p_value == close(theirs.pvalue)


def test_the_slope_is_least_squares_by_cluster() -> None:
    rng = np.random.default_rng(2)
    prompt, noise = clustered(rng, 60, 3)
    length = rng.normal(0, 3, 180)
    found = slope(0.4 * length + noise, length, prompt)
    theirs = by_cluster(sm.OLS(0.4 * length + noise, length / np.sqrt(np.mean(length**2))), prompt)
    assert (found.value, found.se, found.p_value) == (close(theirs.params[0]), close(theirs.bse[0]), close(theirs.pvalues[0]))
    assert found.ci == close(theirs.conf_int()[0])


def test_least_squares_and_both_covariances_are_those_of_statsmodels() -> None:
    rng = np.random.default_rng(3)
    prompt, noise = clustered(rng, 40, 4)
    design = np.stack([np.ones(160), rng.normal(size=160), rng.normal(size=160)], axis=1)
    outcome = design @ [1.0, -0.5, 0.2] + noise
    found = least_squares(outcome, design, prompt)
    np.testing.assert_allclose(found.covariance, by_cluster(sm.OLS(outcome, design), prompt).cov_params(), rtol=SAME)
    np.testing.assert_allclose(found.independent, sm.OLS(outcome, design).fit().cov_params(), rtol=SAME)


def test_token_and_slot_are_those_of_a_regression_on_names() -> None:
    rng = np.random.default_rng(4)
    prompt, noise = clustered(rng, 70, 2)
    s_ab, s_ba = rng.choice([-1.0, 1.0], (2, 140))
    x = rng.normal(0, 2, 140)
    f_ab, f_ba = x + 0.7 + 0.4 * s_ab + noise, -x + 0.7 + 0.4 * s_ba + noise
    found = token_and_slot(f_ab, f_ba, s_ab, s_ba, prompt)
    model = sm.OLS((f_ab + f_ba) / 2, sm.add_constant((s_ab + s_ba) / 2))
    theirs, plain = by_cluster(model, prompt), model.fit()
    for one, at in ((found.slot, 0), (found.token, 1)):
        assert one.value == close(theirs.params[at])
        assert one.se == close(max(theirs.bse[at], plain.bse[at]))


def test_probes_without_outliers_are_least_squares_by_cluster() -> None:
    rng = np.random.default_rng(5)
    prompt = np.repeat(rng.random(50), 2)
    change, before = rng.uniform(0.5, 1.4, 100) * rng.choice([-1, 1], 100), rng.normal(0, 2, 100)
    after = before + 0.8 * change + rng.uniform(-1, 1, 100)
    found, theirs = from_probabilities(change, before, after, prompt), by_cluster(sm.OLS(after - before, change), prompt)
    assert (found.value, found.se, found.p_value) == (close(theirs.params[0]), close(theirs.bse[0]), close(theirs.pvalues[0]))


def test_probes_with_outliers_are_hubers_second_proposal() -> None:
    rng = np.random.default_rng(6)
    change, moved = rng.choice([-1.0, 1.0], 80), rng.normal(0, 0.7, 80)
    moved[:5] += 7 * change[:5]
    found = from_probabilities(change, np.zeros(80), moved, np.arange(80.0))
    model = sm.RLM(moved, change, M=sm.robust.norms.HuberT(3.0))
    theirs = model.fit(scale_est=sm.robust.scale.HuberScale(d=3.0, tol=1e-10, maxiter=500), tol=1e-10, maxiter=500)
    assert found.value == close(theirs.params[0], rel=1e-4)
    assert abs(theirs.params[0] - float(change @ moved / 80)) > 0.05, "the outliers must matter here"


# Logistic: position, token and slot, probes, gold


@pytest.mark.filterwarnings("ignore:Perfect separation")  # two rows, fitted without error: it is meant
def test_position_from_votes_is_a_logistic_regression_of_counts_with_a_half_added() -> None:
    for first, second in ((238, 7), (40, 31), (3, 0)):
        halves = [[(first + 0.5) / 2, (second + 0.5) / 2]] * 2  # one row alone would leave no degree of freedom
        theirs = sm.GLM(halves, np.ones((2, 1)), family=sm.families.Binomial()).fit(tol=1e-14)
        found = position_from_votes(first, second)
        assert found.value == close(theirs.params[0] / 2)
        assert found.se == close(theirs.bse[0] / 2)
        assert found.ci == close(np.asarray(theirs.conf_int()[0]) / 2)
        assert found.p_value == close(stats.binomtest(first, first + second).pvalue)


def test_firths_maximum_is_the_one_that_an_optimizer_finds() -> None:
    rng = np.random.default_rng(7)
    design = np.stack([np.ones(30), rng.normal(size=30)], axis=1)
    hit = (design[:, 1] > 0).astype(float)  # separated: without the penalty there is no maximum

    def penalised(b: Floats) -> float:
        eta, p = design @ b, sigmoid(design @ b)
        information = (design.T * (p * (1 - p))) @ design
        return float(np.logaddexp(0, eta).sum() - hit @ eta - np.linalg.slogdet(information)[1] / 2)

    theirs = optimize.minimize(
        penalised, np.zeros(2), method="Nelder-Mead", options={"xatol": 1e-10, "fatol": 1e-14, "maxiter": 9000}
    )
    np.testing.assert_allclose(logistic(hit, design, np.arange(30.0)).coefficients, theirs.x, rtol=SAME, atol=1e-6)


def test_the_logistic_fit_is_that_of_statsmodels_and_scikit_learn_where_rows_are_many() -> None:
    """.002 absolute at 20,000 rows: Firth's term is of the order k/n."""
    rng = np.random.default_rng(8)
    prompt, noise = clustered(rng, 5000, 4)
    design = np.stack([np.ones(20000), rng.normal(size=20000)], axis=1)
    hit = (rng.random(20000) < sigmoid(design @ [0.5, -0.8] + 0.5 * noise)).astype(float)
    found, theirs = logistic(hit, design, prompt), by_cluster(sm.Logit(hit, design), prompt)
    np.testing.assert_allclose(found.coefficients, theirs.params, atol=0.002)
    np.testing.assert_allclose(np.sqrt(np.diag(found.covariance)), theirs.bse, rtol=0.003)
    np.testing.assert_allclose(np.sqrt(np.diag(found.independent)), sm.Logit(hit, design).fit(disp=0).bse, rtol=0.003)
    fitted = LogisticRegression(C=1e9, fit_intercept=False, tol=1e-9).fit(design, hit)
    np.testing.assert_allclose(found.coefficients, fitted.coef_[0], atol=0.002)


def test_names_from_verdicts_are_a_logistic_regression_of_the_conflicts() -> None:
    """.01 absolute and 1% of the standard error at some 2,000 conflicts."""
    rng = np.random.default_rng(9)
    x, (s_ab, s_ba) = rng.normal(0, 1.5, 5000), rng.choice([-1.0, 1.0], (2, 5000))
    ab, ba = votes(rng, x + 0.7 + 0.4 * s_ab), votes(rng, -x + 0.7 + 0.4 * s_ba)
    found = token_and_slot_from_votes(ab, ba, s_ab, s_ba, np.arange(5000.0))
    same = ab == ba
    model = sm.Logit((ab[same] == 1).astype(float), sm.add_constant((s_ab + s_ba)[same] / 2))
    theirs, robust = model.fit(disp=0), by_cluster(model, np.arange(float(same.sum())))
    for one, at in ((found.slot, 0), (found.token, 1)):
        assert one.value == pytest.approx(theirs.params[at] / 2, abs=0.01)
        assert one.se == pytest.approx(max(theirs.bse[at], robust.bse[at]) / 2, rel=0.01)


def test_probes_from_verdicts_are_a_conditional_logistic_regression() -> None:
    """.01 absolute, 2% of the standard error, .01 at the ends of the interval, at some 1,700 turned verdicts."""
    rng = np.random.default_rng(10)
    change, x = rng.uniform(0.5, 1.4, 4000) * rng.choice([-1, 1], 4000), rng.normal(0, 1.5, 4000)
    before, after = votes(rng, x), votes(rng, x + 0.6 * change)
    found = from_votes(change, before, after, np.arange(4000.0))
    chosen = np.concatenate([before, after]) == 1
    asked, moved = np.tile(np.arange(4000), 2), np.concatenate([np.zeros(4000), change])
    with pytest.warns(ModelWarning, match="no within-group variance"):  # verdicts that did not turn
        theirs = ConditionalLogit(chosen.astype(int), moved[:, np.newaxis], groups=asked).fit(disp=0)
    assert found.value == pytest.approx(theirs.params[0], abs=0.01)
    assert found.se == pytest.approx(theirs.bse[0], rel=0.02)
    assert found.ci == pytest.approx(theirs.conf_int()[0], abs=0.01)
    assert found.n == (before != after).sum()


def test_the_sign_of_a_judge_is_a_logistic_regression_on_gold() -> None:
    """1% at 3,000 gold labels."""
    rng = np.random.default_rng(11)
    logit = rng.normal(0, 2, 3000)
    gold = votes(rng, -0.5 * logit)
    found = assumptions.reversed_sign(logit, gold, np.arange(3000.0))
    theirs = sm.Logit((gold == 1).astype(float), logit).fit(disp=0)
    assert found.value == pytest.approx(theirs.params[0], rel=0.01)
    assert found.ci == pytest.approx(theirs.conf_int()[0], rel=0.02)


# Tests of assumptions


def test_a_varying_bias_is_tested_by_welch() -> None:
    rng = np.random.default_rng(12)
    half, repeat = rng.normal(0.5, 0.45, 60), rng.normal(0, 0.7, 40)
    mine, theirs = np.abs(half - np.median(half)), np.abs(repeat) / 2
    most = 4 * np.median(np.concatenate([mine, theirs]))
    tested = stats.ttest_ind(np.minimum(mine, most), np.minimum(theirs, most), equal_var=False, alternative="greater")
    assert assumptions.heterogeneity(half, repeat).p_value == close(tested.pvalue)


def test_the_correlation_with_a_panel_has_the_interval_of_fisher() -> None:
    """2% of its width at 2,000 pairs: Fisher's standard error assumes normal values, ours does not."""
    rng = np.random.default_rng(13)
    x = rng.normal(size=2000)
    mine, theirs = x + rng.normal(size=2000), x + rng.normal(size=2000)
    mine, theirs = mine - mine.mean(), theirs - theirs.mean()
    found, tested = assumptions.reversed_against_panel(mine, theirs, np.arange(2000.0)), stats.pearsonr(mine, theirs)
    assert found.value == close(tested.statistic)
    assert found.ci == pytest.approx(tested.confidence_interval(), abs=0.004)


def test_the_robust_scale_of_lapses_is_that_of_scipy() -> None:
    half = np.random.default_rng(14).normal(0.7, 0.35, 400)
    half[:9] += 3
    far = np.abs(half - np.median(half)) > 4 * stats.median_abs_deviation(half, scale="normal")
    assert assumptions.lapses(half).value == close(far.mean())


# Many comparisons, shares, agreement, differences


def test_the_adjusted_p_values_are_those_of_statsmodels() -> None:
    p_values = np.random.default_rng(15).random(200) ** 3
    np.testing.assert_allclose(benjamini_hochberg(p_values.tolist()), multipletests(p_values, method="fdr_bh")[1], rtol=SAME)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (3, 10), (97, 100), (500, 1000)])
def test_wilsons_interval_is_that_of_statsmodels(hits: int, n: int) -> None:
    assert wilson(hits, n) == close(proportion_confint(hits, n, method="wilson"))


def test_the_mean_by_prompt_is_that_of_statsmodels() -> None:
    rng = np.random.default_rng(16)
    prompt, noise = clustered(rng, 30, 5)
    found = clustered_mean(noise.reshape(30, 5).sum(axis=1), np.full(30, 5.0))
    theirs = by_cluster(sm.OLS(noise, np.ones(150)), prompt)
    assert (found.value, found.se) == (close(theirs.params[0]), close(theirs.bse[0]))


def test_kappa_is_that_of_scikit_learn_and_statsmodels() -> None:
    rng = np.random.default_rng(17)
    left = rng.integers(0, 3, 300)
    right = np.where(rng.random(300) < 0.6, left, rng.integers(0, 3, 300))
    ratings, table = Ratings(2, 3), np.zeros((3, 3))
    for key, one, other in zip(rng.random(300), left, right, strict=True):
        ratings.add(float(key), (int(one), int(other)))
        table[one, other] += 1
    found, theirs = ratings.two(0, 1), cohens_kappa(table)
    assert found.kappa.value == close(cohen_kappa_score(left, right))
    assert found.kappa.value == close(theirs.kappa)
    assert found.kappa.se == pytest.approx(math.sqrt(theirs.var_kappa), rel=0.05)  # a jackknife against the delta method


def test_the_difference_of_two_groups_is_welchs() -> None:
    rng = np.random.default_rng(18)
    left, right = rng.normal(0.3, 1, 40), rng.normal(0, 2, 25)
    found, theirs = apart(left, right), stats.ttest_ind(left, right, equal_var=False)
    assert found.p_value == close(theirs.pvalue)
    assert found.ci == close(theirs.confidence_interval())
