"""Typical mistakes, made one after the other in a folder of their own, and what `cai` said: the first part of docs/messages.md.

Each case is a folder of files, commands that come before, and the one with the mistake, run as a shell would run it.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FOLDER = "~/work"  # what the folder of a case is called in the transcript
THINGS = ("a bicycle", "a kite", "a violin", "a stone wall")
GOOD = "".join(json.dumps({"prompt": f"How do I mend {thing}?"}) + "\n" for thing in THINGS)
CONFIG = """\
name: mine
output: data
constitution: constitutions/general.yaml
model: {provider: simulated}
prompts: {path: prompts.jsonl, kind: harmless}
generate: {samples: 2}
critique: {}
revise: {rounds: 2}
label_pairs: {}
debias: {min_confidence: 0.5}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One mistake. `files` go over those that every folder has; `edit`: a text of the config, and what stands there instead."""

    title: str
    command: str
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    edit: tuple[str, str] = ("", "")
    before: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    server: tuple[str, ...] | None = None  # options of a simulated server; {url} and {port} in a config or command are its
    around: Callable[[Path], contextlib.AbstractContextManager[None]] | None = None
    full: bool = False  # the output's disk has no room; where nobody may mount one, the page keeps what it says


def _rows(*rows: Mapping[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def _remote(**more: Any) -> tuple[str, str]:
    model = {"provider": "anthropic", "name": "small-world", "base_url": "{url}"} | more
    return "model: {provider: simulated}", f"model: {json.dumps(model)}"


@contextlib.contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Another run holds the output meanwhile."""
    command = [sys.executable, "-m", "cai_cli", "run", "slow.yaml", "--limit", "4", "-q"]
    env = _environment(folder, {"ANTHROPIC_API_KEY": "any"})
    none = subprocess.DEVNULL
    with _server(("--latency-ms", "20000", "--port", "0")) as url:
        config = folder / "slow.yaml"
        config.write_text(CONFIG.replace(*(part.replace("{url}", url) for part in _remote())))
        process = subprocess.Popen(command, cwd=folder, env=env, stdin=none, stdout=none, stderr=none)
        try:
            while not list(folder.glob("data/.cai/runs/*/run.json")):
                assert process.poll() is None
            yield
        finally:
            process.kill()
            process.wait()
            config.unlink()


@contextlib.contextmanager
def _taken(_: Path) -> Iterator[None]:
    """A port that something else listens at."""
    with socket.create_server(("127.0.0.1", 8123)):
        yield


@contextlib.contextmanager
def _damaged(folder: Path) -> Iterator[None]:
    """Somebody edits a published file."""
    (path,) = folder.glob("data/generate/v*/train-*.jsonl")
    path.write_bytes(path.read_bytes().replace(b"mend", b"MEND", 1))
    yield


CASES: tuple[tuple[str, tuple[Case, ...]], ...] = (
    ("On the command line", (
        Case(title="A verb with a typo", command="cai generat c.yaml"),
        Case(title="An option that does not exist", command="cai run c.yaml --limt 5"),
        Case(title="An option without its value", command="cai run c.yaml --limit"),
        Case(title="A number that cannot be", command="cai run c.yaml --limit 0"),
        Case(title="No config at all", command="cai run"),
        Case(title="A config that is not there", command="cai run mine.yaml"),
        Case(title="A key that --set does not know", command="cai run c.yaml --set revise.round=3"),
        Case(title="--set without a value", command="cai run c.yaml --set revise.rounds"),
        Case(title="The rows as if they were the config", command="cai run prompts.jsonl"),
    )),
    ("In the config", (
        Case(title="A key with a typo", command="cai run c.yaml", edit=("rounds: 2", "rouns: 2")),
        Case(title="A section with a typo", command="cai run c.yaml", edit=("critique: {}", "critque: {}")),
        Case(title="A word where a number belongs", command="cai run c.yaml", edit=("samples: 2", "samples: two")),
        Case(title="A number out of range", command="cai run c.yaml", edit=("min_confidence: 0.5", "min_confidence: 50")),
        Case(title="YAML that cannot be read", command="cai run c.yaml", edit=("rounds: 2}", "rounds: 2")),
        Case(title="A key given twice", command="cai run c.yaml", edit=("debias:", "critique: {}\ndebias:")),
        Case(title="Several mistakes at once", command="cai config check c.yaml",
             edit=("generate: {samples: 2}", "generate: {sample: 2}\nsplits: {test: 0.1}\nlimits: {concurrency: many}")),
        Case(title="A constitution with a typo", command="cai run c.yaml", edit=("general.yaml", "generel.yaml")),
        Case(title="A constitution that lacks something", command="cai run c.yaml",
             edit=("constitutions/general.yaml", "own.yaml"),
             files={"own.yaml": "name: own\nprinciples:\n  - {name: kind, categroy: tone}\n"}),
        Case(title="A template with a typo", command="cai run c.yaml",
             edit=("critique: {}", "critique: {template: safty_focused}")),
        Case(title="A template of one's own with an unknown variable", command="cai run c.yaml",
             edit=("critique: {}", "critique: {template: mine.md}"),
             files={"mine.md": "---\npurpose: to find faults\nsource: our own\n---\nWhat is wrong with {{ respons }}?\n"}),
        Case(title="A provider with a typo", command="cai run c.yaml", edit=("provider: simulated", "provider: antropic")),
        Case(title="A provider without a model", command="cai run c.yaml", edit=("provider: simulated", "provider: anthropic")),
        Case(title="No stage in it", command="cai run c.yaml", files={"c.yaml": "name: mine\noutput: data\n"}),
        Case(title="A stage that the config has not", command="cai score c.yaml"),
        Case(title="An output that is a file", command="cai run c.yaml -o prompts.jsonl"),
        Case(title="Somewhere without permission", command="cai run c.yaml -o /proc/mine"),
    )),
    ("In the data", (
        Case(title="A file that is not there", command="cai run c.yaml -i promts.jsonl"),
        Case(title="A column that is not there", command="cai run c.yaml --set prompts.column=question"),
        Case(title="An empty file", command="cai run c.yaml", files={"prompts.jsonl": ""}),
        Case(title="Broken lines among good ones", command="cai run c.yaml -q --set limits.max_reject_rate=0.1",
             files={"prompts.jsonl": GOOD + '{"prompt": "How\n{"prompt": 7}\n{"prompt": ""}\n'}),
        Case(title="A download that was cut off", command="cai run c.yaml -i prompts.jsonl.gz",
             files={"prompts.jsonl.gz": gzip.compress(GOOD.encode(), mtime=0)[:60]}),
        Case(title="Ids that repeat", command="cai run c.yaml",
             files={"prompts.jsonl": _rows(*({"id": n, "prompt": f"Why {n}?"} for n in "xyx"))}),
        Case(title="Rows of another stage", command="cai revise c.yaml -i prompts.jsonl"),
        Case(title="Labels without votes", command="cai debias c.yaml -i pairs.jsonl",
             files={"pairs.jsonl": _rows({"prompt": "How?", "response_a": "So.", "response_b": "Thus."})}),
    )),
    ("Between here and the model", (
        Case(title="No key", command="cai run c.yaml", edit=_remote(name="claude-sonnet-5-5", base_url=None)),
        Case(title="A key that is refused", command="cai run c.yaml -q", edit=_remote(), server=("--fail", "401"),
             env={"ANTHROPIC_API_KEY": "sk-made-up-0042"}),
        Case(title="A model that is not offered", command="cai run c.yaml -q", edit=_remote(name="claude-sonet"),
             server=("--model", "small-world"), env={"ANTHROPIC_API_KEY": "any"}),
        Case(title="Nobody listens there", command="cai run c.yaml -q --set limits.max_outage=1s",
             edit=_remote(base_url="http://127.0.0.1:9"), env={"ANTHROPIC_API_KEY": "any"}),
        Case(title="Another host, and no key named for it", command="cai run c.yaml",
             edit=_remote(base_url="https://models.example.org"), env={"ANTHROPIC_API_KEY": "any"}),
        Case(title="Plain http over a network", command="cai run c.yaml",
             edit=_remote(base_url="http://models.example.org"), env={"ANTHROPIC_API_KEY": "any"}),
        Case(title="A spend limit is reached", command="cai run c.yaml -q", edit=_remote(), server=("--fail", "spend"),
             env={"ANTHROPIC_API_KEY": "any"}),
        Case(title="The budget is used up", command="cai run c.yaml -q --budget-usd 0.01 --concurrency 1",
             edit=("provider: simulated", "provider: simulated, price: {input: 100, output: 500}")),
        Case(title="A budget, and a model without a price", command="cai run c.yaml --budget-usd 5",
             edit=_remote(), server=(), env={"ANTHROPIC_API_KEY": "any"}),
    )),
    ("On this machine", (
        Case(title="Another run holds the output", command="cai run c.yaml", around=_held),
        Case(title="The same from cron, which may skip", command="cai run c.yaml --if-locked skip", around=_held),
        Case(title="A disk that is full", command="cai run c.yaml", full=True),
        Case(title="A port that is taken", command="cai simulate --port 8123", around=_taken),
        Case(title="A published file that was edited", command="cai verify c.yaml",
             before=("cai generate c.yaml -q",), around=_damaged),
    )),
    ("When looking at it", (
        Case(title="Status before there is anything", command="cai status c.yaml"),
        Case(title="Rows before there are any", command="cai show c.yaml"),
        Case(title="An id that no row has", command="cai show c.yaml nobody-0", before=("cai generate c.yaml -q",)),
        Case(title="A stage with a typo", command="cai show c.yaml --stage revize", before=("cai generate c.yaml -q",)),
        Case(title="A filter on a column that is not there", command="cai show c.yaml --where 'severty > .5'",
             before=("cai run c.yaml -q",)),
        Case(title="The requests of a row that is not there", command="cai why c.yaml nobody-0",
             before=("cai generate c.yaml -q",)),
        Case(title="A version that is not there", command="cai diff c.yaml v0001 v0009", before=("cai generate c.yaml -q",)),
        Case(title="A reason with a typo", command="cai retry c.yaml --only truncatd",
             edit=("generate: {samples: 2}", "generate: {samples: 2, model: {max_tokens: 30}}"), before=("cai run c.yaml -q",)),
        Case(title="An analysis with a typo", command="cai analyze preference c.yaml"),
        Case(title="An analysis before there are rows", command="cai analyze preferences c.yaml"),
        Case(title="An export before there are rows", command="cai export c.yaml --to sft"),
        Case(title="A format that does not exist", command="cai export c.yaml --to dpo", before=("cai generate c.yaml -q",)),
        Case(title="A folder that is in use", command="cai init .", files={"cai.yaml": "name: mine\n"}),
        Case(title="A file that holds no principles", command="cai constitution import prompts.jsonl"),
    )),
)  # fmt: skip


PAGE = Path(__file__).parent / "messages.md"
FULL = [
    "unshare",
    "-rm",
    "sh",
    "-c",
    'mkdir -p data && mount -t tmpfs -o size=64k cai data && head -c 1m /dev/zero 2>&- > data/x; exec "$@"',
    "sh",
]


def _may_mount(folder: Path) -> bool:
    with contextlib.suppress(OSError):
        return subprocess.run([*FULL, "true"], cwd=folder, capture_output=True, timeout=20, check=False).returncode == 0
    return False


def _kept(case: Case) -> str:
    """What the page says of a case by now."""
    found = re.search(rf"^{re.escape(case.title)}:\n\n```console\n(.*?)```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert found, case.title
    return found[1]


def transcript(case: Case) -> str:
    """What a shell shows of a case: the command, what was said, and the exit code where it is not 0."""
    with tempfile.TemporaryDirectory(prefix="cai-mistakes-") as name, contextlib.ExitStack() as stack:
        folder = Path(name) / "work"
        folder.mkdir()
        url = stack.enter_context(_server((*case.server, "--port", "0"))) if case.server is not None else ""
        _fill(folder, case, url)
        if case.full and not _may_mount(folder):
            return _kept(case)
        for command in case.before:
            _run(folder, command, case.env)
        if case.around is not None:
            stack.enter_context(case.around(folder))
        said, code = _run(folder, case.command, case.env, FULL if case.full else ())
        return _as_anywhere(f"$ {case.command}\n{said}", folder, url) + (f"(exit {code})\n" if code else "")


def _fill(folder: Path, case: Case, url: str) -> None:
    config = CONFIG.replace(*case.edit) if case.edit[0] else CONFIG
    assert not case.edit[0] or config != CONFIG, case.title
    files = {"c.yaml": config, "prompts.jsonl": GOOD, **case.files}
    for name, text in files.items():
        (folder / name).write_bytes(text if isinstance(text, bytes) else text.replace("{url}", url).encode())


def _run(folder: Path, command: str, env: Mapping[str, str], within: Sequence[str] = ()) -> tuple[str, int]:
    words = [*within, sys.executable, "-m", "cai_cli", *shlex.split(command)[1:]]
    done = subprocess.run(words, cwd=folder, env=_environment(folder, env), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, timeout=120, check=False)  # fmt: skip
    return done.stdout.decode(), done.returncode


def _environment(folder: Path, more: Mapping[str, str]) -> dict[str, str]:
    """A home of its own, no key, and what Python needs."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "REACHED_DIR") if name in os.environ}
    places = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "site_of_tests")])
    return {**kept, "PYTHONPATH": places, "HOME": str(folder.parent), "TMPDIR": str(folder.parent), "HF_HUB_OFFLINE": "1", **more}


@contextlib.contextmanager
def _server(options: tuple[str, ...]) -> Iterator[str]:
    """A simulated server. Gives: its URL"""
    command = [sys.executable, "-m", "cai_cli", "simulate", "--json", "--with-parent", *options]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(ROOT)}
    ) as process:
        assert process.stdout is not None
        try:
            yield str(json.loads(process.stdout.readline())["url"])
        finally:
            process.terminate()


_VARYING = (
    (r"process \d+ on \S+", "process 4711 on workstation"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?", "2026-11-21 09:30"),
    (r"\b\d\d:\d\d:\d\d\b", "09:30:00"),
    (r"\b[1-9][\d.]* (kB|MB|GB|TB) free", "212 GB free"),
    (r"\breq_\w+", "req_0042"),
)


def _as_anywhere(said: str, folder: Path, url: str) -> str:
    """What was said without what is another on every machine and every day."""
    said = said.replace(str(folder), FOLDER).replace(str(folder.parent), "~")
    if url:
        said = said.replace(url, "http://127.0.0.1:8123").replace(url.rpartition("/")[2], "127.0.0.1:8123")
    for pattern, instead in _VARYING:
        said = re.sub(pattern, instead, said)
    return said
