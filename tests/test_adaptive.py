"""Fewer calls at the same accuracy: what a pilot decides, what it leads to, and that nothing but data decides it."""

from __future__ import annotations

import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loopback import Server
from outside import Cai, at, cai, finish, manifests, published, questions, rows_of, start, write_config, write_rows

from cai_cli import votes
from cai_cli.flow import play
from cai_cli.records import Order, Vote
from cai_cli.stages import _adaptive, label_pairs
from cai_cli.stages._adaptive import NEVER, Cut, Plan

sys.path.append(str(Path(__file__).parent / "benchmarks"))
import adaptive as bench
from judge_world import Judge

ROOT = Path(__file__).parent.parent
PROMPTS = 260
WORLD = {"logprobs": True}
ADAPTIVE: dict[str, Any] = {"principles": 0, "adaptive": True}


def config(folder: Path, world: dict[str, Any] = WORLD, count: int = PROMPTS, **sections: Any) -> Path:
    write_rows(folder / "prompts.jsonl", questions(count))
    model = {"provider": "simulated", "name": "small-world", "world": world}
    given: dict[str, Any] = {"label_pairs": ADAPTIVE, "critique": None, "revise": None, "debias": None, "shards": {"rows": 40}}
    return write_config(folder, **{"model": model, **given, **sections})


def pilot_in(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "label-pairs" / "latest" / "_pilot.json").read_bytes())
    return found


def stages(out: str) -> dict[str, Any]:
    return dict(json.loads(out)["stages"])


# A labeler by itself.


def soft(order: Order, p_a: float, draw: int = 0) -> Vote:
    return Vote(labeler="m", order=order, draw=draw, verdict="a" if p_a > 0.5 else "b", p_a=p_a, basis="logprobs")


def bare(order: Order, verdict: str, draw: int = 0) -> Vote:
    p_a = {"a": 1.0, "b": 0.0, "tie": 0.5}.get(verdict)
    return Vote(labeler="m", order=order, draw=draw, verdict=verdict, p_a=p_a, basis="verdict" if p_a is not None else "")


def asking(answer: Callable[[Order, int], Vote], asked: list[tuple[Order, int]]) -> _adaptive.Ask:
    def ask(orders: Sequence[Order], draw: int) -> Any:
        yield from ()
        asked.extend((order, draw) for order in orders)
        return [answer(order, draw) for order in orders]

    return ask


def asked_of(answer: Callable[[Order, int], Vote], plan: Plan = Plan(), first: Order = "ab") -> list[tuple[Order, int]]:
    asked: list[tuple[Order, int]] = []
    play(_adaptive.opinion(asking(answer, asked), first, plan), ())
    return asked


def test_a_sure_answer_is_the_only_one_and_an_unsure_one_is_checked_in_the_other_order() -> None:
    plan = Plan(one_call=True, bias=0.5, unsure_below=0.5)
    assert asked_of(lambda order, draw: soft(order, 0.9), plan) == [("ab", 0)]
    assert asked_of(lambda order, draw: soft(order, 0.9), plan, "ba") == [("ba", 0)]
    # log-odds of .6 are .41: without the bias of the first slot -.09, of the second .91
    assert asked_of(lambda order, draw: soft(order, 0.6), plan) == [("ab", 0), ("ba", 0)]
    assert asked_of(lambda order, draw: soft(order, 0.6), plan, "ba") == [("ba", 0)]


def test_an_answer_that_may_be_owed_to_length_is_checked_in_the_other_order() -> None:
    plan = Plan(one_call=True, unsure_below=0.3, length=1.0)
    given = lambda order, draw: soft(order, 0.7)  # noqa: E731  # log-odds of .85
    for longer, calls in ((0.0, 1), (0.5, 1), (0.6, 2), (2.0, 2), (-2.0, 1)):
        asked: list[tuple[Order, int]] = []
        play(_adaptive.opinion(asking(given, asked), "ab", plan, longer), ())
        assert len(asked) == calls, longer


def test_without_a_plan_both_orders_are_asked_at_once() -> None:
    assert asked_of(lambda order, draw: soft(order, 0.99)) == [("ab", 0), ("ba", 0)]


def test_bare_verdicts_go_on_in_pairs_until_one_agrees() -> None:
    first_slot = {"ab": "a", "ba": "b"}
    assert asked_of(lambda order, draw: bare(order, "b")) == [("ab", 0), ("ba", 0)]
    third = lambda order, draw: bare(order, first_slot[order] if draw < 2 else "b", draw)  # noqa: E731
    assert asked_of(third) == [(order, draw) for draw in range(3) for order in ("ab", "ba")]
    never = lambda order, draw: bare(order, first_slot[order], draw)  # noqa: E731
    assert len(asked_of(never)) == 2 * _adaptive.PAIRS_OF_VOTES == 8


@pytest.mark.parametrize(
    ("verdicts", "calls"), [(("tie", "tie"), 2), (("abstain", "abstain"), 2), (("tie", "a"), 8), (("abstain", "a"), 8)]
)
def test_what_ends_pairs_of_votes(verdicts: tuple[str, str], calls: int) -> None:
    assert len(asked_of(lambda order, draw: bare(order, verdicts[order == "ba"], draw))) == calls


def test_one_call_that_brings_a_bare_verdict_or_none_is_no_sure_one() -> None:
    plan = Plan(one_call=True)
    assert asked_of(lambda order, draw: bare(order, "a"), plan) == [("ab", 0), ("ba", 0)]
    assert asked_of(lambda order, draw: bare(order, "abstain"), plan) == [("ab", 0), ("ba", 0)]


def test_a_pair_of_the_pilot_is_asked_in_both_orders_and_again_in_one() -> None:
    for again, expected in ((True, [("ab", 0), ("ba", 0), ("ba", 1)]), (False, [("ab", 0), ("ba", 0)])):
        asked: list[tuple[Order, int]] = []
        play(_adaptive.piloted(asking(lambda order, draw: soft(order, 0.7, draw), asked), "ba", again), ())
        assert asked == expected


@given(st.lists(st.floats(0, 9), min_size=1, max_size=200), st.floats(0, 1))
def test_a_cut_lets_its_share_through(certainties: list[float], share: float) -> None:
    cut = _adaptive.cut_at(certainties, share)
    through = sum(cut.escalates(one, (n + 0.5) / len(certainties)) for n, one in enumerate(sorted(certainties)))
    tied = Counter(round(one, 9) for one in certainties).most_common(1)[0][1]
    assert abs(through - share * len(certainties)) <= tied
    assert _adaptive.cut_at([], share).escalates(5.0, 0.0)
    assert not _adaptive.cut_at(certainties, 0).escalates(0.0, 0.0)


def test_certainties_that_are_equal_are_told_apart_by_lot() -> None:
    assert _adaptive.cut_at([2.0] * 10, 0.4) == Cut(below=2.0, at=0.4)
    assert not NEVER.escalates(0.0, 0.0)


def test_escalated_votes_stand_in_for_the_others_where_they_say_something() -> None:
    cheap = (replace(soft("ab", 0.9), labeler="cheap"), replace(soft("ba", 0.3), labeler="cheap"))
    strong = replace(soft("ab", 0.2), labeler="strong", escalated=True)
    assert votes.pool((*cheap, strong), soft=("cheap", "strong")) == pytest.approx(0.2)
    assert (votes.consistent(cheap, ("cheap",)), votes.consistent((*cheap, strong), ("cheap", "strong"))) == (False, None)
    mute = replace(bare("ab", "abstain"), labeler="strong", escalated=True)
    assert votes.pool((*cheap, mute), soft=("cheap",)) == votes.pool(cheap, soft=("cheap",))


# The stage.


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"adaptive": True, "orders": "one"}, "adaptive asks in one order by itself"),
        ({"adaptive": True, "votes": 3}, "adaptive decides by itself how many votes"),
        ({"labelers": [{"name": "x", "escalate": 0.4}]}, "one labeler must be asked about every pair"),
    ],
)
def test_settings_that_exclude_one_another(cai: Cai, tmp_path: Path, settings: dict[str, Any], said: str) -> None:
    config(tmp_path, label_pairs={"principles": 0, **settings})
    code, _, err = cai("run", "c.yaml")
    assert (code, said in err) == (2, True), err
    with pytest.raises(ValueError, match=said):
        label_pairs.Settings(**settings)


def test_the_labeler_of_a_revision_cannot_be_escalated(cai: Cai, tmp_path: Path) -> None:
    revise = {"accept": "if_preferred", "labeler": {"name": "judge", "escalate": 0.3}}
    config(tmp_path, critique={"principles": 0}, revise=revise, label_pairs=None)
    code, _, err = cai("run", "c.yaml")
    assert (code, "unknown key 'escalate'" in err) == (2, True), err


# In a world that is known: the same program as the benchmark, once.


def test_with_probabilities_few_pairs_are_asked_twice_and_no_label_is_lost() -> None:
    one = bench.world(Judge(), True, 1000, 3)
    fixed, mine = bench.labelled(one, {}), bench.labelled(one, bench.SOFT)
    assert mine.policy == "one_call"
    assert mine.calls["main"] / 1000 <= 1.33  # the pilot is .12 of it at 1,000 pairs, and .06 at 2,000
    assert mine.right >= fixed.right - 0.006  # 2,000 comparisons apart by .0007 in the mean of the benchmark
    alone = [row for row in mine.rows if len(row.votes) == 1]
    assert len(alone) > 700
    assert all(row.consistent is None for row in alone)


def test_the_position_bias_is_taken_out_of_what_was_asked_once() -> None:
    one = bench.world(Judge(), True, 400, 4)
    mine = bench.labelled(one, bench.SOFT)
    b = mine.shift
    for row in (row for row in mine.rows if len(row.votes) == 1):
        o = 1 if row.votes[0].order == "ab" else -1
        assert votes.logit(row.p_a or 0) == pytest.approx(votes.logit(votes.clip(row.votes[0].p_a or 0)) - b * o)


def test_the_pilots_pairs_tell_the_bias_and_those_that_were_checked_do_not() -> None:
    """A bias that fades as the judge gets surer: the pairs near the boundary have more of it than the others."""
    off: list[tuple[float, float]] = []
    for seed in range(6):
        one = bench.world(Judge(fades=2.0), True, 600, seed)
        mine = bench.labelled(one, bench.SOFT)
        assert mine.policy == "one_call"
        off.append((bench.bias_of([row for row in mine.rows if row.id in mine.pilot], one)[0], bench.bias_of(mine.rows, one)[0]))
    pilots, every = np.mean(off, axis=0)
    assert abs(pilots) < 0.06  # its standard error is .02
    assert every > 0.04  # .13 at 2,000 pairs, where the pilot is less of them


def test_verdicts_alone_take_three_calls_and_are_as_right_as_six() -> None:
    one = bench.world(Judge(), False, 1000, 5)
    fixed, mine = bench.labelled(one, {"votes": 3}), bench.labelled(one, bench.SOFT)
    assert mine.calls["main"] / 1000 <= 3.3
    assert mine.right >= fixed.right - 0.02
    lengths = Counter(len(row.votes) for row in mine.rows)
    assert set(lengths) == {2, 4, 6, 8}


def test_a_bias_that_varies_by_pair_switches_it_off() -> None:
    mine = bench.labelled(bench.world(Judge(b_sd=1.0), True, 300, 6), bench.SOFT)
    assert mine.policy == "both"
    assert all({vote.order for vote in row.votes} == {"ab", "ba"} for row in mine.rows)


def test_a_strong_labeler_is_asked_where_the_cheap_one_is_least_sure() -> None:
    one = bench.world(Judge(), True, 600, 7)
    mine = bench.labelled(one, bench.CASCADE)
    rest = [row for row in mine.rows if row.id not in mine.pilot]
    escalated = [row for row in rest if any(vote.escalated for vote in row.votes)]
    assert 0.25 < len(escalated) / len(rest) < 0.55
    assert {vote.labeler for row in escalated for vote in row.votes if vote.escalated} == {"strong"}
    assert mine.right > bench.labelled(one, bench.SOFT).right


def test_a_cascade_without_adaptive_asks_the_cheap_one_as_ever() -> None:
    mine = bench.labelled(bench.world(Judge(), True, 200, 8), {"labelers": bench.CASCADE["labelers"]})
    assert mine.calls["main"] == 400
    assert mine.pilot == frozenset()
    escalated = [row for row in mine.rows if any(vote.escalated for vote in row.votes)]
    assert 50 < len(escalated) < 110
    assert mine.calls["strong"] == 2 * len(escalated)


# Real runs.


def test_a_run_asks_its_pilot_then_the_rest_and_then_nothing(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, seed=3)
    code, out, _ = cai("run", "c.yaml", "--json")
    assert code == 0
    first = stages(out)["label-pairs"]
    rows = rows_of(tmp_path / "out" / "label-pairs" / "latest")
    assert first["requests"] == sum(len(row["votes"]) for row in rows) < 2 * PROMPTS
    assert first["replayed"] == 0
    assert first["calls_per_label"] == round(first["requests"] / PROMPTS, 3)
    assert first["calls_per_label_fixed"] == 2
    found = pilot_in(tmp_path / "out")
    assert (found["labelers"]["main"]["policy"], len(found["pairs"]), found["warnings"]) == ("one_call", 80, [])
    low, high = found["labelers"]["main"]["position"]["ci"]
    assert low < 0.4 < high  # the position bias of the simulated judge
    by_id = {row["id"]: row for row in rows}
    assert all({vote["order"] for vote in by_id[one]["votes"]} == {"ab", "ba"} for one in found["pairs"])
    assert all(any(vote["draw"] == 1 for vote in by_id[one]["votes"]) for one in found["repeated"])
    code, out, err = cai("run", "c.yaml", "--json")
    assert (code, json.loads(out)["unchanged"], "nothing new" in err) == (0, True, True)
    assert stages(out)["label-pairs"]["requests"] == 0
    assert stages(out)["label-pairs"]["calls_per_label"] == first["calls_per_label"]


def test_people_are_told_what_labels_took(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path)
    _, _, err = cai("run", "c.yaml")
    calls = round(manifests(tmp_path / "out")["label-pairs"]["replies"] / PROMPTS, 3)
    assert re.search(f"labels +{calls:.2f} calls each; a fixed number would be 2\n", err)
    assert cai("verify", "c.yaml")[0] == 0


def test_the_labelling_verb_by_itself_makes_the_same_version(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path)
    assert cai("run", "c.yaml", "-q")[0] == 0
    before = published(tmp_path / "out")
    code, _, err = cai("label-pairs", "c.yaml")
    assert (code, "nothing new" in err, published(tmp_path / "out")) == (0, True, before), err


def test_more_input_goes_by_the_same_pilot_and_pays_for_itself_only(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path)
    cai("run", "c.yaml", "-q")
    old = {row["id"]: row for row in rows_of(tmp_path / "out" / "label-pairs" / "latest")}
    found = pilot_in(tmp_path / "out")
    write_rows(tmp_path / "prompts.jsonl", questions(PROMPTS + 40))
    code, out, _ = cai("run", "c.yaml", "--json")
    assert code == 0
    assert pilot_in(tmp_path / "out") == found
    new = {row["id"]: row for row in rows_of(tmp_path / "out" / "label-pairs" / "latest")}
    assert {one: new[one] for one in old} == old
    assert stages(out)["label-pairs"]["requests"] == sum(len(row["votes"]) for one, row in new.items() if one not in old)
    code, _, err = cai("label-pairs", "c.yaml")
    assert (code, "nothing new" in err) == (0, True), err


def test_a_prompt_of_the_pilot_that_changed_asks_for_another_pilot(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path)
    cai("run", "c.yaml", "-q")
    found = pilot_in(tmp_path / "out")
    gone = found["pairs"][0].removesuffix("-0-1")
    prompts = {row["prompt_id"]: row["prompt"] for row in rows_of(tmp_path / "out" / "generate" / "latest")}
    del prompts[gone]
    write_rows(tmp_path / "prompts.jsonl", [{"prompt": text} for text in prompts.values()])
    assert cai("run", "c.yaml", "-q")[0] == 0
    other = pilot_in(tmp_path / "out")
    assert (len(other["pairs"]), len(set(other["pairs"]) & set(found["pairs"]))) == (80, 79)


def test_a_damaged_pilot_is_found_again_in_the_ledger(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path)
    cai("run", "c.yaml", "-q")
    before = published(tmp_path / "out")
    whole = {path: path.read_bytes() for path in (tmp_path / "out" / ".cai" / "pilots").iterdir()}
    for path, content in whole.items():
        path.write_bytes(content[: len(content) // 2])
    code, out, _ = cai("run", "c.yaml", "--json")
    assert (code, stages(out)["label-pairs"]["requests"]) == (0, 0)
    assert {path: path.read_bytes() for path in whole} == whole
    assert published(tmp_path / "out") == before


def test_too_few_prompts_are_asked_in_both_orders_and_that_is_said(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, count=60)
    code, out, err = cai("run", "c.yaml", "--json")
    assert (code, stages(out)["label-pairs"]["requests"]) == (0, 120)
    assert "warning: main: there are too few prompts to tell" in err
    assert pilot_in(tmp_path / "out")["pairs"] == []


def test_a_labeler_whose_bias_varies_by_pair_is_asked_in_both_orders_and_that_is_said(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, world={**WORLD, "slot_noise": 1.5})
    code, _, err = cai("run", "c.yaml")
    assert (code, "warning: main: its position bias varies from pair to pair (sd" in err) == (0, True), err
    rows = rows_of(tmp_path / "out" / "label-pairs" / "latest")
    assert all({vote["order"] for vote in row["votes"]} == {"ab", "ba"} for row in rows)


def test_a_labeler_as_noisy_as_its_pairs_are_close_is_asked_in_both_orders(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, world={**WORLD, "noise": 4.0})
    _, _, err = cai("run", "c.yaml")
    assert "of the pairs are closer than its answers are noisy" in err


def test_a_labeler_without_room_for_doubt_is_asked_in_both_orders(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, world={**WORLD, "sharpness": 200.0, "noise": 0.0, "position": 30.0})
    _, _, err = cai("run", "c.yaml")
    assert "have its probability in both orders, and not next to 0 or 1" in err


@pytest.mark.parametrize("count", [60, PROMPTS])
def test_bare_verdicts_need_no_pilot_to_be_bought_in_pairs(cai: Cai, tmp_path: Path, count: int) -> None:
    template = (ROOT / "prompts" / "label-general.md").read_text("utf-8")
    (tmp_path / "bare.md").write_text(template.replace("reply: json", "reply: text"))
    config(tmp_path, count=count, world={"verdicts": "drawn"}, label_pairs={**ADAPTIVE, "template": "bare.md"})
    code, out, err = cai("run", "c.yaml", "--json")
    assert (code, "warning" in err) == (0, False), err
    rows = rows_of(tmp_path / "out" / "label-pairs" / "latest")
    assert {len(row["votes"]) for row in rows} == {2, 4, 6, 8}
    assert stages(out)["label-pairs"]["calls_per_label_fixed"] == 6
    assert pilot_in(tmp_path / "out")["labelers"]["main"]["basis"] == "verdicts"


def test_a_cascade_of_a_run_marks_what_it_escalated(cai: Cai, tmp_path: Path) -> None:
    strong = {"name": "strong", "escalate": 0.4, "model": {"name": "other-world"}}
    config(tmp_path, count=120, label_pairs={"principles": 0, "labelers": [{"name": "cheap"}, strong]})
    code, out, _ = cai("run", "c.yaml", "--json")
    assert code == 0
    rows = rows_of(tmp_path / "out" / "label-pairs" / "latest")
    escalated = [row for row in rows if any(vote["escalated"] for vote in row["votes"])]
    assert 0.3 < len(escalated) / len(rows) < 0.5
    assert all(vote["escalated"] == (vote["labeler"] == "strong") for row in rows for vote in row["votes"])
    assert stages(out)["label-pairs"]["calls_per_label"] == round(2 + 2 * len(escalated) / len(rows), 3)
    assert stages(out)["label-pairs"]["calls_per_label_fixed"] == 4


def test_a_stream_has_the_rows_of_the_version(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path)
    _, streamed, err = cai("run", "c.yaml", "-o", "-")
    assert "calls each; a fixed number would be 2" in err
    cai("run", "c.yaml", "-q")
    assert [json.loads(line) for line in streamed.splitlines()] == rows_of(tmp_path / "out" / "label-pairs" / "latest")


def test_a_dry_run_says_what_it_assumes(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path)
    before = json.loads(cai("run", "c.yaml", "--dry-run", "--json")[1])
    assert (before["stages"]["label-pairs"]["calls"], "no pilot was asked yet" in before["assumed"]["labels"]) == (
        2 * PROMPTS,
        True,
    )
    cai("run", "c.yaml", "-q")
    after = json.loads(cai("run", "c.yaml", "--dry-run", "--json")[1])
    assert after["assumed"]["labels"] == "asked as the pilot found"
    assert after["stages"]["label-pairs"]["calls"] < 2 * PROMPTS
    labelers = [{"name": "x"}, {"name": "y", "escalate": 0.5, "model": {"name": "other-world"}}]
    config(tmp_path, output="else", label_pairs={"principles": 0, "labelers": labelers})
    cascade = json.loads(cai("run", "c.yaml", "--dry-run", "--json")[1])
    assert "drawn by chance" in cascade["assumed"]["labels"]
    assert 2.5 * PROMPTS < cascade["stages"]["label-pairs"]["calls"] < 3.5 * PROMPTS


def test_why_tells_every_call_of_a_row(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path)
    cai("run", "c.yaml", "-q")
    for row in rows_of(tmp_path / "out" / "label-pairs" / "latest")[:20]:
        told = json.loads(cai("why", "c.yaml", row["id"], "--stage", "label-pairs", "--json")[1])
        assert len(told["requests"]) == len(row["votes"])


def test_killed_in_the_pilot_or_after_it_ends_with_the_same_bytes(server: Server, tmp_path: Path) -> None:
    calm, torn = tmp_path / "calm", tmp_path / "torn"
    for folder in (calm, torn):
        folder.mkdir()
        config(folder, count=120, model=at(server.url), generate={"samples": 1, "systems": [None, "Answer briefly."]})
    server.reset(latency_ms=0)
    done = cai(calm, "run", "c.yaml", "--json")
    assert done.code == 0, done.err
    requests = done.asked
    server.reset(latency_ms=20)
    for share in (0.25, 0.75):
        process = start(torn, "run", "c.yaml", "--concurrency", "16")
        while server.stats()["total"] < share * requests:
            assert process.poll() is None
            time.sleep(0.02)
        process.kill()
        finish(process)
    server.reset(latency_ms=0)
    done = cai(torn, "run", "c.yaml", "--concurrency", "3")
    assert done.code == 0, done.err
    assert published(torn / "out") == published(calm / "out")


def test_a_pilot_that_is_cut_off_by_its_budget_is_gone_on_with(cai: Cai, tmp_path: Path) -> None:
    model = {"provider": "simulated", "name": "small-world", "world": WORLD, "price": {"input": 1.0, "output": 1.0}}
    config(tmp_path, model=model)
    code, out, err = cai("run", "c.yaml", "--budget-usd", "0.05", "--json")
    assert (code, (tmp_path / "out" / "label-pairs").exists()) == (75, False), err
    spent = json.loads(out)
    assert 0 < spent["dollars"] <= 0.05
    code, out, _ = cai("run", "c.yaml", "--json")
    whole = json.loads(out)
    assert code == 0
    votes_given = sum(len(row["votes"]) for row in rows_of(tmp_path / "out" / "label-pairs" / "latest"))
    assert spent["stages"]["label-pairs"]["requests"] + whole["stages"]["label-pairs"]["requests"] == votes_given


@pytest.mark.parametrize(
    ("settings", "count", "said"),
    [
        (ADAPTIVE, 60, "60 prompts, and a pilot of a third of them would tell nothing"),
        ({"principles": 0, "votes": 3}, 60, "3 votes in each order"),
        (ADAPTIVE, PROMPTS, ""),
    ],
)
def test_advice_on_what_it_is_worth(cai: Cai, tmp_path: Path, settings: dict[str, Any], count: int, said: str) -> None:
    config(tmp_path, count=count, label_pairs=settings)
    code, out, err = cai("config", "check", "c.yaml")
    told = " ".join((out + err).split())
    assert code == 0
    assert said in told
    assert said or ("adaptive" not in told and "votes in each order" not in told)


def test_debias_by_itself_goes_by_the_bias_that_the_labels_were_asked_by(cai: Cai, tmp_path: Path) -> None:
    config(tmp_path, debias={"ties": "keep", "min_confidence": 0.5})
    assert cai("run", "c.yaml", "-q")[0] == 0
    for verb in ("generate", "label-pairs", "debias"):
        assert cai(verb, "c.yaml", "-o", "alone", "-q")[0] == 0
    b = pilot_in(tmp_path / "alone")["labelers"]["main"]["position"]["b"]
    rows = rows_of(tmp_path / "alone" / "debias" / "latest")
    assert rows == rows_of(tmp_path / "out" / "debias" / "latest")
    for row in (row for row in rows if len(row["votes"]) == 1):
        o = 1 if row["votes"][0]["order"] == "ab" else -1
        assert votes.logit(row["p_a"]) == pytest.approx(votes.logit(votes.clip(row["votes"][0]["p_a"])) - b * o, abs=0.001)
