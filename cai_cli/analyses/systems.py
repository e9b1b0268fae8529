"""System prompts, models or any column's values compared: on the same prompts where possible, and with how many are compared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from math import inf

import numpy as np

from cai_cli.analyses import Options, Row
from cai_cli.analyses._columns import Table, column
from cai_cli.analyses._figures import p_value, told
from cai_cli.analyses._pairs import cluster, last_text, listed, said, side, text, truth
from cai_cli.analyses._pairs import number as number_in
from cai_cli.analyses._result import Analysis, Cell, Column, Number, Section, Unit
from cai_cli.analyses._strengths import strong
from cai_cli.analyses._tally import number
from cai_cli.analyses._texts import length
from cai_cli.bias.differences import apart, paired
from cai_cli.bias.estimate import Bools, Estimate, Floats
from cai_cli.bias.multiple import benjamini_hochberg
from cai_cli.bias.shares import against_half, apart_shares, paired_shares
from cai_cli.errors import Exit, Fix

SUMMARY = "System prompts, models or any column compared: refusals, length, severity, revisions, scores, wins."
READS = ("revise", "critique", "generate")
ALSO = ("score", "label-pairs", "debias")
TAKES = ("by",)

MANY = 24  # groups; more are no comparison
EACH = 5  # up to so many groups each is compared with each, above that all with the first
SHARED = 0.5  # of the smaller group's prompts; where fewer are shared all are compared
SHORT = 24  # characters; longer names get a letter
SIGNIFICANT = 0.05
NOTHING = "(none)"
BOTH = "model, system"
UNUSABLE = "no row has a response, rounds, scores or refused, and none is a pair with a label"

# What it is called, its unit, and between which limits it lies.
MEASURES: Mapping[str, tuple[str, Unit, tuple[float, float]]] = {
    "refused": ("refused", "share", (0, 1)), "truncated": ("cut off", "share", (0, 1)),
    "words": ("length, words", "words", (0, inf)), "severity_first": ("severity, first round", "", (0, 1)),
    "severity_last": ("severity, last round", "", (0, 1)), "revisions": ("revisions accepted", "rounds", (0, inf)),
}  # fmt: skip


class _Measured:
    """Rows with their groups, by the columns that may tell them apart, and what is measured of them."""

    def __init__(self, by: tuple[str, ...]) -> None:
        self.by = by
        self.table = Table(by, MEASURES)
        self.scores: dict[str, Table] = {}
        self._names: tuple[dict[str, str], ...] = tuple({} for _ in by)  # one object for equal names: system prompts are long

    def groups(self, row: Row) -> tuple[str, ...]:
        """The row's group by each column. Raises: Fix: too many"""
        given = [_group(row, by) for by in self.by]
        found = tuple(names.setdefault(name, name) for names, name in zip(self._names, given, strict=True))
        if many := next((by for by, names in zip(self.by, self._names, strict=True) if len(names) > MANY), ""):
            what = f"{many}: more than {MANY} values, which are too many to compare"
            raise Fix(what, "name a column that has few: --by model, --by kind, --by meta.NAME", Exit.INPUT)
        return found

    def add(self, row: Row) -> None:
        self.table.add(cluster(row), **dict(zip(self.by, self.groups(row), strict=True)), **_measures(row))
        self.add_scores(row)

    def add_scores(self, row: Row) -> None:
        given = listed(row, "scores")
        found = {f"score, {text(one, 'criterion') or NOTHING}": number_in(one, "score") for one in given}
        found |= {"score, composite": number_in(row, "composite")}
        for title, score in found.items():
            if score is not None:
                table = self.scores.setdefault(title, Table(self.by, ("score",)))
                table.add(cluster(row), **dict(zip(self.by, self.groups(row), strict=True)), score=score)

    def values(self) -> Iterator[_Measure]:
        """Every measure that some row has."""
        one_round = np.array_equal(self.table["severity_first"], self.table["severity_last"], equal_nan=True)
        for name, (title, unit, within) in MEASURES.items():
            if np.isfinite(values := self.table[name]).any() and not (one_round and name == "severity_last"):
                yield _Measure(title=title, unit=unit, within=within, table=self.table, values=values)
        for title, table in self.scores.items():
            yield _Measure(title=title, unit="score", within=(-inf, inf), table=table, values=table["score"])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measure:
    """A measure of some rows. `within`: between which limits its values lie"""

    title: str
    unit: Unit
    within: tuple[float, float]
    table: Table
    values: Floats

    def mean(self, mine: Bools) -> Number:
        if self.unit == "share":
            return self.table.mean_share(self.values, mine)
        return self.table.mean(self.values, mine, self.unit, self.within)

    def by_prompt(self, mine: Bools) -> tuple[Floats, Floats]:
        """The prompts of some rows, in the order of their keys, and the mean of the values on each."""
        known = mine & np.isfinite(self.values)
        prompts, place = np.unique(self.table["cluster"][known], return_inverse=True)
        return prompts, np.bincount(place, weights=self.values[known]) / np.maximum(np.bincount(place), 1)


def _measures(row: Row) -> dict[str, float | None]:
    rounds = listed(row, "rounds")
    severities = [found for one in rounds if (found := number_in(one, "severity")) is not None]
    response = row.get("response")
    return {
        "refused": truth(row, "refused"), "truncated": truth(row, "truncated"),
        "words": None if response is None else float(length(last_text(response))),
        "severity_first": severities[0] if severities else None, "severity_last": severities[-1] if severities else None,
        "revisions": float(sum(one.get("accepted") is True for one in rounds)) if "rounds" in row else None,
    }  # fmt: skip


def _group(row: Row, by: str) -> str:
    if by == BOTH:
        return ", ".join(_group(row, name) for name in ("model", "system"))
    return column(row, by) or ("(no system prompt)" if by == "system" else NOTHING)


class _Wins:
    """Which group's response won, for pairs of two groups."""

    def __init__(self, by: tuple[str, ...]) -> None:
        self.by = by
        self.table = Table(("by", "left", "right"), ("left_won",))
        self.looked_at = self.untold = 0
        self._groups_of: dict[str, tuple[str, ...]] = {}  # a sample's groups, by its id

    def know(self, row: Row, groups: tuple[str, ...]) -> None:
        """Remember whose response a sample is."""
        if row.get("id"):
            self._groups_of[str(row["id"])] = groups

    def add(self, row: Row) -> None:
        label, _ = side(row, said(row)[0])
        if not label:
            return
        self.looked_at += 1
        sources = [[self._source(row, which, at) for which in ("a", "b")] for at in range(len(self.by))]
        self.untold += not any(a and b for a, b in sources)
        for by, (a, b) in zip(self.by, sources, strict=True):
            if a and b and a != b:
                won = {"a": 1.0, "b": 0.0, "tie": 0.5}[label]
                left, right, left_won = (a, b, won) if a < b else (b, a, 1 - won)
                self.table.add(cluster(row), by=by, left=left, right=right, left_won=left_won)

    def _source(self, row: Row, which: str, at: int) -> str:
        """The group of a response: of its sample, or from a column such as model_a. Empty: nothing tells."""
        sample = text(row, f"source_{which}")
        if found := self._groups_of.get(sample) or self._groups_of.get(sample.rpartition(":")[0]):
            return found[at]
        if self.by[at] == BOTH:
            return ""
        return column(row, f"{self.by[at]}_{which}") or ""

    def groups(self, by: str) -> list[str]:
        """Every group that a response is of."""
        mine = self.table.where("by", by)
        return [
            value
            for name in ("left", "right")
            for value in self.table.values(name)
            if (self.table.where(name, value) & mine).any()
        ]

    def telling(self) -> str:
        """The column that tells the responses of some pair apart, where samples do not say."""
        return next(iter(self.table.values("by")), "")


def analyse(rows: Iterable[Row], options: Options, also: Mapping[str, Iterable[Row]] | None = None) -> Analysis:
    """Groups of rows compared measure by measure, and by which of them labelers prefer.

    Takes: samples, chains, scored samples or pairs; `options.by`, the column that tells groups apart, by default `system` and
    `model`, whichever has more than one value; `also`: further stages' rows, scores and pairs
    Formula: a difference is the mean over prompts of the difference of the prompt's means in the two groups, over the prompts
    that both groups answered; where they share fewer than half of the smaller group's, the difference of their means over all
    their prompts (`bias.differences`, `bias.shares`). p-values are adjusted for the number of comparisons (`bias.multiple`),
    those of wins for that of the wins. Three or more groups that labelers compared get a strength each (`bias.strengths`).
    Assumes: prompts are independent; where some are shared but all are compared, intervals are rather too long.
    Raises: Fix: the column has more than 24 values
    """
    by = (options.by,) if options.by else ("system", "model", BOTH)
    measured, wins, count = _Measured(by), _Wins(by), 0
    for row in rows:
        count += 1
        if "response_a" in row:
            wins.add(row)
        else:
            measured.add(row)
            wins.know(row, measured.groups(row))
    for stage, further in (also or {}).items():
        for row in further if stage == "score" or not wins.looked_at else ():  # debias holds some of the pairs of label-pairs
            wins.add(row) if "response_a" in row else measured.add_scores(row)
    return _analysis(measured, wins, count, options.by)


def _analysis(measured: _Measured, wins: _Wins, count: int, wanted: str | None) -> Analysis:
    by = wanted or _telling(measured.table) or wins.telling()
    names = _named([*measured.table.values(by), *wins.groups(by)] if by else [])
    same, others = _differences(measured, by, names)
    won = _won(wins, by, names)
    sections = (_groups(measured, by, names), _means(measured, by, names), same, others, won, strong(wins.table, by, names))
    return Analysis(
        name="systems", rows=count, sections=tuple(one for one in sections if one.rows),
        findings=tuple(_findings((*same.rows, *others.rows), won, len(names))),
        warnings=tuple(_warnings(wins, by, names, bool(others.rows))),
        unusable="" if wins.looked_at or any(True for _ in measured.values()) else UNUSABLE,
    )  # fmt: skip


def _telling(table: Table) -> str:
    """The column that tells groups apart: system, model, or both together; empty: there is one group only."""
    many = [name for name in ("system", "model") if len(table.values(name)) > 1]
    return BOTH if len(many) == 2 else many[0] if many else ""


def _named(values: Sequence[str]) -> dict[str, str]:
    """What each group is called in tables: its own name, or a letter where names are long."""
    distinct = list(dict.fromkeys(values))
    long = any(len(value) > SHORT for value in distinct)
    return {
        value: chr(ord("A") + at) if long and at < 26 else f"{at + 1}" if long else value for at, value in enumerate(distinct)
    }


# Tables.


def _groups(measured: _Measured, by: str, names: Mapping[str, str]) -> Section:
    table = measured.table
    rows: list[dict[str, Cell]] = [
        {"group": short, "value": value, "rows": int(mine.sum()), "prompts": len(np.unique(table["cluster"][mine]))}
        for value, short in names.items()
        if (mine := table.where(by, value)).any()
    ]
    lettered = any(short != value for value, short in names.items())
    value = (Column(name="value", title=by),) if lettered else ()
    head = (
        Column(name="group", title="group"),
        *value,
        Column(name="rows", title="rows"),
        Column(name="prompts", title="prompts"),
    )
    return Section(name="groups", title=f"groups, by {by}", head=head, rows=tuple(rows))


def _means(measured: _Measured, by: str, names: Mapping[str, str]) -> Section:
    rows: list[dict[str, Cell]] = []
    for one in measured.values():
        groups = {short: one.table.where(by, value) for value, short in names.items()}
        for short, mine in (groups or {"all": np.ones(len(one.table), dtype=bool)}).items():
            mean = one.mean(mine)
            rows += [{"measure": one.title, "group": short, "mean": mean, "rows": mean.n}] if mean.n else []
    head = (Column(name="measure", title="measure", once=True), Column(name="group", title="group"),
            Column(name="mean", title="mean", whiskers=True), Column(name="rows", title="rows"))  # fmt: skip
    note = "Of the current response, the revision where there is one; severity as the critic gave it, in [0, 1]."
    return Section(name="measures", title="each by itself", head=head, rows=tuple(rows), note=note)


def _differences(measured: _Measured, by: str, names: Mapping[str, str]) -> tuple[Section, Section]:
    """On the prompts that two groups share; and, where these are few, between their means over all."""
    rows: tuple[list[dict[str, Cell]], list[dict[str, Cell]]] = [], []
    for one in measured.values():
        for left, right in _compared(list(names)):
            on_same, found = _difference(one, by, left, right)
            if found.n:
                between = f"{names[left]} minus {names[right]}"
                rows[not on_same].append({"measure": one.title, "between": between, "prompts": found.n,
                                          "difference": number(found, one.unit), "p": found.p_value})  # fmt: skip
    tested = _adjust([*rows[0], *rows[1]])
    adjusted = f"p after Benjamini-Hochberg over all {tested} comparisons of both tables." if rows[0] and rows[1] else (
        f"p after Benjamini-Hochberg over all {tested} comparisons.")  # fmt: skip
    same = f"On the prompts that both answered, prompt by prompt; {adjusted}"
    others = f"On all prompts of either, as fewer than half are shared: differences of prompts too; {adjusted}"
    return (
        Section(name="differences", title="on the same prompts", head=_DIFFERENCES, rows=tuple(rows[0]), note=same),
        Section(name="differences_apart", title="on different prompts", head=_DIFFERENCES, rows=tuple(rows[1]), note=others),
    )


def _adjust(rows: Sequence[dict[str, Cell]]) -> int:
    """Replace p-values by those adjusted for their number. Gives: it"""
    tested = [(row, p) for row in rows if isinstance(p := row["p"], float)]
    for (row, _), p in zip(tested, benjamini_hochberg([p for _, p in tested]), strict=True):
        row["p"] = p
    return len(tested)


_DIFFERENCES = (
    Column(name="measure", title="measure", once=True), Column(name="between", title="between"),
    Column(name="difference", title="difference", whiskers=True, at=0), Column(name="prompts", title="prompts"),
    Column(name="p", title="p, adjusted"),
)  # fmt: skip


def _compared(values: Sequence[str]) -> list[tuple[str, str]]:
    """Each with each while they are few, else all with the first."""
    every = list(combinations(values, 2))
    return every if len(values) <= EACH else [pair for pair in every if pair[0] == values[0]]


def _difference(one: _Measure, by: str, left: str, right: str) -> tuple[bool, Estimate]:
    """Whether two groups share enough prompts to be compared on these, and the difference of their means."""
    (prompts, mine), (others, theirs) = (one.by_prompt(one.table.where(by, name)) for name in (left, right))
    _, at_left, at_right = np.intersect1d(prompts, others, assume_unique=True, return_indices=True)
    is_share = one.unit == "share"
    if len(at_left) >= max(1, SHARED * min(len(mine), len(theirs))):
        return True, (paired_shares if is_share else paired)(mine[at_left], theirs[at_right])
    return False, (apart_shares if is_share else apart)(mine, theirs)


def _won(wins: _Wins, by: str, names: Mapping[str, str]) -> Section:
    table = wins.table
    rows: list[dict[str, Cell]] = []
    for left in table.values("left"):
        for right in table.values("right"):
            both = table.where("by", by) & table.where("left", left) & table.where("right", right)
            if both.any():
                found = against_half(*table.totals(table["left_won"], both))
                rows.append({"winner": names[left], "against": names[right], "pairs": int(both.sum()),
                             "won": number(found, "share"), "p": found.p_value})  # fmt: skip
    tested = _adjust(rows)
    head = (Column(name="winner", title="group"), Column(name="against", title="against"), Column(name="pairs", title="pairs"),
            Column(name="won", title="won", whiskers=True, at=0.5), Column(name="p", title="p, adjusted"))  # fmt: skip
    note = "Share of the pairs of two groups whose label prefers the first named; a tie is half a win"
    note += f"; p of a half, after Benjamini-Hochberg over all {tested}." if tested > 1 else "; p of a half."
    return Section(name="wins", title="which one labelers prefer", head=head, rows=tuple(rows), note=note)


# In sentences.


def _findings(differences: Sequence[Mapping[str, Cell]], won: Section, groups: int) -> Iterator[str]:
    for row, p in _beyond_chance(won.rows):
        if isinstance(share := row["won"], Number):
            yield f"{row['winner']} wins {told(share)} of {row['pairs']:,} pairs against {row['against']}, {p_value(p)}."
    found = _beyond_chance(differences)
    for row, p in found:
        if isinstance(difference := row["difference"], Number):
            yield f"{row['measure']}: {row['between']} is {told(difference, signed=True)}, {p_value(p)}."
    if groups < 2 or not differences:
        return
    untested = sum(row["p"] is None for row in differences)
    if untested:
        yield f"{untested} of {len(differences)} comparisons could not be tested: a group has fewer than two prompts."
    elif not found:
        yield "No difference is beyond chance after adjustment for the number of comparisons."


def _beyond_chance(rows: Iterable[Mapping[str, Cell]]) -> list[tuple[Mapping[str, Cell], float]]:
    found = [(row, p) for row in rows if isinstance(p := row["p"], float) and p < SIGNIFICANT]
    return sorted(found, key=lambda one: one[1])


def _warnings(wins: _Wins, by: str, names: Mapping[str, str], others: bool) -> Iterator[str]:
    if by and set(names) <= {NOTHING}:
        yield f"no row has a column '{by}'"
    elif len(names) < 2:
        what = f"column '{by}' has one value" if by else "all rows have one system prompt and one model"
        yield f"{what}: there is nothing to compare; generate.systems makes several, --by names another column"
    elif others:
        yield "groups that share fewer than half of their prompts are compared on all: they may differ by their prompts too"
    if wins.untold:
        yield f"{wins.untold:,} pairs do not tell whose responses they are, by source_a and source_b, or model_a and model_b"
