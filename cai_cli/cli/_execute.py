"""Run stages for a stage verb: load, run, say what came of it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import orjson

from cai_cli import config as configs
from cai_cli.cli.errors import say
from cai_cli.engine import plan
from cai_cli.engine.lock import Held, IfLocked
from cai_cli.engine.run import Options, Summary
from cai_cli.engine.run import execute as run
from cai_cli.errors import Exit, Fix


def execute(
    stage: str | None, path: Path, flags: Mapping[str, Any], overrides: Sequence[str], *, given: str | None, to_stdout: bool,
    limit: int | None, if_locked: IfLocked, keep: int | None, dry_run: bool, as_json: bool, quiet: bool, verbose: bool,
    command: str,
) -> int:  # fmt: skip
    """Run one stage, or all that the config has (`stage` None). Gives: the exit code"""
    config = configs.load(path, overrides, flags=flags)
    names = [stage] if stage else plan.sections_of(config)
    if not names:
        raise Fix(f"{path}: the config has no stage section", "add one, such as: generate: {samples: 2}")
    if dry_run:
        from cai_cli.cli import _dry_run

        return _dry_run.dry_run(config, names, given, limit, as_json)
    from cai_cli.cli.progress import watch_for

    stream = sys.stdout.buffer if to_stdout else None
    # rows and a live table on one terminal would mix
    watch = watch_for(quiet or (to_stdout and sys.stdout.isatty()), verbose)
    options = Options(command=command, given=given, stream=stream, limit=limit, if_locked=if_locked, keep=keep)
    try:
        summary = run(config, names, options, watch)
    except Held as held:
        if if_locked != "skip":
            raise
        say(f"cai: skipped: {held.message}")
        return Exit.OK
    _tell(config, summary, as_json and not to_stdout, quiet, command)
    return int(summary.exit)


def _tell(config: configs.Config, summary: Summary, as_json: bool, quiet: bool, command: str) -> None:
    if as_json:
        sys.stdout.buffer.write(orjson.dumps(_document(summary), option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    if not quiet:
        from cai_cli.cli.summary import tell

        tell(config, summary)
    if summary.error is not None:
        say(f"error: {summary.error.message}")
        say(f"hint: {summary.error.hint}")
    if last := _last_line(config, summary, command):
        say(f"cai: {last}")


def _last_line(config: configs.Config, summary: Summary, command: str) -> str:
    """What stands last on stderr: how to go on, where there is something to go on with."""
    if summary.exit == Exit.REJECTS:
        most, look = f"{config.limits.max_reject_rate:.0%}", f"cai show {config.path} --rejects"
        return f"whole, but more than {most} of a stage's rows were rejected; look with: {look}"
    if summary.exit != Exit.OK:
        stopped = f"{summary.in_flight} in flight at the stop (may be billed twice)"
        return f"{summary.done:,}/{summary.prompts:,} rows done, {stopped}; go on with: {command}"
    return f"nothing new: {summary.nothing}; nothing was asked" if summary.nothing else ""


def _document(summary: Summary) -> dict[str, Any]:
    return {"stages": summary.stages, "dollars": round(summary.dollars, 6), "prompts": summary.prompts, "done": summary.done,
            "unchanged": bool(summary.nothing), "exit": int(summary.exit)}  # fmt: skip
