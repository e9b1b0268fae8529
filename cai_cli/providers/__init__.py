"""Sources of replies. One file here is one provider (but not those that begin with _).

Other packages add theirs by entry point, group cai.providers. A provider module has `connect(model: Model) -> Provider`.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Protocol, runtime_checkable

from cai_cli.errors import Fix
from cai_cli.flow import Model, Reply, Request


class Provider(Protocol):
    """Answers requests; keeps no state that a row could depend on."""

    host: str  # where replies come from, for the ledger and for messages

    async def send(self, request: Request, deadline_s: float) -> Reply:
        """Ask once, without retries, in at most `deadline_s` seconds.

        Raises: Retry (come back later), Reject (this request will never do; with a signature), Fatal (stop the run)
        """

    async def close(self) -> None:
        """Give connections back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """One server of those that a provider asks, at this moment."""

    host: str
    in_flight: int = 0
    oldest_s: float | None = None  # since the oldest request in flight was sent
    failing_s: float | None = None  # since the first failure that no answer followed
    rests_s: float = 0.0  # until it is asked again, where another one can be asked
    said: str = ""  # its latest failure


@runtime_checkable
class Fleeted(Protocol):
    """What a provider that asks several servers also has, for displays."""

    def servers(self) -> Sequence[Server]:
        """Every server, in the order of the config."""


class Meter(Protocol):
    """Whoever watches over the limits of a provider's servers. Servers are numbered in the order of `Metered.places`."""

    def server_for(self, request: Request) -> int | None:
        """The server that this request was let in for; None: for none. It is sent now."""

    def answered(self, server: int, request: Request, headers: Mapping[str, str], reply: Reply | None) -> None:
        """A server answered, with these headers, or not at all. `reply`: None where the answer was of no use"""

    def limited(self, server: int, request: Request, headers: Mapping[str, str], after_s: float | None) -> None:
        """A server answered 429, and asks for a wait of `after_s` seconds; None: it names none."""


@runtime_checkable
class Metered(Protocol):
    """What a provider also has that tells a meter of its requests, so that they are sent as fast as its servers allow."""

    meter: Meter | None  # the engine sets it

    @property
    def places(self) -> Sequence[str]:
        """What has limits of its own, one a server: its host, and what proves who asks."""

    def rank(self, let_in: Mapping[int, int]) -> Sequence[int]:
        """The servers that may be asked at this moment, the least busy one first; one at least.

        `let_in`: by server, how many requests are let in for it and not sent yet
        """


def _own() -> set[str]:
    return {module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")}


def names() -> list[str]:
    """Every provider that can be named in a config."""
    return sorted({*_own(), *(point.name for point in entry_points(group="cai.providers"))})


def connect(model: Model) -> Provider:
    """Open the provider that `model` names.

    Raises: Fix: unknown provider, missing key, an address that may not be used
    """
    if model.provider in _own():
        module = importlib.import_module(f"{__name__}.{model.provider}")
    elif points := entry_points(group="cai.providers", name=model.provider):
        module = next(iter(points)).load()
    else:
        raise Fix(f"there is no provider '{model.provider}'", f"there are: {', '.join(names())}")
    provider: Provider = module.connect(model)
    return provider
