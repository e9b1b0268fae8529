"""How often one kind of response beats another: as the AI says, as people say, and by people helped by the AI."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from cai_cli import votes
from cai_cli.auditing.columns import Columns
from cai_cli.bias import outcome, weighted
from cai_cli.bias.estimate import Estimate, Floats, Ints
from cai_cli.bias.ppi import Powered, cross_predicted, powered_mean

MOST = 6  # comparisons, those with the most pairs


def rates(columns: Columns, row: Ints, human: Ints, leaning: Floats, weight: Floats) -> Iterator[dict[str, Any]]:
    """Of every comparison that people labelled a pair of: the win rate of the first system named, in shares of pairs.

    Takes: the frame; (m,) where labelled pairs stand in it; what most people say of them, +1 a, -1 b, 0 tie, by which the AI
    is calibrated; the mean of what they say, in [-1, 1], of which rates are made, so that it changes nothing how many labelled
    a pair; one over the probability of having been looked at
    Gives: `ai`: over all pairs, whatever its biases; `gold`: of people alone; `ppi`: cross-fitted PPI++, which is `gold` where
    the AI is not relied on (`power` 0); `effective`: equally weighted labels of people that would tell as much alone,
    k / (1 - r^2) for labels worth k, k at power 0. A tie is half a win.
    Coverage, simulated with a rate of .73 and unequal chances, 250 runs: .90 with 24 labels, .95 with 48 and with 120.
    Source: `bias.ppi.powered_mean`, `bias.weighted.share`
    """
    at, side = np.asarray(columns.comparison, dtype=np.int64), np.asarray(columns.side, dtype=np.float64)
    p, prompt = np.clip(np.asarray(columns.p_a), votes.P_MIN, 1 - votes.P_MIN), np.asarray(columns.prompt)
    gold, mean, weights = np.full(len(p), np.nan), np.full(len(p), np.nan), np.ones(len(p))
    gold[row], mean[row], weights[row] = human, leaning, weight
    names = {number: name for name, number in columns.names.items()}
    for number, pairs in Counter(at[at >= 0].tolist()).most_common(MOST):
        where = at == number
        if not np.isfinite(gold[where]).any():
            continue
        z = np.log(p[where] / (1 - p[where]))
        calibrated = cross_predicted(z, np.empty((pairs, 0)), gold[where], weights[where], prompt[where])
        won, expected = (1 + side[where] * mean[where]) / 2, (1 + side[where] * np.tanh(calibrated / 2)) / 2
        found = powered_mean(won, expected, weights[where], prompt[where])
        says = (1 + side[where] * outcome.side(p[where])) / 2
        said = np.isfinite(won)
        alone = weighted.share(won[said], weights[where][said], prompt[where][said])
        helped = alone if not found.power else found.estimate
        yield {
            "comparison": names[number], "n": pairs, "gold_n": int(said.sum()),
            "ai": _told(weighted.share(says, np.ones(pairs), prompt[where])), "gold": _told(alone),
            "ppi": _told(helped), "power": found.power, "correlation": found.correlation,
            "effective": _worth(weights[where][said], found),
        }  # fmt: skip


def _worth(weight: Floats, found: Powered) -> float | None:
    r = found.correlation if found.power else 0.0
    return None if r is None or r * r >= 1 else weighted.effective_rows(weight) / (1 - r * r)


def _told(found: Estimate) -> dict[str, Any]:
    """An estimate of a share as JSON values: t intervals may leave [0, 1], shares do not."""
    ci = None if found.ci is None else [max(0.0, found.ci[0]), min(1.0, found.ci[1])]
    return {"value": None if found.value is None else min(1.0, max(0.0, found.value)), "ci": ci}
