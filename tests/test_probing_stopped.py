"""Stopped while probes are asked: the same command goes on, ends with the same bytes, and buys nothing that came home twice."""

from __future__ import annotations

import json
import random
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback import Server, serve
from outside import Done, at, cai, finish, published, questions, start, write_config, write_rows


@pytest.fixture(scope="module")
def slow() -> Iterator[Server]:
    with serve(latency_ms=40, jitter=True) as running:
        yield running


PROBES = {"length": 20, "sycophancy": 20}  # 40 + 80 requests


def prepare(folder: Path, url: str, **model: Any) -> Path:
    folder.mkdir(exist_ok=True)
    write_rows(folder / "prompts.jsonl", questions(30))
    # A server that does not sample gives one answer to one body: two systems make two responses.
    generate = {"samples": 1, "systems": [None, "Answer briefly."]}
    write_config(
        folder, model=at(url, **model), generate=generate, critique=None, revise=None, debias={"probes": PROBES},
        shards={"rows": 7}, limits={"concurrency": 8},
    )  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def calm(slow: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = prepare(tmp_path_factory.mktemp("calm"), slow.url)
    slow.reset(latency_ms=0)
    done = cai(folder, "run", "c.yaml")
    assert done.code == 0, done.err
    return folder


def until(process: subprocess.Popen[bytes], there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not there():
        assert process.poll() is None, f"it ended before: exit {process.returncode}"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def halfway(slow: Server, folder: Path) -> Callable[[], bool]:
    """Whether the labels are published, and at least 20 requests were sent after that."""
    seen: list[int] = []

    def there() -> bool:
        if (folder / "out/label-pairs/latest").exists():
            seen.append(slow.stats()["total"])
        return bool(seen) and seen[-1] >= seen[0] + 20

    return there


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_while_it_probes_it_ends_with_the_bytes_of_an_uninterrupted_run(
    slow: Server, calm: Path, tmp_path: Path, seed: int
) -> None:
    folder = prepare(tmp_path / "killed", slow.url)
    slow.reset(latency_ms=40)
    process = start(folder, "run", "c.yaml")
    until(process, halfway(slow, folder))
    time.sleep(random.Random(seed).uniform(0, 0.1))
    process.kill()
    assert finish(process).code == -signal.SIGKILL
    assert not (folder / "out/debias").exists()
    killed = json.loads(cai(folder, "status", "c.yaml", "--json").out)["runs"][-1]
    assert (killed["state"], list(killed["stages"])) == ("killed", ["generate", "label-pairs", "debias"])
    assert (killed["what"], killed["prompts"]) == ("probes", 40)
    assert re.search(r"killed after .*, \d+/40 probes$", cai(folder, "status", "c.yaml").out, re.MULTILINE)
    done = cai(folder, "run", "c.yaml", "--json")
    assert done.code == 0, done.err
    assert done.stages["debias"]["requests"] + done.stages["debias"]["replayed"] == 120
    assert done.stages["debias"]["replayed"] >= 12
    assert published(folder / "out") == published(calm / "out")
    assert slow.stats()["repeated_ok"] <= 2 * 8  # in flight, and on their way to the disk: the slot is free before the commit


def test_a_signal_while_it_probes_stops_it_and_the_same_command_goes_on(slow: Server, calm: Path, tmp_path: Path) -> None:
    folder = prepare(tmp_path / "stopped", slow.url)
    slow.reset(latency_ms=40)
    process = start(folder, "run", "c.yaml")
    until(process, halfway(slow, folder))
    process.send_signal(signal.SIGTERM)
    stopped = finish(process)
    assert stopped.code == 75
    assert stopped.last.endswith("go on with: cai run c.yaml")
    assert "/40 probes done" in stopped.last
    whole = cai(folder, "run", "c.yaml", "--json")
    assert whole.code == 0
    assert published(folder / "out") == published(calm / "out")
    assert slow.stats()["repeated_ok"] == 0


def test_a_budget_that_ends_among_the_probes_stops_the_run_and_a_stream(slow: Server, tmp_path: Path) -> None:
    folder = prepare(tmp_path / "poor", slow.url, price={"input": 0.0, "output": 1000.0}, max_tokens=512)
    slow.reset(latency_ms=0)
    labelled = cai(folder, "run", "c.yaml", "--json", "--set", "debias.probes={}")
    assert labelled.code == 0, labelled.err
    spent = json.loads(labelled.out)["dollars"]
    enough = spent + 3.0

    def again(*arguments: str) -> Done:
        return cai(folder, "debias", "c.yaml", "--budget-usd", f"{enough:.3f}", *arguments)

    stopped = again("--json")
    assert stopped.code == 75
    facts = json.loads(stopped.out)
    assert 0 < facts["stages"]["debias"]["requests"] < 120
    assert facts["dollars"] == pytest.approx(facts["stages"]["debias"]["dollars"])
    assert 0 < facts["dollars"] <= 3.0
    assert "raise the cap" in stopped.last
    assert len(list((folder / "out/debias").glob("v*"))) == 1
    stream = again("-o", "-")
    assert (stream.code, stream.out) == (75, "")
    done = cai(folder, "debias", "c.yaml", "--json")
    assert done.code == 0
    assert done.stages["debias"]["replayed"] >= facts["stages"]["debias"]["requests"]
    assert slow.stats()["repeated_ok"] == 0
