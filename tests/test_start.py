"""How the command starts: quick, since a verb pays only for what it uses, and with help that shows what to type."""

from __future__ import annotations

import gc
import itertools
import json
import re
import resource
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from loopback import Server
from outside import SIMULATED, at, cai, environment, questions, write_config, write_rows

from cai_cli import __version__, stages
from cai_cli.cli import VERBS, _process
from cai_cli.engine import plan

HEAVY = {"pydantic", "yaml", "aiohttp", "asyncio", "rich", "anthropic", "datasets", "numpy", "scipy", "jinja2", "tqdm", "uvloop"}


def loaded_by(folder: Path, statement: str) -> set[str]:
    """Top-level modules of a fresh interpreter after a statement."""
    return {name.partition(".")[0] for name in modules_after(folder, statement)}


def modules_after(folder: Path, statement: str) -> set[str]:
    """All modules of a fresh interpreter after a statement."""
    code = f"{statement}; import json, sys; print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment(folder), capture_output=True, check=True)
    return set(json.loads(done.stdout))


def test_importing_the_command_line_loads_nothing_heavy(tmp_path: Path) -> None:
    assert loaded_by(tmp_path, "import cai_cli.cli") & HEAVY == set()


def test_the_package_itself_imports_nothing(tmp_path: Path) -> None:
    before = loaded_by(tmp_path, "pass")
    assert loaded_by(tmp_path, "import cai_cli") - before == {"cai_cli"}


def test_help_loads_nothing_heavy_and_lists_every_verb(tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = cai(tmp_path, "--help")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"cai --help: {after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime:.3f} s of CPU")
    assert done.code == 0
    assert [verb for verb in VERBS if f"  {verb} " not in done.out] == []
    quietly = "import io, sys, cai_cli.cli as c; sys.stdout = io.StringIO(); sys.argv = ['cai', '--help']; c._code()"
    assert loaded_by(tmp_path, f"{quietly}; sys.stdout = sys.__stdout__") & HEAVY == set()


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_shows_examples(tmp_path: Path, verb: str) -> None:
    first = helped(tmp_path, verb)
    listed = first.partition("\nCommands:\n")[2]
    for words in [[verb, name] for name in re.findall(r"^  ([a-z-]+) ", listed, re.MULTILINE)] or [[verb]]:
        said = helped(tmp_path, *words)
        assert re.search(rf"\n\s+Examples:\n\s+cai {' '.join(words)}\b", said), said
    assert "install-completion" not in first  # that is for the command as a whole


def helped(folder: Path, *words: str) -> str:
    """The help of a verb, also by its short name."""
    done, short = cai(folder, *words, "--help"), cai(folder, *words, "-h")
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith(f"Usage: cai {' '.join(words)} ")
    assert short == done
    return done.out


def test_the_version_is_printed(tmp_path: Path) -> None:
    assert cai(tmp_path, "--version").out == f"cai {__version__}\n"


def test_a_verb_that_is_almost_right_is_suggested(tmp_path: Path) -> None:
    done = cai(tmp_path, "generat")
    assert done.code == 2
    assert "generate" in done.err


def test_no_verb_shows_the_help(tmp_path: Path) -> None:
    done = cai(tmp_path)
    assert done.code in (0, 2)
    assert "Usage: cai" in done.out + done.err


# A run pays for its own stages and its own provider.

ELSEWHERE = {"numpy", "scipy", "datasets", "anthropic", "pandas", "pyarrow", "httpx", "requests", "rich", "rapidfuzz"}
NETWORK = {"aiohttp", "yarl", "multidict"}  # ssl comes with asyncio
ASKED = {"generate": {"samples": 1}, "critique": {}, "revise": {"rounds": 1}}
OF_OTHERS = {f"cai_cli.{name}" for name in (
    "stages.label_pairs", "stages.score", "stages.expand", "stages._adaptive", "tables.debias", "features", "probes", "probing",
    "engine.probing", "engine.tables", "engine.given_pairs", "engine.pairs_table", "engine.pilot_findings",
)}  # fmt: skip


def modules_of_a_run(folder: Path, **sections: object) -> set[str]:
    """All modules after `cai run -q` of a config without pairs."""
    write_rows(folder / "prompts.jsonl", questions(2))
    write_config(folder, **{**ASKED, "label_pairs": None, "debias": None, **sections})
    return modules_after(folder, "import sys, cai_cli.cli as c; sys.argv = ['cai', 'run', 'c.yaml', '-q']; assert c._code() == 0")


def of(packages: set[str], modules: set[str]) -> set[str]:
    return {name for name in modules if name.partition(".")[0] in packages}


def test_a_simulated_run_loads_no_network_and_no_other_stage(tmp_path: Path) -> None:
    loaded = modules_of_a_run(tmp_path, model=SIMULATED)
    assert of(ELSEWHERE | NETWORK, loaded) == set()
    assert loaded & OF_OTHERS == set()
    assert "cai_cli.stages.revise" in loaded


def test_a_run_over_http_loads_what_sends_requests_and_nothing_heavier(tmp_path: Path, running: Server) -> None:
    loaded = modules_of_a_run(tmp_path, model=at(running.url))
    assert of(ELSEWHERE, loaded) == set()
    assert loaded & OF_OTHERS == set()
    assert loaded >= NETWORK


def test_some_stages_stand_in_the_order_of_all() -> None:
    whole = plan.stage_names()
    some = [names for size in range(len(whole) + 1) for names in itertools.combinations(whole, size)]
    assert len(some) == 2 ** len(whole) >= 128
    assert [names for names in some if plan.in_order(reversed(names)) != list(names)] == []


def test_only_stages_of_others_say_whom_they_feed() -> None:
    """`plan` imports no stage to ask it that, but those that other packages add."""
    own = [name for name in stages.names() if name not in stages.added()]
    assert [name for name in own if hasattr(stages.module(name), "FEEDS")] == []


# The end of the process.


def test_the_process_ends_after_everybody_was_heard(tmp_path: Path) -> None:
    code = """
        import atexit, sys, threading, time
        from cai_cli.cli import _process

        def late():
            time.sleep(0.2)
            print("thread")

        atexit.register(print, "handler")
        threading.Thread(target=late).start()
        sys.argv = ["cai", "--version"]
        _process.main()
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, env=environment(tmp_path), capture_output=True, text=True, timeout=30)
    # a handler of before is one of the starter's; those of cai and of its libraries come later, and are called
    assert (done.returncode, done.stderr, done.stdout.split("\n")) == (0, "", [f"cai {__version__}", "thread", ""])


def test_a_reader_that_is_gone_is_told_of_as_python_does(tmp_path: Path) -> None:
    command = f"{sys.executable} -m cai_cli --version >/dev/full"
    done = subprocess.run(["sh", "-c", command], env=environment(tmp_path), capture_output=True, text=True, timeout=30)
    assert done.returncode != 0
    assert "No space left" in done.stderr


def test_in_a_process_of_somebody_elses_the_search_for_garbage_stays_as_it_is() -> None:
    before = gc.get_threshold(), gc.get_freeze_count()
    _process.settle()
    assert (gc.get_threshold(), gc.get_freeze_count()) == before
