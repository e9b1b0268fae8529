"""cai retry"""

from __future__ import annotations

import difflib
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cai_cli.cli import _complete, _signals
from cai_cli.cli._stage import ConfigFile, IfLocked, verb_app
from cai_cli.errors import Exit, Fix

if TYPE_CHECKING:
    from cai_cli.config import Config
    from cai_cli.engine.retriable import Standing
    from cai_cli.engine.retry import Ahead, Found, Wanted
    from cai_cli.engine.run import Summary

HELP = """Ask again about rows that failed: rejected for a reason, or kept although they were refused or cut off. Only what such
a row failed on is bought again, and what hangs on it; all else comes out of the ledger. The result is a new version; the old one
stays, and so do the replies that are set aside: `cai why` shows them.

Give it the flags that the run had (-i, --set, --seed, -o). For longer replies use --max-tokens: another config is another
version, for which everything is asked anew, and which has nothing of what was retried.

Without --only: the reasons there are, how many rows have each, and what asking again would cost at most. Where stages were made
one by one, the first that has such rows is retried, or the one that --stage names. A retry that was stopped is finished first.
There are new versions also where every row fails again: they then hold the same rows, and it says so.

\b
Examples:
  cai retry my.yaml
  cai retry my.yaml --only no_severity,empty
  cai retry my.yaml --only truncated --max-tokens 2048
  cai retry my.yaml --only no_verdict --limit 20 --dry-run
  cai retry my.yaml --only empty --stage critique
"""

REFUSED = ("a refusal that is asked again until it gives way biases the data: the rows then refuse less than the model does; "
           "say so where you publish them")  # fmt: skip

Only = Annotated[
    list[str] | None,
    typer.Option(
        "--only", metavar="REASON[,REASON]", help="Rows that failed for these reasons.", show_default=False,
        autocompletion=_complete.again,
    ),
]  # fmt: skip
Stage = Annotated[
    str | None,
    typer.Option(
        metavar="STAGE", help="Only rows that failed in this stage.", show_default=False, autocompletion=_complete.stages
    ),
]

app = verb_app()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Typed:
    """The flags that were typed and that say which output it is."""

    config: Path
    input: str | None
    output: str | None
    set: Sequence[str]
    seed: int | None

    def line(self, verb: str) -> str:
        """A verb's command line with them; of one that only looks at an output, with what it takes."""
        words = ["cai", verb, str(self.config)]
        given = [("-i", self.input), ("-o", self.output), *(("--set", one) for one in self.set), ("--seed", self.seed)]
        flags = [(flag, value) for flag, value in given if value is not None and (verb != "verify" or flag == "-o")]
        return shlex.join([*words, *(str(word) for pair in flags for word in pair)])


@app.command(help=HELP, no_args_is_help=True)
def command(
    config: ConfigFile,
    only: Only = None,
    limit: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="At most N rows: those that were retried least often.")
    ] = None,
    stage: Stage = None,
    max_tokens: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="Let the replies asked for again be this long, where the config allows less."),
    ] = None,
    input: Annotated[
        str | None, typer.Option("-i", "--input", metavar="PATH", help="What the run read, if it was given with -i.")
    ] = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="DIR", help="Where the run wrote, if given with -o.")
    ] = None,
    set_: Annotated[
        list[str], typer.Option("--set", metavar="KEY=VALUE", help="What the run was given with --set. Repeatable.")
    ] = [],  # noqa: B006
    seed: Annotated[int | None, typer.Option(metavar="N", help="The run's seed, if given with --seed.")] = None,
    budget_usd: Annotated[
        float | None, typer.Option(min=0, metavar="X", help="Stop before more than X dollars are spent, over all runs.")
    ] = None,
    concurrency: Annotated[int | None, typer.Option(min=1, metavar="N", help="Requests in flight at once.")] = None,
    if_locked: Annotated[
        IfLocked, typer.Option(help="When another run holds the output: wait, fail (75), or skip (0).")
    ] = IfLocked.fail,
    keep: Annotated[int | None, typer.Option(min=1, metavar="N", help="Afterwards delete all but the newest N versions.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Ask nothing: say what would be asked, and its price at most.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the answer as one JSON object on stdout.")] = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="No progress; errors and the last line only.")] = False,
    verbose: Annotated[bool, typer.Option("-v", "--verbose", help="Progress, and each kind of trouble as it comes.")] = False,
) -> None:
    from cai_cli.config import load
    from cai_cli.engine.retry import Wanted

    _signals.let_them_raise()
    typed = _Typed(config=config, input=input, output=output, set=set_, seed=seed)
    reasons = _reasons(only, typed)
    flags = {"seed": seed, "limits.budget_usd": budget_usd, "limits.concurrency": concurrency, "output": output}
    loaded = load(config, set_, flags=flags)
    wanted = Wanted(reasons=reasons, limit=limit, max_tokens=max_tokens, stage=stage and stage.replace("_", "-"))
    _refuse_tables(loaded, wanted, typed)
    if dry_run or not reasons:
        raise typer.Exit(_look(loaded, wanted, typed, json))
    raise typer.Exit(_retry(loaded, wanted, typed, if_locked, keep, json, quiet, verbose))


def _reasons(only: Sequence[str] | None, typed: _Typed) -> list[str]:
    """Those that --only lists. Raises: Fix: it names none, or the output is a stream"""
    if typed.output == "-":
        again = replace(typed, output=None).line("retry")
        hint = f"a stream of rows keeps nothing to retry; name the folder, or leave -o out: {again}"
        raise Fix("-o - is no output that could be retried", hint)
    reasons = [reason.strip() for words in only or () for reason in words.split(",") if reason.strip()]
    if only is not None and not reasons:
        raise Fix("--only names no reason", f"see which there are: {typed.line('retry')}")
    return reasons


def _refuse_tables(config: Config, wanted: Wanted, typed: _Typed) -> None:
    """Raises: Fix: --stage names a step that sees all rows, and has none that failed by itself"""
    from cai_cli.engine import plan

    if wanted.stage in plan.table_names():
        there = ", ".join(name for name in plan.sections_of(config) if name not in plan.table_names())
        anew = next((text for name, text in _probes(config, typed) if name == wanted.stage), f"retry a stage before it: {there}")
        raise Fix(f"{wanted.stage} has no row that failed by itself, so none can be asked about again", anew)


def _probes(config: Config, typed: _Typed) -> Iterator[tuple[str, str]]:
    """By step: how to come by other answers to its probes, which no row rests on alone."""
    from cai_cli.engine import plan

    names = [name for name in plan.sections_of(config) if name in plan.table_names()]
    for step in (step for name in names for step in plan.steps_of(config, [name]) if step.stage is not None):
        anew = replace(typed, input=None, set=[*typed.set, f"draw_offset={config.draw_offset + 1}"]).line(step.name)
        yield step.name, f"raise {step.name}.probes, and only more pairs are asked about; or ask all its probes anew: {anew}"


# Doing it.


def _retry(
    config: Config, wanted: Wanted, typed: _Typed, if_locked: IfLocked, keep: int | None, as_json: bool, quiet: bool,
    verbose: bool,
) -> int:  # fmt: skip
    from cai_cli.cli import _execute
    from cai_cli.cli.errors import say
    from cai_cli.cli.progress import watch_for
    from cai_cli.engine import retry
    from cai_cli.engine.lock import Held
    from cai_cli.engine.run import Options

    command = shlex.join(["cai", *sys.argv[1:]])
    if "refused" in wanted.reasons:
        say(f"warning: {REFUSED}")
    options = Options(command=command, if_locked=if_locked.value, keep=keep)
    try:
        summary = retry.execute(config, wanted, typed.input, options, watch_for(quiet, verbose), typed.line)
    except Held as held:
        if if_locked != IfLocked.skip:
            raise
        say(f"cai: skipped: {held.message}")
        return Exit.OK
    if summary.nothing:
        _refuse_slips(config, wanted, typed)
    _execute.answer(config, summary, as_json, quiet, command)
    for line in _afterwards(config, summary, typed):
        say(f"cai: {line}")
    return int(summary.exit)


def _refuse_slips(config: Config, wanted: Wanted, typed: _Typed) -> None:
    """Raises: Fix: a reason that nothing has, and that is nearly one which rows have"""
    from cai_cli.engine.retriable import failed_rows, standings

    there = {row.reason for one in standings(config, typed.input, typed.line) for row in failed_rows(one, typed.line)}
    for reason in wanted.reasons:
        if reason not in there and (close := difflib.get_close_matches(reason, sorted(there), 1, 0.75)):
            raise Fix(f"no row failed for '{reason}'", f"did you mean '{close[0]}'?")


def _afterwards(config: Config, summary: Summary, typed: _Typed) -> Iterator[str]:
    """What a retry that went well leaves to be known or done."""
    if summary.nothing or summary.retried is None:
        return
    if not summary.retried["changed"]:
        yield "no row is another one: the new versions hold the same rows as those before them"
    if later := _behind(config, summary):
        names = ", ".join(later[:-1]) + " and " * (len(later) > 1) + later[-1]
        verb = "run" if _of_a_run(config, later[0]) else later[0]
        yield f"{names} {'rest' if len(later) > 1 else 'rests'} on older rows now; go on with: {typed.line(verb)}"


def _behind(config: Config, summary: Summary) -> list[str]:
    """Stages that rest on rows which are not the newest any more, where one was retried by itself."""
    from cai_cli.engine import plan, versions

    found = {name: versions.latest(config.output_path, name) for name in plan.stage_names()}
    newest = {name: version for name, version in found.items() if version is not None}
    made = [name for name in (summary.retried or {}).get("stages", ()) if name in newest]
    return [
        name
        for name, version in newest.items()
        if name not in made and any(version.manifest["lineage"].get(one) not in (None, newest[one].fingerprint) for one in made)
    ]


def _of_a_run(config: Config, stage: str) -> bool:
    """Whether the newest version of a stage was made together with others."""
    from cai_cli.engine import runs, versions

    version = versions.latest(config.output_path, stage)
    made = (facts.get("stages") or {} for facts in runs.all_of(config.state_path, config.output_path))
    first = next((one for one in made if version and one.get(stage, {}).get("version") == version.name), {})
    return len(first) > 1


# Looking.


def _look(config: Config, wanted: Wanted, typed: _Typed, as_json: bool) -> int:
    """Say what a retry would ask. Gives: 2 where no reason was named and there is one"""
    from cai_cli.cli.errors import say
    from cai_cli.engine import retry
    from cai_cli.engine.retriable import standings

    among = retry.of_stage(standings(config, typed.input, typed.line), wanted)
    looked = [(standing, _found(config, standing, wanted, typed)) for standing in among]
    documents = [_document(one) for standing, found in looked for one in retry.ahead(config, standing, found)]
    stages, begun = [name for one in among for name in one.found], {(one.stage, one.id) for s in among for one in s.pending}
    if as_json:
        from cai_cli.cli._answer import print_json

        print_json({"retry": documents, "begun": len(begun), "stages": stages})
    elif documents:
        _print(documents)
    made = "of the run" if among[0].whole else "of stages made one by one"
    say(f"cai: looked at rows {made}: {', '.join(stages)}")
    for name, anew in _probes(config, typed):
        say(f"cai: answers to probes of {name} are no rows, and not asked again here; {anew}")
    for batch in [batch for standing in among for batch in standing.begun][-1:]:
        say(f"cai: a retry that was stopped has begun {len(begun):,} of the rows; it goes on with: {batch.command}")
    if not documents and not begun:
        what = f" for {' or '.join(wanted.reasons)}" if wanted.reasons else ""
        say(f"cai: no row was rejected, refused or cut off{what}: there is nothing to ask again")
        return Exit.OK
    return _advise(wanted, documents, [found for _, found in looked], typed)


def _found(config: Config, standing: Standing, wanted: Wanted, typed: _Typed) -> Found:
    """What a retry would ask, with all that a stopped one has begun, for whatever reason."""
    from cai_cli.engine import retry
    from cai_cli.engine.retriable import failed_rows

    begun_with = {(one.stage, one.id) for one in standing.pending}
    every = list(failed_rows(standing, typed.line))
    asked = set(wanted.of(every))
    rows = [row for row in every if row in asked or (row.stage, row.id) in begun_with]
    return retry.search(config, standing, rows, wanted, typed.line)


def _advise(wanted: Wanted, documents: Sequence[Mapping[str, Any]], looked: Sequence[Found], typed: _Typed) -> int:
    """How to go on from a look. Gives: the exit code"""
    from cai_cli.cli.errors import say

    say("cai: nothing was asked; replies that are not there yet are taken as the simulated model's")
    if wanted.reasons:
        return Exit.OK
    able = list(dict.fromkeys(one["reason"] for one in documents if one["rows"] > one["cannot"]))
    if not able:
        mend = f"; then: {typed.line('run')}" if any(found.places for found in looked) else ""
        say(f"cai: nothing of this can be asked again: {'; '.join(filter(None, (one.said() for one in looked)))}{mend}")
        return Exit.OK
    say("error: name the reasons to ask again for")
    stage = ["--stage", wanted.stage] if wanted.stage else []
    say(f"hint: {typed.line('retry')} {shlex.join(['--only', ','.join(able), *stage])}")
    return Exit.USAGE


def _document(one: Ahead) -> dict[str, Any]:
    from cai_cli.cli._dry_run import Asked

    sums = Asked()
    for request, tokens_in in one.asked:
        sums.add(request, tokens_in)
    scale = (one.rows - one.lost) / max(1, one.played)
    return {"stage": one.stage, "reason": one.reason, "kept": one.kept, "rows": one.rows, "begun": one.begun, "cannot": one.lost,
            "where": one.where, **sums.document(scale), "unpriced": sorted(sums.unpriced)}  # fmt: skip


def _print(documents: Sequence[Mapping[str, Any]]) -> None:
    from cai_cli.cli._answer import print_table
    from cai_cli.reports.quantities import dollars

    head = ("reason", "stage", "rows", "requests", "at most", "what")
    rows = [
        (one["reason"], one["stage"], one["rows"], one["calls"],
         "?" if one["dollars_at_most"] is None else dollars(one["dollars_at_most"]), _note(one))
        for one in documents
    ]  # fmt: skip
    print_table(head, rows, right=("at most",), fold="what")


def _note(one: Mapping[str, Any]) -> str:
    if one["where"]:
        return f"in the input: {one['where']}"
    if one["begun"]:
        which = "begun" if one["begun"] == one["rows"] else f"{one['begun']:,} of them begun"
        return f"{which} by a retry that was stopped: the requests are those left"
    if one["cannot"]:
        return "cannot be asked again" if one["cannot"] == one["rows"] else f"{one['cannot']:,} of them cannot be asked again"
    return "kept in the rows, with a flag" if one["kept"] else "rejected"
