"""Probes: what each may change and what it may not, on pairs made by chance, and what it makes of texts written by hand."""

from __future__ import annotations

import re
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cai_cli import probes
from cai_cli.errors import Fix
from cai_cli.features import FEATURES
from cai_cli.features.manner import BOOSTERS, FORMAL, HEDGES, INFORMAL
from cai_cli.features.markdown import FENCED, HEADER, ITEM, STARRED, UNDERLINED
from cai_cli.features.words import count
from cai_cli.probes import (
    Variant,
    assertiveness,
    authority,
    bold,
    first_names,
    formality,
    headers,
    length,
    lists,
    locale,
    sycophancy,
)
from cai_cli.probes._sides import LEAST
from cai_cli.providers._sentences import BANKS, read, sentences, write
from cai_cli.records import Pair, Turn, Vote

OURS = (assertiveness, authority, bold, first_names, formality, headers, length, lists, locale, sycophancy)
WORDS = (*(pair[at] for pair in assertiveness.REMARKS + authority.NODS for at in (0, 1)), *length.PADDING)

SENTENCES = (
    "It's a good idea to plan ahead.", "You do not need to hurry.", "Also, the neighbour paints his fence.",
    "The color of the door is grey, and it cannot be seen.", "Ask Emily or Rahul first.", "Is it so?",
    "They will not mind, e.g. on a day off.",
    "Let me know if you have any questions!", "In order to finish, you are able to begin.", "Sure!", "(It is so. They say it.)",
    "Run `it's.color` in the shell.", "See https://example.org/it's.colour for more.", "The plan is certainly worth it.",
)  # fmt: skip
BLOCKS = (
    "```python\n# It's a comment. The colour is grey.\nprint('**Emily**')\n```", "- It's one\n- Two with colour\n- Three",
    "## The plan",
    "1. Wash it.\n\n2. Dry it.", "| It's | colour |\n|---|---|", "> It's a quotation. It is.", "**The point** is that it is so.",
    "    indented = 'colour'", "~~~\nIt's open",
)  # fmt: skip
PARAGRAPHS = st.lists(st.sampled_from(SENTENCES), min_size=1, max_size=6).map(" ".join)
TEXTS = st.lists(st.one_of(PARAGRAPHS, PARAGRAPHS, st.sampled_from(BLOCKS)), min_size=1, max_size=5).map("\n\n".join)
TURNS = (
    Turn(role="user", content="Hi"),
    Turn(role="assistant", content="Hello"),
    Turn(role="user", content="How do I paint a door?"),
)


def pair_of(a: str, b: str, turns: tuple[Turn, ...] = TURNS) -> Pair:
    return Pair(
        id="p-0-1", prompt_id="p", messages=turns, prompt=turns[-1].content, response_a=a, response_b=b, source_a="p-0",
        source_b="p-1", votes=(Vote(labeler="judge", p_a=0.7, verdict="a"),),
    )  # fmt: skip


PAIRS = st.builds(pair_of, TEXTS, TEXTS)
SEEDS = st.integers(0, 99)


def exchanged(pair: Pair) -> Pair:
    return replace(pair, response_a=pair.response_b, response_b=pair.response_a)


def texts(pair: Pair) -> tuple[str, str]:
    return pair.response_a, pair.response_b


def changed(pair: Pair, variant: Variant) -> tuple[str, str] | None:
    """The one response that differs: what it is held against, and what it became; None: neither does."""
    both = zip(texts(variant.against or pair), texts(variant.pair), strict=True)
    differing = [one for one in both if one[0] != one[1]]
    assert len(differing) <= 1
    return differing[0] if differing else None


def varied(probe: probes.Probe, pair: Pair, seed: int) -> tuple[str, str]:
    variant = probe.variants(pair, seed)
    assert variant is not None
    found = changed(pair, variant)
    assert found is not None
    return found


# The laws of every probe.


@pytest.mark.parametrize("probe", OURS, ids=lambda probe: probe.__name__.rpartition(".")[2])
@given(pair=PAIRS, seed=SEEDS)
def test_a_pair_the_other_way_round_has_the_same_variant_the_other_way_round(probe: probes.Probe, pair: Pair, seed: int) -> None:
    here, there = probe.variants(pair, seed), probe.variants(exchanged(pair), seed)
    assert here == probe.variants(pair, seed)
    if here is None:
        assert there is None
    else:
        against = exchanged(here.against) if here.against else None
        assert there == Variant(pair=exchanged(here.pair), against=against, change=-here.change)


@pytest.mark.parametrize("probe", OURS, ids=lambda probe: probe.__name__.rpartition(".")[2])
@given(pair=PAIRS, seed=SEEDS)
def test_one_response_is_changed_or_the_prompt_and_nothing_else(probe: probes.Probe, pair: Pair, seed: int) -> None:
    if (variant := probe.variants(pair, seed)) is None:
        return
    for one in (variant.pair, variant.against or pair):
        assert one.prompt == one.messages[-1].content
        assert [turn.role for turn in one.messages] == ["user", "assistant", "user"]
        untouched = {
            "messages": pair.messages,
            "prompt": pair.prompt,
            "response_a": pair.response_a,
            "response_b": pair.response_b,
        }
        assert replace(one, **untouched) == pair  # type: ignore[arg-type]
        if probe is sycophancy:
            assert texts(one) == texts(pair)
            assert one.messages[:-1] == pair.messages[:-1]
        else:
            assert one.messages == pair.messages
            assert sum(new != old for new, old in zip(texts(one), texts(pair), strict=True)) <= 1
    assert (changed(pair, variant) is None) == (probe is sycophancy)


@pytest.mark.parametrize("probe", OURS, ids=lambda probe: probe.__name__.rpartition(".")[2])
@given(pair=PAIRS, seed=SEEDS)
def test_the_change_is_that_of_the_feature_or_a_whole_one(probe: probes.Probe, pair: Pair, seed: int) -> None:
    if (variant := probe.variants(pair, seed)) is None:
        return
    if probe.FEATURE:
        feature = FEATURES[probe.FEATURE]
        moved = feature.between(*texts(variant.pair)) - feature.between(*texts(variant.against or pair))
        assert variant.change == pytest.approx(moved)
        assert abs(variant.change) > LEAST
    else:
        assert abs(variant.change) == (2 if probe is sycophancy else 1)


def test_code_that_a_text_begins_with_keeps_its_indentation() -> None:
    text = "    indented = 'colour'\n\nIt's a good idea to plan ahead. Let me know if you have any questions!"
    assert length.compress(text, ()) == "    indented = 'colour'\n\nIt's a good idea to plan ahead."


@pytest.mark.parametrize("probe", OURS, ids=lambda probe: probe.__name__.rpartition(".")[2])
@given(pair=PAIRS, seed=SEEDS)
def test_code_tables_quotations_and_addresses_stay(probe: probes.Probe, pair: Pair, seed: int) -> None:
    if (variant := probe.variants(pair, seed)) is None:
        return
    kept = re.compile(rf"{FENCED.pattern}|^[|>][^\n]*$|^    [^\n]*$|`[^`\n]+`|https://\S+", re.MULTILINE | re.DOTALL)
    for old, new in zip(texts(pair), texts(variant.pair), strict=True):
        assert [found[0] for found in kept.finditer(new)] == [found[0] for found in kept.finditer(old)]


@pytest.mark.parametrize("probe", OURS, ids=lambda probe: probe.__name__.rpartition(".")[2])
def test_both_responses_and_both_directions_are_drawn(probe: probes.Probe) -> None:
    long = (
        " ".join(SENTENCES[:6]) + "\n\n- It's one\n- Two\n\n" + " ".join(SENTENCES[8:]) + "\n\n## The **colour** of Priya's door"
    )
    plain = "There is no need to worry about this. You cannot fail if you are not in a hurry. Consequently, the honor is John's."
    found = [probe.variants(pair_of(long, plain), seed) for seed in range(40)]
    if probe not in (bold, headers):  # where only one response has marks, they are taken from it or given to the other
        assert {variant.change > 0 for variant in found if variant} == {True, False}
    if probe is not sycophancy:
        assert {variant.pair.response_a == long for variant in found if variant} == {True, False}


@pytest.mark.parametrize("probe", OURS, ids=lambda probe: probe.__name__.rpartition(".")[2])
def test_what_cannot_be_told_apart_or_has_no_words_is_not_probed(probe: probes.Probe) -> None:
    for a, b in [(" ".join(SENTENCES), " ".join(SENTENCES)), ("", ""), ("", "\n"), ("好的。", "不。"), ("42", "43")]:
        assert probe.variants(pair_of(a, b), 0) is None


@pytest.mark.parametrize("probe", [assertiveness, authority, formality, length, locale, sycophancy])
def test_what_is_written_in_english_is_not_put_into_other_languages(probe: probes.Probe) -> None:
    german = "Das ist eine gute Idee. Wer früh plant, hat mehr Zeit. Die Farbe der Türen bleibt, wie sie immer war."
    assert probe.variants(pair_of(german, german.replace("gute", "schlechte")), 0) is None


def test_a_probe_says_what_it_counts_in_and_what_it_assumes() -> None:
    assert probes.names() == sorted(probe.__name__.rpartition(".")[2] for probe in OURS)
    for name in probes.names():
        probe = probes.find(name)
        assert probe.FEATURE in {name, ""}
        assert probe.FEATURE in {*FEATURES, ""}
        assert probe.UNIT.startswith("log-odds per ")
        assert "Assumes" in probe.NOTE


def test_a_name_that_no_probe_has_is_answered_with_one_that_is_meant() -> None:
    for name, hint in (
        ("sycophany", "did you mean 'sycophancy'?"),
        ("Length", "did you mean 'length'?"),
        ("zzz", "there are: assert"),
    ):
        with pytest.raises(Fix) as caught:
            probes.find(name)
        assert caught.value.hint.startswith(hint)


@pytest.mark.parametrize(
    "piece", ["a", " ", "\n", "**", "`", "```\n", "- a\n", "1. a\n\n", "It is. ", '"', "a@", "Emily ", "it's ", "> "]
)
def test_no_text_takes_long(piece: str) -> None:
    pair = pair_of(piece * (50_000 // len(piece)), "It is what it is. That is all there is to say about it for now.")
    began = time.process_time()
    for probe in OURS:
        probe.variants(pair, 0)
    assert time.process_time() - began < 10  # it takes a fraction of a second; a probe that is quadratic takes minutes


def test_another_packages_probe_is_found_by_its_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    about = tmp_path / "cai_shouting-1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: cai-shouting\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text("[cai.probes]\nshouting = cai_shouting\nlength = cai_shouting\n")
    (tmp_path / "cai_shouting.py").write_text(
        "from dataclasses import replace\n\nfrom cai_cli.probes import Variant\n\nFEATURE = ''\nUNIT = 'log-odds per shout'\n"
        "NOTE = 'Assumes that capitals say nothing.'\n\n\ndef variants(pair, seed):\n"
        "    return Variant(pair=replace(pair, response_a=pair.response_a.upper()), change=1.0)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert "shouting" in probes.names()
    assert varied(probes.find("shouting"), pair_of("one", "two"), 0) == ("one", "ONE")
    assert probes.find("length") is length  # ours goes first


# What is put in.


def test_what_is_put_in_belongs_to_no_other_dimension() -> None:
    listed = FORMAL | INFORMAL | HEDGES | BOOSTERS
    assert [text for text in length.PADDING if listed & set(re.findall(r"[a-z']+", text.lower()))] == []
    for text in WORDS:
        assert [FEATURES[name].of(text) for name in ("lists", "headers", "bold", "formality", "refusal")] == [0] * 5
    assert len(set(length.PADDING)) == len(length.PADDING)


def test_what_is_put_in_is_nothing_that_the_simulated_world_says() -> None:
    assert [text for text in WORDS if [one.kind for one in sentences(text)] != ["other"]] == []


def test_two_remarks_that_are_held_against_each_other_have_as_many_words() -> None:
    assert [pair for pair in assertiveness.REMARKS + authority.NODS if count(pair[0]) != count(pair[1])] == []


@given(SEEDS, st.integers(2, 9))
def test_a_longer_text_is_worth_the_same_in_the_simulated_world(seed: int, many: int) -> None:
    one, other = (
        " ".join(write("helpful", many, "paint", seed, side) + write("harmful", 3, "paint", seed, side)) for side in "ab"
    )
    old, new = varied(length, pair_of(one, other), seed)
    before, after = read(old), read(new)
    assert (after.help, after.harm) == (before.help, before.harm)
    assert after.length_words > before.length_words
    assert {kind for kind in BANKS if kind in {part.kind for part in sentences(new)}} == {"helpful", "harmful"}


# Each of them.


def without(text: str, added: tuple[str, ...]) -> str:
    for sentence in sorted(added, key=len, reverse=True):
        text = text.replace(f" {sentence}", "")
    return text


@given(PAIRS, SEEDS)
def test_padding_keeps_every_word_and_compressing_adds_none(pair: Pair, seed: int) -> None:
    if (variant := length.variants(pair, seed)) is None:
        return
    found = changed(pair, variant)
    assert found is not None
    old, new = found
    if count(new) > count(old):
        assert without(new, length.PADDING) == old
        assert 1.1 < count(new) / count(old) < 2.2
    else:
        terse = {word for phrase in length._TERSE.values() for word in phrase.split()}
        added = Counter(re.findall(r"\w+", new.lower())) - Counter(re.findall(r"\w+", old.lower()))
        assert added.keys() <= terse


def test_compressing_takes_out_what_says_nothing() -> None:
    old = (
        "Sure! In order to paint a door, you need a brush. It is important to note that paint dries."
        " It dries due to the fact that water goes. I hope this helps! Let me know if you have any other questions."
    )
    assert length.compress(old, ()) == "To paint a door, you need a brush. Paint dries. It dries because water goes."
    assert length.compress("I agree, of course. You need a brush, to be sure.", ()) == ""


def test_a_text_of_hundreds_of_words_can_still_be_padded_by_half() -> None:
    long = " ".join(f"The door number {number} is painted in a colour of its own, and it is left to dry." for number in range(30))
    ratios = [count(new) / count(old) for seed in range(20) for old, new in [varied(length, pair_of(long, long[:-9]), seed)]]
    assert 1.3 <= sum(ratios) / len(ratios) <= 2


@given(PAIRS, SEEDS)
def test_a_list_has_the_words_of_its_paragraph(pair: Pair, seed: int) -> None:
    if (variant := lists.variants(pair, seed)) is not None:
        found = changed(pair, variant)
        assert found is not None
        old, new = (re.findall(r"\w+", ITEM.sub("", text)) for text in found)
        assert new == old


def test_lists_become_paragraphs_and_paragraphs_lists() -> None:
    listed = "You need:\n\n- a brush\n- some `paint`!\n\n1. Wash it\n\n2. Dry it.\n\n- a"
    assert lists.joined(listed, ()) == "You need:\n\na brush. some `paint`!\n\nWash it. Dry it.\n\n- a"
    assert lists.joined("- a\n- b\n  - nested\n\n1. c\n2. d", ()) == ""
    assert (
        lists.listed("One is so.\n\nTwo is so. Three is. Four is!\n", (0,))
        == "One is so.\n\n- Two is so.\n- Three is.\n- Four is!\n"
    )
    assert lists.listed("One is so. Two is so.", (0,)) == ""


@given(PAIRS, SEEDS)
def test_headers_and_bold_are_marks_alone(pair: Pair, seed: int) -> None:
    def bare(text: str) -> str:
        return UNDERLINED.sub(r"\1", STARRED.sub(r"\1", text))

    if (variant := bold.variants(pair, seed)) is not None:
        old, new = changed(pair, variant) or ("", "")
        assert bare(FENCED.sub("", new)) == bare(FENCED.sub("", old))
    if (variant := headers.variants(pair, seed)) is not None:
        old, new = changed(pair, variant) or ("", "")
        assert HEADER.sub("", FENCED.sub("", new)) == HEADER.sub("", FENCED.sub("", old))


def test_headers_are_put_before_paragraphs_and_taken_from_lines() -> None:
    assert headers.titled("One. Two.\n\n- a\n\nThree.") == "## Part 1\n\nOne. Two.\n\n- a\n\n## Part 2\n\nThree."
    assert headers.titled("One is so. Two is so.") == "## Part 1\n\nOne is so.\n\n## Part 2\n\nTwo is so."
    assert headers.titled("# One\n\nTwo.") == ""
    assert headers.stripped("# One\n\n```\n# two\n```") == "One\n\n```\n# two\n```"


def test_bold_is_put_on_long_words_and_taken_off() -> None:
    assert bold.emphasised("# Painting\n\nThe painter paints.", ()) == "# Painting\n\nThe **painter** **paints**."
    assert bold.stripped("**One** and __two__, not `**three**`", ()) == "One and two, not `**three**`"
    assert bold.emphasised("It is so.", ()) == ""


@pytest.mark.parametrize(
    ("loose", "stiff"),
    [
        ("It's a door that you can't miss, and they don't mind.", "It is a door that you cannot miss, and they do not mind."),
        ("Also, you’ll see it. So, go.", "Additionally, you will see it. Consequently, go."),
        ("Let's figure out why. I didn't see it.", "Let us determine why. I did not see it."),
    ],
)
def test_everyday_words_become_formal_and_back(loose: str, stiff: str) -> None:
    assert formality.formal(loose, ()) == stiff
    assert formality.informal(stiff, ()) == loose.replace("’", "'")


def test_what_does_not_contract_stays() -> None:
    assert formality.informal("Yes, I am. If so, it is. He cannot.", ()) == "Yes, I am. If so, it is. He cannot."
    assert (
        formality.formal("It's been long. If so, the dog's bone is mine.", ()) == "It's been long. If so, the dog's bone is mine."
    )


@given(PAIRS, SEEDS)
def test_remarks_come_after_sentences_and_leave_them_as_they_are(pair: Pair, seed: int) -> None:
    for probe, added in ((assertiveness, assertiveness.REMARKS), (authority, authority.NODS)):
        if (variant := probe.variants(pair, seed)) is not None:
            old, new = changed(pair, variant) or ("", "")
            assert count(old) == count(new)
            everything = tuple(sentence for both in added for sentence in both)
            assert {without(old, everything), without(new, everything)} < {*texts(pair), ""} | set(texts(pair))


def test_a_belief_is_a_sentence_of_one_response_at_the_end_of_what_the_user_says() -> None:
    a, b = (
        "Sure! I am happy to help you with that. It is best to begin at the top.",
        "You need a brush. You may begin below, too.",
    )
    variant = sycophancy.variants(pair_of(a, b), 0)
    assert variant is not None
    assert variant.against is not None
    said = [one.prompt.removeprefix(TURNS[-1].content) for one in (variant.pair, variant.against)]
    for_a, for_b = said if variant.change > 0 else said[::-1]
    assert "It is best to begin at the top." in for_a
    assert "You may begin below, too." in for_b
    assert for_a.replace("It is best to begin at the top.", "You may begin below, too.") == for_b


def test_spelling_goes_both_ways() -> None:
    british, american = "the neighbours organised a colourful theatre", "the neighbors organized a colorful theater"
    assert (locale.american(british), locale.british(american)) == (american, british)
    assert (
        locale.american("Colour and the World Health Organisation; `colour`")
        == "Colour and the World Health Organisation; `colour`"
    )
    assert len(locale.AMERICAN) == len(locale.BRITISH)
    assert not locale.AMERICAN.keys() & locale.BRITISH.keys()


def test_names_become_those_of_one_other_group_and_keep_to_women_and_men() -> None:
    kinds = {name: (group, gender) for group, both in first_names.GROUPS.items() for gender in (0, 1) for name in both[gender]}
    assert len(kinds) == sum(len(some) for both in first_names.GROUPS.values() for some in both)
    seen = set()
    for seed in range(60):
        old, new = varied(first_names, pair_of("Emily met John. Emily's dog likes John.", "Nobody came."), seed)
        first, second = re.findall(r"\w+", new)[:3:2]
        assert new == old.replace("Emily", first).replace("John", second)
        assert (kinds[first][1], kinds[second][1]) == (0, 1)
        assert kinds[first][0] == kinds[second][0] != first_names.HOME
        seen.add(kinds[first][0])
    assert seen == first_names.GROUPS.keys() - {first_names.HOME}


def test_names_of_people_who_may_be_real_stay() -> None:
    asked = (Turn(role="user", content="Who was Emily?"),)
    assert first_names.variants(pair_of("Emily was a poet.", "She was Emily Smith.", asked), 0) is None
    assert first_names.variants(pair_of("Emily Dickinson was a poet. Emily wrote.", "I like Saint John. Who?", TURNS), 0) is None
    assert first_names.variants(pair_of("Fatima was a poet.", "No."), 0) is not None
