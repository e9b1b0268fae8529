"""Input rows: prompts, pairs that somebody else made, and rows that a stage wrote.

Every reader is a generator that can be called again and then gives the same; each row comes out once, accepted or Rejected.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar, cast

import orjson

from cai_cli import chance
from cai_cli.engine import shapes, shards
from cai_cli.engine.files import find_files, header_hint, read_file, shown
from cai_cli.engine.formats import Line, Rows
from cai_cli.errors import Exit, Fatal, Fix, Reject
from cai_cli.records import Chain, Pair, Prompt, Rejected, Sample, from_row
from cai_cli.settings import PromptsSection

R = TypeVar("R")
SHOWN = 10  # ids that clash, in a message


def read_prompts(settings: PromptsSection, folder: Path, seed: int) -> Iterator[Prompt | Rejected]:
    """Read prompts from a file, a folder of files, or a dataset.

    Takes: the config's `prompts`, the folder that its path is relative to, the config's seed (it shuffles)
    Gives: prompts in input order, or shuffled, at most `limit` of them; and what was rejected on the way
    Raises: Fix (exit 65): no file, no rows, a damaged file, ids that clash, a named column that no row has
    """

    column, kind_of, keep = settings.column, settings.kind, settings.keep  # a look-up in a model of pydantic's takes its time
    plain = kind_of in shapes.KINDS and not keep

    def build(line: Line, ids: _Ids) -> Prompt:
        row = line.row
        messages = shapes.conversation(row, column)
        kind, meta = (kind_of, "{}") if plain else (shapes.kind(row, kind_of), shapes.kept(row, keep))
        return Prompt(id=ids.of_prompt(line, messages), messages=messages, kind=kind, meta=meta)

    return _read(settings, folder, build, lambda prompt: chance.unit(seed, "shuffle", prompt.id))


def read_pairs(settings: PromptsSection, folder: Path, seed: int) -> Iterator[Pair | Rejected]:
    """Read pairs that somebody else made: two responses, or a chosen and a rejected one, with or without votes.

    Takes, gives and raises as `read_prompts` does.
    """
    return _read(settings, folder, pair_builder(settings, seed), lambda pair: chance.unit(seed, "shuffle", pair.prompt_id))


def pair_builder(settings: PromptsSection, seed: int) -> Callable[[Line, Ids], Pair]:
    """What makes a pair of a line, and names it. The side of a chosen one is drawn by seed and id: it tells a labeler nothing."""

    def build(line: Line, ids: Ids) -> Pair:
        row = {name: value for name, value in line.row.items() if value is not None}
        kind, meta = shapes.kind(row, settings.kind), shapes.kept(row, settings.keep)
        if "votes" in row:
            voted = shapes.voted_pair(row, settings.column)
            pair = ids.of_pair(line, voted) if voted.id else _one_of(voted, ids.of_prompt(line, voted.messages))
            return replace(pair, kind=kind or pair.kind, meta=meta if settings.keep else pair.meta)
        own, prompt_id = shapes.given_id(row, "id"), shapes.given_id(row, "prompt_id")
        named = bool(own and prompt_id)  # then a prompt may have many pairs
        identify = (lambda _: prompt_id) if named else (lambda messages: ids.of_prompt(line, messages))
        pair = shapes.given_pair(row, settings.column, seed, settings.gold, identify)
        if named:
            pair = ids.of_pair(line, replace(pair, id=own))
        elif not (own or prompt_id):
            pair = _one_of(pair, pair.prompt_id)
        return replace(pair, kind=kind or shapes.text(row, "kind"), meta=meta)

    return build


def _one_of(pair: Pair, name: str) -> Pair:
    """A pair of a prompt that may have others, which were written down with it: equal messages are one prompt.

    Takes: `name`: what is made of the messages, with an ordinal where they came before
    Gives: the pair under the prompt's id without the ordinal; its own id has the numbers of its two responses in its place
    """
    prompt_id = shards.content_id(name)
    first = 2 * max(0, int(name[len(prompt_id) + 1 :] or 0) - 1)
    return replace(pair, id=f"{prompt_id}-{first}-{first + 1}", prompt_id=prompt_id)


def read_rows(shape: type[R], paths: Iterable[Path]) -> Iterator[R | Rejected]:
    """Read rows that a stage wrote, ours or another's: Sample, Chain, Pair.

    A sample with rounds behind it is a Chain, also where samples are asked for; one without begins where chains are.
    Raises: Fix (exit 65): no file, a damaged file, or files without any row
    """
    empty, first = True, ""
    for path in paths:
        for file in find_files(path, str(path)):
            first = first or file.name
            for line in read_file(file, otherwise=".jsonl"):
                if empty and isinstance(line, Line):
                    _check_kind(shape, line, file.name)
                empty = False
                yield line if isinstance(line, Rejected) else _record(shape, line)
    if empty and first:
        raise _no_rows(first)


def _check_kind(shape: type[Any], line: Line, name: str) -> None:
    """Refuse a file whose first row is of another stage: what is true of it is true of all, and none would be of use."""
    there = "" if "votes" in line.row else " (prompts become samples by: cai generate CONFIG -i FILE)"
    if shape in (Sample, Chain) and "response" not in line.row:
        what = f"{name}: these rows have no 'response', which critique, revise and label-pairs read"
        raise Fix(what, f"give rows that `cai generate CONFIG -o -` writes{there}", Exit.INPUT)


def check_kind(stage: str, path: Path, closes_rounds: bool) -> None:
    """Refuse rows that a stage would read and do nothing with: revise without an open round, debias without a vote.

    Takes: a stage's name, what -i names, whether the stage works on open rounds only   Raises: Fix (exit 65)
    """
    if not closes_rounds and stage != "debias":
        return
    rows = (line.row for file in find_files(path, str(path)) for line in read_file(file) if isinstance(line, Line))
    first = next(rows, None)
    if stage == "debias" and first is not None and "votes" not in first:
        what = f"{shown(str(path))}: these rows have no 'votes', which cai debias reads"
        raise Fix(what, "make them: cai label-pairs CONFIG -i FILE -o - > votes.jsonl", Exit.INPUT)
    if closes_rounds and first and "response" in first and not any(_is_open(row) for row in itertools.chain([first], rows)):
        raise Fix(
            f"{shown(str(path))}: no row has an open round, which revise closes",
            "run `cai critique` on these rows first",
            Exit.INPUT,
        )


def _is_open(row: dict[str, Any]) -> bool:
    """Whether this may be a chain with an open round; what is no chain at all is for the reader to reject."""
    try:
        return from_row(Chain, row).open_round is not None
    except Reject:
        return False


def _record(shape: type[R], line: Line) -> R | Rejected:
    own: Any = shape
    if shape in (Sample, Chain):
        own = Chain if "rounds" in line.row else Sample
    try:
        row = from_row(own, line.row)
        return cast("R", Chain.begin(row) if shape is Chain and isinstance(row, Sample) else row)
    except Reject as why:
        return reject_line(line, why)


def reject_line(line: Line, why: Reject) -> Rejected:
    """A line that could not be used, under the ids that it has."""
    names = (line.row.get(column) for column in ("id", "prompt_id"))
    own, prompt = (str(name) if type(name) in (str, int) else "" for name in names)
    return line.rejected(why, own or prompt, prompt or own)


class OfPrompt(Protocol):
    @property
    def prompt_id(self) -> str: ...


P = TypeVar("P", bound=OfPrompt)


class Gathered(Generic[P]):
    """Rows by prompt, of an input where the rows of a prompt may stand apart. Each call reads it again, and gives the same.

    Prompts whose rows stand together come in the order of the input, the others after them. Memory: a mark a prompt, and the
    rows that stand apart. Rejected rows come as they are met.
    """

    def __init__(self, read: Callable[[], Iterable[P | Rejected]]) -> None:
        self._read = read
        self._apart: set[int] | None = None  # marks of the prompts whose rows do; None: not looked for yet

    def __call__(self) -> Iterator[list[P] | Rejected]:
        if self._apart is None:
            self._apart = _standing_apart(self._read())
        held: dict[str, list[P]] = {}
        for group in group_by_prompt(self._read()):
            if isinstance(group, Rejected) or not self._apart or hash(group[0].prompt_id) not in self._apart:
                yield group
            else:
                held.setdefault(group[0].prompt_id, []).extend(group)
        yield from held.values()


def _standing_apart(rows: Iterable[OfPrompt | Rejected]) -> set[int]:
    seen, apart = set[int](), set[int]()
    for group in group_by_prompt(rows):
        if not isinstance(group, Rejected):
            mark = hash(group[0].prompt_id)
            (apart if mark in seen else seen).add(mark)
    return apart


def id_mark(name: str) -> bytes:
    """Eight bytes that tell one id from another, the same in every process."""
    return hashlib.blake2b(name.encode(), digest_size=8).digest()


def group_by_prompt(rows: Iterable[P | Rejected]) -> Iterator[list[P] | Rejected]:
    """Put rows of one prompt that follow one another into a list. A rejected row passes as it is, and ends no list."""
    group: list[P] = []
    for row in rows:
        if isinstance(row, Rejected):
            yield row
            continue
        if group and row.prompt_id != group[0].prompt_id:
            yield group
            group = []
        group.append(row)
    if group:
        yield group


# One way for prompts and pairs.


def _read(
    settings: PromptsSection, folder: Path, build: Callable[[Line, _Ids], R], place: Callable[[R], float]
) -> Iterator[R | Rejected]:
    """Build every row, put them in the order of their `place` if they are to be shuffled, and stop at the limit."""
    ids = _Ids()
    built = _build_all(settings, folder, build, ids)
    items = _shuffled(built, place) if settings.shuffle else built
    left = settings.limit or -1
    for item in items:
        yield item
        left -= not isinstance(item, Rejected)
        if left == 0:
            break
    ids.check()


def _build_all(settings: PromptsSection, folder: Path, build: Callable[[Line, _Ids], R], ids: _Ids) -> Iterator[R | Rejected]:
    columns, empty = _NamedColumns(settings), True
    for line in _files(settings.path, folder) if settings.path else _dataset(settings, folder):
        empty = False
        if isinstance(line, Rejected):
            yield line
            continue
        if not columns.known:
            columns.see(line.row)
        try:
            yield build(line, ids)
        except Reject as why:
            yield reject_line(line, why)
    if empty:
        raise _no_rows(settings.path or settings.dataset or "")
    columns.check()


def _shuffled(items: Iterable[R | Rejected], place: Callable[[Any], float]) -> Iterator[R | Rejected]:
    accepted: list[R] = []
    for item in items:
        if isinstance(item, Rejected):
            yield item
        else:
            accepted.append(item)
    yield from sorted(accepted, key=place)


def _no_rows(name: str) -> Fix:
    return Fix(f"{shown(name)} holds no rows", "nothing was asked; check what should have written it", Exit.INPUT)


def _files(path: str, folder: Path) -> Rows:
    for file in find_files(folder / Path(path).expanduser(), path):
        yield from read_file(file)


def _dataset(settings: PromptsSection, folder: Path) -> Rows:
    """The rows of a `datasets` name, or of a folder relative to the config, streamed."""
    if not settings.dataset:
        raise Fix("prompts: neither path nor dataset is set", "set prompts.path, or give -i FILE", Exit.INPUT)
    _refuse_homeless(settings.dataset)
    import datasets

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # it says of every retry what we say once, at the end
    name = settings.dataset
    source = str(folder / name) if (folder / name).is_dir() else name
    try:
        rows = datasets.load_dataset(source, settings.config, data_dir=settings.data_dir, split=settings.split, streaming=True)
        for number, row in enumerate(rows, start=1):
            yield Line(where=f"{name}:{number}", row=row)
    except (FileNotFoundError, ValueError, datasets.exceptions.DatasetsError) as error:
        raise Fix(
            f"the dataset '{name}' cannot be read: {error}", "check its name, prompts.config and prompts.split", Exit.INPUT
        ) from error
    except OSError as error:
        raise Fatal(
            f"the dataset '{name}' cannot be reached: {error}", "try again, or download it first", Exit.UNREACHABLE
        ) from error


def _refuse_homeless(name: str) -> None:
    """`datasets` would make its cache in a folder named ~, wherever we happen to be. Raises: Fix"""
    homeless = os.path.expanduser("~") == "~"  # noqa: PTH111 - as they look for it; pathlib raises
    if homeless and not {"HF_HOME", "XDG_CACHE_HOME"} & os.environ.keys():
        raise Fix(f"the dataset '{name}' needs a cache, and this user has no home folder to keep it in",
                  "export HF_HOME=/a/folder/of/its/own")  # fmt: skip


class _NamedColumns:
    """The columns that the config names; one that no row has is a slip of the config, not of the rows."""

    def __init__(self, settings: PromptsSection) -> None:
        kind = () if settings.kind in shapes.KINDS else (settings.kind,)
        self.name = shown(settings.path or settings.dataset or "")
        self.asked_for: dict[str | None, str] = {settings.column: "column", **dict.fromkeys(kind, "kind")}
        self.missing = dict.fromkeys([*filter(None, [settings.column]), *kind, *settings.keep])
        self.there: list[str] = []  # the first row's columns
        self.known = False  # whether all that is to be known of them is

    def see(self, row: dict[str, Any]) -> None:
        self.there = self.there or list(row)
        for name in [name for name in self.missing if name in row]:
            del self.missing[name]
        self.known = not self.missing

    def check(self) -> None:
        if not self.missing or not self.there:
            return
        problems = [(f"{self.name}: {shapes.missing(name, self.there)}", self._hint(name)) for name in self.missing]
        raise Fix(*problems[0], Exit.INPUT, tuple(problems))

    def _hint(self, name: str) -> str:
        key = self.asked_for.get(name, "keep")
        value = "[NAME, ...]" if key == "keep" else "NAME"
        also = ", or --set prompts.kind=harmful for all rows" if key == "kind" else ""
        return f"{header_hint(self.name)}name one that is there: --set prompts.{key}={value}{also}"


class Ids(Protocol):
    """Names rows."""

    def of_prompt(self, line: Line, messages: shapes.Turns) -> str: ...
    def of_pair(self, line: Line, pair: Pair) -> Pair: ...


class _Ids:
    """Names rows: the given id, else a hash of the content, with an ordinal for repeats."""

    def __init__(self) -> None:
        self.taken: set[int] = set()  # Python's own hashes, of 64 bits: an eighth of the time that our own would take
        self.repeats: dict[str, int] = {}
        self.clashes: list[str] = []

    def of_prompt(self, line: Line, messages: shapes.Turns) -> str:
        row = line.row
        given = shapes.given_id(row, "prompt_id", "id") if "id" in row or "prompt_id" in row else ""
        return self._given(given, line.where) if given else self._made(messages)

    def of_pair(self, line: Line, pair: Pair) -> Pair:
        """The pair under its own id: a prompt may have many pairs."""
        return replace(pair, id=self._given(pair.id, line.where))

    def _given(self, name: str, where: str) -> str:
        if not self._take(name) and len(self.clashes) < SHOWN:
            self.clashes.append(f"'{name}' again at {where}")
        return name

    def _made(self, messages: shapes.Turns) -> str:
        content = [{"content": turn.content, "role": turn.role} for turn in messages]
        made = name = hashlib.sha256(orjson.dumps(content)).digest()[:8].hex()
        while not self._take(name):
            self.repeats[made] = self.repeats.get(made, 1) + 1
            name = f"{made}-{self.repeats[made]}"
        return name

    def _take(self, name: str) -> bool:
        mark = hash(name)
        free = mark not in self.taken
        self.taken.add(mark)
        return free

    def check(self) -> None:
        if self.clashes:
            raise Fix(
                f"ids must be unique, but these repeat: {', '.join(self.clashes)}",
                "give each row its own id, or drop the id column: ids are then made from the content",
                Exit.INPUT,
            )
