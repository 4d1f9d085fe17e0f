"""
JSON schemas in the form that another vendor takes.

Rule 1: a tool's schema only has to describe: what a server refuses is written another
        way or left out, and named where a constraint is lost; the client checks its
        calls anyway.
Rule 2: a schema that the answer must obey may only become narrower: what cannot be
        forced is said in words, and what would mean something else is refused.
Rule 3: the client's own schema is never changed; what needs no change is not copied.

    kind: openai · anthropic · gemini · kimi · open
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from gateway.protocols.json_reader import Unsupported, dumped
from gateway.protocols.limit_values import UNIONS
from gateway.protocols.schema_kinds import gemini, kimi
from gateway.protocols.schema_references import (
    DEPTH_MAX,
    LISTS,
    MAPS,
    SINGLES,
    Schema,
    inlined,
    recursive,
    resolved,
)
from gateway.protocols.vendor_limits import limit

Drop = Callable[[str], None]
"""Takes the path, below the schema, of what is left out."""

_KEY = re.compile(limit("messages", "tool_schema_keys"))
_AT_NO_TOP: tuple[str, ...] = limit("chat", "tool_schema_union")
_NOT_FORCED: frozenset[str] = limit("messages", "format_keywords")
_NOT_STRICT = frozenset(
    "allOf oneOf not if then else dependentRequired dependentSchemas patternProperties "
    "propertyNames unevaluatedProperties contains prefixItems".split()
)
_STRING_FORMATS = frozenset(
    "date-time time date duration email hostname uri ipv4 ipv6 uuid".split()
)
_MIN_ITEMS = (0, 1)  # the only ones that Anthropic can force


def walked(
    schema: Schema, change: Callable[[Schema], Schema], depth: int = 0
) -> Schema:
    """
    *schema* with *change* made to each schema inside it, the inner ones first.

    Raises:
        Unsupported: it is nested too deeply.
    """
    if depth > DEPTH_MAX:
        raise Unsupported("")

    def inner(value: Any) -> Any:
        if isinstance(value, dict):
            return walked(value, change, depth + 1)
        return value

    fresh: Schema | None = None
    for key, value in schema.items():
        new = value
        if key in MAPS and isinstance(value, dict):
            new = {name: inner(one) for name, one in value.items()}
        elif key in LISTS and isinstance(value, list):
            new = [inner(one) for one in value]
        elif key in SINGLES:
            new = inner(value)
        if new is not value and new != value:
            fresh = schema.copy() if fresh is None else fresh
            fresh[key] = new
    return change(schema if fresh is None else fresh)


def types(schema: Schema) -> list[Any]:
    """The types that *schema* allows; [None] if it does not say."""
    kind = schema.get("type")
    return kind if isinstance(kind, list) else [kind]


def _names(schema: Schema) -> list[str]:
    names = schema.get("required")
    names = names if isinstance(names, list) else []
    return [name for name in names if isinstance(name, str)]


def _properties(schema: Schema) -> Schema:
    found = schema.get("properties")
    return found if isinstance(found, dict) else {}


# ---------------------------------------------------------------- tools


def for_tool(schema: Schema, kind: str, drop: Drop) -> Schema:
    """
    The schema of a tool's parameters for a server of *kind*.

    Raises:
        Unsupported: what cannot be left out, ``path`` is below the schema; or "": it
            is too deep or too large.
    """
    if kind == "open":
        return schema
    root = _rooted(schema, drop)
    if kind == "anthropic":
        return _with_legal_keys(root, drop)
    if kind == "gemini":
        return walked(inlined(root), gemini)
    if kind == "kimi":
        return walked(inlined(root), kimi)
    return walked(root, _with_items)


def _rooted(schema: Schema, drop: Drop) -> Schema:
    """*schema* as one object, without alternatives at its top."""
    target = resolved(schema, schema.get("$ref"))
    if target is not None:
        own = {key: value for key, value in schema.items() if key != "$ref"}
        schema = {**target, **own}
    lost = [key for key in _AT_NO_TOP if key in schema]
    if lost:
        schema = _merged(schema)
        for key in lost:
            drop(key)
    if schema.get("type") == "object" and isinstance(schema.get("properties"), dict):
        return schema
    return {**schema, "type": "object", "properties": _properties(schema)}


def _merged(schema: Schema) -> Schema:
    """The properties of every branch; required is what all branches require."""
    properties: Schema = {}
    required = _names(schema)
    for key in UNIONS:
        found = schema.get(key)
        branches = [
            resolved(schema, one.get("$ref")) or one
            for one in (found if isinstance(found, list) else ())
            if isinstance(one, dict)
        ]
        for branch in branches:
            properties |= _properties(branch)
        each = [set(_names(branch)) for branch in branches]
        together = set.union if key == "allOf" else set.intersection
        needed = together(*each) if each else set()
        required += [name for name in sorted(needed) if name not in required]
    merged = {key: value for key, value in schema.items() if key not in _AT_NO_TOP}
    merged["properties"] = properties | _properties(schema)
    if required:
        merged["required"] = required
    return merged


def _with_legal_keys(schema: Schema, drop: Drop) -> Schema:
    """*schema* without optional parameters whose names Anthropic refuses."""
    wrong = [name for name in schema["properties"] if not _KEY.fullmatch(name)]
    if not wrong:
        return schema
    for name in wrong:
        if name in _names(schema):
            raise Unsupported(f"properties.{name}")
        drop(f"properties.{name}")
    kept = {k: one for k, one in schema["properties"].items() if k not in wrong}
    return {**schema, "properties": kept}


def _with_items(schema: Schema) -> Schema:
    kinds = types(schema)
    if "array" in kinds and "items" not in schema:
        schema = {**schema, "items": {}}
    bare = "properties" not in schema and "additionalProperties" not in schema
    if "object" in kinds and bare:
        schema = {**schema, "properties": {}}
    return schema


# ---------------------------------------------------------------- answers


def is_strict(schema: Schema) -> bool:
    """
    Whether OpenAI takes *schema* as strict: every object closed, every property
    required, nothing that it cannot force.
    """
    fine = schema.get("type") == "object"

    def look(node: Schema) -> Schema:
        nonlocal fine
        if "object" in types(node):
            closed = node.get("additionalProperties") is False
            fine = fine and closed and set(_properties(node)) <= set(_names(node))
        fine = fine and not _NOT_STRICT & node.keys()
        return node

    try:
        walked(schema, look)
    except Unsupported:
        return False
    return fine


def for_answer(schema: Schema, drop: Drop) -> Schema:
    """
    The schema of an answer that Anthropic can force: every object closed, and the
    constraints that it does not know said in the descriptions.

    Raises:
        Unsupported: an object of any keys, or a recursive schema.
    """
    if recursive(schema):
        raise Unsupported("")

    def change(node: Schema) -> Schema:
        if "object" in types(node):
            node = _closed(node)
        return _in_words(node, drop)

    return walked(schema, change)


def _closed(node: Schema) -> Schema:
    extra = node.get("additionalProperties")
    if extra is False:
        return node
    if "properties" not in node or isinstance(extra, dict) and extra:
        raise Unsupported("")  # closed, it could hold nothing of what it is for
    return {**node, "additionalProperties": False}


def _in_words(node: Schema, drop: Drop) -> Schema:
    """*node* with what cannot be forced written in its description instead."""
    lost = [key for key in node if key in _NOT_FORCED]
    if node.get("minItems") not in (None, *_MIN_ITEMS):
        lost.append("minItems")
    if node.get("format") not in (None, *_STRING_FORMATS):
        lost.append("format")
    if not lost:
        return node
    kept = {key: value for key, value in node.items() if key not in lost}
    if "oneOf" in lost and "anyOf" not in kept:
        kept["anyOf"] = node["oneOf"]
        lost.remove("oneOf")
    if lost:
        words = ", ".join(f"{key}: {dumped(node[key])}" for key in lost)
        said = node.get("description")
        kept["description"] = f"{said}\n\n{{{words}}}" if said else f"{{{words}}}"
    for key in lost:
        drop(key)
    return kept
