"""The key goes to the server it is for, and nowhere else: no file, no message, no traceback, no process list."""

from __future__ import annotations

import hashlib
import json
import os
import socket
import time
from pathlib import Path

import pytest
from loopback import Server
from outside import Done, at, cai, files_that_hold, finish, questions, start, write_config, write_rows


@pytest.fixture
def folder(server: Server, tmp_path: Path) -> Path:
    write_rows(tmp_path / "prompts.jsonl", questions(30))
    write_config(tmp_path, model=at(server.url), shards={"rows": 4})
    return tmp_path


def assert_unseen(secret: str, folder: Path, *commands: Done) -> None:
    """Neither what commands said nor any file they left holds the secret, or the better part of it."""
    for part in (secret, secret[:-4], secret[4:]):
        assert [command for command in commands if part in command.out + command.err] == []
        assert files_that_hold(part, folder, Path(os.environ["HOME"])) == []


def test_a_whole_run_leaves_no_trace_of_the_key_that_it_sent(server: Server, folder: Path, canary: str) -> None:
    done = cai(folder, "run", "c.yaml", "-v", "--json")
    assert done.code == 0
    assert server.stats()["keys"] == [hashlib.sha256(f"Bearer {canary}".encode()).hexdigest()]
    told = [cai(folder, verb, "c.yaml") for verb in ("status", "verify", "show")]
    assert_unseen(canary, folder, done, *told)


@pytest.mark.parametrize("fail", ["401@1-", "403@20-", "400@1-", "cut@3-9", "spend@10-", "redirect@1-"])
def test_no_failure_shows_the_key(server: Server, folder: Path, canary: str, fail: str) -> None:
    server.reset(fail=[fail])
    assert_unseen(canary, folder, cai(folder, "run", "c.yaml", "-v"), cai(folder, "run", "c.yaml"))


def test_a_killed_run_leaves_no_trace_of_the_key(server: Server, folder: Path, canary: str) -> None:
    server.reset(latency_ms=60)
    process = start(folder, "run", "c.yaml", "-v")
    while server.stats()["total"] < 60:
        assert process.poll() is None
        time.sleep(0.01)
    seen = {path: path.read_bytes() for path in process_list()}
    assert any(b"cai_cli\0run" in line for line in seen.values())
    assert [path for path, line in seen.items() if canary.encode() in line] == []
    process.kill()
    assert_unseen(canary, folder, finish(process))


def process_list() -> list[Path]:
    """What `ps` reads, for processes that are still there."""
    found = [path / "cmdline" for path in Path("/proc").iterdir() if path.name.isdigit()]
    return [path for path in found if path.exists() and os.access(path, os.R_OK) and path.parent.stat().st_uid == os.getuid()]


def test_a_bug_report_holds_neither_the_key_nor_a_row(server: Server, folder: Path, canary: str) -> None:
    # A partition's marker that another program wrote over: what the code relies on does not hold any more, which is a bug's face.
    server.reset(fail=["401@40-"])
    stopped = cai(folder, "run", "c.yaml")
    (job,) = (folder / "out/.cai/staging").iterdir()
    text = questions(1)[0]["prompt"]
    (job / "parts/00000.json").write_text(json.dumps({"generate": f"{text} {canary}"}))
    server.reset(fail=[])
    broken = cai(folder, "run", "c.yaml")
    assert (stopped.code, broken.code) == (77, 1)
    assert "Traceback" not in broken.err
    (report,) = (folder / "tmp").glob("cai-bug-*")
    assert str(report) in broken.err
    assert text not in report.read_text() + broken.err
    assert "TypeError" in report.read_text()
    (job / "parts/00000.json").unlink()
    assert_unseen(canary, folder, stopped, broken)


def test_a_config_cannot_hold_a_key(folder: Path, canary: str) -> None:
    config = folder / "c.yaml"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model": {"provider": "anthropic", "api_key": "x"}}))
    done = cai(folder, "run", "c.yaml")
    assert done.code == 2
    assert "api_key" in done.err


def test_state_is_for_its_owner_only(server: Server, folder: Path) -> None:
    assert cai(folder, "run", "c.yaml").code == 0
    state = folder / "out/.cai"
    assert {path.stat().st_mode & 0o077 for path in (state, state / "ledger.sqlite", state / "lock", state / "runs")} == {0}


# The suite itself


def test_the_suite_reaches_no_network() -> None:
    for address in (("192.0.2.1", 80), ("2001:db8::1", 443)):
        with (
            socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET) as plain,
            pytest.raises(ConnectionRefusedError, match="tests reach no network"),
        ):
            plain.connect(address)


def test_the_key_of_all_tests_is_the_canary(canary: str) -> None:
    assert os.environ["ANTHROPIC_API_KEY"] == canary
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    assert Path.home() == Path(os.environ["HOME"])
    assert files_that_hold(canary, Path(__file__).parent) == []
