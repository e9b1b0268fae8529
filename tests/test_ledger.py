"""The ledger: real SQLite files, real processes, a real kill -9."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson
import pytest

from cai_cli.engine.disk import filesystem_in, refuse_network_filesystem
from cai_cli.engine.ledger import GROUP_S, SCHEMA_VERSION, Ledger, key_of
from cai_cli.errors import Exit, Fatal, Fix, Reject
from cai_cli.flow import Model, Reply, Request
from cai_cli.records import Turn

MODEL = Model(provider="scripted", name="m", params={"max_tokens": 64})


def request(text: str, **more: Any) -> Request:
    return Request(model=MODEL, messages=(Turn(role="user", content=text),), stage="generate", row="r1", **more)


def put(ledger: Ledger, text: str, answer: str, dollars: float = 0.0) -> Awaitable[None]:
    asked = request(text)
    return ledger.put(key_of(asked), asked, Reply(text=answer, tokens_in=3, tokens_out=5), "host", dollars)


@contextmanager
def opened(path: Path, run: str = "run-1", job: str = "job") -> Iterator[Ledger]:
    ledger = Ledger(path, run, job)
    try:
        yield ledger
    finally:
        ledger.close()


def text_of(ledger: Ledger, text: str) -> str | None:
    found = ledger.get(key_of(request(text)))
    return found.text if isinstance(found, Reply) else None


def run_python(code: str, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", textwrap.dedent(code), *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


WRITER = """
    import asyncio, sys
    from pathlib import Path
    from cai_cli.engine.ledger import Ledger, key_of
    from cai_cli.flow import Model, Reply, Request
    from cai_cli.records import Turn

    path, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    model = Model(provider="scripted", name="m", params={"max_tokens": 64})

    async def one(ledger, text):
        asked = Request(model=model, messages=(Turn(role="user", content=text),))
        await ledger.put(key_of(asked), asked, Reply(text="answer to " + text), "host", 0.25)
        print(text, flush=True)

    async def main():
        ledger = Ledger(path, "run-" + name, "job")
        for start in range(0, count, 25):
            await asyncio.gather(*(one(ledger, f"{name}-{n}") for n in range(start, start + 25)))
        ledger.close()

    asyncio.run(main())
"""


# Keys


@pytest.mark.parametrize(
    "other",
    [
        request("b"),
        request("a", draw=1),
        request("a", attempt=1),
        request("a", system="s"),
        request("a", schema={"type": "object"}),
        Request(model=Model(provider="simulated", name="m", params={"max_tokens": 64}), messages=request("a").messages),
        Request(model=Model(provider="scripted", name="m", params={"max_tokens": 65}), messages=request("a").messages),
        Request(model=MODEL, messages=(Turn(role="assistant", content="a"),)),
    ],
)
def test_another_question_has_another_key(other: Request) -> None:
    assert key_of(other) != key_of(request("a"))


def test_where_and_for_whom_it_is_asked_does_not_change_the_key() -> None:
    elsewhere = Model(
        provider="scripted", name="m", params={"max_tokens": 64}, base_urls=("http://127.0.0.1:1",), price={"input": 1}
    )
    assert key_of(Request(model=elsewhere, messages=request("a").messages, stage="revise", row="r9")) == key_of(request("a"))


def test_the_key_is_the_same_in_every_release() -> None:
    """If this changes, every reply that anybody ever bought is bought again."""
    assert key_of(request("a")).hex() == "3baea297e43fc2b4c64458b7e252fc86e1ee6aef6a1a0651c45c333219149fce"


# Replies and failures


def test_a_reply_is_there_after_a_restart_and_the_first_one_stays(tmp_path: Path) -> None:
    path = tmp_path / ".cai" / "ledger.sqlite"
    with opened(path) as ledger:
        asyncio.run(put(ledger, "q", "first"))  # type: ignore[arg-type]
        asyncio.run(put(ledger, "q", "second"))  # type: ignore[arg-type]
        assert text_of(ledger, "q") == "first"
    with opened(path, "run-2") as ledger:
        found = ledger.get(key_of(request("q")))
    assert found == Reply(text="first", tokens_in=3, tokens_out=5)


def test_many_writes_at_once_share_a_few_commits(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"

    async def all_of_them(ledger: Ledger) -> None:
        await asyncio.gather(*(put(ledger, f"q{n}", f"a{n}", 0.5) for n in range(500)))

    with opened(path) as ledger:
        began = time.monotonic()
        asyncio.run(all_of_them(ledger))
        assert time.monotonic() - began < 2.5  # one by one they would take 500 group times, 5 s
        assert [text_of(ledger, f"q{n}") for n in range(500)] == [f"a{n}" for n in range(500)]
        assert ledger.spent() == (250.0, 0.0)


def test_two_replies_to_one_question_in_one_commit_are_the_first_and_both_are_paid(tmp_path: Path) -> None:
    async def both(ledger: Ledger) -> None:
        await asyncio.gather(*(put(ledger, "q" if n % 2 else f"q{n}", f"a{n}", 0.5) for n in range(90)))

    with opened(tmp_path / "ledger.sqlite") as ledger:
        asyncio.run(both(ledger))
        assert text_of(ledger, "q") == "a1"
        assert [text_of(ledger, f"q{n}") for n in range(0, 90, 2)] == [f"a{n}" for n in range(0, 90, 2)]
        assert ledger.spent() == (45.0, 0.0)


def test_a_lone_reply_does_not_wait_for_company(tmp_path: Path) -> None:
    async def one_by_one(ledger: Ledger, first: int) -> float:
        began = time.monotonic()
        for n in range(first, first + 10):
            await put(ledger, f"q{n}", "a")
        return time.monotonic() - began

    with opened(tmp_path / "ledger.sqlite") as ledger:
        assert min(asyncio.run(one_by_one(ledger, first)) for first in range(0, 100, 10)) < 10 * GROUP_S


def test_a_ledger_whose_replies_are_plain_json_is_read_and_written_on(tmp_path: Path) -> None:
    path, earlier = tmp_path / "ledger.sqlite", Reply(text="bought before " * 40, tokens_in=3)
    with opened(path) as ledger:
        asyncio.run(put(ledger, "q", "a"))  # type: ignore[arg-type]
    db = sqlite3.connect(path)
    db.execute("UPDATE replies SET reply = ?", (orjson.dumps(earlier),))
    db.execute("PRAGMA user_version=1")
    db.commit()
    with opened(path, "run-2") as ledger:
        assert ledger.get(key_of(request("q"))) == earlier
        asyncio.run(put(ledger, "r", "new " * 200))  # type: ignore[arg-type]
        assert text_of(ledger, "r") == "new " * 200
    assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
    ((size,),) = db.execute("SELECT length(reply) FROM replies WHERE key = ?", (key_of(request("r")),)).fetchall()
    db.close()
    assert size < 400


def test_files_are_the_owners_alone(tmp_path: Path) -> None:
    path = tmp_path / ".cai" / "ledger.sqlite"
    with opened(path) as ledger:
        asyncio.run(put(ledger, "q", "a"))  # type: ignore[arg-type]
        modes = {file.name: oct(file.stat().st_mode & 0o777) for file in path.parent.iterdir()}
    assert set(modes) >= {"ledger.sqlite", "ledger.sqlite-wal"}
    assert set(modes.values()) == {"0o600"}
    assert path.parent.stat().st_mode & 0o777 == 0o700


def test_a_failure_replays_until_it_is_voided(tmp_path: Path) -> None:
    asked, reject = request("q"), Reject("http_400", "said so", "400 invalid_request_error")
    with opened(tmp_path / "ledger.sqlite") as ledger:
        asyncio.run(ledger.fail(key_of(asked), asked, reject))
        found = ledger.get(key_of(asked))
        assert isinstance(found, Reject)
        assert (found.reason, found.detail, found.signature) == ("http_400", "said so", "400 invalid_request_error")
        asyncio.run(ledger.void_failures("404 not_found_error"))
        assert ledger.get(key_of(asked)) is not None
        asyncio.run(ledger.void_failures("400 invalid_request_error"))
        assert ledger.get(key_of(asked)) is None


def test_a_confirmed_failure_stays_whatever_a_later_run_finds_systemic(tmp_path: Path) -> None:
    asked, reject = request("q"), Reject("http_400", "", "400 x")
    with opened(tmp_path / "ledger.sqlite") as ledger:
        asyncio.run(ledger.fail(key_of(asked), asked, reject))
        asyncio.run(ledger.confirm_failures())
        asyncio.run(ledger.void_failures("400 x"))
        assert isinstance(ledger.get(key_of(asked)), Reject)


def test_what_cannot_be_written_fails_its_writer_and_nobody_else(tmp_path: Path) -> None:
    """A lone surrogate is no UTF-8; the writing thread must outlive it, or every later write would wait for ever."""
    asked = request("q")
    with opened(tmp_path / "ledger.sqlite") as ledger:
        with pytest.raises(UnicodeEncodeError):
            asyncio.run(ledger.fail(key_of(asked), asked, Reject("http_400", "\ud800")))
        asyncio.run(asyncio.wait_for(put(ledger, "q", "a"), 10))  # type: ignore[arg-type]
        assert text_of(ledger, "q") == "a"


# Money


def test_a_lease_is_all_or_nothing_under_the_cap_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"

    async def back(ledger: Ledger, dollars: float) -> None:
        ledger.unlease(dollars)
        await ledger.confirm_failures()  # any write: the queue keeps its order

    with opened(path) as first, opened(path, "run-2") as second, opened(path, "run-3", "another job") as apart:
        assert asyncio.run(first.lease(3.0, 5.0))
        assert not asyncio.run(second.lease(3.0, 5.0))
        assert asyncio.run(second.lease(2.0, 5.0))
        assert asyncio.run(apart.lease(3.0, 5.0))
        asyncio.run(put(first, "q", "a", 0.5))  # type: ignore[arg-type]
        asyncio.run(back(first, 3.0))
        assert first.spent() == (0.5, 2.0)
        assert asyncio.run(second.lease(2.5, 5.0))
        asyncio.run(second.release())
        assert first.spent() == (0.5, 0.0)


def test_what_a_killed_run_had_set_aside_stays_counted(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with opened(path) as ledger:
        asyncio.run(ledger.lease(4.0, 5.0))
    with opened(path, "run-2") as ledger:
        assert not asyncio.run(ledger.lease(1.5, 5.0))
        assert asyncio.run(ledger.lease(1.0, 5.0))


# Processes


def test_two_processes_write_to_one_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    writers = [run_python(WRITER, str(path), name, "100") for name in ("one", "two")]
    said = [writer.communicate(timeout=60) for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0], said
    with opened(path) as ledger:
        assert all(text_of(ledger, f"{name}-{n}") == f"answer to {name}-{n}" for name in ("one", "two") for n in range(100))
        assert ledger.spent() == (50.0, 0.0)


def test_many_processes_may_create_it_at_the_same_moment(tmp_path: Path) -> None:
    code = """
        import sys, time
        from pathlib import Path
        from cai_cli.engine.ledger import Ledger
        print("ready", flush=True)
        sys.stdin.read()
        for n in range(10):
            Ledger(Path(sys.argv[1]) / f"{n}.sqlite", sys.argv[2], "job").close()
    """
    command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    openers = [subprocess.Popen([*command, f"run-{n}"], **pipes) for n in range(4)]
    for opener in openers:
        assert opener.stdout.readline() == "ready\n"
    for opener in openers:
        opener.stdin.close()
    errors = [opener.stderr.read() for opener in openers]
    assert [opener.wait(60) for opener in openers] == [0] * 4, errors


def test_kill_9_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    writer = run_python(WRITER, str(path), "one", "100000")
    assert writer.stdout is not None
    acknowledged = [writer.stdout.readline().strip() for _ in range(180)]
    os.kill(writer.pid, signal.SIGKILL)
    acknowledged += writer.stdout.read().split("\n")[:-1]  # the last line may be cut off
    assert writer.wait(30) == -signal.SIGKILL
    with opened(path, "run-2") as ledger:
        assert [text_of(ledger, text) for text in acknowledged] == [f"answer to {text}" for text in acknowledged]
        settled, _ = ledger.spent()
        assert settled >= 0.25 * len(acknowledged)
        asyncio.run(put(ledger, "after", "it goes on"))  # type: ignore[arg-type]
        assert text_of(ledger, "after") == "it goes on"


# Trouble


def test_a_ledger_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with opened(path):
        pass
    db = sqlite3.connect(path)
    db.execute(f"PRAGMA user_version={SCHEMA_VERSION + 1}")
    db.close()
    with pytest.raises(Fix, match="newer cai") as caught:
        Ledger(path, "run-2", "job")
    assert "pip install --upgrade" in caught.value.hint


def test_a_file_that_is_no_ledger_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"this is not a database, whatever its name says" * 100)
    with pytest.raises(Fix, match=r"ledger\.sqlite cannot be opened") as caught:
        Ledger(path, "run-1", "job")
    assert caught.value.code is Exit.DISK


def test_a_state_folder_that_is_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("")
    with pytest.raises(Fix, match="cannot be opened"):
        Ledger(tmp_path / "state" / "ledger.sqlite", "run-1", "job")


def test_a_disk_that_takes_no_more_stops_the_run_and_keeps_every_reply(tmp_path: Path) -> None:
    """The kernel refuses to let the process write files beyond 400 kB."""
    code = """
        import asyncio, resource, sys
        from pathlib import Path
        from cai_cli.engine.ledger import Ledger, key_of
        from cai_cli.errors import Fatal
        from cai_cli.flow import Model, Reply, Request
        from cai_cli.records import Turn

        model = Model(provider="scripted", name="m", params={"max_tokens": 64})

        async def main():
            ledger = Ledger(Path(sys.argv[1]), "run-1", "job")
            resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
            try:
                for n in range(1000):
                    asked = Request(model=model, messages=(Turn(role="user", content=f"big-{n}"),))
                    await ledger.put(key_of(asked), asked, Reply(text="x" * 20_000), "host", 0.25)
                    print(f"big-{n}", flush=True)
            except Fatal as fatal:
                print(int(fatal.code), bool(fatal.hint), flush=True)
            ledger.close()

        asyncio.run(main())
    """
    path = tmp_path / "ledger.sqlite"
    *acknowledged, last = run_python(code, str(path)).communicate(timeout=60)[0].splitlines()
    assert last == f"{int(Exit.DISK)} True"
    assert 5 < len(acknowledged) < 100
    with opened(path, "run-2") as ledger:
        assert all(text_of(ledger, text) == "x" * 20_000 for text in acknowledged)
        assert ledger.spent()[0] == 0.25 * len(acknowledged)


def test_after_a_failed_write_the_next_ones_fail_at_once(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    with opened(path) as ledger:
        db = sqlite3.connect(path)
        db.execute("DROP TABLE spending")
        db.close()
        began = time.monotonic()
        for call in (ledger.release, lambda: ledger.charge(1.0), lambda: put(ledger, "q", "a")):
            with pytest.raises(Fatal, match="cannot be written") as caught:
                asyncio.run(awaited(call))
            assert caught.value.code is Exit.DISK
        assert time.monotonic() - began < 5
        assert text_of(ledger, "q") is None  # a reply whose price is not counted is not kept either


async def awaited(call: Callable[[], Awaitable[Any]]) -> Any:
    return await call()


# File systems

MOUNTS = """\
22 27 0:21 / /proc rw - proc proc rw
27 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
31 27 0:40 / /home rw,relatime shared:7 - nfs4 server:/home rw,vers=4.2
32 31 0:41 / /home/me/local\\040disk rw - xfs /dev/sdb1 rw
33 27 0:42 / /mnt/auto rw - autofs systemd-1 rw
34 33 0:43 / /mnt/auto rw - cifs //server/share rw
35 27 0:44 / /mnt/back\\134slash rw - lustre mds:/fs rw
"""


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        ("/srv/data", "ext4"),
        ("/", "ext4"),
        ("/home", "nfs4"),
        ("/home/me", "nfs4"),
        ("/homework", "ext4"),
        ("/home/me/local disk/state", "xfs"),
        ("/mnt/auto/x", "cifs"),
        ("/mnt/back\\slash/x", "lustre"),
    ],
)
def test_the_file_system_is_that_of_the_innermost_newest_mount(target: str, kind: str) -> None:
    assert filesystem_in(MOUNTS, target) == kind


def test_a_ledger_on_a_network_file_system_is_refused() -> None:
    refuse_network_filesystem(Path("/srv/data"), MOUNTS)
    with pytest.raises(Fix, match=r"/home/me/out/\.cai lies on a network file system \(nfs4\)") as caught:
        refuse_network_filesystem(Path("/home/me/out/.cai"), MOUNTS)
    assert caught.value.code is Exit.USAGE
    assert "CAI_STATE" in caught.value.hint
