"""Estimators beside those of other libraries, to stated tolerances: calibration, Dawid-Skene, PPI++, Bradley-Terry.

scikit-learn 1e-4 in a coefficient, 1e-9 in an isotonic step; statsmodels 1e-4 in a coefficient, 1% in a standard error;
crowd-kit the same label where the posterior is not within .05 of even, .02 in a worker's rates; ppi-python 1e-9 in a value, 2% in
a half-width; choix 1e-4 in a strength.
"""

from __future__ import annotations

import numpy as np
import pytest

from cai_cli.bias.calibration import LEAN, fit
from cai_cli.bias.estimate import Floats, Ints
from cai_cli.bias.panel import dawid_skene
from cai_cli.bias.ppi import powered_mean
from cai_cli.bias.strengths import strengths


def labels(seed: int, n: int = 400) -> tuple[Floats, Floats, Ints, Floats]:
    """Logits, one feature of mean square 1, gold, weights that add up to what they are worth."""
    rng = np.random.default_rng(seed)
    z, feature = rng.normal(0, 2, n), rng.normal(size=n)
    gold = np.where(rng.random(n) < 1 / (1 + np.exp(-(1.3 * z - 0.7 * feature))), 1, -1)
    weight = rng.choice([1.0, 1.0, 2.5], n)
    return z, feature, gold, weight * weight.sum() / (weight @ weight)


def test_with_a_weak_ridge_platt_is_their_logistic_regression_without_intercept() -> None:
    """Ours draws the logit's coefficient to 1, theirs to 0: a weak ridge makes no difference."""
    from sklearn.linear_model import LogisticRegression

    z, feature, gold, weight = labels(1)
    theirs = LogisticRegression(fit_intercept=False, C=1e6, tol=1e-10, max_iter=1000)
    theirs.fit(np.stack([z, feature], axis=1), gold, sample_weight=weight)
    ours = fit(z, feature[:, np.newaxis], gold, weight, ridge=1e-6)
    assert ours.coefficients == pytest.approx(theirs.coef_[0], abs=1e-4)


@pytest.mark.parametrize("ridge", [0.5, 5.0, 50.0])
def test_the_ridge_on_a_feature_is_theirs_with_c_its_inverse(ridge: float) -> None:
    """Without a logit, whose coefficient is drawn to another place than theirs."""
    from sklearn.linear_model import LogisticRegression

    _, feature, gold, _ = labels(2)
    feature /= np.sqrt(np.mean(feature**2))
    theirs = LogisticRegression(fit_intercept=False, C=1 / ridge, tol=1e-10).fit(feature[:, np.newaxis], gold)
    ours = fit(np.zeros(400), feature[:, np.newaxis], gold, np.ones(400), ridge=ridge)
    assert ours.coefficients == pytest.approx([1, theirs.coef_[0, 0]], abs=1e-4)


def test_isotonic_steps_are_theirs() -> None:
    from sklearn.isotonic import IsotonicRegression

    z, _, gold, weight = labels(3)
    score, right = np.abs(z), (np.sign(z) == gold).astype(float)
    theirs = IsotonicRegression().fit(score, right, sample_weight=weight).predict(score)
    ours = fit(z, np.zeros((400, 0)), gold, weight, "isotonic").logits(score, np.zeros((400, 0))) - LEAN * score
    inside = (theirs > 0.5) & (theirs < 1)
    assert inside.sum() > 200
    assert 1 / (1 + np.exp(-ours[inside])) == pytest.approx(theirs[inside], abs=1e-9)


def test_platt_is_a_binomial_glm_without_intercept() -> None:
    import statsmodels.api as sm

    z, feature, gold, weight = labels(4)
    columns = np.stack([z, feature], axis=1)
    theirs = sm.GLM(gold > 0, columns, family=sm.families.Binomial(), freq_weights=weight).fit(tol=1e-12)
    ours = fit(z, feature[:, np.newaxis], gold, weight, ridge=1e-6)
    assert ours.coefficients == pytest.approx(theirs.params, abs=1e-4)


@pytest.mark.filterwarnings("ignore:The (inplace|copy) keyword")
def test_dawid_skene_gives_their_labels_and_their_confusions() -> None:
    """Theirs estimates the share of each label and does not smooth; with even labels and 1,500 items that hardly matters."""
    import pandas as pd
    from crowdkit.aggregation import DawidSkene

    rng = np.random.default_rng(5)
    items, workers = 1500, 4
    first, second = np.array([0.9, 0.8, 0.7, 0.85]), np.array([0.2, 0.1, 0.45, 0.25])
    truth = rng.random(items) < 0.5
    item, worker = np.repeat(np.arange(items), workers), np.tile(np.arange(workers), items)
    says = rng.random(len(item)) < np.where(truth[item], first[worker], second[worker])
    ours = dawid_skene(item, worker, says.astype(float), np.ones(len(item), dtype=bool), items, workers)
    theirs = DawidSkene(n_iter=500, tol=1e-9)
    theirs.fit(pd.DataFrame({"task": item, "worker": worker, "label": says.astype(int)}))
    assert theirs.probas_ is not None
    posterior = theirs.probas_[1].sort_index().to_numpy()
    sure = np.abs(posterior - 0.5) > 0.05
    assert sure.mean() > 0.9
    assert np.array_equal((ours.logit > 0)[sure], (posterior > 0.5)[sure])
    assert theirs.errors_ is not None
    confusion = theirs.errors_.xs(1, level="label").sort_index()
    assert ours.first_if_first == pytest.approx(confusion[1].to_numpy(), abs=0.02)
    assert ours.first_if_second == pytest.approx(confusion[0].to_numpy(), abs=0.02)


@pytest.mark.parametrize("power", [0.0, 0.4, 0.9])
def test_a_powered_mean_is_theirs_at_the_same_power(power: float) -> None:
    """Theirs has gold and the rest apart, ours the mean over both: the same where its power is ours times N / (n + N)."""
    import ppi_py

    rng = np.random.default_rng(6)
    n, rest = 400, 3000
    predicted = rng.random(n + rest)
    gold = np.where(np.arange(n + rest) < n, (rng.random(n + rest) < predicted).astype(float), np.nan)
    ours = powered_mean(gold, predicted, np.ones(n + rest), rng.random(n + rest), power=power).estimate
    low, high = ppi_py.ppi_mean_ci(gold[:n], predicted[:n], predicted[n:], alpha=0.05, lam=power * rest / (n + rest))
    assert ours.value == pytest.approx((low[0] + high[0]) / 2, abs=1e-9)
    assert ours.ci is not None
    assert ours.ci[1] - ours.ci[0] == pytest.approx(high[0] - low[0], rel=0.02)


def test_the_power_that_is_chosen_is_theirs() -> None:
    import ppi_py

    rng = np.random.default_rng(7)
    n, rest = 300, 2000
    predicted = rng.random(n + rest)
    gold = np.where(np.arange(n + rest) < n, (rng.random(n + rest) < 0.3 + 0.4 * predicted).astype(float), np.nan)
    ours = powered_mean(gold, predicted, np.ones(n + rest), rng.random(n + rest)).estimate
    low, high = ppi_py.ppi_mean_ci(gold[:n], predicted[:n], predicted[n:], alpha=0.05)
    assert ours.value == pytest.approx((low[0] + high[0]) / 2, abs=2e-3)
    assert ours.ci is not None
    assert ours.ci[1] - ours.ci[0] == pytest.approx(high[0] - low[0], rel=0.02)


def games(seed: int, n: int) -> tuple[Ints, Ints, Floats]:
    rng = np.random.default_rng(seed)
    left = rng.integers(0, 6, n)
    right = (left + rng.integers(1, 6, n)) % 6
    return left, right, (rng.random(n) < 1 / (1 + np.exp(-0.3 * (left - right)))).astype(float)


@pytest.mark.parametrize("ridge", [0.1, 2.0])
def test_strengths_are_theirs(ridge: float) -> None:
    import choix

    left, right, won = games(8, 500)
    data = [(int(a), int(b)) if w else (int(b), int(a)) for a, b, w in zip(left, right, won, strict=True)]
    theirs = choix.opt_pairwise(6, data, alpha=ridge / 2, tol=1e-10)
    ours = strengths(left, right, won, np.random.default_rng(9).random(500), 6, ridge=ridge).systems
    assert [one.value for one in ours] == pytest.approx((theirs - theirs.mean()).tolist(), abs=1e-4)


def test_standard_errors_of_strengths_are_the_clustered_ones_of_a_glm() -> None:
    """Of the difference to the last system, which is what a regression without it estimates; prompts of about three pairs."""
    import statsmodels.api as sm

    left, right, won = games(10, 600)
    prompt = np.random.default_rng(11).integers(0, 200, 600) / 200
    home = np.where(np.random.default_rng(12).random(600) < 0.5, 1.0, -1.0)
    columns = np.zeros((600, 7))
    columns[np.arange(600), left], columns[np.arange(600), right], columns[:, 6] = 1, -1, home
    model = sm.GLM(won, np.delete(columns, 5, axis=1), family=sm.families.Binomial())
    theirs = model.fit(cov_type="cluster", cov_kwds={"groups": np.unique(prompt, return_inverse=True)[1]}, tol=1e-12)
    ours = strengths(left, right, won, prompt, 6, home=home, ridge=1e-6)
    assert ours.home is not None
    assert ours.home.value == pytest.approx(theirs.params[5], abs=1e-4)
    assert ours.home.se == pytest.approx(theirs.bse[5], rel=0.01)
    assert [(one.value or 0) - (ours.systems[5].value or 0) for one in ours.systems[:5]] == pytest.approx(
        theirs.params[:5].tolist(), abs=1e-4
    )
    centred = np.eye(6)[:, :5] - 1 / 6
    spread = np.sqrt(np.diag(centred @ theirs.cov_params()[:5, :5] @ centred.T))
    assert [one.se for one in ours.systems] == pytest.approx(spread.tolist(), rel=0.01)
