"""Which replies a row failed on, by scripted flows; and how a retried question is put."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cai_cli.engine.culprits import Failed, culprits, played
from cai_cli.engine.ledger import key_of
from cai_cli.engine.retries import STRIDE, Again, Batch, Retries, path_in
from cai_cli.errors import Fix, Reject
from cai_cli.flow import Flow, Model, Outcome, Reply, Request, ask, ask_all, ask_whole, together
from cai_cli.records import Turn

MODEL = Model(provider="scripted", name="m", params={"max_tokens": 64}, retry_truncated=True)
NONE = Retries()
FAILED = Failed(stage="score", id="r1", prompt_id="r1", reason="no_score")


def question(text: str, stage: str = "score", row: str = "r1") -> Request:
    return Request(model=MODEL, messages=(Turn(role="user", content=text),), stage=stage, row=row)


def text_of(request: Request) -> str:
    return request.messages[0].content


def found(flow: Flow[Any], answer: Callable[[Request], Outcome], row: Failed = FAILED, loop: tuple[str, ...] = ("score",)) -> Any:
    """(text, attempt, max_tokens) of the culprits."""

    def caught() -> Flow[None]:
        yield from together([flow])

    asked = played(caught(), NONE, answer)
    assert asked is not None
    return [(text_of(one), one.attempt, one.model.max_tokens) for one in culprits(asked, row, loop)]


def again(request: Request, times: int, max_tokens: int | None = None) -> Again:
    return Again(
        stage=request.stage, row=request.row, key=key_of(request).hex(), times=times, max_tokens=max_tokens, reason="why"
    )


def batch(*questions: Again, at: float = 1.0) -> Batch:
    return Batch(at=at, command="cai retry", questions=questions, origins={"score": "o"})


def test_of_several_questions_only_the_one_that_was_refused() -> None:
    flow = ask_all(question(text) for text in "abc")
    assert found(
        flow, lambda request: Reply(text="", stop_reason="refusal") if text_of(request) == "b" else Reply(text="ok")
    ) == [("b", 0, 64)]


def test_what_the_server_did_not_take() -> None:
    flow = ask_all(question(text) for text in "abc")
    refused = Reject("invalid_request", "no", "400 invalid")
    assert found(flow, lambda request: refused if text_of(request) == "c" else Reply(text="ok")) == [("c", 0, 64)]


def test_both_attempts_at_a_question_that_stayed_empty() -> None:
    flow = ask_all(question(text) for text in "ab")
    assert found(flow, lambda request: Reply(text=" " if text_of(request) == "a" else "ok")) == [("a", 0, 64), ("a", 1, 64)]


def test_a_question_that_was_put_again_with_twice_the_tokens() -> None:
    cut = Reply(text="cut", stop_reason="max_tokens")
    assert found(ask_whole(question("a")), lambda _: cut) == [("a", 0, 64), ("a", 0, 128)]


def test_where_nothing_is_wrong_with_a_reply_the_last_question() -> None:
    def flow() -> Flow[None]:
        yield from ask(question("a"))
        yield from ask(question("b"))
        raise Reject("meta_revision")

    assert found(flow(), lambda _: Reply(text="Sure, here is what you asked for")) == [("b", 0, 64)]


def test_only_the_last_visit_of_a_loop() -> None:
    def flow() -> Flow[None]:
        for text in ("1", "2"):
            yield from ask(question(f"critique {text}", "critique"))
            yield from ask(question(f"revise {text}", "revise"))
        raise Reject("truncated")

    row = replace(FAILED, stage="revise", reason="truncated")
    ends = itertools.cycle(["end_turn", "max_tokens"])  # as if the first revision had been cut off, too, and taken
    answer: Callable[[Request], Outcome] = lambda request: Reply(  # noqa: E731
        text="x", stop_reason=next(ends) if request.stage == "revise" else "end_turn"
    )
    assert found(flow(), answer, row, ("critique", "revise")) == [("revise 2", 0, 64)]


def test_a_comparison_is_about_the_row_that_it_decides_on() -> None:
    flow = ask(question("which", "revise", "r1-round-2"))
    unreadable = Reject("protocol_error", "", "200 unreadable")
    row = replace(FAILED, stage="revise", reason="protocol_error")
    assert found(flow, lambda _: unreadable, row, ("critique", "revise")) == [("which", 0, 64)]
    assert found(ask(question("which", "revise", "r11")), lambda _: unreadable, row, ("revise",)) == []


def test_of_a_kept_row_the_reply_that_has_its_flag() -> None:
    def flow() -> Flow[None]:
        yield from together([ask(question("a", "generate")), ask(question("b", "generate", "r2"))])
        yield from ask(question("c"))

    row = Failed(stage="generate", id="r1", prompt_id="r1", reason="refused", kept=True)
    assert found(flow(), lambda _: Reply(text="no", stop_reason="refusal"), row, ("generate",)) == [("a", 0, 64)]
    assert found(flow(), lambda _: Reply(text="yes"), row, ("generate",)) == []


def test_a_row_that_failed_before_anything_was_asked_has_none() -> None:
    assert found(ask(question("a", "generate")), lambda _: Reply(text="ok"), FAILED) == []


def test_a_flow_whose_replies_are_not_all_known_tells_nothing() -> None:
    answers: dict[str, Outcome] = {"a": Reply(text="ok")}
    assert played(ask_all([question("a"), question("b")]), NONE, lambda request: answers.get(text_of(request))) is None


# How it is put


def test_a_retried_question_has_a_key_of_its_own_each_time() -> None:
    request = question("a")
    once = NONE.with_batch(batch(again(request, 1)))
    twice = once.with_batch(batch(again(request, 2, 500), at=2.0))
    asked = [retries.asked(request) for retries in (NONE, once, twice)]
    assert [(one.attempt, one.model.max_tokens) for one in asked] == [(0, 64), (STRIDE, 64), (2 * STRIDE, 500)]
    assert len({key_of(one) for one in asked}) == 3
    assert [retries.times(request) for retries in (NONE, once, twice)] == [0, 1, 2]
    earlier = list(twice.superseded(request))
    assert [(one.request, one.at) for one in earlier] == [(asked[0], 1.0), (asked[1], 2.0)]


@pytest.mark.parametrize("other", [question("b"), question("a", row="r2"), question("a", stage="critique")])
def test_the_same_words_for_another_row_or_stage_stay_as_they_are(other: Request) -> None:
    retries = NONE.with_batch(batch(again(question("a"), 1)))
    assert retries.asked(other) == other
    assert retries.asked(question("a")) != question("a")


def test_fewer_tokens_than_the_config_allows_change_nothing() -> None:
    assert NONE.with_batch(batch(again(question("a"), 1, 10))).asked(question("a")).model.max_tokens == 64


def test_the_digest_is_of_what_is_asked_and_not_of_when_or_why(tmp_path: Path) -> None:
    one = again(question("a"), 1)
    first = NONE.with_batch(batch(one))
    assert first.digests().keys() == {"score"}
    assert first.digests() == NONE.with_batch(batch(replace(one, reason="other", id="x"), at=9.0)).digests()
    assert first.digests() != NONE.with_batch(batch(replace(one, times=2))).digests()
    path_in(tmp_path).parent.mkdir()
    first.save(tmp_path)
    assert Retries.of(tmp_path).batches == first.batches
    assert path_in(tmp_path).stat().st_mode & 0o777 == 0o600
    assert Retries.of(tmp_path).first(0).digests() == {}


@pytest.mark.parametrize(
    "document", [b"{", b"{}", b"[]", b'{"schema": 2, "batches": []}', b'{"schema": 1, "batches": [{"at": 1}]}']
)
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, document: bytes) -> None:
    path = path_in(tmp_path)
    path.parent.mkdir()
    path.write_bytes(document)
    with pytest.raises(Fix, match=r"retries\.json") as caught:
        Retries.of(tmp_path)
    assert caught.value.hint


def test_another_config_has_nothing_of_what_was_retried() -> None:
    one, other = question("a"), question("a", stage="critique")
    both = Batch(at=1.0, command="", questions=(again(one, 1), again(other, 1)), origins={"score": "x", "critique": "y"})
    assert both.within({"score": "x", "critique": "y"}) == both
    assert both.within({"score": "x", "critique": "z"}).questions == (again(one, 1),)
    assert both.within({}).questions == ()
