"""
One answer on a connection: HTTP's side of ``UpstreamResponse``.

Rule 1: a piece goes from the socket's callback straight to the feed. A task is woken
        only for the end, a failure, a ``STOP`` or back-pressure.
Rule 2: the socket is read only while a task waits for bytes or the buffer has room. A
        task that waits has an empty buffer and resumes the reading.
Rule 3: time in which the gateway does not read is no silence of the upstream.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine

import httptools
from multidict import CIMultiDictProxy

from gateway.errors import UpstreamError
from gateway.transport.connection import Connection
from gateway.transport.decoded import too_large
from gateway.transport.idle_timeout import IdleTimeout
from gateway.transport.interface import Feed, StopSignal
from gateway.transport.response_parser import ResponseParser

BUFFER_BYTES = 65536
"""How much of a body is buffered before its socket is not read any more."""

_REFUSED = 400  # from this status on an upstream does not read the request's rest

OVERHEAD_LIMIT_BYTES = 65536
"""The most that may arrive outside a body: head, framing, the rest while lingering."""


class HttpResponse:
    """
    An ``UpstreamResponse``, once ``head`` has returned.

    Attributes:
        has_received: whether a single byte of an answer has arrived.
    """

    def __init__(
        self, connection: Connection, method: str, idle_timeout_s: float
    ) -> None:
        self.status = 0
        self.headers: CIMultiDictProxy[str]
        self.has_received = False
        self._connection = connection
        self._parser = ResponseParser(method)
        self._overhead_bytes = 0
        self._has_head = False
        self._failure: UpstreamError | None = None
        self._is_closed = False
        # for the task that reads
        self._buffer = bytearray()
        self._feed: Feed | None = None
        self._outcome: Awaitable[None] | StopSignal | None = None
        self._feed_error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        # time
        self._loop = loop = connection.loop
        self._time = loop.time
        self._idle_timeout = IdleTimeout(loop, self, idle_timeout_s)
        self._linger: asyncio.TimerHandle | None = None

    # --- for the relay ----------------------------------------------------------------

    @property
    def idle_timeout_s(self) -> float:
        return self._idle_timeout.limit_s

    @idle_timeout_s.setter
    def idle_timeout_s(self, seconds: float) -> None:
        self._idle_timeout.limit_s = seconds

    async def head(self) -> None:
        """
        Wait for the head of the answer.

        Raises:
            UpstreamError: as ``Transport.open``.
        """
        while not self._has_head:
            if self._failure is not None:
                raise self._failure
            await self._wait()

    async def read(self) -> bytes:
        while not self._buffer:
            if self._is_over():
                return b""
            await self._wait()
        return self._take()

    async def body(self, limit_bytes: int) -> bytes:
        whole = bytearray()
        while piece := await self.read():
            if len(whole) + len(piece) > limit_bytes:
                raise too_large(limit_bytes)
            whole += piece
        return bytes(whole)

    async def pump(self, feed: Feed) -> None:
        while True:
            if self._buffer:
                outcome = feed(self._take())
            elif self._is_over():
                return
            else:
                outcome = await self._wait_for_outcome(feed)
            if isinstance(outcome, StopSignal):
                return
            if outcome is not None:
                self._pause()
                await outcome

    def close(self, linger_s: float = 0.0) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._buffer.clear()
        if self._parser.ended or self._failure is not None:
            self._release()
            return
        self._stop_timers()
        if linger_s > 0 and self._has_head:
            self._overhead_bytes = 0
            self._connection.resume()
            self._linger = self._loop.call_later(linger_s, self._abandon)
        else:
            self._abandon()

    # --- the task that reads ----------------------------------------------------------

    def _is_over(self) -> bool:
        """Whether the answer has ended; raises the failure if there is one."""
        if self._failure is not None:
            raise self._failure
        return self._parser.ended

    def _take(self) -> bytes:
        piece = bytes(self._buffer)
        self._buffer.clear()
        return piece

    async def _wait(self) -> None:
        """Read the socket until a callback has something new."""
        if not self._connection.is_reading:
            self._idle_timeout.last_received_at = self._time()
            self._connection.resume()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait_for_outcome(
        self, feed: Feed
    ) -> Awaitable[None] | StopSignal | None:
        """Let the socket's callback call *feed* until that returns more than None."""
        self._feed = feed
        try:
            await self._wait()
            if self._feed_error is not None:
                raise self._feed_error
            outcome, self._outcome = self._outcome, None
            return outcome
        finally:
            self._feed = self._feed_error = None
            if isinstance(self._outcome, Coroutine):
                self._outcome.close()  # cancelled before it could be awaited
            self._outcome = None

    def _pause(self) -> None:
        """Leave the socket unread until a task waits."""
        if not self._parser.ended:
            self._connection.pause()

    # --- for the connection -----------------------------------------------------------

    def receive(self, data: bytes) -> None:
        self.has_received = True
        if self._parser.ended or self._failure is not None:
            self._parser.may_reuse = False
            return
        parser = self._parser
        self._idle_timeout.last_received_at = self._time()
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            parser.may_reuse = False
            if not parser.ended:
                self._fail("upstream_malformed", repr(exc.__context__ or exc))
        if parser.ended:
            del parser.pieces[parser.own_pieces :]  # bytes behind belong to no answer
        if parser.has_head and not self._has_head:
            self._start_body()
        if parser.pieces:
            self._deliver(parser.pieces)
        else:
            self._count_overhead(len(data))
        if parser.ended:
            self._end()

    def receive_eof(self) -> None:
        if self._parser.ended:
            self._parser.may_reuse = False
        elif self._has_head and self._parser.until_close:
            self._parser.ended = True
            self._end()
        elif self._has_head:
            self._fail("upstream_cut", "the connection was closed inside the body")
        else:
            self._fail("upstream_reset", "the connection was closed before an answer")

    def connection_lost(self, error: Exception | None) -> None:
        if error is None or self._parser.ended:
            self.receive_eof()
        else:
            self._fail("upstream_reset", repr(error))

    def _start_body(self) -> None:
        self._has_head = True
        self.status = self._parser.status
        self.headers = self._parser.take_headers()
        if self.status >= _REFUSED:
            self._connection.stop_sending()
        self._idle_timeout.start()
        self._wake()

    def _deliver(self, pieces: list[bytes]) -> None:
        """Pass on what one read brought, as one piece, from the socket's callback."""
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        feed = self._feed
        if feed is None:
            self._store(piece)
            return
        self._overhead_bytes = 0
        try:
            outcome = feed(piece)
        except BaseException as exc:  # raised by the pump, not in the loop
            self._feed_error = exc
        else:
            if outcome is None:
                return
            self._outcome = outcome
            self._pause()
        self._feed = None
        self._wake()

    def _store(self, piece: bytes) -> None:
        """Keep *piece* until a task takes it."""
        if self._is_closed:
            self._count_overhead(len(piece))
            return
        self._overhead_bytes = 0
        self._buffer += piece
        if len(self._buffer) >= BUFFER_BYTES:
            self._pause()
        self._wake()

    def _count_overhead(self, received_bytes: int) -> None:
        self._overhead_bytes += received_bytes
        if self._overhead_bytes > OVERHEAD_LIMIT_BYTES and not self._parser.ended:
            self._fail("upstream_malformed", "too many bytes without a body")

    def _end(self) -> None:
        self._stop_timers()
        self._wake()
        if self._is_closed:
            self._release()

    def _fail(self, code: str, detail: str) -> None:
        if self._failure is None and not self._parser.ended:
            self._failure = UpstreamError(code, detail=detail)
            self._stop_timers()
            self._wake()
            self._connection.abort()
            if self._is_closed:
                self._release()

    def _abandon(self) -> None:
        self._fail("upstream_reset", "closed by the gateway")

    def _release(self) -> None:
        """Give the connection back, or close it."""
        self._parser.drop()
        self._idle_timeout.release()
        connection = self._connection
        if (
            self._parser.may_reuse
            and connection.is_request_sent
            and connection.is_usable
        ):
            connection.release()
        else:
            connection.abort()

    # --- time -------------------------------------------------------------------------

    def is_reading_paused(self) -> bool:
        """See ``IdleTimeoutOwner``."""
        return not self._connection.is_reading

    def on_idle_timeout(self) -> None:
        """See ``IdleTimeoutOwner``."""
        self._fail("upstream_idle", f"nothing came for {self.idle_timeout_s} s")

    def _stop_timers(self) -> None:
        self._idle_timeout.stop()
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
