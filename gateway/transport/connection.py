"""
One connection to an upstream: the socket's side, which knows no HTTP.

Rule 1: at most one listener at a time; what comes while there is none makes the
        connection useless, and it is dropped. A listener is called in the context that
        it began to listen in: the loop's own is that of an older request.
Rule 2: a request is written from the loop's callbacks, slice by slice as the socket
        takes it, so an answer may come before the request is out.
Rule 3: what was received outranks a write that fails. An upstream that refuses early
        answers and resets, and a write after that would close the socket over an
        answer that is not read yet. So a slice is written only when nothing is there to
        be read, and what a failed write has left in the socket is read.

    pool ──listen──▶ in use ──let_go──▶ kept by the pool ──listen──▶ …
                       └──────abort──────▶ lost ◀──────┘
"""

from __future__ import annotations

import asyncio
from contextvars import Context, copy_context
from typing import Protocol, cast

from gateway.transport.request import Route
from gateway.transport.socket_state import (
    descriptor_of,
    is_encrypted,
    is_readable,
    left_in_socket,
)

SLICE_BYTES = 65536
"""How much of a large body is handed to the socket at once."""

JOIN_BYTES = 131072
"""Up to here head and body are joined and leave in one packet."""

_NOTHING = memoryview(b"")


class Listener(Protocol):
    """Whoever waits for an answer on a connection."""

    def receive(self, data: bytes) -> None:
        """Bytes came."""
        ...

    def finish(self) -> None:
        """The upstream will send nothing more."""
        ...

    def lose(self, error: Exception | None) -> None:
        """The connection is gone."""
        ...


class Keeper(Protocol):
    """Whoever owns the connections."""

    def keep(self, connection: Connection) -> None:
        """*connection* may serve another request."""
        ...

    def forget(self, connection: Connection) -> None:
        """*connection* is gone."""
        ...


class Connection(asyncio.Protocol):
    """
    The loop's view of one socket.

    Attributes:
        route: where it leads to.
        loop: the event loop that it lives in; to ask for it costs a system call.
        reused: whether a request was answered on it before.
        reading: whether its socket is read.
        opened: done when a request can be written, or with the reason why not.
    """

    def __init__(self, route: Route, keeper: Keeper) -> None:
        self.route = route
        self.loop = asyncio.get_running_loop()
        self.opened: asyncio.Future[None] = self.loop.create_future()
        self.reused = False
        self.reading = True
        self._keeper = keeper
        self._transport: asyncio.Transport | None = None
        self._listener: Listener | None = None
        self._context: Context
        self._unsent = _NOTHING
        self._may_write = True
        self._stopped_early = False
        self._descriptor = -1
        self._has_tls = False

    # what the listener does with it

    @property
    def usable(self) -> bool:
        """Whether a request can be written to it."""
        return self._transport is not None and not self._transport.is_closing()

    @property
    def all_sent(self) -> bool:
        """Whether the request left this program (the socket may still hold some)."""
        return not (self._unsent or self._stopped_early)

    def stop_sending(self) -> None:
        """The upstream has refused: it does not want the rest of the request."""
        if self._unsent:
            self._stopped_early = True
            self._unsent = _NOTHING

    def listen(self, listener: Listener, head: bytes, body: bytes) -> None:
        """Send a request; what comes from now on is *listener*'s."""
        assert self._transport is not None
        self._listener, self._context = listener, copy_context()
        if len(body) <= JOIN_BYTES:
            self._transport.write(head + body)
            return
        self._transport.write(head)
        self._unsent = memoryview(body)
        self._write_on()

    def let_go(self) -> None:
        """The answer was whole: the connection is free for another request."""
        self._listener = None
        self.reused = True
        self.resume()
        self._keeper.keep(self)

    def abort(self) -> None:
        """Close at once; what is unsent is lost."""
        self._listener = None
        self._unsent = _NOTHING
        if self._transport is not None:
            self._transport.abort()

    def stop(self) -> None:
        """Close at once, and tell whoever waits for an answer."""
        listener = self._listener
        self.abort()
        if listener is not None:
            listener.lose(ConnectionAbortedError("the transport has stopped"))

    def pause(self) -> None:
        """Read the socket no more."""
        if self.reading and self.usable:
            self.reading = False
            cast(asyncio.Transport, self._transport).pause_reading()

    def resume(self) -> None:
        """Read the socket again."""
        if not self.reading and self.usable:
            self.reading = True
            cast(asyncio.Transport, self._transport).resume_reading()

    # what the loop tells

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._descriptor = descriptor_of(transport)
        self._has_tls = is_encrypted(transport)
        if not self.opened.done():
            self.opened.set_result(None)

    def data_received(self, data: bytes) -> None:
        if self._listener is None:
            self.abort()
        else:
            self._context.run(self._listener.receive, data)

    def eof_received(self) -> None:
        if self._listener is not None:
            self._context.run(self._listener.finish)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._unsent = _NOTHING
        self._keeper.forget(self)
        if not self.opened.done():
            self.opened.set_exception(exc or ConnectionResetError("closed at once"))
        listener, self._listener = self._listener, None
        if listener is not None:
            run = self._context.run
            if exc is not None and not self._has_tls:  # which has read it itself
                for data in left_in_socket(self._descriptor):
                    run(listener.receive, data)
            run(listener.lose, exc)

    def pause_writing(self) -> None:
        self._may_write = False

    def resume_writing(self) -> None:
        self._may_write = True
        self._write_on()

    def _write_on(self) -> None:
        """Hand on slices until the socket is full or nothing is left."""
        while self._unsent and self._may_write and self.usable:
            if self.reading and is_readable(self._descriptor):
                self.loop.call_soon(self._write_on)  # behind what is read now
                return
            piece, self._unsent = (
                self._unsent[:SLICE_BYTES],
                self._unsent[SLICE_BYTES:],
            )
            cast(asyncio.Transport, self._transport).write(piece)
