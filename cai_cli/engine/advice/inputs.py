"""Advice on the prompts, from reading them: kinds, repeats, columns, rows that cannot be used."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cai_cli.config import Config
from cai_cli.engine.advice.json_forms import Forms, blocks, tokens
from cai_cli.engine.advice.look import Advice, Look
from cai_cli.engine.inputs import read_pairs, read_prompts
from cai_cli.errors import Fix
from cai_cli.records import Pair, Prompt, Rejected
from cai_cli.reports.quantities import reasons
from cai_cli.settings import PromptsSection

MOST_ROWS = 20_000  # read at most: about a second
PLAYED = 24  # of them are played through the stages: a quarter of a second, and their median length is near that of all
MOST_MEASURED, MOST_CHARACTERS = 250, 1_000_000  # of them are looked at for JSON: at most a second
KINDS = ("harmful", "harmless")


@dataclass(slots=True, kw_only=True)
class JsonRows:
    """JSON in the first rows: how many were looked at, how many hold some or are nothing else, and their tokens."""

    rows: int = 0
    left: int = MOST_CHARACTERS  # that may still be looked at
    holding: int = 0
    nothing_else: int = 0
    tokens: int = 0  # of all texts, estimated
    forms: Forms = field(default_factory=Forms)  # of the JSON in them

    def see(self, row: Prompt | Pair) -> None:
        """Look at one more row; from a number on, none is."""
        texts = [turn.content for turn in row.messages]
        texts += [row.response_a, row.response_b] if isinstance(row, Pair) else []
        self.left -= sum(map(len, texts))
        if self.rows >= MOST_MEASURED or self.left < 0:
            return
        self.rows += 1
        found = [block for text in texts for block in blocks(text)]
        self.holding += bool(found)
        self.nothing_else += len(found) == 1 and found[0].text == row.messages[-1].content.strip()
        self.tokens += sum(tokens(text) if found else len(text) // 4 for text in texts)
        self.forms = sum((block.forms for block in found), self.forms)


@dataclass(slots=True, kw_only=True)
class Seen:
    """What a file of prompts, or of given pairs, holds. `whole`: whether it was read to its end."""

    rows: int = 0
    repeats: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    whole: bool = True
    problems: tuple[tuple[str, str], ...] = ()  # what a run would stop at
    first: list[Any] = field(default_factory=list)  # rows, as many as are played
    json: JsonRows = field(default_factory=JsonRows)


def read(config: Config, given: bool) -> Seen | None:
    """Read what the config names, as a run would; None: it names no file. `given`: pairs that somebody made"""
    path = config.prompts_path()
    if config.prompts is None or path is None or config.prompts.path == "-":
        return None
    settings = config.prompts.model_copy(update={"path": str(path), "shuffle": False})
    return seen_in(settings, config, given)


def seen_in(settings: PromptsSection, config: Config | None = None, given: bool = False) -> Seen:
    """The same of a `prompts` section whose path was found already."""
    seen, texts = Seen(), set[bytes]()
    rows = (read_pairs if given else read_prompts)(settings, Path(), config.seed if config else 0)
    try:
        for row in itertools.islice(rows, MOST_ROWS):
            if isinstance(row, Rejected):
                seen.rejected[row.reason] += 1
                continue
            seen.rows += 1
            seen.first += [row] * (len(seen.first) < PLAYED)
            seen.json.see(row)
            seen.kinds[row.kind] += 1
            mark = hashlib.blake2b(repr(row.messages).encode("utf-8", "surrogatepass"), digest_size=8).digest()
            seen.repeats += mark in texts
            texts.add(mark)
    except Fix as fix:
        seen.problems = fix.problems
    seen.whole = seen.rows + seen.rejected.total() < MOST_ROWS
    return seen


def advice(look: Look) -> Iterator[Advice]:
    seen = look.seen
    if seen is None:
        return
    for message, hint in seen.problems:
        yield Advice(path=("prompts",), what=message, why="a run would stop there", write=hint)
    read_so_far = "" if seen.whole else f" of the first {MOST_ROWS:,}"
    if (lost := seen.rejected.total()) and not seen.problems:
        rows = seen.rows + lost
        what, why = f"{lost:,} of {rows:,} rows cannot be used", reasons(seen.rejected)
        yield Advice(path=("prompts", "path"), what=what, why=why, write="mend them; a run lists each in _rejects.jsonl")
    if seen.repeats:
        pairs = any(getattr(step.stage, "reads", ("",))[0] == "pairs" for step in look.steps.values())
        what = f"{seen.repeats:,}{read_so_far} prompts stand there more than once"
        write = "take them out, for example with: sort -u"
        if not pairs:  # a prompt may have many pairs
            yield Advice(path=("prompts", "path"), what=what, why="each is answered, paid for and trained on again", write=write)
    yield from _kinds(look, seen)


def _kinds(look: Look, seen: Seen) -> Iterator[Advice]:
    known = {kind: number for kind, number in seen.kinds.items() if kind}
    odd = [kind for kind in known if kind not in KINDS]
    if odd and any(kind.lower().strip() in KINDS for kind in odd):
        why = "reports know harmful and harmless, spelt like this"
        path = ("prompts", "kind")
        yield Advice(
            path=path, what=f"it is '{odd[0][:40]}' in {known[odd[0]]:,} rows", why=why, write="write them in lower case"
        )
    elif "generate" in look.steps and known.get("harmful") and not known.get("harmless"):
        what = f"no harmless prompt among {sum(seen.kinds.values()):,}"
        why = "how often the model refuses what is harmless cannot be measured, and refusals are what it learns"
        write = "add some, with kind: harmless in a column; cai expand writes counterparts"
        yield Advice(path=("prompts", "kind"), what=what, why=why, write=write)
