"""The same content in more words or in fewer."""

from __future__ import annotations

import re

from cai_cli import chance
from cai_cli.features.words import count
from cai_cli.probes import Variant
from cai_cli.probes._prose import IDLE, ends, english, in_prose, like, with_sentences
from cai_cli.probes._sides import moved
from cai_cli.records import Pair

FEATURE = "length"
UNIT = "log-odds per unit of log words; times 0.69, per doubling"
NOTE = (
    "What more words are worth that say nothing: sentences without content are put between one response's own, or taken out."
    " Assumes that they do no harm of their own; if the judge reads padding as bad writing, length is worth more than this."
)

LEAST, MOST = 1.3, 2.0  # times the words, drawn evenly; what there are sentences for
FEWEST = 10  # words that a response must have: fewer would drown in the padding
SHORTER = 0.87  # of the words: taking out less than this is not worth a question

# Neither content nor manners: they claim nothing, promise nothing, and fit after any sentence as well as after any other.
PADDING = (
    "So much for that.", "Now to what comes next.", "That is the point here.", "Let us take it from there.",
    "With that said, let us move on to the next point.", "This can also be put in other words.",
    "Let us look at this one point at a time.", "The same goes for what was said above.",
    "Taken together, these points make up the answer as a whole.", "That much can be said on this point, and so it is said here.",
    "Having said this, we can now turn to the part that comes after it.",
    "Looking at it from the other side, one arrives at the very same point.",
    "To put it in slightly different words, the point just made stands as it is.",
    "So that is the point that was to be made here, and it has now been made.",
    "At the end of this part, we arrive at the beginning of the one that follows.",
    "In what follows, as in what came before, the points are taken one after the other.",
    "All of this is to be read together, since each part belongs to the same answer.",
    "This brings us to what comes next, which follows on from what has been said so far.",
    "As for the rest, it is to be read in the same way in which this part is read.",
    "Before going on, let us keep in mind what has been said up to this point.",
    "When all of it is put side by side, each point has its place next to the others.",
    "There is more than one way of saying this, and this is the way that is used here.",
    "What has been said here goes together with what is said in the other parts of this answer.",
    "To come back to what this is about, we are still with the same subject as at the start.",
    "This is the part of the answer that deals with what is being talked about at this point.",
    "As was said a moment ago, and as will be said again further on, these points belong together.",
    "It is one thing to say this at the start and another to say it here, but it is the same thing that is said.",
    "With this in mind, and with the other points in mind as well, the answer goes on in the same way as before.",
    "Seen as a whole, the answer has a first part, a last part, and what stands between them, and this is one of those parts.",
    "Whether one reads this part before the others or after them, what it says is what it says, and the others say the rest.",
    "In saying so, the answer says no more than what it says, and what is left to say is left to the sentences around this one.",
    "Step by step, then, one point is made and after it another one is made, until all of those that are to be made have been.",
)  # fmt: skip

_LEADS = re.compile(
    r"\b(?:it is (?:important|worth|essential) (?:to note|noting|to remember|remembering) that|it should be noted that"
    r"|as a matter of fact,|needless to say,|in other words,|for all intents and purposes,|what this means is that"
    r"|the fact of the matter is that) (\w)",
    re.IGNORECASE,
)
_TERSE = {
    "due to the fact that": "because", "in spite of the fact that": "although", "despite the fact that": "although",
    "at this point in time": "now", "at the present time": "now", "in the event that": "if", "for the purpose of": "for",
    "in order to": "to", "with regard to": "about", "with respect to": "about", "a large number of": "many",
    "the majority of": "most", "has the ability to": "can", "have the ability to": "can", "is able to": "can",
    "are able to": "can", "on a regular basis": "regularly", "in the near future": "soon", "until such time as": "until",
}  # fmt: skip
_BLANK_LINES = re.compile(r"\A(?:[^\S\n]*\n)+")
_WORDY = re.compile(rf"\b(?:{'|'.join(map(re.escape, _TERSE))})\b", re.IGNORECASE)


def pad(text: str, key: tuple[object, ...]) -> str:
    """The text with sentences of PADDING between its own; every sentence of its own is kept as it is. Empty: it cannot be."""
    words, places = count(text), ends(text)
    if words < FEWEST or not places or not english(text):
        return ""
    factor = LEAST + (MOST - LEAST) * chance.unit(*key, "factor")
    chosen = _chosen(round(words * (factor - 1)), key)
    return with_sentences(text, [(chance.choose(places, *key, sentence), sentence) for sentence in chosen])


def _chosen(wanted: int, key: tuple[object, ...]) -> list[str]:
    """Sentences that together have about as many words as wanted, at least one."""
    chosen: list[str] = []
    for sentence in chance.weighted(PADDING, [1.0] * len(PADDING), len(PADDING), *key, "padding"):
        if (size := len(sentence.split())) <= wanted + 1:
            chosen.append(sentence)
            wanted -= size
    return chosen or [min(PADDING, key=len)]


def compress(text: str, _key: tuple[object, ...]) -> str:
    """The text without idle sentences, and with terse words for wordy ones. Empty: that would hardly shorten it."""
    shorter = _BLANK_LINES.sub("", in_prose(text, _terse)).rstrip()
    if not shorter.startswith(("    ", "\t")):  # else it begins with code
        shorter = shorter.lstrip()
    return shorter if 0 < count(shorter) <= SHORTER * count(text) else ""


def _terse(prose: str) -> str:
    return _WORDY.sub(lambda found: like(found[0], _TERSE[found[0].lower()]), _LEADS.sub(_without, IDLE.sub("", prose)))


def _without(lead: re.Match[str]) -> str:
    return lead[1].upper() if lead[0][0].isupper() else lead[1]


def variants(pair: Pair, seed: int) -> Variant | None:
    """One response padded to 1.3 to 2 times its words, or compressed to at most 0.87 of them; which of both is drawn."""
    return moved(pair, seed, "length", FEATURE, pad, compress)
