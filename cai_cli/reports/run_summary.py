"""What a run came to, as a few lines after it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from cai_cli.reports import quantities as say
from cai_cli.reports.tabular import tabular
from cai_cli.visible import on_one_line

if TYPE_CHECKING:
    from rich.table import Table

Stages = Mapping[str, Mapping[str, Any]]  # by name: version, rows, requests, replayed, rejected and filtered {reason: n}
NAME_WIDTH = 9
_NUMBERS = ("rows", "requests", "replayed", "rejected", "filtered")


def any_work(stages: Stages) -> bool:
    """Whether anything came of it: a row, a reject, a reply; a run that was stopped before has a table of zeros to show."""
    return any(one[key] for one in stages.values() for key in _NUMBERS if key in one)


def made_table(stages: Stages) -> Table:
    """A row a stage: its version, what became rows, what did not, what was asked."""
    from rich.text import Text

    versioned = any(one["version"] for one in stages.values())
    keys = [key for key in _NUMBERS if any(key in one for one in stages.values())]
    rows: list[list[str | int | Text]] = []
    for name, one in stages.items():
        numbers = {key: sum(one[key].values()) if isinstance(one[key], Mapping) else one[key] for key in keys}
        cells = [Text(f"{number:,}", "yellow" if key == "rejected" and number else "") for key, number in numbers.items()]
        rows.append([name, *([one["version"] or "-"] if versioned else []), *cells])
    return tabular(("stage", *(["version"] if versioned else []), *keys), rows, right=keys)


def lost(stages: Stages) -> Iterator[tuple[str, str]]:
    """("rejected", "critique 5 no_severity, 2 empty; revise 1 empty"), and the same of what was filtered."""
    for what in ("rejected", "filtered"):
        found = [f"{name} {say.reasons(one[what])}" for name, one in stages.items() if any(one[what].values())]
        if found:
            yield what, "; ".join(found)


def spent(stages: Stages, dollars: float, unpriced: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """What was spent, and what of it nobody can tell."""
    requests, replayed = (sum(one[key] for one in stages.values()) for key in ("requests", "replayed"))
    unknown = sorted({model for stage, model in unpriced.items() if stages.get(stage, {}).get("requests")})
    were = say.counted(replayed, "reply was", "replies were")
    known = f"; {were} in the ledger already" if replayed else ""
    yield "spent", f"{say.dollars(dollars, bool(unknown))} on {say.counted(requests, 'request')}{known}"
    yield from cached(stages)
    if unknown:
        how = "give it as model.price: {input: ..., output: ...}, dollars per million tokens"
        yield "price", f"unknown for {', '.join(unknown)}; {how}"


def cached(stages: Stages) -> Iterator[tuple[str, str]]:
    """What of the input servers had in their cache and what they put into it; nothing where there was none of it."""
    whole, read, written = (
        sum(one.get(key, 0) for one in stages.values()) for key in ("tokens_in", "tokens_cache_read", "tokens_cache_write")
    )
    if read or written:
        told = f"{say.tokens(read)} of {say.tokens(whole)} input tokens read from the cache, {say.tokens(written)} written to it"
        yield "cached", told


def named(lines: Iterable[tuple[str, str]], width: int | None = None) -> Table:
    """Lines with a name before each; what is longer than `width`, or the terminal, goes on under its beginning."""
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 1, 0, 0))
    table.add_column(width=NAME_WIDTH, style="dim")
    table.add_column(overflow="fold", max_width=None if width is None else max(1, width - NAME_WIDTH - 1))
    for name, text in lines:
        table.add_row(name, Text(on_one_line(text)))
    return table
