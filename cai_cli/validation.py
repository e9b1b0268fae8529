"""What is wrong with a section's values, in the words of the person who wrote them; pydantic finds it.

After the first look, what was wrong is taken out and the rest is looked at again: checks that come later see a whole section,
and nobody has to run a command once per mistake.
"""

from __future__ import annotations

import copy
import difflib
import json
import re
import sys
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import ValidationError

from cai_cli.documents import Step, dotted
from cai_cli.errors import TOLD
from cai_cli.settings import Section

S = TypeVar("S", bound=Section)
KeyPath = tuple[Step, ...]

_ROUNDS = 5  # looks at a section: one finds nearly all; validators that need several fields come after it
_WANTED = {
    "int": "a whole number",
    "float": "a number",
    "string": "text",
    "bool": "true or false",
    "list": "a list",
    "tuple": "a list",
    "set": "a list",
    "frozen_set": "a list",
    "dict": "keys and values",
    "model": "keys and values",
    "none_required": "null",
    "literal_error": "{expected}",
    "enum": "{expected}",
    "greater_than": "more than {gt:g}",
    "greater_than_equal": "at least {ge:g}",
    "less_than": "less than {lt:g}",
    "less_than_equal": "at most {le:g}",
    "finite_number": "a finite number",
    "string_too_short": "text",
    "string_too_long": "at most {max_length} characters",
    "string_pattern_mismatch": "text that matches {pattern}",
    "too_short": "a list of at least {min_length}",
    "too_long": "a list of at most {max_length}",
}  # keys: pydantic's error types, without _type, _parsing or _from_float behind them
_KIND = re.compile(r"_(type|attributes_type|parsing|parsing_size|from_float)$")
_SECRET = re.compile(r"api_?key|token$|secret|password", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that the user corrects. `path` is where it stands, `what` begins with its section."""

    path: KeyPath
    what: str
    hint: str = ""

    def __post_init__(self) -> None:
        sys.audit(TOLD, self.what)


def validated(
    kind: type[S], raw: Any, at: KeyPath, written: Callable[[KeyPath], str], known: Sequence[str] = ()
) -> tuple[S | None, list[Mistake]]:
    """Read a section from plain values.

    Takes: at: the section's own path; written: gives a scalar as it stands in the file; known: more keys, for near misses
    Gives: the section, without what was wrong (None: nothing could be saved), and every mistake
    """
    mistakes: list[Mistake] = []
    seen: set[KeyPath] = set()
    given = raw
    for _ in range(_ROUNDS):
        try:
            # As JSON: a YAML list may then be read into a tuple, and nothing else becomes laxer.
            return kind.model_validate_json(json.dumps(raw)), mistakes
        except ValidationError as error:
            found = _by_path(error, raw)
        for path, errors in found.items():
            if path not in seen and not _is_left_over(path, errors, seen, given):
                mistakes.append(_mistake(kind, raw, path, errors, at, written, known))
        raw = _without(raw, found, seen)
        seen |= found.keys()
    return None, mistakes


def mistake(path: KeyPath, what: str, hint: str = "") -> Mistake:
    """A mistake in the value at `path`; `what` follows the value's name."""
    section, key = _named(path)
    return Mistake(path, f"{section}'{key}' {what}", hint)


def near(word: str, known: Iterable[str]) -> str:
    """The hint for a word that is not known: what was probably meant, or all that could be."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, 1)
    if close:
        return f"did you mean '{close[0]}'?"
    return f"known are: {', '.join(names)}" if names else ""


def unknown_key(path: KeyPath, known: Iterable[str]) -> Mistake:
    """A key that the section around it does not have."""
    *section, key = path
    around = f"{dotted(section)}: " if section else ""
    secret = _SECRET.search(str(key)) and "keys come from the environment (ANTHROPIC_API_KEY and the like), never from a config"
    return Mistake(path, f"{around}unknown key '{key}'", secret or near(str(key), known))


def _named(path: KeyPath) -> tuple[str, str]:
    """A path as "section: " and the name of the value in it, list positions with their list: labelers[0]."""
    last = max((n for n, step in enumerate(path) if isinstance(step, str)), default=0)
    section = dotted(path[:last])
    return f"{section}: " if section else "", dotted(path[last:])


def _by_path(error: ValidationError, raw: Any) -> dict[KeyPath, list[Mapping[str, Any]]]:
    """The errors of each value. A union gives one for each of its types: they are one mistake."""
    found: dict[KeyPath, list[Mapping[str, Any]]] = {}
    for one in error.errors(include_url=False, include_input=False):
        found.setdefault(_real(one["loc"], raw, one["type"] == "missing"), []).append(one)
    # str | list[str] of [1]: that it is no text is not what was meant, that its first entry is none is.
    return {
        path: errors
        for path, errors in found.items()
        if not any(len(other) > len(path) and other[: len(path)] == path for other in found) or errors[0]["type"] == "value_error"
    }


def _real(loc: Sequence[Any], raw: Any, missing: bool) -> KeyPath:
    """A location without the names of union members that pydantic writes into it."""
    path: list[Any] = []
    for step in loc:
        if (isinstance(raw, dict) and step in raw) or (isinstance(raw, list) and isinstance(step, int) and step < len(raw)):
            path.append(step)
            raw = raw[step]
    return (*path, loc[-1]) if missing else tuple(path)


def _is_left_over(path: KeyPath, errors: Sequence[Mapping[str, Any]], seen: set[KeyPath], given: Any) -> bool:
    """Whether a list is too short, or a key missing, only because what was wrong around it has been taken out."""
    types = {error["type"] for error in errors}
    return (types == {"too_short"} and any(path == other[:-1] for other in seen)) or (types == {"missing"} and _has(given, path))


def _has(raw: Any, path: KeyPath) -> bool:
    try:
        _at(raw, path)
    except (KeyError, IndexError, TypeError):
        return False
    return True


def _mistake(
    kind: type[Section], raw: Any, path: KeyPath, errors: list[Mapping[str, Any]], at: KeyPath,
    written: Callable[[KeyPath], str], known: Sequence[str],
) -> Mistake:  # fmt: skip
    types, full = {str(error["type"]) for error in errors}, (*at, *path)
    if "extra_forbidden" in types:
        return unknown_key(full, [*_keys_at(kind, path[:-1]), *known])
    if "missing" in types:
        section, key = _named(full)
        return Mistake(full, f"{section}'{key}' is missing", f"add '{full[-1]}: ...'")
    own = [str(error["ctx"]["error"]) for error in errors if error["type"] in ("value_error", "assertion_error")]
    if own:
        return Mistake(full, f"{dotted(full)}: {'; '.join(own)}")
    value = _at(raw, path)
    wanted = list(dict.fromkeys(_want(error) for error in errors))
    hint = _hint(value, written(full), types, errors) or _hint_of_section(kind, raw, path)
    return mistake(full, f"must be {' or '.join(wanted)}, not {_given(value, written(full))}", hint)


def _want(error: Mapping[str, Any]) -> str:
    template = _WANTED.get(_KIND.sub("", error["type"]))
    wanted = template.format(**error.get("ctx", {})) if template else str(error["msg"])
    return {"False": "false", "True": "true", "None": "null"}.get(wanted, wanted)


def _given(value: Any, written: str) -> str:
    if value is None:
        return "empty"
    if isinstance(value, list):
        return f"a list of {len(value)}" if value else "an empty list"
    if isinstance(value, dict):
        return "keys and values"
    shown = written or (json.dumps(value) if isinstance(value, bool | int | float) else value)
    shown = shown if len(shown) <= 40 else shown[:37] + "..."
    if isinstance(value, str):
        return f"the text '{shown}'" if value else "empty text"
    return f"the number {shown}" if not isinstance(value, bool) else shown


def _hint(value: Any, written: str, types: set[str], errors: list[Mapping[str, Any]]) -> str:
    wanted = {_KIND.sub("", name) for name in types}
    if "string" in wanted and isinstance(value, bool | int | float):
        return f"write '{written or value}' in quotes"
    if "bool" in wanted and isinstance(value, str) and value.lower() in ("yes", "y", "on", "no", "n", "off", "true", "false"):
        return f"write {'true' if value.lower() in ('yes', 'y', 'on', 'true') else 'false'}"
    if "int" in wanted and isinstance(value, float) and value.is_integer():
        return f"write {int(value)}"
    if wanted & {"int", "float"} and isinstance(value, str) and re.fullmatch(r"[-+]?[0-9]+(\.[0-9]+)?", value):
        return (
            f"write {value}, without quotes"
            if not written.startswith("${")
            else "a variable is text: CAI_CONCURRENCY, CAI_BUDGET_USD or --set take numbers"
        )
    options = [option for error in errors for option in re.findall(r"'([^']*)'", str(error.get("ctx", {}).get("expected", "")))]
    close = difflib.get_close_matches(value, options, 1) if isinstance(value, str) else []
    return f"did you mean '{close[0]}'?" if close else ""


def _hint_of_section(kind: type[Section], raw: Any, path: KeyPath) -> str:
    """How to write what stands where keys and values are wanted: false for a stage, a name for what has one."""
    value = _at(raw, path)
    if not path:
        return "write off" if value is False else ""
    if not isinstance(value, str) or not value or "name" not in _keys_at(kind, path):
        return ""
    around = _at(raw, path[:-1])
    if not isinstance(around, list):
        return f"write {{name: {value}}}"
    names = [one.get("name") if isinstance(one, dict) else one for one in around]
    return f"write [{', '.join(f'{{name: {name}}}' for name in names if isinstance(name, str))}]"


def _at(raw: Any, path: KeyPath) -> Any:
    for step in path:
        raw = raw[step]
    return raw


def _keys_at(kind: type[Section], path: KeyPath) -> list[str]:
    """The keys that the section at `path` inside `kind` takes."""
    kinds = [kind]
    for step in path:
        if isinstance(step, str):
            kinds = [
                inner
                for outer in kinds
                if step in outer.model_fields
                for inner in sections_in(outer.model_fields[step].annotation)
            ]
    return [key for found in kinds for key in found.model_fields]


def sections_in(hint: Any) -> list[type[Section]]:
    """The sections that a field's type names: one for `ModelSection | None`, none for `int`."""
    if isinstance(hint, type) and issubclass(hint, Section):
        return [hint]
    return [section for part in typing.get_args(hint) for section in sections_in(part)]


def _without(raw: Any, found: Iterable[KeyPath], seen: set[KeyPath]) -> Any:
    """The same values without the wrong ones. What must be there gets some text; if that will not do, what is around it goes."""
    raw = copy.deepcopy(raw)
    for path in sorted(found, key=lambda path: [str(step).zfill(9) for step in path], reverse=True):
        try:
            around = _at(raw, path[:-1])
            if path and isinstance(around, dict) and path[-1] not in around:
                around[path[-1]] = "missing"
                continue
            target = path[:-1] if path in seen else path
            if not target:
                return {}
            del _at(raw, target[:-1])[target[-1]]
        except (KeyError, IndexError, TypeError):
            continue  # it went with what is around it
    return raw
