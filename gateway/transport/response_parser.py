"""
The parts of an HTTP/1.1 answer, as httptools finds them.

Rule 1: an answer ends by its framing: its length, its last chunk, or, where it has
        neither, the upstream's closing.
Rule 2: bytes behind the end are no part of the answer, whatever they look like, and
        the connection serves no other request.
"""

from __future__ import annotations

import httptools
from multidict import CIMultiDict, CIMultiDictProxy

HEAD_LIMIT_BYTES = 65536
"""The most that the fields of a head, and of a trailer, may take together."""

_NO_FIELDS: CIMultiDict[str] = CIMultiDict()
_SWITCHING = 101
_FIRST_FINAL = 200


class Malformed(Exception):
    """The bytes are HTTP of a kind that the gateway does not take."""


class ResponseParser:
    """
    The callbacks of one ``httptools.HttpResponseParser``, and what they collected.

    Attributes:
        feed_data: gives bytes to the parser; raises the errors of httptools.
        pieces: of the body, in order; the reader empties the list.
        status: of the final head, once *has_head*.
        ended: the answer is whole.
        own_pieces: how many of *pieces* are the answer's own, once it has ended. The
            parser reads on.
        in_chunk: its first member says whether the size of a chunk has come alone.
        is_chunked: the body comes in chunks.
        until_close: only the upstream's closing ends the body.
        may_reuse: the upstream keeps the connection open, as far as its bytes say.
    """

    __slots__ = (
        "feed_data",
        "pieces",
        "status",
        "has_head",
        "ended",
        "own_pieces",
        "in_chunk",
        "is_chunked",
        "until_close",
        "may_reuse",
        "on_body",
        "on_chunk_header",
        "on_chunk_complete",
        "_bodiless",
        "_interim",
        "_fields",
        "_field_bytes",
        "_parser",
    )

    def __init__(self, method: str) -> None:
        self.pieces: list[bytes] = []
        self.status = 0
        self.has_head = False
        self.ended = False
        self.own_pieces = 0
        self.in_chunk = [False, True]
        self.is_chunked = False
        self.until_close = False
        self.may_reuse = False
        self._bodiless = method == "HEAD"
        self._interim = False
        self._fields: CIMultiDict[str] = CIMultiDict()
        self._field_bytes = 0
        # No Python frame for each chunk: its two ends turn the pair round.
        self.on_body = self.pieces.append
        self.on_chunk_header = self.on_chunk_complete = self.in_chunk.reverse
        self._parser = httptools.HttpResponseParser(self)
        self.feed_data = self._parser.feed_data

    def take_headers(self) -> CIMultiDictProxy[str]:
        """The fields of the final head; a second call returns none."""
        fields, self._fields = self._fields, _NO_FIELDS
        return CIMultiDictProxy(fields)

    def drop(self) -> None:
        """Break the cycle with the library's parser, to be freed at once."""
        del self.feed_data, self._parser

    def on_message_begin(self) -> None:
        if self.ended:
            self.may_reuse = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._field_bytes += len(name) + len(value) + 4  # ": " and the line's end
        if self._field_bytes > HEAD_LIMIT_BYTES:
            raise Malformed(f"the head has more than {HEAD_LIMIT_BYTES} bytes")
        if not self.has_head:
            self._fields.add(
                name.decode("latin-1"),
                value.decode("utf-8", "surrogateescape").strip(" \t"),
            )

    def on_headers_complete(self) -> None:
        if self.ended:
            return
        status = self._parser.get_status_code()
        if status < _FIRST_FINAL:
            if status == _SWITCHING:
                raise Malformed("the upstream changed the protocol")
            self._interim = True
            self._fields.clear()
            return
        self.status = status
        self._read_framing()
        self.has_head = True
        if self._bodiless:
            self._end()

    def on_message_complete(self) -> None:
        if self._interim:
            self._interim = False
        else:
            self._end()

    def _end(self) -> None:
        if not self.ended:
            self.ended = True
            self.own_pieces = len(self.pieces)

    def _read_framing(self) -> None:
        coding = self._fields.get("transfer-encoding", "").lower()
        if coding not in ("", "chunked"):
            raise Malformed(f"transfer-encoding {coding[:80]} is not known")
        self.is_chunked = bool(coding)
        framed = self.is_chunked or "content-length" in self._fields
        empty = self._bodiless or self.status in (204, 304)
        self.until_close = not framed and not empty
        self.may_reuse = self._parser.should_keep_alive()
