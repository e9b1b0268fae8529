"""A file that somebody brings: what is in it, and which of its columns a config has to name."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cai_cli.engine import shapes
from cai_cli.engine.advice.inputs import MOST_ROWS, Seen, seen_in
from cai_cli.engine.files import find_files, read_file
from cai_cli.engine.formats import Line
from cai_cli.errors import Exit, Fix
from cai_cli.reports.quantities import counted, reasons
from cai_cli.settings import PromptsSection
from cai_cli.validation import near

FIRST = 200  # rows that columns are told by
KINDS = frozenset({"harmful", "harmless"})
# What people call the column of their prompts, the likeliest first.
USUAL = (
    "prompt",
    "question",
    "instruction",
    "query",
    "user_prompt",
    "user",
    "request",
    "input",
    "text",
    "content",
    "problem",
    "task",
)
Rows = Sequence[Mapping[str, Any]]


class Unfit(Fix):
    """A file that is not what it was said to be. `answer`: what to answer instead, where it was named in answer to a question"""

    code = Exit.INPUT

    def __init__(self, message: str, hint: str, answer: str) -> None:
        super().__init__(message, hint)
        self.answer = answer


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A file of prompts or pairs. `column`, `kind`: what a config has to say of it; empty: nothing."""

    path: Path
    column: str
    kind: str
    columns: tuple[str, ...]
    seen: Seen
    pairs: bool = False
    has_votes: bool = False
    is_ranked: bool = False  # chosen and rejected, not response_a and response_b

    def in_words(self) -> str:
        """What was found: 1,200 prompts in the column 'question', 400 harmful, 800 harmless."""
        more = "" if self.seen.whole else " or more"
        what = counted(self.seen.rows, "pair" if self.pairs else "prompt") + more
        parts = [what + (f" in the column '{self.column}'" if self.column else "")]
        if self.has_votes:
            parts.append("with votes")
        if self.kind:
            parts.append(", ".join(f"{number:,} {kind}" for kind, number in self.seen.kinds.most_common() if kind))
        if lost := self.seen.rejected.total():
            parts.append(f"{counted(lost, 'row')} that cannot be used ({reasons(self.seen.rejected)})")
        return ", ".join(parts)


def look(path: Path, pairs: bool, column: str = "") -> Given:
    """Read the beginning of a file for its columns, and up to 20,000 rows as a run would.

    Raises: Fix (exit 65): no such file, no row that can be used, or nothing tells which column holds the prompts
    """
    rows = _first(path)
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    if column and column not in columns:
        raise Fix(f"{path}: there is no column '{column}'", near(column, columns), Exit.INPUT)
    if pairs:
        _check_pairs(path, columns)
    found = column or _column(path, rows, columns, pairs)
    kind = next((name for name in columns if _is_kind(rows, name)), "")
    seen = seen_in(PromptsSection(path=str(path), column=found or None, kind=kind), given=pairs)
    if seen.problems:
        raise Fix(*seen.problems[0], Exit.INPUT, seen.problems)
    if not seen.rows:
        hint = "see what a row must be: cai help rows, or the README"
        raise Fix(f"{path}: none of {MOST_ROWS if not seen.whole else seen.rejected.total():,} rows can be used: "
                  f"{reasons(seen.rejected)}", hint, Exit.INPUT)  # fmt: skip
    return Given(
        path=path, column=found, kind=kind, columns=columns, seen=seen, pairs=pairs, has_votes=pairs and "votes" in columns,
        is_ranked=pairs and "response_a" not in columns,
    )  # fmt: skip


def _first(path: Path) -> Rows:
    lines = (line for file in find_files(path, str(path)) for line in read_file(file))
    rows = [line.row for line in itertools.islice(lines, FIRST) if isinstance(line, Line)]
    if not rows:
        hint = "JSONL, JSON, CSV, Parquet or plain text, one prompt a line, is read"
        raise Fix(f"{path}: no row among the first {FIRST} can be read", hint, Exit.INPUT)
    return rows


def _check_pairs(path: Path, columns: Sequence[str]) -> None:
    wanted = (("response_a", "response_b"), ("chosen", "rejected"))
    if not any(set(names) <= set(columns) for names in wanted):
        what = f"{path}: pairs are response_a and response_b, or chosen and rejected (columns: {', '.join(columns[:20])})"
        answer = "name another file, or press Ctrl-C and begin again with prompts of your own"
        raise Unfit(what, "rename the columns; or, if these are prompts: --prompts FILE", answer)


def _column(path: Path, rows: Rows, columns: Sequence[str], pairs: bool) -> str:
    """The column of the prompts, where it must be named: a reader finds `messages`, `prompt` and transcripts by itself."""
    if any(_is_found(row, pairs) for row in rows):
        return ""
    texts = [name for name in columns if _all(rows, name, str) and not _is_kind(rows, name)]
    talks = [name for name in columns if _all(rows, name, list) and _is_talk(rows[0].get(name))]
    by_name = {name.lower(): name for name in (*texts, *talks)}
    usual = [by_name[name] for name in USUAL if name in by_name]
    answers = ("id", "prompt_id", "chosen", "rejected", "response_a", "response_b", "source", "topic", "gold", "votes")
    left = [name for name in (*talks, *texts) if name.lower() not in answers]
    if usual or len(left) == 1:
        return (usual or left)[0]
    one = f"one of {', '.join(left or columns)}"
    answer = f"type its name behind the file's: {path}#COLUMN, {one}"
    raise Unfit(f"{path}: nothing tells which column holds the prompts", f"name it: --column NAME, {one}", answer)


def _is_found(row: Mapping[str, Any], pairs: bool) -> bool:
    """Whether a row's prompt is found without a column's name."""
    talks = pairs and all(isinstance(row.get(name), list) for name in ("chosen", "rejected"))
    return "prompt" in row or isinstance(row.get("messages"), list) or talks or shapes.is_transcript(row)


def _all(rows: Rows, name: str, kind: type) -> bool:
    """Whether a column holds values of one kind, and not only empty ones."""
    values = [row[name] for row in rows if row.get(name) not in (None, "")]
    return bool(values) and all(isinstance(value, kind) for value in values)


def _is_talk(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "role" in value[0]


def _is_kind(rows: Rows, name: str) -> bool:
    values = {row.get(name) for row in rows if isinstance(row.get(name), str | None)} - {None, ""}
    return bool(values) and values <= KINDS and all(isinstance(row.get(name), str | None) for row in rows)
