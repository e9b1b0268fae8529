"""Keys: where each could come from, which is there, and which of them wins. No more than its last four characters is shown."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from cai_cli.engine.doctor.finding import Finding, fail, ok, warn
from cai_cli.errors import Exit, Fix
from cai_cli.providers import anthropic, openai
from cai_cli.providers._keys import (
    CREDENTIALS,
    Address,
    Key,
    anthropic_key,
    check_address,
    custom_headers,
    key_from,
    openai_key,
)

PROVIDERS = ("anthropic", "openai")
_VARIABLES = {"anthropic": ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"), "openai": ("OPENAI_API_KEY",)}
_CUSTOM = {"anthropic": anthropic.CUSTOM, "openai": openai.CUSTOM}
_BASES = {"anthropic": "ANTHROPIC_BASE_URL", "openai": "OPENAI_BASE_URL"}
_HOSTS = {"anthropic": anthropic.OWN_HOST, "openai": openai.OWN_HOST}


def findings() -> Iterator[Finding]:
    """Every key that this environment has, for the providers' own hosts."""
    found = {provider: _own(provider) for provider in PROVIDERS}
    none = not any(one.facts.get("present") for one in found.values())
    for provider, one in found.items():
        if none and provider == "anthropic" and one.mark == "ok":
            hint = "export ANTHROPIC_API_KEY=...; the simulated provider needs none"
            yield warn(one.what, one.detail, hint, **one.facts)
        else:
            yield one
        yield from _base_url(provider)
        yield from _headers(provider)
    yield hub()


def _own(provider: str) -> Finding:
    """The key that a provider's own host would get."""
    what, address = f"key {provider}", _address(provider)
    try:
        key = _winner(provider, address)
    except Fix as fix:
        return fail(what, fix.message, fix.hint, Exit.KEY, present=True)
    if key is None and not _credential_headers(provider):
        return ok(what, f"none: looked at {', '.join(_looked_at(provider))}", present=False)
    label = key.label if key else f"the credentials in {_CUSTOM[provider]}"
    return ok(what, label + _unused(provider, label), present=True, source=getattr(key, "source", label))


def _address(provider: str) -> Address:
    return check_address(f"https://{_HOSTS[provider]}", _HOSTS[provider])


def _winner(provider: str, address: Address) -> Key | None:
    if "authorization" in custom_headers(address, _CUSTOM[provider]):
        return None
    return anthropic_key(address, "") if provider == "anthropic" else openai_key(address, "")


def _credential_headers(provider: str) -> bool:
    return bool({*CREDENTIALS} & custom_headers(_address(provider), _CUSTOM[provider]).keys())


def _looked_at(provider: str) -> list[str]:
    more = ["ANTHROPIC_PROFILE", "workload identity", str(_folder())] if provider == "anthropic" else []
    return [*_VARIABLES[provider], *more]


def _folder() -> Path:
    return Path(os.environ.get("ANTHROPIC_CONFIG_DIR") or Path.home() / ".config" / "anthropic")


def unused(provider: str, label: str) -> str:
    """What else is there for a provider, and does not count beside the key of that label."""
    return _unused(provider, label) if provider in _VARIABLES else ""


def _unused(provider: str, label: str) -> str:
    """The SDK's order: what stands further behind is not looked at any more."""
    others = dict[str, str]()
    for variable in _VARIABLES[provider]:
        try:
            key = key_from(variable)
        except Fix:
            others[variable] = f"{variable} (not a key)"
            continue
        if key and not label.endswith(f"from {variable}"):
            others[variable] = f"{variable}{_ending(key.value)}"
    if provider == "anthropic" and not label.startswith("the token"):
        others |= _profiles()
    return f"; also there, and not used: {', '.join(others.values())}" if others else ""


def _ending(value: str) -> str:
    return f" (ends in {value[-4:]})" if len(value) >= 12 else ""


def _profiles() -> Mapping[str, str]:
    """Signs of a profile or of workload identity."""
    found = {name: f"{name} '{value}'" for name in ("ANTHROPIC_PROFILE",) if (value := os.environ.get(name))}
    if os.environ.get("ANTHROPIC_FEDERATION_RULE_ID"):
        found["workload"] = "workload identity (ANTHROPIC_FEDERATION_RULE_ID)"
    if _folder().is_dir():
        found["folder"] = f"profiles in {_folder()}"
    return found


def _base_url(provider: str) -> Iterator[Finding]:
    variable = _BASES[provider]
    if not (url := os.environ.get(variable, "").strip()):
        return
    try:
        address = check_address(url, _HOSTS[provider])
    except Fix as fix:
        yield fail(variable, fix.message, fix.hint, Exit.USAGE)
        return
    if address.place == "other":
        hint = "name its key in the config: model: {base_url: ..., key_env: VARIABLE}"
        yield warn(variable, f"{address.host}: not {provider}'s own, so it gets no key by itself", hint, host=address.host)
        return
    yield ok(variable, f"{address.host}: asked in place of {_HOSTS[provider]}", host=address.host)


def _headers(provider: str) -> Iterator[Finding]:
    """Custom headers by their names: a value may be a secret."""
    variable = _CUSTOM[provider]
    try:
        found = custom_headers(_address(provider), variable)
    except Fix as fix:
        yield fail(variable, fix.message, fix.hint, Exit.USAGE)
        return
    if found:
        yield ok(variable, f"sent along: {', '.join(found)}", headers=list(found))


def hub() -> Finding:
    """The key of the Hugging Face Hub: public datasets need none."""
    what = "key hub"
    try:
        key = key_from("HF_TOKEN")
    except Fix as fix:
        return fail(what, fix.message, fix.hint, Exit.KEY)
    if key:
        return ok(what, key.label, present=True, source="HF_TOKEN")
    file = Path(
        os.environ.get("HF_TOKEN_PATH") or Path(os.environ.get("HF_HOME") or Path.home() / ".cache/huggingface") / "token"
    )
    if file.is_file():
        return ok(what, f"a token in {file}", present=True, source=str(file))
    return ok(what, "none in HF_TOKEN: public datasets need none", present=False)
