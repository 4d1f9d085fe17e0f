"""The ``$ref`` of JSON schemas: looked up, written out, found to be recursive."""

from __future__ import annotations

from typing import Any

from gateway.protocols.json_reader import Unsupported

Schema = dict[str, Any]

NODES_MAX = 20_000
"""How many schemas a schema may hold once its references are written out."""
DEPTH_MAX = 100
"""How deep a schema may be nested; the vendors take 5 to 10 levels."""

MAPS = ("properties", "$defs", "definitions", "patternProperties", "dependentSchemas")
LISTS = ("anyOf", "oneOf", "allOf", "prefixItems")
SINGLES = ("items", "additionalProperties", "not", "if", "then", "else", "contains")
DEFINITIONS = ("$defs", "definitions")


def resolved(root: Schema, ref: Any) -> Schema | None:
    """What a local ``$ref`` points at; None for another."""
    if not isinstance(ref, str) or not ref.startswith("#/"):
        return None
    found: Any = root
    for part in ref[2:].split("/"):
        name = part.replace("~1", "/").replace("~0", "~")
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, dict) else None


def recursive(root: Schema) -> bool:
    """
    Whether a definition of *root* is reached from inside itself.

    Raises:
        Unsupported: it is too large or too deep when written out.
    """
    return _Inliner(root).found_circle


def inlined(root: Schema) -> Schema:
    """
    *root* without references; one inside itself becomes "anything".

    Raises:
        Unsupported: it is too large or too deep when written out.
    """
    if not any(key in root for key in DEFINITIONS):
        return root
    whole = _Inliner(root).whole
    return {key: value for key, value in whole.items() if key not in DEFINITIONS}


class _Inliner:
    """Writes references out, and notes whether one is inside its own target."""

    def __init__(self, root: Schema) -> None:
        self.found_circle = False
        self._root = root
        self._left = NODES_MAX
        self.whole: Schema = self._one(root, (), 0)

    def _one(self, node: Any, inside: tuple[str, ...], depth: int) -> Any:
        if not isinstance(node, dict):
            return node
        self._left -= 1
        if self._left < 0 or depth > DEPTH_MAX:
            raise Unsupported("")
        ref = node.get("$ref")
        if ref is None:
            return self._inner(node, inside, depth)
        rest = {key: value for key, value in node.items() if key != "$ref"}
        target = resolved(self._root, ref)
        if target is None:
            return rest
        if ref in inside:
            self.found_circle = True
            return rest
        return {**self._one(target, (*inside, ref), depth + 1), **rest}

    def _inner(self, node: Schema, inside: tuple[str, ...], depth: int) -> Schema:
        fresh = dict(node)
        for key, value in node.items():
            if key in DEFINITIONS:
                continue
            if key in MAPS and isinstance(value, dict):
                fresh[key] = {
                    name: self._one(one, inside, depth + 1)
                    for name, one in value.items()
                }
            elif key in LISTS and isinstance(value, list):
                fresh[key] = [self._one(one, inside, depth + 1) for one in value]
            elif key in SINGLES:
                fresh[key] = self._one(value, inside, depth + 1)
        return fresh
