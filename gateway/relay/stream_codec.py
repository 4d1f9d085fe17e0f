"""The codec of an answer: what becomes of an upstream's bytes for the client."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Protocol

from gateway.context import RequestContext
from gateway.protocols.sse import Needle
from gateway.protocols.stream_converter import StreamConverter
from gateway.protocols.stream_facts import StreamFacts
from gateway.protocols.stream_state import Batch, PassThrough
from gateway.relay.upstream_request import UpstreamRequest
from gateway.transport.fast_lane import Conversion


class StreamCodec(Protocol):
    """
    ``PassThrough`` for the client's own protocol, else ``StreamConverter``.

    Attributes:
        converts: it is the latter.
    """

    facts: StreamFacts
    converts: bool

    @property
    def plain_heads(self) -> tuple[bytes, ...]: ...
    @property
    def needles(self) -> Sequence[Needle] | None: ...
    @property
    def conversion(self) -> Conversion | None: ...
    def passes(self, chunk: bytes) -> bool: ...
    def feed(self, chunk: bytes) -> Batch: ...
    def finish(self, *, clean: bool = True) -> Batch: ...


def codec_of(
    context: RequestContext, request: UpstreamRequest, facts: StreamFacts
) -> StreamCodec:
    """The codec of the stream that answers *request*; it fills *facts*."""
    if request.converted is None:
        facts.hide_usage = request.hide_usage
        return PassThrough(context.wire, facts)
    return converter_of(context, request, facts)


def converter_of(
    context: RequestContext,
    request: UpstreamRequest,
    facts: StreamFacts,
    body: dict[str, Any] | None = None,
) -> StreamConverter:
    """
    The converter of the answer to a converted *request*.

    Args:
        body: the client's; only the answer of ``/responses/compact`` repeats from it.
    """
    assert request.converted
    return StreamConverter(
        request.protocol,
        context.wire.name,
        facts,
        request.converted,
        context.record.request_id,
        context.ask.model,
        int(context.record.started_at),
        now=time.time,
        client_body=body,
    )
