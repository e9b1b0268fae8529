"""`cai show CONFIG --prompt STAGE [ID]`: what is sent to a model, message by message."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cai_cli.cli._answer import print_json
from cai_cli.cli._pager import paged
from cai_cli.config import Config
from cai_cli.engine.preview import Preview, Question, preview
from cai_cli.flow import Request

if TYPE_CHECKING:
    from rich.console import Console


def show(config: Config, stage: str, wanted: str | None, as_json: bool, no_pager: bool = False) -> None:
    """Print the requests of a stage about a row. Raises: what `preview` raises"""
    found = preview(config, stage, wanted)
    if found.rests_on:
        from cai_cli.cli.errors import say

        say(f"cai: {found.rests_on}")
    if as_json:
        document = {"requests": [_document(question) for question in found.questions]}
        print_json(document)
    else:
        with paged(not no_pager) as out:
            _print(out, found)


def _document(question: Question) -> dict[str, Any]:
    return document(question.request) | {"draws": question.draws, "about": question.request.about}


def document(request: Request) -> dict[str, Any]:
    """A request, as --json gives it."""
    return {
        "stage": request.stage, "row": request.row, "provider": request.model.provider, "model": request.model.name,
        "params": dict(request.model.params), "system": request.system, "schema": request.schema, "options": request.options,
        "messages": [{"role": turn.role, "content": turn.content} for turn in request.messages],
    }  # fmt: skip


def _print(out: Console, found: Preview) -> None:
    count = len(found.questions)
    for n, question in enumerate(found.questions, 1):
        request = question.request
        probe = [f"probe {request.about['probe']}"] if "probe" in request.about else []
        title = [f"{request.row} · {request.stage}", *probe, *([f"{n} of {count}"] if count > 1 else [])]
        print_request(out, request, " · ".join(title), len(question.draws))


def print_request(out: Console, request: Request, title: str, draws: int = 1) -> None:
    """A request, message by message, under a heading."""
    from cai_cli.reports.stories import heading

    out.print(heading(title))
    _part(out, "model", _model(request, draws))
    if request.system:
        _part(out, "system", request.system)
    for turn in request.messages:
        _part(out, turn.role, turn.content)
    if request.schema:
        _part(out, "schema of the reply", json.dumps(request.schema, ensure_ascii=False))
    if request.options:
        _part(out, "the answer is one of", ", ".join(request.options))


def _part(out: Console, name: str, text: str) -> None:
    """A name on a line of its own, then the text as it is: not indented, not wrapped, so that it can be copied."""
    from rich.text import Text

    from cai_cli.visible import on_one_line, visible

    out.print(Text(f"[{on_one_line(name)}]", "bold cyan"))
    out.print(Text(f"{visible(text)}\n"), soft_wrap=True)


def _model(request: Request, draws: int) -> str:
    params = [f"{name} {value}" for name, value in request.model.params.items() if name != "world"]
    asked = [f"asked {draws} times"] if draws > 1 else []
    return ", ".join([f"{request.model.name or request.model.provider} ({request.model.provider})", *params, *asked])
