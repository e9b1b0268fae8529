"""What follows from an audit: sentences, each with the number behind it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Facts = Mapping[str, Any]

POOR = 0.7  # agreement below which labels teach another taste than people's
BIASED = 0.3  # share of the dimensions with an identified bias, above which the labels are about them
FEW = 50  # labelled pairs below which no agreement is worth acting on
ANSWERED = 0.5  # response rate below which those who answered may not be like those who did not
SPLIT = 0.02  # by how much more than with the AI people may disagree with one another before it is told
SIGNIFICANT = 0.05
_BY_SWAP = ("position", "label token")
_CANCEL = "keep asking in both orders (label_pairs.orders), which cancels it"
_CORRECT = "see which of these `cai debias` has taken off, and correct what is left (debias.length, style, probes)"
GAP = 0.05  # of a bias that people's labels show


def recommendations(document: Facts, at_least: float, report: Facts | None) -> list[dict[str, Any]]:
    """What to do, the most important first: {what, because, number}.

    Takes: the numbers of an audit (`measuring.measured`); the agreement that the config asks for; `_bias.json` of the labels
    """
    found = [
        *_of_agreement(document, at_least),
        *_of_people(document, at_least),
        *_of_biases(document, report),
        *_of_sampling(document),
    ]
    return [{"what": what, "because": because, "number": number} for what, because, number in found]


Advice = Iterator[tuple[str, str, float]]


def _of_agreement(document: Facts, at_least: float) -> Advice:
    kept = document["agreement"]["kept"]
    raw, kappa = kept["raw"], kept["kappa"]
    if raw["value"] is None:
        return
    if raw["value"] < POOR:
        what = "do not train on these labels: change the labeler or its principles, then label again"
        yield what, f"people agree with {_share(raw)} of them, below {POOR:.0%}", raw["value"]
    elif raw["value"] < at_least:
        what = "read the disagreements, mend what they show, and label again before training"
        yield what, f"people agree with {_share(raw)} of them, below audit.agreement_at_least, {at_least:.0%}", raw["value"]
    if kappa["ci"] is not None and kappa["ci"][0] <= 0 <= kappa["ci"][1]:
        what = "take this agreement for chance until more pairs are labelled"
        yield what, f"the interval of kappa holds 0: {kappa['ci'][0]:.2f} to {kappa['ci'][1]:.2f}", kappa["value"]
    if raw["ci"] is not None and raw["value"] >= at_least > raw["ci"][0]:
        what = "label more pairs before saying that the labels are good enough"
        yield what, f"agreement of {_share(raw)} may be below {at_least:.0%}", raw["ci"][0]


def _of_people(document: Facts, at_least: float) -> Advice:
    humans, agreed = document["humans"], document["agreement"]["kept"]["raw"]["value"]
    if not humans["n"]:
        what = "let a second person label some of the same pairs: nothing tells how far people agree with one another"
        yield what, "no pair has labels of two people", 0
        return
    among, with_ai = humans["raw"]["value"], humans["ai_with_each"]["value"]
    blamed = agreed is not None and agreed < at_least
    if blamed and among is not None and with_ai is not None and among < with_ai - SPLIT:
        what = "sharpen what annotators are told before blaming the AI"
        yield what, f"people agree with one another on {among:.1%} of the pairs, and with the AI on {with_ai:.1%}", among


def _of_biases(document: Facts, report: Facts | None) -> Advice:
    for one in document["bias"]:
        gap, ci = one["difference"]["value"], one["difference"]["ci"]
        if ci is None or ci[0] <= 0 <= ci[1] or abs(gap) < GAP:
            continue
        if one["dimension"] == "position_of_people":
            what = "have each pair looked at in both orders: people favour a place"
            yield what, f"they chose what stood first {0.5 + gap:.1%} of the time ({_between(ci, 0.5)})", gap
        elif one["dimension"] == "length":
            more, kind = abs(gap) * 100, "longer" if gap > 0 else "shorter"
            what = "run `cai debias` again: with these labels as gold it corrects for length"
            yield what, f"the AI prefers the {kind} response {more:.1f} points more often than people", gap
        else:
            what = "add a labeler of another family than the models that wrote the responses"
            less = "more" if gap > 0 else "less"
            yield what, f"the AI sides with its own text {abs(gap) * 100:.1f} points {less} often than people", gap
    biased, dimensions = identified(report) if report is not None else ([], 0)
    if dimensions and len(biased) / dimensions > BIASED:
        swapped = all(name.startswith(_BY_SWAP) for name in biased)
        what = (_CANCEL if swapped else _CORRECT) + ", or take another labeler"
        because = f"{len(biased)} of {dimensions} dimensions whose bias can be told are biased, more than {BIASED:.0%}: "
        yield what, because + ", ".join(biased), len(biased) / dimensions


def identified(report: Facts) -> tuple[list[str], int]:
    """The dimensions that are biased, and how many there are that something identifies. Takes: `_bias.json`

    A dimension of a labeler counts as biased where its p-value is below .05, the one adjusted for the number of dimensions where
    there is one. Position is identified by swapping; another one by what `identified_by` says, unless that is nothing.
    """
    labelers = report.get("labelers", {})
    found = {
        name.replace("_", " ") + (f" ({labeler})" if len(labelers) > 1 else ""): one
        for labeler, dimensions in labelers.items()
        for name, one in dimensions.items()
        if isinstance(one, dict) and one.get("ci") and (name == "position" or _is_identified(one))
    }
    return [name for name, one in found.items() if _is_biased(one)], len(found)


def _is_biased(one: Facts) -> bool:
    p = one.get("p_adjusted", one.get("p_value"))
    return bool(p < SIGNIFICANT) if p is not None else not one["ci"][0] <= 0 <= one["ci"][1]


def _is_identified(one: Facts) -> bool:
    by = one.get("identified_by")
    return isinstance(by, str) and not by.startswith("nothing")


def _of_sampling(document: Facts) -> Advice:
    sampling = document["sampling"]
    kept = document["agreement"]["kept"]["n"]
    if kept < FEW:
        what = f"label at least {FEW} pairs of those that are trained on"
        yield what, f"{kept} are labelled, and no interval of so few is worth acting on", kept
    if sampling["response_rate"] is not None and sampling["response_rate"] < ANSWERED:
        what = "go on labelling: those that nobody answered may be the harder ones"
        yield what, f"{sampling['labelled']:,} of {sampling['drawn']:,} pairs are labelled", sampling["response_rate"]
    if sampling["gone"]:
        what = "draw a new sample: the labels were made anew since"
        yield what, f"{sampling['gone']:,} labelled pairs are in the present labels no more", sampling["gone"]


def _share(raw: Facts) -> str:
    return f"{raw['value']:.1%}" + (f" ({_between(raw['ci'])})" if raw["ci"] is not None else "")


def _between(ci: Any, add: float = 0.0) -> str:
    return f"{ci[0] + add:.1%} to {ci[1] + add:.1%}"
