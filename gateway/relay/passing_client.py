"""The client's side of the fast lane: its answer, and the codec that guards it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from gateway.client.answer import ClientAnswer
from gateway.protocols.sse import Needle
from gateway.relay.stream_codec import StreamCodec
from gateway.transport.fast_lane import Conversion, LaneEnd, LaneTransport

ITEMS: Needle = re.compile(rb"response\.output_item\.")


class PassingClient:
    """A ``LaneClient``."""

    __slots__ = ("_answer", "_codec", "end", "converts", "written")

    def __init__(self, answer: ClientAnswer, codec: StreamCodec, end: LaneEnd) -> None:
        self._answer = answer
        self._codec = codec
        self.end = end
        self.converts = codec.converts
        self.written = answer.written

    def transport(self) -> LaneTransport | None:
        """See ``LaneClient``."""
        return self._answer.lane_transport

    @property
    def plain_heads(self) -> tuple[bytes, ...]:
        """See ``LaneClient``."""
        return self._codec.plain_heads

    def needles(self) -> Sequence[Needle] | None:
        """See ``LaneClient``; a websocket keeps the items of an answer."""
        needles = self._codec.needles
        if needles is None or not self.end.takes_frames:
            return needles
        return *needles, ITEMS

    def conversion(self) -> Conversion | None:
        """See ``LaneClient``."""
        return self._codec.conversion

    def bind(self, settle: Callable[[], None] | None) -> None:
        """See ``LaneClient``."""
        self._answer.settle = settle
