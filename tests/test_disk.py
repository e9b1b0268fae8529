"""A disk that is full: who is told, how long it is waited for, and what ends the wait. Real files, real full disks."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from outside import JUST_GENERATE, SIMULATED, environment, finish, questions, write_config, write_rows

from cai_cli.engine.disk import Patience, disk_full, patiently, write_durably
from cai_cli.engine.runs import RunLog
from cai_cli.engine.shards import Made
from cai_cli.engine.sinks import StreamSink
from cai_cli.errors import Exit, Fatal
from cai_cli.records import Rejected

PROMPTS = 250


class Store:
    """Takes a file when there is room, and else says what the kernel says."""

    def __init__(self, path: Path) -> None:
        self.path, self.room, self.tries = path, threading.Event(), 0

    def write(self, text: str) -> str:
        self.tries += 1
        if not self.room.is_set():
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))
        self.path.write_text(text)
        return text


def until(there: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# Patience


def test_a_write_goes_through_once_there_is_room(tmp_path: Path) -> None:
    store, patience, done = Store(tmp_path / "f"), Patience(), list[str]()
    writer = threading.Thread(target=lambda: done.append(patiently(patience, store.write, "kept")))
    writer.start()
    until(lambda: patience.reason)
    assert patience.reason.startswith(f"the disk of {tmp_path} is full (")
    assert patience.reason.endswith(" MB free): waiting up to 10 min for room")
    store.room.set()
    writer.join()
    assert (done, store.path.read_text(), patience.reason) == (["kept"], "kept", "")


def test_the_end_of_a_run_ends_every_wait_after_one_last_try(tmp_path: Path) -> None:
    stores, patience, said = [Store(tmp_path / "a"), Store(tmp_path / "b")], Patience(), list[Exception]()

    def write(store: Store) -> None:
        try:
            patiently(patience, store.write, "x")
        except Fatal as fatal:
            said.append(fatal)

    writers = [threading.Thread(target=write, args=(store,)) for store in stores]
    for writer in writers:
        writer.start()
    until(lambda: all(store.tries for store in stores) and patience.reason)
    time.sleep(0.05)
    stores[1].room.set()
    before = stores[0].tries
    began = time.monotonic()
    assert patience.end()
    for writer in writers:
        writer.join()
    assert time.monotonic() - began < 0.8  # not the rest of a second
    assert [str(fatal) for fatal in said] == [str(disk_full(tmp_path))]
    assert stores[0].tries == before + 1
    assert stores[1].path.read_text() == "x"
    assert not patience.end()
    with pytest.raises(Fatal) as caught:
        patiently(patience, stores[0].write, "x")
    assert caught.value.code is Exit.DISK


def test_a_wait_that_was_long_enough_is_over(tmp_path: Path) -> None:
    with pytest.raises(Fatal, match=f"the disk of {tmp_path} is full"):
        patiently(Patience(wait_s=0.1), Store(tmp_path / "f").write, "x")


def test_what_waiting_does_not_mend_is_not_waited_for(tmp_path: Path) -> None:
    patience = Patience()
    with pytest.raises(FileNotFoundError):
        patiently(patience, (tmp_path / "nowhere" / "f").write_text, "x")
    assert patience.reason == ""


# Names


def full(path: Path) -> Path:
    """A path whose next durable write finds no room."""
    path.with_name(path.name + ".part").symlink_to("/dev/full")
    return path


def test_a_write_that_fails_says_which_file(tmp_path: Path) -> None:
    path = full(tmp_path / "shard.jsonl")
    with pytest.raises(OSError, match="No space left") as caught:
        write_durably(path, b"x" * 2000)
    assert caught.value.filename == str(path)
    with pytest.raises(Fatal, match=f"the disk of {tmp_path} is full"):
        patiently(Patience(wait_s=0.0), write_durably, path, b"x")


@pytest.mark.parametrize(
    "made", [Made(rows=[{"id": "r"}]), Made(rejects=[Rejected(id="r", prompt_id="r", stage="s", reason="x")])]
)
def test_a_stream_that_takes_no_more_is_named(made: Made) -> None:
    path = Path("/dev/full")
    with path.open("wb", buffering=0) as stream, pytest.raises(OSError, match="No space left") as caught:
        StreamSink(stream, "s", path).emit({"s": made})
    assert caught.value.filename == "/dev/full"


def test_a_log_that_finds_no_room_stays_as_it_was(tmp_path: Path) -> None:
    log = RunLog.begin(tmp_path, "cai run c.yaml", "c.yaml", "out")
    before = full(log.folder / "run.json").read_bytes()
    log.end("stopped", Exit.DISK)
    assert (log.folder / "run.json").read_bytes() == before


# A run on a full disk. Where this machine lets nobody mount, the ledger alone is small: the same from where the run stands.

MOUNTED = """
    mount -t tmpfs -o size=12m cai disk && head -c 11900k /dev/zero > disk/ballast && exec "$@"
"""
SMALL = """
    import functools, os, runpy, sqlite3, sys

    class Small(sqlite3.Connection):
        def execute(self, sql, *arguments):
            if sql.startswith("BEGIN"):
                super().execute(f"PRAGMA max_page_count={35 if os.path.exists('disk/ballast') else 1_000_000}")
            return super().execute(sql, *arguments)

    sqlite3.connect = functools.partial(sqlite3.connect, factory=Small)
    runpy.run_module("cai_cli", run_name="__main__")
"""


def may_mount() -> bool:
    trial = "mkdir -p m && mount -t tmpfs cai m"
    with_mount = ["unshare", "-rm", "sh", "-c", trial]
    try:
        return subprocess.run(with_mount, cwd=os.environ["HOME"], capture_output=True, timeout=20).returncode == 0
    except OSError:
        return False


DISKS = ["few pages", *(["tmpfs"] if may_mount() else [])]


@contextmanager
def begun(folder: Path, disk: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A run whose disk fills up midway; where its ballast is taken away there is room for all of it."""
    (folder / "disk").mkdir()
    write_rows(folder / "prompts.jsonl", questions(PROMPTS))
    model = {**SIMULATED, "world": {"latency_ms": 5}}
    write_config(folder, **{**JUST_GENERATE, "generate": {"samples": 1}, "output": "disk/out", "model": model, "shards": {}})
    command = [sys.executable, "-m", "cai_cli", "generate", "c.yaml", "--concurrency", "8", *arguments]
    if disk == "tmpfs":  # in a mount namespace of its own: the kernel unmounts it when the run ends, however it ends
        command = ["unshare", "-rm", "sh", "-c", textwrap.dedent(MOUNTED), "sh", *command]
    else:
        (folder / "disk" / "ballast").touch()
        command[1:3] = ["-c", textwrap.dedent(SMALL)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=pipe, stderr=pipe) as process:
        try:
            yield process
        finally:
            process.kill()


def told(process: subprocess.Popen[bytes]) -> str:
    """The first line on stderr that tells of the disk."""
    assert process.stderr is not None
    mute = threading.Timer(30, process.kill)
    mute.start()
    try:
        return next((line for line in map(bytes.decode, process.stderr) if "cai: the disk" in line), "not a word")
    finally:
        mute.cancel()


FULL = r"cai: the disk of disk/out/\.cai is full \(\d+ MB free\): waiting up to 10 min for room; Ctrl-C stops; .*\n"


@pytest.mark.parametrize("disk", DISKS)
@pytest.mark.parametrize("loud", [["-q"], []])
def test_a_run_on_a_full_disk_says_so_and_a_signal_stops_it(tmp_path: Path, disk: str, loud: list[str]) -> None:
    with begun(tmp_path, disk, *loud) as process:
        assert re.fullmatch(FULL, told(process))
        began = time.monotonic()
        process.terminate()
        stopped = finish(process)
    assert time.monotonic() - began < 5
    assert stopped.code == Exit.DISK, stopped.err
    assert "error: the disk of disk/out/.cai is full (" in stopped.err
    assert re.search(r" [1-9]\d* in flight at the stop \(may be billed twice\); go on with: cai generate c\.yaml", stopped.last)


@pytest.mark.skipif("tmpfs" not in DISKS, reason="nobody may mount here")
@pytest.mark.parametrize("left", [0, 100, 200], ids=lambda kb: f"{kb} kB left")
def test_a_disk_that_is_full_from_the_start_is_told_before_anything_is_asked(tmp_path: Path, left: int) -> None:
    write_rows(tmp_path / "prompts.jsonl", questions(2))
    write_config(tmp_path, output="disk/out")
    (tmp_path / "disk").mkdir()
    fill = f'mount -t tmpfs -o size=2000k cai disk && head -c {2000 - left}k /dev/zero > disk/ballast; exec "$@"'
    command = ["unshare", "-rm", "sh", "-c", fill, "sh", sys.executable, "-m", "cai_cli", "run", "c.yaml"]
    done = subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), capture_output=True, timeout=60)
    assert done.returncode == Exit.DISK, done.stderr
    error, hint = done.stderr.decode().splitlines()
    assert re.fullmatch(r"error: the disk of disk/out/\.cai is full \(0 MB free\)", error)
    assert "make room, then run the same command again" in hint


@pytest.mark.parametrize("disk", DISKS)
def test_a_run_goes_on_when_somebody_made_room(tmp_path: Path, disk: str) -> None:
    with begun(tmp_path, disk, "-q", "--json") as process:
        assert re.fullmatch(FULL, told(process))
        Path(f"/proc/{process.pid}/cwd/disk/ballast").unlink()
        done = finish(process)
    assert done.code == 0, done.err
    assert done.stages["generate"]["rows"] == done.asked == PROMPTS
