"""
A plausible value for a JSON schema: the arguments of the trial account's tool calls.

The value is the smallest one: the required properties of an object, the fewest items
of a list. A property that is a shell command becomes a harmless ``echo``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

WORDS = "hello from the trial account"
MAX_DEPTH = 12

_COMMANDS = ("cmd", "command", "script")
_FORMATS = {
    "date": "2025-01-01",
    "date-time": "2025-01-01T00:00:00Z",
    "email": "trial@example.com",
    "ipv4": "127.0.0.1",
    "time": "00:00:00Z",
    "uri": "https://example.com/",
    "uuid": "00000000-0000-4000-8000-000000000000",
}
Schema = Mapping[str, Any]


def example(schema: object, root: object = None, name: str = "", depth: int = 0) -> Any:
    """
    A value that *schema* allows; its patterns are not checked.

    Args:
        root: the document that ``$ref`` points into; default *schema* itself.
        name: the property that the value is for.
    """
    root = schema if root is None else root
    if not isinstance(schema, Mapping) or depth > MAX_DEPTH:
        return WORDS
    for key in ("const", "default"):
        if key in schema:
            return schema[key]
    for key in ("enum", "examples"):
        if isinstance(schema.get(key), list) and schema[key]:
            return schema[key][0]
    other = _other(schema, root)
    if other is not None:
        return example(other, root, name, depth + 1)
    return _MAKERS.get(_kind(schema), _object)(schema, root, name, depth)


def _other(schema: Schema, root: object) -> object:
    """The schema that a reference or a choice leads to; None for any other schema."""
    ref = schema.get("$ref")
    if isinstance(ref, str) and ref.startswith("#/"):
        found = root
        for step in ref[2:].split("/"):
            step = step.replace("~1", "/").replace("~0", "~")
            found = found.get(step) if isinstance(found, Mapping) else None
        return found if found is not None else {}
    for key in ("anyOf", "oneOf"):
        choices = schema.get(key)
        if isinstance(choices, list) and choices:
            return _without_null(choices)
    parts = schema.get("allOf")
    if isinstance(parts, list) and parts and "type" not in schema:
        return _merged(parts)
    return None


def _without_null(choices: list[object]) -> object:
    return next((c for c in choices if c != {"type": "null"}), choices[0])


def _merged(parts: list[object]) -> Schema:
    merged: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items() if isinstance(part, Mapping) else ():
            if key == "properties":
                value = {**merged.get(key, {}), **value}
            elif key == "required":
                value = [*merged.get(key, []), *value]
            merged[key] = value
    return merged


def _kind(schema: Schema) -> str:
    kind = schema.get("type")
    if isinstance(kind, list) and kind:
        kind = next((k for k in kind if k != "null"), "null")
    if isinstance(kind, str):
        return kind
    if "items" in schema:
        return "array"
    return "object" if not schema or "properties" in schema else "string"


def _object(schema: Schema, root: object, name: str, depth: int) -> Any:
    properties = schema.get("properties")
    required = schema.get("required")
    if not isinstance(properties, Mapping) or not isinstance(required, list):
        return {}
    return {
        key: example(properties.get(key, {"type": "string"}), root, key, depth + 1)
        for key in required
        if isinstance(key, str)
    }


def _array(schema: Schema, root: object, name: str, depth: int) -> Any:
    least = schema.get("minItems")
    least = least if isinstance(least, int) and 0 <= least <= 100 else 0
    items = schema.get("items", {"type": "string"})
    if name in _COMMANDS and least <= 2:
        return ["echo", WORDS]
    return [example(items, root, name, depth + 1) for _ in range(least)]


def _string(schema: Schema, root: object, name: str, depth: int) -> Any:
    text = _FORMATS.get(str(schema.get("format")))
    text = text or (f"echo {WORDS}" if name in _COMMANDS else WORDS)
    least, most = schema.get("minLength"), schema.get("maxLength")
    if isinstance(least, int) and len(text) < least <= 10_000:
        text = text.ljust(least, ".")
    return text[:most] if isinstance(most, int) and most >= 0 else text


def _number(schema: Schema) -> float:
    low, above = schema.get("minimum"), schema.get("exclusiveMinimum")
    high = schema.get("maximum", schema.get("exclusiveMaximum"))
    value = 1.0
    if isinstance(high, int | float) and not isinstance(high, bool) and high <= value:
        value = high - 1
    if isinstance(low, int | float) and not isinstance(low, bool):
        value = max(value, low) if high is None else low
    if isinstance(above, int | float) and not isinstance(above, bool):
        value = max(value, above + (1 if high is None else 0.5 * (high - above)))
    step = schema.get("multipleOf")
    if isinstance(step, int | float) and step > 0:
        value = math.ceil(value / step) * step
    return value


def _integer(schema: Schema, root: object, name: str, depth: int) -> Any:
    return math.ceil(_number(schema))


def _float(schema: Schema, root: object, name: str, depth: int) -> Any:
    return _number(schema)


_MAKERS: dict[str, Callable[[Schema, object, str, int], Any]] = {
    "object": _object,
    "array": _array,
    "string": _string,
    "integer": _integer,
    "number": _float,
    "boolean": lambda schema, root, name, depth: False,
    "null": lambda schema, root, name, depth: None,
}
