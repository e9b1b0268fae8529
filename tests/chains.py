"""Rows of critique and revise made by hand, for tests of what is counted in them, and sections of what was found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from outside import Cai, questions, write_config, write_rows

from cai_cli.analyses import Analysis, Number


def found(principle: str, severity: float | None, category: str = "harmlessness", **more: Any) -> dict[str, Any]:
    """A critique, as a row holds it."""
    needs = severity is None or severity > 0.3
    return {"principle": principle, "category": category, "critique": "-", "severity": severity, "needs_revision": needs} | more


def taken(critiques: list[dict[str, Any]], revision: str = "", accepted: bool | None = None, **scores: float) -> dict[str, Any]:
    """A round. `accepted`: by default whether there is a revision"""
    severities = [one["severity"] for one in critiques if one["severity"] is not None]
    return {
        "critiques": critiques, "severity": max(severities, default=None), "revision": revision,
        "accepted": bool(revision) if accepted is None else accepted,
        "scores": [{"criterion": name, "score": score} for name, score in scores.items()],
    }  # fmt: skip


def chain(name: str, first: str, *rounds: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A row of revise, with its current response."""
    last = next((one["revision"] for one in reversed(rounds) if one["accepted"] and one["revision"]), first)
    row = {"id": name, "prompt_id": name.partition(".")[0], "kind": "harmful", "initial_response": first, "response": last}
    return row | {"stopped_by": "rounds", "rounds": list(rounds)} | more


def table(analysis: Analysis, section: str, key: str) -> dict[Any, dict[str, Any]]:
    """The rows of a section, by one of their cells."""
    (found_one,) = [one for one in analysis.sections if one.name == section]
    return {row[key]: dict(row) for row in found_one.rows}


def values(row: dict[str, Any]) -> dict[str, Any]:
    """A row with its numbers alone, without their intervals."""
    return {name: cell.value if isinstance(cell, Number) else cell for name, cell in row.items()}


def made(folder: Path, cai: Cai, **sections: Any) -> Path:
    """A config that has run, on harmful and harmless prompts. Gives: its path"""
    rows = [row | {"kind": ("harmful", "harmless")[at % 2]} for at, row in enumerate(questions(24))]
    write_rows(folder / "prompts.jsonl", rows)
    config = write_config(folder, prompts={"path": "prompts.jsonl", "kind": "kind"}, **sections)
    code, _, err = cai("run", config.name, "-q")
    assert code == 0, err
    return config


def said(cai: Cai, *args: object) -> dict[str, Any]:
    """What `cai analyze ARGS --json` says, with the rows of each section."""
    code, out, err = cai("analyze", *args, "--json")
    assert code == 0, err
    document = json.loads(out)
    return document | {name: one["rows"] for name, one in document["sections"].items()}
