"""The way to a server, step by step and timed: its name, a connection, TLS."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
import threading
import time
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cai_cli.providers._keys import Address, is_link_local

PORTS = {"http": 80, "https": 443}


class Unreached(Exception):
    """A step failed: a sentence, and a hint."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How it went: in words, and milliseconds by step."""

    said: str
    facts: dict[str, Any]


async def opened(address: Address, proxy: str | None) -> Way:
    """Open a connection to a server, or to the proxy on the way there, and close it again.

    Raises: Unreached: an unknown name, a refused connection, a certificate that is not trusted
    """
    target = urlsplit(proxy or address.url)
    host, port = target.hostname or "", target.port or PORTS[target.scheme]
    begun = time.perf_counter()
    ip = await _resolved(host, port)
    dns_ms, begun = _since(begun), time.perf_counter()
    try:
        reader, writer = await asyncio.open_connection(ip, port)
    except OSError as error:
        why = os.strerror(error.errno).lower() if error.errno else type(error).__name__
        raise Unreached(f"{ip} port {port}: {why}", _who(address)) from None
    facts = {"ip": ip, "dns_ms": dns_ms, "tcp_ms": _since(begun)}
    try:
        tls = await _secured(writer, host) if target.scheme == "https" else {}
    finally:
        writer.close()
    del reader
    return Way(said=_said(proxy and host, facts | tls), facts={**facts, **tls, "proxy": bool(proxy)})


def _who(address: Address) -> str:
    if address.place == "loopback":
        return "start it, or mend model.base_url; to try one out: cai simulate"
    return ""


async def _secured(writer: asyncio.StreamWriter, host: str) -> dict[str, Any]:
    begun = time.perf_counter()
    try:
        await writer.start_tls(ssl.create_default_context(), server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        hint = "if it is your own server, export SSL_CERT_FILE=its-ca.pem"
        raise Unreached(f"its certificate is not trusted ({error.verify_message})", hint) from None
    except (ssl.SSLError, OSError) as error:
        hint = "is it a plain http server? then write http:// in model.base_url"
        raise Unreached(f"no TLS connection ({getattr(error, 'reason', None) or type(error).__name__})", hint) from None
    return {"tls_ms": _since(begun), "tls": writer.get_extra_info("ssl_object").version()}


async def _resolved(host: str, port: int) -> str:
    """The first address of a name. A thread of its own, that nobody waits for: a resolver may take half a minute to give up."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[str | None] = loop.create_future()

    def tell(ip: str | None) -> None:
        if not answer.done():
            answer.set_result(ip)

    def look_up() -> None:
        try:
            ip = str(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][4][0])
        except OSError:
            ip = None
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, ip)

    threading.Thread(target=look_up, daemon=True).start()
    if (ip := await answer) is None:
        raise Unreached(f"the name {host} is not known", "check the name and the resolver: getent hosts " + host)
    if is_link_local(ipaddress.ip_address(ip.partition("%")[0])):
        raise Unreached(f"{host} is a link-local address, and those are refused", "name another host in model.base_url")
    return ip


def _since(begun: float) -> int:
    return round((time.perf_counter() - begun) * 1000)


def _said(proxy: str | None, facts: dict[str, Any]) -> str:
    parts = [f"name in {facts['dns_ms']} ms", f"connection in {facts['tcp_ms']} ms"]
    parts += [f"{facts['tls']} in {facts['tls_ms']} ms"] if "tls" in facts else []
    return (f"through the proxy {proxy}: " if proxy else "") + f"{facts['ip']}, {', '.join(parts)}"
