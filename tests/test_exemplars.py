"""Worked cases before the question: the shipped ones, what is refused and where, and how the stages put them."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from outside import Cai, rows_of, write_config, write_rows

from cai_cli import exemplars, prompts
from cai_cli.constitution import Criterion
from cai_cli.errors import Fix
from cai_cli.exemplars import SEVERITIES, Exemplar
from cai_cli.flow import Model, Request
from cai_cli.judging import LABELS, ORDERS, Judge
from cai_cli.records import Pair, Turn
from cai_cli.shipped import shipped

KINDS = ("critique", "revise", "label")
FILES = sorted(shipped("prompts", "exemplars").glob("*.yaml"))
SHIPPED = {kind: exemplars.load(shipped("prompts", "exemplars", f"{kind}-general.yaml"), kind) for kind in KINDS}
MODEL = Model(provider="simulated", name="small-world", params={"max_tokens": 64})


# The shipped ones


def test_there_are_four_of_each_stage_and_no_file_that_no_stage_reads() -> None:
    assert [path.stem for path in FILES] == ["critique-general", "label-general", "revise-general"]
    assert {kind: len(found) for kind, found in SHIPPED.items()} == {"critique": 4, "revise": 4, "label": 4}
    assert {turn.role for found in SHIPPED.values() for one in found for turn in one.conversation} == {"user"}


def test_a_critique_points_at_what_stands_there_and_one_finds_nothing() -> None:
    found = SHIPPED["critique"]
    assert sorted(SEVERITIES.index(one.severity) for one in found) == [0, 1, 2, 3]
    assert [quote for one in found for quote in one.quotes if quote not in one.response] == []
    (fine,) = [one for one in found if one.severity == "none"]
    assert (fine.quotes, fine.suggestions) == ((), ())
    assert all(one.quotes and one.suggestions and one.principle for one in found if one is not fine)
    assert fine in found[:2]  # with two of them, one shows that none is an answer


def test_a_revision_keeps_what_was_good_and_one_changes_nothing() -> None:
    found = SHIPPED["revise"]
    unchanged = [one for one in found if one.revision == one.response]
    assert len(unchanged) == 1
    assert unchanged[0] in found[:2]
    first = found[0]
    kept = set(first.response.split("\n\n")) & set(first.revision.split("\n\n"))
    assert len(kept) == 2
    said = " ".join(one.revision for one in found)
    assert not re.search(r"\b(revis|rewrit|reviewer|critique|earlier (answer|response))", said, re.IGNORECASE)


def test_comparisons_are_balanced_and_one_is_nearly_even() -> None:
    found = SHIPPED["label"]
    longer = [len(one.better) > len(one.worse) for one in found]
    assert [sum(longer[:2]), sum(longer[2:])] == [1, 1]  # every two of them, too
    declines = re.compile(r"\b(?:won't|not able to)\b")
    assert [
        sum(bool(declines.search(text)) for text in texts)
        for texts in zip(*((one.better, one.worse) for one in found), strict=True)
    ] == [1, 1]
    assert min(one.confidence for one in found) == 0.6
    names = "|".join(re.escape(name) for names in LABELS for name in names)
    assert not any(
        re.search(rf"\bresponse (?:{names})\b|\b(?:first|second|longer|shorter) (?:one|response)\b", one.reasoning, re.I)
        for one in found
    )


# How they are put


def judge(count: int, **changes: Any) -> Judge:
    given: dict[str, Any] = {"name": "main", "model": MODEL, "seed": 7, "exemplars": SHIPPED["label"][:count]}
    return Judge(template=prompts.find("general", "label_pairs", Path()), **given | changes)


def asked(count: int, row: str, order: Any, **changes: Any) -> Request:
    pair = Pair(
        id=row, prompt_id=row, messages=(Turn(role="user", content="What is a kite?"),), prompt="What is a kite?",
        response_a="A toy.", response_b="A bird, or a toy.",
    )  # fmt: skip
    criterion = Criterion(name="clear", category="helpfulness", text="Which response is clearer?")
    return judge(count, **changes).question(pair, criterion, order, 0)


def right_ones(turns: Sequence[Turn]) -> list[str]:
    """Of each worked comparison, whether what stands first or second is the right answer."""
    found = []
    for question, answer in zip(turns[:-1:2], turns[1::2], strict=True):
        names = re.findall(r"^Response (\w+):$", question.content, re.MULTILINE)
        verdict = json.loads(answer.content)["verdict"]
        found.append(("first", "second")[names.index(verdict)])
        right = re.search(rf"<response-{verdict}-\w+>\n(.*?)\n</response", question.content, re.DOTALL)
        assert right is not None
        assert right[1] in {one.better for one in SHIPPED["label"]}
    return found


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 4), st.text(st.characters(categories=["L", "N"]), min_size=1, max_size=8))
def test_the_right_answer_stands_first_as_often_as_second(count: int, row: str) -> None:
    sides = {order: Counter(right_ones(asked(count, row, order).messages)) for order in ORDERS}
    assert all(abs(one["first"] - one["second"]) <= 1 for one in sides.values())
    both = sides["ab"] + sides["ba"]
    assert both["first"] == both["second"] == count


def test_which_side_is_right_first_is_drawn() -> None:
    begins = Counter(right_ones(asked(1, f"p-{n}", "ab").messages)[0] for n in range(200))
    assert min(begins.values()) > 70


@pytest.mark.parametrize("words", [True, False])
@pytest.mark.parametrize("reasoning", [True, False])
def test_a_worked_answer_is_of_the_form_that_is_asked_for(words: bool, reasoning: bool) -> None:
    request = asked(4, "p", "ab", words=words, reasoning=reasoning)
    answers = [turn.content for turn in request.messages[1::2]]
    assert request.schema is not None
    assert [prompts.structured(text, request.schema) is not None for text in answers] == [True] * 4


CONFIG: dict[str, Any] = {
    "critique": {"exemplars": 2}, "revise": {"exemplars": 2}, "label_pairs": {"exemplars": 2}, "generate": {"samples": 2},
}  # fmt: skip


def test_a_run_with_exemplars_puts_them_before_the_question(cai: Cai, tmp_path: Path) -> None:
    write_rows(tmp_path / "prompts.jsonl", [{"prompt": f"How do I steal kite number {n}?"} for n in range(4)])
    write_config(tmp_path, **CONFIG)
    code, out, err = cai("run", "c.yaml", "--json")
    assert code == 0, err
    assert {name: stage["rejected"] for name, stage in json.loads(out)["stages"].items() if stage["rejected"]} == {}
    assert len(rows_of(tmp_path / "out/revise/latest")) == 8
    for stage in ("critique", "revise", "label-pairs"):
        shown = json.loads(cai("show", "c.yaml", "--prompt", stage, "--json")[1])["requests"]
        for request in shown:
            turns = request["messages"]
            assert [turn["role"] for turn in turns] == ["user", "assistant"] * 2 + ["user"]
            assert ["How do I steal kite" in turn["content"] for turn in turns] == [False] * 4 + [True]
            if request["schema"]:
                assert all(prompts.structured(turn["content"], request["schema"]) for turn in turns[1::2])


def test_worked_critiques_and_revisions_are_the_same_for_every_row(cai: Cai, tmp_path: Path) -> None:
    write_rows(tmp_path / "prompts.jsonl", [{"prompt": f"How do I steal kite number {n}?", "id": f"k{n}"} for n in range(3)])
    write_config(tmp_path, **CONFIG)
    cai("run", "c.yaml", "-q")
    shown = [json.loads(cai("show", "c.yaml", "--prompt", "critique", f"k{n}", "--json")[1])["requests"] for n in range(3)]
    begins = {json.dumps(request["messages"][:4]) for requests in shown for request in requests}
    assert len(begins) == 1  # what a server keeps in its cache


def test_the_free_text_critique_takes_them_as_prose(cai: Cai, tmp_path: Path) -> None:
    write_rows(tmp_path / "prompts.jsonl", [{"prompt": "How do I steal a kite?"}])
    write_config(tmp_path, **CONFIG | {"critique": {"template": "paper", "exemplars": 1}})
    (request,) = json.loads(cai("show", "c.yaml", "--prompt", "critique", "--json")[1])["requests"]
    assert request["messages"][1]["content"] == SHIPPED["critique"][0].critique
    assert request["schema"] is None


# A user's own

OWN = "stage: critique\nexemplars:\n- {conversation: [{role: user, content: u}], request: q, response: r, critique: c}\n"


def said(folder: Path, text: str, count: int = 1) -> list[str]:
    (folder / "own.yaml").write_text(text)
    with pytest.raises(Fix) as caught:
        exemplars.find("own.yaml", "critique", folder, count)
    return [message.removeprefix(f"{folder}/") for message, _ in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (OWN.replace("stage: critique", "stage: revise"), "own.yaml:1: stage must be critique here"),
        (OWN.replace("stage", "stag"), "own.yaml:1: unknown key 'stag'"),
        (OWN.replace("stage: critique", "stage: [critique]"), "own.yaml:1: stage must be critique here"),
        ("stage: critique\nexemplars: []\n", "own.yaml:2: exemplars must be a list"),
        ("stage: critique\nexemplars: [one]\n", "own.yaml:2: an exemplar must be keys and values"),
        (OWN.replace(", critique: c", ""), "own.yaml:3: 'critique' is missing"),
        (OWN.replace("critique: c", "critique: c, verdict: v"), "own.yaml:3: unknown key 'verdict'"),
        (OWN.replace("critique: c", "critique: c, severity: bad"), "own.yaml:3: severity cannot be 'bad'"),
        (OWN.replace("critique: c", "critique: c, severity: null"), "own.yaml:3: severity cannot be empty"),
        (OWN.replace("critique: c", "critique: c, principle: null"), "own.yaml:3: column 'principle'"),
        (OWN.replace("critique: c", "critique: ''"), "own.yaml:3: 'critique' is empty"),
        (OWN.replace("critique: c", "critique: ' '"), "own.yaml:3: 'critique' is empty"),
        (OWN.replace("[{role: user, content: u}]", "[]"), "own.yaml:3: 'conversation' is empty"),
        (OWN.replace("request: q", "request: null"), "own.yaml:3: 'request' is empty"),
        (OWN.replace("critique: c", "critique: c, quotes: r"), "own.yaml:3: column 'quotes'"),
        (OWN.replace("role: user", "role: assistant"), "own.yaml:3: the conversation must end with a user turn"),
        (OWN.replace("critique: c", "critique: c, quotes: [made up]"), "own.yaml:3: a quote does not stand in the response"),
    ],
)  # fmt: skip
def test_a_mistake_is_told_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    assert [one for one in said(tmp_path, text) if one.startswith(message)]


def test_too_few_and_missing_ones_are_told(tmp_path: Path) -> None:
    assert said(tmp_path, OWN, 2) == ["own.yaml holds 1 exemplar, and 2 are asked for"]
    with pytest.raises(Fix) as caught:
        exemplars.find("genral", "critique", tmp_path, 1)
    assert caught.value.hint == "did you mean 'general'?"


@pytest.mark.parametrize(
    "wrong",
    [
        OWN.replace("critique: c", "critique: ''"), OWN.replace("request: q", "request: null"), OWN.replace(", request: q", ""),
        OWN.replace("critique: c", "critique: c, severity: bad"), OWN.replace("critique: c", "critique: c, severity: 3"),
        shipped("prompts", "exemplars", "label-general.yaml").read_text(), "stage: revise\nexemplars: []\n",
    ],
)  # fmt: skip
def test_one_mistake_is_one_message(tmp_path: Path, wrong: str) -> None:
    assert len(said(tmp_path, wrong)) == 1


def test_a_worked_comparison_has_a_better_and_a_worse(tmp_path: Path) -> None:
    same = "{conversation: [{role: user, content: u}], criterion: c, better: a, worse: ' a'}"
    (tmp_path / "own.yaml").write_text(f"stage: label\nexemplars: [{same}]\n")
    with pytest.raises(Fix, match="'better' and 'worse' are the same text"):
        exemplars.find("own.yaml", "label_pairs", tmp_path, 1)


@pytest.mark.parametrize("name", ["nosuch.yaml", "folder/nosuch.yaml"])
def test_a_file_that_is_not_there_is_told_with_where_it_was_looked_for(tmp_path: Path, name: str) -> None:
    with pytest.raises(Fix, match=f"there is no file '{name}'") as caught:
        exemplars.find(name, "critique", tmp_path, 1)
    assert caught.value.hint.startswith(f"looked in {tmp_path}, {tmp_path}/prompts, prompts and ")
    with pytest.raises(Fix, match=r"there is no file '/nowhere/nosuch\.yaml'") as caught:
        exemplars.find("/nowhere/nosuch.yaml", "critique", tmp_path, 1)
    assert caught.value.hint == "check the path"


def test_own_exemplars_go_before_the_shipped_ones(tmp_path: Path) -> None:
    (tmp_path / "exemplars").mkdir()
    (tmp_path / "exemplars" / "critique-general.yaml").write_text(OWN)
    (found,) = exemplars.find("general", "critique", tmp_path, 1)
    assert found == Exemplar(conversation=(Turn(role="user", content="u"),), request="q", response="r", critique="c")


def test_exemplars_without_a_severity_are_refused_where_one_is_asked_for(cai: Cai, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(OWN)
    write_rows(tmp_path / "prompts.jsonl", [{"prompt": "How do I fly a kite?"}])
    write_config(tmp_path, critique={"exemplars": 1, "exemplar_file": "own.yaml"})
    code, _, err = cai("run", "c.yaml", "-q")
    assert code == 2
    assert "have no severity" in err
