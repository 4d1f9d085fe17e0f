"""
From the bytes of a client to whole messages, by the grammar of RFC 6455.

The grammar is that of the ``websockets`` library: fragments, masks, control frames and
their answers, the closing handshake. A compressed message is handed out as it came; it
is inflated where that can be bounded (``inflate``).
"""

from __future__ import annotations

import logging
import zlib
from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from websockets.extensions import Extension
from websockets.frames import CTRL_OPCODES, Frame, Opcode
from websockets.protocol import OPEN, SEND_EOF, SERVER, Protocol, State
from websockets.typing import ExtensionName

from gateway.content_coding import PIECE_BYTES, Decoder

_SILENT = logging.getLogger("gateway.websocket")
_SILENT.disabled = True  # what there is to say is said in our own events


class RawMessage(NamedTuple):
    """
    Attributes:
        is_text: else it is binary.
        is_deflated: *data* has to be inflated.
    """

    data: bytes
    is_text: bool
    is_deflated: bool


class MessageReader:
    """
    Args:
        max_bytes: of one message, as it comes over the wire.
        deflates: the client may compress.
    """

    def __init__(self, max_bytes: int, *, deflates: bool) -> None:
        self._protocol = Protocol(SERVER, max_size=max_bytes, logger=_SILENT)
        self._marks = _CompressionMarks()
        if deflates:
            self._protocol.extensions = [self._marks]
        self._partial = bytearray()  # of a message in several frames
        self._is_text = True

    # --- what comes -------------------------------------------------------------------

    def feed(self, data: bytes) -> tuple[list[RawMessage], int]:
        """Take the next bytes; the messages that they complete, and how many frames."""
        if self._protocol.reader.eof:
            return [], 0
        self._protocol.receive_data(data)
        messages, frames = [], self._protocol.events_received()
        for frame in frames:
            assert isinstance(frame, Frame)
            if frame.opcode in CTRL_OPCODES:
                continue  # answered by the library
            if frame.opcode is not Opcode.CONT:
                self._is_text = frame.opcode is Opcode.TEXT
            if not frame.fin:
                self._partial += frame.data
            else:
                messages.append(self._whole(frame))
        return messages, len(frames)

    def _whole(self, last: Frame) -> RawMessage:
        data = bytes(last.data)
        if self._partial:
            data = bytes(self._partial + data)
            self._partial = bytearray()
        return RawMessage(data, self._is_text, self._marks.next())

    def feed_eof(self) -> None:
        """The client sends nothing any more."""
        self._protocol.receive_eof()

    # --- what goes --------------------------------------------------------------------

    def ping(self) -> None:
        """Send a ping with the next ``to_send``."""
        if self.is_open:
            self._protocol.send_ping(b"")

    def close(self, code: int, reason: str = "") -> None:
        """Send a close frame with the next ``to_send``, unless one was sent."""
        if self.is_open:
            self._protocol.send_close(code, reason)

    def to_send(self) -> Sequence[bytes]:
        """Control frames that are due: pongs, pings, a close."""
        return [data for data in self._protocol.data_to_send() if data != SEND_EOF]

    @property
    def is_open(self) -> bool:
        """Whether messages may still go both ways."""
        return self._protocol.state is OPEN

    @property
    def is_over(self) -> bool:
        """Whether the connection may be closed: the client has no more to say."""
        protocol = self._protocol
        return protocol.state is State.CLOSED or protocol.eof_sent

    @property
    def close_code(self) -> int:
        """Why it was closed, by the side that closed it; 1006: without a word."""
        protocol = self._protocol
        sent, received = protocol.close_sent, protocol.close_rcvd
        if received is not None and (sent is None or protocol.close_rcvd_then_sent):
            return received.code
        return sent.code if sent is not None else 1006


class _CompressionMarks(Extension):
    """Takes the mark of compression off the first frame of a message, and keeps it."""

    name = ExtensionName("permessage-deflate")

    def __init__(self) -> None:
        self._marks: deque[bool] = deque()

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        if frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            self._marks.append(frame.rsv1)
            frame.rsv1 = False
        return frame

    def encode(self, frame: Frame) -> Frame:
        return frame  # control frames alone: they are never compressed

    def next(self) -> bool:
        """Whether the message that is whole now is compressed."""
        return self._marks.popleft() if self._marks else False


class MessageInflater(Decoder):
    """One message of permessage-deflate; feed it once, with ``DEFLATE_END`` behind."""

    def __init__(self) -> None:
        super().__init__()
        self._inflate = zlib.decompressobj(wbits=-zlib.MAX_WBITS)

    @property
    def whole(self) -> bool:
        return True  # the end of a message is the end of its frames

    def _decode(self, chunk: bytes) -> tuple[bytes, int]:
        inflate = self._inflate
        if inflate.eof:  # a final block inside: the next begins anew
            inflate = self._inflate = zlib.decompressobj(wbits=-zlib.MAX_WBITS)
        piece = inflate.decompress(chunk, PIECE_BYTES)
        left = inflate.unused_data if inflate.eof else inflate.unconsumed_tail
        self._holds = len(piece) == PIECE_BYTES and not inflate.eof
        return piece, len(chunk) - len(left)


DEFLATE_END = b"\x00\x00\xff\xff"
"""What the sender of a compressed message leaves out at its end."""
