"""cai export"""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cai_cli.cli import _complete
from cai_cli.cli._stage import AsJson, ConfigFile, IfLocked, OutputFolder, verb_app
from cai_cli.errors import Fix
from cai_cli.visible import on_one_line

if TYPE_CHECKING:
    from cai_cli.config import Config
    from cai_cli.engine.export import Exported, Options
    from cai_cli.exports import Use

HELP = """A training-ready dataset, from what was run last. It loads with `datasets` and trains with TRL as it is.

\b
Formats:
  sft         prompt and completion, which is the revised response
  preference  prompt, chosen, rejected, with margin, weight and probability
  reward      prompt, chosen, rejected and margin, without ties
  kto         prompt, completion, label: each response once
  hh          chosen and rejected as transcripts, as hh-rlhf has them; not for DPO
  critiques   what a critic and a reviser are asked, and what they replied
  hf_recipe   the open recipe's columns and splits: the revision chosen, no judge;
              as TRL wants them: prompt in turns, not repeated in chosen and rejected

A folder holds one --format: `datasets` reads all of it as JSONL or all of it as Parquet.

\b
Examples:
  cai export configs/quickstart.yaml --to sft --to preference
  cai export my.yaml --to sft --rounds all --mix helpful.jsonl:0.5
  cai export my.yaml --to preference --labels bernoulli --format parquet --out data/for-training
  cai export my.yaml --to preference --push me/my-set --license cc-by-4.0
"""

app = verb_app()

PROSE = 100  # columns of text, at most


class Rounds(StrEnum):
    last = "last"
    all = "all"
    initial = "initial"


class Labels(StrEnum):
    soft = "soft"
    hard = "hard"
    bernoulli = "bernoulli"


class Shape(StrEnum):
    prompt = "prompt"
    messages = "messages"


class Format(StrEnum):
    jsonl = "jsonl"
    parquet = "parquet"


class Compression(StrEnum):
    none = "none"
    gzip = "gzip"
    zstd = "zstd"


To = Annotated[
    list[str],
    typer.Option("--to", metavar="FORMAT", help="One of the formats above. Repeatable.", autocompletion=_complete.formats),
]
OfRounds = Annotated[
    Rounds, typer.Option(help="sft: the last revision, those of all rounds (as in the paper), or the first response.")
]
Mix = Annotated[
    list[str],
    typer.Option(metavar="PATH:WEIGHT", help="sft: make so much of it (0.3) rows of another export or file. Repeatable."),
]
AsLabels = Annotated[
    Labels,
    typer.Option(
        help="preference, reward, hh: the likelier side with its probability, the same taken for certain, "
        "or the side drawn with its probability."
    ),
]
InShape = Annotated[
    Shape,
    typer.Option(help="sft, critiques: prompt and completion, of which TRL learns the completion, or all in messages."),
]


@app.command(help=HELP, no_args_is_help=True)
def export(
    config: ConfigFile,
    to: To,
    rounds: OfRounds = Rounds.last,
    mix: Mix = [],  # noqa: B006
    labels: AsLabels = Labels.soft,
    shape: InShape = Shape.prompt,
    format: Annotated[Format, typer.Option(help="How rows are stored.")] = Format.jsonl,
    compression: Annotated[
        Compression | None,
        typer.Option(help="Of the files; inside of Parquet. Default: the config's, for Parquet zstd.", show_default=False),
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", metavar="DIR", help="Its folder. Default: OUTPUT/export.")] = None,
    push: Annotated[
        str | None, typer.Option(metavar="REPO", help="Upload it to this dataset of the Hub, private unless --public is given.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="With --push: let everybody see it.")] = False,
    license: Annotated[
        str | None, typer.Option(metavar="ID", help="With --push: the licence on the card, such as cc-by-4.0.")
    ] = None,
    output: OutputFolder = None,
    set_: Annotated[list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override one key. Repeatable.")] = [],  # noqa: B006
    if_locked: Annotated[IfLocked, typer.Option(help="When a run holds the output: wait, fail, or skip.")] = IfLocked.fail,
    as_json: AsJson = False,
    quiet: Annotated[bool, typer.Option("-q", "--quiet", help="Print warnings and errors only.")] = False,
) -> None:
    from cai_cli import config as configs
    from cai_cli.cli.errors import say
    from cai_cli.engine.lock import Held

    _check_push(push, public, license)
    options = _options(rounds, labels, shape, mix, format, compression)
    loaded = configs.load(config, set_, flags={"output": output})
    done: list[Exported] = []
    try:
        _export(done, loaded, list(dict.fromkeys(to)), out, if_locked, options)
    except Held as held:
        if if_locked != IfLocked.skip:
            raise
        say(f"cai: skipped: {held.message}")
        return
    finally:  # what was written before another one could not be is there to be told
        if done:
            _tell(loaded, done, as_json, quiet)
    if push:
        from cai_cli.cli import _push

        _push.add(loaded, done, push, public=public, license=license)


def _tell(config: Config, done: Sequence[Exported], as_json: bool, quiet: bool) -> None:
    for one in done:
        _warn(one, quiet)
    _warn_of_audit(config, done)
    if as_json:
        _print_json(done)
    elif not quiet:
        _print(done)


def _check_push(push: str | None, public: bool, license: str | None) -> None:
    for option, given in (("--public", public), ("--license", license)):
        if given and not push:
            raise Fix(f"{option} says how something is uploaded, and nothing is", f"add --push OWNER/NAME, or leave {option} out")


def _options(
    rounds: Rounds, labels: Labels, shape: Shape, mix: Sequence[str], format: Format, compression: Compression | None
) -> Options:
    from cai_cli.engine.export import Options
    from cai_cli.engine.mix import ingredients

    return Options(
        rounds=rounds.value, labels=labels.value, shape=shape.value, mix=tuple(ingredients(mix)), format=format.value,
        compression=compression and compression.value,
    )  # fmt: skip


def _export(
    done: list[Exported], config: Config, names: Sequence[str], out: Path | None, if_locked: IfLocked, options: Options
) -> None:
    """Write them one after the other. Takes: `done`: gets each as soon as it is there"""
    from cai_cli.engine import export as engine

    for name in names:  # what is missing is said before anything is written
        engine.source_of(config, name)
    engine.check_options(names, options)
    command = shlex.join(["cai", *sys.argv[1:]])
    for name in names:
        done.append(engine.export(config, name, out, if_locked.value, command, options, names))


def _warn(one: Exported, quiet: bool) -> None:
    from cai_cli.cli.errors import say

    if one.outdated:
        behind = ", ".join(one.outdated)
        say(f"warning: {one.name} is made of {_place(one.source)}, but {behind} was run anew since: run `cai run` first")
    if one.resplit is not None:
        say(f"warning: {one.name} is split as {_place(one.source)} is, {one.resplit:.2g} of it test, not by split.test of the "
            "config: for another split `cai run` first, which asks nothing again")  # fmt: skip
    for part in (part for part in one.mixed if part.taken < part.wanted):
        share = part.taken / max(1, one.rows)
        say(f"warning: {part.ingredient.path} has {part.available:,} rows where {part.wanted:,} were to be mixed in: all of them "
            f"are, each once, and make {share:.0%} of the rows, not {part.ingredient.share:.0%}")  # fmt: skip
    if one.unchanged and not quiet:
        say(f"cai: nothing new: {one.path / one.name / one.version.name} is what {_place(one.source)} makes")


def _warn_of_audit(config: Config, done: Sequence[Exported]) -> None:
    """Once for all exports of the same labels."""
    from cai_cli.cli.errors import say
    from cai_cli.engine.audit_standing import warning_of

    said = dict[str, list[str]]()
    for one in done:
        if one.audit is not None and (warning := warning_of(one.audit, config)):
            said.setdefault(warning, []).append(one.name)
    for warning, names in said.items():
        say(f"warning: {', '.join(names)}: {warning}")


def _print_json(done: Sequence[Exported]) -> None:
    from cai_cli.cli._answer import print_json

    document = {one.name: _document(one) for one in done}
    print_json({"exports": document})


def _document(one: Exported) -> dict[str, Any]:
    return {"path": str(one.path), "version": one.version.name, "rows": one.rows, "left": dict(one.left),
            "source": _place(one.source), "outdated": one.outdated, "unchanged": one.unchanged, "counts": one.counts,
            "audit": one.audit, "mixed": [part.document() for part in one.mixed]}  # fmt: skip


def _print(done: Sequence[Exported]) -> None:
    from rich.text import Text

    from cai_cli.cli._answer import print_table
    from cai_cli.reports.console import console
    from cai_cli.reports.quantities import reasons

    head = ("export", "version", "rows", "left out", "made of")
    rows = [(one.name, one.version.name, one.rows, reasons(one.left), _place(one.source)) for one in done]
    print_table(head, rows, fold="left out")
    out = console()
    for number, text in enumerate(f"{one.name}: {text}" for one in done for text in _told(one)):
        out.print(Text(("" if number else "\n") + on_one_line(text)), width=min(out.width, PROSE))
    for one in done:
        typer.echo("\n".join(_how_to_load(one)))
    if any(_uses(one) for one in done):
        typer.echo("\nTRL's default max_length cuts long rows, and its RewardTrainer leaves them out: set it.")


def _told(one: Exported) -> list[str]:
    """What is in an export, and what was mixed in."""
    from cai_cli.reports.quantities import counted, reasons

    found = [", ".join(f"{count:,} {what}" for what, count in one.counts.items() if count or len(one.counts) > 1)]
    for part in one.mixed:
        aside = f"; not to be used: {reasons(part.unusable)}" if part.unusable.total() else ""
        found.append(f"{part.taken:,} of {counted(part.available, 'row')} of {part.ingredient.path}{aside}")
    return [text for text in found if text]


def _how_to_load(one: Exported) -> Iterator[str]:
    """Lines of Python that load it, and what TRL does with it."""
    place, before = on_one_line(str(one.path)), None
    uses: Sequence[Use | None] = _uses(one) or [None]
    for use in uses:
        part = (use.split, tuple(_columns(use))) if use else ("train", ())
        if part != before:
            yield f'\nrows = datasets.load_dataset("{place}", "{one.name}", split="{part[0]}")'
            yield from part[1]
            before = part
        if use:
            yield f"trl.{use.trainer}(..., {_config(use)}train_dataset=rows)"


def _columns(use: Use) -> Iterator[str]:
    """What makes the columns those that a trainer wants, as Python writes it."""
    if use.columns:
        yield f"rows = rows.select_columns({json.dumps(use.columns)})"
    if use.renamed:
        yield f"rows = rows.rename_columns({json.dumps(dict(use.renamed))})"


def _config(use: Use) -> str:
    return f"args=trl.{use.trainer.removesuffix('Trainer')}Config(..., {use.settings}), " if use.settings else ""


def _uses(one: Exported) -> Sequence[Use]:
    from cai_cli import exports

    return exports.uses_of(one.name, one.version.manifest["fingerprints"]["options"])


def _place(version: Any) -> str:
    return f"{version.path.parent.name}/{version.name}"
