"""One request while it is served, from the routes' point of view."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from aiohttp import web

from gateway.admission.body_room import BodyShare
from gateway.client.answer import ClientAnswer
from gateway.client.kinds import ClientKind
from gateway.client.sse_stream import SseStream
from gateway.context import RequestContext
from gateway.errors import GatewayError
from gateway.protocols.protocol import WireProtocol
from gateway.protocols.stream_state import StreamState
from gateway.record import Record


@dataclass(slots=True, eq=False)
class RequestScope:
    """
    Attributes:
        wire: the client's protocol.
        task: the one that serves it.
        answer: its streamed answer, if that is what it asks for.
        stream: where *answer* is written to.
        context: what it asks for, once it has been read.
        body_share: what its body takes of its user's room.
        reading_body: its body is arriving.
        sending_whole: its whole answer, no stream, is on the way.
        stop_error: why it was stopped from outside.
    """

    request: web.BaseRequest
    record: Record
    wire: WireProtocol
    client: ClientKind
    task: asyncio.Task[web.StreamResponse] | None = None
    answer: ClientAnswer | None = None
    stream: SseStream | None = None
    context: RequestContext | None = None
    body_share: BodyShare | None = None
    reading_body: bool = False
    sending_whole: bool = False
    stop_error: GatewayError | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether it waits for a slot, or for its own body."""
        context = self.context
        queued = context is not None and context.holder.state.startswith("queued")
        return queued or self.reading_body

    @property
    def has_ending(self) -> bool:
        """Whether its client has the end of its answer, or is about to get it."""
        closed = self.answer is not None and self.answer.state is StreamState.CLOSED
        return closed or self.sending_whole

    @property
    def client_body(self) -> bytes:
        """The client's own words, which an upstream or an exception may quote."""
        return self.context.ask.data if self.context else b""

    def begun_response(self, error: GatewayError) -> web.StreamResponse:
        """
        What the handler returns when *error* has nothing more to write: the stream
        that has begun, or an answer that the client does not read any more.
        """
        response = self.stream.response if self.stream else None
        return web.Response(status=error.status) if response is None else response

    def stop(self, error: GatewayError) -> None:
        """Cancel its task; *error* is what its client gets. The first one counts."""
        if self.stop_error is None and self.task:
            self.stop_error = error
            if self.context:
                self.context.stopped = error.code
            self.task.cancel()

    def abort(self) -> None:
        """Cut its client off."""
        if self.request.transport:
            self.request.transport.abort()
