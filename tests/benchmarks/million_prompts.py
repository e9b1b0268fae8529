"""Print what a million short prompts take through `cai generate`, killed at half and begun again: rows a second, memory over
time, bytes of the ledger, seconds from the second start to its first new reply.
`python tests/benchmarks/million_prompts.py [PROMPTS]`

The model is the simulated one, in the same process, without latency. Aim for a million: memory below 400 MB and flat, the first
new request within 10 s of the second start, replies of whole partitions not read again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PROMPTS, SHARD = 1_000_000, 1_000
MEGABYTES, SECONDS = 400, 10.0
WORDS = ("flour", "water", "salt", "time", "bread", "oven", "crust", "crumb", "knead", "rest", "warm", "slow", "loaf", "home")
POLL_S = 0.05


def write(path: Path, count: int) -> None:
    """Short prompts, all different."""
    chance = random.Random(3)
    with path.open("w") as file:
        for n in range(count):
            file.write(json.dumps({"prompt": f"Question {n}: {' '.join(chance.choices(WORDS, k=8))}?"}) + "\n")


def config(folder: Path) -> None:
    """The job."""
    document = {
        "name": "million", "output": "out", "model": {"provider": "simulated", "name": "small-world", "max_tokens": 64},
        "prompts": {"path": "prompts.jsonl"}, "shards": {"rows": SHARD}, "generate": {"samples": 1},
    }  # fmt: skip
    (folder / "job.json").write_text(json.dumps(document))


@dataclass(slots=True)
class Course:
    """How a run went. Seconds are since its start."""

    first_s: float | None = None  # until the first reply that was not there before
    last_s: float = 0.0  # until the last one
    seconds: float = 0.0
    replies: int = 0  # in the ledger, at the end
    bytes: int = 0  # of the ledger, at most
    memory: list[tuple[float, float]] = field(default_factory=list)  # share of the prompts done, megabytes
    cpu: float = 0.0

    def at_most(self, begin: float = 0.0, end: float = 1.01) -> float:
        """Megabytes at most while so much was done."""
        return max((size for share, size in self.memory if begin <= share < end), default=0.0)


@contextmanager
def counting(ledger: Path) -> Iterator[Any]:
    """Gives: what counts the replies of a ledger while it is written."""
    db = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True, timeout=10)
    try:
        yield lambda: int(db.execute("SELECT coalesce(max(id), 0) FROM replies").fetchone()[0])
    finally:
        db.close()


def run(folder: Path, count: int, until: int | None = None) -> Course:
    """Run the job; kill it with so many replies in the ledger. Raises: SystemExit: it failed"""
    ledger, course, started = folder / "out" / ".cai" / "ledger.sqlite", Course(), time.perf_counter()
    environment = {"PYTHONPATH": str(Path(__file__).parents[2]), **os.environ, "HOME": str(folder)}
    command = [sys.executable, "-m", "cai_cli", "generate", "job.json", "-q", "--json"]
    with open(folder / "said", "wb") as said, open(folder / "errors", "wb") as errors:
        child = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=errors)
    while child.poll() is None and not (ledger.exists() and ledger.stat().st_size > 4096):
        _note_memory(course, child.pid, 0.0)
        time.sleep(POLL_S)
    with counting(ledger) as replies:
        before = replies()
        while child.poll() is None:
            found, now = replies(), time.perf_counter() - started
            _note(course, child.pid, now, found, before, count, ledger)
            if until is not None and found >= until:
                child.send_signal(signal.SIGKILL)
                break
            time.sleep(POLL_S if course.first_s is None else 0.5)
        course.replies = replies()
    code, used = child.wait(), os.times()
    course.seconds, course.cpu = time.perf_counter() - started, used.children_user + used.children_system
    if code != (0 if until is None else -signal.SIGKILL):
        raise SystemExit(f"exit {code}\n{(folder / 'errors').read_text()[-2000:]}")
    return course


def _note(course: Course, pid: int, now: float, found: int, before: int, count: int, ledger: Path) -> None:
    if found > before and course.first_s is None:
        course.first_s = now
    if found != course.replies:
        course.last_s, course.replies = now, found
    course.bytes = max(course.bytes, sum(one.stat().st_size for one in ledger.parent.glob("ledger.sqlite*") if one.exists()))
    _note_memory(course, pid, found / count)


def _note_memory(course: Course, pid: int, share: float) -> None:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):  # it ended just now
        return
    course.memory.append((share, pages * os.sysconf("SC_PAGE_SIZE") / 1e6))


def logged(folder: Path) -> dict[str, Any]:
    """What the newest run says of itself."""
    newest = max((folder / "out" / ".cai" / "runs").glob("*/run.json"), key=lambda path: path.stat().st_mtime)
    facts: dict[str, Any] = json.loads(newest.read_text())
    return facts


def measured(folder: Path, count: int) -> bool:
    """Write, run to half, kill, run to the end, print. Gives: whether the aims are met"""
    write(folder / "prompts.jsonl", count)
    config(folder)
    size = (folder / "prompts.jsonl").stat().st_size / count
    print(f"{count:,} prompts of {size:,.0f} bytes, {os.cpu_count()} cores", flush=True)
    half = run(folder, count, count // 2)
    began = max(half.last_s - (half.first_s or 0.0), 1e-9)
    print(f"to half      first reply after {half.first_s:.1f} s, then {half.replies / began:,.0f} rows/s; "
          f"killed at {half.replies:,}", flush=True)  # fmt: skip
    rest = run(folder, count)
    stage = logged(folder)["stages"]["generate"]
    again, rows = stage["replayed"], count - half.replies
    rate = rows / max(rest.last_s - (rest.first_s or 0.0), 1e-9)
    print(f"the rest     first new reply after {rest.first_s:.1f} s, then {rate:,.0f} rows/s; {again:,} replies read again; "
          f"bought {stage['requests']:,}; {rest.seconds - rest.last_s:.1f} s from the last reply to the end")  # fmt: skip
    for name, course in (("to half", half), ("the rest", rest)):
        parts = [course.at_most(n / 8, (n + 1) / 8) for n in range(8)]
        print(f"memory       {name}: at most {course.at_most():.0f} MB; by eighths of the prompts: "
              + ", ".join(f"{one:.0f}" if one else "-" for one in parts))  # fmt: skip
    ledger = folder / "out" / ".cai" / "ledger.sqlite"
    print(f"ledger       {ledger.stat().st_size / count:,.0f} bytes a reply; with its -wal at most {rest.bytes / 1e6:,.0f} MB")
    print(f"CPU          {1000 * rest.cpu / (count + again):.2f} ms a row, both runs, all in")
    peak = max(half.at_most(), rest.at_most())
    good = peak < MEGABYTES and (rest.first_s or 0.0) <= SECONDS and again <= 5 * SHARD and stage["rows"] == count
    print("PASS" if good else "FAIL", flush=True)
    return good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=int, nargs="?", default=PROMPTS)
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder. It is left there")
    given = parser.parse_args()
    if given.folder:
        given.folder.mkdir(parents=True)
        sys.exit(not measured(given.folder.resolve(), given.prompts))
    with tempfile.TemporaryDirectory() as folder:
        sys.exit(not measured(Path(folder), given.prompts))


if __name__ == "__main__":
    main()
