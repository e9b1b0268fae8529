"""Do labelers, orders, draws, gold, columns and files say the same, and how much more than chance would have it?"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations

from cai_cli import votes
from cai_cli.analyses import Options, Row
from cai_cli.analyses._columns import column
from cai_cli.analyses._figures import told
from cai_cli.analyses._pairs import MIRROR, SELECTED, SIDES, Said, by_labeler, cluster, is_selected, pooled, said, side, text
from cai_cli.analyses._result import Analysis, Cell, Column, Number, Section
from cai_cli.analyses._tally import number
from cai_cli.bias.coefficients import MISSING, Coefficients, Ratings, effective
from cai_cli.errors import Exit, Fix

SUMMARY = "Between labelers, orders, draws, with gold, between columns or files: raw, kappa, AC1, alpha."
READS = ("label-pairs", "debias")  # debias keeps the pairs on which votes agree: labelers look better there than they are
ALSO = ("debias",)
TAKES = ("columns", "other")

MANY = 12  # categories of a column, where more are no categories; raters that are compared
TABLES = 3  # confusion tables between labelers, at most
RELIABLE = 0.667  # the least alpha from which conclusions may be drawn: Krippendorff 2004, Content Analysis, 11.4
ERRORS = "errors against gold"
LABEL = "label"  # the row's own, after all votes
FINAL = "label, of what debias keeps"


class _Coded:
    """What raters said of items, one byte each."""

    def __init__(self) -> None:
        self.clusters = array("d")
        self.codes: dict[str, array[int]] = {}

    def add(self, key: float, said: Mapping[str, int]) -> None:
        """An item. Takes: the key of its prompt; the category by rater, of those that rated it"""
        if not said:
            return
        for name in said:
            if name not in self.codes:
                self.codes[name] = array("b", bytes([256 + MISSING]) * len(self.clusters))
        self.clusters.append(key)
        for name, codes in self.codes.items():
            codes.append(said.get(name, MISSING))

    def most(self) -> list[str]:
        """The raters, in the order of their coming; of very many the twelve that rated most."""
        names = sorted(self.codes, key=lambda name: self.codes[name].count(MISSING))[:MANY]
        return [name for name in self.codes if name in names]

    def ratings(self, names: Sequence[str], categories: int, mirror: Sequence[int] | None) -> Ratings:
        """What the coefficients are made of, for these raters."""
        ratings = Ratings(len(names), categories, mirror)
        for key, *codes in zip(self.clusters, *(self.codes[name] for name in names), strict=True):
            ratings.add(key, codes)
        return ratings


class _Categories:
    """The values of a column, by number. a, b and tie come first, so that a column of judgements is known by them."""

    def __init__(self, name: str) -> None:
        self.name, self.known = name, dict(SIDES)

    def code(self, value: str | None) -> int | None:
        """Raises: Fix: more than twelve values"""
        if not value:
            return None
        if value not in self.known and len(self.known) >= MANY + len(SIDES):
            what = f"column '{self.name}' has more than {MANY} values: agreement here is of categories"
            raise Fix(what, "name a column of categories, such as preference: --column preference", Exit.INPUT)
        return self.known.setdefault(value, len(self.known))

    @property
    def mirror(self) -> tuple[int, ...] | None:
        """What categories become when a and b change places; None: this is no column of judgements."""
        return MIRROR if len(self.known) == len(SIDES) else None


class _Seen:
    """All that is compared."""

    def __init__(self, options: Options) -> None:
        self.columns = options.columns or ((LABEL,) if options.other else ())
        self.other = options.other
        self.labelers, self.gold, self.final, self.wrong, self.within = _Coded(), _Coded(), _Coded(), _Coded(), _Coded()
        self.orders: dict[str, _Coded] = {}
        self.draws: dict[str, _Coded] = {}
        self.files = {name: _Coded() for name in self.columns}
        self.categories = {name: _Categories(name) for name in self.columns}
        self.shared = _Categories(", ".join(self.columns))
        self.rows = self.with_votes = self.with_gold = self.met = self.selected = 0

    def add(self, row: Row) -> None:
        self.rows += 1
        key, (given, _) = cluster(row), said(row)
        self.with_votes += bool(given)
        self.selected += bool(given) and is_selected(row)
        sides = {name: code for name, mine in by_labeler(given).items() if (code := _code(mine)) is not None}
        self.labelers.add(key, sides)
        self._add_gold(key, row, given, sides)
        for name, mine in by_labeler(given).items():
            self._add_orders(key, name, mine)
            self._add_draws(key, name, mine)
        self._add_columns(key, row)
        self._add_other(key, row)

    def _add_gold(self, key: float, row: Row, given: Sequence[Said], sides: Mapping[str, int]) -> None:
        gold, label = SIDES.get(text(row, "gold")), SIDES.get(side(row, given)[0])
        if gold is None:
            return
        self.with_gold += 1
        self.gold.add(key, {"gold": gold, **({LABEL: label} if label is not None else {}), **sides})
        if gold != SIDES["tie"]:
            self.wrong.add(key, {name: int(code != gold) for name, code in sides.items()})

    def add_final(self, row: Row) -> None:
        """The label of a pair that debias kept, against gold."""
        gold, label = SIDES.get(text(row, "gold")), SIDES.get(side(row, said(row)[0])[0])
        if gold is not None and label is not None:
            self.final.add(cluster(row), {"gold": gold, FINAL: label})

    def _add_orders(self, key: float, name: str, mine: Sequence[Said]) -> None:
        sides = {order: _code([one for one in mine if one.order == order]) for order in ("ab", "ba")}
        self.orders.setdefault(name, _Coded()).add(key, {order: code for order, code in sides.items() if code is not None})

    def _add_draws(self, key: float, name: str, mine: Sequence[Said]) -> None:
        """Each draw of one question, same principle and order, is a rater."""
        asked: dict[tuple[str, str], dict[str, int]] = {}
        for one in mine:
            if one.side:
                asked.setdefault((one.vote.principle, one.order), {})[f"draw {one.vote.draw}"] = SIDES[one.side]
        for codes in asked.values():
            self.draws.setdefault(name, _Coded()).add(key, codes)

    def _add_columns(self, key: float, row: Row) -> None:
        if len(self.columns) < 2:
            return
        codes = {name: self.shared.code(_value(row, name)) for name in self.columns}
        self.within.add(key, {name: code for name, code in codes.items() if code is not None})

    def _add_other(self, key: float, row: Row) -> None:
        other = self.other.get(str(row.get("id") or row.get("prompt_id") or ""))
        if other is None:
            return
        self.met += 1
        for name, coded in self.files.items():
            here, there = _value(row, name), _value(other, name)
            if _exchanged(row, other):
                there = {"a": "b", "b": "a"}.get(there or "", there)
            codes = {"here": self.categories[name].code(here), "there": self.categories[name].code(there)}
            coded.add(key, {where: code for where, code in codes.items() if code is not None})


def _code(mine: Sequence[Said]) -> int | None:
    p = pooled(mine) if mine else None
    return None if p is None else SIDES[votes.preference_of(p)]


def _value(row: Row, name: str) -> str | None:
    if name == LABEL and LABEL not in row:
        return side(row, said(row)[0])[0] or None
    return column(row, name)


def _exchanged(row: Row, other: Row) -> bool:
    """Whether the same two responses stand there the other way round."""
    here, there = ((text(one, "source_a"), text(one, "source_b")) for one in (row, other))
    return here != there and here == there[::-1]


def analyse(rows: Iterable[Row], options: Options, also: Mapping[str, Iterable[Row]] | None = None) -> Analysis:
    """Agreement of all that judges the same thing more than once.

    Takes: rows with votes, or with a label and gold, best all that were judged; `options.columns`: columns compared with one
    another, and, where `options.other` holds rows of another file, with the same column there. Without columns it is the label
    that is compared. `also`: the rows that debias kept, whose labels are compared with gold beside.
    Which response is called a is chance, so judgements are compared as if a and b were exchanged at random (`bias.coefficients`).
    Intervals: 95%, by prompt (`bias.coefficients`).
    Raises: Fix: a column with more than twelve values
    """
    seen = _Seen(options)
    for row in rows:
        seen.add(row)
    for row in (also or {}).get("debias", ()):
        seen.add_final(row)
    sections = [one for one in _sections(seen) if one.rows]
    return Analysis(
        name="agreement", rows=seen.rows, sections=tuple(sections), findings=tuple(_findings(sections)),
        warnings=tuple(_warnings(seen)), unusable="" if sections else _unusable(seen),
    )  # fmt: skip


# Tables.

_COEFFICIENTS = (
    Column(name="rows", title="rows"), Column(name="raw", title="agree"), Column(name="kappa", title="kappa"),
    Column(name="ac1", title="AC1"), Column(name="alpha", title="alpha", whiskers=True, at=0),
)  # fmt: skip


def _sections(seen: _Seen) -> Iterator[Section]:
    names = seen.labelers.most()
    if len(names) > 1:
        yield from _labelers(seen, names)
    yield _itself(seen.orders, ("ab", "ba"), "orders", "one labeler, both orders")
    yield _itself(seen.draws, (), "draws", "one labeler, the same question again")
    yield from _gold(seen)
    if len(seen.within.codes) > 1:
        ratings = seen.within.ratings(list(seen.within.codes), len(seen.shared.known), seen.shared.mirror)
        yield _pairwise("columns", "columns", ratings, list(seen.within.codes), "Two columns of the same rows.")
        yield from _confusions("columns", ratings, list(seen.within.codes), seen.shared)
    yield from _files(seen)


def _labelers(seen: _Seen, names: Sequence[str]) -> Iterator[Section]:
    ratings = seen.labelers.ratings(names, len(SIDES), MIRROR)
    note = f"Alpha below {RELIABLE}: too little to draw conclusions from. Judgements of a labeler are pooled over its votes."
    yield _pairwise("labelers", "between labelers", ratings, names, note)
    yield from _confusions("labelers", ratings, names, _Categories(LABEL))
    yield _worth(seen, ratings, names)


def _pairwise(name: str, title: str, ratings: Ratings, names: Sequence[str], note: str) -> Section:
    rows = [
        _row(f"{names[i]} / {names[j]}", found) for i, j in combinations(range(len(names)), 2) if (found := ratings.two(i, j)).n
    ]
    if len(names) > 2 and rows:
        rows.append(_row(f"all {len(names)}", ratings.panel()))
    return Section(
        name=name, title=title, head=(Column(name="between", title="between"), *_COEFFICIENTS), rows=tuple(rows), note=note
    )


def _row(between: str, found: Coefficients) -> dict[str, Cell]:
    return {
        "between": between, "rows": found.n, "raw": number(found.raw, "share"), "kappa": number(found.kappa),
        "ac1": number(found.ac1), "alpha": number(found.alpha),
    }  # fmt: skip


def _worth(seen: _Seen, ratings: Ratings, names: Sequence[str]) -> Section:
    """How many independent labelers the panel is worth: from the correlation of errors where gold tells them."""
    judged = [name for name in names if name in seen.wrong.codes]
    if len(judged) > 1:
        rho = seen.wrong.ratings(judged, 2, None).correlation()
        what, of = ERRORS, len(judged)
    else:
        rho, what, of = ratings.panel().kappa, "verdicts, for want of gold", len(names)
    row: dict[str, Cell] = {"of": what, "labelers": of, "rho": number(rho), "worth": number(effective(of, rho))}
    head = (Column(name="of", title="correlation of"), Column(name="labelers", title="labelers"), Column(name="rho", title="rho"),
            Column(name="worth", title="worth independent ones"))  # fmt: skip
    note = (
        "k labelers are worth k / (1 + (k - 1) rho), k at most; without gold a lower bound: verdicts also agree by being right."
    )
    return Section(name="panel", title="the panel", head=head, rows=(row,), note=note)


def _itself(coded: Mapping[str, _Coded], wanted: Sequence[str], name: str, title: str) -> Section:
    rows: list[dict[str, Cell]] = []
    for labeler, said_ in coded.items():
        names = [one for one in wanted or said_.most() if one in said_.codes]
        if len(names) > 1:
            found = said_.ratings(names, len(SIDES), MIRROR).panel()
            rows += [_row(labeler, found)] if found.n else []
    head = (Column(name="between", title="labeler"), *_COEFFICIENTS)
    note = {
        "orders": "Low where the order decides, or where the labeler does not know: see `cai analyze preferences`.",
        "draws": "What a labeler says when it is asked the very same again: the most that it can agree with anybody.",
    }
    return Section(name=name, title=title, head=head, rows=tuple(rows), note=note[name])


def _gold(seen: _Seen) -> Iterator[Section]:
    names = [name for name in seen.gold.codes if name != "gold"]
    if not names:
        return
    rows: list[dict[str, Cell]] = []
    tables: list[Section] = []
    for name in names:
        ratings = seen.gold.ratings(["gold", name], len(SIDES), MIRROR)
        found = ratings.two(0, 1)
        rows += [_row(name, found)] if found.n else []
        tables += _confusions("gold", ratings, ["gold", name], _Categories(LABEL)) if name == LABEL and found.n else []
    if len(seen.final.codes) > 1:
        rows.append(_row(FINAL, seen.final.ratings(["gold", FINAL], len(SIDES), MIRROR).two(0, 1)))
    head = (Column(name="between", title="of"), *_COEFFICIENTS)
    note = (
        f"'{LABEL}' is the row's own, after all votes. Agree is the share of right ones; a tie is right only where gold is a tie."
    )
    yield Section(name="gold", title="with gold", head=head, rows=tuple(rows), note=note)
    yield from tables


def _files(seen: _Seen) -> Iterator[Section]:
    rows: list[dict[str, Cell]] = []
    tables: list[Section] = []
    for name, coded in seen.files.items():
        if len(coded.codes) < 2:
            continue
        categories = seen.categories[name]
        ratings = coded.ratings(["here", "there"], len(categories.known), categories.mirror)
        found = ratings.two(0, 1)
        rows += [_row(name, found)] if found.n else []
        tables += _confusions(f"files_{name}", ratings, ["here", "there"], categories)
    head = (Column(name="between", title="column"), *_COEFFICIENTS)
    note = "The same column of both files, rows matched by id; exchanged a and b are put right where source_a and source_b tell."
    yield Section(name="files", title="with the other file", head=head, rows=tuple(rows), note=note)
    yield from tables


def _confusions(name: str, ratings: Ratings, names: Sequence[str], categories: _Categories) -> Iterator[Section]:
    """Who said what, for each two raters, where there are few."""
    pairs = list(combinations(range(len(names)), 2))
    for i, j in pairs if len(pairs) <= TABLES else ():
        counts = ratings.table(i, j)
        used = [(word, at) for word, at in categories.known.items() if counts[at].any() or counts[:, at].any()]
        head = (Column(name="said", title=names[i]), *(Column(name=f"then_{word}", title=word) for word, _ in used))
        rows: list[dict[str, Cell]] = [
            {"said": word, **{f"then_{other}": int(counts[at, to]) for other, to in used}} for word, at in used
        ]
        number_ = f"_{i + 1}_{j + 1}" if len(pairs) > 1 else ""
        title = f"{names[i]} (down) against {names[j]} (across)"
        yield Section(name=f"confusion_{name}{number_}", title=title, head=head, rows=tuple(rows))


# In sentences.


def _findings(sections: Sequence[Section]) -> Iterator[str]:
    found = {one.name: one for one in sections}
    if "labelers" in found:
        last = found["labelers"].rows[-1]
        shared, alpha = _of(last, "raw"), _of(last, "alpha")
        yield f"Labelers ({last['between']}) agree in {shared} of the rows they share, alpha {alpha}{_verdict(last)}."
    if "panel" in found:
        yield from _about_panel(found["panel"].rows[0])
    if "gold" in found:
        yield from _about_gold(found["gold"].rows)
    for row in found["columns"].rows[:TABLES] if "columns" in found else ():
        yield f"{row['between']}: the same in {_of(row, 'raw')} of {row['rows']:,} rows, kappa {_of(row, 'kappa')}."
    for row in found["files"].rows if "files" in found else ():
        same = f"in {_of(row, 'raw')} of {row['rows']:,} rows, kappa {_of(row, 'kappa')}"
        yield f"{row['between']} is the same in both files {same}."


def _about_panel(row: Mapping[str, Cell]) -> Iterator[str]:
    """Nothing where a labeler made no error, or never varied: then there is no correlation."""
    if isinstance(worth := row["worth"], Number) and worth.value is not None:
        least = "" if row["of"] == ERRORS else "at least "
        yield f"{row['labelers']} labelers are worth {least}{told(worth)} independent ones, by the correlation of {row['of']}."


def _about_gold(rows: Sequence[Mapping[str, Cell]]) -> Iterator[str]:
    for row in (row for row in rows if row["between"] in (LABEL, FINAL)):
        kept = " that debias keeps" if row["between"] == FINAL else ""
        yield f"The label agrees with gold in {_of(row, 'raw')} of {row['rows']:,} rows{kept}, kappa {_of(row, 'kappa')}."
    others = [f"{row['between']} {_of(row, 'raw')}" for row in rows if row["between"] not in (LABEL, FINAL)]
    if len(others) > 1:
        yield f"Each labeler by itself agrees with gold: {', '.join(others)}."


def _of(row: Mapping[str, Cell], name: str) -> str:
    cell = row[name]
    return told(cell) if isinstance(cell, Number) else str(cell)


def _verdict(row: Mapping[str, Cell]) -> str:
    alpha = row["alpha"]
    if not isinstance(alpha, Number) or alpha.value is None or alpha.value >= RELIABLE:
        return ""
    return f", below the {RELIABLE} that conclusions need: look at the criteria, or at more votes"


def _unusable(seen: _Seen) -> str:
    """Why there is nothing to compare, where that is because of what the rows hold."""
    if seen.with_votes or not seen.rows:
        return ""
    if seen.other:
        return "no id of the other file is the id of a row here" if not seen.met else ""
    if len(seen.columns) == 1:
        return _alone(seen.columns[0])
    missing = [name for name in seen.columns if name not in seen.within.codes]
    if seen.columns:
        return f"no row has a value in column '{missing[0]}'" if missing else ""
    return "no row has votes, or a label and gold; --column compares any two columns"


def _alone(name: str) -> str:
    return f"column '{name}' alone has nothing to be compared with: name another --column, or a file --with"


def _warnings(seen: _Seen) -> Iterator[str]:
    if not seen.rows:
        return
    if seen.selected:
        yield SELECTED
    if not seen.with_votes:
        yield "no row has votes: nothing can be said of labelers, orders and draws"
    elif len(seen.labelers.codes) < 2:
        yield "there is one labeler only: name more in label_pairs.labelers to see whether they agree"
    if len(seen.labelers.codes) > MANY:
        yield f"of {len(seen.labelers.codes):,} labelers the {MANY} that judged most are compared with each other"
    if not seen.with_gold:
        yield "no row has gold (a, b or tie): nothing can be said of right and wrong"
    if seen.other and not seen.met:
        yield "no id of the other file is the id of a row here"
    elif seen.other and seen.met < seen.rows:
        yield f"{seen.rows - seen.met:,} of {seen.rows:,} rows have no match in the other file, which has {len(seen.other):,}"
    if len(seen.columns) == 1 and not seen.other:
        yield _alone(seen.columns[0])
    for name in seen.columns if len(seen.columns) > 1 else ():
        if name not in seen.within.codes:
            yield f"no row has a value in column '{name}'"
