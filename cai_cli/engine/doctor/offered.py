"""What a server says of a model: whether it is offered, until when, its limits, and what it can do."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from cai_cli.engine.doctor.finding import Finding, fail, ok, warn
from cai_cli.errors import Exit, Fatal, Retry
from cai_cli.flow import Model
from cai_cli.prices import near_name, price_of, retires
from cai_cli.providers._answers import clean, json_of
from cai_cli.validation import near

if TYPE_CHECKING:
    from cai_cli.providers._fleet import Endpoint, Fleet

SOON_DAYS = 60  # before a retirement: a dataset that is refreshed needs its next model by then
SHOWN = 12  # names of models in a hint
Info = Mapping[str, Any]


async def offers(fleet: Fleet, endpoint: Endpoint, model: Model, listed: Any, check_s: float) -> list[Finding] | None:
    """A model on one server, by its list, else by the model's own entry: an alias stands in no list. None: it tells of none."""
    entries = listed.get("data") if isinstance(listed, dict) else None
    if not isinstance(entries, list):
        return None
    by_name = {one["id"]: one for one in entries if isinstance(one, dict) and isinstance(one.get("id"), str)}
    info: Info | None = by_name.get(model.name)
    if info is None:
        info = await _alone(fleet, endpoint, model, check_s)
    if info is not None:
        return list(told_of(model, info))
    names = [clean(name) for name in by_name]
    hint = near(model.name, names[:SHOWN]) if names else "check model.base_url"
    what = f"{endpoint.address.host} does not offer it"
    return [fail(f"model {model.name}", what, hint.replace("known are", "it offers"), Exit.USAGE, offered=names)]


async def _alone(fleet: Fleet, endpoint: Endpoint, model: Model, check_s: float) -> Info | None:
    try:
        answer = await fleet.look(endpoint, f"models/{quote(model.name, safe='')}", check_s)
    except (Retry, Fatal):
        return None
    found = json_of(answer.body) if answer.status == 200 else None
    return found if isinstance(found, dict) else None


def told_of(model: Model, info: Info | None) -> Iterator[Finding]:
    """What is known of a model. `info`: the server's entry of it; None: it was not asked"""
    what, info = f"model {model.name}", info or {}
    until = _day(info.get("retires_at")) or retires(model)
    days = (until - datetime.date.today()).days if until else None
    facts = {"retires": until.isoformat() if until else None, **_limits(info), **_abilities(model, info)}
    said = "; ".join(filter(None, [_standing(info, until), _in_words(facts)]))
    hint = "name its successor in model.name; replies that the ledger holds stay"
    if info.get("lifecycle") == "retired" or (not info and days is not None and days < 0):
        yield fail(what, said, hint, Exit.USAGE, **facts)
    elif info.get("lifecycle") == "deprecated" or (days is not None and days < SOON_DAYS):
        yield warn(what, said, hint, **facts)
    else:
        yield ok(what, said, **facts)
    yield from _unfit(model, facts)
    yield from _unpriced(model)


def _standing(info: Info, until: datetime.date | None) -> str:
    life = info.get("lifecycle")
    begun = "offered" if info else ""
    if life == "retired":
        return "retired: requests fail"
    if life == "deprecated":
        begun = "deprecated: closed to new users"
    return f"{begun or 'offered'} until {until.isoformat()}" if until else begun


def _limits(info: Info) -> dict[str, int | None]:
    longest = next((info[key] for key in ("max_input_tokens", "max_model_len", "context_length") if key in info), None)
    found = {"max_input_tokens": longest, "max_tokens": info.get("max_tokens")}
    return {key: value if type(value) is int else None for key, value in found.items()}


def _abilities(model: Model, info: Info) -> dict[str, bool | None]:
    """What a run uses: structured output for critiques and verdicts, batches for half the price, log-probabilities for labels."""
    told = info.get("capabilities")
    told = told if isinstance(told, dict) else {}
    found = {name: told[key].get("supported") if isinstance(told.get(key), dict) else None
             for name, key in (("structured_output", "structured_outputs"), ("batches", "batch"))}  # fmt: skip
    return {**found, "log_probabilities": False if model.provider == "anthropic" else None}


def _in_words(facts: Mapping[str, Any]) -> str:
    said = [f"{facts[key]:,} tokens {way}" for key, way in (("max_input_tokens", "in"), ("max_tokens", "out")) if facts[key]]
    known = {True: "yes", False: "no"}
    names = (("structured_output", "structured output"), ("batches", "batches"), ("log_probabilities", "log-probabilities"))
    said += [f"{name}: {known[facts[key]]}" for key, name in names if facts[key] is not None]
    if facts["log_probabilities"] is None:
        said.append("log-probabilities: only a request tells (--ask)")
    return ", ".join(said)


def _unfit(model: Model, facts: Mapping[str, Any]) -> Iterator[Finding]:
    most = facts["max_tokens"]
    if most is not None and model.max_tokens > most:
        said = f"the config asks for {model.max_tokens:,}, and the model gives at most {most:,}"
        yield fail(f"max_tokens {model.name}", said, f"set model.max_tokens to {most} or less", Exit.USAGE)
    if facts["structured_output"] is False:
        said = "it has no structured output, which critiques and verdicts are asked in"
        yield warn(f"output {model.name}", said, "use critique.template: paper, or another model")


def _unpriced(model: Model) -> Iterator[Finding]:
    if price_of(model) is None:
        said = "nobody knows what it costs: a budget cannot be kept"
        hint = "set model.price: {input: ..., output: ...}, dollars per million tokens; 0 for a server of your own"
        hint = f"did you mean '{meant}'? if not, {hint}" if (meant := near_name(model)) else hint
        yield warn(f"price {model.name}", said, hint)


def _day(text: object) -> datetime.date | None:
    """The day of an RFC 3339 moment."""
    try:
        return datetime.date.fromisoformat(str(text)[:10]) if text else None
    except ValueError:
        return None
