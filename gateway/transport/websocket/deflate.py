"""
Compressed messages on a websocket to an upstream: permessage-deflate.

Rule 1: what one read brings inflates to MAX_READ_BYTES at most, whatever it claims: the
        event loop is not held up longer, and no more is held in memory.
Rule 2: what is sent is deflated by itself, so an idle socket keeps no window of its own
        for it, and only in a middling size: less is not worth it, and more would hold
        up the event loop. What comes may look back on what came before, which is where
        events save most; that costs 32 KiB a socket.

Source: RFC 7692, 7
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
)
from websockets.frames import CTRL_OPCODES, Frame, Opcode
from websockets.typing import ExtensionParameter

MAX_READ_BYTES = 32 * 1024 * 1024
"""As much as one message may have."""

DEFLATE_FROM_BYTES = 1024
DEFLATE_UP_TO_BYTES = 256 * 1024

_QUICK = {"level": 1}


class MessageDeflate(PerMessageDeflate):
    """The library's, with both rules."""

    _left_bytes = MAX_READ_BYTES

    def begin_read(self) -> None:
        """The frames that follow come from another read."""
        self._left_bytes = MAX_READ_BYTES

    def decode(self, frame: Frame, *, max_size: int | None = None) -> Frame:
        """
        *frame*, inflated.

        Raises:
            PayloadTooBig, ProtocolError: see the library.
        """
        if frame.opcode in CTRL_OPCODES:
            return frame
        left = self._left_bytes
        frame = super().decode(frame, max_size=min(max_size or left, left) or 1)
        self._left_bytes = max(0, left - len(frame.data))
        return frame

    def encode(self, frame: Frame) -> Frame:
        """*frame*, deflated if that is worth it."""
        is_whole = frame.opcode is Opcode.TEXT and frame.fin
        if is_whole and DEFLATE_FROM_BYTES <= len(frame.data) <= DEFLATE_UP_TO_BYTES:
            return super().encode(frame)
        return frame


class DeflateOffer(ClientPerMessageDeflateFactory):
    """What the upgrade offers."""

    def __init__(self) -> None:
        super().__init__(
            client_no_context_takeover=True, compress_settings=dict(_QUICK)
        )

    def process_response_params(
        self,
        params: Sequence[ExtensionParameter],
        accepted_extensions: Sequence[Extension],
    ) -> MessageDeflate:
        """
        What the server has agreed to.

        Raises:
            NegotiationError: it was not offered.
        """
        agreed = super().process_response_params(params, accepted_extensions)
        return MessageDeflate(
            agreed.remote_no_context_takeover,
            agreed.local_no_context_takeover,
            agreed.remote_max_window_bits,
            agreed.local_max_window_bits,
            agreed.compress_settings,
        )


def agreed_on(extensions: Sequence[Extension]) -> MessageDeflate | None:
    """The compression among the *extensions* of an open socket."""
    return cast(MessageDeflate, extensions[0]) if extensions else None
