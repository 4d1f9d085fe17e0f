"""The client's side of the fast lane: its answer, and the codec that guards it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from gateway.client.answer import ClientAnswer
from gateway.protocols.sse import Needle
from gateway.relay.stream_codec import StreamCodec


class PassingClient:
    """A ``LaneClient``."""

    __slots__ = ("_answer", "_codec", "written")

    def __init__(self, answer: ClientAnswer, codec: StreamCodec) -> None:
        self._answer = answer
        self._codec = codec
        self.written = answer.written

    def transport(self) -> asyncio.WriteTransport | None:
        """See ``LaneClient``."""
        return self._answer.chunk_transport

    def needles(self) -> Sequence[Needle] | None:
        """See ``LaneClient``."""
        return self._codec.needles

    def bind(self, settle: Callable[[], None] | None) -> None:
        """See ``LaneClient``."""
        self._answer.settle = settle
