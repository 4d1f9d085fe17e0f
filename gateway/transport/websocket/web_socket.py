"""
One websocket to an upstream: text messages in both directions.

Rule 1: the handshake, control frames and messages in several frames are the library's
        work; a text in one frame is not, see ``FrameCutter``.
Rule 2: it reads always while it is idle, so a ping is answered and a close is noticed.
        A large message is sent in pieces, and a pong goes between two of them.
Rule 3: compressed frames are the library's work, too. They come only where the account
        asks for compression; else one is a mistake of the upstream.
Rule 4: what is not a text message is bounded: pings, pongs, empty pieces.

    connection ──upgrade──▶ open ──send──▶ busy ──release──▶ idle ──send──▶ …
                                            └────close, abort────▶ lost
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import NamedTuple, Protocol, cast

from multidict import CIMultiDict, CIMultiDictProxy
from websockets.client import ClientProtocol
from websockets.exceptions import PayloadTooBig
from websockets.frames import Frame, Opcode
from websockets.protocol import State

from gateway.errors import UpstreamError
from gateway.protocols.responses.socket_message import is_text
from gateway.transport.connection import Connection
from gateway.transport.websocket.deflate import MessageDeflate, agreed_on
from gateway.transport.websocket.frame_cutter import FrameCutter, OddFrame
from gateway.transport.websocket.upgrade import (
    MAX_MESSAGE_BYTES,
    UpgradeAnswer,
    UpgradeReader,
)

PIECE_BYTES = 1024 * 1024
"""A larger message leaves in pieces of this size."""

OVERHEAD_LIMIT_BYTES = 1024 * 1024
"""The most that may arrive without a text message: control frames, empty pieces, and
messages between two answers."""

ODD_FRAME_BYTES = 64
"""What each frame that is no whole text counts of that, whatever it holds: its work."""

NORMAL, GOING_AWAY, ABNORMAL = 1000, 1001, 1006
_BINARY_REFUSED, _BAD_TEXT = 1003, 1007


class SocketLoss(NamedTuple):
    """
    Why a socket is gone.

    Attributes:
        close_code: the upstream's, 1006 if it said none.
        error: what an answer that was under way ends with.
    """

    close_code: int
    error: UpstreamError


class SocketListener(Protocol):
    """What the messages are delivered to."""

    def receive_messages(self, messages: list[bytes]) -> None:
        """What one read brought, in order."""
        ...

    def socket_lost(self, loss: SocketLoss) -> None:
        """No message will follow."""
        ...


class WebSocket:
    """
    Args:
        protocol: the library's, in the state before the handshake.
        tolerates: whether a message between two answers does no harm.

    Attributes:
        headers: of the answer to the upgrade.
        loss: why it is gone; None while it is there.
        opened_at, idle_since: by the loop's clock.
        awaits_pong: a ping was sent and not yet answered.
    """

    def __init__(
        self,
        connection: Connection,
        protocol: ClientProtocol,
        tolerates: Callable[[bytes], bool],
    ) -> None:
        self.connection = connection
        self.headers: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())
        self.loss: SocketLoss | None = None
        self.opened_at = self.idle_since = connection.loop.time()
        self.awaits_pong = False
        self._protocol = protocol
        self._tolerates = tolerates
        self._listener: SocketListener | None = None
        self._reader: UpgradeReader | None = UpgradeReader(protocol)
        self._waiter: asyncio.Future[None] | None = None
        self._cutter = FrameCutter(MAX_MESSAGE_BYTES)
        self._deflate: MessageDeflate | None = None
        self._pieces: list[bytes] = []
        self._messages: list[bytes] = []
        self._overhead_bytes = 0

    @property
    def is_usable(self) -> bool:
        """Whether a message can be sent."""
        return self.loss is None and self.connection.is_usable

    @property
    def is_between_frames(self) -> bool:
        """Whether the next byte begins a message for the listener."""
        if self._listener is None or self.loss is not None:
            return False
        return self._reader is None and self._cutter.is_between

    def passed(self) -> None:
        """Messages have arrived that were not seen here."""
        self._overhead_bytes = 0

    async def upgrade(self, head: bytes) -> UpgradeAnswer:
        """
        Send the request *head*, and return the answer to it.

        Raises:
            UpstreamError: "upstream_reset", the connection broke before the answer.
        """
        reader = self._reader
        assert reader
        self._waiter = self.connection.loop.create_future()
        self.connection.send_request(self, head, b"")
        await self._waiter
        if reader.answer is None:
            assert self.loss
            raise self.loss.error
        self.headers = reader.answer.headers
        self.opened_at = self.idle_since = self.connection.loop.time()
        return reader.answer

    def send(self, message: bytes, listener: SocketListener) -> None:
        """Send *message*; *listener* gets what arrives from now on."""
        self._listener = listener
        self._overhead_bytes = 0
        self.connection.send_pieces(self, self._frames(message))

    def release(self) -> None:
        """The listener wants no more."""
        self._listener = None
        self._overhead_bytes = 0
        self.idle_since = self.connection.loop.time()
        self.connection.resume()

    def ping(self) -> None:
        """Send a ping; its pong ends ``awaits_pong``."""
        self.awaits_pong = True
        self._protocol.send_ping(b"")
        self.connection.send_between(self._unsent())

    def close(self, code: int = NORMAL) -> None:
        """Say goodbye and close; the listener is not called."""
        usable, self._listener = self.is_usable, None
        if usable and self._protocol.state is State.OPEN:
            self.loss = SocketLoss(code, _closed_by_us())
            self._protocol.send_close(code)
            self.connection.finish(self._unsent())
        else:
            self.abort()

    def abort(self) -> None:
        """Close without a word; the listener is not called."""
        self._listener = None
        if self.loss is None:
            self.loss = SocketLoss(ABNORMAL, _closed_by_us())
        self.connection.abort()

    # --- for the connection -----------------------------------------------------------

    def receive(self, data: bytes) -> None:
        if self._reader is None:
            if self.loss is None:
                self._receive_frames(data)
            return
        reader = self._reader
        if reader.answer is None:
            reader.feed(data)
            self._answered(reader)

    def receive_eof(self) -> None:
        if self._reader is not None and self._reader.answer is None:
            self._reader.feed_eof()
            self._answered(self._reader)
        self._lose(ABNORMAL, "upstream_cut", "the connection was closed without a word")

    def connection_lost(self, error: Exception | None) -> None:
        if error is None:
            self.receive_eof()
        else:
            self._lose(ABNORMAL, "upstream_reset", repr(error))

    # --- what arrives -----------------------------------------------------------------

    def _answered(self, reader: UpgradeReader) -> None:
        """If the answer to the upgrade is there: go on to frames."""
        if reader.answer is None:
            return
        if reader.answer.is_open:
            self._reader = None
            self._deflate = agreed_on(self._protocol.extensions)
        self._wake()
        if reader.answer.is_open and reader.rest:
            self._receive_frames(reader.rest)

    def _receive_frames(self, data: bytes) -> None:
        frames = self._cutter.feed(data)
        if not self._cutter.has_odd:
            if frames:
                self._pass_on(cast(list[bytes], frames))
            return
        if self._deflate is not None:
            self._deflate.begin_read()
        for frame in frames:
            if isinstance(frame, bytes):
                self._messages.append(frame)
            else:
                self._receive_odd(frame)
                if self.loss is not None:
                    return
        self._pass_on_messages()

    def _pass_on_messages(self) -> None:
        """Deliver what has come, as one list."""
        if self._messages:
            messages, self._messages = self._messages, []
            self._pass_on(messages)

    def _pass_on(self, messages: list[bytes]) -> None:
        if not all(map(bytes.isascii, messages)) and not all(map(is_text, messages)):
            self._pass_on(list(takewhile(is_text, messages)))
            self._refuse(_BAD_TEXT, "upstream_malformed", "text that is no UTF-8")
            return
        if self._listener is not None:
            self._overhead_bytes = 0
            self._listener.receive_messages(messages)
            return
        self._count_overhead(sum(map(len, messages)))
        if not all(map(self._tolerates, messages)):
            self.close()

    def _receive_odd(self, odd: OddFrame) -> None:
        """Have the library read a frame that is not a whole text."""
        self._count_overhead(ODD_FRAME_BYTES)
        self._protocol.receive_data(odd.data)
        for event in self._protocol.events_received():
            assert isinstance(event, Frame)
            if event.opcode is Opcode.PONG:
                self.awaits_pong = False
            elif event.opcode is Opcode.BINARY:
                self._refuse(_BINARY_REFUSED, "upstream_malformed", "a binary message")
                return
            elif event.opcode in (Opcode.TEXT, Opcode.CONT):
                self._receive_piece(event)
        if self.loss is not None:
            return
        if self._protocol.close_rcvd is not None:
            self._receive_close()
        elif (error := self._protocol.parser_exc) is not None or odd.is_fatal:
            large = isinstance(error, PayloadTooBig)
            code = "upstream_too_large" if large else "upstream_malformed"
            self._lose(ABNORMAL, code, str(error or "a frame that cannot be read"))
            self.connection.finish(self._unsent())
        elif answer := self._unsent():
            self.connection.send_between(answer)

    def _receive_piece(self, frame: Frame) -> None:
        self._pieces.append(bytes(frame.data))
        if frame.fin:
            self._messages.append(b"".join(self._pieces))
            self._pieces.clear()

    def _receive_close(self) -> None:
        close = self._protocol.close_rcvd
        assert close
        goodbye = self._unsent()
        detail = f"closed by the upstream: {close.code} {close.reason}".rstrip()
        self._lose(close.code, "upstream_cut", detail)
        self.connection.finish(goodbye)

    def _count_overhead(self, received_bytes: int) -> None:
        self._overhead_bytes += received_bytes
        if self._overhead_bytes > OVERHEAD_LIMIT_BYTES:
            detail = "too many bytes without an answer"
            self._refuse(NORMAL, "upstream_malformed", detail)

    def _refuse(self, close_code: int, code: str, detail: str) -> None:
        """The upstream has broken the rules: close with *close_code*."""
        if self.loss is None and self._protocol.state is State.OPEN:
            self._protocol.fail(close_code, detail)
        self._lose(ABNORMAL, code, detail)
        self.connection.finish(self._unsent())

    def _lose(self, close_code: int, code: str, detail: str) -> None:
        """No message will follow those that have come."""
        self._pass_on_messages()
        if self.loss is None:
            self.loss = SocketLoss(close_code, UpstreamError(code, detail=detail))
            self._wake()
            listener, self._listener = self._listener, None
            if listener is not None:
                listener.socket_lost(self.loss)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # --- what leaves ------------------------------------------------------------------

    def _frames(self, message: bytes) -> Iterator[bytes]:
        """The frames of *message*, each made when it can leave."""
        if len(message) <= PIECE_BYTES:
            self._protocol.send_text(message)
            yield self._unsent()
            return
        view, at = memoryview(message), 0
        while at < len(message):
            piece, is_last = view[at : at + PIECE_BYTES], at + PIECE_BYTES >= len(view)
            if at == 0:
                self._protocol.send_text(piece, is_last)
            else:
                self._protocol.send_continuation(piece, is_last)
            at += PIECE_BYTES
            yield self._unsent()

    def _unsent(self) -> bytes:
        """What the library has to say."""
        return b"".join(self._protocol.data_to_send())


def _closed_by_us() -> UpstreamError:
    return UpstreamError("upstream_reset", detail="closed by the gateway")
