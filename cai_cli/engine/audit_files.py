"""What an audit keeps in OUTPUT/audit: samples, what was drawn and why, people's labels, the last score.

    sample-0001.jsonl          what people fill in; nothing in it tells what the AI said
    sample-0001-argilla/       the same for Argilla
    drawn-0001.json            which pairs, how likely each was, and why: not for annotators
    labels.jsonl               what people said, one row a pair and person
    score.json                 the last score, and the version of the labels that it is about

Labels are replaced wholly or not at all; samples are numbered, and never written over.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson

from cai_cli.auditing.drawing import Design, Drawn
from cai_cli.auditing.labels import Gold, Label, gold_of
from cai_cli.engine.disk import write_durably
from cai_cli.errors import Exit, Fix, Reject
from cai_cli.records import from_row

FOLDER, LABELS, SCORE = "audit", "labels.jsonl", "score.json"
_NUMBERED = re.compile(r"(?:sample|drawn)-(\d{4,})\b.*")
_OPTIONS = orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE


def folder_of(output: Path) -> Path:
    """Where an output's audit lies."""
    return output / FOLDER


def next_number(output: Path) -> int:
    """Of the next sample: above that of every file that is there, so that none is written over."""
    folder = folder_of(output)
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return max((int(match[1]) for name in names if (match := _NUMBERED.fullmatch(name))), default=0) + 1


def read_designs(output: Path) -> list[Design]:
    """Every sample of an output, in the order of their numbers. Raises: Fix (exit 65): one cannot be read"""
    paths = sorted(folder_of(output).glob("drawn-*.json"))
    return sorted((_design(path) for path in paths), key=lambda design: design.number)


def _design(path: Path) -> Design:
    try:
        found = orjson.loads(path.read_bytes())
        rows = tuple(Drawn(**{**row, "why": tuple(row["why"])}) for row in found.pop("drawn"))
        scale = found.pop("scale")
        return Design(**found, scale=math.inf if scale is None else float(scale), drawn=rows)
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        what = f"{path} cannot be read: it says how likely each pair was to be drawn"
        raise Fix(what, "bring it back as `cai audit sample` wrote it: without it labels have no weights", Exit.INPUT) from error


def write_design(output: Path, design: Design) -> Path:
    """Keep what was drawn, for `score`."""
    path = folder_of(output) / f"drawn-{design.number:04d}.json"
    document = asdict(design) | {"scale": None if math.isinf(design.scale) else design.scale}
    write_durably(path, orjson.dumps(document, option=_OPTIONS))
    return path


def read_labels(output: Path) -> list[Label]:
    """What people said until now. Raises: Fix (exit 65): the file was changed"""
    path = folder_of(output) / LABELS
    if not path.exists():
        return []
    found = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            found.append(from_row(Label, orjson.loads(line)))
        except (orjson.JSONDecodeError, Reject, TypeError) as error:
            what = f"{path}:{number}: this is no label that cai wrote"
            raise Fix(what, "mend the line; or move the file away and score the filled samples again", Exit.INPUT) from error
    return found


def write_labels(output: Path, labels: Iterable[Label]) -> Path:
    """Replace the labels, wholly or not at all; in the order of their pairs."""
    folder = folder_of(output)
    folder.mkdir(parents=True, exist_ok=True)
    rows = sorted(labels, key=lambda one: (one.prompt_id, one.id, one.annotator))
    data = b"".join(orjson.dumps(asdict(one), option=orjson.OPT_APPEND_NEWLINE) for one in rows)
    if not (folder / LABELS).exists() or (folder / LABELS).read_bytes() != data:
        write_durably(folder / LABELS, data)
    return folder / LABELS


def read_score(output: Path) -> dict[str, Any] | None:
    """The last score; None: there is none, or it cannot be read."""
    try:
        found = orjson.loads((folder_of(output) / SCORE).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return found if isinstance(found, dict) else None


def write_score(output: Path, document: dict[str, Any]) -> None:
    """Keep the last score: `cai export` looks at it."""
    write_durably(folder_of(output) / SCORE, orjson.dumps(document, option=_OPTIONS))


def read_gold(output: Path) -> tuple[dict[str, Gold], str]:
    """What people said of pairs, by the pair's id, and a digest of it; empty where nobody said anything.

    `auditing.labels.with_gold` puts it into a pair. The digest changes with labels and with what was drawn, with nothing else.
    Raises: Fix (exit 65): a file of the audit cannot be read
    """
    labels = read_labels(output)
    if not labels:
        return {}, ""
    gold = gold_of(labels, read_designs(output))
    parts: Sequence[Any] = [[name, one.label, round(one.weight, 9), one.content] for name, one in sorted(gold.items())]
    return gold, hashlib.sha256(orjson.dumps(parts)).hexdigest() if gold else ""
