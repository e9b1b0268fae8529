"""Print what labels cost and how right they are when a pilot decides what is asked, beside what asks everything.

The world is that of judge_world.py; what is asked is asked by the flows of `cai label-pairs`, and the judge answers each request
as the world has it. 2,000 pairs, means over 24 repetitions with their standard errors. Each line says PASS or FAIL with its bar;
exit 1 if one is missed. --quick takes 4 repetitions. Beside the labels: the position bias that debias would estimate from all
pairs that were asked in both orders, and from the pilot's alone. "freed of length": the liking for length, which is known here,
is taken off the labels, as debias does where probes or gold identify it; other pairs are then close.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from judge_world import Drawn, Judge, draw

from cai_cli import chance, prompts, votes
from cai_cli.bias.estimate import Floats
from cai_cli.bias.position import position_from_probabilities, position_from_votes
from cai_cli.constitution import BUILT_IN
from cai_cli.engine import pilot, pilot_findings
from cai_cli.engine.feed import Feed, Unit
from cai_cli.engine.plan import Step
from cai_cli.flow import Flow, Model, Reply, Request, play
from cai_cli.judging import Judge as Asked
from cai_cli.records import Pair, Turn
from cai_cli.stages._adaptive import pilot_of
from cai_cli.stages.label_pairs import LabelPairs, Settings

PAIRS, REPETITIONS = 2000, 24
CALLS, CALLS_OF_VOTES, WITHIN = 1.25, 3.3, 0.003
TEMPLATE = replace(prompts.find("general", "label_pairs", Path()), reply="text")
STRONG = Judge(c=0.2, b=0.2, own=0.3, call=0.2)
SOFT = {"adaptive": True}
CASCADE = {"adaptive": True, "labelers": [{"name": "main"}, {"name": "strong", "escalate": 0.4}]}


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """One repetition: what each labeler thinks of the pairs. `soft`: its server tells log-probabilities."""

    drawn: Drawn
    judges: dict[str, tuple[Judge, Floats, Floats]]  # by labeler: the judge, its opinions x of the pairs, its bias there
    soft: bool
    seed: int

    def answer(self, request: Request) -> Reply:
        """What a labeler says of a pair, in the order in which it is shown; another draw is another answer."""
        name, order, row = str(request.about["labeler"]), request.about["order"], int(request.row)
        judge, opinions, bias = self.judges[name]
        exact = opinions[row] * (1 if order == "ab" else -1) + bias[row]  # that the first shown wins
        key = (self.seed, name, row, order, request.draw)
        first, second = request.options[:2]
        if not self.soft:
            won = chance.unit(*key, "vote") < votes.sigmoid(exact)
            return Reply(text=f"Verdict: {first if won else second}")
        noise = np.random.default_rng(int(chance.nonce(*key), 16)).normal()
        p = votes.sigmoid(exact + judge.call * noise)
        return Reply(text=f"Verdict: {first if p > 0.5 else second}", probabilities={first: p, second: 1 - p})


def world(judge: Judge, soft: bool, pairs: int, seed: int) -> World:
    """A repetition with a judge, and with a strong one that sees the same pairs."""
    drawn = draw(judge, 1, pairs, seed)
    own = np.random.default_rng((seed, 8)).normal(size=pairs)
    strong = STRONG.knows * drawn.theta[0] + STRONG.c * drawn.length[0] + STRONG.own * own
    judges = {"main": (judge, drawn.x[0], drawn.bias[0]), "strong": (STRONG, strong, np.full(pairs, STRONG.b))}
    return World(drawn=drawn, judges=judges, soft=soft, seed=seed)


def stage_of(seed: int, settings: dict[str, object]) -> LabelPairs:
    """The stage, as a config with these settings has it."""
    given = Settings(**{"pairs": "given", "principles": 0, "reasoning": False, **settings})  # type: ignore[arg-type]
    names = [one.name for one in given.labelers] or ["main"]
    model = Model(provider="simulated", name="world", params={"max_tokens": 64})
    judges = [Asked(name=name, model=model, template=TEMPLATE, seed=seed, reasoning=False) for name in names]
    return LabelPairs(given, BUILT_IN, judges, seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """Labelled rows. `pilot`: the ids of its pairs; `policy`: how the first labeler is asked; `shift`: its frozen bias."""

    rows: Sequence[Pair]
    calls: dict[str, int]  # by labeler
    right: float
    pilot: frozenset[str]
    policy: str
    shift: float


def labelled(one: World, settings: dict[str, object]) -> Outcome:
    """Label all pairs of a world by the flows of the stage, its pilot first."""
    turn, count = Turn(role="user", content="?"), one.drawn.theta.shape[1]
    texts = [(_text(apart / 4), _text(-apart / 4)) for apart in one.drawn.length[0]]
    pairs = [
        Pair(id=str(n), prompt_id=str(n), messages=(turn,), prompt="?", response_a=a, response_b=b)
        for n, (a, b) in enumerate(texts)
    ]
    stage, seen = stage_of(one.seed, settings), dict[tuple[object, ...], str]()

    def answer(request: Request) -> Reply:
        seen[request.row, request.about["labeler"], request.about["order"], request.draw] = str(request.about["labeler"])
        return one.answer(request)

    if stage.needs_pilot:
        step = Step(name="label-pairs", settings=stage.settings, stage=stage, seed=one.seed)
        trial = pilot.trial([step], Feed(lambda: (Unit(0, (pair,)) for pair in pairs), count, 1, ""))
        found = [pair for unit in trial.feed.units() for pair in play(trial.program(unit.rows), answer)["label-pairs"].rows]
        stage = replace(stage, pilot=pilot_of(pilot_findings.findings(stage, found, trial.repeats)))
    rows = [play(_flow(stage, pair), answer) for pair in pairs]
    says_a = np.array([0.5 if row.preference == "tie" else row.preference == "a" for row in rows])
    right = np.where(one.drawn.truth[0] > 0, says_a, 1 - says_a).mean()
    policy = stage.pilot.document.get("labelers", {}).get("main", {}).get("policy", "both")
    calls = {name: list(seen.values()).count(name) for name in set(seen.values())}
    shift = stage.pilot.shift.get("main", 0.0)
    return Outcome(rows=rows, calls=calls, right=float(right), pilot=stage.pilot.pairs, policy=policy, shift=shift)


def _text(longer: float) -> str:
    """A text of about a hundred words: the log ratio of two is half of L."""
    return "word " * round(100 * np.exp(longer))


def _flow(stage: LabelPairs, pair: Pair) -> Flow[Pair]:
    return stage(pair)


def bias_of(rows: Sequence[Pair], one: World) -> tuple[float, bool]:
    """The position bias from these rows. Gives: by how much it is off the mean of all pairs, and whether its interval has that"""
    if one.soft:
        both = [orders for row in rows if len(orders := _logits(row)) == 2]
        found = position_from_probabilities(np.array([one["ab"] for one in both]), np.array([one["ba"] for one in both]))
    else:
        sides = [(row.votes[at].p_a, row.votes[at + 1].p_a) for row in rows for at in range(0, len(row.votes), 2)]
        found = position_from_votes(sides.count((1.0, 0.0)), sides.count((0.0, 1.0)))
    assert found.value is not None
    assert found.ci is not None
    truth = float(one.drawn.bias.mean())
    return found.value - truth, found.ci[0] <= truth <= found.ci[1]


def freed_of_length(outcome: Outcome, one: World) -> float:
    """How often labels are right when the liking for length, which is known here, is taken off them."""
    judge, _, _ = one.judges["main"]
    logits = np.array([votes.logit(votes.clip(row.p_a or 0.0)) for row in outcome.rows]) - judge.c * one.drawn.length[0]
    return float((np.sign(logits) == one.drawn.truth[0]).mean())


def _logits(row: Pair) -> dict[str, float]:
    given = {order: [votes.logit(votes.clip(v.p_a or 0.0)) for v in row.votes if v.order == order] for order in ("ab", "ba")}
    return {order: float(np.mean(said)) for order, said in given.items() if said}


# What is printed.


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A policy beside the one that asks everything."""

    name: str
    judge: Judge
    soft: bool
    fixed: dict[str, object]
    settings: dict[str, object]
    most: float  # calls a label
    off: bool = False  # the pilot must find that it cannot be asked less
    within: float = WITHIN  # accuracy it may cost


BARS = (
    Bar(name="probabilities", judge=Judge(), soft=True, fixed={}, settings=SOFT, most=CALLS),
    Bar(name="bare verdicts", judge=Judge(), soft=False, fixed={"votes": 3}, settings=SOFT, most=CALLS_OF_VOTES),
    # A judge that breaks the model: b where it is unsure is more than the b that is taken off, and length moves who is unsure.
    Bar(name="bias fades", judge=Judge(fades=2.0), soft=True, fixed={}, settings=SOFT, most=1.3, within=0.004),
    Bar(name="bias varies by pair, sd .7", judge=Judge(b_sd=0.7), soft=True, fixed={}, settings=SOFT, most=2.1, off=True),
    Bar(name="bias varies by pair, sd 1", judge=Judge(b_sd=1.0), soft=True, fixed={}, settings=SOFT, most=2.1, off=True),
)  # fmt: skip


def compared(bar: Bar, repetitions: int) -> bool:
    """Print one bar. Gives: whether it is cleared"""
    calls, apart, freed, accuracy, off = list[float](), list[float](), list[float](), list[float](), 0
    biases: dict[str, list[tuple[float, bool]]] = {"all pairs": [], "the pilot's": []}
    for seed in range(repetitions):
        one = world(bar.judge, bar.soft, PAIRS, seed)
        fixed, mine = labelled(one, bar.fixed), labelled(one, bar.settings)
        calls.append(sum(mine.calls.values()) / PAIRS)
        apart.append(mine.right - fixed.right)
        freed.append(freed_of_length(mine, one) - freed_of_length(fixed, one))
        accuracy.append(mine.right)
        off += mine.policy == "both"
        biases["all pairs"].append(bias_of(mine.rows, one))
        biases["the pilot's"].append(bias_of([row for row in mine.rows if row.id in mine.pilot], one))
    error = float(np.std(apart, ddof=1) / np.sqrt(len(apart)))
    near = min(float(np.mean(apart)), float(np.mean(freed))) >= -bar.within
    cleared = float(np.mean(calls)) <= bar.most and near and (not bar.off or off >= 0.9 * repetitions)
    right = f"accuracy {np.mean(accuracy):.4f}, {np.mean(apart):+.4f} +- {error:.4f} against asking everything"
    right += f", {np.mean(freed):+.4f} freed of length"
    cost = f"{np.mean(calls):.3f} calls (at most {bar.most})"
    print(f"{'PASS' if cleared else 'FAIL'}  {bar.name}: {cost}, {right}; no shortcut in {off} of {repetitions}")
    for what, found in biases.items():
        apart_by, held = np.array([value for value, _ in found]), np.mean([held for _, held in found])
        rmse = float(np.sqrt((apart_by**2).mean()))
        print(f"      b from {what}: off by {apart_by.mean():+.3f} in the mean, rmse {rmse:.3f}, held by {held:.2f} of intervals")
    return cleared


@dataclass(frozen=True, slots=True, kw_only=True)
class Cascade:
    """A cheap labeler, and the strong one for the share of which it is least sure. `within`: what it may fall behind that one."""

    name: str
    cheap: Judge
    share: float
    within: float


CASCADES = (
    Cascade(name="as biased as the strong one, escalate .4", cheap=Judge(c=STRONG.c), share=0.4, within=0.02),
    Cascade(name="as biased as the strong one, escalate .6", cheap=Judge(c=STRONG.c), share=0.6, within=0.005),
    Cascade(name="a cheap one that loves length, escalate .4", cheap=Judge(), share=0.4, within=0.035),
)


def cascaded(one: Cascade, repetitions: int) -> bool:
    """Print a cascade beside the strong labeler alone. Gives: whether it comes as near, with half of its calls"""
    runs: list[tuple[float, float, float, float]] = []
    settings = {"adaptive": True, "labelers": [{"name": "main"}, {"name": "strong", "escalate": one.share}]}
    for seed in range(repetitions):
        seen = world(one.cheap, True, PAIRS, seed)
        alone = labelled(seen, {"labelers": [{"name": "strong"}]})
        cheap, mine = labelled(seen, SOFT), labelled(seen, settings)
        runs.append(
            (mine.calls["main"] / PAIRS, mine.calls["strong"] / PAIRS, mine.right - cheap.right, mine.right - alone.right)
        )
    main, strong, gained, apart = np.mean(runs, axis=0)
    error = float(np.std([run[-1] for run in runs], ddof=1) / np.sqrt(repetitions))
    cleared = bool(strong < 1.0 and apart >= -one.within)
    cost = f"{main:.3f} cheap and {strong:.3f} strong calls"
    right = f"{gained:+.4f} against the cheap one, {apart:+.4f} +- {error:.4f} against the strong one in both orders"
    print(f"{'PASS' if cleared else 'FAIL'}  cascade, {one.name}: {cost}, accuracy {right} (at least {-one.within})")
    return cleared


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    repetitions = 4 if parser.parse_args().quick else REPETITIONS
    cleared = [*(compared(bar, repetitions) for bar in BARS), *(cascaded(one, repetitions) for one in CASCADES)]
    return 0 if all(cleared) else 1


if __name__ == "__main__":
    sys.exit(main())
