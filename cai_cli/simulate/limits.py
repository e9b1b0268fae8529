"""Rate limits as the APIs have them: token buckets for requests, input tokens and output tokens, told in the headers."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class State:
    """What the headers say of one limit."""

    limit: int  # per minute
    remaining: int
    full_in_s: float


class Bucket:
    """A token bucket that fills at `per_minute` / 60 a second, up to `size`."""

    def __init__(self, per_minute: float, size: float) -> None:
        self.per_minute, self.size, self.level, self.at = per_minute, size, size, time.monotonic()

    def wait_s(self, amount: float) -> float:
        """Seconds until `amount` can be taken, 0 if it can be now. More than its size is never in it: a full one will do."""
        now = time.monotonic()
        self.level, self.at = min(self.size, self.level + (now - self.at) * self.per_minute / 60), now
        return max(0.0, min(amount, self.size) - self.level) * 60 / self.per_minute

    def take(self, amount: float) -> float:
        """Take an amount. Gives: what was taken"""
        taken = min(amount, self.size)
        self.level -= taken
        return taken

    def state(self) -> State:
        """What is left now."""
        self.wait_s(0)
        full_in_s = (self.size - self.level) * 60 / self.per_minute
        return State(round(self.per_minute), max(0, math.floor(self.level)), full_in_s)


class Limits:
    """The limits of a server. An answer's longest length is reserved at its start and given back as far as it was not used."""

    def __init__(self, *, requests: Bucket | None, tokens_in: Bucket | None, tokens_out: Bucket | None) -> None:
        named = {"requests": requests, "input-tokens": tokens_in, "output-tokens": tokens_out}
        self.buckets = {name: bucket for name, bucket in named.items() if bucket}

    def admit(self, tokens_in: int, max_tokens: int) -> tuple[float, float]:
        """Let a request in, or not. Gives: the seconds to wait, 0 if it is in, and the output tokens that were reserved for it"""
        wanted = {"requests": 1, "input-tokens": tokens_in, "output-tokens": max_tokens}
        wait_s = max((bucket.wait_s(wanted[name]) for name, bucket in self.buckets.items()), default=0.0)
        if wait_s:
            return wait_s, 0.0
        taken = {name: bucket.take(wanted[name]) for name, bucket in self.buckets.items()}
        return 0.0, taken.get("output-tokens", 0.0)

    def settle(self, reserved: float, tokens_out: int) -> None:
        """Give back what an answer did not use of its reservation."""
        if bucket := self.buckets.get("output-tokens"):
            bucket.level = min(bucket.size, bucket.level + max(0.0, reserved - tokens_out))

    def left_as(self, others: Limits) -> Limits:
        """These, with as much left as in others, as far as both have it and it goes in."""
        for name, bucket in self.buckets.items():
            if other := others.buckets.get(name):
                other.wait_s(0)
                bucket.level = min(bucket.size, other.level)
        return self

    def states(self) -> dict[str, State]:
        """What is left of each limit, by name; `tokens` is the one of the two token limits of which less is left."""
        found = {name: bucket.state() for name, bucket in self.buckets.items()}
        of_tokens = [state for name, state in found.items() if name != "requests"]
        return found | ({"tokens": min(of_tokens, key=lambda state: state.remaining)} if of_tokens else {})
