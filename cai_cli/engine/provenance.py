"""What a manifest says of how its rows were made, so that a card can tell it when configs, runs and parents are gone.

No text of a row, no path and no address gets in: a manifest travels with its data.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from cai_cli.constitution import Constitution
from cai_cli.engine.versions import Version
from cai_cli.settings import Section

_WORD = re.compile(r"[\w.+-]{1,64}")
# What a version keeps of each one behind it.
_KEPT = ("stage", "version", "fingerprint", "fingerprints", "parents", "made_with", "prompts", "came_in", "rows", "rejected",
         "filtered", "marks", "replies", "tokens", "models")  # fmt: skip


def made_with(maker: Any) -> dict[str, Any]:
    """Takes: a step of a run, or anything else that makes rows   Gives: its settings and constitution, as plain JSON values"""
    settings, constitution = getattr(maker, "settings", None), getattr(maker, "constitution", None)
    return {
        "settings": _settings(settings) if isinstance(settings, Section) else {},
        "constitution": _constitution(constitution) if constitution is not None else None,
    }


def history(parents: Iterable[Version]) -> list[dict[str, Any]]:
    """What is known of all versions behind one, the oldest first.

    Takes: the versions that it is made from   Gives: their facts and those of all before them, each version once
    """
    found: dict[str, dict[str, Any]] = {}
    for parent in parents:
        for one in (*parent.manifest.get("history", ()), parent.manifest):
            found.setdefault(str(one["fingerprint"]), {name: one[name] for name in _KEPT if name in one})
    return list(found.values())


def _settings(section: Section) -> dict[str, Any]:
    """Settings without models, and with numbers for texts: words stay, a file is its name, a list of texts is its length."""
    told = {name: _told(getattr(section, name)) for name in type(section).model_fields if name != "model"}
    return {name: value for name, value in told.items() if value is not None}


def _told(value: Any) -> Any:
    if isinstance(value, Section):
        return str(value.name) if hasattr(value, "name") else _settings(value)
    if isinstance(value, Mapping):
        return {name: item for name, item in value.items() if _WORD.fullmatch(str(name)) and isinstance(item, int | float)}
    if isinstance(value, str):
        name = value.replace("\\", "/").rpartition("/")[2]
        return name if _WORD.fullmatch(name) else None
    if isinstance(value, list | tuple):
        named = all(isinstance(item, int | float) or hasattr(item, "name") for item in value)
        return [_told(item) for item in value] if named else len(value)
    return value


def _constitution(constitution: Constitution) -> dict[str, Any]:
    parts = {"principles": constitution.principles, "preferences": constitution.preferences}
    return {
        "name": constitution.name, "version": constitution.version,
        **{name: len(entries) for name, entries in parts.items()},
        "categories": {name: _categories(entries) for name, entries in parts.items()},
    }  # fmt: skip


def _categories(entries: Iterable[Any]) -> dict[str, dict[str, float]]:
    """How many entries a category has, and its share of the weight, in [0, 1]."""
    weights: dict[str, list[float]] = {}
    for entry in entries:
        weights.setdefault(entry.category, []).append(entry.weight)
    whole = sum(map(sum, weights.values())) or 1.0
    return {name: {"count": len(one), "share": round(sum(one) / whole, 4)} for name, one in sorted(weights.items())}
