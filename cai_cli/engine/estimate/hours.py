"""How long a run takes at the least: every limit of a server by itself, and the one that binds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cai_cli.engine.estimate.guess import SIMULATED
from cai_cli.engine.estimate.survey import Interval
from cai_cli.flow import Model
from cai_cli.settings import LimitsSection

FIRST_S, TOKENS_PER_S = 1.0, 60.0  # to the first token, and from there on; assumed where nobody measured
WRONG = 2.0  # by what factor an assumption is taken to be off, either way
SLOTS = (16, 64, 256)  # at once where concurrency is auto: what it begins with, what is assumed, what it ends with
PROCESS_PER_S = (500, 1000, 2500)  # requests that one process sends and writes down, by machine
S_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one server is asked for: requests, input tokens and reply tokens that are still ahead."""

    models: Sequence[Model]
    requests: Interval
    tokens_in: Interval
    tokens_out: Interval

    @property
    def server(self) -> str:
        """The name that people know it by."""
        model = self.models[0]
        return ", ".join(model.base_urls) or model.provider


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """The hours that a limit allows no run to be below."""

    server: str
    limit: str  # requests_per_minute, input_tokens_per_minute, output_tokens_per_minute, concurrency, process
    hours: Interval


def bounds(loads: Sequence[Load], limits: LimitsSection, latency_s: float | None) -> list[Bound]:
    """Every limit of every server, the one that binds first. `latency_s`: of a request, as measured; None: assumed"""
    found = [bound for load in loads if load.requests.value > 0 for bound in _of_server(load, limits, latency_s)]
    every = _sum([load.requests for load in loads])
    if every.value > 0:
        slow, usual, quick = PROCESS_PER_S
        hours = Interval(every.value / usual, every.low / quick, every.high / slow).times(1 / S_PER_HOUR)
        found.append(Bound(server="this machine", limit="process", hours=hours))
    return sorted(found, key=lambda one: -one.hours.value)


def longest(found: Sequence[Bound]) -> Interval:
    """Servers are asked side by side, and under all their limits at once: the longest of them all."""
    sides = [[getattr(one.hours, side) for one in found] for side in ("value", "low", "high")]
    return Interval(*(max(side, default=0.0) for side in sides))


def _of_server(load: Load, limits: LimitsSection, latency_s: float | None) -> list[Bound]:
    rates: Mapping[str, Interval] = {
        "requests_per_minute": load.requests, "input_tokens_per_minute": load.tokens_in,
        "output_tokens_per_minute": load.tokens_out,
    }  # fmt: skip
    stated = {name: amount.times(1 / (60 * most)) for name, amount in rates.items() if (most := getattr(limits, name, None))}
    hours = {**stated, "concurrency": _at_once(load, limits, latency_s)}
    return [Bound(server=load.server, limit=name, hours=one) for name, one in hours.items()]


def latency_of(load: Load) -> float:
    """Seconds that a request is assumed to take; of a simulated model in this process: what its world says."""
    if all(model.provider == SIMULATED and not model.base_urls for model in load.models):
        return max(float((model.params.get("world") or {}).get("latency_ms", 0.0)) for model in load.models) / 1000
    return FIRST_S + load.tokens_out.value / max(1.0, load.requests.value) / TOKENS_PER_S


def _at_once(load: Load, limits: LimitsSection, latency_s: float | None) -> Interval:
    few, usual, many = SLOTS if limits.concurrency == "auto" else (int(limits.concurrency),) * 3
    one_s, wrong = (latency_of(load), WRONG) if latency_s is None else (latency_s, 1.0)
    requests = load.requests
    seconds = Interval(requests.value * one_s / usual, requests.low * one_s / wrong / many, requests.high * one_s * wrong / few)
    return seconds.times(1 / S_PER_HOUR)


def _sum(parts: Sequence[Interval]) -> Interval:
    sides = [[getattr(one, side) for one in parts] for side in ("value", "low", "high")]
    return Interval(*(sum(side) for side in sides))
