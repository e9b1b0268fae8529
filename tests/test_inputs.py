"""Prompts, pairs and rows come out of the input once, named the same at every reading; what cannot be used says why."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from outside import Cai, questions, rows_of, write_config, write_rows
from reading import jsonl, read, refused, texts

from cai_cli.engine.inputs import group_by_prompt, read_pairs, read_prompts, read_rows
from cai_cli.errors import Fix
from cai_cli.records import Chain, Pair, Prompt, Rejected, Sample, Turn
from cai_cli.settings import PromptsSection

LAW = settings(deadline=None, max_examples=30)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inputs")


def pairs(folder: Path, *rows: dict[str, Any], seed: int = 7, **options: Any) -> list[Any]:
    (folder / "pairs.jsonl").write_bytes(jsonl(*rows))
    return list(read_pairs(PromptsSection(path="pairs.jsonl", **options), folder, seed))


# Names


@LAW
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=12), st.integers(0, 3))
def test_made_ids_are_unique_and_the_same_again(scratch: Path, prompts: list[str], seed: int) -> None:
    data = jsonl(*({"prompt": prompt} for prompt in prompts))
    plain, shuffled = read(scratch, "p.jsonl", data), read(scratch, "p.jsonl", data, seed=seed, shuffle=True)
    assert len({row.id for row in plain}) == len(prompts)
    assert sorted(plain, key=lambda row: row.id) == sorted(shuffled, key=lambda row: row.id)
    assert shuffled == read(scratch, "p.jsonl", data, seed=seed, shuffle=True)
    assert read(scratch, "p.jsonl", data, seed=seed, shuffle=True, limit=2) == shuffled[:2]


@LAW
@given(st.lists(st.sampled_from("ab") | st.none(), max_size=9))
def test_grouping_keeps_every_row_and_joins_only_neighbours(prompt_ids: list[str | None]) -> None:
    bad = Rejected(id="", prompt_id="", stage="input", reason="not_json")
    rows = [
        Sample(id=str(number), prompt_id=name, messages=(), prompt="") if name else bad for number, name in enumerate(prompt_ids)
    ]
    groups = list(group_by_prompt(rows))
    lists = [group for group in groups if isinstance(group, list)]
    assert [row for group in lists for row in group] == [row for row in rows if isinstance(row, Sample)]
    assert groups.count(bad) == rows.count(bad)
    assert all(len({row.prompt_id for row in group}) == 1 for group in lists)
    assert all(one[0].prompt_id != other[0].prompt_id for one, other in pairwise(lists))


def test_given_ids_that_clash_are_listed_with_their_lines(tmp_path: Path) -> None:
    data = jsonl(*({"prompt": "a", "id": number % 12} for number in range(36)))
    message = refused(tmp_path, "p.jsonl", data).message
    assert "'0' again at p.jsonl:13" in message
    assert "'9' again at p.jsonl:22" in message
    assert "'10'" not in message
    assert len(read(tmp_path, "p.jsonl", data, limit=12)) == 12


def test_a_given_id_is_taken_and_never_given_to_another(tmp_path: Path) -> None:
    (made,) = read(tmp_path, "p.jsonl", jsonl({"prompt": "a", "id": ""}))
    rows = read(
        tmp_path,
        "p.jsonl",
        jsonl(
            {"prompt": "b", "id": f"{made.id}-2"}, {"prompt": "a"}, {"prompt": "a"}, {"prompt": "c", "id": 5, "prompt_id": "c"}
        ),
    )
    assert [row.id for row in rows] == [f"{made.id}-2", made.id, f"{made.id}-3", "c"]
    assert made.id == "5168bd634e48454d"  # the same in every version: what was bought for it is found by it


def test_columns_that_no_row_has_are_named_with_a_near_miss(tmp_path: Path) -> None:
    data = jsonl({"question": "a", "topic": "t"}, {"question": "b"})
    found = refused(tmp_path, "p.jsonl", data, column="questions", kind="topics", keep=["Topic", "question"])
    assert [message.split("'")[1] for message, _ in found.problems] == ["questions", "topics", "Topic"]
    assert "did you mean 'question'?" in found.message


# Which column, which kind, what is kept


def test_the_column_is_chosen_row_by_row(tmp_path: Path) -> None:
    talk = [
        {"role": "user", "content": "u"},
        {"role": "assistant", "content": "v"},
        {"role": "user", "content": "w", "name": "x"},
    ]
    transcript = {"chosen": "\n\nHuman: h: 1\n\nx\n\nAssistant: i", "rejected": "\n\nHuman: h: 1\n\nx\n\nAssistant: j"}
    rows = [
        {"messages": talk, "prompt": "p"},
        {"messages": "no list", "prompt": "p"},
        {"prompt": talk},
        transcript,
        transcript | {"prompt": "p"},
    ]
    read_back = read(tmp_path, "p.jsonl", jsonl(*rows))
    assert texts(read_back) == ["w", "p", "w", "h: 1\n\nx", "p"]
    assert isinstance(read_back[0], Prompt)
    assert [turn.role for turn in read_back[0].messages] == ["user", "assistant", "user"]
    assert texts(read(tmp_path, "p.jsonl", jsonl(rows[0], transcript), column="prompt")) == ["p", "missing_column"]


@pytest.mark.parametrize(
    ("chosen", "wanted"),
    [
        ("\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d", "c"),
        ("\n\nHuman: a\n\nAssistant: b\n\nHuman: c", "a"),
        ("\n\nHuman: Human: a\nAssistant: b\n\nAssistant: d", "Human: a\nAssistant: b"),
        ("\n\nHuman: a\n\nAssistant: b\n\nAssistant: c", "ends_with_assistant"),
        ("\n\nHuman: a", "no_assistant_turn"),
        ("\n\nHuman: \n\nAssistant: b", "empty_prompt"),
    ],
)
def test_a_transcript_is_cut_before_its_last_answer(tmp_path: Path, chosen: str, wanted: str) -> None:
    assert texts(read(tmp_path, "p.jsonl", jsonl({"chosen": chosen, "rejected": "\n\nHuman: x"}))) == [wanted]


def test_kind_and_kept_columns(tmp_path: Path) -> None:
    data = jsonl(
        {"prompt": "a", "t": "harmful", "z": [1, None], "y": "é"},
        {"prompt": "b", "t": "odd"},
        {"prompt": "c"},
        {"prompt": "d", "t": 1},
    )
    rows = read(tmp_path, "p.jsonl", data, kind="t", keep=["z", "y"])
    assert [row.kind if isinstance(row, Prompt) else row.reason for row in rows] == [
        "harmful",
        "odd",
        "missing_column",
        "wrong_type",
    ]
    assert [row.meta for row in rows if isinstance(row, Prompt)] == ['{"y":"é","z":[1,null]}', '{"y":null,"z":null}']
    assert [(row.kind, row.meta) for row in read(tmp_path, "p.jsonl", data, kind="harmless") if isinstance(row, Prompt)] == [
        ("harmless", "{}")
    ] * 4


def test_the_limit_counts_accepted_prompts(tmp_path: Path) -> None:
    assert texts(read(tmp_path, "p.txt", b"a\n\xff\nb\nc", limit=2)) == ["a", "bad_utf8", "b"]


# Folders and datasets


def test_a_stage_folder_is_an_input(tmp_path: Path) -> None:
    folder = tmp_path / "v0001-3f9a1c2b"
    folder.mkdir()
    for name, prompt in (
        ("train-00001-of-00002.jsonl", "c"),
        ("train-00000-of-00002.jsonl", "b"),
        ("test-00000-of-00001.jsonl", "a"),
    ):
        (folder / name).write_bytes(jsonl({"prompt": prompt}))
    for name in ("README.md", "_manifest.json", "_rejects.jsonl", ".hidden.jsonl", "notes.pdf"):
        (folder / name).write_bytes(b"not a row")
    (folder / "deeper.jsonl").mkdir()
    assert texts(list(read_prompts(PromptsSection(path=folder.name), tmp_path, 7))) == ["a", "b", "c"]


def test_a_dataset_is_streamed_and_its_rows_are_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "shelf").mkdir()
    (tmp_path / "shelf" / "train.jsonl").write_bytes(jsonl({"text": "a"}, {"text": " "}, {"text": "b"}))
    rows = list(read_prompts(PromptsSection(dataset="shelf", column="text"), tmp_path, 7))
    assert texts(rows) == ["a", "empty_prompt", "b"]
    assert [row.where for row in rows if isinstance(row, Rejected)] == ["shelf:2"]
    with pytest.raises(Fix, match="shelf"):
        list(read_prompts(PromptsSection(dataset="shelf", split="absent"), tmp_path, 7))


# Pairs


def test_pairs_come_in_four_shapes(tmp_path: Path) -> None:
    user, one, two = ({"role": role, "content": text} for role, text in (("user", "q"), ("assistant", "1"), ("assistant", "2")))
    rows: list[dict[str, Any]] = [
        {"prompt": "q", "response_a": "1", "response_b": "2"}, {"prompt": "q", "chosen": "1", "rejected": "2"},
        {"prompt": [user], "chosen": [one], "rejected": [two]}, {"prompt": "?", "chosen": [user, one], "rejected": [user, two]},
        {"chosen": "\n\nHuman: q\n\nAssistant: 1", "rejected": "\n\nHuman: q\n\nAssistant: 2"},
    ]  # fmt: skip
    found = pairs(tmp_path, *rows, gold=True)
    assert [pair.messages for pair in found] == [(Turn(role="user", content="q"),)] * 5
    assert [{pair.response_a, pair.response_b} for pair in found] == [{"1", "2"}] * 5
    assert [(pair.gold, pair.response_a) for pair in found[1:]] == [
        (pair.gold, "1" if pair.gold == "a" else "2") for pair in found[1:]
    ]
    assert found[0].gold == ""
    assert [pair.id for pair in found] == [f"{found[0].prompt_id}-{2 * n}-{2 * n + 1}" for n in range(5)]


def test_the_chosen_side_is_drawn_by_seed_and_kept_only_if_asked(tmp_path: Path) -> None:
    rows = [{"id": number, "prompt": "q", "chosen": "good", "rejected": "bad"} for number in range(400)]
    drawn = pairs(tmp_path, *rows)
    assert drawn == pairs(tmp_path, *rows) != pairs(tmp_path, *rows, seed=8)
    assert 150 < sum(pair.response_a == "good" for pair in drawn) < 250
    assert {pair.gold for pair in drawn} == {""}
    assert [pair.gold for pair in pairs(tmp_path, {"prompt": "q", "response_a": "1", "response_b": "2", "gold": "b"})] == ["b"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"prompt": "q", "response_a": "1"}, "missing_column"),
        ({"response_a": "1", "response_b": "2"}, "missing_column"),
        ({"prompt": "q", "response_a": "1", "response_b": " "}, "empty_response"),
        ({"prompt": "q", "chosen": "1", "rejected": [{"role": "assistant", "content": "2"}]}, "wrong_type"),
        ({"prompt": "q", "chosen": [{"role": "user", "content": "1"}], "rejected": []}, "no_assistant_turn"),
        ({"chosen": "\n\nHuman: q\n\nAssistant: 1", "rejected": "\n\nHuman: r\n\nAssistant: 2"}, "prompts_differ"),
        ({"chosen": "\n\nHuman: q\n\nAssistant: 1", "rejected": "\n\nHuman: q"}, "no_assistant_turn"),
        ({"prompt": "q", "response_a": "1", "response_b": "2", "votes": "a"}, "wrong_type"),
        ({"prompt": "q", "response_a": "1", "response_b": "2", "votes": ["a"]}, "wrong_type"),
        ({"prompt": "q", "response_a": "1", "votes": []}, "missing_column"),
        ({"prompt": "q", "response_a": "1", "response_b": "", "votes": []}, "empty_response"),
    ],
)
def test_a_pair_that_cannot_be_used_is_rejected(tmp_path: Path, row: dict[str, Any], reason: str) -> None:
    (found,) = pairs(tmp_path, {"id": "x", **row})
    assert (found.reason, found.where, found.id, found.prompt_id) == (reason, "pairs.jsonl:1", "x", "x")


@pytest.mark.parametrize(
    ("vote", "wanted"),
    [
        ({"verdict": "a"}, ("a", 1.0)),
        ({"verdict": "b", "p_a": None}, ("b", 0.0)),
        ({"verdict": "tie"}, ("tie", 0.5)),
        ({"verdict": "abstain"}, ("abstain", None)),
        ({"verdict": "abstain", "p_a": 0.5}, ("abstain", 0.5)),
        ({"p_a": 0.7}, ("a", 0.7)),
        ({"p_a": 0}, ("b", 0.0)),
        ({"p_a": 0.5}, ("tie", 0.5)),
        ({"p_a": 1.5}, "wrong_type"),
        ({"p_a": True}, "wrong_type"),
        ({"verdict": "A"}, "wrong_type"),
        ({"verdict": "a", "order": "aa"}, "wrong_type"),
        ({"verdict": "a", "order": None}, "missing_column"),
        ({"verdict": "a", "labeler": None}, "missing_column"),
        ({"confidence": 0.9}, "missing_column"),
    ],
)
def test_a_vote_needs_a_labeler_an_order_and_a_verdict_or_a_probability(
    tmp_path: Path, vote: dict[str, Any], wanted: Any
) -> None:
    votes = [{"labeler": "m", "order": "ba", **vote}]
    (pair,) = pairs(tmp_path, {"prompt": "q", "response_a": "1", "response_b": "2", "votes": votes})
    found = (pair.votes[0].verdict, pair.votes[0].p_a) if isinstance(pair, Pair) else pair.reason
    assert found == wanted


def test_a_judged_pair_is_filled_in_and_named_by_its_own_id(tmp_path: Path) -> None:
    row = {"response_a": "1", "response_b": "2", "votes": [], "kind": "harmful", "gold": "a"}
    talk = [{"role": "user", "content": "q"}]
    found = pairs(
        tmp_path,
        row | {"id": "x", "prompt": "q"},
        row | {"id": "y", "prompt_id": "p", "messages": talk},
        row | {"id": "z", "prompt_id": "p", "prompt": "q"},
        row | {"prompt": "q"},
    )
    assert [(pair.id, pair.prompt_id) for pair in found[:3]] == [("x", "x"), ("y", "p"), ("z", "p")]
    assert found[3].id == f"{found[3].prompt_id}-0-1"
    assert len(found[3].prompt_id) == 16
    assert {(pair.prompt, pair.messages, pair.kind, pair.gold) for pair in found} == {
        ("q", (Turn(role="user", content="q"),), "harmful", "a")
    }
    with pytest.raises(Fix, match=r"'x' again at pairs\.jsonl:2"):
        pairs(tmp_path, row | {"id": "x", "prompt": "q"}, row | {"id": "x", "prompt": "q"})


# Rows that a stage wrote


def test_rows_of_a_stage_are_read_strictly(tmp_path: Path) -> None:
    sample = Sample(id="p-0", prompt_id="p", messages=(Turn(role="user", content="q"),), prompt="q", response="r", tokens_in=3)
    good, path = asdict(sample), tmp_path / "rows.jsonl.zst"
    path.write_bytes(zstandard.compress(jsonl(good, good | {"response": None}, {"id": "x"}) + b"{\n" + jsonl(good | {"more": 1})))
    rows = list(read_rows(Sample, [path]))
    assert rows[0] == rows[4] == sample
    bad = [row for row in rows if isinstance(row, Rejected)]
    assert [(row.reason, row.id, row.prompt_id) for row in bad] == [
        ("wrong_type", "p-0", "p"),
        ("missing_column", "x", "x"),
        ("not_json", "", ""),
    ]
    assert [row.where for row in bad] == [f"{path}:{number}" for number in (2, 3, 4)]


def test_rows_of_no_file_are_none_but_an_empty_file_is_refused(tmp_path: Path) -> None:
    assert list(read_rows(Sample, [])) == []
    (tmp_path / "rows").write_bytes(b"\n")
    with pytest.raises(Fix, match="no rows"):
        list(read_rows(Sample, [tmp_path / "rows"]))
    with pytest.raises(Fix, match="there is no file"):
        list(read_rows(Sample, [tmp_path / "absent.jsonl"]))


def test_a_prompt_may_have_many_given_pairs_when_each_has_an_id(tmp_path: Path) -> None:
    common = {"prompt_id": "p", "prompt": "q", "response_b": "b", "source_a": "x", "kind": "harmless"}
    rows = [{"id": f"p-{n}", "response_a": f"a{n}", **common} for n in range(2)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    pairs = [pair for pair in read_pairs(PromptsSection(path=str(path)), tmp_path, 0) if isinstance(pair, Pair)]
    assert [(pair.id, pair.prompt_id, pair.source_a, pair.kind) for pair in pairs] == [
        ("p-0", "p", "x", "harmless"),
        ("p-1", "p", "x", "harmless"),
    ]


@pytest.mark.parametrize(("shape", "order"), [(Sample, (0, 1)), (Sample, (1, 0)), (Chain, (0, 1))])
def test_samples_and_chains_in_one_file_are_each_read_as_what_they_are(tmp_path: Path, shape: Any, order: tuple[int]) -> None:
    common = {"prompt_id": "p", "messages": [{"role": "user", "content": "q"}], "prompt": "q", "response": "now"}
    both = ({"id": "chain", "rounds": [], "initial_response": "before", **common}, {"id": "sample", **common})
    (tmp_path / "rows.jsonl").write_bytes(jsonl(*(both[n] for n in order)))
    rows = {row.id: row for row in read_rows(shape, [tmp_path / "rows.jsonl"]) if isinstance(row, Sample)}
    assert [row.initial_response for row in rows.values() if isinstance(row, Chain) and row.id == "chain"] == ["before"]
    assert Chain.begin(rows["sample"]).initial_response == "now"


def direct(folder: Path) -> Path:
    """A config that revises without critiques; its prompts are there."""
    write_rows(folder / "prompts.jsonl", questions(3))
    return write_config(folder, critique="off", revise={"rounds": 2}, label_pairs=None, debias=None)


def test_revise_without_critiques_takes_samples_from_a_pipe(cai: Cai, tmp_path: Path) -> None:
    direct(tmp_path)
    code, samples, _ = cai("generate", "c.yaml", "-o", "-")
    assert code == 0
    code, out, err = cai("revise", "c.yaml", "-i", "-", "-o", "-", stdin=samples.encode())
    assert code == 0, err
    before = {row["id"]: row["response"] for row in map(json.loads, samples.splitlines())}
    rows = [json.loads(line) for line in out.splitlines()]
    assert {row["id"]: row["initial_response"] for row in rows} == before
    assert len(rows) == 6
    assert all(row["rounds"] and row["stopped_by"] for row in rows)
    assert cai("run", "c.yaml")[0] == 0
    assert rows == rows_of(tmp_path / "out/revise/latest")


def test_revise_of_critiques_refuses_rows_without_an_open_round(cai: Cai, tmp_path: Path) -> None:
    direct(tmp_path)
    assert cai("run", "c.yaml")[0] == 0
    write_config(tmp_path, "looped.yaml", output="other")
    for version in ("generate", "revise"):
        code, _, err = cai("revise", "looped.yaml", "-i", f"out/{version}/latest")
        assert (code, "no row has an open round" in err) == (65, True), err
