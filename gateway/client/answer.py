"""
One streamed answer to a client: its state, its keepalives, its one ending.

Rule 1: every write is of whole events, so a keepalive falls only between events and
        an ending can follow any write.
Rule 2: after the ending nothing is written; a second one is not possible.
Rule 3: the head is held back until there is something to say, so that a quick
        refusal is still a real HTTP status.

    WAITING ──push, send──▶ STREAMING ──finish, fail──▶ CLOSED
       └─────────────────finish, fail─────────────────────▲

WAITING: the client has nothing of the answer, or keepalives alone (``opened``).
STREAMING: it has a part. CLOSED: it has its terminal, or cannot get another.

How bytes reach the client is its ``ClientStream``'s business, not decided here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from gateway.client.answer_headers import id_headers
from gateway.client.interface import ClientStream, QueuePlace
from gateway.errors import ClientError, GatewayError
from gateway.protocols.stream_facts import StreamFacts
from gateway.protocols.stream_state import CLOSED, STREAMING, WAITING, StreamState
from gateway.record import Record
from gateway.transport.fast_lane import LaneEnd, LaneTransport
from gateway.transport.timers import NOT_WAITING, timers_of

STALL_S = 300.0  # a client that takes nothing for so long is cut off

NO_HEADERS: Mapping[str, str] = {}
NOTHING = StreamFacts()  # of an answer that has not begun


def _not_queued() -> None:
    """The place of a request that does not wait in a queue."""


def _refuse(data: bytes, *, last: bool = False) -> bool:
    """Writes nothing behind an ending (rule 2)."""
    raise RuntimeError("the answer has ended")


class ClientAnswer:
    """
    It has more methods than other classes: those of its life, of its timer and of a
    lane past it.

    Args:
        ping_interval_s: seconds of silence after which a keepalive is due.

    Attributes:
        opened: a head is out, with or without keepalives.
        facts: what the stream of the present attempt has said.
        settle: calls ``written`` if something was written past this object.
        queue_place: asks where the request waits; None when it does not.
        shows_thinking: its client has to know of an answer that only thinks yet, to
            interrupt it; no other account can answer then.
    """

    def __init__(
        self, stream: ClientStream, record: Record, ping_interval_s: float
    ) -> None:
        self.state: StreamState = WAITING
        self.opened = self.shows_thinking = False
        self.keepalives = 0
        self.facts = NOTHING
        self.queue_place: Callable[[], QueuePlace | None] = _not_queued
        self.settle: Callable[[], None] | None = None
        self._stream = stream
        self._put = _refuse  # until it is open
        self._record = record
        self._interval_s = ping_interval_s
        self._headers: Mapping[str, str] = NO_HEADERS
        self._loop = asyncio.get_running_loop()
        self._last_write_at = self._last_output_at = self._loop.time()
        self._blocked = self._ending = False
        self._timer = NOT_WAITING

    # --- the answer ---------------------------------------------------------------

    @property
    def can_refuse(self) -> bool:
        """Whether a failure can still be an HTTP status, and no event."""
        return self._stream.has_http_head and not self.opened

    @property
    def seen(self) -> StreamFacts:
        """What the client has read of the answer; nothing of what was held back."""
        return self.facts if self.state is STREAMING else NOTHING

    def add_headers(self, headers: Mapping[str, str]) -> None:
        """Give the client more *headers*; over HTTP too late once the head is out."""
        if self.opened:
            self._stream.add_headers(headers)
        else:
            self._headers = {**self._headers, **headers}

    def queues_no_more(self) -> None:
        """Its request will not wait in a queue again."""
        self.queue_place = _not_queued

    def push(
        self, data: bytes, *, last: bool = False
    ) -> Coroutine[Any, Any, None] | None:
        """
        Write whole events now; what is to be awaited, if anything, is back-pressure.

        Args:
            last: the answer ends with them.

        Raises:
            ClientError: "client_gone".
        """
        if not (data or last):
            return None
        self._last_write_at = self._last_output_at = self._loop.time()
        self.state = STREAMING
        try:
            if not self.opened:
                self._open()
            if not self._put(data, last=last):
                return None
        except ConnectionError as gone:
            raise ClientError("client_gone", detail=repr(gone)) from None
        return self._drained()

    # --- for the fast lane --------------------------------------------------------

    @property
    def lane(self) -> LaneEnd | None:
        """How parts of it may be written past this object; None: never."""
        return self._stream.lane

    @property
    def lane_transport(self) -> LaneTransport | None:
        """Where more of the answer may be written past this object; None: not now."""
        lane = self._stream.lane
        if lane is None or self.state is not STREAMING or self._blocked or self._ending:
            return None
        return lane.lane_transport

    def written(self, at: float, frames: int = 0) -> None:
        """
        A part of the answer was written past this object, *at* this loop time, in so
        many *frames*.
        """
        if frames and (lane := self._stream.lane):
            lane.count_frames(frames)
        self._last_write_at = max(self._last_write_at, at)
        self._last_output_at = max(self._last_output_at, at)

    # --- back-pressure and the ending ---------------------------------------------

    async def _drained(self) -> None:
        """Wait until the client has taken enough; no keepalives meanwhile."""
        self._blocked = True
        try:
            await self._stream.drain()
        except ConnectionError as gone:
            raise ClientError("client_gone", detail=repr(gone)) from None
        finally:
            self._blocked = False

    async def send(self, data: bytes) -> None:
        """Write whole events and wait until the client takes them."""
        if waiting := self.push(data):
            await waiting

    async def finish(self, terminal: bytes) -> None:
        """Write the terminal, end the answer, and wait until all of it has left us."""
        self._ending = True
        waiting = self.push(terminal, last=True)
        self.state = CLOSED  # now, not when it is taken: no second one
        self._put = _refuse
        if waiting:
            await waiting
        self.stop_keepalives()

    async def fail(self, error: GatewayError) -> None:
        """End the answer with *error*."""
        await self.finish(self._stream.failure(error, self.seen))

    def _open(self) -> None:
        """Make the head, once; it leaves together with what is written next."""
        self._stream.begin({**self._headers, **id_headers(self._record)})
        self._headers = NO_HEADERS
        self._put = self._stream.put
        self.opened = True
        self._record.status = 200

    # --- keepalives -----------------------------------------------------------------

    def start_keepalives(self) -> None:
        """From now on a silence longer than the interval is broken."""
        self._wait(self._interval_s)

    def stop_keepalives(self) -> None:
        """Write no keepalives any more."""
        if self._timer:
            timers_of(self._loop).end(self._timer, self)
            self._timer = NOT_WAITING

    def _wait(self, seconds: float) -> None:
        self._timer = timers_of(self._loop).at(self._loop.time() + seconds, self)

    def on_timer(self) -> None:
        """See ``TimerOwner``: look whether a keepalive is due."""
        if self.settle is not None:
            self.settle()
        silent_s = self._loop.time() - self._last_write_at
        due_s = self._interval_s - silent_s
        if due_s <= 0.001:
            due_s = self._interval_s
            if not (self._blocked or self._ending):
                self._keep_alive()
            elif silent_s > STALL_S:
                self._stream.abort()
        self._wait(due_s)

    def _keep_alive(self) -> None:
        """
        Write one keepalive. It waits for nothing, and that the client has left is
        noticed by the handler that serves it.
        """
        self._last_write_at = now = self._loop.time()
        place = self.queue_place()
        try:
            if not self.opened:
                self._open()
            self._put(self._stream.keepalive(place, now, self._last_output_at))
        except ConnectionError:
            return
        self.keepalives += 1
