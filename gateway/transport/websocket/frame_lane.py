"""
The fast lane of an answer over a websocket.

A read takes it if it is some whole text frames that each hold an event which means
nothing here. To a client of HTTP they leave as one chunk of the events that they say,
to one of a websocket as they came. Everything else is the ordinary way's, as in
``FastLane``; what leaves is the same on both ways.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from gateway.protocols.responses.protocol import PLAIN_KINDS
from gateway.protocols.responses.socket_message import PLAIN_HEAD, TELLING, is_text
from gateway.transport.connection import Connection
from gateway.transport.converting_lane import ConvertingLane
from gateway.transport.fast_lane import MAX_READ_BYTES, FastLane, LaneAnswer
from gateway.transport.framing_lane import FramingLane, Passed
from gateway.transport.interface import LaneSide
from gateway.transport.websocket.frame_cutter import WHOLE_TEXT

MAX_FRAMES = 8
"""In one read; more than that are taken out of it together elsewhere."""

# As numbers: to look for bytes with "in" costs CPython an exception first.
_LF, _CR = b"\n\r"
_NAME_AT = len(PLAIN_HEAD)
_PLAIN_NAMES = frozenset(kind.encode() for kind in PLAIN_KINDS)
_AROUND = len(b"event: \ndata: \n\n")


class PlainMessage(NamedTuple):
    """A message that means nothing here, and the name of its event."""

    name: bytes
    text: bytes


def lane_of_frames(
    connection: Connection, answer: LaneAnswer, side: LaneSide
) -> FastLane:
    """The lane of an *answer* over a websocket."""
    client, end = side.client, side.client.end
    if client.converts:
        return ConvertingLane(connection, answer, client, side.record, body_of_frames)
    as_it_is = frames_as_they_are(end.deflates_from)
    convert = as_it_is if end.takes_frames else chunk_of_frames
    return FramingLane(connection, answer, client, side.record, convert)


def chunk_of_frames(data: bytes) -> Passed | None:
    """Whole frames as a chunk of HTTP; None if one has to be looked at."""
    body = body_of_frames(data)
    size = len(body)
    return (body, b"%x\r\n%b\r\n" % (size, body), size, 0) if body else None


def body_of_frames(data: bytes) -> bytes:
    """The events that whole frames say; none if one has to be looked at."""
    messages = plain_messages(data)
    if len(messages) == 1:
        return b"event: %b\ndata: %b\n\n" % messages[0]
    return b"".join([b"event: %b\ndata: %b\n\n" % one for one in messages])


def frames_as_they_are(deflates_from: int) -> Callable[[bytes], Passed | None]:
    """
    Passes whole frames to another websocket.

    Args:
        deflates_from: see ``LaneEnd``.
    """

    def convert(data: bytes) -> Passed | None:
        messages, size = plain_messages(data), 0
        searched = b""
        for name, text in messages:
            if deflates_from and len(text) >= deflates_from:
                return None
            size += len(name) + len(text) + _AROUND
            if name not in _PLAIN_NAMES:
                searched = data
        return (searched, data, size, len(messages)) if messages else None

    return convert


def plain_messages(data: bytes) -> list[PlainMessage]:
    """
    The messages of *data* if it is some whole text frames, none of which ends an answer
    or is kept of it; else none.
    """
    size = len(data)
    if size > MAX_READ_BYTES:
        return []
    messages: list[PlainMessage] = []
    at = 0
    while size - at > 4 and data[at] == WHOLE_TEXT and len(messages) < MAX_FRAMES:
        start, length = at + 2, data[at + 1]
        if length == 126:
            start, length = at + 4, data[at + 2] << 8 | data[at + 3]
            if length < 126:
                return []
        elif length > 126:
            return []
        at = start + length
        text = data[start:at]
        if at > size or not text.startswith(PLAIN_HEAD) or _LF in text or _CR in text:
            return []
        name = text[_NAME_AT : text.find(b'"', _NAME_AT)]
        if name in TELLING or not (text.isascii() or is_text(text)):
            return []
        messages.append(PlainMessage(name, text))
    return messages if at == size else []
