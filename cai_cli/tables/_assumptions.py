"""Where a labeler, or a panel, is not what the model of a judge takes it for: each finding a sentence, without its subject."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from cai_cli.bias import aggregate, assumptions, outcome
from cai_cli.bias.dependence import correlated
from cai_cli.bias.estimate import Bools, Estimate, Floats, Ints
from cai_cli.tables._columns import Columns
from cai_cli.tables._evidence import Evidence
from cai_cli.tables._measure import Position

LEVEL = 0.01  # of each test: there are a dozen a labeler
FEW = 30  # pairs, below which nothing is said
SPREAD = 0.25  # log-odds; a position bias that varies by less costs no label
LAPSES = 0.01  # share of pairs
PANEL = 3  # labelers, of which one can be told to oppose the rest


@dataclass(frozen=True, slots=True, kw_only=True)
class Swaps:
    """A labeler's first draws that answer one question in both orders, and their pairs."""

    ab: Floats  # log-odds for a
    ba: Floats
    pair: Ints
    named: Floats  # log-odds that the first slot owes to what the answers were called, over both orders

    @property
    def half(self) -> Floats:
        """What the order does to each pair, freed of what the names do: else a liking for A would pass for a bias by item."""
        return np.asarray((self.ab - self.ba) / 2 - self.named)

    @property
    def gap(self) -> Floats:
        return np.asarray((self.ab + self.ba) / 2)


def broken(columns: Columns, free: Evidence, k: int, position: Position) -> Iterator[str]:
    """What does not hold of labeler k. Takes: its logits free of position; what was measured of its positions"""
    token = (position.token and position.token.token.value) or 0.0
    matched = position.matched
    first = columns.draw[matched.ab] == 0
    ab, ba = matched.ab[first], matched.ba[first]
    swaps = Swaps(
        ab=aggregate.logit(columns.p[ab]), ba=aggregate.logit(columns.p[ba]), pair=columns.pair[ab],
        named=(columns.naming[ab] + columns.naming[ba]) * token / 2,
    )  # fmt: skip
    if len(swaps.pair) >= FEW:
        yield from _of_swaps(columns, swaps, k) if columns.soft[k] else _of_verdicts(columns, free, swaps, k)
    yield from _of_gold(columns, k, position.bias.value or 0.0)
    yield from _of_silence(columns, k)


def _of_swaps(columns: Columns, swaps: Swaps, k: int) -> Iterator[str]:
    prompt = columns.prompt[swaps.pair]
    knows = assumptions.knows_nothing(swaps.ab, swaps.ba, prompt)
    if knows.ci is not None and knows.ci[0] <= 0:
        yield f"what it says in one order tells nothing of what it says in the other ({_told(knows)}): it may know nothing"
        return
    spread = assumptions.heterogeneity(swaps.half, _repeats(columns, k))
    if _there(spread) and (spread.value or 0) > SPREAD:
        yield (
            f"its position bias varies by item ({_told(spread, 'sd ')} log-odds): no one shift is right for pairs that were "
            "seen in one order; ask both"
        )
    fading = assumptions.fades(swaps.half, swaps.gap, prompt)
    if _there(fading) and (fading.value or 0) < 0:
        yield f"its position bias fades where it is sure ({_told(fading)} per log-odds): it leans on slots when unsure"
    yield from _varying(columns, swaps, lambda covariate: assumptions.varies_with(swaps.half, covariate, prompt))
    lapsing = assumptions.lapses(swaps.half)
    if _there(lapsing) and lapsing.ci is not None and lapsing.ci[0] > LAPSES:
        yield f"it lapses: {_percent(lapsing)} of pairs have an answer that has nothing to do with the other order's"


def _of_verdicts(columns: Columns, free: Evidence, swaps: Swaps, k: int) -> Iterator[str]:
    ab, ba = np.sign(swaps.ab).astype(np.int64), -np.sign(swaps.ba).astype(np.int64)
    prompt = columns.prompt[swaps.pair]

    def by(covariate: Floats) -> Estimate:
        return assumptions.fades_from_votes(ab, ba, covariate, prompt)

    others = _others(free, k)[swaps.pair]
    if np.isfinite(others).all():
        fading = by(np.abs(others))
        if _there(fading) and (fading.value or 0) < 0:
            yield f"its position bias fades where others are sure ({_told(fading)} per log-odds): it leans on slots when unsure"
    yield from _varying(columns, swaps, by)


def _varying(columns: Columns, swaps: Swaps, test: Callable[[Floats], Estimate]) -> Iterator[str]:
    """Whether the position bias moves with what is known of a pair."""
    covariates = {
        "with the size of the length difference": np.abs(columns.feature("length")[swaps.pair]),
        "between harmful and other prompts": columns.harmful[swaps.pair].astype(np.float64),
    }
    for words, values in covariates.items():
        found = test(values)
        if _there(found):
            yield f"its position bias varies by item, {words} ({_told(found)} log-odds per unit)"


def _repeats(columns: Columns, k: int) -> Floats:
    """Differences of two draws of one question in one order."""
    mine = np.flatnonzero(columns.said & (columns.labeler == k) & (columns.draw <= 1))
    cell = columns.pair[mine] * 2 + (columns.slot[mine] > 0)
    cells, counts = np.unique(cell, return_counts=True)
    twice = np.isin(cell, cells[counts == 2])
    at = mine[twice][np.lexsort((columns.draw[mine][twice], cell[twice]))]
    first, second = at[::2], at[1::2]
    drawn = columns.draw[first] != columns.draw[second]  # else two criteria, one draw of each
    return aggregate.logit(columns.p[first[drawn]]) - aggregate.logit(columns.p[second[drawn]])


def _of_gold(columns: Columns, k: int, bias: float) -> Iterator[str]:
    """Whether single calls that are sure are right; the mean of two would hide a lapse."""
    calls = np.flatnonzero(columns.said & (columns.labeler == k) & columns.judged[columns.pair])
    if len(calls) < FEW or not columns.soft[k]:
        return
    logit = aggregate.logit(columns.p[calls]) - bias * columns.slot[calls]
    gold, prompt = columns.gold[columns.pair[calls]], columns.prompt[columns.pair[calls]]
    turned = assumptions.reversed_sign(logit, gold, prompt)
    if turned.ci is not None and turned.ci[1] < 0:
        yield f"it is the wrong way round: the surer it is, the more often people say the other ({_told(turned)} per log-odds)"
        return
    wrong = assumptions.certain_and_wrong(logit, gold, prompt)
    if _there(wrong) and (wrong.value or 0) > 0:
        yield f"it lapses, or is surer than it is right: where it is surest it errs {_percent(wrong)} more often than it should"


def _of_silence(columns: Columns, k: int) -> Iterator[str]:
    """Whether what is missing is missing by chance."""
    mine = columns.labeler == k
    missing = ~columns.said[mine]
    if missing.sum() < FEW or missing.all():
        return
    pair, prompt = columns.pair[mine], columns.prompt[columns.pair[mine]]
    longer = columns.feature("length")[pair] * columns.slot[mine]
    covariates = {
        "on harmful prompts": columns.harmful[pair].astype(np.float64),
        "where the answers differ in length": np.abs(longer),
        "where the first shown is the longer": longer,
        "where a is shown first": columns.slot[mine].astype(np.float64),
    }
    for words, values in covariates.items():
        found = assumptions.abstains_by(missing, values, prompt)
        if _there(found):
            more = "more" if (found.value or 0) > 0 else "less"
            yield f"it abstains {more} often {words} ({_told(found)} log-odds): refusals are not at random, and labels lack them"


# The panel


def broken_panel(columns: Columns, free: Evidence) -> Iterator[str]:
    """What does not hold of the labelers together. Takes: their logits free of position"""
    names = columns.labelers
    for k, name in enumerate(names) if len(names) >= PANEL else ():
        if _opposed(columns, free, k):
            ask = "" if columns.judged.sum() >= FEW else ", which gold would tell"
            yield f"labeler '{name}' opposes the others: it may be the wrong way round{ask}"
    votes = outcome.side(aggregate.probability(free.logits)).astype(np.float64)
    found = correlated(np.where(np.isfinite(free.logits), votes, np.nan), columns.prompt)
    if found.worst is not None and _there(found.pairs) and (found.pairs.value or 0) > 0:
        one, other = (names[at] for at in found.worst)
        yield (
            f"the panel is correlated: '{one}' and '{other}' agree on {found.pairs.value:.1%} more of the pairs than how often "
            "each is right explains: they are no two opinions"
        )
    elif _there(found.lumps) and (found.lumps.value or 0) > 0:
        yield (
            "the panel is correlated: its labelers are right and wrong together more than chance allows, as where some pairs are "
            "hard for all; more labelers make labels less certain than they look"
        )


def _opposed(columns: Columns, free: Evidence, k: int) -> bool:
    others, mine = _others(free, k), free.logits[:, k]
    rows = np.isfinite(others) & np.isfinite(mine)
    if rows.sum() < FEW:
        return False
    found = assumptions.reversed_against_panel(mine[rows], others[rows], columns.prompt[rows])
    return found.ci is not None and found.ci[1] < 0


def _others(free: Evidence, k: int) -> Floats:
    """(pairs,) the mean logit of the other labelers, NaN where there is none."""
    rest: Bools = np.arange(free.logits.shape[1]) != k
    return aggregate.mean_of_known(free.logits[:, rest], 1)


def _there(found: Estimate) -> bool:
    return found.p_value is not None and found.p_value < LEVEL


def _told(found: Estimate, before: str = "") -> str:
    ci = f", 95% {found.ci[0]:+.2f} to {found.ci[1]:+.2f}" if found.ci else ""
    return f"{before}{found.value:+.2f}{ci}"


def _percent(found: Estimate) -> str:
    ci = f" (95% {found.ci[0]:.1%} to {found.ci[1]:.1%})" if found.ci else ""
    return f"{found.value:.1%}{ci}"
