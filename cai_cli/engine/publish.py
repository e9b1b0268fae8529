"""From staged partitions to published versions: shards, manifest, one rename, card, `latest`, in this order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import orjson

from cai_cli.engine import card, versions
from cai_cli.engine.feed import Feed
from cai_cli.engine.shards import Layout, Staging, Tally, described
from cai_cli.engine.versions import MANIFEST, MANIFEST_SCHEMA, Version, fingerprint
from cai_cli.records import Rejected, features


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


def lineages(steps: Sequence[Maker], feed: Feed, layout: Layout) -> dict[str, Lineage]:
    """The lineage of every step, known before anything is asked.

    A step's fingerprint covers its settings, models, prompts and constitution, its parent's fingerprint or the input's, and the
    layout.
    """
    found: dict[str, Lineage] = {}
    given = tuple({"stage": parent.path.parent.name, "fingerprint": parent.fingerprint} for parent in feed.parents)
    before: dict[str, str] = {}
    for parent in feed.parents:
        before |= parent.manifest["lineage"]
    revising = [step.fingerprints() for step in steps if step.name == "revise"]
    for step in steps:
        source = getattr(step, "source", "")
        parents = ({"stage": source, "fingerprint": found[source].fingerprint},) if source else given
        loop = revising if step.name == "critique" else []
        given_input = "" if source else feed.fingerprint
        parts = {"stage": step.name, "parts": step.fingerprints(), "parents": parents, "input": given_input, "loop": loop,
                 "layout": [layout.test, layout.compression, layout.shards]}  # fmt: skip
        own = fingerprint(parts)
        ancestors = found[source].ancestors if source else before
        found[step.name] = Lineage(fingerprint=own, parents=parents, ancestors={**ancestors, step.name: own})
    return found


def is_published(output: Path, stage: str, lineage: Lineage) -> Version | None:
    """The newest version of a stage, if it is just what this lineage would make."""
    newest = versions.latest(output, stage)
    return newest if newest is not None and newest.fingerprint == lineage.fingerprint else None


def make_latest(output: Path, title: str, shapes: Mapping[str, type[Any]], fresh: Version) -> None:
    """Let the card, then `latest`, name a version: one that was just published, or one that a config came back to."""
    stage = fresh.path.parent.name
    found = {name: fresh if name == stage else versions.latest(output, name) for name in shapes}
    newest = {name: version for name, version in found.items() if version is not None}
    card.update_card(output, title, newest, {name: features(shapes[name]) for name in newest})
    versions.point_latest(fresh)


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
        """Publish one step, unless a version is there that is just it; `latest` names it. Gives: the version

        `rejects`: input that could not be used; counted with the first step. `extra`: more files for the version's folder.
        """
        version = versions.find(self.output, step.name, lineage.fingerprint) or self._publish(step, lineage, rejects, extra or {})
        make_latest(self.output, self.title, self.shapes, version)
        return version

    def _publish(self, step: Maker, lineage: Lineage, rejects: Sequence[Rejected], extra: Mapping[str, bytes]) -> Version:
        name = f"v{versions.next_number(self.output, step.name):04d}-{lineage.fingerprint[:8]}"
        tally = self.staging.tally(step.name)
        tally.came_in += len(rejects)
        tally.rejected.update(reject.reason for reject in rejects)
        tally.files.sort(key=lambda file: (file["shard"], file["name"]))
        if (rejected := self.staging.gather_rejects(step.name, rejects)) is not None:
            tally.files.append(rejected)
        more = {"README.md": card.version_card(step.name, tally.files, features(self.shapes[step.name])), **extra}
        tally.files += [described(file, data, 0, None) for file, data in more.items()]
        folder = self.staging.seal(step.name, {**more, MANIFEST: self._manifest(step, name, lineage, tally)})
        return versions.publish(folder, self.output, step.name, name)

    def _manifest(self, step: Maker, name: str, lineage: Lineage, tally: Tally) -> bytes:
        """What the version was made of. No clock and no money: the same data gives the same bytes."""
        manifest: dict[str, Any] = {
            "schema": MANIFEST_SCHEMA, "stage": step.name, "version": name, "fingerprint": lineage.fingerprint,
            "fingerprints": {**step.fingerprints(), "input": self.feed.fingerprint},
            "parents": lineage.parents, "lineage": dict(lineage.ancestors), "prompts": self.feed.prompts,
            "shards": self.staging.layout.shards, "came_in": tally.came_in, "rows": tally.rows,
            "rejected": dict(sorted(tally.rejected.items())), "filtered": dict(sorted(tally.filtered.items())),
            "replies": tally.replies, "tokens": {"in": tally.tokens_in, "out": tally.tokens_out}, "files": tally.files,
        }  # fmt: skip
        return orjson.dumps(manifest, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
