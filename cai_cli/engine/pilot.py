"""The pilot of adaptive labelling: a few pairs that are asked about more than once, before the others are asked about less.

Its prompts are chosen by a hash of their ids, so that it can be asked while pairs are still to be made: 80, or a third of them
where that is less. Of each prompt one pair is taken, in both orders, and about 32 of them once more in one order. At 2,000
pairs this costs .06 calls a label. Where a third is below 30, and in a cascade that is not adaptive, nothing is asked that would
not be anyway: 80 prompts, or all, tell who gives probabilities and how sure labelers are.

What it finds is frozen in OUTPUT/.cai/pilots and stands beside the labels as `_pilot.json`: as long as its own prompts stay as
they are, more input is labelled by the same findings.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from cai_cli import chance
from cai_cli.config import Config
from cai_cli.engine import plan
from cai_cli.engine.disk import Patience, write_durably
from cai_cli.engine.feed import Feed, Unit
from cai_cli.engine.plan import Step
from cai_cli.engine.rows import Program
from cai_cli.engine.shards import as_line
from cai_cli.engine.sinks import Done, Progress
from cai_cli.engine.versions import fingerprint
from cai_cli.flow import Flow, Model
from cai_cli.records import Pair
from cai_cli.tables._pilot import NO_PILOT
from cai_cli.tables._pilot import Pilot as Measured

if TYPE_CHECKING:
    from cai_cli.stages.label_pairs import LabelPairs

FILE = "_pilot.json"  # beside the labels
SCHEMA = 2
PROMPTS = 80
SHARE = 3  # of the prompts: one in three, where that is less
NAME = "label-pairs"
WHAT = "pilot prompts"  # are counted while it is asked


# What is frozen.


def frozen(config: Config, steps: Sequence[Step], feed: Feed) -> list[Step] | None:
    """The steps, with what a pilot found. None: they need one that is not there yet

    A pilot fits if nothing has changed that its answers hang on: the steps, and its own prompts. One that was asked about fewer
    prompts than there are now to choose from is too small, as is one that was to tell no biases where there are enough for that.
    """
    step = _labelling(steps)
    if step is None:
        return list(steps)
    enough, tells = _enough(step, feed), _repeats(step, feed) > 0
    known = [one for one in _stored(config, steps) if len(one["prompts"]) >= enough and (one["repeats"] > 0 or not tells)]
    mark = _mark(feed)
    fits = next((one for one in known if one["feed"] == mark), None) or _unchanged(known, feed)
    return None if fits is None else _with(steps, fits["found"])


def ready(config: Config, steps: Sequence[Step], feed: Feed) -> list[Step]:
    """The steps with what a pilot found, if there is one that fits; else as they are, which ask in both orders."""
    return frozen(config, steps, feed) or list(steps)


def of_steps(steps: Sequence[Step]) -> Mapping[str, Any] | None:
    """What the pilot of these steps found; None: they have none."""
    return next((step.stage.pilot.document or None for step in steps if step.name == NAME), None)


def known(steps: Sequence[Step], feed: Feed) -> Measured:
    """What measuring goes by of the pilot that these steps had, or that the version which is read was made with."""
    beside = (parent.path / FILE for parent in feed.parents)
    found = of_steps(steps) or next((orjson.loads(path.read_bytes()) for path in beside if path.is_file()), None)
    if found is None:
        return NO_PILOT
    from cai_cli.stages._adaptive import pilot_of

    return Measured(shift=pilot_of(found).shift, pairs=frozenset(found["pairs"]), warnings=tuple(found["warnings"]))


def _labelling(steps: Sequence[Step]) -> Step | None:
    """The step that needs a pilot and has none; None: no step does."""
    found = (step for step in steps if step.name == NAME)
    return next((step for step in found if step.stage.needs_pilot and not step.stage.pilot.document), None)


def _enough(step: Step, feed: Feed) -> int:
    """How many prompts a pilot takes."""
    return min(PROMPTS, feed.prompts // SHARE if _repeats(step, feed) else feed.prompts)


def _repeats(step: Step, feed: Feed) -> float:
    """The share of a pilot's pairs that is asked once more; 0: it tells no biases, only how sure labelers are."""
    from cai_cli.engine.pilot_findings import LEAST, REPEATED

    wanted = min(PROMPTS, feed.prompts // SHARE)
    if not step.stage.settings.adaptive or wanted < LEAST:
        return 0.0
    return min(1.0, REPEATED / wanted)


def _with(steps: Sequence[Step], found: Mapping[str, Any]) -> list[Step]:
    from cai_cli.stages._adaptive import pilot_of

    pilot = pilot_of(found)
    return [
        replace(step, stage=replace(step.stage, pilot=pilot), frozen=fingerprint(found)) if step.name == NAME else step
        for step in steps
    ]


def _key(steps: Sequence[Step]) -> str:
    """What a pilot's answers hang on besides its prompts."""
    names = [step.name for step in steps]
    return fingerprint([(step.name, step.fingerprints()) for step in steps[: names.index(NAME) + 1]])


def _folder(config: Config) -> Path:
    return config.output_path / ".cai" / "pilots"


def _stored(config: Config, steps: Sequence[Step]) -> Iterator[dict[str, Any]]:
    key = _key(steps)
    for path in sorted(_folder(config).glob(f"{key[:16]}-*.json")):
        try:
            document = orjson.loads(path.read_bytes())
        except orjson.JSONDecodeError:
            continue  # damaged: the pilot is asked again, and the ledger has its replies
        if document["schema"] == SCHEMA and document["key"] == key:
            yield document


def _mark(feed: Feed) -> list[str]:
    return [feed.fingerprint, *(parent.fingerprint for parent in feed.parents)]


def _unchanged(known: Sequence[dict[str, Any]], feed: Feed) -> dict[str, Any] | None:
    """The first pilot whose prompts are all in the input, as they were."""
    wanted = {prompt for document in known for prompt in document["prompts"]}
    if not known:
        return None
    there = {_prompt_id(unit): _digest(unit) for unit in feed.units() if _prompt_id(unit) in wanted}
    return next((one for one in known if all(there.get(prompt) == mark for prompt, mark in one["prompts"].items())), None)


def _prompt_id(unit: Unit) -> str:
    row = unit.rows[0]
    return str(getattr(row, "prompt_id", row.id))


def _digest(unit: Unit) -> str:
    return hashlib.sha256(b"".join(map(as_line, unit.rows))).hexdigest()


# What is asked.


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A pilot that is to be asked: its prompts, and the flow that makes and labels one pair of each."""

    feed: Feed
    program: Program
    models: Mapping[str, Sequence[Model]]
    repeats: float  # the share of pairs that is asked once more; 0: biases are not to be told


def trial(steps: Sequence[Step], feed: Feed) -> Trial:
    """The pilot of steps that need one. Reads the input once."""
    step = _labelling(steps)
    assert step is not None
    repeats = _repeats(step, feed)
    chosen = heapq.nsmallest(
        _enough(step, feed), feed.units(), key=lambda unit: chance.unit(step.seed, "pilot", _prompt_id(unit))
    )
    units = [Unit(0, unit.rows) for unit in sorted(chosen, key=_prompt_id)]
    before = [one for one in steps if one.name not in plan.table_names()]
    before = before[: [one.name for one in before].index(NAME) + 1]
    asked = [replace(one, stage=_OnePair(one.stage, repeats)) if one is step else one for one in before]
    return Trial(
        feed=Feed(lambda: iter(units), len(units), 1, feed.fingerprint, [], feed.parents), program=plan.program_of(asked),
        models={one.name: one.models for one in before}, repeats=repeats,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _OnePair:
    """The stage as a pilot asks it: of each prompt one pair, drawn by a hash of its id."""

    stage: LabelPairs
    repeats: float

    def gather(self, rows: Sequence[Any]) -> tuple[list[Pair], Counter[str]]:
        pairs, _ = self.stage.gather(rows)
        return sorted(pairs, key=lambda pair: chance.unit(self.stage.seed, "pilot", pair.id))[:1], Counter()

    def __call__(self, pair: Pair) -> Flow[Pair]:
        from cai_cli.engine.pilot_findings import is_repeated
        from cai_cli.stages._adaptive import NEVER, Pilot

        ids = frozenset((pair.id,)) if self.repeats else frozenset[str]()
        again = ids if is_repeated(self.stage.seed, pair.id, self.repeats) else frozenset[str]()
        cuts = dict.fromkeys(self.stage.escalated, NEVER)
        return replace(self.stage, pilot=Pilot(pairs=ids, repeated=again, cuts=cuts))(pair)


class Answered:
    """Holds what a pilot brings until all of it is there."""

    def __init__(self) -> None:
        self.progress, self.patience = Progress(), Patience()
        self._done: dict[int, Done] = {}

    def skip(self, shard: int) -> bool:
        return False

    async def add(self, shard: int, position: int, done: Done) -> None:
        self._done[position] = done
        self.progress.add(done[0])

    async def close(self, shard: int, units: int) -> None:
        """Nothing is written before the last pair."""

    def rows(self, name: str) -> list[Sequence[Any]]:
        """What a step made, by prompt, in the order of the pilot's."""
        return [self._done[at][0][name].rows for at in sorted(self._done)]


def freeze(config: Config, steps: Sequence[Step], feed: Feed, asked: Trial, answered: Answered) -> list[Step]:
    """Write down what a pilot found. Gives: the steps, with it"""
    from cai_cli.engine.pilot_findings import findings

    step = _labelling(steps)
    assert step is not None
    pairs = [pair for made in answered.rows(NAME) for pair in made]
    found = findings(step.stage, pairs, asked.repeats)
    units = list(asked.feed.units())
    _write(config, steps, _mark(feed), units, {"repeats": asked.repeats, "found": found})
    if step.source:
        # For the stage by itself, which reads what the steps before it made: it would choose other prompts when there are more.
        read = [Unit(0, tuple(rows)) for rows in answered.rows(step.source) if rows]
        _write(config, [step], [], read, {"repeats": asked.repeats, "found": found})
    return _with(steps, found)


def _write(config: Config, steps: Sequence[Step], mark: list[str], units: Sequence[Unit], said: Mapping[str, Any]) -> None:
    prompts, key = {_prompt_id(unit): _digest(unit) for unit in units}, _key(steps)
    document = {"schema": SCHEMA, "key": key, "feed": mark, "prompts": prompts, **said}
    path = _folder(config) / f"{key[:16]}-{fingerprint(prompts)[:8]}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_durably(path, orjson.dumps(document, option=orjson.OPT_INDENT_2), 0o600)


# What is said of it.


def files(step: Step) -> dict[str, bytes]:
    """`_pilot.json`, for the folder of a version that was labelled by a pilot."""
    found = of_steps([step])
    return {} if found is None else {FILE: orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)}


def warnings(steps: Sequence[Step]) -> list[str]:
    """Why labelers are not asked less, a sentence each."""
    return list((of_steps(steps) or {}).get("warnings", ()))


def calls(steps: Sequence[Step], name: str, replies: int, rows: int) -> dict[str, float]:
    """Calls a label as they were, with those of the pilot, and as a fixed policy of the same accuracy takes: both orders, or six
    bare verdicts. Empty: of another stage, without a pilot, without rows, or where responses were scored along with it."""
    step = next((one for one in steps if one.name == name == NAME), None)
    if step is None or (found := of_steps([step])) is None or not rows or step.stage.settings.scores:
        return {}
    criteria = max(1, step.stage.settings.principles)
    each = [_FIXED.get(found["labelers"].get(judge.name, {}).get("basis", ""), 2) for judge in step.stage.judges]
    if not step.stage.settings.adaptive:
        each = [step.stage.settings.votes * (2 if step.stage.settings.orders == "both" else 1)] * len(each)
    return {"calls_per_label": round(replies / rows, 3), "calls_per_label_fixed": criteria * sum(each)}


_FIXED = {"verdicts": 6}


_UNPILOTED = (
    "no pilot was asked yet, so both orders are counted, not the 32 calls or so that it repeats; about 1.2 calls a label do "
    "where it finds that one order is enough, and bare verdicts take 2 to 8"
)


def assumed(steps: Sequence[Step]) -> str:
    """What a dry run assumes of labels whose number of calls hangs on a pilot; empty: nothing."""
    stages = [step.stage for step in steps if step.name == NAME and step.stage.needs_pilot]
    if not stages:
        return ""
    if stages[0].pilot.document:
        return "asked as the pilot found"
    if not stages[0].settings.adaptive:
        return "a pilot will find where labelers are unsure; until then, as many pairs as `escalate` says are drawn by chance"
    return _UNPILOTED


def added(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> dict[str, Any]:
    """What a stage asked in a pilot and after it. What the pilot bought, and the rest found in the ledger, was bought once."""
    if before is None:
        return dict(now)
    sums = {key: before.get(key, 0) + now[key] for key in ("requests", "retries", "tokens_in", "tokens_out", "dollars")}
    return {**now, **sums, "replayed": max(0, now["replayed"] - before["requests"])}
