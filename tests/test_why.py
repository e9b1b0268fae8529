"""`cai why`: every request of a row is told as the ledger has it, and nothing that the ledger has not."""

from __future__ import annotations

import hashlib
import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from loopback import Server
from outside import SIMULATED, Cai, at, rows_of, start, write_config, write_rows
from seeds import seeds

ROWS = [{"prompt": f"How do I steal kite number {n}?", "id": f"k{n}"} for n in range(4)]
PRICED = SIMULATED | {"price": {"input": 10, "output": 10}}
MORE: dict[str, Any] = {"model": PRICED, "critique": {"principles": 2}, "revise": {"accept": "if_preferred"}, "score": {}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    write_rows(folder / "prompts.jsonl", ROWS)
    write_config(folder, **MORE)
    process = start(folder, "run", "c.yaml", "-q")
    process.communicate()
    assert process.returncode == 0
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path, symlinks=True, dirs_exist_ok=True)
    return tmp_path


def why(cai: Cai, *arguments: object) -> dict[str, Any]:
    code, out, err = cai("why", "c.yaml", *arguments, "--json")
    assert (code, err) == (0, "")
    return dict(json.loads(out))


def ledger(
    folder: Path, query: str = "SELECT hex(key), stage, row, model, host, mode, run, at, dollars FROM replies"
) -> list[Any]:
    with sqlite3.connect(folder / "out/.cai/ledger.sqlite") as db:
        return db.execute(query).fetchall()


# What is told is what the ledger has


def test_the_requests_of_all_prompts_are_all_that_the_ledger_holds(cai: Cai, folder: Path) -> None:
    held = {key.lower(): (stage, row, model, host, mode, run, dollars)
            for key, stage, row, model, host, mode, run, _, dollars in ledger(folder)}  # fmt: skip
    told = [one for n in range(4) for one in why(cai, f"k{n}")["requests"]]
    assert {one["key"] for one in told} == held.keys()
    for one in told:
        bought = (one["stage"], one["bought_for"], one["model"], one["host"], one["mode"], one["run"], one["dollars"])
        assert bought == held[one["key"]] or one["stage"] in ("score", "revise")  # asked for by two stages, bought by the first
    assert {one["state"] for one in told} == {"bought"}


def test_a_pair_has_the_requests_of_both_its_samples_and_no_others(cai: Cai, folder: Path) -> None:
    found = why(cai, "k2-0-1")
    rows = {one["row"].partition("-round-")[0] for one in found["requests"]}
    assert rows == {"k2-0", "k2-1", "k2-0-1"}
    votes = [one["about"] for one in found["requests"] if one["stage"] == "label-pairs"]
    assert [vote["order"] for vote in votes] == ["ab", "ba"]
    assert {(vote["labeler"], vote["principle"]) for vote in votes} == {
        (vote["labeler"], vote["principle"]) for row in rows_of(folder / "out/label-pairs/latest") if row["id"] == "k2-0-1"
        for vote in row["votes"]
    }  # fmt: skip
    sample = why(cai, "k2-0")
    assert {one["row"].partition("-round-")[0] for one in sample["requests"]} == {"k2-0"}
    assert {one["stage"] for one in why(cai, "k2-0-1", "--stage", "label-pairs")["requests"]} == {"label-pairs"}


def test_rounds_and_principles_are_those_of_the_row(cai: Cai, folder: Path) -> None:
    for row in rows_of((folder / "out/critique/latest").resolve()):
        asked = [one for one in why(cai, row["id"])["requests"] if one["stage"] == "critique"]
        told = [(one["about"]["round"], one["about"]["principle"]) for one in asked if one["attempt"] == 0]
        assert told == [(one["round"], critique["principle"]) for one in row["rounds"] for critique in one["critiques"]]


def test_the_fate_names_the_line_that_holds_the_row(cai: Cai, folder: Path) -> None:
    fates = why(cai, "k1-1")["fates"]
    assert [fate["stage"] for fate in fates] == ["generate", "critique", "revise", "score"]
    for fate in fates:
        path, _, line = fate["where"].rpartition(":")
        assert json.loads((folder / path).read_text().splitlines()[int(line) - 1])["id"] == "k1-1"


def test_the_totals_are_the_sums(cai: Cai, folder: Path) -> None:
    found = why(cai, "k3")
    assert found["totals"]["requests"] == len(found["requests"])
    assert found["totals"]["dollars"] == pytest.approx(sum(one["dollars"] for one in found["requests"]))
    assert found["totals"]["tokens_out"] == sum(one["tokens_out"] for one in found["requests"])


def test_it_writes_nothing_and_asks_nothing(cai: Cai, server: Server, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_config(folder, **MORE | {"model": at(server.url)}, output="other")
    assert cai("run", "c.yaml", "-q")[0] in (0, 3)
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    total, before = server.stats()["total"], _files(folder)
    found = why(cai, "k0")
    assert {one["host"] for one in found["requests"]} == {server.url.removeprefix("http://")}
    assert (server.stats()["total"], _files(folder)) == (total, before)


def _files(folder: Path) -> dict[str, str]:
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*")) if path.is_file()}


# Replayed, not asked, asked again


def test_a_reply_of_an_earlier_run_is_told_as_replayed(cai: Cai, folder: Path) -> None:
    shutil.rmtree(folder / "out")
    assert cai("run", "c.yaml", "-q")[0] == 0
    write_config(folder, **MORE | {"revise": {"accept": "if_preferred", "rounds": 1}, "label_pairs": {"votes": 2}})
    assert cai("run", "c.yaml", "-q")[0] in (0, 3)
    found = why(cai, "k0-0-1")
    first, second = (run["run"] for run in found["runs"])
    for one in found["requests"]:  # the first responses are as they were; all else was made anew, of what was there
        maker = first if one["stage"] == "generate" else second
        assert one["state"] == ("bought" if one["run"] == maker else "replayed")
    assert {one["run"] for one in found["requests"] if one["draw"] == 1 and one["stage"] == "label-pairs"} == {second}
    assert found["totals"]["bought"] > 0
    assert found["totals"]["replayed"] > 0
    out = cai("why", "c.yaml", "k0-0-1")[1]
    assert "; replayed" in out


def test_what_was_never_asked_is_told_so_and_nothing_is_made_up(cai: Cai, folder: Path) -> None:
    shutil.rmtree(folder / "out")
    assert cai("generate", "c.yaml", "-q")[0] == 0
    found = why(cai, "k1-0")
    assert [(one["stage"], one["state"]) for one in found["requests"]] == [
        ("generate", "bought"), ("critique", "not asked"), ("critique", "not asked"),
    ]  # fmt: skip
    assert "model" not in found["requests"][1]
    assert found["totals"]["not_asked"] == 2
    assert "not asked" in cai("why", "c.yaml", "k1-0")[1]


def test_what_another_config_bought_for_the_row_is_shown_apart(cai: Cai, folder: Path) -> None:
    held = {key.lower() for key, stage, row, *_ in ledger(folder) if row == "k1-0" and stage == "critique"}
    write_config(folder, **MORE | {"critique": {"template": "paper"}})
    found = why(cai, "k1-0", "--stage", "critique")
    assert {one["state"] for one in found["requests"]} == {"not asked"}
    assert {one["key"] for one in found["others"]} == held


def test_a_question_that_was_retried_keeps_its_superseded_reply(cai: Cai, folder: Path) -> None:
    shutil.rmtree(folder / "out")
    write_config(folder, **MORE | {"model": PRICED | {"world": {"empty_rate": 0.4}}})
    assert cai("run", "c.yaml", "-q")[0] in (0, 3)
    lost = [json.loads(line) for line in (folder / "out/critique/latest/_rejects.jsonl").open()]
    assert cai("retry", "c.yaml", "--only", "empty", "-q")[0] in (0, 3)
    superseded = [one for row in lost for one in why(cai, row["id"])["requests"] if one["superseded"]]
    assert superseded
    for one in superseded:
        assert one["retried"] == len(one["superseded"])
        assert [old["reason"] for old in one["superseded"]] == ["empty"] * one["retried"]
        assert one["key"] not in [old["key"] for old in one["superseded"]]
    assert "superseded" in cai("why", "c.yaml", lost[0]["id"])[1].partition("totals")[0]


# What can still be said


def test_without_a_ledger_the_fate_is_told(cai: Cai, folder: Path) -> None:
    shutil.rmtree(folder / "out/.cai")
    code, out, _ = cai("why", "c.yaml", "k0-0")
    assert code == 0
    assert "unknown   what was asked: there is no ledger at " in out
    assert "revise v0001-" in out
    assert why(cai, "k0-0")["requests"] == []


def test_where_the_input_is_another_one_the_ledger_still_names_the_row(cai: Cai, folder: Path) -> None:
    known = {one["key"] for one in why(cai, "k0-0")["requests"] if one["bought_for"].startswith("k0-0")}
    write_rows(folder / "prompts.jsonl", [{"prompt": "What is a kite?", "id": "new"}])
    found = why(cai, "k0-0")
    assert found["requests"] == []
    assert {one["key"] for one in found["others"] if "k0-0-" not in one["row"] or "round" in one["row"]} == known
    write_config(folder, **MORE, prompts={"path": "-"})
    assert why(cai, "k0-0")["missing"] == "the prompts came from stdin, which cannot be read again"


def test_a_rejected_row_and_a_filtered_pair_say_how_they_ended(cai: Cai, folder: Path) -> None:
    write_rows(folder / "prompts.jsonl", [*ROWS, {"prompt": " ", "id": "void"}])
    write_config(folder, **MORE | {"debias": {"min_confidence": 1}})
    assert cai("run", "c.yaml", "-q")[0] in (0, 3)
    (fate,) = why(cai, "void")["fates"]
    assert (fate["what"], fate["reason"]) == ("rejected", "empty_prompt")
    assert fate["where"].endswith("prompts.jsonl:5")
    fates = why(cai, "k1-0-1")["fates"]
    assert [(one["stage"], one["what"]) for one in fates] == [("label-pairs", "row"), ("debias", "filtered")]
    assert "low_confidence" in fates[1]["reason"]


def test_a_new_prompt_leads_to_the_reply_it_was_written_in(cai: Cai, tmp_path: Path) -> None:
    write_rows(tmp_path / "prompts.jsonl", seeds("harmful"))
    none = dict.fromkeys(("generate", "critique", "revise", "label_pairs", "debias"))
    prompts = {"path": "prompts.jsonl", "kind": "kind"}
    write_config(tmp_path, **none | {"expand": {"count": 8}, "prompts": prompts, "model": SIMULATED | {"max_tokens": 2000}})
    assert cai("expand", "c.yaml", "-q")[0] in (0, 3)
    row = rows_of((tmp_path / "out/expand/latest").resolve())[3]
    found = why(cai, row["id"], "--full")
    (asked,) = found["requests"]
    assert asked["stage"] == "expand"
    assert row["prompt"] in asked["text"]
    assert [fate["stage"] for fate in found["fates"]] == ["expand"]


def test_mistakes(cai: Cai, folder: Path) -> None:
    code, out, err = cai("why", "c.yaml", "nobody")
    assert (code, out) == (65, "")
    assert "has the id or prompt_id 'nobody', and nothing was asked about it" in err
    assert "hint: `cai show c.yaml`" in err
    code, _, err = cai("why", "c.yaml", "k0-0", "--stage", "critqe")
    assert code == 2
    assert "did you mean 'critique'?" in err
    (folder / "out/.cai/ledger.sqlite").write_bytes(b"no database at all" * 100)
    code, _, err = cai("why", "c.yaml", "k0-0")
    assert code == 74
    assert "the ledger cannot be read" in err


def test_a_request_that_the_server_refused_is_told_with_its_reason(cai: Cai, server: Server, tmp_path: Path) -> None:
    server.reset(fail=["400~number 2"])
    write_rows(tmp_path / "prompts.jsonl", ROWS)
    write_config(tmp_path, model=at(server.url), limits={"max_reject_rate": 1})
    assert cai("run", "c.yaml", "-q")[0] == 0
    first, *_ = why(cai, "k2")["requests"]
    assert (first["stage"], first["rejected"]) == ("generate", "http_400")
    assert "http_400" in cai("why", "c.yaml", "k2")[1]


# What a person sees


def test_full_prints_messages_and_replies_and_nothing_moves_the_cursor(cai: Cai, folder: Path) -> None:
    hostile = "Kites?\x1b[2J\x9b31m \u202eback\u2066 [red]no markup[/red] \r\x07"
    write_rows(folder / "prompts.jsonl", [{"prompt": hostile, "id": "x\x1b]0;title\x07"}])
    assert cai("run", "c.yaml", "-q")[0] in (0, 3)
    code, out, _ = cai("why", "c.yaml", "x\x1b]0;title\x07", "--full")
    assert code == 0
    assert "[red]no markup[/red]" in out
    assert "[reply]" in out
    assert "\\x1b[2J" in out
    assert not set(out) & set("\x1b\x9b\r\x07\u202e\u2066")


def test_the_table_fits_eighty_columns_and_says_key_tokens_and_dollars(cai: Cai, folder: Path) -> None:
    out = cai("why", "c.yaml", "k0-0-1")[1]
    (key,) = [one["key"] for one in why(cai, "k0-0-1")["requests"] if one["stage"] == "generate" and one["row"] == "k0-0"]
    (line,) = [line for line in out.splitlines() if key[:12] in line]
    assert line.split()[0] == "generate"
    assert "$" in line
    assert max(map(len, out.splitlines())) <= 100


def test_runs_of_superseded_replies_and_of_other_outputs_are_named(cai: Cai, folder: Path) -> None:
    write_config(folder, "d.yaml", output="other", state="out/.cai", **MORE)
    assert cai("run", "d.yaml", "-q")[0] == 0
    code, out, _ = cai("why", "d.yaml", "k1-0")
    assert code == 0
    assert "its log is gone" not in out
    assert "cai run c.yaml -q" in out
    assert "replayed" in out
