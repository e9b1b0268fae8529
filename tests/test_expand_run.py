"""`cai expand` as its users meet it: 20 seeds to 1,000 prompts, the same bytes whatever happens, nothing bought twice."""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sqlite3
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from outside import Cai, finish, published, rows_of, start, unbalanced, write_config, write_rows
from seeds import TOPICS, seeds

from cai_cli.tables._novelty import Vocabulary, similarities

MODEL: dict[str, Any] = {"provider": "simulated", "name": "small-world", "max_tokens": 2048}
OFF = dict.fromkeys(("constitution", "generate", "critique", "revise", "label_pairs", "debias"))


def config(folder: Path, name: str = "c.yaml", world: dict[str, Any] | None = None, **sections: Any) -> Path:
    """A config that only expands; `expand` and others over its sections."""
    write_rows(folder / "seeds.jsonl", seeds("harmful"))
    model = MODEL | ({"world": world} if world else {})
    given = {"prompts": {"path": "seeds.jsonl", "kind": "kind"}, "shards": {"rows": 300}, "expand": {"count": 100}}
    return write_config(folder, name, **(OFF | {"model": model} | given | sections))


def manifest(output: Path) -> dict[str, Any]:
    return dict(json.loads((output / "expand/latest/_manifest.json").read_bytes()))


def most_alike(one: list[str], other: list[str]) -> float:
    """The highest similarity of a text with one of the others, itself not counted."""
    vocabulary = Vocabulary()
    table = similarities([vocabulary.spelled(text) for text in one], [vocabulary.spelled(text) for text in other])
    if one is other:
        table[range(len(one)), range(len(one))] = 0
    return float(table.max())


def asked(said: str) -> dict[str, Any]:
    return dict(json.loads(said)["stages"]["expand"])


def until_bought(output: Path, replies: int) -> None:
    """Wait until a running command has so many replies on disk."""
    path, deadline = output / ".cai/ledger.sqlite", time.monotonic() + 60
    while time.monotonic() < deadline:
        with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as ledger:
            if ledger.execute("SELECT count(*) FROM replies").fetchone()[0] >= replies:
                return
        time.sleep(0.005)
    raise AssertionError(f"{replies} replies did not come")


def test_twenty_seeds_become_a_thousand_prompts(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, expand={"count": 1000})
    code, out, err = cai("expand", "c.yaml", "--json")
    assert (code, "missing" in err) == (0, False), err
    rows, made = rows_of(tmp_path / "out/expand/latest"), manifest(tmp_path / "out")
    assert len(rows) == len({row["id"] for row in rows}) == made["rows"] == 1000
    assert Counter(row["topic"] for row in rows) == dict.fromkeys(TOPICS, 250)
    assert all(5 <= count <= 15 for count in Counter(row["topic"] for row in rows[:40]).values())  # for a --limit, too
    texts, given = [row["prompt"] for row in rows], [row["prompt"] for row in seeds("harmful")]
    assert most_alike(texts, texts) < 0.7
    assert most_alike(texts, given) < 0.7
    assert made["filtered"]["near_duplicate"] > 50  # there was something to remove
    assert not unbalanced(made)
    assert made["replies"] == asked(out)["requests"]
    known = {row["id"] for row in seeds("harmful")}
    assert all(set(row["seeds"]) <= known and len(row["seeds"]) == 5 for row in rows)
    # what a row says of its nearest is true: it stands before it
    before = known
    for row in rows:
        assert row["nearest"] in before or row["similarity"] == 0
        before = before | {row["id"]}


def test_its_diversity_stands_in_the_version_and_on_the_terminal(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path)
    _, out, err = cai("expand", "c.yaml", "--json")
    report = json.loads((tmp_path / "out/expand/latest/_diversity.json").read_bytes())
    rows = rows_of(tmp_path / "out/expand/latest")
    assert report == json.loads(out)["diversity"]
    assert report["similarity"] == pytest.approx(sum(row["similarity"] for row in rows) / len(rows), abs=1e-4)
    assert 0 < report["distinct_2"] < 1
    assert [(one["topic"], one["prompts"]) for one in report["strata"]] == [(topic, 25) for topic in TOPICS]
    assert all(one["drafts"] == one["prompts"] + sum(one["filtered"].values()) for one in report["strata"])
    for topic in (*TOPICS, "all"):
        assert any(topic in line and f"{report['distinct_2']:.2f}"[:2] in line for line in err.splitlines()), err


def test_again_asks_nothing_and_more_asks_for_the_rest_only(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path)
    first = asked(cai("expand", "c.yaml", "--json")[1])
    code, out, err = cai("expand", "c.yaml", "--json")
    assert (code, asked(out)["requests"]) == (0, 0)
    assert "nothing new" in err
    more = asked(cai("expand", "c.yaml", "--json", "--set", "expand.count=200")[1])
    assert more["rows"] == 200
    assert more["replayed"] >= first["requests"] - len(TOPICS)  # all but some asks of a last, other wave
    assert more["requests"] > 0
    code, out, _ = cai("expand", "c.yaml", "--json")  # back to where it was
    assert (code, asked(out)["requests"], asked(out)["rows"]) == (0, 0, 100)
    assert (tmp_path / "out/expand/latest").readlink().name.startswith("v0001-")


def test_concurrency_changes_no_byte(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, world={"latency_ms": 5})
    for concurrency in (1, 16):
        assert cai("expand", "c.yaml", "-o", f"out{concurrency}", "--concurrency", concurrency)[0] == 0
    assert published(tmp_path / "out1") == published(tmp_path / "out16")


def test_killed_in_the_middle_it_goes_on_and_ends_with_the_same_bytes(cai: Cai, tmp_path: Path) -> None:
    sections: dict[str, Any] = {"world": {"latency_ms": 40}, "expand": {"count": 400}, "limits": {"concurrency": 4}}
    config(tmp_path, **sections)
    _, calm, _ = cai("expand", "c.yaml", "-o", "calm", "--json")
    for replies in (9, 45):  # in the first wave of 40, and after it
        process = start(tmp_path, "expand", "c.yaml")
        until_bought(tmp_path / "out", replies)
        process.kill()
        assert finish(process).code == -signal.SIGKILL
        assert list((tmp_path / "out").glob("expand/v*")) == []
    code, out, _ = cai("expand", "c.yaml", "--json")
    assert code == 0
    assert published(tmp_path / "out") == published(tmp_path / "calm")
    bought = asked(out)["requests"]
    assert 0 < bought < asked(calm)["requests"]  # what had come home was not bought again
    assert bought + asked(out)["replayed"] == asked(calm)["requests"]
    assert not list((tmp_path / "out/.cai").glob("expand"))


def test_killed_while_it_publishes_it_ends_with_the_same_bytes(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path)
    assert cai("expand", "c.yaml", "-o", "calm")[0] == 0
    shutil.copytree(tmp_path / "calm/.cai", tmp_path / "out/.cai")  # all replies are there
    process = start(tmp_path, "expand", "c.yaml")
    while not any((tmp_path / "out").glob("expand/v*")):
        assert process.poll() is None
        time.sleep(0.001)
    process.kill()
    finish(process)
    code, out, _ = cai("expand", "c.yaml", "--json")
    assert (code, asked(out)["requests"]) == (0, 0)
    assert published(tmp_path / "out") == published(tmp_path / "calm")
    assert not (tmp_path / "out/.cai/expand").exists()


def test_a_signal_stops_it_resumably(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, world={"latency_ms": 60}, expand={"count": 400}, limits={"concurrency": 2})
    process = start(tmp_path, "expand", "c.yaml")
    until_bought(tmp_path / "out", 5)
    process.send_signal(signal.SIGTERM)
    stopped = finish(process)
    assert stopped.code == 75, stopped.err
    assert stopped.last.endswith("go on with: cai expand c.yaml")
    assert "/400 rows done" in stopped.last
    code, out, _ = cai("expand", "c.yaml", "--json")
    assert (code, asked(out)["rows"]) == (0, 400)


def test_a_budget_holds_over_the_waves(cai: Cai, tmp_path: Path) -> None:
    priced = MODEL | {"price": {"input": 1.0, "output": 1.0}}
    config(tmp_path, model=priced, limits={"concurrency": 1})
    _, out, _ = cai("expand", "c.yaml", "-o", "calm", "--json")
    whole = json.loads(out)["dollars"]
    code, _, err = cai("expand", "c.yaml", "--budget-usd", f"{whole:.6f}")  # the last request may cost more than is left
    assert code == 75
    assert "raise the cap" in err
    code, out, _ = cai("expand", "c.yaml", "--json", "--budget-usd", 1)
    assert (code, asked(out)["rows"]) == (0, 100)
    assert json.loads(out)["dollars"] < whole
    assert published(tmp_path / "out") == published(tmp_path / "calm")


def test_nothing_like_a_test_set_gets_in(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path)
    cai("expand", "c.yaml")
    rows = rows_of(tmp_path / "out/expand/latest")
    held_out = [row["prompt"] for row in rows[:12]]
    write_rows(tmp_path / "test.jsonl", [{"prompt": text.upper()} for text in held_out])
    code, _, err = cai("expand", "c.yaml", "--set", "expand.against=[test.jsonl]")
    assert code == 0, err
    texts = [row["prompt"] for row in rows_of(tmp_path / "out/expand/latest")]
    assert len(texts) == 100
    assert most_alike(texts, held_out) < 0.7
    assert manifest(tmp_path / "out")["filtered"]["contaminated"] >= 12
    write_rows(tmp_path / "test.jsonl", [{"prompt": "something else"}])  # another test set is another version
    cai("expand", "c.yaml", "--set", "expand.against=[test.jsonl]")
    assert manifest(tmp_path / "out")["version"].startswith("v0003-")


def test_kinds_are_mixed_by_weight(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, expand={"count": 90, "mix": {"harmful": 2, "harmless": 1}})
    write_rows(tmp_path / "both.jsonl", seeds("harmful", "harmless"))
    assert cai("expand", "c.yaml", "-i", "both.jsonl")[0] == 0
    assert Counter(row["kind"] for row in rows_of(tmp_path / "out/expand/latest")) == {"harmful": 60, "harmless": 30}


def test_what_it_makes_is_the_input_of_a_run(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, expand={"count": 20})
    cai("expand", "c.yaml")
    made = {row["id"]: row for row in rows_of(tmp_path / "out/expand/latest")}
    section = {"path": "out/expand/latest", "kind": "kind", "keep": ["topic"]}
    write_config(tmp_path, "run.yaml", **OFF | {"generate": {"samples": 1}}, output="run", prompts=section)
    assert cai("run", "run.yaml")[0] == 0
    samples = rows_of(tmp_path / "run/generate/latest")
    assert {row["prompt_id"] for row in samples} == made.keys()
    assert all(row["prompt"] == made[row["prompt_id"]]["prompt"] and row["kind"] == "harmful" for row in samples)


def test_a_stream_has_the_rows_of_the_version(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path)
    data = (tmp_path / "seeds.jsonl").read_bytes()
    code, out, _ = cai("expand", "c.yaml", "-i", "-", "-o", "-", stdin=data)
    assert code == 0
    assert not (tmp_path / "out/expand").exists()
    cai("expand", "c.yaml")
    assert [json.loads(line) for line in out.splitlines()] == rows_of(tmp_path / "out/expand/latest")


def test_limit_is_the_number_of_new_prompts(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path)
    assert cai("expand", "c.yaml", "--limit", 8)[0] == 0
    assert len(rows_of(tmp_path / "out/expand/latest")) == 8


def test_a_dry_run_counts_the_asks_and_writes_nothing(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path)
    code, out, _ = cai("expand", "c.yaml", "--dry-run", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["stages"]["expand"]["calls"] == 60  # 25 of each topic, ten in an ask: 12, and five times that at most
    assert found["assumed"]["calls"].startswith("all 60 that max_asks allows; 12 would do if every prompt were kept")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("most", "enough"), [(5, "12 would do"), (30, "12 would do")])
def test_a_dry_run_is_the_most_that_is_asked(cai: Cai, tmp_path: Path, most: int, enough: str) -> None:
    config(tmp_path, expand={"count": 100, "max_asks": most}, model=MODEL | {"price": {"input": 3.0, "output": 15.0}})
    found = json.loads(cai("expand", "c.yaml", "--dry-run", "--json")[1])
    stage = found["stages"]["expand"]
    assert (stage["calls"], stage["tokens_out_at_most"]) == (most, most * MODEL["max_tokens"])
    assert stage["dollars_at_most"] == pytest.approx((stage["tokens_in"] * 3 + stage["tokens_out_at_most"] * 15) / 1e6, rel=1e-3)
    assert enough in found["assumed"]["calls"]


def test_too_few_asks_end_with_what_there_is_and_say_so(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, expand={"count": 100, "max_asks": 4})
    code, _, err = cai("expand", "c.yaml")
    there = len(rows_of(tmp_path / "out/expand/latest"))
    assert (code, 0 < there <= 40) == (0, True)
    assert f"{100 - there} of 100 prompts are missing: 4 asks" in err
    code, _, err = cai("expand", "c.yaml")  # they still are
    assert (code, "nothing new" in err, f"{100 - there} of 100 prompts are missing" in err) == (0, True, True)


def test_a_model_that_refuses_is_not_asked_for_ever(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, world={"refusal_rate": 1.0})
    code, out, err = cai("expand", "c.yaml", "--json")
    assert (code, asked(out)["rejected"], asked(out)["rows"]) == (3, {"refused": 12}, 0), err
    assert not unbalanced(manifest(tmp_path / "out"))
    assert "100 of 100 prompts are missing" in err
    code, out, _ = cai("expand", "c.yaml", "--json")
    assert (code, json.loads(out)["unchanged"]) == (3, True)


@pytest.mark.parametrize(
    ("more", "wanted", "advice"),
    [
        ({"model": MODEL | {"max_tokens": 60}}, "100 of 100", "raise max_tokens, or ask for fewer at once: expand.per_ask"),
        ({"model": MODEL | {"world": {"refusal_rate": 1.0}}}, "100 of 100", "ask another model, or by another expand.template"),
        ({"expand": {"count": 100, "max_asks": 5, "max_chars": 8}}, "100 of 100", "raise expand.max_chars"),
        ({"expand": {"count": 100, "max_asks": 5, "similarity": 0.1}}, "of 100", "raise expand.similarity or expand.max_asks"),
        ({"expand": {"count": 100, "max_asks": 2, "similarity": 1.0}}, "of 100", "raise expand.max_asks"),
    ],
)
def test_what_is_missing_is_told_with_the_remedy_of_its_most_frequent_reason(
    cai: Cai, tmp_path: Path, more: dict[str, Any], wanted: str, advice: str
) -> None:
    config(tmp_path, **more)
    for _ in range(2):  # and when it comes back to what it made
        code, _, err = cai("expand", "c.yaml")
        (warning,) = (line for line in err.splitlines() if line.startswith("warning: "))
        assert f"{wanted} prompts are missing: " in warning
        assert warning.partition("; ")[2].startswith(advice)
        assert not unbalanced(manifest(tmp_path / "out"))
        assert (code, "more than 20% of the asks were rejected" in err) in ((3, True), (0, False))


def test_seeds_that_cannot_be_read_are_no_asks(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, expand={"count": 10})
    write_rows(tmp_path / "seeds.jsonl", [*seeds("harmful"), *({"prompt": " ", "kind": "harmful"} for _ in range(9))])
    code, _, err = cai("expand", "c.yaml")
    assert (code, "more than 20% of the seeds were rejected" in err) == (3, True)
    assert "missing" not in err
    definition = json.loads((tmp_path / "out/expand/latest/_diversity.json").read_bytes())["definitions"]["came_in"]
    assert "asks" in definition
    assert "seeds" in definition


@pytest.mark.parametrize(
    ("expand", "said"),
    [
        ({"mix": {"neutral": 1}}, "no seed is of the kind 'neutral'"),
        ({"mix": {"harmful": 0}}, "at least one weight must be above 0"),
        ({"against": ["nowhere.jsonl"]}, "expand: 'against[0]' names no file or folder: 'nowhere.jsonl'"),
        ({"similarity": 1.5}, "similarity"),
        ({"template": "generl"}, "did you mean 'general'?"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_asked(cai: Cai, tmp_path: Path, expand: dict[str, Any], said: str) -> None:
    config(tmp_path, expand=expand)
    code, _, err = cai("expand", "c.yaml")
    assert code in (2, 65)
    assert said in err
    assert not (tmp_path / "out/expand").exists()


def test_a_test_set_with_rows_that_cannot_be_read_is_told_of(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, expand={"count": 10, "against": ["test.jsonl"]})
    write_rows(tmp_path / "test.jsonl", [{"prompt": "something"}, {"text": "else"}])
    code, _, err = cai("expand", "c.yaml")
    assert code == 0
    assert "1 rows of expand.against cannot be read" in err


def test_a_run_leaves_it_out(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path)
    code, _, err = cai("run", "c.yaml")
    assert (code, "hint: try: cai expand c.yaml" in err) == (2, True)
    config(tmp_path, generate={"samples": 1})
    code, out, _ = cai("run", "c.yaml", "--json")
    assert (code, list(json.loads(out)["stages"])) == (0, ["generate"])


def test_show_tells_a_prompt_and_verify_how_to_mend_it(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, expand={"count": 10})
    cai("expand", "c.yaml")
    (path,) = (tmp_path / "out/expand/latest").glob("train-*")
    row = json.loads(path.read_bytes().splitlines()[0])
    _, said, _ = cai("show", "c.yaml", row["id"])
    assert row["prompt"] in " ".join(said.split())
    assert f"{row['nearest']}, {row['similarity']:.0%} alike" in said
    path.write_bytes(path.read_bytes() + b"\n")
    code, _, err = cai("verify", "c.yaml")
    assert code != 0
    assert "cai expand c.yaml" in err
    assert "cai run" not in err


def test_a_test_split_is_kept_apart(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, split={"test": 0.3}, shards={"rows": 40, "compression": "gzip"})
    assert cai("expand", "c.yaml")[0] == 0
    latest = tmp_path / "out/expand/latest"
    train, test = rows_of(latest, "train-*-of-*"), rows_of(latest, "test-*-of-*")
    assert (len(train) + len(test), 15 < len(test) < 45) == (100, True)
    assert {path.name[-len("of-00003.jsonl.gz") :] for path in latest.glob("*.gz")} == {"of-00003.jsonl.gz"}


def test_the_staging_of_a_run_that_stopped_is_left_alone(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, expand={"count": 10})
    staged = tmp_path / "out/.cai/staging/abc"
    staged.mkdir(parents=True)
    assert cai("expand", "c.yaml")[0] == 0
    assert staged.exists()
    shutil.rmtree(staged)
    assert cai("show", "c.yaml")[0] == cai("status", "c.yaml")[0] == cai("verify", "c.yaml")[0] == 0
