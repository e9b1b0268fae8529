"""`cai status`, and what a run tells it: how fast lately, at what cost, whom it asks, since when nobody answers."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback import Server
from outside import SIMULATED, Cai, finish, questions, start, write_config, write_rows
from rich.console import Console

from cai_cli.engine.speed import Speed, in_all
from cai_cli.reports.standing import Standing, failing, frame, line, money, old

SLOW = {**SIMULATED, "world": {"latency_ms": 200}}
FACTS = {
    "rows": 3,
    "rejected": {"empty": 2},
    "filtered": {},
    "requests": 4,
    "replayed": 1,
    "tokens_in": 9,
    "tokens_out": 9,
    "dollars": 1.5,
}
SERVER = {"host": "a:1", "in_flight": 3, "slots": 8, "shared": 2, "oldest_s": 2.0, "failing_s": None, "rests_s": 0.0, "said": ""}


def config(folder: Path, prompts: int = 30, **sections: Any) -> Path:
    write_rows(folder / "prompts.jsonl", questions(prompts))
    return write_config(folder, **{"model": SLOW, "limits": {"concurrency": 4}, **sections})


def status(cai: Cai, *words: object) -> dict[str, Any]:
    code, out, _ = cai("status", "c.yaml", "--json", *words)
    assert code == 0
    return dict(json.loads(out))


@contextmanager
def going(folder: Path, *words: object, env: dict[str, str | None] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A run that has begun to ask."""
    process = start(folder, "run", "c.yaml", *words, env=env)
    try:
        assert process.stderr is not None
        assert b"prompts [" in process.stderr.readline(), "its first timed line"
        yield process
    finally:
        process.kill()
        process.communicate()


# The command.


def test_of_a_run_that_goes_on_all_is_told(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path)
    with going(tmp_path):
        time.sleep(1.5)
        found = status(cai)
        _, out, _ = cai("status", "c.yaml")
    (run,) = found["runs"]
    assert run["state"] == "running"
    assert [(one["host"], one["slots"], one["failing_s"]) for one in run["servers"]] == [("simulated", 4, None)]
    assert run["oldest"]["deadline_s"] > 60
    assert (found["batches"], found["held_by"], found["go_on"]) == ([], "", None)
    assert found["disk"]["ledger_bytes"] > 0
    assert found["disk"]["free_bytes"] == pytest.approx(found["disk_free_bytes"])
    assert re.search(r"^running for \ds, process \d+$", out, re.MULTILINE)
    assert re.search(r"^command   cai run c.yaml$", out, re.MULTILINE)
    assert "4 slots" in out


def test_when_it_is_over_nothing_of_the_moment_stays_in_its_log(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, prompts=3)
    assert cai("run", "c.yaml", "-q")[0] == 0
    found = status(cai)
    (run,) = found["runs"]
    assert not {"per_s", "servers", "oldest", "held", "slots"} & run.keys()
    assert found["disk"]["stages"]["generate"] > 0
    assert found["disk"]["versions"] == dict.fromkeys(("generate", "critique", "revise", "label-pairs", "debias"), 1)
    assert found["disk"]["output_bytes"] > sum(found["disk"]["stages"].values()), "the card too"
    _, out, _ = cai("status", "c.yaml")
    assert re.search(r"generate +v0001-\w+ +6 +0 +0 +[\d.]+ kB +1\n", out)


def test_a_killed_run_goes_on_from_wherever_one_looks(cai: Cai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config(tmp_path)
    with going(tmp_path):
        pass
    found = status(cai)
    assert found["runs"][0]["state"] == "killed"
    assert found["go_on"] == "cai run c.yaml"
    (tmp_path / "else where").mkdir()
    monkeypatch.chdir(tmp_path / "else where")
    out = cai("status", "../c.yaml", "-o", tmp_path / "out")[1]
    assert re.search(rf"go on +cd {tmp_path} && cai run c.yaml\n", out)


def test_a_process_that_only_has_the_same_number_is_another_one(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path)
    with going(tmp_path):
        pass
    (log,) = (tmp_path / "out" / ".cai" / "runs").glob("*/run.json")
    log.write_text(json.dumps(json.loads(log.read_bytes()) | {"pid": os.getpid()}))
    assert status(cai)["runs"][0]["state"] == "killed"


def test_a_suspended_run_is_told_with_what_wakes_it(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path)
    with going(tmp_path) as process:
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED)
        assert status(cai)["runs"][0]["suspended"] is True
        assert f"wake it   kill -CONT {process.pid}\n" in cai("status", "c.yaml")[1]


def test_a_run_whose_log_is_elsewhere_is_told_by_its_lock(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path)
    with going(tmp_path, env={"CAI_STATE": str(tmp_path / "elsewhere")}) as process:
        found = status(cai)
        assert found["runs"] == []
        assert f"process {process.pid} " in found["held_by"]
        assert re.search(rf"held +process {process.pid} on .*CAI_STATE", " ".join(cai("status", "c.yaml")[1].split()))
    assert status(cai)["held_by"] == ""


def test_an_output_that_is_not_there_is_told_with_the_command_that_makes_it(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path)
    code, out, err = cai("status", "c.yaml", "-o", "no where")
    assert (code, out) == (0, "")
    assert err == "cai: nothing in no where yet; start with: cai run c.yaml -o 'no where'\n"
    found = status(cai, "-o", "no where")
    assert (found["runs"], found["versions"], found["ledger"], found["disk"]["output_bytes"]) == ([], {}, None, 0)


def test_what_stopped_before_anything_was_asked_shows_no_table_of_zeros(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, model={**SIMULATED, "price": {"input": 3, "output": 15}})
    code, _, err = cai("run", "c.yaml", "--budget-usd", "0.00001")
    assert code == 75
    assert "tokens" not in err
    assert err.startswith("error: ")
    assert "replayed" not in cai("status", "c.yaml")[1]


# Several servers, of which one or all are dead.


def dead() -> socket.socket:
    """A port on which nobody listens; as long as it is kept."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    return taken


def test_one_dead_server_of_two_is_told_as_one(server: Server, cai: Cai, tmp_path: Path) -> None:
    server.reset(latency_ms=200, no_key=True)
    with dead() as taken:
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        config(tmp_path, model={"provider": "anthropic", "name": "small-world", "base_url": [server.url, f"http://{host}"]})
        process = start(tmp_path, "run", "c.yaml")
        assert process.stderr is not None
        told = [process.stderr.readline().decode(), process.stderr.readline().decode()]
        servers = {one["host"]: one for one in status(cai)["runs"][0]["servers"]}
        _, out, _ = cai("status", "c.yaml")
        process.kill()
        finish(process)
    assert told[0].endswith(f"{host}: connection refused: the other server is asked meanwhile\n")
    assert f"1 of 2 servers not answering: {host} for " in told[1]
    assert "no answer for" not in told[1], "one answers"
    assert servers[host]["failing_s"] > 0
    assert servers[host]["shared"] == 2
    assert servers[server.url.removeprefix("http://")]["failing_s"] is None
    assert re.search(rf"{host} +0 +4 for all +no answer for \ds: connection refused", out)


def test_a_whole_fleet_that_is_dead_is_told_as_that(tmp_path: Path) -> None:
    with dead() as one, dead() as other:
        urls = [f"http://127.0.0.1:{taken.getsockname()[1]}" for taken in (one, other)]
        limits = {"concurrency": 2, "max_outage": "2s"}
        config(tmp_path, model={"provider": "anthropic", "name": "m", "base_url": urls}, limits=limits)
        done = finish(start(tmp_path, "generate", "c.yaml"))
    assert done.code == 69
    assert "none of 2 servers answers: asked again, later and later, for at most 2s (limits.max_outage)" in done.err


# What is shown, by what is known.


def standing(**changes: Any) -> Standing:
    known: dict[str, Any] = {
        "stages": {"generate": FACTS},
        "prompts": 4000,
        "done": 1000,
        "elapsed_s": 50,
        "per_s": 20,
        "in_flight": 6,
    }
    return Standing(**{**known, **changes})


def test_the_budget_and_where_it_leads() -> None:
    assert money(standing()) == ""
    assert money(standing(in_all_usd=6.0, gone_usd=1.5)) == "about $6.00 in all"
    assert money(standing(in_all_usd=6.0, gone_usd=2.5)) == "about $5.00 in all", "a dollar was spent before this run"
    assert money(standing(in_all_usd=6.0, budget_usd=10.0, gone_usd=2.5)) == "$2.50 of the budget of $10.00 · about $6.00 in all"
    more = standing(in_all_usd=10.5, budget_usd=10.0, gone_usd=2.5)
    assert money(more).endswith("about $10.50 in all, more than the budget")
    assert money(standing(in_all_usd=6.0, unpriced={"generate"})) == "", "nobody knows"
    assert line(more).endswith("2 rejected · $2.50 of the budget of $10.00 · about $10.50 in all, more than the budget")


def test_a_request_that_hangs_is_told_with_its_deadline() -> None:
    assert old(standing(oldest={"host": "h", "age_s": 29.0, "deadline_s": 111.2})) == ""
    hangs = standing(oldest={"host": "h", "age_s": 45.0, "deadline_s": 111.2}, slots=1, in_flight=1)
    assert old(hangs) == "oldest request: out for 45s, given up after 1m 51s"
    assert line(hangs).endswith(" · oldest request: out for 45s, given up after 1m 51s")


def test_servers_that_do_not_answer_are_named() -> None:
    assert failing(standing(servers=[{**SERVER, "failing_s": 5.0}])) == "", "one alone: its run is held, which is told"
    two = standing(servers=[SERVER, {**SERVER, "host": "b:2", "failing_s": 65.0}])
    assert failing(two) == "1 of 2 servers not answering: b:2 for 1m 05s"


@given(
    st.integers(10, 220), st.integers(4, 40), st.integers(1, 7), st.booleans(), st.booleans(), st.integers(0, 10**7),
)  # fmt: skip
def test_a_frame_fits_every_terminal(width: int, height: int, stages: int, fleet: bool, held: bool, number: int) -> None:
    one = FACTS | {"rows": number, "requests": number, "dollars": number / 100, "rejected": {"no_verdict": number, "empty": 2}}
    looks = standing(
        stages={f"stage-{n}": one for n in range(stages)}, prompts=max(1, number), done=number // 2,
        servers=[SERVER, {**SERVER, "failing_s": 5.0, "said": "connection refused"}] if fleet else [],
        held="told to wait 12s" if held else "", budget_usd=99.0, gone_usd=12.0, in_all_usd=500.0,
    )  # fmt: skip
    console = Console(file=io.StringIO(), width=width)
    console.print(frame(looks, width, height))
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    if width >= 66:
        assert "…" not in "".join(lines), "no number is cut off"
    if width >= 32:
        assert f"{number // 2:,}/{max(1, number):,} prompts" in "\n".join(lines)


# Speed.


@given(st.lists(st.tuples(st.floats(0.2, 30), st.integers(0, 50)), min_size=1, max_size=60))
def test_speed_is_that_of_the_last_minutes(steps: list[tuple[float, int]]) -> None:
    speed, at, prompts = Speed(), 1000.0, 0
    speed.note(at, prompts)
    for wait, done in steps:
        at, prompts = at + wait, prompts + done
        speed.note(at, prompts)
    paces = [done / wait for wait, done in steps]
    if speed.per_s is not None:
        assert min(paces) * 0.999 <= speed.per_s <= max(paces) * 1.001
    else:
        assert steps[-1][1] == 0, "something was finished just now"


def test_what_happened_long_ago_does_not_count() -> None:
    speed = Speed()
    for at in range(1000):
        speed.note(float(at), min(at, 500) * 7 + max(0, at - 500))
    assert speed.per_s == pytest.approx(1.0)


def test_what_it_will_cost_is_told_when_enough_is_done() -> None:
    assert in_all(gone=35.0, ended=30, dollars=30.0, left=970, open_dollars=5.0) == pytest.approx(1000)
    assert in_all(gone=15.0, ended=10, dollars=10.0, left=970, open_dollars=5.0) is None
    assert in_all(gone=1000.0, ended=999, dollars=999.0, left=1, open_dollars=1.2) == 1000.0, "what is paid stays paid"


def test_what_is_open_and_what_another_run_asked_do_not_bend_what_it_will_cost(cai: Cai, tmp_path: Path) -> None:
    """With many more prompts open than requests out, and after a kill: the first estimates are those of the end."""
    model = {**SIMULATED, "world": {"latency_ms": 200}, "price": {"input": 0, "output": 1000}}
    config(tmp_path, prompts=120, model=model, generate={"samples": 1}, revise={"rounds": 1}, limits={"concurrency": 24})
    process = start(tmp_path, "run", "c.yaml", "--budget-usd", "100000")
    looked = [run_until(tmp_path, 30)]
    process.kill()
    process.communicate()
    process = start(tmp_path, "run", "c.yaml", "--budget-usd", "100000")
    looked.append(run_until(tmp_path, 70))
    process.communicate()
    found = status(cai)
    whole, set_aside = found["ledger"]["dollars"], found["ledger"]["dollars_unsettled"]
    assert found["runs"][-1]["exit"] == 0
    assert looked[0]["dollars_in_all"] == pytest.approx(whole, rel=0.25)
    assert looked[1]["dollars_in_all"] == pytest.approx(whole + set_aside, rel=0.25), "of the budget that is gone too"
    assert looked[1]["per_s"] < 2 * found["runs"][-1]["done"] / (found["runs"][-1]["ended"] - found["runs"][-1]["started"])


def run_until(folder: Path, done: int) -> dict[str, Any]:
    """What the newest run's log says once so many prompts are done."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        logs = sorted((folder / "out" / ".cai" / "runs").glob("*/run.json"))
        facts = dict(json.loads(logs[-1].read_bytes())) if logs else {}
        if facts.get("state") == "running" and facts.get("done", 0) >= done and facts.get("dollars_in_all"):
            return facts
        time.sleep(0.02)
    raise AssertionError("it never came so far")
