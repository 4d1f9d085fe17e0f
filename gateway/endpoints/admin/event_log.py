"""
The events of the admin API as frames, the last of them kept for readers that return.

An id is the log's own name and a number; a reader that names an id of this log that is
still there goes on behind it.
"""

from __future__ import annotations

import secrets
from collections import deque
from typing import Any

import orjson

from gateway.endpoints.admin.operations import JSON

MAX_EVENTS = 1000


class EventLog:
    """
    Attributes:
        end: the number of the latest event.
    """

    def __init__(self) -> None:
        self.end = 0
        self._frames: deque[bytes] = deque(maxlen=MAX_EVENTS)
        self._name = ""
        self.forget()

    def forget(self) -> None:
        """Let no reader go on: something that is in no event has happened."""
        self._name = secrets.token_hex(4)
        self._frames.clear()

    def add(self, event: str, data: Any) -> None:
        """Append an event; *data* as JSON."""
        self.end += 1
        self._frames.append(self.frame(event, data))

    def frame(self, event: str, data: Any) -> bytes:
        """An event whose reader goes on behind the latest one."""
        head = f"id: {self._name}-{self.end}\nevent: {event}\ndata: ".encode()
        return head + orjson.dumps(data, option=JSON) + b"\n\n"

    def number_of(self, ident: str) -> int | None:
        """The number in *ident*; None if what follows it is not known any more."""
        name, _, digits = ident.partition("-")
        if name != self._name or not (digits.isascii() and digits.isdecimal()):
            return None
        number = int(digits[:20])
        return number if self.end - len(self._frames) <= number <= self.end else None

    def after(self, number: int) -> list[bytes] | None:
        """The frames behind *number*; None if some of them are gone."""
        new = self.end - number
        if not 0 <= new <= len(self._frames):
            return None
        return [self._frames[index] for index in range(-new, 0)] if new else []
