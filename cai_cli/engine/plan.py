"""From a config to what will be done: the stages, joined; what each depends on; what they work on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cai_cli import constitution as constitutions
from cai_cli import prompts
from cai_cli.config import Config
from cai_cli.constitution import Constitution
from cai_cli.engine import program, versions
from cai_cli.engine.feed import Feed, alone, from_reader, from_version
from cai_cli.engine.files import find_files, read_file
from cai_cli.engine.formats import Line
from cai_cli.engine.inputs import check_kind, group_by_prompt, read_pairs, read_prompts, read_rows
from cai_cli.engine.versions import Version
from cai_cli.errors import Exit, Fix
from cai_cli.flow import Flow, Model
from cai_cli.prompts import Template
from cai_cli.records import Chain, Pair, Preference, Sample
from cai_cli.settings import PromptsSection, Section
from cai_cli.stages import critique, generate, label_pairs, revise
from cai_cli.tables import debias

SHAPES: dict[str, type[Any]] = {"generate": Sample, "critique": Chain, "revise": Chain, "label-pairs": Pair, "debias": Preference}
_MODULES: dict[str, Any] = {
    "generate": generate,
    "critique": critique,
    "revise": revise,
    "label-pairs": label_pairs,
    "debias": debias,
}
ORDER = tuple(SHAPES)
TABLES = ("debias",)


@dataclass(frozen=True, kw_only=True)
class Step:
    """One stage as this config has it, and what its rows depend on besides its input."""

    name: str
    settings: Section
    stage: Any = None  # the flow; None for a table
    models: tuple[Model, ...] = ()
    template: Template | None = None
    constitution: Constitution | None = None
    seed: int = 0
    draw_offset: int = 0

    def fingerprints(self) -> dict[str, Any]:
        """What determines the rows, each part hashed by itself, so that a manifest shows which one changed."""
        config = {
            "settings": self.settings.model_dump(mode="json", exclude={"model", "labelers"}),
            "models": [(model.provider, model.name, model.params) for model in self.models],
            "labelers": [name for name, _ in getattr(self.stage, "labelers", [])],
            "seed": self.seed, "draw_offset": self.draw_offset, "retry_truncated": getattr(self.stage, "retry_truncated", False),
        }  # fmt: skip
        return {
            "config": versions.fingerprint(config),
            "constitution": self.constitution.fingerprint if self.constitution else "",
            "templates": {self.template.name: self.template.fingerprint} if self.template else {},
            "code": f"{self.name}/{_MODULES[self.name].VERSION}",
        }


def sections_of(config: Config) -> list[str]:
    """The stages that the config has a section for, in the order data flows."""
    return [name for name in ORDER if config.section(_MODULES[name].Settings) is not None]


def steps_of(config: Config, names: Iterable[str]) -> list[Step]:
    """The named stages, built. Raises: Fix: a section is missing"""
    return [_BUILD[name](config) for name in names]


def _settings(config: Config, name: str) -> Any:
    settings = config.section(_MODULES[name].Settings)
    if settings is None:
        section = name.replace("-", "_")
        raise Fix(
            f"{config.path}: there is no `{section}` section",
            f"add one, `{section}: {{}}` takes the defaults; or see `cai config schema`",
        )
    return settings


def _constitution(config: Config, principles: int) -> Constitution:
    path = config.constitution_path()
    if path is None and principles == 0:
        return constitutions.BUILT_IN
    if path is None:
        raise Fix(f"{config.path}: `constitution` is missing", "name one, such as: constitution: constitutions/general.yaml")
    return constitutions.load(path)


def _generate(config: Config) -> Step:
    settings, common = _settings(config, "generate"), _common(config)
    section = config.model_for(settings)
    stage = generate.Generate(settings, section.model(), section.retry_truncated, config.draw_offset)
    return Step(name="generate", settings=settings, stage=stage, models=(section.model(),), **common)


def _critique(config: Config) -> Step:
    return _judging(config, "critique", critique.Critique)


def _revise(config: Config) -> Step:
    return _judging(config, "revise", revise.Revise)


def _judging(config: Config, name: str, stage: Callable[..., Any]) -> Step:
    settings = _settings(config, name)
    section, constitution = config.model_for(settings), _constitution(config, getattr(settings, "principles", 0))
    template = prompts.find(settings.template, name, config.folder)
    flow = stage(settings, constitution, template, section.model(), config.seed, section.retry_truncated)
    return Step(
        name=name,
        settings=settings,
        stage=flow,
        models=(section.model(),),
        template=template,
        constitution=constitution,
        **_common(config),
    )


def _label_pairs(config: Config) -> Step:
    settings = _settings(config, "label-pairs")
    constitution = _constitution(config, settings.principles)
    template = prompts.find(settings.template, "label", config.folder)
    default = config.model_for(settings)
    if settings.pairs == "given" and config.section(generate.Settings) is not None:
        hint = "give them a config of their own, without generate, critique and revise"
        raise Fix(f"{config.path}: label_pairs: given pairs cannot be made from samples", hint)
    judges = {one.name: one.model.over(default) if one.model else default for one in settings.labelers} or {"main": default}
    labelers = [(name, section.model()) for name, section in judges.items()]
    _distinct(config, labelers)
    retry = default.retry_truncated
    flow = label_pairs.LabelPairs(settings, constitution, template, labelers, config.seed, config.draw_offset, retry)
    models = tuple(model for _, model in labelers)
    return Step(
        name="label-pairs", settings=settings, stage=flow, models=models, template=template, constitution=constitution,
        **_common(config),
    )  # fmt: skip


def _distinct(config: Config, labelers: Sequence[tuple[str, Model]]) -> None:
    """Two labelers that ask the very same thing are one, bought once: copies of a vote, not a panel."""
    seen: dict[str, str] = {}
    for name, model in labelers:
        other = seen.setdefault(versions.fingerprint([model.provider, model.name, model.params]), name)
        if other != name:
            raise Fix(
                f"{config.path}: label_pairs: labelers '{other}' and '{name}' ask the same model with the same settings",
                "give one another model, or raise label_pairs.votes to ask one model more often",
            )


def _debias(config: Config) -> Step:
    return Step(name="debias", settings=_settings(config, "debias"), **_common(config))


def _common(config: Config) -> dict[str, Any]:
    return {"seed": config.seed, "draw_offset": config.draw_offset}


_BUILD: dict[str, Callable[[Config], Step]] = {
    "generate": _generate, "critique": _critique, "revise": _revise, "label-pairs": _label_pairs, "debias": _debias,
}  # fmt: skip


def program_of(steps: Sequence[Step]) -> Callable[[Sequence[Any]], Flow[program.MadeBy]]:
    """The row-wise steps joined to one flow a prompt; critique and revise together make the loop."""
    by_name = {step.name: step for step in steps if step.name not in TABLES}
    parts: list[program.Part] = []
    for name, step in by_name.items():
        if name == "revise" and "critique" in by_name:
            parts[-1] = program.looped(by_name["critique"].stage, step.stage)
        elif name == "generate":
            parts.append(program.generated(step.stage, step.settings.samples * len(step.settings.systems)))  # type: ignore[attr-defined]
        elif name == "label-pairs" and step.settings.pairs != "given":  # type: ignore[attr-defined]
            parts.append(program.paired(step.stage.pairs_of, step.stage))
        else:
            parts.append(program.each(name, step.stage))
    return program.program(by_name, parts)


# What the first stage works on: the config's prompts, -i, or the newest version of the stage before it.


def feed_of(config: Config, steps: Sequence[Step], given: Path | None, limit: int | None) -> Feed:
    """The input of the first step, surveyed. `given`: what -i names. Raises: Fix (exit 65 or 2)"""
    first = steps[0]
    if first.name == "generate":
        return _prompts(read_prompts, _source(config, given), config, limit)
    if first.name == "label-pairs" and first.settings.pairs == "given":  # type: ignore[attr-defined]
        return _prompts(read_pairs, _source(config, given), config, limit)
    if given is not None:
        return given_rows(first.name, given, config, limit)
    version = _parent(config.output_path, [step.name for step in steps])
    return from_version(version, SHAPES[version.path.parent.name], limit)


def _prompts(
    read: Callable[[PromptsSection, Path, int], Iterable[Any]], source: PromptsSection, config: Config, limit: int | None
) -> Feed:
    # paths are resolved already; a `dataset` folder is relative to the config
    folder = Path() if source.path else config.folder
    name = source.path or source.dataset or "the input"
    return from_reader(lambda: alone(read(source, folder, config.seed)), config.shards.rows, limit, name, check=False)


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


def given_rows(name: str, path: Path, config: Config, limit: int | None) -> Feed:
    """Rows that -i names, for a stage that does not read prompts. Raises: Fix (exit 65)"""
    check_kind(name, path)
    if name == "debias":
        return pairs_feed(path, config, limit)
    shape = Chain if name == "revise" or _has_rounds(path) else Sample
    return from_reader(lambda: group_by_prompt(read_rows(shape, [path])), config.shards.rows, limit, str(path))


def pairs_feed(path: Path, config: Config, limit: int | None = None) -> Feed:
    """Pairs with votes, of a file. What the config says of prompts (columns, limit, shuffle) is not said of these."""
    source = PromptsSection(path=str(path), gold=config.prompts is not None and config.prompts.gold)
    return from_reader(
        lambda: group_by_prompt(read_pairs(source, Path(), config.seed)), config.shards.rows, limit, str(path), check=False
    )


def _has_rounds(path: Path) -> bool:
    """Whether the first row has rounds behind it: a chain, not a fresh sample."""
    rows = (line.row for file in find_files(path, str(path)) for line in read_file(file) if isinstance(line, Line))
    return "rounds" in next(rows, {})


def _parent(output: Path, names: Sequence[str]) -> Version:
    """The version that a command reads which begins after the prompts."""
    name = names[0]
    reads = ("generate",) if name == "critique" and "revise" in names else _READS[name]  # all rounds, from the first one on
    found = {stage: version for stage in reads if (version := versions.latest(output, stage)) is not None}
    if not found:
        wanted = _READS[name][-1]
        raise Fix(
            f"{output} holds no {' nor '.join(_READS[name])} yet, which `cai {name}` reads",
            f"run `cai {wanted}` first, or give rows with -i",
            Exit.INPUT,
        )
    revised, fresh = found.get("revise"), found.get("generate")
    if name == "critique" and revised and fresh and revised.manifest["lineage"].get("generate") != fresh.fingerprint:
        return fresh  # generated anew since the last revision
    return next(iter(found.values()))


def nothing_left(steps: Sequence[Step], feed: Feed) -> bool:
    """Whether a single critique or revise would only copy what it reads: every row has stopped, or no round is open.

    Without this, `cai critique` and `cai revise` in turns would make versions for ever.
    """
    if len(steps) > 1 or steps[0].name not in ("critique", "revise") or not feed.parents:
        return False
    rows = (row for unit in feed.units() for row in unit.rows)
    if steps[0].name == "revise":
        return all(row.open_round is None for row in rows)
    return all(isinstance(row, Chain) and row.stopped_by for row in rows)


_READS = {
    "critique": ("revise", "generate"),
    "revise": ("critique",),
    "label-pairs": ("revise", "generate"),
    "debias": ("label-pairs",),
}
