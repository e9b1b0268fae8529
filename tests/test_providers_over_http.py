"""Whole runs through the providers that speak HTTP, against the simulated world as a server: the same rows as in this process."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback import Server, serve
from outside import (
    JUST_GENERATE,
    Done,
    cai,
    files_that_hold,
    published,
    questions,
    rows_of,
    stage_bytes,
    write_config,
    write_rows,
)

PROTOCOLS = ("anthropic", "openai")
ROWS = ("generate", "critique", "revise")
KEY = f"sk-{secrets.token_hex(24)}"


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[Server, Server]]:
    with serve() as first, serve() as second:
        yield first, second


@pytest.fixture
def servers(running: tuple[Server, Server]) -> tuple[Server, Server]:
    for server in running:
        server.reset(fail=[])
    return running


def run(folder: Path, name: str, model: dict[str, Any], **sections: Any) -> Done:
    """A run of this model into a folder of its own."""
    write_rows(folder / "prompts.jsonl", questions(12))
    write_config(folder, f"{name}.yaml", output=name, model={"name": "small-world", **model}, **sections)
    done = cai(folder, "run", f"{name}.yaml", "--json", env={"OPENAI_API_KEY": KEY})
    assert done.code == 0, done.err
    return done


@pytest.mark.parametrize("provider", PROTOCOLS)
def test_the_rows_are_those_of_the_same_world_in_process(servers: tuple[Server, Server], tmp_path: Path, provider: str) -> None:
    sections: dict[str, Any] = {"generate": {"samples": 1}, "label_pairs": None, "debias": None}
    run(tmp_path, "here", {"provider": "simulated"}, **sections)
    run(tmp_path, "there", {"provider": provider, "base_url": servers[0].url}, **sections)
    for stage in ROWS:
        assert stage_bytes(tmp_path / "there", stage) == stage_bytes(tmp_path / "here", stage), stage


@pytest.mark.parametrize("provider", PROTOCOLS)
def test_a_fleet_with_a_server_that_fails_gives_the_same_rows(
    servers: tuple[Server, Server], tmp_path: Path, provider: str
) -> None:
    good, bad = servers
    bad.reset(fail=["503@1-"])
    alone = run(tmp_path, "alone", {"provider": provider, "base_url": good.url})
    both = run(tmp_path, "both", {"provider": provider, "base_url": [bad.url, good.url]})
    assert published(tmp_path / "both").keys() == published(tmp_path / "alone").keys()
    for stage in ROWS:
        assert stage_bytes(tmp_path / "both", stage) == stage_bytes(tmp_path / "alone", stage), stage
    assert both.asked == alone.asked
    assert bad.stats()["total"] > 0
    assert good.stats()["total"] >= 2 * alone.asked


def test_votes_over_chat_completions_have_the_judges_own_probability(servers: tuple[Server, Server], tmp_path: Path) -> None:
    model = {"provider": "openai", "base_url": servers[0].url}
    pairs: dict[str, Any] = {"generate": {"systems": ["Be brief.", None], "samples": 1}, "critique": None, "revise": None}
    run(tmp_path, "told", model, **pairs)
    run(tmp_path, "known", {"provider": "simulated", "world": {"logprobs": True}}, **pairs)
    told, known = votes(tmp_path / "told"), votes(tmp_path / "known")
    assert {vote["basis"] for vote in told} == {"logprobs"}
    assert len({vote["p_a"] for vote in told}) > 3
    # What was read out of tokens is what the world knew.
    assert [vote["p_a"] for vote in told] == pytest.approx([vote["p_a"] for vote in known], abs=1e-6)
    run(tmp_path, "untold", {**model, "logprobs": False}, **pairs)
    assert {vote["basis"] for vote in votes(tmp_path / "untold")} == {"stated"}


def votes(output: Path) -> list[dict[str, Any]]:
    return [vote for pair in rows_of(output / "label-pairs" / "latest") for vote in pair["votes"]]


def test_scores_over_chat_completions_are_expectations(servers: tuple[Server, Server], tmp_path: Path) -> None:
    sections: dict[str, Any] = dict.fromkeys(("critique", "revise", "label_pairs", "debias"))
    scores = {}
    for name, model in {"told": {"provider": "openai", "base_url": servers[0].url},
                        "known": {"provider": "simulated", "world": {"logprobs": True}}}.items():  # fmt: skip
        run(tmp_path, name, model, generate={"samples": 1}, score={}, **sections)
        done = cai(tmp_path, "score", f"{name}.yaml", "--json", env={"OPENAI_API_KEY": KEY})
        assert done.code == 0, done.err
        rows = rows_of(tmp_path / name / "score" / "latest")
        scores[name] = [score["score"] for row in rows for score in row["scores"]]
    assert any(score != round(score) for score in scores["told"])
    assert scores["told"] == pytest.approx(scores["known"], abs=0.05)


@pytest.mark.parametrize(("fail", "code"), [("", 0), ("401@3-", 77), ("400@1-", 3), ("cut@2-5", 0)])
def test_the_key_goes_to_its_server_and_nowhere_else(
    servers: tuple[Server, Server], tmp_path: Path, fail: str, code: int
) -> None:
    servers[0].reset(fail=[fail] if fail else [])
    write_rows(tmp_path / "prompts.jsonl", questions(6))
    write_config(tmp_path, model={"provider": "openai", "base_url": servers[0].url, "name": "small-world"}, **JUST_GENERATE)
    done = cai(tmp_path, "run", "c.yaml", "-v", env={"OPENAI_API_KEY": KEY})
    assert done.code == code, done.err
    assert servers[0].stats()["keys"] == [hashlib.sha256(f"Bearer {KEY}".encode()).hexdigest()]
    assert KEY not in done.out + done.err
    assert files_that_hold(KEY, tmp_path) == []


def test_what_chat_completions_have_no_place_for_stops_the_run_before_it_asks(
    servers: tuple[Server, Server], tmp_path: Path
) -> None:
    write_rows(tmp_path / "prompts.jsonl", questions(3))
    thinking = {"provider": "openai", "base_url": servers[0].url, "name": "small-world", "thinking": {"type": "adaptive"}}
    write_config(tmp_path, model=thinking)
    done = cai(tmp_path, "run", "c.yaml")
    assert (done.code, "model.thinking" in done.err, servers[0].stats()["total"]) == (2, True, 0), done.err
