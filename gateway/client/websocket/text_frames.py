"""
Server-sent events as the text frames of a websocket: the data of each, by itself.

Rule 1: a frame is a JSON object. What is none (comments, ``[DONE]``) is left out: some
        clients stop reading at it.
Rule 2: a text frame is UTF-8, whatever an upstream has sent.
Rule 3: only a frame of a middling size is deflated: less is not worth a window, and
        more would hold up the event loop.

Source: RFC 6455, 5.2; RFC 7692, 7.2.1
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from gateway.protocols.sse import CR, events, payload

DEFLATE_FROM_BYTES = 1024
DEFLATE_UP_TO_BYTES = 256 * 1024

_TEXT = 0x81  # the only frame of a text message
_DEFLATED = 0xC1  # the same, deflated
_FLUSHED = b"\x00\x00\xff\xff"
_HEAD_16 = struct.Struct("!BBH").pack
_HEAD_64 = struct.Struct("!BBQ").pack


def payloads(data: bytes) -> Iterator[bytes]:
    """The JSON objects of whole events, as text that a frame may hold."""
    if not data.isascii():
        data = _valid(data)
    for event in events(data):
        text = payload(event)
        if text[:1] == b"{":
            yield text


def _valid(data: bytes) -> bytes:
    try:
        data.decode()
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace").encode()
    return data


def frames(data: bytes, deflate_bits: int = 0) -> tuple[bytes, int]:
    """
    The frames of whole events, as one piece, and how many they are.

    The usual form of an event, one data line alone or behind the event's name, is found
    by three searches; every event of a running stream comes through here.
    """
    if not data.isascii():
        data = _valid(data)
    framed: list[bytes] = []
    start, size = 0, len(data)
    plain = CR not in data
    while plain and start < size:
        end = data.find(b"\n\n", start)
        at = data.find(b"data: {", start, end)
        before = start if at == start else data.find(b"\n", start, at) + 1
        if end < 0 or at < 0 or at != before or data.find(b"\n", at, end) >= 0:
            plain = False
        else:
            framed.append(text_frame(data[at + 6 : end], deflate_bits))
            start = end + 2
    if not plain:
        rest = payloads(data[start:] if start else data)
        framed += [text_frame(text, deflate_bits) for text in rest]
    return framed[0] if len(framed) == 1 else b"".join(framed), len(framed)


def text_frame(text: bytes, deflate_bits: int = 0) -> bytes:
    """
    *text* as a frame.

    Args:
        deflate_bits: the window that it may be deflated with; 0: it is sent as it is.
    """
    size, first = len(text), _TEXT
    if deflate_bits and DEFLATE_FROM_BYTES <= size <= DEFLATE_UP_TO_BYTES:
        text, first = _deflated(text, deflate_bits), _DEFLATED
        size = len(text)
    if size < 126:
        return b"%c%c%b" % (first, size, text)
    if size < 65536:
        return _HEAD_16(first, 126, size) + text
    return _HEAD_64(first, 127, size) + text


def _deflated(text: bytes, bits: int) -> bytes:
    deflate = zlib.compressobj(level=1, wbits=-bits)
    data = deflate.compress(text) + deflate.flush(zlib.Z_SYNC_FLUSH)
    return data.removesuffix(_FLUSHED)


def with_member(text: bytes, name: str, value: bytes) -> bytes:
    """
    The JSON object *text* with one member more, which goes last: of two members with
    one name it counts.

    Args:
        value: as JSON.
    """
    body = text.rstrip()
    comma = b"" if body[1:-1].isspace() or len(body) == 2 else b","
    return b'%b%b"%b":%b}' % (body[:-1], comma, name.encode(), value)
