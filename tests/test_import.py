"""`cai constitution import`: files of the published shapes, made here in our own words, and what becomes of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from outside import Cai

from cai_cli import exemplars, importing, transcripts
from cai_cli.constitution import load
from cai_cli.errors import Fix

FORM = "arXiv 2212.08073"


def put(folder: Path, name: str, value: Any) -> Path:
    path = folder / name
    path.write_text(json.dumps(value), "utf-8")
    return path


def critique_entries(count: int) -> dict[str, Any]:
    return {
        f"rule{n}": {
            "prompt": [f"\n\nCritiqueRequest: Say where answer number {n} is unkind: to whom, and \"how\".\n\nCritique:"],
            "edit_request": f"\n\nRevisionRequest: Write it again, kindly.\nKeep point {n}: all of it.\n\nRevision:",
        }
        for n in range(count)
    }  # fmt: skip


def preference_texts(count: int) -> list[str]:
    return [f"\nWhich of the two is the kinder one, by rule {n}? Choose it.\n Options:" for n in range(count)]


ROUND = (
    "\n\nCritiqueRequest: Say what is unkind.\n\nCritique: The tone: it is curt."
    "\n\nRevisionRequest: Write it again, kindly.\n\nRevision: Gladly. Here is how: slowly."
)
TALK = "Human: Hello\n\nAssistant: Yes?\n\nHuman: How do I whistle?\n\nCritique: is a word here, too.\n\nAssistant: Just do."
TALK = TALK.replace("\n\nCritique: is", "\nCritique: is")  # inside a paragraph it is text


@pytest.fixture
def paper(tmp_path: Path) -> Path:
    """Four files of the published shapes and of the sizes of the first two."""
    put(tmp_path, "CritiqueRevisionInstructions.json", critique_entries(16))
    put(tmp_path, "RLMadisonInstructions.json", preference_texts(16))
    put(tmp_path, "CritiqueRevisionFewShotPrompts.json", [TALK + ROUND + "\n\nHuman:", "\n\n" + TALK + ROUND + ROUND])
    put(tmp_path, "RLMadisonFewShotPrompts.json", [COMPARED])
    return tmp_path


COMPARED = {
    "prompt": "\n\nHuman: Consider this talk between a person and a machine:\n\nHuman: Hello\n\nAssistant: Yes?\n\n"
    "Human: How do I whistle?\n\nIn one line, please.\n\nWhich answer is kinder?\n\nOptions:",
    "corrects": ["With pursed lips: like this.", "Let me show you."],
    "incorrects": ["Just do.", "No."],
}


# The command


def test_files_of_the_papers_size_become_16_principles_and_16_preferences(cai: Cai, paper: Path) -> None:
    code, out, err = cai(
        "constitution", "import", "RLMadisonInstructions.json", "CritiqueRevisionInstructions.json", "-o", "made/paper.yaml"
    )
    assert (code, err) == (0, "")
    assert "wrote made/paper.yaml: 16 principles and 16 preferences, all of the category harmlessness" in out
    found = load(paper / "made/paper.yaml")
    assert (found.name, len(found.principles), len(found.preferences)) == ("paper", 16, 16)
    first = found.principles[0]
    assert first.critique_prompt == 'Say where answer number 0 is unkind: to whom, and "how".'
    assert first.revision_prompt == "Write it again, kindly.\nKeep point 0: all of it."
    assert (first.name, first.category, first.weight) == ("rule0", "harmlessness", 1.0)
    assert "CritiqueRevisionInstructions.json" in first.source
    assert FORM in first.source
    assert found.preferences[15].text == "Which of the two is the kinder one, by rule 15? Choose it."
    assert [one.name for one in found.preferences[:2]] == ["preference-01", "preference-02"]


def test_what_was_imported_passes_the_check_but_for_what_it_does_not_speak_of(cai: Cai, paper: Path) -> None:
    assert cai("constitution", "import", "CritiqueRevisionInstructions.json", "RLMadisonInstructions.json")[0] == 0
    code, _, err = cai("constitution", "check", "constitution.yaml")
    assert code == 0
    assert [line for line in err.splitlines() if "asks nearly the same" not in line and "none is about" not in line] == []


def test_few_shot_files_become_exemplars_that_the_stages_read(cai: Cai, paper: Path) -> None:
    code, out, err = cai("constitution", "import", *sorted(paper.glob("*.json")), "--exemplars-out", "prompts/exemplars")
    assert (code, err) == (0, "")
    assert "critique-imported.yaml: 3 exemplars" in out
    critiques = exemplars.find("imported", "critique", paper, 3)
    revisions = exemplars.find("imported", "revise", paper, 3)
    labels = exemplars.find("imported", "label_pairs", paper, 2)
    assert [turn.content for turn in critiques[0].conversation] == [
        "Hello",
        "Yes?",
        "How do I whistle?\nCritique: is a word here, too.",
    ]
    assert [one.response for one in critiques] == ["Just do.", "Just do.", "Gladly. Here is how: slowly."]
    assert (critiques[0].request, critiques[0].critique) == ("Say what is unkind.", "The tone: it is curt.")
    assert (revisions[0].request, revisions[0].revision) == ("Write it again, kindly.", "Gladly. Here is how: slowly.")
    assert revisions[0].critique == critiques[0].critique
    assert [turn.content for turn in labels[0].conversation] == ["Hello", "Yes?", "How do I whistle?\n\nIn one line, please."]
    assert (labels[0].criterion, labels[0].better, labels[0].worse) == (
        "Which answer is kinder?", "With pursed lips: like this.", "Just do.",
    )  # fmt: skip


def test_nothing_that_exists_is_overwritten_and_then_nothing_is_written_at_all(cai: Cai, paper: Path) -> None:
    mine = paper / "exemplars" / "revise-imported.yaml"
    mine.parent.mkdir()
    mine.write_text("mine")
    code, out, err = cai("constitution", "import", *sorted(paper.glob("*.json")), "--exemplars-out", "exemplars")
    assert (code, out) == (2, "")
    assert err.splitlines()[0] == "error: exemplars/revise-imported.yaml exists already, and nothing was written"
    assert err.splitlines()[1].startswith("hint: choose another place with -o or --exemplars-out")
    assert mine.read_text() == "mine"
    assert not (paper / "constitution.yaml").exists()


@pytest.mark.parametrize(
    ("files", "what"),
    [
        (["RLMadisonInstructions.json"], "a constitution needs principles, and these files hold preferences only"),
        (["CritiqueRevisionFewShotPrompts.json"], "CritiqueRevisionFewShotPrompts.json: exemplars need a folder of their own"),
        (["nowhere.json"], "there is no file 'nowhere.json'"),
        (
            ["CritiqueRevisionInstructions.json", "CritiqueRevisionInstructions.json"], "two principles are called 'rule0'",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_made_is_refused_with_a_hint(cai: Cai, paper: Path, files: list[str], what: str) -> None:
    code, out, err = cai("constitution", "import", *files)
    assert (code, out) == (2, "")
    assert err.splitlines()[0] == f"error: {what}"
    assert err.splitlines()[1].startswith("hint: ")


def test_principles_alone_make_the_preferences(cai: Cai, paper: Path) -> None:
    assert cai("constitution", "import", "CritiqueRevisionInstructions.json", "-o", "alone.yaml")[0] == 0
    found = load(paper / "alone.yaml")
    assert len(found.preferences) == 16
    assert "answer number 3 is unkind" in found.preferences[3].text


# Shapes


@pytest.mark.parametrize(
    ("value", "problems"),
    [
        ({}, ["nothing at all is not the form"]),
        ([1, 2], ["a list of a whole number is not the form"]),
        ({"a": {"text": "b"}}, ["an object with the keys 'a' is not the form"]),
        ("words", ["text is not the form"]),
        (
            {"good": critique_entries(1)["rule0"], "bad": {"prompt": [], "edit_request": 7}, "hhh": critique_entries(1)["rule0"]},
            ["'bad': prompt holds no text", "'bad': edit_request holds no text", "'hhh': cannot be a principle's name"],
        ),
        (["fine: Options:", " \n Options:"], ["'item 2': text holds no text"]),
        ([TALK + ROUND, TALK], ["item 2: there is no critique in it"]),
        (
            [TALK + "\n\nCritiqueRequest: What?\n\nHuman:"],
            ["item 1: there must stand CritiqueRequest and Critique, not CritiqueRequest"],
        ),
        ([TALK + ROUND, "Human: a" + ROUND], ["item 2: a critique must follow a Human turn and an Assistant turn"]),
        ([TALK + ROUND.replace(" Gladly. Here is how: slowly.", "")], ["item 1: RevisionRequest or Revision is empty"]),
        ([COMPARED | {"incorrects": []}, COMPARED], ["item 1: incorrects must be a list of texts, with at least one"]),
        (COMPARED | {"corrects": ["(A)"]}, ["item 1: the answer (A) is only a letter, and the prompt has no options"]),
        ({"a": {"prompt": ["\ud800"], "edit_request": "x"}}, ["holds half a character (the lone surrogate U+D800)"]),
    ],
)
def test_problems_are_told_all_at_once_with_the_file_and_the_entry(tmp_path: Path, value: Any, problems: list[str]) -> None:
    path = put(tmp_path, "x.json", value)
    with pytest.raises(Fix) as caught:
        importing.read([path])
    told = [message for message, _ in caught.value.problems]
    assert [message.startswith(f"{path}: {problem}") for message, problem in zip(told, problems, strict=True)] == [True] * len(
        problems
    )
    assert all(hint for _, hint in caught.value.problems)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{\n 'a': 1}", ":2: this is not JSON"),
        (b'{"a": 1, "a": 2}', ": 'a' is there twice"),
        (b'"\xff"', ": is not UTF-8 (byte 0xff at 1)"),
        (b"[" * 100_000, ": is nested too deep"),
        (b" " * 1_000_001, ": is larger than 1 MB"),
    ],
)
def test_a_file_that_is_no_json_is_told_by_its_place(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(Fix) as caught:
        importing.read([path])
    assert caught.value.message.startswith(f"{path}{said}")


def test_problems_of_several_files_come_together(tmp_path: Path) -> None:
    paths = [put(tmp_path, "a.json", {}), put(tmp_path, "b.json", [3])]
    with pytest.raises(Fix) as caught:
        importing.read(paths)
    assert [message.partition(": ")[0] for message, _ in caught.value.problems] == [str(path) for path in paths]


def test_several_prompts_of_an_entry_are_one_principle(tmp_path: Path) -> None:
    entry = {"prompt": ["\n\nCritiqueRequest: What is unkind?", "To whom?\n\nCritique:"], "edit_request": "Mend it."}
    (found,) = importing.read([put(tmp_path, "x.json", {"one": entry})]).principles
    assert (found["critique_prompt"], found["revision_prompt"]) == ("What is unkind? To whom?", "Mend it.")


def test_joined_conversations_begin_anew_at_each_human_turn() -> None:
    both = transcripts.rounds(TALK + ROUND + "\n\nHuman: And sing?\n\nAssistant: No." + ROUND)
    assert [one.conversation[-1]["content"][:9] for one in both] == ["How do I ", "And sing?"]
    assert [one.response for one in both] == ["Just do.", "No."]


def test_a_last_round_may_end_with_its_critique(tmp_path: Path) -> None:
    text = TALK + ROUND + "\n\nCritiqueRequest: More?\n\nCritique: No change is needed."
    found = importing.read([put(tmp_path, "x.json", [text])])
    assert [len(found.exemplars[stage]) for stage in ("critique", "revise")] == [2, 1]
    assert found.exemplars["critique"][1]["response"] == "Gladly. Here is how: slowly."


# Comparisons


@pytest.mark.parametrize("shape", [lambda one: one, lambda one: [one], lambda one: {"named": one}])
def test_comparisons_come_alone_listed_or_named(tmp_path: Path, shape: Callable[[Any], Any]) -> None:
    found = importing.read([put(tmp_path, "x.json", shape(COMPARED))])
    assert [row["better"] for row in found.exemplars["label"]] == COMPARED["corrects"]
    assert found.notes == []


def test_a_prompt_that_cannot_be_parted_stays_one_turn_and_is_told_of(tmp_path: Path) -> None:
    path = put(
        tmp_path, "x.json", {"prompt": "Human: Which is kinder, a or b? Options:", "corrects": ["a"], "incorrects": ["b", "c"]}
    )
    found = importing.read([path])
    (row,) = found.exemplars["label"]
    assert row["conversation"] == [{"role": "user", "content": "Human: Which is kinder, a or b?"}]
    assert row["criterion"] == transcripts.CRITERION
    assert found.notes == [
        f"{path}: item 1: no question could be told from its conversation, so its prompt is kept as one turn",
        f"{path}: item 1: 1 of its answers have no counterpart and are left out",
    ]


def test_a_letter_stands_for_its_option() -> None:
    prompt = COMPARED["prompt"] + "\n (A) Just do.\n (B) With pursed lips:\nlike this.\n\nAssistant: The kinder one is"
    (row,) = transcripts.comparisons({"prompt": prompt, "corrects": [" (B)"], "incorrects": ["A."]})
    assert (row["better"], row["worse"]) == ("With pursed lips:\nlike this.", "Just do.")
    assert row["criterion"] == "Which answer is kinder?"
    with pytest.raises(transcripts.Broken, match="the answer C is none of the options A, B"):
        transcripts.comparisons({"prompt": prompt, "corrects": ["C"], "incorrects": ["A"]})


# What is written is what is read

WILD = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
TRICKY = st.sampled_from(
    ["no", "1e3", "0o17", "~", "null", "- a", "a: b", "# a", "${HOME}", "'", '"', "a\n\nb: c\n", "{{ x }}", "*a", "\u2028",
     "\ufeffx", "\x07", "\x85 a", "|", "%", "=", "<<", "\U0001f642"]
)  # fmt: skip
TEXTS = (WILD | TRICKY | st.tuples(TRICKY, WILD, TRICKY).map(" ".join)).map(str.strip).filter(bool)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(st.dictionaries(TEXTS, st.tuples(TEXTS, TEXTS), min_size=1, max_size=3), st.lists(TEXTS, max_size=3))
def test_any_text_survives_the_way_through_yaml(tmp_path: Path, entries: dict[str, tuple[str, str]], texts: list[str]) -> None:
    principles = [
        {
            "name": name,
            "category": "harmlessness",
            "description": critique,
            "critique_prompt": critique,
            "revision_prompt": revision,
        }
        for name, (critique, revision) in entries.items()
    ]
    preferences = [{"name": f"p{n}", "category": "harmlessness", "text": text} for n, text in enumerate(texts)]
    made = importing.Imported(principles=principles, preferences=preferences, sources={"principles": ["a\nb: c.json"]})
    path = tmp_path / "c.yaml"
    path.write_text(importing.constitution_yaml(made, "wild: one"), "utf-8", newline="\n")
    found = load(path)
    assert found.name == "wild: one"
    assert {one.name: (one.critique_prompt, one.revision_prompt) for one in found.principles} == entries
    if texts:
        assert [one.text for one in found.preferences] == texts


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(TEXTS, TEXTS, TEXTS, TEXTS)
def test_any_exemplar_survives_too(tmp_path: Path, asked: str, response: str, request_: str, critique: str) -> None:
    row = {"conversation": [{"role": "user", "content": asked}], "response": response, "request": request_, "critique": critique}
    made = importing.Imported(exemplars={"critique": [row]}, sources={"critique": ["x.json"]})
    path = tmp_path / "critique-x.yaml"
    path.write_text(importing.exemplars_yaml(made, "critique"), "utf-8", newline="\n")
    (found,) = exemplars.load(path, "critique")
    assert (found.conversation[0].content, found.response, found.request, found.critique) == (asked, response, request_, critique)
