"""What tests of the input share: write bytes to a file, read them as prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cai_cli.engine.inputs import read_prompts
from cai_cli.errors import Exit, Fix
from cai_cli.records import Prompt, Rejected
from cai_cli.settings import PromptsSection


def read(folder: Path, name: str, data: bytes, seed: int = 7, **options: Any) -> list[Prompt | Rejected]:
    (folder / name).write_bytes(data)
    return list(read_prompts(PromptsSection(path=name, **options), folder, seed))


def jsonl(*rows: Any) -> bytes:
    return b"".join(json.dumps(row, ensure_ascii=False).encode() + b"\n" for row in rows)


def texts(rows: list[Prompt | Rejected]) -> list[str]:
    return [row.text if isinstance(row, Prompt) else row.reason for row in rows]


def refused(folder: Path, name: str, data: bytes, **options: Any) -> Fix:
    with pytest.raises(Fix) as caught:
        read(folder, name, data, **options)
    assert caught.value.code == Exit.INPUT
    return caught.value
