"""
One websocket of a client, on the connection that its upgrade came on.

    bytes ──▶ MessageReader ──▶ inbox ──▶ ``next``: room, inflate ──▶ whole message
                                          ``write`` ──▶ connection

Rule 1: reading goes on always, so that a ping is answered and a close is seen at once;
        it pauses while the inbox is full, or while the user has no room for a message.
Rule 2: a message is bounded by the limit of a request body, before and after it is
        inflated, and takes room of its user from ``FREE_BYTES`` on.
Rule 3: what a client makes us answer (pongs) is dropped while it does not read.
Rule 4: one call from the event loop handles ``FRAMES_A_STEP`` frames, about.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from aiohttp import web

from gateway.admission.body_room import BodyShare
from gateway.client.framing import switch_protocols
from gateway.client.intake import SILENCE_S
from gateway.client.websocket.handshake import Handshake
from gateway.client.websocket.messages import (
    DEFLATE_END,
    MessageInflater,
    MessageReader,
    RawMessage,
)
from gateway.client.websocket.text_frames import text_frame
from gateway.content_coding import CodingError, DecodeScheduler
from gateway.transport.fast_lane import LaneTransport

FREE_BYTES = 64 * 1024  # of a message that take no room of the user
SMALL_BYTES = (
    4096  # a whole message that need not wait for room: it may be an interrupt
)
MAX_INBOX = 8  # messages that were not looked at
SLICE_BYTES = 4096  # that are parsed together
FRAMES_A_STEP = 128
MAX_UNSENT_BYTES = 256 * 1024  # beyond it pongs are dropped
CLOSE_WAIT_S = 1.0  # for the client's own close; some never send one

GOING_AWAY, NORMAL = 1001, 1000
POLICY, BAD_DATA, TOO_BIG = 1008, 1007, 1009


class ClientMessage(NamedTuple):
    """
    Attributes:
        share: what it takes of its user's room; its owner must release it.
    """

    data: bytes
    is_text: bool
    share: BodyShare


class ClientSocket:
    """
    Args:
        enter_room: a share of the user's room for bodies.
        max_bytes: of one message.
        scheduler: shared with all others who decode.

    It has many methods because it is both ends of a connection: aiohttp's parser
    (``feed_data``, ``feed_eof``), a reader, a writer, and a life.
    """

    def __init__(
        self,
        request: web.BaseRequest,
        handshake: Handshake,
        enter_room: Callable[[], BodyShare],
        max_bytes: int,
        scheduler: DecodeScheduler,
    ) -> None:
        self.deflate_bits = handshake.deflate_bits
        self._loop = asyncio.get_running_loop()
        self._request = request
        self._connection = request.protocol
        self._enter_room = enter_room
        self._max_bytes = max_bytes
        self._scheduler = scheduler
        self._reader = MessageReader(max_bytes, deflates=bool(self.deflate_bits))
        self._inbox: deque[RawMessage] = deque()
        self._rest = b""  # that was not parsed yet
        self._arrived = 0  # bytes since the last whole message
        self._share: BodyShare | None = None  # of a message that arrives
        self._waiter: asyncio.Future[None] | None = None
        self._lost = False
        self._lasts = 0  # endings that have not left for the socket

    def open(self, headers: dict[str, str]) -> web.StreamResponse:
        """Answer the upgrade; what comes from now on is frames."""
        response = switch_protocols(self._request, headers)
        self._connection.set_parser(self)  # type: ignore[arg-type]
        return response

    # --- what comes -------------------------------------------------------------------

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        """Bytes of the client; called by aiohttp."""
        self._rest = self._rest + data if self._rest else data
        self._arrived += len(data)
        self._parse()
        return False, b""

    def feed_eof(self) -> None:
        """The connection is lost, or half closed; called by aiohttp."""
        self._reader.feed_eof()
        self._lost = True
        self._wake()

    def _parse(self) -> None:
        """Parse what is there, up to the bound; the rest in the next step."""
        rest, frames, at = self._rest, 0, 0
        while at < len(rest) and frames < FRAMES_A_STEP:
            messages, count = self._reader.feed(rest[at : at + SLICE_BYTES])
            at += SLICE_BYTES
            frames += count
            if messages:
                self._inbox += messages
                self._arrived = max(0, len(rest) - at)
        self._rest = rest[at:]
        self._answer()
        if self._rest:
            self._connection.pause_reading()
            self._loop.call_soon(self._parse_on)
        elif len(self._inbox) > MAX_INBOX or self._lacks_room:
            self._connection.pause_reading()
        if self._inbox or self._lacks_room or not self._reader.is_open:
            self._wake()

    def _parse_on(self) -> None:
        self._parse()
        self._go_on()

    def _go_on(self) -> None:
        """Read on, unless there is a reason not to."""
        held_up = self._rest or len(self._inbox) > MAX_INBOX or self._lacks_room
        if not (held_up or self._lost):
            self._connection.resume_reading()

    @property
    def _lacks_room(self) -> bool:
        """Whether a message arrives that has to have more room of its user."""
        has = self._share.size if self._share else 0
        return self._arrived - has > FREE_BYTES

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def next(self) -> ClientMessage | None:
        """The next message; None when there will be no other."""
        while self._inbox or self._reader.is_open and not self._lost:
            if self._inbox:
                raw = self._inbox.popleft()
                message = await self._whole(raw)
                self._go_on()
                if message is not None:
                    return message
            elif self._lacks_room:
                self._share = self._share or self._enter_room()
                need = self._arrived - self._share.size
                await self._share.room(need)
                self._share.take(need)
                self._go_on()
            else:
                await self._wait()
        return None

    async def _wait(self) -> None:
        """Wait for something to look at."""
        self._waiter = self._loop.create_future()
        try:
            # A part of a message must not hold its user's room for ever.
            async with asyncio.timeout(SILENCE_S if self._share else None):
                await self._waiter
        except TimeoutError:
            if not self._inbox and not self._lacks_room:
                self.close(POLICY, "the message did not arrive")
        finally:
            self._waiter = None

    async def _whole(self, raw: RawMessage) -> ClientMessage | None:
        """*raw* with its room, inflated; None if the connection is closed for it."""
        share, self._share = self._share or self._enter_room(), None
        try:
            await _take(share, len(raw.data) - share.size)
            data = raw.data
            if raw.is_deflated:
                data = await self._inflated(data, share)
            share.close()
            return ClientMessage(data, raw.is_text, share)
        except _Refused as refused:
            share.release()
            self.close(*refused.args)
            return None
        except BaseException:
            share.release()
            raise

    async def _inflated(self, data: bytes, share: BodyShare) -> bytes:
        """*data* inflated, a step at a time."""
        inflater, pieces, size = MessageInflater(), [], 0
        inflater.feed(data + DEFLATE_END)
        while not inflater.hungry:
            try:
                piece = inflater.step()
            except CodingError:
                raise _Refused(BAD_DATA, "the message is not valid deflate") from None
            pieces.append(piece)
            size += len(piece)
            if size > self._max_bytes:
                raise _Refused(TOO_BIG, "the message is too large")
            if size > share.size:
                await _take(share, size - share.size)
            if not inflater.hungry:
                await self._scheduler.wait()
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def release(self) -> None:
        """Give back the room of a message that was not complete."""
        if self._share is not None:
            self._share.release()
            self._share = None

    # --- what goes --------------------------------------------------------------------

    def write(self, frames: bytes, *, last: bool = False) -> bool:
        """
        Write whole frames; returns whether ``drain`` is to be awaited.

        Args:
            last: a response ends with them: ``drain`` waits until they have left for
                the socket, and ``let_go`` is called then.

        Raises:
            ConnectionError: the client has left, or was left.
        """
        transport = self._connection.transport
        if transport is None or transport.is_closing() or not self._reader.is_open:
            raise ConnectionResetError("the client has left")
        if last:
            self._lasts += 1
            transport.set_write_buffer_limits(0)
        transport.write(frames)
        return self._connection.writing_paused

    def write_text(self, text: bytes) -> bool:
        """Write the JSON *text* as a frame; see ``write``."""
        return self.write(text_frame(text, self.deflate_bits))

    @property
    def lane_transport(self) -> LaneTransport | None:
        """Where frames may be written past ``write``; None: nowhere any more."""
        transport = self._connection.transport
        if transport is None or not self._reader.is_open:
            return None
        return _LaneTransport(transport, self._reader)

    async def drain(self) -> None:
        """Wait until the client has taken enough."""
        await self._request.writer.drain()

    def let_go(self) -> None:
        """An ending has left."""
        self._lasts -= 1
        transport = self._connection.transport
        if not self._lasts and transport is not None and not transport.is_closing():
            transport.set_write_buffer_limits()

    def _answer(self) -> None:
        """Send the control frames that are due."""
        frames = self._reader.to_send()
        transport = self._connection.transport
        if not frames or transport is None or transport.is_closing():
            return
        unsent = transport.get_write_buffer_size()
        if unsent < MAX_UNSENT_BYTES or not self._reader.is_open:
            transport.write(b"".join(frames))

    # --- its life ---------------------------------------------------------------------

    @property
    def is_open(self) -> bool:
        """Whether messages go both ways."""
        return self._reader.is_open and not self._lost

    @property
    def close_code(self) -> int:
        """Why it was closed; 1006: without a word."""
        return self._reader.close_code

    def ping(self) -> None:
        """Show the boxes on the way that the connection is in use."""
        self._reader.ping()
        self._answer()

    def close(self, code: int, reason: str = "") -> None:
        """Say that it is over; ``next`` gives no message more."""
        self._reader.close(code, reason)
        self._inbox.clear()
        self._answer()
        self._wake()

    async def closed(self) -> None:
        """Wait a moment for the client to close its side."""
        self.release()
        if self._lost or self._reader.is_over:
            return
        self._arrived = 0
        self._connection.resume_reading()
        deadline = self._loop.time() + CLOSE_WAIT_S
        while not (self._lost or self._reader.is_over):
            self._waiter = self._loop.create_future()
            try:
                async with asyncio.timeout_at(deadline):
                    await self._waiter
            except TimeoutError:
                return

    def abort(self) -> None:
        """Cut the client off."""
        if self._connection.transport is not None:
            self._connection.transport.abort()


class _LaneTransport:
    """A transport that is closing, too, once either side has sent a close frame."""

    __slots__ = ("get_write_buffer_size", "write", "_closes", "_reader")

    def __init__(
        self, transport: asyncio.WriteTransport, reader: MessageReader
    ) -> None:
        self.get_write_buffer_size = transport.get_write_buffer_size
        self.write = transport.write
        self._closes = transport.is_closing
        self._reader = reader

    def is_closing(self) -> bool:
        """Whether nothing may be written any more."""
        return self._closes() or not self._reader.is_open


class _Refused(Exception):
    """The connection is closed for a message: a code and a reason."""


async def _take(share: BodyShare, size: int) -> None:
    """Let *share* take *size* bytes more; a small message need not wait for room."""
    if size <= 0:
        return
    if share.size + size > SMALL_BYTES:
        await share.room(size, whole=True)
    share.take(size)
