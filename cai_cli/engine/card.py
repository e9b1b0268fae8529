"""Dataset cards: the README.md that tells `datasets` what is where and of which type, and people what it is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cai_cli.engine.disk import write_durably
from cai_cli.engine.versions import Version, fingerprint
from cai_cli.errors import Exit, Fix

BEGIN, END = "<!-- cai: begin, written anew by every run -->", "<!-- cai: end, yours from here on -->"
_FRONT = re.compile(r"\A---\n(.*?)\n---\n", re.DOTALL)


def version_card(stage: str, files: Sequence[Mapping[str, Any]], features: Sequence[Mapping[str, Any]]) -> bytes:
    """The card inside a version's folder: declares the features, so that the folder loads by its own path."""
    names = [str(file["name"]) for file in files if file["shard"] is not None]
    front: dict[str, Any] = {}
    if names:  # there are versions without a row: all of them were left out, with their reasons
        front["configs"] = [_config("default", "", files)]
        front["dataset_info"] = [{"config_name": "default", "features": list(features)}]
    return (_front(front) + f"\nOne version of the stage `{stage}`; `_manifest.json` says what it was made of.\n").encode()


def _data_files(folder: str, names: Sequence[str]) -> list[dict[str, str]]:
    ending = names[0][names[0].index(".") :]
    splits = [split for split in ("train", "test") if any(name.startswith(split) for name in names)]
    return [{"split": split, "path": f"{folder}{split}-*{ending}"} for split in splits]


def update_card(
    output: Path, title: str, versions: Mapping[str, Version], features: Mapping[str, Sequence[Mapping[str, Any]]]
) -> None:
    """Write the output folder's card; what people wrote outside the marked part, and other keys of its YAML, survive.

    `versions`: the newest version of each stage; `features`: the columns of each stage.
    """
    path = output / "README.md"
    old = path.read_text("utf-8") if path.exists() else ""
    front, before, after = _split(old, title, path)
    loadable = {stage: version for stage, version in versions.items() if version.files()}
    front["configs"] = [_config(stage, f"{stage}/{one.name}/", one.manifest["files"]) for stage, one in loadable.items()]
    front["dataset_info"] = [{"config_name": stage, "features": list(features[stage])} for stage in loadable]
    write_durably(path, f"{_front(front)}{before}{BEGIN}\n{_table(versions)}{END}{after}".encode())


def _config(name: str, folder: str, files: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A config as cards declare it.

    `datasets` names its cache after the folder's last name and this declaration, not after the files: without the checksum
    in it, `latest` of another output, or of another day, would come out of the cache.
    """
    data = [file for file in files if file["shard"] is not None]
    names = [str(file["name"]) for file in data]
    checksum = fingerprint([file["sha256"] for file in data])
    return {"config_name": name, "description": f"content {checksum[:32]}", "data_files": _data_files(folder, names)}


def _read_front(text: str, path: Path) -> dict[str, Any]:
    import yaml

    try:
        front = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        at = f":{error.problem_mark.line + 2}" if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark else ""
        raise Fix(f"{path}{at}: the YAML between the --- lines cannot be read", _MEND, Exit.INPUT) from error
    if not isinstance(front, dict):
        raise Fix(f"{path}: the YAML between the --- lines must be keys and values", _MEND, Exit.INPUT)
    return front


_MEND = "mend it (or delete the file), then run the same command again: it asks for nothing twice"


def _split(old: str, title: str, path: Path) -> tuple[dict[str, Any], str, str]:
    """A card's YAML, and its text before and after the marked part."""
    match = _FRONT.match(old)
    front = _read_front(match[1], path) if match else {}
    text = old[match.end() :] if match else old
    before, found, rest = text.partition(BEGIN)
    if not found:
        return front, text or f"\n# {title}\n\n{_WARNING}\n\n", "\n"
    return front, before, rest.partition(END)[2]


_WARNING = (
    "Written by a model: prompts may be harmful on purpose, and first responses were not filtered. "
    "Read the critiques and revisions before you train on anything here."
)


def _front(front: Mapping[str, Any]) -> str:
    import yaml

    return f"---\n{yaml.safe_dump(dict(front), sort_keys=False, allow_unicode=True, width=1000)}---\n"


def _table(versions: Mapping[str, Version]) -> str:
    lines = ["", "| stage | version | rows | rejected | filtered |", "|---|---|---|---|---|"]
    for stage, version in versions.items():
        manifest = version.manifest
        rejected, filtered = _reasons(manifest["rejected"]), _reasons(manifest["filtered"])
        lines.append(f"| {stage} | {version.name} | {manifest['rows']:,} | {rejected} | {filtered} |")
    return "\n".join([*lines, "", ""])


def _reasons(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items())) or "0"
