"""cai init"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cai_cli.cli import _init_texts as texts
from cai_cli.cli._init_texts import yaml as _yaml

if TYPE_CHECKING:
    from cai_cli.engine.given_file import Given

HELP = """A new folder to start from: a commented config, a constitution, some prompts. Nothing is overwritten.

On a terminal it asks what no option says; --yes takes the defaults.

\b
Examples:
  cai init my-dataset
  cai init my-dataset --provider anthropic --model claude-opus-5-5
  cai init red --for red-team --yes
  cai init mine --prompts questions.csv --constitution safety
  cai init judged --pairs pairs.jsonl --provider anthropic --budget 20
"""

MODELS = {"simulated": "small-world", "anthropic": "claude-sonnet-5-5"}  # asked where no --model says otherwise
NEEDED = {  # by provider: what it reads from the environment, or else asks for
    "anthropic": ("export ANTHROPIC_API_KEY=...",),
    "openai": ("export OPENAI_API_KEY=...",),
    "bedrock": ("export AWS_REGION=...", "export AWS_BEARER_TOKEN_BEDROCK=...    # or sign in with the AWS command line"),
    "vertex": ("export CLOUD_ML_REGION=...", "export ANTHROPIC_VERTEX_PROJECT_ID=...", "gcloud auth application-default login"),
}
BUDGET_USD = 5.0
ALWAYS = ("cai.yaml", ".gitignore")  # what every start writes


class For(StrEnum):
    """What a folder is for."""

    trial = "try"
    red_team = "red-team"
    prompts = "prompts"
    pairs = "pairs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What was asked for, by options or answers; None: nobody said, so the default holds."""

    folder: Path
    what: For | None = None
    file: Path | None = None
    column: str | None = None
    provider: str | None = None
    model: str | None = None
    budget_usd: float | None = None
    constitution: str | None = None


app = typer.Typer(
    rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)  # fmt: skip


@app.command(help=HELP)
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder, new or there already.", show_default=False)],
    for_: Annotated[For | None, typer.Option("--for", help="What to begin with: a trial, or prompts that provoke.")] = None,
    prompts: Annotated[Path | None, typer.Option(metavar="FILE", help="Prompts of your own.")] = None,
    pairs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Pairs of responses, to be judged or judged already.")
    ] = None,
    column: Annotated[str | None, typer.Option(metavar="NAME", help="The column of the prompts, where it is not told.")] = None,
    provider: Annotated[
        str | None, typer.Option(metavar="NAME", help="Who is asked: simulated, anthropic, openai ...  [default: simulated]")
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="NAME", help="As its provider spells it.")] = None,
    budget: Annotated[
        float | None, typer.Option(metavar="X", min=0, help=f"Dollars, over all runs.  [default: {BUDGET_USD:g}]")
    ] = None,
    constitution: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="A shipped one, or your own.  [default: general]")
    ] = None,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="Ask nothing: take the defaults.")] = False,
) -> None:
    what = _what(for_, prompts, pairs)
    wanted = Wanted(
        folder=folder, what=what, file=prompts or pairs, column=column, provider=provider, model=model, budget_usd=budget,
        constitution=constitution,
    )  # fmt: skip
    _refuse_file(folder)
    if sys.stdin.isatty() and sys.stdout.isatty() and not yes:
        from cai_cli.cli._init_questions import answered

        _refuse_overwriting([folder / name for name in ALWAYS])
        wanted = answered(wanted)
    _make(wanted)


def _what(for_: For | None, prompts: Path | None, pairs: Path | None) -> For | None:
    """What the options say that the folder is for. Raises: Fix: two things at once, or a file that is not named"""
    from cai_cli.errors import Fix

    said = {one for one, there in ((For.prompts, prompts), (For.pairs, pairs), (for_, for_)) if there}
    if len(said) > 1:
        raise Fix("--for, --prompts and --pairs say different things", "keep one of them")
    if for_ in (For.prompts, For.pairs) and not (prompts or pairs):
        raise Fix(f"--for {for_}: which file?", f"name it: --{for_} FILE")
    return next(iter(said), None)


def _make(wanted: Wanted) -> None:
    """Look at everything that was named, then write; what cannot be used is refused before."""
    from cai_cli.cli.errors import say
    from cai_cli.reports.folding import on_terminal

    provider = wanted.provider or "simulated"
    wanted = replace(wanted, what=wanted.what or For.trial, provider=provider, model=wanted.model or _default_model(provider))
    given = _looked_at(wanted)
    _refuse_budget(wanted)
    files = _files(wanted, given)
    _refuse_overwriting([wanted.folder / name for name in files])
    _write(wanted.folder, files)
    if given:
        say(f"cai: {given.path}: {given.in_words()}")
    if not (given and given.has_votes):
        _warn_of_price(wanted)
    folders = [f"prompts/ ({sum(name.startswith('prompts/') for name in files)} files)"] if wanted.what == For.red_team else []
    names = [*(name for name in files if "/" not in name), *folders]
    typer.echo(on_terminal(f"wrote {', '.join(names)} in {wanted.folder}; next:\n", sys.stdout))
    for line in _next(wanted, given):
        typer.echo(f"  {line}")


def _looked_at(wanted: Wanted) -> Given | None:
    if wanted.file is None:
        return None
    from cai_cli.engine.given_file import look

    return look(wanted.file, wanted.what == For.pairs, wanted.column or "")


def _next(wanted: Wanted, given: Given | None) -> Iterator[str]:
    """What to type next, line by line."""
    name = _name(wanted.folder)
    if wanted.folder.resolve() != Path.cwd():
        yield f"cd {shlex.quote(str(wanted.folder))}"
    if given and given.has_votes:
        yield f"cai debias cai.yaml -i {shlex.quote(_from(wanted.folder, given.path))}"
        yield "cai export cai.yaml --to preference"
        return
    yield from NEEDED.get(wanted.provider or "", ())
    if wanted.provider != "simulated":  # it is paid for: the price first, then a few rows to look at
        yield "cai run cai.yaml --dry-run"
        yield "cai run cai.yaml --limit 5"
    if wanted.what == For.red_team:
        yield "cai expand cai.yaml"
        yield f"cai run cai.yaml -i data/{name}/expand/latest"
    else:
        yield "cai run cai.yaml"
    yield "cai export cai.yaml --to preference" if given and given.pairs else "cai export cai.yaml --to sft --to preference"


def refuse_unknown(provider: str) -> None:
    """Raises: Fix: nobody knows this provider"""
    from cai_cli import providers
    from cai_cli.errors import Fix
    from cai_cli.validation import near

    if provider not in (names := providers.names()):
        close = near(provider.lower(), names)
        raise Fix(f"there is no provider '{provider}'", close if close.startswith("did") else f"there are: {', '.join(names)}")


def _default_model(provider: str) -> str:
    from cai_cli.errors import Fix

    refuse_unknown(provider)
    if provider not in MODELS:
        raise Fix(f"which model of {provider}?", "name it: --model NAME")
    return MODELS[provider]


def _refuse_budget(wanted: Wanted) -> None:
    """A budget cannot be kept where nobody knows the price: a run would stop at its first request."""
    from cai_cli.errors import Fix

    refuse_unknown(wanted.provider or "")
    if wanted.budget_usd is not None and not is_priced(wanted.provider or "", wanted.model or ""):
        hint = f"{_meant(wanted)}leave --budget out, and set model.price and limits.budget_usd in the config"
        raise Fix(f"no price is known for '{wanted.model}', so a budget cannot be kept", hint)


def _warn_of_price(wanted: Wanted) -> None:
    """The cap that every other start has is missing where no price is known: that is said, not left to be found."""
    from cai_cli.cli.errors import say

    if not is_priced(wanted.provider or "", wanted.model or ""):
        say(f"warning: no price is known for '{wanted.model}', so there is no limits.budget_usd, and a run spends without a cap")
        config = wanted.folder / "cai.yaml"
        say(f"hint: {_meant(wanted)}set model.price and limits.budget_usd in {config}; a comment there shows how")


def _meant(wanted: Wanted) -> str:
    """The model that was probably meant, as the beginning of a hint."""
    from cai_cli.flow import Model
    from cai_cli.prices import near_name

    meant = near_name(Model(provider=wanted.provider or "", name=wanted.model or ""))
    return f"did you mean '{meant}'? if not, " if meant else ""


def is_priced(provider: str, model: str) -> bool:
    from cai_cli.flow import Model
    from cai_cli.prices import price_of

    return price_of(Model(provider=provider, name=model)) is not None


# The files.


def _files(wanted: Wanted, given: Given | None) -> dict[str, bytes]:
    """What goes into the folder, by name. Raises: Fix: the constitution cannot be used"""
    from cai_cli.shipped import shipped

    constitution, own = constitution_of(wanted)
    files = {"cai.yaml": _text(wanted, given, constitution).encode()}
    if own is not None and not (given and given.has_votes):
        files["constitution.yaml"] = own
    if wanted.what == For.red_team:
        seeds = sorted(shipped("configs", "prompts").glob("*.jsonl"))
        files |= {f"prompts/{path.name}": path.read_bytes() for path in seeds}
    elif given is None:
        files["prompts.jsonl"] = shipped("configs", "quickstart_prompts.jsonl").read_bytes()
    return files | {".gitignore": b"data/\n"}


def constitution_of(wanted: Wanted) -> tuple[str, bytes | None]:
    """How the config names it, and the copy that goes along. A file of one's own stays: what it extends lies beside it."""
    from cai_cli import constitution
    from cai_cli.errors import Fix
    from cai_cli.shipped import shipped
    from cai_cli.validation import near

    name = wanted.constitution or "general"
    file = shipped("configs", "constitutions", f"{name}.yaml")
    if "/" not in name and file.is_file():
        return "constitution.yaml", file.read_bytes()
    if not (own := Path(name).expanduser()).is_file():
        known = [path.stem for path in shipped("configs", "constitutions").glob("*.yaml")]
        raise Fix(f"there is no constitution '{name}', neither shipped nor as a file", near(name, known))
    constitution.load(own)
    return _from(wanted.folder, own), None


def _from(folder: Path, file: Path) -> str:
    """A file's path as a config in the folder names it: relative where the two lie near each other."""
    relative = os.path.relpath(file.resolve(), folder.resolve())
    return relative if relative.count("..") <= 3 else str(file.resolve())


def _name(folder: Path) -> str:
    """The dataset's name, after the folder's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-.")[:64] or "dataset"


def _config(name: str, provider: str, model: str) -> str:
    """The config of a trial."""
    return _text(Wanted(folder=Path(name), what=For.trial, provider=provider, model=model), None, "constitution.yaml", name)


def _text(wanted: Wanted, given: Given | None, constitution: str, name: str = "") -> str:
    """The config's text. Takes: how it names the constitution, and what the dataset is called, where not as the folder is"""
    name = name or _name(wanted.folder)
    kind = "votes" if given and given.has_votes else str(wanted.what)
    held_to = texts.CONSTITUTION.format(constitution=_yaml(constitution))
    prompts = texts.PROMPTS.format(prompts="{path: prompts.jsonl, column: prompt, kind: kind}")
    seeds = texts.PROMPTS.format(prompts="{path: prompts, column: prompt, kind: kind}")
    asked, own, other = _model(wanted), _own_input(wanted, given), _other_judge(wanted)
    stages = texts.STAGES.format(other=other)
    parts = {
        "try": [held_to, asked, prompts, stages], "red-team": [held_to, asked, seeds, texts.EXPAND.format(), stages],
        "prompts": [held_to, asked, own, stages], "pairs": [held_to, asked, own, texts.JUDGED.format(other=other)],
        "votes": [own, texts.DEBIASED.format()],
    }[kind]  # fmt: skip
    source = shlex.quote(_from(wanted.folder, given.path)) if given else ""
    commands = "\n".join(f"#   {line.format(output=f'data/{name}', input=source)}" for line in texts.COMMANDS[kind])
    return texts.CONFIG.format(commands=commands, name=_yaml(name), output=_yaml(f"data/{name}"), parts="".join(parts))


def _model(wanted: Wanted) -> str:
    provider, model = wanted.provider or "", wanted.model or ""
    budget = BUDGET_USD if wanted.budget_usd is None else wanted.budget_usd
    shape = texts.SIMULATED if provider == "simulated" else texts.REAL if is_priced(provider, model) else texts.UNPRICED
    return shape.format(**(MODELS | {"provider": _yaml(provider), "name": _yaml(model), "budget": budget}))


def _other_judge(wanted: Wanted) -> str:
    """Labelers with a second judge, of another family than the model; where none is real yet, than the likeliest one."""
    from cai_cli.engine.advice.models import families
    from cai_cli.flow import Model

    own = families(Model(provider=wanted.provider or "", name=wanted.model or ""))
    return texts.OTHERS["Claude" if "Claude" in own or wanted.provider == "simulated" else ""]


def _own_input(wanted: Wanted, given: Given | None) -> str:
    """The `prompts` section for a file of one's own."""
    if given is None:
        return ""
    keys = {"path": _from(wanted.folder, given.path), "column": given.column, "kind": given.kind}
    section = f"{{{', '.join(f'{key}: {_yaml(value)}' for key, value in keys.items() if value)}}}"
    shape = texts.PAIRS if given.pairs else texts.OWN_PROMPTS
    gold = texts.GOLD if given.is_ranked and not given.has_votes else ""
    return shape.format(prompts=section, found=_comment(given.in_words()), kind="" if given.kind else texts.NO_KIND, gold=gold)


def _comment(text: str) -> str:
    """Words from a file, fit to stand in a comment."""
    from cai_cli.visible import on_one_line

    return on_one_line(text)


def _refuse_file(folder: Path) -> None:
    from cai_cli.errors import Fix

    if folder.is_file():
        raise Fix(f"{folder} is a file, and `cai init` fills a folder", f"name a folder, such as: cai init {folder}-dataset")


def _refuse_overwriting(paths: list[Path]) -> None:
    from cai_cli.errors import Fix

    if problems := tuple((f"{path} is there already", "") for path in paths if path.exists()):
        last = (problems[-1][0], "nothing was written; choose another folder, or move these away")
        raise Fix(f"{paths[0].parent} is in use", problems=(*problems[:-1], last))


def _write(folder: Path, files: dict[str, bytes]) -> None:
    from cai_cli.errors import Exit, Fix

    try:
        for name, data in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with open(folder / name, "xb") as file:
                file.write(data)
    except OSError as error:
        what = f"{error.filename or folder} cannot be written: {error.strerror}"
        raise Fix(what, "choose another folder, or mend its permissions", Exit.DISK) from error
