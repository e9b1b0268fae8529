"""Which key may go to which address.

A key comes from the environment, or from where the provider's own SDK looks. It goes to the provider's own host, to this machine,
or to the one host that it is named for with `key_env`, and nothing but its last four characters is ever shown.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol
from urllib.parse import urlsplit

from cai_cli.errors import Exit, Fatal, Fix, Retry

if TYPE_CHECKING:
    from anthropic.lib.credentials import CredentialResult

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Place = Literal["own", "loopback", "other"]
CREDENTIALS = ("authorization", "x-api-key", "api-key")  # headers that prove who asks

_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*")
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_COMPATIBLE = ipaddress.IPv6Network("::/96")


# Addresses.


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A base URL that was checked, put together again from its parts so that no other parser can read another host in it."""

    url: str  # without a trailing slash
    host: str  # host or host:port
    place: Place

    @property
    def scheme(self) -> str:
        return self.url.partition(":")[0]


def check_address(url: str, own: str, allow_http: bool = False, within: str = "") -> Address:
    """Check a base URL before anything is sent there. `own` is the provider's own host, as is each within the domain `within`.

    Raises: Fix: not http or https, a user name in it, a query, a link-local host, plain http to another machine
    """
    shown = f"base URL '{re.sub(r'//.*@', '//...@', url)}'"
    name, port, path, scheme = _parts(url, shown)
    literal = _literal(name)
    if literal and is_link_local(literal):
        raise Fix(f"{shown}: link-local addresses are refused", "cloud machines keep their own secrets there; name another host")
    if not literal and not _NAME.fullmatch(name):
        raise Fix(f"{shown}: '{name}' is not a host name", "write it like https://models.example.org:8000")
    name = str(literal) if literal else name
    is_own = name == own or (within != "" and name.endswith(f".{within}"))
    place: Place = "own" if is_own else "loopback" if _is_loopback(name, literal) else "other"
    if scheme == "http" and place != "loopback" and not allow_http:
        raise Fix(f"{shown}: plain http would show the key and the texts to the network", "use https, or set allow_http: true")
    host = (f"[{name}]" if ":" in name else name) + (f":{port}" if port is not None else "")
    return Address(url=f"{scheme}://{host}{path.rstrip('/')}", host=host, place=place)


def _parts(url: str, shown: str) -> tuple[str, int | None, str, str]:
    # Printable ASCII without a backslash: on anything else URL parsers disagree about where the host ends.
    if not re.fullmatch(r"[!-\[\]-~]+", url):
        raise Fix(f"{shown} holds a character that no URL has", "write it like https://models.example.org:8000")
    try:
        parts = urlsplit(url)
        name, port = (parts.hostname or "").rstrip("."), parts.port
    except ValueError:
        raise Fix(f"{shown} is not a URL", "write it like https://models.example.org:8000") from None
    if parts.scheme not in ("http", "https"):
        raise Fix(
            f"{shown} must begin with https:// (or http:// on this machine)", "write it like https://models.example.org:8000"
        )
    if "@" in parts.netloc:
        raise Fix(f"{shown} holds a user name or password", "put the key into an environment variable and name it in key_env")
    if parts.query or parts.fragment:
        raise Fix(f"{shown} must end with its path", "leave out what stands behind ? and #")
    return name, port, parts.path, parts.scheme


def _literal(name: str) -> IPAddress | None:
    """The IP address that a name is, also in the notations that the resolver takes: 127.1, 0x7f000001, 017700000001."""
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(name))
    except OSError:
        return None


def is_link_local(ip: IPAddress) -> bool:
    """Whether this is 169.254/16 or fe80::/10, also when it is an IPv4 address inside an IPv6 one."""
    return ip.is_link_local or any(inner.is_link_local for inner in _embedded(ip))


def _embedded(ip: IPAddress) -> list[ipaddress.IPv4Address]:
    if isinstance(ip, ipaddress.IPv4Address):
        return []
    inner = [address for address in (ip.ipv4_mapped, ip.sixtofour) if address]
    if ip in _NAT64 or ip in _COMPATIBLE:
        inner.append(ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF))
    return inner


def _is_loopback(name: str, literal: IPAddress | None) -> bool:
    if literal is None:
        return name == "localhost"
    mapped = literal.ipv4_mapped if isinstance(literal, ipaddress.IPv6Address) else None
    return literal.is_loopback or (mapped is not None and mapped.is_loopback)


# Keys.


class NoKey(Fix):
    """A key is needed that is not set. `variable`: the environment variable it is looked for in, first of all."""

    code = Exit.KEY

    def __init__(self, message: str, hint: str, variable: str) -> None:
        super().__init__(message, hint)
        self.variable = variable


class Key(Protocol):
    """Proof that a request may be sent."""

    @property
    def base_url(self) -> str:
        """Where it is meant to go; empty: it does not say."""

    @property
    def label(self) -> str:
        """How messages call it."""

    async def headers(self) -> dict[str, str]:
        """What it adds to a request. Raises: Retry, Fatal: it could not be had"""

    def renew(self) -> bool:
        """The server refused it: whether there may be a newer one."""


@dataclass(frozen=True, slots=True)
class StaticKey:
    """A key that stays as it is."""

    value: str = field(repr=False)
    source: str  # the variable it came from
    base_url: str = ""

    @property
    def label(self) -> str:
        shown = f"that ends in {self.value[-4:]}" if len(self.value) >= 12 else "(too short to show a part of it)"
        return f"the key {shown}, from {self.source}"

    async def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.value}"}

    def renew(self) -> bool:
        return False


class ProfileKey:
    """A bearer token that the SDK gets and renews: from a profile, or by workload identity."""

    _BETA = "oauth-2025-04-20"  # the API takes such tokens only with this flag

    def __init__(self, found: CredentialResult) -> None:
        from anthropic.lib.credentials import TokenCache

        self._tokens, self._extra = TokenCache(found.provider), found.extra_headers
        self._base_url = found.base_url or ""

    @property
    def base_url(self) -> str:
        return self._base_url

    @property
    def label(self) -> str:
        return "the token of the Anthropic profile or workload identity"

    async def headers(self) -> dict[str, str]:
        from anthropic import AnthropicError

        try:
            token = await self._tokens.async_get_token()
        except AnthropicError as error:
            raise _no_token(error) from None
        return {**{name.lower(): value for name, value in self._extra.items()}, "authorization": f"Bearer {token}",
                "anthropic-beta": self._BETA}  # fmt: skip

    def renew(self) -> bool:
        self._tokens.invalidate()
        return True


def _no_token(error: Exception) -> Retry | Fatal:
    """What a failed token exchange means: the token server is away, or the credentials are wrong."""
    import httpx2

    status = getattr(error, "status_code", None) or 0
    if status in (408, 429) or status >= 500:
        return Retry("server", f"the token server answered {status}")
    if isinstance(error.__cause__, httpx2.HTTPError):
        return Retry("connection", "the token server cannot be reached")
    return Fatal(f"no token: {error}", "mend the profile, or export ANTHROPIC_API_KEY; then run the same command again", Exit.KEY)


def key_from(variable: str) -> StaticKey | None:
    """The key in an environment variable; None where it is unset or empty. Raises: Fix: it cannot be a key."""
    value = os.environ.get(variable, "").strip()  # $(cat file) and editors leave a newline; no key has one
    if not value:
        return None
    if not re.fullmatch(r"[!-~]+", value):
        raise Fix(f"the value of {variable} holds characters that no key has", f"set {variable} again, without quotes", Exit.KEY)
    return StaticKey(value, variable)


def anthropic_key(address: Address, key_env: str) -> Key | None:
    """The key for an address: `key_env` if it is named; else, on the provider's own host and on this machine, what the SDK finds.

    The order is the SDK's: ANTHROPIC_API_KEY, ANTHROPIC_AUTH_TOKEN, the profile in ANTHROPIC_PROFILE, workload identity, the
    active profile.
    Gives: None where there is none
    Raises: Fix: the variable that was named is empty, no variable was named for another host, a broken profile
    """
    if (found := named_key(address, key_env, "Anthropic's")) is not None:
        return found
    return key_from("ANTHROPIC_API_KEY") or key_from("ANTHROPIC_AUTH_TOKEN") or _profile_key(address.url)


def openai_key(address: Address, key_env: str) -> Key | None:
    """The key for an address: `key_env` if it is named; else, on the provider's own host and on this machine, OPENAI_API_KEY.

    Gives: None where there is none
    Raises: Fix: the variable that was named is empty, no variable was named for another host
    """
    return named_key(address, key_env, "OpenAI's") or key_from("OPENAI_API_KEY")


def named_key(address: Address, key_env: str, whose: str) -> StaticKey | None:
    """The key that `key_env` names; None where it names none and `whose` key may go to the address.

    Raises: Fix: the variable is empty, or another host's is not named
    """
    if key_env:
        if found := key_from(key_env):
            return found
        raise NoKey(f"{key_env}, which key_env names for {address.host}, is not set", f"export {key_env}=...", key_env)
    if address.place == "other":
        owner = whose.removesuffix("'s")
        raise Fix(f"no key is named for {address.host}, and {whose} goes to {owner} and to this machine only",
                  "set model.key_env to the environment variable that holds this host's key", Exit.KEY)  # fmt: skip
    return None


def _profile_key(base_url: str) -> ProfileKey | None:
    # The SDK takes seconds to import: only where there is a sign of what it would find.
    signs = ("ANTHROPIC_PROFILE", "ANTHROPIC_FEDERATION_RULE_ID", "ANTHROPIC_CONFIG_DIR")
    if not any(os.environ.get(name) for name in signs) and not (Path.home() / ".config" / "anthropic").is_dir():
        return None
    from anthropic import AnthropicError
    from anthropic.lib.credentials import default_credentials

    try:
        found = default_credentials(base_url=base_url)
    except AnthropicError as error:
        raise Fix(f"Anthropic's credentials: {error}", "mend the profile, or export ANTHROPIC_API_KEY=...", Exit.KEY) from None
    return ProfileKey(found) if found else None


def custom_headers(address: Address, variable: str = "ANTHROPIC_CUSTOM_HEADERS") -> dict[str, str]:
    """The headers in an environment variable ("Name: value" lines), as the SDKs read them, names in lower case.

    Credentials among them stay on the provider's own host and this machine.
    Raises: Fix: one that HTTP cannot carry
    """
    found = {}
    for line in os.environ.get(variable, "").split("\n"):
        name, colon, value = line.partition(":")
        if colon and name.strip():
            found[name.strip().lower()] = value.strip()
    if bad := [
        name for name, value in found.items() if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9a-z-]+", name) or not _is_value(value)
    ]:
        raise Fix(f"{variable}: header {bad[0]!r} cannot be sent", "write one 'Name: value' a line, in ASCII")
    if address.place == "other":
        found = {name: value for name, value in found.items() if name not in CREDENTIALS}
    return found


def _is_value(text: str) -> bool:
    return text.isascii() and text.replace("\t", " ").isprintable()
