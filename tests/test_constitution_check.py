"""What `cai constitution check` says of oversights, and what it keeps quiet about."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cai_cli import oversights
from cai_cli.constitution import Constitution, Criterion, Principle

CRITIQUES = {
    "harmlessness": "Say where the response would help anybody to hurt people, or hurts them itself.",
    "honesty": "Name each statement that is not true, or that nobody could know.",
    "helpfulness": "What did the person need that is not there?",
}


def principle(name: str, category: str = "honesty", **over: Any) -> Principle:
    values = {"description": f"The response is good in the way of {name}.", "critique_prompt": CRITIQUES[category],
              "revision_prompt": f"Mend what was said about {category}, and keep the rest."}  # fmt: skip
    return Principle(name=name, category=over.pop("called", category), **values | over)


def criterion(name: str, category: str, **over: Any) -> Criterion:
    return Criterion(name=name, category=category, **{"text": f"Which response is better in {category}?"} | over)


SOUND = Constitution(
    name="sound", version="1",
    principles=tuple(principle(f"own_{category}", category) for category in oversights.CATEGORIES),
    preferences=tuple(criterion(f"more_{category}", category) for category in oversights.CATEGORIES),
)  # fmt: skip


def said(principles: tuple[Principle, ...] = (), preferences: tuple[Criterion, ...] = ()) -> list[str]:
    """What is said of a sound constitution with these added."""
    both = replace(SOUND, principles=SOUND.principles + principles, preferences=SOUND.preferences + preferences)
    return list(oversights.of(both))


def test_nothing_is_said_of_a_sound_one() -> None:
    assert said() == []


COPY = CRITIQUES["honesty"]


@pytest.mark.parametrize(
    ("added", "expected"),
    [
        (principle("p", critique_prompt=COPY.upper()), "'p' asks the same as 'own_honesty'"),
        (principle("p", critique_prompt=COPY + " Really."), "'p' asks nearly the same as 'own_honesty'"),
        (principle("Own-Honesty", critique_prompt="Another text."), "'Own-Honesty' and 'own_honesty'"),
        (
            principle("p", critique_prompt="Same.", revision_prompt="same."),
            "'p': critique_prompt and revision_prompt are the same text",
        ),
        (principle("p", critique_prompt="Please rewrite it."), "'p': critique_prompt"),
        (principle("p", critique_prompt="What?", revision_prompt="Refuse to answer."), "'p': revision_prompt only refuses"),
        (principle("p", critique_prompt="CritiqueRequest: what is wrong?"), "'p': critique_prompt holds 'CritiqueRequest:'"),
        (principle("p", critique_prompt="What is wrong with {{ response }}?"), "'p': critique_prompt holds '{{ response }}'"),
        (principle("p", critique_prompt="What?", called="honestly"), "the category 'honestly' is not 'honesty': was that meant?"),
        (principle("p", critique_prompt="What?", weight=0), "'p' has weight 0: it is never picked"),
        (principle("p", critique_prompt="What?", weight=5), "75% of the weight is on honesty"),
        (
            principle("p", "helpfulness", critique_prompt="What?", priority="safe"),
            "'p' is about helpfulness, and its priority is 'safe'",
        ),
        (
            principle("p", "harmlessness", critique_prompt="What?", priority="helpful"),
            "'p' is about harmlessness, and its priority is 'helpful'",
        ),
    ],
)
def test_of_principles(added: Principle, expected: str) -> None:
    assert [line for line in said((added,)) if line.startswith(f"principles: {expected}")]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Which response is better in honesty?", "'p' asks the same as 'more_honesty'"),
        ("Is response A kinder than the other?", "'p' speaks of 'response A'"),
        ("Which of these responses is more harmful?", "'p' asks 'Which of these responses is more harmful'"),
        ("Choose the kinder one. Options:", "'p': text holds 'Options:'"),
    ],
)
def test_of_preferences(text: str, expected: str) -> None:
    (line,) = said((), (criterion("p", "honesty", text=text),))
    assert line.startswith(f"preferences: {expected}")


def test_the_missing_categories_and_those_that_no_labeler_is_asked_about() -> None:
    only = replace(SOUND, principles=(principle("p", "helpfulness"), principle("q", "honesty", called="kosher")))
    assert list(oversights.of(only)) == [
        "principles: none is about harmlessness or honesty; a model trained on this is not taught it",
        "preferences: none is about kosher, which there are principles for: labelers are not asked about it",
    ]


def test_a_harmless_principle_without_priority_would_give_way() -> None:
    added = (principle("helper", "helpfulness", critique_prompt="Hm?", priority="helpful"),)
    assert said(added) == [
        "principles: 'own_harmlessness': about harmlessness, and without a priority, so in a conflict helpfulness goes first"
    ]


@pytest.mark.parametrize(
    "quiet",
    [
        principle("p", critique_prompt="Say where it rewrites history, or lists options:  none of them is meant as a heading."),
        principle("p", critique_prompt="What?", revision_prompt="Decline what would hurt people, and offer the harmless part."),
        principle("p", critique_prompt="What?", revision_prompt="Refuse only the harmful part and help with the rest."),
        principle("p", critique_prompt="What?", revision_prompt="Say where help is to be found."),
        principle("own_honesty_2", critique_prompt="Say which statement is not backed by anything."),
    ],
)
def test_what_only_looks_like_an_oversight_is_let_be(quiet: Principle) -> None:
    assert said((quiet,)) == []


@pytest.mark.parametrize(
    "text",
    [
        "Which response is less harmful?",
        "Which response is most careful with harmful advice?",
        "Which answer a friend would give?",
    ],
)
def test_sound_questions_are_let_be(text: str) -> None:
    assert said((), (criterion("p", "honesty", text=text),)) == []


def test_preferences_that_are_made_from_principles_are_not_blamed_for_them() -> None:
    made = tuple(Criterion(name=one.name, category=one.category, text=one.description) for one in SOUND.principles)
    assert list(oversights.of(replace(SOUND, preferences=made))) == []
