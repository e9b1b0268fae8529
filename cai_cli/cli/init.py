"""cai init"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

HELP = """A new folder to start from: a commented config, a constitution, some prompts. Nothing is overwritten.

\b
Examples:
  cai init my-dataset
  cai init my-dataset --provider anthropic --model claude-opus-5-5
"""

MODELS = {"simulated": "small-world", "anthropic": "claude-sonnet-5-5"}  # asked where no --model says otherwise
KEYS = {"anthropic": "ANTHROPIC_API_KEY", "openai": "OPENAI_API_KEY"}

CONFIG = """\
# A dataset by Constitutional AI and AI feedback.
#   cai run cai.yaml                                    make it, or go on where it stopped
#   cai export cai.yaml --to sft --to preference        what trainers take
# `cai config schema` says all that can stand here, `cai config check cai.yaml` whether what stands here is right.

name: {name}
seed: 7                                 # what is picked and drawn here; another seed is another dataset
output: {output}

# What responses are held to. The file is yours: change it.
constitution: constitution.yaml

{model}

# One JSON object a line. kind: harmful, harmless, or the name of the column that says so.
# For a dataset of the Hub: prompts: {{dataset: OWNER/NAME, split: train, column: prompt}}
prompts: {{path: prompts.jsonl, column: prompt, kind: kind}}

# Prompts to samples, then rounds of critique and revision. For the revised responses: cai export cai.yaml --to sft
generate: {{samples: 2}}                  # responses to a prompt
critique: {{template: general, principles: 1, pick: weighted}}
revise: {{rounds: 2}}                     # at most; a response without fault is left alone

# Which of two samples is better, asked in both orders. For the preferences: cai export cai.yaml --to preference
# Models favour their own texts. Where a real one writes, let another one judge as well:
#   labelers: [{{name: main}}, {{name: other, model: {{name: claude-opus-5-5}}}}]
label_pairs: {{pairs: samples, orders: both}}
debias: {{min_confidence: 0.6, ties: drop}}

split: {{test: 0.1}}                      # share of the prompts kept for testing
"""

_SIMULATED = """\
# The simulated model is built in: free, without a key, and of no use but for trying things out. For the real one, put
#   model: {{provider: anthropic, name: {anthropic}, max_tokens: 1024}}
#   limits: {{budget_usd: 5}}
# here, and its key into the environment: export ANTHROPIC_API_KEY=...
model: {{provider: simulated, name: {name}}}"""

_REAL = """\
# Its key comes from the environment. To try things out without one: model: {{provider: simulated, name: {simulated}}}
model: {{provider: {provider}, name: {name}, max_tokens: 1024}}
limits: {{budget_usd: 5}}                 # dollars, over all runs; a run stops before it spends more, and can go on"""

app = typer.Typer(
    rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip


@app.command(help=HELP)
def init(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="The folder, new or there already.", show_default=False)],
    provider: Annotated[str, typer.Option(metavar="NAME", help="Who is asked: simulated, anthropic, openai ...")] = "simulated",
    model: Annotated[str | None, typer.Option(metavar="NAME", help="As its provider spells it.")] = None,
) -> None:
    files = _files(folder, provider, model or _default_model(provider))
    _refuse_overwriting([folder / name for name in files])
    _write(folder, files)
    typer.echo(f"wrote {', '.join(files)} in {folder}; next:\n")
    for line in _next(folder, provider):
        typer.echo(f"  {line}")


def _next(folder: Path, provider: str) -> Iterator[str]:
    """What to type next, line by line."""
    if folder.resolve() != Path.cwd():
        yield f"cd {shlex.quote(str(folder))}"
    if provider in KEYS:
        yield f"export {KEYS[provider]}=..."
    if provider != "simulated":  # it is paid for: the price first, then a few rows to look at
        yield "cai run cai.yaml --dry-run"
        yield "cai run cai.yaml --limit 5"
    yield "cai run cai.yaml"
    yield "cai export cai.yaml --to sft --to preference"


def _default_model(provider: str) -> str:
    from cai_cli import providers
    from cai_cli.errors import Fix

    if provider not in providers.names():
        raise Fix(f"there is no provider '{provider}'", f"there are: {', '.join(providers.names())}")
    if provider not in MODELS:
        raise Fix(f"which model of {provider}?", "name it: --model NAME")
    return MODELS[provider]


def _files(folder: Path, provider: str, model: str) -> dict[str, bytes]:
    """What goes into the folder, by name."""
    from cai_cli.shipped import shipped

    return {
        "cai.yaml": _config(_name(folder), provider, model).encode(),
        "constitution.yaml": shipped("configs", "constitutions", "general.yaml").read_bytes(),
        "prompts.jsonl": shipped("configs", "quickstart_prompts.jsonl").read_bytes(),
        ".gitignore": b"data/\n",
    }


def _name(folder: Path) -> str:
    """The dataset's name, after the folder's."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", folder.resolve().name).strip("-.")[:64] or "dataset"


def _config(name: str, provider: str, model: str) -> str:
    block = _SIMULATED if provider == "simulated" else _REAL
    others = {key: value for key, value in MODELS.items() if key != provider}
    filled = block.format(provider=_yaml(provider), name=_yaml(model), **others)
    return CONFIG.format(name=_yaml(name), output=_yaml(f"data/{name}"), model=filled)


def _yaml(text: str) -> str:
    """A text as YAML: bare where it is read as this text, else in quotes."""
    from cai_cli.documents import parse_scalar

    if re.fullmatch(r"[A-Za-z][A-Za-z0-9./-]*", text) and parse_scalar(text) == text:
        return text
    return json.dumps(text, ensure_ascii=False).replace("${", "$${")


def _refuse_overwriting(paths: list[Path]) -> None:
    from cai_cli.errors import Fix

    if (folder := paths[0].parent).is_file():
        raise Fix(f"{folder} is a file, and `cai init` fills a folder", f"name a folder, such as: cai init {folder}-dataset")
    if problems := tuple((f"{path} is there already", "") for path in paths if path.exists()):
        last = (problems[-1][0], "nothing was written; choose another folder, or move these away")
        raise Fix(f"{paths[0].parent} is in use", problems=(*problems[:-1], last))


def _write(folder: Path, files: dict[str, bytes]) -> None:
    from cai_cli.errors import Exit, Fix

    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            with open(folder / name, "xb") as file:
                file.write(data)
    except OSError as error:
        what = f"{error.filename or folder} cannot be written: {error.strerror}"
        raise Fix(what, "choose another folder, or mend its permissions", Exit.DISK) from error
