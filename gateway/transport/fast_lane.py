"""
The fast lane: whole chunks of a running answer, written to the client as they came.

Both sides speak chunked HTTP/1.1 there, and nothing is converted. A read takes the lane
if it is one or several whole chunks, each of whole events that hold no needle. It is
neither parsed nor framed again: its bytes leave as they are. Where one of the sides is
a websocket, ``FramingLane`` puts the same events into its own form.

Rule 1: whatever else arrives takes the ordinary way (``Connection.data_received``), so
        the lane knows no case of its own. It is taken again once the parser is between
        two chunks and the codec between two events.
Rule 2: it never fills the client's buffer. A client that is behind, and a large read,
        take the ordinary way, which has the back-pressure.
Rule 3: one object holds what an event touches. When the last one passed is entered
        elsewhere when it is asked for, and before the ordinary way goes on: ``settle``.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from time import monotonic
from typing import Protocol

from gateway.protocols.sse import Needle, is_plain
from gateway.record import AttemptRecord
from gateway.transport.connection import Connection

MAX_READ_BYTES = 16384
"""The longest read that takes the lane."""

MAX_BEHIND_BYTES = 16384
"""How much the client may be behind; with a read it stays below aiohttp's limit."""

MAX_CHUNKS = 8
"""In one read; of more, httptools is quicker."""

_SIZE_LINES: dict[int, bytes] = {}  # by the length of the whole chunk; at most 16384
_END = b"\n\n\r\n"
_SIZE = re.compile(rb"([0-9A-Fa-f]{1,4})\r\n")


Framed = tuple[bytes, int]
"""Text frames of a websocket, and how many they are."""


Conversion = Callable[[bytes], bytes | None]
"""
Whole events of an upstream as the client's; None if they must take the ordinary way.
What it has converted must be written.
"""
Searches = tuple[Callable[[bytes], object], ...]


@lru_cache(maxsize=64)
def _searches_of(needles: tuple[Needle, ...]) -> Searches:
    """What looks for each of *needles*; all streams share it."""
    return tuple([needle.search for needle in needles])


class LaneTransport(Protocol):
    """Where a lane writes: asyncio's transport, or one that may also be closing."""

    def get_write_buffer_size(self) -> int: ...
    def is_closing(self) -> bool: ...
    def write(self, data: bytes, /) -> None: ...


class LaneEnd(Protocol):
    """The stream to a client, as a lane writes past it."""

    @property
    def takes_frames(self) -> bool:
        """Whether it is written text frames of a websocket, not chunks of HTTP."""
        ...

    @property
    def deflates_from(self) -> int:
        """How many bytes of a text are deflated for its client; 0: never any."""
        ...

    @property
    def lane_transport(self) -> LaneTransport | None:
        """Where whole events may be written now; None for nowhere."""
        ...

    def framed(self, events: bytes) -> Framed:
        """Whole *events* as its frames."""
        ...

    def count_frames(self, frames: int) -> None:
        """So many were written past it."""
        ...


class LaneClient(Protocol):
    """
    The client's side of a lane.

    Attributes:
        end: where it writes to.
        converts: the client speaks another protocol than the upstream.
    """

    end: LaneEnd
    converts: bool

    def transport(self) -> LaneTransport | None:
        """Where chunks or frames may be written now; None for nowhere."""
        ...

    @property
    def plain_heads(self) -> tuple[bytes, ...]:
        """What a single event begins with that may hold needles."""
        ...

    def needles(self) -> Sequence[Needle] | None:
        """
        What a chunk must not hold; None while even whole events must be looked at.
        """
        ...

    def conversion(self) -> Conversion | None:
        """What converts the next events if they are like the last; None: nothing."""
        ...

    def bind(self, settle: Callable[[], None] | None) -> None:
        """From now on, *settle* says when something was last written."""
        ...

    def written(self, at: float, frames: int = 0) -> None:
        """The last event was written *at* this monotonic time, in so many *frames*."""
        ...


class LaneAnswer(Protocol):
    """The upstream's side of a lane."""

    @property
    def is_between(self) -> bool:
        """Whether the next byte begins a chunk or frame, and a feed waits for it."""
        ...

    def passed(self, at: float) -> None:
        """Bytes of the body have arrived *at* this monotonic time, and were written."""
        ...


class FastLane(asyncio.Protocol):
    """
    The event loop's protocol of an upstream connection while an answer is pumped.

    Args:
        record: gets the bytes and the gaps.
    """

    __slots__ = (
        "_is_open",
        "_needles",
        "_searches",
        "_heads",
        "_behind",
        "_is_closing",
        "_write",
        "_last",
        "_gap",
        "_has_passed",
        "_frames",
        "_connection",
        "_gathering",
        "_answer",
        "_client",
        "_record",
    )

    def __init__(
        self,
        connection: Connection,
        answer: LaneAnswer,
        client: LaneClient,
        record: AttemptRecord,
    ) -> None:
        self._connection = connection
        self._gathering = connection.gathering
        self._answer = answer
        self._client = client
        self._record = record
        self._is_open = False
        self._needles: Sequence[Needle] = ()
        self._searches: Searches = ()
        self._heads: tuple[bytes, ...] = ()
        self._has_passed = False  # since ``settle``
        self._frames = 0
        self._gap = self._last = 0.0

    def start(self) -> None:
        """Take the connection's reads."""
        self._connection.divert(self)
        self._client.bind(self.settle)
        self._look()

    def stop(self) -> None:
        """Leave them to the connection again."""
        self.settle()
        self._is_open = False
        self._client.bind(None)
        self._connection.divert(None)

    def settle(self) -> None:
        """Enter what has passed."""
        if not self._has_passed:
            return
        self._has_passed = False
        record, at = self._record, self._last
        record.last_received = at
        record.longest_gap_s = max(record.longest_gap_s, self._gap)
        self._answer.passed(at)
        self._client.written(at, self._frames)
        self._frames = 0

    def data_received(self, data: bytes) -> None:
        if self._is_open:
            size, searches = len(data), self._searches
            line = _SIZE_LINES.get(size)
            if line is not None and data.startswith(line) and data.endswith(_END):
                body = size - len(line) - 2
                if is_plain(data, self._heads, len(line), size - 2):
                    searches = ()
            else:
                body = body_bytes(data)
            if body and self._behind() <= MAX_BEHIND_BYTES and not self._is_closing():
                for search in searches:
                    if search(data) is not None:
                        break
                else:
                    now = monotonic()
                    if now - self._last > self._gap:
                        self._gap = now - self._last
                    self._last = now
                    self._has_passed = True
                    self._gathering.events += 1
                    self._record.received_bytes += body
                    self._write(data)
                    return
        self.settle()
        self._connection.data_received(data)
        self._look()

    def _look(self) -> None:
        """See whether the next read may take the lane."""
        self._is_open = False
        if not self._answer.is_between:
            return
        transport = self._client.transport()
        if transport is None or not self._can_judge():
            return
        self._behind = transport.get_write_buffer_size
        self._is_closing = transport.is_closing
        self._write = transport.write
        # The record counts a gap from the second piece on.
        self._last = self._record.last_received or monotonic()
        self._gap = 0.0
        self._is_open = True

    def _can_judge(self) -> bool:
        """Whether the client's side says what may pass; then it is at hand."""
        needles = self._client.needles()
        if needles is None:
            return False
        if needles is not self._needles:
            self._needles, self._searches = needles, _searches_of(tuple(needles))
        self._heads = self._client.plain_heads
        return True

    # --- everything else is the connection's ------------------------------------------

    def eof_received(self) -> None:
        self.settle()
        self._is_open = False
        self._connection.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self.settle()
        self._is_open = False
        self._connection.connection_lost(exc)

    def pause_writing(self) -> None:
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        self._connection.resume_writing()


def body_of(data: bytes) -> bytes:
    """The body of which ``body_bytes`` counts the bytes."""
    size = len(data)
    line = _SIZE_LINES.get(size)
    if line is not None and data.startswith(line) and data.endswith(_END):
        return data[len(line) : -2]
    pieces: list[bytes] = []
    at = 0 if body_bytes(data) else size
    while at < size:
        start = data.find(b"\n", at) + 1
        end = start + int(data[at:start], 16)
        pieces.append(data[start:end])
        at = end + 2
    return b"".join(pieces)


def body_bytes(data: bytes) -> int:
    """
    How many bytes of a body *data* carries if it is some whole chunks that each end in
    a blank line; else 0.
    """
    size = len(data)
    if size > MAX_READ_BYTES or not data.endswith(_END):
        return 0
    at = body = 0
    for _ in range(MAX_CHUNKS):
        line = _SIZE.match(data, at)
        if line is None:
            return 0
        count = int(line[1], 16)
        end = line.end() + count
        if not data.startswith(_END, end - 2) or count < 2:
            return 0
        body += count
        if end + 2 == size:
            if at == 0 and line[0] == b"%x\r\n" % count:
                _SIZE_LINES[size] = line[0]  # the next of this length is known
            return body
        at = end + 2
    return 0
