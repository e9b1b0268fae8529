"""Why two versions of a stage differ, as far as their manifests tell: which of the things that rows depend on is another one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cai_cli.engine import versions
from cai_cli.engine.versions import Version

Cause = tuple[str, str]  # what differs, and how; both for people
_CLOSE = ("config", "constitution", "templates", "input", "code", "retried")


def causes(output: Path, old: Version, new: Version) -> list[Cause]:
    """What differs of config, constitution, templates, input, code, retries and parents, in this order; empty: nothing known."""
    before, after = old.manifest["fingerprints"], new.manifest["fingerprints"]
    found: list[Cause] = []
    if before.get("config") != after.get("config"):
        found.append(("config", ", ".join(_settings(old.manifest, new.manifest)) or "model parameters, seed or draw_offset"))
    if before.get("constitution") != after.get("constitution"):
        found.append(("constitution", _constitution(old.manifest, new.manifest)))
    found += [("templates", how) for how in _templates(before.get("templates") or {}, after.get("templates") or {})]
    if before.get("input") != after.get("input"):
        found.append(("input", f"{_prompts(old.manifest)} -> {_prompts(new.manifest)}"))
    if before.get("code") != after.get("code"):
        found.append(("code", f"{before.get('code')} -> {after.get('code')}"))
    if before.get("retried") != after.get("retried"):
        found.append(("retried", "rows that had failed were asked again"))
    found += [
        ("others", f"{name} is another one") for name in after if name not in (*_CLOSE,) and before.get(name) != after[name]
    ]
    found += [("parents", how) for how in _parents(output, old.manifest, new.manifest)]
    return found or _unseen(old, new)


def _unseen(old: Version, new: Version) -> list[Cause]:
    if old.fingerprint == new.fingerprint:
        return []
    if old.manifest["shards"] != new.manifest["shards"]:
        return [("layout", f"{old.manifest['shards']} -> {new.manifest['shards']} shards")]
    return [("layout", "split or compression, or the settings of the stage that it is looped with")]


def _settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    """Keys whose values differ, as the manifests tell them; texts are not told."""
    before, after = (dict(_flat((one.get("made_with") or {}).get("settings") or {})) for one in (old, new))
    for key in dict.fromkeys([*before, *after]):
        if before.get(key) != after.get(key):
            yield f"{key} {_said(before.get(key))} -> {_said(after.get(key))}"
    models = [sorted({one["name"] for one in manifest.get("models") or ()}) for manifest in (old, new)]
    if all(models) and models[0] != models[1]:
        yield f"model {' and '.join(models[0])} -> {' and '.join(models[1])}"


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _flat(inner, f"{path}.{key}" if path else str(key))
    else:
        yield path, value


def _said(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "none", True: "true", False: "false"}[value]
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)


def _constitution(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    told = [(one.get("made_with") or {}).get("constitution") or {} for one in (old, new)]
    names = [" ".join(str(one[part]) for part in ("name", "version") if one.get(part)) for one in told]
    return (
        f"{names[0] or 'none'} -> {names[1] or 'none'}"
        if names[0] != names[1]
        else f"{names[0]}: its texts or weights".lstrip(": ")
    )


def _templates(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[str]:
    for name in dict.fromkeys([*old, *new]):
        if old.get(name) != new.get(name):
            yield f"{name} {'added' if name not in old else 'gone' if name not in new else 'changed'}"


def _prompts(manifest: Mapping[str, Any]) -> str:
    return f"{manifest['prompts']:,} prompts"


def _parents(output: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    before, after = ({one["stage"]: one["fingerprint"] for one in manifest["parents"]} for manifest in (old, new))
    for stage in dict.fromkeys([*before, *after]):
        if before.get(stage) != after.get(stage):
            names = [_name(output, stage, one.get(stage)) for one in (before, after)]
            yield f"{stage} {names[0]} -> {names[1]}"


def _name(output: Path, stage: str, fingerprint: str | None) -> str:
    if fingerprint is None:
        return "none"
    version = versions.find(output, stage, fingerprint)
    return version.name if version else f"{fingerprint[:8]} (deleted)"
