"""
The frames of a client's HTTP answer, head and body, written by ourselves.

What goes out is what aiohttp would write. Its own way to it, open for compression,
cookies and signals, costs a piece of a stream four times as much, and a whole answer
as much as its key and its slots. For HTTP/1.0 it is left to do it.

aiohttp takes an answer for sent when its ``_eof_sent`` is set, and for begun when its
request's writer has an ``output_size``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any, cast

from aiohttp import hdrs, web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import HttpVersion11
from aiohttp.http_writer import StreamWriter

JOIN_BYTES = 16384  # up to here a piece is copied into its frame


class FramedStream(web.StreamResponse):
    """A stream whose head leaves together with what is written first."""

    _send_headers_immediately = False  # as ``web.Response`` does it
    _head = b""  # until it is out; empty where aiohttp has it

    def begin(self, request: web.BaseRequest) -> None:
        """Prepare the head; nothing of it is written yet."""
        if request.version != HttpVersion11:
            _at_once(self.prepare(request))
            return
        self._keep_alive = request.keep_alive
        headers = self._headers
        headers[hdrs.TRANSFER_ENCODING] = "chunked"
        self._head = head_of(headers, self._keep_alive)
        headers.clear()  # a long stream need not keep them
        self._req = request
        self._payload_writer = request._payload_writer
        request._payload_writer.enable_chunking()

    def put(
        self, data: bytes, *, last: bool = False
    ) -> Coroutine[Any, Any, None] | None:
        """
        Write a piece, or end the body with it; what is to be awaited, if anything, is
        back-pressure. At the body's end it lasts until every byte has left for the
        socket.

        Raises:
            ConnectionError: the client has left.
        """
        writer = cast(StreamWriter, self._payload_writer)
        transport = writer.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has left")
        head, self._head = self._head, b""
        if last:
            transport.set_write_buffer_limits(0)
        if len(data) > JOIN_BYTES or not writer.chunked:
            if head:
                transport.write(head)
                writer.output_size += len(head)
            if last:
                return _emptied(self.write_eof(data), transport)
            return self.write(data)
        if data:
            head += b"%x\r\n%b\r\n" % (len(data), data)
        if last:
            head += b"0\r\n\r\n"
            self._eof_sent = True
            self._req = self._payload_writer = None
        transport.write(head)
        writer.output_size += len(head)  # by it aiohttp knows that a head is out
        if writer.protocol.writing_paused:
            return _emptied(writer.drain(), transport) if last else writer.drain()
        if last:
            transport.set_write_buffer_limits()
        return None


async def _emptied(
    writing: Coroutine[Any, Any, None], transport: asyncio.WriteTransport
) -> None:
    """End *writing*, which had no room in the buffer; then there is some again."""
    await writing
    if not transport.is_closing():
        transport.set_write_buffer_limits()


async def send_whole(
    request: web.BaseRequest, headers: Mapping[str, str], body: bytes
) -> web.StreamResponse:
    """
    Answer *request* with 200 and a JSON *body*; it has left for the socket then.

    Raises:
        ConnectionError: the client has left.
    """
    transport = request.transport
    if transport is None or transport.is_closing():
        raise ConnectionResetError("the client has left")
    if request.version != HttpVersion11:
        kind = "application/json"
        return web.Response(headers=headers, body=body, content_type=kind)
    response, writer = web.StreamResponse(), cast(StreamWriter, request._payload_writer)
    response._keep_alive = request.keep_alive
    framing = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    head = head_of({**headers, **framing}, response._keep_alive)
    transport.set_write_buffer_limits(0)
    if len(body) <= JOIN_BYTES:
        transport.write(head + body)
    else:
        transport.writelines((head, body))
    writer.output_size += len(head) + len(body)
    response._eof_sent = True
    if writer.protocol.writing_paused:
        await writer.drain()
    if not transport.is_closing():
        transport.set_write_buffer_limits()
    return response


def head_of(headers: Mapping[str, str], keep_alive: bool) -> bytes:
    """
    The bytes of a 200's head; what an upstream wrote in another encoding than UTF-8
    goes out as the bytes it was.

    Args:
        keep_alive: whether the connection serves another request.

    Raises:
        ValueError: a header would break out of its line.
    """
    lines = ["HTTP/1.1 200 OK", *map(": ".join, headers.items())]
    lines.append("Date: " + rfc822_formatted_time())
    if not keep_alive:
        lines.append("Connection: close")
    lines.append("\r\n")
    head = "\r\n".join(lines)
    if not head.count("\r") == head.count("\n") == len(lines):
        raise ValueError("a line break inside a header")
    return head.encode("utf-8", "surrogateescape")


def _at_once(coroutine: Coroutine[Any, Any, object]) -> None:
    """Run what never has to wait."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise RuntimeError("preparing a head must not wait")
