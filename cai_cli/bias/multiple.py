"""Many comparisons at once: how many of the small p-values are chance?"""

from __future__ import annotations

from collections.abc import Sequence


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted so that of all comparisons with an adjusted p below q at most a share q is expected to be false.

    Takes: p-values in [0, 1], in any order   Gives: as many, in the same order, in [0, 1], none smaller than its p
    Formula: with p sorted up, the adjusted i-th of m is the minimum over j >= i of p_j * m / j
    Assumes: the comparisons are independent, or positively dependent, as those of one sample with several metrics usually are.
    Raises: ValueError on a p outside [0, 1]
    Source: Benjamini and Hochberg 1995, "Controlling the false discovery rate", J. R. Stat. Soc. B 57.
    """
    if not all(0 <= p <= 1 for p in p_values):
        raise ValueError("p-values lie in [0, 1]")
    adjusted, smallest, m = [0.0] * len(p_values), 1.0, len(p_values)
    for rank, at in reversed(list(enumerate(sorted(range(m), key=p_values.__getitem__), start=1))):
        smallest = min(smallest, p_values[at] * m / rank)
        adjusted[at] = smallest
    return adjusted
