"""Whom a run asks, and how they answer: the facts that displays and the run's log tell of every server."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from cai_cli.engine.drive import Asker
from cai_cli.engine.limits import ServerLimits
from cai_cli.engine.pace import Pace
from cai_cli.flow import Model
from cai_cli.providers import Fleeted, Metered, Provider, Server
from cai_cli.reports.quantities import duration

Asked = Sequence[tuple[Pace, Sequence[Provider]]]  # one pace for all requests to the same servers
MOMENT_S = 1.0  # what ends sooner is not told


def asked(asker: Asker, models: Iterable[Model]) -> Asked:
    """The paces of these models, each with the providers that were opened for it by now."""
    found: dict[int, tuple[Pace, list[Provider]]] = {}
    for model in models:
        pace = asker.pace_for(model)
        providers = found.setdefault(id(pace), (pace, []))[1]
        provider = asker.opened(model)
        if provider is not None and all(provider is not one for one in providers):
            providers.append(provider)
    return list(found.values())


def servers(asker: Asker, models: Iterable[Model]) -> list[dict[str, Any]]:
    """A server each: host, in_flight, slots, shared (by how many servers), oldest_s, failing_s, rests_s, said."""
    rows = []
    for pace, providers in asked(asker, models):
        found = _merged(providers) or [_alone(asker, pace, provider) for provider in providers[:1]]
        rows += [asdict(one) | {"slots": int(pace.slots), "shared": len(found)} for one in found]
    return rows


def _merged(providers: Sequence[Provider]) -> list[Server]:
    """The servers of several fleets, which may be the same ones."""
    found: dict[str, Server] = {}
    for one in (one for provider in providers if isinstance(provider, Fleeted) for one in provider.servers()):
        other = found.get(one.host, one)
        worse = max(one, other, key=lambda server: server.failing_s or 0.0)
        found[one.host] = Server(
            host=one.host, in_flight=one.in_flight + (other.in_flight if other is not one else 0), said=worse.said,
            oldest_s=max((age for age in (one.oldest_s, other.oldest_s) if age is not None), default=None),
            failing_s=worse.failing_s, rests_s=max(one.rests_s, other.rests_s),
        )  # fmt: skip
    return list(found.values())


def _alone(asker: Asker, pace: Pace, provider: Provider) -> Server:
    """A provider that tells nothing of its servers, by what is known of its requests."""
    ages = (asker.clock.now() - flight.sent_at for flight in asker.flights.values() if flight.host == provider.host)
    return Server(host=provider.host, in_flight=pace.in_flight, oldest_s=next(ages, None), failing_s=pace.failing_s,
                  rests_s=pace.closed_s)  # fmt: skip


def some_answer(found: Sequence[Provider]) -> bool:
    """Whether one server of a fleet that has a dead one answers: then requests go on, to the others."""
    fleet = _merged(found)
    return len(fleet) > 1 and any(one.failing_s is None for one in fleet)


def held(asker: Asker, models: Iterable[Model]) -> str:
    """Why a server is sent nothing at the moment, or in vain; empty where that is not so."""
    all_asked = asked(asker, models)
    for pace, providers in all_asked:
        name = f"{providers[0].host}: " if len(all_asked) > 1 and providers else ""
        if reason := why(pace, some_answer(providers), _closed_s(pace, providers)):
            return name + reason
    return ""


def _closed_s(pace: Pace, providers: Sequence[Provider]) -> float:
    """Seconds until a gate opens that a 429 closed: one for all, or that of every server."""
    meters = [provider.meter for provider in providers if isinstance(provider, Metered)]
    closed = [meter.closed_s for meter in meters if isinstance(meter, ServerLimits)]
    return max(pace.closed_s, min(closed, default=0.0))


def why(pace: Pace, others: bool, closed_s: float) -> str:
    """Why requests wait; empty where none does. `others`: a server of a fleet answers while one does not"""
    if pace.outage_since is not None:
        return f"no answer for {duration(pace.clock.now() - pace.outage_since)}: one request tries every half minute"
    if closed_s > MOMENT_S:
        return f"told to wait {duration(closed_s)}"
    if pace.failing_s is not None and pace.failing_s > MOMENT_S and not others:
        return f"no answer for {duration(pace.failing_s)}: asked again, later and later"
    if pace.held is not None:
        per_minute, what = pace.held
        return f"at the limit of {round(per_minute):,} {what} a minute"
    return ""


def oldest(asker: Asker) -> dict[str, Any] | None:
    """The request that has been in flight for longest: host, age_s, deadline_s; None where none is."""
    flight = next(iter(asker.flights.values()), None)
    if flight is None:
        return None
    return {"host": flight.host, "age_s": asker.clock.now() - flight.sent_at, "deadline_s": flight.deadline_s}
