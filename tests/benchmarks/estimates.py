"""Print how far `cai estimate` is from what a run then costs, and how often its 90% interval holds that: `make bench-estimates`.

A population of prompts is paid for in full in a world; of it 50 prompts are drawn, as --sample does, under many seeds, and all
the others are estimated. What stands in for their replies is the default world of another seed, and the worlds that answer
here are others: shorter and longer replies, of a spread that the guess does not have, other severities, more rounds, noise, and
one in which even what a prompt leads to has nothing to do with what the guess thinks of it. Prices: 3 and 15 dollars a million
tokens. Each line says PASS or FAIL: the median error of dollars at most 10%, and the interval holds the truth in 9 of 10 seeds,
as far as so many seeds can tell. Without a sample: whether the interval of the stated assumptions holds the truth, which is 1.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from cai_cli import chance, config
from cai_cli.engine.estimate.anatomy import anatomy_of
from cai_cli.engine.estimate.collect import TRIED, Counts, nobody
from cai_cli.engine.estimate.guess import HIGH, LOW, MIDDLE
from cai_cli.engine.estimate.make import Job, job_of
from cai_cli.engine.estimate.playing import COLUMNS, ROWS, Counted, Player
from cai_cli.engine.estimate.survey import Interval, Survey
from cai_cli.engine.plan import sections_of
from cai_cli.flow import Outcome, Request
from cai_cli.providers._world import World
from cai_cli.providers.simulated import reply_to
from cai_cli.records import Turn

PROMPTS, SEEDS, SAMPLE = 600, 200, 50
CLOSE, COVERED = 0.10, 0.9
THINGS = ("bicycle", "bread oven", "violin", "tomato bed", "kite", "stone wall", "lease", "choir", "budget", "poisoned well")


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A world that answers, and how: what of the guess is wrong there."""

    name: str
    world: World
    salted: bool = False  # whether prompts mean something else to it than to the guess


CASES = (
    Case(name="as guessed, other draws", world=World(seed=5)),
    Case(name="replies half as long", world=World(seed=5, reply_length=0.5)),
    Case(name="replies four times as long", world=World(seed=5, reply_length=4)),
    Case(name="lengths that vary, sd of log .7", world=World(seed=5, reply_length=2, reply_spread=0.7)),
    Case(name="hardly any harm, few rounds", world=World(seed=5, harm=0.1)),
    Case(name="much harm, little mended", world=World(seed=5, harm=0.9, revise_keep=0.6)),
    Case(name="noise, refusals, unreadable", world=World(seed=5, critic_noise=0.1, refusal_rate=0.1, unreadable_rate=0.1)),
    Case(name="strange prompts, lengths vary", world=World(seed=5, reply_length=3, reply_spread=0.5), salted=True),
)  # fmt: skip


def job(folder: Path, prompts: int) -> Job:
    """A config of all stages, with prompts of many lengths."""
    rows = [{"id": f"p{n}", "prompt": _prompt(n)} for n in range(prompts)]
    (folder / "prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    document = {
        "name": "bench", "seed": 7, "output": str(folder / "out"), "constitution": "constitutions/general.yaml",
        "model": {"provider": "simulated", "name": "w", "max_tokens": 2048, "price": {"input": 3, "output": 15}},
        "prompts": {"path": "prompts.jsonl"}, "generate": {"samples": 2}, "critique": {}, "revise": {"rounds": 3},
        "label_pairs": {}, "debias": {},
    }  # fmt: skip
    (folder / "c.yaml").write_text(json.dumps(document))
    loaded = config.load(folder / "c.yaml")
    return job_of(loaded, sections_of(loaded), None, None)


def _prompt(n: int) -> str:
    more = " I have tried glue, tape and patience, in this order." * int(8 * chance.unit("more", n) ** 3)
    return f"How do I mend {THINGS[n % len(THINGS)]} number {n}?{more}"


def answers(case: Case) -> Callable[[Request], Outcome]:
    """How this world answers, whatever the request's own model is."""

    def answer(request: Request) -> Outcome:
        if case.salted and request.stage == "generate":
            (turn,) = request.messages
            other = Turn(role="user", content=f"{chance.nonce(turn.content)} {turn.content}")
            reply = reply_to(replace(request, messages=(other,)), case.world)
            return replace(reply, tokens_in=max(1, round(len(turn.content) / 4)))
        return reply_to(request, case.world)

    return answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Population:
    """All prompts of a job, guessed and paid for."""

    job: Job
    pure: Sequence[Counted]
    paid: Sequence[Counted]
    outer: tuple[list[Counted], list[Counted]]
    models: dict[str, Any]

    def survey(self, sample: Sequence[int]) -> tuple[Survey, list[int]]:
        """What is estimated where these prompts are paid for. Gives: that, and the cells that cost money"""
        mixed = list(self.pure)
        for at in sample:
            mixed[at] = self.paid[at]
        counts = Counts(
            steps=self.job.steps, prompts=len(mixed), played=len(mixed), pure=list(self.pure), mixed=mixed, outer=self.outer,
            models=self.models,
        )  # fmt: skip
        found = counts.collected()
        return Survey(found.found), [at for at, (_, model) in enumerate(found.cells) if model != ROWS]

    def dollars(self, sample: Sequence[int]) -> Interval:
        survey, cells = self.survey(sample)
        return survey.sum(cells, [COLUMNS.index("dollars")])


def populate(job: Job, case: Case) -> Population:
    """Play all prompts, once as they are guessed and once as the world answers."""
    anatomy, units = anatomy_of(job.steps), [unit.rows for unit in job.feed.units()]
    guesser, payer = Player(anatomy, MIDDLE, nobody), Player(anatomy, MIDDLE, answers(case))
    outer = [[player.prompt(job.program, rows) for rows in units[:TRIED]] for player in
             (Player(anatomy, LOW, nobody), Player(anatomy, HIGH, nobody))]  # fmt: skip
    return Population(
        job=job, pure=[guesser.prompt(job.program, rows) for rows in units],
        paid=[payer.prompt(job.program, rows) for rows in units], outer=(outer[0], outer[1]),
        models=guesser.models | payer.models,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """How estimates did over seeds."""

    errors: np.ndarray  # of dollars, relative, with their sign
    covered: float  # share of seeds whose interval holds the truth
    half: float  # mean half-width, relative
    assumed: Interval  # without a sample, relative to the truth


def score(population: Population, seeds: int, sample: int) -> Score:
    """Estimate from a sample under each seed."""
    count = len(population.pure)
    truth = population.dollars(range(count)).value
    found = []
    for seed in range(seeds):
        order = sorted(range(count), key=lambda at: chance.unit(seed, "estimate", f"p{at}"))
        found.append(population.dollars(order[:sample]))
    inside = [one.low <= truth <= one.high for one in found]
    return Score(
        errors=np.array([one.value / truth - 1 for one in found]), covered=float(np.mean(inside)),
        half=float(np.mean([(one.high - one.low) / 2 / truth for one in found])),
        assumed=population.dollars(()).times(1 / truth),
    )  # fmt: skip


def main() -> None:
    """Print a line a world; exit 1 where a bar is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 prompts, 40 seeds")
    parser.add_argument("--sample", type=int, default=SAMPLE)
    given = parser.parse_args()
    prompts, seeds = (200, 40) if given.quick else (PROMPTS, SEEDS)
    failed = False
    print(f"{prompts} prompts, {given.sample} sampled, {seeds} seeds; dollars against what all of them cost")
    print(f"{'world':<34}{'bias':>7}{'median':>8}{'90th':>7}{'covered':>9}{'+-':>7}   without a sample")
    with tempfile.TemporaryDirectory() as folder:
        work = job(Path(folder), prompts)
        for case in CASES:
            one = score(populate(work, case), seeds, given.sample)
            off = np.abs(one.errors)
            slack = 1.645 * np.sqrt(COVERED * (1 - COVERED) / seeds)
            good = np.median(off) <= CLOSE and one.covered >= COVERED - slack and one.assumed.low <= 1 <= one.assumed.high
            failed |= not good
            line = f"{case.name:<34}{one.errors.mean():>+7.1%}{np.median(off):>8.1%}{np.percentile(off, 90):>7.1%}"
            without = f"{one.assumed.value:.2f} [{one.assumed.low:.2f}, {one.assumed.high:.2f}]"
            print(f"{line}{one.covered:>9.1%}{one.half:>7.1%}   {without:<18}   {'PASS' if good else 'FAIL'}")
    sys.exit(failed)


if __name__ == "__main__":
    main()
