"""What goes to disk, and in which order: the same bytes whatever the order in which rows are done."""

from __future__ import annotations

import asyncio
import hashlib
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cai_cli.engine.budget import Budget
from cai_cli.engine.clock import Clock
from cai_cli.engine.disk import probe, write_durably
from cai_cli.engine.drive import Asker, Usage
from cai_cli.engine.feed import Feed, Unit
from cai_cli.engine.ledger import Ledger
from cai_cli.engine.pace import Pace
from cai_cli.engine.rows import Rows
from cai_cli.engine.runs import RunLog, all_of
from cai_cli.engine.shards import REJECTS, Layout, Made, Staging, compress
from cai_cli.engine.sinks import Done, ShardSink, StreamSink
from cai_cli.errors import Exit, Fatal, Fix, Reject
from cai_cli.flow import Flow, Model, Reply, Request, ask
from cai_cli.records import Prompt, Rejected, Sample, Turn, rejected

STAGES = ("generate", "revise")


def prompt(number: int) -> Prompt:
    return Prompt(id=f"p{number}", messages=(Turn(role="user", content=f"question {number}"),))


def sample(number: int) -> Sample:
    one = prompt(number)
    return Sample(id=f"{one.id}-0", prompt_id=one.id, messages=one.messages, prompt=one.text, response=f"answer {number} é\u2028")


def done(number: int) -> Done:
    """What one prompt gave: every seventh is rejected by the second stage, every fifth is filtered there."""
    row, usage = sample(number), Usage()
    usage.replies["generate"], usage.tokens_in["generate"] = 1, number
    second = Made(came_in=1)
    if number % 7 == 0:
        second.rejects.append(rejected(Reject("empty", "nothing came"), "revise", row))
    elif number % 5 == 0:
        second.filtered["low_confidence"] += 1
    else:
        second.rows.append(row)
    return {"generate": Made(rows=[row], came_in=1), "revise": second}, usage


def tree(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def rows_of(path: Path) -> list[Any]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


# Partitions


@settings(max_examples=25, deadline=None)
@given(
    order=st.permutations(range(12)),
    closes=st.lists(st.integers(0, 12), min_size=3, max_size=3),
    test=st.sampled_from([0.0, 0.5]),
)
def test_any_order_of_prompts_gives_the_same_bytes(order: Sequence[int], closes: list[int], test: float) -> None:
    """`closes`: after how many prompts each of the three partitions of four is told that it is complete."""

    def write(folder: Path, sequence: Sequence[int], at: Sequence[int]) -> dict[str, str]:
        sink = ShardSink(Staging(folder / "staging" / "job", STAGES, Layout(3, test)))

        async def all_of_them() -> None:
            for step in range(len(sequence) + 1):
                for shard in range(3):
                    if at[shard] == step:
                        await sink.close(shard, 4)
                if step < len(sequence):
                    await sink.add(sequence[step] // 4, sequence[step] % 4, done(sequence[step]))

        asyncio.run(all_of_them())
        return tree(sink.staging.folder)

    with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as other:
        written = write(Path(one), order, closes)
        assert written == write(Path(other), range(12), (4, 8, 12))
        assert {name for name in written if name.startswith("parts/") and "-" not in name} == {
            f"parts/{n:05d}.json" for n in range(3)
        }


def staged(folder: Path, layout: Layout, prompts: int = 40) -> Staging:
    staging = Staging(folder / "staging" / "job", STAGES, layout)
    size = -(-prompts // layout.shards)
    for shard in range(layout.shards):
        staging.write(shard, [done(n) for n in range(shard * size, min(prompts, (shard + 1) * size))])
    return staging


def test_every_row_is_accounted_for(tmp_path: Path) -> None:
    staging = staged(tmp_path, Layout(4, 0.3))
    tally = staging.tally("revise")
    assert tally.came_in == 40 == tally.rows + tally.rejected.total() + tally.filtered.total()
    assert tally.rejected == Counter(empty=6)
    assert tally.filtered == Counter(low_confidence=6)
    assert sum(file["rows"] for file in tally.files) == tally.rows
    assert (staging.tally("generate").replies, staging.tally("generate").tokens_in) == (40, sum(range(40)))


def test_a_files_row_in_the_tally_describes_its_bytes(tmp_path: Path) -> None:
    staging = staged(tmp_path, Layout(2, 0.3, "gzip"))
    for file in staging.tally("generate").files:
        data = (staging.folder / "generate" / file["name"]).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (file["sha256"], file["bytes"])


def test_train_and_test_are_split_by_prompt_and_agree_between_stages(tmp_path: Path) -> None:
    staging = staged(tmp_path, Layout(2, 0.3))
    split_of: dict[str, set[str]] = {}
    for stage in STAGES:
        for path in (staging.folder / stage).iterdir():
            for row in rows_of(path):
                split_of.setdefault(row["prompt_id"], set()).add(path.name.split("-")[0])
    assert {len(splits) for splits in split_of.values()} == {1}
    assert 4 <= sum("test" in splits for splits in split_of.values()) <= 20


def test_without_a_test_share_all_is_train_and_with_one_the_split_never_moves() -> None:
    ids = [f"p{n}" for n in range(2000)]
    assert {Layout(1).split(one) for one in ids} == {"train"}
    small, large = ({one for one in ids if Layout(1, share).split(one) == "test"} for share in (0.1, 0.2))
    assert small < large  # a larger share only adds to the test prompts
    assert 0.08 < len(small) / 2000 < 0.12


def test_an_empty_split_and_an_empty_partition_write_no_file(tmp_path: Path) -> None:
    staging = Staging(tmp_path / "staging" / "job", STAGES, Layout(2, 0.0))
    staging.write(0, [done(1)])
    staging.write(1, [])
    assert [path.name for path in (staging.folder / "generate").iterdir()] == ["train-00000-of-00002.jsonl"]
    assert staging.done(1) is not None


def test_the_marker_comes_after_the_files(tmp_path: Path) -> None:
    """A file of the second stage cannot be written: the partition must not count as whole."""
    staging = Staging(tmp_path / "staging" / "job", STAGES, Layout(1))
    (staging.folder / "revise").rmdir()
    with pytest.raises(FileNotFoundError):
        staging.write(0, [done(1)])
    assert (staging.folder / "generate" / "train-00000-of-00001.jsonl").exists()
    assert staging.done(0) is None


def test_a_partition_that_is_taken_back_is_driven_again(tmp_path: Path) -> None:
    staging = staged(tmp_path, Layout(2))
    staging.forget(1)
    assert staging.done(0) is not None
    assert staging.done(1) is None


def test_only_partitions_with_a_reason_of_the_stop_are_taken_back(tmp_path: Path) -> None:
    sink = ShardSink(Staging(tmp_path / "staging" / "job", STAGES, Layout(2)))

    async def two_partitions() -> None:
        for number in (7, 8):  # 7 is rejected, 8 is not
            await sink.add(number - 7, 0, done(number))
            await sink.close(number - 7, 1)

    asyncio.run(two_partitions())
    sink.forget({"http_404"})
    assert [sink.staging.done(shard) is None for shard in range(2)] == [False, False]
    sink.forget({"empty"})
    assert [sink.staging.done(shard) is None for shard in range(2)] == [True, False]


def test_staging_of_another_job_goes_and_the_same_jobs_stays(tmp_path: Path) -> None:
    staged(tmp_path, Layout(1))
    assert Staging(tmp_path / "staging" / "job", STAGES, Layout(1)).done(0) is not None
    Staging(tmp_path / "staging" / "another", STAGES, Layout(1))
    assert [path.name for path in (tmp_path / "staging").iterdir()] == ["another"]


def test_rejects_are_gathered_input_first_then_in_input_order(tmp_path: Path) -> None:
    staging = staged(tmp_path, Layout(3))
    unusable = Rejected(id="", prompt_id="", stage="generate", reason="bad_utf8", where="prompts.jsonl:3")
    described = staging.gather_rejects("revise", [unusable])
    found = rows_of(staging.folder / "revise" / REJECTS)
    assert [row["reason"] for row in found] == ["bad_utf8", *["empty"] * 6]
    assert [row["prompt_id"] for row in found[1:]] == [f"p{n}" for n in range(0, 40, 7)]
    assert described is not None
    assert described["rows"] == 7
    assert staging.gather_rejects("generate", []) is None


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_compression_is_the_same_every_time_and_can_be_read(how: str) -> None:
    import gzip

    import zstandard

    data = b'{"a": 1}\n' * 1000
    packed = compress(data, how)
    assert compress(data, how) == packed
    assert len(packed) < len(data) / 10
    opened = gzip.decompress(packed) if how == "gzip" else zstandard.ZstdDecompressor().decompressobj().decompress(packed)
    assert opened == data
    if how == "gzip":
        assert packed[4:8] == b"\0\0\0\0", "no time in the header"


# Streams


@settings(max_examples=80, deadline=None)
@given(sizes=st.lists(st.integers(0, 4), min_size=1, max_size=5), data=st.data())
def test_a_stream_is_in_input_order_for_any_order_of_completion(sizes: list[int], data: st.DataObject) -> None:
    places = [(shard, position) for shard, size in enumerate(sizes) for position in range(size)]
    numbers = {place: n + 1 for n, place in enumerate(places)}
    events = data.draw(st.permutations([*places, *range(len(sizes))]))
    with tempfile.TemporaryDirectory() as folder:
        stream = io.BytesIO()
        sink = StreamSink(stream, "generate", Path(folder) / "rejects.jsonl")

        async def all_of_them() -> None:
            for event in events:
                if isinstance(event, int):
                    await sink.close(event, sizes[event])
                else:
                    await sink.add(*event, done(numbers[event]))
                prefix = [orjson.loads(line)["prompt_id"] for line in stream.getvalue().splitlines()]
                assert prefix == [f"p{n + 1}" for n in range(len(prefix))]

        asyncio.run(all_of_them())
        assert len(stream.getvalue().splitlines()) == len(places) == sink.progress.prompts


def test_a_streams_rejects_go_to_a_file_of_the_owners(tmp_path: Path) -> None:
    sink = StreamSink(io.BytesIO(), "revise", tmp_path / "rejects.jsonl")
    asyncio.run(sink.add(0, 0, done(7)))
    assert [row["id"] for row in rows_of(tmp_path / "rejects.jsonl")] == ["p7-0"]
    assert (tmp_path / "rejects.jsonl").stat().st_mode & 0o777 == 0o600
    assert sink.progress.facts("revise") == {"rows": 0, "rejected": {"empty": 1}, "filtered": {}}


# A whole pass: workers, a feed, a sink, a stop


class Slow:
    """Answers after some turns of the loop, in an order that has nothing to do with that of the questions."""

    host = "slow"

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.stop_at = -1

    async def send(self, request: Request, deadline_s: float) -> Reply:
        self.sent.append(request.row)
        if len(self.sent) == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(int(request.row[1:]) * 5 % 7 / 1000)
        if request.row.endswith("3"):
            raise Reject("http_400", "no", "400 x")
        return Reply(text=f"answer to {request.row}", tokens_in=2, tokens_out=3)

    async def close(self) -> None:
        return None


def program(units: Sequence[Prompt]) -> Flow[dict[str, Made]]:
    (one,) = units
    made = Made(came_in=1)
    request = Request(
        model=Model(provider="slow", name="m", params={"max_tokens": 9}), messages=one.messages, stage="generate", row=one.id
    )
    try:
        reply = yield from ask(request)
        made.rows.append(Sample(id=f"{one.id}-0", prompt_id=one.id, messages=one.messages, prompt=one.text, response=reply.text))
    except Reject as reject:
        made.rejects.append(rejected(reject, "generate", one))
    return {"generate": made}


def fifty() -> Iterator[Unit]:
    return (Unit(n // 8, (prompt(n),)) for n in range(50))


class Pass:
    """One pass over 50 prompts in partitions of 8."""

    def __init__(self, folder: Path, run: str, workers: int, units: Callable[[], Iterator[Unit]] = fifty) -> None:
        self.workers, self.provider, self.units = workers, Slow(), units
        self.staging = Staging(folder / "staging" / "job", ["generate"], Layout(7, 0.2))
        self.sink = ShardSink(self.staging)
        self.ledger = Ledger(folder / "ledger.sqlite", run, "job")
        pace = Pace(workers, None, 60.0, Clock())
        self.asker = Asker(self.ledger, Budget(self.ledger, None), lambda model: pace, lambda model: self.provider, Clock())

    def run(self, tick: Callable[[], None] = lambda: None) -> tuple[bool, Rows]:
        async def whole() -> tuple[bool, Rows]:
            rows = Rows(Feed(self.units, 50, 7, "fingerprint"), program, self.asker, self.sink)
            return await rows.run(self.workers, tick), rows

        try:
            return asyncio.run(whole())
        finally:
            self.ledger.close()


def test_the_number_of_workers_does_not_change_a_byte(tmp_path: Path) -> None:
    trees = []
    for workers in (1, 5, 64):
        one = Pass(tmp_path / str(workers), "run-1", workers)
        assert one.run()[0]
        assert len(one.provider.sent) == 50
        trees.append(tree(one.staging.folder))
    assert trees[0] == trees[1] == trees[2]
    assert Staging(tmp_path / "1" / "staging" / "job", ["generate"], Layout(7, 0.2)).tally("generate").rejected == {"http_400": 5}


def test_a_stopped_pass_goes_on_where_it_was_and_buys_nothing_twice(tmp_path: Path) -> None:
    whole = Pass(tmp_path / "whole", "run-1", 4)
    whole.run()
    first = Pass(tmp_path / "stopped", "run-1", 4)
    first.provider.stop_at = 21
    finished, rows = first.run()
    assert not finished
    assert (rows.signal, rows.exit) == (signal.SIGTERM, Exit.STOPPED)
    assert first.asker.in_flight == 0
    second = Pass(tmp_path / "stopped", "run-2", 4)
    assert second.run()[0]
    assert sorted(first.provider.sent + second.provider.sent) == sorted(whole.provider.sent)
    assert tree(first.staging.folder) == tree(whole.staging.folder)
    assert second.sink.progress.prompts == 50


@pytest.mark.parametrize(("shard", "workers"), [(0, 4), (6, 1)])
def test_a_partition_that_finds_no_room_is_waited_for_until_a_signal(tmp_path: Path, shard: int, workers: int) -> None:
    """The last one of a single worker too: it is written when no worker is left."""
    one = Pass(tmp_path, "run-1", workers)
    parts = one.staging.folder / "parts"
    full = parts / f"{shard:05d}.json.part"
    full.symlink_to("/dev/full")
    reasons: list[str] = []

    def tick() -> None:
        if one.sink.patience.reason and not reasons:
            reasons.append(one.sink.patience.reason)
            os.kill(os.getpid(), signal.SIGTERM)

    began = time.monotonic()
    finished, rows = one.run(tick)
    assert time.monotonic() - began < 3
    assert not finished
    assert isinstance(rows.error, Fatal)
    assert rows.error.code is Exit.DISK
    assert [reason.partition(" (")[0] for reason in reasons] == [f"the disk of {parts} is full"]
    assert one.staging.done(shard) is None
    full.unlink()
    assert Pass(tmp_path, "run-2", 4).run()[0]


def test_input_that_breaks_half_way_stops_the_pass_with_its_reason(tmp_path: Path) -> None:
    def broken() -> Iterator[Unit]:
        yield from (Unit(0, (prompt(n),)) for n in range(5))
        raise Fix("prompts.jsonl:6: the file changed while it was read", "", Exit.INPUT)

    one = Pass(tmp_path, "run-1", 4, broken)
    finished, rows = one.run()
    assert not finished
    assert isinstance(rows.error, Fix)
    assert one.staging.done(0) is None
    assert one.asker.in_flight == 0


# Files and logs


def test_a_file_is_replaced_wholly(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_durably(path, b"old" * 1000)
    write_durably(path, b"new", 0o600)
    assert path.read_bytes() == b"new"
    assert [found.name for found in tmp_path.iterdir()] == ["file"]


def test_a_folder_that_is_a_file_is_found_before_anything_is_bought(tmp_path: Path) -> None:
    (tmp_path / "output").write_text("")
    with pytest.raises(Fix, match="cannot be written") as caught:
        probe(tmp_path / "output" / "deeper")
    assert caught.value.code is Exit.DISK


def test_a_runs_log_is_the_owners_and_tells_who_was_killed(tmp_path: Path) -> None:
    state = tmp_path / ".cai"
    log = RunLog.begin(state, "cai run c.yaml", "c.yaml", str(tmp_path / "out"))
    assert [folder.stat().st_mode & 0o777 for folder in (state, state / "runs", log.folder)] == [0o700] * 3
    assert (log.folder / "run.json").stat().st_mode & 0o777 == 0o600
    assert [facts["state"] for facts in all_of(state, tmp_path / "out")] == ["running"]
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    RunLog.begin(state, "cai run c.yaml", "c.yaml", str(tmp_path / "out")).update(pid=dead.pid)
    log.end("done", 0)
    assert sorted(facts["state"] for facts in all_of(state, tmp_path / "out")) == ["done", "killed"]
