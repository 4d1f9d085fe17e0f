"""
The fast lane of an answer that is converted.

A read takes it if it is some whole chunks, or text frames of a websocket, of events
that the codec converts without reading them: see ``delta_template``. What they become
leaves as one chunk, or as frames. The rules are those of ``FastLane``.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from gateway.record import AttemptRecord
from gateway.transport.connection import Connection
from gateway.transport.fast_lane import (
    MAX_BEHIND_BYTES,
    MAX_READ_BYTES,
    Conversion,
    FastLane,
    LaneAnswer,
    LaneClient,
)


def body_of_chunks(data: bytes) -> bytes:
    """
    The body that *data* carries if it is some whole chunks; else none. The last one,
    which is empty, ends the answer: it is the parser's to see.
    """
    if len(data) > MAX_READ_BYTES:
        return b""
    parts = data.split(b"\r\n")
    if len(parts) == 3:
        size, body, rest = parts
        return body if not rest and size == b"%x" % len(body) else b""
    bodies = parts[1::2]
    if parts.pop() or not all(bodies):
        return b""
    if parts[::2] != [b"%x" % len(body) for body in bodies]:
        return b""
    return b"".join(bodies)


class ConvertingLane(FastLane):
    """
    Args:
        body_of: the events that a read brings; none if it cannot take the lane.
    """

    __slots__ = ("_body_of", "_convert", "_framed")

    _convert: Conversion

    def __init__(
        self,
        connection: Connection,
        answer: LaneAnswer,
        client: LaneClient,
        record: AttemptRecord,
        body_of: Callable[[bytes], bytes] = body_of_chunks,
    ) -> None:
        super().__init__(connection, answer, client, record)
        self._body_of = body_of
        end = client.end
        self._framed = end.framed if end.takes_frames else None

    def data_received(self, data: bytes) -> None:
        # What was converted must be written, so all else is asked before.
        if (
            self._is_open
            and self._behind() <= MAX_BEHIND_BYTES
            and not self._is_closing()
            and (body := self._body_of(data))
            and (events := self._convert(body)) is not None
        ):
            self._gathering.events += 1
            if not events:
                self._swallow(len(body))
                return
            now = monotonic()
            if now - self._last > self._gap:
                self._gap = now - self._last
            self._last = now
            self._has_passed = True
            self._record.received_bytes += len(body)
            if self._framed is None:
                self._write(b"%x\r\n%b\r\n" % (len(events), events))
                return
            out, frames = self._framed(events)
            self._frames += frames
            self._write(out)
            return
        self.settle()
        self._connection.data_received(data)
        self._look()

    def _swallow(self, size: int) -> None:
        """The upstream has said something that makes no event for the client."""
        self.settle()
        self._last = now = monotonic()
        self._record.receive(size, now)
        self._answer.passed(now)

    def _can_judge(self) -> bool:
        conversion = self._client.conversion()
        if conversion is None:
            return False
        self._convert = conversion
        return True
