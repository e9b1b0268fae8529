"""docs/messages.md: what `cai` says about typical mistakes, and every message it has. `python docs/messages.py` writes it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from catalogue import messages
from mistakes import CASES, PAGE, transcript

AT_ONCE = 2  # transcripts that are made at once

HEAD = """\
# What cai says when something is wrong

One style: `error:` what is wrong and where (`file:line`, a row's id, a flag), then `hint:` what to type or to change. All
mistakes of a config are told at once. Messages go to stderr, nothing of a row's text is in them, and the exit code says what kind
of thing happened: see `cai help exit-codes`.

This page is made by `python docs/messages.py`; tests make it again and compare, and a message that no test reaches fails them.
"""

TRANSCRIPTS = """
## Typical mistakes

Each in a folder with `prompts.jsonl`, four prompts, and this `c.yaml`, but for what its title says:

```yaml
{config}```
"""

CATALOGUE = """
## Every message

`{{name}}` stands for what is put in; ` | ` stands between two wordings.
"""

PARTS = (
    ("USAGE", "Exit 2: the command line or the config"),
    ("INPUT", "Exit 65: the input cannot be used"),
    ("KEY", "Exit 77: the key is missing or refused"),
    ("UNREACHABLE", "Exit 69: nobody answers"),
    ("DISK", "Exit 74: the disk"),
    ("STOPPED", "Exit 75: stopped, and the same command goes on"),
)


def page() -> Iterator[str]:
    """The page, part by part."""
    from mistakes import CONFIG

    yield HEAD
    yield TRANSCRIPTS.format(config=CONFIG)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        done = pool.map(transcript, [case for _, cases in CASES for case in cases])
        for part, cases in CASES:
            yield f"\n### {part}\n"
            yield from (f"\n{case.title}:\n\n```console\n{next(done)}```\n" for case in cases)
    yield from _catalogue()


def _catalogue() -> Iterator[str]:
    yield CATALOGUE.format()
    found = messages()
    for code, title in PARTS:
        yield from _table(title, ("message", "hint"), ((one.said, one.hint) for one in found if one.exit == code))
    rejects = ((one.said, one.hint) for one in found if one.kind == "Reject")
    yield from _table("Reasons for which a row is rejected", ("reason", "detail"), rejects)
    waits = ((one.said, one.hint) for one in found if one.kind == "Retry")
    yield from _table("What is asked again", ("kind", "detail"), waits)


def _table(title: str, head: tuple[str, str], rows: Iterator[tuple[str, str]]) -> Iterator[str]:
    yield f"\n### {title}\n\n| {' | '.join(head)} |\n|---|---|\n"
    for said, hints in itertools.groupby(sorted(set(rows)), key=lambda row: row[0]):
        told = "; or: ".join(hint for _, hint in hints if hint)
        yield f"| {_cell(said)} | {_cell(told)} |\n"


def _cell(text: str) -> str:
    """A text in a table of Markdown: nothing in it is markup."""
    safe = text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ").replace("*", "\\*").replace("_", "\\_")
    return safe.replace("[", "\\[")


if __name__ == "__main__":
    PAGE.write_text("".join(page()), "utf-8")
