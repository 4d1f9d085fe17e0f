"""
One content block of a Messages answer that is being read.

Source: the Anthropic API reference (streaming messages).
"""

from __future__ import annotations

from typing import Any

import orjson

from gateway.protocols.event_json import string


class ContentBlock:
    """One content block while it is read."""

    __slots__ = (
        "key",
        "index",
        "type",
        "opened",
        "stopped",
        "pieces",
        "cited",
        "given",
        "id",
    )

    def __init__(self, key: int, index: int, type: str) -> None:
        self.key = key
        self.index = index
        self.type = type
        self.opened = False  # its events have begun
        self.stopped = False
        self.pieces: list[str] = []  # text or arguments
        self.cited: list[dict[str, Any]] = []
        self.given: dict[str, Any] = {}  # input that came whole with the start
        self.id = ""  # of a web search, by which its result names it


def is_whole_json(pieces: list[str]) -> bool:
    """Whether the *pieces* of a call's arguments make up one JSON value."""
    if not pieces:
        return False
    try:
        orjson.loads("".join(pieces))
    except orjson.JSONDecodeError:
        return False
    return True


def search_query(block: ContentBlock) -> str:
    """The query of a web search; empty if its input cannot be read."""
    given = block.given
    if block.pieces:
        try:
            given = orjson.loads("".join(block.pieces))
        except orjson.JSONDecodeError:
            return ""
    return string(given, "query") if isinstance(given, dict) else ""
