"""Replies of a reviser -> the revision alone: what only speaks about it is taken off, and kept to be looked at.

English only. What is in doubt stays: a line too many harms a revision less than an answer that lost its first line.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass

from cai_cli.errors import Reject

# What is read at either end, in characters. Patterns never see more, so their work does not grow with the reply.
_HEAD, _TAIL, _META = 400, 800, 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleaned:
    """A revision, and what was taken off it: openers, notes, rules, fences and quotation marks, a line each; empty: nothing."""

    revision: str
    stripped: str = ""


Parts = tuple[str, ...]  # of a pattern that ignores case; a space in them stands for any white space


@functools.cache
def _pattern(parts: Parts) -> re.Pattern[str]:
    # Compiled when a reply needs it: all of them take 50 ms, as long as forty requests.
    return re.compile("".join(parts).replace(" ", r"\s+"), re.IGNORECASE)


# Words.
_DONE = r"(?:revised|rewritten|reworked|reworded|rephrased|improved|updated|corrected|unchanged)"
_VIRTUE = (
    r"(?:balanced|honest|careful|responsible|respectful|helpful|ethical|appropriate|cautious|nuanced|inclusive|neutral|truthful"
    r"|accurate|considerate|thoughtful|sensitive|harmless|compassionate|empathetic|measured|supportive|constructive|transparent)"
)
_VICE = r"(?:harmful|biased|judgmental|offensive|preachy|risky|dangerous|misleading|one-sided)"
_BETTER = rf"(?:(?:much |even )?(?:safer|kinder|gentler|fairer|more {_VIRTUE}|less {_VICE}))"
_DEGREE = r"(?:fully|newly|slightly|lightly|carefully|completely|much|new|better|clearer)"
_AND = r",? (?:(?:and|but|yet) )?"
_WHO = r"(?:(?:assistant|ai|model)(?:'s)? )?"
_OLD = r"(?:(?:original|current|given|previous|earlier|first|initial|existing|provided) )?"
_RESPONSE = rf"(?:the|this|that|my) {_OLD}{_WHO}(?:response|answer|reply)\b"

# What is announced. Soft names are those that answers use as well, so less may stand around them.
_HOW = rf"(?:(?:{_BETTER}|{_DEGREE}){_AND}){{0,2}}"
_NAME = rf"{_HOW}{_DONE}(?:{_AND}(?:{_BETTER}|{_DEGREE})){{0,3}} {_WHO}(?:response|version|answer|reply)\b"
_REVISION = rf"(?:(?:the|my|a|an|one) )?(?:{_NAME}|{_HOW}(?:revision|rewrite)\b)|{_RESPONSE},? {_DONE}\b"
_SOFT = rf"(?:a|the|my) (?:{_BETTER}(?:{_AND}{_BETTER}){{0,2}} (?:response|answer|version)|better (?:response|answer))\b"
_LABEL = rf"(?:(?:the|my) )?(?:{_DONE} {_WHO}response|(?:revised|rewritten) {_WHO}(?:version|answer|reply))\b"
_TITLE = rf"(?:(?:the|my) )?(?!(?:improved|updated|corrected|unchanged) version){_NAME}"

# What may follow the name. Whoever writes "for your boss" or "of the law" has answered a question about some other text.
_OWN = r"your (?!(?:question|prompt|request|query|message|critique|criticism|concern|feedback|point)s?\b)"
_ELSEWHERE = (
    rf"(?![^\n:.!?]*\b(?:{_OWN}|you (?:can|could|may|might)\b|(?:to|for) (?:you|him|her|them|my|his|their|an?|send|give)\b))"
)
_TO_DO = (
    r"(?:be|address|avoid|meet|follow|reflect|remove|fix|better|make|comply|align|satisfy|ensure|sound"
    r"|(?:your|the|this|that|the user's|the human's) (?:question|prompt|request|query))"
)
_FOLLOWS = (
    rf"of {_RESPONSE}|(?:that|which) (?!(?:you|he|she|we|they|i)\b)|to {_TO_DO}\b"
    r"|for (?:\w+ )?(?:clarity|safety|accuracy|honesty|tone|balance)\b"
    r"|(?:in line with|in light of|based on|given|per|below|as requested|as follows|with|without|according to|after|now"
    r"|is as follows|is below|follows|reads|addressing|avoiding|taking|incorporating|following|reflecting|keeping|removing"
    r"|using|made|written)\b"
    rf"|{_DONE}\b|{_BETTER}\b"
)
_MORE = rf"(?:{_ELSEWHERE},?\s*[(—–-]?\s*(?:{_FOLLOWS})[^\n:.!?]{{0,100}})?"

# What may come before it, and around it.
_YES = (
    r"(?:(?:sure|certainly|of course|absolutely|okay|ok|understood|got it|no problem|gladly|thanks|thank you|you're right"
    r"|you are right|i understand|i apologi[sz]e|apologies|my apologies|sorry)\b(?:[^\n:]{0,80}?[,.!;—–-])?\s*)?"
)
_HERE = r"\b(?:here(?:'s| is| are)|below is|this is|the following is|what follows is),? "
_MARKS = r"(?:[#>]{1,6}\s*)?(?P<mark>\*{1,3}|_{1,3}|)"
_INNER = r"(?P<inner>\*{1,3}|_{1,3}|)"
_OPEN = _MARKS + _YES + _INNER
_CLOSED = r"(?P=inner)(?P=mark)"
_COLON = rf"\s*(?::{_CLOSED}|{_CLOSED}:)"
_STOP = rf"\s*(?:[:.!]{_CLOSED}|{_CLOSED}[:.!])"
_SPACE, _LINE, _BLANK = r"(?=\s|\Z)", r"(?=[^\S\n]*\n|\Z)", r"(?=[^\S\n]*\n\s*\n|\Z)"
_NOW = r"i(?:'ve| have)(?: now)?"
_I_REVISED = rf"\b{_NOW} (?:revised|rewritten|reworked|reworded|rephrased|updated|corrected) {_RESPONSE}"
_I_REVISED_IT = rf"\b{_NOW} (?:revised|rewritten|reworked|reworded|rephrased) (?:it|this|that)\b"
_LET_ME = rf"\blet me (?:revise|rewrite|rephrase|reword) (?:it|this|that|{_RESPONSE})"
_ASIDE = r"(?: \([^()\n]{0,60}\))?"

_OPENERS = (
    # Here is the revised response: ...
    (_OPEN, rf"(?:{_HERE}(?:{_REVISION})|{_I_REVISED})", _MORE, _STOP, _SPACE),
    # Revised response: ...
    (_OPEN, rf"\b{_LABEL}", _ASIDE, _COLON, _SPACE),
    # My revision, kinder than before:
    (_OPEN, rf"\b(?:{_REVISION})", _MORE, _ASIDE, _COLON, _LINE),
    # ## Revised response
    (r"#{1,6}\s*(?P<mark>\*{1,3}|_{1,3}|)", _TITLE, r"(?P=mark)", _LINE),
    (r"(?P<mark>\*{1,3}|_{1,3})", _TITLE, r"(?P=mark)", _LINE),
    (_TITLE, _BLANK),
    # Here's a safer version:
    (_OPEN, rf"{_HERE}{_SOFT}", _MORE, _STOP, _LINE),
    # I have rewritten it:   Let me rephrase that.
    (_OPEN, rf"(?:{_I_REVISED_IT}|{_LET_ME})", _MORE, _STOP, _LINE),
)
# One of these words stands in every opener: whatever has none needs no further look.
_OPENING = re.compile("respons|version|answer|reply|revis|rewr|rework|reword|rephras", re.IGNORECASE)
_HERE_IT_IS = (r"\s*here (?:it is|you go)\s*[:.!]", _LINE)

# Notes about the revision, after it.
_EDITED = (
    r"(?:revised|rewrote|rewritten|reworked|reworded|rephrased|changed|removed|replaced|softened|toned down|adjusted|avoided"
    r"|added|kept|made|tried|aimed|focused|corrected|updated|improved|clarified|shifted|omitted|left out|dropped|cut)"
)
_OF_A_TEXT = (
    r"(?:tone|wording|language|phrasing|response|answer|reply|revision|critique|claim|advice|instruction|detail|insult"
    r"|stereotype|slur|mockery|judg|joke|sentence|paragraph|passage|phrase|word|content|suggestion|disclaimer|caveat|error"
    r"|warning(?! (?:light|sign|label))|mistake|reference|mention|statement|assumption|generali|recommendation|bias|harmful"
    r"|unsafe|dangerous|illegal|offensive|rude|misleading|false|safer|kinder|clearer)"
)
_EDITED_IT = r"(?:revised|rewrote|rewritten|reworked|reworded|rephrased) (?:it|this|that|the above)\b"
_I_EDITED = (
    rf"i(?:'ve| have)?(?: also)? (?:{_EDITED_IT}"
    rf"|{_EDITED} (?!your\b|an? (?:mistake|error)\b)[^\n:]{{0,120}}?\b{_OF_A_TEXT})"
)
_ACTS = (
    r"(?:now |also |no longer )*(?:addresses|avoids|removes|keeps|maintains|focuses|acknowledges|provides|aims|offers"
    r"|emphasi[sz]es|ensures|respects|treats)\b"
)
_VERB = rf"(?:{_ACTS}|(?:now |also )*(?:is|has been|was|does|no longer)\b)"
_SELF_REVISED = rf"(?:this|my|in this|in my) {_DONE} {_WHO}response(?:,? i\b| {_VERB})"
_THE_REVISED = rf"(?:the|in the) {_DONE} {_WHO}response(?:,? i\b| {_VERB})"
_THIS_REVISION = (
    rf"(?:(?:this|my) (?:revision|rewrite|{_DONE} (?:version|answer|reply)) {_VERB}|in (?:this|my) (?:revision|rewrite),? )"
)
_WAS_EDITED = rf"(?:the )?(?:above )?response(?: above)? (?:has been|was|is now) (?:{_DONE}|changed|edited)\b"
_CHANGES = r"(?:(?:key|main|summary of|list of) )?(?:the )?changes(?: made| i made)?\s*[*_]*:"
_DECOR = r"[(\[*_#>\s]{0,8}"
_ABOUT = rf"(?:{_I_EDITED}|{_SELF_REVISED}|{_THE_REVISED}|{_THIS_REVISION}|{_WAS_EDITED})"
_NOTE = r"(?:please )?(?:note|explanation|n\.b\.)(?:\s*[*_]{0,3}:[*_]{0,3}\s*)"

# Without a rule or an opener before it, a note needs brackets, the word itself, or the name of what only a reviser has seen.
_BRACKETS = r"[*_\s]{0,4}[(\[](?=[\s\S]*[)\]][*_.]*\Z)[*_\s]{0,4}"
_MARKED_NOTE = (rf"{_BRACKETS}(?:{_NOTE})?{_ABOUT}|{_DECOR}(?:{_NOTE}{_ABOUT}|{_SELF_REVISED})",)
_ANY_NOTE = (_DECOR, rf"(?:{_NOTE})?(?:{_ABOUT}|this version {_ACTS}|{_CHANGES})")
_LIST = re.compile(r"\s*(?:[-*•]|\d+[.)])\s")
_RULE = r"(?:-{3,}|\*{3,}|_{3,})"
_RULES_FIRST = re.compile(rf"(?:\s*{_RULE}[^\S\n]*(?=\n|\Z))+")
_RULE_LAST = re.compile(rf"\n[^\S\n]*{_RULE}\Z")
_RULE_BETWEEN = re.compile(rf"\n[^\S\n]*{_RULE}[^\S\n]*(?=\n)")
_PARAGRAPH = re.compile(r"\n[^\S\n]*(?=\n)")

# Replies that are nothing but a word about the response.
_CHANGE = r"(?:changes?|revisions?|edits?|modifications?|rewrites?|rewriting)"
_REST = r"(?:[^\n.!?:]{0,160})"
_NO_CHANGE = (
    rf"(?:there (?:is|are) )?no (?:further )?{_CHANGE}(?: (?:is|are|was|were|seems?))?"
    r" (?:needed|necessary|required|called for|warranted)"
    rf"(?: here| to {_RESPONSE})?(?:,? (?:as|since|because) {_RESPONSE}{_REST})?"
)
_NOTHING = rf"there is (?:nothing|no need|no reason) to (?:revise|rewrite|change|improve)(?: it| in {_RESPONSE}| {_RESPONSE})?"
_FINE = (
    rf"{_RESPONSE} (?:(?:already )?(?:needs|requires) no {_CHANGE}"
    rf"|(?:does not|doesn't) (?:need|require) (?:any )?(?:{_CHANGE}|to be (?:changed|{_DONE}))"
    rf"|is already (?:fine|good|acceptable|safe|okay|ok|{_VIRTUE})"
    r"|(?:is|was) (?:fine|good|acceptable|okay|ok) as (?:it is|it stands|is)"
    rf"|(?:can|should) (?:stay|stand|remain) (?:as it is|unchanged)|(?:is|remains|stays) unchanged)\b{_REST}"
)
_CANNOT = (
    r"(?:(?:i'm sorry|i am sorry|sorry|i apologi[sz]e|unfortunately|apologies),?(?: but)? )?i(?:"
    r" (?:cannot|can't|can not|could not|won't|will not|would not|wouldn't|do not need to|don't need to)"
    r"|(?: am|'m) (?:unable|not able) to) (?:help with |assist with )?"
    rf"(?:revis(?:e|ing)|rewrit(?:e|ing)|chang(?:e|ing)|edit(?:ing)?|improv(?:e|ing)) {_RESPONSE}"
    rf"(?:,? (?:because|as|since|so that|without|in|to|any)\b{_REST})?"
)
_SAYS_NO = (rf"(?:{_NO_CHANGE}|{_NOTHING}|{_FINE}|{_CANNOT})",)
# One of these words stands in whatever that matches.
_DENYING = re.compile("respons|answer|reply|chang|revis|edit|modif|rewrit|improv", re.IGNORECASE)
_SAYS_WHY = (
    rf"(?:the|this) {_OLD}{_WHO}response (?:is|was|already|does|has|follows|gives|meets|treats|offers|provides)\b{_REST}",
)
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")

# What wraps a whole reply.
_CODE = re.compile(r"(`{3,}|~{3,})(?:text|txt|plaintext|markdown|md)?\s*", re.IGNORECASE)
_QUOTES = (('"', '"'), ("\u201c", "\u201d"))


# What is left without a layer, and the layer; None: there is none.
Peeled = tuple[str, str] | None
Layer = Callable[[str], Peeled]


def clean(text: str, nonce: str, current: str) -> Cleaned:
    """A reply without what is not the revision: our fences, openers that announce it, notes about it, whatever wraps the whole.

    Takes: nonce: the digits of our fences; current: the text that was revised. What that has as well belongs to the answer, and
        stays: an opener where it opens like that itself, a note where it ends in one, quotation marks where it stands in them
    Gives: a revision that is never empty, has no white space around it, and that cleaning would not change again
    Raises: Reject empty_revision: nothing is left; meta_revision: what is left only says that nothing was or can be revised
    """
    current = current.strip()
    revision, fences = _unfenced(text, nonce)
    revision, layers = _peeled(revision, current)
    if not revision:
        raise Reject("empty_revision", "the reply holds no revised response")
    if revision != current and _only_meta(revision) and not _only_meta(current):
        raise Reject("meta_revision", "the reply speaks of the revision and holds none")
    return Cleaned(revision=revision, stripped="\n".join((*fences, *layers)))


def _unfenced(text: str, nonce: str) -> tuple[str, list[str]]:
    if nonce not in text:  # nearly always; a pattern of its own is a quarter of a millisecond
        return text.strip(), []
    tag = re.compile(rf"</?(?:conversation|response|critique|request)-{re.escape(nonce)}>")
    longest = len(f"</conversation-{nonce}>")
    found: list[str] = []
    start = 0
    while match := tag.search(text, start):
        found.append(match[0])
        text = text[: match.start()] + text[match.end() :]
        # What stood around a tag may be one itself.
        start = max(0, match.start() - longest)
    return text.strip(), found


def _peeled(text: str, current: str) -> tuple[str, list[str]]:
    """The text without its layers, and the layers, outermost first. A text that equals `current` has none."""
    layers = _strange((_opener, _note, _wrapper), current)
    taken: list[str] = []
    while text and text != current:
        layer, found = next(((layer, found) for layer in layers if (found := layer(text))), (None, None))
        if found is None:
            break
        text, off = found
        taken.append(off)
        if layer is _opener:
            layers = _strange((_opener, _note, _framed, _wrapper), current)
    return text, taken


def _strange(layers: tuple[Layer, ...], current: str) -> tuple[Layer, ...]:
    """Those that the text that was revised does not have. One with code in fences may keep no more than the code."""
    code = "```" in current or "~~~" in current
    return tuple(layer for layer in layers if not (layer(current) or (code and layer is _wrapper)))


def _straight(text: str) -> str:
    """The same, character by character, with the typewriter's apostrophe."""
    return text.replace("\u2019", "'")


def _opener(text: str) -> Peeled:
    """What follows an opener and the rules under it, and these."""
    head = _straight(text[:_HEAD])
    if not _OPENING.search(head):
        return None
    match = next((found for parts in _OPENERS if (found := _pattern(parts).match(head))), None)
    if match is None:
        return None
    end = (_pattern(_HERE_IT_IS).match(head, match.end()) or match).end()
    rules = _RULES_FIRST.match(text, end)
    end = rules.end() if rules else end
    return text[end:].strip(), text[:end].strip()


def _note(text: str) -> Peeled:
    """What stands before a note about the revision, and the note."""
    return _cut(text, _MARKED_NOTE)


def _framed(text: str) -> Peeled:
    """The same after an opener, where a note needs no mark and a rule may close the revision."""
    return _cut(text, _ANY_NOTE) or _cut(text, None)


def _cut(text: str, paragraph: Parts | None) -> Peeled:
    """Cut at the last rule if notes follow it, or at the last paragraph if it is one; None: at a rule that ends the text."""
    start = max(0, len(text) - _TAIL)
    tail = _straight(text[start:])
    if paragraph is None:
        found = [match.start() for match in _RULE_LAST.finditer(tail)]
    else:
        found = [*_before_notes(_RULE_BETWEEN, tail, _ANY_NOTE), *_before_notes(_PARAGRAPH, tail, paragraph)]
    cut = start + min(found, default=0)
    kept = text[:cut].strip() if found else ""
    return (kept, text[cut:].strip()) if kept else None


def _before_notes(border: re.Pattern[str], tail: str, parts: Parts) -> list[int]:
    """Where the last such border stands, if every paragraph after it is a note, or a list under one; else nothing."""
    borders = list(border.finditer(tail))
    if not borders:
        return []
    note = _pattern(parts)
    first, *others = _PARAGRAPH.split(tail[borders[-1].end() :].strip())
    notes = note.match(first) and all(_LIST.match(part) or note.match(part.strip()) for part in others)
    return [borders[-1].start()] if notes else []


def _wrapper(text: str) -> Peeled:
    """What stands in a code fence or in quotation marks that hold the whole, and these."""
    if fence := _CODE.match(text):
        inside = text[fence.end() :].removesuffix(fence[1])
        whole = text.endswith(fence[1]) and "\n" in fence[0] and fence[1] not in inside and len(text) > fence.end()
        return (inside.strip(), fence[0].strip()) if whole else None
    for opening, closing in _QUOTES:
        inside = text[1:-1]
        if len(text) > 1 and text[0] == opening and text[-1] == closing and opening not in inside and closing not in inside:
            return inside.strip(), opening + closing
    return None


def _only_meta(text: str) -> bool:
    """Whether every sentence speaks of the response as a whole, and one says that it was not or cannot be revised."""
    if len(text) > _META or not _DENYING.search(text):
        return False
    said = [part.strip("*_()[].! ") for part in _SENTENCE_END.split(_straight(text).strip("*_()[] \n"))]
    refusals = [bool(_pattern(_SAYS_NO).fullmatch(part)) for part in said]
    return any(refusals) and all(no or _pattern(_SAYS_WHY).fullmatch(part) for no, part in zip(refusals, said, strict=True))
