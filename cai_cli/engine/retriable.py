"""What of an output could be asked again: versions that a config makes, how they were made, and the rows that failed there."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import orjson

from cai_cli.config import Config
from cai_cli.engine import pilot, plan, versions
from cai_cli.engine.culprits import FLAGS, Failed
from cai_cli.engine.feed import Feed, from_version
from cai_cli.engine.files import unpacked
from cai_cli.engine.plan import Step
from cai_cli.engine.publish import lineages
from cai_cli.engine.retries import Again, Batch, Retries
from cai_cli.engine.rows import Program
from cai_cli.engine.shards import REJECTS, Layout
from cai_cli.engine.versions import Version
from cai_cli.errors import Exit, Fix

Typed = Callable[[str], str]  # from a verb to its command line for the same config, input and output


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Versions that a config makes, and what makes them: a whole run, or one stage by itself.

    `retries`: all that are in the file. `base`: those that the versions hold; what is in the file beyond them was begun by a
    retry that has not come to its end. `limit`: prompts that the run was limited to.
    """

    steps: Sequence[Step]
    feed: Feed
    found: Mapping[str, Version]  # of the steps that ask
    whole: bool = False  # a run, not a stage by itself
    retries: Retries
    base: Retries
    limit: int | None = None

    @property
    def row_wise(self) -> list[Step]:
        return [step for step in self.steps if step.name not in plan.table_names()]

    @property
    def pending(self) -> list[Again]:
        """What a retry that was stopped has begun to ask again."""
        return [one for batch in self.begun for one in batch.questions if one.stage in self.found]

    @property
    def begun(self) -> list[Batch]:
        """The retries that were stopped, the oldest first."""
        later = self.retries.batches[len(self.base.batches) :]
        return [batch for batch in later if any(one.stage in self.found for one in batch.questions)]

    def program(self) -> Program:
        return plan.program_of(self.row_wise)

    def loop_of(self, stage: str) -> set[str]:
        """The stage, and the one that it is looped with."""
        pairs = [{step.name, step.again} for step in self.row_wise if step.again]
        return next((pair for pair in pairs if stage in pair), {stage})


# Where things stand.


def standings(config: Config, given: str | None, typed: Typed) -> list[Standing]:
    """What of an output could be retried: the run as a whole if its versions are what this config makes, else stages that are.

    Takes: `typed`: a verb's command line, for hints
    Raises: Fix: no stage, no version yet, none that this config makes, or input from stdin
    """
    if given == "-" or (given is None and config.prompts is not None and config.prompts.path == "-"):
        raise Fix("a retry reads its input ahead, and stdin can be read only once", "write it to a file, and name that with -i")
    names = plan.sections_of(config)
    if not names:
        hint = "`cai expand` asks more where an ask failed: raise expand.max_asks"
        raise Fix(f"{config.path}: there is no stage whose rows could be asked about again", hint)
    if not any(versions.latest(config.output_path, name) for name in names):
        raise Fix(f"{config.output_path} holds no version yet", f"make one: {typed('run')}", Exit.INPUT)
    path, retries = Path(given) if given else None, Retries.of_config(config)
    whole = next(_standing(config, retries, _as_run(config, names, path)), None)
    if whole is not None:
        return [replace(whole, whole=True)]
    # A stage counts only where all before it are this config's too: else the config is another one than that of these rows.
    there = [name for name in _asking(names) if _there(config, name)]
    alone = (next(_standing(config, retries, _by_itself(config, name, path)), None) for name in there)
    if found := [one for one in itertools.takewhile(lambda one: one is not None, alone) if one is not None]:
        return found
    hint = f"make them: {typed('run')}; after a run with -i, --set or --seed, give `cai retry` the same"
    raise Fix(f"no version in {config.output_path} is what this config makes{_other(config, names[0], path)}", hint)


def _other(config: Config, name: str, given: Path | None) -> str:
    """What of the first stage is another one now, as the end of a sentence; empty: nothing that its manifest tells."""
    newest = versions.latest(config.output_path, name)
    if newest is None:
        return ""
    steps = plan.steps_of(config, [name])
    now = {**steps[0].fingerprints(), "input": plan.feed_of(config, steps, given, None).fingerprint}
    before = newest.manifest["fingerprints"]
    parts = [part for part, mark in now.items() if before.get(part) != mark]
    return f": {name} {newest.name} was made with another {' and another '.join(parts)}" if parts else ""


_Way = tuple[Sequence[Step], Feed, int | None]


def _asking(names: Sequence[str]) -> list[str]:
    return [name for name in names if name not in plan.table_names()]


def _as_run(config: Config, names: Sequence[str], given: Path | None) -> Iterator[_Way]:
    """What `cai run` would do, and what it did if it was limited to fewer prompts."""
    newest = versions.latest(config.output_path, names[0]) if all(_there(config, name) for name in _asking(names)) else None
    if newest is None:
        return
    steps = plan.steps_of(config, names)
    yield from _limited(config, steps, given, int(newest.manifest["prompts"]))


def _limited(config: Config, steps: Sequence[Step], given: Path | None, prompts: int) -> Iterator[_Way]:
    feed = plan.feed_of(config, steps, given, None)
    yield steps, feed, None
    if prompts < feed.prompts:
        yield steps, plan.feed_of(config, steps, given, prompts), prompts


def _by_itself(config: Config, name: str, given: Path | None) -> Iterator[_Way]:
    """What a stage's own command did: from the very versions that its newest one was made of."""
    newest = versions.latest(config.output_path, name)
    if newest is None:
        return
    steps, prompts = plan.steps_of(config, [name]), int(newest.manifest["prompts"])
    if not newest.manifest["parents"]:
        if given is not None or steps[0].reads[0] in plan.INPUTS:
            yield from _limited(config, steps, given, prompts)
        return
    (parent,) = newest.manifest["parents"]
    if (version := versions.find(config.output_path, parent["stage"], parent["fingerprint"])) is not None:
        yield steps, from_version(version, plan.shapes()[parent["stage"]], prompts), prompts


def _there(config: Config, name: str) -> bool:
    return versions.latest(config.output_path, name) is not None


def _standing(config: Config, retries: Retries, ways: Iterator[_Way]) -> Iterator[Standing]:
    for unpiloted, feed, limit in ways:
        steps = pilot.ready(config, unpiloted, feed)
        after = [_made(config, steps, feed, retries.first(count)) for count in range(len(retries.batches) + 1)]
        asking = _asking([step.name for step in steps])
        if (count := _ended(after, asking, len(steps), retries)) is not None:
            found = {name: after[count][name] for name in asking}
            yield Standing(steps=steps, feed=feed, found=found, retries=retries, base=retries.first(count), limit=limit)


def _made(config: Config, steps: Sequence[Step], feed: Feed, retries: Retries) -> dict[str, Version]:
    """The versions that are there of what steps make with these retries."""
    layout = Layout(feed.shards, config.split.test, config.shards.compression)
    lineage = lineages(steps, feed, layout, retries.digests())
    found = {name: versions.find(config.output_path, name, one.fingerprint) for name, one in lineage.items()}
    return {name: version for name, version in found.items() if version is not None}


def _ended(after: Sequence[Mapping[str, Version]], asking: Sequence[str], steps: int, retries: Retries) -> int | None:
    """How many retries have come to their end, tables and all. None: not even the run, before any retry, has.

    Takes: `after`: the versions that are there of each state, the one without retries first
    """
    whole = [count for count, made in enumerate(after) if all(name in made for name in asking)]
    if not whole:
        return None
    count = max((count for count in whole if len(after[count]) == steps), default=whole[-1])
    # Killed when all was published, or before a table that was never made: the same command must not begin another one.
    stopped = count > 0 and not retries.batches[count - 1].ended
    return count - 1 if stopped and count - 1 in whole else count


# Which rows failed.


def failed_rows(standing: Standing, typed: Typed) -> Iterator[Failed]:
    """Rows that were rejected, and rows that were kept although they were refused or cut off, stage by stage, in order.

    Takes: `typed`: a verb's command line, for hints. Raises: Fix: a file of rows is missing or damaged
    """
    for step in standing.row_wise:
        version = standing.found[step.name]
        yield from _rejected(version, step.name)
        if step.reads[0] in plan.INPUTS and "refused" in plan.shapes()[step.name].__dataclass_fields__:
            yield from _flagged(version, step.name, typed)


def _rejected(version: Version, stage: str) -> Iterator[Failed]:
    path = version.path / REJECTS
    if not path.exists():
        return
    with open(path, "rb") as lines:
        for line in lines:
            row = orjson.loads(line)
            yield Failed(stage=stage, id=row["id"], prompt_id=row["prompt_id"], reason=row["reason"], where=row["where"])


def _flagged(version: Version, stage: str, typed: Typed) -> Iterator[Failed]:
    marks = {flag: f'"{flag}":true'.encode() for flag in FLAGS}  # inside a text its quotes would be escaped
    for path in version.files():
        if not path.exists():
            raise Fix(f"{path} is missing", f"see what else is, and how to get it back: {typed('verify')}", Exit.INPUT)
        with unpacked(path) as lines:
            for line in lines:
                if any(mark in line for mark in marks.values()):
                    row = orjson.loads(line)
                    yield from (
                        Failed(stage=stage, id=row["id"], prompt_id=row["prompt_id"], reason=flag, kept=True)
                        for flag in FLAGS
                        if row[flag] is True
                    )
