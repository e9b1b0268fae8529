"""The words that stages speak, driven by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_cli.engine.ledger import key_of
from cai_cli.errors import Reject
from cai_cli.flow import CONTINUATIONS, Flow, Model, Outcome, Reply, Request, ask, ask_all, ask_whole, play, together
from cai_cli.records import Turn

MODEL = Model(provider="scripted", name="m", params={"max_tokens": 100, "temperature": 0.5})


def question(text: str, retry: bool = False, **more: Any) -> Request:
    return Request(model=replace(MODEL, retry_truncated=retry), messages=(Turn(role="user", content=text),), **more)


def asked(flow: Flow[Any], outcomes: Sequence[Outcome]) -> tuple[Any, list[Request]]:
    """Play a flow with these outcomes. Gives: its result, or its Reject, and all that it asked"""
    requests: list[Request] = []
    script = iter(outcomes)

    def answer(request: Request) -> Outcome:
        requests.append(request)
        return next(script)

    try:
        return play(flow, answer), requests
    except Reject as reject:
        return reject, requests


def reason(outcome: Any) -> str:
    assert isinstance(outcome, Reject)
    return outcome.reason


# ask


def test_a_reply_with_text_is_the_result() -> None:
    result, requests = asked(ask(question("q")), [Reply(text="a")])
    assert result == Reply(text="a")
    assert requests == [question("q")]


def test_a_refused_request_ends_the_row() -> None:
    result, requests = asked(ask(question("q")), [Reject("http_400")])
    assert reason(result) == "http_400"
    assert len(requests) == 1


@pytest.mark.parametrize("blank", ["", " ", "\n\t", "\u3000"])
def test_an_empty_reply_is_asked_once_more(blank: str) -> None:
    result, requests = asked(ask(question("q")), [Reply(text=blank), Reply(text="a")])
    assert result.text == "a"
    assert [request.attempt for request in requests] == [0, 1]
    assert key_of(requests[0]) != key_of(requests[1]), "else the ledger would answer with the empty one"


def test_two_empty_replies_are_a_reject() -> None:
    result, requests = asked(ask(question("q")), [Reply(text=""), Reply(text=" ")])
    assert reason(result) == "empty"
    assert len(requests) == 2


@pytest.mark.parametrize("text", ["", "I cannot help with that."])
def test_a_refusal_is_a_result_and_never_asked_again(text: str) -> None:
    result, requests = asked(ask(question("q")), [Reply(text=text, stop_reason="refusal")])
    assert result.refused
    assert len(requests) == 1


def test_a_paused_reply_is_continued_and_all_of_it_is_kept() -> None:
    pauses = [Reply(text=f"{n} ", stop_reason="pause_turn", tokens_in=10, tokens_out=2) for n in range(CONTINUATIONS)]
    result, requests = asked(ask(question("q")), [*pauses, Reply(text="end", tokens_in=10, tokens_out=1)])
    assert (result.text, result.stop_reason) == ("0 1 2 3 4 end", "end_turn")
    assert (result.tokens_in, result.tokens_out) == (60, 11)
    assert [turn.content for turn in requests[-1].messages] == ["q", "0 1 2 3 4 "]
    assert [len(request.messages) for request in requests] == [1, 2, 2, 2, 2, 2]


def test_a_reply_that_never_ends_is_a_reject() -> None:
    result, requests = asked(ask(question("q")), [Reply(text="on and on", stop_reason="pause_turn")] * 9)
    assert reason(result) == "paused"
    assert len(requests) == 1 + CONTINUATIONS


def test_a_refusal_after_a_pause_is_a_refusal() -> None:
    result, _ = asked(
        ask(question("q")), [Reply(text="Well, ", stop_reason="pause_turn"), Reply(text="no.", stop_reason="refusal")]
    )
    assert (result.text, result.refused) == ("Well, no.", True)


@pytest.mark.parametrize(
    ("stop_reason", "expected"), [("model_context_window_exceeded", "context_exceeded"), ("new_in_2031", "unknown_stop_reason")]
)
def test_other_ends_are_rejects(stop_reason: str, expected: str) -> None:
    result, _ = asked(ask(question("q")), [Reply(text="a", stop_reason=stop_reason)])
    assert reason(result) == expected


def test_a_truncated_reply_is_a_result_and_asked_longer_only_if_wanted() -> None:
    cut = Reply(text="and then", stop_reason="max_tokens")
    result, requests = asked(ask_whole(question("q")), [cut])
    assert result.truncated
    assert len(requests) == 1
    result, requests = asked(ask_whole(question("q", retry=True)), [cut, Reply(text="and then it ended")])
    assert not result.truncated
    assert [request.model.params for request in requests] == [MODEL.params, {**MODEL.params, "max_tokens": 200}]


# Side by side


def chain_of(name: str, steps: int) -> Flow[str]:
    """A flow that asks so many times, one after the other."""
    said = ""
    for step in range(steps):
        reply = yield from ask(question(f"{name}-{step}{said}"))
        said += reply.text
    return f"{name}:{said}"


@given(steps=st.lists(st.integers(0, 4), max_size=6), data=st.data())
def test_together_gives_what_each_flow_alone_gives_in_order(steps: list[int], data: st.DataObject) -> None:
    bad = data.draw(st.sets(st.integers(0, 5)), label="flows whose second request is refused")

    def answer(request: Request) -> Outcome:
        name, _, rest = request.messages[0].content.partition("-")
        return Reject("refused", name) if rest.startswith("1") and int(name) in bad else Reply(text=f"[{rest[0]}]")

    def alone(n: int) -> Any:
        try:
            return play(chain_of(str(n), steps[n]), answer)
        except Reject as reject:
            return (reject.reason, reject.detail)

    outcomes = play(together(chain_of(str(n), count) for n, count in enumerate(steps)), answer)
    seen = [(outcome.reason, outcome.detail) if isinstance(outcome, Reject) else outcome for outcome in outcomes]
    assert seen == [alone(n) for n in range(len(steps))]


@given(steps=st.lists(st.integers(0, 4), max_size=6))
def test_a_wave_is_one_request_of_every_flow_that_is_not_done(steps: list[int]) -> None:
    flow, waves = together(chain_of(str(n), count) for n, count in enumerate(steps)), []
    try:
        requests = next(flow)
        while True:
            waves.append([request.messages[0].content[0] for request in requests])
            requests = flow.send(tuple(Reply(text="x") for _ in requests))
    except StopIteration:
        pass
    assert waves == [[str(n) for n, count in enumerate(steps) if count > wave] for wave in range(max(steps, default=0))]


def test_flows_may_run_side_by_side_inside_flows_side_by_side() -> None:
    def outer(name: str) -> Flow[list[Any]]:
        return (yield from together(chain_of(f"{name}{n}", 2) for n in range(2)))

    flow = together(outer(name) for name in "ab")
    assert [request.messages[0].content for request in next(flow)] == ["a0-0", "a1-0", "b0-0", "b1-0"]


def test_a_bug_in_a_flow_is_not_hidden() -> None:
    def buggy() -> Flow[int]:
        yield from ask(question("q"))
        return 1 // 0

    with pytest.raises(ZeroDivisionError):
        play(together([buggy()]), [Reply(text="a")])


def test_ask_all_gives_replies_in_order_and_rejects_what_the_first_failure_rejects() -> None:
    result, requests = asked(ask_all(question(str(n)) for n in range(3)), [Reply(text=str(n)) for n in range(3)])
    assert [reply.text for reply in result] == ["0", "1", "2"]
    assert len(requests) == 3
    result, _ = asked(ask_all(question(str(n)) for n in range(3)), [Reply(text="0"), Reject("one"), Reject("two")])
    assert reason(result) == "one"
    assert asked(ask_all([]), []) == ([], [])


def test_a_script_that_is_too_short_is_an_error_not_an_end() -> None:
    with pytest.raises(RuntimeError):
        play(chain_of("a", 2), [Reply(text="only one")])


# Resuming

KINDS: dict[str, Outcome] = {
    "a": Reply(text="a"), "b": Reply(text="b"), "": Reply(text=""), "reject": Reject("http_400"),
    "pause": Reply(text="p", stop_reason="pause_turn"), "cut": Reply(text="c", stop_reason="max_tokens"),
}  # fmt: skip


def a_row() -> Flow[tuple[Any, ...]]:
    """Asks side by side, then by what it was told, then again what it asked before."""
    first = yield from together(ask_whole(question(f"draw {n}", draw=n, retry=True)) for n in range(3))
    said = [outcome.reason if isinstance(outcome, Reject) else outcome.text for outcome in first]
    second = yield from together([ask(question(" ".join(said))), ask(question("draw 0"))])
    return tuple(said + [outcome.reason if isinstance(outcome, Reject) else outcome.text for outcome in second])


@given(kinds=st.lists(st.sampled_from(list(KINDS)), min_size=1, max_size=30), cut=st.integers(0, 40))
def test_any_cut_of_the_replies_resumes_to_the_same_row_and_asks_only_the_rest(kinds: list[str], cut: int) -> None:
    """What an engine does that is killed after `cut` replies: every one was in the ledger before it was used."""

    class Killed(Exception):
        pass

    def server(key: bytes) -> Outcome:  # a reply depends on its question alone, so two runs get the same
        return KINDS[kinds[key[0] % len(kinds)]]

    def drive(ledger: dict[bytes, Outcome], most: int) -> tuple[Any, int]:
        bought = 0

        def answer(request: Request) -> Outcome:
            nonlocal bought
            if (key := key_of(request)) not in ledger:
                if bought == most:
                    raise Killed
                bought += 1
                ledger[key] = server(key)
            return ledger[key]

        try:
            return play(a_row(), answer), bought
        except Killed:
            return None, bought

    whole, needed = drive({}, 1000)
    ledger: dict[bytes, Outcome] = {}
    _, before = drive(ledger, cut)
    resumed, after = drive(ledger, 1000)
    assert resumed == whole
    assert before + after == needed
