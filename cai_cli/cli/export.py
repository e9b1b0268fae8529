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
  sft         conversations that end with the revised response
  preference  prompt, chosen, rejected, with margin, weight and probability
  reward      prompt, chosen, rejected and margin, without ties
  kto         prompt, completion, label: each response once
  hh          chosen and rejected as transcripts, as hh-rlhf has them
  critiques   what a critic and a reviser are asked, and what they replied
  hf_recipe   the open recipe's columns and splits: the revision chosen, no judge

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


class Format(StrEnum):
    jsonl = "jsonl"
    parquet = "parquet"


class Compression(StrEnum):
    none = "none"
    gzip = "gzip"
    zstd = "zstd"


@app.command(help=HELP, no_args_is_help=True)
def export(
    config: ConfigFile,
    to: Annotated[
        list[str],
        typer.Option("--to", metavar="FORMAT", help="One of the formats above. Repeatable.", autocompletion=_complete.formats),
    ],
    rounds: Annotated[
        Rounds, typer.Option(help="sft: the last revision, those of all rounds (as in the paper), or the first response.")
    ] = Rounds.last,
    mix: Annotated[
        list[str],
        typer.Option(metavar="PATH:WEIGHT", help="sft: make so much of it (0.3) rows of another export or file. Repeatable."),
    ] = [],  # noqa: B006
    labels: Annotated[
        Labels,
        typer.Option(
            help="preference, reward, hh: the likelier side with its probability, the same taken for certain, "
            "or the side drawn with its probability."
        ),
    ] = Labels.soft,
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
) -> None:
    from cai_cli import config as configs
    from cai_cli.cli.errors import say
    from cai_cli.engine.lock import Held

    _check_push(push, public, license)
    options = _options(rounds.value, labels.value, mix, format.value, compression and compression.value)
    loaded = configs.load(config, set_, flags={"output": output})
    try:
        done = _export(loaded, list(dict.fromkeys(to)), out, if_locked, options)
    except Held as held:
        if if_locked != IfLocked.skip:
            raise
        say(f"cai: skipped: {held.message}")
        return
    for one in done:
        _warn(one)
    _print_json(done) if as_json else _print(done)
    if push:
        from cai_cli.cli import _push

        _push.add(loaded, done, push, public=public, license=license)


def _check_push(push: str | None, public: bool, license: str | None) -> None:
    for option, given in (("--public", public), ("--license", license)):
        if given and not push:
            raise Fix(f"{option} says how something is uploaded, and nothing is", f"add --push OWNER/NAME, or leave {option} out")


def _options(rounds: Any, labels: Any, mix: Sequence[str], format: Any, compression: str | None) -> Options:
    from cai_cli.engine.export import Options
    from cai_cli.engine.mix import ingredients

    return Options(rounds=rounds, labels=labels, mix=tuple(ingredients(mix)), format=format, compression=compression)


def _export(config: Config, names: Sequence[str], out: Path | None, if_locked: IfLocked, options: Options) -> list[Exported]:
    from cai_cli.engine import export as engine

    for name in names:  # what is missing is said before anything is written
        engine.source_of(config, name)
    engine.check_options(names, options)
    command = shlex.join(["cai", *sys.argv[1:]])
    return [engine.export(config, name, out, if_locked.value, command, options) for name in names]


def _warn(one: Exported) -> None:
    from cai_cli.cli.errors import say
    from cai_cli.reports.quantities import reasons

    if one.outdated:
        behind = ", ".join(one.outdated)
        say(f"warning: {one.name} is made of {_place(one.source)}, but {behind} was run anew since: run `cai run` first")
    if not one.rows:
        why = reasons(one.left) if one.left.total() else f"{_place(one.source)} has no rows"
        say(f"warning: {one.name} is empty: {why}")
    for part in (part for part in one.mixed if part.taken < part.wanted):
        share = part.taken / max(1, one.rows)
        say(f"warning: {part.ingredient.path} has {part.available:,} rows where {part.wanted:,} were to be mixed in: all of them "
            f"are, each once, and make {share:.0%} of the rows, not {part.ingredient.share:.0%}")  # fmt: skip
    if one.unchanged:
        say(f"cai: nothing new: {one.path / one.name / one.version.name} is what {_place(one.source)} makes")


def _print_json(done: Sequence[Exported]) -> None:
    from cai_cli.cli._answer import print_json

    document = {one.name: _document(one) for one in done}
    print_json({"exports": document})


def _document(one: Exported) -> dict[str, Any]:
    return {"path": str(one.path), "version": one.version.name, "rows": one.rows, "left": dict(one.left),
            "source": _place(one.source), "outdated": one.outdated, "unchanged": one.unchanged, "counts": one.counts,
            "mixed": [part.document() for part in one.mixed]}  # fmt: skip


def _print(done: Sequence[Exported]) -> None:
    from rich.text import Text

    from cai_cli.cli._answer import print_table
    from cai_cli.reports.console import console
    from cai_cli.reports.quantities import reasons

    head = ("export", "version", "rows", "left out", "made of")
    rows = [(one.name, one.version.name, one.rows, reasons(one.left), _place(one.source)) for one in done]
    print_table(head, rows, fold="left out")
    out = console()
    for number, text in enumerate(f"{one.name}: {text}" for one in done if one.rows for text in _told(one)):
        out.print(Text(("" if number else "\n") + on_one_line(text)), width=min(out.width, PROSE))
    filled = [one for one in done if one.rows]
    for one in filled:
        typer.echo("\n".join(_how_to_load(one)))
    if any(_uses(one) for one in filled):
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
        part = (use.split, use.columns) if use else ("train", ())
        if part != before:
            only = f".select_columns({json.dumps(part[1])})" if part[1] else ""
            yield f'\nrows = datasets.load_dataset("{place}", "{one.name}", split="{part[0]}"){only}'
            before = part
        if use:
            yield f"trl.{use.trainer}(..., {_config(use)}train_dataset=rows)"


def _config(use: Use) -> str:
    return f"args=trl.{use.trainer.removesuffix('Trainer')}Config(..., {use.settings}), " if use.settings else ""


def _uses(one: Exported) -> Sequence[Use]:
    from cai_cli import exports

    return getattr(exports.find(one.name), "USES", ())


def _place(version: Any) -> str:
    return f"{version.path.parent.name}/{version.name}"
