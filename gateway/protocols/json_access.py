"""JSON of an upstream or a client, whatever it holds: read, and looked into."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.protocols.lossless_json import loads


def read_json(data: bytes, *, exact: bool = False) -> Any:
    """
    *data* as JSON; None for anything else.

    Args:
        exact: whole numbers keep their digits, for what is written again.
    """
    try:
        return loads(data) if exact else orjson.loads(data)
    except orjson.JSONDecodeError:
        return None


def read_object(data: bytes) -> dict[str, Any]:
    """*data* as a JSON object; an empty one for anything else."""
    if not data:  # a comment's; raising costs more than all the rest
        return {}
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return value if isinstance(value, dict) else {}


def sub(value: dict[str, Any], key: str) -> dict[str, Any]:
    """The object at *key*; an empty one for anything else."""
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def objects(value: object) -> list[dict[str, Any]]:
    """The objects in the list *value*; none for anything else."""
    if not isinstance(value, list):
        return []
    return [item for item in value if isinstance(item, dict)]
