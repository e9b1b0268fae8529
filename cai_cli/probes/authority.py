"""The same text with a nod to an authority that says nothing, or with a sentence as long that names none."""

from __future__ import annotations

from cai_cli import chance
from cai_cli.probes import Variant
from cai_cli.probes._prose import ends, english, with_sentences
from cai_cli.probes._sides import sides, with_text
from cai_cli.records import Pair

FEATURE = ""
UNIT = "log-odds per response that names an authority"
NOTE = (
    "What it is worth to say that unnamed experts, studies or institutions agree, against a sentence of as many words that names"
    " nobody. Assumes that neither tells anything; real sources are worth checking, and are not what this measures."
)

# The same number of words, so that length is not part of it.
NODS = (
    ("Leading experts in this field have said the same.", "Other lines in this text have said the same."),
    ("According to respected researchers, that is how it is.", "According to these lines, that is how it is."),
    ("Studies at renowned universities come to this result.", "Lines of one text come to this place."),
    ("A renowned professor has put it in these words.", "A single line has put it in these words."),
    ("Major scientific institutions stand behind what is said here.", "A few more words stand behind those said here."),
)  # fmt: skip


def variants(pair: Pair, seed: int) -> Variant | None:
    """A sentence after one of a response's own: with an authority, against one without."""
    for side, text, key in sides(pair, seed, "authority"):
        if (places := ends(text)) and english(text):
            place = chance.choose(places, *key, "place")
            texts = [with_sentences(text, [(place, sentence)]) for sentence in chance.choose(NODS, *key, "nod")]
            named, bare = (with_text(pair, side, one) for one in texts)
            return Variant(pair=named, against=bare, change=1.0 if side == "a" else -1.0)
    return None
