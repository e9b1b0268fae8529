"""Rows of other files mixed into an export by weight: a share of what comes out, drawn by seed and content, none twice.

What others hold out for a test stays out, and so does a row that the export has itself. A prompt that the export's source has,
too, goes where that one goes, whatever id either of them has.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import orjson

from cai_cli import chance
from cai_cli.engine import versions
from cai_cli.engine.files import File, find_files, read_file
from cai_cli.engine.formats import Line
from cai_cli.engine.shards import Made
from cai_cli.errors import Exit, Fix, Reject
from cai_cli.exports import Asked, Left
from cai_cli.exports.sft import Conversation, shaped
from cai_cli.records import Rejected, Turn, from_row

_HINT = "write it as in --mix helpful.jsonl:0.3, which makes 30% of the rows come from that file"
_FLAGS = (("refused", True, "refused"), ("truncated", True, "truncated"), ("label", False, "undesirable"))  # KTO has labels
_ROLES = ("system", "user", "assistant")
# Files by these names, in a folder, are a split to test on: as `datasets` finds them, and as exports name them.
_HELD_OUT = re.compile(r"(?:test|testing|eval|evaluation|valid|validation|val|dev)(?:[-_.].*)?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ingredient:
    """Files to mix in, and how much of the result they are to be."""

    path: Path
    share: float  # in (0, 1)

    @property
    def name(self) -> str:
        """What the rows that came from there are marked with."""
        return self.path.name or str(self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surveyed:
    """An ingredient that was read once, and how many of its rows are to be taken."""

    ingredient: Ingredient
    content: str  # SHA-256 of its usable rows
    available: int
    wanted: int
    last: float  # rows whose draw is at most this are taken
    unusable: Counter[str] = field(default_factory=Counter)

    @property
    def taken(self) -> int:
        return min(self.wanted, self.available)

    def document(self) -> dict[str, Any]:
        """As manifests keep it."""
        return {
            "name": self.ingredient.name, "share": self.ingredient.share, "content": self.content, "available": self.available,
            "wanted": self.wanted, "taken": self.taken, "unusable": dict(sorted(self.unusable.items())),
        }  # fmt: skip


@dataclass(slots=True)
class Own:
    """What an export has without what is mixed in. Memory: eight bytes a row, and two ids a prompt."""

    rows: int = 0
    prompts: dict[str, str] = field(default_factory=dict)  # hash of a prompt's turns -> the id that the source gives it
    _marks: set[bytes] = field(default_factory=set)

    def add_prompt(self, turns: Iterable[Turn], prompt_id: str) -> None:
        """A prompt of the source, whether or not the export has a row of it."""
        self.prompts.setdefault(_hash(_asked(turns)), prompt_id)

    def add_row(self, turns: Iterable[Turn]) -> None:
        self.rows += 1
        self._marks.add(_mark(_hash(turns)))

    def has(self, row: Conversation) -> bool:
        return _mark(_hash(row.messages)) in self._marks

    def placed(self, row: Conversation) -> Conversation:
        """The row under the source's id of its prompt, so that it is in the same split."""
        return replace(row, prompt_id=self.prompts.get(_hash(_asked(row.messages[:-1])), row.prompt_id))


def ingredients(texts: Sequence[str]) -> list[Ingredient]:
    """What --mix says, each PATH:WEIGHT. Raises: Fix: no weight, one that is no share, shares that leave nothing, a path twice"""
    found = [_ingredient(text) for text in texts]
    if (total := math.fsum(one.share for one in found)) >= 1:
        raise Fix(f"--mix: the weights add up to {total:g}, which leaves no room for the rows of the export", _HINT)
    names = Counter(one.name for one in found)
    if (twice := next((name for name, count in names.items() if count > 1), None)) is not None:
        raise Fix(f"--mix: '{twice}' is named twice", "give each file one weight, and files of one name other names")
    return found


def _ingredient(text: str) -> Ingredient:
    path, _, weight = text.rpartition(":")
    try:
        share = float(weight)
    except ValueError:
        share = math.nan
    if not path or math.isnan(share):
        raise Fix(f"--mix {text}: there is no weight behind a colon", _HINT)
    if not 0 < share < 1:
        raise Fix(f"--mix {text}: the weight must be above 0 and below 1", _HINT)
    return Ingredient(path=Path(path).expanduser(), share=share)


def survey(found: Sequence[Ingredient], own: Own, seed: int) -> list[Surveyed]:
    """Read every ingredient once, and find out which of its rows are taken.

    Takes: `own`: what the export has without them
    Raises: Fix (exit 65): a file that is not there or cannot be read, or that holds no usable row
    """
    room = 1 - math.fsum(one.share for one in found)
    return [_surveyed(one, round(own.rows * one.share / room), own, seed) for one in found]


def _surveyed(one: Ingredient, wanted: int, own: Own, seed: int) -> Surveyed:
    digest, draws, unusable = hashlib.sha256(), list[float](), Counter[str]()
    for row in _rows(one, own):
        if isinstance(row, Left):
            unusable[row.reason] += 1
            continue
        digest.update(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))
        draws.append(_draw(row, seed))
    if not draws:
        why = f": {', '.join(f'{count:,} {reason}' for reason, count in sorted(unusable.items()))}" if unusable else ""
        known = unusable.keys() <= {"held_out", "in_export", "duplicate"}
        hint = ("name another: what is there is held out for tests, or in this export already" if known
                else "its rows need messages that end with an assistant turn, or a prompt and a completion")  # fmt: skip
        raise Fix(f"--mix: {one.path} holds no row that can be learned{why}", hint, Exit.INPUT)
    last = sorted(draws)[min(wanted, len(draws)) - 1] if wanted else -1.0
    return Surveyed(ingredient=one, content=digest.hexdigest(), available=len(draws), wanted=wanted, last=last, unusable=unusable)


def mixed(one: Surveyed, own: Own, asked: Asked, shards: int) -> Iterator[tuple[int, Made]]:
    """The rows that are taken, in the order of their file, spread evenly over the shards."""
    chosen = (
        row for row in _rows(one.ingredient, own) if isinstance(row, Conversation) and _draw(row, asked.seed) <= one.last
    )  # fmt: skip
    for number, row in enumerate(itertools.islice(chosen, one.taken)):
        yield number * shards // one.taken, Made(rows=[shaped(row, asked.shape)], came_in=1)


def _draw(row: Conversation, seed: int) -> float:
    return chance.unit(seed, "mix", row.id)


# Reading.


def _files(path: Path) -> list[File]:
    """A file, the files of a folder, or those of the newest export `sft` in a folder of exports."""
    for folder in (path / "sft" / "latest", path / "latest", path):
        if (folder / versions.MANIFEST).is_file():
            return [File(file, str(file)) for file in versions.read(folder).files()]
    return find_files(path, str(path))


def _rows(one: Ingredient, own: Own) -> Iterator[Conversation | Left]:
    """Every usable row once; the others as what is wrong with them. Memory: a mark of eight bytes for each row.

    held_out: in a file to test on, of a folder; duplicate: there before; in_export: the export has it already
    """
    seen: set[bytes] = set()
    for file in _files(one.path):
        held_out = file.path != one.path and _HELD_OUT.fullmatch(file.path.name)
        for line in read_file(file, otherwise=".jsonl"):
            row = Left("held_out") if held_out else _read(line, one.name)
            if isinstance(row, Conversation):
                mark = _mark(row.id)
                row = Left("duplicate") if mark in seen else Left("in_export") if own.has(row) else own.placed(row)
                seen.add(mark)
            yield row


def _mark(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=8).digest()


def _read(line: Line | Rejected, name: str) -> Conversation | Left:
    if isinstance(line, Rejected):
        return Left(line.reason)
    try:
        return _conversation(line, name)
    except Reject as reject:
        return Left(reject.reason)


def _conversation(line: Line, name: str) -> Conversation:
    """A row as the export has it. Its id is made from its content: what is there twice is taken once.

    Rejects: missing_column, wrong_type, refused, truncated, undesirable, no_assistant_turn, empty
    """
    row = line.row
    for column, value, reason in _FLAGS:
        if row.get(column) is value:
            raise Reject(reason)
    turns = _all_turns(row)
    if not turns or turns[-1].role != "assistant" or not any(turn.role == "user" for turn in turns):
        raise Reject("no_assistant_turn")
    if not turns[-1].content.strip():
        raise Reject("empty")
    content = _hash(turns)
    given = row.get("prompt_id")
    return Conversation(
        messages=turns, id=f"{name}:{content}", source=name, round=0, kind=_text(row, "kind"),
        prompt_id=given if isinstance(given, str) and given else _hash(_asked(turns[:-1])),
    )  # fmt: skip


def _all_turns(row: Mapping[str, Any]) -> tuple[Turn, ...]:
    """The whole conversation: `messages`, with `response` behind them in samples, or `prompt` and `completion`."""
    if "messages" in row:
        system = _text(row, "system")
        first = (Turn(role="system", content=system),) if system else ()
        return (*first, *_turns(row["messages"], "user"), *(_turns(row["response"], "assistant") if "response" in row else ()))
    if "prompt" in row and "completion" in row:
        return (*_turns(row["prompt"], "user"), *_turns(row["completion"], "assistant"))
    raise Reject("missing_column")


def _turns(value: Any, role: str) -> tuple[Turn, ...]:
    if isinstance(value, str):
        return (Turn(role=role, content=value),)
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise Reject("wrong_type")
    turns = tuple(from_row(Turn, item) for item in value)
    if any(turn.role not in _ROLES for turn in turns):
        raise Reject("wrong_type")
    return turns


def _asked(turns: Iterable[Turn]) -> Iterator[Turn]:
    """What a prompt's id is made of: the system turn is not the prompt's."""
    return (turn for turn in turns if turn.role != "system")


def _hash(turns: Iterable[Turn]) -> str:
    """As prompts get their id: one prompt is in the same split wherever it comes from."""
    content = [{"content": turn.content, "role": turn.role} for turn in turns]
    return hashlib.sha256(orjson.dumps(content)).hexdigest()[:16]


def _text(row: Mapping[str, Any], name: str) -> str:
    value = row.get(name)
    return value if isinstance(value, str) else ""
