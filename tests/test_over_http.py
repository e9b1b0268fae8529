"""A provider that fails in every way it can: what is waited for, what rejects one row, what stops the run, and what it costs."""

from __future__ import annotations

import hashlib
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from loopback import Server
from outside import JUST_GENERATE, Done, at, cai, manifests, published, questions, rows_of, unbalanced, write_config, write_rows

PROMPTS = 40
LIMIT = 130  # tokens: some responses of this world are longer, some are not


@pytest.fixture
def folder(server: Server, tmp_path: Path) -> Path:
    write_rows(tmp_path / "prompts.jsonl", questions(PROMPTS))
    configure(tmp_path, server)
    return tmp_path


def configure(folder: Path, server: Server, stages: dict[str, Any] | None = None, **model: Any) -> None:
    # One sample: its body is the row's own, so a request that is counted tells which row it was for.
    sections = JUST_GENERATE if stages is None else stages
    write_config(folder, model=at(server.url, **model), **{"generate": {"samples": 1}, **sections})


def run(folder: Path, *arguments: object) -> Done:
    return cai(folder, "run", "c.yaml", "--json", *arguments)


def refused(folder: Path, server: Server, code: int) -> str:
    """What a run says that must stop with this code, reject nothing and publish nothing; mended, the same command goes whole."""
    stopped = run(folder)
    assert stopped.code == code, stopped.err
    assert "Traceback" not in stopped.err
    assert list((folder / "out").glob("*/v*")) == []
    server.reset(fail=[])
    whole = run(folder)
    assert whole.code == 0, whole.err
    generated = manifests(folder / "out")["generate"]
    assert (generated["rows"], generated["rejected"]) == (PROMPTS, {})
    return stopped.err


# What is waited for

PASSING = {
    "429 with retry-after": "429:1@5-8",
    "429 without": "429:@5-6",
    "overloaded": "529@5-9",
    "server errors": "500%0.1",
    "cut connections": "cut@5-7",
    "closed connections": "reset@5-7",
    "half a JSON": "json@5",
    "a web page": "html@5",
    "an error body with 200": "body@5",
    "nothing, once for each": "empty^1",
}


@pytest.fixture(scope="module")
def calm(running: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The files of a run without trouble."""
    folder = tmp_path_factory.mktemp("calm")
    write_rows(folder / "prompts.jsonl", questions(PROMPTS))
    running.reset(fail=[])
    configure(folder, running)
    assert run(folder).code == 0
    return published(folder / "out")


def test_trouble_that_passes_changes_no_byte(calm: dict[str, str], server: Server, folder: Path) -> None:
    server.reset(fail=[fail for name, fail in PASSING.items() if "nothing" not in name and "429" not in name])
    done = run(folder, "--concurrency", 8)
    assert done.code == 0, done.err
    assert published(folder / "out") == calm
    statuses = server.stats()["statuses"]
    assert statuses["500"] > 0
    assert done.stages["generate"]["retries"] >= 8
    assert done.asked == PROMPTS


@pytest.mark.parametrize("name", ["429 with retry-after", "429 without", "nothing, once for each"])
def test_a_wait_changes_no_row(calm: dict[str, str], server: Server, folder: Path, name: str) -> None:
    server.reset(fail=[PASSING[name]])
    done = run(folder)
    assert done.code == 0, done.err
    shards = {path: digest for path, digest in published(folder / "out").items() if "-of-" in path}
    assert shards == {path: digest for path, digest in calm.items() if "-of-" in path}


# What rejects a row


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_row_that_is_refused_is_rejected_with_the_servers_words_and_not_asked_again(
    server: Server, folder: Path, status: int
) -> None:
    server.reset(fail=[f"{status}~number 7?"])
    done = run(folder)
    assert (done.code, done.stages["generate"]["rejected"]) == (0, {f"http_{status}": 1})
    (reject,) = rows_of(folder / "out/generate/latest", "_rejects.jsonl")
    assert "invalid request error" in reject["detail"] or "too large" in reject["detail"]
    assert "number 7?" in reject["row"]
    assert not unbalanced(manifests(folder / "out")["generate"])
    before = server.stats()["total"]
    assert run(folder).code == 0
    write_rows(folder / "prompts.jsonl", questions(PROMPTS + 1))
    assert run(folder).asked == 1
    assert server.stats()["total"] == before + 1


def test_a_reply_that_can_never_be_read_is_a_protocol_error(server: Server, folder: Path) -> None:
    server.reset(fail=["json~number 7?"])
    done = run(folder)
    assert (done.code, done.stages["generate"]["rejected"]) == (0, {"protocol_error": 1})
    assert server.stats()["total"] == PROMPTS + 2


def test_replies_without_text_reject_their_rows(server: Server, folder: Path) -> None:
    server.reset(fail=["empty~number 7?"])
    assert run(folder).stages["generate"]["rejected"] == {"empty": 1}


# What stops the run


def test_a_refusal_of_every_row_stops_and_rejects_none(server: Server, folder: Path) -> None:
    server.reset(fail=["400@1-"])
    said = refused(folder, server, 75)
    assert "400 invalid_request_error" in said
    assert "go on with: cai run c.yaml" in said


def test_a_refusal_that_begins_midway_takes_its_rejects_back(server: Server, folder: Path) -> None:
    server.reset(fail=["400@15-"])
    refused(folder, server, 75)
    assert server.stats()["total"] == PROMPTS - 14  # what had come home was not asked again


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_named_by_its_last_four_characters(server: Server, folder: Path, canary: str, status: int) -> None:
    server.reset(fail=[f"{status}@1-"])
    said = refused(folder, server, 77)
    assert f"ends in {canary[-4:]}, from ANTHROPIC_API_KEY" in said
    assert canary not in said
    assert "127.0.0.1" in said


def test_an_unknown_model_is_named_with_what_the_server_offers(server: Server, folder: Path) -> None:
    server.reset(fail=["404@1-"])
    stopped = run(folder)
    assert stopped.code != 0
    assert "small-world" in stopped.err
    assert "simulated" in stopped.err
    assert list((folder / "out").glob("*/v*")) == []


@pytest.mark.parametrize("fail", ["spend@5-", "spend:429@5-"])
def test_a_spend_limit_stops_at_once(server: Server, folder: Path, fail: str) -> None:
    server.reset(fail=[fail])
    stopped = run(folder, "--concurrency", 4)
    assert stopped.code == 75
    assert "spend" in stopped.err
    assert server.stats()["total"] <= 4 + 4
    server.reset(fail=[])
    whole = run(folder)
    assert (whole.code, whole.stages["generate"]["rows"]) == (0, PROMPTS)


def test_a_redirect_is_not_followed_with_the_key(server: Server, folder: Path) -> None:
    server.reset(fail=["redirect@1-"])
    assert "redirects" in refused(folder, server, 69)


# What is a result


def test_refusals_are_rows_that_later_stages_pass_over(server: Server, folder: Path) -> None:
    server.reset(world={"refusal_rate": 0.3})
    configure(folder, server, stages={})
    done = run(folder)
    assert done.code == 0, done.err
    rows = rows_of(folder / "out/generate/latest")
    silent = [row["id"] for row in rows if row["refused"]]
    assert 4 <= len(silent) <= 25
    assert {(row["response"], row["stop_reason"]) for row in rows if row["refused"]} == {("", "refusal")}
    assert {row["stopped_by"] for row in rows_of(folder / "out/revise/latest") if row["id"] in silent} == {"refused"}
    assert [name for name, manifest in manifests(folder / "out").items() if unbalanced(manifest)] == []


def test_responses_that_were_cut_off_say_so(server: Server, folder: Path) -> None:
    configure(folder, server, max_tokens=LIMIT)
    assert run(folder).code == 0
    rows = rows_of(folder / "out/generate/latest")
    assert {row["truncated"] for row in rows} == {True, False}
    assert all(row["truncated"] == (row["stop_reason"] == "max_tokens") == (row["tokens_out"] >= LIMIT) for row in rows)
    configure(folder, server, max_tokens=LIMIT, retry_truncated=True)
    whole = run(folder)
    assert whole.code == 0
    assert whole.asked == sum(row["truncated"] for row in rows)  # once more with twice the tokens: another question, bought once


# What it costs

PRICE = {"input": 1000.0, "output": 2000.0}  # dollars per million tokens


def spent(folder: Path) -> float:
    """What the ledger says was paid for the output, over all runs."""
    with sqlite3.connect(folder / "out/.cai/ledger.sqlite") as ledger:
        (dollars,) = ledger.execute("SELECT sum(dollars) FROM replies").fetchone()
    return float(dollars or 0)


def test_a_budget_holds_over_runs_and_a_larger_one_goes_on(server: Server, folder: Path) -> None:
    configure(folder, server, price=PRICE, max_tokens=300)
    price = 0.0
    for cap in (3.0, 3.0, 5.0):
        stopped = run(folder, "--budget-usd", cap)
        assert stopped.code == 75, stopped.err
        assert "budget" in stopped.err
        assert "--budget-usd" in stopped.err
        assert list((folder / "out").glob("*/v*")) == []
        price = spent(folder)
        assert cap - 0.75 < price <= cap  # a request may cost .744 and is not sent unless it fits
    whole = run(folder)
    assert whole.code == 0
    assert whole.stages["generate"]["rows"] == PROMPTS
    assert spent(folder) == pytest.approx(price + json_dollars(whole))
    assert server.stats()["repeated_ok"] == 0


def json_dollars(done: Done) -> float:
    return float(sum(stage["dollars"] for stage in done.stages.values()))


def test_a_budget_without_a_known_price_is_refused_before_anything_is_asked(server: Server, folder: Path) -> None:
    stopped = run(folder, "--budget-usd", 1)
    assert stopped.code == 2
    assert "model.price" in stopped.err
    assert server.stats()["total"] == 0


def test_the_key_that_was_sent_is_the_one_of_the_environment(server: Server, folder: Path, canary: str) -> None:
    assert run(folder).code == 0
    assert server.stats()["keys"] == [hashlib.sha256(f"Bearer {canary}".encode()).hexdigest()]
