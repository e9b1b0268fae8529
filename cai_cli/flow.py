"""The words that stages speak: a stage is a generator that yields requests, is sent replies, and returns its row.

It does no I/O, so the same stage runs live, in batches, replayed from the ledger, or by hand in a test.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from cai_cli.errors import Reject
from cai_cli.records import Turn

T = TypeVar("T")

FRESH = 1_000_000  # draws between two values of draw_offset: another offset shares no draw, however many samples
CONTINUATIONS = 5  # replies that may end in pause_turn before the row is rejected
KNOWN_STOPS = frozenset(
    ("end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal", "pause_turn", "model_context_window_exceeded")
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """Who is asked. Where it is reached (`base_urls`, `key_env`, `allow_http`) is not part of a request's identity.

    `retry_truncated`: a reply that was cut off at max_tokens is asked for once more, with twice the tokens. `caching` is how a
    question is billed, not what is asked: auto | off | 1h, as `cai_cli.caching` reads it.
    """

    provider: str
    name: str
    params: Mapping[str, Any] = field(default_factory=dict)  # max_tokens, and what else the user set; sent as it is
    base_urls: tuple[str, ...] = ()
    key_env: str = ""
    allow_http: bool = False
    price: Mapping[str, Any] | None = None  # fields of prices.Price, `input` and `output` among them; None: the price list's
    retry_truncated: bool = False
    caching: str = "auto"

    @property
    def max_tokens(self) -> int:
        return int(self.params["max_tokens"])

    @property
    def identity(self) -> tuple[str, str, dict[str, Any]]:
        """Provider, name and parameters; without what changes how much is told of a reply, but not the reply."""
        return self.provider, self.name, {key: value for key, value in self.params.items() if key != "logprobs"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One question to a model.

    `draw` keeps the n samples of one prompt n replies. `attempt` counts how often the same question was put before because its
    reply could not be used. `options` are the words that the answer chooses from, for servers that tell their probabilities.
    `stage` and `row` say on whose behalf, for counting and logs; `about` says what for (round, principle, labeler, order...), for
    people. `constant`, (turns, characters), says what of the messages recurs from row to row of this stage, model and system: the
    first `turns` of them, and the first `characters` of the one after these. The system prompt always does. These five are not
    part of the identity: the question is the same.
    """

    model: Model
    messages: tuple[Turn, ...]
    system: str = ""
    schema: Mapping[str, Any] | None = None  # JSON schema that the reply's text must satisfy
    draw: int = 0
    attempt: int = 0
    options: tuple[str, ...] = ()
    stage: str = ""
    row: str = ""
    about: Mapping[str, str | int] = field(default_factory=dict)
    constant: tuple[int, int] = (0, 0)

    def identity(self) -> dict[str, Any]:
        """What makes this request this one, as plain JSON values. Two requests with the same identity are bought once."""
        provider, name, params = self.model.identity
        return {
            "provider": provider, "model": name, "params": params, "system": self.system,
            "messages": [(turn.role, turn.content) for turn in self.messages], "schema": self.schema,
            "draw": self.draw, "attempt": self.attempt,
        }  # fmt: skip

    def again(self) -> Request:
        """The same question, put once more."""
        return replace(self, attempt=self.attempt + 1)

    def continued(self, text: str) -> Request:
        """The same conversation, to go on after `text`."""
        return replace(self, messages=(*self.messages, Turn(role="assistant", content=text)))

    def with_max_tokens(self, max_tokens: int) -> Request:
        return replace(self, model=replace(self.model, params={**self.model.params, "max_tokens": max_tokens}))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What came back. Token counts are the server's, or our estimate where `estimated` says so.

    `probabilities`: of the request's options, in [0, 1], summing to 1; None: the server told none, or the answer is none of them.
    """

    text: str
    stop_reason: str = "end_turn"
    model: str = ""  # the model that says it answered
    tokens_in: int = 0  # without cached ones
    tokens_out: int = 0
    tokens_cache_read: int = 0
    tokens_cache_write: int = 0
    tokens_cache_write_1h: int = 0  # of these, those that are kept an hour and not five minutes
    estimated: bool = False
    probabilities: Mapping[str, float] | None = None

    @property
    def refused(self) -> bool:
        return self.stop_reason == "refusal"

    @property
    def truncated(self) -> bool:
        return self.stop_reason == "max_tokens"


Outcome = Reply | Reject
Flow = Generator[tuple[Request, ...], tuple[Outcome, ...], T]


def _one(request: Request) -> Flow[Reply]:
    (outcome,) = yield (request,)
    if isinstance(outcome, Reject):
        raise outcome
    return outcome


def ask(request: Request) -> Flow[Reply]:
    """Ask one question.

    Gives: a reply with text, or a refusal (a result, never re-rolled: that would bias the data).
    Rejects: empty (twice), paused (five times), context_exceeded, unknown_stop_reason, and what the provider refuses
    """
    reply = yield from _whole(request)
    if not reply.text.strip() and not reply.refused:
        reply = yield from _whole(request.again())
    if not reply.text.strip() and not reply.refused:
        raise Reject("empty", "two replies without text")
    return reply


def _whole(request: Request) -> Flow[Reply]:
    reply = yield from _one(request)
    for _ in range(CONTINUATIONS):
        if reply.stop_reason != "pause_turn":
            break
        reply = _joined(reply, (yield from _one(request.continued(reply.text))))
    if reply.stop_reason == "pause_turn":
        raise Reject("paused", f"{CONTINUATIONS} continuations were not enough")
    if reply.stop_reason == "model_context_window_exceeded":
        raise Reject("context_exceeded", "the conversation is longer than the model's context")
    if reply.stop_reason not in KNOWN_STOPS:
        raise Reject("unknown_stop_reason", reply.stop_reason)
    return reply


def _joined(begun: Reply, rest: Reply) -> Reply:
    """A reply that paused and what continued it, as one; its tokens are those of both."""
    counts = ("tokens_in", "tokens_out", "tokens_cache_read", "tokens_cache_write", "tokens_cache_write_1h")
    sums = {name: getattr(begun, name) + getattr(rest, name) for name in counts}
    return replace(rest, text=begun.text + rest.text, estimated=begun.estimated or rest.estimated, **sums)


def ask_whole(request: Request) -> Flow[Reply]:
    """Ask one question, and once more with twice the tokens if its reply was cut off and the model's settings say so.

    Gives: as `ask`; the last reply may still be truncated. Rejects: as `ask`
    """
    reply = yield from ask(request)
    if reply.truncated and request.model.retry_truncated:
        reply = yield from ask(request.with_max_tokens(2 * request.model.max_tokens))
    return reply


def ask_all(requests: Iterable[Request]) -> Flow[list[Reply]]:
    """Ask several questions at once. Gives: their replies, in order. Rejects: what the first one that failed rejects."""
    outcomes = yield from together(ask(request) for request in requests)
    return [value_of(outcome) for outcome in outcomes]


def value_of(outcome: T | Reject) -> T:
    """The result of a flow that ran beside others. Raises: Reject: it ended with one"""
    if isinstance(outcome, Reject):
        raise outcome
    return outcome


class _Side:
    """One of the flows that run side by side: what it asks now, or how it ended."""

    __slots__ = ("flow", "outcome", "requests")

    def __init__(self, flow: Flow[Any]) -> None:
        self.flow, self.requests, self.outcome = flow, (), None  # type: tuple[Flow[Any], tuple[Request, ...], Any]
        self.step(None)

    def step(self, outcomes: tuple[Outcome, ...] | None) -> None:
        try:
            self.requests = next(self.flow) if outcomes is None else self.flow.send(outcomes)
        except StopIteration as end:
            self.requests, self.outcome = (), end.value
        except Reject as reject:
            self.requests, self.outcome = (), reject


def together(flows: Iterable[Flow[T]]) -> Flow[list[T | Reject]]:
    """Run flows side by side: their requests are merged into one wave, each ends when it ends.

    Gives: the outcomes in order; a flow's Reject is its outcome and leaves the others alone.
    """
    sides = [_Side(flow) for flow in flows]
    while open_sides := [side for side in sides if side.requests]:
        outcomes = yield tuple(request for side in open_sides for request in side.requests)
        at = 0
        for side in open_sides:
            end = at + len(side.requests)
            side.step(outcomes[at:end])
            at = end
    return [side.outcome for side in sides]


def play(flow: Flow[T], answer: Callable[[Request], Outcome] | Sequence[Outcome]) -> T:
    """Drive a flow by hand: `answer` gives the outcome of a request, or lists them in the order they are asked."""
    if not callable(answer):
        script = iter(answer)
        return play(flow, lambda _: next(script))
    try:
        requests = next(flow)
        while True:
            requests = flow.send(tuple(answer(request) for request in requests))
    except StopIteration as end:
        result: T = end.value
        return result
