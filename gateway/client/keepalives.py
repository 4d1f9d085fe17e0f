"""
What a client gets while nothing of its answer comes.

    comment   ": queued position=3 expected=12s": harmless everywhere
    status    Codex: a reasoning summary that its terminal shows live and that leaves
              nothing in its history, because no ``output_item.done`` follows
    data      Codex: an event that it ignores but that resets its idle timer (300 s),
              which comments do not

Over a websocket there are no comments: everyone gets data.
"""

from __future__ import annotations

import orjson

from gateway.client.interface import QueuePlace
from gateway.client.kinds import ClientKind

COMMENT = b": keepalive\n\n"
DATA_EVENT = b'event: keepalive\ndata: {"type":"keepalive"}\n\n'


class SseKeepalives:
    """The keepalives of one request, in the form that its *kind* of client reads."""

    __slots__ = ("_kind", "_request_id", "_count", "_last_data_at", "_status")

    def __init__(self, kind: ClientKind, request_id: str) -> None:
        self._kind = kind
        self._request_id = request_id
        self._count = 0
        self._last_data_at = 0.0
        self._status: QueueStatus | None = None

    def next(
        self, place: QueuePlace | None, now: float, last_output_at: float
    ) -> bytes:
        """The keepalive that is due; see ``ClientStream.keepalive``."""
        self._count += 1
        if place is not None:
            return self._queued(place, now)
        limit_s = self._kind.data_event_s
        if limit_s and now - max(last_output_at, self._last_data_at) >= limit_s:
            self._last_data_at = now
            return COMMENT + DATA_EVENT
        return COMMENT

    def _queued(self, place: QueuePlace, now: float) -> bytes:
        """The first one is a comment alone: most waits are over before the second."""
        text = queue_comment(place)
        if self._kind.shows_status and self._count > 1:
            self._last_data_at = now
            if self._status is None:
                self._status = QueueStatus(self._request_id)
            text += self._status.frame(place)
        return text


class FrameKeepalives:
    """The same over a websocket, where a ping restarts no client's idle timer."""

    __slots__ = ("_kind", "_request_id", "_count", "_status")

    def __init__(self, kind: ClientKind, request_id: str) -> None:
        self._kind = kind
        self._request_id = request_id
        self._count = 0
        self._status: QueueStatus | None = None

    def next(self, place: QueuePlace | None) -> bytes:
        """The keepalive that is due; see ``ClientStream.keepalive``."""
        self._count += 1
        if place is None:
            return DATA_EVENT
        if self._kind.shows_status and self._count > 1:
            self._status = self._status or QueueStatus(self._request_id)
            return self._status.frame(place)
        queued: dict[str, object] = {"position": place.position}
        if place.expected_s is not None:
            queued["expected_s"] = max(1, round(place.expected_s))
        return _event({"type": "keepalive", "queued": queued})


def queue_comment(place: QueuePlace) -> bytes:
    """``: queued position=3 expected=12s``"""
    text = f": queued position={place.position}"
    if place.expected_s is not None:
        text += f" expected={max(1, round(place.expected_s))}s"
    return text.encode() + b"\n\n"


class QueueStatus:
    """
    The live status line of Codex while its request waits.

    Each ``frame`` replaces the last one on the screen. The item is never closed, so
    Codex neither stores it nor sends it back.
    """

    __slots__ = ("_item", "_open")

    def __init__(self, request_id: str) -> None:
        self._item = "rs_queue_" + request_id.replace("-", "")
        self._open = False

    def frame(self, place: QueuePlace) -> bytes:
        """The events that show *place*."""
        text = f"**Waiting in queue ({place.waited_s:.0f} s, {place.position - 1} ahead"
        if place.expected_s is not None:
            text += f", about {max(1, round(place.expected_s))} s to go"
        part = {"item_id": self._item, "output_index": 0, "summary_index": 0}
        delta = {
            "type": "response.reasoning_summary_text.delta",
            **part,
            "delta": text + ")**\n\n",
        }
        opening = b"" if self._open else self._opening(part)
        self._open = True
        return opening + _event(delta)

    def _opening(self, part: dict[str, object]) -> bytes:
        item = {"id": self._item, "type": "reasoning", "summary": []}
        text = {"type": "summary_text", "text": ""}
        return _event(
            {"type": "response.output_item.added", "output_index": 0, "item": item}
        ) + _event(
            {"type": "response.reasoning_summary_part.added", **part, "part": text}
        )


def _event(data: dict[str, object]) -> bytes:
    kind = str(data["type"]).encode()
    return b"event: " + kind + b"\ndata: " + orjson.dumps(data) + b"\n\n"
