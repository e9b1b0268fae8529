"""Claude at another cloud, through the anthropic package's clients: they know how requests are addressed and signed there.

What comes back is read as strictly as anywhere else, and nothing is retried here.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import ssl
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from cai_cli.errors import Exit, Fatal, Fix, Reject, Retry
from cai_cli.flow import Model, Reply, Request
from cai_cli.providers._answers import AGAIN, error_for
from cai_cli.providers._fleet import without_secrets
from cai_cli.providers._keys import CREDENTIALS, Address, check_address, custom_headers
from cai_cli.providers._messages import SAMPLING, body_of, encode, reply_from

if TYPE_CHECKING:
    from anthropic import APIStatusError

CONNECT_S = 15.0


class SdkProvider:
    """Asks through a client of the anthropic package.

    `sampling_version`: the cloud's name for the API version that takes temperature, top_p and top_k. `failures`: what the library
    raises that gets the credentials; those in `outages`: because it could not ask. `prepare`: looks for them in a thread, before
    the first request; it may raise Fatal.
    """

    def __init__(
        self, *, client: Any, address: Address, key_label: str, sampling_version: str, failures: tuple[type[Exception], ...],
        outages: tuple[type[Exception], ...], prepare: Callable[[], None] | None = None,
    ) -> None:  # fmt: skip
        self._client, self._key_label, self._sampling_version = client, key_label, sampling_version
        self._failures, self._outages, self._prepare = failures, outages, prepare
        self._ready: asyncio.Task[None] | None = None
        self.host = address.host

    async def send(self, request: Request, deadline_s: float) -> Reply:
        """Ask once. Raises: Retry, Reject, Fatal, as the protocol says"""
        encode(request)  # here a lone surrogate is the row's; in the client it would be a bug
        try:
            async with asyncio.timeout(deadline_s):
                body = await self._ask(request)
        except TimeoutError:
            raise Retry("timeout", f"{self.host} did not answer within {deadline_s:g} s") from None
        return reply_from(body, request)

    async def close(self) -> None:
        await self._client.close()

    async def _ask(self, request: Request) -> bytes:
        import anthropic
        import httpx2

        try:
            await self._find_credentials()
            answer: httpx2.Response = await self._client.post(
                "/v1/messages", body=self._body(request), cast_to=httpx2.Response, options={"follow_redirects": False}
            )
        except anthropic.APIStatusError as error:
            failure = self._refused(error, request.model.name)
        except anthropic.APIConnectionError as error:
            failure = self._unreached(error)
        except self._failures as error:
            failure = self._keyless(error)
        else:
            return answer.content
        raise failure  # outside of `except`: the SDK's errors hold the request's headers, and credentials are among them

    async def _find_credentials(self) -> None:
        if self._prepare is None:
            return
        if self._ready is None:
            self._ready = asyncio.create_task(asyncio.to_thread(self._prepare))
        await asyncio.shield(self._ready)

    def _body(self, request: Request) -> dict[str, Any]:
        body = body_of(request)
        return body | {"anthropic_version": self._sampling_version} if {*SAMPLING} & body.keys() else body

    def _refused(self, error: APIStatusError, model: str) -> Retry | Reject | Fatal:
        sent = dict(error.request.headers)
        body = without_secrets(error.response.content, sent, {})
        return error_for(
            error.status_code, dict(error.response.headers), body, host=self.host, key=self._key_label, model=model,
            route=error.request.url.path,
        )  # fmt: skip

    def _unreached(self, error: Exception) -> Retry | Fatal:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ssl.SSLCertVerificationError):
                return Fatal(f"{self.host}: its certificate is not trusted ({cause.verify_message})",
                             f"if it is your own server, export SSL_CERT_FILE=its-ca.pem; {AGAIN}", Exit.UNREACHABLE)  # fmt: skip
            cause = cause.__cause__ or cause.__context__
        return Retry("connection", f"{self.host}: {type(error.__cause__ or error).__name__}")

    def _keyless(self, error: Exception) -> Retry | Fatal:
        if isinstance(error, self._outages):
            return Retry("connection", f"{self.host}: its credentials could not be asked for ({type(error).__name__})")
        return Fatal(f"no credentials for {self.host} ({type(error).__name__})", f"sign in again; {AGAIN}", Exit.KEY)


def need(module: str, extra: str) -> None:
    """Stop where a library is not installed. Raises: Fix"""
    try:
        found = importlib.util.find_spec(module)
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise Fix(f"the provider {extra} needs the package {module}", f"pip install 'cai-cli[{extra}]'")


def address_of(model: Model, variable: str, own: str) -> Address:
    """The one address that a model names: its base URL, else the variable's, else the cloud's own.

    Takes: `own`, the cloud's URL. Raises: Fix: several addresses, or one that may not be used
    """
    if len(model.base_urls) > 1:
        raise Fix(f"provider {model.provider} takes one base_url", "leave base_url out, or name one")
    given = (*model.base_urls, os.environ.get(variable, "").strip())[0]
    return check_address(given or own, own.split("/")[2], model.allow_http)


def settings(address: Address) -> dict[str, Any]:
    """What the clients have in common. Credentials in ANTHROPIC_CUSTOM_HEADERS are Anthropic's, and do not go to other clouds."""
    import anthropic
    import httpx2

    custom_headers(address)  # refuses what HTTP cannot carry
    lines = os.environ.get("ANTHROPIC_CUSTOM_HEADERS", "").split("\n")
    spelled = [name.strip() for name, colon, _ in (line.partition(":") for line in lines) if colon]
    return {
        "base_url": address.url, "max_retries": 0, "timeout": httpx2.Timeout(None, connect=CONNECT_S), "open_telemetry": False,
        "default_headers": {name: anthropic.Omit() for name in spelled if name.lower() in CREDENTIALS},
    }  # fmt: skip
