"""Cards that are gone, or do not name what is newest: seen by `cai verify`, mended by the next run or export."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from cai_cli.engine import card, versions
from cai_cli.engine.card import Features
from cai_cli.engine.disk import write_durably
from cai_cli.engine.versions import Version
from cai_cli.errors import Fix

CARD = "README.md"


def declares(output: Path, stage: str, version: str) -> bool:
    """Whether the card of a folder names the files of a version, so that `datasets` finds them."""
    try:
        _, _, rest = (output / CARD).read_text("utf-8").partition("---\n")
        front = card.loaded(rest.partition("\n---\n")[0])
        paths = [file["path"] for one in front["configs"] if one["config_name"] == stage for file in one["data_files"]]
    except (OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
        return False
    return any(str(path).startswith(f"{stage}/{version}/") for path in paths)


def is_whole(output: Path, version: Version) -> bool:
    """Whether the folder's card declares a version, if it has rows, and no version of its stage is without a card of its own."""
    stage = version.path.parent.name
    declared = not version.files() or declares(output, stage, version.name)
    return declared and not _without(output / stage)


def restore(stage: Path, features: Features) -> None:
    """Write the card of each version of a stage that has none any more, where it comes out as it was. `stage`: its folder"""
    for folder in _without(stage):
        try:
            manifest = versions.read(folder).manifest
        except Fix:
            continue  # it lacks more than its card
        data = card.version_card(stage.name, manifest["files"], features)
        if _digest_in(manifest) == hashlib.sha256(data).hexdigest():
            write_durably(folder / CARD, data)


def _digest_in(manifest: Mapping[str, Any]) -> str:
    return next((str(file["sha256"]) for file in manifest["files"] if file["name"] == CARD), "")


def _without(stage: Path) -> list[Path]:
    """The folders of versions that have a manifest and no card."""
    folders = [path for path in stage.iterdir() if versions.number_of(path.name)]
    return [path for path in folders if (path / versions.MANIFEST).is_file() and not (path / CARD).exists()]
