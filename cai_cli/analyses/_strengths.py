"""Groups on one scale, by which of them labelers prefer: what tells of three or more what wins against one another do not."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from cai_cli.analyses._columns import Table
from cai_cli.analyses._result import Cell, Column, Section
from cai_cli.analyses._tally import number
from cai_cli.bias.estimate import Ints
from cai_cli.bias.strengths import strengths

FEWEST = 3  # groups; of two the share of wins says the same
_HEAD = (
    Column(name="group", title="group"), Column(name="strength", title="strength", whiskers=True, at=0),
    Column(name="pairs", title="pairs"), Column(name="why", title="why not"),
)  # fmt: skip
_NOTE = "Log-odds of winning against a group of average strength, from all pairs at once (Bradley-Terry); a tie is half a win."


def strong(wins: Table, by: str, names: Mapping[str, str]) -> Section:
    """Groups from the strongest to the weakest; no rows where fewer than three have met.

    Takes: pairs of two groups, with by, left, right and left_won; the column that tells groups apart, and what each is called
    """
    mine = wins.where("by", by)
    met = [name for name in names if ((wins.where("left", name) | wins.where("right", name)) & mine).any()]
    left, right = (_codes(wins, side, met)[mine] for side in ("left", "right"))
    if len(met) < FEWEST:
        return Section(name="strengths", title="how strong each is", head=_HEAD, rows=())
    found = strengths(left, right, wins["left_won"][mine], wins["cluster"][mine], len(met)).systems
    values = np.array([-math.inf if one.value is None else one.value for one in found])
    order = np.argsort(-values, kind="stable").tolist()
    rows: list[dict[str, Cell]] = [
        {"group": names[met[at]], "strength": number(found[at], "log-odds"), "pairs": found[at].n, "why": found[at].warning}
        for at in order
    ]
    told = any(row["why"] for row in rows)
    return Section(name="strengths", title="how strong each is", head=_HEAD if told else _HEAD[:-1], rows=tuple(rows), note=_NOTE)


def _codes(wins: Table, side: str, met: list[str]) -> Ints:
    codes = np.full(len(wins), -1, dtype=np.int64)
    for at, name in enumerate(met):
        codes[wins.where(side, name)] = at
    return codes
