"""Probabilities of the options, from a model whose distribution is known: however it cuts its words, the same distribution."""

import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_cli.logprobs import LEAST_COVERED, Token, option_probabilities

LABELS = ("A", "B", "tie")
DIGITS = ("1", "2", "tie")
WORDS = ("north", "south", "tie")
SCORES = tuple(str(score) for score in range(1, 11))
ALIKE = ("no", "none", "north", "nothing")
EVERY = (LABELS, DIGITS, WORDS, SCORES, ALIKE)
JSON = ('{"reasoning": "A and 1, north of B: \\"verdict\\": \\"B\\"", "verdict": "', '", "confidence": 0.8}')
PROSE = ("Between 1 and 2, or A and B, north is right.\n\nVerdict: ", "")

Cut = Callable[[str], Sequence[str]]


def whole(option: str) -> Sequence[str]:
    return [option]


def letters(option: str) -> Sequence[str]:
    return list(option)


def plain(text: str) -> list[Token]:
    """A text that is certain, a token a word."""
    words = [word + " " for word in text.split(" ")]
    return [(word, 0.0, [(word, 0.0)]) for word in [*words[:-1], words[-1][:-1]] if word]


def answer(truth: dict[str, float], sampled: str, cut: Cut, frame: tuple[str, str] = JSON, quote: str = '"') -> list[Token]:
    """What a server tells of an answer by a model that has this distribution and cuts its options so."""
    paths = {option: [*cut(option), quote] for option in truth}
    tokens = plain(frame[0])
    for n, text in enumerate(paths[sampled]):
        same = {option: path for option, path in paths.items() if path[:n] == paths[sampled][:n]}
        total = math.fsum(truth[option] for option in same)
        next_ones = {path[n]: 0.0 for path in same.values()}
        for option, path in same.items():
            next_ones[path[n]] += truth[option] / total
        tokens.append((text, math.log(next_ones[text]), [(one, math.log(p)) for one, p in next_ones.items()]))
    return [*tokens, *plain(frame[1].removeprefix(quote))]


truths = st.sampled_from(EVERY).flatmap(
    lambda options: st.tuples(*(st.floats(0.01, 1) for _ in options)).map(
        lambda weights: {option: weight / math.fsum(weights) for option, weight in zip(options, weights, strict=True)}
    )
)


@given(truths, st.data(), st.sampled_from([JSON, PROSE]))
def test_options_of_one_token_each_come_out_as_the_model_has_them(
    truth: dict[str, float], data: st.DataObject, frame: tuple[str, str]
) -> None:
    sampled = data.draw(st.sampled_from(sorted(truth)))
    quote = '"' if frame is JSON else "<|end|>"
    found = option_probabilities(answer(truth, sampled, whole, frame, quote), tuple(truth))
    assert found == pytest.approx(truth)


@given(truths, st.data())
def test_options_of_several_tokens_keep_their_odds_where_they_part_from_the_sampled_one(
    truth: dict[str, float], data: st.DataObject
) -> None:
    sampled = data.draw(st.sampled_from(sorted(truth)))
    found = option_probabilities(answer(truth, sampled, letters), tuple(truth))
    if found is None:
        return
    for option in truth:
        if can_be_told(option, sampled, tuple(truth)):
            assert found[option] / found[sampled] == pytest.approx(truth[option] / truth[sampled])
        elif not option.isdecimal() or "tie" in truth:
            assert found[option] == 0


def can_be_told(option: str, sampled: str, options: tuple[str, ...]) -> bool:
    """Whether the letter at which an option parts from the sampled one begins no other option."""
    shared = next((n for n, (a, b) in enumerate(zip(option, sampled, strict=False)) if a != b), min(len(option), len(sampled)))
    if shared == len(option):
        return True  # it ends where the sampled one goes on
    return sum(other.startswith(option[: shared + 1]) for other in options) == 1


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["A", " B", "tie", '"', '{"verdict": "', '"}', "\n", "Verdict: ", "**", "x", ""]),
            st.floats(-20, 1),
            st.lists(st.tuples(st.sampled_from(["A", "B", " A", "**B", "ti", '"', "", "A\n"]), st.floats(-20, 1)), max_size=4),
        ),
        max_size=12,
    ),
    st.sampled_from(EVERY),
)
def test_any_tokens_give_a_distribution_or_nothing(tokens: list[Token], options: tuple[str, ...]) -> None:
    found = option_probabilities(tokens, options)
    if found is not None:
        assert found.keys() == set(options)
        assert min(found.values()) >= 0
        assert math.isclose(math.fsum(found.values()), 1)


@pytest.mark.parametrize("rest", [0.4, 0.6])
def test_what_covers_less_than_half_tells_nothing(rest: float) -> None:
    masses = {"A": 0.7 * (1 - rest), "B": 0.3 * (1 - rest), "The": rest}
    alternatives = [(text, math.log(mass)) for text, mass in masses.items()]
    tokens = [("Verdict: ", 0.0, []), ("A", alternatives[0][1], alternatives)]
    found = option_probabilities(tokens, LABELS)
    assert (found is None) == (1 - rest < LEAST_COVERED)
    if found:
        assert found == pytest.approx({"A": 0.7, "B": 0.3, "tie": 0.0})


def one(text: str, alternatives: dict[str, float]) -> Token:
    return text, math.log(alternatives[text]), [(other, math.log(mass)) for other, mass in alternatives.items()]


def test_blanks_quotes_and_asterisks_around_an_option_belong_to_it() -> None:
    spread = {" A": 0.4, "A": 0.1, ' "B"': 0.2, "**B**": 0.1, " tie\n": 0.1, " B's": 0.1}
    found = option_probabilities([("Verdict:", 0.0, []), one(" A", spread)], LABELS)
    assert found == pytest.approx({"A": 0.5, "B": 0.4, "tie": 0.1})


def test_what_begins_one_option_only_counts_for_it() -> None:
    found = option_probabilities([("Verdict: ", 0.0, []), one("north", {"north": 0.5, "s": 0.2, "ti": 0.2, "": 0.1})], WORDS)
    assert found == pytest.approx({"north": 5 / 9, "south": 2 / 9, "tie": 2 / 9})
    found = option_probabilities([("Verdict: ", 0.0, []), one("none", {"none": 0.6, "no": 0.2, "nor": 0.2})], ALIKE)
    assert found == pytest.approx({"no": 0, "none": 0.75, "north": 0.25, "nothing": 0})


def test_a_one_is_a_one_where_ten_is_a_token_too() -> None:
    found = option_probabilities([("Score: ", 0.0, []), one("8", {"8": 0.5, "1": 0.3, "10": 0.2})], SCORES)
    assert found is not None
    assert {option: p for option, p in found.items() if p} == pytest.approx({"8": 0.5, "1": 0.3, "10": 0.2})


def test_a_one_may_be_a_ten_where_digits_are_cut_apart() -> None:
    for near, meant in (("8", "10"), ("6", "10"), ("5", "1"), ("2", "1")):
        found = option_probabilities([("Score: ", 0.0, []), one(near, {near: 0.6, "1": 0.4})], SCORES)
        assert found is not None
        assert (found[near], found[meant]) == pytest.approx((0.6, 0.4))
    ten = [("Score: ", 0.0, []), one("1", {"8": 0.5, "1": 0.5}), one("0", {"0": 0.8, "<|end|>": 0.2})]
    found = option_probabilities(ten, SCORES)
    assert found is not None
    assert {option: p for option, p in found.items() if p} == pytest.approx({"8": 0.5, "10": 0.4, "1": 0.1})


@given(st.floats(1, 10), st.floats(0.3, 1.5), st.data())
def test_the_expectation_of_a_score_holds_where_digits_are_cut_apart(mean: float, sd: float, data: st.DataObject) -> None:
    weights = {score: math.exp(-0.5 * ((int(score) - mean) / sd) ** 2) for score in SCORES}
    truth = {score: max(weight / math.fsum(weights.values()), 1e-12) for score, weight in weights.items()}
    sampled = data.draw(st.sampled_from([score for score in SCORES if truth[score] > 0.05]))
    found = option_probabilities(answer(truth, sampled, letters), SCORES)
    assert found is not None
    expected, known = (math.fsum(int(score) * p for score, p in spread.items()) for spread in (found, truth))
    assert abs(expected - known) < 0.05


def test_a_token_that_was_sampled_from_below_the_top_counts_too() -> None:
    found = option_probabilities([("Verdict: ", 0.0, []), ("B", math.log(0.1), [("A", math.log(0.6))])], LABELS)
    assert found == pytest.approx({"A": 6 / 7, "B": 1 / 7, "tie": 0})


@pytest.mark.parametrize(
    ("text", "options", "where"),
    [
        ('{"verdict": "A"}', LABELS, 13), ('{"verdict": "2", "confidence": 1}', DIGITS, 13), ('{"score": 10}', SCORES, 10),
        ('{"score":7,"rationale":"8 of 10"}', SCORES, 9), ('{"A": "B"}', LABELS, 7), ("Verdict: tie", LABELS, 9),
        ("A is good, B is not.\nVerdict: **A**\n", LABELS, 32), ("```json\n{\"verdict\": \"A\"}\n```", LABELS, 21),
        ("<think>\n{\"verdict\": \"B\"}\n</think>\n{\"verdict\": \"A\"}", LABELS, 47),
        ('{"verdict": "A", "reasoning": "B"}', LABELS, 13), ('{"reasoning": "", "score": 7, "n": 8}', SCORES, 27),
        ('It says:\n{"choice": "A"}\n\nVerdict: B', LABELS, 35),
        ('{"n": 1,\n"inner":\n{"x": 3}, "verdict": "2"}', DIGITS, 40),
    ],
)  # fmt: skip
def test_where_the_verdict_stands(text: str, options: tuple[str, ...], where: int) -> None:
    """Each character is a token here; only at the right place is there a choice."""
    for place in range(len(text)):
        tokens = [(letter, 0.0, [(letter, 0.0)]) for letter in text]
        other = next(option for option in options if option not in ("1", text[where : where + len(option)]))
        tokens[place] = (text[place], math.log(0.75), [(text[place], math.log(0.75)), (other, math.log(0.25))])
        found = option_probabilities(tokens, options)
        assert found is not None
        assert (found[other] > 0) == (place == where), place


@pytest.mark.parametrize(
    "text", ["", "\n", "I cannot say.", "Verdict: A or B", '{"verdict": "C"}', "Verdict: Apple", "A\nwas better", '{"A": 1}']
)
def test_without_a_verdict_there_is_nothing(text: str) -> None:
    assert option_probabilities(plain(text) if text.strip() else [(text, 0.0, [])], LABELS) is None
    assert option_probabilities([], ()) is None


@pytest.mark.parametrize("logprob", [float("-inf"), -9999.0, float("nan"), -3.4e38])
def test_an_impossible_alternative_has_no_mass(logprob: float) -> None:
    found = option_probabilities([("Verdict: ", 0.0, []), ("A", 0.0, [("A", 0.0), ("B", logprob)])], LABELS)
    assert found == {"A": 1.0, "B": 0.0, "tie": 0.0}
