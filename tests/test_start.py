"""How the command starts: quick, since a verb pays only for what it uses, and with help that shows what to type."""

from __future__ import annotations

import json
import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from outside import cai, environment

from cai_cli import __version__
from cai_cli.cli import VERBS

HEAVY = {"pydantic", "yaml", "aiohttp", "asyncio", "rich", "anthropic", "datasets", "numpy", "scipy", "jinja2", "tqdm", "uvloop"}


def loaded_by(folder: Path, statement: str) -> set[str]:
    """Top-level modules of a fresh interpreter after a statement."""
    code = f"{statement}; import json, sys; print(json.dumps([*sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], env=environment(folder), capture_output=True, check=True)
    return {name.partition(".")[0] for name in json.loads(done.stdout)}


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
