"""When and how the server misbehaves: its --fail specifications."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from aiohttp.web import Request

from cai_cli import chance
from cai_cli.errors import Fix

STATUSES = (400, 401, 402, 403, 404, 408, 409, 413, 422, 429, 500, 502, 503, 504, 529)
WRECKS = {
    "spend": "400 because the spend limit is reached; spend:429 the same as 429 without retry-after",
    "reset": "close the connection without a word",
    "cut": "close the connection in the middle of the body",
    "json": "200 with half a JSON body",
    "html": "200 with a web page",
    "body": "200 with an error body",
    "empty": "200 without content",
    "usage": "200 without usage",
    "stop": "stop:X 200 that stopped because of X, such as pause_turn",
    "refusal": "200 that refuses",
    "truncate": "200 that is cut off in the middle; truncate:20 after 20 tokens",
    "hang": "never answer",
    "drip": "one byte every half second; drip:2 every 2 seconds",
    "redirect": "307 to another port",
}
_SPEC = re.compile(r"([a-z0-9]+)(?::([^@%^~]*))?(?:(@)(\d+(?:-\d*)?)|(%)(\d*\.?\d+)|(\^)(\d+)|(~)(.+))?", re.DOTALL)
_NUMBERS = {"spend": r"\d{3}", "truncate": r"\d{1,9}", "drip": r"\d{0,9}\.?\d{1,9}"}  # what their arguments look like


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
    mode: str  # @ | % | ^ | ~; empty: every request
    when: str

    @classmethod
    def parse(cls, spec: str) -> Fault:
        """Read KIND[:ARGUMENT][WHEN]. Raises: Fix"""
        match = _SPEC.fullmatch(spec)
        if not match or not (match[1] in WRECKS or match[1] in map(str, STATUSES)):
            kinds = f"kinds: {', '.join(map(str, STATUSES))}, {', '.join(WRECKS)}"
            raise Fix(f"--fail {spec}: write KIND[:ARGUMENT], then nothing or one of @N, %R, ^N, ~TEXT", kinds)
        if match[2] and not re.fullmatch(_NUMBERS.get(match[1], ".*"), match[2]):
            raise Fix(f"--fail {spec}: '{match[2]}' is no argument of {match[1]}", WRECKS[match[1]])
        if match[1] == "stop" and not match[2]:
            raise Fix(f"--fail {spec}: a stop needs a reason", "such as --fail stop:pause_turn@1")
        mode, when = next(((match[n], match[n + 1]) for n in (3, 5, 7, 9) if match[n]), ("", ""))
        if mode == "%" and not 0 <= float(when) <= 1:
            raise Fix(f"--fail {spec}: %{when} is no share", "write a number from 0 to 1, such as %.05 for one in twenty")
        return cls(match[1], match[2], mode, when)

    def hits(self, ask: Ask) -> bool:
        """Whether this request is one to fail."""
        if self.mode == "@":
            first, dash, last = self.when.partition("-")
            return int(first) <= ask.number <= (int(last) if last else math.inf if dash else int(first))
        if self.mode == "%":
            return chance.unit("fault", self.kind, ask.digest, ask.attempt) < float(self.when)
        if self.mode == "^":
            return ask.attempt < int(self.when)
        return self.when.encode("utf-8", "surrogatepass") in ask.raw
