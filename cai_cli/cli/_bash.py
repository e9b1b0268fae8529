"""What bash does to words behind TAB, undone: it breaks them at : and =, and puts what is offered behind the break."""

from __future__ import annotations

import contextlib
import io
import os
import shlex
import sys
from collections.abc import Iterator, Sequence

from cai_cli.cli._complete import split

_BREAKS = frozenset(":=")  # of COMP_WORDBREAKS; its other signs stand in no word that is offered


@contextlib.contextmanager
def whole_words() -> Iterator[None]:
    """Let the words of the protocol be those that were typed; of what is printed only the end that bash puts in.

    bash gives `q:1` as three words, and puts what is offered in the place of the last of them: `q:17` would become `q:q:17`.
    """
    pieces = os.environ.get("COMP_WORDS", "").split("\n")
    if len(pieces) == 1:  # not from the function that we ship
        yield
        return
    words, at, before = joined(pieces, int(os.environ.get("COMP_CWORD", "0")))
    os.environ["COMP_WORDS"] = shlex.join(words)
    os.environ["COMP_CWORD"] = str(at)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        sys.stdout.writelines(line.removeprefix(before) for line in printed.getvalue().splitlines(keepends=True))


def joined(pieces: Sequence[str], current: int) -> tuple[list[str], int, str]:
    """Words as they were typed. Takes: bash's, and which of them is begun. Gives: the words, which one is begun, and what of it
    bash keeps as it stands"""
    words, at, before = list[str](), 0, ""
    glued = False  # whether the next piece goes on with the word before it
    for number, piece in enumerate(pieces):
        is_break = bool(piece) and _BREAKS.issuperset(piece)
        text = " ".join(split(piece))
        kept = words[-1] if words and (is_break or glued) and text else ""
        if kept:
            words[-1] += text
        else:
            words.append(text)
        glued = is_break
        if number == current:
            at, before = len(words) - 1, kept + (text if is_break else "")
    return words, at, before
