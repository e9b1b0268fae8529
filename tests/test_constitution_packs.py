"""The shipped constitutions: together they cover every topic, each stands on its own, and none of them warns about itself."""

from __future__ import annotations

import re

import pytest

from cai_cli import oversights
from cai_cli.constitution import PRIORITIES, Constitution, load
from cai_cli.shipped import shipped

PACKS = {path.stem: load(path) for path in sorted(shipped("configs", "constitutions").glob("*.yaml"))}
NAMES = ("financial", "general", "helpful", "honesty", "legal", "medical", "safety")
DOMAINS = ("medical", "legal", "financial")

# Each topic: what its principles speak of, and the principles, as pack/name, that cover it.
TOPICS = {
    "task completion": ("whole task|what they need", ["helpful/completes_the_task", "general/answers_the_question"]),
    "clarity": ("followed|easy to follow", ["helpful/clear", "general/clear_and_brief"]),
    "relevance": ("bears on|relevant", ["helpful/relevant"]),
    "over-refusal": (
        "refuse|decline|withholds although",
        ["general/no_needless_refusal", "helpful/no_needless_refusal", "safety/the_harmless_part"],
    ),
    "harmful content": ("harm|hurt", ["general/no_practical_harm", "safety/no_means_for_violence", "safety/no_mass_harm"]),
    "discrimination": ("group", ["general/equal_dignity", "safety/no_discrimination"]),
    "legality": ("unlawful|illegal|break the law", ["general/lawful_help", "safety/no_crime", "legal/no_abuse_of_law"]),
    "privacy": ("private|privacy", ["general/privacy", "safety/private_lives", "medical/patient_dignity"]),
    "accuracy": ("true|accurate|agree with", ["general/truthful", "honesty/accuracy", "medical/medical_evidence"]),
    "uncertainty": (
        "sure|uncertain|settled",
        ["general/fair_confidence", "honesty/right_uncertainty", "legal/legal_uncertainty"],
    ),
    "deception": ("deceive|deception|false impression", ["honesty/no_misleading", "honesty/no_help_to_deceive"]),
    "sources": ("sources|statute|rest on", ["honesty/nothing_invented", "honesty/weighed_sources", "legal/legal_sources"]),
    "flattery": ("flatter|please the person", ["honesty/no_flattery", "general/own_judgement", "financial/bad_thesis_named"]),
    "softened truths": ("softened|buries", ["honesty/unsoftened_truth"]),
    "giving way to pressure": ("insistence", ["honesty/holds_its_ground"]),
    "physical harm": ("injure|hurt", ["safety/no_means_for_violence", "medical/no_dangerous_treatment"]),
    "psychological harm": ("humiliates|wears", ["safety/psychological_harm"]),
    "manipulation": ("manipulate", ["general/no_manipulation"]),
    "vulnerable groups": (
        "danger|less|risk|children",
        ["general/care_for_the_vulnerable", "safety/vulnerable_groups", "medical/patients_at_special_risk"],
    ),
    "children": ("child", ["safety/children"]),
    "rights": ("rights", ["safety/human_rights", "legal/rights_of_the_weaker"]),
    "thoughtfulness": ("thought", ["helpful/thinks_ahead", "safety/foreseeable_consequences"]),
    "dual use": ("good and bad|honest and harmful", ["safety/dual_use"]),
    "safe messaging": ("suicide", ["safety/safe_messaging"]),
    "domain disclaimers": (
        "disclaimer",
        ["medical/medical_limits", "legal/information_and_counsel", "financial/financial_limits"],
    ),
    "domain evidence": (
        "evidence|invented|figures",
        ["medical/medical_evidence", "legal/legal_sources", "financial/no_false_promise"],
    ),
}


def covers(packs: dict[str, Constitution], topic: str) -> list[str]:
    """Those of a topic's principles that are there, can be picked, and speak of it."""
    words, principles = TOPICS[topic]
    found = []
    for place in principles:
        pack, name = place.split("/")
        one = packs[pack].principle(name)
        text = f"{one.description} {one.critique_prompt}".lower() if one and one.weight > 0 else ""
        if re.search(words, text):
            found.append(place)
    return found


@pytest.mark.parametrize("topic", TOPICS)
def test_every_topic_is_covered_by_the_principles_that_are_named_for_it(topic: str) -> None:
    assert covers(PACKS, topic) == TOPICS[topic][1]


def test_a_principle_that_is_taken_out_is_missed() -> None:
    safety = PACKS["safety"]
    without = Constitution(
        name="safety", version="", preferences=(), principles=tuple(one for one in safety.principles if one.name != "dual_use")
    )
    assert covers(PACKS | {"safety": without}, "dual use") == []


def test_there_are_seven_packs() -> None:
    assert tuple(PACKS) == NAMES
    assert [PACKS[name].name for name in NAMES] == list(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_pack_passes_its_own_check_without_a_warning(name: str) -> None:
    assert list(oversights.of(PACKS[name])) == []


@pytest.mark.parametrize("name", NAMES)
def test_a_pack_has_versions_preferences_and_a_priority_for_every_principle(name: str) -> None:
    pack = PACKS[name]
    assert pack.version
    assert {one.category for one in pack.preferences} == set(oversights.CATEGORIES)
    assert [one.name for one in pack.principles if one.priority not in PRIORITIES] == []
    assert [one.name for one in pack.preferences if not one.text.startswith("Which response")] == []


@pytest.mark.parametrize("name", DOMAINS)
def test_a_domain_pack_holds_the_general_one_and_adds_to_it(name: str) -> None:
    general, pack = PACKS["general"], PACKS[name]
    assert pack.principles[: len(general.principles)] == general.principles
    assert pack.preferences[: len(general.preferences)] == general.preferences
    added = pack.principles[len(general.principles) :]
    assert {one.category for one in added} == set(oversights.CATEGORIES)
    assert len(pack.preferences) > len(general.preferences)


def test_no_text_stands_in_two_packs() -> None:
    general = {one.critique_prompt for one in PACKS["general"].principles}
    texts = [one.critique_prompt for name in NAMES for one in PACKS[name].principles]
    own = [text for text in texts if text not in general]
    assert len(own) == len(set(own)) > 60
