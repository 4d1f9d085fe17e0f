"""``GET /api/v1/events``: a snapshot, then what changes, as an event stream."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from aiohttp import web

from gateway.endpoints.admin.application import OperationSource
from gateway.endpoints.admin.errors import AdminError
from gateway.endpoints.admin.event_feed import EventFeed
from gateway.endpoints.admin.operations import AdminCall, Operation

MAX_READERS = 100
WRITE_S = 20.0  # for a reader to take what was sent; a slow one is cut, and may resume
RETRY_MS = 1000  # after which a browser comes back
HEADERS = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",
}


class EventOperations(OperationSource):
    """The handler."""

    def __init__(self, feed: EventFeed) -> None:
        self._feed = feed
        self._readers = 0

    def operations(self) -> Iterable[Operation]:
        yield Operation(
            "GET",
            "/events",
            "A snapshot, then what changes: request, account, user, rates, log",
            self._stream,
            answer=None,
            errors=(503,),
            media_type="text/event-stream",
        )

    async def _stream(self, call: AdminCall) -> web.StreamResponse:
        if self._readers >= MAX_READERS:
            raise AdminError(503, "too_many_readers", "Too many read the events")
        response = web.StreamResponse(headers=HEADERS)
        self._readers += 1
        await self._feed.enter()
        try:
            await response.prepare(call.request)
            with_last = call.request.headers.get("Last-Event-ID", "")
            await self._write(response, with_last)
        except (ConnectionError, TimeoutError):
            if call.request.transport:  # the rest would wait for the reader, too
                call.request.transport.abort()
        finally:
            self._readers -= 1
            self._feed.leave()
        return response

    async def _write(self, response: web.StreamResponse, last_id: str) -> None:
        """Write until the reader leaves, or does not keep up."""
        log = self._feed.log
        number = log.number_of(last_id)
        data = f"retry: {RETRY_MS}\n\n".encode()
        if number is None:
            number = log.end
            data += log.frame("snapshot", self._feed.snapshot())
        while True:
            frames = log.after(number)
            if frames is None:
                return
            number += len(frames)
            async with asyncio.timeout(WRITE_S):
                await response.write(data + b"".join(frames))
            data = b""
            if log.end == number:
                await self._feed.news()
