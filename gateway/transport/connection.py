"""
One connection to an upstream: bytes in both directions, without knowledge of HTTP.

Rule 1: a connection has one receiver at most. Bytes that arrive while it has none close
        it. A receiver is called in the context of its own request: the event loop's
        is that of the request that opened the connection.
Rule 2: a request is written from the loop's callbacks, slice by slice as the socket
        takes it. So an answer may arrive before the request is sent.
        The pieces of a request that are made one by one leave room between them for
        ``send_between``: what must not wait for the end of a large request.
Rule 3: bytes that were received outrank a write that fails. An upstream that refuses a
        request early answers and resets the connection, and the next write would close
        the socket before the answer is read. So a slice is written only when nothing
        waits to be read, and what a failed write has left in the socket is read.

    pool ──send_request──▶ in use ──release──▶ idle in the pool ──send_request──▶ …
                              └──────abort──────▶ closed ◀──────┘
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextvars import Context, copy_context
from typing import Protocol, cast

from gateway.transport.gathering import Gathering
from gateway.transport.request import Route
from gateway.transport.socket_state import (
    descriptor_of,
    is_encrypted,
    is_readable,
    left_in_socket,
)

SLICE_BYTES = 262144
"""How much of a large body is handed to the socket at once."""

JOIN_BYTES = 131072
"""Up to this size head and body are joined and leave in one packet."""

_NOTHING = memoryview(b"")


class ResponseReceiver(Protocol):
    """What a request's answer is delivered to."""

    def receive(self, data: bytes) -> None:
        """Bytes have arrived."""
        ...

    def receive_eof(self) -> None:
        """The upstream will send nothing more."""
        ...

    def connection_lost(self, error: Exception | None) -> None:
        """The connection is closed; *error* is None if that was in good order."""
        ...


class ConnectionOwner(Protocol):
    """What keeps connections between two requests."""

    def take_back(self, connection: Connection) -> None:
        """*connection* is idle and may serve another request."""
        ...

    def discard(self, connection: Connection) -> None:
        """*connection* is closed."""
        ...


class Connection(asyncio.Protocol):
    """
    The event loop's protocol for one connection.

    It has more methods than other classes, because asyncio's interface is half of them.

    Attributes:
        route: where it leads to.
        gathering: of the process.
        loop: its event loop; to ask asyncio for it costs a system call.
        is_reading: False while back-pressure keeps the socket unread.
    """

    def __init__(
        self, route: Route, owner: ConnectionOwner, gathering: Gathering | None = None
    ) -> None:
        self.route = route
        self.gathering = gathering or Gathering()
        self.loop = asyncio.get_running_loop()
        self._opening: asyncio.Future[None] | None = self.loop.create_future()
        self.is_reading = True
        self._owner = owner
        self._transport: asyncio.Transport | None = None
        self._receiver: ResponseReceiver | None = None
        self._context: Context
        self._unsent = _NOTHING
        self._pieces: Iterator[bytes] | None = None  # that follow it
        self._between = b""
        self._may_write = True
        self._is_cut_short = False
        self._descriptor = -1
        self._has_tls = False
        self._is_diverted = False

    async def opened(self) -> None:
        """
        Return once a request can be written.

        Raises:
            OSError, ssl.SSLError: why not.
        """
        assert self._opening is not None
        await self._opening
        self._opening = None

    # --- for the receiver -------------------------------------------------------------

    @property
    def is_usable(self) -> bool:
        """Whether a request can be written."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_request_sent(self) -> bool:
        """Whether the whole request was handed to the event loop."""
        return not (self._unsent or self._pieces or self._is_cut_short)

    def stop_sending(self) -> None:
        """Leave the rest of the request unsent: the upstream has refused it."""
        if self._unsent:
            self._is_cut_short = True
            self._unsent = _NOTHING

    def send_request(
        self, receiver: ResponseReceiver, head: bytes, body: bytes
    ) -> None:
        """Send a request and deliver to *receiver* what arrives from now on."""
        assert self._transport is not None
        self._receiver, self._context = receiver, copy_context()
        if len(body) <= JOIN_BYTES:
            self._transport.write(head + body)
            return
        self._transport.write(head)
        self._unsent = memoryview(body)
        self._write_on()

    def send_pieces(self, receiver: ResponseReceiver, pieces: Iterator[bytes]) -> None:
        """As ``send_request``; each of *pieces* is made when it can leave."""
        self._receiver, self._context = receiver, copy_context()
        self._pieces = pieces
        self._write_on()

    def send_between(self, data: bytes) -> None:
        """Send *data* at the next gap between pieces; it replaces what waits there."""
        self._between = data
        self._write_on()

    def finish(self, data: bytes) -> None:
        """Send *data* as the last and close; the receiver is not called any more."""
        self._receiver = None
        if self._transport is None or not self.is_request_sent or not self._may_write:
            self.abort()
            return
        self._transport.write(data)
        self._transport.close()

    def release(self) -> None:
        """Give the connection back after a whole answer, for another request."""
        self._receiver = None
        self.resume()
        self._owner.take_back(self)

    def abort(self) -> None:
        """Close at once; what is unsent is lost, and the receiver is not called."""
        self._receiver = None
        self._drop_unsent()
        if self._transport is not None:
            self._transport.abort()

    def stop(self) -> None:
        """Close at once; the receiver learns that the transport has stopped."""
        receiver = self._receiver
        self.abort()
        if receiver is not None:
            receiver.connection_lost(
                ConnectionAbortedError("the transport has stopped")
            )

    def divert(self, protocol: asyncio.Protocol | None) -> None:
        """Let *protocol* have what the event loop says; None: this object again."""
        if self.is_usable:
            cast(asyncio.Transport, self._transport).set_protocol(protocol or self)
        self._is_diverted = protocol is not None
        if self._is_diverted:
            self.gathering.open_lane(self.loop, self._descriptor)
            return
        self.gathering.close_lane()
        if self.is_usable and self.is_reading:
            self.gathering.wait_for(self._descriptor)

    def pause(self) -> None:
        """Stop reading the socket."""
        if self.is_reading and self.is_usable:
            self.is_reading = False
            self.gathering.pass_over(self._descriptor)
            cast(asyncio.Transport, self._transport).pause_reading()

    def resume(self) -> None:
        """Read the socket again."""
        if not self.is_reading and self.is_usable:
            self.is_reading = True
            if not self._is_diverted:
                self.gathering.wait_for(self._descriptor)
            cast(asyncio.Transport, self._transport).resume_reading()

    # --- for the event loop -----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._descriptor = descriptor_of(transport)
        self._has_tls = is_encrypted(transport)
        self.gathering.wait_for(self._descriptor)
        if self._opening is not None and not self._opening.done():
            self._opening.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._receiver is None:
            self.abort()
        else:
            self._context.run(self._receiver.receive, data)

    def eof_received(self) -> None:
        if self._receiver is not None:
            self._context.run(self._receiver.receive_eof)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._drop_unsent()
        self._owner.discard(self)
        if self._opening is not None and not self._opening.done():
            self._opening.set_exception(exc or ConnectionResetError("closed at once"))
        receiver, self._receiver = self._receiver, None
        if receiver is not None:
            run = self._context.run
            # Without an error too: asyncio forgets that of a write that
            # ``resume_writing`` made.
            if not self._has_tls:  # else it was read below
                for data in left_in_socket(self._descriptor):
                    run(receiver.receive, data)
            run(receiver.connection_lost, exc)

    def pause_writing(self) -> None:
        self._may_write = False

    def resume_writing(self) -> None:
        self._may_write = True
        self._write_on()

    def _drop_unsent(self) -> None:
        self._unsent, self._pieces, self._between = _NOTHING, None, b""

    def _write_on(self) -> None:
        """Write slices until the socket is full or nothing is left."""
        while self._may_write and self.is_usable and self._has_slice():
            if self.is_reading and is_readable(self._descriptor):
                self.loop.call_soon(self._write_on)  # after the read
                return
            piece, self._unsent = (
                self._unsent[:SLICE_BYTES],
                self._unsent[SLICE_BYTES:],
            )
            cast(asyncio.Transport, self._transport).write(piece)

    def _has_slice(self) -> bool:
        """Whether something is left to be written; then it is in ``_unsent``."""
        if not self._unsent:
            piece, self._between = self._between, b""
            if not piece and self._pieces is not None:
                piece = next(self._pieces, b"")
                if not piece:
                    self._pieces = None
            self._unsent = memoryview(piece)
        return bool(self._unsent)
