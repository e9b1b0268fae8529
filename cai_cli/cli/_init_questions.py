"""The questions of `cai init`: asked on a terminal, each with its default, before anything is written."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from cai_cli.cli._signals import Terminated
from cai_cli.cli.errors import say
from cai_cli.cli.init import BUDGET_USD, MODELS, For, Wanted, constitution_of, is_priced, refuse_unknown
from cai_cli.errors import Exit, Fix

T = TypeVar("T")

_STARTS = (
    (For.trial, "nothing yet: 40 harmless and mildly harmful prompts that ship with cai"),
    (For.red_team, "nothing yet: prompts that provoke, and more of them written by the model"),
    (For.prompts, "prompts of my own"),
    (For.pairs, "pairs of responses of my own, to be judged or judged already"),
)


def answered(wanted: Wanted) -> Wanted:
    """What was asked for, with an answer for everything that no option says. Raises: Terminated: Ctrl-C; Fix: the input ended"""
    say("Enter takes what stands in brackets; Ctrl-C leaves everything as it is.")
    try:
        return _asked(wanted)
    except (KeyboardInterrupt, Terminated) as stop:
        code = stop.code if isinstance(stop, Terminated) else Exit.INTERRUPTED
        raise Terminated(code, f"\ncai: nothing was written; to begin again: {shlex.join(['cai', *sys.argv[1:]])}") from None


def _asked(wanted: Wanted) -> Wanted:
    if wanted.what is None:
        wanted = replace(wanted, what=_start(wanted.folder))
    if wanted.what in (For.prompts, For.pairs) and wanted.file is None:
        wanted = _file(wanted)
    if wanted.provider is None:
        wanted = replace(wanted, provider=_provider())
    wanted = _model(wanted)
    if wanted.budget_usd is None and wanted.provider != "simulated" and is_priced(wanted.provider or "", wanted.model or ""):
        wanted = replace(wanted, budget_usd=_until("dollars it may cost, over all runs", f"{BUDGET_USD:g}", _dollars))
    if wanted.constitution is None:
        wanted = replace(wanted, constitution=_until("constitution", "general", lambda name: _known(wanted, name)))
    return wanted


def _start(folder: Path) -> For:
    say("What is there to begin with?")
    for number, (_, text) in enumerate(_STARTS, start=1):
        say(f"  {number}  {text}")
    return _until("number", "1", lambda answer: _numbered(answer, folder))


def _numbered(answer: str, folder: Path) -> For:
    """Raises: Fix: no number of theirs, or what that start writes is there already"""
    if answer not in [str(number) for number in range(1, len(_STARTS) + 1)]:
        raise Fix(f"'{answer}' is none of them", f"type 1 to {len(_STARTS)}")
    start = _STARTS[int(answer) - 1][0]
    if start == For.trial and (prompts := folder / "prompts.jsonl").exists():
        raise Fix(f"{prompts} is there already", "type 3 and name it")
    if start == For.red_team and (prompts := folder / "prompts").exists():
        raise Fix(f"{prompts} is there already", "type 3 and name it")
    return start


def _file(wanted: Wanted) -> Wanted:
    """The file, looked at: where nothing tells the column of its prompts, that is asked for, too."""
    from cai_cli.engine.given_file import Unfit, look

    def looked(answer: str) -> Wanted:
        path, _, column = answer.partition("#")
        try:
            found = look(Path(path).expanduser(), wanted.what == For.pairs, column or wanted.column or "")
        except Unfit as unfit:
            raise Fix(unfit.message, unfit.answer) from None
        say(f"  {found.in_words()}")
        return replace(wanted, file=found.path, column=column or wanted.column)

    return _until("file (FILE, or FILE#COLUMN)", "", looked)


def _provider() -> str:
    from cai_cli import providers

    def known(name: str) -> str:
        refuse_unknown(name)
        return name

    say(f"Who is asked? There are: {', '.join(providers.names())}")
    return _until("provider", "simulated", known)


def _model(wanted: Wanted) -> Wanted:
    if wanted.model is not None or wanted.provider == "simulated":
        return wanted
    return replace(wanted, model=_until("model", MODELS.get(wanted.provider or "", ""), _given))


def _given(answer: str) -> str:
    if not answer:
        raise Fix("there is no default", "type a name")
    return answer


def _dollars(answer: str) -> float:
    try:
        amount = float(answer.removeprefix("$"))
    except ValueError:
        amount = -1.0
    if not 0 <= amount < float("inf"):
        raise Fix(f"'{answer}' is no amount", "type a number, such as 20")
    return amount


def _known(wanted: Wanted, name: str) -> str:
    _, copied = constitution_of(replace(wanted, constitution=name))
    if copied is not None and (there := wanted.folder / "constitution.yaml").exists():
        raise Fix(f"{there} is there already", f"type {there} to take it")
    return name


def _until(question: str, default: str, read: Callable[[str], T]) -> T:
    """Ask until the answer can be read. Raises: Fix: the input ended"""
    while True:
        _ask(f"{question}{f' [{default}]' if default else ''}: ")
        try:
            answer = input().strip() or default
        except EOFError:
            raise Fix("the input ended before every question was answered", "give options, or --yes") from None
        try:
            return read(answer)
        except Fix as fix:
            for message, hint in fix.problems:
                say(f"  {message}{f'; {hint}' if hint else ''}")


def _ask(text: str) -> None:
    """A question, with the cursor behind it."""
    from cai_cli.visible import on_one_line

    sys.stderr.write(on_one_line(text))
    sys.stderr.flush()
