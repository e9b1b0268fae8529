"""One card in two places: the folder of an export has it, and the Hub, and people write in both."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cai_cli import exports
from cai_cli.engine import card, versions
from cai_cli.engine.card import Card, Shown
from cai_cli.engine.disk import write_durably
from cai_cli.errors import Fix


def merged(own: Card, there: Card, title: str, path: Path, url: str) -> Card:
    """The folder's card with what people wrote on the Hub. A card that was not edited since its push gives way to the folder's.

    Takes: `own`: the folder's, at `path`; `there`: the Hub's, at `url`
    Raises: Fix: texts around the marked part were edited in both places
    """
    front = {**own.front, **there.front} if there.edited else {**there.front, **own.front}
    if own.untouched(title) and any(there.texts):
        return replace(there, front=front)
    if not there.edited or there.texts == own.texts or there.untouched(title):
        return replace(own, front=front)
    hint = f"make them one: copy what is to stay from {url} into {path}, and its text there, too; then push again"
    raise Fix(f"the card at {url} was edited, and so was {path}", hint)


def write(folder: Path, title: str, new: Card, licence: str) -> None:
    """Write the card of an export's folder, with a licence, which is then not asked for again.

    What was written on the Hub stands here, too, from now on: else the next push would take it for something to be undone.
    """
    path = folder / "README.md"
    found = {name: version for name in exports.names() if (version := versions.latest(folder, name)) is not None}
    own = card.read_card(path)
    shown = {
        name: Shown(version=version, features=own.declared(name), folder=f"{name}/{version.name}/")
        for name, version in found.items()
    }
    write_durably(path, card.written(replace(new, front={**new.front, "license": licence}), title, shown))
