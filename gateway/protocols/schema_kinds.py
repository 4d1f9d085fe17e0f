"""
Tool schemas of servers that take a part of JSON schema: Gemini's and Kimi's.

Sources: Gemini, ``Schema`` of its API reference ("Unknown name \"const\" … Cannot find
field"); Kimi, its "moonshot flavored json schema" and what it says of other ones ("when
using anyOf, type should be defined in anyOf items instead of the parent schema", "type
is not defined").
"""

from __future__ import annotations

from typing import Any

from gateway.protocols.schema_references import Schema

_GEMINI = frozenset(
    "type format title description nullable enum items minItems maxItems properties "
    "required minProperties maxProperties minLength maxLength pattern anyOf "
    "propertyOrdering minimum maximum".split()
)
_GEMINI_FORMATS = frozenset("enum date-time int32 int64 float double".split())
_ANY: tuple[Schema, ...] = tuple(
    {"type": kind}
    for kind in ("string", "number", "boolean", "object", "array", "null")
)


def gemini(node: Schema) -> Schema:
    """One schema, its inner ones done, as Gemini takes it."""
    fresh = {key: value for key, value in node.items() if key in _GEMINI}
    if "const" in node:
        fresh.setdefault("enum", [node["const"]])
    for key in ("oneOf", "allOf"):
        if isinstance(node.get(key), list):
            fresh.setdefault("anyOf", node[key])
    kinds = node.get("type")
    if isinstance(kinds, list):
        real = [kind for kind in kinds if kind != "null"]
        fresh.pop("type")
        if "null" in kinds:
            fresh["nullable"] = True
        if len(real) == 1:
            fresh["type"] = real[0]
        else:
            fresh["anyOf"] = [{"type": kind} for kind in real]
    if "enum" in fresh:
        _name_values(fresh)
    if fresh.get("format") not in _GEMINI_FORMATS:
        fresh.pop("format", None)
    if fresh.get("type") == "array":
        fresh.setdefault("items", {"type": "string"})
    if "required" in fresh:
        known = fresh.get("properties", {})
        fresh["required"] = [name for name in fresh["required"] if name in known]
    return fresh


def _name_values(fresh: Schema) -> None:
    """Gemini has string values only; others are listed in the description."""
    values = fresh["enum"]
    if isinstance(values, list) and all(isinstance(value, str) for value in values):
        fresh.setdefault("type", "string")
        return
    del fresh["enum"]
    words = f"One of {values}."
    said = fresh.get("description")
    fresh["description"] = f"{said} {words}" if said else words


def kimi(node: Schema) -> Schema:
    """One schema, its inner ones done, as Kimi takes it: every one has a type."""
    branches = node.get("anyOf") or node.get("oneOf")
    if isinstance(branches, list):
        kind = node.get("type")
        fresh = {k: v for k, v in node.items() if k not in ("type", "oneOf")}
        fresh["anyOf"] = [
            _typed(one, kind) if isinstance(one, dict) else one for one in branches
        ]
        return fresh
    return node if "type" in node or "$ref" in node else _guessed(node)


def _typed(branch: Schema, kind: Any) -> Schema:
    """A branch of ``anyOf`` with the type that stood beside it."""
    guessed = "type" not in branch or branch.get("anyOf") == list(_ANY)
    if kind is None or not guessed:
        return branch
    return {**{k: v for k, v in branch.items() if k != "anyOf"}, "type": kind}


def _guessed(node: Schema) -> Schema:
    """*node* with the type that its other keywords imply; else any of them."""
    values = node.get("enum", [node["const"]] if "const" in node else None)
    if "properties" in node:
        return {"type": "object", **node}
    if "items" in node:
        return {"type": "array", **node}
    if isinstance(values, list) and values:
        names = {bool: "boolean", str: "string", int: "integer", float: "number"}
        kinds = {names.get(type(value), "") for value in values}
        if len(kinds) == 1 and kinds != {""}:
            return {"type": kinds.pop(), **node}
    return {**node, "anyOf": list(_ANY)}
