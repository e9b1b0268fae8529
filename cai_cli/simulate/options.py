"""What the server is told at its start, and may be told anew by POST /reset or /change."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from cai_cli.errors import Fix
from cai_cli.providers._world import World, world_of
from cai_cli.simulate.faults import Fault
from cai_cli.simulate.limits import Bucket, Limits

IDS = ("random", "constant")


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How the server answers. Numbers are at least 0, and 0 is none."""

    world: Mapping[str, Any] = field(default_factory=dict)  # settings of the simulated world
    fail: tuple[str, ...] = ()  # specifications of faults; the first that applies wins
    models: tuple[str, ...] = ()  # the only ones there are; empty: any name will do
    latency_ms: float = 0  # the wait before every answer; 0: the world's
    jitter: bool = False  # 50 to 150% of the latency, drawn by body and attempt
    sampling: bool = False  # the n-th request with the same body is the n-th draw; else a body always gets the same answer
    rate: float = 0  # requests a second
    burst: float = 0  # requests at once under `rate`; 0: those of one second
    rpm: float = 0  # requests a minute
    itpm: float = 0  # input tokens a minute
    otpm: float = 0  # output tokens a minute
    ids: str = "random"  # of answers: random | constant
    no_key: bool = False  # answer without a key too

    def changed(self, values: Mapping[str, Any]) -> Options:
        """These options with others of some of the values. Raises: Fix: unknown, or of the wrong type"""
        known = {one.name: one for one in fields(self)}
        for name, value in values.items():
            if name not in known:
                raise Fix(f"there is no option '{name}'", f"there are: {', '.join(known)}")
            if not _fits(getattr(_DEFAULT, name), value):
                raise Fix(f"option '{name}' cannot be {value!r}", f"the default is {getattr(_DEFAULT, name)!r}")
        lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
        return replace(self, **{**values, **lists})

    def faults(self) -> list[Fault]:
        """Raises: Fix"""
        return [Fault.parse(spec) for spec in self.fail]

    def simulated(self) -> World:
        """Raises: Fix"""
        return world_of({"world": self.world})

    def limits(self) -> Limits:
        """Full buckets. Raises: Fix: both rate and rpm"""
        if self.rate and self.rpm:
            raise Fix("rate and rpm both limit requests", "give one of them")
        requests = Bucket(60 * self.rate, self.burst or max(1.0, self.rate)) if self.rate else _minute(self.rpm)
        return Limits(requests=requests, tokens_in=_minute(self.itpm), tokens_out=_minute(self.otpm))


_DEFAULT = Options()


def _minute(amount: float) -> Bucket | None:
    return Bucket(amount, amount) if amount else None


def _fits(default: Any, value: Any) -> bool:
    if isinstance(default, bool):
        return isinstance(value, bool)
    if isinstance(default, str):
        return value in IDS
    if isinstance(default, tuple):
        return isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)
    if isinstance(default, Mapping):
        return isinstance(value, Mapping)
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf")
