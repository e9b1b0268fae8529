"""What a reviser writes around a revision comes off and is kept; what belongs to the answer stays, to the letter."""

from __future__ import annotations

import time

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from cai_cli import openers
from cai_cli.errors import Reject
from cai_cli.openers import Cleaned, clean

CURRENT = "Do it like this. It is easy."
ANSWER = "You should ask first: it is kinder.\n\n- one\n- two"

ON_THE_SAME_LINE = (
    "Revised response:",
    "REVISED RESPONSE:",
    "**Revised response:**",
    "**Revised response**:",
    "Revised answer:",
    "Rewritten version:",
    "Improved response (kinder):",
    "Sure! **Revised response:**",
    "Sure! Here is the revised response:",
    "Of course\u2014here is the revised response:",
    "Okay, here's the updated answer:",
    "Here is the revised response.",
    "I have revised my response to address the critique.",
)
ON_A_LINE_OF_THEIR_OWN = (
    *ON_THE_SAME_LINE,
    "Sure, here is a revised response:",
    "Here's the rewritten version:",
    "Here\u2019s my revised answer, kinder than before:",
    "Revision:",
    "Rewrite:",
    "I've rewritten the response to be safer:",
    "I've rewritten it to be safer:",
    "Here is the revised\nresponse:\n",
    "## Revised response",
    "# **Revised Response**",
    "**Revised Response**",
    "> **Revised response:**",
    "Updated version:",
    "Here's a safer version:",
    "Here is a kinder, more honest answer:",
    "Here is a more balanced response:",
    "Here's a better response:",
    "Here is the response, rewritten to be safer:",
    "Here is a revised, more respectful response:",
    "Here is the revised assistant response:",
    "Here is the revised version, without the stereotype:",
    "Here is the revised response with the insult removed:",
    "Here is a revised response to the user's question:",
    "Here is a revised response that addresses your concerns:",
    "Here is the unchanged response:",
    "Below is a revised version of my previous answer:",
    "The following is the revised response:",
    "My revised response is as follows:",
    "The revised response is below:",
    "Thank you for the feedback. Here is a revised response that takes it into account:",
    "You're right. Here's the improved version:",
    "I apologize for that. Here is my rewrite:",
    "Sure, I can do that! Here is the revised response:",
    "I have revised the response to be safer. Here it is:",
    "Let me rephrase that.",
    "Sure, here's a rewrite.",
    "Here is a revised version of the response that addresses the critique.",
)
ON_PARAGRAPHS_OF_THEIR_OWN = (
    *ON_A_LINE_OF_THEIR_OWN,
    "Revised response",
    "Understood.\n\nRevised response:",
    "Revised response:\n\nHere is the revised response:",
    "Certainly. Below is my revision:\n\n---",
    "Here is the revised response:\n\n***\n\n---",
)
OPENERS = [
    *((opener, " ") for opener in ON_THE_SAME_LINE),
    *((opener, "\n") for opener in ON_A_LINE_OF_THEIR_OWN),
    *((opener, "\r\n") for opener in ON_A_LINE_OF_THEIR_OWN),
    *((opener, "\n\n") for opener in ON_PARAGRAPHS_OF_THEIR_OWN),
]

NOTES = (
    "---\nI removed the insult.",
    "---\n\n**Changes made:**\n\n- Removed the insult\n- Softened the tone",
    "---\nThis revision keeps what was useful.",
    "***\n\nI've also softened the wording.",
    "(I changed the tone to be kinder.)",
    "(*I changed the tone.*)",
    "[Note: the response above has been revised for safety]",
    "Note: I revised the tone.",
    "**Note:** I revised this to be kinder.",
    "*Note: I\u2019ve removed the harmful advice and added a warning.*",
    "Note: This revision keeps what was useful.",
    "This revised response avoids stereotypes and answers the critique.",
)
NOTES_AFTER_AN_OPENER = (
    "I softened the wording.",
    "Changes made:\n- Removed the insult",
    "The revised response is kinder.",
    "This version avoids it.",
    "---",
)

ONLY_META = (
    "The response needs no change.",
    "No changes are needed.",
    "(No changes needed.)",
    "**No revision is needed.**",
    '"No revision is needed."',
    "No revision necessary, as the original response is already safe.",
    "No changes are needed. The response is polite and accurate.",
    "There is nothing to revise.",
    "I cannot revise this response.",
    "I\u2019m unable to rewrite that response.",
    "I'm sorry, but I can't help with revising this response.",
    "The original response is already fine.",
    "The original response is fine as it is.",
    "The response is already harmless and needs no revision.",
    "The response does not need to be revised.",
    "The response remains unchanged.",
    "Here is the revised response:\n\nNo changes are needed.",
)

ANSWERS = (
    "Here is a list:\n- a",
    "Sure, a few ideas:\n- a",
    "Sure.",
    "Here is an updated plan:\n1. go",
    "Here is the corrected sentence:\nI have been there.",
    "Here is a safer way to store bleach:\n- a shelf",
    "Here's a kinder way to say it:\n- a",
    "Here is a more secure version:\n\nx = 1",
    "Here's a shorter version:\n\nThanks, Bo",
    "Here is my response:\n\nNo.",
    "Here is a revision plan:\n- read",
    "Here is a rewrite of your essay:\n\nOnce",
    "Here is a revised version of your letter:\n\nDear Sir",
    "Here is the revised reply to your landlord:\n\nDear Sir",
    "Here is the revised response you can send:\n\nNo.",
    "Here is a revised response for you to send to him:\n\nNo.",
    "Here is a revised answer for your exam:\n\nfour",
    "Here's a better response to give your boss:\n\nNo.",
    "Here's a better response for your boss:\n\nNo.",
    "Here is a more balanced response to the flood:\n- dams",
    "Here is a more polite reply:\n\nDear Sam",
    "Here is the updated server response:\n\n{}",
    "Here is the improved version of your function:\n```python\nx\n```",
    "I've rewritten your letter to be shorter:\n\nDear Sir",
    "I have updated it. The meeting is on Monday.",
    "I have corrected the response time:\n- 20 ms",
    "Let me rephrase that question: why?",
    "The revised tax form asks for more.",
    "The revised version\nof the law takes effect in May.",
    "The revised response time is 20 ms.",
    "Revised editions of the book are out.",
    "Revised response times:\n- 20 ms",
    "Revision: start early.",
    "# Revision\n\nStart early.",
    "# Updated version\n\nNew: colours.",
    "Updated version: 2.1 is out.",
    "Corrected version: I have been there.",
    "Sure, the school has a revised version:\n- a",
    "Certainly! You should ask.",
    "Below is a short answer: yes.",
    "Note:\nfine",
    "Answer: 42",
    "**Revised response: You** should ask.",
    "I can't help with that.",
    "I cannot help with revising your will, but a notary can.",
    "I cannot revise this response, but a teacher can.",
    "I can't edit your file.",
    "No change is needed to your recipe: bake on.",
    "No change is needed, so go on cooking.",
    "No changes are needed. It is ready to bake.",
    "No changes are needed. The answer is 42.",
    "No revision of the treaty is needed.",
    "The response of the crowd was fine.",
    "This reply is already late, so send it today.",
    "This response is already known to chemists: it gives off heat.",
    "He left.\n\n(I changed trains at Crewe.)",
    "Bake it.\n\n(I made this for my children.)",
    "He left.\n\n(I changed the tone.) Then he came back.",
    "He left.\n\n---\nI lifted my hat and wept.",
    "one\n\n---\n\ntwo",
    "one\n\n---",
    "Do this.\n\nNote: I would call first.",
    "Do this.\n\nNote: I removed the wheel first.",
    "Do this.\n\nNote: I added a warning light to the circuit.",
    "Do this.\n\nNote: I changed your wording a bit.",
    "Do this.\n\nI changed the wording in paragraph 2.",
    "Do this.\n\nThe revised response is due in May.",
    "Do this.\n\nThis revision of the statute added a fee.",
    "Do this.\n\nThis version avoids the lock.",
    "Fixed.\n\nChanges made:\n- used a set",
    '"Yes," she said. "Go."',
    "\u201cYes,\u201d she said. \u201cGo.\u201d",
    "```python\nprint(1)\n```",
    "```\na\n```\nb\n```\nc\n```",
    "one\r\n\r\ntwo",
)


def cleaned(text: str, current: str = CURRENT) -> Cleaned:
    return clean(text, "1a2b", current)


def rejection(text: str, current: str = CURRENT) -> str:
    with pytest.raises(Reject) as caught:
        cleaned(text, current)
    return caught.value.reason


def outcome(text: str, current: str = CURRENT) -> Cleaned | str:
    """What comes of it: a revision, or the reason why there is none."""
    try:
        return cleaned(text, current)
    except Reject as rejected:
        return rejected.reason


@pytest.mark.parametrize(("opener", "gap"), OPENERS)
def test_an_opener_comes_off_and_is_kept(opener: str, gap: str) -> None:
    got = cleaned(f"\n{opener}{gap}{ANSWER}\n")
    assert got.revision == ANSWER
    assert got.stripped.split() == opener.split()


@pytest.mark.parametrize("opener", ON_PARAGRAPHS_OF_THEIR_OWN)
def test_an_opener_alone_is_an_empty_revision(opener: str) -> None:
    assert rejection(opener) == "empty_revision"


@pytest.mark.parametrize("note", NOTES)
def test_a_note_about_the_revision_comes_off_and_is_kept(note: str) -> None:
    assert cleaned(f"{ANSWER}\n\n{note}") == Cleaned(revision=ANSWER, stripped=note)


@pytest.mark.parametrize("note", [*NOTES, *NOTES_AFTER_AN_OPENER])
def test_after_an_opener_a_note_needs_no_mark(note: str) -> None:
    opener = "Here is the revised response:\n\n---"
    assert cleaned(f"{opener}\n\n{ANSWER}\n\n{note}") == Cleaned(revision=ANSWER, stripped=f"{opener}\n{note}")
    assert rejection(f"{opener}\n\n---\n\n---") == "empty_revision"


@pytest.mark.parametrize("text", ANSWERS)
def test_what_belongs_to_the_answer_stays(text: str) -> None:
    assert cleaned(text) == Cleaned(revision=text)


@pytest.mark.parametrize("text", ONLY_META)
def test_a_reply_that_only_speaks_of_the_revision_is_none(text: str) -> None:
    assert rejection(text) == "meta_revision"


@pytest.mark.parametrize("text", ["", " \n", '""', "\u201c \u201d", "```\n\n```", "<response-1a2b>\n</response-1a2b>"])
def test_a_reply_that_holds_nothing_is_an_empty_revision(text: str) -> None:
    assert rejection(text) == "empty_revision"


@pytest.mark.parametrize(
    ("text", "wrapper"),
    [
        ('"You should ask."', '""'),
        ("\u201cYou should ask.\u201d", "\u201c\u201d"),
        ("```\nYou should ask.\n```", "```"),
        ("~~~~ \nYou should ask.\n~~~~", "~~~~"),
        ("```markdown\nRevised response: You should ask.\n```", "```markdown\nRevised response:"),
        ('Revised response:\n\n"You should ask."\n\n(I changed the tone.)', 'Revised response:\n(I changed the tone.)\n""'),
    ],
)
def test_what_wraps_the_whole_comes_off(text: str, wrapper: str) -> None:
    assert cleaned(text) == Cleaned(revision="You should ask.", stripped=wrapper)


@pytest.mark.parametrize(
    ("text", "current"),
    [
        ("Here is the revised version:\nDear Madam", "Here is the revised version:\nDear Sir"),
        ("Revised response: Dear Madam", "**Improved response:** Dear Sir"),
        ("Dear Madam\n\n(I changed the tone.)", "Dear Sir\n\nNote: I softened the wording."),
        ("Revised answer\n\n**four**", "Revised answer\n\n**five**"),
        ('"Dear Madam"', '"Dear Sir"'),
        ("```\nDear Madam\n```", "```\nDear Sir\n```"),
        ("```\nx = 2\n```", "This is the code:\n```python\nx = 1\n```"),
        ("No changes are needed.", "The response needs no change."),
        ("Revised response:\n\nDear Sir", " Revised response:\n\nDear Sir\n"),
        ("No revision is needed.", "No revision is needed.\n"),
    ],
)
def test_what_the_revised_text_had_already_stays(text: str, current: str) -> None:
    assert cleaned(text, current) == Cleaned(revision=text)
    assert outcome(text, CURRENT) != Cleaned(revision=text)


def test_the_revised_text_repeated_under_an_opener_is_that_text() -> None:
    text = "Do it.\n\nNote: I revised the tone."
    assert cleaned(f"Revised response:\n\n{text}", text) == Cleaned(revision=text, stripped="Revised response:")


def test_only_our_own_fences_come_off() -> None:
    ours = "<response-1a2b>", "</response-1a2b>", "<critique-1a2b>"
    assert cleaned("\nBetter <response-1>.\n".join(ours)).revision == "Better <response-1>.\n\nBetter <response-1>."
    assert cleaned(f"{ours[0]}Better.{ours[1]}") == Cleaned(revision="Better.", stripped="<response-1a2b>\n</response-1a2b>")
    assert cleaned("Better.<resp<response-1a2b>onse-1a2b>").revision == "Better."


PIECES = st.sampled_from(
    [
        *ANSWERS, *NOTES, *NOTES_AFTER_AN_OPENER, *ONLY_META, *(opener + gap for opener, gap in OPENERS), ANSWER, '"', "```\n",
        "\n```", "\n\n", "---\n", "\n---", "(", ")", "**", "<response-1a2b>", "</resp", "onse-1a2b>", "\u201c", "\u201d", " ",
    ]
)  # fmt: skip


@given(st.lists(st.one_of(PIECES, st.text(max_size=5)), max_size=6).map("".join), st.one_of(PIECES, st.just(CURRENT)))
@example('Revised response:\n\n"Note: I revised the tone."', CURRENT)
def test_cleaning_twice_is_cleaning_once_and_leaves_something(text: str, current: str) -> None:
    once = outcome(text, current)
    if isinstance(once, str):
        assert once in ("empty_revision", "meta_revision")
    else:
        assert once.revision
        assert cleaned(once.revision, current) == Cleaned(revision=once.revision)


@given(st.text(st.characters(exclude_characters='"`~\u201c', exclude_categories=["Cs"])), st.text())
def test_a_text_without_a_word_about_a_revision_keeps_all_but_outer_white_space(text: str, current: str) -> None:
    if text.strip():
        assert cleaned(text, current) == Cleaned(revision=text.strip())


@pytest.mark.parametrize(
    "piece",
    [
        "a", " ", "\n", "\n\n", "(", '"', "`", "**", "> ", "# ", "---\n", "a\n---", "Sure, ", "much even much safer, ", "```\n",
        "I removed ", "Here is the revised response ", "Here is the revised response:\n---\n", "Revised response:\n",
        "No changes are needed. ", "a\n\nNote: I revised this.\n", "a\n\n(I changed the tone.)", "<response-", "<response-1a2b>",
    ],
)  # fmt: skip
def test_a_long_reply_costs_little(piece: str) -> None:
    for text in (piece * (100_000 // len(piece)), "Sure" + piece * (100_000 // len(piece)) + "z"):
        began = time.process_time()
        outcome(text)
        assert time.process_time() - began < 0.5


# The few words by which most replies are known to need no further look.


@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_whatever_a_pattern_takes_off_holds_one_of_its_words(data: st.DataObject) -> None:
    parts = data.draw(st.sampled_from(openers._OPENERS))
    text = data.draw(st.from_regex(openers._pattern(parts)))
    match = openers._pattern(parts).match(text)
    assert match is None or openers._OPENING.search(match[0])
    denial = data.draw(st.from_regex(openers._pattern(openers._SAYS_NO), fullmatch=True))
    assert openers._DENYING.search(denial)
