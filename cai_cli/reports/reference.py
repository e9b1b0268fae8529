"""What the documentation lists, taken from the code: exit codes, the columns of rows, the keys of a config. Data, not pages."""

from __future__ import annotations

import inspect
import io
import re
import tokenize
import types
import typing
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from cai_cli.errors import Exit
from cai_cli.settings import ModelSection, Section
from cai_cli.validation import sections_in

_FIELD = re.compile(r"    (\w+)(?::| =)")
_WORDS = {str: "text", int: "whole number", float: "number", bool: "true or false", dict: "keys and values", type(None): "null"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitCode:
    code: int
    name: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a row. `columns`: of each entry, where it is a list of objects."""

    name: str
    type: str  # in words: text, whole number, list of Vote ...
    meaning: str
    columns: tuple[Column, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Key:
    """A key of a config. `path`: dotted, from the top."""

    path: str
    type: str  # in words, with the range
    default: str  # as YAML writes it; empty: it must be given
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A section of a config, or its top level (path "")."""

    path: str
    meaning: str
    keys: tuple[Key, ...]


def exit_codes() -> list[ExitCode]:
    """Every exit code, by rising number."""
    said = _comments(Exit)
    return [ExitCode(code=int(one), name=one.name.lower(), meaning=said[one.name]) for one in sorted(Exit)]


def row_stages() -> tuple[str, ...]:
    """The stages that make rows, in the order data flows."""
    from cai_cli.engine import plan

    return plan.stage_names()


def row_fields(stage: str) -> tuple[Column, ...]:
    """The columns of a stage's rows, in their order. Raises: KeyError: no such stage"""
    from cai_cli.engine import plan

    return columns(plan.shapes()[stage])


def columns(shape: type[Any]) -> tuple[Column, ...]:
    """The columns of a record; what each means is the comment behind its field."""
    said = _inherited(shape)
    hints = typing.get_type_hints(shape)
    return tuple(
        Column(name=one.name, type=_said(hints[one.name]), meaning=said.get(one.name, ""), columns=_inner(hints[one.name]))
        for one in fields(shape)
    )


def _inner(hint: Any) -> tuple[Column, ...]:
    inner = next((one for one in typing.get_args(hint) if is_dataclass(one)), None)
    return columns(typing.cast("type[Any]", inner)) if inner else ()


def _inherited(shape: type[Any]) -> dict[str, str]:
    """The comments of a record's fields, those of the records that it builds on among them."""
    found: dict[str, str] = {}
    for kind in reversed([kind for kind in shape.__mro__ if is_dataclass(kind)]):
        found |= _comments(kind)
    return found


def _comments(kind: type[Any]) -> dict[str, str]:
    """The comment at the end of each field's line, by the field's name."""
    source = inspect.getsource(kind)
    lines = source.split("\n")
    found = {}
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        field = _FIELD.match(lines[token.start[0] - 1]) if token.type == tokenize.COMMENT else None
        if field:
            found[field[1]] = token.string.lstrip("# ")
    return found


def _said(hint: Any) -> str:
    """A type in words: text, number or null, list of Vote."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return " or ".join(_said(one) for one in typing.get_args(hint))
    if typing.get_origin(hint) is tuple:
        return f"list of {_said(typing.get_args(hint)[0])}"
    return _WORDS.get(hint) or str(hint.__name__)


# The config.


def config_parts() -> list[Part]:
    """The top level of a config and its sections, the stages' last, each with its keys."""
    from cai_cli.config import Config, stage_kinds
    from cai_cli.engine import plan

    order = [name.replace("-", "_") for name in plan.stage_names()]
    stages = sorted(stage_kinds(), key=lambda one: order.index(one[0]))
    own = {name: kind for name, field in Config.model_fields.items() for kind in sections_in(field.annotation)}
    top = tuple(_key("", name, field) for name, field in Config.model_fields.items() if name not in own)
    said = {name: (Config.model_fields[name].description or "", kind) for name, kind in own.items()}
    return [
        Part(path="", meaning=_sentence(Config.__doc__), keys=top),
        *(Part(path=name, meaning=_one_line(meaning), keys=tuple(_keys(name, kind))) for name, (meaning, kind) in said.items()),
        *(Part(path=name, meaning=meaning, keys=tuple(_keys(name, kind))) for name, meaning, kind in stages),
    ]


def config_keys() -> list[Key]:
    """Every key of a config, section by section."""
    return [key for part in config_parts() for key in part.keys]


def _keys(path: str, kind: type[Section]) -> Iterator[Key]:
    """The keys of a section, those of the sections in it behind their own; a model's stand once, at the top."""
    for name, field in kind.model_fields.items():
        inner = [one for one in sections_in(field.annotation) if one is not ModelSection]
        yield _key(path, name, field)
        for one in inner:
            yield from _keys(f"{path}.{name}{'[]' if typing.get_origin(field.annotation) is list else ''}", one)


def _key(path: str, name: str, field: Any) -> Key:
    return Key(
        path=f"{path}.{name}".removeprefix("."), type=_type(field), default=_default(field), meaning=_one_line(field.description)
    )


def _one_line(text: str | None) -> str:
    return " ".join((text or "").split())


def _sentence(text: str | None) -> str:
    return (text or "").strip().split("\n")[0]


def _default(field: Any) -> str:
    """A default as a config writes it; that of a section is its keys' own."""
    if field.is_required():
        return ""
    value = field.get_default(call_default_factory=True)
    return "its keys' own" if isinstance(value, Section) else _yaml(value)


def _yaml(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, Section):
        return _yaml(getattr(value, "name", value.model_dump()))  # a long default is told by its entries' names
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_yaml, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_yaml(one)}' for key, one in value.items())}}}"
    return str(value) if value != "" else '""'


def _type(field: Any) -> str:
    """A key's type in words, with what its constraints allow."""
    words, limits = _typed(field.annotation), _limits(field.metadata)
    return f"{words}, {limits}" if limits else words


def _typed(hint: Any) -> str:
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        limits = _limits([part for one in hint.__metadata__ for part in getattr(one, "metadata", None) or [one]])
        return f"{_typed(inner[0])}, {limits}" if limits else _typed(inner[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(_typed(one) for one in inner if one is not type(None)))
    if origin is typing.Literal:
        return " | ".join(_yaml(one) for one in inner)
    if origin is list:
        return f"list of {_typed(inner[0])}"
    if origin is dict:
        return "keys and values"
    if isinstance(hint, type) and issubclass(hint, Section):
        return "a model's keys" if hint is ModelSection else "keys and values"
    return _WORDS.get(hint) or str(getattr(hint, "__name__", hint))


_LIMITS = {"ge": "at least", "gt": "more than", "le": "at most", "lt": "less than"}


def _limits(constraints: Any) -> str:
    found = {name: value for one in constraints for name in _LIMITS if (value := getattr(one, name, None)) is not None}
    if found.keys() == {"ge", "le"}:
        return f"{found['ge']:g} to {found['le']:g}"
    return " and ".join(f"{_LIMITS[name]} {value:g}" for name, value in found.items())


# The environment.

_VARIABLES = {
    "ANTHROPIC_API_KEY": "The key for Anthropic's API; goes before the ones below.",
    "ANTHROPIC_AUTH_TOKEN": "A bearer token in its place.",
    "ANTHROPIC_PROFILE": "The profile to take a token from; else workload identity, else the active profile.",
    "ANTHROPIC_CONFIG_DIR": "Where profiles lie. Default: ~/.config/anthropic.",
    "ANTHROPIC_BASE_URL": "Another server of the Messages API, where model.base_url names none.",
    "ANTHROPIC_CUSTOM_HEADERS": "Headers to send along, one 'Name: value' a line. OPENAI_CUSTOM_HEADERS: the same for OpenAI.",
    "OPENAI_API_KEY": "The key for OpenAI's API, and for chat-completions servers on this machine.",
    "OPENAI_BASE_URL": "Another chat-completions server, where model.base_url names none.",
    "OPENAI_ORG_ID": "For which organization is asked. OPENAI_PROJECT_ID: for which project.",
    "HF_TOKEN": "The key of the Hugging Face Hub: gated datasets, uploads.",
    "HTTPS_PROXY": "The proxy on the way out, as HTTP_PROXY, ALL_PROXY and NO_PROXY say; never for this machine.",
    "SSL_CERT_FILE": "Certificates to trust in place of the system's.",
    "NO_COLOR": "Set to anything: no colour.",
}


def environment() -> list[tuple[str, str]]:
    """The variables that are read: name, meaning. Those of the config first."""
    from cai_cli.config import ENVIRONMENT

    return [*((name, f"Over the config's {key}; a flag goes over it.") for name, key in ENVIRONMENT.items()), *_VARIABLES.items()]
