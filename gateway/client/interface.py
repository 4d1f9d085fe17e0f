"""
The seam between an answer and the transport that takes it to its client.

Above it ``ClientAnswer`` decides what is written and when: the state of the answer, its
keepalives, its one ending. Below it a ``ClientStream`` knows how: server-sent events in
an HTTP body (``SseStream``), or text frames of a websocket (``FrameStream``).

Events cross the seam as bytes in the form of server-sent events, any number of whole
ones at a time. An implementation may cut them and send each ``data`` by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Protocol

from gateway.errors import GatewayError
from gateway.protocols.stream_facts import StreamFacts
from gateway.transport.fast_lane import LaneEnd


class QueuePlace(NamedTuple):
    """
    Where a request waits, as its client reads it.

    Attributes:
        position: 1 is the next.
        expected_s: how long it still has to wait; None if that is not known.
    """

    position: int
    expected_s: float | None
    waited_s: float


class ClientStream(Protocol):
    """
    One streamed answer on its way to one client.

    ``begin`` comes first and once. ``put`` and ``drain`` raise ConnectionError when the
    client has left; nothing else says so here.
    """

    @property
    def has_http_head(self) -> bool:
        """
        Whether ``begin`` makes an HTTP head. Before that a failure can be an HTTP
        answer of its own; where there is no such head, every failure is an event.
        """
        ...

    def begin(self, headers: Mapping[str, str]) -> None:
        """Make the head, if there is one; it leaves with the first ``put``."""
        ...

    def add_headers(self, headers: Mapping[str, str]) -> None:
        """More *headers* are known, after ``begin``."""
        ...

    def put(self, data: bytes, *, last: bool = False) -> bool:
        """
        Write whole events now.

        Returns whether ``drain`` is to be awaited before more is written.

        Args:
            last: the answer ends with them. The connection may go on.
        """
        ...

    @property
    def lane(self) -> LaneEnd | None:
        """How parts of the answer may be written past it; None: never."""
        return None

    async def drain(self) -> None:
        """
        Wait until the client has taken enough for more to be written; after the last
        ``put``, until every byte has left for the socket.
        """
        ...

    def abort(self) -> None:
        """Cut the client off: what it has not taken is dropped."""
        ...

    def keepalive(
        self, place: QueuePlace | None, now: float, last_output_at: float
    ) -> bytes:
        """
        The events of a keepalive that is due.

        Args:
            place: where the request waits, None if it does not.
            now: the event loop's time, as is *last_output_at*.
            last_output_at: when a part of the answer was last written; at first, when
                the answer was made.
        """
        ...

    def failure(self, error: GatewayError, seen: StreamFacts) -> bytes:
        """
        The events that end the answer with *error*.

        Args:
            seen: what the client has read of the answer.
        """
        ...
