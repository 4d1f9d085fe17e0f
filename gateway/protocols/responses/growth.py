"""What an event of a Responses stream adds to the item that is open: see ``Growth``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from gateway.protocols.delta_template import Growth, Note
from gateway.protocols.event_json import string
from gateway.protocols.responses.item_index import ItemIndex, number
from gateway.protocols.responses.message_parts import Kind, MessageParts
from gateway.protocols.responses.read_item import CALL_KEYS, ReadItem
from gateway.protocols.responses.reasoning_text import Source


class OpenItems:
    """
    The items of an answer as its reader has them.

    Args:
        items: by their output index.
    """

    def __init__(
        self, places: ItemIndex, items: Mapping[int, ReadItem], parts: MessageParts
    ) -> None:
        self._places = places
        self._items = items
        self._parts = parts

    def growth(self, data: dict[str, Any], key: int) -> Growth | None:
        """
        What the event *data* means if it is more of the part *key*, and nothing else.
        """
        find, text = _FIND.get(string(data, "type")), data.get("delta")
        note = find(self, data, key) if find is not None else None
        return Growth(text, note) if note and isinstance(text, str) else None

    def _open(self, data: dict[str, Any], kind: str) -> ReadItem | None:
        """The item of type *kind* that an event is about, if it is known and open."""
        item = self._items.get(self._places.of(data, kind))
        return None if item is None or item.closed else item

    def _text(self, kind: Kind, data: dict[str, Any], key: int) -> Note | None:
        item = self._open(data, "message")
        if item is None or item.type != "message":
            return None
        at = self._places.of(data, "message"), number(data, "content_index")
        return self._parts.note_of(at, kind, key)

    def _args(self, kind: str, data: dict[str, Any], key: int) -> Note | None:
        item = self._open(data, kind)
        if item is None or item.key != key or item.type not in CALL_KEYS:
            return None
        return item.grow

    def _thought(self, source: Source, data: dict[str, Any], key: int) -> Note | None:
        item = self._open(data, "reasoning")
        index = "summary_index" if source == "summary" else "content_index"
        part = number(data, index)
        if item is None or item.key != key or not item.thought.is_at(source, part):
            return None
        return partial(item.thought.more, source, part)


_Find = Callable[[OpenItems, dict[str, Any], int], Note | None]


def _text(kind: Kind) -> _Find:
    return lambda items, data, key: items._text(kind, data, key)


def _args(kind: str) -> _Find:
    return lambda items, data, key: items._args(kind, data, key)


def _thought(source: Source) -> _Find:
    return lambda items, data, key: items._thought(source, data, key)


_FIND: dict[str, _Find] = {
    "response.output_text.delta": _text("text"),
    "response.refusal.delta": _text("refusal"),
    "response.function_call_arguments.delta": _args("function_call"),
    "response.custom_tool_call_input.delta": _args("custom_tool_call"),
    "response.reasoning_summary_text.delta": _thought("summary"),
    "response.reasoning_text.delta": _thought("raw"),
    "response.reasoning.delta": _thought("raw"),
}
