"""cai audit"""

from __future__ import annotations

import shlex
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cai_cli.cli._stage import AsJson, ConfigFile, IfLocked, OutputFolder, verb_app

if TYPE_CHECKING:
    from cai_cli.config import Config
    from cai_cli.engine.audit import Sampled, Taken

HELP = """People check the labels that a model gave: draw pairs, have them labelled, see how far people agree. Asks no model.

What people say is kept in OUTPUT/audit, and is gold for the next `cai debias`."""

SAMPLE = """Draw pairs for people to label: of the newest labels, those that debias filtered too. Each with a known
probability, more of the uncertain, the tied, those on which orders or labelers conflict, and the harmful ones.

A row shows the conversation and two responses in random order, nothing of the AI's verdict. To fill in: label (1, 2, tie or
skip), reason, kind (human_stricter, ai_stricter, different_criteria or subjective) and annotator, who it was. A pair's draw
depends on the pair alone: so many are expected, not exactly so many, and a larger sample holds the smaller one.

\b
Examples:
  cai audit sample configs/quickstart.yaml -n 50
  cai audit sample my.yaml --format argilla
  cai audit sample my.yaml -n 200 --out for-anna.jsonl
"""

SCORE = """Take in what people filled in, and say how far the AI's labels can be trusted: sampling, agreement beyond chance,
why they disagree, win rates, biases, and what to do. Weighted by one over the probability of having been drawn.

Files are ours, or what Argilla exports (its folder, or records.json). Labels are kept by pair and person in
OUTPUT/audit/labels.jsonl; a later one replaces an earlier one. Ends with 3 where people agree with less than
audit.agreement_at_least of the labels that debias kept.

\b
Examples:
  cai audit score my.yaml -i data/my/audit/sample-0001.jsonl
  cai audit score my.yaml -i anna.jsonl -i ben.jsonl
  cai audit score my.yaml --json | jq .agreement.kept.raw
"""

app = verb_app()


@app.callback(help=HELP)
def _audit() -> None:
    """Each step is a command of its own."""


class Format(StrEnum):
    jsonl = "jsonl"
    argilla = "argilla"


Locked = Annotated[IfLocked, typer.Option(help="When a run holds the output: wait, fail, or skip.")]


@app.command(help=SAMPLE, short_help="Draw pairs for people to label.", no_args_is_help=True)
def sample(
    config: ConfigFile,
    n: Annotated[
        int | None,
        typer.Option("-n", "--pairs", min=1, metavar="N", help="About so many. Default: audit.rate of all.", show_default=False),
    ] = None,
    format: Annotated[Format, typer.Option(help="Rows of our own, or a folder that rg.Dataset.from_disk reads.")] = Format.jsonl,
    out: Annotated[
        str | None,
        typer.Option("--out", metavar="FILE|-", help="Write there. Default: OUTPUT/audit/sample-0001.jsonl.", show_default=False),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace what --out names.")] = False,
    output: OutputFolder = None,
    if_locked: Locked = IfLocked.fail,
    json: AsJson = False,
) -> None:
    from cai_cli.cli.errors import say
    from cai_cli.config import load
    from cai_cli.engine import audit
    from cai_cli.engine.lock import Held
    from cai_cli.errors import Fix

    if out == "-" and (json or format == Format.argilla):
        raise Fix("--out - writes rows to stdout, and nothing else", "leave out --json and --format argilla, or name a file")
    loaded = load(config, flags={"output": output})
    place = None if out in (None, "-") else Path(str(out))
    asked = audit.Asked(wanted=n, format=format.value, out=place, to_stdout=out == "-", force=force)
    try:
        sampled, data = audit.sample(loaded, asked, if_locked.value, shlex.join(["cai", *sys.argv[1:]]))
    except Held as held:
        if if_locked != IfLocked.skip:
            raise
        say(f"cai: skipped: {held.message}")
        return
    _tell_sample(sampled, data, loaded, json)


def _tell_sample(sampled: Sampled, data: bytes, config: Config, as_json: bool) -> None:
    from cai_cli.cli.errors import say
    from cai_cli.cli.summary import command_line
    from cai_cli.reports.quantities import counted

    if sampled.note:
        say(f"note: drawn of {sampled.note}")
    if not sampled.new:
        of_it = counted(sampled.again, "pair")
        say(f"cai: nothing new: all {of_it} of this sample were drawn before; for more: -n with a larger number")
    if as_json:
        from cai_cli.cli._answer import print_json

        print_json(sampled.document())
    elif data:
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        _print_sample(sampled)
    if sampled.new and not as_json:
        _, _, *words = shlex.split(command_line("audit", config))
        command = shlex.join(["cai", "audit", "score", *words, "-i", "FILE" if sampled.path is None else str(sampled.path)])
        say(f"cai: {counted(sampled.new, 'pair')} drawn; once labelled: {command}")


def _print_sample(sampled: Sampled) -> None:
    from cai_cli.reports.audit_table import sampled_lines
    from cai_cli.reports.console import console
    from cai_cli.reports.run_summary import named

    out = console()
    out.print(named(sampled_lines(sampled.document()), min(out.width, 100)))


@app.command(help=SCORE, short_help="What people's labels say of the AI's.", no_args_is_help=True)
def score(
    config: ConfigFile,
    input: Annotated[
        list[str],
        typer.Option("-i", "--input", metavar="FILE|-", help="What people filled in. Repeatable; none: what is there already."),
    ] = [],  # noqa: B006
    annotator: Annotated[
        str, typer.Option(metavar="NAME", help="Whose labels are that have no annotator.", show_default=False)
    ] = "",
    output: OutputFolder = None,
    if_locked: Locked = IfLocked.fail,
    json: AsJson = False,
) -> None:
    from cai_cli.cli.errors import say
    from cai_cli.config import load
    from cai_cli.engine import audit
    from cai_cli.engine.lock import Held
    from cai_cli.errors import Exit

    loaded = load(config, flags={"output": output})
    try:
        document, taken = audit.score(loaded, input, annotator, if_locked.value, shlex.join(["cai", *sys.argv[1:]]))
    except Held as held:
        if if_locked != IfLocked.skip:
            raise
        say(f"cai: skipped: {held.message}")
        return
    if input:
        _tell_taken(taken)
    _print_score(document, json)
    if not document["passed"]:
        say(f"cai: {_failure(document)}; see the recommendations")
        raise typer.Exit(Exit.REJECTS)


def _tell_taken(taken: Taken) -> None:
    from cai_cli.cli.errors import say
    from cai_cli.reports.quantities import counted

    replaced = f", {taken.replaced:,} of them in place of earlier ones" if taken.replaced else ""
    empty = f"; {counted(taken.empty, 'row')} not filled in" if taken.empty else ""
    say(f"cai: took in {counted(taken.read, 'label')}{replaced}{empty}; {taken.labels:,} are kept")


def _failure(document: dict[str, Any]) -> str:
    raw, at_least = document["agreement"]["kept"]["raw"]["value"], document["agreement_at_least"]
    if raw is None:
        return "no label that is trained on was checked"
    return f"people agree with {raw:.1%} of the labels, below audit.agreement_at_least, {at_least:.0%}"


def _print_score(document: dict[str, Any], as_json: bool) -> None:
    if as_json:
        from cai_cli.cli._answer import print_json

        print_json(document)
        return
    from cai_cli.reports.audit_table import audit_page
    from cai_cli.reports.console import console

    out = console()
    for part in audit_page(document, out):
        out.print(part)


@app.command(
    hidden=True, help="Not in this version.", context_settings={"ignore_unknown_options": True, "allow_extra_args": True}
)
def serve() -> None:
    from cai_cli.cli._app import refuse_later

    refuse_later("'audit serve'")
