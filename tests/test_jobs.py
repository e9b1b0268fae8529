"""The ready files of configs/jobs, used as they are: a crontab line under cron's environment, a Makefile, a SLURM script."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import time
from pathlib import Path

import pytest
from loopback import Server
from outside import PYTHONPATH, ROOT, at, checkout, questions, rows_of, write_config, write_rows

JOBS = ROOT / "configs" / "jobs"
GENERATE = dict.fromkeys(("critique", "revise", "label_pairs", "debias"))  # nothing but the first stage


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a config, four prompts, and an environment with `cai` in it."""
    checkout(tmp_path)
    write_rows(tmp_path / "prompts.jsonl", questions(4))
    write_config(tmp_path, **GENERATE)
    return tmp_path


def cron_line(folder: Path) -> str:
    """The crontab's one line as /bin/sh gets it, its variables set to what is in the folder."""
    lines = [line for line in (JOBS / "crontab").read_text().splitlines() if line and not line.startswith("#")]
    variables = dict(line.split("=", 1) for line in lines[:-1])
    assert variables.keys() == {"SHELL", "CAI", "CONFIG", "KEYS"}
    when, command = re.fullmatch(r"((?:\S+ ){4}\S+) +(.*)", lines[-1]).groups()  # type: ignore[union-attr]
    assert when == "0 3 * * *"
    (folder / ".keys").write_text("ANTHROPIC_API_KEY=any\n")
    given = {"CAI": folder / ".venv/bin/cai", "CONFIG": folder / "c.yaml", "KEYS": folder / ".keys"}
    return " ".join(f"{name}={shlex.quote(str(value))};" for name, value in given.items()) + command.replace(
        "/srv/data", str(folder)
    )


def cron(folder: Path, command: str) -> tuple[int, str]:
    """Run a command with what cron gives it: nearly nothing. Gives: its exit code, and what cron would mail"""
    kept = {name: os.environ[name] for name in ("REACHED_DIR",) if name in os.environ}
    env = {
        "PATH": "/usr/bin:/bin",
        "SHELL": "/bin/sh",
        "HOME": str(folder),
        "LOGNAME": "somebody",
        "PYTHONPATH": PYTHONPATH,
        **kept,
    }
    words = ["/bin/sh", "-c", command]
    done = subprocess.run(
        words, cwd="/", env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120
    )
    return done.returncode, done.stdout.decode()


def test_the_crontab_line_makes_a_dataset_and_has_nothing_to_mail(folder: Path) -> None:
    command = cron_line(folder)
    assert [cron(folder, command), cron(folder, command)] == [(0, ""), (0, "")]
    (output,) = (folder / "out" / "generate").glob("v*")
    assert len(rows_of(output)) == 8


def test_the_crontab_line_hands_the_key_on(folder: Path, server: Server) -> None:
    write_config(folder, **GENERATE, model=at(server.url, max_tokens=64))
    assert cron(folder, cron_line(folder)) == (0, "")
    assert server.stats()["total"] == 8


def test_a_stop_is_mailed(folder: Path) -> None:
    write_config(folder, **GENERATE, limits={"budget_usd": 0.001},
                 model={"provider": "simulated", "price": {"input": 9, "output": 9}})  # fmt: skip
    code, mailed = cron(folder, cron_line(folder))
    assert code == 75
    assert "go on with: " in mailed


def slurm(folder: Path) -> dict[str, str]:
    """The environment of a job on the node n7, with an `sbatch` that notes what it was given."""
    (folder / ".venv" / "bin" / "sbatch").write_text(f'#!/bin/sh\necho "$@" >> {folder}/submitted\n')
    (folder / ".venv" / "bin" / "sbatch").chmod(0o755)
    return {**os.environ, "CAI_VENV": str(folder / ".venv"), "CAI_STATE": str(folder / "state"), "PYTHONPATH": PYTHONPATH,
            "PATH": f"{folder}/.venv/bin:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURMD_NODENAME": "n7"}  # fmt: skip


def test_the_slurm_script_stops_in_good_order_and_submits_itself_to_the_same_node(folder: Path, server: Server) -> None:
    server.reset(latency_ms=1500)
    write_config(folder, **GENERATE, model=at(server.url, max_tokens=64), limits={"concurrency": 1})
    command = ["bash", str(JOBS / "cai.sbatch"), "c.yaml", "-q"]
    with subprocess.Popen(command, cwd=folder, env=slurm(folder), stderr=subprocess.PIPE) as job:
        while not server.stats()["total"]:
            time.sleep(0.05)
        job.send_signal(signal.SIGTERM)
        _, said = job.communicate(timeout=60)
    assert job.returncode == 75, said
    assert b"go on with: " in said
    assert (folder / "submitted").read_text() == f"--nodelist=n7 {JOBS / 'cai.sbatch'} c.yaml -q\n"
    server.reset(latency_ms=0)
    assert subprocess.run(command, cwd=folder, env=slurm(folder), timeout=120).returncode == 0
    assert len(rows_of(next((folder / "out" / "generate").glob("v*")))) == 8
    assert (folder / "submitted").read_text().count("\n") == 1


def test_a_stop_that_somebody_must_act_on_is_not_submitted_again(folder: Path) -> None:
    model = {"provider": "simulated", "price": {"input": 9, "output": 9}}
    write_config(folder, **GENERATE, model=model, limits={"budget_usd": 0.001})
    done = subprocess.run(["bash", str(JOBS / "cai.sbatch"), "c.yaml", "-q"], cwd=folder, env=slurm(folder), timeout=60)
    assert done.returncode == 75
    assert not (folder / "submitted").exists()


def test_the_slurm_script_asks_for_a_local_disk(folder: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name != "CAI_STATE"} | {"CAI_VENV": str(folder / ".venv")}
    done = subprocess.run(["bash", str(JOBS / "cai.sbatch"), "c.yaml"], cwd=folder, env=env, capture_output=True, timeout=60)
    assert done.returncode != 0
    assert b"CAI_STATE" in done.stderr
