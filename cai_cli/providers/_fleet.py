"""One server, or several that share the work: the transport that the providers have in common.

A thin transport instead of an SDK's: the requests are the same, but deadlines and the checks of what comes back are ours, nothing
is retried here (the engine has the one policy), and a thousand requests in flight cost little.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from cai_cli import __version__
from cai_cli.errors import Fatal, Reject, Retry
from cai_cli.flow import Model, Reply, Request
from cai_cli.providers import Meter, Server
from cai_cli.providers._answers import clean, error_for, json_of, lower_names
from cai_cli.providers._deadlines import Deadlines
from cai_cli.providers._keys import CREDENTIALS, Address, Key, NoKey, StaticKey, custom_headers

if TYPE_CHECKING:
    from cai_cli.providers._http import Answer, Http

MODELS_S = 5.0  # to ask which models there are, for a message
REST_S, LONGEST_REST_S = 10.0, 60.0  # without new requests, for one server of several that failed; longer each time
_FIRST, _NONE = (0,), MappingProxyType[str, str]({})


class Dialect(Protocol):
    """How a protocol puts a request, and what its answers mean. Pure: it sends nothing."""

    route: str  # where questions are posted, behind /v1/
    rates: str  # how the names of its rate headers begin

    def encode(self, request: Request, address: Address) -> bytes:
        """The body. Raises: Reject unencodable; Fix: a parameter that the protocol does not have"""

    def headers(self, request: Request | None) -> dict[str, str]:
        """The protocol's own headers, names in lower case; None: a question about the server itself."""

    def root(self, address: Address) -> str:
        """What stands between an address and a route, with slashes around it."""

    def read(self, body: bytes, request: Request) -> Reply:
        """The reply that the body of a 200 is. Raises: Retry protocol"""


@dataclass(slots=True, kw_only=True)
class Endpoint:
    """One server of the fleet."""

    address: Address
    key: Key | None  # None: a server on this machine that wants none, or the key stands in `custom`
    custom: Mapping[str, str]  # headers from the environment, which win over ours
    key_label: str  # how messages call what proves who we are
    proxy: str | None
    flights: dict[object, float] = field(default_factory=dict)  # when each was sent, on the loop's clock, oldest first
    rests_until: float = 0.0  # on the loop's clock
    rest_s: float = 0.0  # its latest rest
    failing_since: float | None = None  # the first failure that no answer followed
    said: str = ""  # the latest failure
    own: Mapping[str, str] = field(default_factory=dict)  # headers that only this server gets
    put: dict[tuple[tuple[str, str], ...], Mapping[str, str]] = field(default_factory=dict)  # headers that never change

    def failed(self, retry: Retry) -> None:
        """Note a failure. A server that fails at once is always the least busy one: without a rest it would draw all requests."""
        now = _now()
        if retry.kind == "rate_limit":  # that one answers
            self.rests_until = now + (retry.after_s or 0)
            return
        if now >= self.rests_until:  # else it is of those that were out when it was set aside
            self.rest_s = min(LONGEST_REST_S, 2 * self.rest_s or REST_S)
            self.rests_until = now + self.rest_s
        self.failing_since = self.failing_since or now
        self.said = retry.detail.removeprefix(f"{self.address.host}: ")

    def answered(self) -> None:
        """It answers: what it failed before is forgotten."""
        self.failing_since, self.rest_s, self.rests_until = None, 0.0, 0.0

    def takes(self, now: float, let_in: int) -> bool:
        """Whether it may be asked: it does not rest, and after a rest one request tries first. `let_in`: will be sent to it"""
        return self.rests_until <= now and (self.failing_since is None or not (self.flights or let_in))

    def standing(self) -> Server:
        """What a display shows of it."""
        now, sent_at = _now(), next(iter(self.flights.values()), None)
        return Server(
            host=self.address.host, in_flight=len(self.flights), said=self.said, rests_s=max(0.0, self.rests_until - now),
            oldest_s=None if sent_at is None else now - sent_at,
            failing_s=None if self.failing_since is None else now - self.failing_since,
        )  # fmt: skip


def endpoint(address: Address, key: Key | None, variable: str, own: Mapping[str, str] | None = None) -> Endpoint:
    """A server with all that is sent along. `variable`: the one that holds custom headers. Raises: Fix: an unusable proxy"""
    from cai_cli.providers._http import proxy_for

    custom = custom_headers(address, variable)
    label = key.label if key else "a request without a key"
    if {*CREDENTIALS} & custom.keys():
        label = f"the credentials in {variable}"
    return Endpoint(address=address, key=key, custom=custom, key_label=label, proxy=proxy_for(address), own=own or {})


def refuse_keyless(found: Endpoint, variable: str) -> None:
    """Stop before a provider's own host is asked without a key. Raises: NoKey"""
    if found.address.place == "own" and not found.key and not {*CREDENTIALS} & found.custom.keys():
        raise NoKey(f"no key for {found.address.host}",
                    f"export {variable}=..., or set model.provider to simulated to try without one", variable)  # fmt: skip


class Fleet:
    """Asks one server, or the least busy of several, in one dialect."""

    def __init__(self, *, dialect: Dialect, endpoints: Sequence[Endpoint], http: Http) -> None:
        self._dialect, self._endpoints, self._http = dialect, endpoints, http
        self.host = ",".join(endpoint.address.host for endpoint in endpoints)
        self.meter: Meter | None = None
        self._latest: Mapping[str, str] = _NONE  # headers
        self._deadlines = Deadlines()

    async def send(self, request: Request, deadline_s: float) -> Reply:
        """Ask once. Raises: Retry, Reject, Fatal, as the protocol says"""
        server = self.meter.server_for(request) if self.meter else None
        number = self.rank({})[0] if server is None else server
        endpoint, reply, flight = self._endpoints[number], None, object()
        headers: Mapping[str, str] = _NONE
        endpoint.flights[flight] = _now()
        try:
            payload = self._dialect.encode(request, endpoint.address)
            answer = await self._ask(
                endpoint, "POST", self._dialect.route, self._dialect.headers(request), deadline_s, payload
            )  # fmt: skip
            self._latest = headers = answer.headers
            reply = await self._read(answer, endpoint, request)
            endpoint.answered()
            return reply
        except Retry as retry:
            endpoint.failed(retry)
            if self.meter and retry.kind == "rate_limit":
                self.meter.limited(number, request, headers, retry.after_s)
            raise
        except Reject:
            endpoint.answered()
            raise
        finally:
            del endpoint.flights[flight]
            if self.meter:
                self.meter.answered(number, request, headers, reply)

    async def _read(self, answer: Answer, endpoint: Endpoint, request: Request) -> Reply:
        if answer.status == 200:
            return self._dialect.read(answer.body, request)
        raise await self._failure(answer, endpoint, request.model)

    def servers(self) -> Sequence[Server]:
        """Every server, for displays."""
        return [endpoint.standing() for endpoint in self._endpoints]

    @property
    def endpoints(self) -> Sequence[Endpoint]:
        """Its servers, in the order of the config."""
        return tuple(self._endpoints)

    async def look(self, endpoint: Endpoint, route: str, deadline_s: float) -> Answer:
        """What one server answers to GET of a route, such as models: it costs nothing. Raises: Retry, Fatal"""
        return await self._ask(endpoint, "GET", route, self._dialect.headers(None), deadline_s)

    async def close(self) -> None:
        await self._http.close()

    @property
    def rate_limits(self) -> Mapping[str, str]:
        """The dialect's rate headers of the latest answer, names in lower case."""
        named = lower_names(self._latest).items()
        return {name: value for name, value in named if name.startswith(self._dialect.rates)}

    @property
    def places(self) -> Sequence[str]:
        """What has limits of its own: a server each, with what proves who asks."""
        return [f"{endpoint.address.host} {endpoint.key_label}" for endpoint in self._endpoints]

    def rank(self, let_in: Mapping[int, int]) -> Sequence[int]:
        """The servers that may be asked, the least busy one first; all where none may. `let_in`: how many will be sent to each"""
        if len(self._endpoints) == 1:
            return _FIRST
        now = _now()
        busy = {n: len(one.flights) + let_in.get(n, 0) for n, one in enumerate(self._endpoints)}
        fit = [n for n, one in enumerate(self._endpoints) if one.takes(now, let_in.get(n, 0))]
        return sorted(fit or busy, key=busy.__getitem__)

    async def _ask(
        self, endpoint: Endpoint, method: str, route: str, headers: dict[str, str], deadline_s: float, data: bytes | None = None
    ) -> Answer:
        try:
            return await self._deadlines.keep(self._twice(endpoint, method, route, headers, data), deadline_s)
        except TimeoutError:
            raise Retry("timeout", f"{endpoint.address.host} did not answer within {deadline_s:g} s") from None

    async def _twice(self, endpoint: Endpoint, method: str, route: str, headers: dict[str, str], data: bytes | None) -> Answer:
        """Ask; and again where the key was refused, and there may be a newer one."""
        answer = await self._once(endpoint, method, route, headers, data)
        if answer.status == 401 and endpoint.key and endpoint.key.renew():
            answer = await self._once(endpoint, method, route, headers, data)
        return answer

    async def _once(self, endpoint: Endpoint, method: str, route: str, headers: dict[str, str], data: bytes | None) -> Answer:
        sent, path = await _headers(endpoint, headers), self._dialect.root(endpoint.address) + route
        answer = await self._http.ask(method, endpoint.address, path, sent, data=data, proxy=endpoint.proxy)
        return answer if answer.status == 200 else answer._replace(body=without_secrets(answer.body, sent, endpoint.custom))

    async def _failure(self, answer: Answer, endpoint: Endpoint, model: Model) -> Retry | Reject | Fatal:
        failure = error_for(
            answer.status, answer.headers, answer.body, host=endpoint.address.host, key=endpoint.key_label, model=model.name,
            route=self._dialect.root(endpoint.address) + self._dialect.route,
        )  # fmt: skip
        if isinstance(failure, Fatal) and answer.status == 404 and (offered := await self._models(endpoint)):
            failure.hint = f"set model.name to one that it offers: {', '.join(offered[:20])}"
        return failure

    async def _models(self, endpoint: Endpoint) -> list[str]:
        """The names of the models that a server offers; none where it does not say."""
        try:
            answer = await self._ask(endpoint, "GET", "models", self._dialect.headers(None), MODELS_S)
        except (Retry, Fatal):
            return []
        listed = json_of(answer.body)
        models = listed.get("data") if isinstance(listed, dict) else None
        names = [model.get("id") for model in models if isinstance(model, dict)] if isinstance(models, list) else []
        return [clean(name) for name in names if isinstance(name, str)]


async def _headers(endpoint: Endpoint, dialects: Mapping[str, str]) -> Mapping[str, str]:
    """All headers of a request; made once for a key that stays as it is."""
    key = tuple(dialects.items())
    if (known := endpoint.put.get(key)) is not None:
        return known
    headers = {"accept": "application/json", "content-type": "application/json", "user-agent": f"cai/{__version__}"}
    headers |= dict(dialects) | dict(endpoint.own)
    if endpoint.key:
        headers |= await endpoint.key.headers()
    betas = [found["anthropic-beta"] for found in (endpoint.custom, headers) if "anthropic-beta" in found]
    headers |= dict(endpoint.custom) | ({"anthropic-beta": ",".join(betas)} if betas else {})
    if endpoint.key is None or isinstance(endpoint.key, StaticKey):
        endpoint.put[key] = headers
    return headers


def without_secrets(body: bytes, headers: Mapping[str, str], custom: Mapping[str, str]) -> bytes:
    """An error's body without what we sent to prove who we are: some servers repeat it, and messages end up in files."""
    for value in (headers.get("authorization", ""), *custom.values()):
        secret = value.removeprefix("Bearer ")
        body = body.replace(secret.encode(), b"...") if len(secret) >= 8 else body
    return body


def _now() -> float:
    return asyncio.get_running_loop().time()
