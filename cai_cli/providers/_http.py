"""One HTTP exchange, bounded in size, its failures named by what happens next. No retries, no redirects, no cookies."""

from __future__ import annotations

import contextlib
import functools
import ipaddress
import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple
from urllib.request import getproxies, proxy_bypass

from cai_cli.errors import Exit, Fatal, Fix, Retry
from cai_cli.providers._keys import Address, is_link_local


@contextlib.contextmanager
def _no_certificates() -> Iterator[None]:
    """While it lasts, a new TLS context finds no certificates to read."""
    before = os.environ.get("SSL_CERT_FILE")
    os.environ["SSL_CERT_FILE"] = os.devnull
    try:
        yield
    finally:
        del os.environ["SSL_CERT_FILE"]
        if before is not None:
            os.environ["SSL_CERT_FILE"] = before


# At its import aiohttp reads the machine's certificates twice, 40 ms each; `_tls` reads them once, where they are needed.
with _no_certificates():
    import aiohttp

CONNECT_S = 15.0  # to open a connection; a host that drops packets would else take the whole deadline
LARGEST = 64 * 1024 * 1024  # bytes of an answer, unpacked


class Answer(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class LinkLocalError(OSError):
    """A name turned out to be a link-local address."""


def proxy_for(address: Address) -> str | None:
    """The proxy that the environment names for an address (HTTPS_PROXY, ALL_PROXY, NO_PROXY...); never one for this machine.

    aiohttp's own `trust_env` is not used: it reads ~/.netrc too, on every request, and refuses to send at all where an entry
    for the host meets our Authorization header.
    Raises: Fix: a SOCKS proxy
    """
    if address.place == "loopback" or proxy_bypass(address.host):
        return None
    proxies = getproxies()
    proxy = proxies.get(address.scheme) or proxies.get("all")
    if proxy and "://" not in proxy:
        proxy = f"http://{proxy}"
    if proxy and not proxy.startswith(("http://", "https://")):
        raise Fix(f"the proxy for {address.host} is a {proxy.partition(':')[0]} one; only http and https proxies can be used",
                  f"export NO_PROXY={address.host}, or name an http proxy")  # fmt: skip
    return proxy


@functools.cache
def _tls() -> ssl.SSLContext:
    """What aiohttp's own context would be: the certificates of the machine, or of SSL_CERT_FILE."""
    context = ssl.create_default_context()
    context.set_alpn_protocols(("http/1.1",))
    return context


class Http:
    """Connections to all addresses of a provider, opened as they are needed, in the loop that needs them first."""

    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    async def ask(self, method: str, address: Address, path: str, headers: Mapping[str, str], **options: Any) -> Answer:
        """Send one request. `options`: data (bytes), proxy. The caller sets the deadline.

        Raises: Retry: connection, protocol; Fatal: certificates, a link-local address, a proxy that wants a password
        """
        url, proxy = address.url + path, options.get("proxy") or ""
        if address.scheme == "https" or proxy.startswith("https:"):
            options["ssl"] = _tls()
        try:
            async with self._opened().request(method, url, headers=headers, allow_redirects=False, **options) as got:
                return Answer(got.status, got.headers, await _read(got))
        except (aiohttp.ClientError, OSError) as error:
            failure = _failure(error, address.host)
        raise failure  # outside of `except`: aiohttp's errors hold the request's headers, and the key is among them

    async def close(self) -> None:
        if self._session:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, socket_factory=_socket
                ),  # how many are sent at once is the engine's to say
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            )
        return self._session


async def _read(response: aiohttp.ClientResponse) -> bytes:
    if response.content.is_eof():  # it came in one piece, as most do
        return _bounded(response.content.read_nowait())
    body = bytearray()
    async for part in response.content.iter_any():
        body += _bounded(part, len(body))
    return bytes(body)


def _bounded(part: bytes, before: int = 0) -> bytes:
    """A part of a body, if it may still be read. Raises: Retry protocol"""
    if before + len(part) > LARGEST:
        raise Retry("protocol", f"an answer of more than {LARGEST >> 20} MB")
    return part


def _socket(address: tuple[Any, ...]) -> socket.socket:
    # Here the name is resolved, so a name for a link-local address is seen, whoever answered for it.
    family, kind, protocol, _, where = address
    if family in (socket.AF_INET, socket.AF_INET6) and is_link_local(ipaddress.ip_address(where[0])):
        raise LinkLocalError("a link-local address")
    return socket.socket(family, kind, protocol)


def _failure(error: Exception, host: str) -> Retry | Fatal:
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        hint = "if it is your own server, export SSL_CERT_FILE=its-ca.pem; then run the same command again"
        return Fatal(f"{host}: its certificate is not trusted ({error.certificate_error})", hint, Exit.UNREACHABLE)
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, LinkLocalError):
        return Fatal(f"{host} is a link-local address, and those are refused", "name another host in model.base_url", Exit.USAGE)
    if isinstance(cause, ssl.SSLError):
        return Fatal(f"{host}: no TLS connection ({cause.reason})",
                     "is it a plain http server? then write http:// in model.base_url; then run the same command again",
                     Exit.UNREACHABLE)  # fmt: skip
    if isinstance(error, aiohttp.ClientHttpProxyError) and error.status == 407:
        return Fatal(f"the proxy on the way to {host} wants a password", "put it into HTTPS_PROXY", Exit.UNREACHABLE)
    if isinstance(error, aiohttp.ClientResponseError) and not isinstance(error, aiohttp.ClientHttpProxyError):
        return Retry("protocol", f"{host} does not speak HTTP")
    return Retry("connection", f"{host}: {_why(error, cause)}")


def _why(error: Exception, cause: Exception) -> str:
    """A failed connection in a few words, none of which the other side chose."""
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name is not known"
    if isinstance(cause, OSError) and (cause.errno or 0) > 0:
        return os.strerror(cause.errno or 0).lower()
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientPayloadError):
        return "it closed the connection"
    return type(error).__name__
