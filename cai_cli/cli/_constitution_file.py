"""Where a constitution that the command line names is: one rule for all verbs."""

from __future__ import annotations

from pathlib import Path

from cai_cli.errors import Fix
from cai_cli.shipped import shipped
from cai_cli.validation import near


def find(name: str) -> Path:
    """A file, or else a shipped constitution by its name, such as general. Raises: Fix, with a near miss"""
    path, folder = Path(name), shipped("configs", "constitutions")
    if path.is_file():
        return path
    names = sorted(file.stem for file in folder.glob("*.yaml"))
    if name in names:
        return folder / f"{name}.yaml"
    hint = near(path.stem, names)
    if not hint.startswith("did"):
        hint = f"give a YAML file, or one of those that ship with cai: {', '.join(names)}"
    raise Fix(f"there is no constitution '{name}'", hint)
