"""What a run would cost, stage by stage."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cai_cli.reports import quantities as say

if TYPE_CHECKING:
    from rich.table import Table


def price_table(found: Mapping[str, Any]) -> Table:
    """A row a stage, and their sum. `found`: as `--dry-run --json` gives it."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("stage", no_wrap=True)
    for name in ("calls", "input tokens", "output at most", "dollars at most"):
        table.add_column(name, justify="right", no_wrap=True)
    stages = found["stages"]
    for name, one in stages.items():
        table.add_row(name, *_cells(one))
    total = {key: sum(one[key] for one in stages.values()) for key in ("calls", "tokens_in", "tokens_out_at_most")}
    table.add_row("all", *_cells({**total, "dollars_at_most": found["dollars_at_most"]}), style="bold")
    return table


def _cells(one: Mapping[str, Any]) -> list[str]:
    most = one["dollars_at_most"]
    return [
        f"{one['calls']:,}",
        say.tokens(one["tokens_in"]),
        say.tokens(one["tokens_out_at_most"]),
        "?" if most is None else say.dollars(most),
    ]
