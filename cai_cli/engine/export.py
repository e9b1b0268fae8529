"""Exports: a published version read once, its rows in another shape written as a version of a dataset of their own."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cai_cli import constitution as constitutions
from cai_cli import exports, prompts
from cai_cli.config import Config
from cai_cli.constitution import BUILT_IN, Constitution
from cai_cli.engine import audit_standing, disk, mix, plan, tables, versions
from cai_cli.engine.card_upkeep import is_whole
from cai_cli.engine.export_checks import Format, nothing_to_write, refuse_changed, refuse_dataset, refuse_other_format
from cai_cli.engine.feed import Feed, Unit, from_version
from cai_cli.engine.files import File, read_file
from cai_cli.engine.formats import Line
from cai_cli.engine.lock import IfLocked, lock_file, locked
from cai_cli.engine.publish import Lineage, Publisher, is_published, lineages
from cai_cli.engine.shards import Layout, Made, Staging
from cai_cli.engine.source_split import share_of
from cai_cli.engine.versions import Version, fingerprint
from cai_cli.errors import Exit, Fix
from cai_cli.exports import Asked, Dialect, Labels, Left, Rounds, Shape
from cai_cli.exports.sft import turns_of

FOLDER = "export"  # in the output, where --out names no other


@dataclass(frozen=True, kw_only=True)
class Options:
    """What may be asked of exports. An export that does not go by an option ignores it."""

    rounds: Rounds = "last"
    labels: Labels = "soft"
    shape: Shape = "prompt"
    mix: tuple[mix.Ingredient, ...] = ()
    format: Format = "jsonl"
    compression: str | None = None  # none | gzip | zstd; None: the config's for JSONL, zstd inside of Parquet

    def given(self) -> list[str]:
        """Those that only some exports go by, where they are not as they are by default."""
        return [name for name in ("rounds", "labels", "shape", "mix") if getattr(self, name) != getattr(Options(), name)]


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What an export came to. `left`: rows that are not in it, by reason."""

    name: str
    version: Version
    rows: int
    left: Counter[str]
    path: Path  # the dataset's folder
    source: Version  # what it was made of
    outdated: tuple[str, ...]  # stages that were run anew since, so that `source` is not of their newest version
    unchanged: bool  # it was there already
    counts: Mapping[str, int]  # of its rows, what the export has to tell of them
    mixed: Sequence[mix.Surveyed] = ()  # what was mixed in
    audit: Mapping[str, Any] | None = None  # whether people checked its labels (`audit_standing`); None: nobody asked for it
    resplit: float | None = None  # the share of test prompts that the source has, where the config says another


@dataclass(frozen=True)
class _Export:
    """An export as versions and manifests see it."""

    name: str
    dialect: Dialect
    options: Options
    asked: Asked
    mixed: tuple[mix.Surveyed, ...] = ()
    own: mix.Own = field(default_factory=mix.Own)  # where something is mixed in
    audit: Mapping[str, Any] | None = None  # how an audit of its labels stands

    def goes_by(self, option: str) -> bool:
        return option in getattr(self.dialect, "OPTIONS", ())

    def fingerprints(self) -> dict[str, Any]:
        templates = {f"{one.stage}/{one.name}": one.fingerprint for one in self.asked.templates.values()}
        # What is drawn goes by the seed: the labels, the rows to mix in, the digits of the fences in what is asked.
        drawn = self.mixed or templates or (self.goes_by("labels") and self.asked.labels == "bernoulli")
        by = {name: getattr(self.asked, name) for name in ("rounds", "labels", "shape") if self.goes_by(name)}
        by |= {"mix": [one.document() for one in self.mixed]} if self.mixed else {}
        by |= {"compression": self.options.compression} if self.options.compression else {}
        # The card tells it: what people found later makes another version.
        audit = {"audit": dict(self.audit)} if self.audit is not None else {}
        return {
            "config": "", "templates": templates, "code": f"export-{self.name}/{self.dialect.VERSION}",
            "constitution": self.asked.constitution.fingerprint if self.asked.constitution is not BUILT_IN else "",
            "options": {"format": self.options.format, **by, **({"seed": self.asked.seed} if drawn else {})}, **audit,
        }  # fmt: skip


def export(
    config: Config, to: str, out: Path | None = None, if_locked: IfLocked = "fail", command: str = "cai export",
    options: Options = Options(), among: Sequence[str] = (),
) -> Exported:  # fmt: skip
    """Write the newest rows of a dataset in the shape that a trainer takes.

    Takes: `to`: an export's name; `out`: the dataset's folder, OUTPUT/export by default; `among`: all that are written there now
    Raises: Fix: no such export, a folder that is something else or holds exports in another format, another constitution than the
    rows were made by; with exit 65: no source, or one that was changed, no row to write, an export that was changed since, files
    to mix in that cannot be used; Held
    """
    dialect = exports.find(to)
    source_of(config, to)  # before a folder is made for nothing
    folder = out or config.output_path / FOLDER
    refuse_dataset(folder)
    refuse_other_format(folder, among or (to,), options.format)
    disk.probe(folder, option="--out" if out else "-o")
    with locked(_lock(config, folder), if_locked, command):
        source = source_of(config, to)
        audit = audit_standing.standing_of(config, source)
        making = _Export(to, dialect, options, _asked(config, dialect, source, options), audit=audit)
        return _exported(config, making, source, folder)


def check_options(names: Sequence[str], options: Options) -> None:
    """Raises: Fix: an option that none of the exports goes by"""
    takes = {name: getattr(exports.find(name), "OPTIONS", ()) for name in exports.names()}
    for option in options.given():
        if not any(option in takes[name] for name in names):
            able = [name for name, by in takes.items() if option in by]
            raise Fix(f"--{option} changes nothing in {' or '.join(names)}", f"it is for: {', '.join(able)}")


def words_of(manifest: Mapping[str, Any]) -> list[str]:
    """The options of `cai export` that a version was made with, as words of a command line.

    What was mixed in is named by the file's own name: a manifest knows nothing of where things lie.
    """
    given = manifest["fingerprints"].get("options", {})
    usual = {
        "format": Options.format,
        "rounds": Options.rounds,
        "labels": Options.labels,
        "shape": Options.shape,
        "compression": None,
    }
    words = [word for name, value in usual.items() if given.get(name, value) != value for word in (f"--{name}", given[name])]
    return words + [word for one in given.get("mix", ()) for word in ("--mix", f"{one['name']}:{one['share']:g}")]


def _asked(config: Config, dialect: Dialect, source: Version, options: Options) -> Asked:
    templates = [prompts.find(name, stage, config.folder) for name, stage in getattr(dialect, "TEMPLATES", ())]
    return Asked(
        rounds=options.rounds, labels=options.labels, shape=options.shape, seed=config.seed,
        constitution=_constitution(config, source) if getattr(dialect, "CONSTITUTION", False) else BUILT_IN,
        templates={one.stage: one for one in templates},
    )  # fmt: skip


def _constitution(config: Config, source: Version) -> Constitution:
    """The config's, which must be the one that the rows were made by: they name principles, and the words are asked for now."""
    path, stage = config.constitution_path(), source.path.parent.name
    if stage in plan.sections_of(config):
        (step,) = plan.steps_of(config, [stage])
        if step.fingerprints()["constitution"] != source.manifest["fingerprints"]["constitution"]:
            what = f"{stage}/{source.name} was made by another constitution than {config.path} names now"
            raise Fix(what, f"run `cai run {config.path}` first: only what changed is asked")
    return constitutions.load(path) if path else BUILT_IN


def source_of(config: Config, to: str) -> Version:
    """The version that an export is made of. Raises: Fix: no such export, or no stage that it can be made of has run"""
    reads = exports.find(to).READS
    found = (version for stage in reads if (version := versions.latest(config.output_path, stage)) is not None)
    if (version := next(found, None)) is None:
        what = f"{config.output_path} holds no {' nor '.join(reads)} yet, which the export '{to}' is made of"
        raise Fix(what, _how_to_make(config, reads), Exit.INPUT)
    return version


def _how_to_make(config: Config, reads: Sequence[str]) -> str:
    there = [stage for stage in reads if stage in plan.sections_of(config)]
    if there:
        return f"run `cai run {config.path}` first, or only `cai {there[-1]} {config.path}`"
    section = reads[-1].replace("-", "_")
    return f"add `{section}: {{}}` to {config.path}, then run `cai run {config.path}`"


def _lock(config: Config, folder: Path) -> Path:
    """Inside the output its own lock holds, so that a run cannot prune what is being read."""
    inside = folder.resolve().is_relative_to(config.output_path.resolve())
    return lock_file(config) if inside else folder / ".cai" / "lock"


def _exported(config: Config, making: _Export, source: Version, folder: Path) -> Exported:
    refuse_changed(config.output_path / source.path.parent.name / source.name, source, " that made it")
    feed = from_version(source, plan.shapes()[source.path.parent.name], None)
    making = _mixing(making, feed, folder)
    test = share_of(source, config.split.test)
    layout = _layout(config, making, source, test)
    lineage = lineages([making], feed, layout)[making.name]
    if there := versions.find(folder, making.name, lineage.fingerprint):
        refuse_changed(folder / making.name / there.name, there, " again")
    found = is_published(folder, making.name, lineage)
    # once, versions without a row were published; one that its card does not declare is declared again
    found = found if found and found.manifest["rows"] and is_whole(folder, found) else None
    version = found or _write(config, making, lineage, feed, layout, folder)
    return Exported(
        name=making.name, version=version, rows=version.manifest["rows"], left=Counter(version.manifest["filtered"]), path=folder,
        source=source, outdated=_outdated(config, source), unchanged=found is not None, mixed=making.mixed,
        counts=_counts(version, making.dialect), audit=making.audit, resplit=test if test != config.split.test else None,
    )  # fmt: skip


def _layout(config: Config, making: _Export, source: Version, test: float) -> Layout:
    by_default = config.shards.compression if making.options.format == "jsonl" else "zstd"
    return Layout(
        source.shards, test, making.options.compression or by_default, making.options.format,
        tuple(getattr(making.dialect, "HALVES", ())),
    )  # fmt: skip


def _mixing(making: _Export, feed: Feed, folder: Path) -> _Export:
    """The export with what is to be mixed in, looked through: how many rows that is depends on how many it has of its own."""
    found = making.options.mix if making.goes_by("mix") else ()
    own = (folder / making.name).resolve()
    for one in found:
        if one.path.resolve() in (folder.resolve(), own) or one.path.resolve().is_relative_to(own):
            raise Fix(f"--mix: {one.path} is what this export writes", "name another export, or a file")
    if not found:
        return making
    brought = mix.Own()
    for unit in feed.units():
        for record in unit.rows:
            brought.add_prompt(record.messages, record.prompt_id)
        for row in _unit(unit, making).rows:
            brought.add_row(turns_of(row))
    return replace(making, own=brought, mixed=tuple(mix.survey(found, brought, making.asked.seed)))


def _counts(version: Version, dialect: Dialect) -> dict[str, int]:
    """How many rows hold what the export tells of them."""
    told = getattr(dialect, "COUNTS", ())
    counts = dict.fromkeys((what for what, _, _ in told), 0)
    for path in version.files() if told else ():
        for line in read_file(File(path, str(path)), otherwise=".jsonl"):
            for what, column, value in told:
                counts[what] += isinstance(line, Line) and line.row.get(column) == value
    return counts


def _write(config: Config, making: _Export, lineage: Lineage, feed: Feed, layout: Layout, folder: Path) -> Version:
    _refuse_empty(config, making, feed)
    # Not beside the staging of runs: what a run that stopped has staged there must outlive this.
    place = folder / ".cai" / "staging" / fingerprint([lineage.fingerprint])[:16]
    made = _shapes(folder, making)
    staging = Staging(place, [making.name], layout, made)
    more = [mix.mixed(one, making.own, making.asked, layout.shards) for one in making.mixed]
    tables.stage_table(staging, making.name, heapq.merge(_converted(feed, making), *more, key=lambda one: one[0]))
    version = Publisher(folder, config.name, staging, feed, made).publish(making, lineage)
    staging.remove()
    return version


def _refuse_empty(config: Config, making: _Export, feed: Feed) -> None:
    """Before anything is staged. Raises: Fix (exit 65): no row of the source gives one"""
    left = Counter[str]()
    for _, made in _converted(feed, making):
        if made.rows:
            return
        left += made.filtered
    raise nothing_to_write(config, making.name, feed.parents[0], left)


def _shapes(folder: Path, making: _Export) -> dict[str, type[Any]]:
    """The rows of every export: of this one as it is asked for, of others as they were made last."""
    newest = ((name, versions.latest(folder, name)) for name in exports.names())
    options = {name: one.manifest["fingerprints"].get("options", {}) if one else {} for name, one in newest}
    options[making.name] = making.fingerprints()["options"]
    return {name: exports.rows_of(name, by) for name, by in options.items()}


def _converted(feed: Feed, making: _Export) -> Iterator[tuple[int, Made]]:
    return ((unit.shard, _unit(unit, making)) for unit in feed.units())


def _unit(unit: Unit, making: _Export) -> Made:
    made, convert = Made(), making.dialect.convert
    taken = [unit.rows] if getattr(making.dialect, "GROUPED", False) else unit.rows
    for outcome in (outcome for record in taken for outcome in convert(record, making.asked)):
        made.came_in += 1
        if isinstance(outcome, Left):
            made.filtered[outcome.reason] += 1
        else:
            made.rows.append(outcome)
    return made


def _outdated(config: Config, source: Version) -> tuple[str, ...]:
    """The stages behind a version whose newest version is not the one that it was made from."""
    newest = {stage: versions.latest(config.output_path, stage) for stage in source.manifest["lineage"]}
    return tuple(stage for stage, one in newest.items() if one and one.fingerprint != source.manifest["lineage"][stage])
