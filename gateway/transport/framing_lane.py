"""The fast lane of an answer one of whose sides is a websocket; see ``FastLane``."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from gateway.protocols.sse import is_plain
from gateway.record import AttemptRecord
from gateway.transport.connection import Connection
from gateway.transport.fast_lane import (
    MAX_BEHIND_BYTES,
    FastLane,
    Framed,
    LaneAnswer,
    LaneClient,
    body_of,
)

Passed = tuple[bytes, bytes, int, int]
"""
What is searched for needles, nothing if none matters; what is written; bytes of the
body; frames.
"""


class FramingLane(FastLane):
    """
    A lane whose events leave in another form than they came in.

    Args:
        convert: what a read brings; None if it cannot take the lane.
    """

    __slots__ = ("_convert",)

    def __init__(
        self,
        connection: Connection,
        answer: LaneAnswer,
        client: LaneClient,
        record: AttemptRecord,
        convert: Callable[[bytes], Passed | None],
    ) -> None:
        super().__init__(connection, answer, client, record)
        self._convert = convert

    def data_received(self, data: bytes) -> None:
        if self._is_open:
            passed = self._convert(data)
            if passed and self._behind() <= MAX_BEHIND_BYTES and not self._is_closing():
                text, out, size, frames = passed
                searches = self._searches
                if not text or is_plain(text, self._heads, 0, len(text)):
                    searches = ()
                for search in searches:
                    if search(text) is not None:
                        break
                else:
                    now = monotonic()
                    if now - self._last > self._gap:
                        self._gap = now - self._last
                    self._last = now
                    self._has_passed = True
                    self._gathering.events += 1
                    self._record.received_bytes += size
                    self._frames += frames
                    self._write(out)
                    return
        self.settle()
        self._connection.data_received(data)
        self._look()


def frames_of_chunks(
    framed: Callable[[bytes], Framed],
) -> Callable[[bytes], Passed | None]:
    """Converts whole chunks to text frames."""

    def convert(data: bytes) -> Passed | None:
        body = body_of(data)
        if not body:
            return None
        out, frames = framed(body)
        return (body, out, len(body), frames) if frames else None

    return convert
