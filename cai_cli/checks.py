"""What a config's sections must be to one another, and to the files that they name. Nothing here asks or writes."""

from __future__ import annotations

import importlib
import itertools
import pkgutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cai_cli import constitution, exemplars, prompts, providers
from cai_cli.documents import Problem, dotted
from cai_cli.errors import Fix
from cai_cli.settings import ModelSection
from cai_cli.shipped import shipped
from cai_cli.validation import KeyPath, Mistake, mistake, near

if TYPE_CHECKING:
    from cai_cli.config import Config


def check(config: Config, raw: Mapping[str, Any]) -> tuple[list[Mistake], list[Problem]]:
    """Check a config whose sections are right by themselves.

    Takes: raw: the values before what was wrong was taken out: what is wrong is not missing
    Gives: its mistakes, and the problems of the constitution's file, which have their own places
    """
    mistakes = [
        *_check_models(config), *_check_stages(config, raw), *_check_names(config),
        *_check_worlds(config), *_check_templates(config), *_check_exemplars(config), *_check_prompts(config),
        *_check_against(config), *_check_limits(config),
    ]  # fmt: skip
    missing, problems = _check_constitution(config)
    return [*mistakes, *missing], problems


def _asked(config: Config) -> Iterator[tuple[KeyPath, ModelSection]]:
    """Every model that a section asks, and where it is set."""
    for name, section in config.sections.items():
        if "model" not in type(section).model_fields:
            continue  # it works on rows alone
        own: ModelSection | None = getattr(section, "model", None)
        common: tuple[KeyPath, ModelSection] = (("model",) if own is None else (name, "model"), config.model_for(section))
        labelers = getattr(section, "labelers", ())
        for n, model in enumerate(labeler.model for labeler in labelers):
            yield common if model is None else ((name, "labelers", n, "model"), model.over(common[1]))
        if not labelers:
            yield common
        if getattr(section, "accept", "") == "if_preferred":
            # the top-level model, not the stage's own: who wrote a revision is not to judge it by default
            model = section.labeler.model if section.labeler else None  # type: ignore[attr-defined]
            yield (name, "labeler", "model"), config.model if model is None else model.over(config.model)


def _check_models(config: Config) -> Iterator[Mistake]:
    own = {module.name for module in pkgutil.iter_modules(providers.__path__)}
    default: KeyPath = ("model",)
    asked = dict(_asked(config))
    for path, model in ({default: config.model} | asked).items():
        if model.provider == config.model.provider and path != default and model.provider not in own:
            continue  # said of the default already
        if model is config.model and path != default and default in asked:
            continue  # the same
        if model.provider.startswith("_") or (model.provider not in own and model.provider not in providers.names()):
            known = [name for name in providers.names() if not name.startswith("_")]
            yield mistake((*path, "provider"), f"names no provider: '{model.provider}'", near(model.provider, known))
        elif path in asked and not model.name and model.provider != "simulated":
            yield mistake(
                (*path, "name"), "is missing: a stage asks this model", "add 'name: ...', or 'provider: simulated', which is free"
            )


def _check_worlds(config: Config) -> Iterator[Mistake]:
    """What is wrong with the simulated worlds that are set, each key by itself, so that it is told of at its own line."""
    from cai_cli.providers._world import world_of

    default: KeyPath = ("model",)
    for path, model in ({default: config.model} | dict(_asked(config))).items():
        if model.provider != "simulated" or (path != default and model.world is config.model.world):
            continue  # said of the default already
        for key, value in (model.world or {}).items():
            try:
                world_of({"world": {key: value}})
            except Fix as fix:
                around = dotted(path).removesuffix("model")
                yield from (Mistake((*path, "world", key), f"{around}{message}", hint) for message, hint in fix.problems)


def _check_stages(config: Config, raw: Mapping[str, Any]) -> Iterator[Mistake]:
    if "revise" in raw and "critique" not in raw:
        hint = "add a section 'critique: {}', or 'critique: off' to revise without"
        yield Mistake(("revise",), "revise: there is no critique to revise by", hint)
    if getattr(config.sections.get("debias"), "probes", None) and "label_pairs" not in config.sections:
        what = "debias.probes: there is no section label_pairs, whose labelers are asked again"
        hint = "add the one that the votes were made with, such as label_pairs: {labelers: [{name: main}]}; or leave probes out"
        yield Mistake(("debias", "probes"), what, hint)
    asking = ("critique", "label_pairs", *(("revise",) if "critique" in config.off else ()))
    for name in asking:
        section = config.sections.get(name)
        if section is not None and getattr(section, "principles", 0) != 0 and raw.get("constitution") is None:
            hint = "add 'constitution: constitutions/general.yaml' at the top, or 'principles: 0' here"
            yield Mistake((name,), f"{name}: there is no constitution to take principles from", hint)


_NAMED = {
    "labelers": "votes are told apart by their labeler's name",
    "criteria": "scores are told apart by their criterion's name",
}


def _check_names(config: Config) -> Iterator[Mistake]:
    for (name, section), (key, why) in itertools.product(config.sections.items(), _NAMED.items()):
        listed = getattr(section, key, ())
        names = [one.name for one in listed if hasattr(one, "name")] if isinstance(listed, Sequence) else []
        for twice in (one for one, count in Counter(names).items() if count > 1):
            at = max(n for n, one in enumerate(names) if one == twice)
            yield mistake((name, key, at, "name"), f"is given twice: '{twice}'", why)


def _check_templates(config: Config) -> Iterator[Mistake]:
    for name, section in config.sections.items():
        template = getattr(section, "template", None)
        if isinstance(template, str):
            try:
                prompts.find(template, getattr(section, "asked_as", name), config.folder)
            except Fix as fix:
                yield from (Mistake((name, "template"), f"{name}: {message}", hint) for message, hint in fix.problems)


def _check_exemplars(config: Config) -> Iterator[Mistake]:
    for name, section in config.sections.items():
        count, named = getattr(section, "exemplars", 0), "exemplar_file" in section.model_fields_set
        if not count and not named:
            continue
        place = (name, "exemplar_file" if named else "exemplars")
        try:
            file: str = section.exemplar_file  # type: ignore[attr-defined]
            exemplars.find(file, name, config.folder, 0)
            place = (name, "exemplars")  # the file is right
            exemplars.find(file, name, config.folder, count)
        except Fix as fix:
            yield from (Mistake(place, f"{name}: {message}", hint) for message, hint in fix.problems)


def _check_prompts(config: Config) -> Iterator[Mistake]:
    section, path = config.prompts, config.prompts_path()
    if section is None:
        return
    if section.path is not None and section.dataset is not None:
        yield mistake(("prompts", "dataset"), "and 'path' exclude one another", "keep one of them")
    if path is not None and section.path != "-" and not path.exists():
        yield mistake(
            ("prompts", "path"),
            f"names no file: '{section.path}'",
            "a path is relative to the config; a dataset's name goes to 'dataset'",
        )


def _check_against(config: Config) -> Iterator[Mistake]:
    for name, section in config.sections.items():
        for n, file in enumerate(getattr(section, "against", ())):
            if not config.input_path(file, f"{name}.against").exists():
                hint = "a path is relative to the config, or to where you are"
                yield mistake((name, "against", n), f"names no file or folder: '{file}'", hint)


def _check_limits(config: Config) -> Iterator[Mistake]:
    try:
        config.max_outage_s  # noqa: B018
    except ValueError:
        yield mistake(
            ("limits", "max_outage"), f"is no length of time: '{config.limits.max_outage}'", "write 90s, 30m, 6h or 1h30m"
        )
    if config.shards.compression == "zstd" and not _can_import("zstandard"):
        yield mistake(
            ("shards", "compression"), "cannot be zstd without the package zstandard", "pip install zstandard, or use gzip"
        )


def _can_import(package: str) -> bool:
    """Whether it is installed and whole: the first shard is written when its rows are bought already."""
    try:
        importlib.import_module(package)
    except ImportError:
        return False
    return True


def _check_constitution(config: Config) -> tuple[list[Mistake], list[Problem]]:
    path = config.constitution_path()
    if path is None:
        return [], []
    if not path.is_file():
        files, name = sorted(shipped("configs", "constitutions").glob("*.yaml")), str(config.constitution)
        known = [f"constitutions/{file.name}" if "/" in name or "." in name else file.stem for file in files]
        return [mistake(("constitution",), f"names no file: '{name}'", near(name, known))], []
    try:
        constitution.load(path)
    except Fix as fix:
        return [], list(fix.problems)
    return [], []
