"""Anthropic's Messages API, and servers that speak it (llama.cpp, vLLM, SGLang, Ollama, LiteLLM...).

A thin transport instead of the SDK's: the requests are the same, but deadlines and the checks of what comes back are ours,
nothing is retried here (the engine has the one policy), and a thousand requests in flight cost little.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cai_cli import __version__
from cai_cli.errors import Exit, Fatal, Fix, Reject, Retry
from cai_cli.flow import Model, Reply, Request
from cai_cli.providers._keys import Address, Key, anthropic_key, check_address, custom_headers
from cai_cli.providers._messages import VERSION, clean, encode, error_for, json_of, lower_names, reply_from, version_of

if TYPE_CHECKING:
    from cai_cli.providers._http import Answer, Http

OWN_HOST = "api.anthropic.com"
MODELS_S = 5.0  # to ask which models there are, for a message
RATES = "anthropic-ratelimit-"
REST_S = 10.0  # without new requests, for one server of several that failed


@dataclass(slots=True, kw_only=True)
class Endpoint:
    """One server of the fleet."""

    address: Address
    key: Key | None  # None: a server on this machine that wants none, or the key stands in `custom`
    custom: Mapping[str, str]
    proxy: str | None
    in_flight: int = 0
    rests_until: float = 0.0  # on the loop's clock

    @property
    def path(self) -> str:
        """What to put before messages: the SDK's users give the base with /v1 and without it."""
        return "/" if self.address.url.endswith("/v1") else "/v1/"

    @property
    def key_label(self) -> str:
        if "authorization" in self.custom or "x-api-key" in self.custom:
            return "the credentials in ANTHROPIC_CUSTOM_HEADERS"
        return self.key.label if self.key else "a request without a key"


class AnthropicProvider:
    """Asks one server, or the least busy of several.

    `rate_limits` holds the anthropic-ratelimit-* headers of the latest answer, names in lower case.
    """

    def __init__(self, *, endpoints: Sequence[Endpoint], http: Http) -> None:
        self._endpoints, self._http = endpoints, http
        self.host = ",".join(endpoint.address.host for endpoint in endpoints)
        self.rate_limits: Mapping[str, str] = {}

    async def send(self, request: Request, deadline_s: float) -> Reply:
        """Ask once. Raises: Retry, Reject, Fatal, as the protocol says"""
        payload, endpoint = encode(request), self._least_busy()
        endpoint.in_flight += 1
        try:
            answer = await self._ask(endpoint, "POST", "messages", version_of(request), deadline_s, payload)
            self.rate_limits = {name: value for name, value in lower_names(answer.headers).items() if name.startswith(RATES)}
            if answer.status == 200:
                return reply_from(answer.body, request)
            raise await self._failure(answer, endpoint, request.model.name)
        except Retry as retry:
            # A server that fails at once is always the least busy one: without a rest it would draw all requests.
            endpoint.rests_until = _now() + (REST_S if retry.kind != "rate_limit" else retry.after_s or 0)
            raise
        finally:
            endpoint.in_flight -= 1

    async def close(self) -> None:
        await self._http.close()

    def _least_busy(self) -> Endpoint:
        now = _now()
        return min(self._endpoints, key=lambda endpoint: (endpoint.rests_until > now, endpoint.in_flight))

    async def _ask(
        self, endpoint: Endpoint, method: str, path: str, version: str, deadline_s: float, data: bytes | None = None
    ) -> Answer:
        try:
            async with asyncio.timeout(deadline_s):
                answer = await self._once(endpoint, method, path, version, data)
                if answer.status == 401 and endpoint.key and endpoint.key.renew():
                    answer = await self._once(endpoint, method, path, version, data)
                return answer
        except TimeoutError:
            raise Retry("timeout", f"{endpoint.address.host} did not answer within {deadline_s:g} s") from None

    async def _once(self, endpoint: Endpoint, method: str, path: str, version: str, data: bytes | None) -> Answer:
        headers = await _headers(endpoint, version)
        options = {"data": data, "proxy": endpoint.proxy}
        answer = await self._http.ask(method, endpoint.address, endpoint.path + path, headers, **options)
        return answer if answer.status == 200 else answer._replace(body=_without_secrets(answer.body, headers, endpoint.custom))

    async def _failure(self, answer: Answer, endpoint: Endpoint, model: str) -> Retry | Reject | Fatal:
        host = endpoint.address.host
        failure = error_for(answer.status, answer.headers, answer.body, host=host, key=endpoint.key_label, model=model)
        if isinstance(failure, Fatal) and answer.status == 404 and (offered := await self._models(endpoint)):
            failure.hint = f"set model.name to one that it offers: {', '.join(offered[:20])}"
        return failure

    async def _models(self, endpoint: Endpoint) -> list[str]:
        """The names of the models that a server offers; none where it does not say."""
        try:
            answer = await self._ask(endpoint, "GET", "models", VERSION, MODELS_S)
        except (Retry, Fatal):
            return []
        listed = json_of(answer.body)
        models = listed.get("data") if isinstance(listed, dict) else None
        names = [model.get("id") for model in models if isinstance(model, dict)] if isinstance(models, list) else []
        return [clean(name) for name in names if isinstance(name, str)]


async def _headers(endpoint: Endpoint, version: str) -> dict[str, str]:
    headers = {"accept": "application/json", "content-type": "application/json", "user-agent": f"cai/{__version__}",
               "anthropic-version": version}  # fmt: skip
    if endpoint.key:
        headers |= await endpoint.key.headers()
    betas = [found["anthropic-beta"] for found in (endpoint.custom, headers) if "anthropic-beta" in found]
    return headers | dict(endpoint.custom) | ({"anthropic-beta": ",".join(betas)} if betas else {})


def _without_secrets(body: bytes, headers: Mapping[str, str], custom: Mapping[str, str]) -> bytes:
    """An error's body without what we sent to prove who we are: some servers repeat it, and messages end up in files."""
    for value in (headers.get("authorization", ""), *custom.values()):
        secret = value.removeprefix("Bearer ")
        body = body.replace(secret.encode(), b"...") if len(secret) >= 8 else body
    return body


def _now() -> float:
    return asyncio.get_running_loop().time()


def connect(model: Model) -> AnthropicProvider:
    """Open the servers that `model` names: its base URLs, else ANTHROPIC_BASE_URL, else the profile's, else Anthropic itself.

    Raises: Fix: an address that may not be used, a missing key
    """
    from cai_cli.providers._http import Http

    given = os.environ.get("ANTHROPIC_BASE_URL", "").strip()
    urls = model.base_urls or ((given,) if given else ("",))
    return AnthropicProvider(endpoints=[_endpoint(model, url) for url in urls], http=Http())


def _endpoint(model: Model, url: str) -> Endpoint:
    from cai_cli.providers._http import proxy_for

    address = check_address(url or f"https://{OWN_HOST}", OWN_HOST, model.allow_http)
    custom = custom_headers(address)
    key = None if "authorization" in custom else anthropic_key(address, model.key_env)
    if key and key.base_url and not url:
        address = check_address(key.base_url, OWN_HOST, model.allow_http)
    if not key and address.place == "own" and not {"authorization", "x-api-key"} & custom.keys():
        raise Fix(f"no key for {address.host}",
                  "export ANTHROPIC_API_KEY=..., or set model.provider to simulated to try without one", Exit.KEY)  # fmt: skip
    return Endpoint(address=address, key=key, custom=custom, proxy=proxy_for(address))
