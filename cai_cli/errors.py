"""What can go wrong, named by what happens next.

CaiError
├── Fix       the user acts (a config, an input, a key): nothing was lost, nothing was asked
├── Reject    this row ends here with a counted reason; the run goes on
├── Retry     wait, then ask the same again; never seen outside the engine
└── Fatal     the run stops and can be resumed
"""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """Exit codes, as sysexits.h has them where it has one."""

    OK = 0
    BUG = 1
    USAGE = 2
    REJECTS = 3  # whole, but more rejects than max_reject_rate
    INPUT = 65
    UNREACHABLE = 69
    DISK = 74
    STOPPED = 75  # the same command goes on
    KEY = 77
    INTERRUPTED = 130


class CaiError(Exception):
    """A sentence for the user, and a hint: what to type next."""

    code = Exit.BUG

    def __init__(self, message: str, hint: str = "", code: Exit | None = None) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint
        if code is not None:
            self.code = code


class Fix(CaiError):
    """The user acts. `problems` holds every (message, hint) found, so that all are shown at once."""

    code = Exit.USAGE

    def __init__(
        self, message: str, hint: str = "", code: Exit | None = None, problems: tuple[tuple[str, str], ...] = ()
    ) -> None:
        super().__init__(message, hint, code)
        self.problems = problems or ((message, hint),)


class Fatal(CaiError):
    """The run stops, keeps everything, and the same command goes on from there."""

    code = Exit.STOPPED


class Reject(Exception):
    """This row ends here.

    `reason` is a snake_case word that is counted; `detail` says more, for the rejects file.
    `signature` is set when the provider refused the request ("400 invalid_request_error"): the same one on many
    rows is not the rows' fault, and the engine stops instead of rejecting.
    """

    def __init__(self, reason: str, detail: str = "", signature: str = "") -> None:
        super().__init__(reason)
        self.reason, self.detail, self.signature = reason, detail, signature


class Retry(Exception):
    """The provider could not answer now. `after_s` is the wait it asked for, in seconds; None: it did not say."""

    def __init__(self, kind: str, detail: str = "", after_s: float | None = None) -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind  # rate_limit | server | connection | timeout | protocol
        self.detail, self.after_s = detail, after_s
