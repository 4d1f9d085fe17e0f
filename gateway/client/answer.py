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
from typing import Any

from aiohttp import web

from gateway.client.answer_headers import id_headers
from gateway.client.framing import FramedStream
from gateway.client.kinds import (
    COMMENT,
    DATA_EVENT,
    Client,
    QueueStatus,
    Wait,
    queue_comment,
)
from gateway.errors import ClientError, GatewayError
from gateway.protocols.protocol import StreamFacts, WireProtocol
from gateway.protocols.stream_state import CLOSED, STREAMING, WAITING, StreamState
from gateway.record import Record

STREAM_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}

STALL_S = 300.0  # a client that takes nothing for so long is cut off


NOTHING = StreamFacts()  # what a stream has told that has not begun

Waiting = Callable[[], Wait | None]
"""Tells the place in the queue; None when the request does not queue."""


def _nowhere() -> None:
    """The place of a request that does not queue."""


class ClientAnswer:
    """
    The client of one streaming request.

    Args:
        ping_interval_s: seconds of silence after which a keepalive is due.
    """

    def __init__(
        self,
        request: web.BaseRequest,
        record: Record,
        wire: WireProtocol,
        client: Client,
        ping_interval_s: float,
    ) -> None:
        self.state: StreamState = WAITING
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
        self._response: FramedStream | None = None
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
        return PendingDrain(coroutine, future, self)

    async def send(self, data: bytes) -> None:
        """Write whole events and wait until the client takes them."""
        if rest := self.push(data):
            await rest

    async def finish(self, terminal: bytes) -> None:
        """Write the terminal, close the body, and wait until all of it has left us."""
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
            error, record.request_id, self.seen, record.model
        )
        await self.finish(frame)

    @property
    def seen(self) -> StreamFacts:
        """What the client was told of the answer; nothing of what was held back."""
        return self.facts if self.state is STREAMING else NOTHING

    def _open(self) -> FramedStream:
        """Prepare the head, once; it leaves together with what is written next."""
        self._headers.update(id_headers(self._record))
        response = self.response
        response.begin(self._request)
        self._headers.clear()
        self.opened = True
        self._record.status = 200
        return response

    @property
    def response(self) -> FramedStream:
        """What the handler returns once the stream is open."""
        if self._response is None:
            self._response = FramedStream(headers=self._headers)
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
        if isinstance(rest, PendingDrain):
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


class PendingDrain:
    """
    The part of a write that has to wait until the client reads on.

    A write is begun without a task; nearly all are over then. One that must wait
    hands out its future here, and whoever awaits this finishes it.
    """

    __slots__ = ("_coroutine", "_future", "_owner")

    def __init__(
        self, coroutine: Coroutine[Any, Any, Any], future: Any, owner: ClientAnswer
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
