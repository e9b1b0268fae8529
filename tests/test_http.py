"""One HTTP exchange: what each failure below the protocol becomes, limits, certificates, proxies."""

import asyncio
import gzip
import os
import shutil
import socket
import ssl
import subprocess
from pathlib import Path

import pytest

from cai_cli.errors import Exit, Fatal, Fix, Retry
from cai_cli.providers import _http
from cai_cli.providers._http import Answer, Http, proxy_for
from cai_cli.providers._keys import Address, check_address

CANARY = "canary-key-that-nobody-may-see-wxyz"
OWN = "api.anthropic.com"
OK = b"HTTP/1.1 200 OK\r\nX-One: 1\r\nContent-Length: 2\r\n\r\n{}"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))


async def exchange(address: Address, proxy: str | None = None) -> Answer:
    http = Http()
    try:
        return await http.ask("POST", address, "/v1/messages", {"authorization": f"Bearer {CANARY}"}, data=b"{}", proxy=proxy)
    finally:
        await http.close()


def fetch(data: bytes, scheme: str = "http", tls: ssl.SSLContext | None = None) -> tuple[Answer, str]:
    """The answer of a server that sends these bytes and hangs up, and what that server was sent."""
    heads = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(data)
        await writer.drain()
        writer.close()

    async def main() -> Answer:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
        async with server:
            return await exchange(check_address(f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}", OWN))

    return asyncio.run(main()), heads[0].decode()


def test_an_answer_comes_back_as_it_is() -> None:
    answer, head = fetch(OK)
    assert (answer.status, answer.headers["x-one"], answer.body) == (200, "1", b"{}")
    assert head.startswith("POST /v1/messages HTTP/1.1\r\n")
    assert "Cookie" not in head


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_redirects_are_answers(status: int) -> None:
    assert fetch(b"HTTP/1.1 %d X\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n" % status)[0].status == status


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "connection"), (b"HTTP/1.1 200 OK\r\nContent-Le", "connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", "connection"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", "connection"),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 5\r\n\r\nplain", "connection"),
        (b"SSH-2.0-OpenSSH_9\r\n\r\n", "protocol"), (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", "protocol"),
    ],
)  # fmt: skip
def test_broken_answers_are_waited_out(data: bytes, kind: str) -> None:
    with pytest.raises(Retry) as caught:
        fetch(data)
    assert caught.value.kind == kind
    assert caught.value.__context__ is None  # aiohttp's errors hold the request's headers
    assert CANARY not in str(caught.value)


def test_a_closed_port_is_waited_for() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(Retry, match=r"127\.0\.0\.1.*: connection refused") as caught:
            asyncio.run(exchange(check_address(f"http://127.0.0.1:{taken.getsockname()[1]}", OWN)))
    assert caught.value.kind == "connection"


def test_a_name_that_does_not_resolve_is_waited_for() -> None:
    name = ".".join(["a" * 60] * 5)  # too long for DNS, so nobody is asked
    with pytest.raises(Retry) as caught:
        asyncio.run(exchange(check_address(f"https://{name}", OWN)))
    assert caught.value.kind == "connection"


def test_an_answer_that_unpacks_without_end_is_cut_off() -> None:
    bomb = gzip.compress(bytes(70 << 20), 1)
    with pytest.raises(Retry, match="64 MB") as caught:
        fetch(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%s" % (len(bomb), bomb))
    assert caught.value.kind == "protocol"


# TLS and addresses.


@pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl to make a certificate")
def test_a_certificate_that_nobody_trusts_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, certificate = str(tmp_path / "key.pem"), str(tmp_path / "certificate.pem")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate], check=True, capture_output=True,
    )  # fmt: skip
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(certificate, key)
    _http._tls.cache_clear()
    with pytest.raises(Fatal, match="certificate is not trusted") as caught:
        fetch(OK, "https", tls)
    assert caught.value.code is Exit.UNREACHABLE
    assert "SSL_CERT_FILE" in caught.value.hint
    _http._tls.cache_clear()
    monkeypatch.setenv("SSL_CERT_FILE", certificate)
    assert fetch(OK, "https", tls)[0].status == 200
    _http._tls.cache_clear()


@pytest.mark.parametrize(("first", "expected"), [(b"HTTP/1.1 400 Bad Request\r\n\r\n", Fatal), (b"", Retry)])
def test_a_server_without_tls_stops_the_run_and_one_that_hangs_up_does_not(first: bytes, expected: type[Exception]) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(first)
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            await exchange(check_address(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}", OWN))

    with pytest.raises(expected) as caught:
        asyncio.run(main())
    found = caught.value
    assert found.code is Exit.UNREACHABLE if isinstance(found, Fatal) else isinstance(found, Retry) and found.kind == "connection"


@pytest.mark.parametrize("literal", ["169.254.169.254", "[fe80::1]", "[::ffff:169.254.169.254]"])
def test_a_name_that_turns_out_to_be_link_local_is_not_connected_to(literal: str) -> None:
    # As if metadata.example had resolved to it: check_address would have refused the literal.
    with pytest.raises(Fatal, match=r"metadata\.example is a link-local address") as caught:
        asyncio.run(exchange(Address(url=f"http://{literal}", host="metadata.example", place="other")))
    assert caught.value.code is Exit.USAGE


# Proxies.


def test_proxies_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    other, here = check_address("https://models.example", OWN), check_address("https://127.0.0.1:1", OWN)
    assert proxy_for(other) is None
    monkeypatch.setenv("ALL_PROXY", "http://every.example:1")
    assert proxy_for(other) == "http://every.example:1"
    monkeypatch.setenv("HTTPS_PROXY", "proxy.example:3128")
    assert (proxy_for(other), proxy_for(here)) == ("http://proxy.example:3128", None)
    monkeypatch.setenv("NO_PROXY", "models.example")
    assert proxy_for(other) is None


def test_a_proxy_that_cannot_be_used_is_named_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "socks5://user:secret-word@proxy.example:1080")
    with pytest.raises(Fix, match="socks5") as caught:
        proxy_for(check_address("https://models.example", OWN))
    assert "secret-word" not in caught.value.message + caught.value.hint


def through_proxy(answer: bytes, target: str, heads: list[bytes]) -> Answer:
    """The answer that comes through a proxy that says this; `heads` gets what the proxy was sent."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(answer)
        writer.close()

    async def main() -> Answer:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            proxy = f"http://me:word@127.0.0.1:{server.sockets[0].getsockname()[1]}"
            return await exchange(check_address(target, OWN, allow_http=True), proxy)

    return asyncio.run(main())


def test_a_proxy_and_a_netrc_file_leave_our_key_alone(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("default login someone password something\n")
    heads: list[bytes] = []
    assert through_proxy(OK, "http://models.example", heads).body == b"{}"
    head = heads[0].decode()
    assert head.startswith("POST http://models.example/v1/messages HTTP/1.1\r\n")
    assert f"Bearer {CANARY}\r\n" in head
    assert "Proxy-Authorization: Basic " in head


def test_a_proxy_that_wants_a_password_stops_the_run_and_never_sees_the_key() -> None:
    heads: list[bytes] = []
    with pytest.raises(Fatal, match="password") as caught:
        through_proxy(b"HTTP/1.1 407 No\r\nContent-Length: 0\r\n\r\n", "https://models.example", heads)
    assert caught.value.code is Exit.UNREACHABLE
    assert heads[0].startswith(b"CONNECT models.example:443 ")
    assert CANARY.encode() not in heads[0]


def test_a_proxy_that_is_down_is_waited_for() -> None:
    with pytest.raises(Retry) as caught:
        through_proxy(b"HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n", "https://models.example", [])
    assert caught.value.kind == "connection"
