"""Features of a text's manner: what they count, what they leave alone, and that a pair's value turns its sign with the pair."""

from __future__ import annotations

import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_cli.features import FEATURES
from cai_cli.features.manner import BOOSTERS, FORMAL, HEDGES, INFORMAL
from cai_cli.features.words import count

CODE = "```python\n# not a header\n- not an item\n**not bold**\n```"


def value(feature: str, text: str) -> float:
    return FEATURES[feature].of(text)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", 0), (" \n\t", 0), ("one", 1), ("one  two\nthree", 3), ("don't stop-gap 3.5", 3), ("naïve café", 2),
        ("你好，世界。", 4), ("ひらがな", 4), ("ใช้ได้", 6), ("GPT是一种模型 ok", 7), ("한국어 문장", 2), ("–", 1),
    ],
)  # fmt: skip
def test_words_are_runs_without_white_space_and_characters_of_scripts_that_have_none(text: str, words: int) -> None:
    assert count(text) == words


@pytest.mark.parametrize(
    ("feature", "text", "many"),
    [
        ("lists", "- a\n* b\n  + c\n1. d\n12) e\n• f", 6), ("lists", "-a\n1.5 is a number\na - b\n---\n**bold**", 0),
        ("headers", "# a\n### b\n###### c", 3), ("headers", "#a\n####### b\nC# is a language\n a # b", 0),
        ("bold", "**a** and **b c** and __d__", 3), ("bold", "a ** b ** c, __init__.py, x__y__z, **\n**", 1),
        ("lists", f"{CODE}\n- a", 1), ("headers", f"# a\n\n{CODE}", 1), ("bold", f"{CODE}\n\n**a**", 1),
        ("lists", "```\n- a code block that nobody closed\n- b", 0), ("bold", "~~~\n**a**\n~~~\n**b**", 1),
    ],
)  # fmt: skip
def test_markdown_is_counted_outside_fenced_code(feature: str, text: str, many: int) -> None:
    assert value(feature, text) == pytest.approx(math.log(1 + many))


@pytest.mark.parametrize(
    ("feature", "more", "less"),
    [
        ("length", "One two three four.", "One two."),
        ("formality", "Therefore it is not permitted to purchase any.", "So you can't buy any, kids!"),
        ("formality", "It is not so.", "It isn’t so."),
        ("assertiveness", "This is certainly the best way.", "This is perhaps the best way."),
        ("assertiveness", "It rains.", "Maybe, it rains."),
        ("complexity", "Considerable administrative requirements complicate international ventures.", "I like it. You do too."),
        ("complexity", "We went home and ate and sat and sang.", "We went home. We ate. We sat. We sang."),
        ("refusal", "I'm sorry, but I cannot help with that.", "First, tighten the screw."),
    ],
)  # fmt: skip
def test_a_feature_is_larger_where_there_is_more_of_what_it_is_named_for(feature: str, more: str, less: str) -> None:
    assert value(feature, more) > value(feature, less)


def test_a_doubling_of_the_words_is_the_log_of_two() -> None:
    assert FEATURES["length"].between("a b c d e f", "a b c") == pytest.approx(math.log(2))


def test_readability_is_that_of_the_published_formula() -> None:
    # 10 words in two sentences, four of them over six letters: 10 / 2 + 100 * 4 / 10
    assert value("complexity", "The gardener planted tomatoes there. Nobody watered any of it.") == pytest.approx((5 + 40) / 10)


@pytest.mark.parametrize("text", ["Vielleicht regnet es morgen.", "多分明日は雨です。", "", "12345"])
def test_word_lists_are_english_and_say_nothing_of_other_texts(text: str) -> None:
    assert [value(feature, text) for feature in ("formality", "assertiveness", "refusal")] == [0, 0, 0]


def test_no_word_stands_on_both_sides() -> None:
    assert not FORMAL & INFORMAL
    assert not HEDGES & BOOSTERS


def test_what_may_be_corrected_is_manner_and_never_whether_to_refuse() -> None:
    assert {name for name, feature in FEATURES.items() if not feature.corrects} == {"refusal"}
    assert [name for name, feature in FEATURES.items() if name != feature.name or not feature.unit or not feature.note] == []


PIECES = st.sampled_from(
    [
        "- a\n",
        "# b\n",
        "**c** ",
        "__d__ ",
        "```\n",
        "~~~\n",
        "perhaps ",
        "must ",
        "can't ",
        "hence ",
        "word. ",
        "\n\n",
        "是。",
        "!",
    ]
)
TEXTS = st.lists(st.one_of(PIECES, st.text(max_size=8)), max_size=12).map("".join)


@given(TEXTS, TEXTS)
def test_a_pair_has_a_finite_value_that_turns_its_sign_with_the_pair(a: str, b: str) -> None:
    for feature in FEATURES.values():
        assert math.isfinite(feature.of(a))
        assert feature.between(a, b) == -feature.between(b, a)
        assert feature.between(a, a) == 0
    assert 0 <= value("complexity", a) <= 10


@pytest.mark.parametrize(
    "piece",
    [
        "a",
        " ",
        "\n",
        "**",
        "**a ",
        "__",
        "`",
        "```\n",
        "~~~\n```\n",
        "- a\n",
        "1. a\n\n",
        "# ",
        "#",
        "a@",
        "It is. ",
        '"',
        "(",
        "的",
    ],
)
def test_no_text_takes_long(piece: str) -> None:
    text = piece * (200_000 // len(piece))
    began = time.process_time()
    for feature in FEATURES.values():
        feature.of(text)
    assert time.process_time() - began < 5  # it takes a tenth; one that is quadratic takes minutes
