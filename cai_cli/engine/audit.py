"""`cai audit`: a sample of an output's pairs for people to label, and what their labels say of the AI's."""

from __future__ import annotations

import itertools
import sys
import tempfile
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import orjson

from cai_cli import chance, votes
from cai_cli.auditing import argilla, drawing
from cai_cli.auditing.drawing import Design, Drawn, Judged
from cai_cli.auditing.labels import UNNAMED, Label, merged, newest, read_label
from cai_cli.config import Config
from cai_cli.engine import audit_files as files
from cai_cli.engine import disk, stored, versions
from cai_cli.engine.feed import spool
from cai_cli.engine.files import STDIN, File, find_files, read_file
from cai_cli.engine.formats import Line
from cai_cli.engine.lock import IfLocked, lock_file, locked
from cai_cli.engine.stored import Stored
from cai_cli.engine.versions import Version
from cai_cli.errors import Exit, Fix, Reject
from cai_cli.records import Pair

Format = Literal["jsonl", "argilla"]
SHOWN = 20  # problems of filled files that are told one by one


# The frame: every pair that has a label.


@dataclass(frozen=True, kw_only=True)
class Frame:
    """All pairs that have a label. `labels`: the version whose labels are audited; `note`: what is not in the frame, and why"""

    labels: Version
    judged: Callable[[], Iterator[Judged]]
    note: str = ""

    @property
    def name(self) -> str:
        """STAGE/VERSION."""
        return f"{self.labels.path.parent.name}/{self.labels.name}"


def frame_of(config: Config) -> Frame:
    """The newest labels: of debias, and of the pairs it was made from, so that what it filtered can be audited too.

    A pair that debias filtered has the label that its votes gave it. Where debias was never run, the pairs as they were judged.
    Raises: Fix (exit 65): nothing was judged yet
    """
    output = config.output_path
    debiased, judged = versions.latest(output, "debias"), versions.latest(output, "label-pairs")
    if debiased is None and judged is None:
        what = f"{output} holds no debias nor label-pairs yet: there are no labels to audit"
        raise Fix(what, f"make them: cai run {config.path}", Exit.INPUT)
    if debiased is None:
        assert judged is not None
        return Frame(labels=judged, judged=lambda: _judged(stored.of_version(judged), None))
    made_from = debiased.manifest["lineage"].get("label-pairs")
    parent = versions.find(output, "label-pairs", made_from) if made_from else None
    if parent is None:
        note = f"only what debias/{debiased.name} kept: the pairs that it was made from are not there"
        return Frame(labels=debiased, judged=lambda: _judged(stored.of_version(debiased), None), note=note)
    kept = _labels_of(debiased)
    return Frame(labels=debiased, judged=lambda: _judged(stored.of_version(parent), kept))


def _judged(pairs: Stored, kept: Mapping[str, float] | None) -> Iterator[Judged]:
    """`kept`: what debias made of the pairs that it kept, by id; None: these rows are all there is."""
    for place in pairs.places():
        pair: Pair = pairs.record(place)
        if kept is not None and pair.id in kept:
            yield Judged(pair=pair, p_a=kept[pair.id])
        elif (p_a := _p_a(pair)) is not None:
            yield Judged(pair=pair, p_a=p_a, kept=kept is None)


def _labels_of(debiased: Version) -> dict[str, float]:
    source = stored.of_version(debiased)
    rows = (source.row(place) for place in source.places())
    return {row["id"]: row["p_a"] for row in rows if row["p_a"] is not None}


def _p_a(pair: Pair) -> float | None:
    """Of a pair that debias has not: as its votes have it; None: they say nothing, or cannot be read."""
    try:
        return votes.pool(pair.votes) if pair.p_a is None else pair.p_a
    except Reject:
        return None


# Drawing.


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """What was drawn. `path`: what people fill in, None where it went to stdout; `new`: pairs no sample before it had."""

    design: Design
    path: Path | None
    new: int
    again: int  # drawn by this sample, and by one before
    why: Counter[str]
    note: str = ""

    def document(self) -> dict[str, Any]:
        """As `--json` gives it."""
        design = self.design
        return {
            "sample": design.number if self.new else None, "path": str(self.path) if self.path else None, "labels": design.labels,
            "pairs": design.pairs, "prompts": design.prompts, "wanted": design.wanted, "drawn": self.new + self.again,
            "new": self.new, "already_drawn": self.again, "why": dict(self.why), "seed": design.seed, "note": self.note,
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is asked of a sample. `wanted`: pairs, None: by audit.rate; `out`: its file or folder, None: OUTPUT/audit's own."""

    wanted: int | None = None
    format: Format = "jsonl"
    out: Path | None = None
    to_stdout: bool = False
    force: bool = False  # replace `out`


def sample(config: Config, asked: Asked, if_locked: IfLocked, command: str) -> tuple[Sampled, bytes]:
    """Draw pairs for people to label, and write what they fill in. Gives: what was drawn, and the bytes for stdout, if any

    Raises: Fix: a file that is there already; with exit 65: nothing was judged, or no pair was drawn; Held
    """
    with locked(lock_file(config), if_locked, command):
        frame, before = frame_of(config), files.read_designs(config.output_path)
        design, again = _drawn(config, frame, before, asked)
        sampled = Sampled(
            design=design, path=None, new=len(design.drawn), again=again, note=frame.note,
            why=Counter(why for one in design.drawn for why in one.why),
        )  # fmt: skip
        if not design.drawn:
            if again:
                return sampled, b""
            raise _nobody(config, design)
        files.folder_of(config.output_path).mkdir(parents=True, exist_ok=True)
        path, data = _write(config, asked, design, frame)
        files.write_design(config.output_path, design)
        return replace(sampled, path=path), data


def _nobody(config: Config, design: Design) -> Fix:
    asked = max(20, round(4 * design.wanted))
    what = f"no pair was drawn: {design.wanted:.3g} of {design.pairs:,} were to be, and each one's own number decides"
    return Fix(what, f"ask for more: cai audit sample {config.path} -n {asked}", Exit.INPUT)


def _drawn(config: Config, frame: Frame, before: Sequence[Design], asked: Asked) -> tuple[Design, int]:
    """The sample, and how many of its pairs were drawn before: two looks at the frame, that only sizes are kept of."""
    sizes, prompts = array("d"), set[int]()
    for judged in frame.judged():
        sizes.append(drawing.size_of(drawing.reasons(judged)))
        prompts.add(hash(judged.pair.prompt_id))
    if not sizes:
        raise Fix(f"{frame.name} holds no pair with a label", f"label pairs first: cai run {config.path}", Exit.INPUT)
    share = config.audit.rate if asked.wanted is None else min(1.0, asked.wanted / len(sizes))
    wanted = share * len(sizes)
    design = Design(
        # The seed of the first sample goes on: then a pair that any sample draws, every larger one draws.
        number=files.next_number(config.output_path), seed=before[0].seed if before else config.seed,
        scale=drawing.scale_for(sizes, wanted), wanted=wanted, labels=frame.name, fingerprint=frame.labels.fingerprint,
        pairs=len(sizes), prompts=len(prompts), drawn=(),
    )  # fmt: skip
    had = {(one.id, one.content) for earlier in before for one in earlier.drawn}
    found = list(_draws(frame, design))
    new = [one for one in found if (one.id, one.content) not in had]
    new.sort(key=lambda one: chance.unit(design.seed, "audit order", one.id))  # who stops early has looked at a fair part
    return replace(design, drawn=tuple(new)), len(found) - len(new)


def _draws(frame: Frame, design: Design) -> Iterator[Drawn]:
    for judged in frame.judged():
        size = drawing.size_of(drawing.reasons(judged))
        if drawing.is_drawn(design.seed, judged.pair.id, design.probability(size)):
            yield drawing.drawn(judged, design.seed)


def _write(config: Config, asked: Asked, design: Design, frame: Frame) -> tuple[Path | None, bytes]:
    drawn = {one.id: one for one in design.drawn}
    rows = {
        judged.pair.id: drawing.form(judged.pair, one, design.probability(one.size))
        for judged in frame.judged()
        if (one := drawn.get(judged.pair.id)) is not None
    }
    ordered = [rows[one.id] for one in design.drawn]
    lines = b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in ordered)
    if asked.to_stdout:
        return None, lines
    stem = files.folder_of(config.output_path) / f"sample-{design.number:04d}"
    path = asked.out or stem.with_name(stem.name + ("-argilla" if asked.format == "argilla" else ".jsonl"))
    refuse_existing(path, force=asked.force)
    disk.probe(path.parent, option="--out")
    if asked.format == "jsonl":
        disk.write_durably(path, lines)
    else:
        _write_argilla(path, config, ordered)
    return path, b""


def refuse_existing(path: Path, *, force: bool) -> None:
    """Labels that people wrote into a file are never lost. Raises: Fix: something is there"""
    if path.exists() and not force:
        raise Fix(f"{path} exists already, and nothing was written", "choose another place with --out, or add --force")


def _write_argilla(path: Path, config: Config, rows: Sequence[Mapping[str, Any]]) -> None:
    (path / ".argilla").mkdir(parents=True, exist_ok=True)
    name = f"{config.name}-audit"
    documents = {".argilla/dataset.json": argilla.dataset(name), ".argilla/settings.json": argilla.settings(),
                 "records.json": [argilla.record(row) for row in rows]}  # fmt: skip
    for place, document in documents.items():
        disk.write_durably(path / place, orjson.dumps(document, option=orjson.OPT_INDENT_2))


# Scoring.


@dataclass(frozen=True, kw_only=True)
class Taken:
    """What filled files held."""

    labels: int  # of all that are there now
    read: int  # in these files
    replaced: int  # of these, that took the place of another label of the same person
    empty: int  # rows that nobody has filled in


def score(
    config: Config, given: Sequence[str], annotator: str, if_locked: IfLocked, command: str
) -> tuple[dict[str, Any], Taken]:
    """Take filled files in, and say what all labels say. `annotator`: whose labels are that have no name

    Raises: Fix (exit 65): nothing was drawn or labelled yet, a file that cannot be used, with all its problems; Held
    """
    output = config.output_path
    with locked(lock_file(config), if_locked, command):
        designs = files.read_designs(output)
        if not designs:
            raise Fix(f"{output} holds no sample yet", f"draw one first: cai audit sample {config.path}", Exit.INPUT)
        known = {one.id: one for design in designs for one in design.drawn}
        read, empty = _read_all(given, known, annotator)
        labels, replaced = merged(files.read_labels(output), read)
        if not any(one.label != "skip" for one in labels):
            what = "nobody has labelled a pair yet" if labels or not given else f"{', '.join(given)}: no label is filled in"
            raise Fix(what, f"fill in `label` with 1, 2, tie or skip, then: cai audit score {config.path} -i FILE", Exit.INPUT)
        files.write_labels(output, labels)
        document = _scored(config, labels, designs)
        files.write_score(output, document)
        return document, Taken(labels=len(labels), read=len(read), replaced=replaced, empty=empty)


def _scored(config: Config, labels: Sequence[Label], designs: Sequence[Design]) -> dict[str, Any]:
    from cai_cli.auditing import advising, measuring  # numpy and scipy
    from cai_cli.auditing.columns import Columns

    frame = frame_of(config)
    columns = Columns({one.id: one.content for one in newest(labels, designs)})
    for judged in frame.judged():
        columns.add(judged)
    found = measuring.measured(columns, labels, designs)
    report, at_least = _bias_report(frame.labels), config.audit.agreement_at_least
    raw = found["agreement"]["kept"]["raw"]["value"]
    return {
        "labels": frame.name, "fingerprint": frame.labels.fingerprint, "agreement_at_least": at_least,
        "passed": raw is not None and raw >= at_least, **found,
        "recommendations": advising.recommendations(found, at_least, report), "warnings": list(_warnings(frame, found)),
    }  # fmt: skip


def _bias_report(labels: Version) -> dict[str, Any] | None:
    path = labels.path / "_bias.json"
    found: dict[str, Any] | None = orjson.loads(path.read_bytes()) if path.is_file() else None
    return found


def _warnings(frame: Frame, found: Mapping[str, Any]) -> Iterator[str]:
    # Labels calibrated on what people said are compared with it all the same: debias lets no gold decide on its own pair.
    if frame.note:
        yield f"audited is {frame.note}"
    if not found["agreement"]["kept"]["n"] and found["agreement"]["all"]["n"]:
        yield "no pair that debias kept is labelled: what is trained on was not looked at"


# Reading what people filled in.


def _read_all(given: Iterable[str], known: Mapping[str, Drawn], annotator: str) -> tuple[list[Label], int]:
    """Labels of all files, and how many rows are empty. Raises: Fix (exit 65), with every problem and its place"""
    found: dict[tuple[str, str], tuple[Label, str]] = {}
    problems: list[tuple[str, str]] = []
    empty = 0
    for where, row in itertools.chain.from_iterable(map(_rows, given)):
        if isinstance(row, Reject):
            problems.append((f"{where}: {row.reason}: {row.detail}", ""))
            continue
        try:
            label = read_label(row, known)
        except Reject as reject:
            problems.append((f"{where}: {_pair_of(row)}{reject.detail}", ""))
            continue
        if label is None:
            empty += 1
            continue
        if annotator and label.annotator == UNNAMED:
            label = replace(label, annotator=annotator)
        before = found.get((label.id, label.annotator))
        if before is not None and before[0].label != label.label:
            problems.append(_two_answers(label, where, before[1]))
        found[label.id, label.annotator] = (label, where)
    if problems:
        raise _all_problems(problems)
    return [label for label, _ in found.values()], empty


def _pair_of(row: Mapping[str, Any]) -> str:
    """Whose label it is: many rows may stand in one line."""
    return f"pair '{row['id']}': " if isinstance(row.get("id"), str) and row["id"] else ""


def _two_answers(label: Label, where: str, before: str) -> tuple[str, str]:
    if label.annotator != UNNAMED:
        return f"{where}: {label.annotator} says another thing of '{label.id}' than in {before}", ""
    hint = "are they two people's? fill in `annotator`, or score each one's file by itself, with --annotator NAME"
    return f"{where}: pair '{label.id}' has another label than in {before}, and nobody's name on either", hint


def _all_problems(problems: Sequence[tuple[str, str]]) -> Fix:
    safe = "nothing was taken in, and nothing that was there is lost"
    hint = next((f"{hint}; {safe}" for _, hint in problems if hint), f"mend them and score again: {safe}")
    problems = list(dict.fromkeys(problems))  # of one text, by each of its people
    shown = [(what, "") for what, _ in problems[:SHOWN]]
    if len(problems) > SHOWN:
        shown.append((f"and {len(problems) - SHOWN:,} more problems", ""))
    shown[-1] = (shown[-1][0], hint)
    return Fix(shown[0][0], shown[0][1], Exit.INPUT, tuple(shown))


def _files(given: str, folder: Path) -> list[File]:
    if given == "-":
        return [File(spool(sys.stdin.buffer, folder), STDIN)]
    path = Path(given)
    return find_files(path / "records.json" if (path / ".argilla").is_dir() else path, given)


def _rows(given: str) -> Iterator[tuple[str, Mapping[str, Any] | Reject]]:
    """Rows to read labels from, each with its place; of Argilla's records one a person who answered. -: stdin"""
    with tempfile.TemporaryDirectory(prefix="cai-") as folder:
        for line in itertools.chain.from_iterable(map(read_file, _files(given, Path(folder)))):
            if not isinstance(line, Line):
                yield line.where, Reject(line.reason, line.detail)
            elif argilla.is_record(line.row):
                for row in argilla.answered(line.row):
                    yield line.where, row
            else:
                yield line.where, line.row
