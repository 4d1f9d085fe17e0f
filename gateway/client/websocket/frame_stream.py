"""A streamed answer as text frames of a websocket, beside others on the same one."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import orjson

from gateway.client.interface import QueuePlace
from gateway.client.keepalives import FrameKeepalives
from gateway.client.kinds import ClientKind
from gateway.client.websocket.client_socket import ClientSocket
from gateway.client.websocket.text_frames import (
    DEFLATE_FROM_BYTES,
    frames,
    payloads,
    text_frame,
    with_member,
)
from gateway.client.websocket.turn_output import MARK, TurnOutput
from gateway.errors import GatewayError
from gateway.protocols.protocol import WireProtocol
from gateway.protocols.responses.frames import (
    INTERRUPTED,
    accepted,
    error_event,
    event,
    interrupted_events,
    metadata_event,
)
from gateway.protocols.responses.quotas import quota_documents, says_quotas
from gateway.protocols.stream_facts import StreamFacts
from gateway.record import Record
from gateway.transport.fast_lane import Framed, LaneEnd, LaneTransport

METADATA = ("x-codex-turn-state", "openai-model")
"""Headers of an answer that a client over a websocket gets, too."""

_COMMENT = b'{"type":"keepalive"}'


def _no_hook(terminal: bytes) -> None:
    """What is done at the end of an answer that is not to be remembered."""


class FrameStream:
    """
    A ``ClientStream``. It has many methods because it is a ``LaneEnd``, too.

    Args:
        wire: the client's protocol.
        lane: the name of its lane, which every frame bears; "" for none.

    Attributes:
        output: what has come of the answer's items.
        on_end: called with the last event just before it is written.
    """

    __slots__ = (
        "_socket",
        "_record",
        "_wire",
        "_kind",
        "_lane",
        "_keepalives",
        "_own",
        "_first",
        "_quotas",
        "_frames",
        "_ended",
        "output",
        "on_end",
    )

    has_http_head = False
    takes_frames = True

    def __init__(
        self,
        socket: ClientSocket,
        record: Record,
        wire: WireProtocol,
        kind: ClientKind,
        lane: str = "",
    ) -> None:
        self._socket = socket
        self._record = record
        self._wire = wire
        self._kind = kind
        self._lane = orjson.dumps(lane) if lane else b""
        self._keepalives = FrameKeepalives(kind, record.request_id)
        self._own = b""  # events that are no part of the answer
        self._first = b""  # an event that goes out before the next one
        self._quotas = b""  # the same, unless the account says it, too
        self._frames = 0  # of the answer
        self._ended = False
        self.output = TurnOutput()
        self.on_end: Callable[[bytes], None] = _no_hook

    def begin(self, headers: Mapping[str, str]) -> None:
        """See ``ClientStream``."""
        self.add_headers(headers)

    def add_headers(self, headers: Mapping[str, str]) -> None:
        """See ``ClientStream``; what a client looks for goes into an event."""
        if self._kind.reads_metadata:
            values = {name: headers.get(name, "") for name in METADATA}
            said = {name: one for name, one in values.items() if one and one.isascii()}
            self._first = metadata_event(said) if said else b""
            self._quotas = b"".join(map(event, quota_documents(headers)))

    def put(self, data: bytes, *, last: bool = False) -> bool:
        """See ``ClientStream``."""
        first = self._first or self._quotas
        if not (last or self._lane or first or MARK in data):
            framed, count = frames(data, self._socket.deflate_bits)
            if count:
                self._frames += count if data is not self._own else 0
                return self._socket.write(framed)
        return self._put_texts(data, last)

    # --- for a lane -------------------------------------------------------------------

    @property
    def lane(self) -> LaneEnd | None:
        """See ``ClientStream``; frames that bear a name are all written here."""
        return None if self._lane else self

    @property
    def deflates_from(self) -> int:
        """See ``LaneEnd``."""
        return DEFLATE_FROM_BYTES if self._socket.deflate_bits else 0

    @property
    def lane_transport(self) -> LaneTransport | None:
        """See ``LaneEnd``."""
        if self._first or self._quotas:
            return None
        return self._socket.lane_transport

    def framed(self, events: bytes) -> Framed:
        """See ``LaneEnd``."""
        return frames(events, self._socket.deflate_bits)

    def count_frames(self, frames: int) -> None:
        """See ``LaneEnd``."""
        self._frames += frames

    # --- the answer -------------------------------------------------------------------

    def accept_interrupt(self, response_id: str) -> bool:
        """Say that the answer is interrupted; see ``put``."""
        return self.put(accepted(response_id, self._frames))

    def _put_texts(self, data: bytes, last: bool) -> bool:
        """Write events that have to be looked at one by one."""
        own = data is self._own
        texts = [*payloads(data)]
        if not own:
            self._frames += len(texts)
            if MARK in data:
                for text in texts:
                    if MARK in text:
                        self.output.note(text)
        if last:
            self.on_end(texts[-1] if texts else b"")
            self._ended = True
        elif not texts:
            texts = [_COMMENT]  # the upstream's own sign of life
        if self._first or self._quotas:
            texts = [*self._before(texts), *texts]
        socket = self._socket
        blocked = socket.write(self._framed(texts), last=last)
        if last and not blocked:
            self._let_go()
        return blocked

    def _before(self, texts: list[bytes]) -> list[bytes]:
        """What goes out before *texts*, once."""
        if any(map(says_quotas, texts)):
            self._quotas = b""
        before = self._first + self._quotas
        self._first = self._quotas = b""
        return [*payloads(before)]

    def _framed(self, texts: list[bytes]) -> bytes:
        bits, lane = self._socket.deflate_bits, self._lane
        if lane:
            texts = [with_member(text, "stream_id", lane) for text in texts]
        if len(texts) == 1:
            return text_frame(texts[0], bits)
        return b"".join([text_frame(text, bits) for text in texts])

    async def drain(self) -> None:
        """See ``ClientStream``."""
        try:
            await self._socket.drain()
        finally:
            if self._ended:
                self._let_go()

    def _let_go(self) -> None:
        self._ended = False
        self._socket.let_go()

    def abort(self) -> None:
        """See ``ClientStream``; it ends the websocket with all that runs on it."""
        self._socket.abort()

    def keepalive(
        self, place: QueuePlace | None, now: float, last_output_at: float
    ) -> bytes:
        """See ``ClientStream``."""
        self._own = self._keepalives.next(place)
        return self._own

    def failure(self, error: GatewayError, seen: StreamFacts) -> bytes:
        """
        The event that ends the answer. A client that has nothing of it reads a status,
        except Codex, which hides the words behind its own then.
        """
        record = self._record
        ident, model = record.request_id, record.model
        if error.code == INTERRUPTED:
            return interrupted_events(
                ident,
                model,
                seen,
                began_at=int(record.started_at),
                sequence_number=self._frames,
                open_items=self.output.open_items,
                output=self.output.documents,
            )
        if self._kind.reads_failed or seen.response_id:
            return self._wire.failure_frame(error, ident, seen, model)
        return error_event(error, ident)
