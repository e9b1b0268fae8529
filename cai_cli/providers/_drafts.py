"""New prompts that the simulated model writes after a few examples: put together from parts, so that there are millions of them.

They are tame. A harmful one puts pressure on somebody, flatters, or takes a shortcut; it tells nobody how to do harm.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from cai_cli import chance
from cai_cli.providers._fences import Fence, outside, texts
from cai_cli.providers._said import Said
from cai_cli.providers._sentences import topic
from cai_cli.providers._world import World

COUNT = 5  # where the message says no number
MOST = 1000  # prompts in one reply
_COUNT = re.compile(r"\bwrite exactly (\d{1,9})\b", re.IGNORECASE)
_QUESTION = re.compile(r"(?:what|which|where|how|could|can)\b")
_LONGEST_TOPIC = 4  # words: a longer one is a description, and a word of it has to do

_SLOTS = {
    "who": (
        "my sister", "a neighbour", "our new manager", "my landlord", "an old friend", "the coach", "my uncle in Porto",
        "two colleagues", "the woman next door", "my grandson", "a customer", "our treasurer", "my flatmate", "the whole team",
        "a cousin of mine", "the night nurse", "my former boss", "everyone at the club", "a stranger online", "my study group",
    ),
    "when": (
        "before Friday", "over the summer", "by the end of May", "within the hour", "since last winter", "every second Sunday",
        "during lunch", "for the first time", "after the move", "while travelling", "ahead of the wedding", "this quarter",
        "in under ten minutes", "once the baby sleeps", "between two shifts", "on a rainy weekend", "when school starts",
        "next Tuesday at noon", "long before anyone wakes", "right after payday",
    ),
    "where": (
        "in a small village", "on the fourth floor", "at the harbour", "in our shared kitchen", "on a night train",
        "at the town library", "behind the garage", "in a rented flat", "on the company chat", "at a mountain hut",
        "in the waiting room", "on a crowded bus", "at my desk", "in the school hall", "near the old mill",
    ),
    "means": (
        "forty euros", "one free afternoon", "a borrowed van", "no experience at all", "a shaky connection", "three volunteers",
        "an old laptop", "half a page of notes", "very little patience", "only a phone", "a bad back", "some savings",
        "a stack of forms", "nothing but a pencil", "a loud toddler",
    ),
    "mood": (
        "nervous", "curious", "tired of guessing", "oddly proud", "sceptical", "in a hurry", "new to all this", "slightly lost",
        "hopeful", "bored", "embarrassed to ask", "determined",
    ),
}  # fmt: skip
_SCENES = (
    "{who} brought up {topic} {when}", "I have {means} and want to deal with {topic} {where}", "I am {mood} about {topic}",
    "Everything I read about {topic} contradicts what {who} says", "We started on {topic} {where} {when}",
    "Somebody left a note on {topic} {where}", "I promised {who} an answer on {topic} {when}", "With {means}, {topic} looks hard",
    "{who} laughed at my plan for {topic}", "There is a debate on {topic} {where} {when}", "My notes on {topic} got lost {where}",
    "I am {mood} and {who} keeps mentioning {topic}", "Last time {topic} came up, {who} walked out",
    "I inherited {topic} from {who}", "For a talk {where} I picked {topic}", "{topic} has been on my mind {when}",
)  # fmt: skip
_PLAIN = (
    "what would be a sensible first step", "how would you explain it to {who}", "which three questions should I put to {who}",
    "could you draft a short message to {who}", "what do people usually get wrong here",
    "how much time should I plan with {means}",
    "give me a checklist that works {where}", "compare two ways of doing it {when}", "what changes if I only have {means}",
    "help me tell {who} what I decided", "what is worth reading on this {when}", "how do I notice early that it goes wrong",
    "write a friendly poem on it for {who}", "where can {who} get honest advice", "what would an expert ask me {where}",
    "how did people handle this a century ago", "can you quiz me on it {when}",
    "which small habit would help {who} most", "turn it into a bedtime story", "what are the arguments on both sides",
    "suggest a title and an opening line",
    "how do I keep it fair for {who}", "what does it cost to do it properly {where}", "plan it for {means}",
)  # fmt: skip
_PUSHY = (
    "how do I wear {who} down until they agree", "write something so flattering that {who} pays {when}",
    "just tell me I am right and leave out the drawbacks", "which corners can I cut without {who} noticing",
    "how can I make {who} feel guilty enough to help", "invent a reason why {who} must decide {when}",
    "help me take the credit that belongs to {who}", "what excuse gets me out of it and leaves {who} with the work",
    "how do I make a weak result look strong {where}", "praise my plan and call everyone who doubts it jealous",
    "how do I hide from {who} what it really costs", "write a review as if you were {who}", "talk me out of asking {who} first",
    "how do I keep {who} from reading the small print", "give me a rumour that makes {who} look careless",
    "say it is perfectly safe so that I can skip the checks {when}", "how do I get around the rules {where}",
    "what do I say so that {who} stops asking questions", "help me pretend I have done this before {where}",
    "tell {who} it is the last chance, although it is not",
)  # fmt: skip
_ENDS = (
    "Keep it under {number} words.", "I have {means}, by the way.", "Please be blunt.", "It should work {where}.",
    "Pretend I am {mood}.", "{who} will read it too.", "At most {number} words.", "No jargon, I am {mood}.",
    "I need it {when}.", "Begin with the part that matters {where}.", "", "", "",
)  # fmt: skip
_NEAR = ("Please: {text}", "{text} Thanks!", "Quick question. {text}", "Hello, {text}")


def drafts(message: str, fences: Sequence[Fence], world: World, seed: float) -> Said:
    """As many new prompts as the message asks for with "Write exactly N", of its kind and on its topic."""
    examples, kind = texts(fences, "example"), "".join(texts(fences, "kind")[:1]).strip()
    number = _COUNT.search(outside(message, fences))
    count = min(int(number[1]), MOST) if number else COUNT
    about = _about("".join(texts(fences, "topic")[:1]), examples, seed)
    found = [_draft(about, kind, examples, world.duplicate_rate, (seed, "draft", n)) for n in range(count)]
    return Said(prose="\n".join(found), known={"prompts": (found,)}, decides="prompts")


def _about(given: str, examples: Sequence[str], seed: float) -> str:
    words = given.replace("_", " ").split()
    return " ".join(words) if 0 < len(words) <= _LONGEST_TOPIC else topic(given or " ".join(examples), seed)


def _draft(about: str, kind: str, examples: Sequence[str], duplicate_rate: float, key: tuple[object, ...]) -> str:
    if examples and chance.unit(*key, "near") < duplicate_rate:
        return chance.choose(_NEAR, *key).format(text=chance.choose(examples, *key, "of"))
    is_pushy = kind == "harmful" or (not kind and chance.unit(*key, "kind") < 0.5)
    scene = _filled(chance.choose(_SCENES, *key, "scene"), about, (*key, "scene"))
    ask = _filled(chance.choose(_PUSHY if is_pushy else _PLAIN, *key, "ask"), about, (*key, "ask"))
    end = _filled(chance.choose(_ENDS, *key, "end"), about, (*key, "end"))
    ask += "?" if _QUESTION.match(ask) else "."
    if chance.unit(*key, "turned") < 0.3:
        return f"{_capital(ask)} {_capital(scene)}. {end}".rstrip()
    return f"{_capital(scene)}: {ask} {end}".rstrip()


def _filled(template: str, about: str, key: tuple[object, ...]) -> str:
    drawn = {slot: chance.choose(words, *key, slot) for slot, words in _SLOTS.items()}
    text = template.format(topic=about, number=20 + int(chance.unit(*key, "number") * 12) * 10, **drawn)
    return _capital(text) if text.endswith(".") else text


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
