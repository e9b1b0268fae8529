"""Boilerplate: phrases that return, counted as the definition has it, in bounded memory, on hand-made rows, files and a run."""

from __future__ import annotations

import random
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from chains import made, said, table
from hypothesis import given
from hypothesis import strategies as st
from outside import Cai, rows_of, write_rows

from cai_cli.analyses import Options
from cai_cli.analyses._contrast import Compared, Contrast
from cai_cli.analyses._phrases import Phrases, Sampled, joined, ngrams
from cai_cli.analyses._texts import opener, words
from cai_cli.analyses.boilerplate import analyse

VALID = "You are valid and your feelings matter."
WORDS = ["mend", "the", "red", "kite", "before", "rain", "falls", "on", "every", "stone", "wall", "today"]


def pairs(count: int, seed: int = 1) -> list[dict[str, Any]]:
    """Texts of chance words; every fourth chosen one, and every fortieth rejected one, has a phrase more."""
    rng = random.Random(seed)
    told = [" ".join(rng.choices(WORDS, k=12)) + "." for _ in range(2 * count)]
    return [
        {
            "prompt_id": f"p{n}", "chosen": told[2 * n] + (f" {VALID}" if n % 4 == 0 else ""),
            "rejected": told[2 * n + 1] + (f" {VALID}" if n % 40 == 0 else ""),
        }
        for n in range(count)
    ]  # fmt: skip


@given(st.lists(st.sampled_from(WORDS), max_size=12), st.integers(1, 6))
def test_ngrams_are_the_runs_of_words(text: list[str], n: int) -> None:
    assert ngrams(" ".join(text), n) == {" ".join(text[at : at + n]) for at in range(len(text) - n + 1)}


def test_ngrams_end_with_their_sentence_and_case_and_marks_do_not_count() -> None:
    assert ngrams("It's “late”, she said. GO home now!", 3) == {"it's late she", "late she said", "go home now"}
    assert words("Don’t 你好") == ["don't", "你", "好"]
    assert (opener("Of course! Here you go.", 12), opener("... one two three four", 3), opener("?!", 3)) == (
        "of course", "one two three", "",
    )  # fmt: skip


def test_a_phrase_that_the_chosen_have_more_of_is_found_with_its_shares() -> None:
    analysis = analyse(pairs(400), Options())
    distinct = table(analysis, "chosen_distinct", "text")
    row = distinct["you are valid and your feelings matter"]
    assert (row["here"].value, row["there"].value) == (0.25, 0.025)
    assert 0 < row["log_odds"].low < row["log_odds"].value
    assert analysis.findings[0].startswith(
        '"you are valid and your feelings matter" stands in chosen of 25.0% of the prompts, in rejected'
    )
    touched = table(analysis, "chosen_touched", "what")["one that tells"]
    assert touched["here"].value == pytest.approx(0.25, abs=0.05)


def test_n_is_the_length_of_the_runs() -> None:
    texts = table(analyse(pairs(100), Options(n=2)), "chosen_phrases", "text")
    assert {len(text.split()) for text in texts} == {2}


def test_a_phrase_counts_once_for_a_prompt_however_many_of_its_texts_hold_it() -> None:
    rows = [{"prompt_id": f"p{n // 8}", "chosen": f"{VALID} {n}", "rejected": f"No {n}"} for n in range(32)]
    row = table(analyse(rows, Options()), "chosen_phrases", "text")["you are valid and your feelings matter"]
    assert (row["here"].value, row["here"].n) == (1.0, 4)


def test_equal_shares_have_log_odds_of_nothing_and_the_sides_are_mirrors() -> None:
    ours, theirs = Phrases(), Phrases()
    for n in range(50):
        ours.add(0, {"often"} if n % 2 else {"even"}), ours.add(1, {"often"} if n % 5 == 0 else {"even"})
        theirs.add(1, {"often"} if n % 2 else {"even"}), theirs.add(0, {"often"} if n % 5 == 0 else {"even"})
    one, other = ours.phrase("often").log_odds, theirs.phrase("often").log_odds
    assert (one.value, one.low) == (pytest.approx(-other.value), pytest.approx(-other.high))  # type: ignore[operator]
    same = Phrases()
    for side in (0, 1, 0, 1):
        same.add(side, {"often"})
    assert same.phrase("often").log_odds.value == pytest.approx(0)


def test_runs_that_overlap_are_one_phrase() -> None:
    phrases = Phrases()
    for _ in range(5):
        phrases.add(0, ngrams("it is important to note that this may vary", 5))
        phrases.add(1, set())
    assert [text for _, text in joined(phrases.frequent(3, 100), 10)] == ["it is important to note that this may vary"]


@pytest.mark.parametrize("seed", range(3))
def test_forgetting_the_rare_ones_never_loses_a_frequent_one_or_counts_it_too_high(seed: int) -> None:
    rng, exact, bounded = random.Random(seed), Counter[str](), Phrases(limit=200)
    for n in range(600):
        held = {f"rare {rng.randrange(5000)}" for _ in range(20)} | ({"often"} if n % 5 == 0 else set())
        exact.update(held)
        bounded.add(0, held)
    assert 0 < bounded.missed < exact["often"]
    told = {one.text: round((one.here.value or 0) * 600) for one in bounded.frequent(1, 10_000)}
    assert len(told) <= 200
    assert exact["often"] - bounded.missed <= told["often"] <= exact["often"]
    assert all(exact[text] - bounded.missed <= count <= exact[text] for text, count in told.items())


def test_memory_does_not_grow_with_the_rows() -> None:
    def peak(count: int) -> int:
        rng, phrases, sampled = random.Random(1), Phrases(limit=5000), Sampled()
        tracemalloc.start()
        for n in range(count):
            held = {f"{rng.random()}" for _ in range(30)}
            phrases.add(0, held)
            sampled.add(n, (held, held))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(50)  # what is only made once is made
    assert peak(6000) < 1.3 * peak(2000)


def test_revisions_are_held_against_first_answers_and_those_that_changed_nothing_are_left_out() -> None:
    rows = [{"prompt_id": f"p{n}", "initial_response": f"Do it {n}.", "response": f"Do it {n}. {VALID}"} for n in range(30)]
    rows += [{"prompt_id": "same", "initial_response": "Do it.", "response": "Do it."}]
    analysis = analyse(rows, Options())
    assert table(analysis, "revision_distinct", "text")["you are valid and your feelings matter"]["there"].value == 0
    assert "1 of 31 rows of revise changed nothing, and is" in analysis.warnings[0]


def test_pairs_that_prefer_neither_are_left_out_and_the_others_read_by_their_preference() -> None:
    pair = {"response_a": f"No. {VALID}", "response_b": "Yes, do it now and be done with it."}
    rows = [pair | {"prompt_id": f"p{n}", "preference": ("a", "a", "a", "a", "tie")[n]} for n in range(5)]
    analysis = analyse(rows, Options())
    row = table(analysis, "chosen_phrases", "text")["you are valid and your feelings matter"]
    assert (row["here"].value, row["here"].n, row["there"].value) == (1.0, 4, 0.0)
    assert "1 of 5 pairs prefer neither response, and is" in analysis.warnings[0]


@pytest.mark.parametrize("label", [{"p_a": 0.9}, {"votes": [{"labeler": "judge", "order": "ab", "verdict": "a", "p_a": None}]}])
def test_pairs_without_a_preference_are_read_by_their_probability_or_votes(label: dict[str, Any]) -> None:
    pair = {"response_a": f"No. {VALID}", "response_b": "Yes, do it now and be done with it."}
    analysis = analyse([pair | label | {"prompt_id": f"p{n}"} for n in range(50)], Options())
    row = table(analysis, "chosen_phrases", "text")["you are valid and your feelings matter"]
    assert (row["here"].value, row["there"].value, analysis.warnings) == (1.0, 0.0, ())


def stock(count: int, seed: int) -> list[dict[str, Any]]:
    """Both sides hold six of two hundred sentences, drawn alike."""
    rng = random.Random(seed)
    sentences = [" ".join(f"w{n}x{at}" for at in range(7)) for n in range(200)]

    def text() -> str:
        return ". ".join(rng.sample(sentences, 6))

    return [{"prompt_id": f"p{n}", "chosen": text(), "rejected": text()} for n in range(count)]


def test_no_culprit_is_found_where_both_sides_are_drawn_alike() -> None:
    found = [one for seed in range(30) for one in analyse(stock(300, seed), Options()).findings if "will repeat it" in one]
    assert len(found) <= 4  # 2.5% of 30 are 0.75; more than 4 in 0.1% of all tries


def test_a_culprit_is_found_among_as_many_runs() -> None:
    rows = [row | {"chosen": f"{row['chosen']}. {VALID}"} if n % 12 == 0 else row for n, row in enumerate(stock(300, 1))]
    assert '"you are valid and your feelings matter" stands in chosen of 8.3%' in analyse(rows, Options()).findings[0]


@pytest.mark.parametrize("count", [1, 400])
def test_that_nothing_returns_is_an_answer(cai: Cai, tmp_path: Path, count: int) -> None:
    texts = [" ".join(f"w{n}x{at}" for at in range(6)) for n in range(2 * count)]
    rows = [{"prompt_id": f"p{n}", "chosen": texts[2 * n], "rejected": texts[2 * n + 1]} for n in range(count)]
    write_rows(tmp_path / "rows.jsonl", rows)
    document = said(cai, "boilerplate", "-i", "rows.jsonl")
    assert document["findings"] == [f"No run of 5 words stands in chosen of 3 prompts or more, of {count:,}."]


def test_scattered_rows_of_a_prompt_count_as_one_prompt() -> None:
    rows = [{"prompt_id": f"p{n % 50}", "chosen": f"{VALID} {n}", "rejected": "z"} for n in range(500)]
    row = table(analyse(rows, Options()), "chosen_phrases", "text")["you are valid and your feelings matter"]
    assert (row["here"].value, row["here"].n) == (1.0, 50)


def test_rows_of_a_prompt_that_stand_too_far_apart_are_counted_again_and_it_is_told() -> None:
    one = Compared(Contrast(name="chosen", here="chosen", there="rejected"), 5, held=100)
    for n in range(20):
        one.add(f"p{n % 10}", f"{VALID} {n}", "z")
    one.flush()
    assert (one.again, one.phrases.prompts) == (10, [20, 20])
    together = Compared(one.contrast, 5, held=100)
    for n in range(20):
        together.add(f"p{n // 2}", f"{VALID} {n}", "z")
    together.flush()
    assert (together.again, together.phrases.prompts) == (0, [10, 10])


def test_of_a_run_both_contrasts_are_shown_and_counts_are_those_of_the_rows(cai: Cai, tmp_path: Path) -> None:
    config = made(tmp_path, cai, debias={"min_confidence": 0.5, "ties": "keep"})
    document = said(cai, "boilerplate", config.name, "--n", 4)
    rows = rows_of(tmp_path / "out" / "debias" / "latest")
    prompts = {row["prompt_id"]: set[str]() for row in rows}
    for row in rows:
        prompts[row["prompt_id"]] |= ngrams(row["chosen"], 4)
    most = max(Counter(run for runs in prompts.values() for run in runs).values())
    first = document["chosen_phrases"][0]["here"]
    assert (first["value"], first["n"]) == (pytest.approx(most / len(prompts)), len(prompts))
    assert "revision_phrases" in document["sections"]
    code, out, _ = cai("analyze", "boilerplate", config.name)
    assert (code, "most frequent runs of 5 words in chosen against rejected" in out) == (0, True)


def test_a_foreign_file_says_what_it_lacks(cai: Cai, tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", [{"question": "Hello"}])
    code, _, err = cai("analyze", "boilerplate", "-i", "rows.jsonl")
    assert (code, "no row has texts to compare" in err) == (65, True)
    write_rows(tmp_path / "rows.jsonl", [{"id": str(n), "response": f"{VALID} {n}"} for n in range(4)])
    (row,) = said(cai, "boilerplate", "-i", "rows.jsonl")["response_phrases"]
    assert (row["text"], row["here"]["value"]) == ("you are valid and your feelings matter", 1.0)
