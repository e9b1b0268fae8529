"""What was asked again by hand: which questions of which rows got a new attempt. One small file beside an output's versions.

A retried question is put with a later attempt number, so it has a key of its own in the ledger. The reply that it supersedes
stays there under the old key, for whoever looks back, and no other output that shares the ledger sees a change. What the file
says of a stage is part of that stage's fingerprint: a retry is a new version, and the file's loss brings the old one back. It
says it for configs that ask the same of this stage and of those before it; to another config of the output it says nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import orjson

from cai_cli.config import Config
from cai_cli.engine import plan
from cai_cli.engine.disk import write_durably
from cai_cli.engine.ledger import key_of
from cai_cli.engine.program import MadeBy
from cai_cli.engine.rows import Program
from cai_cli.engine.versions import fingerprint
from cai_cli.errors import Exit, Fix
from cai_cli.flow import Flow, Request

FILE = "retries.json"
SCHEMA = 1
STRIDE = 1_000  # attempts between two retries of a question: a stage makes far fewer by itself

Place = tuple[str, str, str]  # stage, row, key


@dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """One question that is asked again. `key`: of the question as its stage puts it, in hexadecimal."""

    stage: str
    row: str  # on whose behalf it is asked
    key: str
    times: int  # how often it was retried, with this one: from 1
    max_tokens: int | None = None  # of the reply, at least; None: what the config says
    id: str = ""  # the row that was rejected, or kept with a flag
    reason: str = ""  # why it was retried

    @property
    def place(self) -> Place:
        return self.stage, self.row, self.key


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one `cai retry` asked again. `at`: seconds since 1970. `origins`: of its stages, see `origins_of`. `ended`: whether
    all that it makes is there"""

    at: float
    command: str
    questions: tuple[Again, ...]
    origins: Mapping[str, str]
    ended: bool = False

    @property
    def stages(self) -> set[str]:
        return {one.stage for one in self.questions}

    def within(self, origins: Mapping[str, str]) -> Batch:
        """Those of its questions whose stages still have the same origins."""
        same = {stage for stage, origin in self.origins.items() if origins.get(stage) == origin}
        return replace(self, questions=tuple(one for one in self.questions if one.stage in same))


@dataclass(frozen=True, slots=True, kw_only=True)
class Superseded:
    """A question as it was asked before, and why its reply was set aside. `at`: when, in seconds since 1970"""

    request: Request
    reason: str
    at: float


class Retries:
    """All that was asked again in one output, batch by batch; never changed, only added to."""

    def __init__(self, batches: Sequence[Batch] = ()) -> None:
        self.batches = tuple(batches)
        self._last = {one.place: one for batch in self.batches for one in batch.questions}
        self._rows = {(stage, row) for stage, row, _ in self._last}

    @classmethod
    def of(cls, output: Path) -> Retries:
        """All of an output; none where it has no such file. Raises: Fix: the file is damaged, or of a newer cai"""
        path = path_in(output)
        try:
            document = orjson.loads(path.read_bytes())
            if document["schema"] > SCHEMA:
                raise Fix(f"{path} was written by a newer cai", "pip install --upgrade cai-cli", Exit.INPUT)
            return cls([_batch(one) for one in document["batches"]])
        except FileNotFoundError:
            return cls()
        except (orjson.JSONDecodeError, KeyError, TypeError) as error:
            hint = "move it away: what was retried is then as it was before, and the ledger keeps both replies"
            raise Fix(f"{path} is damaged", hint, Exit.INPUT) from error

    @classmethod
    def of_config(cls, config: Config) -> Retries:
        """Those of its output that concern a config. Raises: Fix: the file is damaged, or a part of the config cannot be used"""
        every = cls.of(config.output_path)
        if not every.batches:
            return every
        origins = origins_of(config)
        return cls([batch for batch in (one.within(origins) for one in every.batches) if batch.questions])

    def first(self, count: int) -> Retries:
        """The state after so many batches."""
        return Retries(self.batches[:count])

    def with_batch(self, batch: Batch) -> Retries:
        return Retries((*self.batches, batch))

    def end(self, config: Config, stages: Collection[str]) -> None:
        """Write down that a run of these stages has made all that the config's retries of them make."""
        if all(batch.ended for batch in self.batches):
            return
        origins, every = origins_of(config), Retries.of(config.output_path)
        ends = [batch.stages <= set(stages) and batch.within(origins) == batch for batch in every.batches]
        pairs = zip(every.batches, ends, strict=True)
        Retries([replace(batch, ended=batch.ended or end) for batch, end in pairs]).save(config.output_path)

    def save(self, output: Path) -> None:
        """Write them, whole or not at all."""
        document = {"schema": SCHEMA, "batches": [asdict(batch) for batch in self.batches]}
        write_durably(path_in(output), orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE), 0o600)

    def digests(self) -> dict[str, str]:
        """By stage: what of its fingerprint comes from here. A stage of which nothing was retried has none."""
        by_stage: dict[str, list[Any]] = {}
        for (stage, row, key), one in sorted(self._last.items()):
            by_stage.setdefault(stage, []).append((row, key, one.times, one.max_tokens))
        return {stage: fingerprint(questions) for stage, questions in by_stage.items()}

    def times(self, request: Request) -> int:
        """How often a question was retried."""
        found = self._found(request)
        return found.times if found else 0

    def asked(self, request: Request) -> Request:
        """A question as it is to be put now: as it is, or with the attempt number and the tokens of its last retry."""
        found = self._found(request)
        return request if found is None else _later(request, found)

    def program(self, program: Program) -> Program:
        """A program whose questions are put as these retries say."""
        return program if not self._rows else lambda rows: self._put(program(rows))

    def _put(self, flow: Flow[MadeBy]) -> Flow[MadeBy]:
        try:
            requests = next(flow)
            while True:
                requests = flow.send((yield tuple(map(self.asked, requests))))
        except StopIteration as end:
            made: MadeBy = end.value
            return made
        finally:
            flow.close()

    def superseded(self, request: Request) -> Iterator[Superseded]:
        """How a question was put before, the oldest first; takes it as its stage puts it."""
        place, now = _place(request), request
        for batch in self.batches:
            for one in (one for one in batch.questions if one.place == place):
                yield Superseded(request=now, reason=one.reason, at=batch.at)
                now = _later(request, one)

    def _found(self, request: Request) -> Again | None:
        # the key costs a hash: only of rows that were retried
        return self._last.get(_place(request)) if (request.stage, request.row) in self._rows else None


def origins_of(config: Config) -> dict[str, str]:
    """By stage, a digest of what its questions come from, but for the input: what it is made of, and all stages before it.

    The input is left out so that what was retried stays so when rows are added to it.
    """
    steps = {name: plan.steps_of(config, [name])[0] for name in plan.sections_of(config) if name not in plan.table_names()}
    parts = {name: step.fingerprints() for name, step in steps.items()}
    behind = {name: {*plan.reads_of(name), step.again} for name, step in steps.items()}
    return {name: fingerprint([(other, parts[other]) for other in _before(name, behind)]) for name in steps}


def _before(stage: str, behind: Mapping[str, set[str]]) -> list[str]:
    """A stage and all that it hangs on."""
    found, waiting = set[str](), [stage]
    while waiting:
        if (name := waiting.pop()) in behind and name not in found:
            found.add(name)
            waiting.extend(behind[name])
    return sorted(found)


def path_in(output: Path) -> Path:
    """Where an output's retries are kept. Beside its versions and not in `state:`, which several outputs may share."""
    return output / ".cai" / FILE


def _place(request: Request) -> Place:
    return request.stage, request.row, key_of(request).hex()


def _later(request: Request, again: Again) -> Request:
    later = replace(request, attempt=request.attempt + STRIDE * again.times)
    if again.max_tokens is None or again.max_tokens <= request.model.max_tokens:
        return later
    return later.with_max_tokens(again.max_tokens)


def _batch(document: Mapping[str, Any]) -> Batch:
    questions: Iterable[Mapping[str, Any]] = document["questions"]
    return Batch(
        at=document["at"], command=document["command"], questions=tuple(Again(**one) for one in questions),
        origins=dict(document["origins"]), ended=bool(document["ended"]),
    )  # fmt: skip
