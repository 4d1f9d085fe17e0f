"""
The bytes of a client's HTTP answer, head and body, written to its connection directly.

The bytes are those that aiohttp would write. Its own path to them is open for
compression, cookies and signals; it costs a piece of a stream four times as much, and a
whole answer as much as its key and its slots.

aiohttp's server needs three things of an answer that it did not write: ``prepare`` and
``write_eof``, which it awaits when the handler returns, and ``keep_alive``. They are
overridden here. From the ``output_size`` of the request's writer it knows that a head
is out, so that it writes no error page behind it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.base_protocol import BaseProtocol
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import HttpVersion, HttpVersion10, HttpVersion11

JOIN_BYTES = 16384  # a longer piece is not copied into its frame
LAST_CHUNK = b"0\r\n\r\n"


class FramedStream(web.StreamResponse):
    """
    An answer with status 200, whose head leaves together with the first piece.

    Its body ends with the piece that is ``last``: by a last chunk, by the length that
    the head declared, or, for HTTP/1.0 without one, by the end of the connection.
    """

    _connection: BaseProtocol | None = None  # from ``begin`` until all has left
    _writer: AbstractStreamWriter
    _head = b""  # until it is out
    _is_chunked = False
    _is_reusable = False
    _has_ended = False

    def __init__(self) -> None:
        """Nothing of what aiohttp's own answers consist of is needed, nor made."""

    def begin(
        self,
        request: web.BaseRequest,
        headers: Mapping[str, str],
        *,
        length: int | None = None,
    ) -> None:
        """
        Make the head; nothing is written yet.

        Args:
            length: the bytes of the whole body; None for a stream.
        """
        version = request.version
        framing = {}
        if length is not None:
            framing["Content-Length"] = str(length)
        elif version >= HttpVersion11:
            self._is_chunked = True
            framing["Transfer-Encoding"] = "chunked"
        ends_by_itself = self._is_chunked or length is not None
        self._is_reusable = request.keep_alive and ends_by_itself
        self._head = head_of(version, {**headers, **framing}, self._is_reusable)
        self._connection, self._writer = request.protocol, request.writer

    @property
    def chunk_transport(self) -> asyncio.WriteTransport | None:
        """See ``ClientStream``."""
        if (
            self._head
            or self._has_ended
            or not self._is_chunked
            or not self._connection
        ):
            return None
        return self._connection.transport

    def put(self, data: bytes, *, last: bool = False) -> bool:
        """
        Write a piece, or end the body with it.

        Returns whether ``drain`` is to be awaited before more is written: the client
        reads more slowly, or, after the last piece, has not been sent all of it.

        Raises:
            ConnectionError: the client has left.
        """
        connection = self._connection
        transport = connection.transport if connection else None
        if connection is None or transport is None or transport.is_closing():
            raise ConnectionResetError("the client has left")
        frame = self._head
        if frame:
            self._head = b""
            self._writer.output_size = len(frame)
        if last:
            self._has_ended = True
            transport.set_write_buffer_limits(0)
        if len(data) > JOIN_BYTES or not self._is_chunked:
            self._put_parts(transport, frame, data, last)
        else:
            if data:
                frame += b"%x\r\n%b\r\n" % (len(data), data)
            if last:
                frame += LAST_CHUNK
            transport.write(frame)
        if connection.writing_paused:
            return True
        if last:
            self._let_go()
        return False

    def _put_parts(
        self, transport: asyncio.WriteTransport, head: bytes, data: bytes, last: bool
    ) -> None:
        """Write a piece without a copy of it, or one that gets no frame."""
        if not self._is_chunked:
            parts = [head, data]
        elif last:
            parts = [b"%b%x\r\n" % (head, len(data)), data, b"\r\n" + LAST_CHUNK]
        else:
            parts = [b"%b%x\r\n" % (head, len(data)), data, b"\r\n"]
        transport.writelines([part for part in parts if part])

    async def drain(self) -> None:
        """
        Wait until the client has taken enough for more to be written; after the last
        piece, until every byte has left for the socket.

        Raises:
            ConnectionError: the client has left.
        """
        try:
            if self._connection is not None:
                await self._writer.drain()
        finally:
            if self._has_ended:
                self._let_go()

    def _let_go(self) -> None:
        """Leave the connection to the next answer."""
        connection, self._connection = self._connection, None
        transport = connection.transport if connection else None
        if transport is not None and not transport.is_closing():
            transport.set_write_buffer_limits()

    # --- what aiohttp asks of what a handler returns ----------------------------------

    @property
    def keep_alive(self) -> bool:
        """Whether the connection serves another request after this answer."""
        return self._is_reusable and self._has_ended

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing is left to prepare."""

    async def write_eof(self, data: bytes = b"") -> None:
        """A body without its last piece must not look whole."""
        if not self._has_ended and self._connection and self._connection.transport:
            self._connection.transport.abort()


async def send_whole(
    request: web.BaseRequest, headers: Mapping[str, str], body: bytes
) -> web.StreamResponse:
    """
    Answer *request* with 200 and a JSON *body*; it has left for the socket then.

    Raises:
        ConnectionError: the client has left.
    """
    response = FramedStream()
    kind = {"Content-Type": "application/json"}
    response.begin(request, {**headers, **kind}, length=len(body))
    if response.put(body, last=True):
        await response.drain()
    return response


class SwitchedProtocols(web.StreamResponse):
    """The answer to an upgrade: what comes behind its head is another protocol's."""

    @property
    def keep_alive(self) -> bool:
        """No request of HTTP comes on the connection any more."""
        return False

    async def prepare(self, request: web.BaseRequest) -> None:
        """Nothing is left to prepare."""

    async def write_eof(self, data: bytes = b"") -> None:
        """Nothing is left to write."""


def switch_protocols(
    request: web.BaseRequest, headers: Mapping[str, str]
) -> SwitchedProtocols:
    """
    Answer *request* with 101 and *headers*.

    Raises:
        ConnectionError: the client has left.
    """
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client has left")
    head = _joined("101 Switching Protocols", request.version, [*headers.items()])
    request.writer.output_size = len(head)
    transport.write(head)
    return SwitchedProtocols(status=101)


def head_of(
    version: HttpVersion, headers: Mapping[str, str], keep_alive: bool
) -> bytes:
    """
    The bytes of a 200's head. What an upstream wrote in another encoding than UTF-8
    goes out as the bytes it was.

    Args:
        version: the request's.
        keep_alive: whether the connection serves another request.

    Raises:
        ValueError: a header would break out of its line.
    """
    fields = [*headers.items()]
    if not keep_alive and version == HttpVersion11:
        fields.append(("Connection", "close"))
    elif keep_alive and version == HttpVersion10:
        fields.append(("Connection", "keep-alive"))
    return _joined("200 OK", version, fields)


def _joined(status: str, version: HttpVersion, fields: list[tuple[str, str]]) -> bytes:
    lines = ["HTTP/%d.%d %s" % (*version, status), *map(": ".join, fields)]
    lines.append("Date: " + rfc822_formatted_time())
    lines.append("\r\n")
    head = "\r\n".join(lines)
    if not head.count("\r") == head.count("\n") == len(lines):
        raise ValueError("a line break inside a header")
    return head.encode("utf-8", "surrogateescape")
