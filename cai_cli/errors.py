"""What can go wrong, named by what happens next.

CaiError
├── Fix       the user acts (a config, an input, a key): nothing was lost, nothing was asked
├── Reject    this row ends here with a counted reason; the run goes on
├── Retry     wait, then ask the same again; never seen outside the engine
└── Fatal     the run stops and can be resumed
"""

from __future__ import annotations

import sys
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes, as sysexits.h has them where it has one."""

    OK = 0  # whole; also when there was nothing to do
    BUG = 1  # a bug in cai: please report it
    USAGE = 2  # the command line or the config is wrong; nothing was asked
    REJECTS = 3  # whole, but more rejects than max_reject_rate; or people agree with less than audit.agreement_at_least
    INPUT = 65  # the input cannot be used, or there is nothing to read, or files do not match their manifest
    UNREACHABLE = 69  # the provider cannot be reached, or has not been for max_outage
    DISK = 74  # the disk is full, read-only or failing
    STOPPED = 75  # stopped before the end (budget, signal, held output, spend limit): the same command goes on
    KEY = 77  # the key is missing or refused
    INTERRUPTED = 130  # Ctrl-C: the same command goes on


TOLD = "cai.told"  # the audit event of every message that is made: tests see by it which ones they reached


class CaiError(Exception):
    """A sentence for the user, and a hint: what to type next."""

    code = Exit.BUG

    def __init__(self, message: str, hint: str = "", code: Exit | None = None) -> None:
        super().__init__(message)
        sys.audit(TOLD, message)
        self.message, self.hint = message, hint
        if code is not None:
            self.code = code


class Fix(CaiError):
    """The user acts. `problems` holds every (message, hint) found, so that all are shown at once; `then` is said behind them."""

    code = Exit.USAGE

    def __init__(
        self, message: str, hint: str = "", code: Exit | None = None, problems: tuple[tuple[str, str], ...] = (), then: str = ""
    ) -> None:
        super().__init__(message, hint, code)
        self.problems = problems or ((message, hint),)
        self.then = then


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
        sys.audit(TOLD, reason)
        self.reason, self.detail, self.signature = reason, detail, signature


class Retry(Exception):
    """The provider could not answer now. `after_s` is the wait it asked for, in seconds; None: it did not say."""

    def __init__(self, kind: str, detail: str = "", after_s: float | None = None) -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        sys.audit(TOLD, kind)
        self.kind = kind  # rate_limit | server | connection | timeout | protocol
        self.detail, self.after_s = detail, after_s
