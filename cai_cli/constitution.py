"""Principles: load, check, inherit, and the seeded pick of those that a row is held to."""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from cai_cli import chance, documents
from cai_cli.documents import Document, Problem, Step
from cai_cli.errors import Fix
from cai_cli.shipped import shipped

How = Literal["weighted", "uniform", "in_order", "all"]
Priority = Literal["", "safe", "ethical", "guidelines", "helpful"]
PRIORITIES: tuple[Priority, ...] = ("safe", "ethical", "guidelines", "helpful")  # what goes first where critiques conflict


@dataclass(frozen=True, slots=True, kw_only=True)
class Principle:
    """What a response is critiqued by, and revised to meet."""

    name: str
    category: str  # harmlessness | honesty | helpfulness | any other word
    description: str
    critique_prompt: str
    revision_prompt: str
    weight: float = 1.0  # >= 0; 0: never picked
    examples: tuple[str, ...] = ()
    source: str = ""
    priority: Priority = ""  # empty: after those that have one


@dataclass(frozen=True, slots=True, kw_only=True)
class Criterion:
    """What a labeler compares two responses by."""

    name: str
    category: str
    text: str
    weight: float = 1.0  # >= 0; 0: never picked


N = TypeVar("N", Principle, Criterion)

HHH = Principle(
    name="hhh",
    category="general",
    description="The response is helpful, harmless and honest.",
    critique_prompt="Say where the response fails to be helpful, where it could do harm, and where it is not honest.",
    revision_prompt="Rewrite the response so that it is as helpful as it can be while it stays harmless and honest.",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Constitution:
    name: str
    version: str
    principles: tuple[Principle, ...]
    preferences: tuple[Criterion, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of everything in it; the layout of the file and its comments do not count."""
        content = asdict(self, dict_factory=_without_unset)
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def principle(self, name: str) -> Principle | None:
        """The principle of that name, if there is one."""
        return next((principle for principle in (*self.principles, HHH) if principle.name == name), None)

    def rank(self, name: str) -> int:
        """Where a principle stands when critiques conflict: 0 goes first; unknown or without a priority: after all the others."""
        principle = self.principle(name)
        return PRIORITIES.index(principle.priority) if principle and principle.priority else len(PRIORITIES)

    def weighing(self, categories: Mapping[str, float]) -> Constitution:
        """The same, every weight multiplied by its category's, 1 where none is given. Raises: Fix: no such category, none left"""
        known = sorted({one.category for one in self.principles} | {one.category for one in self.preferences})
        for name in (name for name in categories if name not in known):
            hint = _near(name, known) or f"there are: {', '.join(known)}"
            raise Fix(f"categories: the constitution '{self.name}' has no category '{name}'", hint)
        weighed = replace(
            self,
            principles=tuple(replace(one, weight=one.weight * categories.get(one.category, 1.0)) for one in self.principles),
            preferences=tuple(replace(one, weight=one.weight * categories.get(one.category, 1.0)) for one in self.preferences),
        )
        if not (any(one.weight for one in weighed.principles) and any(one.weight for one in weighed.preferences)):
            raise Fix("categories: every principle or every preference has weight 0 then", "leave one category above 0")
        return weighed

    def pick(self, how: How, count: int, seed: int, row_id: str, step: int) -> tuple[Principle, ...]:
        """The principles that a row is held to at a step (from 1); `count` 0: the built-in one."""
        return _pick(self.principles, how, count, step, seed, row_id, "principle") if count else (HHH,)

    def pick_preferences(self, how: How, count: int, seed: int, row_id: str, step: int) -> tuple[Criterion, ...]:
        """The criteria that a pair is compared by; `count` 0: the built-in one."""
        return _pick(self.preferences, how, count, step, seed, row_id, "criterion") if count else (_criterion(HHH),)


def _without_unset(items: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    # A constitution that knows nothing of priorities keeps the fingerprint that it had before there were any.
    return {name: value for name, value in items if name != "priority" or value}


def _pick(options: Sequence[N], how: How, count: int, step: int, *key: object) -> tuple[N, ...]:
    active = [option for option in options if option.weight > 0]
    if how == "all":
        return tuple(active)
    if how == "in_order":
        start = (step - 1) * count
        return tuple(active[(start + n) % len(active)] for n in range(min(count, len(active))))
    by_name = {option.name: option for option in active}
    weights = [option.weight if how == "weighted" else 1.0 for option in active]
    return tuple(by_name[name] for name in chance.weighted(list(by_name), weights, count, *key, step))


def _criterion(principle: Principle) -> Criterion:
    return Criterion(name=principle.name, category=principle.category, text=principle.description, weight=principle.weight)


BUILT_IN = Constitution(name="built-in", version="1", principles=(HHH,), preferences=(_criterion(HHH),))

_TOP = ("name", "version", "extends", "principles", "preferences")


def load(path: Path) -> Constitution:
    """Read a constitution and those it extends.

    Takes: a YAML file; `extends` in it is a path relative to the file, or a shipped name such as general. What is inherited comes
    first; an entry of the same name takes its place. Without `preferences`, here or inherited, they are made from the principles.
    Raises: Fix, with every problem of a file as file:line
    """
    return _load(path, ())


def _load(path: Path, above: tuple[Path, ...]) -> Constitution:
    document = documents.load(path)
    problems: list[Problem] = _check_top(document)
    parent_path, problem = _parent(document, path, (*above, path.resolve()))
    problems += problem
    principles = _entries(document, "principles", Principle, problems)
    preferences = _entries(document, "preferences", Criterion, problems)
    if problems:
        raise documents.all_at_once(problems)
    parent = _load(parent_path, (*above, path.resolve())) if parent_path else None
    return _whole(document, parent, principles, preferences)


def _whole(
    document: Document, parent: Constitution | None, principles: Sequence[Principle], preferences: Sequence[Criterion]
) -> Constitution:
    principles = _inherit(parent.principles if parent else (), principles)
    # Preferences that the parent only made from its principles are made afresh, so that they cover the principles added here.
    inherited = parent.preferences if parent and parent.preferences != tuple(map(_criterion, parent.principles)) else ()
    preferences = _inherit(inherited, preferences) or tuple(map(_criterion, principles))
    for part, entries in (("principles", principles), ("preferences", preferences)):
        if not any(entry.weight > 0 for entry in entries):
            what = "every weight is 0, so none can be picked" if entries else "there are none"
            raise documents.all_at_once([(f"{document.where((part,))}: {part}: {what}", "one with a weight above 0 is needed")])
    version = document.value.get("version", "")
    return Constitution(name=document.value["name"], version=version, principles=principles, preferences=preferences)


def _inherit(inherited: Sequence[N], own: Sequence[N]) -> tuple[N, ...]:
    return tuple(({entry.name: entry for entry in inherited} | {entry.name: entry for entry in own}).values())


def _check_top(document: Document) -> list[Problem]:
    problems = _unknown(document, (), document.value, _TOP)
    for key in ("name", "version", "extends"):
        if key in document.value:
            problems += _check_text(document, (key,), document.value[key])
    if "name" not in document.value:
        problems.append((f"{document.where()}: 'name' is missing", "name the constitution"))
    return problems


def _parent(document: Document, path: Path, above: tuple[Path, ...]) -> tuple[Path | None, list[Problem]]:
    name = document.value.get("extends")
    if not isinstance(name, str) or not name.strip():
        return None, []
    candidates = (path.parent / name, shipped("configs", "constitutions", f"{name}.yaml"))
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    where = f"{document.where(('extends',))}: extends"
    if found is None:
        names = sorted(file.stem for file in shipped("configs", "constitutions").glob("*.yaml"))
        return None, [(f"{where}: there is no constitution '{name}'", _near(name, names) or f"shipped are: {', '.join(names)}")]
    if found.resolve() in above:
        return None, [(f"{where}: '{name}' extends this one in turn", "take one of the two out")]
    return found, []


def _entries(document: Document, part: str, shape: type[N], problems: list[Problem]) -> list[N]:
    """The readable entries of a part; what is wrong with the others is added to `problems`."""
    values = document.value.get(part, [])
    if not isinstance(values, list):
        problems.append(
            (f"{document.where((part,))}: {part} must be a list, not {documents.kind(values)}", "begin each with '- name:'")
        )
        return []
    entries: dict[str, N] = {}
    for n, value in enumerate(values):
        found = _check_entry(document, (part, n), value, shape) or _check_name(document, (part, n), value["name"], entries)
        problems += found
        if not found:
            entries[value["name"]] = _entry(shape, value)
    return list(entries.values())


def _entry(shape: type[N], value: dict[str, Any]) -> N:
    values: dict[str, Any] = {key: tuple(item) if isinstance(item, list) else item for key, item in value.items()}
    return shape(**values | {"weight": float(value.get("weight", 1.0))})


def _check_name(document: Document, path: tuple[Step, ...], name: str, earlier: dict[str, N]) -> list[Problem]:
    where = document.where((*path, "name"))
    if name == HHH.name:
        return [(f"{where}: the name '{name}' belongs to the built-in principle", "choose another name")]
    if name in earlier:
        return [(f"{where}: '{name}' is there twice", "names tell entries apart: choose another")]
    return []


def _check_entry(document: Document, path: tuple[Step, ...], value: Any, shape: type[Any]) -> list[Problem]:
    if not isinstance(value, dict):
        return [
            (
                f"{document.where(path)}: {documents.dotted(path)}: must be keys and values, not {documents.kind(value)}",
                "begin with '- name:'",
            )
        ]
    hints = typing.get_type_hints(shape)
    problems = _unknown(document, path, value, list(hints))
    for field in fields(shape):
        if field.name in value:
            problems += _CHECKS[hints[field.name]](document, (*path, field.name), value[field.name])
        elif field.default is MISSING:
            problems.append(
                (f"{document.where(path)}: {documents.dotted(path)}: '{field.name}' is missing", f"add '{field.name}: ...'")
            )
    return problems


def _check_text(document: Document, path: tuple[Step, ...], value: Any) -> list[Problem]:
    if isinstance(value, str) and value.strip():
        return []
    where = f"{document.where(path)}: {documents.dotted(path)}"
    if isinstance(value, str) or value is None:
        return [(f"{where}: is empty", "write a text, or leave the key out where it may be")]
    hint = f"write '{document.written(path)}' in quotes" if isinstance(value, (int, float)) else "write a text"
    return [(f"{where}: must be text, not {documents.kind(value)}", hint)]


def _check_weight(document: Document, path: tuple[Step, ...], value: Any) -> list[Problem]:
    if type(value) in (int, float) and math.isfinite(value) and value >= 0:
        return []
    return [
        (
            f"{document.where(path)}: {documents.dotted(path)}: must be a number, 0 or more",
            "1 is the default, 0 switches the entry off",
        )
    ]


def _check_texts(document: Document, path: tuple[Step, ...], value: Any) -> list[Problem]:
    if not isinstance(value, list):
        return [
            (
                f"{document.where(path)}: {documents.dotted(path)}: must be a list of texts, not {documents.kind(value)}",
                "begin each with '- '",
            )
        ]
    return [problem for n, item in enumerate(value) for problem in _check_text(document, (*path, n), item)]


def _check_priority(document: Document, path: tuple[Step, ...], value: Any) -> list[Problem]:
    if value in PRIORITIES:
        return []
    known = f"known are: {', '.join(PRIORITIES)}; or leave it out"
    what = f"{document.where(path)}: {documents.dotted(path)}: is no priority"
    return [(what, _near(value, PRIORITIES) or known if isinstance(value, str) else known)]


_CHECKS: dict[Any, Any] = {
    str: _check_text, float: _check_weight, tuple[str, ...]: _check_texts, Priority: _check_priority,
}  # fmt: skip


def _unknown(document: Document, path: tuple[Step, ...], value: dict[str, Any], known: Sequence[str]) -> list[Problem]:
    inside = f"{documents.dotted(path)}: " if path else ""
    return [
        (
            f"{document.where((*path, key))}: {inside}unknown key '{key}'",
            _near(str(key), known) or f"known are: {', '.join(known)}",
        )
        for key in value
        if key not in known
    ]


def _near(word: str, known: Sequence[str]) -> str:
    """A hint that names the nearest known word, or nothing."""
    return f"did you mean '{match[0]}'?" if (match := difflib.get_close_matches(word, known, 1)) else ""
