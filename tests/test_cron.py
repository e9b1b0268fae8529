"""Started as cron starts it: no home, no terminal, a short PATH, nothing on standard input, and somewhere else."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from outside import JUST_GENERATE, SIMULATED, questions, rows_of, write_config, write_rows

ROOT = Path(__file__).parent.parent
BARE = {"PATH": "/usr/bin:/bin", "SHELL": "/bin/sh", "LOGNAME": "nobody", "LC_ALL": "C"}
SLOW = {**SIMULATED, "world": {"latency_ms": 250}}
WHEN = r"\d\d:\d\d:\d\d "


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """An absolute path, as a crontab names it; the output is one too, since cron starts in the home folder or in /."""
    write_rows(tmp_path / "prompts.jsonl", [*questions(12), {"prompt": "Où achète-t-on un vélo ?"}])
    return write_config(tmp_path, output=str(tmp_path / "out"), model=SLOW, limits={"concurrency": 4})


def job(config: Path, *words: str, redirections: str = "<&-", **env: str) -> subprocess.Popen[bytes]:
    """`cai run CONFIG`, started by a shell in the root folder with next to no environment."""
    command = f'exec "$@" {redirections}'
    ours = [sys.executable, "-m", "cai_cli", "run", str(config), *words]
    variables = {**BARE, "PYTHONPATH": str(ROOT), **env}
    return subprocess.Popen(["/bin/sh", "-c", command, "sh", *ours], cwd="/", env=variables, **_pipes())


def _pipes() -> dict[str, Any]:
    return {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


def ended(process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=120)
    return process.returncode, out.decode(), err.decode()


def begun(process: subprocess.Popen[bytes], config: Path) -> None:
    """Wait until it holds the output."""
    lock = config.parent / "out" / ".cai" / "lock"
    for _ in range(200):
        if lock.exists() and lock.stat().st_size:
            return
        time.sleep(0.05)
    raise AssertionError(f"it never began: {process.poll()}")


def test_a_job_runs_to_its_end_and_logs_plain_timed_lines(config: Path) -> None:
    code, out, err = ended(job(config))
    assert (code, out) == (0, ""), err
    assert "\x1b" not in err
    assert "\r" not in err
    first, *rest = err.splitlines()
    assert re.match(WHEN + r" *\d+% \d+/13 prompts \[", first)
    assert f"written   {config.parent}/out" in rest, "a whole path: nobody knows where cron was"
    assert f"look      cai show {config}" in rest
    texts = [row["prompt"] for row in rows_of(config.parent / "out" / "generate" / "latest")]
    assert "Où achète-t-on un vélo ?" in texts, "whatever the locale"
    code, _, err = ended(job(config))
    assert code == 0
    assert err.startswith("cai: nothing new"), "the next night: one line"
    assert err.count("\n") == 1


def test_of_two_jobs_the_second_says_who_is_there_and_exits_as_it_was_told(config: Path) -> None:
    first = job(config)
    begun(first, config)
    code, _, err = ended(job(config))
    assert code == 75
    assert f"process {first.pid} " in err
    assert "--if-locked wait|skip" in err
    code, _, err = ended(job(config, "--if-locked", "skip"))
    assert code == 0
    assert re.fullmatch(r"cai: skipped: this output is held by process \d+ on \S+ since .*\n", err)
    waiting = job(config, "--if-locked", "wait")
    assert ended(first)[0] == 0
    code, _, err = ended(waiting)
    assert code == 0
    assert "nothing new" in err


def test_a_job_that_is_ended_says_how_to_go_on_and_goes_on(config: Path) -> None:
    first = job(config)
    begun(first, config)
    assert first.stderr is not None
    first.stderr.readline()  # the first timed line: it asks by now
    first.send_signal(signal.SIGTERM)
    code, _, err = ended(first)
    assert code == 75
    last = err.splitlines()[-1]
    assert re.fullmatch(
        r"cai: \d+/13 rows done, \d+ in flight at the stop(?: \(may be billed twice\))?; go on with: cai run \S+", last
    )
    code, out, _ = ended(job(config, "--json", "-q"))
    assert code == 0
    assert json.loads(out)["stages"]["generate"]["replayed"] > 0


@pytest.mark.parametrize("redirections", ["<&- >&-", "<&- >&- 2>&-", "2>&-"])
def test_what_is_closed_is_not_taken_for_a_file(redirections: str, config: Path) -> None:
    code, _, _ = ended(job(config, "--json", redirections=redirections))
    assert code == 0
    ledger = (config.parent / "out" / ".cai" / "ledger.sqlite").read_bytes()
    assert ledger.startswith(b"SQLite format 3\x00")
    assert b"prompts [" not in ledger
    assert len(rows_of(config.parent / "out" / "debias" / "latest")) > 0


def test_temporary_files_are_not_needed(tmp_path: Path) -> None:
    write_rows(tmp_path / "prompts.jsonl", questions(2))
    config = write_config(tmp_path, output=str(tmp_path / "out"), **JUST_GENERATE)
    assert ended(job(config, TMPDIR="/nonexistent"))[0] == 0


def test_a_user_without_a_home_is_told_what_a_dataset_needs(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    write_rows(tmp_path / "data" / "train.jsonl", questions(2))
    config = write_config(tmp_path, output=str(tmp_path / "out"), prompts={"dataset": str(tmp_path / "data")}, **JUST_GENERATE)
    nowhere = "~"  # what Python makes of ~ for a user of whom the system knows nothing
    code, _, err = ended(job(config, HOME=nowhere))
    assert code == 2
    assert "hint: export HF_HOME=" in err
    assert ended(job(config, HOME=nowhere, HF_HOME=str(tmp_path / "hf")))[0] == 0
    assert not Path("/~").exists()
