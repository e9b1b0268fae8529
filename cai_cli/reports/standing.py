"""Where a run stands: a frame for a terminal, a line for a log."""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cai_cli.reports import quantities as say

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

WIDE = 120  # columns from which the bar and the facts share a line
MANY = 10  # replies that are being written: fewer come and go with every commit
Facts = Mapping[str, Any]  # of a stage: rows, rejected {reason: n}, requests, replayed, tokens_in, tokens_out, dollars


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """One look at a run that goes on."""

    stages: Mapping[str, Facts]
    prompts: int
    done: int
    elapsed_s: float
    per_s: float | None = None  # prompts; None: too early to tell
    in_flight: int = 0
    writing: int = 0  # replies that came and are not on disk yet
    slots: int | None = None  # requests that may be in flight; None: nobody knows
    retried: Mapping[str, int] = field(default_factory=dict)  # by kind, over the whole run
    held: str = ""  # why nothing is sent at the moment
    unpriced: Container[str] = ()  # stages that ask a model whose price nobody knows
    stopping: bool = False

    @property
    def left_s(self) -> float | None:
        return (self.prompts - self.done) / self.per_s if self.per_s else None


def facts(standing: Standing, with_left: bool = True) -> str:
    """Speed, time left, what is in flight, what was retried; on one line."""
    left = f"{say.duration(standing.left_s)} left" if with_left and standing.left_s is not None and not standing.stopping else ""
    flying = f"{standing.in_flight} in flight" + (f" of {standing.slots} slots" if standing.slots is not None else "")
    parts = [
        say.rate(standing.per_s) if standing.per_s else "",
        left,
        flying,
        f"{standing.writing} being written" if standing.writing > MANY else "",
        f"retried: {say.reasons(standing.retried)}" if any(standing.retried.values()) else "",
    ]
    return " · ".join(part for part in parts if part)


def hold(standing: Standing) -> str:
    """Why nothing new is sent; empty where that is not so."""
    return "stopping: waiting for what is in flight" if standing.stopping else standing.held


def stage_table(stages: Mapping[str, Facts], unpriced: Container[str] = ()) -> Table:
    """A row a stage; 80 columns are enough for any numbers."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column("stage", no_wrap=True)
    for name in ("rows", "rejected", "requests", "replayed", "tokens in", "out", "dollars"):
        table.add_column(name, justify="right", no_wrap=True)
    for name, one in stages.items():
        table.add_row(name, *_cells(one, name in unpriced), style="" if one["rows"] or one["requests"] else "dim")
    return table


def _cells(one: Facts, unknown: bool) -> list[Any]:
    from rich.text import Text

    rejected = sum(one["rejected"].values())
    return [
        say.count(one["rows"]), Text(say.count(rejected), "yellow" if rejected else ""), say.count(one["requests"]),
        say.count(one["replayed"]), say.tokens(one.get("tokens_in", 0)), say.tokens(one.get("tokens_out", 0)),
        say.dollars(one.get("dollars", 0.0), unknown and one["requests"] > 0),
    ]  # fmt: skip


def frame(standing: Standing, width: int) -> RenderableType:
    """The table of stages, and below it how far the run is. `width`: of the terminal, in columns."""
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    share = standing.done / standing.prompts if standing.prompts else 1.0
    bar = ProgressBar(
        total=max(1, standing.prompts), completed=standing.done, width=30, complete_style="cyan", finished_style="cyan"
    )
    counts = Text(f"{standing.done:,}/{standing.prompts:,} prompts {share:4.0%}", "bold")
    told, held = Text(facts(standing)), Text(hold(standing), "yellow")
    grid = Table.grid(padding=(0, 2, 0, 0))
    together = width >= WIDE
    grid.add_row(bar, counts, *([told] if together else []))
    below = [*([] if together else [told]), *([held] if held else [])]
    return Group(stage_table(standing.stages, standing.unpriced), Text(), grid, *below)


def line(standing: Standing) -> str:
    """The same for a log: one line, no escapes."""
    from tqdm import tqdm

    meter = tqdm.format_meter(
        standing.done, standing.prompts, standing.elapsed_s, rate=standing.per_s, unit=" prompts",
        bar_format="{percentage:3.0f}% {n:,}/{total:,} prompts [{elapsed}<{remaining}]",
    )  # fmt: skip
    rows = ", ".join(f"{name} {one['rows']:,}" for name, one in standing.stages.items())
    rejected = sum(sum(one["rejected"].values()) for one in standing.stages.values())
    known = sum(one["dollars"] for one in standing.stages.values())
    unknown = any(name in standing.unpriced and one["requests"] for name, one in standing.stages.items())
    money, held = say.dollars(known, unknown), hold(standing)
    told = f"{meter} {facts(standing, with_left=False)} · rows: {rows} · {rejected:,} rejected · {money}"
    return f"{told} · {held}" if held else told
