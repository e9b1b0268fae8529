"""cai why"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from cai_cli.cli import _complete
from cai_cli.cli._stage import AsJson, ConfigFile, OutputFolder, verb_app

if TYPE_CHECKING:
    from cai_cli.engine.lineage_of import Asked, Bought, Lineage

HELP = """One row's lineage, request by request: what was asked for it, of whom, when, at what price, and what became of the row.

ID is that of a sample, a pair (with all that was asked for its two samples), a new prompt, or a prompt: then of all its rows.
Nothing is asked. A request is `bought` where the run that made the newest version sent it, `replayed` where that run took the
reply of an earlier one out of the ledger; `not asked` where the ledger holds no reply to it.

\b
Examples:
  cai why my.yaml 3f9a1c2b-0
  cai why my.yaml 3f9a1c2b-0-1 --stage label-pairs
  cai why my.yaml 3f9a1c2b-0 --full
  cai why my.yaml 3f9a1c2b --json | jq .totals
"""

_OF_A_RUN = ("run", "state", "started", "ended", "command")

app = verb_app()


@app.command(help=HELP, no_args_is_help=True)
def command(
    config: ConfigFile,
    id: Annotated[str, typer.Argument(metavar="ID", help="A row's id, or a prompt's.", autocompletion=_complete.ids)],
    stage: Annotated[
        str | None,
        typer.Option(metavar="STAGE", help="Only this stage's requests.", autocompletion=_complete.asking_stages),
    ] = None,
    full: Annotated[bool, typer.Option("--full", help="Print messages and replies too.")] = False,
    no_pager: Annotated[bool, typer.Option("--no-pager", help="Print it all at once.")] = False,
    output: OutputFolder = None,
    json: AsJson = False,
) -> None:
    from cai_cli.config import load
    from cai_cli.engine.lineage_of import lineage_of
    from cai_cli.engine.preview import asking_stage

    loaded = load(config, flags={"output": output})
    found = lineage_of(loaded, id, asking_stage(stage, loaded) if stage else None)
    if json:
        from cai_cli.cli._answer import print_json

        print_json(_document(found, full))
        return
    _print(found, full, no_pager)


def _print(found: Lineage, full: bool, no_pager: bool) -> None:
    from cai_cli.cli._pager import paged
    from cai_cli.cli._prompt import print_request
    from cai_cli.reports.lineage_page import page, replies

    with paged(not no_pager) as out:
        for one in (*found.asked, *found.others) if full else ():
            if one.request is not None:
                print_request(out, one.request, f"{one.row} · {one.stage} · {one.key[:12]}")
            for part in replies(one):
                out.print(part, soft_wrap=True)
        for part in page(found, out.width):
            out.print(part)


# For programs.


def _document(found: Lineage, full: bool) -> dict[str, Any]:
    from cai_cli.engine.lineage_of import totals

    return {
        "id": found.id, "requests": [_request(found, one, full) for one in found.asked],
        "others": [_request(found, one, full) for one in found.others], "fates": found.fates,
        "runs": [{key: facts.get(key) for key in _OF_A_RUN} for facts in found.runs.values()],
        "totals": totals(found), "missing": found.missing,
    }  # fmt: skip


def _request(found: Lineage, one: Asked, full: bool) -> dict[str, Any]:
    from cai_cli.cli._prompt import document

    request = one.request
    asked: dict[str, Any] = {
        "stage": one.stage,
        "row": one.row,
        "key": one.key,
        "state": found.state(one),
        "retried": one.retried,
    }
    if request is not None:
        asked |= {"about": request.about, "draw": request.draw, "attempt": request.attempt, "provider": request.model.provider,
                  "model_asked": request.model.name}  # fmt: skip
        asked |= {"messages": document(request)["messages"], "system": request.system} if full else {}
    asked |= _bought(one.bought, full)
    earlier = [{"key": old.key, "reason": old.reason, "retried_at": old.at, **_bought(old.bought, full)} for old in one.earlier]
    return asked | {"superseded": earlier}


def _bought(bought: Bought | None, full: bool) -> dict[str, Any]:
    """What came back. A key that was never asked has none of it."""
    from cai_cli.flow import Reply

    if bought is None:
        return {}
    said: dict[str, Any] = {"bought_for": bought.row, "run": bought.run, "at": bought.at}
    outcome = bought.outcome
    if not isinstance(outcome, Reply):
        return said | {"rejected": outcome.reason, "detail": outcome.detail}
    return said | {
        "model": bought.model, "host": bought.host, "mode": bought.mode, "dollars": bought.dollars,
        "tokens_in": outcome.tokens_in, "tokens_cache_read": outcome.tokens_cache_read,
        "tokens_cache_write": outcome.tokens_cache_write, "tokens_out": outcome.tokens_out, "estimated": outcome.estimated,
        "stop_reason": outcome.stop_reason, "refused": outcome.refused, "truncated": outcome.truncated,
        **({"text": outcome.text} if full else {}),
    }  # fmt: skip
