"""
One request and its answer on a connection of our own: the fast UpstreamResponse.

Rule 1: a piece goes from the socket's callback straight to the feed; a task is woken
        only for the end, a failure, a ``STOP`` or back-pressure.
Rule 2: the socket is read only while somebody waits for bytes or the buffer has
        room; whoever waits finds the buffer empty and sets the reading on again.
Rule 3: the time in which we ourselves do not read is no silence of the upstream.
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
"""How much of a body may wait to be read, before its socket is not read any more."""

_REFUSED = 400  # from this status on an upstream reads no more of the request

OVERHEAD_LIMIT_BYTES = 65536
"""The most that may come without a body: head, framing, the rest while lingering."""


class HttpResponse:
    """
    A UpstreamResponse, once ``head`` has returned.

    Attributes:
        touched: whether a single byte of an answer has come.
    """

    def __init__(
        self, connection: Connection, method: str, idle_timeout_s: float
    ) -> None:
        self.status = 0
        self.headers: CIMultiDictProxy[str]
        self.touched = False
        self._connection = connection
        self._answer = ResponseParser(method)
        self._overhead_bytes = 0
        self._begun = False
        self._failure: UpstreamError | None = None
        self._closed = False
        # the reader's side
        self._buffer = bytearray()
        self._feed: Feed | None = None
        self._outcome: Awaitable[None] | StopSignal | None = None
        self._feed_error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        # time
        self._loop = loop = connection.loop
        self._time = loop.time
        self._silence = IdleTimeout(loop, self, idle_timeout_s)
        self._linger: asyncio.TimerHandle | None = None

    # the UpstreamResponse

    @property
    def idle_timeout_s(self) -> float:
        return self._silence.limit_s

    @idle_timeout_s.setter
    def idle_timeout_s(self, seconds: float) -> None:
        self._silence.limit_s = seconds

    async def head(self) -> None:
        """
        Wait for the head of the answer.

        Raises:
            UpstreamError: as ``Transport.open``.
        """
        while not self._begun:
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
                outcome = await self._fed(feed)
            if isinstance(outcome, StopSignal):
                return
            if outcome is not None:
                self._hold()
                await outcome

    def close(self, linger_s: float = 0.0) -> None:
        if self._closed:
            return
        self._closed = True
        self._buffer.clear()
        if self._answer.ended or self._failure is not None:
            self._part()
            return
        self._stop_timers()
        if linger_s > 0 and self._begun:
            self._overhead_bytes = 0
            self._connection.resume()
            self._linger = self._loop.call_later(linger_s, self._give_up)
        else:
            self._give_up()

    # the reader's side

    def _is_over(self) -> bool:
        """Whether nothing more will come; raises what went wrong."""
        if self._failure is not None:
            raise self._failure
        return self._answer.ended

    def _take(self) -> bytes:
        piece = bytes(self._buffer)
        self._buffer.clear()
        return piece

    async def _wait(self) -> None:
        """Wait for anything to change, the socket being read."""
        if not self._connection.reading:
            self._silence.heard_at = self._time()
            self._connection.resume()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _fed(self, feed: Feed) -> Awaitable[None] | StopSignal | None:
        """Let *feed* be called from the socket until it says something."""
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

    def _hold(self) -> None:
        """Read no more until somebody waits."""
        if not self._answer.ended:
            self._connection.pause()

    # the connection's side

    def receive(self, data: bytes) -> None:
        self.touched = True
        if self._answer.ended or self._failure is not None:
            self._answer.may_reuse = False
            return
        answer = self._answer
        self._silence.heard_at = self._time()
        try:
            answer.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            answer.may_reuse = False
            if not answer.ended:
                self._fail("upstream_malformed", repr(exc.__context__ or exc))
        if answer.ended:
            del answer.pieces[answer.whole :]  # the rest belongs to no answer
        if answer.has_head and not self._begun:
            self._begin()
        if answer.pieces:
            self._deliver(answer.pieces)
        else:
            self._count_overhead(len(data))
        if answer.ended:
            self._end()

    def finish(self) -> None:
        if self._answer.ended:
            self._answer.may_reuse = False
        elif self._begun and self._answer.until_close:
            self._answer.ended = True
            self._end()
        elif self._begun:
            self._fail("upstream_cut", "the connection was closed inside the body")
        else:
            self._fail("upstream_reset", "the connection was closed before an answer")

    def lose(self, error: Exception | None) -> None:
        if error is None or self._answer.ended:
            self.finish()
        else:
            self._fail("upstream_reset", repr(error))

    def _begin(self) -> None:
        self._begun = True
        self.status = self._answer.status
        self.headers = self._answer.take_headers()
        if self.status >= _REFUSED:
            self._connection.stop_sending()
        self._silence.watch()
        self._wake()

    def _deliver(self, pieces: list[bytes]) -> None:
        """Pass on what one read brought, as one piece, from the socket's callback."""
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        feed = self._feed
        if feed is None:
            self._keep(piece)
            return
        self._overhead_bytes = 0
        try:
            outcome = feed(piece)
        except BaseException as exc:  # its place is the pump, not the loop
            self._feed_error = exc
        else:
            if outcome is None:
                return
            self._outcome = outcome
            self._hold()
        self._feed = None
        self._wake()

    def _keep(self, piece: bytes) -> None:
        """Nobody takes it at the moment."""
        if self._closed:
            self._count_overhead(len(piece))
            return
        self._overhead_bytes = 0
        self._buffer += piece
        if len(self._buffer) >= BUFFER_BYTES:
            self._hold()
        self._wake()

    def _count_overhead(self, received_bytes: int) -> None:
        self._overhead_bytes += received_bytes
        if self._overhead_bytes > OVERHEAD_LIMIT_BYTES and not self._answer.ended:
            self._fail("upstream_malformed", "too many bytes without a body")

    def _end(self) -> None:
        self._stop_timers()
        self._wake()
        if self._closed:
            self._part()

    def _fail(self, code: str, detail: str) -> None:
        if self._failure is None and not self._answer.ended:
            self._failure = UpstreamError(code, detail=detail)
            self._stop_timers()
            self._wake()
            self._connection.abort()
            if self._closed:
                self._part()

    def _give_up(self) -> None:
        self._fail("upstream_reset", "closed by the gateway")

    def _part(self) -> None:
        """Give the connection back, or drop it."""
        self._answer.drop()
        self._silence.release()
        connection = self._connection
        if self._answer.may_reuse and connection.all_sent and connection.usable:
            connection.let_go()
        else:
            connection.abort()

    # time

    def is_paused(self) -> bool:
        """See ``silence.Owner``."""
        return not self._connection.reading

    def on_silence(self) -> None:
        """See ``silence.Owner``."""
        self._fail("upstream_idle", f"nothing came for {self.idle_timeout_s} s")

    def _stop_timers(self) -> None:
        self._silence.stop()
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
