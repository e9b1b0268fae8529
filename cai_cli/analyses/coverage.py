"""How often each principle was drawn, found something and changed something, and the rows in which none found anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cai_cli.analyses import Options
from cai_cli.analyses import _figures as figures
from cai_cli.analyses._result import Analysis, Cell, Column, Number, Section
from cai_cli.analyses._steps import Finding, Step, are, kind_of, listed, of_rows, steps
from cai_cli.analyses._tally import Tally, group_of

SUMMARY = "How often each principle was drawn, found something, changed something."
READS = ("revise", "critique")

ENOUGH = 20  # draws from which on "never" and "always" are said
FEWEST = 5  # expected draws that a cell of the test needs
UNLIKELY = 0.001  # p-value from which on the draws are said not to follow the weights


class _Gathered:
    """What is summed while rows stream by."""

    def __init__(self) -> None:
        self.rows = 0
        self.without = 0  # rows that have no critique
        self.single = True  # every round has one critique
        self.tally = Tally()
        self.category: dict[str, str] = {}  # of each principle, in the order in which they turn up
        self.kinds: Counter[str] = Counter()

    def add(self, row: Mapping[str, Any]) -> None:
        group = group_of(row, self.rows)
        self.rows += 1
        rounds = steps(row)
        if not any(step.findings for step in rounds):
            self.without += 1
            return
        for step in rounds:
            self.single &= len(step.findings) <= 1
            for finding in step.findings:
                self._count(finding, step, group)
        self._caught(rounds, kind_of(row), group)

    def _count(self, finding: Finding, step: Step, group: int) -> None:
        self.category.setdefault(finding.principle, finding.category)
        fired, by_words = finding.severity, finding.needs_revision if finding.severity is None else None
        found = None if fired is None else fired > 0
        for whose in (("principle", finding.principle), ("category", finding.category or "none"), ("all", "")):
            add = self.tally.add
            add((*whose, "drawn"), group, 1)
            add((*whose, "found"), group, found)
            add((*whose, "by_words"), group, by_words)
            add((*whose, "changed"), group, None if step.open else step.changed)
            add((*whose, "severity"), group, fired if found else None)

    def _caught(self, rounds: Sequence[Step], kind: str, group: int) -> None:
        findings = [finding for step in rounds for finding in step.findings]
        self.kinds[kind] += 1
        for measure, known in (
            ("uncaught", [one.severity > 0 for one in findings if one.severity is not None]),
            ("uncaught_by_words", [one.needs_revision for one in findings if one.needs_revision is not None]),
        ):
            for name in (kind, ""):
                self.tally.add((measure, name), group, not any(known) if known else None)

    @property
    def measured(self) -> str:
        """What tells whether a critique found something: its severity, or whether it asks for a revision; empty: nothing does."""
        if self.tally.count(("all", "", "found")):
            return "found"
        # Templates without a severity ask for a revision always: that tells nothing.
        words = ("all", "", "by_words")
        return "by_words" if 0 < self.tally.total(words) < self.tally.count(words) else ""


def analyse(rows: Iterable[Mapping[str, Any]], options: Options) -> Analysis:
    """Takes: rows of critique or revise; of them the columns rounds, and prompt_id and kind where there are
    Gives: the sections principles, severity, categories, uncaught. A principle "found something" where the severity it gave is
        above 0, and "changed something" where the round that it was drawn for ended in another text.
    """
    found = _Gathered()
    for row in rows:
        found.add(row)
    weights = _weights(options)
    names = [*weights, *(name for name in found.category if name not in weights)]
    sections = (_principles(found, names, weights), _severities(found, names), _categories(found), _uncaught(found))
    return Analysis(
        name="coverage", rows=found.rows, sections=tuple(section for section in sections if section.rows),
        findings=tuple(_findings(found, names, weights)), warnings=tuple(_warnings(found, weights)),
        unusable="" if found.rows > found.without else "no row has critiques in the column 'rounds'",
    )  # fmt: skip


def _weights(options: Options) -> dict[str, float]:
    """Principles that can be drawn, with their share of the weight."""
    active = [one for one in options.constitution.principles if one.weight > 0] if options.constitution else []
    total = sum(one.weight for one in active)
    return {one.name: one.weight / total for one in active}


def _principles(found: _Gathered, names: Sequence[str], weights: Mapping[str, float]) -> Section:
    drawn = {name: found.tally.count(("principle", name, "drawn")) for name in names}
    total = sum(drawn.values())
    expected = weights if found.single else {}
    rows = [
        {
            "principle": name, "drawn": drawn[name], "expected": round(expected[name] * total) if name in expected else None,
            **_shares(found, ("principle", name)),
        }
        for name in sorted(names, key=lambda name: -drawn[name])
    ]  # fmt: skip
    head = [Column(name="principle", title="principle"), Column(name="drawn", title="drawn", bar=True)]
    head += [Column(name="expected", title="by weight")] if expected else []
    note = "found: share of its critiques with a severity above 0; changed: share of its rounds that ended in another text."
    return Section(
        name="principles", title="principles", head=(*head, *_SHARES), rows=tuple(rows) if total else (), note=note,
    )  # fmt: skip


_SHARES = (Column(name="found", title="found"), Column(name="changed", title="changed"))


def _shares(found: _Gathered, whose: tuple[str, str]) -> dict[str, Cell]:
    share = found.tally.share
    drawn = bool(found.tally.count((*whose, "drawn")))
    return {
        "found": share((*whose, found.measured)) if found.measured and drawn else None,
        "changed": share((*whose, "changed")) if drawn else None,
    }


def _severities(found: _Gathered, names: Sequence[str]) -> Section:
    fired = [name for name in names if found.tally.count(("principle", name, "severity"))]
    rows: tuple[Mapping[str, Cell], ...] = tuple(
        {"principle": name, "severity": found.tally.mean(("principle", name, "severity"), "", (0, 1))} for name in fired
    )
    # No fall to the next round: what was high by chance is lower there whatever the revision did. That is for analyze cycles.
    note = "Mean in [0, 1], where it found something. What revisions do to it: analyze cycles, by scores."
    head = (Column(name="principle", title="principle"), Column(name="severity", title="severity", whiskers=True))
    return Section(name="severity", title="severity, where a principle found something", head=head, rows=rows, note=note)


def _categories(found: _Gathered) -> Section:
    drawn = Counter({name: found.tally.count(("category", name, "drawn")) for name in {*found.category.values(), "none"} - {""}})
    rows: tuple[Mapping[str, Cell], ...] = tuple(
        {"category": name, "drawn": count, **_shares(found, ("category", name))} for name, count in drawn.most_common() if count
    )
    head = (Column(name="category", title="category"), Column(name="drawn", title="drawn", bar=True), *_SHARES)
    return Section(name="categories", title="categories", head=head, rows=rows)


def _uncaught(found: _Gathered) -> Section:
    measure = _measure(found)
    rows: tuple[Mapping[str, Cell], ...] = tuple(
        {"kind": kind, "rows": number, "uncaught": found.tally.share((measure, kind))}
        for kind, number in found.kinds.most_common()
        if found.measured
    )
    head = (
        Column(name="kind", title="kind"), Column(name="rows", title="rows"),
        Column(name="uncaught", title="found by none", bar=True, most=1),
    )  # fmt: skip
    note = "Rows in which no principle that was drawn found anything, in any round."
    return Section(name="uncaught", title="rows that no principle catches", head=head, rows=rows, note=note)


def _measure(found: _Gathered) -> str:
    return "uncaught_by_words" if found.measured == "by_words" else "uncaught"


def _findings(found: _Gathered, names: Sequence[str], weights: Mapping[str, float]) -> Iterable[str]:
    shares = {name: _shares(found, ("principle", name))["found"] for name in names}
    told = {name: one for name, one in shares.items() if isinstance(one, Number) and (one.n or 0) >= ENOUGH}
    if found.measured and (share := found.tally.share((_measure(found), "harmful"))).n:
        yield _of_harmful(share)
    if never := [name for name in weights if not found.tally.count(("principle", name, "drawn"))]:
        yield f"Never drawn: {listed(never)}. More rows, more rounds, critique.principles or a higher weight would reach them."
    if idle := [name for name, one in told.items() if one.value == 0]:
        yield f"Never found anything in {ENOUGH} critiques or more: {listed(idle)}. Lower the weight, or sharpen critique_prompt."
    if eager := [name for name, one in told.items() if one.value == 1]:
        yield f"Found something every time, in {ENOUGH} critiques or more: {listed(eager)}. Read some: it may ask too much."


def _of_harmful(share: Number) -> str:
    hits = round((share.value or 0) * (share.n or 0))
    if not hits:
        return f"In each of {share.n:,} rows of kind harmful some principle found something."
    return (
        f"In {hits:,} of {share.n:,} rows of kind harmful, {figures.told(share)}, no principle found anything: read some of "
        "them, the model may have answered well, or a principle may be missing."
    )


def _warnings(found: _Gathered, weights: Mapping[str, float]) -> Iterable[str]:
    if found.rows == found.without:
        return
    if found.without:
        yield f"{of_rows(found.without, found.rows)} no critique, and {are(found.without)} left out"
    if not found.measured:
        yield "the critiques give no severity, so what they found is not known: critique.template general asks for one"
    elif found.kinds["harmful"] and not found.tally.count((_measure(found), "harmful")):
        yield "no row of kind harmful has a severity, so what was found in these is not known"
    if not weights:
        yield "without a constitution, principles that were never drawn are not known: give the CONFIG"
    if weights and (strange := [name for name in found.category if name not in weights]):
        yield f"not among the principles that the constitution can draw now: {listed(strange)}"
    elif weights and found.single and _unlike(found, weights):
        yield (
            f"the draws do not follow the weights (chi-squared test, p < {UNLIKELY}): critique.pick may not be weighted, "
            "critique.categories may shift them, or the weights were others then"
        )


def _unlike(found: _Gathered, weights: Mapping[str, float]) -> bool:
    """Whether the draws surely do not follow the weights, by a chi-squared test of cells of 5 expected draws or more."""
    from scipy.stats import chisquare

    drawn = [found.tally.count(("principle", name, "drawn")) for name in weights]
    cells = pooled([(share * sum(drawn), hits) for share, hits in zip(weights.values(), drawn, strict=True)])
    if len(cells) < 2:
        return False
    expected, seen = zip(*cells, strict=True)
    return float(chisquare(seen, expected).pvalue) < UNLIKELY


def pooled(cells: Iterable[tuple[float, int]]) -> list[tuple[float, int]]:
    """Cells of expected and seen counts, the small ones put together until each expects 5: below, chi-squared is no chi-squared.

    Takes: (expected, seen)   Gives: the same in sum, from the least expected; a rest that expects less than 5 is in the last
    What was seen must not decide what is put together: that would make the difference larger than it is.
    Source: Cochran 1954, "Some methods for strengthening the common chi-squared tests".
    """
    found: list[tuple[float, int]] = []
    expected, seen = 0.0, 0
    for more, hits in sorted(cells, key=lambda cell: cell[0]):
        expected, seen = expected + more, seen + hits
        if expected >= FEWEST:
            found.append((expected, seen))
            expected, seen = 0.0, 0
    if found and expected:
        last = found.pop()
        found.append((last[0] + expected, last[1] + seen))
    return found
