"""Run stages for a stage verb: load, run, say what came of it."""

from __future__ import annotations

import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cai_cli import config as configs
from cai_cli.cli import _signals
from cai_cli.cli._answer import print_json
from cai_cli.cli.errors import say
from cai_cli.cli.summary import command_line, nearest, stream_rejects, without_cap
from cai_cli.engine import plan
from cai_cli.engine.budget import Spent
from cai_cli.engine.lock import Held, IfLocked
from cai_cli.engine.run import Options, Summary
from cai_cli.engine.run import execute as run
from cai_cli.engine.session import Watch
from cai_cli.errors import Exit, Fix
from cai_cli.reports.quantities import reasons


def execute(
    stage: str | None, path: Path, flags: Mapping[str, Any], overrides: Sequence[str], *, given: str | None, to_stdout: bool,
    limit: int | None, if_locked: IfLocked, keep: int | None, dry_run: bool, as_json: bool, quiet: bool, verbose: bool,
    command: str,
) -> int:  # fmt: skip
    """Run one stage, or all that the config has (`stage` None). Gives: the exit code"""
    config = configs.load(path, overrides, flags=flags)
    names = [stage] if stage else plan.sections_of(config)
    if not names:
        raise Fix(f"{path}: the config has no stage section", _what_else(config))
    _check_output(config)
    if dry_run:
        from cai_cli.cli import _dry_run

        return _dry_run.dry_run(config, names, given, limit, as_json)
    from cai_cli.cli.progress import watch_for

    stream = sys.stdout.buffer if to_stdout else None
    # rows and a live table on one terminal would mix
    watch = watch_for(quiet or (to_stdout and sys.stdout.isatty()), verbose)
    options = Options(command=command, given=given, stream=stream, limit=limit, if_locked=if_locked, keep=keep)
    try:
        summary = _run(config, names, options, watch)
    except Held as held:
        if if_locked != "skip":
            raise
        say(f"cai: skipped: {held.message}")
        return Exit.OK
    answer(config, summary, as_json and not to_stdout, quiet, command)
    return int(summary.exit)


def _what_else(config: configs.Config) -> str:
    own = next(iter(config.sections), "")  # of a stage that is no part of a run
    return f"try: cai {own.replace('_', '-')} {config.path}" if own else "add one, such as: generate: {samples: 2}"


def _run(config: configs.Config, names: Sequence[str], options: Options, watch: Watch) -> Summary:
    if names == ["expand"]:  # its rows hang on one another, which a stage's do not
        from cai_cli.engine import expand

        return expand.execute(config, options, watch)
    return run(config, names, options, watch)


def _check_output(config: configs.Config) -> None:
    if config.output_path.is_file():
        hint = "name a folder with -o or `output:`; for the rows in one file: -o - > FILE"
        raise Fix(f"{nearest(config.output_path)} is a file, and an output is a folder", hint)


def answer(config: configs.Config, summary: Summary, as_json: bool, quiet: bool, command: str) -> None:
    """Say what came of a run: on stdout for --json, on stderr for people, and how to go on with `command`."""
    if as_json:
        print_json(_document(summary))
    if not quiet:
        from cai_cli.cli.summary import tell

        tell(config, summary)
    for warning in summary.warnings:
        say(f"warning: {warning}")
    if summary.error is not None:
        say(f"error: {summary.error.message}")
        if summary.error.hint:
            say(f"hint: {summary.error.hint}")
    if (last := _last_line(config, summary, command)) and not (quiet and summary.exit == Exit.OK):
        say(f"cai: {last}")  # -q of a run that went well says nothing: cron would mail it
    _signals.ignore()


def _last_line(config: configs.Config, summary: Summary, command: str) -> str:
    """What stands last on stderr: how to go on, where there is something to go on with."""
    if summary.exit == Exit.REJECTS:
        most, look = f"{config.limits.max_reject_rate:.0%}", _rejects(config, summary)
        return f"whole, but more than {most} of {summary.over} were rejected; {look}"
    if summary.exit != Exit.OK:
        spent = isinstance(summary.error, Spent)
        stopped = f"{summary.in_flight} in flight at the stop" + (" (may be billed twice)" if summary.in_flight else "")
        how = f"raise the cap, then go on with: {without_cap(command)}" if spent else f"go on with: {command}"
        what = "rows" if summary.what == "prompts" else summary.what
        return f"{summary.done:,}/{summary.prompts:,} {what} done, {stopped}; {how}"
    return f"nothing new: {summary.nothing}; nothing was asked" if summary.nothing else ""


def _rejects(config: configs.Config, summary: Summary) -> str:
    """Where the rejected rows are: in the versions, or beside a stream's log."""
    if any(one["version"] for one in summary.stages.values()):
        return f"look with: {command_line('show', config)} --rejects"
    if path := stream_rejects(config):
        return f"look with: less {shlex.quote(str(nearest(path)))}"
    counts = sum((Counter(one["rejected"]) for one in summary.stages.values()), Counter[str]())
    return f"all of them rows of the input ({reasons(counts)}); mend those, then run the same command again"


def _document(summary: Summary) -> dict[str, Any]:
    more: dict[str, Any] = {} if summary.diversity is None else {"diversity": summary.diversity}
    more |= {} if summary.retried is None else {"retried": summary.retried}
    more |= {"unpriced": summary.unpriced} if summary.unpriced else {}
    dollars = None if summary.unpriced else round(summary.dollars, 6)  # a price that nobody knows is not 0
    return {"stages": summary.stages, "dollars": dollars, "prompts": summary.prompts, "done": summary.done,
            "unchanged": bool(summary.nothing), "exit": int(summary.exit), **more}  # fmt: skip
