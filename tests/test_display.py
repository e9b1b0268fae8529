"""What a person sees of a run: the live display, the timed lines, the summary, the status, the price beforehand."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from outside import Cai
from rich.console import Console
from terminals import Screen, on_terminal

from cai_cli import config as configs
from cai_cli import providers
from cai_cli.cli.progress import Lines, Quiet
from cai_cli.cli.summary import tell
from cai_cli.engine.budget import Budget
from cai_cli.engine.clock import Clock
from cai_cli.engine.drive import Asker
from cai_cli.engine.ledger import Ledger
from cai_cli.engine.pace import Pace
from cai_cli.engine.run import Summary
from cai_cli.engine.session import Snapshot, Watch
from cai_cli.engine.sinks import Progress
from cai_cli.flow import Model
from cai_cli.reports import quantities as say
from cai_cli.reports.standing import Standing, facts, frame, line

ROOT = Path(__file__).parent.parent
FACTS = {"rows": 3, "rejected": {}, "filtered": {}, "requests": 4, "replayed": 1, "tokens_in": 9, "tokens_out": 9, "dollars": 0.0}
UNKNOWN = Model(provider="anthropic", name="a-model-nobody-priced", params={"max_tokens": 10})


def write_config(folder: Path, world: str = "{}", prompts: int = 8) -> Path:
    rows = (json.dumps({"prompt": f"How do I keep {n} bees?"}) for n in range(prompts))
    (folder / "p.jsonl").write_text("\n".join(rows))
    path = folder / "c.yaml"
    path.write_text(
        f"name: bees\noutput: out\nconstitution: constitutions/general.yaml\nprompts: {{path: p.jsonl}}\n"
        f"model: {{provider: simulated, name: small-world, world: {world}}}\n"
        "generate: {}\ncritique: {}\nrevise: {}\nlabel_pairs: {}\ndebias: {}\n"
    )
    return path


def begin(folder: Path, *args: str, **options: Any) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": str(ROOT)} | options.pop("env", {})
    return subprocess.Popen([sys.executable, "-m", "cai_cli", *args], cwd=folder, env=env, stdin=subprocess.DEVNULL, **options)


# Numbers.


@given(st.integers(0, 10**12))
def test_numbers_keep_their_columns(number: int) -> None:
    assert len(say.count(number)) <= 7
    assert len(say.tokens(number)) <= 5


@given(st.floats(0, 1e7))
def test_a_duration_has_at_most_two_units(seconds: float) -> None:
    assert re.fullmatch(r"\d+s|\d+m \d\ds|\d+h \d\dm|\d+d \d\dh", say.duration(seconds))


def test_an_unknown_price_is_never_a_zero() -> None:
    assert say.dollars(0.0, unknown=True) == "$?"
    assert say.dollars(1.5, unknown=True) == "$1.50+?"
    assert say.dollars(0.0) == "$0.00"
    free = Model(provider="simulated", name="small-world")
    assert say.unpriced({"generate": [free], "critique": [free, UNKNOWN]}) == {"critique": UNKNOWN.name}


# The display of a run.


def drawn(standing: Standing, width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(frame(standing, width))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


@pytest.mark.parametrize("width", [80, 200])
def test_a_frame_of_a_large_run_fits(width: int) -> None:
    facts = dict.fromkeys(("rows", "requests", "replayed"), 123_456_789) | {"rejected": {"empty": 987_654}, "filtered": {}}
    facts |= {"tokens_in": 10**11, "tokens_out": 10**10, "dollars": 98_765.43}
    standing = Standing(
        stages={"label-pairs": facts}, prompts=10**6, done=406_000, elapsed_s=1e4, per_s=12.3, in_flight=34, slots=64,
        retried={"server": 3, "rate_limit": 12}, held="told to wait 12s", unpriced={"label-pairs"},
    )  # fmt: skip
    text = "\n".join(drawn(standing, width))
    assert "$98,765.43+?" in text
    assert "…" not in text, "a number was cut off"
    for told in ("406,000/1,000,000 prompts  41%", "34 in flight of 64 slots", "told to wait 12s"):
        assert told in text
    assert "12 rate_limit, 3 server" in " ".join(text.split())


def test_what_is_counted_is_named() -> None:
    standing = Standing(stages={"debias": FACTS}, prompts=200, done=126, elapsed_s=10.0, what="probes", per_s=2.5)
    assert "126/200 probes  63%" in "\n".join(drawn(standing, 80))
    assert "126/200 probes  63%" in drawn(standing, 40)[0]
    assert "2.5 probes/s" in facts(standing)
    assert re.match(r" 63% 126/200 probes \[00:10<", line(standing))


def test_a_line_says_how_far_and_how_fast() -> None:
    standing = Standing(stages={"generate": FACTS}, prompts=4000, done=1000, elapsed_s=50, per_s=20, in_flight=6)
    assert line(standing) == (
        " 25% 1,000/4,000 prompts [00:50<02:30] 20 prompts/s · 6 in flight · rows: generate 3 · 0 rejected · $0.00"
    )


def test_replies_that_wait_for_the_disk_are_told_when_they_are_many() -> None:
    def told(writing: int) -> str:
        return facts(Standing(stages={}, prompts=9, done=1, elapsed_s=5, in_flight=25, slots=25, writing=writing))

    assert told(53) == "25 in flight of 25 slots · 53 being written"
    assert told(3) == "25 in flight of 25 slots"


def snapshot(folder: Path, pace: Pace) -> Snapshot:
    ledger = Ledger(folder / "ledger.sqlite", "run", "job")
    asker = Asker(ledger, Budget(ledger, None), lambda model: pace, providers.connect, pace.clock)
    return Snapshot(models={"generate": [UNKNOWN]}, prompts=10, progress=Progress(), asker=asker, started=time.monotonic() - 3)


def test_each_kind_of_trouble_is_told_once_and_an_outage_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pace = Pace(4, None, 3600, Clock())
    seen = snapshot(tmp_path, pace)
    watch = Lines(True)
    watch.begin(seen)
    seen.asker.trouble["server"] += 2
    seen.asker.counts["generate"].requests = 5
    pace.outage_since = pace.clock.now() - 65
    for _ in range(3):
        watch.tick(seen)
    watch.end(seen)
    seen.asker.ledger.close()
    trouble, told = capfd.readouterr().err.splitlines()
    assert re.fullmatch(r"\d\d:\d\d:\d\d server: .*", trouble)
    assert "0 in flight of 4 slots" in told
    assert "retried: 2 server" in told
    assert "$?" in told
    assert "no answer for 1m 05s" in told


def watched(folder: Path, watch: Watch, change: Callable[[Snapshot], None]) -> None:
    """Let a display look at a run, in which something happens, twice and once more."""
    seen = snapshot(folder, Pace(4, None, 21600, Clock(), max_outage="6h"))
    watch.begin(seen)
    watch.tick(seen)
    change(seen)
    watch.tick(seen)
    watch.tick(seen)
    watch.end(seen)
    seen.asker.ledger.close()


def refused(seen: Snapshot) -> None:
    seen.asker.trouble["connection"] += 1
    seen.asker.said["connection"] = "127.0.0.1:9: connection\nrefused"


def test_the_first_connection_that_fails_is_told_without_being_asked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    told = "127.0.0.1:9: connection refused: asked again, later and later, for at most 6h (limits.max_outage)"
    for number, (watch, lines) in enumerate([(Lines(False), [told]), (Lines(True), [told]), (Quiet(), [])]):
        watched(tmp_path / str(number), watch, refused)
        err = capfd.readouterr().err.splitlines()
        assert [one[9:] for one in err if re.match(r"\d\d:\d\d:\d\d 127", one)] == lines


def test_replies_on_their_way_to_the_disk_are_not_in_flight(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def change(seen: Snapshot) -> None:
        seen.asker.in_flight, seen.asker.pace_for(UNKNOWN).in_flight = 16, 3
        Lines(False).tick(seen)

    watched(tmp_path, Quiet(), change)
    assert "3 in flight of 4 slots · 13 being written" in capfd.readouterr().err


def test_a_server_that_nobody_reaches_ends_the_run_with_its_name(tmp_path: Path) -> None:
    write_config(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, and not listening
        host = f"127.0.0.1:{taken.getsockname()[1]}"
        model = f"model={{provider: anthropic, name: m, base_url: 'http://{host}'}}"
        limits = ["--concurrency", "2", "--set", "limits.max_outage=1.5s"]
        process = begin(tmp_path, "generate", "c.yaml", "--set", model, *limits, stderr=subprocess.PIPE)
        err = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 69
    first, *rest = err.splitlines()
    assert re.fullmatch(rf"\d\d:\d\d:\d\d {host}: .*: asked again, later and later, for at most 1\.5s .*", first)
    assert f"error: {host} did not answer for 1.5s: " in err
    assert rest[-2].startswith("hint: nothing is lost")


def test_a_log_that_nobody_reads_any_more_does_not_stop_the_run(tmp_path: Path) -> None:
    write_config(tmp_path, "{latency_ms: 150}", prompts=2)
    read, write = os.pipe()
    os.close(read)
    process = begin(tmp_path, "run", "c.yaml", "--concurrency", "1", stderr=write)
    os.close(write)
    process.wait(60)
    assert (tmp_path / "out" / "debias" / "latest").is_dir()


def test_the_live_table_vanishes_before_the_summary(tmp_path: Path) -> None:
    write_config(tmp_path, "{latency_ms: 60}", prompts=4)
    code, shown = on_terminal(tmp_path, "run", "c.yaml", NO_COLOR="1")
    assert code == 0
    assert "4 prompts" in shown
    assert "in flight" in shown
    live, _, after = shown.rpartition("\x1b[J")  # the end of the last frame; it is wiped afterwards
    assert "prompts" in live
    assert after.count("label-pairs") == 1, "the summary's own row, and no frame that stayed"
    assert "written" in after
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]m", shown), "NO_COLOR"


def test_a_dumb_terminal_gets_lines(tmp_path: Path) -> None:
    write_config(tmp_path, prompts=2)
    assert "\x1b" not in on_terminal(tmp_path, "generate", "c.yaml", TERM="dumb")[1]


def test_lines_can_be_asked_for_on_any_terminal(tmp_path: Path) -> None:
    write_config(tmp_path, "{latency_ms: 700}", prompts=2)
    code, shown = on_terminal(tmp_path, "run", "c.yaml", "-v", NO_COLOR="1")
    assert code == 0
    assert re.match(r"\d\d:\d\d:\d\d +0% 0/2 prompts \[", shown), "for a screen reader: nothing is drawn over"
    assert not re.search(r"\x1b\[\d*[AJK]", shown)


def test_a_small_terminal_is_not_wrapped_nor_scrolled(tmp_path: Path) -> None:
    write_config(tmp_path, "{latency_ms: 60}", prompts=4)
    _, shown = on_terminal(tmp_path, "run", "c.yaml", "--json", columns=40, rows=10, NO_COLOR="1")
    live = shown[: shown.rindex("\x1b[J")]
    screen = Screen(40).feed(live)
    assert screen.wrapped == 0
    assert len(screen.lines) < 10
    assert "4 prompts" in live


# Around a run: before, while, after.


def test_a_dry_run_counts_what_the_run_then_asks_and_writes_nothing(cai: Cai, tmp_path: Path) -> None:
    write_config(tmp_path)
    with open(tmp_path / "p.jsonl", "a") as file:
        file.write('\n{"prompt": "How do I keep 0 bees?"}')  # asked before: bought once
    code, out, _ = cai("run", "c.yaml", "--dry-run", "--json")
    assert code == 0
    assert not (tmp_path / "out").exists()
    before = json.loads(out)
    _, out, err = cai("run", "c.yaml", "--json", "-q")
    assert {name: stage["calls"] for name, stage in before["stages"].items()} == {
        name: stage["requests"] for name, stage in json.loads(out)["stages"].items()
    }
    assert before["dollars_at_most"] == 0
    assert err == "", "quiet means quiet"


def test_a_dry_run_scales_prices_and_names_models_without_one(cai: Cai, tmp_path: Path) -> None:
    write_config(tmp_path, prompts=450)
    model = "model={provider: anthropic, name: mystery, max_tokens: 100}"
    priced = "model={provider: anthropic, name: mystery, max_tokens: 100, price: {input: 0, output: 1000}}"
    _, out, _ = cai("generate", "c.yaml", "--dry-run", "--set", model)
    assert "'mystery'" in out
    assert "150 of 450 prompts" in out
    _, out, _ = cai("generate", "c.yaml", "--dry-run", "--json", "--set", priced)
    found = json.loads(out)
    assert found["stages"]["generate"]["calls"] == 900
    assert found["dollars_at_most"] == pytest.approx(900 * 100 * 1000 / 1e6)
    code, _, err = cai("generate", "c.yaml", "--dry-run", "-i", "-")
    assert code == 2
    assert "hint:" in err


def test_the_summary_says_what_came_of_it_and_how_to_go_on(cai: Cai, tmp_path: Path) -> None:
    write_config(tmp_path, "{empty_rate: 0.35}", prompts=16)
    _, out, err = cai("run", "c.yaml", "-o", "there")
    assert out == ""
    assert "\x1b" not in err
    assert "rejected  " in err
    assert " empty" in err
    assert "position bias" in err
    assert "written   there\nlook      cai show c.yaml -o there --rejects\n" in err
    assert 'load      datasets.load_dataset("there", "debias")' in err
    _, _, err = cai("run", "c.yaml", "-o", "there")
    assert len(err.splitlines()) == 1, "nothing new: one line"
    _, _, err = cai("generate", "c.yaml", "-o", "-")
    assert "version" not in err
    assert "load_dataset" not in err


def test_the_summary_names_models_whose_price_is_unknown(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = configs.load(write_config(tmp_path), ["model={provider: anthropic, name: mystery}"])
    tell(config, Summary(stages={"generate": FACTS | {"version": "v0001-00000000"}}))
    err = capfd.readouterr().err
    assert "spent     $? on 4 requests" in err
    assert "mystery" in err


def test_status_of_nothing_says_what_to_type(cai: Cai, tmp_path: Path) -> None:
    write_config(tmp_path)
    code, out, err = cai("status", "c.yaml")
    assert (code, out) == (0, "")
    assert "cai run c.yaml" in err
    assert not (tmp_path / "out").exists()


def test_status_while_a_run_goes_on_after_its_death_and_after_its_end(cai: Cai, tmp_path: Path) -> None:
    write_config(tmp_path, "{latency_ms: 150}", prompts=12)
    process = begin(tmp_path, "run", "c.yaml", "--concurrency", "2", stderr=subprocess.PIPE)
    assert process.stderr is not None
    first = process.stderr.readline().decode()
    assert re.fullmatch(r"\d\d:\d\d:\d\d +\d+% \d+/12 prompts \[00:0\d<[\d:?]+\] [^\r\x1b]*\n", first)
    code, out, _ = cai("status", "c.yaml", "--json")
    found = json.loads(out)
    assert code == 0
    assert [run["state"] for run in found["runs"]] == ["running"]
    assert found["go_on"] is None
    assert found["runs"][0]["updated"] > found["runs"][0]["started"] + 0.9, "two seconds in, it knows of the first one"
    assert found["ledger"]["bytes"] > 0
    assert "running for" in cai("status", "c.yaml")[1]
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _, out, _ = cai("status", "c.yaml")
    assert "killed" in out
    assert re.search(r"go on +cai run c.yaml --concurrency 2", out)
    assert cai("run", "c.yaml", "-q", "--set", "model.world={}")[0] == 0
    before = sorted(path.name for path in (tmp_path / "out" / ".cai").iterdir())
    code, out, _ = cai("status", "c.yaml")
    assert "12/12 prompts" in out
    assert "earlier runs" in out
    assert "v0001-" in out
    assert "go on" not in out
    assert sorted(path.name for path in (tmp_path / "out" / ".cai").iterdir()) == before, "looking leaves nothing behind"
