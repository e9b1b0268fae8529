"""What each key of a config means: the text under it in the source, put where schemas are made from.

Pydantic would do this for every section when its module is imported, and read and parse the source each time: as long as 30
requests take, for texts that only `cai config schema`, the help and the documentation show.
"""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from types import ModuleType

from cai_cli.settings import Section
from cai_cli.validation import sections_in


def describe(kind: type[Section]) -> None:
    """Give each field of a section, and of the sections in it, the text under it as its description."""
    if kind in _DESCRIBED:
        return
    _DESCRIBED.add(kind)
    meant = _meanings(kind)
    for name, field in kind.model_fields.items():
        for inner in sections_in(field.annotation):
            describe(inner)
        field.description = field.description or meant.get(name)
    kind.model_rebuild(force=True)  # from its fields, after what it is made of was


_DESCRIBED: set[type[Section]] = set()


def _meanings(kind: type[Section]) -> dict[str, str]:
    """By field; those of the sections that it derives from, too."""
    known = dict[str, str]()
    for one in reversed(kind.__mro__):
        if issubclass(one, Section):
            known |= _texts(sys.modules[one.__module__]).get(one.__name__, {})
    return known


@functools.cache
def _texts(module: ModuleType) -> dict[str, dict[str, str]]:
    """By class and field: the text that stands as a statement of its own right after the field."""
    try:
        tree = ast.parse(inspect.getsource(module))
    except (OSError, TypeError):
        return {}  # there is no source, as of a stage in a session
    return {node.name: dict(_of_fields(node)) for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def _of_fields(node: ast.ClassDef) -> list[tuple[str, str]]:
    return [
        (field.target.id, inspect.cleandoc(below.value.value))
        for field, below in zip(node.body, node.body[1:], strict=False)
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str)
    ]
