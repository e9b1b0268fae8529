"""Versions on disk: OUTPUT/STAGE/v0001-3f9a1c2b, whole from the moment its folder has that name, and `latest` beside them."""

from __future__ import annotations

import hashlib
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from cai_cli.engine.disk import sync_folder
from cai_cli.errors import Exit, Fix

MANIFEST = "_manifest.json"
MANIFEST_SCHEMA = 1
# What to do about a version that was damaged or changed: not every one is made again by deleting it.
REMAKE = "`cai verify CONFIG` says what is damaged, and what brings it back"
_NAME = re.compile(r"v(\d{4,})-([0-9a-f]{8})")


@dataclass(frozen=True)
class Version:
    """One published version of one stage."""

    path: Path
    manifest: dict[str, Any]

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def number(self) -> int:
        return number_of(self.path.name)

    @property
    def fingerprint(self) -> str:
        return str(self.manifest["fingerprint"])

    @property
    def shards(self) -> int:
        return int(self.manifest["shards"])

    def files(self, shard: int | None = None) -> list[Path]:
        """Data files of one shard (train before test), or of all."""
        names = [file["name"] for file in self.manifest["files"] if file["shard"] is not None and shard in (None, file["shard"])]
        return [self.path / name for name in names]


def fingerprint(parts: Any) -> str:
    """SHA-256 of plain JSON values, in hexadecimal."""
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS | orjson.OPT_NON_STR_KEYS)).hexdigest()


def number_of(name: str) -> int:
    """The number in a version folder's name; 0 for any other name."""
    match = _NAME.fullmatch(name)
    return int(match[1]) if match else 0


def read(path: Path) -> Version:
    """A version by its folder. Raises: Fix: no manifest there, one that may not be read, or one of a newer cai"""
    try:
        manifest = orjson.loads((path / MANIFEST).read_bytes())
    except PermissionError as error:
        raise not_permitted(path / MANIFEST) from error
    except (OSError, orjson.JSONDecodeError) as error:
        said = f"{path} is no version that cai wrote: its {MANIFEST} cannot be read"
        raise Fix(said, REMAKE, Exit.INPUT) from error
    if manifest.get("schema", 0) > MANIFEST_SCHEMA:
        raise Fix(f"{path} was written by a newer cai", "pip install --upgrade cai-cli", Exit.INPUT)
    return Version(path.resolve(), manifest)


def not_permitted(path: Path) -> Fix:
    """A file of a version that whoever asks may not read: there is nothing wrong with the version."""
    hint = f"let yourself read it: {shlex.join(['chmod', '-R', 'u+rX', str(path.parent)])}"
    return Fix(f"{path} cannot be read: permission denied", hint, Exit.INPUT)


def latest(output: Path, stage: str) -> Version | None:
    """The version that `latest` names, if there is one."""
    link = output / stage / "latest"
    return read(link) if link.exists() else None


def all_of(output: Path, stage: str) -> Iterator[Version]:
    """Every version of a stage, oldest first."""
    return (read(output / stage / name) for name in names_of(output, stage))


def names_of(output: Path, stage: str) -> list[str]:
    """The names of a stage's versions, oldest first."""
    folder = output / stage
    names = [path.name for path in folder.iterdir() if number_of(path.name)] if folder.is_dir() else []
    return sorted(names, key=number_of)


def find(output: Path, stage: str, whole_fingerprint: str) -> Version | None:
    """The newest version of a stage with this fingerprint, whatever `latest` names."""
    folder = output / stage
    names = [path.name for path in folder.glob(f"v*-{whole_fingerprint[:8]}") if number_of(path.name)]
    found = (read(folder / name) for name in sorted(names, key=number_of, reverse=True))
    return next((version for version in found if version.fingerprint == whole_fingerprint), None)


def next_number(output: Path, stage: str) -> int:
    return max((version.number for version in all_of(output, stage)), default=0) + 1


def publish(staged: Path, output: Path, stage: str, name: str) -> Version:
    """Give a whole, synced folder its name: one rename."""
    target = output / stage / name
    target.parent.mkdir(parents=True, exist_ok=True)
    sync_folder(staged)
    staged.rename(target)
    sync_folder(target.parent)
    return read(target)


def point_latest(version: Version) -> None:
    """Let `latest` name this version, atomically."""
    link = version.path.parent / "latest"
    trial = link.with_name(".latest-new")  # one name: what a killed run left is cleared by the next
    trial.unlink(missing_ok=True)
    trial.symlink_to(version.name)
    trial.rename(link)
    sync_folder(link.parent)


def prune(output: Path, stage: str, keep: int) -> list[Path]:
    """Delete all but the newest `keep` versions of a stage; the one that `latest` names always stays. Gives: what went."""
    newest = latest(output, stage)
    old = [version for version in list(all_of(output, stage))[:-keep] if newest is None or version.path != newest.path]
    for version in old:
        doomed = version.path.with_name(f".pruned-{version.name}")
        version.path.rename(doomed)  # gone for readers at once, however long the deletion takes
        shutil.rmtree(doomed)
    for left in (output / stage).glob(".pruned-v*"):  # by a run that was killed here
        shutil.rmtree(left)
    return [version.path for version in old]
