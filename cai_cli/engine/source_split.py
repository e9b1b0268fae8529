"""The share of test prompts that a version was split by: what is made of it must not test on what it trains on."""

from __future__ import annotations

import math

from cai_cli.engine.files import File, read_file
from cai_cli.engine.formats import Line
from cai_cli.engine.shards import content_id, place
from cai_cli.engine.versions import Version


def share_of(source: Version, configured: float) -> float:
    """The share by which the rows of a version lie in train and test as they do.

    Takes: `configured`: the config's share, in [0, 1]
    Gives: `configured` where it is such a share; else the one with the fewest digits
    """
    if not configured and not any(path.name.startswith("test") for path in source.files()):
        return configured
    low, high = _bounds(source)
    if low < configured <= high or low >= high or not source.files():  # a table that was split by hand has no such share
        return configured
    if math.isinf(low):
        return 0.0  # no test prompt
    if math.isinf(high):
        return 1.0  # no other
    rounded = (math.floor(high * 10**digits) / 10**digits for digits in range(1, 17))
    return next((share for share in rounded if share > low), high)


def _bounds(source: Version) -> tuple[float, float]:
    """The highest place of a test prompt, below the share, and the lowest of a train prompt, which is not.

    Repeats of a prompt do not count: once they were split by their own ids.
    """
    low, high = -math.inf, math.inf
    for path in source.files():
        is_test = path.name.startswith("test")
        for line in read_file(File(path, str(path)), otherwise=".jsonl"):
            prompt_id = str(line.row.get("prompt_id", "")) if isinstance(line, Line) else ""
            if not prompt_id or prompt_id != content_id(prompt_id):
                continue
            if is_test:
                low = max(low, place(prompt_id))
            else:
                high = min(high, place(prompt_id))
    return low, high
