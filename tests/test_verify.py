"""`cai verify`: what it finds, and whether what it says to type is true."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from outside import Done, cai, published, questions, write_config, write_rows
from unprivileged import cai_as_anyone

from cai_cli.errors import Exit


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions of all but generate, of which the config makes the first."""
    folder = tmp_path_factory.mktemp("made")
    write_rows(folder / "prompts.jsonl", questions(20))
    write_config(folder)
    for options in ((), ("--set", "critique.principles=2"), ()):
        assert cai(folder, "run", "c.yaml", "-q", *options).code == 0
    assert cai(folder, "export", "c.yaml", "--to", "sft").code == 0
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(made, tmp_path / "copy", symlinks=True)
    yield tmp_path / "copy"
    for path in (tmp_path / "copy").rglob("*"):  # what a test closed, so that it can be deleted
        path.chmod(0o755) if not path.is_symlink() else None


def version(folder: Path, stage: str, number: int) -> Path:
    (found,) = (folder / "out" / stage).glob(f"v{number:04d}-*")
    return found


def verified(folder: Path) -> tuple[Done, dict[str, Any]]:
    done = cai(folder, "verify", "c.yaml", "--json")
    return done, json.loads(done.out)


def test_a_card_that_is_gone_is_mended_by_the_run_and_nothing_is_deleted(folder: Path) -> None:
    before = published(folder / "out")
    (folder / "out/README.md").unlink()
    (version(folder, "revise", 1) / "README.md").unlink()
    (version(folder, "revise", 2) / "README.md").unlink()
    done, said = verified(folder)
    assert (done.code, said["remove"], said["run"]) == (Exit.INPUT, [], ["cai run c.yaml"])
    assert done.err == "hint: run: cai run c.yaml\n"
    assert "nothing was asked" in cai(folder, "run", "c.yaml").err
    assert published(folder / "out") == before
    assert verified(folder)[0].code == 0


def test_cards_of_exports_are_mended_by_the_export(folder: Path) -> None:
    before = published(folder / "out")
    (folder / "out/export/README.md").unlink()
    (version(folder, "export/sft", 1) / "README.md").unlink()
    _, said = verified(folder)
    assert (said["remove"], said["run"]) == ([], ["cai export c.yaml --to sft"])
    assert cai(folder, "export", "c.yaml", "--to", "sft").code == 0
    assert published(folder / "out") == before


def test_a_card_that_was_edited_is_deleted_by_itself(folder: Path) -> None:
    card = version(folder, "revise", 1) / "README.md"
    before = card.read_bytes()
    card.write_text("mine")
    done, said = verified(folder)
    assert (said["remove"], said["run"]) == ([], ["cai run c.yaml"])
    assert f"rm out/revise/{card.parent.name}/README.md;" in done.err
    card.unlink()
    cai(folder, "run", "c.yaml", "-q")
    assert card.read_bytes() == before


def test_a_stray_file_costs_no_version(folder: Path) -> None:
    stray = version(folder, "generate", 1) / ".DS_Store"
    stray.write_bytes(b"x")
    done, said = verified(folder)
    assert (said["remove"], said["run"], said["lost"]) == ([], [], [])
    command = done.err.partition("elsewhere: ")[2]
    subprocess.run(shlex.split(command), cwd=folder, check=True)
    assert verified(folder)[0].code == 0


def test_what_the_config_makes_is_deleted_and_comes_back_as_it_was(folder: Path) -> None:
    before = published(folder / "out")
    damaged = version(folder, "revise", 1)
    next(damaged.glob("train-*")).write_bytes(b"")
    done, said = verified(folder)
    assert (said["remove"], said["run"], said["lost"]) == ([f"out/revise/{damaged.name}"], ["cai run c.yaml"], [])
    assert "nothing is paid twice" in done.err
    shutil.rmtree(folder / said["remove"][0])
    assert cai(folder, "run", "c.yaml", "--json").asked == 0
    after, new = published(folder / "out"), version(folder, "revise", 3).name
    assert rows_in(after, new) == rows_in(before, damaged.name)


def rows_in(digests: dict[str, str], name: str) -> dict[str, str]:
    return {path.rpartition("/")[2]: one for path, one in digests.items() if f"/{name}/train-" in path}


@pytest.mark.parametrize("stage", ["revise", "debias"])
def test_of_what_the_config_does_not_make_now_nothing_is_promised(folder: Path, stage: str) -> None:
    damaged = version(folder, stage, 2)
    next(damaged.glob("train-*")).write_bytes(b"")
    done, said = verified(folder)
    assert (said["remove"], said["run"], said["lost"]) == ([], [], [f"out/{stage}/{damaged.name}"])
    assert "rm " not in done.err
    assert "come back" not in done.err
    assert "c.yaml does not make it now, so no run brings it back; restore it from a copy" in done.err
    subprocess.run(shlex.split(done.err.partition("set it aside: ")[2]), cwd=folder, check=True)
    assert verified(folder)[0].code == 0


def test_where_the_ledger_is_gone_rows_would_be_bought_again(folder: Path) -> None:
    shutil.rmtree(folder / "out/.cai")
    next(version(folder, "revise", 1).glob("train-*")).write_bytes(b"")
    next(version(folder, "debias", 1).glob("train-*")).write_bytes(b"")
    done, said = verified(folder)
    assert [Path(path).parent.name for path in said["remove"]] == ["debias"]  # computed, not asked
    assert [Path(path).parent.name for path in said["lost"]] == ["revise"]
    assert "so its rows would be bought again" in done.err


@pytest.mark.parametrize("broken", ["gone", "dangling", "folder"])
def test_latest_is_mended_without_deleting(folder: Path, broken: str) -> None:
    link = folder / "out/revise/latest"
    link.unlink()
    if broken == "dangling":
        link.symlink_to("v0009-00000000")
    if broken == "folder":
        shutil.copytree(version(folder, "revise", 1), link)
    done, said = verified(folder)
    assert (said["remove"], said["run"]) == ([], ["cai run c.yaml"])
    if broken == "folder":
        subprocess.run(shlex.split(said["hints"][0].partition("link: ")[2]), cwd=folder, check=True)
    assert "nothing was asked" in cai(folder, "run", "c.yaml").err
    assert link.resolve() == version(folder, "revise", 1).resolve()
    assert verified(folder)[0].code == 0
    assert done.code == Exit.INPUT


def test_latest_of_a_stage_that_the_config_makes_otherwise_is_set_by_hand(folder: Path) -> None:
    (folder / "out/revise/latest").unlink()
    write_config(folder, seed=8)
    done, said = verified(folder)
    assert (said["remove"], said["run"]) == ([], [])
    name = version(folder, "revise", 2).name
    assert f"ln -sfn {name} out/revise/latest; or make what the config makes now: cai run c.yaml" in done.err


@pytest.mark.parametrize("closed", ["", "_manifest.json", "train-00000-of-00002.jsonl", "README.md"])
def test_what_may_not_be_read_is_no_damage(folder: Path, closed: str) -> None:
    path = version(folder, "revise", 1) / closed
    path.chmod(0)
    done = cai_as_anyone(folder, "verify", "c.yaml", "--json")
    said = json.loads(done.out)
    assert (done.code, said["remove"], said["lost"]) == (Exit.INPUT, [], [])
    assert "permission denied" in said["problems"][0]["what"]
    assert "chmod -R u+rX " in done.err
    assert "rm " not in done.err
    subprocess.run(shlex.split(said["hints"][0].partition("again: ")[2]), cwd=folder, check=True)
    assert cai_as_anyone(folder, "verify", "c.yaml").code == 0


def test_a_stage_that_may_not_be_read_is_named_and_the_others_are_looked_at(folder: Path) -> None:
    (folder / "out/revise").chmod(0)
    done = cai_as_anyone(folder, "verify", "c.yaml", "--json")
    said = json.loads(done.out)
    assert [one["path"] for one in said["problems"]] == ["out/revise"]
    assert "generate" in said["stages"]
    assert "chmod -R u+rX out/revise" in done.err


def test_a_version_of_a_newer_cai_is_no_damage(folder: Path) -> None:
    path = version(folder, "revise", 2) / "_manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"schema": 99}))
    done, said = verified(folder)
    assert (said["remove"], said["lost"]) == ([], [])
    assert "pip install --upgrade cai-cli" in done.err


@pytest.mark.parametrize("verb", ["status", "show", "why", "diff", "retry", "verify"])
@pytest.mark.parametrize("closed", ["out/.cai", "out/revise", "out"])
def test_a_reading_error_is_told_as_one(folder: Path, verb: str, closed: str) -> None:
    (folder / closed).chmod(0)
    done = cai_as_anyone(folder, verb, "c.yaml", *(["x"] if verb == "why" else []))
    assert "cannot be written" not in done.err
    assert "a bug in cai" not in done.err
    if closed != "out/.cai" or done.code:
        assert "cannot be read" in done.err + done.out, done
        assert "chmod" in done.err
