"""Totals from a few prompts: against populations whose totals are known, and at the edges where there is little to go by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cai_cli import prompts
from cai_cli.constitution import BUILT_IN, HHH
from cai_cli.engine.estimate.anatomy import PARTS, Anatomy
from cai_cli.engine.estimate.guess import HIGH, LOW, MIDDLE, _stretched
from cai_cli.engine.estimate.survey import Found, Interval, Survey
from cai_cli.flow import Model, Reply, Request
from cai_cli.records import Turn
from cai_cli.several import Several

MODEL = Model(provider="anthropic", name="m", params={"max_tokens": 300})


def found(x: Any, y: Any, known: Any, prompts: int | None = None, **more: Any) -> Found:
    """One cell and one column, of which some prompts are paid for."""
    x, y, known = (np.asarray(one) for one in (x, y, known))
    shape = (len(x), 1, 1)
    given: dict[str, Any] = {
        "guessed": x.reshape(shape).astype(float), "bought": np.where(known, y, 0.0).reshape(shape),
        "ahead": np.where(known, 0.0, x).reshape(shape), "known": known.reshape(len(x), 1),
        "fixed_bought": np.zeros((1, 1)), "fixed_ahead": np.zeros((1, 1)), "like": [0],
        "low": np.full((1, 1), 0.5), "high": np.full((1, 1), 3.0),
    }  # fmt: skip
    return Found(prompts=prompts or len(x), played=len(x), **given | more)


def total(*given: Any, **more: Any) -> Interval:
    return Survey(found(*given, **more)).sum([0], [0])


def population(seed: int, count: int, slope: float = 2.0) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    x = rng.lognormal(0, 0.6, count)
    return x, slope * x * rng.lognormal(0, 0.4, count) + (0 if slope else rng.lognormal(0, 0.5, count))


@pytest.mark.parametrize("slope", [2.0, 0.0], ids=["the guess tells", "the guess tells nothing"])
def test_totals_are_unbiased_and_intervals_cover(slope: float) -> None:
    x, y = population(1, 400, slope)
    inside, errors = [], []
    for seed in range(400):
        known = np.zeros(400, bool)
        known[np.random.default_rng(seed).choice(400, 40, replace=False)] = True
        one = total(x, y, known)
        inside.append(one.low <= y.sum() <= one.high)
        errors.append(one.value / y.sum() - 1)
    assert abs(np.mean(errors)) < 0.01
    assert 0.85 <= np.mean(inside) <= 0.95


def test_the_mean_is_taken_where_the_guess_is_noise() -> None:
    """With a ratio to noise the error would be several times that of the mean."""
    rng = np.random.default_rng(3)
    x, y = rng.lognormal(0, 1.5, 300), 5 + rng.normal(0, 0.1, 300)
    one = total(x, y, np.arange(300) < 30)
    assert one.value == pytest.approx(y.sum(), rel=0.01)
    assert (one.high - one.low) / one.value < 0.02


def test_what_is_all_paid_for_has_no_interval() -> None:
    x, y = population(2, 30)
    assert total(x, y, np.ones(30, bool)) == Interval(*[pytest.approx(y.sum())] * 3)


def test_few_of_the_prompts_played_widens_it() -> None:
    x, y = population(4, 60)
    known = np.arange(60) < 20
    sampled = {"sampled": 20}
    small, large = total(x, y, known, 60, **sampled), total(x, y, known, 6000, **sampled)
    assert large.value == pytest.approx(y[:20].sum() + 5980 * (small.value - y[:20].sum()) / 40)
    assert (large.high - large.low) / large.value > (small.high - small.low) / small.value
    bought = Survey(found(x, y, known, 6000, **sampled)).sum([0], [0], ahead=False)
    assert bought == Interval(*[pytest.approx(y[:20].sum())] * 3)


def test_nothing_seen_in_a_sample_is_not_nothing_at_all() -> None:
    one = total(np.ones(100), np.zeros(100), np.arange(100) < 20)
    assert (one.value, one.low) == (0, 0)
    assert 0 < one.high < 0.12 * 80


def test_a_guess_alone_is_as_wrong_as_it_is_taken_to_be() -> None:
    assert total(np.ones(10), np.ones(10), np.zeros(10, bool)) == Interval(10, 5, 30)
    one = total(np.ones(10), np.full(10, 4.0), np.arange(10) < 1)
    assert (one.value, one.low, one.high) == (40, 4 + 18, 40 + 72)


def test_single_calls_tell_their_length_where_no_prompt_is_whole() -> None:
    count = 12
    calls = np.stack([np.ones((count, 1)), np.full((count, 1), 10.0)], 2)  # calls, tokens: as guessed
    one = Found(
        prompts=count, played=count, guessed=2 * calls, bought=calls * [1, 3], ahead=calls,
        known=np.zeros((count, 1), bool), fixed_bought=np.zeros((1, 2)), fixed_ahead=np.zeros((1, 2)), like=[0],
        low=np.array([[0.9, 0.1]]), high=np.array([[1.5, 9.0]]),
    )  # fmt: skip
    found = Survey(one).sum([0], [1])
    assert (found.value, found.low, found.high) == pytest.approx((12 * 60, 12 * 57, 12 * 75))
    assert Survey(one).told(0) == count
    assert Survey(one).paid(0) == 0


def test_no_interval_ends_below_what_is_paid_for() -> None:
    x, y = np.ones(40), np.where(np.arange(40) % 9, 0.01, 50.0)
    one = total(x, y, np.arange(40) < 12)
    assert one.low >= y[:12].sum()


def test_what_is_asked_once_goes_by_the_ratio_of_its_like() -> None:
    x = np.ones((6, 2, 1))
    known = np.tile(np.arange(6) < 5, (2, 1)).T
    one = Found(
        prompts=6, played=6, guessed=x * [[1], [0]], bought=x * [[3], [0]] * known[:, :, None],
        ahead=x * [[1], [0]] * ~known[:, :, None], known=known, fixed_bought=np.array([[0.0], [7.0]]),
        fixed_ahead=np.array([[0.0], [10.0]]), like=[0, 0], low=np.ones((2, 1)), high=np.ones((2, 1)),
    )  # fmt: skip
    assert Survey(one).sum([1], [0]).value == pytest.approx(7 + 3 * 10)
    assert Survey(one).sum([0, 1], [0]).value == pytest.approx(18 + 37)


# What the tokens of a question are.


def parts(anatomy: Anatomy, request: Request) -> dict[str, int]:
    return dict(zip(PARTS, anatomy.characters(request), strict=True))


def test_a_question_is_taken_apart_to_the_last_character() -> None:
    template = prompts.find("general", "critique", Path())
    nonce = "0a1b2c3d"

    def asked(response: str) -> str:
        fence = prompts.fenced("response", nonce, response)
        return template.fill(
            conversation=prompts.conversation((Turn(role="user", content="Why?"),), nonce), nonce=nonce, response=fence,
            principle=HHH.name, category="", description=HHH.description, critique_prompt=HHH.critique_prompt, examples=(),
            max_suggestions=5,
        )  # fmt: skip

    before = (Turn(role="user", content=asked("Worked.")), Turn(role="assistant", content="A critique."))
    turns = (*before, Turn(role="user", content=asked("Because.")))
    request = Request(model=MODEL, system="Be fair.", messages=turns, schema={"type": "object"})
    found = parts(Anatomy([HHH.description, HHH.critique_prompt, BUILT_IN.name]), request)
    assert found["system"] == len("Be fair.")
    assert found["exemplars"] == sum(len(turn.content) for turn in before)
    assert found["data"] == len("Human: Why?") + len("Because.")
    assert found["constitution"] >= len(HHH.description) + len(HHH.critique_prompt)
    whole = len("Be fair.") + sum(len(turn.content) for turn in request.messages) + len('{"type": "object"}')
    assert sum(found.values()) == whole


def test_a_prompt_is_data_with_all_its_turns_and_a_tag_of_its_own_is_no_fence() -> None:
    turns = (Turn(role="user", content="Hello"), Turn(role="assistant", content="Hi"), Turn(role="user", content="<b-1>x</b-1>"))
    found = parts(Anatomy(["Hello"]), Request(model=MODEL, messages=turns))
    assert found == {"system": 0, "constitution": 0, "exemplars": 0, "template": 0, "data": 5 + 2 + 12}


# Replies that nobody gave.


def question(schema: dict[str, Any] | None) -> Request:
    text = "Say something long about bridges." if schema is None else prompts.fenced("response", "0a1b2c3d", "A text. Another.")
    return Request(model=MODEL, messages=(Turn(role="user", content=text),), schema=schema)


def test_free_text_is_guessed_as_a_share_of_max_tokens_and_a_verdict_is_not() -> None:
    free = prompts.schema(critique={"type": "string"}, severity={"type": "string", "enum": ["none", "minor"]})
    bare = prompts.schema(severity={"type": "string", "enum": ["none", "minor"]})
    for schema in (None, free):
        lengths = [guess.reply(question(schema)).tokens_out for guess in (LOW, MIDDLE, HIGH)]
        assert lengths == [pytest.approx(30, abs=2), pytest.approx(100, abs=2), pytest.approx(300, abs=2)], schema
        assert prompts.structured(MIDDLE.reply(question(schema)).text, free) is not None or schema is None
    several = Several(part="scores", key="criterion", names=["a", "b"], properties={"rationale": {"type": "string"}})
    listed = [{"criterion": name, "rationale": "So it is."} for name in several.names]
    stretched = _stretched(Reply(text=json.dumps({"scores": listed})), question(several.schema), 300)
    assert stretched.tokens_out == pytest.approx(300, abs=4)
    assert [one["criterion"] for one in several.read(stretched.text) or []] == ["a", "b"]
    reply = MIDDLE.reply(question(bare))
    assert isinstance(reply, Reply)
    assert reply.tokens_out < 12
    assert not HIGH.reply(question(None)).truncated
