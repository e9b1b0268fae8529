"""A run's config: one YAML file, and what flags and the environment put over it, as frozen sections.

A stage's section stands in the stage's file as `Settings`; its name in the config is the file's name. So a stage that is added,
here or by another package (entry points of group cai.stages), is a section without anything being edited.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, TypeVar

from pydantic import Field, PrivateAttr, StringConstraints, create_model

from cai_cli import checks, documents, stages, tables
from cai_cli.documents import Document, Problem
from cai_cli.errors import Fix
from cai_cli.settings import (
    EstimateSection,
    LimitsSection,
    ModelSection,
    PromptsSection,
    Section,
    ShardsSection,
    Share,
    SplitSection,
    Text,
)
from cai_cli.shipped import shipped
from cai_cli.validation import KeyPath, Mistake, mistake, sections_in, unknown_key, validated

if TYPE_CHECKING:
    from cai_cli.price_lists import PriceList

S = TypeVar("S", bound=Section)

ENVIRONMENT: Final = {
    "CAI_OUTPUT": "output",
    "CAI_STATE": "state",
    "CAI_BUDGET_USD": "limits.budget_usd",
    "CAI_CONCURRENCY": "limits.concurrency",
}
_ROWS = re.compile(r"\.(jsonl|csv|tsv|parquet)(\.gz|\.zst)?$")  # files that nobody writes a config into
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


class AuditSection(Section):
    """How people check the labels: `cai audit`."""

    rate: Share = 0.05
    """Share of the judged pairs that `cai audit sample` draws, where -n says no number."""
    agreement_at_least: Share = 0.8
    """Below this share of labels that people agree with `cai audit score` ends with 3, and `cai export` warns."""


class Config(Section):
    """What a run makes, from what, by whom. Only `name` and `output` are required; a stage needs its own section."""

    name: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
    """The dataset's name: up to 64 letters, digits, dots, underscores and dashes."""
    seed: int = 0
    """Decides what is picked and drawn here. To buy fresh samples change `draw_offset`."""
    draw_offset: Annotated[int, Field(ge=0)] = 0
    """Another number buys other replies to the same prompts, all of them fresh."""
    output: Text
    """The dataset's folder, relative to the working directory."""
    state: Text | None = None
    """The folder of the ledger and the locks, on a local disk. Default: OUTPUT/.cai."""
    constitution: Text | None = None
    """The constitution's file: relative to the config, then ./configs, then the shipped one; or a shipped one's name."""
    model: ModelSection = ModelSection()
    """Who is asked, unless a stage says otherwise."""
    prices: Text | None = None
    """A price list of your own, of the form of the shipped configs/prices.yaml: its models go before the shipped ones. Relative
    to the config."""
    prompts: PromptsSection | None = None
    """Where prompts come from. Default: -i."""
    limits: LimitsSection = LimitsSection()
    """How fast, how dear, how patient."""
    split: SplitSection = SplitSection()
    """What is kept for testing."""
    shards: ShardsSection = ShardsSection()
    """How the output is cut into files."""
    audit: AuditSection = AuditSection()
    """How people check the labels."""
    estimate: EstimateSection = EstimateSection()
    """What people would cost, for `cai estimate`."""

    _path: Path = PrivateAttr()
    _stages: dict[str, Section] = PrivateAttr(default_factory=dict)
    _off: frozenset[str] = PrivateAttr(default=frozenset())
    _price_list: PriceList | None = PrivateAttr(default=None)
    # The keys that flags gave: a path on the command line is meant from the working directory.
    _here: frozenset[str] = PrivateAttr(default=frozenset())

    @property
    def path(self) -> Path:
        """The config's file."""
        return self._path

    @property
    def folder(self) -> Path:
        """Where the config stands; its input files are looked up from there."""
        return self._path.parent

    @property
    def output_path(self) -> Path:
        return _user(self.output)

    @property
    def state_path(self) -> Path:
        return _user(self.state) if self.state else self.output_path / ".cai"

    @property
    def max_outage_s(self) -> float:
        """How long an outage is waited for, in seconds. Raises: ValueError, where load() has not been there before"""
        text = self.limits.max_outage
        if not re.fullmatch(r"([0-9]+(\.[0-9]+)?[smhd])+", text):
            raise ValueError(text)
        return sum(float(number) * _SECONDS[unit] for number, unit in re.findall(r"([0-9.]+)([smhd])", text))

    @property
    def sections(self) -> Mapping[str, Section]:
        """The stages' sections that the config has, by name, in the order of the file."""
        return self._stages

    @property
    def off(self) -> frozenset[str]:
        """The stages that are switched off by name, as in `critique: off`: revise then works without critiques."""
        return self._off

    @property
    def price_list(self) -> PriceList | None:
        """The config's own price list; None: it has none."""
        return self._price_list

    def section(self, kind: type[S]) -> S | None:
        """A stage's section, such as config.section(generate.Settings); None where the config has none."""
        return next((section for section in self._stages.values() if isinstance(section, kind)), None)

    def model_for(self, section: Section) -> ModelSection:
        """Who answers a stage (or a labeler): its own model's keys where they are set, the default's elsewhere."""
        own: ModelSection | None = getattr(section, "model", None)
        return self.model if own is None else own.over(self.model)

    def constitution_path(self) -> Path | None:
        """The constitution's file, or None: there is none. A name that is nowhere stays relative to the config."""
        if self.constitution is None:
            return None
        found = self._find(self.constitution, self._around("constitution", Path("configs"), shipped("configs")))
        named = shipped("configs", "constitutions", f"{self.constitution}.yaml")
        return named if "/" not in self.constitution and not found.is_file() and named.is_file() else found

    def prompts_path(self) -> Path | None:
        """The prompts' file or folder (- is stdin), or None: they come from elsewhere."""
        if self.prompts is None or self.prompts.path is None:
            return None
        return self.input_path(self.prompts.path, "prompts.path")

    def input_path(self, name: str, key: str) -> Path:
        """A file or folder that `key` names: relative to the config, then to where one is; the other way about for a flag's."""
        return self._find(name, self._around(key))

    def _around(self, key: str, *more: Path) -> list[Path]:
        here = Path()
        return [here, self.folder, *more] if key in self._here else [self.folder, *more, here]

    @staticmethod
    def _find(name: str, folders: Sequence[Path]) -> Path:
        path = _user(name)
        if name == "-":
            return path
        return next((folder / path for folder in folders if (folder / path).exists()), folders[0] / path)


def load(
    path: Path, overrides: Sequence[str] = (), env: Mapping[str, str] = os.environ, flags: Mapping[str, Any] | None = None
) -> Config:
    """Read a config. What holds, from the first: flags, overrides, environment, file, default.

    Takes: overrides: "dotted.key=value", the value as in YAML; flags: values by dotted key, None where a flag was not given
    Raises: Fix, with every problem of the config and of the files that it names, each with its place
    """
    if _ROWS.search(path.name) and path.is_file():
        raise Fix(
            f"{path} holds rows, and what is wanted here is a config, in YAML", f"name the config, and the rows with -i {path}"
        )
    given = _Given(documents.load(path, env))
    given.put_environment(env)
    given.put_overrides(overrides)
    given.put_flags(flags or {})
    config, mistakes = _validated(given)
    if config is None:
        raise given.all_at_once(mistakes)
    config._path, config._here = path, frozenset(given.flags)
    wrong = {one.path for one in mistakes}
    more, problems = checks.check(config, given.raw)
    mistakes += [one for one in more if not any(one.path[: len(path)] == path for path in wrong)]
    unread, unpriced = _read_prices(config)
    mistakes, problems = [*mistakes, *unread], [*problems, *unpriced]
    if mistakes or problems or given.problems:
        raise given.all_at_once(mistakes, problems)
    return config


def _read_prices(config: Config) -> tuple[list[Mistake], Sequence[Problem]]:
    """Read the config's own price list, if it names one. Gives: what is wrong with its name, and the problems of that file"""
    if config.prices is None:
        return [], ()
    path = config.input_path(config.prices, "prices")
    if not path.is_file():
        return [mistake(("prices",), f"names no file: '{config.prices}'", "a path is relative to the config")], ()
    from cai_cli import price_lists

    try:
        config._price_list = price_lists.load(path)
    except Fix as fix:
        return [], fix.problems
    return [], ()


def schema() -> dict[str, Any]:
    """The JSON schema of a config with every stage that is installed, for editors."""
    fields = {name: (kind | Literal["off"] | None, Field(None, description=_said(kind))) for name, kind in _kinds()}
    whole = create_model("Config", __base__=Config, __doc__=Config.__doc__, **fields)  # type: ignore[call-overload]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **whole.model_json_schema()}


def stage_kinds() -> list[tuple[str, str, type[Section]]]:
    """Every stage that is installed: its name in a config, what it does, its section."""
    return [(name, _said(kind), kind) for name, kind in _kinds()]


def _user(name: str) -> Path:
    return Path(os.path.expanduser(name))  # noqa: PTH111 - Path.expanduser raises where it does not know ~nobody


def _said(kind: type[Section]) -> str:
    """What a stage does, from the first line of its file."""
    return (sys.modules[kind.__module__].__doc__ or kind.__name__).strip().split("\n")[0]


def _own_names() -> list[str]:
    """The stages and tables that are files here."""
    return [name for package in (stages, tables) for name in _modules(package)]


def _modules(package: ModuleType) -> list[str]:
    return [module.name for module in pkgutil.iter_modules(package.__path__) if not module.name.startswith("_")]


def _kind(name: str) -> type[Section] | None:
    """The `Settings` of a stage or table. Only those that a config names are imported: some need numpy."""
    for package in (stages, tables):
        if name in _modules(package):
            return getattr(importlib.import_module(f"{package.__name__}.{name}"), "Settings", None)
    return next((getattr(point.load(), "Settings", None) for point in _points() if point.name == name), None)


def _points() -> Any:
    from importlib.metadata import entry_points

    return entry_points(group="cai.stages")


def _kinds() -> Iterator[tuple[str, type[Section]]]:
    """Every stage's section by its name, and what all keys mean."""
    from cai_cli.meanings import describe

    describe(Config)
    for name in dict.fromkeys([*_own_names(), *sorted(point.name for point in _points())]):
        if name not in Config.model_fields and (kind := _kind(name)) is not None:
            describe(kind)
            yield name, kind


def _validated(given: _Given) -> tuple[Config | None, list[Mistake]]:
    raw = given.raw
    own = {key: value for key, value in raw.items() if key in Config.model_fields}
    own |= {key: {} for key, value in own.items() if value is None and sections_in(Config.model_fields[key].annotation)}
    config, mistakes = validated(Config, own, (), given.written)
    stage_sections, off = dict[str, Section](), set[str]()
    for name in [key for key in raw if key not in own]:
        kind = _kind(name)
        if kind is None:
            mistakes.append(unknown_key((name,), [*Config.model_fields, *_own_names()]))
            continue
        if raw[name] == "off":
            off.add(name)
            continue
        section, wrong = validated(kind, {} if raw[name] is None else raw[name], (name,), given.written)
        mistakes += wrong
        if section is not None:
            stage_sections[name] = section
    if config is not None:
        config._stages, config._off = stage_sections, frozenset(off)
    return config, mistakes


class _Given:
    """What the user gave: the file's values with flags and environment over them, and where each of them came from."""

    def __init__(self, document: Document) -> None:
        self.document, self.raw = document, document.root.value()
        self.sources: dict[KeyPath, tuple[str, str]] = {}  # (label, text) of what does not come from the file
        self.flags: set[str] = set()  # their keys
        self.problems: list[Problem] = []

    def put_environment(self, env: Mapping[str, str]) -> None:
        for variable, key in ENVIRONMENT.items():
            if not (text := env.get(variable, "unset")).strip():
                self.problems.append((f"{variable} is set, but empty", f"unset {variable}, or give it a value"))
            elif variable in env and key in ("output", "state"):
                self._put(key, text, variable, text)
            elif variable in env:
                self._put_yaml(key, text, variable)

    def put_overrides(self, overrides: Sequence[str]) -> None:
        for override in overrides:
            key, equals, text = override.partition("=")
            if not equals or not all(key.strip().split(".")):
                self.problems.append((f"--set {override}: a key, '=' and a value are needed", "write --set generate.samples=4"))
            else:
                self._put_yaml(key.strip(), text, f"--set {key.strip()}")
                self.flags.add(key.strip())

    def put_flags(self, flags: Mapping[str, Any]) -> None:
        for key, value in flags.items():
            if value is not None:
                plain = str(value) if isinstance(value, Path) else value
                self._put(key, plain, _FLAGS.get(key) or "--" + key.rpartition(".")[2].replace("_", "-"), "")
                self.flags.add(key)

    def _put_yaml(self, key: str, text: str, label: str) -> None:
        try:
            value = documents.parse_scalar(text, label)
        except Fix as fix:
            self.problems += fix.problems
        else:
            self._put(key, value, label, text)

    def _put(self, key: str, value: Any, label: str, text: str) -> None:
        """Set one value, and remember where it came from. The sections on the way are made where there are none."""
        here: Any = self.raw
        path: list[Any] = []
        *around, last = key.split(".")
        for name in [*around, last]:
            step: Any = int(name) if isinstance(here, list) and name.isdecimal() else name
            if not (isinstance(here, dict) or (isinstance(here, list) and isinstance(step, int) and step < len(here))):
                what = f"{documents.dotted(path)} is {documents.kind(here)}, it has no '{name}'"
                self.problems.append((f"{label}: {what}", "name a key that `cai config schema` shows"))
                return
            path.append(step)
            if len(path) <= len(around):
                here[step] = {} if isinstance(here, dict) and here.get(name) is None else here[step]
                here = here[step]
        here[path[-1]] = value
        self.sources[tuple(path)] = (label, text)

    def _source(self, path: KeyPath) -> tuple[str, str] | None:
        return next((self.sources[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self.sources), None)

    def place(self, path: KeyPath) -> str:
        """Where a value was given: "file:line", a flag or a variable."""
        source = self._source(path)
        return source[0] if source else self.document.where(path)

    def written(self, path: KeyPath) -> str:
        """A scalar as the user wrote it."""
        source = self._source(path)
        return self.document.written(path) if source is None else source[1] if path in self.sources else ""

    def all_at_once(self, mistakes: Sequence[Mistake], more: Sequence[Problem] = ()) -> Fix:
        ordered = sorted(mistakes, key=lambda one: 0 if self._source(one.path) else self.document.line(one.path))
        found = [*self.problems, *((f"{self.place(one.path)}: {one.what}", one.hint) for one in ordered), *more]
        inside = any(message.startswith(f"{self.document.name}:") for message, _ in found)
        return documents.all_at_once(found, f"when that is mended: cai config check {self.document.name}" if inside else "")


_FLAGS = {"prompts.path": "--input", "prompts.limit": "--limit"}
