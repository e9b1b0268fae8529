"""What is said of a mistake, a stop or a wait: what happened, where, and what to type next."""

from __future__ import annotations

import io
import json
import logging
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from outside import Cai, environment, finish, questions, start, write_config, write_rows
from outside import cai as run_outside

from cai_cli import __version__
from cai_cli.cli._app import LATER
from cai_cli.cli.summary import without_cap
from cai_cli.reports.console import console
from cai_cli.reports.quantities import counted

PRICED = {"provider": "simulated", "name": "small-world", "price": {"input": 1.0, "output": 5.0}}


@pytest.fixture
def cai(cai: Cai, tmp_path: Path) -> Cai:
    """The same, where a config and four prompts are."""
    write_rows(tmp_path / "prompts.jsonl", questions(4))
    write_config(tmp_path)
    return cai


# The command line itself


@pytest.mark.parametrize(
    ("args", "message", "hint"),
    [
        (["run", "c.yaml", "--zzz"], "No such option: --zzz", "cai run -h"),
        (["run", "c.yaml", "--mode", "carrier-pigeon"], "'carrier-pigeon' is not 'live'", "cai run -h"),
        (["run", "c.yaml", "--if-locked", "maybe"], "'maybe' is not one of", "cai run -h"),
        (["run", "c.yaml", "--if-locked=Skip"], "'Skip' is not one of", "did you mean skip? all of them: cai run -h"),
        (["generat"], "there is no command 'generat'", "did you mean 'cai generate'? all of them: cai -h"),
        (["run", "c.yaml", "--limt", "3"], "No such option: --limt", "did you mean --limit? all of them: cai run -h"),
        (["run", "c.yaml", "--limit"], "Option '--limit' requires an argument", "cai run -h"),
        (["run", "p.jsonl"], "there is no file 'p.jsonl'", "did you mean 'prompts.jsonl'?"),
        (["init"], "Missing argument 'DIR'", "cai init -h"),
    ],
)
def test_a_slip_in_the_command_line_is_an_error_and_a_hint(cai: Cai, args: list[str], message: str, hint: str) -> None:
    code, out, err = cai(*args)
    assert (code, out) == (2, "")
    error, advice = err.splitlines()
    assert error.startswith("error: ")
    assert message in error
    assert "Value error" not in error
    assert advice == f"hint: {hint}"


LATER_OPTIONS = [("--mode", "batch"), ("--mode", "auto"), ("--engine", "ray"), ("--shard", "1/2")]


@pytest.mark.parametrize(
    "args",
    [*([verb, "c.yaml"] for verb in LATER), *(["run", "c.yaml", *pair] for pair in LATER_OPTIONS)],
)
def test_what_this_version_has_not_is_named_as_such(cai: Cai, args: list[str]) -> None:
    code, _, err = cai(*args)
    assert code == 2
    verb = " run" if len(args) > 2 else ""
    hint = f"hint: see what there is: cai{verb} -h\n"
    assert re.fullmatch(rf"error: '?[-a-z ]+'? is not in version {re.escape(__version__)}\n{re.escape(hint)}", err)


def test_a_verb_by_itself_still_shows_its_help(cai: Cai) -> None:
    _, out, err = cai("show")
    assert "Usage: cai show" in out + err
    assert "error:" not in err


# Places


def test_a_file_is_no_output_and_no_folder_to_begin_in(cai: Cai) -> None:
    code, _, err = cai("run", "c.yaml", "-o", "prompts.jsonl")
    assert (code, err.splitlines()[0]) == (2, "error: prompts.jsonl is a file, and an output is a folder")
    code, _, err = cai("init", "prompts.jsonl")
    assert (code, err.splitlines()[0]) == (2, "error: prompts.jsonl is a file, and `cai init` fills a folder")


def test_an_init_that_would_overwrite_has_one_error_a_file_and_one_hint(cai: Cai) -> None:
    code, _, err = cai("init", ".")
    assert code == 2
    assert err == "error: prompts.jsonl is there already\nhint: nothing was written; choose another folder, or move these away\n"


def test_the_path_of_i_is_relative_to_where_one_is(cai: Cai, tmp_path: Path) -> None:
    code, _, err = cai("critique", "c.yaml", "-i", "nope.csv")
    assert code == 65
    assert "relative to where you are" in err


# Rows of the wrong kind


@pytest.fixture
def made(cai: Cai, tmp_path: Path) -> Path:
    assert cai("run", "c.yaml", "-q")[0] == 0
    return tmp_path / "out"


@pytest.mark.parametrize(
    ("verb", "rows", "lacks"),
    [
        ("critique", "label-pairs", "'response', which critique"),
        ("label-pairs", "debias", "'response', which critique"),
        ("revise", "generate", "no row has an open round"),
        ("revise", "revise", "no row has an open round"),
        ("debias", "generate", "'votes', which cai debias reads"),
    ],
)
def test_rows_of_another_stage_make_no_version(cai: Cai, made: Path, verb: str, rows: str, lacks: str) -> None:
    before = sorted(path.name for path in (made / verb).iterdir())
    code, _, err = cai(verb, "c.yaml", "-q", "-i", f"out/{rows}/latest")
    error, hint = err.splitlines()
    assert code == 65
    assert error.startswith(f"error: out/{rows}/latest")
    assert lacks in error
    assert "`cai critique`" in hint or "cai generate" in hint or "cai label-pairs" in hint
    assert sorted(path.name for path in (made / verb).iterdir()) == before


def test_rows_of_the_right_kind_are_taken(cai: Cai, made: Path) -> None:
    for verb, rows in (("critique", "generate"), ("revise", "critique"), ("label-pairs", "revise"), ("debias", "label-pairs")):
        code, out, _ = cai(verb, "c.yaml", "-q", "-i", f"out/{rows}/latest", "-o", "-")
        if verb == "revise":  # the rows as last critiqued may all have been found good
            assert code in (0, 65)
        else:
            assert (code, bool(out)) == (0, True)


def test_prompts_on_stdin_are_no_samples_and_are_called_stdin(cai: Cai, tmp_path: Path) -> None:
    data = (tmp_path / "prompts.jsonl").read_bytes()
    code, _, err = cai("critique", "c.yaml", "-i", "-", "-o", "-", stdin=data)
    assert (code, err.startswith("error: stdin: these rows have no 'response'")) == (65, True)


@pytest.mark.parametrize("verb", ["generate", "critique"])
def test_an_empty_stdin_is_called_stdin(cai: Cai, verb: str) -> None:
    code, _, err = cai(verb, "c.yaml", "-i", "-", "-o", "-", stdin=b"")
    assert (code, err.splitlines()[0]) == (65, "error: stdin holds no rows")


# Rows that cannot be used


def test_equal_reasons_are_told_once_with_a_hint(cai: Cai, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text("hello\n" * 40 + '{"x": 1}\n')
    code, _, err = cai("generate", "c.yaml", "-i", "bad.jsonl")
    assert code == 65
    lines = err.splitlines()
    assert lines[0] == "error: bad.jsonl holds no usable row"
    assert lines[1].startswith("error: bad.jsonl:1 and 39 more: not_json: ")
    assert lines[2].startswith("error: bad.jsonl:41: missing_column: ")
    assert lines[3:] == ['hint: a file of rows holds one JSON object a line, as in {"prompt": "..."}']


def test_a_csv_without_a_header_is_told_so(cai: Cai, tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_text("hello there\nhow so\n")
    code, _, err = cai("generate", "c.yaml", "-i", "h.csv")
    assert code == 65
    assert "hint: the first line of a CSV is taken as its header; " in err
    assert "--set prompts.column=NAME" in err


def test_a_named_column_that_is_missing_names_the_file_and_the_setting(cai: Cai, tmp_path: Path) -> None:
    (tmp_path / "h.csv").write_text("text\nhow so\n")
    named = [f"prompts.{key}={value}" for key, value in (("column", "prompt"), ("kind", "sort"), ("keep", "[topic]"))]
    code, _, err = cai("generate", "c.yaml", "-i", "h.csv", *[word for one in named for word in ("--set", one)])
    assert code == 65
    lines = err.splitlines()
    assert [line.startswith("error: h.csv: there is no column ") for line in lines[::2]] == [True] * 3
    assert [re.search(r"--set prompts\.(\w+)=", line)[1] for line in lines[1::2]] == ["column", "kind", "keep"]  # type: ignore[index]
    assert lines[3].endswith("or --set prompts.kind=harmful for all rows")


def test_a_dataset_that_cannot_be_reached_is_told_once(cai: Cai) -> None:
    code, _, err = cai("generate", "c.yaml", "--set", "prompts={dataset: nobody/nothing}")
    assert code in (65, 69)
    assert "Retrying" not in err
    assert logging.getLogger("huggingface_hub").getEffectiveLevel() >= logging.ERROR


# Stops


def test_more_rejects_than_allowed_says_where_they_are(cai: Cai, tmp_path: Path) -> None:
    write_rows(tmp_path / "prompts.jsonl", [*questions(2), {"prompt": " "}, {"prompt": " "}])
    code, _, err = cai("generate", "c.yaml", "-q", "-o", "w3")
    assert (code, err.splitlines()[-1].endswith("look with: cai show c.yaml -o w3 --rejects")) == (3, True)
    assert cai("show", "c.yaml", "-o", "w3", "--rejects")[0] == 0
    model = {"provider": "simulated", "name": "small-world", "world": {"empty_rate": 0.9}}
    write_config(tmp_path, model=model)
    code, _, err = cai("generate", "c.yaml", "-q", "-o", "-")
    path = tmp_path / err.split()[-1]
    assert (code, path.name) == (3, "rejects.jsonl")
    assert "empty" in {orjson.loads(line)["reason"] for line in path.read_bytes().splitlines()}


def test_a_budget_stop_says_what_is_missing_and_its_command_does_not_stop_again(cai: Cai, tmp_path: Path) -> None:
    write_config(tmp_path, model=PRICED)
    code, _, err = cai("run", "c.yaml", "-q", "--budget-usd", "0.004")
    error, hint, last = err.splitlines()
    assert code == 75
    assert error.startswith("error: the budget of $0.0040 does not cover the next request: $0.0")
    assert re.search(r": \$0\.00\d\d is spent or set aside, it may cost \$0\.00\d\d$", error)
    assert "--budget-usd" in hint
    assert last.endswith("; raise the cap, then go on with: cai run c.yaml -q")
    _, out, _ = cai("status", "c.yaml")
    told = " ".join(out.split())
    assert error.removeprefix("error: ") in told
    assert hint.removeprefix("hint: ") in told
    assert json.loads(cai("status", "c.yaml", "--json")[1])["go_on"] == "cai run c.yaml -q"
    assert cai("run", "c.yaml", "-q")[0] == 0


words = st.lists(st.sampled_from(["cai", "run", "my c.yaml", "-q", "--set", "seed=3", "--limit", "5", "a'b"]), max_size=6)


@given(words, words)
def test_a_command_loses_its_budget_and_nothing_else(before: list[str], after: list[str]) -> None:
    import shlex

    before = [*before, "x"] if before[-1:] == ["--set"] else before
    for given_as in (
        ["--budget-usd", "0.5"],
        ["--budget-usd=.5"],
        ["--set", "limits.budget_usd=0.5"],
        ["--set=limits.budget_usd=1"],
    ):
        assert shlex.split(without_cap(shlex.join([*before, *given_as, *after]))) == [*before, *after]
    assert without_cap(shlex.join([*before, *after])) == shlex.join([*before, *after])


def test_a_ledger_that_is_no_database_is_not_a_matter_of_permissions(cai: Cai, tmp_path: Path) -> None:
    (tmp_path / "out" / ".cai").mkdir(parents=True)
    (tmp_path / "out" / ".cai" / "ledger.sqlite").write_text("no database at all, but rather long " * 20)
    code, _, err = cai("run", "c.yaml")
    assert (code, "it is damaged: move it away" in err) == (74, True)
    assert "permissions" not in err
    code, out, _ = cai("status", "c.yaml")  # which tells the rest all the same
    assert (code, "it is damaged: move it away" in " ".join(out.split()), "permissions" in out) == (0, True, False)


def test_a_changed_version_is_mended_by_what_is_advised(cai: Cai, made: Path) -> None:
    version = (made / "generate" / "latest").resolve()
    next(version.glob("*-of-*")).write_text("{}\n")
    for args in (
        ("show", "c.yaml", "--stage", "generate"),
        ("critique", "c.yaml", "--set", "critique.principles=2", "-i", "out/generate/latest"),
    ):
        assert cai(*args)[0] == 65
    for damage in (lambda: None, lambda: (version / "_manifest.json").write_text("")):
        damage()
        _, _, err = cai("show", "c.yaml", "--stage", "generate")
        assert "hint: `cai verify CONFIG` says what is damaged, and what brings it back" in err
        said = json.loads(cai("verify", "c.yaml", "--json")[1])
        assert ([Path(path).name for path in said["remove"]], said["run"]) == ([version.name], ["cai run c.yaml"])
    shutil.rmtree(said["remove"][0])
    assert cai("run", "c.yaml", "-q")[0] == 0
    assert cai("show", "c.yaml", "--stage", "generate")[0] == 0


def test_a_waiting_run_says_whom_it_waits_for(tmp_path: Path) -> None:
    write_rows(tmp_path / "prompts.jsonl", questions(4))
    write_config(tmp_path, model={"provider": "simulated", "name": "small-world", "world": {"latency_ms": 3000}})
    holder = start(tmp_path, "generate", "c.yaml", "-q")
    lock = tmp_path / "out" / ".cai" / "lock"
    while not (lock.exists() and lock.stat().st_size):
        time.sleep(0.02)
    waited = run_outside(tmp_path, "generate", "c.yaml", "--if-locked", "wait")
    assert finish(holder).code == waited.code == 0
    assert waited.err.startswith(f"cai: waiting for process {holder.pid} on ")
    assert "(cai generate c.yaml -q)" in waited.err.splitlines()[0]


# Signals at the edges

STARTING = """
import signal, sys
from cai_cli.cli import main

class Import:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv.pop():
            try:
                signal.raise_signal(int(sys.argv.pop()))
            except BaseException:  # as some packages do around what is optional
                pass
        else:
            raise SystemExit(f"{name} came first")

class When(Import):
    def find_spec(self, name, path=None, target=None):
        return super().find_spec(name) if name == sys.argv[-1] else None

sys.meta_path.insert(0, When())
main()
"""


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 75)])
@pytest.mark.parametrize("module", ["typer", "cai_cli.cli.run", "pydantic"])
def test_a_signal_during_an_import_is_one_line(tmp_path: Path, number: signal.Signals, code: int, module: str) -> None:
    write_config(tmp_path)
    program = [sys.executable, "-c", STARTING, "run", "c.yaml", str(int(number)), module]
    done = subprocess.run(program, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("cai: stopped with no request in flight; nothing is lost; go on with: cai run c.yaml")
    assert len(done.stderr.splitlines()) == 1


def test_nothing_comes_after_the_last_line(tmp_path: Path) -> None:
    code = (
        "import atexit, os, signal, sys\nfrom cai_cli.cli import main\n"
        "sys.argv = ['cai', '--version']\n"
        "atexit.register(lambda: None)\n"
        "try: main()\n"
        "finally: sys.stdout.flush(); atexit._run_exitfuncs(); os.kill(os.getpid(), signal.SIGINT)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_whoever_heard_the_signals_before_hears_them_again(cai: Cai) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    assert cai("constitution", "list")[0] == 0
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


# How it looks


def test_no_line_that_is_piped_ends_with_blanks(cai: Cai, made: Path) -> None:
    said = [
        cai(*args)
        for args in (("show", "c.yaml"), ("status", "c.yaml"), ("run", "c.yaml", "--dry-run"), ("run", "c.yaml", "-o", "b"))
    ]
    assert [line for _, out, err in said for line in (out + err).splitlines() if line != line.rstrip()] == []


def test_a_terminal_is_written_to_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    for stream, wanted in ((Terminal(), "a  \n"), (io.StringIO(), "a\n")):
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setenv("TERM", "dumb")
        console().print("a  ")
        assert stream.getvalue() == wanted


def test_one_is_not_many() -> None:
    assert [counted(n, "reply was", "replies were") for n in (0, 1, 2000)] == [
        "0 replies were",
        "1 reply was",
        "2,000 replies were",
    ]
    assert counted(2, "request") == "2 requests"


def test_constitutions_as_json(cai: Cai) -> None:
    code, out, err = cai("constitution", "list", "--json")
    found: dict[str, Any] = json.loads(out)
    assert (code, err) == (0, "")
    named = {one["name"]: one for one in found["constitutions"]}
    assert list(named) == ["financial", "general", "helpful", "honesty", "legal", "medical", "safety"]
    assert all(one["principles"] > 0 and Path(one["path"]).name == f"{name}.yaml" for name, one in named.items())
