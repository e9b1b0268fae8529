"""The files of a repository on the Hub: what is there, what is to be there, and what that changes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cai_cli.engine.export_checks import change
from cai_cli.engine.versions import MANIFEST, REMAKE, Version
from cai_cli.errors import Exit, Fix

if TYPE_CHECKING:
    from huggingface_hub import HfApi

BIAS = "_bias.json"
LFS_HASH = 64  # characters of a sha256; git's own hash has 40
# What a push may delete in the folder of an export: what a push puts there. Anything else is somebody's own.
_OURS = re.compile(rf"(train|test)\w*-\d+-of-\d+\.[\w.]+|{MANIFEST}|{BIAS}")


@dataclass(frozen=True, slots=True)
class Content:
    """What a file is to hold: a path, or bytes."""

    given: Path | bytes
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> Content:
        return cls(data, hashlib.sha256(data).hexdigest())

    def matches(self, there: str | None) -> bool:
        """Whether it is what the Hub has. Takes: the hash of what is there; None: nothing is"""
        if there is None or len(there) == LFS_HASH:
            return there == self.sha256
        data = self.given if isinstance(self.given, bytes) else self.given.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() == there


def contents(exported: Iterable[tuple[str, Version]]) -> dict[str, Content]:
    """The files to push by their path there. Never rejects, never `.cai`. Raises: Fix (exit 65): one was changed or is gone"""
    found = {}
    for name, version in exported:
        for file in version.manifest["files"]:
            if file["shard"] is not None or file["name"] == BIAS:
                found[f"{name}/{file['name']}"] = _as_published(version.path / file["name"], file)
        found[f"{name}/{MANIFEST}"] = Content.of((version.path / MANIFEST).read_bytes())
    return found


def _as_published(path: Path, file: Mapping[str, Any]) -> Content:
    try:
        different = change(path, file)
    except FileNotFoundError:
        different = "it is gone"
    if different:
        raise Fix(f"{path} is not what was published: {different}", REMAKE, Exit.INPUT)
    return Content(path, str(file["sha256"]))


def listed(hub: HfApi, repo: str) -> dict[str, str]:
    """The files of a dataset's repository: path -> its hash, LFS's sha256 or git's own."""
    from huggingface_hub.hf_api import RepoFile

    tree = hub.list_repo_tree(repo, recursive=True, repo_type="dataset")
    files = [entry for entry in tree if isinstance(entry, RepoFile)]
    return {file.path: file.lfs.sha256 if file.lfs else file.blob_id for file in files}


def changes(
    wanted: Mapping[str, Content], there: Mapping[str, str], names: Sequence[str]
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Paths to write and paths to delete, so that a repository holds the exports of these names as they are now."""
    written = tuple(path for path, content in wanted.items() if not content.matches(there.get(path)))
    ours = (path for path in there if path.partition("/")[0] in names and _OURS.fullmatch(path.partition("/")[2]))
    return written, tuple(path for path in ours if path not in wanted)
