"""Another package's provider, stage, export, analysis and probe, from docs/extending.md, at work; what providers.md says."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from outside import PYTHONPATH, ROOT, Done, cai, manifests, rows_of, unbalanced, write_config, write_rows

from cai_cli import providers
from cai_cli.config import load

PAGE = ROOT / "docs" / "extending.md"
FILE = re.compile(r"^`([\w.-]+)`\n\n```\w+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
QUESTIONS = ["How do I mend a kite?", "How do I bake bread that keeps for more than a week?"]
SHORTER = "Say that again in at most 6 words."


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with the page's config, and beside it the page's package, as an installer leaves it."""
    files = dict(FILE.findall(PAGE.read_text("utf-8")))
    project = tomllib.loads(files.pop("pyproject.toml"))["project"]
    (tmp_path / "c.yaml").write_text(files.pop("c.yaml"))
    installed = tmp_path / "installed"
    about = installed / f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    groups = [f"[{group}]\n" + "".join(f"{name} = {where}\n" for name, where in points.items())
              for group, points in project["entry-points"].items()]  # fmt: skip
    (about / "entry_points.txt").write_text("\n".join(groups))
    for name, text in files.items():
        (installed / name).write_text(text)
    write_rows(tmp_path / "prompts.jsonl", [{"prompt": question} for question in QUESTIONS])
    return tmp_path


def run(folder: Path, *arguments: object) -> Done:
    return cai(folder, *arguments, env={"PYTHONPATH": f"{PYTHONPATH}:{folder / 'installed'}"})


def test_the_page_holds_a_package_with_one_of_each() -> None:
    files = dict(FILE.findall(PAGE.read_text("utf-8")))
    assert files.keys() == {
        "pyproject.toml",
        "cai_parrot.py",
        "cai_shorten.py",
        "cai_alpaca.py",
        "cai_questions.py",
        "cai_thanks.py",
        "c.yaml",
    }


def test_a_config_names_them_like_any_other(folder: Path) -> None:
    checked = run(folder, "config", "check", "c.yaml")
    assert checked.code == 0, checked.err
    config = (folder / "c.yaml").read_text()
    (folder / "c.yaml").write_text(config.replace("words: 6", "word: 6").replace("parrot, ", "parot, "))
    wrong = run(folder, "config", "check", "c.yaml")
    assert (wrong.code, "did you mean 'words'?" in wrong.err, "parrot" in wrong.err) == (2, True, True), wrong.err


def test_they_run_and_leave_rows_like_any_other(folder: Path) -> None:
    done = run(folder, "run", "c.yaml", "--json")
    assert done.code == 0, done.err
    made = {stage: rows_of(folder / "out" / stage / "latest") for stage in ("generate", "shorten")}
    assert [row["response"] for row in made["generate"]] == QUESTIONS
    assert [row["response"] for row in made["shorten"]] == [QUESTIONS[0], SHORTER]
    assert {row["model"] for row in made["generate"]} == {"parrot-1"}
    assert (done.stages["generate"]["requests"], done.stages["shorten"]["requests"]) == (2, 1)
    assert [stage for stage, manifest in manifests(folder / "out").items() if unbalanced(manifest)] == []


def test_an_export_of_the_package_is_like_any_other(folder: Path) -> None:
    assert run(folder, "run", "c.yaml", "-q").code == 0
    done = run(folder, "export", "c.yaml", "--to", "alpaca")
    assert done.code == 0, done.err
    rows = rows_of(folder / "out" / "export" / "alpaca" / "latest")
    assert [(row["instruction"], row["output"]) for row in rows] == list(zip(QUESTIONS, [QUESTIONS[0], SHORTER], strict=True))


def test_an_analysis_of_the_package_is_like_any_other(folder: Path) -> None:
    assert run(folder, "run", "c.yaml", "-q").code == 0
    done = run(folder, "analyze", "questions", "c.yaml", "--json")
    assert done.code == 0, done.err
    (found,) = json.loads(done.out)["sections"]["questions"]["rows"]
    assert (found["rows"], found["asks"]["value"]) == (2, 0.5)


def test_a_probe_of_the_package_is_like_any_other(folder: Path) -> None:
    write_rows(folder / "prompts.jsonl", [{"prompt": f"How do I mend kite {n}?"} for n in range(8)])
    held = {"probes": {"thanks": 6}, "min_confidence": 0.5}
    write_config(folder, critique=None, revise=None, debias=held, prompts={"path": "prompts.jsonl"})
    done = run(folder, "run", "c.yaml", "--json")
    assert done.code == 0, done.err
    assert done.stages["debias"]["requests"] == 6 * 2 * 2  # in both orders, with thanks and without
    found = json.loads((folder / "out" / "debias" / "latest" / "_bias.json").read_text())
    assert found["probes"] == {"thanks": 6}
    assert found["labelers"]["main"]["thanks"]["identified_by"] == "probe"


def test_asked_again_nothing_is_bought_again(folder: Path) -> None:
    assert run(folder, "run", "c.yaml").code == 0
    write_rows(folder / "prompts.jsonl", [{"prompt": question} for question in [*QUESTIONS, "And a third?"]])
    more = run(folder, "run", "c.yaml", "--json")
    assert more.code == 0, more.err
    assert (more.stages["generate"]["requests"], more.stages["generate"]["replayed"]) == (1, 2)


def test_a_later_stage_takes_the_rows_of_one_that_feeds_it(folder: Path) -> None:
    write_config(folder, critique=None, revise=None, debias=None, shorten={"words": 6}, prompts={"path": "prompts.jsonl"})
    done = run(folder, "run", "c.yaml", "--json")
    assert done.code == 0, done.err
    made = {stage: rows_of(folder / "out" / stage / "latest") for stage in ("generate", "shorten", "label-pairs")}
    texts = {stage: {row["response"] for row in made[stage]} for stage in ("generate", "shorten")}
    judged = {pair[side] for pair in made["label-pairs"] for side in ("response_a", "response_b")}
    assert judged
    assert judged <= texts["shorten"]
    assert judged & texts["generate"] == set()


def test_a_setting_that_the_provider_refuses_is_said_before_anything_is_asked(folder: Path) -> None:
    done = run(folder, "run", "c.yaml", "--set", "model.temperature=1")
    assert (done.code, "a parrot has no temperature" in done.err) == (2, True), done.err


def test_a_stage_that_takes_principles_needs_a_constitution(folder: Path) -> None:
    stage = folder / "installed" / "cai_shorten.py"
    stage.write_text(stage.read_text().replace("    return Shorten(", "    parts.principles(needed=True)\n    return Shorten("))
    done = run(folder, "run", "c.yaml")
    assert (done.code, "c.yaml: `constitution` is missing" in done.err) == (2, True), done.err
    assert "constitution: constitutions/general.yaml" in done.last
    (folder / "c.yaml").write_text("constitution: constitutions/general.yaml\n" + (folder / "c.yaml").read_text())
    assert run(folder, "run", "c.yaml", "-q").code == 0


def test_without_the_package_the_config_is_refused(folder: Path) -> None:
    done = cai(folder, "run", "c.yaml")
    assert done.code == 2
    assert "parrot" in done.err
    assert "shorten" in done.err


def test_every_model_on_the_page_about_providers_can_be_used(tmp_path: Path) -> None:
    blocks = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "docs" / "providers.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(blocks) >= 6
    for block in blocks:
        (tmp_path / "c.yaml").write_text(f"name: page\noutput: out\nprompts: {{path: p.jsonl}}\n{block}generate: {{}}\n")
        write_rows(tmp_path / "p.jsonl", [{"prompt": question} for question in QUESTIONS])
        config = load(tmp_path / "c.yaml")
        assert config.model.provider in providers.names()
        assert config.model.name


def test_the_page_about_providers_names_them_all() -> None:
    table = re.findall(r"^\| `(\w+)`", (ROOT / "docs" / "providers.md").read_text("utf-8"), re.MULTILINE)
    assert sorted(table) == [name for name in providers.names() if not name.startswith("_")]
