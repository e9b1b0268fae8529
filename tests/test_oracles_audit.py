"""The agreement that `cai audit score` prints against independent estimators of scikit-learn and statsmodels.

What is a and what is b is chance, so they are given each pair twice, once as it is and once with a and b exchanged. The same to
1e-9, with weights and without.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, cohen_kappa_score
from statsmodels.stats.inter_rater import aggregate_raters, fleiss_kappa
from test_audit_score import audited, population

from cai_cli.auditing import drawing, measuring
from cai_cli.auditing.labels import Label

CODES = {"a": 0, "b": 1, "tie": 2}
OTHER = np.array([1, 0, 2])
PEOPLE = ("ann", "ben", "cleo")


def close(value: float) -> Any:
    return pytest.approx(value, abs=1e-9)


def both_ways(codes: Any) -> Any:
    return np.concatenate([codes, OTHER[codes]])


def ac1(codes: Any, weight: Any) -> float:
    """Gwet 2008, equations 7 to 9 for two raters. Takes: (n, 2) codes, already both ways; (n,) weights"""
    raw = np.average(codes[:, 0] == codes[:, 1], weights=weight)
    q = np.array([np.average((codes == one).mean(axis=1), weights=weight) for one in range(3)])
    chance = (q * (1 - q)).sum() / 2
    return float((raw - chance) / (1 - chance))


def looked(seed: int, wanted: float) -> tuple[dict[str, Any], Any, Any]:
    """A score; what people and the AI say of the pairs that were drawn; their weights."""
    judged, truth = population(400)
    rng = np.random.default_rng(seed)
    judged = [one if rng.random() > 0.1 else replace(one, p_a=0.5) for one in judged]
    truth = {name: label if rng.random() > 0.1 else "tie" for name, label in truth.items()}
    columns, labels, design = audited(judged, truth, wanted, seed)
    by_id = {one.pair.id: one for one in judged}
    codes = np.array([(CODES[one.label], CODES[by_id[one.id].label]) for one in labels])
    sizes = [drawing.size_of(drawing.reasons(by_id[one.id])) for one in labels]
    weight = np.array([1 / design.probability(size) for size in sizes])
    return measuring.measured(columns, labels, [design])["agreement"]["all"], codes, weight


@pytest.mark.parametrize("wanted", [400, 120])
def test_people_and_ai(wanted: float) -> None:
    found, codes, weight = looked(3, wanted)
    left, right, twice = both_ways(codes[:, 0]), both_ways(codes[:, 1]), np.tile(weight, 2)
    assert len({*weight.round(6)}) == 1 or wanted < 400
    assert found["raw"]["value"] == close(accuracy_score(codes[:, 0], codes[:, 1], sample_weight=weight))
    assert found["kappa"]["value"] == close(cohen_kappa_score(left, right, sample_weight=twice))
    assert found["ac1"]["value"] == close(ac1(np.stack([left, right], axis=1), twice))


def test_alpha_is_fleiss_kappa_with_the_correction_for_few_values() -> None:
    found, codes, _ = looked(4, 400)
    table, _ = aggregate_raters(both_ways(codes), n_cat=3)
    values = 2 * len(codes)
    assert found["alpha"]["value"] == close(1 - (1 - fleiss_kappa(table)) * (values - 1) / values)


def test_people_with_one_another() -> None:
    judged, truth = population(200)
    columns, labels, design = audited(judged, truth, 200, 5)
    rng = np.random.default_rng(5)
    said = [_by(one, name, rng) for one in labels for name in PEOPLE]
    found = measuring.measured(columns, said, [design])["humans"]
    codes = both_ways(np.array([CODES[one.label] for one in said]).reshape(-1, 3))
    table, _ = aggregate_raters(codes, n_cat=3)
    values = 3 * len(labels)
    pairs = list(combinations(range(3), 2))
    assert found["raw"]["value"] == close(np.mean([(codes[:, i] == codes[:, j]).mean() for i, j in pairs]))
    assert found["kappa"]["value"] == close(np.mean([cohen_kappa_score(codes[:, i], codes[:, j]) for i, j in pairs]))
    assert found["alpha"]["value"] == close(1 - (1 - fleiss_kappa(table)) * (values - 1) / values)


def _by(label: Label, name: str, rng: Any) -> Label:
    given = label.label if rng.random() < 0.7 else str(rng.choice(list(CODES)))
    return replace(label, annotator=name, label=given)
