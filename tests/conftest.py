"""What holds for every test: no network but this machine, a home of its own, and a key that must never turn up anywhere."""

from __future__ import annotations

import io
import ipaddress
import os
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback import CALM, Server, serve
from outside import Cai, files_that_hold
from reached import unreached
from site_of_tests import sitecustomize as site

# Set before anything is imported: `datasets` and `huggingface_hub` read their folders and HF_HUB_OFFLINE when they are imported.
HOME = Path(tempfile.mkdtemp(prefix="cai-tests-home-"))
CANARY = f"sk-canary-{secrets.token_hex(24)}"  # made at run time: a search for it cannot find this file
FOLDERS = ("HF_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR")
OTHERS = ("ANTHROPIC_", "OPENAI_", "HF_TOKEN", "CAI_", "COLUMNS", "LINES")  # what the person who runs the tests has set

for name in [name for name in os.environ if name.startswith(OTHERS)]:
    del os.environ[name]
os.environ.update({name: str(HOME / name.lower()) for name in FOLDERS})
os.environ.update(HOME=str(HOME), HF_HUB_OFFLINE="1", ANTHROPIC_API_KEY=CANARY)


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook sees every connection that Python's sockets make, whatever library asks for it."""
    if event in ("socket.connect", "socket.sendto") and isinstance(arguments[1], tuple) and not _is_here(str(arguments[1][0])):
        raise ConnectionRefusedError(f"tests reach no network: {arguments[1][0]}")


def _is_here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.partition("%")[0]).is_loopback
    except ValueError:
        return host == "localhost"


sys.addaudithook(_refuse)

# Which messages the tests reach, in this process and in those that it starts; workers of one run share the folder.
GIVEN = "REACHED_DIR" in os.environ  # a folder of somebody's own stays
os.environ.setdefault("REACHED_DIR", tempfile.mkdtemp(prefix="cai-tests-reached-"))
REACHED = Path(os.environ["REACHED_DIR"])
site.record(str(REACHED))


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A run of all tests fails if there is a message that none of them reached."""
    options = session.config.option
    some = (
        options.keyword
        or options.markexpr not in ("", "not wheel")
        or getattr(options, "lf", False)
        or session.config.args_source != pytest.Config.ArgsSource.TESTPATHS
    )
    if hasattr(session.config, "workerinput") or some or options.collectonly:
        return
    if missing := unreached(REACHED):
        print("\n\nmessages that no test reached:", *missing, sep="\n  ")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def canary() -> str:
    """The key that every test has in ANTHROPIC_API_KEY."""
    return CANARY


@pytest.fixture(scope="session", autouse=True)
def _no_file_holds_the_canary(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    yield
    leaks = [*files_that_hold(CANARY, tmp_path_factory.getbasetemp()), *files_that_hold(CANARY, HOME)]
    assert leaks == [], "the key stands in files that tests left"


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(HOME, ignore_errors=True)
    if not hasattr(config, "workerinput") and not GIVEN:
        shutil.rmtree(REACHED, ignore_errors=True)


@pytest.fixture
def cai(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Cai:
    """Runs `cai` in tmp_path, in this process. Gives: its exit code, stdout, stderr"""
    from cai_cli.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*args: object, stdin: bytes | None = None) -> tuple[int, str, str]:
        if stdin is not None:
            monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        monkeypatch.setattr(sys, "argv", ["cai", *map(str, args)])
        with pytest.raises(SystemExit) as caught:
            main()
        sys.stdout.flush()
        out, err = capfd.readouterr()
        return int(caught.value.code or 0), out, err

    return run


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    """A simulated server, for the tests of one file."""
    with serve() as server:
        yield server


@pytest.fixture
def server(running: Server) -> Server:
    """The same, with the options that it begins with, counting from zero."""
    running.reset(**CALM)
    return running


@pytest.fixture(scope="session")
def judged_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished run, its pairs judged and debiased: for copies only."""
    from exporting import ran

    folder = tmp_path_factory.mktemp("judged")
    ran(folder)
    return folder


@pytest.fixture
def judged(judged_run: Path, tmp_path: Path) -> Path:
    """A copy of that run in tmp_path, where `cai` works. Gives: its output"""
    shutil.copytree(judged_run / "out", tmp_path / "out", symlinks=True)
    for name in ("cai.yaml", "prompts.jsonl"):
        shutil.copy(judged_run / name, tmp_path / name)
    return tmp_path / "out"
