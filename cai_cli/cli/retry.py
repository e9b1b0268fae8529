"""cai retry"""

from __future__ import annotations

import difflib
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cai_cli.cli import _complete, _signals
from cai_cli.cli._stage import ConfigFile, IfLocked, verb_app
from cai_cli.errors import Exit, Fix

if TYPE_CHECKING:
    from cai_cli.config import Config
    from cai_cli.engine.culprits import Failed
    from cai_cli.engine.retriable import Standing
    from cai_cli.engine.retry import Ahead, Wanted
    from cai_cli.engine.run import Summary

HELP = """Ask again about rows that failed: rejected for a reason, or kept although they were refused or cut off. Only what such
a row failed on is bought again, and what hangs on it; all else comes out of the ledger. The result is a new version; the old one
stays, and so do the replies that are set aside: `cai why` shows them.

Give it the flags that the run had (-i, --set, --seed, -o). For longer replies use --max-tokens: another config is another
version, for which everything is asked anew.

Without --only: the reasons there are, how many rows have each, and what asking again would cost at most.

\b
Examples:
  cai retry my.yaml
  cai retry my.yaml --only no_severity,empty
  cai retry my.yaml --only truncated --max-tokens 2048
  cai retry my.yaml --only no_verdict --limit 20 --dry-run
"""

REFUSED = ("a refusal that is asked again until it gives way biases the data: the rows then refuse less than the model does; "
           "say so where you publish them")  # fmt: skip

app = verb_app()


@app.command(help=HELP)
def command(
    config: ConfigFile,
    only: Annotated[
        list[str] | None,
        typer.Option(
            "--only",
            metavar="REASON[,REASON]",
            help="Rows that failed for these reasons.",
            show_default=False,
            autocompletion=_complete.again,
        ),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, metavar="N", help="At most N rows.")] = None,
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
    flags = {"seed": seed, "limits.budget_usd": budget_usd, "limits.concurrency": concurrency, "output": output}
    loaded = load(config, set_, flags=flags)
    reasons = [reason.strip() for words in only or () for reason in words.split(",") if reason.strip()]
    if only is not None and not reasons:
        raise Fix("--only names no reason", f"see which there are: cai retry {config}")
    wanted = Wanted(reasons=reasons, limit=limit, max_tokens=max_tokens)
    if dry_run or not reasons:
        raise typer.Exit(_look(loaded, wanted, input, json))
    raise typer.Exit(_retry(loaded, wanted, input, if_locked, keep, json, quiet, verbose))


# Doing it.


def _retry(
    config: Config, wanted: Wanted, given: str | None, if_locked: IfLocked, keep: int | None, as_json: bool, quiet: bool,
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
        summary = retry.execute(config, wanted, given, options, watch_for(quiet, verbose))
    except Held as held:
        if if_locked != IfLocked.skip:
            raise
        say(f"cai: skipped: {held.message}")
        return Exit.OK
    if summary.nothing:
        _refuse_slips(config, wanted, given)
    _execute.answer(config, summary, as_json, quiet, command)
    if summary.exit in (Exit.OK, Exit.REJECTS) and (later := _behind(config, summary)):
        say(f"cai: {' and '.join(later)} rest on older rows now; go on with: cai {later[0]} {config.path}")
    return int(summary.exit)


def _refuse_slips(config: Config, wanted: Wanted, given: str | None) -> None:
    """Raises: Fix: a reason that nothing has, and that is nearly one which rows have"""
    there = sorted({row.reason for row in _failed(config, given)[1]})
    for reason in wanted.reasons:
        if reason not in there and (close := difflib.get_close_matches(reason, there, 1, 0.75)):
            raise Fix(f"no row failed for '{reason}'", f"did you mean '{close[0]}'?")


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


# Looking.


def _failed(config: Config, given: str | None) -> tuple[Standing, list[Failed]]:
    """The rows that failed, of the run or of the first stage that has any."""
    from cai_cli.engine.retriable import failed_rows, standings

    among = standings(config, given)
    for standing in among:
        if rows := list(failed_rows(standing)):
            return standing, rows
    return among[0], []


def _look(config: Config, wanted: Wanted, given: str | None, as_json: bool) -> int:
    """Say what a retry would ask. Gives: 2 where no reason was named and there is one"""
    from cai_cli.cli.errors import say
    from cai_cli.engine import retry

    standing, rows = _failed(config, given)
    if wanted.reasons:
        rows = [row for row in rows if row.reason in wanted.reasons][: wanted.limit]
    documents = [_document(one, wanted.max_tokens) for one in retry.ahead(config, standing, rows)]
    if as_json:
        from cai_cli.cli._answer import print_json

        pending = len({(one.stage, one.id) for one in standing.pending})
        print_json({"retry": documents, "begun": pending, "stages": [step.name for step in standing.steps]})
    elif documents:
        _print(documents)
    if not rows:
        what = f" for {' or '.join(wanted.reasons)}" if wanted.reasons else ""
        say(f"cai: no row was rejected, refused or cut off{what}: there is nothing to ask again")
        return Exit.OK
    say("cai: nothing was asked; replies that are not there yet are taken as the simulated model's")
    if wanted.reasons:
        return Exit.OK
    able = list(dict.fromkeys(one["reason"] for one in documents if one["rows"] > one["cannot"]))
    if not able:
        say("cai: nothing of this can be asked again; mend the input, then: " + f"cai run {config.path}")
        return Exit.OK
    say("error: name the reasons to ask again for")
    say(f"hint: cai retry {shlex.quote(str(config.path))} --only {','.join(able)}")
    return Exit.USAGE


def _document(one: Ahead, max_tokens: int | None) -> dict[str, Any]:
    from cai_cli.cli._dry_run import Asked

    sums = Asked()
    for request, tokens_in in one.asked:
        more = max_tokens is not None and max_tokens > request.model.max_tokens
        sums.add(request.with_max_tokens(max_tokens or 0) if more else request, tokens_in)
    scale = (one.rows - one.lost) / max(1, one.played)
    return {"stage": one.stage, "reason": one.reason, "kept": one.kept, "rows": one.rows, "cannot": one.lost, "where": one.where,
            **sums.document(scale), "unpriced": sorted(sums.unpriced)}  # fmt: skip


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
    if one["cannot"]:
        return "cannot be asked again" if one["cannot"] == one["rows"] else f"{one['cannot']:,} of them cannot be asked again"
    return "kept in the rows, with a flag" if one["kept"] else "rejected"
