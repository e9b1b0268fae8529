"""`cai help`: what it says comes from the code, whole, and fits a narrow terminal."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest
from outside import Cai

from cai_cli import config as configs
from cai_cli.cli import VERBS
from cai_cli.engine import plan
from cai_cli.errors import Exit
from cai_cli.records import Rejected
from cai_cli.reports import reference


def test_it_lists_its_topics_and_each_is_there(cai: Cai) -> None:
    code, out, err = cai("help")
    assert (code, err) == (0, "")
    topics = json.loads(cai("help", "--json")[1])["topics"]
    assert {"exit-codes", "rows", "config", "environment"} <= set(topics)
    for topic in topics:
        assert f"cai help {topic}" in out
        assert cai("help", topic)[::2] == (0, "")


def test_every_exit_code_has_a_meaning(cai: Cai) -> None:
    assert {one.code: bool(one.meaning) for one in reference.exit_codes()} == {int(code): True for code in Exit}
    out = cai("help", "exit-codes")[1]
    assert [line.split()[0] for line in out.splitlines() if line.split()[0].isdecimal()] == [
        str(int(one)) for one in sorted(Exit)
    ]


def meaningless(columns: tuple[reference.Column, ...]) -> list[str]:
    return [one.name for one in columns if not one.meaning] + [name for one in columns for name in meaningless(one.columns)]


def test_every_column_of_every_stage_has_a_meaning_and_stands_in_the_order_of_the_rows(cai: Cai) -> None:
    assert {"generate", "critique", "revise", "label-pairs", "debias", "score", "expand"} <= set(reference.row_stages())
    for stage, shape in plan.shapes().items():
        found = reference.row_fields(stage)
        assert [one.name for one in found] == [field.name for field in dataclasses.fields(shape)]
        assert meaningless(found) == []
    assert meaningless(reference.columns(Rejected)) == []


def test_types_are_told_in_words() -> None:
    found = {one.name: one for one in reference.row_fields("debias")}
    assert found["margin"].type == "number or null"
    assert found["votes"].type == "list of Vote"
    assert {one.name: one.type for one in found["votes"].columns}["labels"] == "list of text"


def test_every_key_that_the_schema_knows_is_told_with_its_meaning() -> None:
    schema, keys = configs.schema(), {key.path: key for key in reference.config_keys()}
    of_models = ("model.", "labeler.model.", "labelers[].model.")  # told once, at the top
    expected = {path for path in paths_in(schema, schema, "") if not any(f".{part}" in path for part in of_models)}
    sections = {part.path for part in reference.config_parts()}
    assert expected - keys.keys() - sections == set()
    assert [path for path, key in keys.items() if not key.meaning] == []
    assert (keys["revise.rounds"].type, keys["revise.rounds"].default) == ("whole number, at least 1", "2")
    assert keys["name"].default == ""
    assert keys["label_pairs.orders"].type == "both | one"


def paths_in(node: Any, schema: dict[str, Any], path: str) -> set[str]:
    """The dotted paths of all keys that a JSON schema names."""
    if path.count(".") > 4:
        return set()
    found = set[str]()
    if "$ref" in node:
        return paths_in(schema["$defs"][node["$ref"].rpartition("/")[2]], schema, path)
    for name, inner in node.get("properties", {}).items():
        own = f"{path}.{name}".removeprefix(".")
        found |= {own} | paths_in(inner, schema, own)
    if isinstance(node.get("items"), dict):
        found |= paths_in(node["items"], schema, f"{path}[]")
    for inner in (*node.get("anyOf", ()), *node.get("allOf", ())):
        found |= paths_in(inner, schema, path)
    return found


@pytest.mark.parametrize("topic", [["rows"], ["config"], ["environment"], ["exit-codes"]])
def test_nothing_is_wider_than_a_narrow_terminal_nor_than_a_line_can_be_read(cai: Cai, topic: list[str]) -> None:
    lines = cai("help", *topic)[1].splitlines()
    assert max(map(len, lines)) <= 100


def test_a_part_is_told_alone_and_a_wrong_one_gets_a_hint(cai: Cai) -> None:
    code, out, _ = cai("help", "config", "revise")
    assert (code, "rounds" in out, "per_ask" in out) == (0, True, False)
    code, out, _ = cai("help", "rows", "label_pairs")
    assert (code, "response_b" in out, "stop_reason" in out) == (0, True, False)
    code, out, _ = cai("help", "rows", "rejects", "--json")
    assert (code, list(json.loads(out)["rows"])) == (0, ["rejects"])
    for args in (("rows", "revize"), ("config", "revize")):
        code, _, err = cai("help", *args)
        assert (code, "did you mean 'revise'?" in err) == (2, True)
    code, _, err = cai("help", "exit-code")
    assert (code, "did you mean 'exit-codes'?" in err) == (2, True)


@pytest.mark.parametrize("verb", [verb for verb in VERBS if verb in ("run", "status", "constitution", "label-pairs")])
def test_a_verb_gets_its_own_help(cai: Cai, verb: str) -> None:
    assert cai("help", verb) == cai(verb, "-h")
