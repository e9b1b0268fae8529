"""Print what a million labelled pairs cost `cai debias` here: seconds, peak memory, rows a second. `make bench-million`.

Each pair has two votes (one labeler, both orders, probabilities) and about 1 KB of text and fields; one pair in 2,000 has gold.
They go through the real command twice: given as a file (-i), and from a published label-pairs version. Aim on two cores: 20 s,
1.5 GB. With --split a timer looks which function of the package is at work: the seconds of CPU by part.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import orjson

PAIRS, CHUNK = 1_000_000, 20_000
SECONDS, GIGABYTES = 20.0, 1.5
B, C = 0.679, 0.8
WATCHED = Path(__file__).with_name("_watched.py")
_TEXT = "the answer that was given first says what to do and leaves out why it is safe to try at home with a friend " * 20


def rows(count: int, seed: int = 7) -> Iterator[dict[str, Any]]:
    """Pairs as `cai label-pairs` writes them, by a judge of opinion 1.5 * quality + .8 * length that likes the first slot."""
    rng, ends = np.random.default_rng(seed), [at for at, sign in enumerate(_TEXT) if sign == " "]
    for start in range(0, count, CHUNK):
        size = min(CHUNK, count - start)
        quality, noise = rng.normal(size=size), rng.normal(size=(3, size))
        words = np.clip(np.exp(rng.normal(np.log(40), 0.35, (2, size))), 5, 400).astype(int)
        opinion = 1.5 * quality + C * np.log(words[0] / words[1]) / 0.5 + 0.8 * noise[0]
        p = 1 / (1 + np.exp(-(opinion + np.array([[B], [-B]]) + 0.5 * noise[1:])))
        for n in range(size):
            a, b = (_TEXT[: ends[words[side, n] - 1]] for side in (0, 1))
            yield _row(start + n, a, b, float(p[0, n]), float(p[1, n]), "a" if quality[n] > 0 else "b")


def _row(n: int, a: str, b: str, p_ab: float, p_ba: float, truth: str) -> dict[str, Any]:
    prompt = f"What is there to be done about matter {n}?"
    return {
        "id": f"m{n}-0-1", "prompt_id": f"m{n}", "messages": [{"role": "user", "content": prompt}], "prompt": prompt,
        "kind": "harmless", "response_a": a, "response_b": b, "source_a": f"m{n}-0", "source_b": f"m{n}-1",
        "votes": [_vote("ab", p_ab), _vote("ba", p_ba)], "gold": truth if n % 2000 == 0 else "", "meta": "{}",
    }  # fmt: skip


def _vote(order: str, p: float) -> dict[str, Any]:
    return {
        "labeler": "main", "principle": "harmlessness", "order": order, "draw": 0, "verdict": "a" if p > 0.5 else "b", "p_a": p,
        "confidence": max(p, 1 - p), "rationale": "",
    }  # fmt: skip


def write(path: Path, count: int) -> int:
    """Write the rows. Gives: bytes"""
    given = rows(count)
    with path.open("wb") as file:
        while chunk := list(islice(given, CHUNK)):
            file.write(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in chunk))
    return path.stat().st_size


def config(folder: Path, name: str, shard: int) -> Path:
    """A config whose output is folder/name."""
    path = folder / f"{name}.json"
    document = {
        "name": "million", "output": str(folder / name), "model": {"provider": "simulated", "name": "small-world"},
        "prompts": {"path": "pairs.jsonl"}, "constitution": "constitutions/general.yaml", "shards": {"rows": shard},
        "label_pairs": {"pairs": "given"}, "debias": {},
    }  # fmt: skip
    path.write_text(json.dumps(document))
    return path


def publish(path: Path) -> None:
    """Publish pairs.jsonl beside the config as the label-pairs version that a run with these votes would have made."""
    from cai_cli.config import load
    from cai_cli.engine.drive import Usage
    from cai_cli.engine.plan import pairs_feed, shapes, steps_of
    from cai_cli.engine.publish import Publisher, lineages
    from cai_cli.engine.shards import Layout, Made, Staging

    job = load(path)
    steps = steps_of(job, ["label-pairs"])
    job.output_path.mkdir(parents=True)
    feed = pairs_feed(path.with_name("pairs.jsonl"), job, None, path.parent)
    layout = Layout(feed.shards)
    staging = Staging(job.output_path / ".cai" / "staging" / "million", ["label-pairs"], layout)
    for shard, units in groupby(feed.units(), key=lambda unit: unit.shard):
        made = [Made(rows=list(unit.rows), came_in=len(unit.rows)) for unit in units]
        staging.write(shard, [({"label-pairs": one}, Usage()) for one in made])
    publisher = Publisher(job.output_path, job.name, staging, feed, shapes())
    publisher.publish(steps[0], lineages(steps, feed, layout)["label-pairs"])
    staging.remove()


@dataclass(slots=True)
class Cost:
    """What a command took. `peak`: bytes that the process and those it started had in memory together, at most."""

    seconds: float = 0.0
    cpu: float = 0.0
    peak: int = 0
    parts: dict[str, float] = field(default_factory=dict)  # seconds of CPU by function of the package
    summary: dict[str, Any] = field(default_factory=dict)


def run(folder: Path, *arguments: str, split: bool = False) -> Cost:
    """Run `cai` there, and measure it. Raises: SystemExit, where it fails"""
    parts = folder / "parts.json"
    program = [str(WATCHED), str(parts)] if split else ["-m", "cai_cli"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), "HOME": str(folder)}
    before, started, cost = os.times(), time.perf_counter(), Cost()
    with open(folder / "said", "wb") as said, open(folder / "errors", "wb") as errors:
        child = subprocess.Popen(
            [sys.executable, *program, *arguments], cwd=folder, env=environment, stdout=said, stderr=errors
        )  # fmt: skip
        watch = threading.Thread(target=_watch, args=(child, cost))
        watch.start()
        code = child.wait()
        cost.seconds, after = time.perf_counter() - started, os.times()
        watch.join()
    cost.cpu = after.children_user + after.children_system - before.children_user - before.children_system
    if code:
        raise SystemExit(f"exit {code}\n{(folder / 'errors').read_text()[-2000:]}")
    cost.summary = json.loads((folder / "said").read_text())
    cost.parts = json.loads(parts.read_text()) if split else {}
    return cost


def _watch(child: subprocess.Popen[bytes], cost: Cost) -> None:
    while child.poll() is None:
        cost.peak = max(cost.peak, sum(map(_resident, _family(child.pid))))
        time.sleep(0.05)


def _family(pid: int) -> list[int]:
    try:
        children = [int(one) for task in Path(f"/proc/{pid}/task").iterdir() for one in (task / "children").read_text().split()]
    except OSError:  # it ended just now
        return [pid]
    return [pid, *(found for one in children for found in _family(one))]


def _resident(pid: int) -> int:
    """Bytes of a process; what it shares with its siblings is split among them."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * int(next((line.split()[1] for line in lines if line.startswith("Pss:")), 0))


def report(name: str, count: int, cost: Cost) -> bool:
    """Print a line. Gives: whether the aim for a million is met in proportion"""
    share, gigabytes = count / PAIRS, cost.peak / 2**30
    met = cost.seconds <= max(SECONDS * share, 3.0) and gigabytes <= GIGABYTES
    rows_out = cost.summary["stages"]["debias"]["rows"]
    print(f"{name:<18} {cost.seconds:7.1f} s {cost.cpu:7.1f} s CPU {gigabytes:6.2f} GB {count / cost.seconds:9,.0f} rows/s "
          f"{rows_out:>9,} kept  {'PASS' if met else 'FAIL'}", flush=True)  # fmt: skip
    for part, seconds in sorted(cost.parts.items(), key=lambda one: -one[1])[:12]:
        print(f"    {part:<34} {seconds:6.1f} s")
    return met


def measured(folder: Path, count: int, shard: int, split: bool) -> bool:
    """Write, run both ways, print. Gives: whether both meet the aim"""
    size = write(folder / "pairs.jsonl", count)
    print(f"{count:,} pairs, {size / count:,.0f} bytes a row, two votes each, {os.cpu_count()} cores", flush=True)
    given = config(folder, "given", shard)
    good = report("-i FILE", count, run(folder, "debias", given.name, "-i", "pairs.jsonl", "--json", "-q", split=split))
    shutil.rmtree(folder / "given")
    published = config(folder, "published", shard)
    publish(published)
    return report("published version", count, run(folder, "debias", published.name, "--json", "-q", split=split)) and good


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=PAIRS)
    parser.add_argument("--shard", type=int, default=1000, help="prompts a shard (shards.rows)")
    parser.add_argument("--split", action="store_true", help="seconds of CPU by part, in the first process")
    parser.add_argument("--folder", type=Path, help="where to work; default: a temporary folder. It is left there")
    given = parser.parse_args()
    if given.folder:
        given.folder.mkdir(parents=True)
        sys.exit(not measured(given.folder.resolve(), given.pairs, given.shard, given.split))
    with tempfile.TemporaryDirectory() as folder:
        good = measured(Path(folder), given.pairs, given.shard, given.split)
    sys.exit(not good)


if __name__ == "__main__":
    main()
