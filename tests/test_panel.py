"""Panels: workers recovered without gold, weights by gold against the best single judge, and errors that judges share."""

from __future__ import annotations

import numpy as np
import pytest

from cai_cli.bias.calibration import no_harm
from cai_cli.bias.coefficients import effective
from cai_cli.bias.estimate import Bools, Floats, Ints
from cai_cli.bias.panel import RIDGES, dawid_skene, error_correlation, unidentified, weights

FIRST_IF_FIRST = np.array([0.95, 0.85, 0.70, 0.60])
FIRST_IF_SECOND = np.array([0.10, 0.40, 0.05, 0.55])


class Votes:
    """Four workers that judge in both orders: a good one, one that likes the first slot, one the second, one lost."""

    def __init__(self, seed: int, items: int = 3000) -> None:
        rng = np.random.default_rng(seed)
        self.a_is_better: Bools = rng.random(items) < 0.5
        self.item: Ints = np.repeat(np.arange(items), 8)
        self.worker: Ints = np.tile(np.repeat(np.arange(4), 2), items)
        self.first_is_a: Bools = np.tile([True, False], 4 * items)
        p = np.where(self.a_is_better[self.item] == self.first_is_a, FIRST_IF_FIRST[self.worker], FIRST_IF_SECOND[self.worker])
        self.says_first: Floats = (rng.random(len(self.item)) < p).astype(np.float64)


def test_workers_and_labels_are_recovered_without_gold() -> None:
    votes = Votes(1)
    found = dawid_skene(votes.item, votes.worker, votes.says_first, votes.first_is_a, 3000, 4)
    assert found.converged
    assert found.first_if_first == pytest.approx(FIRST_IF_FIRST, abs=0.025)
    assert found.first_if_second == pytest.approx(FIRST_IF_SECOND, abs=0.025)
    assert found.accuracy == pytest.approx((FIRST_IF_FIRST + 1 - FIRST_IF_SECOND) / 2, abs=0.02)
    assert found.slot_excess == pytest.approx(FIRST_IF_FIRST + FIRST_IF_SECOND - 1, abs=0.04)
    assert found.votes.tolist() == [6000] * 4
    right = (found.logit > 0) == votes.a_is_better
    counted = np.bincount(votes.item, weights=np.where(votes.first_is_a, 1, -1) * (votes.says_first - 0.5))
    assert right.mean() > ((counted > 0) == votes.a_is_better).mean() + 0.02
    assert np.mean(1 / (1 + np.exp(-np.abs(found.logit)))) == pytest.approx(right.mean(), abs=0.01)


def test_a_position_bias_is_part_of_the_worker_even_where_only_one_order_was_asked() -> None:
    votes = Votes(2, items=20_000)
    order = np.random.default_rng(3).random(20_000) < 0.5
    kept = votes.first_is_a == order[votes.item]
    found = dawid_skene(votes.item[kept], votes.worker[kept], votes.says_first[kept], votes.first_is_a[kept], 20_000, 4)
    assert found.first_if_first == pytest.approx(FIRST_IF_FIRST, abs=0.03)
    assert found.first_if_second == pytest.approx(FIRST_IF_SECOND, abs=0.03)


def test_naming_the_answers_the_other_way_round_gives_the_negative_posterior() -> None:
    votes, flip = Votes(4, items=200), np.random.default_rng(5).random(200) < 0.5
    one = dawid_skene(votes.item, votes.worker, votes.says_first, votes.first_is_a, 200, 4)
    turned = votes.first_is_a ^ flip[votes.item]
    other = dawid_skene(votes.item, votes.worker, votes.says_first, turned, 200, 4)
    assert other.logit == pytest.approx(np.where(flip, -one.logit, one.logit), abs=1e-9)
    assert other.first_if_first == pytest.approx(one.first_if_first)


def test_the_order_of_votes_decides_nothing() -> None:
    votes, mixed = Votes(6, items=100), np.random.default_rng(7).permutation(800)
    one = dawid_skene(votes.item, votes.worker, votes.says_first, votes.first_is_a, 100, 4)
    given = votes.item[mixed], votes.worker[mixed], votes.says_first[mixed], votes.first_is_a[mixed]
    assert dawid_skene(*given, 100, 4).logit == pytest.approx(one.logit, abs=1e-9)


def test_a_tie_says_nothing_of_a_worker_without_slot_preference_and_an_item_without_votes_stays_at_even() -> None:
    item, worker = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 1, 2, 0, 1, 2])
    says = np.array([1.0, 1.0, 1.0, 0.5, 0.5, 0.5])
    found = dawid_skene(item, worker, says, np.ones(6, dtype=bool), 3, 3)
    assert found.logit[0] > 1
    assert abs(found.logit[1]) < 0.5
    assert found.logit[2] == 0


def test_two_workers_are_not_told_apart() -> None:
    item, worker = np.array([0, 0, 1, 1, 2, 2]), np.array([0, 1, 1, 2, 0, 2])
    assert "no pair was judged by 3 labelers" in unidentified(item, worker)
    assert "no pair was judged by 3 labelers" in unidentified(item[:0], worker[:0])
    assert unidentified(np.zeros(3, dtype=np.int64), np.arange(3)) == ""
    assert unidentified(np.zeros(3, dtype=np.int64), np.zeros(3, dtype=np.int64)) != ""
    with pytest.raises(ValueError, match="do not tell which of them is wrong"):
        dawid_skene(item, worker, np.ones(6), np.ones(6, dtype=bool), 3, 3)
    with pytest.raises(ValueError, match="one length"):
        dawid_skene(item, worker[:5], np.ones(6), np.ones(6, dtype=bool), 3, 3)


def test_an_unfinished_search_says_so() -> None:
    votes = Votes(8, items=300)
    found = dawid_skene(votes.item, votes.worker, votes.says_first, votes.first_is_a, 300, 4, iterations=1)
    assert (found.iterations, found.converged) == (1, False)


class Panel:
    """Five labelers' logits: three alike, one that is the wrong way round, one that repeats the first."""

    def __init__(self, seed: int, pairs: int = 600) -> None:
        rng = np.random.default_rng(seed)
        theta = rng.normal(size=pairs)
        self.gold: Ints = np.where(theta > 0, 1, -1)
        own = 1.5 * theta[:, np.newaxis] + rng.normal(0, 1.5, (pairs, 5))
        own[:, 3] *= -1
        own[:, 4] = own[:, 0]
        self.logits, self.prompt, self.none = own, rng.random(pairs), np.zeros((pairs, 0))


def right(logits: Floats, gold: Ints) -> Floats:
    return np.asarray((np.sign(logits) == gold) + (logits == 0) / 2, dtype=np.float64)


def test_gold_turns_a_labeler_that_is_worse_than_chance_and_halves_one_that_repeats_another() -> None:
    panel = Panel(1)
    found = weights(panel.logits, panel.none, panel.gold, np.ones(600), panel.prompt)
    first, second, third, turned, again = found.whole.coefficients
    assert turned < -0.3
    assert first + again == pytest.approx((second + third - turned) / 3, rel=0.35)
    mean = panel.logits.mean(axis=1)
    assert right(found.held_out, panel.gold).mean() > right(mean, panel.gold).mean() + 0.03
    assert not no_harm(mean, found.held_out, panel.gold, np.ones(600), panel.prompt).refused


def test_few_gold_labels_keep_equal_labelers_nearly_equal() -> None:
    fell = []
    for seed in range(8):
        panel = Panel(100 + seed, pairs=1600)
        alike, known, rest = panel.logits[:, :3], slice(100), slice(100, None)
        found = weights(alike[known], panel.none[known], panel.gold[known], np.ones(100), panel.prompt[known])
        ours = found.whole.logits(alike[rest], panel.none[rest])
        fell.append(right(alike[rest].mean(axis=1), panel.gold[rest]).mean() - right(ours, panel.gold[rest]).mean())
    assert np.mean(fell) <= 0.005


def test_weights_flip_with_the_names_and_a_labeler_that_was_not_asked_counts_for_nothing() -> None:
    panel = Panel(2, pairs=100)
    features = panel.logits[:, :1] / 2
    given = panel.logits.copy()
    given[::3, 1] = np.nan
    found = weights(given, features, panel.gold, np.ones(100), panel.prompt)
    assert np.array_equal(found.whole.logits(-given, -features), -found.whole.logits(given, features))
    alone = np.full((1, 5), np.nan)
    assert found.whole.logits(alone, np.zeros((1, 1))) == [0]
    assert found.whole.ridge in RIDGES


def test_held_out_logits_never_saw_the_gold_of_their_own_prompt() -> None:
    panel = Panel(3, pairs=60)
    turned = panel.gold.copy()
    turned[7] *= -1
    before, after = (weights(panel.logits, panel.none, gold, np.ones(60), panel.prompt) for gold in (panel.gold, turned))
    assert before.held_out[7] == after.held_out[7]
    assert not np.array_equal(before.held_out, after.held_out)


def test_with_two_prompts_the_strongest_ridge_holds_the_weights_together() -> None:
    panel, prompt = Panel(4, pairs=6), np.repeat([0.2, 0.7], 3)
    found = weights(panel.logits, panel.none, panel.gold, np.ones(6), prompt)
    assert np.isfinite(found.held_out).all()
    with pytest.raises(ValueError, match="two prompts"):
        weights(panel.logits, panel.none, panel.gold, np.ones(6), np.zeros(6))
    with pytest.raises(ValueError, match="as many prompt keys"):
        weights(panel.logits, panel.none, panel.gold, np.ones(6), prompt[:5])


def test_what_labelers_share_is_measured_against_gold() -> None:
    rng = np.random.default_rng(5)
    n, gold = 4000, np.where(rng.random(4000) < 0.5, 1, -1)
    shared, own = rng.random(n) < 0.3, rng.random((n, 3)) < 0.3
    wrong = np.where(rng.random((n, 3)) < np.sqrt(0.4), shared[:, np.newaxis], own)  # each two err with correlation .4
    logits = np.where(wrong, -1.0, 1.0) * gold[:, np.newaxis]
    prompt = rng.random(n)
    found = error_correlation(logits, (gold + 1) / 2, prompt)
    assert found.ci is not None
    assert found.ci[0] < 0.4 < found.ci[1]
    assert found.value == pytest.approx(np.corrcoef(wrong.T.astype(float))[np.triu_indices(3, 1)].mean())
    worth = effective(3, found)
    assert worth.value == pytest.approx(3 / 1.8, abs=0.1)
    apart = error_correlation(np.where(own, -1.0, 1.0) * gold[:, np.newaxis], (gold + 1) / 2, prompt)
    assert apart.value == pytest.approx(0, abs=0.03)
    logits[rng.random((n, 3)) < 0.2] = np.nan
    sparse = error_correlation(logits, (gold + 1) / 2, prompt, np.full(n, 3.0))
    assert sparse.value == pytest.approx(0.4, abs=0.05)


def test_against_a_posterior_both_truths_count() -> None:
    rng = np.random.default_rng(6)
    p, logits, prompt = rng.random(300), rng.normal(size=(300, 2)), rng.random(300)
    both = np.concatenate([np.ones(300), np.zeros(300)])
    expected = error_correlation(np.tile(logits, (2, 1)), both, np.tile(prompt, 2), np.concatenate([p, 1 - p]))
    assert error_correlation(logits, p, prompt).value == pytest.approx(expected.value)


def test_where_nobody_errs_or_nobody_is_there_there_is_no_correlation() -> None:
    gold, prompt = np.array([1.0, 0.0, 1.0]), np.array([0.1, 0.2, 0.3])
    right_ones = np.stack([2 * gold - 1] * 2, axis=1)
    assert error_correlation(right_ones, gold, prompt).warning == "no two labelers erred on pairs that both judged"
    assert error_correlation(right_ones[:, :1], gold, prompt).warning == "fewer than two labelers judged a pair"
    assert error_correlation(right_ones[:0], gold[:0], prompt[:0]).value is None
    few = error_correlation(np.array([[1.0, 1.0], [1.0, 1.0]]), np.array([1.0, 0.0]), np.array([0.5, 0.5]))
    assert few.value == pytest.approx(1)
    assert few.ci is None
    alike = error_correlation(np.array([[1.0, 1.0], [1.0, 1.0]] * 3), np.array([1.0, 0.0] * 3), np.repeat([0.1, 0.2, 0.3], 2))
    assert alike.value == pytest.approx(1)
    assert alike.ci is None
    with pytest.raises(ValueError, match="one length"):
        error_correlation(right_ones, gold[:2], prompt)
