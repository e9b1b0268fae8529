"""The page of `cai status`: the run that goes on, or the last one, those before, and what there is by now."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cai_cli.reports import quantities as say
from cai_cli.reports.run_summary import NAME_WIDTH, any_work, cached, lost, named
from cai_cli.reports.standing import frame, stage_table, standing_of
from cai_cli.reports.tabular import tabular
from cai_cli.visible import on_one_line

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

SHOWN = 8  # older runs
PROSE = 100  # columns
Run = Mapping[str, Any]  # a run's log


def status_page(found: Mapping[str, Any], unpriced: Mapping[str, str], width: int) -> Iterator[RenderableType]:
    """What `cai status` prints, part by part. `found`: as its --json gives it; `width`: of the terminal, in columns."""
    from rich.text import Text

    found = {**found, "runs": [{"unpriced": unpriced, **run} for run in found["runs"]]}  # logs of an older version tell none
    going = [run for run in found["runs"] if run["state"] == "running"]
    for number, run in enumerate(going or found["runs"][-1:]):
        yield from [""] * (number > 0)
        yield from _run(run, width)
    older = [run for run in found["runs"][:-1] if run not in going]
    if older:
        yield _heading("earlier runs")
        yield _history(older[-SHOWN:][::-1])
        if len(older) > SHOWN:
            yield f"and {len(older) - SHOWN:,} before them: --json has them all"
    if found["versions"]:
        yield _heading("newest versions")
        yield _versions(found)
    for one in found["damaged"]:
        yield ""
        yield Text(on_one_line(f"damaged: {one['what']}"), "yellow", overflow="fold")
        yield named([("hint", one["hint"])], min(width, PROSE))
    yield ""
    yield named(_lines(found))
    if found["go_on"]:
        yield _unbroken("go on", found["go_on"])


def _heading(text: str) -> RenderableType:
    from rich.text import Text

    return Text(f"\n{text}", "bold")


def _versions(found: Mapping[str, Any]) -> Table:
    """The newest version of each stage, and what all that are kept take of the disk."""
    rows = [
        (name, one["version"], one["rows"], sum(one["rejected"].values()), sum(one["filtered"].values()),
         say.size(found["disk"]["stages"][name]), found["disk"]["versions"][name])
        for name, one in found["versions"].items()
    ]  # fmt: skip
    return tabular(("stage", "version", "rows", "rejected", "filtered", "on disk", "versions"), rows, right=("on disk",))


def _run(run: Run, width: int) -> Iterator[RenderableType]:
    """One run in detail. A log that was begun a moment ago has no stages yet."""
    from rich.text import Text

    yield Text(on_one_line(_state(run)), _COLOUR.get(run["state"], "bold"), overflow="fold")
    yield named([("command", run["command"]), *([("error", run["error"])] if run.get("error") else []),
                 *([("hint", run["hint"])] if run.get("hint") else [])], min(width, PROSE))  # fmt: skip
    if run.get("suspended"):
        yield _unbroken("wake it", f"kill -CONT {run['pid']}")
    stages = run.get("stages", {})
    if not stages or (run["state"] != "running" and not any_work(stages)):
        return
    yield ""
    if run["state"] == "running":
        yield frame(standing_of(run, run["unpriced"], max(run["updated"] - run["started"], 1e-3)), width)
        return
    yield stage_table(stages, run["unpriced"])
    if reasons := [*lost({name: {"filtered": {}, **one} for name, one in stages.items()}), *cached(stages)]:
        yield ""
        yield named(reasons, min(width, PROSE))
    if any(run.get("trouble", {}).values()):
        yield named([("retried", say.reasons(run["trouble"]))])


_COLOUR = {"killed": "bold yellow", "failed": "bold yellow", "stopped": "bold yellow"}


def _state(run: Run) -> str:
    """Whether it runs, how long it took, and how it ended."""
    if run["state"] == "running":
        asleep = ", suspended" if run.get("suspended") else ""
        return f"running for {say.duration(time.time() - run['started'])}, process {run['pid']}{asleep}"
    took = f"after {say.duration((run['ended'] or run['updated']) - run['started'])}"
    ended = {"done": "whole", "killed": "killed", "failed": "failed", "stopped": "stopped"}[run["state"]]
    code = f", exit {run['exit']}" if run.get("exit") else ""
    prompts = f", {run['done']:,}/{run['prompts']:,} {run.get('what', 'prompts')}" if "prompts" in run else ""
    return f"{_when(run['started'])} {ended} {took}{prompts}{code}"


def _when(started: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(started))


def _history(runs: Sequence[Run]) -> Table:
    rows = []
    for run in runs:
        took = say.duration((run["ended"] or run["updated"]) - run["started"])
        unknown = bool(run["unpriced"].keys() & _asked(run))
        spent = say.dollars(run.get("dollars", 0.0), unknown)
        rows.append((_when(run["started"]), took, run["state"], spent, run["command"]))
    return tabular(("started", "took", "state", "dollars", "command"), rows, right=("took", "dollars"), fold="command")


def _asked(run: Run) -> set[str]:
    """The stages that bought something."""
    return {name for name, one in run.get("stages", {}).items() if one["requests"]}


def _unbroken(name: str, command: str) -> RenderableType:
    """A command is there to be copied: only the terminal may break it. Who prints a Text that is not to be wrapped must obey."""
    from rich.text import Text

    return Text(f"{name:<{NAME_WIDTH}} {on_one_line(command)}", no_wrap=True)


def _lines(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if (ledger := found["ledger"]) and ledger["dollars"] is not None:
        unsettled = ledger["dollars_unsettled"]
        more = f", {say.dollars(unsettled)} unsettled (in flight, or when a run was killed)" if unsettled > 0 else ""
        unknown = any(run["unpriced"].keys() & _asked(run) for run in found["runs"])
        yield "spent", f"{say.dollars(ledger['dollars'], unknown)} settled over all runs{more}"
    disk = found["disk"]
    kept = f", ledger {say.size(disk['ledger_bytes'])}" if found["ledger"] else ""
    yield "disk", f"output {say.size(disk['output_bytes'])}{kept}; {say.size(disk['free_bytes'])} free"
    if found["held_by"]:
        yield "held", f"{found['held_by']}; its log is in another state folder (`state:`, CAI_STATE)"
