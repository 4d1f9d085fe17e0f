"""
Cut a byte stream into whole Server-Sent Events, wherever the chunks break.

A half-received event is never handed out, so whoever writes only what came from here
can stop between any two writes and still leave a well-formed stream. Bytes pass as
they are: line ends, comments, unknown fields, a leading byte order mark.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import re
from collections.abc import Iterator

MAX_EVENT_BYTES = 32 * 1024 * 1024

# A blank line is a line end directly after a line end. The groups are atomic: CRLF
# is one line end, never a CR and an LF.
_BLANK_LINE = re.compile(rb"(?>\r\n|\r|\n)(?>\r\n|\r|\n)")
_LINE_END = re.compile(rb"\r\n|\r|\n")


class EventTooLarge(Exception):
    """One event is larger than ``MAX_EVENT_BYTES``."""


class EventScanner:
    """
    Hold back what is not yet a whole event.

    ``feed`` hands out all bytes up to the last blank line seen so far. The common
    case, a chunk that ends with its blank line, costs one comparison and no copy.
    """

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, chunk: bytes) -> bytes:
        """
        The whole events that *chunk* completes, ``b""`` for none.

        Raises:
            EventTooLarge: when the unfinished event outgrows ``MAX_EVENT_BYTES``.
        """
        held = self._held
        if not held and chunk.endswith(b"\n\n"):
            return chunk
        seen = len(held)
        held += chunk
        end = _last_blank_line(held, max(0, seen - 2))
        if not end:
            if len(held) > MAX_EVENT_BYTES:
                raise EventTooLarge
            return b""
        whole = bytes(held[:end])
        del held[:end]
        return whole

    def rest(self) -> bytes:
        """What has come of an event that was never finished."""
        return bytes(self._held)


def _last_blank_line(data: bytearray, start: int) -> int:
    """The offset behind the last blank line at or after *start*, 0 for none."""
    end = data.rfind(b"\n\n", start) + 2
    for pair in (b"\n\r", b"\r\r"):
        found = data.rfind(pair, start) + 2
        if found > end:
            end = found + (data[found : found + 1] == b"\n")
    return end if end > 1 else 0


def events(data: bytes) -> Iterator[bytes]:
    """The single events of *data*, each with its blank line."""
    start = 0
    for blank in _BLANK_LINE.finditer(data):
        yield data[start : blank.end()]
        start = blank.end()
    if start < len(data):
        yield data[start:]


def payload(event: bytes) -> bytes:
    """The data of one *event*, its lines joined by LF; ``b""`` if it has none."""
    lines = [
        line[6:] if line.startswith(b"data: ") else line[5:]
        for line in _LINE_END.split(event)
        if line.startswith(b"data:") or line == b"data"
    ]
    return b"\n".join(lines)


def field(event: bytes, name: bytes) -> bytes:
    """The last value of the field *name* in one *event*, ``b""`` if there is none."""
    value = b""
    for line in _LINE_END.split(event):
        if line.startswith(name + b":"):
            value = line[len(name) + 1 :].removeprefix(b" ")
    return value
