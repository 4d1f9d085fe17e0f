"""
The output item that an event of a Responses stream belongs to, on all servers.

Rule 1: ``output_index`` decides where it names an open item of the event's type, or
        a new one; else the item's id or call id; else the last open item of that
        type; else the item is new.
Rule 2: the ``output`` of a terminal repeats the items, but need not repeat all, nor
        their ids: an id decides, then the same place and type, then the order among
        the items of that type.

Source: the OpenAI API reference; servers that leave indices out or give every item the
same, that make new ids for the same item in every event (GitHub Copilot), and that
leave reasoning out of the terminal.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from gateway.protocols.event_json import string
from gateway.protocols.json_access import sub

_IDS = ("call_id", "id", "item_id")


def number(data: dict[str, Any], key: str) -> int:
    """The index of a part; servers with one part leave it out."""
    value = data.get(key)
    return value if type(value) is int else 0


class ItemIndex:
    """The items of one answer, by their output index."""

    def __init__(self) -> None:
        self._types: dict[int, str] = {}
        self._ids: dict[str, int] = {}
        self._open: set[int] = set()

    def of(self, data: dict[str, Any], kind: str = "") -> int:
        """The index of the item that the event *data* is about, of type *kind*."""
        index = data.get("output_index")
        known = self._types.get(index) if type(index) is int else ""
        if type(index) is int:
            if known is None or (index in self._open and kind in ("", known)):
                return index
        if (named := self._by_id(sub(data, "item"), data)) is not None:
            return named
        if data.get("type") == "response.output_item.added":
            return self._next()
        alike = [at for at in self._open if self._types[at] == kind]
        if alike:
            return max(alike)
        return index if type(index) is int and known == kind else self._next()

    def of_output(
        self, position: int, given: dict[str, Any], seen: Counter[str]
    ) -> int:
        """
        The index of the item *given* at *position* of a terminal's ``output``.

        Args:
            seen: how many items of each type came before it there.
        """
        kind = string(given, "type")
        alike = [at for at, type in self._types.items() if type == kind]
        nth, seen[kind] = seen[kind], seen[kind] + 1
        if (known := self._by_id(given)) is not None:
            return known
        if self._types.get(position) == kind:
            return position
        if nth < len(alike):
            return alike[nth]
        return self._next() if position in self._types else position

    def note(self, index: int, kind: str, *holders: dict[str, Any]) -> None:
        """An item of type *kind* begins at *index*; *holders* have its ids."""
        self._types[index] = kind
        self._open.add(index)
        for holder in holders:
            for key in _IDS:
                if known := string(holder, key):
                    self._ids.setdefault(known, index)

    def close(self, index: int) -> None:
        """The item at *index* is whole."""
        self._open.discard(index)

    def _by_id(self, *holders: dict[str, Any]) -> int | None:
        for holder in holders:
            for key in _IDS:
                if (index := self._ids.get(string(holder, key))) is not None:
                    return index
        return None

    def _next(self) -> int:
        return max(self._types, default=-1) + 1
