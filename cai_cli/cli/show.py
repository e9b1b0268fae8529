"""cai show"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from cai_cli.cli import _complete
from cai_cli.cli._stage import AsJson, ConfigFile, OutputFolder, verb_app
from cai_cli.errors import Fix

if TYPE_CHECKING:
    from cai_cli.cli._rows import Wanted

HELP = """Rows, round by round: prompt, first response, critiques, revisions with what they changed; pairs with their votes.

Without ID the first rows of revise, else of another stage. With the id of a row or a prompt: all that every stage made of it.
What is longer than the terminal goes through $PAGER, else less. On 160 columns and more a revision stands beside the text before.

--where takes comparisons (< <= > >= = !=), ~ for a text in a text, in (a, b), joined by and, or, not and brackets. Its names are
columns (tokens_out, kind, model, p_a, weight, response...) and what is made of them: severity and quality of the last round,
first_severity, rounds, principle, category, flags, verdict, changed, accepted; len(NAME); meta.COLUMN for a kept input column. A
number that nobody knows matches nothing.

With --prompt the very messages that a stage puts to its model about a row, before or after a run. Nothing is asked, no key is
needed.

\b
Examples:
  cai show configs/quickstart.yaml
  cai show my.yaml 3f9a1c2b-0
  cai show my.yaml --where 'severity > .5' --where 'kind = harmful'
  cai show my.yaml --where 'p_a > .9 and len(response_a) < 200' --json
  cai show my.yaml --flags refused,truncated
  cai show my.yaml --stage debias --limit 10 --offset 20
  cai show my.yaml --rejects --reason no_severity
  cai show my.yaml --partial
  cai show my.yaml --version v0001
  cai show my.yaml --prompt label-pairs
"""

ANY_FLAG = "any"

app = verb_app()


class _Command(TyperCommand):
    """--flags by itself means any flag: here, since an option with a value or none is nothing that Typer knows."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        at = args.index("--flags") if "--flags" in args else len(args)
        rest = args[at + 1 : at + 2]
        if at < len(args) and (not rest or rest[0].startswith("-") or rest[0].endswith((".yaml", ".yml"))):
            args = [*args[: at + 1], ANY_FLAG, *args[at + 1 :]]
        return super().parse_args(ctx, args)


Id = Annotated[
    str | None,
    typer.Argument(metavar="ID", help="A row's id, or a prompt's.", show_default=False, autocompletion=_complete.ids),
]
Stage = Annotated[str | None, typer.Option(metavar="STAGE", help="Only rows of this stage.", autocompletion=_complete.stages)]
Where = Annotated[
    list[str], typer.Option(metavar="EXPR", help="Only rows for which this holds. Repeatable.", autocompletion=_complete.names)
]
Flags = Annotated[
    str | None,
    typer.Option(metavar="[NAME,...]", help="Only rows with one of these flags, or with any.", autocompletion=_complete.flags),
]
Kind = Annotated[str | None, typer.Option(metavar="KIND", help="Only rows of this kind, such as harmful.")]
Rejects = Annotated[bool, typer.Option("--rejects", help="Rejected rows, with reason and place.")]
Reason = Annotated[
    str | None, typer.Option(metavar="NAME,...", help="Only rejects for these reasons.", autocompletion=_complete.reasons)
]
Partial = Annotated[bool, typer.Option("--partial", help="What a run that goes on, or was killed, has done so far.")]
OfVersion = Annotated[
    str | None, typer.Option(metavar="NAME", help="An older version, as in v0001.", autocompletion=_complete.versions)
]
Limit = Annotated[
    int | None, typer.Option("-n", "--limit", min=1, metavar="N", help="At most N rows. Default: 3, or 20 rejects.")
]
Offset = Annotated[int, typer.Option(min=0, metavar="N", help="Pass over the first N.", show_default=False)]
OfPrompt = Annotated[
    str | None,
    typer.Option(
        metavar="STAGE", help="What this stage asks about the row, word for word.", autocompletion=_complete.asking_stages
    ),
]
NoPager = Annotated[bool, typer.Option("--no-pager", help="Print it all at once.")]


@app.command(help=HELP, no_args_is_help=True, cls=_Command)
def command(
    config: ConfigFile,
    id: Id = None,
    stage: Stage = None,
    where: Where = [],  # noqa: B006
    flags: Flags = None,
    kind: Kind = None,
    rejects: Rejects = False,
    reason: Reason = None,
    partial: Partial = False,
    version: OfVersion = None,
    limit: Limit = None,
    offset: Offset = 0,
    prompt: OfPrompt = None,
    no_pager: NoPager = False,
    output: OutputFolder = None,
    json: AsJson = False,
) -> None:
    from cai_cli.config import load

    loaded = load(config, flags={"output": output})
    if prompt is not None:
        others = {"--stage": stage, "--where": where, "--flags": flags, "--kind": kind, "--rejects": rejects, "--reason": reason,
                  "--partial": partial, "--version": version, "--limit": limit, "--offset": offset}  # fmt: skip
        _show_prompt(loaded, prompt, id, json, no_pager, others)
        return
    from cai_cli.cli import _rows

    wanted = _rows.Wanted(
        id=id, stage=stage, where=tuple(where), flags=flags, kind=kind, rejects=rejects or reason is not None, reason=reason,
        partial=partial, version=version, limit=limit, offset=offset,
    )  # fmt: skip
    _check(wanted)
    _rows.show(loaded, wanted, json, no_pager)


def _check(wanted: Wanted) -> None:
    if wanted.partial and wanted.version is not None:
        raise Fix("--partial is about no version yet, and --version names one", "leave one of them out")


def _show_prompt(config: Any, stage: str, id: str | None, as_json: bool, no_pager: bool, others: dict[str, Any]) -> None:
    if given := [name for name, value in others.items() if value]:
        raise Fix(f"--prompt shows what is asked, and {given[0]} is about what came back", f"leave {given[0]} out")
    from cai_cli.cli import _prompt

    _prompt.show(config, stage, id, as_json, no_pager)
