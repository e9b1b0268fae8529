"""Fill a JSON schema: with what is known under a property's name where it fits, else with the plainest value of its type."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

Known = dict[str, tuple[Any, ...]]  # candidates for a property, best first
Schema = Mapping[str, Any]

_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str, "number": (int, float), "integer": int, "boolean": bool, "array": list, "object": dict, "null": type(None),
}  # fmt: skip
_PLAIN: dict[str, Any] = {"string": "", "number": 0, "integer": 0, "boolean": False, "null": None}


def fill(schema: Schema, known: Known, root: Schema | None = None) -> dict[str, Any]:
    """An object with exactly the schema's properties."""
    root = root or schema
    properties = _resolved(schema, root).get("properties", {})
    return {name: _value(_resolved(part, root), known.get(name, ()), root) for name, part in properties.items()}


def enum_of(schema: Schema, name: str) -> list[Any] | None:
    """The values that a property may have, where the schema lists them."""
    found: list[Any] | None = _resolved(schema.get("properties", {}).get(name, {}), schema).get("enum")
    return found


def _resolved(schema: Schema, root: Schema) -> Schema:
    while "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rpartition("/")[2]]
    return schema


def _value(schema: Schema, candidates: tuple[Any, ...], root: Schema) -> Any:
    fitting = [candidate for candidate in candidates if _fits(candidate, schema, root)]
    return fitting[0] if fitting else _plain(schema, root)


def _fits(value: Any, schema: Schema, root: Schema) -> bool:
    if "anyOf" in schema:
        return any(_fits(value, _resolved(part, root), root) for part in schema["anyOf"])
    if "enum" in schema:
        return value in schema["enum"]
    kinds = [schema["type"]] if isinstance(schema.get("type"), str) else schema.get("type", list(_TYPES))
    if not any(_is(value, kind) for kind in kinds):
        return False
    number = isinstance(value, int | float)
    return not number or bool(schema.get("minimum", value) <= value <= schema.get("maximum", value))


def _is(value: Any, kind: str) -> bool:
    return isinstance(value, _TYPES[kind]) and (kind == "boolean" or not isinstance(value, bool))


def _plain(schema: Schema, root: Schema) -> Any:
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return schema["enum"][0]
    if "anyOf" in schema:
        return _plain(_resolved(schema["anyOf"][0], root), root)
    kind = schema.get("type", "string")
    kind = kind if isinstance(kind, str) else kind[0]
    if kind == "object":
        return fill(schema, {}, root)
    if kind == "array":
        return [_plain(_resolved(schema["items"], root), root) for _ in range(schema.get("minItems", 0))]
    return max(_PLAIN[kind], schema.get("minimum", 0)) if kind in ("number", "integer") else _PLAIN[kind]
