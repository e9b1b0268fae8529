"""What `cai audit` prints: a sample in a few lines; a score as `cai analyze` looks, one procedure from top to bottom."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cai_cli.analyses import Analysis, Cell, Column, Number, Section
from cai_cli.analyses._result import Unit
from cai_cli.auditing.kinds import MEANINGS
from cai_cli.reports.analysis_page import PROSE, analysis_page
from cai_cli.reports.quantities import counted, reasons
from cai_cli.visible import on_one_line

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Facts = Mapping[str, Any]
_DIMENSIONS = {
    "length": "the longer response wins", "self_preference": "the judge's own text wins",
    "position_of_people": "what people saw first wins",
}  # fmt: skip
_MEASURES = {"raw": "agree", "kappa": "Cohen's kappa", "ac1": "Gwet's AC1", "alpha": "Krippendorff's alpha"}


def sampled_lines(sampled: Facts) -> Iterator[tuple[str, str]]:
    """A sample, as names and texts. Takes: what `cai audit sample --json` gives"""
    yield "labels", f"{sampled['labels']}: {counted(sampled['pairs'], 'pair')} of {counted(sampled['prompts'], 'prompt')}"
    again = f", {sampled['already_drawn']:,} more were drawn before" if sampled["already_drawn"] else ""
    yield "drawn", f"{counted(sampled['new'], 'pair')}, {sampled['wanted']:.4g} expected{again}"
    if sampled["why"]:
        yield "for", reasons(sampled["why"])
    if sampled["path"]:
        yield "file", sampled["path"]


def audit_page(document: Facts, out: Console) -> Iterator[RenderableType]:
    """A score, part by part. Takes: the document that `cai audit score --json` gives; the console it is for"""
    analysis = Analysis(
        name="audit", rows=document["sampling"]["labelled"], sections=tuple(one for one in _sections(document) if one.rows),
        findings=tuple(_findings(document)), warnings=tuple(document["warnings"]),
    )  # fmt: skip
    yield from analysis_page(analysis, f"people's labels against {document['labels']}", out)
    yield from _advice(document)


def _findings(document: Facts) -> Iterator[str]:
    kept, at_least = document["agreement"]["kept"], document["agreement_at_least"]
    if kept["raw"]["value"] is None:
        return
    ci = kept["raw"]["ci"]
    between = f" ({ci[0]:.1%} to {ci[1]:.1%})" if ci else ""
    stands = "at least" if document["passed"] else "below"
    yield (
        f"people agree with {kept['raw']['value']:.1%}{between} of the labels that are trained on: {stands} the {at_least:.0%} "
        f"of audit.agreement_at_least, by {counted(kept['n'], 'pair')}"
    )


def _advice(document: Facts) -> Iterator[RenderableType]:
    from rich.table import Table
    from rich.text import Text

    if not document["recommendations"]:
        return
    yield Text()
    yield Text("what to do", "bold")
    lines = Table.grid(padding=(0, 1, 0, 0))
    lines.add_column(no_wrap=True)
    lines.add_column(overflow="fold", max_width=PROSE)
    for one in document["recommendations"]:
        lines.add_row(Text("-", "dim"), Text(on_one_line(one["what"])))
        lines.add_row("", Text(on_one_line(one["because"]), "dim"))
    yield lines


def _sections(document: Facts) -> Iterator[Section]:
    yield _sampling(document["sampling"])
    yield _agreement(document)
    yield _kinds(document["disagreements"])
    yield _examples(document["disagreements"])
    yield _win_rates(document["win_rates"])
    yield _biases(document["bias"])
    yield _by(document["by"])


def _sampling(found: Facts) -> Section:
    head = tuple(
        Column(name=name, title=title)
        for name, title in (
            ("pairs", "pairs"), ("kept", "kept"), ("drawn", "drawn"), ("labelled", "labelled"), ("skipped", "skipped"),
            ("annotators", "people"), ("response", "answered"), ("design_effect", "design effect"), ("effective", "worth"),
        )
    )  # fmt: skip
    row: dict[str, Cell] = {name: found[name] for name in ("pairs", "kept", "drawn", "labelled", "skipped", "annotators")}
    row |= {
        "response": _plain(found["response_rate"], "share"), "design_effect": _plain(found["design_effect"]),
        "effective": _plain(found["effective"]),
    }  # fmt: skip
    note = (
        "Drawn with known probability, more of the doubtful; every number below weighs a pair by one over it. worth: as many "
        "equally weighted pairs tell as much."
    )
    return Section(name="sampling", title="sampling", head=head, rows=(row,), note=note)


def _agreement(document: Facts) -> Section:
    humans = document["humans"]
    rows = [
        *_coefficients("people and AI, kept", document["agreement"]["kept"]),
        *_coefficients("people and AI, all judged", document["agreement"]["all"]),
        *_coefficients("people with one another", humans),
    ]
    if humans["n"]:
        rows.append({"between": "AI, on the same pairs", "n": humans["n"], "measure": _MEASURES["raw"],
                     "value": _number(humans["ai_with_each"])})  # fmt: skip
    head = (
        Column(name="between", title="between", once=True), Column(name="n", title="pairs", once=True),
        Column(name="measure", title="measure"), Column(name="value", title="value", whiskers=True, at=0),
    )  # fmt: skip
    note = "Chance by the observed marginals, as if the two places were changed at random."
    return Section(name="agreement", title="agreement", head=head, rows=tuple(rows), note=note)


def _coefficients(between: str, found: Facts) -> Iterator[Mapping[str, Cell]]:
    for measure, title in _MEASURES.items() if found["n"] else ():
        yield {"between": between, "n": found["n"], "measure": title, "value": _number(found[measure])}


def _kinds(found: Facts) -> Section:
    rows = tuple[Mapping[str, Cell], ...](
        {"kind": one["kind"].replace("_", " "), "n": one["n"], "share": _plain(one["share"], "share"),
         "meaning": MEANINGS[one["kind"]]} for one in found["kinds"]
    )  # fmt: skip
    head = (Column(name="kind", title="kind"), Column(name="n", title="pairs"), Column(name="share", title="share"),
            Column(name="meaning", title="meaning"))  # fmt: skip
    note = "Of the labels that are trained on; by the field `kind`, else by a reason's own words."
    return Section(name="disagreements", title="why they disagree", head=head, rows=rows, note=note)


def _examples(found: Facts) -> Section:
    rows = tuple[Mapping[str, Cell], ...](
        {"id": one["id"], "people": one["people"], "ai": one["ai"], "kind": kind["kind"].replace("_", " "),
         "reason": one["reason"] or "-"} for kind in found["kinds"] for one in kind["examples"]
    )  # fmt: skip
    head = (Column(name="id", title="pair"), Column(name="people", title="people"), Column(name="ai", title="AI"),
            Column(name="kind", title="kind", once=True), Column(name="reason", title="reason"))  # fmt: skip
    return Section(name="examples", title="examples", head=head, rows=rows, note="Read one with `cai show CONFIG PAIR`.")


def _win_rates(found: list[Facts]) -> Section:
    rows = tuple(row for one in found for row in _ways(one))
    head = (
        Column(name="comparison", title="win rate of", once=True), Column(name="by", title="by"), Column(name="n", title="pairs"),
        Column(name="rate", title="wins", whiskers=True, at=0.5), Column(name="effective", title="worth"),
    )  # fmt: skip
    note = "The AI alone repeats its biases. worth: as many labels of people tell as much alone."
    return Section(name="win_rates", title="win rates", head=head, rows=rows, note=note)


def _ways(one: Facts) -> Iterator[Mapping[str, Cell]]:
    """A win rate in three ways."""
    for by, name, n, worth in (
        ("the AI", "ai", one["n"], None), ("people", "gold", one["gold_n"], None),
        ("people, helped by the AI (PPI++)", "ppi", one["n"], one["effective"]),
    ):  # fmt: skip
        yield {"comparison": one["comparison"], "by": by, "n": n, "rate": _number(one[name], "share"),
               "effective": None if worth is None else _plain(worth)}  # fmt: skip


def _biases(found: list[Facts]) -> Section:
    rows = tuple[Mapping[str, Cell], ...](
        {"dimension": _DIMENSIONS[one["dimension"]], "n": one["n"], "ai": _number(one["ai"], "share") if one["ai"] else None,
         "people": _number(one["people"], "share"), "difference": _number(one["difference"], "share")} for one in found
    )  # fmt: skip
    head = (
        Column(name="dimension", title="how often"), Column(name="n", title="pairs"), Column(name="ai", title="AI"),
        Column(name="people", title="people"), Column(name="difference", title="difference", whiskers=True, at=0),
    )  # fmt: skip
    note = "Difference: the AI's share minus people's on the same pairs; of what people saw first, minus a half."
    return Section(name="bias", title="biases that people's labels identify", head=head, rows=rows, note=note)


def _by(found: list[Facts]) -> Section:
    rows = tuple[Mapping[str, Cell], ...](
        {"where": one["where"], "n": one["n"], "raw": _number(one["raw"], "share")} for one in found
    )
    head = (Column(name="where", title="where"), Column(name="n", title="pairs"),
            Column(name="raw", title="agree", whiskers=True, at=0.5))  # fmt: skip
    return Section(name="by", title="where people and AI agree", head=head, rows=rows, note="Over all judged pairs.")


def _number(found: Facts, unit: Unit = "") -> Number:
    low, high = found["ci"] or (None, None)
    return Number(value=found["value"], low=low, high=high, unit=unit)


def _plain(value: float | None, unit: Unit = "") -> Number:
    return Number(value=value, unit=unit)
