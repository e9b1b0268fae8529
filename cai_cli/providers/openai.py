"""Chat completions: OpenAI's, and any server that speaks them (vLLM, llama.cpp, SGLang, Ollama, LiteLLM, OpenRouter...).

The only protocol here that tells log-probabilities, so the one for soft labels and expected scores.
"""

from __future__ import annotations

import os
import re

from cai_cli.flow import Model, Reply, Request
from cai_cli.providers._answers import encoded
from cai_cli.providers._chat import body_of, check_params, reply_from
from cai_cli.providers._fleet import Endpoint, Fleet, endpoint, refuse_keyless
from cai_cli.providers._keys import Address, check_address, custom_headers, key_from, openai_key

OWN_HOST = "api.openai.com"
CUSTOM = "OPENAI_CUSTOM_HEADERS"
ACCOUNT = {"openai-organization": "OPENAI_ORG_ID", "openai-project": "OPENAI_PROJECT_ID"}  # headers, and where they come from


class ChatCompletions:
    """Chat completions as a dialect."""

    route, rates = "chat/completions", "x-ratelimit-"

    def encode(self, request: Request, address: Address) -> bytes:
        return encoded(body_of(request, address.place == "own"))

    def headers(self, request: Request | None) -> dict[str, str]:
        return {}

    def root(self, address: Address) -> str:
        """A base URL without a path gets /v1; one with a path is taken as it is, as the SDK does."""
        return "/" if re.search(r"//[^/]+/", address.url) else "/v1/"

    def read(self, body: bytes, request: Request) -> Reply:
        return reply_from(body, request)


def connect(model: Model) -> Fleet:
    """Open the servers that `model` names: its base URLs, else OPENAI_BASE_URL, else OpenAI itself.

    Raises: Fix: an address that may not be used, a missing key, a setting that chat completions do not have
    """
    from cai_cli.providers._http import Http

    given = os.environ.get("OPENAI_BASE_URL", "").strip()
    urls = model.base_urls or (given or f"https://{OWN_HOST}/v1",)
    endpoints = [_endpoint(model, url) for url in urls]
    for found in endpoints:
        check_params(model.params, found.address.place == "own")
    return Fleet(dialect=ChatCompletions(), endpoints=endpoints, http=Http())


def _endpoint(model: Model, url: str) -> Endpoint:
    address = check_address(url, OWN_HOST, model.allow_http, within=OWN_HOST)
    key = None if "authorization" in custom_headers(address, CUSTOM) else openai_key(address, model.key_env)
    found = endpoint(address, key, CUSTOM, {} if address.place == "other" else _account())
    refuse_keyless(found, "OPENAI_API_KEY")
    return found


def _account() -> dict[str, str]:
    """The headers that say for which organization and project is asked."""
    return {header: found.value for header, variable in ACCOUNT.items() if (found := key_from(variable))}
