"""What the shell offers behind TAB, asked as the shells ask."""

from __future__ import annotations

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from outside import SIMULATED, environment, rows_of, start, write_config, write_rows

from cai_cli import exports, providers
from cai_cli.engine.plan import stage_names, table_names

ROWS = [{"prompt": f"How do I mend kite {n}?", "id": f"k{n:02d}"} for n in range(30)]
HOSTILE = [{"prompt": "Kites?", "id": name} for name in ("k$(touch owned)", "k`x`", "k 1", "k;x", "k\x1b[2J", "k'x")]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_rows(folder / "prompts.jsonl", [*ROWS, *HOSTILE])
    world = {"model": SIMULATED | {"world": {"empty_rate": 0.2}}, "shards": {"rows": 10, "compression": "gzip"}}
    write_config(folder, **world)
    process = start(folder, "run", "c.yaml", "-q")
    process.communicate()
    assert process.returncode in (0, 3)
    (folder / "more").mkdir()
    shutil.copy(folder / "c.yaml", folder / "more" / "d.yml")
    (folder / "broken.yaml").write_text("generate: [")
    return folder


def bash(folder: Path, *words: str) -> list[str]:
    """What bash is given for the last of these words, which may be empty."""
    line = " ".join(["cai", *words])
    return ask(folder, COMP_WORDS=line, COMP_CWORD=str(len(words)), _CAI_COMPLETE="complete_bash")


def ask(folder: Path, **protocol: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-m", "cai_cli"], cwd=folder, env=environment(folder, **protocol), capture_output=True, check=False
    )
    assert done.stderr == b""
    return done.stdout.decode().split()


def samples(folder: Path) -> list[str]:
    return [row["id"] for row in rows_of((folder / "out/generate/latest").resolve())]


@pytest.mark.parametrize("verb", ["show", "why"])
def test_ids_are_those_that_begin_so(made: Path, verb: str) -> None:
    offered = bash(made, verb, "c.yaml", "k07")
    assert set(offered) >= {one for one in samples(made) if one.startswith("k07")}
    assert all(one.startswith("k07") for one in offered)
    assert bash(made, verb, "c.yaml", "zz") == []


def test_what_a_shell_would_run_is_not_offered(made: Path) -> None:
    offered = bash(made, "show", "c.yaml", "k")
    assert offered
    assert not set("".join(offered)) & set("$`;'\x1b[(")


def test_of_many_ids_the_first_and_the_last_are_offered(tmp_path: Path) -> None:
    write_rows(tmp_path / "prompts.jsonl", [{"prompt": f"Kite {n}?", "id": f"p{n:04d}"} for n in range(700)])
    write_config(tmp_path, critique=None, revise=None, label_pairs=None, debias=None, generate={"samples": 1})
    process = start(tmp_path, "run", "c.yaml", "-q")
    process.communicate()
    offered = bash(tmp_path, "show", "c.yaml", "p")
    assert len(offered) <= 201
    assert (offered[0], offered[-1]) == ("p0000-0", "p0699-0")
    assert bash(tmp_path, "show", "c.yaml", "p069")[0] == "p0690-0"


def test_stages_versions_reasons_flags_and_names(made: Path) -> None:
    assert bash(made, "show", "c.yaml", "--stage", "") == list(stage_names())
    assert bash(made, "show", "c.yaml", "--prompt", "") == [name for name in stage_names() if name not in table_names()]
    revised = (made / "out/revise/latest").resolve().name
    assert bash(made, "show", "c.yaml", "--stage", "revise", "--version", "v") == [revised]
    assert revised in bash(made, "show", "--stage=revise", "c.yaml", "--version", "v0001")
    assert bash(made, "show", "c.yaml", "--reason", "") == ["empty"]
    assert bash(made, "show", "c.yaml", "--flags", "refused,t") == ["refused,truncated", "refused,tie"]
    assert bash(made, "show", "c.yaml", "--where", "sev") == ["severity"]
    assert set(bash(made, "why", "c.yaml", "--stage", "")) == set(stage_names()) - set(table_names())
    assert "empty" in bash(made, "retry", "c.yaml", "--only", "")
    assert bash(made, "export", "c.yaml", "--to", "") == exports.names()


def test_configs_here_and_one_folder_below(made: Path) -> None:
    assert bash(made, "show", "") == ["broken.yaml", "c.yaml", "more/d.yml"]
    assert bash(made, "run", "mo") == ["more/d.yml"]
    assert bash(made, "run", "./more/") == ["./more/d.yml"]
    assert bash(made, "run", f"{made}/c") == [f"{made}/c.yaml"]


@pytest.mark.parametrize(
    "words",
    [("show", "nowhere.yaml", "k"), ("show", "broken.yaml", "k"), ("show", "c.yaml", "-o", "nowhere", "k"),
     ("show", "broken.yaml", "--version", ""), ("show", "broken.yaml", "--reason", ""), ("show", "--reason", ""),
     ("show", "c.yaml", "--stage", "nostage"), ("run", "nowhere/"), ("run", "/nowhere/at/all")],
)  # fmt: skip
def test_where_nothing_is_known_nothing_is_offered_and_nothing_is_said(made: Path, words: tuple[str, ...]) -> None:
    assert bash(made, *words) == []


def test_a_damaged_version_or_card_is_no_trouble(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path, symlinks=True, dirs_exist_ok=True)
    for shard in (tmp_path / "out").glob("*/v0001-*/train-*"):
        shard.write_bytes(b"\x1f\x8b damaged")
    assert bash(tmp_path, "show", "c.yaml", "k0") != ["Traceback"]
    for manifest in (tmp_path / "out").glob("*/v0001-*/_manifest.json"):
        manifest.write_text("[]")
    assert bash(tmp_path, "show", "c.yaml", "k0") == []
    assert bash(tmp_path, "show", "c.yaml", "--reason", "") == []


def test_zsh_and_fish_get_notes(made: Path) -> None:
    zsh = " ".join(ask(made, _TYPER_COMPLETE_ARGS="cai show c.yaml --reason ", _CAI_COMPLETE="complete_zsh"))
    assert '"empty":"' in zsh
    assert "rejected" in zsh
    fish = ask(
        made, _TYPER_COMPLETE_ARGS="cai show c.yaml --stage debias --version ", _TYPER_COMPLETE_FISH_ACTION="get-args",
        _CAI_COMPLETE="complete_fish",
    )  # fmt: skip
    assert fish == [(made / "out/debias/latest").resolve().name, "debias"]


def test_a_tab_writes_nothing(made: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in (made / "out").rglob("*"))
    bash(made, "show", "c.yaml", "k")
    bash(made, "show", "c.yaml", "--version", "")
    assert sorted((path, path.stat().st_mtime_ns) for path in (made / "out").rglob("*")) == before


def test_what_belongs_to_the_package() -> None:
    from cai_cli.cli import _complete

    assert [word for word, _ in _complete.providers("")] == providers.names()
    assert ("general", "shipped") in _complete.constitutions("ge")
    assert ("general", "critique, critiques, expand, label, revise, score, scores") in _complete.templates("gen")
    assert all(word.startswith("p") for word, _ in _complete.providers("p"))


# Words that bash breaks


def broken(folder: Path, *pieces: str) -> list[str]:
    """What bash is given for the last of the pieces that it makes of a line, as the shipped function asks."""
    return ask(folder, COMP_WORDS="\n".join(["cai", *pieces]), COMP_CWORD=str(len(pieces)), _CAI_COMPLETE="complete_bash")


COLONS = [{"prompt": f"How do I mend kite {n}?", "id": f"q:{n}"} for n in range(12)] + [{"prompt": "Kites?", "id": "-rf"}]


@pytest.fixture(scope="module")
def colons(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("colons")
    write_rows(folder / "prompts.jsonl", COLONS)
    write_config(folder, critique=None, revise=None, label_pairs=None, debias=None, generate={"samples": 1})
    start(folder, "run", "c.yaml", "-q").communicate()
    return folder


def test_words_that_bash_breaks_are_whole_again(colons: Path) -> None:
    assert broken(colons, "show", "c.yaml", "q", ":", "1") == ["1-0", "10-0", "11-0"]
    assert "0-0" in broken(colons, "show", "c.yaml", "q", ":")
    assert broken(colons, "show", "c.yaml", '"q:1') == ["q:1-0", "q:10-0", "q:11-0"]
    assert broken(colons, "show", "c.yaml", "--stage", "=", "re") == ["revise"]
    assert set(broken(colons, "show", "c.yaml", "--stage", "=")) == set(stage_names())
    assert broken(colons, "show", "c.yaml", "q:1-0", "--stage", "=", "generate", "--version", "v")
    assert broken(colons, "diff", "c.yaml", "--stage", "=", "generate", "l") == ["latest"]


def test_ids_that_look_like_options_are_offered_behind_dashes_only(colons: Path) -> None:
    assert all(not one.startswith("-") for one in bash(colons, "show", "c.yaml", ""))
    assert bash(colons, "show", "c.yaml", "--", "-r") == ["-rf-0"]
    line = [sys.executable, "-m", "cai_cli", "show", "c.yaml", "-rf-0"]
    said = subprocess.run(line, cwd=colons, env=environment(colons), capture_output=True, check=False).stderr.decode()
    assert "hint: an ID that begins with - stands behind --: cai show c.yaml -- -rf-0\n" in said


def test_constitutions_topics_modes_and_columns(made: Path) -> None:
    assert bash(made, "constitution", "check", "gen") == ["general"]
    assert bash(made, "constitution", "diff", "general", "saf") == ["safety"]
    assert bash(made, "help", "ex") == ["exit-codes", "expand", "export"]
    assert bash(made, "help", "rows", "lab") == ["label-pairs"]
    assert bash(made, "help", "config", "deb") == ["debias"]
    assert bash(made, "run", "c.yaml", "--mode", "") == ["live"]
    assert bash(made, "run", "c.yaml", "--engine", "") == ["local"]
    assert bash(made, "diff", "c.yaml", "lat") == ["latest"]
    assert bash(made, "diff", "c.yaml", "k07")
    assert "kind" in bash(made, "analyze", "preferences", "c.yaml", "--by", "k")


@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("typed", "becomes"),
    [("cai show c.yaml q:10", "cai show c.yaml q:10-0"), ("cai show c.yaml --stage=rev", "cai show c.yaml --stage=revise"),
     ("cai show c.yaml 'q:11", "cai show c.yaml 'q:11-0'"), ("cai help exit", "cai help exit-codes"),
     ("cai constitution check gen", "cai constitution check general")],
)  # fmt: skip
def test_in_a_real_bash(colons: Path, typed: str, becomes: str) -> None:
    (colons / "bin").mkdir(exist_ok=True)
    program = colons / "bin" / "cai"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m cai_cli "$@"\n')
    program.chmod(0o755)
    (colons / "line").unlink(missing_ok=True)
    source = subprocess.run([program], cwd=colons, env=environment(colons, _CAI_COMPLETE="source_bash"), capture_output=True,
                            check=True)  # fmt: skip
    show = """bind -x '"\\C-g": printf "%s" "$READLINE_LINE" > part; mv part line'"""
    (colons / "rc").write_text(f"PATH={colons}/bin:$PATH\n{source.stdout.decode()}\n{show}\n")
    assert line_after(colons, f"{typed}\t\x07").strip() == becomes


def line_after(folder: Path, keys: str) -> str:
    """What stands on the command line of an interactive bash after these keys, the last of which writes it to a file."""
    master, slave = pty.openpty()
    command = ["bash", "--noprofile", "--rcfile", "rc", "-i"]
    env = environment(folder, TERM="dumb")
    shell = subprocess.Popen(command, cwd=folder, env=env, stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
    os.close(slave)
    os.write(master, keys.encode())
    until = time.monotonic() + 20
    while not (folder / "line").exists() and time.monotonic() < until:
        if select.select([master], [], [], 0.05)[0]:
            os.read(master, 65536)  # what it echoes, so that it can go on
    shell.kill()
    shell.wait()
    os.close(master)
    return (folder / "line").read_text()
