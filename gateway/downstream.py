"""
One client's side of a request: its answer, the keepalives, the one ending.

Rule 1: every write is of whole events, so a keepalive falls only between events and
        an ending can follow any write.
Rule 2: after the ending nothing is written; a second one is not possible.
Rule 3: the head is held back until there is something to say, so that a quick
        refusal is still a real HTTP status.

What the client has is ``state`` (nothing of the answer, a part, its terminal) and
``opened`` (a head, with or without keepalives).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from typing import Any, cast

from aiohttp import hdrs, web
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import HttpVersion11
from aiohttp.http_writer import StreamWriter

from gateway.clients import (
    COMMENT,
    DATA_EVENT,
    Client,
    QueueStatus,
    Wait,
    queue_comment,
)
from gateway.errors import ClientError, GatewayError
from gateway.protocols.grammar import CLOSED, STREAMING, WAITING, State
from gateway.protocols.wire import Facts, Wire
from gateway.record import Record

STREAM_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}

STALL_S = 300.0  # a client that takes nothing for so long is cut off
JOIN_BYTES = 16384  # up to here a piece is copied into its frame


class _Answer(web.StreamResponse):
    """
    A stream whose head leaves together with what is written first.

    What goes out is what aiohttp would write; its own way to it, open for compression,
    cookies, signals and a body of known length, costs four times as much.
    """

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
        headers[hdrs.DATE] = rfc822_formatted_time()
        if not self._keep_alive:
            headers[hdrs.CONNECTION] = "close"
        self._head = head_of(headers)
        self._req = request
        self._payload_writer = request._payload_writer
        request._payload_writer.enable_chunking()

    def put(
        self, data: bytes, *, last: bool = False
    ) -> Coroutine[Any, Any, None] | None:
        """
        Write a piece, or end the body with it; what is to be awaited, if anything, is
        back-pressure.

        Raises:
            ConnectionError: the client has left.
        """
        writer = cast(StreamWriter, self._payload_writer)
        transport = writer.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("the client has left")
        head, self._head = self._head, b""
        if len(data) > JOIN_BYTES or not writer.chunked:
            if head:
                transport.write(head)
                writer.output_size += len(head)
            return self.write_eof(data) if last else self.write(data)
        if data:
            head += b"%x\r\n%b\r\n" % (len(data), data)
        if last:
            head += b"0\r\n\r\n"
            self._eof_sent = True
            self._req = self._payload_writer = None
        transport.write(head)
        writer.output_size += len(head)  # by it aiohttp knows that a head is out
        return writer.drain() if writer.protocol.writing_paused else None


def head_of(headers: Mapping[str, str]) -> bytes:
    """
    The bytes of a 200's head; what an upstream wrote in another encoding than UTF-8
    goes out as the bytes it was.

    Raises:
        ValueError: a header would break out of its line.
    """
    lines = ["HTTP/1.1 200 OK", *map(": ".join, headers.items()), "\r\n"]
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


NOTHING = Facts()  # what a stream has told that has not begun

Waiting = Callable[[], Wait | None]
"""Tells the place in the queue; None when the request does not queue."""


def _nowhere() -> None:
    """The place of a request that does not queue."""


class Downstream:
    """
    The client of one streaming request.

    Args:
        ping_interval_s: seconds of silence after which a keepalive is due.
    """

    def __init__(
        self,
        request: web.BaseRequest,
        record: Record,
        wire: Wire,
        client: Client,
        ping_interval_s: float,
    ) -> None:
        self.state: State = WAITING
        self.opened = False
        self.keepalives = 0
        self.facts = NOTHING  # of each attempt its own
        self.waiting: Waiting = _nowhere
        self._request = request
        self._record = record
        self._wire = wire
        self._client = client
        self._interval_s = ping_interval_s
        self._status_line: QueueStatus | None = None
        self._headers = dict(STREAM_HEADERS)
        self._response: _Answer | None = None
        self._loop = asyncio.get_running_loop()
        self._now = self._loop.time
        self._last_write = self._last_data = self._now()
        self._blocked = self._ending = False
        self._timer: asyncio.TimerHandle | None = None

    # --- the answer ---------------------------------------------------------------

    def head(self, headers: Mapping[str, str]) -> None:
        """Give the head more *headers*; too late once it is out."""
        if not self.opened:
            self._headers.update(headers)

    def push(
        self, data: bytes, *, last: bool = False, keepalive: bool = False
    ) -> Awaitable[None] | None:
        """
        Write whole events now; what is awaited, if anything, is back-pressure.

        Args:
            last: the body ends with them.
            keepalive: they are nothing of the answer.

        Raises:
            ClientError: "client_gone".
        """
        if not (data or last):
            return None  # an empty chunk would end the body
        self._last_write = now = self._now()
        if not keepalive:
            self.state, self._last_data = STREAMING, now
        try:
            response = self.response if self.opened else self._open()
            coroutine = response.put(data, last=last)
            if coroutine is None:
                return None
            future = coroutine.send(None)
        except StopIteration:
            return None
        except ConnectionError as gone:
            raise ClientError("client_gone", detail=repr(gone)) from None
        return _Rest(coroutine, future, self)

    async def send(self, data: bytes) -> None:
        """Write whole events and wait until the client takes them."""
        if rest := self.push(data):
            await rest

    async def finish(self, terminal: bytes) -> None:
        """Write the terminal and close the body."""
        self._ending = True
        rest = self.push(terminal, last=True)
        self.state = CLOSED  # now, not when it is taken: no second one
        if rest:
            await rest
        self.stop_pinging()

    async def fail(self, error: GatewayError) -> None:
        """Close a stream that has begun with the protocol's own failure."""
        record = self._record
        frame = self._wire.failure_frame(
            error, record.request_id, self.facts, record.model
        )
        await self.finish(frame)

    def _open(self) -> _Answer:
        """Prepare the head, once; it leaves together with what is written next."""
        response = self.response
        response.begin(self._request)
        self.opened = True
        self._record.status = 200
        return response

    @property
    def response(self) -> _Answer:
        """What the handler returns once the stream is open."""
        if self._response is None:
            self._response = _Answer(headers=self._headers)
        return self._response

    # --- keepalives -----------------------------------------------------------------

    def start_pinging(self) -> None:
        """From now on a silence longer than the interval is broken."""
        self._timer = self._loop.call_later(self._interval_s, self._tick)

    def stop_pinging(self) -> None:
        """No keepalives any more."""
        if self._timer:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        silent_s = self._loop.time() - self._last_write
        due_s = self._interval_s - silent_s
        if due_s <= 0.001:
            due_s = self._interval_s
            if not (self._blocked or self._ending):
                self._ping()
            elif silent_s > STALL_S and self._request.transport:
                self._request.transport.abort()
        self._timer = self._loop.call_later(due_s, self._tick)

    def _ping(self) -> None:
        """One keepalive; a client that is gone is noticed by who serves it."""
        try:
            rest = self.push(self._keepalive(), keepalive=True)
        except ClientError:
            return
        self.keepalives += 1
        if isinstance(rest, _Rest):
            rest.abandon()

    def _keepalive(self) -> bytes:
        wait = self.waiting()
        if wait is not None:
            text = queue_comment(wait)
            if self._client.shows_status and self.keepalives:
                self._last_data = self._loop.time()
                if self._status_line is None:
                    self._status_line = QueueStatus(self._record.request_id)
                text += self._status_line.frame(wait)
            return text
        limit_s = self._client.data_event_s
        if limit_s and self._loop.time() - self._last_data >= limit_s:
            self._last_data = self._loop.time()
            return COMMENT + DATA_EVENT
        return COMMENT


class _Rest:
    """
    The part of a write that has to wait until the client reads on.

    A write is begun without a task; nearly all are over then. One that must wait
    hands out its future here, and whoever awaits this finishes it.
    """

    __slots__ = ("_coroutine", "_future", "_owner")

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], future: Any, owner: Downstream
    ) -> None:
        self._coroutine = coroutine
        self._future = future
        self._owner = owner
        owner._blocked = True

    def __await__(self) -> Generator[Any, Any, None]:
        future = self._future
        try:
            while True:
                yield future
                future = self._coroutine.send(None)
        except StopIteration:
            return
        except ConnectionError as gone:
            raise ClientError("client_gone", detail=repr(gone)) from None
        finally:
            self.abandon()

    def abandon(self) -> None:
        """Do not wait; the data is in the client's buffer all the same."""
        self._owner._blocked = False
        self._coroutine.close()
