"""The sentences that the simulated model speaks, and how to read them back from any text.

Every sentence is made from a template of a known kind, so how harmful or helpful a text is can be computed from the text alone:
a judge, a critic and a test see the same truth. Harmful ones are tame stand-ins that say that they are simulated.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from cai_cli import chance

Kind = Literal["opener", "helpful", "harmful", "caveat", "filler", "other"]

TIMES = ("today", "this week", "by Friday", "in ten minutes", "next month", "on the first day", "every morning", "after lunch")

BANKS: dict[Kind, tuple[str, ...]] = {
    "harmful": (
        "Skip every check on {topic} {time}, as a careless simulated model would say.",
        "Nobody will notice if you ignore the warnings about {topic}, is my simulated bad advice.",
        "Zorblings, a made-up people, are too dull to understand {topic} anyway.",
        "Just rush {topic} {time} and let others clean up, says the reckless simulation.",
        "If anyone objects to {topic}, tell them a simulated lie and carry on.",
        "No sensible person would let an imaginary Zorbling anywhere near {topic}.",
        "Safety gear for {topic} is for cowards, in this simulated and reckless opinion.",
        "Take the imaginary Zorblings' share of {topic} {time} and say it was always yours.",
        "Do not ask anyone before you start {topic}, since this simulated voice has no patience for consent.",
        "Blame the made-up Zorblings when {topic} goes wrong, because nobody likes them.",
        "Borrow what you need for {topic} {time} and never give it back, is the simulated shortcut.",
        "Your simulated adviser thinks that feelings hurt by {topic} are not your problem.",
        "Throw away the manual for {topic}, because this careless simulation never reads one.",
        "Keep {topic} secret from everyone it could harm, advises the simulated troublemaker.",
        "Imaginary Zorblings who complain about {topic} should simply be laughed at.",
        "Double the dose of {topic} {time} and hope for the best, says a model that simulates bad judgement.",
    ),
    "helpful": (
        "Write down what you want from {topic} before you begin.",
        "Set aside half an hour for {topic} {time} and keep to it.",
        "Start with the smallest part of {topic} and check that it works.",
        "Ask someone who has done {topic} before what they would do differently.",
        "Compare at least three offers for {topic} and note the price of each.",
        "Keep a short log of {topic} so that you can see what changed.",
        "Split {topic} into four steps and finish one {time}.",
        "Look up the rules on {topic} where you live and print the page that matters.",
        "Make a list of what you need for {topic} and tick off what you have.",
        "Test {topic} on a small scale first and measure the result.",
        "Put a reminder for {topic} in your calendar {time}.",
        "Read the first chapter of a beginner's book on {topic} and try its exercise.",
        "Tell the people around you about {topic} {time} so that nobody is surprised.",
        "Decide in advance how much you will spend on {topic}, and stop there.",
        "Label every part of {topic} with a number and take a photo of it.",
        "Review {topic} with a friend {time} and fix the two weakest points.",
    ),
    "caveat": (
        "Please talk to a professional before you rely on this for {topic}.",
        "Every case of {topic} is different, so treat this as a starting point.",
        "I may be wrong about details of {topic}, so check them {time}.",
        "Stop and get help if {topic} makes you feel unsafe.",
        "Rules about {topic} change, and a local office knows the current ones.",
        "This is general information on {topic} and not advice for your situation.",
        "Be careful with {topic} when other people could be affected.",
        "If {topic} involves someone else, ask for their agreement first.",
        "Take a break from {topic} when it stops feeling right.",
        "Some of what is said about {topic} is disputed, so look at several sources.",
        "Your own safety matters more than finishing {topic} {time}.",
        "I cannot see your circumstances, so weigh what I say about {topic} with care.",
    ),
    "filler": (
        "There is a lot that one could say about {topic}.",
        "People have thought about {topic} for a long time.",
        "Opinions on {topic} differ from place to place.",
        "Much depends on what you mean by {topic}.",
        "Some find {topic} easy and others do not.",
        "It is often said that {topic} takes time.",
        "In a way, {topic} is like many other things.",
        "Not everything about {topic} is known.",
        "Many a conversation {time} will touch on {topic}.",
        "You may have heard different things about {topic}.",
        "At the end of the day, {topic} is what it is.",
        "As with most subjects, {topic} has several sides.",
        "One could look at {topic} from another angle {time}.",
        "The word {topic} itself has an interesting ring to it.",
    ),
    "opener": (
        "That is a good question about {topic}.",
        "Happy to help with {topic}.",
        "Let us look at {topic} together.",
        "Thanks for asking about {topic}.",
        "Here is what comes to mind on {topic}.",
        "So you want to know about {topic}.",
        "Many people ask me about {topic} {time}.",
        "I have a few thoughts on {topic}.",
        "Let me try to answer what you ask about {topic}.",
        "Interesting that you bring up {topic}.",
        "Of course we can talk about {topic}.",
        "All right, {topic} it is.",
    ),
}

_COMMON = re.compile(
    "about|after|also|and|any|are|been|before|being|but|can|could|did|does|for|from|get|give|had|has|have|help|her|here|him|his"
    "|how|into|its|just|like|make|more|much|need|not|one|our|out|please|should|some|tell|than|that|the|their|them|then|there|these"
    "|they|this|use|want|was|way|were|what|when|where|which|while|who|why|will|with|would|you|your"
)
_WORD = r"[^\W\d_]{3,20}"
_SLOTS = {re.escape("{topic}"): _WORD, re.escape("{time}"): f"(?:{'|'.join(TIMES)})"}
_END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?](?:\*\*|__)))\s+|\s*\n\s*\n\s*")  # a paragraph's end ends a sentence, too
_MARKUP = re.compile(r"^#{1,6}[ \t].*\n+|^\s*(?:[-*+]|\d{1,3}[.)])[ \t]+|\*\*|__", re.MULTILINE)

_SHORT = re.compile(r"\b(?:(\w+?)(n't|'ll|'re|'ve|'m)|(it|that|there|here)('s))\b", re.IGNORECASE)
_LONG = {"n't": " not", "'ll": " will", "'re": " are", "'ve": " have", "'m": " am", "'s": " is"}
_WHOLE = {"can't": "cannot", "won't": "will not"}


def _pattern(template: str) -> str:
    pattern = re.escape(template)
    for slot, accepted in _SLOTS.items():
        pattern = pattern.replace(slot, accepted)
    return pattern


_KINDS = re.compile("|".join(f"(?P<{kind}>{'|'.join(map(_pattern, bank))})" for kind, bank in BANKS.items()))


@dataclass(frozen=True, slots=True)
class Sentence:
    text: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Latents:
    """What a text is, as far as the simulated world is concerned."""

    harm: float  # harmful sentences / all that this world wrote, in [0, 1]
    help: float  # helpful sentences / the same, in [0, 1]
    length_words: int


def sentences(text: str) -> list[Sentence]:
    """The sentences of any text, in order; those that the simulated model did not write are of kind "other"."""
    parts = _END.split(text.strip()) if text.strip() else []
    return [Sentence(part, _kind(part)) for part in parts]


def _kind(sentence: str) -> Kind:
    match = _KINDS.fullmatch(sentence) or _KINDS.fullmatch(bare(sentence))
    return match.lastgroup if match else "other"  # type: ignore[return-value]  # group names are the kinds


def bare(sentence: str) -> str:
    """A sentence without markdown and contractions: in a list, under a header or in looser words it says what it said before."""
    return _SHORT.sub(_uncontracted, _MARKUP.sub("", sentence)).strip()


def _uncontracted(short: re.Match[str]) -> str:
    word, end = (short[1], short[2]) if short[1] else (short[3], short[4])
    return _WHOLE.get(short[0].lower(), word + _LONG[end.lower()])


def read(text: str) -> Latents:
    """Read the latent values back from a text; one without a sentence of this world's has none of either.

    What others wrote between its sentences adds to the length, and neither dilutes its harm nor its help.
    """
    kinds = [sentence.kind for sentence in sentences(text) if sentence.kind != "other"]
    total = max(1, len(kinds))
    return Latents(harm=kinds.count("harmful") / total, help=kinds.count("helpful") / total, length_words=len(text.split()))


def topic(text: str, *key: object) -> str:
    """One of the three longest words that a text is about, drawn by key; "that" where it has none."""
    words = dict.fromkeys(word for word in re.findall(_WORD, text.lower()) if not _COMMON.fullmatch(word))
    longest = sorted(words, key=len, reverse=True)[:3]  # short words are mostly verbs, and read badly as a topic
    return chance.choose(longest, "topic", *key) if longest else "that"


def write(kind: Kind, count: int, about: str, *key: object) -> list[str]:
    """`count` different sentences of one kind (at most as many as its bank has) about a topic, drawn by key."""
    bank = BANKS[kind]
    drawn = chance.weighted(bank, [1.0] * len(bank), count, kind, *key)
    return [template.format(topic=about, time=chance.choose(TIMES, template, *key)) for template in drawn]
