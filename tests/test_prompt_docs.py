"""docs/prompts.md: its numbers are measured, its tables are whole, and what it shows works."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from outside import ROOT, SIMULATED, Cai, environment, write_config, write_rows

from cai_cli import exemplars, prompts
from cai_cli.shipped import shipped

PAGE = (ROOT / "docs" / "prompts.md").read_text("utf-8")
TEMPLATES = {path.stem: prompts.load(path, path.stem.partition("-")[0]) for path in sorted(shipped("prompts").glob("*.md"))}
COST = re.compile(r"<!-- costs -->\n(.*?)\n<!-- end of costs -->", re.DOTALL)


def section(title: str) -> str:
    """What stands under a heading, up to the next one."""
    return PAGE.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]


def table(text: str) -> dict[str, list[str]]:
    """The rows of a table by each of the names in their first cell."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")]
    return {name: row[1:] for row in rows for name in re.findall(r"`(\w+)`", row[0])}


def test_the_costs_are_what_the_program_prints(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "docs" / "prompt_costs.py"], capture_output=True, text=True, cwd=tmp_path,
        env=environment(tmp_path), check=True,
    )  # fmt: skip
    found = COST.search(PAGE)
    assert found is not None
    assert found[1] == done.stdout.rstrip("\n")
    assert {name for name in TEMPLATES if f"| {name} |" not in found[1]} == set()


@pytest.mark.parametrize("stage", sorted(prompts._OFFERS))
def test_every_variable_of_every_stage_is_told_and_who_uses_it(stage: str) -> None:
    told, offer = table(section(stage.title())), prompts._OFFERS[stage]
    assert set(told) == set(offer.values)
    needed = {
        name for name, (holds, _) in told.items() if re.search(r"; needed(?: elsewhere)?$", holds) or "above; needed" in holds
    }
    assert needed - {"critiques"} == set(offer.required)
    own = {name.partition("-")[2]: template for name, template in TEMPLATES.items() if template.stage.partition("_")[0] == stage}
    for name, (_, users) in told.items():
        using = {short for short, template in own.items() if name in template.variables}
        listed = set(own) if users.startswith("all") else set() if users == "none" else set(users.split(", "))
        assert using == listed - set(re.findall(r"but (\w+)", users)), name


def test_every_template_is_explained() -> None:
    for name in TEMPLATES:
        stage, _, short = name.partition("-")
        assert f"**`{short}`**" in section(stage.title()) or f"**`{name}`**" in section(stage.title()), name


def test_the_template_and_the_exemplar_that_are_shown_can_be_used(cai: Cai, tmp_path: Path) -> None:
    template, exemplar = re.findall(r"```(?:yaml)?\n(---\n.*?|stage: .*?)```", PAGE, re.DOTALL)
    (tmp_path / "critique-mine.md").write_text(template)
    (tmp_path / "mine.yaml").write_text(exemplar)
    assert len(exemplars.load(tmp_path / "mine.yaml", "critique")) == 1
    write_rows(tmp_path / "prompts.jsonl", [{"prompt": "How do I whistle?"}])
    mine = {"template": "mine", "exemplars": 1, "exemplar_file": "mine.yaml"}
    write_config(tmp_path, model=SIMULATED, critique=mine)
    code, _, err = cai("run", "c.yaml", "-q")
    assert code == 0, err


def test_what_exemplars_need_is_what_is_checked() -> None:
    rows = [
        line.split("|")[1:4]
        for line in section("Exemplars of your own").splitlines()
        if re.match(r"\| (critique|revise|label) ", line)
    ]
    told = {stage.strip(): [re.findall(r"`(\w+)`", cell) for cell in cells] for stage, *cells in rows}
    assert {stage: tuple(needed) for stage, (needed, _) in told.items()} == exemplars._NEEDED
    more = {stage: set(exemplars._KNOWN[stage]) - set(exemplars._NEEDED[stage]) for stage in told}
    assert {stage: set(others) - {"json"} for stage, (_, others) in told.items()} == more
