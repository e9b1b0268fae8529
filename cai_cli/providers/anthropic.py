"""Anthropic's Messages API, and servers that speak it (llama.cpp, vLLM, SGLang, Ollama, LiteLLM...)."""

from __future__ import annotations

import os

from cai_cli.flow import Model, Reply, Request
from cai_cli.providers._fleet import Endpoint, Fleet, endpoint, refuse_keyless
from cai_cli.providers._keys import Address, anthropic_key, check_address, custom_headers
from cai_cli.providers._messages import VERSION, encode, reply_from, version_of

OWN_HOST = "api.anthropic.com"
CUSTOM = "ANTHROPIC_CUSTOM_HEADERS"


class Messages:
    """The Messages API as a dialect."""

    route, rates = "messages", "anthropic-ratelimit-"

    def encode(self, request: Request, address: Address) -> bytes:
        return encode(request)

    def headers(self, request: Request | None) -> dict[str, str]:
        return {"anthropic-version": version_of(request) if request else VERSION}

    def root(self, address: Address) -> str:
        """The SDK's users give the base with /v1 and without it."""
        return "/" if address.url.endswith("/v1") else "/v1/"

    def read(self, body: bytes, request: Request) -> Reply:
        return reply_from(body, request)


def connect(model: Model) -> Fleet:
    """Open the servers that `model` names: its base URLs, else ANTHROPIC_BASE_URL, else the profile's, else Anthropic itself.

    Raises: Fix: an address that may not be used, a missing key
    """
    from cai_cli.providers._http import Http

    given = os.environ.get("ANTHROPIC_BASE_URL", "").strip()
    urls = model.base_urls or ((given,) if given else ("",))
    return Fleet(dialect=Messages(), endpoints=[_endpoint(model, url) for url in urls], http=Http())


def _endpoint(model: Model, url: str) -> Endpoint:
    address = check_address(url or f"https://{OWN_HOST}", OWN_HOST, model.allow_http)
    key = None if "authorization" in custom_headers(address, CUSTOM) else anthropic_key(address, model.key_env)
    if key and key.base_url and not url:
        address = check_address(key.base_url, OWN_HOST, model.allow_http)
    found = endpoint(address, key, CUSTOM)
    refuse_keyless(found, "ANTHROPIC_API_KEY")
    return found
