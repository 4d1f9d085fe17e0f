"""
A response whose body an upstream compressed although it was asked not to.

Decoding runs in bounded steps, which take scheduler with the steps of all other bodies.
"""

from __future__ import annotations

import io

from multidict import CIMultiDict, CIMultiDictProxy

from gateway.content_coding import (
    CodingError,
    Decoder,
    DecodeScheduler,
    content_coding,
    maybe_decoder,
)
from gateway.errors import UpstreamError
from gateway.transport.interface import STOP, Ended, Feed, LaneSide, UpstreamResponse


class _Unknown(Decoder):
    """An unknown coding: the body of a refusal is lost, its status counts."""

    whole = True

    def step(self) -> bytes:
        raise CodingError("the content coding is not known")


def decoded(reply: UpstreamResponse, scheduler: DecodeScheduler) -> UpstreamResponse:
    """
    *reply* itself, or a response that decodes it if its head names a coding.

    Raises:
        UpstreamError: "upstream_malformed" for an answer (200) of an unknown coding;
            *reply* is closed then. Of a refusal only the body is lost.
    """
    if "content-encoding" not in reply.headers:
        return reply
    coding = content_coding(reply.headers)
    if not coding:
        return reply
    if decoder := maybe_decoder(coding):
        return DecodedResponse(reply, decoder, scheduler)
    if reply.status != 200:
        return DecodedResponse(reply, _Unknown(), scheduler)
    reply.close()
    raise UpstreamError(
        "upstream_malformed", detail=f"content-encoding {coding[:80]} is not known"
    )


class DecodedResponse:
    """
    An ``UpstreamResponse`` over another; its headers lack the coding and the length.

    XXX: the pump wakes its task for every piece. Upstreams are asked not to compress,
    so the case is too rare to be fast.
    """

    def __init__(
        self, reply: UpstreamResponse, decoder: Decoder, scheduler: DecodeScheduler
    ) -> None:
        self._reply = reply
        self._decoder = decoder
        self._scheduler = scheduler
        self._touched = False
        headers = CIMultiDict(reply.headers)
        headers.popall("content-encoding", None)
        headers.popall("content-length", None)
        self.status = reply.status
        self.facts = reply.facts
        self.headers = CIMultiDictProxy(headers)

    @property
    def idle_timeout_s(self) -> float:
        return self._reply.idle_timeout_s

    @idle_timeout_s.setter
    def idle_timeout_s(self, seconds: float) -> None:
        self._reply.idle_timeout_s = seconds

    async def read(self) -> bytes:
        while True:
            if not self._decoder.hungry:
                await self._scheduler.wait()
            elif data := await self._reply.read():
                self._decoder.feed(data)
                self._touched = True
            else:
                self._check_whole()
                return b""
            if piece := self._step():
                return piece

    async def body(self, limit_bytes: int) -> bytes:
        whole = io.BytesIO()  # gives its bytes away without a copy
        while piece := await self.read():
            whole.write(piece)
            if whole.tell() > limit_bytes:
                raise too_large(limit_bytes)
        return whole.getvalue()

    async def pump(self, feed: Feed, lane: LaneSide | None = None) -> None:
        while piece := await self.read():
            outcome = feed(piece)
            if outcome is STOP:
                return
            if outcome is not None:
                await outcome

    @property
    def has_ended(self) -> bool:
        return self._reply.has_ended

    def close(self, linger_s: float = 0.0, ended: Ended | None = None) -> None:
        self._reply.close(linger_s, ended)

    def _step(self) -> bytes:
        try:
            return self._decoder.step()
        except CodingError as error:
            raise UpstreamError("upstream_malformed", detail=str(error)) from None

    def _check_whole(self) -> None:
        # an empty body (204, HEAD) was not compressed, whatever its head says
        if self._touched and not self._decoder.whole:
            raise UpstreamError(
                "upstream_cut", detail="the compressed body stops before its end"
            )


def too_large(limit_bytes: int) -> UpstreamError:
    """The failure of a body above *limit_bytes*."""
    return UpstreamError(
        "upstream_too_large", detail=f"the body has more than {limit_bytes} bytes"
    )
