"""When and how the loopback server misbehaves: its --fail specifications (explained in loopback.py) and its rate limit."""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass

from aiohttp.web import Request

from cai_cli import chance

INVALID, GONE = "invalid_request_error", "timeout_error"
ERROR_TYPES = {
    400: INVALID, 401: "authentication_error", 402: "billing_error", 403: "permission_error", 404: "not_found_error", 408: GONE,
    409: "conflict_error", 413: "request_too_large", 422: INVALID, 429: "rate_limit_error", 500: "api_error", 503: "api_error",
    504: GONE, 529: "overloaded_error",
}  # fmt: skip
SPEND = {"error_code": "enforced_spend_limit_reached"}
WRECKS = ("spend", "reset", "cut", "json", "html", "body", "empty", "usage", "stop", "hang", "drip", "redirect")
KINDS = {*map(str, ERROR_TYPES), *WRECKS}


@dataclass(frozen=True, slots=True)
class Ask:
    """One request as it came in."""

    http: Request
    raw: bytes
    digest: str
    number: int  # of all requests, from 1
    attempt: int  # of this body, from 0


@dataclass(frozen=True, slots=True)
class Fault:
    """One --fail SPEC: what to do, and to which requests."""

    kind: str
    argument: str | None
    mode: str
    when: str

    @classmethod
    def parse(cls, spec: str) -> Fault:
        match = re.fullmatch(r"([a-z0-9]+)(?::([^@%^~]*))?(?:(@)(\d+(?:-\d*)?)|(%)([\d.]+)|(\^)(\d+)|(~)(.+))", spec)
        if not match or match[1] not in KINDS:
            raise ValueError(f"--fail {spec}: write KIND[:ARGUMENT] and one of @N %R ^N ~TEXT; kinds: {', '.join(sorted(KINDS))}")
        mode, when = (part for part in match.groups()[2:] if part)
        return cls(match[1], match[2], mode, when)

    def hits(self, ask: Ask) -> bool:
        if self.mode == "@":
            first, dash, last = self.when.partition("-")
            return int(first) <= ask.number <= (int(last) if last else math.inf if dash else int(first))
        if self.mode == "%":
            return chance.unit("fault", self.kind, ask.digest, ask.attempt) < float(self.when)
        return ask.attempt < int(self.when) if self.mode == "^" else self.when.encode() in ask.raw


class Bucket:
    """A token bucket: `take` gives the wait in seconds until there is a token, 0 if it took one."""

    def __init__(self, rate: float, size: float) -> None:
        self.rate, self.size, self.level, self.at = rate, size, size, time.monotonic()

    def take(self) -> float:
        now = time.monotonic()
        self.level, self.at = min(self.size, self.level + (now - self.at) * self.rate), now
        if self.level < 1:
            return (1 - self.level) / self.rate
        self.level -= 1
        return 0.0
