"""The sample prompt sets: what they say they are, every prompt another one, readable by every config."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from cai_cli.engine.inputs import read_prompts
from cai_cli.records import Prompt
from cai_cli.settings import PromptsSection
from cai_cli.shipped import shipped
from cai_cli.tables._novelty import Vocabulary, similarities, words

FOLDER = shipped("configs", "prompts")
KINDS = {"persuasion": {"harmful"}, "flattery": {"harmful"}, "dual_use": {"harmful", "harmless"}, "contrast": {"harmless"}}
COLUMNS = ["id", "prompt", "kind", "topic"]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


ALL = {path.stem: rows(path) for path in sorted(FOLDER.glob("*.jsonl"))}
EVERY = [row for found in ALL.values() for row in found]


def test_the_sets_are_there() -> None:
    assert ALL.keys() == KINDS.keys()


@pytest.mark.parametrize("name", KINDS)
def test_a_set_has_the_kinds_and_topics_that_it_says(name: str) -> None:
    found = ALL[name]
    assert 20 <= len(found) <= 40
    assert {row["kind"] for row in found} == KINDS[name]
    assert {tuple(row) for row in found} == {tuple(COLUMNS)}
    topics = Counter(row["topic"] for row in found)
    assert len(topics) >= 3
    assert min(topics.values()) >= 5  # enough for the examples of an ask
    assert all(row["prompt"] == row["prompt"].strip() and len(words(row["prompt"])) >= 4 for row in found)


def test_a_set_of_both_kinds_is_balanced() -> None:
    kinds = Counter(row["kind"] for row in ALL["dual_use"])
    assert abs(kinds["harmful"] - kinds["harmless"]) <= 4


def test_ids_are_unique_across_the_sets() -> None:
    assert [name for name, count in Counter(row["id"] for row in EVERY).items() if count > 1] == []


def test_no_prompt_is_like_another_in_any_set_nor_in_the_quickstart() -> None:
    quickstart = rows(shipped("configs", "quickstart_prompts.jsonl"))
    found = [*EVERY, *quickstart]
    vocabulary = Vocabulary()
    spelled = [vocabulary.spelled(row["prompt"]) for row in found]
    table = similarities(spelled, spelled)
    near = [(found[i]["id"], found[j]["id"]) for i, j in itertools.combinations(range(len(found)), 2) if table[i, j] > 0.55]
    assert near == []


def test_configs_read_them_one_by_one_and_as_a_folder() -> None:
    for path in (FOLDER, *FOLDER.glob("*.jsonl")):
        read = list(read_prompts(PromptsSection(path=str(path), kind="kind", keep=["topic"]), Path(), 7))
        usable = [one for one in read if isinstance(one, Prompt)]
        assert all(one.kind in ("harmful", "harmless") and json.loads(one.meta)["topic"] for one in usable)
        assert len(usable) == len(read) == (len(EVERY) if path == FOLDER else len(ALL[path.stem]))
