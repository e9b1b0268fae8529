"""From a config to what will be done: the stages, joined; what each depends on; what they work on.

Stages describe themselves (see cai_cli/stages): nothing here names one, but for the loop of critique and revision.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cai_cli import constitution as constitutions
from cai_cli import stages, tables
from cai_cli.config import Config
from cai_cli.constitution import Constitution
from cai_cli.engine import program, versions
from cai_cli.engine.feed import Feed, alone, from_reader, from_version
from cai_cli.engine.inputs import Gathered, check_kind, group_by_prompt, read_pairs, read_prompts, read_rows
from cai_cli.engine.versions import Version
from cai_cli.errors import Exit, Fix
from cai_cli.flow import Flow, Model
from cai_cli.parts import Parts
from cai_cli.prompts import Template
from cai_cli.records import Chain, Pair, Sample
from cai_cli.settings import PromptsSection, Section

INPUTS = ("prompts", "pairs")  # what a stage may read that no stage makes


# What there is.


@functools.cache
def _names() -> tuple[str, ...]:
    """Every stage and table by name, which is its file's with dashes; none of them is imported for that."""
    return tuple(name.replace("_", "-") for name in (*stages.names(), *table_names()))


@functools.cache
def _module(name: str) -> Any:
    """A stage's or table's module. A run pays only for those that its config names: each costs a few ms, some need numpy."""
    file = name.replace("-", "_")
    return importlib.import_module(f"{tables.__name__}.{file}") if name in table_names() else stages.module(file)


@functools.cache
def reads_of(name: str) -> tuple[str, ...]:
    """The stages whose rows a stage takes, the one that it takes them from first of all at the front."""
    feeding = [other for other, module in stages.added().items() if name in getattr(module, "FEEDS", ())]
    return (*sorted(other.replace("_", "-") for other in feeding), *_module(name).READS)


@functools.cache
def table_names() -> tuple[str, ...]:
    """The whole-table steps."""
    return tuple(module.name for module in pkgutil.iter_modules(tables.__path__) if not module.name.startswith("_"))


@functools.cache
def stage_names() -> tuple[str, ...]:
    """All stages in the order data flows: each stands behind those that it reads; tables last, then what is no part of a run."""
    return tuple(in_order(_names()))


def in_order(names: Iterable[str]) -> list[str]:
    """Some stages, in the order that `stage_names` has them in. Only they and those that they read are imported."""
    wanted, placed = set(names), dict[str, None]()

    def place(name: str) -> None:
        for before in reads_of(name):
            if before not in INPUTS and before not in placed:
                place(before)
        placed[name] = None

    for name in sorted(wanted, key=lambda name: (not reads_of(name), name in table_names(), name)):
        if name not in placed:
            place(name)
    return [name for name in placed if name in wanted]


@functools.cache
def shapes() -> dict[str, type[Any]]:
    """The rows that each stage makes, in the order data flows."""
    return {name: shape_of(name) for name in stage_names()}


def shape_of(name: str) -> type[Any]:
    """The rows that a stage makes."""
    shape: type[Any] = _module(name).SHAPE
    return shape


def shapes_in(output: Path, names: Iterable[str]) -> dict[str, type[Any]]:
    """The rows of these stages and of all that an output folder has versions of, in the order data flows."""
    there = (name for name in _names() if (output / name).is_dir())
    return {name: shape_of(name) for name in in_order({*names, *there})}


# What a config asks for.


@dataclass(frozen=True, kw_only=True)
class Step:
    """One stage as this config has it, and what its rows depend on besides its input."""

    name: str
    settings: Section
    stage: Any = None  # the flow; None for a table
    source: str = ""  # the step of the same run whose rows it takes; empty: the run's input
    models: tuple[Model, ...] = ()
    templates: tuple[Template, ...] = ()
    examples: tuple[str, ...] = ()  # fingerprints of exemplars
    others: tuple[Section, ...] = ()  # sections of other stages that it goes by
    constitution: Constitution | None = None
    seed: int = 0
    draw_offset: int = 0
    frozen: str = ""  # fingerprint of what a pilot found that it goes by; empty: none
    people: str = ""  # a digest of what people said in an audit, which it takes for gold; empty: nobody said anything

    @property
    def reads(self) -> tuple[str, ...]:
        """The stages (or inputs) whose rows it takes, the newest first."""
        own = getattr(self.stage, "reads", _module(self.name).READS)
        return own if own[0] in INPUTS else tuple(dict.fromkeys([*reads_of(self.name)[: -len(own)], *own]))

    @property
    def again(self) -> str:
        """The stage that it is looped with, whose rows it takes where they are the newer ones; empty: none."""
        return getattr(_module(self.name), "AGAIN", "")

    @property
    def takes(self) -> type[Any] | None:
        """The record that the stage reads rows as, where it says so; None: a Sample, or a Chain where there are rounds."""
        return getattr(self.stage, "takes", None)

    @property
    def closes_rounds(self) -> bool:
        """Whether it works on open rounds, and leaves a row without one as it is."""
        return self.takes is Chain and self.reads == ("critique",)

    def fingerprints(self) -> dict[str, Any]:
        """What determines the rows, each part hashed by itself, so that a manifest shows which one changed."""
        config = {
            "settings": [_without_models(section.model_dump(mode="json")) for section in (self.settings, *self.others)],
            "models": [(*model.identity, model.retry_truncated) for model in self.models], "exemplars": self.examples,
            "seed": self.seed, "draw_offset": self.draw_offset,
        }  # fmt: skip
        return {
            "config": versions.fingerprint(config),
            "constitution": self.constitution.fingerprint if self.constitution else "",
            "templates": {f"{template.stage}/{template.name}": template.fingerprint for template in self.templates},
            "code": f"{self.name}/{_module(self.name).VERSION}",
            **({"pilot": self.frozen} if self.frozen else {}),
            **({"people": self.people} if self.people else {}),
        }


def _without_models(settings: Any) -> Any:
    """Settings without what they say of models: where one is reached does not change a row, and the rest of it stands beside."""
    if isinstance(settings, dict):
        return {key: _without_models(value) for key, value in settings.items() if key != "model"}
    return [_without_models(value) for value in settings] if isinstance(settings, list) else settings


def sections_of(config: Config) -> list[str]:
    """The stages of a run that the config has a section for, in the order data flows."""
    return [name for name in _configured(config) if reads_of(name)]


def alone_of(config: Config) -> list[str]:
    """The stages that are no part of a run, each with a verb of its own, that the config has a section for."""
    return [name for name in _configured(config) if not reads_of(name)]


def _configured(config: Config) -> list[str]:
    return in_order(name.replace("_", "-") for name in config.sections)


def _section(config: Config, name: str) -> Any:
    return config.sections.get(name.replace("-", "_"))


def steps_of(config: Config, names: Iterable[str]) -> list[Step]:
    """The named stages, built and joined. Raises: Fix: a section is missing, or a part of it cannot be used"""
    steps: list[Step] = []
    for name in in_order(names):
        step = _step(config, name)
        made = {other.name for other in steps}
        source = next((other for other in step.reads if other in made), "")
        if steps and not source and step.reads != steps[0].reads:
            hint = "give it a config of its own, without the stages before it"
            raise Fix(f"{config.path}: {name} reads {' or '.join(step.reads)}, which {steps[-1].name} does not make", hint)
        steps.append(replace(step, source=source))
    return steps


def _step(config: Config, name: str) -> Step:
    settings = _section(config, name)
    if settings is None:
        section = name.replace("-", "_")
        raise Fix(
            f"{config.path}: there is no `{section}` section",
            f"add one, `{section}: {{}}` takes the defaults; or see `cai config schema`",
        )
    common: dict[str, Any] = {"name": name, "settings": settings, "seed": config.seed, "draw_offset": config.draw_offset}
    if name in table_names():
        from cai_cli.engine.audit_files import read_gold

        common["people"] = read_gold(config.output_path)[1]
        return _probing(config, Step(**common)) if getattr(settings, "probes", None) else Step(**common)
    parts = parts_of(config, settings)
    stage = _module(name).build(parts)
    return Step(
        **common, stage=stage, models=tuple(parts.models), templates=tuple(parts.templates), examples=tuple(parts.examples),
        others=tuple(parts.others), constitution=parts.constitution,
    )  # fmt: skip


def _probing(config: Config, step: Step) -> Step:
    """A table that asks the labelers again: what it makes hangs on all that their votes hang on. Raises: Fix"""
    from cai_cli.probing import Probing

    asking, settings = _step(config, "label-pairs"), step.settings  # type: Step, Any
    judges, constitution = asking.stage.judges, asking.constitution or constitutions.BUILT_IN
    criteria = constitution.preferences if asking.stage.settings.principles else constitutions.BUILT_IN.preferences
    stage = Probing(
        judges={judge.name: judge for judge in judges}, criteria={criterion.name: criterion for criterion in criteria},
        counts=settings.probes, seed=config.seed,
    )  # fmt: skip
    return replace(
        step, stage=stage, models=tuple(judge.model for judge in judges), templates=asking.templates, examples=asking.examples,
        others=(asking.settings, *asking.others), constitution=asking.constitution,
    )  # fmt: skip


def parts_of(config: Config, settings: Section) -> Parts:
    """What a stage of this config is built from."""
    return Parts(
        settings=settings, seed=config.seed, draw_offset=config.draw_offset, default=config.model, folder=config.folder,
        find_constitution=functools.partial(_constitution, config), sections=tuple(config.sections.values()), off=config.off,
        prices=config.price_list,
    )  # fmt: skip


def _constitution(config: Config, needed: bool) -> Constitution:
    path = config.constitution_path()
    if path is None and not needed:
        return constitutions.BUILT_IN
    if path is None:
        raise Fix(f"{config.path}: `constitution` is missing", "name one, such as: constitution: constitutions/general.yaml")
    return constitutions.load(path)


def program_of(steps: Sequence[Step]) -> Callable[[Sequence[Any]], Flow[program.MadeBy]]:
    """The row-wise steps joined to one flow a prompt; critique and revise together make the loop."""
    by_name = {step.name: step for step in steps if step.name not in table_names()}
    parts: dict[str, program.Part] = {}
    for name, step in by_name.items():
        if name == "revise" and step.source == "critique":
            # In the place of the critiques: what else reads them takes them as they were in the last round.
            parts["critique"] = program.looped(by_name["critique"].stage, step.stage, by_name["critique"].source)
        else:
            parts[name] = program.each(name, step.stage, step.source)
    return program.program(by_name, list(parts.values()))


# What the first stage works on: the config's prompts, -i, or the newest version of the stage before it.


def feed_of(
    config: Config, steps: Sequence[Step], given: Path | None, limit: int | None, folder: Path | None = None
) -> Feed:  # fmt: skip
    """The input of the first step, surveyed. Raises: Fix (exit 65 or 2)

    Takes: `given`: what -i names; `folder`: a private one for rows that are written again to be read quickly; None: they are not
    """
    first = steps[0]
    if first.reads[0] in INPUTS:
        return _prompts(
            read_prompts if first.reads[0] == "prompts" else read_pairs, _source(config, given), config, limit, folder
        )
    if given is not None:
        return given_rows(first, given, config, limit, folder)
    version = _parent(config.output_path, steps)
    return from_version(version, shape_of(version.path.parent.name), limit)


def _prompts(
    read: Callable[[PromptsSection, Path, int], Iterable[Any]], source: PromptsSection, config: Config, limit: int | None,
    folder: Path | None,
) -> Feed:  # fmt: skip
    # paths are resolved already; a `dataset` folder is relative to the config
    base = Path() if source.path else config.folder
    name = source.path or source.dataset or "the input"

    def again() -> Iterable[Any]:
        return read(source, base, config.seed)

    if read is read_pairs:
        return from_reader(Gathered(again), config.shards.rows, limit, name, check=False)
    return from_reader(lambda: alone(again()), config.shards.rows, limit, name, check=False, folder=folder)


def _source(config: Config, given: Path | None) -> PromptsSection:
    """The prompts section, with -i or the path that was found for its own."""
    path = given or config.prompts_path()
    if path is not None:
        return (config.prompts or PromptsSection()).model_copy(update={"path": str(path), "dataset": None})
    if config.prompts is None:
        raise Fix(
            f"{config.path}: there is no `prompts` section",
            "add one, such as: prompts: {path: prompts.jsonl}, or give a file with -i",
        )
    return config.prompts


def given_rows(step: Step, path: Path, config: Config, limit: int | None, folder: Path | None = None) -> Feed:
    """Rows that -i names, for a stage that does not read prompts. Raises: Fix (exit 65)"""
    check_kind(step.name, path, step.closes_rounds)
    if issubclass(shape_of(reads_of(step.name)[-1]), Pair):
        return pairs_feed(path, config, limit, folder)
    shape = step.takes or Sample
    return from_reader(lambda: group_by_prompt(read_rows(shape, [path])), config.shards.rows, limit, str(path))


def pairs_feed(path: Path, config: Config, limit: int | None = None, folder: Path | None = None) -> Feed:
    """Pairs with votes, of a file. What the config says of prompts (columns, limit, shuffle) is not said of these.

    `folder`: as `feed_of` takes it
    """
    from cai_cli.engine import given_pairs

    source = PromptsSection(path=str(path), gold=config.prompts is not None and config.prompts.gold)
    if folder is not None and limit is None and (feed := given_pairs.survey(source, config, folder)) is not None:
        return feed
    groups = Gathered(lambda: read_pairs(source, Path(), config.seed))
    return from_reader(groups, config.shards.rows, limit, str(path), check=False)


def _parent(output: Path, steps: Sequence[Step]) -> Version:
    """The version that a command reads which begins after the prompts."""
    name, names = steps[0].name, [step.name for step in steps]
    again = steps[0].again
    looping = again in names  # all rounds, from the first one on
    reads = steps[0].reads if looping or not again else (again, *steps[0].reads)
    found = {stage: version for stage in reads if (version := versions.latest(output, stage)) is not None}
    if not found:
        raise Fix(
            f"{output} holds no {' nor '.join(reads)} yet, which `cai {name}` reads",
            f"run `cai {reads[-1]}` first, or give rows with -i",
            Exit.INPUT,
        )
    newest, fresh = found.get(again), found.get(steps[0].reads[-1])
    if newest and fresh and newest.manifest["lineage"].get(steps[0].reads[-1]) != fresh.fingerprint:
        return fresh  # generated anew since the last revision
    return next(iter(found.values()))


def nothing_left(steps: Sequence[Step], feed: Feed) -> bool:
    """Whether a single critique or revise would only copy what it reads: every row has stopped, or no round is open.

    Without this, `cai critique` and `cai revise` in turns would make versions for ever.
    """
    if len(steps) > 1 or not feed.parents:
        return False
    rows = (row for unit in feed.units() for row in unit.rows)
    if steps[0].closes_rounds:
        return all(row.open_round is None for row in rows)
    if steps[0].again:
        return all(isinstance(row, Chain) and row.stopped_by for row in rows)
    return False
