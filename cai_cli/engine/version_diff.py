"""What changed between two versions of a stage: rows, rejects, distributions, and what the difference rests on.

A version is read line by line; of a row its hash and its numbers are kept, never its texts. So 100,000 rows take some 50 MB.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from cai_cli.engine.columns import Table, lines_of, row_in
from cai_cli.engine.versions import Version
from cai_cli.reports.word_diff import changes

LOOKED_AT = 200  # changed rows whose words are compared
_TEXTS = ("prompt", "response", "response_a", "response_b", "chosen", "rejected")


@dataclass(frozen=True, slots=True, kw_only=True)
class Side:
    """A distribution in one version: of a column of numbers, or of a share, where only the mean says something."""

    count: int
    mean: float
    quartiles: tuple[float, float, float]  # 25%, 50%, 75%


@dataclass(frozen=True, slots=True, kw_only=True)
class Measure:
    """One column in both versions.

    `difference`: mean of new minus old over the `pairs` rows that are in both. `se`: its standard error, the rows of one prompt
    taken as one draw; None: fewer than two prompts.
    Source: Liang and Zeger 1986, Biometrika 73(1), for the errors of draws in clusters
    """

    name: str
    value: str  # of a share: whose; empty: yes
    old: Side | None
    new: Side | None
    pairs: int
    difference: float | None
    se: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Two versions of one stage, compared. Ids stand in the order of the version that holds them, the new one's first."""

    old: Version
    new: Version
    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    gone: list[str] = field(default_factory=list)
    same: int = 0
    columns: Counter[str] = field(default_factory=Counter)  # changed rows in which each differs
    words: dict[str, tuple[int, float]] = field(default_factory=dict)  # by text: rows looked at, share of words that changed
    numbers: list[Measure] = field(default_factory=list)
    shares: list[Measure] = field(default_factory=list)

    @property
    def stage(self) -> str:
        return self.new.path.parent.name

    @property
    def rows_same(self) -> bool:
        return not (self.added or self.changed or self.gone)


def compare(old: Version, new: Version) -> Difference:
    """Compare two versions of one stage. Where their files are the same, nothing is read. Raises: Fix: one was changed"""
    if _data(old) == _data(new):
        return Difference(old=old, new=new, same=int(new.manifest["rows"]))
    before, after = Table(old), Table(new)
    changed_ids = [one for one, at in after.index.items() if _line(before, one) not in (None, after.lines[at])]
    added = [one for one in after.index if one not in before.index]
    columns, words = _how(old, new, before, after, changed_ids)
    return Difference(
        old=old, new=new, added=added, changed=changed_ids, gone=[one for one in before.index if one not in after.index],
        same=len(after.index) - len(added) - len(changed_ids), columns=columns, words=words,
        numbers=list(_measures(before, after, "columns")), shares=list(_measures(before, after, "shares")),
    )  # fmt: skip


def _data(version: Version) -> list[tuple[str, str]]:
    return [(file["name"], file["sha256"]) for file in version.manifest["files"] if file["shard"] is not None]


def _line(table: Table, row: str) -> int | None:
    at = table.index.get(row)
    return None if at is None else table.lines[at]


# How rows changed: a second reading, of these rows alone.


def _how(
    old: Version, new: Version, before: Table, after: Table, ids: Sequence[str]
) -> tuple[Counter[str], dict[str, tuple[int, float]]]:
    looked_at = {ids[n * len(ids) // LOOKED_AT] for n in range(LOOKED_AT)} if len(ids) > LOOKED_AT else set(ids)
    names: dict[str, None] = {}
    hashes: dict[str, array[int]] = {}  # of each column, in that order
    texts: dict[str, dict[str, Any]] = {}
    for row in _rows(old, {before.index[one] for one in ids}):
        names |= dict.fromkeys(row)
        hashes[row["id"]] = array("q", (_hash(row, name) for name in names))
        if row["id"] in looked_at:
            texts[row["id"]] = {name: row[name] for name in _TEXTS if name in row}
    columns, shares = Counter[str](), dict[str, list[float]]()
    for row in _rows(new, {after.index[one] for one in ids}):
        columns.update(name for name, was in zip(names, hashes[row["id"]], strict=False) if was != _hash(row, name))
        columns.update(name for name in row if name not in names)
        for name, text in texts.get(row["id"], {}).items():
            if name in row and text != row[name]:
                shares.setdefault(name, []).append(words_changed(text, row[name]))
    return columns, {name: (len(found), math.fsum(found) / len(found)) for name, found in shares.items()}


def _hash(row: Mapping[str, Any], name: str) -> int:
    return hash(orjson.dumps(row[name])) if name in row else 0


def _rows(version: Version, places: Collection[int]) -> Iterator[dict[str, Any]]:
    return (row_in(version, line) for at, line in enumerate(lines_of(version) if places else ()) if at in places)


def words_changed(before: str, after: str) -> float:
    """The share of the words of both texts that are not in both, in [0, 1]."""
    counts = Counter[str]()
    for kind, words in changes(before, after):
        counts[kind] += len(words.split()) * (2 if kind == "same" else 1)
    return 1 - counts["same"] / counts.total() if counts.total() else 0.0


def rows_with_id(version: Version, wanted: str) -> dict[str, Any] | None:
    """The row of a version with that id."""
    mark = wanted.encode("utf-8", "surrogatepass") if wanted.isascii() else b""
    for line in lines_of(version):
        if mark in line and (row := row_in(version, line))["id"] == wanted:
            return row
    return None


# Distributions.


def _measures(before: Table, after: Table, of: str) -> Iterator[Measure]:
    """One measure a column, in the order in which rows show them."""
    import numpy as np

    olds, news = getattr(before, of), getattr(after, of)
    both = [(before.index[one], at) for one, at in after.index.items() if one in before.index]
    pairs = np.array(both, dtype=np.int64).reshape(-1, 2)
    prompts = np.array(after.prompts)[pairs[:, 1]]
    names = list(dict.fromkeys(key if isinstance(key, str) else key[0] for key in (*olds, *news)))
    for key in sorted({**olds, **news}, key=lambda key: names.index(key if isinstance(key, str) else key[0])):
        otherwise = math.nan if of == "columns" else 0.0
        old = np.array(olds[key]) if key in olds else np.full(len(before.lines), otherwise)
        new = np.array(news[key]) if key in news else np.full(len(after.lines), otherwise)
        name, value = (key, "") if isinstance(key, str) else key
        yield _measure(name, value, old, new, new[pairs[:, 1]] - old[pairs[:, 0]], prompts)


def _measure(name: str, value: str, old: Any, new: Any, differences: Any, prompts: Any) -> Measure:
    import numpy as np

    known = ~np.isnan(differences)
    count, difference, se = int(known.sum()), None, None
    if count:
        difference = float(differences[known].mean())
        _, cluster = np.unique(prompts[known], return_inverse=True)
        sums = np.bincount(cluster, differences[known] - difference)
        if len(sums) > 1:
            se = float(np.sqrt((sums**2).sum() * len(sums) / (len(sums) - 1)) / count)
    return Measure(name=name, value=value, old=_side(old), new=_side(new), pairs=count, difference=difference, se=se)


def _side(values: Any) -> Side | None:
    import numpy as np

    known = values[~np.isnan(values)]
    if not len(known):
        return None
    low, middle, high = (float(one) for one in np.quantile(known, (0.25, 0.5, 0.75)))
    return Side(count=len(known), mean=float(known.mean()), quartiles=(low, middle, high))
