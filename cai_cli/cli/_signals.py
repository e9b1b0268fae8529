"""What Ctrl-C, SIGTERM and SIGHUP do while no request is in flight. While some are, the engine hears the signals itself."""

from __future__ import annotations

import atexit
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from cai_cli.errors import Exit

_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Terminated(BaseException):
    """A signal came while nothing was being asked: the input was being read, or versions were being written.

    Takes: the exit code; what to say, where it is not how to go on
    """

    def __init__(self, code: Exit, said: str = "") -> None:
        super().__init__()
        self.code, self.said = code, said


@contextmanager
def heard() -> Iterator[None]:
    """From the first moment on: one line and the end, until `let_them_raise`. Afterwards whoever heard them before does."""
    before = {number: signal.getsignal(number) for number in _STOPS}
    _each(_leave)
    atexit.register(ignore)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def let_them_raise() -> None:
    """From now on there may be something to tidy up: Ctrl-C raises KeyboardInterrupt, the others Terminated."""
    _each(_raise)
    if signal.getsignal(signal.SIGINT) is _raise:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # asyncio takes this one over, and gives it back


def ignore() -> None:
    """The last line was printed: nothing may come after it. A function, since SIG_IGN would outlive an exec."""
    _each(_nothing)


def stopped_line() -> str:
    import shlex

    return f"cai: stopped with no request in flight; nothing is lost; go on with: {shlex.join(['cai', *sys.argv[1:]])}"


def _each(handler: Callable[[int, Any], None]) -> None:
    """Let the signals call this, but none that we were started to ignore (nohup, a shell's background)."""
    for number in _STOPS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


def _leave(number: int, _frame: Any) -> None:
    """While modules are imported an exception would be caught by some of them, and nothing needs tidying yet."""
    ignore()
    os.write(2, f"{stopped_line()}\n".encode("utf-8", "backslashreplace"))
    os._exit(Exit.INTERRUPTED if number == signal.SIGINT else Exit.STOPPED)


def _raise(_number: int, _frame: Any) -> None:
    raise Terminated(Exit.STOPPED)


def _nothing(_number: int, _frame: Any) -> None:
    """Heard, and left at that."""
