"""Where the files that ship with the package lie: configs/ and prompts/ of the checkout, or their copy in the wheel."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parent


def shipped(*parts: str) -> Path:
    """The path of a shipped file or folder, such as shipped("prompts"). It may not exist."""
    packaged = _PACKAGE / "shipped_files"
    return (packaged if packaged.is_dir() else _PACKAGE.parent).joinpath(*parts)
