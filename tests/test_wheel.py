"""The wheel alone: built, installed into an environment of its own, and used from another folder. Run it with -m wheel."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from outside import ROOT, SIMULATED, questions, rows_of, write_config, write_rows

pytestmark = pytest.mark.wheel


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that has pip, and of this one only what the wheel depends on."""
    folder = tmp_path_factory.mktemp("venv")
    venv.create(folder, symlinks=True, with_pip=True)
    (site,) = folder.glob("lib/python*/site-packages")
    here = (sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))
    (site / "dependencies.pth").write_text("\n".join(dict.fromkeys(here)))
    return folder / "bin/python"


@pytest.fixture(scope="module")
def wheel(python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built by uv where there is one, else by pip."""
    folder, uv = tmp_path_factory.mktemp("wheel"), shutil.which("uv")
    by_pip = [str(python), "-m", "pip", "wheel", "--no-deps", "--wheel-dir"]
    build = [uv, "build", "--wheel", "--out-dir"] if uv else by_pip
    done = subprocess.run([*build, str(folder), str(ROOT)], capture_output=True, text=True, cwd=folder, env=own_environment())
    assert done.returncode == 0, done.stderr
    (built,) = folder.glob("*.whl")
    return built


def own_environment() -> dict[str, str]:
    """With the home of whoever runs the tests: the build backend may have to be fetched, by their settings, from their cache."""
    values = {name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "ANTHROPIC_"))}
    return values | {"HOME": pwd.getpwuid(os.getuid()).pw_dir}


@pytest.fixture(scope="module")
def installed(python: Path, wheel: Path) -> Path:
    """The command `cai` that installing the wheel made."""
    install = [str(python), "-m", "pip", "install", "--no-deps", "--no-index", "--force-reinstall", str(wheel)]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return python.parent / "cai"


def cai(script: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "ANTHROPIC_API_KEY")}
    return subprocess.run([script, *arguments], cwd=folder, env=env, capture_output=True, text=True, timeout=120)


def test_it_holds_what_it_needs_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry,) = [name for name in names if name.endswith("entry_points.txt")]
        points = archive.read(entry).decode()
    assert "cai = cai_cli.cli._process:main" in points
    shipped = {name for name in names if name.startswith("cai_cli/shipped_files/")}
    files = {path.relative_to(ROOT) for folder in ("configs", "prompts") for path in (ROOT / folder).rglob("*") if path.is_file()}
    assert shipped == {f"cai_cli/shipped_files/{path.as_posix()}" for path in files}
    assert "cai_cli/py.typed" in names
    strangers = [name for name in names if not name.startswith("cai_cli/") and ".dist-info/" not in name]
    assert strangers == []


def test_a_new_folder_runs_from_anywhere(installed: Path, tmp_path: Path) -> None:
    assert cai(installed, tmp_path, "init", "x").returncode == 0
    done = cai(installed, tmp_path / "x", "run", "cai.yaml")
    assert done.returncode == 0, done.stderr
    (latest,) = (tmp_path / "x").rglob("debias/latest")
    assert rows_of(latest)


def test_shipped_files_are_found_without_the_repository(installed: Path, tmp_path: Path) -> None:
    where = [str(installed.with_name("python")), "-c", "import cai_cli; print(cai_cli.__file__)"]
    origin = subprocess.run(where, cwd=tmp_path, env={}, capture_output=True, text=True, check=True).stdout
    assert origin.startswith(str(installed.parent.parent))
    write_rows(tmp_path / "prompts.jsonl", questions(3))
    write_config(tmp_path, model=SIMULATED)
    done = cai(installed, tmp_path, "run", "c.yaml")
    assert done.returncode == 0, done.stderr
    assert len(rows_of(tmp_path / "out/revise/latest")) == 6
