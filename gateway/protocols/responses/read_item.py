"""An output item of a Responses answer that is being read."""

from __future__ import annotations

from typing import Any

from gateway.protocols.event_json import string
from gateway.protocols.events import SearchFound
from gateway.protocols.json_access import sub
from gateway.protocols.responses.reasoning_text import ReasoningText

CALL_KEYS = {"function_call": "arguments", "custom_tool_call": "input"}
"""The key of a call's arguments, by the type of its item."""


class ReadItem:
    """One output item."""

    __slots__ = ("key", "type", "length", "thought", "closed")

    def __init__(self, key: int, type: str) -> None:
        self.key = key
        self.type = type
        self.length = 0  # characters of arguments sent so far
        self.thought = ReasoningText()
        self.closed = False

    def grow(self, text: str) -> None:
        """More arguments have been sent."""
        self.length += len(text)


def search_found(key: int, given: dict[str, Any]) -> SearchFound:
    """The result of a web search, from its item *given*."""
    action = sub(given, "action")
    queries = action.get("queries")
    first = queries[0] if isinstance(queries, list) and queries else ""
    query = string(action, "query") or (first if isinstance(first, str) else "")
    sources = action.get("sources")
    pages = tuple(
        (url, string(page, "title"))
        for page in (sources if isinstance(sources, list) else ())
        if isinstance(page, dict) and (url := string(page, "url"))
    )
    failed = given.get("status") == "failed"
    return SearchFound(key, query, pages, "failed" if failed else "completed")
