"""What `cai estimate` says is what a run then costs; it asks nothing, or a sample that the run finds again."""

from __future__ import annotations

import json
import math
import statistics
import sys
from pathlib import Path
from typing import Any

import pytest
from loopback import Server
from outside import JUST_GENERATE, SIMULATED, Cai, at, questions, write_config, write_rows
from seeds import seeds

from cai_cli import config as configs
from cai_cli.engine.estimate.anatomy import PARTS
from cai_cli.engine.run import Options, held
from cai_cli.errors import Exit
from cai_cli.flow import Model, Request
from cai_cli.providers._world import World
from cai_cli.providers.simulated import reply_to, tokens
from cai_cli.records import Turn

sys.path.append(str(Path(__file__).parent / "benchmarks"))
import estimates as bench

PRICE = {"input": 3, "output": 15}
PROMPTS = 36
NOTHING_ELSE = {name: None for name in JUST_GENERATE if name != "generate"}
WORLD = {"reply_length": 2, "harm": 0.4, "reply_spread": 0.3}


def config(folder: Path, count: int = PROMPTS, world: dict[str, Any] = WORLD, **sections: Any) -> Path:
    write_rows(folder / "prompts.jsonl", questions(count))
    model = {**SIMULATED, "price": PRICE, "world": world, "max_tokens": 2048}
    return write_config(folder, **{"model": model, **sections})


def estimated(cai: Cai, *words: object) -> dict[str, Any]:
    code, out, err = cai("estimate", "c.yaml", "--json", "-q", *words)
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def ran(cai: Cai, *words: object) -> dict[str, Any]:
    code, out, err = cai("run", "c.yaml", "--json", "-q", *words)
    assert code == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def intervals(document: Any) -> list[dict[str, float]]:
    """Every estimated number in a document."""
    if not isinstance(document, dict):
        return [one for item in document for one in intervals(item)] if isinstance(document, list) else []
    if {"value", "low", "high"} <= document.keys():
        return [document]
    return [one for item in document.values() for one in intervals(item)]


# Against what a run costs.


def test_a_sample_tells_what_the_run_then_costs_and_is_paid_for_once(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path)
    found = estimated(cai, "--sample", 20)
    run = ran(cai)
    spent = found["sample"]["dollars"] + run["dollars"]
    assert found["all"]["dollars"]["value"] == pytest.approx(spent, rel=0.1)
    assert found["all"]["dollars"]["low"] <= spent <= found["all"]["dollars"]["high"]
    assert found["all"]["dollars_bought"]["value"] == pytest.approx(found["sample"]["dollars"])
    assert found["sample"]["requests"] == sum(one["replayed"] for one in run["stages"].values())
    asked = found["sample"]["requests"] + sum(one["requests"] for one in run["stages"].values())
    assert found["all"]["calls"]["value"] == pytest.approx(asked, rel=0.1)


def test_a_sample_stands_for_itself_where_not_all_prompts_are_played(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, 700, generate={"samples": 1}, **NOTHING_ELSE)
    found = estimated(cai, "--sample", 20)
    assert found["prompts_played"] == 520 < found["prompts"] == 700
    assert found["all"]["dollars_bought"]["value"] == pytest.approx(found["sample"]["dollars"])
    assert found["all"]["calls"] == {"value": 700, "low": 700, "high": 700}


def test_what_is_paid_for_is_told_to_the_cent_and_nothing_is_to_come(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, 12)
    run = ran(cai)
    found = estimated(cai)
    for name, stage in run["stages"].items():
        assert found["stages"][name]["calls"] == {"value": stage["requests"], "low": stage["requests"], "high": stage["requests"]}
    every = found["all"]
    assert every["dollars"]["value"] == pytest.approx(run["dollars"])
    assert every["dollars"]["low"] == every["dollars"]["high"] == every["dollars"]["value"]
    assert (every["dollars_to_come"]["value"], found["prompts_paid"], found["hours"]["value"]) == (0, 12, 0)


def test_rows_of_an_earlier_run_tell_of_new_ones(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path)
    first = ran(cai, "--limit", 18)
    found = estimated(cai)
    assert found["all"]["dollars_bought"]["value"] == pytest.approx(first["dollars"])
    rest = ran(cai)["dollars"]
    assert found["all"]["dollars_to_come"]["value"] == pytest.approx(rest, rel=0.2)
    assert found["prompts_paid"] == 18


def test_a_stage_that_is_new_is_assumed_where_the_others_are_known(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, 20, label_pairs=None, debias=None)
    ran(cai)
    config(tmp_path, 20)
    found = estimated(cai)
    assert [name for name, one in found["stages"].items() if one["prompts_paid"] == 20] == ["generate", "critique", "revise"]
    labels = found["stages"]["label-pairs"]
    assert labels["dollars_bought"]["value"] == 0 < labels["dollars"]["low"] < labels["dollars"]["value"]


def test_without_a_sample_the_interval_is_wide_and_holds_the_truth(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, 20, world={"reply_length": 3})
    found = estimated(cai)["all"]["dollars"]
    assert found["low"] < ran(cai)["dollars"] < found["high"]
    assert found["high"] / found["low"] > 3


def test_the_longest_replies_that_are_assumed_are_whole_ones(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, 20, model=at("http://127.0.0.1:9", max_tokens=512) | {"name": "claude-sonnet-5"})
    stages = estimated(cai)["stages"]
    for name in ("critique", "label-pairs"):
        assert stages[name]["rows"]["low"] > 0.9 * stages[name]["rows"]["value"], "a reply that is cut off would end its row"
        assert stages[name]["tokens"]["reply"]["high"] > 1.5 * stages[name]["tokens"]["reply"]["value"]


def test_the_interval_covers_over_seeds(tmp_path: Path) -> None:
    """The benchmark, small: the world that the guess knows least of."""
    population = bench.populate(bench.job(tmp_path, 60), bench.CASES[-1])
    found = bench.score(population, 40, 20)
    assert abs(found.errors.mean()) < 0.05
    assert (found.errors**2).mean() < 0.15**2
    assert found.covered >= 0.8


# What it does not do.


def test_it_asks_nothing_and_leaves_nothing_behind(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, 6)
    found = estimated(cai)
    assert found["sample"] is None
    assert sorted(path.name for path in tmp_path.iterdir()) == ["c.yaml", "prompts.jsonl"]


def test_a_sample_keeps_the_cap_and_can_be_gone_on_with(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path)
    code, out, err = cai("estimate", "c.yaml", "--sample", 9, "--budget-usd", 0.12, "--json")
    assert (code, json.loads(out)["exit"]) == (75, 75)
    assert "sampled prompts done" in err
    assert err.rstrip().endswith("raise the cap, then go on with: cai estimate c.yaml --sample 9 --json")
    found = estimated(cai, "--sample", 9, "--budget-usd", 5)
    assert found["sample"]["replayed"] > 0
    assert found["budget"]["usd"] == 5
    assert found["budget"]["gone_usd"] > found["sample"]["dollars"], "what the first call spent is gone, too"


def test_a_sample_asks_for_no_labels_that_a_pilot_decides_on(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, 100, critique=None, revise=None, label_pairs={"adaptive": True}, debias=None)
    found = estimated(cai, "--sample", 10)
    assert found["sample"]["requests"] == 20
    assert found["stages"]["generate"]["prompts_paid"] == 10
    assert found["stages"]["label-pairs"]["prompts_paid"] == 0
    assert "no pilot was asked yet" in found["assumed"]["labels"]


def test_input_that_can_be_read_once_is_refused(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, 3)
    code, _, err = cai("estimate", "c.yaml", "-i", "-", stdin=b"{}")
    assert (code, "stdin can be read only once" in err) == (2, True)
    config(tmp_path, 3, **dict.fromkeys(("generate", "critique", "revise", "label_pairs", "debias")))
    code, _, err = cai("estimate", "c.yaml")
    assert (code, "no stage section" in err) == (2, True)


def test_an_expansion_is_told_from_what_would_do_to_what_is_allowed(cai: Cai, tmp_path: Path) -> None:
    write_rows(tmp_path / "prompts.jsonl", seeds("harmful"))
    stages = dict.fromkeys(("generate", "critique", "revise", "label_pairs", "debias"))
    model = {**SIMULATED, "price": PRICE}
    write_config(tmp_path, model=model, prompts={"path": "prompts.jsonl", "kind": "kind"}, expand={"count": 40}, **stages)
    found = estimated(cai)
    code, out, _ = cai("expand", "c.yaml", "--dry-run", "--json")
    most = json.loads(out)["stages"]["expand"]["calls"]
    calls = found["stages"]["expand"]["calls"]
    assert calls["value"] == calls["low"] < calls["high"] == most
    code, _, err = cai("estimate", "c.yaml", "--sample", 3)
    assert (code, "takes no sample" in err) == (2, True)


# What it tells.


def test_tokens_are_told_by_what_they_are_and_every_number_has_an_interval(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, 10, generate={"samples": 2, "systems": ["Be brief."]}, critique={"exemplars": 2})
    found = estimated(cai)
    for name, stage in found["stages"].items():
        parts = stage["tokens"]
        assert sum(parts[part]["value"] for part in PARTS) == pytest.approx(parts["in"]["value"], abs=3), name
    generate, critique = found["stages"]["generate"]["tokens"], found["stages"]["critique"]["tokens"]
    assert generate["system"]["value"] == pytest.approx(20 * tokens("Be brief."), rel=0.3)
    assert generate["template"]["value"] == generate["constitution"]["value"] == 0 < generate["data"]["value"]
    assert min(critique[part]["value"] for part in ("constitution", "exemplars", "template", "data", "reply")) > 0
    every = intervals(found)
    assert len(every) > 40
    assert [one for one in every if not one["low"] <= one["value"] <= one["high"]] == []


def test_an_unknown_model_is_named_and_never_free(cai: Cai, tmp_path: Path) -> None:
    mystery = {"provider": "anthropic", "name": "mystery", "max_tokens": 100}
    config(tmp_path, 5, label_pairs={"model": mystery})
    found = estimated(cai)
    assert found["unpriced"] == ["mystery"]
    assert found["stages"]["label-pairs"]["dollars"] is found["all"]["dollars"] is None
    assert found["stages"]["label-pairs"]["tokens"]["in"]["value"] > 0
    assert found["stages"]["generate"]["dollars"]["value"] > 0
    assert found["labels"]["ways"][0]["dollars"] is None
    code, out, _ = cai("estimate", "c.yaml", "--budget-usd", 1)
    assert code == 0
    assert "unknown for 'mystery'" in out
    assert "$1.00 cannot be kept without all prices: the run would be refused" in " ".join(out.split())


def test_what_an_unknown_model_was_paid_is_never_told_as_nothing(cai: Cai, tmp_path: Path, server: Server) -> None:
    config(tmp_path, 6, model=at(server.url, name="mystery"), generate={"samples": 1}, **NOTHING_ELSE)
    code, out, err = cai("estimate", "c.yaml", "--json", "--sample", 3)
    assert (code, json.loads(out)["sample"]["dollars"], "3 requests bought for $?," in err) == (0, None, True)
    run = ran(cai)
    assert (run["dollars"], run["unpriced"]) == (None, ["mystery"])
    _, out, _ = cai("status", "c.yaml")
    assert "$? settled over all runs" in out


def test_caching_that_was_switched_off_since_is_not_in_what_is_to_come(cai: Cai, tmp_path: Path, server: Server) -> None:
    system = "You answer at length, and with care. " * 300
    model = at(server.url, max_tokens=256) | {"name": "claude-sonnet-5"}
    config(tmp_path, 20, model=model, generate={"samples": 2, "systems": [system]}, **NOTHING_ELSE)
    cached = estimated(cai, "--sample", 10)["stages"]["generate"]
    found = estimated(cai, "--set", "model.prompt_caching=off")["stages"]["generate"]
    assert found["dollars_bought"] == cached["dollars_bought"]
    assert cached["dollars_to_come"]["value"] < found["dollars_to_come"]["value"] / 2
    assert found["dollars_to_come"]["value"] == pytest.approx(found["dollars_without_caching"]["value"] / 2, rel=0.1)


def test_a_sample_waits_for_a_run_or_skips_as_it_is_told(cai: Cai, tmp_path: Path) -> None:
    path = config(tmp_path, 5, **JUST_GENERATE)
    with held(configs.load(path), Options(command="cai run other.yaml")):
        assert cai("estimate", "c.yaml", "--sample", 2)[0] == Exit.STOPPED
        code, out, err = cai("estimate", "c.yaml", "--sample", 2, "--if-locked", "skip")
    assert (code, out, err.startswith("cai: skipped: this output is held by ")) == (0, "", True)


def test_batches_and_caches_have_a_price_of_their_own(cai: Cai, tmp_path: Path) -> None:
    system = "You answer at length, and with care. " * 300
    model = at("http://127.0.0.1:9", max_tokens=256) | {"name": "claude-sonnet-5"}
    config(tmp_path, 20, model=model, generate={"samples": 2, "systems": [system]}, **NOTHING_ELSE)
    found = estimated(cai)["stages"]["generate"]
    assert found["dollars_batch"]["value"] == pytest.approx(found["dollars_without_caching"]["value"] / 2, rel=0.01)
    assert found["dollars"]["value"] < 0.4 * found["dollars_without_caching"]["value"]
    _, out, _ = cai("estimate", "c.yaml", "--json", "--set", "model.prompt_caching=off")
    found = json.loads(out)["stages"]["generate"]
    assert found["dollars"] == found["dollars_without_caching"]


def test_a_cap_covers_a_share_of_it(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, 10, **JUST_GENERATE)
    found = estimated(cai)
    dollars = found["all"]["dollars"]
    assert found["budget"] is None
    half = estimated(cai, "--budget-usd", dollars["value"] / 2)["budget"]["covers"]
    assert half["value"] == pytest.approx(0.5, abs=0.01)
    assert half["low"] < half["value"] < half["high"]
    _, out, _ = cai("estimate", "c.yaml", "--budget-usd", dollars["value"] / 2)
    assert "covers about 50% of it" in out
    _, out, _ = cai("estimate", "c.yaml", "--budget-usd", 2 * dollars["high"])
    assert "covers all of it" in out
    _, out, _ = cai("estimate", "c.yaml", "--budget-usd", (dollars["value"] + dollars["high"]) / 2)
    assert "may not cover all of it" in out


def test_the_limit_that_binds_says_how_long_it_takes(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, 20, **JUST_GENERATE)
    found = estimated(cai, "--set", "limits.requests_per_minute=10")
    assert (found["hours"]["bound_by"], found["hours"]["server"]) == ("requests_per_minute", "simulated")
    assert found["hours"]["value"] == pytest.approx(found["all"]["calls"]["value"] / 600, abs=0.001)
    slow = {**WORLD, "latency_ms": 6000}
    config(tmp_path, 20, world=slow, limits={"concurrency": 4}, **JUST_GENERATE)
    found = estimated(cai)
    assert found["hours"]["bound_by"] == "concurrency"
    assert found["hours"]["value"] == pytest.approx(found["all"]["calls"]["value"] * 6 / 4 / 3600, rel=0.01)


def test_people_cost_what_their_rates_say(cai: Cai, tmp_path: Path) -> None:
    rates = {"crowd_usd_per_hour": 10, "crowd_labels_per_hour": 20, "expert_usd_per_hour": 50, "expert_labels_per_hour": 10}
    config(tmp_path, 8, critique=None, revise=None, estimate={**rates, "verified": 0.1, "labels_per_item": 3})
    found = estimated(cai)["labels"]
    ai, crowd_checks, _, crowd, experts = found["ways"]
    pairs = found["pairs"]["value"]
    assert crowd["dollars_per_label"]["value"] == pytest.approx(1.5)
    assert experts["dollars"]["value"] == pytest.approx(pairs * 15)
    assert crowd["hours"]["value"] == pytest.approx(pairs * 3 / 20)
    assert crowd_checks["dollars"]["value"] == pytest.approx(ai["dollars"]["value"] + 0.1 * crowd["dollars"]["value"])
    config(tmp_path, 8, **JUST_GENERATE)
    assert estimated(cai)["labels"] is None


def test_probes_are_counted_as_often_as_they_are_asked(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, 30, critique=None, revise=None, debias={"probes": {"length": 10}})
    found = estimated(cai)
    run = ran(cai)
    assert found["stages"]["debias"]["calls"]["value"] == run["stages"]["debias"]["requests"] == 20
    assert estimated(cai)["stages"]["debias"]["dollars"]["value"] == pytest.approx(run["stages"]["debias"]["dollars"])


def test_eighty_columns_get_whole_lines(cai: Cai, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config(tmp_path, 10)
    monkeypatch.setenv("COLUMNS", "80")
    code, out, err = cai("estimate", "c.yaml", "--sample", 5)
    assert code == 0
    assert "cai: 5 prompts sampled: " in err
    assert max(map(len, out.splitlines())) <= 80
    for word in ("stage", "tokens", "labels by", "hours", "5 of them from the ledger"):
        assert word in out


# The world's own settings.


@pytest.mark.parametrize(("factor", "spread"), [(3.0, 0.0), (0.5, 0.0), (1.0, 0.5)])
def test_a_world_says_how_long_its_replies_are(factor: float, spread: float) -> None:
    world = World(reply_length=factor, reply_spread=spread)
    model = Model(provider="simulated", name="w", params={"max_tokens": 9999})
    asked = [Request(model=model, messages=(Turn(role="user", content=f"What of bridge {n}?"),)) for n in range(150)]
    usual, found = ([reply_to(one, which).tokens_out for one in asked] for which in (World(), world))
    grown = factor * math.exp(spread**2 / 2)
    assert sum(found) / sum(usual) == pytest.approx(grown, rel=0.15)
    logs = [math.log(one / other) for one, other in zip(found, usual, strict=True)]
    assert abs(statistics.stdev(logs) - spread) < 0.15
