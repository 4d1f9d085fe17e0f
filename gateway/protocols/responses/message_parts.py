"""
The texts and refusals of a Responses answer: the content parts of its messages.

Each is sent once, whether it comes in deltas, in done events or in whole items.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from gateway.protocols.delta_template import Note
from gateway.protocols.event_json import string
from gateway.protocols.events import (
    Annotation,
    Event,
    ItemClose,
    ItemOpen,
    RefusalDelta,
    Status,
    TextDelta,
)
from gateway.protocols.json_access import objects
from gateway.usage import count

Kind = Literal["text", "refusal"]
Place = tuple[int, int]
"""A message's output index and a part's content index."""


class _Part:
    """One content part."""

    __slots__ = ("key", "kind", "length", "noted", "closed")

    def __init__(self, key: int, kind: Kind) -> None:
        self.key = key
        self.kind = kind
        self.length = 0  # characters sent so far
        self.noted = False  # its annotations have been sent
        self.closed = False

    def grow(self, text: str) -> None:
        """More of it has been sent."""
        self.length += len(text)


class MessageParts:
    """
    Args:
        new_key: returns a key that is unique in the answer.
    """

    def __init__(self, new_key: Callable[[], int]) -> None:
        self._new_key = new_key
        self._parts: dict[Place, _Part] = {}
        self._of: dict[int, list[_Part]] = {}  # by their message's output index

    def text(self, at: Place, delta: str) -> list[Event] | None:
        """More of a text that is open; None if none is."""
        part = self._parts.get(at)
        if part is None or part.closed or part.kind != "text":
            return None
        part.length += len(delta)
        return [TextDelta(part.key, delta)] if delta else []

    def note_of(self, at: Place, kind: Kind, key: int) -> Note | None:
        """What notes more of the part *key* if that is open at *at*; else None."""
        part = self._parts.get(at)
        if part is None or part.key != key or part.closed or part.kind != kind:
            return None
        return part.grow

    def tell(self, at: Place, kind: Kind, text: str, *, whole: bool) -> list[Event]:
        """A piece of a part, or the *whole* of it; opened if it is new."""
        part, out = self._parts.get(at), list[Event]()
        if whole and part is not None:
            text = text[part.length :]
        if not text:
            return out
        if part is None:
            part = self._parts[at] = _Part(self._new_key(), kind)
            self._of.setdefault(at[0], []).append(part)
            out.append(ItemOpen(part.key, kind))
        if part.closed or part.kind != kind:
            return out
        part.length += len(text)
        delta = TextDelta if kind == "text" else RefusalDelta
        return [*out, delta(part.key, text)]

    def done(self, at: Place, given: dict[str, Any]) -> list[Event]:
        """The part *given* is whole: send what has not been sent, and close it."""
        out: list[Event] = []
        if given.get("type") == "refusal":
            out += self.tell(at, "refusal", string(given, "refusal"), whole=True)
        elif given.get("type") == "output_text":
            out += self.tell(at, "text", string(given, "text"), whole=True)
        part = self._parts.get(at)
        if part is None or part.closed:
            return out
        if not part.noted:
            for note in objects(given.get("annotations")):
                out += _cited(part.key, note)
        part.closed = True
        return [*out, ItemClose(part.key)]

    def message(self, index: int, content: Any) -> list[Event]:
        """The message at *index* is whole."""
        if isinstance(content, str):
            content = [{"type": "output_text", "text": content}]
        out: list[Event] = []
        for at, part in enumerate(objects(content)):
            out += self.done((index, at), part)
        return out

    def annotation(self, at: Place, note: object) -> list[Event]:
        """A text cites a page."""
        part = self._parts.get(at)
        if part is None or part.closed or not isinstance(note, dict):
            return []
        part.noted = True
        return _cited(part.key, note)

    def close(self, index: int, status: Status) -> list[Event]:
        """Close the open parts of the message at *index*."""
        out: list[Event] = []
        for part in self._of.pop(index, ()):
            if not part.closed:
                part.closed = True
                out.append(ItemClose(part.key, status))
        return out


def _cited(key: int, note: dict[str, Any]) -> list[Event]:
    if note.get("type") != "url_citation":
        return []
    start, end = count(note.get("start_index")), count(note.get("end_index"))
    url, title = string(note, "url"), string(note, "title")
    return [Annotation(key, url, title, start or 0, end or 0)] if url else []
