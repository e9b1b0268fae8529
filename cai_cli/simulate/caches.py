"""Prompt caching as the Messages API has it: what stands before a mark is kept, and where it comes again it is read.

It is found by its hash, which takes the model and the schema in. It lives for five minutes or an hour after its last use, and
nobody finds it before the first answer to a question with it has begun. Source: the API's documentation of prompt caching.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from cai_cli.caching import CHARACTERS_PER_TOKEN, minimum_of
from cai_cli.flow import Model, Request
from cai_cli.providers.simulated import Answer, tokens_in
from cai_cli.simulate.wire import BadRequest, Body

MOST_MARKS = 4
LOOKED_BACK = 20  # blocks before a mark in which an older entry is looked for
LIFETIMES_S = {"5m": 300.0, "1h": 3600.0}
_TIDY = 4096  # entries from which on dead ones are swept out


@dataclass(frozen=True, slots=True)
class Part:
    """One block of a question. `lifetime`: how long what ends here is to be kept, 5m or 1h; empty: it has no mark."""

    role: str
    text: str
    lifetime: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Bill:
    """The input tokens of a question, by what they cost; `keeps`: (hash, lifetime in seconds) of what its answer makes known."""

    fresh: int
    read: int = 0
    written: int = 0  # for five minutes
    written_1h: int = 0
    keeps: tuple[tuple[str, float], ...] = ()

    def put_into(self, answer: Answer) -> Answer:
        """The answer with these counts."""
        reply = replace(
            answer.reply, tokens_in=self.fresh, tokens_cache_read=self.read, tokens_cache_write=self.written + self.written_1h,
            tokens_cache_write_1h=self.written_1h,
        )  # fmt: skip
        return replace(answer, reply=reply)


class Caches:
    """What the server keeps, by hash."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.clock = clock
        self._ends: dict[str, tuple[float, float]] = {}  # hash: (when it is forgotten, its lifetime), in seconds

    def bill(self, request: Request, parts: Sequence[Part]) -> Bill:
        """What a question costs now: what is known of it is read, and lives on; the rest up to its last mark is written.

        Takes: its parts, as `parts_of` gives them
        """
        whole = tokens_in(request)
        least = minimum_of(Model(provider="anthropic", name=request.model.name))
        is_marked = least is not None and any(part.lifetime for part in parts)
        steps = list(_steps(request, parts, least or 0)) if is_marked else []
        marks = [n for n, step in enumerate(steps) if step.lifetime]
        if not marks:
            return Bill(fresh=whole)
        known = next((n for n in range(marks[-1], -1, -1) if _is_near(n, marks) and self._use(steps[n].digest)), -1)
        read = upto = steps[known].tokens if known >= 0 else 0
        written = dict.fromkeys(LIFETIMES_S, 0)
        for n in (n for n in marks if n > known):
            written[steps[n].lifetime] += steps[n].tokens - upto
            upto = steps[n].tokens
        return Bill(
            fresh=whole - upto, read=read, written=written["5m"], written_1h=written["1h"],
            keeps=tuple((steps[n].digest, LIFETIMES_S[steps[n].lifetime]) for n in marks if n > known),
        )  # fmt: skip

    def keep(self, bill: Bill) -> None:
        """The answer begins: what was written for it can be read from now on."""
        now = self.clock()
        if len(self._ends) > _TIDY:
            self._ends = {digest: end for digest, end in self._ends.items() if end[0] > now}
        self._ends |= {digest: (now + lifetime_s, lifetime_s) for digest, lifetime_s in bill.keeps}

    def _use(self, digest: str) -> bool:
        now = self.clock()
        end_s, lifetime_s = self._ends.get(digest, (0.0, 0.0))
        if end_s <= now:
            return False
        self._ends[digest] = now + lifetime_s, lifetime_s
        return True


@dataclass(frozen=True, slots=True)
class _Step:
    """A question up to the end of one of its parts. `lifetime`: empty where nothing is kept."""

    digest: str
    tokens: int
    lifetime: str


def _steps(request: Request, parts: Sequence[Part], least: int) -> Iterator[_Step]:
    whole = hashlib.sha256(json.dumps([request.model.name, request.schema], sort_keys=True).encode())
    length = 0
    for part in parts:
        whole.update(json.dumps([part.role, part.text]).encode())
        length += len(part.text)
        size = math.ceil(length / CHARACTERS_PER_TOKEN)
        yield _Step(whole.hexdigest(), size, part.lifetime if size >= least else "")


def _is_near(n: int, marks: Sequence[int]) -> bool:
    return any(mark - LOOKED_BACK < n <= mark for mark in marks)


def parts_of(body: Body) -> list[Part]:
    """The blocks of a question that was read already, in the order in which they are cached: the system prompt, then the turns.

    Raises: BadRequest: marks that the API refuses
    """
    turns = [("system", body.get("system") or ""), *((str(turn.get("role")), turn.get("content")) for turn in body["messages"])]
    found = [
        _part(role, block) if isinstance(block, dict) else Part(role, content, "")
        for role, content in turns
        for block in (content if isinstance(content, list) else [content])
    ]
    if (count := sum(bool(part.lifetime) for part in found)) > MOST_MARKS:
        raise BadRequest(f"A maximum of {MOST_MARKS} blocks with cache_control may be provided. Found {count}.", "cache_control")
    return found


def _part(role: str, block: Body) -> Part:
    text, mark = str(block.get("text")), block.get("cache_control")
    if mark is None:
        return Part(role, text, "")
    if not isinstance(mark, dict) or mark.get("type") != "ephemeral" or mark.get("ttl", "5m") not in LIFETIMES_S:
        raise BadRequest("cache_control: Input should be of type ephemeral, with a ttl of 5m or 1h", "cache_control")
    if not text.strip():
        raise BadRequest("cache_control cannot be set for empty text blocks", "cache_control")
    return Part(role, text, mark.get("ttl", "5m"))
