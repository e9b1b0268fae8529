"""Servers and models: whether each can be reached, with which key, and what it says of the models that a config asks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any

from cai_cli import providers
from cai_cli.engine.doctor import connection, keys, question
from cai_cli.engine.doctor.finding import Finding, fail, ok, warn
from cai_cli.engine.doctor.offered import offers, told_of
from cai_cli.errors import Exit, Fatal, Fix, Retry
from cai_cli.flow import Model
from cai_cli.providers._answers import error_for, json_of, lower_names

if TYPE_CHECKING:
    from cai_cli.providers import Provider
    from cai_cli.providers._fleet import Endpoint, Fleet
    from cai_cli.providers._http import Answer

CHECK_S = 5.0  # for each check
SKEW_S = 30.0  # of the clocks, above which waits that a server names as moments go wrong
AGAIN = "check the network, model.base_url and the provider's status page; then: cai doctor CONFIG"
_LISTS = {"anthropic": "models?limit=1000", "openai": "models"}


def findings(models: Sequence[Model], offline: bool, ask: bool) -> Iterator[Finding]:
    """What a run would meet on its way to these models. `offline`: reach nobody; `ask`: pay for one question to each."""
    import uvloop

    yield from uvloop.run(_findings(models, offline, ask))


async def _findings(models: Sequence[Model], offline: bool, ask: bool) -> list[Finding]:
    """Groups are looked at side by side: a server that does not answer costs its seconds once."""
    groups = [_group(group, offline, ask) for group in _groups(models)]
    return [one for found in await asyncio.gather(*groups) for one in found]


def _groups(models: Sequence[Model]) -> list[list[Model]]:
    """Models that are reached in the same way."""
    found: dict[tuple[object, ...], list[Model]] = {}
    for model in models:
        found.setdefault((model.provider, model.base_urls, model.key_env, model.allow_http), []).append(model)
    return list(found.values())


async def _group(models: Sequence[Model], offline: bool, ask: bool) -> list[Finding]:
    provider_name = models[0].provider
    if provider_name == "simulated":
        names = ", ".join(dict.fromkeys(model.name or "simulated" for model in models))
        return [ok("provider simulated", f"{names}: built in; nothing to reach, no key, no cost")]
    try:
        provider = providers.connect(models[0])
    except Fix as fix:
        what = f"key {provider_name}" if fix.code == Exit.KEY else f"provider {provider_name}"
        return [fail(what, fix.message, fix.hint, fix.code)]
    try:
        return [one async for one in _looked_at(provider, models, offline, ask)]
    finally:
        await provider.close()


async def _looked_at(provider: Provider, models: Sequence[Model], offline: bool, ask: bool) -> Any:
    from cai_cli.providers._fleet import Fleet

    if isinstance(provider, Fleet):
        for endpoint in provider.endpoints:
            yield _key(models[0].provider, endpoint)
        found = [] if offline else await asyncio.gather(*(_server(provider, one, models) for one in provider.endpoints))
        for one in _once(one for several in found for one in several):
            yield one
    else:
        yield ok(f"provider {models[0].provider}", f"{provider.host}: which models it offers, only a request tells: --ask")
    if offline:
        for one in (one for model in _named(models) for one in told_of(model, None)):
            yield one
    elif ask:
        for request in question.requests_to(models):
            yield await question.asked(provider, request)


def _once(findings: Iterable[Finding]) -> list[Finding]:
    """Without what several servers say alike: a price, a day."""
    return list({(one.mark, one.what, one.detail): one for one in findings}.values())


def _named(models: Iterable[Model]) -> list[Model]:
    """One model of each name: the one that asks for the longest replies."""
    return list({model.name: model for model in sorted(models, key=lambda one: one.max_tokens)}.values())


def _key(provider: str, endpoint: Endpoint) -> Finding:
    source = getattr(endpoint.key, "source", "")
    said = endpoint.key_label + keys.unused(provider, endpoint.key_label)
    return ok(f"key {endpoint.address.host}", said, host=endpoint.address.host, source=source)


async def _server(fleet: Fleet, endpoint: Endpoint, models: Sequence[Model]) -> list[Finding]:
    """One server: the way there, its clock, its models."""
    address, what = endpoint.address, f"server {endpoint.address.host}"
    try:
        async with asyncio.timeout(CHECK_S):
            way = await connection.opened(address, endpoint.proxy)
    except connection.Unreached as error:
        return [fail(what, str(error), error.hint or AGAIN, Exit.UNREACHABLE, url=address.url)]
    except TimeoutError:
        return [fail(what, f"no connection in {CHECK_S:g} s", AGAIN, Exit.UNREACHABLE, url=address.url)]
    begun = time.perf_counter()
    try:
        answer = await fleet.look(endpoint, _LISTS[models[0].provider], CHECK_S)
    except (Retry, Fatal) as error:
        code = error.code if isinstance(error, Fatal) else Exit.UNREACHABLE
        hint = error.hint if isinstance(error, Fatal) else AGAIN
        said = error.message if isinstance(error, Fatal) else error.detail or error.kind
        return [fail(what, f"{way.said}, but {said}", hint, code, url=address.url)]
    took_ms = round((time.perf_counter() - begun) * 1000)
    return await _answered(fleet, endpoint, models, answer, f"{way.said}, answered in {took_ms} ms", took_ms, way.facts)


async def _answered(
    fleet: Fleet, endpoint: Endpoint, models: Sequence[Model], answer: Answer, said: str, took_ms: int, way: Mapping[str, Any]
) -> list[Finding]:
    host, what = endpoint.address.host, f"server {endpoint.address.host}"
    facts = {"url": endpoint.address.url, "status": answer.status, "answer_ms": took_ms, **way}
    if answer.status not in (200, 404, 405, 501):
        return [_refused(what, said, answer, endpoint, facts), *_clock(host, answer)]
    limits = {name: value for name, value in lower_names(answer.headers).items() if "ratelimit-" in name}
    shown = question.in_words(limits)
    told = [ok(f"limits {host}", f"a minute: {shown}", rate_limits=limits)] if shown else []
    found = [ok(what, said, **facts), *_clock(host, answer), *told]
    listed = json_of(answer.body) if answer.status == 200 else None
    for model in _named(models):
        one = await offers(fleet, endpoint, model, listed, CHECK_S)
        found += [_not_listed(host, model)] if one is None else one
    return found


def _refused(what: str, said: str, answer: Answer, endpoint: Endpoint, facts: Mapping[str, Any]) -> Finding:
    error = error_for(answer.status, answer.headers, answer.body, host=endpoint.address.host, key=endpoint.key_label)
    if isinstance(error, Fatal):
        return fail(what, error.message, error.hint.replace("the same command", "cai doctor"), error.code, **facts)
    if isinstance(error, Retry) and error.kind == "rate_limit":
        return warn(what, f"{said} with 429: other work uses up its limits", "a run waits for its share", **facts)
    return fail(what, f"{said} with {answer.status}", AGAIN, Exit.UNREACHABLE, **facts)


def _not_listed(host: str, model: Model) -> Finding:
    said = f"{host} does not list its models, so whether it has this one only a request tells"
    return warn(f"model {model.name}", said, "ask it once: cai doctor CONFIG --ask", host=host)


def _clock(host: str, answer: Answer) -> Iterator[Finding]:
    """The server's clock against ours. Its header counts whole seconds."""
    try:
        theirs = parsedate_to_datetime(lower_names(answer.headers).get("date", "")).timestamp()
    except (TypeError, ValueError, OverflowError):
        return
    ahead_s = time.time() - theirs
    if abs(ahead_s) > SKEW_S:
        said = f"{abs(ahead_s):,.0f} s {'ahead of' if ahead_s > 0 else 'behind'} {host}'s"
        hint = "set the clock (timedatectl set-ntp true): when limits are full again is told as a moment"
        yield warn("clock", said, hint, skew_s=round(ahead_s))
    else:
        yield ok("clock", f"within {max(1, round(abs(ahead_s)))} s of {host}'s", skew_s=round(ahead_s))
