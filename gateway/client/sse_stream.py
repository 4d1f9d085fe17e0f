"""A streamed answer as server-sent events in the body of an HTTP answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from aiohttp import web

from gateway.client.framing import FramedStream
from gateway.client.interface import QueuePlace
from gateway.client.keepalives import SseKeepalives
from gateway.client.kinds import ClientKind
from gateway.errors import GatewayError
from gateway.protocols.protocol import WireProtocol
from gateway.protocols.stream_facts import StreamFacts
from gateway.record import Record
from gateway.transport.fast_lane import Framed, LaneEnd

STREAM_HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache",
    "X-Accel-Buffering": "no",
}


class SseStream:
    """
    A ``ClientStream``.

    Args:
        wire: the client's protocol.
    """

    __slots__ = ("_request", "_record", "_wire", "_keepalives", "_response")

    has_http_head = True
    takes_frames, deflates_from = False, 0

    def __init__(
        self,
        request: web.BaseRequest,
        record: Record,
        wire: WireProtocol,
        kind: ClientKind,
    ) -> None:
        self._request = request
        self._record = record
        self._wire = wire
        self._keepalives = SseKeepalives(kind, record.request_id)
        self._response: FramedStream | None = None

    @property
    def response(self) -> web.StreamResponse | None:
        """What the handler returns; None before ``begin``."""
        return self._response

    def begin(self, headers: Mapping[str, str]) -> None:
        """See ``ClientStream``."""
        self._response = FramedStream()
        self._response.begin(self._request, {**STREAM_HEADERS, **headers})

    def add_headers(self, headers: Mapping[str, str]) -> None:
        """See ``ClientStream``; too late, the head is out."""

    @property
    def put(self) -> Callable[..., bool]:
        """The response's own method: every event goes through it."""
        assert self._response is not None
        return self._response.put

    @property
    def lane(self) -> LaneEnd:
        """See ``ClientStream``."""
        return self

    @property
    def lane_transport(self) -> asyncio.WriteTransport | None:
        """See ``LaneEnd``."""
        return self._response.chunk_transport if self._response else None

    def framed(self, events: bytes) -> Framed:
        """See ``LaneEnd``; it takes no frames."""
        return b"", 0

    def count_frames(self, frames: int) -> None:
        """See ``LaneEnd``."""

    async def drain(self) -> None:
        """See ``ClientStream``."""
        if self._response is not None:
            await self._response.drain()

    def abort(self) -> None:
        """See ``ClientStream``."""
        if self._request.transport is not None:
            self._request.transport.abort()

    def keepalive(
        self, place: QueuePlace | None, now: float, last_output_at: float
    ) -> bytes:
        """See ``ClientStream``."""
        return self._keepalives.next(place, now, last_output_at)

    def failure(self, error: GatewayError, seen: StreamFacts) -> bytes:
        """The failure event of the client's protocol."""
        record = self._record
        return self._wire.failure_frame(error, record.request_id, seen, record.model)
