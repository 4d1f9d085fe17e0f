"""The output items of a response, as its events bring them."""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from gateway.protocols.json_access import read_object, sub
from gateway.protocols.lossless_json import dumps

MARK = b"response.output_item."
MAX_BYTES = 32 * 1024 * 1024  # of one response; more is not kept


class OpenItem(NamedTuple):
    """An item that has begun."""

    place: int
    item_id: str


class TurnOutput:
    """
    Attributes:
        too_large: it was not kept.
    """

    __slots__ = ("_done", "_open", "_bytes", "too_large")

    def __init__(self) -> None:
        self._done: dict[int, bytes] = {}
        self._open: dict[int, OpenItem] = {}
        self._bytes = 0
        self.too_large = False

    def note(self, text: bytes) -> None:
        """*text* is the data of an event that may begin or end an item."""
        data = read_object(text)
        kind, index, item = (
            data.get("type"),
            data.get("output_index"),
            sub(data, "item"),
        )
        if not isinstance(index, int) or not item:
            return
        if kind == "response.output_item.added":
            self._open[index] = OpenItem(index, str(item.get("id") or ""))
        elif kind == "response.output_item.done":
            self._open.pop(index, None)
            self._keep(index, item)

    def _keep(self, index: int, item: dict[str, Any]) -> None:
        data = dumps(item)
        self._bytes += len(data) - len(self._done.get(index, b""))
        if self._bytes > MAX_BYTES:
            self.too_large = True
            self._done.clear()
        if not self.too_large:
            self._done[index] = data

    def take_terminal(self, text: bytes) -> None:
        """An answer whose items came in its terminal alone."""
        if self._done or self.too_large:
            return
        output = sub(read_object(text), "response").get("output")
        for index, item in enumerate(output if isinstance(output, list) else ()):
            if isinstance(item, dict):
                self._keep(index, item)

    @property
    def open_items(self) -> list[OpenItem]:
        """Those that have begun and not ended, in their order."""
        return [self._open[index] for index in sorted(self._open)]

    @property
    def items(self) -> bytes:
        """The items that are whole, joined by commas."""
        return b",".join(self._done[index] for index in sorted(self._done))

    @property
    def documents(self) -> list[Any]:
        """The same, parsed."""
        return [orjson.loads(self._done[index]) for index in sorted(self._done)]
