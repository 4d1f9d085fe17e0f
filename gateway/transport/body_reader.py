"""
The body of an answer between the socket that it arrives at and the task that reads it.

Rule 1: a piece goes from the socket's callback straight to the feed. A task is woken
        only for the end, a failure, a ``STOP`` or back-pressure.
Rule 2: the socket is read only while a task waits for bytes or the buffer has room. A
        task that waits has an empty buffer and resumes the reading.
Rule 3: time in which the gateway does not read is no silence of the upstream.
Rule 4: while the feed of a pump is waited for, pieces may pass it by a lane.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Coroutine, Mapping
from typing import Any

from gateway.errors import UpstreamError
from gateway.transport.connection import Connection
from gateway.transport.decoded import too_large
from gateway.transport.fast_lane import FastLane
from gateway.transport.idle_timeout import IdleTimeout
from gateway.transport.interface import Feed, LaneSide, StopSignal

BUFFER_BYTES = 65536
"""How much of a body is buffered before its socket is not read any more."""


class BodyReader(ABC):
    """
    The reading half of an ``UpstreamResponse``.

    A subclass hands in what arrives (``_deliver``) and how it ended (``has_ended``,
    ``_failure``), and wakes the task for both.
    """

    buffer_bytes = BUFFER_BYTES
    facts: Mapping[str, Any] = {}

    def __init__(self, connection: Connection, idle_timeout_s: float) -> None:
        self._connection = connection
        self._failure: UpstreamError | None = None
        self._buffer = bytearray()
        self._feed: Feed | None = None
        self._outcome: Awaitable[None] | StopSignal | None = None
        self._feed_error: BaseException | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._lane: FastLane | None = None
        self._loop = loop = connection.loop
        self._idle_timeout = IdleTimeout(loop, self, idle_timeout_s)

    @property
    @abstractmethod
    def has_ended(self) -> bool:
        """Whether the answer is whole."""

    @abstractmethod
    def on_idle_timeout(self) -> None:
        """See ``IdleTimeoutOwner``."""

    @abstractmethod
    def _new_lane(self, side: LaneSide) -> FastLane | None:
        """The lane of a pump; None where there can be none."""

    # --- for the relay ----------------------------------------------------------------

    @property
    def idle_timeout_s(self) -> float:
        return self._idle_timeout.limit_s

    @idle_timeout_s.setter
    def idle_timeout_s(self, seconds: float) -> None:
        self._idle_timeout.limit_s = seconds

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

    async def pump(self, feed: Feed, lane: LaneSide | None = None) -> None:
        self._lane, lane = self._new_lane(lane) if lane is not None else None, None
        try:
            while True:
                if self._buffer:
                    outcome = feed(self._take())
                elif self._is_over():
                    return
                else:
                    try:
                        await self._news_for(feed)
                        outcome = self._outcome_of_feed()
                    finally:
                        self._end_feed()
                if isinstance(outcome, StopSignal):
                    return
                if outcome is not None:
                    self._pause()
                    await outcome
        finally:
            self._lane = None

    # --- the task that reads ----------------------------------------------------------

    def _is_over(self) -> bool:
        """Whether the answer has ended; raises the failure if there is one."""
        if self._failure is not None:
            raise self._failure
        return self.has_ended

    def _take(self) -> bytes:
        piece = bytes(self._buffer)
        self._buffer.clear()
        return piece

    async def _wait(self) -> None:
        """Read the socket until a callback has something new."""
        try:
            await self._news()
        finally:
            self._waiter = None

    def _news(self) -> asyncio.Future[None]:
        """Done once a callback has something new; the socket is read until then."""
        if not self._connection.is_reading:
            self._idle_timeout.last_received_at = self._loop.time()
            self._connection.resume()
        self._waiter = self._loop.create_future()
        return self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _news_for(self, feed: Feed) -> asyncio.Future[None]:
        """Let the socket's callback call *feed* until that returns more than None."""
        self._feed = feed
        if self._lane is not None:
            self._lane.start()
        return self._news()

    def _outcome_of_feed(self) -> Awaitable[None] | StopSignal | None:
        """What the feed has returned, or raised."""
        if self._feed_error is not None:
            raise self._feed_error
        outcome, self._outcome = self._outcome, None
        return outcome

    def _end_feed(self) -> None:
        self._waiter = None
        if self._lane is not None:
            self._lane.stop()
        self._feed = self._feed_error = None
        if isinstance(self._outcome, Coroutine):
            self._outcome.close()  # cancelled before it could be awaited
        self._outcome = None

    def _pause(self) -> None:
        """Leave the socket unread until a task waits."""
        if not self.has_ended:
            self._connection.pause()

    # --- for the socket's callback ----------------------------------------------------

    def _deliver(self, piece: bytes) -> None:
        """Pass *piece* on, or keep it until a task takes it."""
        feed = self._feed
        if feed is None:
            self._buffer += piece
            if len(self._buffer) >= self.buffer_bytes:
                self._pause()
            self._wake()
            return
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

    def settle(self) -> None:
        """See ``IdleTimeoutOwner``."""
        if self._lane is not None:
            self._lane.settle()

    def is_reading_paused(self) -> bool:
        """See ``IdleTimeoutOwner``."""
        return not self._connection.is_reading
