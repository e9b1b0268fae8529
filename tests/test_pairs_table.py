"""Many pairs at once: the same as row by row, whoever does it, and whatever is in the file."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from hypothesis import given as holds_for
from hypothesis import settings as examples
from hypothesis import strategies as st
from outside import Cai, environment

from cai_cli.config import Config, load
from cai_cli.engine import given_pairs, plan, quick_pairs, tables
from cai_cli.engine.feed import Feed
from cai_cli.engine.formats import parse_object
from cai_cli.engine.shards import Layout, Staging, as_line
from cai_cli.engine.workers import Workers
from cai_cli.errors import Fatal, Fix, Reject
from cai_cli.records import Pair, Turn, Vote, from_row
from cai_cli.settings import PromptsSection
from cai_cli.tables import _columns

CONFIG = {
    "name": "many", "output": "out", "model": {"provider": "simulated", "name": "small-world"}, "shards": {"rows": 40},
    "debias": {"style": ["lists"]}, "split": {"test": 0.2},
}  # fmt: skip
MORE = ('{"response_a": "yes"}', "no json", '{"id": "x", "prompt": 3}')  # lines that are no pair


def pair(n: int, rng: np.random.Generator, **changes: Any) -> Pair:
    opinion, words = rng.normal(0, 1.5), rng.integers(3, 30, 2)
    cast = tuple(
        Vote(
            labeler=name, order=order, verdict="a" if opinion > 0 else "b", model=f"model of {name}",
            p_a=None if name == "hard" else float(1 / (1 + np.exp(-opinion - slot + rng.normal(0, 0.5)))),
        )
        for name in ("main", "hard") for order, slot in (("ab", 0.7), ("ba", -0.7)) if rng.random() < 0.9
    )  # fmt: skip
    values = {
        "id": f"p{n}-0-1", "prompt_id": f"p{n}", "messages": (Turn(role="user", content=f"why {n}?"),), "prompt": f"why {n}?",
        "kind": "harmful" if n % 3 else "", "response_a": "so \u00e9\n- it\n" + "is " * words[0],
        "response_b": "\"or\" " * words[1], "votes": cast, "gold": "a" if n % 5 == 0 else "",
    }  # fmt: skip
    return Pair(**(values | changes))


def pairs(count: int, seed: int = 1) -> list[Pair]:
    rng = np.random.default_rng(seed)
    return [pair(n, rng) for n in range(count)]


def config(folder: Path, **changes: Any) -> Config:
    (folder / "many.json").write_text(json.dumps(CONFIG | changes))
    return load(folder / "many.json")


def write(path: Path, rows: list[Pair], *more: str) -> Path:
    path.write_bytes(b"".join(map(as_line, rows)) + "".join(f"{line}\n" for line in more).encode())
    return path


def surveyed(folder: Path, path: Path, processes: int = 0) -> Feed | None:
    (folder / "spool").mkdir(exist_ok=True)
    return given_pairs.survey(PromptsSection(path=str(path)), config(folder), folder / "spool", processes)


def by_row(folder: Path, path: Path) -> Feed:
    """The feed of the reader that goes row by row."""
    return plan.pairs_feed(path, config(folder))


def told(feed: Feed) -> Any:
    rows = [(unit.shard, list(unit.rows)) for unit in feed.units()]
    return rows, feed.prompts, feed.shards, feed.fingerprint, feed.rejects


# Reading quickly.


def judged(line: bytes) -> Pair | Reject:
    """What the long way makes of a line that says everything itself."""
    try:
        return from_row(Pair, parse_object(line))
    except Reject as why:
        return why


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
reals = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.floats(0, 1)
cast = st.builds(
    Vote, labeler=texts, principle=texts, order=st.sampled_from(["ab", "ba", "x"]), draw=st.integers(-(2**64), 2**64),
    verdict=st.sampled_from(["a", "b", "tie", "abstain"]), p_a=reals, confidence=reals, labels=st.lists(texts).map(tuple),
)  # fmt: skip
made = st.builds(
    Pair, id=texts, prompt_id=texts, messages=st.builds(Turn, role=st.sampled_from(["user", "assistant"]), content=texts).map(
        lambda turn: (turn,)), prompt=texts, response_a=texts, response_b=texts, votes=st.lists(cast, max_size=2).map(tuple),
    p_a=reals, consistent=st.none() | st.booleans(), gold_weight=reals,
)  # fmt: skip


@examples(max_examples=300, deadline=None)
@holds_for(made)
def test_what_is_read_quickly_is_what_is_written_and_what_is_read_slowly(one: Pair) -> None:
    try:
        line = as_line(one)
    except TypeError:  # a whole number that orjson does not write
        return
    found = quick_pairs.pairs(line)
    assert found in (None, [judged(line)])
    if found is not None:
        assert b"".join(quick_pairs.encode(row) + b"\n" for row in quick_pairs.written(line) or ()) == line


SWAPS = [
    (b'"draw":0', b'"draw":0.0'), (b'"draw":0', b'"draw":-0'), (b'"draw":0', b'"draw":18446744073709551616'),
    (b'"draw":0', b'"draw":1e2'),
    (b'"draw":0', b'"draw":true'), (b'"draw":0', b'"draw":null'), (b'"draw":0', b'"draw":01'), (b'"draw":0', b'"draw":"0"'),
    (b'"p_a":0.25', b'"p_a":NaN'), (b'"p_a":0.25', b'"p_a":1e400'), (b'"p_a":0.25', b'"p_a":1'), (b'"p_a":0.25', b'"p_a":2.5E-1'),
    (b'"p_a":0.25', b'"p_a":-0'), (b'"p_a":0.25', b'"p_a":0.25,"p_a":0.5'), (b'"p_a":0.25', b'"p_a":0.25,"more":[[[1]]]'),
    (b'"p_a":0.25', b'"p_a":1e17'), (b'"p_a":0.25', b'"p_a":.5'), (b'"p_a":0.25', b'"p_a":0.30000000000000004441'),
    (b'"basis":"",', b""), (b'"order":"ab",', b""), (b'"verdict":"a",', b""), (b'"id":"p0-0-1",', b""),
    (b'"meta":"{}"', b'"meta":{}'),
    (b"so", b"\\ud800"), (b"so", b"\\ud83d\\ude00"),
    (b"so", b"\xff"), (b"so", b"\xed\xa0\x80"), (b"so", b"\t"), (b"so", b"\\u0000"),
    (b"so", b"\\x41"), (b"so", b"\\/"),
    (b"so", b"\x7f"), (b'"id":', b' "id" :'), (b'"id":', b'"\\u0069d":'), (b'{"id":', b'[{"id":'),
    (b'"labels":[]', b'"labels":["A",1]'), (b'"labels":[]', b'"labels":null'), (b'"messages":[{', b'"messages":[{"x":1,'),
    (b'"gold":"a"', b'"gold":"c"'), (b'"gold":"a"', b'"gold":null'), (b'"prompt_id":"p0"', b'"prompt_id":7'),
    (b'"votes":', b'"vote":'),
]  # fmt: skip


def plain() -> bytes:
    vote = Vote(labeler="main", verdict="a", p_a=0.25)
    return as_line(replace(pairs(1)[0], votes=(vote, replace(vote, order="ba"))))


@pytest.mark.parametrize(("old", "new"), SWAPS)
def test_a_line_out_of_the_ordinary_is_read_as_ever(tmp_path: Path, old: bytes, new: bytes) -> None:
    line = plain().replace(old, new, 1)
    assert line != plain()
    assert quick_pairs.pairs(line) in (None, [judged(line)])
    (tmp_path / "rows.jsonl").write_bytes(plain().replace(b"p0", b"p1") + line)
    quick = surveyed(tmp_path, tmp_path / "rows.jsonl")
    assert quick is None or told(quick) == told(by_row(tmp_path, tmp_path / "rows.jsonl"))


def test_a_line_that_says_everything_is_read_quickly() -> None:
    assert quick_pairs.pairs(plain()) == [judged(plain())]
    assert quick_pairs.given(plain()) is not None


# A file that somebody gives.


@pytest.mark.parametrize("processes", [0, 2])
def test_a_file_is_surveyed_as_row_by_row(tmp_path: Path, processes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pairs(130)
    rows[7:7] = [replace(rows[6], id=f"{rows[6].id}{n}") for n in range(3)]  # a prompt with several pairs
    path = write(tmp_path / "rows.jsonl", rows, "", *MORE, '{"id": "a", "prompt": "q", "response_a": "x", "response_b": "y"}')
    quick, slow = surveyed(tmp_path, path, processes), by_row(tmp_path, path)
    assert quick is not None
    assert told(quick) == told(slow)
    assert [reject.where.rpartition(":")[2] for reject in quick.rejects] == ["135", "136", "137"]


def odd_files(folder: Path) -> Iterator[Path]:
    rows = pairs(20)
    yield write(folder / "apart.jsonl", [*rows, replace(rows[3], id="again")])
    yield write(folder / "nameless.jsonl", rows, '{"prompt": "q", "response_a": "x", "response_b": "y"}')
    (folder / "list.json").write_bytes(orjson.dumps(rows))
    yield folder / "list.json"


def test_what_a_piece_does_not_tell_is_left_to_the_reader_by_row(tmp_path: Path) -> None:
    for path in odd_files(tmp_path):
        assert surveyed(tmp_path, path) is None, path
        assert by_row(tmp_path, path).prompts in (20, 21)


def test_ids_that_clash_are_told_as_ever(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", [*pairs(5), *pairs(1)])
    assert surveyed(tmp_path, path) is None
    with pytest.raises(Fix, match=r"these repeat: 'p0-0-1' again at .*rows\.jsonl:6"):
        plan.pairs_feed(path, config(tmp_path), None, tmp_path / "spool")


def test_the_spool_is_private_and_gone_afterwards(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path)
    write(tmp_path / "rows.jsonl", pairs(90))
    code, _, err = cai("debias", "many.json", "-i", "rows.jsonl")
    assert code == 0, err
    (run,) = (tmp_path / "out" / ".cai" / "runs").iterdir()
    assert [path.name for path in run.iterdir()] == ["run.json"]
    surveyed(tmp_path, tmp_path / "rows.jsonl")
    (folder,) = (tmp_path / "spool").iterdir()
    assert {oct(path.stat().st_mode & 0o777) for path in (folder, *folder.iterdir())} == {"0o700", "0o600"}


# Measuring and labelling.


def table_of(folder: Path, rows: list[Pair], damage: Callable[[Path], None] | None = None) -> tuple[plan.Step, Feed]:
    feed = surveyed(folder, write(folder / "rows.jsonl", rows))
    assert feed is not None
    assert feed.files is not None
    if damage is not None:
        damage(feed.files(1)[0])
    return plan.steps_of(config(folder), ["debias"])[0], feed


def staged(folder: Path, step: plan.Step, feed: Feed, processes: int) -> dict[str, bytes]:
    """Every file of a staged table, and its report."""
    staging = Staging(folder / "staging" / "x", ["debias"], Layout(feed.shards, 0.2))
    report = tables.stage_debiased(step, feed, tables.Beside(), staging, (), processes)
    found = {str(path.relative_to(staging.folder)): path.read_bytes() for path in staging.folder.rglob("*.json*")}
    staging.remove()
    return found | {"report": orjson.dumps(report)}


def test_shared_out_or_not_or_row_by_row_it_is_the_same_to_the_byte(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    rows = [*pairs(150), pair(150, rng, votes=(Vote(labeler="main", p_a=2.0),)), pair(151, rng, votes=(Vote(labeler="main"),))]
    rows = [replace(one, votes=(replace(one.votes[0], p_a=0.5), *one.votes[1:])) if n == 9 else one for n, one in enumerate(rows)]
    feed = by_row(tmp_path, write(tmp_path / "rows.jsonl", rows[:-2]))
    assert feed.files is None
    step, shared = table_of(tmp_path, rows[:-2])
    alone = staged(tmp_path, step, shared, 0)
    assert staged(tmp_path, step, shared, 2) == alone
    assert staged(tmp_path, step, feed, 0) == alone
    assert sum(name.startswith("debias/") for name in alone) >= 4


def test_a_shard_that_is_not_as_cai_writes_it_is_read_row_by_row(tmp_path: Path) -> None:
    def loosen(path: Path) -> None:
        path.write_bytes(path.read_bytes().replace(b'"p_a":0.', b'"p_a": 0.'))

    rows = pairs(100)
    step, feed = table_of(tmp_path, rows)
    before = staged(tmp_path, step, feed, 0)
    assert staged(tmp_path, *table_of(tmp_path, rows, loosen), 2) == before


def test_a_changed_file_is_told_by_whoever_reads_it(tmp_path: Path) -> None:
    def break_(path: Path) -> None:
        path.write_bytes(path.read_bytes().replace(b'"draw":0', b'"draw":"0"', 1))

    step, feed = table_of(tmp_path, pairs(100), break_)
    for processes in (0, 2):
        with pytest.raises(Fix, match=r"00001\.jsonl:1: wrong_type: column 'votes\[0\]\.draw'.* file was changed") as caught:
            staged(tmp_path, step, feed, processes)
        assert "cai verify" in caught.value.hint


def test_parts_come_to_the_same_columns_however_they_are_cut(tmp_path: Path) -> None:
    rows = [replace(one, votes=one.votes * 2) for one in pairs(300)]
    whole = _columns.gather(rows, ["lists"])
    for size in (1, 7, 300):
        found = _columns.Gathering(everywhere=whole.everywhere)
        for first in range(0, len(rows), size):
            found.add(_columns.part_of(rows[first : first + size], whole.everywhere, found.within))
        cut = found.columns()
        for name in ("prompt", "p", "comparison", "draw", "labeler", "sample", "sampled_features", "features", "own"):
            assert np.array_equal(getattr(cut, name), getattr(whole, name), equal_nan=True), (size, name)
        assert (cut.labelers, cut.softened) == (whole.labelers, whole.softened)


def test_the_sample_begins_where_it_would_end(tmp_path: Path) -> None:
    for prompts in (10, 39_999, 60_000, 10**6, 10**7):
        within = _columns.within_of(prompts)
        assert prompts * within * 2 > 2.5 * _columns.SAMPLE or within == 1.0  # half of the prompts would have been enough
        assert prompts * within >= 1.2 * _columns.SAMPLE or within == 1.0


# Processes.


def double(number: int) -> int:
    return 2 * number


def stumble(number: int) -> int:
    if number == 3:
        raise Fix("three", "take four")
    return number


def full(number: int) -> int:
    raise OSError(28, "No space left on device", f"file {number}")


def die(number: int) -> int:
    if number == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def err(number: int) -> int:
    return 1 // (number - 2)


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(paths))


@pytest.mark.usefixtures("importable")
def test_answers_come_in_the_order_of_the_tasks() -> None:
    for count in (0, 3):
        with Workers(count) as shared:
            assert list(shared.each(double, iter(range(100)))) == [2 * n for n in range(100)]
            assert list(shared.each(functools.partial(pow, 2), range(5))) == [1, 2, 4, 8, 16]


@pytest.mark.usefixtures("importable")
@pytest.mark.parametrize(
    ("work", "error", "said"),
    [(stumble, Fix, "three"), (full, OSError, "file 0"), (die, Fatal, "by SIGKILL"), (err, RuntimeError, "ZeroDivisionError")],
)
def test_what_goes_wrong_in_a_process_ends_the_work(work: Callable[[int], int], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said), Workers(2) as shared:
        list(shared.each(work, range(50)))
    assert children() == []


def children() -> list[str]:
    tasks = Path("/proc/self/task").iterdir()
    return [pid for task in tasks for pid in (task / "children").read_text().split() if _is_worker(pid)]


def _is_worker(pid: str) -> bool:
    try:
        return b"cai_cli.engine.workers" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


WAITING = """
import sys, time
from cai_cli.engine.workers import Workers
with Workers(2) as shared:
    print(*[worker._process.pid for worker in shared._workers], flush=True)
    list(shared.each(time.sleep, [60, 60]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_the_one_that_started_it(tmp_path: Path, number: signal.Signals) -> None:
    waiting = WAITING.replace("60", "60" if number is signal.SIGINT else "1")  # the others give it no time to end them
    done = subprocess.Popen(
        [sys.executable, "-c", waiting], stdout=subprocess.PIPE, env=environment(tmp_path), stderr=subprocess.DEVNULL
    )  # fmt: skip
    assert done.stdout is not None
    pids = done.stdout.readline().split()
    time.sleep(0.3)
    done.send_signal(number)
    done.wait()
    deadline = time.monotonic() + 20
    while (left := [pid for pid in pids if _is_worker(pid.decode())]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []
