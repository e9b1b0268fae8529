"""What a run would cost, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cai_cli.reports import quantities as say
from cai_cli.reports.tabular import tabular

if TYPE_CHECKING:
    from rich.table import Table


def price_table(found: Mapping[str, Any]) -> Table:
    """A row a stage, and their sum. `found`: as `--dry-run --json` gives it."""
    from rich.text import Text

    stages = found["stages"]
    total = {key: sum(one[key] for one in stages.values()) for key in ("calls", "tokens_in", "tokens_out_at_most")}
    last = ["all", *_cells({**total, "dollars_at_most": found["dollars_at_most"]})]
    rows = [[Text(cell) for cell in (name, *_cells(one))] for name, one in stages.items()]
    head = ("stage", "calls", "input tokens", "output at most", "dollars at most")
    return tabular(head, [*rows, [Text(cell, "bold") for cell in last]], right=head[1:])


def _cells(one: Mapping[str, Any]) -> list[str]:
    most = one["dollars_at_most"]
    return [
        f"{one['calls']:,}",
        say.tokens(one["tokens_in"]),
        say.tokens(one["tokens_out_at_most"]),
        "?" if most is None else say.dollars(most),
    ]
