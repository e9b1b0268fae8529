"""The log-probabilities of `cai simulate`: tokens that are the text, and at the verdict what the judge believes."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cai_cli.logprobs import option_probabilities
from cai_cli.providers._said import Choice
from cai_cli.simulate.tokens import MOST, tokenised, told


def tokens_of(entries):
    """As `option_probabilities` takes them."""
    return [
        (entry["token"], entry["logprob"], [(other["token"], other["logprob"]) for other in entry["top_logprobs"]])
        for entry in entries
    ]


def choosing(text, word, odds):
    quoted = f'"{word}"'
    at = text.index(quoted) + 1 if quoted in text else text.rindex(word)
    return Choice(at=at, word=word, odds=odds)


@given(st.text())
def test_tokens_together_are_the_text(text):
    assert "".join(tokenised(text)) == text


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"])), st.floats(0, 1), st.integers(0, MOST))
@settings(max_examples=60, deadline=None)
def test_every_token_has_the_form_of_the_api(text, seed, top):
    entries = told(text, None, seed, top)
    assert b"".join(bytes(entry["bytes"]) for entry in entries).decode() == text
    for entry in entries:
        others = entry["top_logprobs"]
        assert entry["logprob"] <= 0
        assert len(others) == top
        values = [other["logprob"] for other in others]
        assert values == sorted(values, reverse=True)
        assert math.fsum(map(math.exp, values)) <= 1 + 1e-9
        assert not top or {"token": entry["token"], "logprob": entry["logprob"], "bytes": entry["bytes"]} in others
        assert len({other["token"] for other in others}) == len(others)


def test_a_word_with_its_space_and_a_number_up_to_three_digits_are_one_token():
    assert tokenised("Verdict: north 10 (ok)") == ["Verdict", ":", " north", " 10", " (", "ok", ")"]
    assert tokenised('{"a_b": "K9"}') == ["{", '"', "a", "_", "b", '"', ":", ' "', "K", "9", '"', "}"]


@st.composite
def choices(draw):
    labels = draw(st.sampled_from([
        ("A", "B", "tie"), ("1", "2", "tie"), ("north", "south", "tie"), tuple(map(str, range(1, 11))), ("K1", "K2", "tie"),
        ("K", "K9", "tie"),
    ]))  # fmt: skip
    weights = draw(st.lists(st.floats(0.01, 1), min_size=len(labels), max_size=len(labels)))
    odds = {label: weight / sum(weights) for label, weight in zip(labels, weights, strict=True)}
    # Where two options begin alike, another word's tokens cannot tell which of them it would have been.
    begun_alike = [label for label in labels if label.startswith("K")]
    return odds, draw(st.sampled_from(begun_alike or labels))


FORMS = {
    "text": lambda word: json.dumps({"reasoning": "A is better than B.", "verdict": word, "confidence": 0.8}),
    "last": lambda word: json.dumps({"verdict": word}),
    "prose": lambda word: f"Both are short, \u00e9t\u00e9 too.\n\nVerdict: {word}",
    "number": lambda word: json.dumps({"score": int(word)}),
}


@given(choices(), st.sampled_from(sorted(FORMS)), st.floats(0, 1))
@settings(max_examples=150, deadline=None)
def test_what_is_read_back_from_the_tokens_is_what_the_model_believed(choice, form, seed):
    odds, word = choice
    form = form if form != "number" or set(odds) == set(map(str, range(1, 11))) else "text"
    if form == "prose" and "K9" in odds:
        form = "text"  # nothing follows a K at the end, so whether 9 would have cannot be told
    text = FORMS[form](word)
    read = option_probabilities(tokens_of(told(text, choosing(text, word, odds), seed, MOST)), tuple(odds))
    assert read == {option: pytest.approx(p, rel=1e-6) for option, p in odds.items()}


@given(choices(), st.integers(0, MOST))
@settings(max_examples=60, deadline=None)
def test_the_word_that_was_given_is_always_among_the_alternatives(choice, top):
    odds, word = choice
    text = FORMS["text"](word)
    entries = told(text, choosing(text, word, odds), 0.5, top)
    assert "".join(entry["token"] for entry in entries) == text
    assert all(not top or entry["token"] in [other["token"] for other in entry["top_logprobs"]] for entry in entries)
    assert all([other["logprob"] for other in entry["top_logprobs"]] == sorted(
        (other["logprob"] for other in entry["top_logprobs"]), reverse=True) for entry in entries)  # fmt: skip


def test_a_word_that_no_token_ends_with_tells_nothing():
    text = "Verdict: Kelvin"
    entries = told(text, Choice(at=9, word="K", odds={"K": 0.9, "M": 0.1}), 0.5, MOST)
    assert " M" not in [other["token"] for other in entries[-1]["top_logprobs"]]
