"""
One answer on a connection: HTTP's side of ``UpstreamResponse``; see ``BodyReader``.
"""

from __future__ import annotations

import asyncio

import httptools
from multidict import CIMultiDictProxy

from gateway.errors import UpstreamError
from gateway.transport.body_reader import BodyReader
from gateway.transport.connection import Connection
from gateway.transport.converting_lane import ConvertingLane
from gateway.transport.fast_lane import FastLane
from gateway.transport.framing_lane import FramingLane, frames_of_chunks
from gateway.transport.interface import Ended, LaneSide
from gateway.transport.response_parser import ResponseParser

_REFUSED = 400  # from this status on an upstream does not read the request's rest

OVERHEAD_LIMIT_BYTES = 65536
"""The most that may arrive outside a body: head, framing, the rest while lingering."""


class HttpResponse(BodyReader):
    """
    An ``UpstreamResponse``, once ``head`` has returned.

    Attributes:
        has_received: whether a single byte of an answer has arrived.
    """

    def __init__(
        self, connection: Connection, method: str, idle_timeout_s: float
    ) -> None:
        super().__init__(connection, idle_timeout_s)
        self.status = 0
        self.headers: CIMultiDictProxy[str]
        self.has_received = False
        self._parser = ResponseParser(method)
        self._overhead_bytes = 0
        self._ends_line = False  # the last read ended in LF
        self._has_head = False
        self._is_closed = False
        self._linger: asyncio.TimerHandle | None = None
        self._ended: Ended | None = None

    @property
    def has_ended(self) -> bool:
        return self._parser.ended

    # --- for the relay ----------------------------------------------------------------

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

    def _new_lane(self, side: LaneSide) -> FastLane | None:
        if not self._parser.is_chunked:
            return None
        client = side.client
        if client.converts:
            return ConvertingLane(self._connection, self, client, side.record)
        if not client.end.takes_frames:
            return FastLane(self._connection, self, client, side.record)
        convert = frames_of_chunks(client.end.framed)
        return FramingLane(self._connection, self, client, side.record, convert)

    # --- for the lane -----------------------------------------------------------------

    @property
    def is_between(self) -> bool:
        """See ``LaneAnswer``. Only the size of a chunk can end without its LF."""
        parser = self._parser
        if self._feed is None or parser.ended or self._failure is not None:
            return False
        return self._ends_line and not parser.in_chunk[0]

    def passed(self, at: float) -> None:
        """See ``LaneAnswer``."""
        self._idle_timeout.last_received_at = at
        self._overhead_bytes = 0

    # --- the end ----------------------------------------------------------------------

    def close(self, linger_s: float = 0.0, ended: Ended | None = None) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._buffer.clear()
        if self._parser.ended or self._failure is not None:
            self._release()
            if ended is not None and self._parser.ended:
                ended()
            return
        self._ended = ended
        self._stop_timers()
        if linger_s > 0 and self._has_head:
            self._overhead_bytes = 0
            self._connection.resume()
            self._linger = self._loop.call_later(linger_s, self._abandon)
        else:
            self._abandon()

    # --- for the connection -----------------------------------------------------------

    def receive(self, data: bytes) -> None:
        self.has_received = True
        if self._parser.ended or self._failure is not None:
            self._parser.may_reuse = False
            return
        parser = self._parser
        self._idle_timeout.last_received_at = self._loop.time()
        self._ends_line = data.endswith(b"\n")
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
            self._pass_on(parser.pieces)
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

    def _pass_on(self, pieces: list[bytes]) -> None:
        """Pass on what one read brought, as one piece."""
        piece = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if self._is_closed:
            self._count_overhead(len(piece))
            return
        self._overhead_bytes = 0
        self._deliver(piece)

    def _count_overhead(self, received_bytes: int) -> None:
        self._overhead_bytes += received_bytes
        if self._overhead_bytes > OVERHEAD_LIMIT_BYTES and not self._parser.ended:
            self._fail("upstream_malformed", "too many bytes without a body")

    def _end(self) -> None:
        ended, self._ended = self._ended, None
        self._stop_timers()
        self._wake()
        if self._is_closed:
            self._release()
        if ended is not None:
            ended()

    def _fail(self, code: str, detail: str) -> None:
        if self._failure is None and not self._parser.ended:
            self._failure = UpstreamError(code, detail=detail)
            self._ended = None
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

    def on_idle_timeout(self) -> None:
        """See ``IdleTimeoutOwner``."""
        self._fail("upstream_idle", f"nothing came for {self.idle_timeout_s} s")

    def _stop_timers(self) -> None:
        self._idle_timeout.stop()
        if self._linger is not None:
            self._linger.cancel()
            self._linger = None
