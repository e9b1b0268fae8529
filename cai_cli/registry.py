"""Parts that are found, not listed: a module in a folder of ours, or one that another package names by entry point."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Any


def _own(path: Iterable[str]) -> set[str]:
    return {module.name for module in pkgutil.iter_modules(path) if not module.name.startswith("_")}


def names(package: str, path: Iterable[str]) -> list[str]:
    """Every part that can be asked for, in the order of the alphabet.

    Takes: `package`: cai_cli.exports, whose entry point group is cai.exports; `path`: its __path__
    """
    return sorted({*_own(path), *(point.name for point in entry_points(group=_group(package)))})


def find(package: str, path: Iterable[str], name: str) -> Any:
    """The module of that name; ours goes before another package's. Gives: None where there is none"""
    if name in _own(path):
        return importlib.import_module(f"{package}.{name}")
    points = entry_points(group=_group(package), name=name)
    return next(iter(points)).load() if points else None


def _group(package: str) -> str:
    return package.replace("cai_cli", "cai", 1)
