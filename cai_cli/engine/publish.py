"""From staged partitions to published versions: shards, manifest, one rename, card, `latest`, in this order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson

from cai_cli.engine import card, card_upkeep, provenance, versions
from cai_cli.engine.feed import Feed
from cai_cli.engine.shards import Layout, Staging, Tally, described
from cai_cli.engine.versions import MANIFEST, MANIFEST_SCHEMA, Version, fingerprint
from cai_cli.records import Rejected, features

BIAS = "_bias.json"


class Maker(Protocol):
    """What rows are made by: a step of a run, or an export."""

    @property
    def name(self) -> str: ...

    def fingerprints(self) -> dict[str, Any]:
        """What determines its rows besides its input: config, constitution, templates, code."""


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """Where a step stands: its own fingerprint, those of the versions it is made from, and all before them."""

    fingerprint: str
    parents: tuple[dict[str, str], ...]  # stage, fingerprint
    ancestors: Mapping[str, str]  # stage -> fingerprint
    retried: str = ""  # what of it comes from questions that were asked again; empty: none was


_NONE: Mapping[str, str] = {}


def lineages(steps: Sequence[Maker], feed: Feed, layout: Layout, retried: Mapping[str, str] = _NONE) -> dict[str, Lineage]:
    """The lineage of every step, known before anything is asked.

    A step's fingerprint covers its settings, models, prompts and constitution, its parent's fingerprint or the input's, and the
    layout. `retried`: by stage, the digest of what was asked again.
    """
    found: dict[str, Lineage] = {}
    given = tuple({"stage": parent.path.parent.name, "fingerprint": parent.fingerprint} for parent in feed.parents)
    before: dict[str, str] = {}
    for parent in feed.parents:
        before |= parent.manifest["lineage"]
    revising = [_parts(step, retried) for step in steps if step.name == "revise"]
    for step in steps:
        source = getattr(step, "source", "")
        parents = ({"stage": source, "fingerprint": found[source].fingerprint},) if source else given
        loop = revising if step.name == "critique" else []
        given_input = "" if source else feed.fingerprint
        parts = {"stage": step.name, "parts": _parts(step, retried), "parents": parents, "input": given_input, "loop": loop,
                 "layout": [layout.test, layout.compression, layout.shards]}  # fmt: skip
        own = fingerprint(parts)
        ancestors = found[source].ancestors if source else before
        lineage = {**ancestors, step.name: own}
        found[step.name] = Lineage(fingerprint=own, parents=parents, ancestors=lineage, retried=retried.get(step.name, ""))
    return found


def _parts(step: Maker, retried: Mapping[str, str]) -> dict[str, Any]:
    """What determines a step's rows besides its input. Where nothing was retried, as it was before there were retries."""
    return step.fingerprints() | ({"retried": retried[step.name]} if step.name in retried else {})


def is_published(output: Path, stage: str, lineage: Lineage) -> Version | None:
    """The newest version of a stage, if it is just what this lineage would make."""
    newest = versions.latest(output, stage)
    return newest if newest is not None and newest.fingerprint == lineage.fingerprint else None


def make_latest(output: Path, title: str, shapes: Mapping[str, type[Any]], *fresh: Version) -> None:
    """Let the card, then `latest`, name versions of different stages: just published, or such as a config came back to."""
    named = {version.path.parent.name: version for version in fresh}
    found = {name: named.get(name) or versions.latest(output, name) for name in shapes}
    newest = {name: version for name, version in found.items() if version is not None}
    card.update_card(output, title, newest, {name: features(shapes[name]) for name in newest})
    for stage, version in named.items():
        card_upkeep.restore(output / stage, features(shapes[stage]))
        versions.point_latest(version)


@dataclass(frozen=True)
class Publisher:
    """Publishes the staged steps of one job to one output folder. `shapes`: the rows of all that it may hold, in this order."""

    output: Path
    title: str
    staging: Staging
    feed: Feed
    shapes: Mapping[str, type[Any]]

    def publish(
        self, step: Maker, lineage: Lineage, rejects: Sequence[Rejected] = (), extra: Mapping[str, bytes] | None = None
    ) -> Version:
        """Publish one step; `latest` names it. Takes, gives: as `made`"""
        version = self.made(step, lineage, rejects, extra)
        make_latest(self.output, self.title, self.shapes, version)
        return version

    def made(
        self, step: Maker, lineage: Lineage, rejects: Sequence[Rejected] = (), extra: Mapping[str, bytes] | None = None
    ) -> Version:
        """Publish one step, unless a version is there that is just it; nothing names it yet. Gives: the version

        `rejects`: input that could not be used; counted with the first step. `extra`: more files for the version's folder.
        """
        return versions.find(self.output, step.name, lineage.fingerprint) or self._publish(step, lineage, rejects, extra or {})

    def _publish(self, step: Maker, lineage: Lineage, rejects: Sequence[Rejected], extra: Mapping[str, bytes]) -> Version:
        name = f"v{versions.next_number(self.output, step.name):04d}-{lineage.fingerprint[:8]}"
        tally = self.staging.tally(step.name)
        tally.came_in += len(rejects)
        tally.rejected.update(reject.reason for reject in rejects)
        tally.files.sort(key=lambda file: (file["shard"], file["name"]))
        if (rejected := self.staging.gather_rejects(step.name, rejects)) is not None:
            tally.files.append(rejected)
        parents = self._parents(lineage)
        own_card = card.version_card(step.name, tally.files, features(self.shapes[step.name]))
        more = {"README.md": own_card, **_measured(parents), **extra}
        tally.files += [described(file, data, _lines(file, data), None) for file, data in more.items()]
        folder = self.staging.seal(step.name, {**more, MANIFEST: self._manifest(step, name, lineage, tally, parents)})
        return versions.publish(folder, self.output, step.name, name)

    def _parents(self, lineage: Lineage) -> list[Version]:
        """The versions that one is made from: of the same run, published before it, or what the run reads."""
        if lineage.parents == tuple({"stage": one.path.parent.name, "fingerprint": one.fingerprint} for one in self.feed.parents):
            return list(self.feed.parents)
        found = (versions.find(self.output, parent["stage"], parent["fingerprint"]) for parent in lineage.parents)
        return [version for version in found if version is not None]

    def _manifest(self, step: Maker, name: str, lineage: Lineage, tally: Tally, parents: Sequence[Version]) -> bytes:
        """What the version was made of. No clock and no money: the same data gives the same bytes."""
        retried = {step.name: lineage.retried} if lineage.retried else {}
        manifest: dict[str, Any] = {
            "schema": MANIFEST_SCHEMA, "stage": step.name, "version": name, "fingerprint": lineage.fingerprint,
            "fingerprints": {**_parts(step, retried), "input": self.feed.fingerprint},
            "parents": lineage.parents, "lineage": dict(lineage.ancestors), "prompts": self.feed.prompts,
            "shards": self.staging.layout.shards, "came_in": tally.came_in, "rows": tally.rows,
            "rejected": dict(sorted(tally.rejected.items())), "filtered": dict(sorted(tally.filtered.items())),
            "replies": tally.replies, "tokens": {"in": tally.tokens_in, "out": tally.tokens_out},
            "models": tally.models, "marks": dict(sorted(tally.marks.items())), "made_with": provenance.made_with(step),
            "history": provenance.history(parents), "files": tally.files,
        }  # fmt: skip
        return orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _lines(file: str, data: bytes) -> int:
    """The rows of a file that is no shard; one that holds none has 0."""
    return data.count(b"\n") if file.endswith(".jsonl") else 0


def _measured(parents: Sequence[Version]) -> dict[str, bytes]:
    """The bias report of what a version is made from: it travels with the labels, to exports and wherever they are pushed."""
    found = (parent.path / BIAS for parent in parents)
    path = next((path for path in found if path.is_file()), None)
    return {BIAS: path.read_bytes()} if path is not None else {}
