"""`cai export CONFIG --to FORMAT --push REPO`: the exports on the Hugging Face Hub."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cai_cli.cli.errors import say
from cai_cli.errors import Fix
from cai_cli.reports.quantities import counted

if TYPE_CHECKING:
    from cai_cli.config import Config
    from cai_cli.engine.export import Exported
    from cai_cli.engine.hub import Pushed

_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]*")


def add(config: Config, exported: Sequence[Exported], repo: str, *, public: bool, license: str | None) -> None:
    """Push what was just exported, and say where it is.

    Takes: `exported`: of one folder; `repo`: OWNER/NAME, or NAME; `license`: of the dataset, for its card; None: as the card
    says, or asked for on a terminal
    Raises: Fix: no licence, another visibility than asked for, no such name, an edited card; with exit 77 and 69: no token, a
    token that is refused, no Hub; Fatal: too many requests, somebody else pushed meanwhile
    """
    from cai_cli.engine import card, hub, hub_card

    folder = exported[0].path
    given = _checked(license) if license is not None else ""
    target = hub.find(repo, public=public)
    own = card.read_card(folder / hub.CARD)
    merged = hub_card.merged(own, target.card, config.name, folder / hub.CARD, target.url)
    hub_card.write(folder, config.name, merged, given or merged.licence or _asked(target.repo, folder))
    versions = [(one.name, one.version) for one in exported]
    _say(hub.push(target, folder, config.name, versions, public=public))


def _checked(licence: str) -> str:
    """Raises: Fix: no such thing can be a licence's id"""
    found = licence.strip().lower()
    if not _LICENCE.fullmatch(found):
        raise Fix(f"'{licence}' is no id of a licence", "ids are such as cc-by-4.0, apache-2.0, mit or other")
    return found


def _asked(repo: str, folder: Path) -> str:
    """A licence is never guessed. Raises: Fix: there is nobody to ask"""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        hint = f"add --license ID, such as --license cc-by-4.0, or write `license: ID` at the top of {folder / 'README.md'}"
        raise Fix(f"{repo} has no licence yet, and none was given", hint)
    try:
        return _checked(typer.prompt("licence of the dataset (cc-by-4.0, apache-2.0, mit, other...)", err=True))
    except typer.Abort:
        raise KeyboardInterrupt from None


def _say(pushed: Pushed) -> None:
    who = "private" if pushed.private else "public"
    if pushed.unchanged:
        say(f"cai: nothing new on the Hub: {pushed.url} ({who}) is what was exported")
        return
    gone = f", {counted(len(pushed.deleted), 'old one')} deleted" if pushed.deleted else ""
    say(f"cai: pushed {counted(len(pushed.written), 'file')}{gone}: {pushed.url} ({who})")
