"""When refusals are the run's fault and not the rows'."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_cli.engine.systemic import IN_A_ROW, WINDOW, Systemic
from cai_cli.errors import Fatal, Reject


def reject(signature: str) -> Reject:
    return Reject("http", "the server's words", signature)


def feed(script: str) -> int | None:
    """Feed outcomes, one a letter: a dot is an answer, another letter a refusal with that signature. Gives: where it stopped"""
    watch = Systemic()
    for at, letter in enumerate(script):
        if letter == ".":
            watch.answered()
            continue
        try:
            watch.refused(reject(letter))
        except Fatal:
            return at
    return None


@given(st.text(".x", max_size=IN_A_ROW * 4))
def test_it_stops_at_the_20th_in_a_row_and_not_before(script: str) -> None:
    streak = script.find("x" * IN_A_ROW)
    crowd = next(
        (at for at in range(len(script)) if script[at] == "x" and script[: at + 1].count("x") > WINDOW // 2), len(script)
    )
    expected = min(streak + IN_A_ROW - 1 if streak >= 0 else len(script), crowd)
    assert feed(script) == (expected if expected < len(script) else None)


def test_different_refusals_in_a_row_are_not_one_cause() -> None:
    assert feed("xy" * 40) is None


def test_more_than_half_of_the_last_hundred_is_one_cause() -> None:
    assert feed("xx." * 30) == 75  # the 51st refusal
    assert feed("x." * 300) is None


def test_the_window_forgets() -> None:
    assert feed(("x." * 24 + "." * 60) * 10) is None


def test_a_refusal_without_a_signature_is_an_answer() -> None:
    watch = Systemic()
    for _ in range(IN_A_ROW - 1):
        watch.refused(reject("x"))
    watch.refused(reject(""))
    for _ in range(IN_A_ROW - 1):
        watch.refused(reject("x"))
    for _ in range(3 * WINDOW):
        watch.refused(reject(""))


def test_once_found_the_cause_stops_every_later_row_and_other_refusals_do_not() -> None:
    watch = Systemic()
    for _ in range(IN_A_ROW - 1):
        watch.refused(reject("x"))
    with pytest.raises(Fatal, match="x: the server's words"):
        watch.refused(reject("x"))
    with pytest.raises(Fatal):
        watch.refused(reject("x"), first=False)
    watch.refused(reject("y"), first=False)


def test_second_attempts_do_not_count() -> None:
    watch = Systemic()
    for _ in range(3 * WINDOW):
        watch.refused(reject("x"), first=False)
