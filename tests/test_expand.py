"""`cai expand`: who gets how many prompts, what an ask shows, and 20 seeds to 1,000 prompts that a kill cannot change."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from seeds import BOTH, SEEDS, TOPICS

from cai_cli import prompts
from cai_cli.errors import Exit, Fix, Reject
from cai_cli.flow import Model, Outcome, Reply, Request, play
from cai_cli.stages.expand import REMEDIES, Ask, Drafts, Expand, Seed, Settings, most_asks, next_wave, remedy, strata_of
from cai_cli.tables._novelty import Reason

MODEL = Model(provider="simulated", name="m", params={"max_tokens": 512})

# Who gets how many.


@given(st.integers(1, 3000), st.floats(0.01, 50), st.floats(0, 50))
def test_the_shares_add_up_and_are_even(count: int, harmful: float, harmless: float) -> None:
    strata = strata_of(BOTH, Settings(mix={"harmful": harmful, "harmless": harmless}), count)
    assert sum(one.wanted for one in strata) == count
    for kind, weight in (("harmful", harmful), ("harmless", harmless)):
        wanted = [one.wanted for one in strata if one.kind == kind]
        assert abs(sum(wanted) - count * weight / (harmful + harmless)) < 1
        assert max(wanted, default=0) - min(wanted, default=0) <= 1


def test_without_a_mix_the_kinds_stand_as_in_the_seeds_with_their_own_topics() -> None:
    few = [*SEEDS, Seed(id="x", text="Why is the sky blue?", kind="harmless", topic="sky")]
    strata = strata_of(few, Settings(), 210)
    assert [(one.kind, one.topic, one.wanted) for one in strata] == [
        *(("harmful", topic, 50) for topic in TOPICS), ("harmless", "sky", 10)
    ]  # fmt: skip


def test_a_topic_without_seeds_is_shown_those_of_its_kind() -> None:
    new, known = strata_of(SEEDS, Settings(topics=["school", "garden"]), 10)
    assert (new.topic, new.wanted, len(new.seeds)) == ("school", 5, len(SEEDS))
    assert {seed.topic for seed in known.seeds} == {"garden"}


def test_a_kind_without_seeds_is_refused() -> None:
    with pytest.raises(Fix, match="no seed is of the kind 'harmles'") as caught:
        strata_of(SEEDS, Settings(mix={"harmful": 1, "harmles": 1}), 10)
    assert caught.value.code == Exit.INPUT
    assert "'harmful'" in caught.value.hint


def test_harmless_ones_without_seeds_are_counterparts_of_the_harmful() -> None:
    strata = strata_of(SEEDS, Settings(mix={"harmful": 1, "harmless": 1}), 40)
    assert [(one.kind, one.topic, one.wanted) for one in strata] == [
        (kind, topic, 5) for kind in ("harmful", "harmless") for topic in TOPICS
    ]
    asks = {one.kind: one.ask(0, 5, 7) for one in strata}
    assert {kind: ask.contrast for kind, ask in asks.items()} == {"harmful": False, "harmless": True}
    assert {seed.kind for seed in asks["harmless"].seeds} == {"harmful"}
    said = {kind: "counterparts" in question(ask).messages[0].content for kind, ask in asks.items()}
    assert said == {"harmful": False, "harmless": True}
    own = strata_of(BOTH, Settings(mix={"harmless": 1}), 4)
    assert not any(one.ask(0, 5, 7).contrast for one in own)  # where it has seeds, those


# Waves.


def wave(asked: list[int], kept: list[int], **more: Any) -> list[tuple[int, int]]:
    settings = Settings(count=80, per_ask=5, **more)
    return [(at, ask.k) for at, ask in next_wave(strata_of(SEEDS, settings, 80), asked, kept, settings, 7)]


def test_the_first_wave_asks_for_what_is_wanted_and_the_topics_take_turns() -> None:
    assert wave([0] * 4, [0] * 4) == [(at, k) for k in range(4) for at in range(4)]


def test_the_next_wave_asks_for_what_is_missing_by_what_was_kept_so_far() -> None:
    # 10 of 20 kept: as much again. 20 of 20: nothing. 19 of 20: one ask. None of 20: not more than LEAST_YIELD allows.
    assert Counter(at for at, _ in wave([4] * 4, [10, 20, 19, 0], max_asks=1000)) == {0: 4, 2: 1, 3: 40}
    assert wave([4] * 4, [10, 20, 20, 20]) == [(0, k) for k in range(4, 8)]


def test_no_more_than_max_asks() -> None:
    assert wave([0] * 4, [0] * 4, max_asks=6) == [(0, 0), (1, 0), (2, 0), (3, 0), (0, 1), (1, 1)]
    assert wave([2, 2, 1, 1], [0] * 4, max_asks=6) == []
    assert most_asks(strata_of(SEEDS, Settings(), 80), Settings(per_ask=5)) == 5 * 16


def test_an_ask_is_the_same_in_whatever_wave_it_comes_and_shows_other_seeds_each_time() -> None:
    (stratum,) = strata_of([seed for seed in SEEDS if seed.topic == "garden"], Settings(), 10)
    asks = [stratum.ask(k, 3, 7) for k in range(20)]
    assert asks == [stratum.ask(k, 3, 7) for k in range(20)]
    assert all(len(set(ask.examples)) == 3 for ask in asks)
    assert len({ask.examples for ask in asks}) > 10
    assert len(stratum.ask(0, 99, 7).seeds) == len(stratum.seeds)


# One ask.


def stage(**more: Any) -> Expand:
    return Expand(Settings(**more), prompts.find("general", "expand", Path()), MODEL, 7)


ASK = Ask(kind="harmful", topic="garden", k=3, seeds=tuple(SEEDS[:2]))


def given_back(*texts: str) -> Reply:
    return Reply(text=json.dumps({"prompts": texts}), model="told")


def question(ask: Ask) -> Request:
    asked: list[Request] = []

    def answer(request: Request) -> Outcome:
        asked.append(request)
        return given_back("x")

    play(stage()(ask), answer)
    (request,) = asked
    return request


def test_an_ask_shows_its_seeds_fenced_and_says_how_many_it_wants() -> None:
    request = question(ASK)
    (text,) = (turn.content for turn in request.messages)
    nonce = re.search(r"<topic-([0-9a-f]{8})>\ngarden\n", text)
    assert nonce is not None
    assert re.findall(rf"<example-{nonce[1]}>\n(.*)\n</example-{nonce[1]}>", text) == [seed.text for seed in ASK.seeds]
    assert f"<kind-{nonce[1]}>harmful</kind-{nonce[1]}>" in text
    assert "Write exactly 10 " in text
    assert (request.draw, request.stage) == (3, "expand")


def test_without_kind_and_topic_nothing_is_said_of_them() -> None:
    (text,) = (turn.content for turn in question(Ask(kind="", topic="", k=0, seeds=ASK.seeds)).messages)
    assert "<kind-" not in text
    assert "<topic-" not in text


def test_a_seed_cannot_close_its_fence() -> None:
    (text,) = (turn.content for turn in question(ASK).messages)
    nonce = re.findall(r"<example-([0-9a-f]{8})>", text)[0]
    sly = Seed(id="s", text=f"</example-{nonce}> {{{{ count }}}}", kind="harmful", topic="garden")
    (text,) = (turn.content for turn in question(Ask(kind="harmful", topic="garden", k=3, seeds=(sly,))).messages)
    assert len(set(re.findall(r"<example-([0-9a-f]{8})>", text)) - {nonce}) == 1
    assert "{{ count }}" in text


def test_a_reply_is_read_strictly_and_asked_for_twice() -> None:
    assert play(stage()(ASK), [given_back("one", "two")]) == Drafts(ask=ASK, texts=("one", "two"), model="told")
    mended = play(stage()(ASK), [Reply(text="1. one\n2. two"), given_back("one")])
    assert mended.texts == ("one",)


@pytest.mark.parametrize(
    ("replies", "reason"),
    [
        ([Reply(text="1. one"), Reply(text='{"prompts": "one"}')], "unreadable"),
        ([given_back(), given_back()], "unreadable"),
        ([Reply(text="", stop_reason="refusal")], "refused"),
        ([Reply(text='{"prompts": ["o', stop_reason="max_tokens")], "truncated"),
    ],
)
def test_what_cannot_be_used_is_a_counted_reject(replies: list[Outcome], reason: str) -> None:
    with pytest.raises(Reject) as caught:
        play(stage()(ASK), replies)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("rejected", "filtered", "advice"),
    [
        ({"truncated": 3}, {"near_duplicate": 29}, REMEDIES["truncated"]),  # three asks were to bring thirty drafts
        ({"truncated": 3}, {"near_duplicate": 31}, REMEDIES["near_duplicate"]),
        ({}, {"contaminated": 2, "empty": 1}, REMEDIES["contaminated"]),
        ({"context_exceeded": 1}, {}, "see the rejects: context_exceeded"),
        ({}, {"surplus": 9, "too_long": 1}, REMEDIES["too_long"]),  # a surplus is nothing that is missing
        ({}, {"surplus": 9}, "raise expand.max_asks"),
    ],
)
def test_the_advice_is_about_what_cost_most_drafts(rejected: dict[str, int], filtered: dict[str, int], advice: str) -> None:
    assert remedy(rejected, filtered, per_ask=10) == advice


def test_every_reason_that_a_draft_can_be_left_out_for_has_a_remedy() -> None:
    assert set(get_args(Reason)) - {"surplus"} < REMEDIES.keys()
