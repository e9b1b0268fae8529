"""The page of `cai status`: the run that goes on, or the last one, those before, and what there is by now."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cai_cli.reports import quantities as say
from cai_cli.reports.run_summary import lost, made_table, named
from cai_cli.reports.standing import Standing, frame, stage_table
from cai_cli.visible import on_one_line

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

SHOWN = 8  # older runs
Run = Mapping[str, Any]  # a run's log


def status_page(found: Mapping[str, Any], unpriced: Mapping[str, str], width: int) -> Iterator[RenderableType]:
    """What `cai status` prints, part by part. `found`: as its --json gives it; `width`: of the terminal, in columns."""
    going = [run for run in found["runs"] if run["state"] == "running"]
    for run in going or found["runs"][-1:]:
        yield from _run(run, unpriced, width)
    older = [run for run in found["runs"][:-1] if run not in going]
    if older:
        yield _heading("earlier runs")
        yield _history(older[-SHOWN:][::-1], unpriced)
    if found["versions"]:
        yield _heading("newest versions")
        yield made_table(found["versions"])
    yield ""
    yield named(_lines(found))


def _heading(text: str) -> RenderableType:
    from rich.text import Text

    return Text(f"\n{text}", "bold")


def _run(run: Run, unpriced: Mapping[str, str], width: int) -> Iterator[RenderableType]:
    """One run in detail. A log that was begun a moment ago has no stages yet."""
    from rich.text import Text

    yield Text(on_one_line(f"{_state(run)}: {run['command']}"), "bold", overflow="fold")
    if run.get("error"):
        yield named([("error", run["error"]), *([("hint", run["hint"])] if run["hint"] else [])])
    stages = run.get("stages")
    if not stages:
        return
    if run["state"] == "running":
        yield frame(_standing(run, unpriced), width)
    else:
        yield stage_table(stages, unpriced)
    if reasons := list(lost({name: {"filtered": {}, **one} for name, one in stages.items()})):
        yield named(reasons)
    if run["state"] != "running" and any(run.get("trouble", {}).values()):
        yield named([("retried", say.reasons(run["trouble"]))])


def _standing(run: Run, unpriced: Mapping[str, str]) -> Standing:
    elapsed_s = max(run["updated"] - run["started"], 1e-3)
    return Standing(
        stages=run["stages"], prompts=run["prompts"], done=run["done"], elapsed_s=elapsed_s,
        per_s=run["done"] / elapsed_s or None, in_flight=run["in_flight"], retried=run["trouble"], unpriced=unpriced,
    )  # fmt: skip


def _state(run: Run) -> str:
    """Whether it runs, how long it took, and how it ended."""
    if run["state"] == "running":
        return f"running for {say.duration(time.time() - run['started'])}, process {run['pid']}"
    took = f"after {say.duration((run['ended'] or run['updated']) - run['started'])}"
    ended = {"done": "whole", "killed": "killed", "failed": "failed", "stopped": "stopped"}[run["state"]]
    code = f", exit {run['exit']}" if run.get("exit") and not run.get("error") else ""
    prompts = f", {run['done']:,}/{run['prompts']:,} prompts" if "prompts" in run else ""
    return f"{_when(run['started'])} {ended} {took}{prompts}{code}"


def _when(started: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(started))


def _history(runs: Sequence[Run], unpriced: Mapping[str, str]) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("started", "took", "state", "dollars"):
        table.add_column(name, no_wrap=True, justify="right" if name in ("took", "dollars") else "left")
    table.add_column("command", overflow="fold")
    for run in runs:
        took = say.duration((run["ended"] or run["updated"]) - run["started"])
        unknown = any(name in unpriced and one["requests"] for name, one in run.get("stages", {}).items())
        table.add_row(
            _when(run["started"]),
            took,
            run["state"],
            say.dollars(run.get("dollars", 0.0), unknown),
            Text(on_one_line(run["command"])),
        )
    return table


def _lines(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if ledger := found["ledger"]:
        unsettled = ledger["dollars_unsettled"]
        more = f", {say.dollars(unsettled)} unsettled (in flight, or when a run was killed)" if unsettled > 0 else ""
        yield "ledger", f"{say.size(ledger['bytes'])}; {say.dollars(ledger['dollars'])} settled over all runs{more}"
    yield "disk", f"{say.size(found['disk_free_bytes'])} free"
    if found["go_on"]:
        yield "go on", found["go_on"]
