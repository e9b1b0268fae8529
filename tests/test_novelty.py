"""Which drafts are new: the words of a text, ROUGE-L as the definition has it, every reason to leave one out, the figures."""

from __future__ import annotations

import itertools
import subprocess
import sys
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cai_cli.tables._novelty import CHUNK, Filtered, New, Selection, Vocabulary, distinct_2, name_of, nearest, similarities, words

WORDS = ["how", "do", "i", "mend", "a", "red", "blue", "old", "kite", "boat", "wall", "today"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join)


def rouge_l(one: Sequence[str], other: Sequence[str]) -> float:
    """By the definition: a table of longest common subsequences."""
    longest = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, j in itertools.product(range(len(one)), range(len(other))):
        longest[i + 1][j + 1] = longest[i][j] + 1 if one[i] == other[j] else max(longest[i][j + 1], longest[i + 1][j])
    return 2 * longest[-1][-1] / (len(one) + len(other)) if one or other else 1.0


@settings(deadline=None)
@given(TEXTS, TEXTS)
def test_the_similarity_is_rouge_l_over_words(one: str, other: str) -> None:
    vocabulary = Vocabulary()
    table = similarities([vocabulary.spelled(one)], [vocabulary.spelled(other)])
    assert float(table[0, 0]) == pytest.approx(rouge_l(words(one), words(other)))


def test_spelling_steps_over_the_code_points_that_are_no_characters() -> None:
    vocabulary = Vocabulary()
    spelled = vocabulary.spelled(" ".join(f"w{n}" for n in range(0xD900)))
    assert len(set(spelled)) == 0xD900
    spelled.encode()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("How's it?", ["how", "s", "it"]),
        ("STRASSE straße", ["strasse", "strasse"]),
        ("ﬁne — ﬁne", ["fine", "fine"]),
        ("你好 world", ["你", "好", "world"]),
        ("テスト", ["テ", "ス", "ト"]),
        ("?! …", []),
    ],
)
def test_case_and_punctuation_do_not_count_and_unspaced_scripts_have_words_too(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def sorted_one_by_one(seeds: Sequence[str], against: Sequence[str], drafts: Sequence[str], limit: float) -> list[str]:
    """The same decisions, by the definition and without any chunks."""
    seen, found = list(seeds), []
    for text in drafts:
        if not words(text):
            found.append("empty")
        elif any(rouge_l(words(text), words(other)) >= limit - 1e-9 for other in against):
            found.append("contaminated")
        elif any(rouge_l(words(text), words(other)) >= limit - 1e-9 for other in seen):
            found.append("near_duplicate")
        else:
            found.append("new")
            seen.append(text)
    return found


DRAFTS = st.lists(TEXTS, max_size=3 * CHUNK)


@settings(max_examples=60, deadline=None)
@given(st.lists(TEXTS, max_size=3), st.lists(TEXTS, max_size=3), DRAFTS, st.sampled_from([0.5, 0.7, 0.8, 1.0]))
def test_chunks_change_no_decision(seeds: list[str], against: list[str], drafts: list[str], limit: float) -> None:
    selection = Selection(enumerate_as_ids(seeds), against, [10_000], limit, 2000)
    outcomes = [one.reason if isinstance(one, Filtered) else "new" for one in selection.sort([(0, text) for text in drafts])]
    assert outcomes == sorted_one_by_one(seeds, against, drafts, limit)


def enumerate_as_ids(texts: Sequence[str]) -> list[tuple[str, str]]:
    return [(f"seed-{n}", text) for n, text in enumerate(texts)]


def test_every_reason_and_what_is_nearest() -> None:
    seeds, against = [("s", "How do I mend an old kite?")], ["Which kite flies highest?"]
    selection = Selection(seeds, against, [2, 1], 0.7, 60)
    drafts = [
        (0, "how do I mend an OLD kite"),  # the seed
        (0, "Which kite flies the highest?"),  # in the test set
        (0, "..."),
        (0, "Where can I buy string " + "and string " * 10),
        (0, "Where can I buy a new wing for my kite?"),
        (0, "Where can I buy a wing for my kite?"),  # the one before
        (1, "Boats sink."),
        (1, "Walls stand."),  # enough of these
        (0, "Completely other words"),
    ]
    outcomes = list(selection.sort(drafts))
    reasons = [one.reason if isinstance(one, Filtered) else "" for one in outcomes]
    assert reasons == ["near_duplicate", "contaminated", "empty", "too_long", "", "near_duplicate", "", "surplus", ""]
    first, boats, last = (one for one in outcomes if isinstance(one, New))
    assert (first.nearest, first.similarity) == ("s", pytest.approx(2 * 2 / 17, abs=1e-4))
    assert first.id == name_of("Where can I buy a new wing for my kite?")
    assert (boats.nearest, last.nearest, last.similarity) == ("", "", 0.0)  # no word in common with anything
    assert selection.kept == [2, 1]


def test_the_nearest_is_found_among_all_that_was_kept_before() -> None:
    selection = Selection([], [], [1000], 0.9, 2000)
    drafts = [(0, f"alpha{n} beta{n} gamma{n} delta{n}") for n in range(2 * CHUNK)]
    drafts.append((0, "alpha3 beta3 gamma3 other"))
    *_, last = selection.sort(drafts)
    assert isinstance(last, New)
    assert (last.nearest, last.similarity) == (name_of(drafts[3][1]), 0.75)


def test_nothing_to_compare_with_is_no_error() -> None:
    assert nearest([], ["x"]) == []
    assert nearest(["x"], [])[0].at == -1


def test_the_share_of_distinct_pairs_of_words() -> None:
    assert distinct_2(["a b c", "a b d"]) == 3 / 4
    assert distinct_2(["a b", "b a"]) == 1
    assert distinct_2(["a", ""]) is None


def test_another_process_decides_the_same() -> None:
    code = (
        "from cai_cli.tables._novelty import Selection\n"
        "drafts = [(0, ' '.join(f'w{(n * k) % 17}' for k in range(1, 9))) for n in range(300)]\n"
        "print(list(Selection([('s', 'w1 w2')], ['w3 w4'], [999], .6, 99).sort(drafts)))"
    )
    said = {subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout for _ in range(2)}
    assert len(said) == 1
