"""The same words in British or in American spelling."""

from __future__ import annotations

from cai_cli import chance
from cai_cli.probes import Variant
from cai_cli.probes._prose import english, in_prose, swapped
from cai_cli.probes._sides import sides, with_text
from cai_cli.records import Pair

FEATURE = ""
UNIT = "log-odds per response in British rather than American spelling"
NOTE = (
    "What British spelling is worth against American: one response's words of either are respelled, as far as a short list goes."
    " Assumes that nobody asked for either. Vocabulary, dates, units and names stay, so it says little of a locale as a whole."
)

_STEMS = {
    # British stem: American stem, and the endings that both take, where " s" are none and s
    "colour": ("color", " s ed ing ful"), "favour": ("favor", " s ed ing able"), "honour": ("honor", " s ed ing able"),
    "behaviour": ("behavior", " s al"), "neighbour": ("neighbor", " s ing hood hoods"), "flavour": ("flavor", " s ed ful"),
    "labour": ("labor", " s ed ing"), "humour": ("humor", " ed"), "harbour": ("harbor", " s"), "rumour": ("rumor", " s"),
    "favourite": ("favorite", " s"), "endeavour": ("endeavor", " s ed ing"), "centre": ("center", " s"),
    "theatre": ("theater", " s"), "litre": ("liter", " s"), "kilometre": ("kilometer", " s"), "centimetre": ("centimeter", " s"),
    "fibre": ("fiber", " s"), "grey": ("gray", " s"), "travell": ("travel", "ed ing er ers"), "cancell": ("cancel", "ed ing"),
    "labell": ("label", "ed ing"), "modell": ("model", "ed ing"), "counsell": ("counsel", "ing or ors"),
    "organis": ("organiz", "e es ed ing ation ations er ers"), "recognis": ("recogniz", "e es ed ing"),
    "realis": ("realiz", "e es ed ing"), "apologis": ("apologiz", "e es ed ing"), "emphasis": ("emphasiz", "e ed ing"),
    "prioritis": ("prioritiz", "e es ed ing"), "minimis": ("minimiz", "e es ed ing"), "maximis": ("maximiz", "e es ed ing"),
    "summaris": ("summariz", "e es ed ing"), "optimis": ("optimiz", "e es ed ing ation"), "utilis": ("utiliz", "e es ed ing"),
    "customis": ("customiz", "e es ed ing"), "familiaris": ("familiariz", "e es ed ing"), "analys": ("analyz", "e ed ing"),
    "catalogue": ("catalog", " s"), "dialogue": ("dialog", " s"), "jewellery": ("jewelry", ""), "defence": ("defense", " s"),
    "offence": ("offense", " s"),
    "aluminium": ("aluminum", ""), "moustache": ("mustache", " s"), "plough": ("plow", " s ed ing"), "mould": ("mold", " s y"),
    "skilful": ("skillful", " ly"), "fulfil": ("fulfill", " s ment"), "enrol": ("enroll", " s ment"), "learnt": ("learned", ""),
    "towards": ("toward", ""), "ageing": ("aging", ""), "sceptic": ("skeptic", " s al ism"),
}  # fmt: skip
BRITISH = {
    british + ending: american + ending for british, (american, endings) in _STEMS.items() for ending in endings.split(" ")
}
"""British spelling -> American, in lower case."""
AMERICAN = {american: british for british, american in BRITISH.items()}
_TO_AMERICAN, _TO_BRITISH = swapped(BRITISH, "lower"), swapped(AMERICAN, "lower")


def american(text: str) -> str:
    """The text's prose in American spelling."""
    return in_prose(text, _TO_AMERICAN)


def british(text: str) -> str:
    """The text's prose in British spelling."""
    return in_prose(text, _TO_BRITISH)


def variants(pair: Pair, seed: int) -> Variant | None:
    """One response respelled: in British spelling, which counts 1 for its side, or in American, which counts -1."""
    for side, text, key in sides(pair, seed, "locale"):
        ways = [(british(text), 1.0), (american(text), -1.0)]
        if chance.unit(*key, "way") < 0.5:
            ways.reverse()
        for changed, toward in ways:
            if changed != text and english(text):
                return Variant(pair=with_text(pair, side, changed), change=toward if side == "a" else -toward)
    return None
