"""System prompts, models or any column's values compared: on the same prompts where possible, and with how many are compared."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations

import numpy as np

from cai_cli.analyses import Options, Row
from cai_cli.analyses._columns import Table, column, told
from cai_cli.analyses._pairs import cluster, last_text, listed, said, side, text, truth
from cai_cli.analyses._pairs import number as number_in
from cai_cli.analyses._result import Analysis, Cell, Column, Number, Section, Unit
from cai_cli.analyses._tally import number
from cai_cli.bias.estimate import Estimate, Floats, student
from cai_cli.bias.interval import clustered_mean
from cai_cli.bias.multiple import benjamini_hochberg
from cai_cli.errors import Exit, Fix

SUMMARY = "System prompts, models or any column compared: refusals, length, severity, revisions, scores, wins."
READS = ("revise", "critique", "generate")
ALSO = ("score", "debias", "label-pairs")
TAKES = ("by",)

MANY = 24  # groups; more are no comparison
EACH = 5  # up to so many groups each is compared with each, above that all with the first
SHORT = 24  # characters; longer names get a letter
SIGNIFICANT = 0.05
NOTHING = "(none)"
BOTH = "model, system"

MEASURES: Mapping[str, tuple[str, Unit]] = {
    "refused": ("refused", "share"), "truncated": ("cut off", "share"), "words": ("length, words", "words"),
    "severity_first": ("severity, first round", ""), "severity_last": ("severity, last round", ""),
    "revisions": ("revisions accepted", "rounds"),
}  # fmt: skip


class _Measured:
    """Rows with their groups, by the columns that may tell them apart, and what is measured of them."""

    def __init__(self, by: tuple[str, ...]) -> None:
        self.by = by
        self.table = Table(by, MEASURES)
        self.scores: dict[str, Table] = {}
        self._names: dict[str, str] = {}  # one object for equal names: system prompts are long

    def groups(self, row: Row) -> tuple[str, ...]:
        """The row's group by each column. Raises: Fix: too many"""
        found = tuple(self._names.setdefault(name, name) for name in (_group(row, by) for by in self.by))
        if len(self._names) > MANY * len(self.by):
            what = f"{' and '.join(self.by[:2])}: more than {MANY} values, which are too many to compare"
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

    def values(self) -> Iterator[tuple[str, Unit, Table, Floats]]:
        """Every measure that some row has: what it is called, its unit, its table, its values."""
        for name, (title, unit) in MEASURES.items():
            if np.isfinite(values := self.table[name]).any():
                yield title, unit, self.table, values
        yield from ((title, "score", table, table["score"]) for title, table in self.scores.items())


def _measures(row: Row) -> dict[str, float | None]:
    rounds = listed(row, "rounds")
    severities = [found for one in rounds if (found := number_in(one, "severity")) is not None]
    response = row.get("response")
    return {
        "refused": truth(row, "refused"), "truncated": truth(row, "truncated"),
        "words": None if response is None else float(len(last_text(response).split())),
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
    that both groups answered: a t interval by prompt. p-values are adjusted for the number of comparisons (`bias.multiple`).
    Assumes: prompts are independent. Where two groups share no prompt there is no difference, only the two means.
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
        for row in further if stage == "score" or not wins.looked_at else ():  # debias holds the same pairs as label-pairs
            wins.add(row) if "response_a" in row else measured.add_scores(row)
    return _analysis(measured, wins, count, options.by)


def _analysis(measured: _Measured, wins: _Wins, count: int, wanted: str | None) -> Analysis:
    by = wanted or _telling(measured.table) or wins.telling()
    names = _named([*measured.table.values(by), *wins.groups(by)] if by else [])
    same, apart = _differences(measured, by, names)
    won = _won(wins, by, names)
    sections = (_groups(measured, by, names), _means(measured, by, names), same, apart, won)
    return Analysis(
        name="systems", rows=count, sections=tuple(one for one in sections if one.rows),
        findings=tuple(_findings((*same.rows, *apart.rows), won, len(names))),
        warnings=tuple(_warnings(measured, wins, by, names)),
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
    for title, unit, table, values in measured.values():
        groups = {short: table.where(by, value) for value, short in names.items()} or {"all": np.ones(len(table), dtype=bool)}
        for short, mine in groups.items():
            mean = table.mean_share(values, mine) if unit == "share" else table.mean(values, mine, unit)
            rows += [{"measure": title, "group": short, "mean": mean, "rows": mean.n}] if mean.n else []
    head = (Column(name="measure", title="measure", once=True), Column(name="group", title="group"),
            Column(name="mean", title="mean", whiskers=True), Column(name="rows", title="rows"))  # fmt: skip
    note = "Of the current response, the revision where there is one; severity as the critic gave it, in [0, 1]."
    return Section(name="measures", title="each by itself", head=head, rows=tuple(rows), note=note)


def _differences(measured: _Measured, by: str, names: Mapping[str, str]) -> tuple[Section, Section]:
    """On the prompts that two groups share; and, where they share none, between their means."""
    rows: tuple[list[dict[str, Cell]], list[dict[str, Cell]]] = [], []
    for title, unit, table, values in measured.values():
        for left, right in _compared(list(names)):
            paired, found = _difference(table, values, by, left, right)
            if found.n:
                between = f"{names[left]} minus {names[right]}"
                rows[not paired].append({"measure": title, "between": between, "prompts": found.n,
                                         "difference": number(found, unit), "p": found.p_value})  # fmt: skip
    tested = [(row, p) for row in (*rows[0], *rows[1]) if isinstance(p := row["p"], float)]
    for (row, _), p in zip(tested, benjamini_hochberg([p for _, p in tested]), strict=True):
        row["p"] = p
    adjusted = f"p after Benjamini-Hochberg over all {len(tested)} comparisons."
    same, apart = (
        "On the prompts that both answered, prompt by prompt; ",
        "They share no prompt, so these are differences of prompts too; ",
    )
    return (
        Section(name="differences", title="on the same prompts", head=_DIFFERENCES, rows=tuple(rows[0]), note=same + adjusted),
        Section(
            name="differences_apart", title="on different prompts", head=_DIFFERENCES, rows=tuple(rows[1]), note=apart + adjusted
        ),
    )


_DIFFERENCES = (
    Column(name="measure", title="measure", once=True), Column(name="between", title="between"),
    Column(name="difference", title="difference", whiskers=True, at=0), Column(name="prompts", title="prompts"),
    Column(name="p", title="p, adjusted"),
)  # fmt: skip


def _compared(values: Sequence[str]) -> list[tuple[str, str]]:
    """Each with each while they are few, else all with the first."""
    every = list(combinations(values, 2))
    return every if len(values) <= EACH else [pair for pair in every if pair[0] == values[0]]


def _difference(table: Table, values: Floats, by: str, left: str, right: str) -> tuple[bool, Estimate]:
    """Whether two groups share prompts, and the difference of their means.

    Formula: on shared prompts, the mean over them of the difference of the prompt's means, t interval. Without any, the
    difference of the groups' means over prompts, its variance the sum of theirs, t with G - 2 degrees of freedom for G prompts.
    """
    (prompts, mine), (others, theirs) = (_by_prompt(table, values, by, name) for name in (left, right))
    _, at_left, at_right = np.intersect1d(prompts, others, assume_unique=True, return_indices=True)
    if len(at_left) or min(len(mine), len(theirs)) < 2:
        both = mine[at_left] - theirs[at_right]
        return True, clustered_mean(both, np.ones(len(both)))
    se = math.sqrt(float(mine.var(ddof=1)) / len(mine) + float(theirs.var(ddof=1)) / len(theirs))
    n, apart = len(mine) + len(theirs), float(mine.mean() - theirs.mean())
    return False, student(apart, se, n, n - 2) if se > 0 else Estimate(value=apart, n=n)


def _by_prompt(table: Table, values: Floats, by: str, name: str) -> tuple[Floats, Floats]:
    """The prompts of a group, in the order of their keys, and the mean of the values on each."""
    mine = table.where(by, name) & np.isfinite(values)
    prompts, place = np.unique(table["cluster"][mine], return_inverse=True)
    return prompts, np.bincount(place, weights=values[mine]) / np.maximum(np.bincount(place), 1)


def _won(wins: _Wins, by: str, names: Mapping[str, str]) -> Section:
    table = wins.table
    rows: list[dict[str, Cell]] = []
    for left in table.values("left"):
        for right in table.values("right"):
            both = table.where("by", by) & table.where("left", left) & table.where("right", right)
            if both.any():
                won = table.mean_share(table["left_won"], both)
                rows.append({"winner": names[left], "against": names[right], "pairs": int(both.sum()), "won": won})
    head = (Column(name="winner", title="group"), Column(name="against", title="against"), Column(name="pairs", title="pairs"),
            Column(name="won", title="won", whiskers=True, at=0.5))  # fmt: skip
    note = "Share of the pairs of two groups whose label prefers the first named; a tie is half a win."
    return Section(name="wins", title="which one labelers prefer", head=head, rows=tuple(rows), note=note)


# In sentences.


def _findings(differences: Sequence[Mapping[str, Cell]], won: Section, groups: int) -> Iterator[str]:
    for row in won.rows:
        share = row["won"]
        if isinstance(share, Number) and share.low is not None and share.high is not None and not share.low <= 0.5 <= share.high:
            yield f"{row['winner']} wins {told(share)} of {row['pairs']:,} pairs against {row['against']}."
    found = [(row, p) for row in differences if isinstance(p := row["p"], float) and p < SIGNIFICANT]
    for row, p in sorted(found, key=lambda one: one[1]):
        if isinstance(difference := row["difference"], Number):
            yield f"{row['measure']}: {row['between']} is {told(difference, signed=True)}, p {_p(p)}."
    if groups > 1 and differences and not found:
        yield "No difference is beyond chance after adjustment for the number of comparisons."


def _p(value: float) -> str:
    return "< .001" if value < 0.001 else f"{value:.3f}"


def _warnings(measured: _Measured, wins: _Wins, by: str, names: Mapping[str, str]) -> Iterator[str]:
    if by and set(names) <= {NOTHING}:
        yield f"no row has a column '{by}'"
    elif len(names) < 2:
        what = f"column '{by}' has one value" if by else "all rows have one system prompt and one model"
        yield f"{what}: there is nothing to compare; generate.systems makes several, --by names another column"
    elif len(measured.table) and not any(True for _ in _shared(measured, by, names)):
        yield "no two groups answered the same prompt, so their means differ by their prompts too"
    if wins.untold:
        yield f"{wins.untold:,} pairs do not tell whose responses they are, by source_a and source_b, or model_a and model_b"


def _shared(measured: _Measured, by: str, names: Mapping[str, str]) -> Iterator[float]:
    seen: set[float] = set()
    for name in names:
        prompts = set(np.unique(measured.table["cluster"][measured.table.where(by, name)]).tolist())
        yield from prompts & seen
        seen |= prompts
