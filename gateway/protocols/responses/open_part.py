"""
The open messages and parts of a Responses answer that is being written.

A part collects its text, prepares the bytes of its deltas, and becomes an output item.
"""

from __future__ import annotations

from typing import Any

from gateway.protocols.event_json import dump, joined
from gateway.protocols.events import CallOpen

ARGUMENT_KEYS = {"function": "arguments", "custom": "input"}
"""The key of a call item's arguments, by the kind of its tool."""


class OpenMessage:
    """An open message item."""

    __slots__ = ("index", "id", "content", "open_parts", "left", "status")

    def __init__(self, index: int, id: str) -> None:
        self.index = index
        self.id = id
        self.content: list[dict[str, Any]] = []
        self.open_parts = 0
        self.left = False  # another item has begun: the last part closes it
        self.status = "completed"


class OpenPart:
    """
    A part of the answer that is open.

    Attributes:
        form: the bytes of a delta event, but for its sequence number and what is inside
            of its JSON string.
        where: the members that name the item or part.
        more: the message of a text, the call of a tool, the proof of a reasoning.
    """

    __slots__ = ("kind", "index", "id", "pieces", "form", "where", "more")

    def __init__(self, kind: str, index: int, id: str) -> None:
        self.kind = kind
        self.index = index
        self.id = id
        self.pieces: list[str] = []
        self.form = b""
        self.where: dict[str, Any] = {"item_id": id, "output_index": index}
        self.more: Any = None

    def deltas(self, event: str, **where: int) -> None:
        """Prepare the bytes of the deltas called *event*."""
        self.where |= where
        name = event.encode()
        begin = b'event: %b\ndata: {"type":"%b","sequence_number":' % (name, name)
        place = dump(self.where)[1:-1].replace(b"%", b"%%")
        logprobs = b',"logprobs":[]' if self.kind == "text" else b""
        self.form = b'%b%%d,%b,"delta":"%%b"%b}\n\n' % (begin, place, logprobs)


def reasoning_item(opened: OpenPart, status: str) -> dict[str, Any]:
    """A reasoning item with the text so far."""
    summary = []
    if opened.pieces:
        summary = [{"type": "summary_text", "text": joined(opened.pieces)}]
    item = {
        "id": opened.id,
        "type": "reasoning",
        "status": status,
        "summary": summary,
    }
    if opened.more:
        item["encrypted_content"] = opened.more
    return item


def tool_call_item(opened: OpenPart, status: str, text: str) -> dict[str, Any]:
    """A call of a function or custom tool; *text* is its arguments."""
    call: CallOpen = opened.more
    item = {
        "id": opened.id,
        "type": "custom_tool_call" if opened.kind == "custom" else "function_call",
        "status": status,
        ARGUMENT_KEYS[opened.kind]: text,
        "call_id": call.call_id,
        "name": call.name,
    }
    if call.namespace:
        item["namespace"] = call.namespace
    return item
