"""What becomes of an upstream's bytes on their way to the client."""

from __future__ import annotations

import time
from typing import Any, Protocol

from gateway.context import Turn
from gateway.protocols.protocol import Facts
from gateway.protocols.stream_converter import Translation
from gateway.protocols.stream_state import Batch, Watch
from gateway.relay.upstream_request import Outgoing


class Course(Protocol):
    """They pass (Watch) or are translated."""

    facts: Facts

    def passes(self, chunk: bytes) -> bool: ...
    def feed(self, chunk: bytes) -> Batch: ...
    def finish(self, *, clean: bool = True) -> Batch: ...


def course_of(turn: Turn, request: Outgoing, facts: Facts) -> Course:
    """The course of the answer to *request*; it fills *facts*."""
    if request.converted is None:
        facts.hide_usage = request.hide_usage
        return Watch(turn.wire, facts)
    return translation_of(turn, request, facts)


def translation_of(
    turn: Turn, request: Outgoing, facts: Facts, *, body: dict[str, Any] | None = None
) -> Translation:
    """
    The same of a converted *request*.

    Args:
        body: the client's; only the answer of ``/responses/compact`` repeats from it.
    """
    assert request.converted
    return Translation(
        request.protocol,
        turn.wire.name,
        facts,
        request.converted,
        turn.record.request_id,
        turn.ask.model,
        int(turn.record.started_at),
        now=time.time,
        client_body=body,
    )
