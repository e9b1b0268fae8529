"""YAML that means what its writer meant: YAML 1.2's core schema, a line for every value, and nothing that runs or explodes.

PyYAML reads YAML 1.1, where `no` is false, `012` is 10, `1:30` is 90 and the second of two equal keys wins. Only its
parser is used here; what a scalar means is decided here, and what two readers could take differently is refused by name.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cai_cli.errors import Fix

MAX_BYTES = 1_000_000
MAX_DEPTH = 100
MAX_NODES = 100_000  # after aliases are expanded
MAX_DIGITS = 100  # longer whole numbers are a mistake, and Python's int() refuses them from 4300 on

Step = str | int
Problem = tuple[str, str]  # (message, hint)

_CONSTANTS = {"": None, "~": None} | {
    spelling: value
    for word, value in (("null", None), ("true", True), ("false", False))
    for spelling in (word, word.title(), word.upper())
}
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?::-(.*))?", re.DOTALL)
_UNPRINTABLE = yaml.reader.Reader.NON_PRINTABLE  # compiled already; ours would cost 5 ms again
_SECRET = ("KEY", "TOKEN", "SECRET", "PASSWORD")
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass(frozen=True, slots=True)
class _Node:
    line: int
    content: Any  # a scalar's value | list[_Node] | dict[key, (line of the key, _Node)]
    written: str = ""  # a scalar as it stands in the file, before ${...} is replaced
    size: int = 1  # nodes in it, aliases expanded

    def value(self) -> Any:
        """The value, built afresh, so that two aliases of one anchor never share a list."""
        if isinstance(self.content, dict):
            return {key: node.value() for key, (_, node) in self.content.items()}
        if isinstance(self.content, list):
            return [node.value() for node in self.content]
        return self.content


@dataclass(frozen=True, slots=True)
class Document:
    """A parsed file: its value, and where each part of it stands."""

    name: str
    value: dict[str, Any]
    root: _Node

    def _find(self, path: Sequence[Step]) -> tuple[int, _Node, bool]:
        line, node = self.root.line, self.root
        for step in path:
            if isinstance(node.content, dict) and step in node.content:
                line, node = node.content[step]
            elif isinstance(node.content, list) and isinstance(step, int) and 0 <= step < len(node.content):
                node = node.content[step]
                line = node.line
            else:
                return line, node, False  # not further: what is missing holds nothing, and a later name may stand here too
        return line, node, True

    def where(self, path: Sequence[Step] = ()) -> str:
        """The place of a value as "file:line"; of what is missing, the place of the nearest part around it."""
        return f"{self.name}:{self.line(path)}"

    def line(self, path: Sequence[Step] = ()) -> int:
        """The line of a value, counted from 1."""
        return self._find(path)[0]

    def written(self, path: Sequence[Step]) -> str:
        """A scalar as it stands in the file (3.10 where the value is 3.1; ${NAME} unreplaced); "" for anything else."""
        _, node, whole = self._find(path)
        return node.written if whole else ""


def load(path: Path, env: Mapping[str, str] | None = None) -> Document:
    """Read a YAML file whose top is a mapping.

    Takes: env: where ${NAME} and ${NAME:-default} in values come from; None: they are text like any other
    Raises: Fix, with every problem found, each beginning "file:line: "
    """
    return loads(_read(path), str(path), env)


def loads(text: str, name: str, env: Mapping[str, str] | None = None, first_line: int = 1) -> Document:
    """The same for text that stands in `name`, from `first_line` on."""
    root = _parse(text, name, env, first_line)
    if root is None or not isinstance(root.content, dict):
        what = (
            "this file is empty" if root is None or root.content is None else f"must be keys and values, not {kind(root.value())}"
        )
        line = first_line if root is None else root.line
        raise Fix(f"{name}:{line}: {what}", "write 'key: value', one a line")
    return Document(name, root.value(), root)


def parse_scalar(text: str, name: str = "value") -> Any:
    """One value, as it would stand behind `key:`, flow lists and mappings included. Raises: Fix, as loads."""
    root = _parse(text, name, None, 1)
    return None if root is None else root.value()


def all_at_once(problems: Sequence[Problem], then: str = "") -> Fix:
    """One error that holds every problem. Takes: at least one; `then`: what to type when they are mended"""
    return Fix(*problems[0], problems=tuple(problems), then=then)


def kind(value: Any) -> str:
    """What a value is, in words that YAML's users have."""
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "true or false"
    return {int: "a whole number", float: "a number", str: "text", list: "a list", dict: "keys and values"}[type(value)]


def read_some(path: Path) -> bytes:
    """A file's bytes, up to one more than MAX_BYTES. Raises: Fix: it cannot be read"""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError as error:
        raise Fix(f"there is no file '{path}'", lookalike(path)) from error
    except OSError as error:
        raise Fix(f"{path}: cannot be read: {error.strerror or error}", "check the path and its permissions") from error


def lookalike(path: Path) -> str:
    """The hint for a file that is not there: one beside it with nearly that name, or with that ending; or what is wrong."""
    try:
        beside = sorted(entry.name for entry in path.parent.iterdir() if not entry.name.startswith("."))
    except OSError:
        return f"there is no folder '{path.parent}' either: check the path"
    if close := difflib.get_close_matches(path.name, beside, 1):
        return f"did you mean '{path.parent / close[0]}'?"
    alike = [str(path.parent / name) for name in beside if path.suffix and name.endswith(path.suffix)][:3]
    return f"there is: {', '.join(alike)}" if alike else "check the path; it is relative to where you are"


def _read(path: Path) -> str:
    data = read_some(path)
    if len(data) > MAX_BYTES:
        raise Fix(
            f"{path}:1: this file is larger than {MAX_BYTES // 1_000_000} MB",
            "prompts and other data belong in files of their own",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise Fix(f"{path}:{line}: this is not UTF-8 (byte 0x{data[error.start]:02x})", "save the file as UTF-8") from error


def _parse(text: str, name: str, env: Mapping[str, str] | None, first_line: int) -> _Node | None:
    if len(text) > MAX_BYTES:
        raise Fix(f"{name}:{first_line}: this is longer than {MAX_BYTES} characters", "data belongs in files of its own")
    if (bad := _UNPRINTABLE.search(text)) is not None:
        line = first_line + text.count("\n", 0, bad.start())
        raise Fix(
            f"{name}:{line}: the character U+{ord(bad[0]):04X} may not stand in YAML",
            "delete it; in double quotes, \\u escapes it",
        )
    reading = _Reading(text, name, env, first_line)
    try:
        root = reading.document()
    except yaml.YAMLError as error:
        reading.problems.append(_not_yaml(error, text, name, first_line))
    if reading.problems:
        raise all_at_once(reading.problems)
    return root


def _not_yaml(error: yaml.YAMLError, text: str, name: str, first_line: int) -> Problem:
    mark = error.problem_mark if isinstance(error, yaml.MarkedYAMLError) else None
    if not isinstance(error, yaml.MarkedYAMLError) or mark is None:
        return f"{name}:{first_line}: this is not YAML: {error}", "see yaml.org"
    lines = text.rstrip().split("\n")
    if mark.line >= len(lines):
        return (
            f"{name}:{first_line + len(lines) - 1}: this is not YAML: it ends too early",
            "close the bracket or the quotes that are open",
        )
    place, line = f"{name}:{first_line + mark.line}: ", lines[mark.line]
    if "\t" in line[: len(line) - len(line.lstrip())]:
        return f"{place}this line is indented with a tab", "indent with spaces"
    return (
        f"{place}this is not YAML: {error.problem} (column {mark.column + 1})",
        "text that holds ': ' or ' #', or begins with a sign, needs quotes",
    )


class _Reading:
    """One pass over the parser's events; what is wrong but lets the rest be read goes to `problems`."""

    def __init__(self, text: str, name: str, env: Mapping[str, str] | None, first_line: int) -> None:
        self.events: Iterator[yaml.Event] = yaml.parse(text, Loader=_LOADER)
        self.name, self.env, self.first_line = name, env, first_line
        self.problems: list[Problem] = []
        self.anchors: dict[str, _Node] = {}
        self.nodes = 0

    def document(self) -> _Node | None:
        next(self.events)  # the stream's start
        event = next(self.events)
        if isinstance(event, yaml.StreamEndEvent):
            return None
        root = self.node(next(self.events), ())
        next(self.events)  # the document's end
        if not isinstance(event := next(self.events), yaml.StreamEndEvent):
            self.problem(event, (), "a second document begins", "one file holds one document: delete from '---' on")
        return root

    def line(self, event: yaml.Event) -> int:
        return self.first_line + (event.start_mark.line if event.start_mark else 0)

    def problem(self, event: yaml.Event, path: tuple[Step, ...], what: str, hint: str) -> None:
        section = f"{dotted(path)}: " if path else ""
        self.problems.append((f"{self.name}:{self.line(event)}: {section}{what}", hint))

    def stop(self, event: yaml.Event, what: str, hint: str) -> Fix:
        self.problem(event, (), what, hint)
        return all_at_once(self.problems)

    def count(self, event: yaml.Event, nodes: int) -> None:
        self.nodes += nodes
        if self.nodes > MAX_NODES:
            raise self.stop(event, f"more than {MAX_NODES} values, aliases expanded", "data belongs in files of its own")

    def node(self, event: yaml.Event, path: tuple[Step, ...]) -> _Node:
        if len(path) > MAX_DEPTH:
            raise self.stop(
                event, f"nested more than {MAX_DEPTH} deep", "no key of a config is that deep: is a bracket left open?"
            )
        if isinstance(event, yaml.AliasEvent):
            return self.alias(event, path)
        assert isinstance(event, yaml.NodeEvent)
        self.count(event, 1)
        self.refuse_tag(event, path)
        node = self.content(event, path)
        if event.anchor is not None:
            self.anchors[event.anchor] = node
        return node

    def alias(self, event: yaml.AliasEvent, path: tuple[Step, ...]) -> _Node:
        name = str(event.anchor)
        if name not in self.anchors:
            self.problem(
                event,
                path,
                f"*{name} refers to &{name}, which is not complete before it",
                f"write '&{name}' above, or quote the text",
            )
            return _Node(self.line(event), None)
        self.count(event, self.anchors[name].size)
        return self.anchors[name]

    def content(self, event: yaml.NodeEvent, path: tuple[Step, ...]) -> _Node:
        line = self.line(event)
        if isinstance(event, yaml.ScalarEvent):
            return _Node(line, self.scalar(event, path), str(event.value))
        if isinstance(event, yaml.SequenceStartEvent):
            items = self.items(path)
            return _Node(line, items, size=1 + sum(node.size for node in items))
        entries = self.entries(path)
        return _Node(line, entries, size=1 + sum(node.size for _, node in entries.values()))

    def items(self, path: tuple[Step, ...]) -> list[_Node]:
        nodes: list[_Node] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            nodes.append(self.node(event, (*path, len(nodes))))
        return nodes

    def entries(self, path: tuple[Step, ...]) -> dict[str, tuple[int, _Node]]:
        entries: dict[str, tuple[int, _Node]] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.key(event, path)
            node = self.node(next(self.events), (*path, key))
            if key and key in entries:
                self.problem(event, path, f"'{_short(key)}' is given twice, first in line {entries[key][0]}", "keep one of them")
            entries.setdefault(key, (self.line(event), node))
        return entries

    def key(self, event: yaml.Event, path: tuple[Step, ...]) -> str:
        """A key is its text: `on:` and `1:` are the keys 'on' and '1'."""
        if not isinstance(event, yaml.ScalarEvent):
            self.node(event, path)
            self.problem(event, path, "a key must be a word", "text that begins with [ { or * needs quotes")
            return ""
        self.count(event, 1)
        self.refuse_tag(event, path)
        if event.implicit[0] and event.value == "<<":
            self.problem(event, path, "merge keys (<<) are not read", "write the keys out; an alias may stand for a whole value")
        elif event.value == "":
            self.problem(event, path, "a key is empty", "write its name before the colon")
        if event.anchor is not None:
            self.anchors[event.anchor] = _Node(self.line(event), event.value, event.value)
        return str(event.value)

    def refuse_tag(self, event: yaml.Event, path: tuple[Step, ...]) -> None:
        if (tag := getattr(event, "tag", None)) is not None:
            short = _short(tag.replace("tag:yaml.org,2002:", "!!"))
            self.problem(
                event, path, f"the tag {short} is refused", "delete it: a value is text, a number, a list or keys, nothing else"
            )

    def scalar(self, event: yaml.ScalarEvent, path: tuple[Step, ...]) -> Any:
        text = str(event.value)
        if event.implicit[0]:
            if text in _CONSTANTS:
                return _CONSTANTS[text]
            if "_" in text[1:] and _is_number(text[0] + text[1:].replace("_", "")):
                plain = text.replace("_", "")
                self.problem(
                    event,
                    path,
                    f"{_short(text)} is a number to some readers and text to others",
                    f"write {_short(plain)}, or quote it",
                )
            if _is_number(text):
                return self.number(event, text, path)
        return text if self.env is None else self.expand(event, text, path)

    def number(self, event: yaml.ScalarEvent, text: str, path: tuple[Step, ...]) -> int | float:
        if len(text) > MAX_DIGITS or _NOT_FINITE.fullmatch(text) or not math.isfinite(value := _number(text)):
            self.problem(
                event,
                path,
                f"{_short(text)} is not a number that can be used here",
                "write a finite number, or null for no limit",
            )
            return 0
        return value

    def expand(self, event: yaml.ScalarEvent, text: str, path: tuple[Step, ...]) -> str:
        """Replace ${NAME} and ${NAME:-default}; $${ stands for ${ itself."""
        return _REFERENCE.sub(lambda found: self.reference(event, found, path), text)

    def reference(self, event: yaml.ScalarEvent, found: re.Match[str], path: tuple[Step, ...]) -> str:
        assert self.env is not None
        if found[0] == "$${":
            return "${"
        variable = _VARIABLE.fullmatch(found[1])
        if variable is None or not found[2]:
            self.problem(
                event,
                path,
                f"{_short(found[0])} is not a reference to a variable",
                "write ${NAME}, ${NAME:-default}, or $${ for the characters ${",
            )
            return ""
        name, default = variable[1], variable[2]
        if name.upper().endswith(_SECRET):
            self.problem(
                event,
                path,
                f"${{{name}}}: a key never goes through a config",
                "keys are read from the environment; model.key_env names the variable",
            )
            return ""
        value = self.env.get(name) or default
        if value is None and name not in self.env:
            self.problem(
                event, path, f"the environment variable {name} is not set", f"export {name}=..., or write ${{{name}:-default}}"
            )
        return value or ""


def dotted(path: Sequence[Step]) -> str:
    """A path as people write it: label_pairs.labelers[0].name."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path).removeprefix(".")


def _short(text: str) -> str:
    return text if len(text) <= 40 else text[:37] + "..."


def _is_number(text: str) -> bool:
    return any(pattern.fullmatch(text) for pattern in (_INT, _FLOAT, _NOT_FINITE))


def _number(text: str) -> int | float:
    if _INT.fullmatch(text):
        return int(text, 0) if text.startswith(("0o", "0x")) else int(text)
    value = float(text)
    # Who writes 1e3 for a count means 1000; beyond 2**53 a float no longer says which whole number it is.
    whole = "e" in text.lower() and value.is_integer() and abs(value) <= 2**53
    return int(value) if whole else value
