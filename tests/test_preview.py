"""`cai show --prompt`: what is shown is what is sent, byte for byte, and showing it asks nothing and writes nothing."""

from __future__ import annotations

import hashlib
import json
import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback import Server, serve
from outside import SIMULATED, Cai, at, write_config, write_rows

from cai_cli import config as configs
from cai_cli.engine.ledger import key_of
from cai_cli.engine.preview import preview
from cai_cli.flow import Request
from cai_cli.providers._messages import encode

ROWS = [{"prompt": f"How do I steal kite number {n}?", "id": f"k{n}"} for n in range(3)]
MORE: dict[str, Any] = {
    "critique": {"principles": 2, "scores": "per_round", "exemplars": 1}, "revise": {"accept": "if_preferred"},
    "label_pairs": {"scores": True, "votes": 2, "exemplars": 1}, "score": {},
    "generate": {"samples": 2, "systems": ["Be brief."]}, "seed": 2,  # every prompt then gets a pair that differs
}  # fmt: skip
STAGES = ("generate", "critique", "revise", "label-pairs", "score")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_rows(tmp_path / "prompts.jsonl", ROWS)
    write_config(tmp_path, **MORE)
    return tmp_path


def files(folder: Path) -> dict[str, str]:
    """All that lies there, hidden things too."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def shown(cai: Cai, *arguments: object) -> tuple[list[dict[str, Any]], str]:
    """The requests, and what stands on stderr."""
    code, out, err = cai("show", "c.yaml", *arguments, "--json")
    assert code == 0, err
    return json.loads(out)["requests"], err


def asked(folder: Path, stage: str, wanted: str | None = None) -> list[Request]:
    questions = preview(configs.load(folder / "c.yaml"), stage, wanted).questions
    return [question.request for question in questions]


# What is shown is what is sent


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    with serve() as server:
        yield server


@pytest.mark.parametrize("stage", STAGES)
def test_a_server_receives_the_bytes_that_were_shown(
    cai: Cai, running: Server, folder: Path, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    running.reset(fail=[])
    write_config(folder, **MORE, model=at(running.url))
    assert cai("run", "c.yaml", "-q")[0] == 0
    received = set(running.stats()["bodies"])
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    total = running.stats()["total"]
    requests = [one for n in range(3) for one in asked(folder, stage, f"k{n}")]
    assert len(requests) >= 3
    assert {hashlib.sha256(encode(one)).hexdigest() for one in requests} - received == set()
    assert running.stats()["total"] == total


def test_what_is_shown_before_a_run_is_asked_in_it(cai: Cai, folder: Path) -> None:
    """On the simulated model, whose stand-in is itself."""
    before = {stage: asked(folder, stage, f"k{n}") for stage in STAGES for n in range(3)}
    assert list(folder.rglob(".cai")) == []
    assert cai("run", "c.yaml", "-q")[0] == 0
    with sqlite3.connect(folder / "out/.cai/ledger.sqlite") as db:
        keys = {key for (key,) in db.execute("SELECT key FROM replies")}
    assert [(stage, one.row) for stage, requests in before.items() for one in requests if key_of(one) not in keys] == []


def test_after_a_run_every_request_is_shown_with_its_draws(cai: Cai, folder: Path) -> None:
    cai("run", "c.yaml", "-q")
    with sqlite3.connect(folder / "out/.cai/ledger.sqlite") as db:
        (bought,) = db.execute("SELECT count(*) FROM replies WHERE row LIKE 'k1%'").fetchone()
    found = set()  # a response that two stages score is bought once
    for stage in STAGES:
        rows = ["k1-0-1"] if stage == "label-pairs" else ["k1-0", "k1-1"]
        requests = [one for row in rows for one in shown(cai, "--prompt", stage, row)[0]]
        assert {one["stage"] for one in requests} == {stage}
        found |= {(json.dumps(one["messages"]), draw) for one in requests for draw in one["draws"]}
    assert len(found) == bought


@pytest.mark.parametrize("stage", STAGES)
def test_it_writes_nothing_and_needs_no_key(cai: Cai, folder: Path, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(folder, **MORE, model={"provider": "anthropic", "name": "claude-sonnet-5-5"})
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    before = files(folder)
    requests, err = shown(cai, "--prompt", stage)
    assert files(folder) == before
    assert {one["model"] for one in requests} == {"claude-sonnet-5-5"}
    assert ("the simulated model stands in for" in err) == (stage != "generate")


# Where a row comes from


def test_replies_that_were_given_go_before_stand_ins(cai: Cai, folder: Path) -> None:
    cai("generate", "c.yaml", "-q")
    write_config(folder, **MORE | {"critique": {"template": "paper"}})
    (request,), err = shown(cai, "--prompt", "critique", "k2-1")
    row = json.loads((folder / "out/generate/latest/train-00000-of-00001.jsonl").read_text().splitlines()[5])
    assert row["id"] == request["row"] == "k2-1"
    assert row["response"] in request["messages"][-1]["content"]
    assert err == ""
    assert "stands in for" in shown(cai, "--prompt", "revise", "k2-1")[1]


def test_without_a_ledger_the_rows_are_those_of_the_newest_version(cai: Cai, folder: Path) -> None:
    cai("run", "c.yaml", "-q")
    critique, pairs = (asked(folder, stage, "k0")[0] for stage in ("critique", "label-pairs"))
    (folder / "out/.cai").rename(folder / "away")
    write_config(folder, **MORE | {"generate": {"samples": 3}})  # what would be made now is not looked at
    for stage, one, source in (("critique", critique, "generate"), ("label-pairs", pairs, "revise")):
        requests, err = shown(cai, "--prompt", stage, "k0")
        assert re.fullmatch(rf"cai: from the rows of {source} v0001-\w+\n", err)
        assert requests[0]["messages"] == [{"role": turn.role, "content": turn.content} for turn in one.messages]


def test_without_a_ledger_every_round_of_a_row_is_shown_as_it_was(cai: Cai, folder: Path) -> None:
    cai("run", "c.yaml", "-q")
    ids = [f"k{n}-{sample}" for n in range(3) for sample in range(2)]
    known = {row: [one for one in asked(folder, "revise", row) if one.row == row] for row in ids}
    (folder / "out/.cai").rename(folder / "away")
    for row, requests in known.items():
        found, err = shown(cai, "--prompt", "revise", row)
        assert [one["messages"][-1]["content"] for one in found] == [one.messages[-1].content for one in requests]
        assert "from the rows of critique v0001" in err
    assert max(map(len, known.values())) == 2


def test_every_round_is_shown_once_it_is_known(cai: Cai, folder: Path) -> None:
    write_config(
        folder,
        revise={"rounds": 2, "stop": dict.fromkeys(("severity_below", "improvement_below")) | {"no_revision_needed": False}},
    )
    begun, _ = shown(cai, "--prompt", "critique", "k0-0")
    assert len(begun) == 1
    cai("run", "c.yaml", "-q")
    known, _ = shown(cai, "--prompt", "critique", "k0-0")
    assert len(known) == 2
    assert known[0] == begun[0]


def test_both_orders_of_a_pair_are_shown(cai: Cai, folder: Path) -> None:
    write_config(folder)
    (first, second), _ = shown(cai, "--prompt", "label-pairs")
    assert (first["row"], first["draws"], first["options"][2]) == ("k0-0-1", [0], "tie")
    texts = [re.findall(r"<response-\w+-\w+>\n(.*?)\n</", one["messages"][0]["content"], re.DOTALL) for one in (first, second)]
    assert texts[0] == texts[1][::-1]


def test_given_pairs_direct_revisions_and_new_prompts_can_be_looked_at(cai: Cai, folder: Path) -> None:
    write_rows(
        folder / "pairs.jsonl", [{"prompt": "What is a kite?", "response_a": "A toy.", "response_b": "A bird.", "id": "x"}]
    )
    none = dict.fromkeys(("generate", "critique", "revise", "debias"))
    write_config(folder, **none | {"label_pairs": {"pairs": "given"}, "prompts": {"path": "pairs.jsonl"}})
    requests, err = shown(cai, "--prompt", "label_pairs", "x")
    assert (len(requests), err) == (2, "")
    write_config(folder, **none | {"label_pairs": None, "expand": {"topics": ["kites"]}})
    (request,), err = shown(cai, "--prompt", "expand")
    assert "<topic-" in request["messages"][0]["content"]
    assert err == ""
    direct = folder / "c.yaml"
    write_config(folder, revise={"rounds": 1})
    direct.write_text(direct.read_text().replace('"critique": {}', '"critique": "off"'))
    (request, *_), _ = shown(cai, "--prompt", "revise", "k0-0")
    assert "<request-" in request["messages"][0]["content"]


# What a person sees


HOSTILE = "\x1b[2J\x9b31m \u202eevil\u2066 [red]not markup[/red] \r\x07"


def test_nothing_in_a_message_moves_the_cursor(cai: Cai, folder: Path) -> None:
    write_rows(folder / "prompts.jsonl", [{"prompt": HOSTILE, "id": "x\x1b]0;title\x07"}])
    code, out, _ = cai("show", "c.yaml", "--prompt", "critique")
    assert code == 0
    assert "[red]not markup[/red]" in out
    assert "\\x1b[2J" in out
    assert not re.search("[\x1b\x9b\r\x07\u202e\u2066]", out)


def test_the_text_is_neither_wrapped_nor_indented(cai: Cai, folder: Path) -> None:
    (request, *_), _ = shown(cai, "--prompt", "critique", "k0-0")
    out = cai("show", "c.yaml", "--prompt", "critique", "k0-0")[1]
    assert request["messages"][-1]["content"] in out
    assert json.dumps(request["schema"]) in out
    assert f"{SIMULATED['name']} (simulated), max_tokens 512" in out
    system = cai("show", "c.yaml", "--prompt", "generate")[1]
    assert "[system]\nBe brief.\n" in system


@pytest.mark.parametrize(
    ("arguments", "code", "message", "hint"),
    [
        (("--prompt", "critqe"), 2, "there is no stage 'critqe'", "did you mean 'critique'?"),
        (("--prompt", "debias"), 2, "debias asks no model", "generate, critique"),
        (("--prompt", "expand"), 2, "there is no `expand` section", "add one"),
        (("--prompt", "critique", "k9"), 65, "no row has the id or prompt_id 'k9'", "without an id"),
        (("--prompt", "critique", "k0-0-1"), 65, "critique asks nothing about 'k0-0-1'", "it asks about k0-0, k0-1"),
        (("--prompt", "critique", "--rejects"), 2, "--prompt shows what is asked", "leave --rejects out"),
        (("--prompt", "critique", "--limit", "3"), 2, "--prompt shows what is asked", "leave --limit out"),
    ],
)
def test_a_mistake_is_told_in_plain_words(
    cai: Cai, folder: Path, arguments: tuple[str, ...], code: int, message: str, hint: str
) -> None:
    found, out, err = cai("show", "c.yaml", *arguments)
    assert (found, out) == (code, "")
    assert message in err.splitlines()[0]
    assert hint in err.splitlines()[1]


def test_a_row_that_is_asked_nothing_is_told_so(cai: Cai, folder: Path) -> None:
    write_config(folder, model=SIMULATED | {"world": {"harm": 0}})
    code, _, err = cai("show", "c.yaml", "--prompt", "revise", "k0-0")
    assert code == 65
    assert "revise asks nothing about 'k0-0'" in err
    assert "it may have stopped" in err
    assert "asks nothing about the first 3 prompts" in cai("show", "c.yaml", "--prompt", "revise")[2]


def test_prompts_from_stdin_are_not_waited_for(cai: Cai, folder: Path) -> None:
    write_config(folder, prompts={"path": "-"})
    code, _, err = cai("show", "c.yaml", "--prompt", "generate")
    assert code == 65
    assert "the prompts come from stdin" in err


def test_a_damaged_ledger_is_told(cai: Cai, folder: Path) -> None:
    cai("generate", "c.yaml", "-q")
    (folder / "out/.cai/ledger.sqlite").write_bytes(b"no database at all" * 100)
    code, _, err = cai("show", "c.yaml", "--prompt", "critique")
    assert code == 74
    assert "the ledger cannot be read" in err
