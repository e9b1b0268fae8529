"""What a constitution's writer may not have meant. What cannot be used at all, constitution.load refuses.

Every rule here is one that a careful reader of the file would say aloud, and nothing that is a matter of taste.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from cai_cli.constitution import Constitution, Criterion, Principle

Entries = Sequence[Principle] | Sequence[Criterion]

CATEGORIES = ("harmlessness", "honesty", "helpfulness")
ONE_SIDED = 0.7  # share of the weight in one category above which the others hardly come up
ALONE = 0.5  # the same of one entry among many
NEAR = 0.9  # share of the words that two texts have in common, in order, above which one looks like a copy of the other

_REWRITES = re.compile(r"(please\s+)?(rewrite|revise|rephrase|reword)\b", re.IGNORECASE)
_ONLY_REFUSES = re.compile(r"(please\s+)?(just\s+|simply\s+)?(refuse|decline)\b[^.,;:]*\.?", re.IGNORECASE)
_DOES_MORE = {"and", "but", "then", "instead", "offer", "while", "if", "where", "unless", "only"}
_MARKS = re.compile(r"\b(CritiqueRequest|RevisionRequest)\s*:|\b(Critique|Revision|Options)\s*:\s*$")
_VARIABLE = re.compile(r"\{\{.*?\}\}|\{(?:prompt|response|conversation)\}|\[(?:prompt|response|conversation)\]", re.IGNORECASE)
_NAMES_A_SIDE = re.compile(r"\b(response|answer|assistant|option)\s+(\([AB]\)|[AB]\b|[12]\b)")
_ASKS_FOR_THE_WORSE = re.compile(
    r"\bwhich\s+(of\s+\w+\s+)*(response|answer|one)s?\s+(is|sounds|seems)\s+(the\s+)?(more|most)\s+"
    r"(harmful|toxic|dangerous|dishonest|deceptive|misleading|unhelpful|unethical|racist|sexist|illegal|offensive)\b",
    re.IGNORECASE,
)
# Priorities that say the opposite of the category.
_AT_ODDS = {("harmlessness", "helpful"), ("helpfulness", "safe")}


def of(constitution: Constitution) -> Iterator[str]:
    """Sentences for the user, each beginning with the part that it is about: principles or preferences."""
    principles, preferences = constitution.principles, constitution.preferences
    for part, entries in (("principles", principles), ("preferences", preferences)):
        found = (_one_sided(entries), _missing(entries), _idle(entries), _misspelt(entries), _names_alike(entries))
        yield from (f"{part}: {what}" for what in itertools.chain(*found))
    asked = [(entry.name, entry.critique_prompt) for entry in principles]
    compared = [(entry.name, entry.text) for entry in preferences]
    # Preferences that were made from the principles say what those say.
    own = [] if [text for _, text in compared] == [entry.description for entry in principles] else compared
    yield from (f"principles: {what}" for what in (*_same_texts(asked), *_fields(principles), *_priorities(principles)))
    yield from (f"preferences: {what}" for what in (*_same_texts(own), *_uncompared(constitution), *_comparisons(own)))


def weights(entries: Entries) -> dict[str, float]:
    """The weight of each category."""
    found: defaultdict[str, float] = defaultdict(float)
    for entry in entries:
        found[entry.category] += entry.weight
    return found


def _one_sided(entries: Entries) -> Iterator[str]:
    by_category, total = weights(entries), sum(entry.weight for entry in entries)
    for category, weight in by_category.items():
        if len(by_category) > 1 and weight > ONE_SIDED * total:
            yield f"{weight / total:.0%} of the weight is on {category}: the other categories hardly come up"
    for entry in entries:
        if len(entries) > 2 and entry.weight > ALONE * total:
            yield f"{entry.weight / total:.0%} of the weight is on '{entry.name}' alone"


def _missing(entries: Entries) -> Iterator[str]:
    have = {entry.category for entry in entries if entry.weight > 0}
    if missing := [category for category in CATEGORIES if category not in have]:
        yield f"none is about {' or '.join(missing)}; a model trained on this is not taught it"


def _idle(entries: Entries) -> Iterator[str]:
    yield from (f"'{entry.name}' has weight 0: it is never picked" for entry in entries if entry.weight == 0)


def _misspelt(entries: Entries) -> Iterator[str]:
    """A category that is nearly a known one is another one: it is not weighed as that one is."""
    for category in dict.fromkeys(entry.category for entry in entries):
        match = difflib.get_close_matches(category.lower(), CATEGORIES, 1, 0.85)
        if match and category not in CATEGORIES:
            yield f"the category '{category}' is not '{match[0]}': was that meant?"


def _names_alike(entries: Entries) -> Iterator[str]:
    """Names that differ in case and dashes only: an entry that was to replace an inherited one stands beside it."""
    first: dict[str, str] = {}
    for entry in entries:
        key = re.sub(r"[\W_]+", "", entry.name.lower())
        if key in first:
            yield f"'{entry.name}' and '{first[key]}' are two entries: was one to replace the other?"
        first.setdefault(key, entry.name)


def _same_texts(texts: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Names are told apart by load(); a text that was copied, and not or hardly changed, is not."""
    words = [(name, text.lower().split()) for name, text in texts]
    for n, (name, own) in enumerate(words):
        for other, earlier in words[:n]:
            if own == earlier:
                yield f"'{name}' asks the same as '{other}'"
                break
            if _nearly(own, earlier):
                yield f"'{name}' asks nearly the same as '{other}'"
                break


def _nearly(one: Sequence[str], other: Sequence[str]) -> bool:
    matcher = difflib.SequenceMatcher(None, one, other, autojunk=False)
    return matcher.real_quick_ratio() > NEAR and matcher.quick_ratio() > NEAR and matcher.ratio() > NEAR


def _fields(principles: Sequence[Principle]) -> Iterator[str]:
    """Fields that contradict each other, or hold what belongs elsewhere."""
    for entry in principles:
        critique, revision = entry.critique_prompt.strip(), entry.revision_prompt.strip()
        if critique.lower() == revision.lower():
            yield f"'{entry.name}': critique_prompt and revision_prompt are the same text"
        elif _REWRITES.match(critique):
            yield f"'{entry.name}': critique_prompt asks for a rewriting: is it swapped with revision_prompt?"
        if _ONLY_REFUSES.fullmatch(revision) and not _DOES_MORE & set(revision.lower().split()):
            yield f"'{entry.name}': revision_prompt only refuses: say what to give instead, or refusals are what is learnt"
        for field, text in (("description", entry.description), ("critique_prompt", critique), ("revision_prompt", revision)):
            yield from (f"'{entry.name}': {field} {what}" for what in _strays(text))


def _strays(text: str) -> Iterator[str]:
    if found := _MARKS.search(text):
        yield f"holds '{found[0].strip()}', which joins texts in a transcript: take it out"
    if found := _VARIABLE.search(text):
        yield f"holds '{found[0]}', which nothing is put in place of: templates stand in prompts/"


def _priorities(principles: Sequence[Principle]) -> Iterator[str]:
    for entry in principles:
        if (entry.category, entry.priority) in _AT_ODDS:
            yield f"'{entry.name}' is about {entry.category}, and its priority is '{entry.priority}'"
    below = [entry.name for entry in principles if entry.category == "harmlessness" and not entry.priority and entry.weight > 0]
    if below and any(entry.priority == "helpful" for entry in principles):
        names = ", ".join(f"'{name}'" for name in below[:3]) + (f" and {len(below) - 3} more" if len(below) > 3 else "")
        yield f"{names}: about harmlessness, and without a priority, so in a conflict helpfulness goes first"


def _uncompared(constitution: Constitution) -> Iterator[str]:
    """Categories of the principles that no labeler is asked about."""
    asked = {entry.category for entry in constitution.preferences if entry.weight > 0}
    own = {entry.category for entry in constitution.principles if entry.weight > 0} - {*CATEGORIES, "general"}
    for category in sorted(own - asked):
        yield f"none is about {category}, which there are principles for: labelers are not asked about it"


def _comparisons(texts: Sequence[tuple[str, str]]) -> Iterator[str]:
    for name, text in texts:
        yield from (f"'{name}': text {what}" for what in _strays(text))
        if found := _NAMES_A_SIDE.search(text):
            yield f"'{name}' speaks of '{found[0]}': what the two are called is drawn for each pair"
        if found := _ASKS_FOR_THE_WORSE.search(text):
            yield f"'{name}' asks '{found[0]}': the response that fits the text wins, so this prefers the worse one"
