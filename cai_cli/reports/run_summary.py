"""What a run came to, as a few lines after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from cai_cli.reports import quantities as say

if TYPE_CHECKING:
    from rich.table import Table


def made_table(stages: Mapping[str, Mapping[str, Any]]) -> Table:
    """A row a stage: its version, what became rows, and what did not, with the reasons."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    versions, filtered = any(one["version"] for one in stages.values()), any(one["filtered"] for one in stages.values())
    table.add_column("stage", no_wrap=True)
    table.add_column("version", no_wrap=True) if versions else None
    for name in ("rows", "requests", "replayed"):
        table.add_column(name, justify="right", no_wrap=True)
    for name in ("rejected", *(["filtered"] if filtered else [])):
        table.add_column(name, overflow="fold")
    for name, one in stages.items():
        cells = [one["version"] or "-"] if versions else []
        cells += [f"{one[key]:,}" for key in ("rows", "requests", "replayed")]
        lost = Text(say.reasons(one["rejected"]), "yellow" if any(one["rejected"].values()) else "")
        table.add_row(name, *cells, lost, *([say.reasons(one["filtered"])] if filtered else []))
    return table


def spent(stages: Mapping[str, Mapping[str, Any]], dollars: float, unpriced: Mapping[str, str]) -> str:
    """What was spent, and what of it nobody can tell."""
    requests, replayed = (sum(one[key] for one in stages.values()) for key in ("requests", "replayed"))
    unknown = sorted({model for stage, model in unpriced.items() if stages.get(stage, {}).get("requests")})
    text = f"spent {say.dollars(dollars, bool(unknown))} on {requests:,} requests; {replayed:,} more were paid for before"
    if not replayed:
        text = text.partition(";")[0]
    if unknown:
        text += f"\nno price is known for {', '.join(unknown)}; give it with model.price: {{input: ..., output: ...}} (dollars per million tokens)"
    return text
