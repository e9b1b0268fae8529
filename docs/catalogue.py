"""Every message that `cai` can make, read from the code.

A message is made by constructing an error of cai_cli.errors, one of its kinds elsewhere, or a mistake in a config. What is passed
on from somewhere else (an exception's own text, a list of problems) is no message of its own.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "cai_cli"
# What the constructors are called, and the exit code where none is given; a reject ends a row, a retry waits.
KINDS = {
    "Fix": "USAGE", "Fatal": "STOPPED", "Mistake": "USAGE", "mistake": "USAGE", "Held": "STOPPED", "NoKey": "KEY",
    "Reject": "", "Retry": "",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One place that makes a message. What is put in when it is made stands as {name}."""

    kind: str
    said: str
    hint: str
    exit: str  # the name of the exit code; empty for what ends a row or waits
    path: str  # inside cai_cli
    lines: range

    @property
    def place(self) -> str:
        return f"{self.path}:{self.lines.start}"


def messages() -> list[Message]:
    """All messages, file by file."""
    return [message for path in _files() for message in _of_file(path)]


def _of_file(path: Path) -> Iterator[Message]:
    module = _tree(path)
    for scope in (module, *(node for node in ast.walk(module) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))):
        assigned = sorted((pair for node in _own(scope) for pair in _assigned(node)), key=lambda pair: pair[1].lineno)
        for node in _own(scope):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in KINDS:
                before = {name: value for name, value in assigned if value.lineno <= node.lineno}  # the last one before it
                yield from _message(node, path, {**_constants(), **before})


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


@functools.cache
def _files() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "shipped_files" not in path.parts)


@functools.cache
def _constants() -> dict[str, ast.expr]:
    """The texts that modules keep under a name in capitals."""
    pairs = (pair for path in _files() for node in _tree(path).body for pair in _assigned(node))
    return {name: value for name, value in pairs if name.isupper() and isinstance(value, ast.Constant | ast.JoinedStr)}


def _own(scope: ast.AST) -> Iterator[ast.AST]:
    """A scope's nodes without those of the functions inside it."""
    waiting = list(ast.iter_child_nodes(scope))
    while waiting:
        node = waiting.pop(0)
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting.extend(ast.iter_child_nodes(node))


def _assigned(node: ast.AST) -> Iterator[tuple[str, ast.expr]]:
    """Names that stand for a text, so that a message that was put into a variable is read all the same."""
    if isinstance(node, ast.Assign):
        for target in node.targets:
            if isinstance(target, ast.Name):
                yield target.id, node.value
            elif isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
                pairs = zip(target.elts, node.value.elts, strict=False)
                yield from ((name.id, value) for name, value in pairs if isinstance(name, ast.Name))


def _message(call: ast.Call, path: Path, named: dict[str, ast.expr]) -> Iterator[Message]:
    kind = call.func.id  # type: ignore[attr-defined]
    if any(isinstance(argument, ast.Starred) for argument in call.args):
        return
    arguments: Sequence[ast.expr] = call.args[1:] if kind in ("Mistake", "mistake") else call.args
    keywords = {keyword.arg: keyword.value for keyword in call.keywords}
    said = ("'{key}' " if kind == "mistake" else "") + (_text(arguments[0], named) if arguments else "")
    hint = keywords.get("hint") or (arguments[1] if len(arguments) > 1 else None)
    codes = [part.attr for part in ast.walk(call) if isinstance(part, ast.Attribute) and _is_exit(part)]
    yield Message(
        kind=kind, said=said, hint=_text(hint, named) if hint else "", exit=codes[0] if codes else KINDS[kind],
        path=path.relative_to(PACKAGE).as_posix(), lines=range(call.lineno, (call.end_lineno or call.lineno) + 1),
    )  # fmt: skip


def _is_exit(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id == "Exit"


def _text(node: ast.expr, named: dict[str, ast.expr], depth: int = 3) -> str:
    """An expression as a text: what is known beforehand as it is, the rest as {what it is}."""
    match node:
        case ast.Constant(value=str(value)):
            return value
        case ast.JoinedStr(values=values):
            return "".join(_text(part, named, depth) for part in values)
        case ast.FormattedValue(value=value):
            return _text(value, named, depth)
        case ast.Name(id=name) if name in named and depth:
            return _text(named[name], named, depth - 1)
        case ast.IfExp(body=body, orelse=other) if depth:
            return " | ".join(filter(None, (_text(body, named, depth - 1), _text(other, named, depth - 1))))
        case _:
            return "{" + _name(node) + "}"


def _name(node: ast.expr) -> str:
    """What stands in a gap, in a word or two."""
    match node:
        case ast.Attribute(attr=attr):
            return attr.lstrip("_")
        case ast.Name(id=name):
            return name.lstrip("_")
        case ast.Call(func=function):
            return _name(function)
        case ast.Subscript(value=value):
            return _name(value)
        case _:
            return "..."
