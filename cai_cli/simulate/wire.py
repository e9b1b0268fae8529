"""What the protocols of the server have in common: a question read from a body, and the words that each puts an answer into."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from cai_cli.flow import Request
from cai_cli.providers._schema import fill
from cai_cli.providers.simulated import Answer
from cai_cli.simulate.limits import State

Body = dict[str, Any]
CREATED = 1_767_225_600  # seconds since 1970: when every model of the simulated world was made, 2026-01-01


class BadRequest(Exception):
    """A body that the API would refuse with 400. `param` names what is wrong with it."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message, self.param, self.code = message, param, code


@dataclass(frozen=True, slots=True)
class Problem:
    """An error that is sent. `kind` is a fault's name where it has one of its own: spend, key, model."""

    status: int
    message: str = ""
    kind: str = ""
    param: str | None = None
    code: str | None = None


class Dialect(Protocol):
    """One way to speak with the server."""

    path: str
    id_header: str  # where the request's id stands

    def question(self, body: Any, draw: int) -> Request:
        """The request that a body is. Raises: BadRequest"""

    def check(self, body: Body, version: str) -> None:
        """Refuse what needs the headers to be judged. Raises: BadRequest"""

    def answer(self, answer: Answer, body: Body, unique: str) -> Body:
        """The body that says the same as an answer to the question in `body`."""

    def problem(self, problem: Problem, unique: str) -> Body:
        """The body of an error."""

    def stopped(self, body: Body, reason: str) -> Body:
        """An answer's body that stopped for another reason."""

    def emptied(self, body: Body) -> Body:
        """An answer's body without content."""

    def rates(self, states: Mapping[str, State], now_s: float) -> dict[str, str]:
        """The headers that tell the rate limits."""


def one_of(value: Any, kinds: type | tuple[type, ...], param: str) -> Any:
    """A value that has one of the types, and is no boolean unless that is asked for. Raises: BadRequest"""
    is_bool = isinstance(value, bool) and bool not in (kinds if isinstance(kinds, tuple) else (kinds,))
    if is_bool or not isinstance(value, kinds):
        raise BadRequest(f"{param}: Input should be a valid {_name(kinds)}", param)
    return value


def _name(kinds: type | tuple[type, ...]) -> str:
    names = {str: "string", int: "integer", float: "number", list: "list", dict: "dictionary", bool: "boolean"}
    return " or ".join(names[kind] for kind in (kinds if isinstance(kinds, tuple) else (kinds,)))


def not_streamed(body: Body) -> None:
    """Raises: BadRequest, where a stream is asked for"""
    if body.get("stream"):
        raise BadRequest("stream: this server does not stream; leave it out, or set it to false", "stream", "unsupported_value")


def limit_of(body: Body, name: str) -> int:
    """A number of tokens, at least 1. Raises: BadRequest"""
    limit: int = one_of(body[name], int, name)
    if limit < 1:
        raise BadRequest(f"{name}: Input should be greater than or equal to 1", name)
    return limit


def stops_of(value: Any, param: str) -> list[str]:
    """Stop sequences. Raises: BadRequest"""
    stops = [value] if isinstance(value, str) else one_of(value, list, param)
    for stop in stops:
        if not one_of(stop, str, param).strip():
            raise BadRequest(f"{param}: each stop sequence must contain non-whitespace", param)
    return list(stops)


def text_of(content: Any, param: str) -> str:
    """A content as one text, given as such or as parts of type text. Raises: BadRequest"""
    if isinstance(content, str):
        return content
    parts = [one_of(part, dict, param) for part in one_of(content, list, param)]
    for n, part in enumerate(parts):
        if part.get("type") != "text":
            raise BadRequest(f"{param}.{n}.type: this server reads text only", f"{param}.{n}.type", "unsupported_value")
    return "".join(one_of(part.get("text"), str, f"{param}.{n}.text") for n, part in enumerate(parts))


def schema_of(schema: Any, param: str) -> Body:
    """A JSON schema of an object that this world can fill. Raises: BadRequest"""
    try:
        fill(one_of(schema, dict, param), {})
    except (LookupError, TypeError, AttributeError, ValueError, RecursionError):
        raise BadRequest(f"{param}: this is no JSON schema that can be followed", param) from None
    if "properties" not in schema and "$ref" not in schema:
        raise BadRequest(f"{param}: the schema must be that of an object", param)
    return dict(schema)
