"""What is said after a run: what came of it, what it cost, where it lies, how to go on."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cai_cli import config as configs
from cai_cli.config import Config
from cai_cli.engine import plan, runs
from cai_cli.engine.run import Summary
from cai_cli.errors import Fix
from cai_cli.reports.quantities import counted, reasons, unpriced
from cai_cli.visible import on_one_line

NOTICED, ADVISED = 6, 2  # warnings and recommendations of a bias report that are shown
_CAP = "limits.budget_usd="


def tell(config: Config, summary: Summary) -> None:
    """Say on stderr what came of a run; nothing where nothing was done."""
    from cai_cli.reports.run_summary import NAME_WIDTH, any_work, lost, made_table, named, spent

    if summary.nothing or not any_work(summary.stages):
        return
    from rich.text import Text

    from cai_cli.reports.bias_table import bias_table
    from cai_cli.reports.console import console
    from cai_cli.reports.diversity_table import diversity_table

    err = console(stderr=True)
    err.print(made_table(summary.stages))
    if summary.report is not None:
        err.print()
        err.print(bias_table(summary.report))
        err.print()
        err.print(named([*_noticed(summary.report), *_next(summary.report)]))
    if summary.diversity is not None:
        err.print()
        err.print(diversity_table(summary.diversity))
    err.print()
    known = spent(summary.stages, summary.dollars, _unpriced(config, summary))
    err.print(named([*_retried(summary), *_calls(summary), *lost(summary.stages), *known]))
    for name, text in _pointers(config, summary):
        # unbroken, to be copied
        err.print(Text.assemble((f"{name:<{NAME_WIDTH}} ", "dim"), on_one_line(text)), soft_wrap=True)


def _retried(summary: Summary) -> Iterator[tuple[str, str]]:
    """What became of rows that were asked again."""
    if summary.retried is None:
        return
    again = sum(summary.retried["again"].values())
    failed = f", {again:,} failed again ({reasons(summary.retried['again'])})" if again else ""
    yield "retried", f"{counted(summary.retried['rows'], 'row')}: {summary.retried['mended']:,} mended{failed}"
    for why, count in summary.retried["lost"].items():
        yield "left", f"{counted(count, 'row')} {why}"


def _noticed(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The first warnings of a bias report, the graver ones at the front."""
    said = report["warnings"]
    more = [f"and {len(said) - NOTICED} more, in _bias.json"] if len(said) > NOTICED + 1 else said[NOTICED:]
    lines = [*said[:NOTICED], *more] or ["nothing that would be against these labels"]
    return [("" if at else "noticed", line) for at, line in enumerate(lines)]


def _next(report: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The first recommendations of a bias report."""
    return [("" if at else "advice", line) for at, line in enumerate(report["recommendations"][:ADVISED])]


def _calls(summary: Summary) -> Iterator[tuple[str, str]]:
    """What a label took, where that was for a pilot to decide."""
    for one in summary.stages.values():
        if "calls_per_label" in one:
            yield "labels", f"{one['calls_per_label']:.2f} calls each; a fixed number would be {one['calls_per_label_fixed']:,}"


def _unpriced(config: Config, summary: Summary) -> dict[str, str]:
    steps = plan.steps_of(config, [name for name in summary.stages if name in plan.stage_names()])
    return unpriced({step.name: step.models for step in steps})


def _pointers(config: Config, summary: Summary) -> Iterator[tuple[str, str]]:
    """Where the output lies, and what to type to look at it and to load it."""
    rejected = any(any(one["rejected"].values()) for one in summary.stages.values())
    versioned = [name for name, one in summary.stages.items() if one["version"] and one["rows"]]
    if any(one["version"] for one in summary.stages.values()):
        here = nearest(config.output_path)
        yield "written", str(here)
        yield "look", command_line("show", config) + (" --rejects" if rejected else "")
        if versioned:
            yield "load", f'datasets.load_dataset("{here}", "{versioned[-1]}")'
    elif rejected and (path := stream_rejects(config)) is not None:
        yield "rejects", str(nearest(path))
    if summary.pruned:
        yield "pruned", counted(len(summary.pruned), "older version")


def stream_rejects(config: Config) -> Path | None:
    """Where the rejects of this process's streaming run went."""
    mine = [facts for facts in runs.all_of(config.state_path, config.output_path) if facts["pid"] == os.getpid()]
    path = config.state_path / "runs" / mine[-1]["run"] / "rejects.jsonl" if mine else None
    return path if path is not None and path.exists() else None


def nearest(path: Path) -> Path:
    """A path as one would type it here; whole in the root folder, where cron starts its jobs."""
    absolute, here = path.absolute(), Path.cwd()
    return absolute.relative_to(here) if absolute.is_relative_to(here) and here != Path(here.anchor) else absolute


def command_line(verb: str, config: Config) -> str:
    """A verb's command line for this output, with -o where the config by itself names another one."""
    words = ["cai", verb, str(config.path)]
    try:
        same = configs.load(config.path).output_path.absolute() == config.output_path.absolute()
    except Fix:
        same = False  # the file needs the flags that it was given
    return shlex.join(words if same else [*words, "-o", str(nearest(config.output_path))])


def without_cap(command: str) -> str:
    """A command line without the budget it was given: with it, it would stop at the same place again."""
    words, kept = shlex.split(command), list[str]()
    while words:
        word = words.pop(0)
        if word == "--budget-usd" or (word == "--set" and words and words[0].startswith(_CAP)):
            words = words[1:]
        elif not word.startswith(("--budget-usd=", f"--set={_CAP}")):
            kept.append(word)
    return shlex.join(kept)
