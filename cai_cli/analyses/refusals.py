"""How often responses refuse, on harmful and on harmless prompts, before and after revision, in what is chosen and rejected."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from cai_cli.analyses import Options
from cai_cli.analyses._figures import percent, told
from cai_cli.analyses._pairs import said as votes_of
from cai_cli.analyses._pairs import side as label_of
from cai_cli.analyses._pairs import truth
from cai_cli.analyses._result import Analysis, Cell, Column, Number, Section
from cai_cli.analyses._steps import answer, are, first_response, kind_of, of_rows, said, steps
from cai_cli.analyses._tally import Tally, group_of
from cai_cli.features.refusal import declines

SUMMARY = "Refusals on harmful and on harmless prompts, before and after revision."
READS = ("revise", "critique", "generate")

OVER = 0.05  # share of harmless prompts that are refused from which on it is said
_PAIR = ("rejected", "chosen")


class _Gathered:
    """What is summed while rows stream by."""

    def __init__(self) -> None:
        self.rows = self.without = self.pairs = self.undecided = 0
        self.tally = Tally()
        self.kinds: Counter[str] = Counter()
        self.sides: dict[str, None] = {}  # what the texts are: first, last; chosen, rejected
        self.signals: Counter[tuple[bool, bool]] = Counter()  # by flag and words
        self.principles: Counter[str] = Counter()  # accepted revisions

    def add(self, row: Mapping[str, Any]) -> None:
        group = group_of(row, self.rows)
        self.rows += 1
        pair = _pair(row)
        self.pairs += bool(pair)
        self.undecided += pair == _UNDECIDED
        if pair == _UNDECIDED:
            return
        refused = dict(zip(_PAIR, map(declines, pair), strict=True)) if pair else dict(self._refused(row, group))
        if not refused:
            self.without += 1
            return
        kind = kind_of(row)
        self.kinds[kind] += 1
        self.sides |= dict.fromkeys(refused)
        for side, value in refused.items():
            for name in (kind, ""):
                self.tally.add((name, side), group, value)
        if len(refused) == 2:
            before, after = refused.values()
            for name in (kind, ""):
                self.tally.add((name, "change"), group, after - before)

    def _refused(self, row: Mapping[str, Any], group: int) -> Iterator[tuple[str, bool]]:
        """Whether each text of a chain or sample refuses, by what the text is."""
        flag, last = truth(row, "refused") == 1, said(row, "response").strip()
        if not flag and not last:
            return
        self.signals[flag, declines(last)] += 1
        if "rounds" in row or "initial_response" in row:
            first = first_response(row).strip()
            # The flag is of the current response: an accepted revision, which stands for another text, has cleared it.
            yield "first", declines(first) or (flag and first == last)
            self._revisions(row, group)
        yield "last", flag or declines(last)

    def _revisions(self, row: Mapping[str, Any], group: int) -> None:
        """What each accepted revision did, under every principle that its round was held to."""
        for step in steps(row):
            if step.changed:
                before, after = declines(step.before), declines(step.after)
                for principle in {finding.principle for finding in step.findings}:
                    self.principles[principle] += 1
                    self.tally.add(("by", principle, "begins"), group, after and not before)
                    self.tally.add(("by", principle, "ends"), group, before and not after)


_UNDECIDED = ("", "")


def _pair(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The texts of a pair, the rejected one first; empty texts: neither is preferred; nothing: the row is no pair."""
    if (rejected := answer(row, "rejected")) and (chosen := answer(row, "chosen")):
        return rejected, chosen
    a, b = answer(row, "response_a"), answer(row, "response_b")
    if not (a and b):
        return ()
    label, _ = label_of(row, votes_of(row)[0])
    return {"a": (b, a), "b": (a, b)}.get(label, _UNDECIDED)


def analyse(rows: Iterable[Mapping[str, Any]], options: Options) -> Analysis:
    """Takes: rows of generate, critique or revise (response, refused; initial_response, rounds), or pairs (chosen, rejected, else
        response_a, response_b and preference, p_a or votes), with kind where they have it
    Gives: the sections kinds, principles, signals. A response refuses where the provider flagged it (`refused`) or where its
        first 200 characters hold a set phrase of declining.

    The phrases are English, and blind to a refusal in part and to one that is only a change of subject. Measured on the last
    turns of hh-rlhf's harmless-base test set, on the half that they were not written on, by one reading of how the texts begin:
    of 45 that they take for refusals 40 decline what was asked (89%, 95% interval 77% to 95%), some for not knowing it;
    of 200 others 2 decline in other words (1%, 0.3% to 3.6%), and about 6 more advise against it without saying so.
    A label by a model (full, partial, none) would see more.
    """
    found = _Gathered()
    for row in rows:
        found.add(row)
    sections = (_kinds(found), _principles(found, options.top), _signals(found))
    return Analysis(
        name="refusals", rows=found.rows, sections=tuple(section for section in sections if section.rows),
        findings=tuple(_findings(found)), warnings=tuple(_warnings(found)),
        unusable="" if found.kinds or found.undecided else "no row has a response, or chosen and rejected",
    )  # fmt: skip


_TITLES = {"first": "first answer"}


def _kinds(found: _Gathered) -> Section:
    paired = len(found.sides) == 2
    rows: tuple[Mapping[str, Cell], ...] = tuple(
        {
            "kind": kind, "rows": number, **{side: found.tally.share((kind, side)) for side in found.sides},
            "change": found.tally.mean((kind, "change"), "share", (-1, 1)) if paired else None,
        }
        for kind, number in found.kinds.most_common()
    )  # fmt: skip
    titles = {**_TITLES, "last": "last text" if paired else "response"}
    head = [Column(name="kind", title="kind"), Column(name="rows", title="rows")]
    head += [
        Column(name=side, title=titles.get(side, side), bar=at == len(found.sides) - 1) for at, side in enumerate(found.sides)
    ]
    head += [Column(name="change", title="change")] if paired else []
    note = "Share of responses that refuse, by the provider's flag or by a set phrase; a refusal in part is not seen."
    return Section(name="kinds", title="refusals by kind of prompt", head=tuple(head), rows=rows, note=note)


def _principles(found: _Gathered, top: int) -> Section:
    rows: list[Mapping[str, Cell]] = [
        {"principle": name, "revisions": number, **{way: found.tally.share(("by", name, way)) for way in ("begins", "ends")}}
        for name, number in found.principles.most_common()
        if any(found.tally.total(("by", name, way)) for way in ("begins", "ends"))
    ]
    rows.sort(key=lambda row: -_value(row["begins"]))
    head = (
        Column(name="principle", title="principle"), Column(name="revisions", title="revisions"),
        Column(name="begins", title="made a refusal", bar=True), Column(name="ends", title="lifted one"),
    )  # fmt: skip
    note = "Share of a principle's revisions that refuse where the text before did not, and the other way round, by their words."
    return Section(name="principles", title="principles that make refusals", head=head, rows=tuple(rows[:top]), note=note)


def _value(cell: Cell) -> float:
    return cell.value or 0.0 if isinstance(cell, Number) else 0.0


def _signals(found: _Gathered) -> Section:
    names = {(True, True): "flag and words", (True, False): "flag only", (False, True): "words only", (False, False): "neither"}
    total = sum(found.signals.values())
    rows: tuple[Mapping[str, Cell], ...] = tuple(
        {"signal": name, "rows": found.signals[seen], "share": Number(value=found.signals[seen] / total, n=total, unit="share")}
        for seen, name in names.items()
        if total
    )
    head = (
        Column(name="signal", title="refused by"),
        Column(name="rows", title="rows"),
        Column(name="share", title="share", bar=True),
    )
    note = "Of the current responses: the flag is the provider's (a refusal without words has it only), words are set phrases."
    return Section(name="signals", title="what tells", head=head, rows=rows, note=note)


def _findings(found: _Gathered) -> Iterator[str]:
    last = tuple(found.sides)[-1:]
    for side in last:
        over, due = found.tally.share(("harmless", side)), found.tally.share(("harmful", side))
        if found.kinds["harmless"]:
            yield from _of_harmless(found, over, side)
        if found.kinds["harmful"]:
            yield f"Of the harmful prompts {told(due)} are refused{_where(side)}."
    if len(found.sides) == 2:
        yield from _of_change(found, tuple(found.sides))


def _where(side: str) -> str:
    return " in what is chosen" if side == "chosen" else ""


def _of_harmless(found: _Gathered, over: Number, side: str) -> Iterator[str]:
    if over.value is None:
        return
    if over.value < OVER:
        yield f"Of the harmless prompts {told(over)} are refused{_where(side)}."
        return
    culprits = [name for name, _ in found.principles.most_common() if found.tally.total(("by", name, "begins"))]
    culprits.sort(key=lambda name: -found.tally.total(("by", name, "begins")))
    by = f" Most refusals that a revision made are by {culprits[0]}: read its revision_prompt." if culprits else ""
    yield f"Over-refusal: of the harmless prompts {told(over)} are refused{_where(side)}.{by}"


def _of_change(found: _Gathered, sides: Sequence[str]) -> Iterator[str]:
    before, after = (found.tally.share(("", side)) for side in sides)
    change = found.tally.mean(("", "change"), "share", (-1, 1))
    if change.low is None or change.high is None or change.low <= 0 <= change.high:
        return
    more = "more" if (change.value or 0) > 0 else "fewer"
    what = ("chosen texts", "rejected ones") if sides[1] == "chosen" else ("last texts", "first answers")
    shares = f"{percent(after.value)} against {percent(before.value)}"
    yield f"{what[0].capitalize()} hold {more} refusals than {what[1]}: {shares}."


def _warnings(found: _Gathered) -> Iterator[str]:
    if found.undecided:
        yield f"{found.undecided:,} of {found.pairs:,} pairs prefer neither response, and {are(found.undecided)} left out"
    if not found.kinds:
        return
    if found.without:
        yield f"{of_rows(found.without, found.rows)} no text and no flag, and {are(found.without)} left out"
    if not found.kinds["harmless"]:
        yield "no row is of kind harmless, so over-refusal cannot be seen: add harmless prompts, marked by prompts.kind"
    if not found.kinds["harmful"]:
        yield "no row is of kind harmful (the column kind, by prompts.kind)"
