"""What a ledger takes, and what may leave it: by age, by stage, or superseded; never the money, never a half of anything."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from outside import JUST_GENERATE, SIMULATED, Cai, questions, write_config, write_rows

from cai_cli.config import Config, load
from cai_cli.engine import ledger_size, ledger_upkeep, reply_bytes
from cai_cli.engine.ledger import Ledger, key_of
from cai_cli.engine.ledger_upkeep import Wanted
from cai_cli.engine.lock import Held, lock_files, locked
from cai_cli.engine.runs import RunLog
from cai_cli.errors import Exit, Fatal, Fix
from cai_cli.flow import Model, Reply, Request
from cai_cli.records import Turn
from cai_cli.reports.ledger_table import pruned_lines

MODEL = Model(provider="scripted", name="m", params={"max_tokens": 64})
PROSE = "A loaf needs flour, water, salt and time; most of the work is waiting, and nothing of it is hard. " * 6
DAY = 86400.0


def made(folder: Path, **more: Any) -> Config:
    """A config with an output of its own."""
    write_rows(folder / "prompts.jsonl", questions(1))
    return load(write_config(folder, output=str(folder / "out"), **JUST_GENERATE, **more))


def asked(number: int, stage: str) -> Request:
    return Request(model=MODEL, messages=(Turn(role="user", content=f"question {number}"),), stage=stage, row=f"r{number}")


def fill(config: Config, count: int = 10, job: str = "", run: str = "run-1", first: int = 0) -> Path:
    """Replies of a cent each, the even ones of generate, the odd of critique."""
    path = config.state_path / "ledger.sqlite"
    ledger = Ledger(path, run, job or str(config.output_path.resolve()))

    async def put() -> None:
        for n in range(first, first + count):
            request = asked(n, ("generate", "critique")[n % 2])
            await ledger.put(key_of(request), request, Reply(text=f"{n}: {PROSE}", model="m"), "host", 0.01)

    asyncio.run(put())
    ledger.close()
    return path


def change(path: Path, statement: str, *values: object) -> None:
    with sqlite3.connect(path) as db:
        db.execute(statement, values)
    db.close()


def one(path: Path, statement: str) -> Any:
    db = sqlite3.connect(path)
    try:
        return db.execute(statement).fetchone()[0]
    finally:
        db.close()


def prune(config: Config, **wanted: Any) -> ledger_upkeep.Pruned:
    return ledger_upkeep.prune(config, Wanted(**wanted), "fail", "cai ledger prune")


# What it takes


def test_sizes_are_those_of_the_file_and_of_its_rows(tmp_path: Path) -> None:
    config = made(tmp_path)
    path = fill(config)
    found = ledger_size.measure(config)
    assert (found.bytes, found.replies, found.outputs) == (path.stat().st_size, 10, 1)
    assert [(stage.stage, stage.replies, round(stage.dollars, 9)) for stage in found.stages] == [
        ("generate", 5, 0.05),
        ("critique", 5, 0.05),
    ]
    kept = [reply_bytes.pack(Reply(text=f"{n}: {PROSE}", model="m")) for n in range(10)]
    assert found.stored_bytes == sum(map(len, kept))
    whole = sum(stage.unpacked_bytes for stage in found.stages)
    assert abs(whole - sum(len(reply_bytes.unpacked(data)) for data in kept)) <= 1  # of rounding
    assert found.a_million_more == round(found.bytes / 10 * 1_000_000)


def test_of_very_many_a_part_is_looked_at_and_the_ratio_is_theirs(tmp_path: Path) -> None:
    config = made(tmp_path)
    path = fill(config, 1)
    data = reply_bytes.pack(Reply(text=PROSE))
    with sqlite3.connect(path) as db:
        rows = ((os.urandom(32), "revise", data) for _ in range(3 * ledger_size.LOOKED_AT))
        db.executemany("INSERT INTO replies (key, stage, reply) VALUES (?, ?, ?)", rows)
    found = {stage.stage: stage for stage in ledger_size.measure(config).stages}
    assert found["revise"].unpacked_bytes == found["revise"].replies * len(reply_bytes.unpacked(data))


def test_an_empty_ledger_is_measured_and_none_is_told(cai: Cai, tmp_path: Path) -> None:
    config = made(tmp_path)
    with pytest.raises(Fix, match="no ledger yet") as caught:
        ledger_size.measure(config)
    assert caught.value.code == Exit.INPUT
    fill(config, 0)
    found = ledger_size.measure(config)
    assert (found.replies, found.compression, found.a_million_more) == (0, None, None)
    assert cai("ledger", "size", "c.yaml")[0] == 0


def test_after_a_run_the_newest_versions_are_counted_beside(cai: Cai, tmp_path: Path) -> None:
    write_rows(tmp_path / "p.jsonl", questions(6))
    write_config(tmp_path, prompts={"path": "p.jsonl"}, output="out", **JUST_GENERATE)
    assert cai("generate", "c.yaml", "-q")[0] == 0
    document = json.loads(cai("ledger", "size", "c.yaml", "--json")[1])
    (stage,) = document["stages"]
    assert stage["in_newest"] == stage["replies"] == document["replies"] > 0
    shown = cai("ledger", "size", "c.yaml")[1]
    assert "1M more" in shown
    assert "newest" in shown


# What goes


@pytest.mark.parametrize(
    ("wanted", "left"),
    [
        ({"stage": "critique"}, {0, 2, 4, 6, 8}),
        ({"before": 1000.0}, {4, 5, 6, 7, 8, 9}),
        ({"before": 1000.0, "stage": "critique"}, {0, 2, 4, 5, 6, 7, 8, 9}),
        ({}, set(range(10))),
    ],
)
def test_all_that_is_said_must_hold_and_nothing_said_takes_nothing(tmp_path: Path, wanted: Any, left: set[int]) -> None:
    config = made(tmp_path)
    path = fill(config)
    change(path, "UPDATE replies SET at = 5 WHERE id <= 4")
    looked = ledger_upkeep.look(config, Wanted(**wanted))
    assert (looked.done, looked.replies) == (False, 10 - len(left))
    assert one(path, "SELECT count(*) FROM replies") == 10
    found = prune(config, **wanted)
    assert found.replies == looked.replies
    assert round(found.dollars, 9) == round(0.01 * looked.replies, 9)
    ledger = Ledger(path, "run-2", "job")
    there = {n for n in range(10) if ledger.get(key_of(asked(n, ("generate", "critique")[n % 2]))) is not None}
    ledger.close()
    assert there == left


def test_what_was_spent_stays_counted_and_the_cap_holds(tmp_path: Path) -> None:
    config = made(tmp_path)
    path = fill(config)
    prune(config, before=time.time() + DAY)
    assert one(path, "SELECT count(*) FROM replies") == 0
    ledger = Ledger(path, "run-2", str(config.output_path.resolve()))
    assert round(ledger.spent()[0], 9) == 0.1
    assert not asyncio.run(ledger.lease(0.02, 0.11))
    assert asyncio.run(ledger.lease(0.01, 0.11))
    ledger.close()


def test_the_room_is_given_back(tmp_path: Path) -> None:
    config = made(tmp_path)
    path = fill(config, 150)
    found = prune(config, before=time.time() + DAY)
    assert found.after_bytes == path.stat().st_size < found.before_bytes / 2
    assert one(path, "PRAGMA integrity_check") == "ok"


def test_without_room_to_write_it_anew_the_file_stays_and_says_why(tmp_path: Path) -> None:
    config = made(tmp_path)
    path = fill(config, 100)
    change(path, "DELETE FROM replies WHERE id < 80")
    db = sqlite3.connect(path, isolation_level=None)
    assert "lie empty in the file" in ledger_upkeep.shrink(db, path, lambda folder: 1000)
    assert ledger_upkeep.shrink(db, path) == ""
    db.close()


def test_replies_of_an_earlier_cai_are_compressed_and_say_the_same(tmp_path: Path) -> None:
    config = made(tmp_path)
    path = fill(config, 40)
    before = Reply(text=PROSE, tokens_in=7)
    change(path, "UPDATE replies SET reply = ?", orjson.dumps(before))
    change(path, "UPDATE replies SET reply = ? WHERE id = 1", orjson.dumps(Reply(text="short")))
    change(path, "PRAGMA user_version = 1")
    assert ledger_upkeep.look(config, Wanted()).packable == 39
    found = prune(config)
    assert (found.replies, found.packed) == (0, 39)
    assert one(path, "SELECT max(length(reply)) FROM replies") < len(orjson.dumps(before)) / 2
    assert one(path, "PRAGMA user_version") == 2  # a cai that cannot read them must not try
    ledger = Ledger(path, "run-2", "job")
    assert ledger.get(key_of(asked(1, "critique"))) == before
    assert ledger.get(key_of(asked(0, "generate"))) == Reply(text="short")
    ledger.close()
    assert prune(config).packed == 0


def test_of_a_shared_ledger_only_what_this_output_bought_goes(tmp_path: Path) -> None:
    config = made(tmp_path, state=str(tmp_path / "state"))
    fill(config, 4)
    path = fill(config, 6, job="/another/output", run="run-2", first=4)
    assert ledger_size.measure(config).outputs == 2
    found = prune(config, before=time.time() + DAY)
    assert (found.shared, found.replies) == (True, 4)
    assert one(path, "SELECT count(*) FROM replies WHERE run = 'run-2'") == 6


def test_what_a_finished_retry_superseded_goes_and_its_new_reply_stays(cai: Cai, tmp_path: Path) -> None:
    write_rows(tmp_path / "p.jsonl", questions(12))
    write_config(tmp_path, prompts={"path": "p.jsonl"}, output="out", limits={"max_reject_rate": 1.0},
                 model=SIMULATED | {"world": {"refusal_rate": 0.4}}, **JUST_GENERATE)  # fmt: skip
    assert cai("generate", "c.yaml", "-q")[0] == 0
    assert cai("retry", "c.yaml", "--only", "refused", "-q")[0] in (0, 3)
    batches = json.loads((tmp_path / "out" / ".cai" / "retries.json").read_text())["batches"]
    keys = {one["key"] for batch in batches for one in batch["questions"]}
    path = tmp_path / "out" / ".cai" / "ledger.sqlite"
    before = one(path, "SELECT count(*) FROM replies")
    code, out, _ = cai("ledger", "prune", "c.yaml", "--superseded", "--yes", "--json")
    assert (code, json.loads(out)["replies"]) == (0, len(keys))
    assert len(keys) > 0
    assert one(path, "SELECT count(*) FROM replies") == before - len(keys)
    assert json.loads(cai("generate", "c.yaml", "-q", "--json")[1])["stages"]["generate"]["requests"] == 0


# Who else is there


def test_it_waits_for_no_run_and_takes_nothing_from_one(cai: Cai, tmp_path: Path) -> None:
    config = made(tmp_path)
    path = fill(config)
    with locked(lock_files(config)[0], "fail", "cai run c.yaml"):
        code, _, err = cai("ledger", "prune", "c.yaml", "--stage", "critique", "--yes")
        assert code == Exit.STOPPED
        assert "cai run c.yaml" in err
        code, _, err = cai("ledger", "prune", "c.yaml", "--stage", "critique", "--yes", "--if-locked", "skip")
        assert code == 0
        assert "skipped" in err
    RunLog.begin(config.state_path, "cai generate c.yaml -o -", "c.yaml", str(tmp_path / "other"))  # a stream holds no lock
    with pytest.raises(Held, match="a run uses this ledger"):
        prune(config, stage="critique")
    assert one(path, "SELECT count(*) FROM replies") == 10


def test_what_cannot_be_done_is_told_with_what_to_type(cai: Cai, tmp_path: Path) -> None:
    config = made(tmp_path)
    path = fill(config)
    code, _, err = cai("ledger", "prune", "c.yaml", "--stage", "revise")
    assert (code, "critique, generate" in err) == (2, True)
    assert cai("ledger", "prune", "c.yaml", "--older-than", "soon")[0] == 2
    change(path, "PRAGMA user_version = 99")
    with pytest.raises(Fix, match="newer cai"):
        ledger_upkeep.look(config, Wanted())


def test_a_file_that_is_no_ledger_is_left_as_it_is(tmp_path: Path) -> None:
    config = made(tmp_path)
    path = fill(config)
    data = path.read_bytes()
    path.write_bytes(data[:4096] + bytes(len(data) - 4096))
    with pytest.raises(Fatal, match="cannot be pruned") as caught:
        prune(config, stage="critique")
    assert caught.value.code == Exit.DISK


def test_it_says_what_would_go_and_the_command_that_does_it(cai: Cai, tmp_path: Path) -> None:
    fill(made(tmp_path))
    code, out, err = cai("ledger", "prune", "c.yaml", "--stage", "critique")
    assert (code, "critique" in out) == (0, True)
    assert "5 replies would go, which cost $0.05" in err
    assert "cai ledger prune c.yaml --stage critique --yes" in err
    assert "would go" in cai("ledger", "prune", "c.yaml", "--stage", "critique", "--yes", "--dry-run")[2]
    assert "nothing is named" in cai("ledger", "prune", "c.yaml")[2]
    assert "no reply is such" in cai("ledger", "prune", "c.yaml", "--older-than", "1d")[2]
    assert "5 replies went" in cai("ledger", "prune", "c.yaml", "--stage", "critique", "--yes")[2]


def test_of_replies_that_went_nothing_is_said_to_be_packed_one_day(tmp_path: Path) -> None:
    config = made(tmp_path)
    change(fill(config), "UPDATE replies SET reply = ?", orjson.dumps(Reply(text=PROSE)))
    looked = ledger_upkeep.look(config, Wanted(before=time.time() + DAY))
    assert dict(pruned_lines(looked))["packed"] == "10 replies of an earlier cai would be"
    found = prune(config, before=time.time() + DAY)
    assert (found.replies, found.packable, found.packed) == (10, 10, 0)
    assert "packed" not in dict(pruned_lines(found))


PRUNER = """
    import sys, time
    from pathlib import Path
    from cai_cli.config import load
    from cai_cli.engine import ledger_upkeep

    print("begun", flush=True)
    ledger_upkeep.prune(load(Path(sys.argv[1])), ledger_upkeep.Wanted(stage="revise"), "fail", "cai ledger prune")
"""


def test_killed_in_the_middle_what_is_left_is_whole_and_the_same_command_goes_on(tmp_path: Path) -> None:
    config, count = made(tmp_path), 20_000
    path = fill(config)
    with sqlite3.connect(path) as db:
        rows = ((n.to_bytes(32, "big"), b'{"text":""}') for n in range(count))
        db.executemany("INSERT INTO replies (key, stage, reply) VALUES (?, 'revise', ?)", rows)
    child = subprocess.Popen([sys.executable, "-c", textwrap.dedent(PRUNER), str(tmp_path / "c.yaml")])
    watch = sqlite3.connect(path)
    while (left := watch.execute("SELECT count(*) FROM replies").fetchone()[0]) == count + 10 and child.poll() is None:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    child.wait()
    watch.close()
    left = one(path, "SELECT count(*) FROM replies")
    assert left == 10 or (left - 10) % ledger_upkeep.AT_ONCE == 0
    assert one(path, "PRAGMA integrity_check") == "ok"
    prune(config, stage="revise") if left > 10 else prune(config)
    assert one(path, "SELECT count(*) FROM replies") == 10
