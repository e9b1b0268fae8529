"""Errors as people see them: a sentence, a hint, an exit code; a bug leaves a file that can be sent without secrets."""

from __future__ import annotations

import difflib
import errno
import os
import shlex
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

from cai_cli.cli import VERBS
from cai_cli.cli._signals import Terminated, ignore, stopped_line
from cai_cli.errors import CaiError, Exit, Fix
from cai_cli.reports.folding import on_terminal
from cai_cli.visible import visible

_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.EACCES, errno.EPERM)


def say(text: str) -> None:
    """A message on stderr, safe to print: one line, which a terminal gets folded."""
    sys.stderr.write(on_terminal(visible(text), sys.stderr) + "\n")
    sys.stderr.flush()


def report(error: BaseException) -> int:
    """Print what went wrong. Gives: the exit code"""
    if isinstance(error, SystemExit):
        return int(error.code or 0) if not isinstance(error.code, str) else Exit.BUG
    if isinstance(error, KeyboardInterrupt):
        error = Terminated(Exit.INTERRUPTED)
    if isinstance(error, Terminated):
        ignore()
        say(error.said or stopped_line())
        return error.code
    if isinstance(error, CaiError):
        return _report_known(error)
    if isinstance(error, PermissionError) and (path := _unreadable(error)) is not None:
        say(f"error: {path} cannot be read: {error.strerror}")
        chmod = shlex.join(["chmod", "-R", "u+rwX", str(path)])
        say(f"hint: let yourself read it: {chmod}, or be the user whose it is; nothing was lost")
        return Exit.INPUT
    if isinstance(error, OSError) and error.errno in _DISK:
        say(f"error: {error.filename or 'a file'} cannot be written: {error.strerror}")
        say("hint: mend the disk or its permissions, then run the same command again; everything that was written is kept")
        return Exit.DISK
    if hasattr(error, "format_message"):  # Click's, or the copy of it that Typer brings
        return _report_usage(error)
    return _report_bug(error)


def _unreadable(error: PermissionError) -> Path | None:
    """The file, or the folder above it, that may not be read; None: it is writing that is not permitted."""
    place = Path(os.fsdecode(error.filename)) if isinstance(error.filename, str | bytes) else None
    if place is None:
        return None
    for path in reversed(place.parents):
        if os.path.lexists(path) and not os.access(path, os.X_OK):
            return path
    needed = os.R_OK | (os.X_OK if place.is_dir() else 0)
    return place if os.path.lexists(place) and not os.access(place, needed) else None


def _report_usage(error: Any) -> int:
    """A mistake in the command line itself. What is no mistake, a verb by itself, shows its help."""
    message, context = error.format_message(), getattr(error, "ctx", None)
    if context is not None and message == context.get_help():
        error.show()
    else:
        command = context.command_path if context else _typed()
        option = difflib.get_close_matches(getattr(error, "option_name", ""), getattr(error, "possibilities", None) or (), 1)
        meant = option or _values_like(getattr(error, "param", None))
        say(f"error: {(error.message if option else message).replace('Value error, ', '').rstrip('.')}")
        otherwise = _behind_dashes(error) or f"{command} -h"
        say(f"hint: did you mean {meant[0]}? all of them: {command} -h" if meant else f"hint: {otherwise}")
    return int(error.exit_code)


def _behind_dashes(error: Any) -> str:
    """How an ID is given that begins with -, where one was taken for an option; empty: there is none."""
    context, option = getattr(error, "ctx", None), getattr(error, "option_name", "")
    given = [word for word in sys.argv[2:] if option and word.startswith(option) and not word.startswith("--")]
    if context is None or not given or len(given[0]) < 3 or all(one.name != "id" for one in context.command.params):
        return ""
    rest = [word for word in sys.argv[2:] if word != given[0]]
    return f"an ID that begins with - stands behind --: {shlex.join([*context.command_path.split(), *rest, '--', given[0]])}"


def _values_like(param: Any) -> list[str]:
    """The value of an option with choices that was probably meant: the one that is most like what was typed for it."""
    known = getattr(getattr(param, "type_descriptor", None), "choices", None) or ()
    choices = {str(one).lower(): str(one) for one in known}
    typed = [word.partition("=")[2] or following for word, following in zip(sys.argv, [*sys.argv[1:], ""], strict=True)
             if word.partition("=")[0] in getattr(param, "opts", ())]  # fmt: skip
    close = [name for text in typed if text not in choices for name in difflib.get_close_matches(text.lower(), choices, 1)]
    return [choices[name] for name in close[:1]]


def _typed() -> str:
    """The verb that was typed, where Click does not say in which one a mistake is."""
    return " ".join(["cai", *sys.argv[1:2]]) if sys.argv[1:2] and sys.argv[1] in VERBS else "cai"


def _report_known(error: CaiError) -> int:
    problems = error.problems if isinstance(error, Fix) else ((error.message, error.hint),)
    for message, hint in problems:
        say(f"error: {message}")
        if hint:
            say(f"hint: {hint}")
    if isinstance(error, Fix) and error.then:
        say(f"hint: {error.then}")
    return int(error.code)


def _report_bug(error: BaseException) -> int:
    """Frames and types only: an exception's own text may hold a row's content."""
    frames = [f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(error.__traceback__)]
    with tempfile.NamedTemporaryFile("w", prefix="cai-bug-", suffix=".txt", delete=False) as file:
        file.write("\n".join([*frames, type(error).__qualname__, ""]))
    say(f"error: a bug in cai: {type(error).__qualname__} at {frames[-1] if frames else 'an unknown place'}")
    say(f"hint: please report it with {file.name}, which holds no content of rows and no key; nothing that was written is lost")
    return Exit.BUG
