"""Killed, interrupted, cut off: the same command goes on, ends with the same bytes, and buys nothing twice that had come home."""

from __future__ import annotations

import json
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback import Server, serve
from outside import STAGES, at, cai, environment, finish, published, questions, rows_of, start, write_config, write_rows

IN_FLIGHT = 16
PROMPTS = 60


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with serve(latency_ms=45, jitter=True) as running:
        yield running


def prepare(folder: Path, url: str) -> Path:
    # Two systems instead of two samples: every body is different, so a body that is answered twice was bought twice.
    folder.mkdir(exist_ok=True)
    write_rows(folder / "prompts.jsonl", questions(PROMPTS))
    generate = {"samples": 1, "systems": [None, "Answer briefly."]}
    write_config(
        folder, model=at(url), generate=generate, shards={"rows": 7}, limits={"concurrency": IN_FLIGHT}, split={"test": 0.2}
    )
    return folder


@pytest.fixture(scope="module")
def calm(server: Server, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run."""
    folder = prepare(tmp_path_factory.mktemp("calm"), server.url)
    server.reset(latency_ms=0)
    done = cai(folder, "run", "c.yaml")
    assert done.code == 0, done.err
    assert server.stats()["repeated_ok"] == 0
    return folder


@pytest.fixture
def folder(server: Server, calm: Path, tmp_path: Path) -> Path:
    """A folder where the same is about to run, on a server that counts from zero."""
    server.reset(latency_ms=45, fail=[])
    return prepare(tmp_path, server.url)


def until(process: subprocess.Popen[bytes], there: Callable[[], bool]) -> None:
    """Wait for something that a running command brings about."""
    deadline = time.monotonic() + 60
    while not there():
        assert process.poll() is None, f"it ended before: exit {process.returncode}"
        assert time.monotonic() < deadline
        time.sleep(0.005)


def asked(server: Server, requests: int) -> Callable[[], bool]:
    return lambda: bool(server.stats()["total"] >= requests)


def begin(folder: Path, *arguments: object) -> subprocess.Popen[bytes]:
    return start(folder, "run", "c.yaml", *arguments)


@pytest.mark.parametrize("seed", [1, 2])
def test_killed_three_times_it_ends_with_the_bytes_of_an_uninterrupted_run(
    server: Server, calm: Path, folder: Path, seed: int
) -> None:
    moments, seen = random.Random(seed), 0
    for _ in range(3):
        process = begin(folder)
        until(process, asked(server, seen + moments.randint(30, 150)))
        time.sleep(moments.uniform(0, 0.03))
        process.kill()
        assert finish(process).code == -signal.SIGKILL
        assert list((folder / "out").glob("*/v*")) == []  # a reader never sees half a version
        seen = server.stats()["total"]
    done = cai(folder, "run", "c.yaml", "--json")
    assert done.code == 0, done.err
    assert published(folder / "out") == published(calm / "out")
    # as many as are asked at once, and on a slow disk as many again that wait for it
    assert server.stats()["repeated_ok"] <= 3 * 2 * IN_FLIGHT
    assert server.stats()["distinct"] == len(server.stats()["completed"])


@pytest.mark.parametrize("stage", STAGES)
def test_killed_while_it_publishes_it_ends_with_the_same_bytes(server: Server, calm: Path, folder: Path, stage: str) -> None:
    shutil.copytree(calm / "out/.cai", folder / "out/.cai")  # all replies are there: the run is over in no time
    process = begin(folder)
    until(process, lambda: any((folder / "out" / stage).glob("v*")))
    process.kill()
    finish(process)
    done = cai(folder, "run", "c.yaml")
    assert done.code == 0, done.err
    assert published(folder / "out") == published(calm / "out")
    assert server.stats()["total"] == 0
    assert list((folder / "out/.cai/staging").glob("*")) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGHUP, 75), (signal.SIGINT, 130)])
def test_a_signal_stops_it_whole_and_the_same_command_goes_on(
    server: Server, calm: Path, folder: Path, number: signal.Signals, code: int
) -> None:
    process = begin(folder)
    until(process, asked(server, 80))
    process.send_signal(number)
    stopped = finish(process)
    assert stopped.code == code
    assert "Traceback" not in stopped.err
    assert stopped.last.endswith("go on with: cai run c.yaml")
    assert re.search(rf"\d/{PROMPTS} \w+ done, 0 (requests )?in flight", stopped.last)
    assert list((folder / "out").glob("*/v*")) == []
    assert cai(folder, "run", "c.yaml").code == 0
    assert published(folder / "out") == published(calm / "out")
    assert server.stats()["repeated_ok"] == 0


def test_a_second_signal_does_not_wait_for_what_is_in_flight(server: Server, calm: Path, folder: Path) -> None:
    server.reset(latency_ms=9000)
    process = begin(folder)
    until(process, asked(server, IN_FLIGHT))
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    assert process.poll() is None  # it waits for the replies
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    stopped = finish(process)
    assert time.monotonic() - began < 4
    assert stopped.code == 130
    assert re.search(rf" {IN_FLIGHT} (requests )?in flight at the stop \(may be billed twice\)", stopped.last)
    server.reset(latency_ms=0)
    assert cai(folder, "run", "c.yaml").code == 0
    assert published(folder / "out") == published(calm / "out")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGHUP, 75), (signal.SIGINT, 130)])
def test_a_signal_while_it_publishes_is_no_crash(
    server: Server, calm: Path, folder: Path, number: signal.Signals, code: int
) -> None:
    shutil.copytree(calm / "out/.cai", folder / "out/.cai")
    process = begin(folder)
    until(process, lambda: any((folder / "out/generate").glob("v*")))
    process.send_signal(number)
    stopped = finish(process)
    assert stopped.code == code
    assert stopped.last.endswith("go on with: cai run c.yaml")
    assert cai(folder, "run", "c.yaml").code == 0
    assert published(folder / "out") == published(calm / "out")
    assert server.stats()["total"] == 0


def test_a_hangup_that_it_was_told_to_ignore_changes_nothing(server: Server, calm: Path, folder: Path) -> None:
    nohup = ["nohup", sys.executable, "-m", "cai_cli", "run", "c.yaml"]
    silent: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(nohup, cwd=folder, env=environment(folder), **silent) as process:
        until(process, asked(server, 60))
        process.send_signal(signal.SIGHUP)
        assert process.wait(60) == 0
    assert published(folder / "out") == published(calm / "out")


def test_a_reader_that_has_enough_ends_it_quietly(folder: Path) -> None:
    write_config(folder)
    write_rows(folder / "prompts.jsonl", questions(400))
    process = start(folder, "generate", "c.yaml", "-o", "-")
    with subprocess.Popen(["head", "-n1"], stdin=process.stdout, stdout=subprocess.PIPE) as head:
        assert process.stdout is not None
        process.stdout.close()
        first, _ = head.communicate(timeout=60)
    assert process.stderr is not None
    said = process.stderr.read().decode()
    assert process.wait(60) == 0
    assert first.startswith(b'{"id":')
    assert "Traceback" not in said
    assert "error" not in said
    process.stderr.close()


def test_a_stopped_stream_is_replayed_from_the_ledger(server: Server, folder: Path) -> None:
    process = start(folder, "generate", "c.yaml", "-o", "-")
    until(process, asked(server, 40))
    process.send_signal(signal.SIGTERM)
    stopped = finish(process)
    assert stopped.code == 75
    whole = cai(folder, "generate", "c.yaml", "-o", "-")
    assert whole.code == 0
    assert whole.out.startswith(stopped.out)
    assert len(whole.out.splitlines()) == 2 * PROMPTS
    assert server.stats()["repeated_ok"] == 0
    assert cai(folder, "generate", "c.yaml").code == 0
    assert len(rows_of(folder / "out/generate/latest")) == 2 * PROMPTS


@pytest.mark.parametrize("seed", [1, 2])
def test_a_kill_costs_no_more_of_the_budget_than_what_was_in_flight(server: Server, tmp_path: Path, seed: int) -> None:
    """Also where 429s have cut the slots, and most flows wait for one."""
    folder, moments, most_usd = prepare(tmp_path, server.url), random.Random(seed), 0.5
    config = json.loads((folder / "c.yaml").read_text())
    price = {"input": 0.0, "output": 500.0}  # so that every request may cost the same
    config["model"] |= {"price": price, "max_tokens": 1000}
    (folder / "c.yaml").write_text(json.dumps(config))
    server.reset(latency_ms=45, rate=20)
    unsettled = 0.0
    for _ in range(3):
        before = server.stats()["total"]
        process = begin(folder, "--budget-usd", "1000")
        until(process, lambda before=before: bool(server.stats()["total"] >= before + 3 * IN_FLIGHT))  # type: ignore[misc]
        time.sleep(moments.uniform(0.2, 0.6))
        process.kill()
        finish(process)
        now = json.loads(cai(folder, "status", "c.yaml", "--json").out)["ledger"]["dollars_unsettled"]
        assert now - unsettled <= (IN_FLIGHT // 2) * most_usd, "half of the slots were left, at most, and most flows waited"
        unsettled = now
