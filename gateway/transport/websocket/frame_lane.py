"""
The fast lane of an answer over a websocket: text frames, written to a client of HTTP
as one chunk of the events that they say.

A read takes it if it is some whole text frames that each hold an event which means
nothing here. Everything else is the ordinary way's, as in ``FastLane``; what leaves is
the same on both ways.
"""

from __future__ import annotations

from time import monotonic

from gateway.protocols.responses.socket_message import PLAIN_HEAD, TELLING, is_text
from gateway.transport.fast_lane import MAX_BEHIND_BYTES, MAX_READ_BYTES, FastLane
from gateway.transport.websocket.frame_cutter import WHOLE_TEXT

MAX_FRAMES = 8
"""In one read; more than that are taken out of it together elsewhere."""

# As numbers: to look for bytes with "in" costs CPython an exception first.
_LF, _CR = b"\n\r"
_NAME_AT = len(PLAIN_HEAD)


class FrameLane(FastLane):
    """See ``FastLane``; its answer is a ``SocketResponse``."""

    __slots__ = ()

    def data_received(self, data: bytes) -> None:
        if self._is_open:
            body = events_of(data)
            if body and self._behind() <= MAX_BEHIND_BYTES and not self._is_closing():
                for search in self._searches:
                    if search(body) is not None:
                        break
                else:
                    now, size = monotonic(), len(body)
                    if now - self._last > self._gap:
                        self._gap = now - self._last
                    self._last = now
                    self._has_passed = True
                    self._gathering.events += 1
                    self._record.received_bytes += size
                    self._write(b"%x\r\n%b\r\n" % (size, body))
                    return
        self.settle()
        self._connection.data_received(data)
        self._look()


def events_of(data: bytes) -> bytes:
    """
    The events that *data* says if it is some whole text frames, none of which ends an
    answer or is kept of it; else nothing.
    """
    size = len(data)
    if size < 126 + 4 and size > 2 and data[1] == size - 2:
        start = 2
    elif 65536 + 4 > size > 4 and data[1] == 126:
        start = 4
        if data[2] << 8 | data[3] != size - 4:
            return _events(data)
    else:
        return _events(data)
    if data[0] != WHOLE_TEXT or size > MAX_READ_BYTES:
        return b""
    return _event(data[start:])


def _events(data: bytes) -> bytes:
    """The same of several frames."""
    size = len(data)
    if size > MAX_READ_BYTES:
        return b""
    events: list[bytes] = []
    at = 0
    while size - at > 4 and len(events) < MAX_FRAMES:
        start, length = at + 2, data[at + 1]
        if length == 126:
            start, length = at + 4, data[at + 2] << 8 | data[at + 3]
        elif length > 126:
            return b""
        end = start + length
        if data[at] != WHOLE_TEXT or end > size:
            return b""
        event = _event(data[start:end])
        if not event:
            return b""
        events.append(event)
        at = end
    return b"".join(events) if at == size else b""


def _event(message: bytes) -> bytes:
    """The event that *message* says; nothing if it has to be looked at."""
    if not message.startswith(PLAIN_HEAD) or _LF in message or _CR in message:
        return b""
    name = message[_NAME_AT : message.find(b'"', _NAME_AT)]
    if name in TELLING or not (message.isascii() or is_text(message)):
        return b""
    return b"event: %b\ndata: %b\n\n" % (name, message)
