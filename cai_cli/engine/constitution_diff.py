"""What changed between two constitutions, how many rows of an output it touches, and what it costs to ask those again.

A pick depends on the seed, the row's id and the round only, so which rows a change touches is known before anything is asked.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cai_cli import oversights
from cai_cli.config import Config
from cai_cli.constitution import PRIORITIES, Constitution, Criterion, Principle
from cai_cli.engine import plan, versions
from cai_cli.engine.feed import Unit, from_version
from cai_cli.engine.ledger import key_of
from cai_cli.engine.plan import Step
from cai_cli.errors import Fix
from cai_cli.flow import Reply, Request, play
from cai_cli.prices import price_of
from cai_cli.providers._world import world_of
from cai_cli.providers.simulated import reply_to
from cai_cli.records import Chain, Pair, Prompt, Sample

PLAYED = 200  # touched prompts that are played through, at most
_UNSEEN = ("weight", "source", "priority")  # fields that no request holds
JUDGING = ("critique", "revise", "label-pairs")


@dataclass(kw_only=True)
class Touched:
    """What a change does to the rows of one stage."""

    rows: int = 0
    touched: int = 0  # held to something else from the start: another pick, or another text of the same one
    indirectly: int = 0  # besides those: in a later round, if they get there, or a pair or scores of what is rewritten
    requests: int = 0
    dollars_at_most: float | None = 0.0  # None: nobody knows the price of a model
    unpriced: set[str] = field(default_factory=set)

    def add(self, request: Request, tokens_in: int) -> None:
        """Count a request that would be asked anew, its reply as long as it may be."""
        self.requests += 1
        price = price_of(request.model)
        if price is None:
            self.unpriced.add(request.model.name)
            self.dollars_at_most = None
        elif self.dollars_at_most is not None:
            self.dollars_at_most += price.dollars(tokens_in, request.model.max_tokens)

    def scaled(self, factor: float) -> Touched:
        """The same with requests and dollars of all prompts, not only of those that were played."""
        dollars = None if self.dollars_at_most is None else round(self.dollars_at_most * factor, 6)
        return replace(self, requests=round(self.requests * factor), dollars_at_most=dollars)


def changes(before: Constitution, after: Constitution) -> dict[str, Any]:
    """What was added, removed and changed, entry by entry, and how the weight moved between categories.

    Gives: for principles and preferences {added, removed, changed: [{name, fields: {field: [before, after]}}], same, reordered,
    weights: {category: [share before, share after]}}, as JSON takes it
    """
    parts = (("principles", before.principles, after.principles), ("preferences", before.preferences, after.preferences))
    return {part: _part(old, new) for part, old, new in parts}


def _part(old: oversights.Entries, new: oversights.Entries) -> dict[str, Any]:
    was, now = {entry.name: entry for entry in old}, {entry.name: entry for entry in new}
    kept = [name for name in was if name in now]
    changed = [{"name": name, "fields": _fields(was[name], now[name])} for name in kept if was[name] != now[name]]
    return {
        "added": [asdict(entry) for name, entry in now.items() if name not in was],
        "removed": [asdict(entry) for name, entry in was.items() if name not in now],
        "changed": changed, "same": len(kept) - len(changed), "reordered": kept != [name for name in now if name in was],
        "weights": _weights(old, new),
    }  # fmt: skip


def _fields(was: Principle | Criterion, now: Principle | Criterion) -> dict[str, list[Any]]:
    old, new = asdict(was), asdict(now)
    return {name: [old[name], new[name]] for name in old if old[name] != new[name]}


def _weights(old: oversights.Entries, new: oversights.Entries) -> dict[str, list[float]]:
    sides = [oversights.weights(entries) for entries in (old, new)]
    totals = [sum(side.values()) for side in sides]
    names = dict.fromkeys([*sides[1], *sides[0]])
    return {name: [round(side.get(name, 0.0) / total, 4) for side, total in zip(sides, totals, strict=True)] for name in names}


# Rows


def touched(before: Config, after: Config) -> tuple[dict[str, Touched], str]:
    """What a change of the constitution touches in an output.

    Takes: the same config twice, with the one constitution and with the other
    Gives: by stage; and where the rows come from: versions of the output, or prompts. Requests and dollars are what a run after
    the change asks anew of rows that were run before it: touched prompts are played through both, with the simulated model's
    replies
    Raises: Fix: no stage uses a constitution, input from stdin, or none that can be used
    """
    sides = [plan.steps_of(config, plan.sections_of(config)) for config in (before, after)]
    steps = [{step.name: step for step in side if step.name in JUDGING and step.constitution} for side in sides]
    if not steps[1]:
        raise Fix(f"{after.path}: no section of it uses a constitution", "name a config that has critique, revise or label_pairs")
    if after.prompts is not None and after.prompts.path == "-":
        raise Fix("rows are read ahead here, and stdin can be read only once", "write it to a file, and name that in the config")
    counting = _Counting(steps[0], steps[1])
    place = _count(counting, after, sides[1])
    _price(counting, sides, after)
    return counting.found, place


class _Counting:
    """Goes through rows once, and remembers whose prompts are touched."""

    def __init__(self, before: dict[str, Step], after: dict[str, Step]) -> None:
        self.before, self.after = before, after
        self.found = {name: Touched() for name in after}
        # To draw is what takes the time here: nothing is drawn where nothing can differ.
        self.other_principles, self.other_criteria = (_differ(part, before, after) for part in ("principles", "preferences"))
        self.samples: set[str] = set()  # ids
        self.prompts: set[str] = set()

    def sample(self, sample: Sample) -> None:
        """A response, which critique and revise hold to principles."""
        # Where there is a critique, what it picks is what is revised by.
        picking = "critique" if "critique" in self.after else "revise"
        if picking not in self.after:
            return
        sides, numbers = (self.before[picking], self.after[picking]), range(1, self._rounds() + 1)
        picked = [[_picked(step, sample.id, n) for step in sides] for n in numbers] if self.other_principles else [((), ())]
        differs = {name: [_texts(old, name) != _texts(new, name) for old, new in picked] for name in ("critique", "revise")}
        if self.other_criteria and "revise" in self.after and self.after["revise"].stage.judge is not None:
            # Whether a revision is accepted is asked by a criterion of its own.
            judged = [self._criteria("revise", sample.id, 1, n) for n in numbers]
            differs["revise"] = [any(both) for both in itertools.zip_longest(differs["revise"], judged)]
        for name in (name for name in differs if name in self.found):
            self._held(self.found[name], differs[name], sample)

    def _held(self, one: Touched, differs: Sequence[bool], sample: Sample) -> None:
        one.rows += 1
        one.touched += differs[0]
        one.indirectly += any(differs) and not differs[0]
        if any(differs):
            self.samples.add(sample.id)
            self.prompts.add(sample.prompt_id)

    def pair(self, pair: Pair) -> None:
        """Two responses, which labelers compare by criteria."""
        one = self.found["label-pairs"]
        one.rows += 1
        count = self.after["label-pairs"].stage.settings.principles
        if self.other_criteria and self._criteria("label-pairs", pair.id, count, 1):
            one.touched += 1
            self.prompts.add(pair.prompt_id)
        elif {source.partition(":")[0] for source in (pair.source_a, pair.source_b)} & self.samples:
            one.indirectly += 1

    def _rounds(self) -> int:
        return int(self.after["revise"].stage.settings.rounds) if "revise" in self.after else 1

    def _criteria(self, stage: str, row_id: str, count: int, number: int) -> bool:
        """Whether other criteria are drawn for a row, or the same in other words."""
        steps = (self.before[stage], self.after[stage])
        old, new = (_made(step).pick_preferences("weighted", count, step.seed, row_id, number) for step in steps)
        return _texts(old) != _texts(new)


def _differ(part: str, *sides: dict[str, Step]) -> bool:
    old, new = ([getattr(step.constitution, part) for step in steps.values()] for steps in sides)
    return old != new


def _picked(step: Step, row_id: str, number: int) -> tuple[Principle, ...]:
    settings = step.stage.settings
    return _made(step).pick(settings.pick, settings.principles, step.seed, row_id, number)


def _made(step: Step) -> Constitution:
    held: Constitution = step.stage.constitution  # with the weights that the config's categories give it
    return held


def _texts(picked: Sequence[Principle] | Sequence[Criterion], stage: str = "") -> Hashable:
    """What of a pick stands in the requests of a stage, in its order there: a reviser is told what goes first."""
    ordered = sorted(picked, key=_rank) if stage == "revise" else picked
    return tuple(_seen(one, stage) for one in ordered)


def _rank(one: Principle | Criterion) -> int:
    return PRIORITIES.index(one.priority) if isinstance(one, Principle) and one.priority else len(PRIORITIES)


@functools.cache
def _seen(one: Principle | Criterion, stage: str) -> Hashable:
    hidden = {*_UNSEEN, "revision_prompt"} if stage == "critique" else {*_UNSEEN}
    return tuple(text for name, text in asdict(one).items() if name not in hidden)


def _count(counting: _Counting, config: Config, steps: Sequence[Step]) -> str:
    """Count rows of the newest versions or, where there are none, those that the input will make. Gives: which of them"""
    labels = next((step for step in steps if step.name == "label-pairs" and step.name in counting.found), None)
    made = {name: versions.latest(config.output_path, name) for name in ("label-pairs", "generate", "revise", "critique")}
    pairs, *others = made.values()
    samples = next((version for version in others if version), None)
    place = ", ".join(f"{version.path.parent.name}/{version.name}" for version in (samples, pairs) if version)
    if samples or not pairs:
        shape = plan.shapes()[samples.path.parent.name] if samples else Sample
        for unit in from_version(samples, shape, None).units() if samples else _expected(config, steps):
            _see(counting, unit, None if pairs else labels)
    if pairs and labels:
        for unit in from_version(pairs, Pair, None).units():
            for pair in unit.rows:
                counting.pair(pair)
    return place or "the prompts, times samples"


def _see(counting: _Counting, unit: Unit, labels: Step | None) -> None:
    """One prompt's samples, and the pairs that they would make."""
    samples = [row for row in unit.rows if isinstance(row, Sample) and row.response.strip()]
    for sample in samples:
        counting.sample(sample)
    if labels is not None:
        given: list[Any] = [row for row in unit.rows if isinstance(row, Pair)]
        pairs, _ = labels.stage.gather(given or [_revised(sample) for sample in samples])
        for pair in pairs:
            counting.pair(pair)


def _revised(sample: Sample) -> Chain:
    """A sample as it may be after revision: a text of its own, so that it makes pairs with the others and with what it was."""
    chain = Chain.begin(sample)
    return replace(chain, response=f"{chain.id} revised", initial_response=chain.id)


def _expected(config: Config, steps: Sequence[Step]) -> Iterator[Unit]:
    """The rows that the input will make, none of them rejected."""
    for unit in plan.feed_of(config, steps, None, None).units():
        rows = [row for one in unit.rows for row in (_samples(one, steps[0]) if isinstance(one, Prompt) else [one])]
        yield Unit(unit.shard, rows)


def _samples(prompt: Prompt, generate: Step) -> Iterator[Sample]:
    settings: Any = generate.settings
    for n in range(len(settings.systems) * settings.samples):
        name = f"{prompt.id}-{n}"
        yield Sample(id=name, prompt_id=prompt.id, messages=prompt.messages, prompt=prompt.text, sample=n, response=name)


# Price


def _price(counting: _Counting, sides: Sequence[Sequence[Step]], config: Config) -> None:
    """Play touched prompts through both, and price what only the new one asks. The others ask nothing new."""
    feed = plan.feed_of(config, sides[1], None, None)
    places = [n for n, unit in enumerate(feed.units()) if _prompt_id(unit.rows[0]) in counting.prompts]
    chosen = set(places[:: -(-len(places) // PLAYED)] if places else [])
    programs = [plan.program_of(side) for side in sides]
    by_stage = dict[str, Touched]()
    for step in sides[1]:
        by_stage[step.name] = counting.found.get(step.name) or _behind(by_stage.get(step.source, Touched()))
    known = set[bytes]()
    for unit in (unit for n, unit in enumerate(feed.units()) if n in chosen):
        play(programs[0](unit.rows), _answer(known, None))
        play(programs[1](unit.rows), _answer(known, by_stage))
    factor = len(places) / max(1, len(chosen))
    asking = {name: one.scaled(factor) for name, one in by_stage.items() if name in counting.found or one.requests}
    counting.found = asking


def _behind(source: Touched) -> Touched:
    """The rows of a stage that uses no constitution: they change with those that it reads, such as scores of a revision."""
    return Touched(rows=source.rows, indirectly=source.touched + source.indirectly)


def _prompt_id(row: Any) -> str:
    return str(row.id if isinstance(row, Prompt) else row.prompt_id)


def _answer(known: set[bytes], by_stage: dict[str, Touched] | None) -> Callable[[Request], Reply]:
    """The simulated model, whoever is asked. `by_stage`: where to count what was not known; None: it becomes known."""

    def answer(request: Request) -> Reply:
        reply = reply_to(request, world_of(request.model.params))
        if (key := key_of(request)) not in known:
            known.add(key)
            if by_stage is not None:
                by_stage[request.stage].add(request, reply.tokens_in)
        return reply

    return answer
