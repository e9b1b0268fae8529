"""Print how much of the truth is recovered from judges whose biases are known, beside what it must be. `make bench-judges`.

The world is that of judge_world.py, the estimators are those that `cai debias` uses. Each line says PASS or FAIL with its bar;
exit 1 if one is missed. --quick takes fewer repetitions, and then allows coverage two standard errors of its own more.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from judge_world import B, Drawn, Judge, Oracle, draw, probe, sigmoid

from cai_cli.bias import aggregate, outcome, ppi
from cai_cli.bias.calibration import cross_fitted, no_harm
from cai_cli.bias.estimate import Estimate, Floats, Ints
from cai_cli.bias.position import position_from_probabilities, position_from_votes
from cai_cli.bias.probe import from_probabilities, from_votes
from cai_cli.bias.slope import slope

PAIRS, REPETITIONS, COVERED = 2000, 100, 2000
BIASED, UNBIASED = Judge(), Judge(b=0.0, c=0.0)
SHARE, AIM, OVER_ORACLE, HARM, OVER_BOUND, COVERAGE = 0.85, 0.94, 0.02, 0.005, 1.15, (0.93, 0.97)
Method = Callable[[Judge, Drawn, int], Floats]


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """What was found, as it is printed, and whether it is as it must be; None: it is only told."""

    text: str
    passed: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """Means over repetitions."""

    accuracy: float
    log_loss: float
    longer_wins_gap: float  # share of longer answers that win, by the labels less by the truth


# From answers to labels: (repetitions, pairs) log-odds that a is better.


def one_order(judge: Judge, drawn: Drawn, seed: int) -> Floats:
    first = np.random.default_rng((seed, 3)).random(drawn.theta.shape) < 0.5
    return np.asarray(np.where(first, drawn.logit[0], drawn.logit[1]))


def averaged_probabilities(judge: Judge, drawn: Drawn, seed: int) -> Floats:
    p = sigmoid(drawn.logit).mean(axis=0)
    return np.asarray(np.log(p / (1 - p)))


def both_orders(judge: Judge, drawn: Drawn, seed: int) -> Floats:
    logit = np.moveaxis(drawn.logit, 0, 2)
    return aggregate.pool(logit, logit)


def without_gold(judge: Judge, drawn: Drawn, seed: int) -> Floats:
    pooled, keys = both_orders(judge, drawn, seed), _keys(drawn)
    effects = [slope(z, longer, keys).value or 0.0 for z, longer in zip(pooled, drawn.length, strict=True)]
    scale = np.sqrt((drawn.length**2).mean(axis=1, keepdims=True))
    return np.asarray(pooled - np.array(effects)[:, np.newaxis] * drawn.length / scale)


def probed(count: int) -> Method:
    def labels(judge: Judge, drawn: Drawn, seed: int) -> Floats:
        effects = [estimate.value or 0.0 for estimate in length_effects(judge, drawn, count, seed)]
        return both_orders(judge, drawn, seed) - np.array(effects)[:, np.newaxis] * drawn.length

    return labels


def length_effects(judge: Judge, drawn: Drawn, count: int, seed: int) -> Iterator[Estimate]:
    """What probes say of the liking for length, repetition by repetition."""
    asked, keys = probe(judge, drawn, count, seed), np.tile(_keys(drawn)[:count], 2)
    for n in range(len(drawn.theta)):
        yield from_probabilities(asked.change[:, n].ravel(), asked.before[:, n].ravel(), asked.after[:, n].ravel(), keys)


def calibrated(gold: int, before: Method = both_orders) -> Method:
    """On the gold of the first pairs; left out where held-out gold says that it harms."""

    def labels(judge: Judge, drawn: Drawn, seed: int) -> Floats:
        rows = zip(before(judge, drawn, seed), drawn.length[..., np.newaxis], drawn.truth, strict=True)
        return np.array([_calibrated(z, features, truth[:gold], _keys(drawn)[:gold]) for z, features, truth in rows])

    return labels


def _calibrated(z: Floats, features: Floats, gold: Ints, keys: Floats) -> Floats:
    n, weight = len(gold), np.ones(len(gold))
    fitted = cross_fitted(z[:n], features[:n], gold, weight, keys)
    refused = no_harm(z[:n], fitted.held_out, gold, weight, keys).refused
    return z if refused else fitted.whole.logits(z, features)


def oracle(judge: Judge, drawn: Drawn, seed: int) -> Floats:
    return Oracle(judge=judge).logits(drawn)


def _keys(drawn: Drawn) -> Floats:
    """A prompt of its own for each pair; keys lie in [0, 1)."""
    return np.asarray(np.random.default_rng(11).random(drawn.theta.shape[1]))


METHODS: dict[str, tuple[Method, tuple[float, float, float, float]]] = {  # and what simulation said before: methods.md
    "one random order": (one_order, (0.785, 0.443, 0.091, 0.0)),
    "both orders, probabilities averaged": (averaged_probabilities, (0.815, 0.407, 0.106, 0.60)),
    "both orders, logits averaged": (both_orders, (np.nan, np.nan, np.nan, np.nan)),
    "length control without gold": (without_gold, (0.803, 0.429, -0.098, 0.36)),
    "50 length probes, no gold": (probed(50), (0.833, 0.392, -0.015, 0.96)),
    "100 gold": (calibrated(100), (0.830, 0.371, 0.016, 0.90)),
    "300 gold": (calibrated(300), (0.833, 0.359, 0.017, 0.96)),
    "50 probes and 100 gold": (calibrated(100, probed(50)), (np.nan, np.nan, np.nan, np.nan)),
    "oracle that knows the biases": (oracle, (0.835, 0.355, 0.015, 1.0)),
}
CALIBRATED = ("100 gold", "300 gold", "50 probes and 100 gold")  # without gold nothing tells how sure a judge may be
CORRECTING = ("50 length probes, no gold", *CALIBRATED)


def score(logit: Floats, drawn: Drawn) -> Score:
    """Takes: (repetitions, pairs) log-odds that a is better"""
    p, truth = aggregate.probability(logit), drawn.truth
    wins, right = outcome.longer_wins(p, drawn.length), outcome.longer_wins((1.0 + truth) / 2, drawn.length)
    return Score(
        accuracy=float(np.nanmean(outcome.correct(p, truth))), log_loss=float(np.nanmean(outcome.log_loss(p, truth))),
        longer_wins_gap=float(np.nanmean(wins) - np.nanmean(right)),
    )  # fmt: skip


def scores(judge: Judge, repetitions: int, seed: int) -> dict[str, Score]:
    """Every way to make labels, on the same answers."""
    drawn = draw(judge, repetitions, PAIRS, seed)
    return {name: score(method(judge, drawn, seed), drawn) for name, (method, _) in METHODS.items()}


def recovered(found: dict[str, Score], name: str) -> float:
    """R: the share of the way from one random order to the oracle, in accuracy."""
    raw, best = found["one random order"].accuracy, found["oracle that knows the biases"].accuracy
    return (found[name].accuracy - raw) / (best - raw)


# What is printed.


def recovery(repetitions: int) -> Iterator[Line]:
    """The table of methods, beside what was known."""
    found = scores(BIASED, repetitions, 1)
    yield Line(text=f"{'':36} {'accuracy':>15} {'log-loss':>15} {'longer-wins gap':>17} {'R':>12}   (known)")
    for name, (_, known) in METHODS.items():
        at, share = found[name], recovered(found, name)
        over = at.log_loss - found["oracle that knows the biases"].log_loss
        bars, good = [], []
        if name in CORRECTING:
            bars.append(f"R >= {SHARE}, aim {AIM}")
            good.append(share >= SHARE)
        if name in CALIBRATED:
            bars.append(f"log-loss at most {OVER_ORACLE} over the oracle's: {over:.3f}")
            good.append(over <= OVER_ORACLE)
        gap = f"{at.longer_wins_gap:+8.3f} {_known(known[2], '+.3f', 8)}"
        text = f"{name:36} {at.accuracy:7.3f} {_known(known[0])} {at.log_loss:7.3f} {_known(known[1])} {gap}"
        text += f" {share:5.2f} {_known(known[3], '.2f', 6)}"
        yield Line(text=text + (f"  {'; '.join(bars)}" if bars else ""), passed=all(good) if good else None)


def _known(value: float, how: str = ".3f", width: int = 7) -> str:
    return " " * width if np.isnan(value) else f"({value:{how}})".rjust(width)


def harmless(repetitions: int) -> Iterator[Line]:
    """On judges without a liking for length nothing may be lost by looking for one. What is lost is against both orders alone."""
    for said, judge in (("no bias", UNBIASED), ("no bias, but longer is better", replace(UNBIASED, rho=0.6))):
        found = scores(judge, repetitions, 2)
        plain = found["both orders, logits averaged"].accuracy
        for name in CORRECTING:
            loss = plain - found[name].accuracy
            text = f"{f'{said}: {name}':60} {found[name].accuracy:.4f}, {plain:.4f} without; loss {loss:+.4f} (<= {HARM})"
            yield Line(text=text, passed=loss <= HARM)


def bound(judge: Judge, pairs: int, votes: bool) -> float:
    """The least standard error of b. Votes: from how often each slot wins twice, over 4 million draws of the opinion."""
    if not votes:
        return float(judge.call / np.sqrt(2 * pairs))
    x = draw(judge, 1, 4_000_000, 5).x
    first, second = (float((sigmoid(x + b) * (1 - sigmoid(x - b))).mean()) for b in (judge.b, -judge.b))
    return float(0.5 * np.sqrt(1 / (pairs * first) + 1 / (pairs * second)))


def position(repetitions: int, slack: float) -> Iterator[Line]:
    """How well b is found."""
    for votes, pairs in ((False, 100), (False, 1000), (True, 100), (True, 1000)):
        judge = replace(BIASED, call=0.0) if votes else BIASED
        drawn = draw(judge, repetitions, pairs, 20 + pairs + votes)
        found = [_from_votes(ab, ba) for ab, ba in zip(*drawn.vote, strict=True)] if votes else [
            position_from_probabilities(ab, ba) for ab, ba in zip(*drawn.logit, strict=True)
        ]  # fmt: skip
        name = f"b, {'votes' if votes else 'probabilities'}, {pairs:,} pairs"
        yield _estimated(name, found, B, bound(judge, pairs, votes), slack)


def _from_votes(ab: np.ndarray, ba: np.ndarray) -> Estimate:
    return position_from_votes(int((ab & ~ba).sum()), int((~ab & ba).sum()))


def probes(repetitions: int, slack: float) -> Iterator[Line]:
    """How well the liking for length is found by 50 probes."""
    drawn = draw(BIASED, repetitions, 50, 31)
    asked = probe(BIASED, drawn, 50, 31)
    # A change has the noise of two calls, 2 * call^2; two orders halve it.
    least = float((BIASED.call / np.sqrt((asked.change[0] ** 2).sum(axis=1))).mean())
    found = list(length_effects(BIASED, drawn, 50, 31))
    yield _estimated("c, probabilities, 50 probes", found, BIASED.c, least, slack)
    drawn = draw(replace(BIASED, call=0.0), repetitions, 200, 32)
    yield _estimated("c, votes, 200 probes", list(_voted(drawn, 200, 32)), BIASED.c, None, slack)


def _voted(drawn: Drawn, count: int, seed: int) -> Iterator[Estimate]:
    judge = replace(BIASED, call=0.0)
    asked, rng, keys = probe(judge, drawn, count, seed), np.random.default_rng((seed, 4)), np.tile(_keys(drawn)[:count], 2)
    after = np.where(rng.random(asked.after.shape) < sigmoid(asked.after), 1, -1)
    before = np.where(drawn.vote[:, :, :count], 1, -1)
    for n in range(len(drawn.theta)):
        yield from_votes(asked.change[:, n].ravel(), before[:, n].ravel(), after[:, n].ravel(), keys)


def _estimated(name: str, found: list[Estimate], truth: float, least: float | None, slack: float) -> Line:
    value = np.array([np.nan if at.value is None else at.value for at in found])
    error = float(np.sqrt(np.nanmean((value - truth) ** 2)))
    covered = float(np.mean([at.ci is not None and at.ci[0] <= truth <= at.ci[1] for at in found]))
    good = COVERAGE[0] - slack <= covered <= COVERAGE[1] + slack and (least is None or error <= OVER_BOUND * least)
    beside = f" (bound {least:.3f}, at most {OVER_BOUND} of it: {error / least:.2f})" if least else ""
    text = f"{name:32} mean {np.nanmean(value):+.3f} ({truth:+.3f}), RMSE {error:.3f}{beside}, coverage {covered:.3f}"
    return Line(text=f"{text} ({COVERAGE[0]:.2f} to {COVERAGE[1]:.2f})", passed=good)


def win_rates(repetitions: int, slack: float) -> Iterator[Line]:
    """How often the longer answer is the better one: 1/2 + asin(rho) / pi, theta and L being normal with correlation rho."""
    truth, found = 0.5 + float(np.arcsin(BIASED.rho)) / np.pi, list[ppi.Powered]()
    for start in range(0, repetitions, REPETITIONS):
        drawn = draw(BIASED, min(REPETITIONS, repetitions - start), PAIRS, 40 + start)
        answers = zip(both_orders(BIASED, drawn, 0), drawn.length, drawn.truth, strict=True)
        found += [_powered(*one, _keys(drawn)) for one in answers]
    yield _rate("100 gold and the judge (PPI++)", [one.estimate for one in found], truth, "; known half-width .065", slack)
    yield _rate("100 gold alone", [one.gold_only for one in found], truth, "; known half-width .095", None)
    yield _rate("the judge alone", [one.judge_only for one in found], truth, "; known coverage 0", None)


def _rate(name: str, found: list[Estimate], truth: float, known: str, slack: float | None) -> Line:
    """`slack` None: no bar."""
    ends = np.array([one.ci for one in found])
    covered = float(((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean())
    text = f"{name:32} half-width {(ends[:, 1] - ends[:, 0]).mean() / 2:.3f}, coverage {covered:.3f}"
    if slack is None:
        return Line(text=text + known)
    bar = f" ({COVERAGE[0]:.2f} to {COVERAGE[1]:.2f})"
    return Line(text=text + bar + known, passed=COVERAGE[0] - slack <= covered <= COVERAGE[1] + slack)


def _powered(z: Floats, length: Floats, truth: Ints, keys: Floats) -> ppi.Powered:
    gold = np.where(np.arange(len(z)) < 100, truth, np.nan)
    return ppi.powered_win_rate(z, length[:, np.newaxis], np.sign(length), gold, np.ones(len(z)), keys)


def everything(quick: bool) -> Iterator[tuple[str, Iterator[Line]]]:
    """Every part of the benchmark. Gives: its title, and its lines"""
    repetitions, covered = (24, 400) if quick else (REPETITIONS, COVERED)
    slack = 2 * float(np.sqrt(0.05 * 0.95 / covered)) if quick else 0.0
    yield f"Labels: {PAIRS:,} pairs, c = {BIASED.c}, rho = {BIASED.rho}, b = {B}, means of {repetitions}", recovery(repetitions)
    yield f"No harm: means of {repetitions}", harmless(repetitions)
    yield f"Position: {covered:,} repetitions", position(covered, slack)
    yield f"Probes: {covered:,} repetitions", probes(covered, slack)
    yield f"Win rates: {covered:,} repetitions of {PAIRS:,} pairs", win_rates(covered, slack)


def show(parts: Iterator[tuple[str, Iterator[Line]]]) -> bool:
    """Print them as they come. Gives: whether no line failed"""
    good = True
    for title, lines in parts:
        print(f"\n{title}", flush=True)
        for line in lines:
            good = good and line.passed is not False
            print(f"{'' if line.passed is None else 'PASS' if line.passed else 'FAIL':4}  {line.text}", flush=True)
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer repetitions")
    sys.exit(not show(everything(parser.parse_args().quick)))


if __name__ == "__main__":
    main()
