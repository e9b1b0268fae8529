"""The product as its users meet it: the command, in a process of its own, and the files that it leaves."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

ROOT = Path(__file__).parent.parent
# The second notes which messages a process makes.
PYTHONPATH = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "site_of_tests")])
# For write_config: leave these out.
JUST_GENERATE: dict[str, Any] = dict.fromkeys(("critique", "revise", "label_pairs", "debias"))
STAGES = ("generate", "critique", "revise", "label-pairs", "debias")
SIMULATED = {"provider": "simulated", "name": "small-world"}
WHOLE_S = 120.0  # no command of a test takes longer


Cai = Callable[..., tuple[int, str, str]]  # the fixture `cai`, which runs it in the test's own process


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def stages(self) -> dict[str, dict[str, Any]]:
        """What --json said."""
        return dict(json.loads(self.out)["stages"])

    @property
    def asked(self) -> int:
        """Requests that were sent and answered, over all stages."""
        return sum(stage["requests"] for stage in self.stages.values())

    @property
    def last(self) -> str:
        """The last line on stderr."""
        return self.err.rstrip("\n").rpartition("\n")[2]


def environment(folder: Path, **more: str | None) -> dict[str, str]:
    """This process's environment, with a temporary folder inside `folder`; None takes a variable out."""
    temporary = folder / "tmp"
    temporary.mkdir(exist_ok=True)
    # The discard port: a config that forgot its base_url reaches nobody.
    values = {
        **os.environ,
        "PYTHONPATH": PYTHONPATH,
        "TMPDIR": str(temporary),
        "ANTHROPIC_BASE_URL": "http://127.0.0.1:9",
        **more,
    }
    return {name: value for name, value in values.items() if value is not None}


def start(folder: Path, *arguments: object, env: Mapping[str, str | None] | None = None, **pipes: Any) -> subprocess.Popen[bytes]:
    """Begin `cai ARGUMENTS` in a folder."""
    command = [sys.executable, "-m", "cai_cli", *map(str, arguments)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | pipes
    begun: Any = subprocess.Popen  # its overloads cannot be told apart by **pipes
    return cast("subprocess.Popen[bytes]", begun(command, cwd=folder, env=environment(folder, **(env or {})), **pipes))


def finish(process: subprocess.Popen[bytes], stdin: bytes | None = None) -> Done:
    """Wait for a command that was begun."""
    out, err = process.communicate(stdin, timeout=WHOLE_S)
    return Done(process.returncode, out.decode(), err.decode())


def cai(folder: Path, *arguments: object, stdin: bytes | None = None, env: Mapping[str, str | None] | None = None) -> Done:
    """Run `cai ARGUMENTS` in a folder, to its end."""
    pipes = {} if stdin is None else {"stdin": subprocess.PIPE}
    return finish(start(folder, *arguments, env=env, **pipes), stdin)


def checkout(folder: Path) -> None:
    """What a page's reader has: the checkout, an environment with `cai` in it, and nothing else."""
    for name in ("configs", "prompts", "docs"):
        (folder / name).symlink_to(ROOT / name)
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text("")
    for name, module in (("cai", "-m cai_cli "), ("python", "")):
        (programs / name).write_text(f'#!/bin/sh\nexec {sys.executable} {module}"$@"\n')
        (programs / name).chmod(0o755)


def write_config(folder: Path, name: str = "c.yaml", **sections: Any) -> Path:
    """A config of all five stages on the simulated model, as JSON, which is YAML; a section given as None is left out."""
    common = {"name": "outside", "seed": 7, "output": "out", "constitution": "constitutions/general.yaml", "model": SIMULATED}
    given = {"prompts": {"path": "prompts.jsonl", "kind": "harmless"}, "shards": {"rows": 10}}
    stages = {"generate": {"samples": 2}, "critique": {}, "revise": {"rounds": 2}, "label_pairs": {}, "debias": {}}
    config: dict[str, Any] = common | given | stages | sections
    path = folder / name
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not None}, indent=1))
    return path


def at(url: str, **more: Any) -> dict[str, Any]:
    """The model section for a server on this machine."""
    return {"provider": "anthropic", "name": "small-world", "base_url": url, **more}


def write_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def questions(count: int, first: int = 0) -> list[dict[str, str]]:
    """Harmless prompts, each different."""
    things = ("bicycle", "bread oven", "violin", "tomato bed", "kite", "stone wall")
    return [{"prompt": f"How do I mend {things[n % len(things)]} number {n}?"} for n in range(first, first + count)]


def rows_of(version: Path, pattern: str = "*-of-*") -> list[dict[str, Any]]:
    """The rows of a version folder, shard by shard."""
    return [json.loads(line) for path in sorted(version.glob(pattern)) for line in _plain(path).split(b"\n")[:-1]]


def _plain(path: Path) -> bytes:
    return gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()


def stage_bytes(output: Path, stage: str) -> bytes:
    """All shards of a stage's newest version, one after the other."""
    return b"".join(path.read_bytes() for path in sorted((output / stage / "latest").glob("*-of-*")))


def manifests(output: Path) -> dict[str, dict[str, Any]]:
    """The manifest of every stage's newest version."""
    found = {stage: output / stage / "latest" / "_manifest.json" for stage in STAGES}
    return {stage: json.loads(path.read_bytes()) for stage, path in found.items() if path.exists()}


def published(output: Path) -> dict[str, str]:
    """Every file of the data that readers may see, by its path in the output, as a digest; links by where they point."""
    found: dict[str, str] = {}
    for path in sorted(output.rglob("*")):
        name = path.relative_to(output)
        if name.parts[0] != ".cai" and (path.is_symlink() or path.is_file()):
            found[str(name)] = f"-> {path.readlink()}" if path.is_symlink() else hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def unbalanced(manifest: Mapping[str, Any]) -> bool:
    """Whether rows that came in ended neither in a shard, nor among the rejects, nor filtered."""
    ended = manifest["rows"] + sum(manifest["rejected"].values()) + sum(manifest["filtered"].values())
    return bool(manifest["came_in"] != ended)


def files_that_hold(secret: str, *folders: Path) -> list[Path]:
    """Files with these bytes in them, in plain or compressed; sockets, links and the like are left out."""
    return [path for path in _files(folders) if secret.encode() in _bytes(path)]


def _files(folders: Sequence[Path]) -> Iterator[Path]:
    return (path for folder in folders for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _bytes(path: Path) -> bytes:
    try:
        return _plain(path)
    except (FileNotFoundError, gzip.BadGzipFile, zlib.error, EOFError):  # gone meanwhile, or a damaged archive that a test made
        return path.read_bytes() if path.exists() else b""
