"""Print whether labels by `cai debias` beat the best single judge, on published verdicts of five real ones. `make bench-llmbar`.

The data are LLMBar's 419 pairs with objective gold (Zeng et al. 2023, arXiv 2310.07641) and what GPT-4, ChatGPT, PaLM2, LLaMA2
and Falcon said of them in both orders, as rows for `cai debias -i`: the file is the argument, or lies in the folder CAI_SHARED.
Five folds by a hash of the prompt: gold is known on four, labels are judged on the fifth. The best single judge is chosen on the
same four, by accuracy; a judge that contradicts itself over the orders is right by half.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from judge_rows import Debiased, fresh

from cai_cli import chance
from cai_cli.bias.coefficients import effective
from cai_cli.bias.estimate import Bools, Estimate, Floats, Ints
from cai_cli.bias.interval import clustered_mean

FILE, FOLDS = Path("data") / "llmbar_judge_votes.jsonl.gz", 5
SIDE = {"a": 1, "b": -1}
OURS, SINGLE = "cai debias", "best single judge of four folds"
OTHERWISE = {  # what each part of it is worth
    "without length": {"length": "off"},
    "labelers not weighted": {"aggregate": "mean"},
    "neither of both": {"aggregate": "mean", "length": "off"},
    "Dawid-Skene": {"aggregate": "dawid_skene"},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """Rows as they are given, and what they say."""

    rows: tuple[Mapping[str, Any], ...]
    judges: tuple[str, ...]
    votes: Floats  # (pairs, judges, 2) +1 a, -1 b, 0 none, in orders ab and ba
    gold: Ints  # +1 a, -1 b
    fold: Ints
    subset: tuple[str, ...]

    @property
    def opinion(self) -> Floats:
        """(pairs, judges) the mean over the orders: 1, .5, 0, -.5 or -1."""
        return np.asarray(self.votes.mean(axis=2))


def read(path: Path) -> Data:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        rows = [json.loads(line) for line in file]
    judges = tuple(dict.fromkeys(vote["labeler"] for row in rows for vote in row["votes"]))
    votes = np.zeros((len(rows), len(judges), 2))
    for n, row in enumerate(rows):
        for vote in row["votes"]:
            votes[n, judges.index(vote["labeler"]), int(vote["order"] == "ba")] = SIDE.get(vote["verdict"], 0)
    return Data(
        rows=tuple(rows), judges=judges, votes=votes, gold=np.array([SIDE[row["gold"]] for row in rows]),
        fold=np.array([int(chance.unit("fold", row["prompt_id"]) * FOLDS) for row in rows]),
        subset=tuple(json.loads(row["meta"])["subset"] for row in rows),
    )  # fmt: skip


def right(side: Floats, gold: Ints) -> Floats:
    """1 where the side is gold's, .5 where there is none, else 0."""
    return np.asarray((1 + np.sign(side) * gold) / 2)


def debiased_folds(data: Data, **settings: Any) -> tuple[Floats, list[Debiased]]:
    """(pairs,) log-odds of each pair by a run that did not see its gold, and the runs. Takes: settings of `debias`"""
    runs = [debiased_fold(data, fold, **settings) for fold in range(FOLDS)]
    return np.choose(data.fold, [run.logit for run in runs]), runs


def debiased_fold(data: Data, fold: int, **settings: Any) -> Debiased:
    """A run that does not see the gold of one fold."""
    given = [_renamed(row, n, bool(data.fold[n] == fold)) for n, row in enumerate(data.rows)]
    return fresh(given, len(given), **settings)


def _renamed(row: Mapping[str, Any], n: int, blank: bool) -> dict[str, Any]:
    return {**row, "id": f"p{n}-0-1", "prompt_id": f"p{n}"} | ({"gold": ""} if blank else {})


def best_single(data: Data) -> tuple[Floats, list[str]]:
    """(pairs,) the side of the judge that is best on the other four folds, and who that is, fold by fold."""
    hits, side, names = right(data.opinion, data.gold[:, np.newaxis]), np.zeros(len(data.gold)), []
    for fold in range(FOLDS):
        rest = data.fold != fold
        best = int(hits[rest].mean(axis=0).argmax())
        names.append(data.judges[best])
        side[~rest] = data.opinion[~rest, best]
    return side, names


def best_by_subset(data: Data) -> Floats:
    """(pairs,) the same, chosen by subset: who would know which kind a pair is."""
    hits, side = right(data.opinion, data.gold[:, np.newaxis]), np.zeros(len(data.gold))
    for fold in range(FOLDS):
        for subset in set(data.subset):
            here = np.array([one == subset for one in data.subset])
            rest, out = here & (data.fold != fold), here & (data.fold == fold)
            side[out] = data.opinion[out, int(hits[rest].mean(axis=0).argmax())]
    return side


def mean(values: Floats, rows: Bools | None = None) -> tuple[float, float, float]:
    """A mean and its 95% interval, pairs independent."""
    chosen = values if rows is None else values[rows]
    found = clustered_mean(chosen, np.ones(len(chosen)))
    low, high = found.ci or (float("nan"), float("nan"))
    return float(found.value or 0.0), low, high


def in_words(found: tuple[float, float, float], sign: str = "") -> str:
    ends = "" if np.isnan(found[1]) else f" ({found[1]:{sign}.3f} to {found[2]:{sign}.3f})"
    return f"{found[0]:{sign}.3f}{ends}"


def report(data: Data) -> Iterator[str]:
    """All lines."""
    logit, runs = debiased_folds(data)
    single, chosen = best_single(data)
    sides = {
        OURS: logit, SINGLE: single, "majority of all votes": data.votes.sum(axis=(1, 2)),
        "GPT-4": data.opinion[:, data.judges.index("GPT-4")],
    }  # fmt: skip
    hits = {name: right(side, data.gold) for name, side in sides.items()}
    yield f"{len(data.gold)} pairs, {len(data.judges)} judges, both orders; folds of {np.bincount(data.fold).tolist()}"
    yield f"best single judge, fold by fold: {', '.join(chosen)}"
    yield ""
    yield f"{'accuracy on the fold not seen':42} {'':22}   less the best single judge's"
    for name, hit in hits.items():
        yield _beside(name, hit, hits[SINGLE])
    for name, settings in OTHERWISE.items():
        yield _beside(f"  {OURS}, {name}", right(debiased_folds(data, **settings)[0], data.gold), hits[SINGLE])
    yield f"log-loss of cai debias {in_words(mean(np.logaddexp(0, -data.gold * logit)))}; of the judge chosen, as often right as "
    yield f"  it was on the four folds: {in_words(mean(_loss_of_single(data, single)))}; of a coin .693"
    yield ""
    yield from _by_subset(data, hits)
    yield ""
    yield from _why(data, hits, runs)


def _beside(name: str, hit: Floats, single: Floats) -> str:
    return f"{name:42} {in_words(mean(hit))}" + ("" if name == SINGLE else f"   {in_words(mean(hit - single), '+')}")


def _loss_of_single(data: Data, single: Floats) -> Floats:
    """What a table of 'it agrees with itself / contradicts itself' gives, with probabilities from the other folds."""
    loss = np.full(len(single), np.log(2.0))
    for fold in range(FOLDS):
        out, rest = data.fold == fold, data.fold != fold
        sure = single != 0
        known = (right(single, data.gold)[rest & sure].sum() + 0.5) / (float((rest & sure).sum()) + 1)
        odds = np.log(known / (1 - known))
        loss[out & sure] = np.logaddexp(0, -data.gold[out & sure] * np.sign(single[out & sure]) * odds)
    return loss


def _by_subset(data: Data, hits: Mapping[str, Floats]) -> Iterator[str]:
    yield f"{'by subset':12} {'pairs':>5} " + " ".join(f"{name[:11]:>11}" for name in hits) + "   cai debias less best single"
    for subset in dict.fromkeys(data.subset):
        here = np.array([one == subset for one in data.subset])
        found = mean(hits[OURS] - hits[SINGLE], here)
        accuracies = " ".join(f"{hit[here].mean():11.3f}" for hit in hits.values())
        yield f"{subset:12} {here.sum():5} {accuracies}   {in_words(found, '+')}"


def _why(data: Data, hits: Mapping[str, Floats], runs: Sequence[Debiased]) -> Iterator[str]:
    """What there is to win: how alike the judges' errors are, and what oracles over the panel reach."""
    errors = 1 - right(data.opinion, data.gold[:, np.newaxis])
    correlation = np.atleast_2d(np.corrcoef(errors.T))
    k = len(data.judges)
    rho = float((correlation.sum() - k) / (k * (k - 1)))
    worth = effective(k, Estimate(value=rho)).value or 1.0
    yield f"errors of the judges correlate {rho:+.2f} on average: n_eff = {worth:.1f} independent judges of {k}"
    yield "  with GPT-4's: " + ", ".join(
        f"{name} {correlation[data.judges.index('GPT-4'), n]:+.2f}" for n, name in enumerate(data.judges) if name != "GPT-4"
    )  # fmt: skip
    yield f"right by half: {', '.join(f'{name} {1 - errors[:, n].mean():.3f}' for n, name in enumerate(data.judges))}"
    lost = hits[SINGLE] == 0.5
    yield (f"the best single judge contradicts itself on {lost.sum()} pairs: a panel that knew all of these would gain "
           f"{lost.sum() / 2 / len(lost):.3f}; cai debias is right on {hits[OURS][lost].mean():.3f} of them")  # fmt: skip
    turned = ~lost & (hits[OURS] != hits[SINGLE])
    right_on = hits[OURS][turned].sum()
    yield f"where it does not, cai debias turns it over on {turned.sum()} pairs, and is right on {right_on:.0f}"
    yield f"best judge by subset (knows the subset): {in_words(mean(right(best_by_subset(data), data.gold)))}"
    yield f"a table of all patterns of votes, all gold seen (votes alone can do no better): {_ceiling(data):.3f}"
    yield f"what was done, fold by fold: {'; '.join(_done(run) for run in runs)}"


def _ceiling(data: Data) -> float:
    """Accuracy where every pattern of opinions has its own label, and all gold is seen: over-fitted, on purpose.

    A pattern and its mirror image (a and b exchanged) are one.
    """
    patterns: dict[tuple[float, ...], list[int]] = {}
    for opinion, gold in zip(data.opinion, data.gold, strict=True):
        first = next((value for value in opinion if value), 0.0)
        patterns.setdefault(tuple(opinion * (np.sign(first) or 1)), []).append(int(gold * (np.sign(first) or 1)))
    best = sum(max(golds.count(1), golds.count(-1)) if any(key) else len(golds) / 2 for key, golds in patterns.items())
    return best / len(data.gold)


def _done(run: Debiased) -> str:
    return f"{run.report['aggregation']['method']}, calibration {run.report['calibration']['method']}"


def found_file(given: str | None) -> Path:
    """The file that was named, or the one in CAI_SHARED. Raises: SystemExit"""
    path = Path(given) if given else Path(os.environ.get("CAI_SHARED", "")) / FILE
    if not path.is_file():
        raise SystemExit(f"{path}: no such file. Name it, or set CAI_SHARED to the folder that holds {FILE}")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", nargs="?", help=f"default: $CAI_SHARED/{FILE}")
    for line in report(read(found_file(parser.parse_args().file))):
        print(line, flush=True)


if __name__ == "__main__":
    main()
