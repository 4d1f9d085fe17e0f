"""
One try at one account: send, hold back the preamble, pump, read the ending.

    open ──▶ hold ──▶ pump ──▶ Batch with an ending
       └───────┴─────────┴──▶ Refusal (an error status), UpstreamError

Hold-back: nothing reaches the client before the first real output, so an account
that fails inside a 200 stream has cost the client nothing, and another may answer.

Whose fault a failure is, and what follows from it, is not decided here.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from multidict import CIMultiDict, CIMultiDictProxy

from gateway.client.answer import ClientAnswer
from gateway.config.schema import Account, UpstreamLimits
from gateway.context import RequestContext
from gateway.errors import UpstreamError
from gateway.protocols import PROTOCOLS
from gateway.protocols.protocol import read_json
from gateway.protocols.stream_state import Batch
from gateway.relay.failures import (
    StatedFailure,
    no_answer,
    read_bounded,
    read_refusal,
)
from gateway.relay.first_event_timeout import FirstEventTimeout
from gateway.relay.headers import downwards, upstream_request_id
from gateway.relay.stream_codec import StreamCodec
from gateway.relay.upstream import MAX_BODY_BYTES, Upstream
from gateway.relay.upstream_request import UpstreamRequest
from gateway.telemetry import log
from gateway.transport.decoded import too_large
from gateway.transport.interface import STOP, StopSignal, UpstreamResponse

_NO_HEADERS: CIMultiDictProxy[str] = CIMultiDictProxy(CIMultiDict())
DROPPED = "x-gateway-dropped"
MAX_DROPPED_CHARS = 1024
_PRINTABLE = re.compile(r"[\x21-\x7e]+")
HOLD_BACK_BYTES = 1024 * 1024  # a longer preamble is let go, signs of life dropped
MAX_DRAIN_BYTES = 64 * 1024 * 1024  # that are read on for a client that has left
LINGER_S = 1.0  # for the last chunk behind a terminal event


Whole = tuple[bytes, dict[str, Any]]
"""A non-stream answer: its bytes, and the JSON object that they are."""


class UpstreamCall:
    """
    Args:
        outgoing: the request as this account gets it.
    """

    def __init__(
        self,
        context: RequestContext,
        account: Account,
        outgoing: UpstreamRequest,
        upstream: Upstream,
        limits: UpstreamLimits,
    ) -> None:
        self.account = account
        self.reply: UpstreamResponse | None = None
        self._context = context
        self._outgoing = outgoing
        self._upstream = upstream
        self._limits = limits
        self._last: Batch | None = None  # the one that held the ending
        self._body = bytearray()
        self._whole: Whole | None = None

    # --- streams ------------------------------------------------------------------

    async def stream(
        self, course: StreamCodec, down: ClientAnswer, on_output: Callable[[], None]
    ) -> Batch:
        """
        Relay a stream up to its ending, which is handed back unwritten.

        Args:
            on_output: called once, when the first real output is there.

        Raises:
            Refusal: before anything of an answer.
            UpstreamError: it broke, before or amid the answer (``down.state``).
        """
        with FirstEventTimeout(self._limits.first_event_timeout_s) as patience:
            reply = await self._open()
            if _is_json(reply):
                raise await self._no_stream(reply)
            batch = await self._hold(reply, course, patience)
        ending = batch.ending
        # What fails in the same breath has reached nobody: another may yet answer.
        if ending is None or ending.outcome != "failed":
            on_output()
            down.add_headers(self._headers_down(reply))
            reply.headers = _NO_HEADERS  # a long stream need not keep them
        if ending is None:
            await down.send(batch.data)
            del batch  # a preamble may repeat the whole request
            batch = await self._pump(reply, course, down)
        self._last = batch
        return batch

    async def _hold(
        self, reply: UpstreamResponse, course: StreamCodec, patience: FirstEventTimeout
    ) -> Batch:
        """The preamble, up to the first output, an ending, or the bound."""
        held = bytearray()  # a preamble may come in any number of pieces
        told = False  # an event has come; comments and pings do not count
        while True:
            chunk = await reply.read()
            self._context.came(len(chunk))
            batch = course.feed(chunk) if chunk else course.finish()
            if batch.told and not told:
                told = True
                self._context.mark("first_event")
                patience.end()
            held += batch.data
            full = len(held) > HOLD_BACK_BYTES
            if batch.ending or not chunk or batch.started or (full and told):
                self._context.first_output()
                first = len(held) == len(batch.data)
                return batch if first else batch._replace(data=bytes(held))
            if told:
                reply.idle_timeout_s = self._limits.idle_timeout_s
            elif full:
                held.clear()

    async def _pump(
        self, reply: UpstreamResponse, course: StreamCodec, down: ClientAnswer
    ) -> Batch:
        """Everything behind the preamble, as it arrives."""
        self._last = None
        reply.idle_timeout_s = self._limits.idle_timeout_s
        came, passes, push = self._context.came, course.passes, down.push

        def feed(chunk: bytes) -> Awaitable[None] | StopSignal | None:
            came(len(chunk))
            if passes(chunk):
                return push(chunk)
            batch = course.feed(chunk)
            if batch.ending:
                self._last = batch
                return STOP
            return push(batch.data) if batch.data else None

        try:
            await reply.pump(feed)
        except UpstreamError:
            batch = course.finish(clean=False)
            if batch.ending and batch.ending.outcome == "failed":
                raise
            return batch
        return self._last or course.finish()

    async def drain(self, course: StreamCodec) -> bool:
        """
        Read on after the client has left; what is learnt is in the course's facts.

        Returns whether the answer was whole; MAX_DRAIN_BYTES end it, too.
        """
        assert self.reply
        if self._last:  # it left while it was to get this
            return _is_whole(self._last)
        left = MAX_DRAIN_BYTES
        while left > 0:
            chunk = await self.reply.read()
            if not chunk:
                return _is_whole(course.finish())
            left -= len(chunk)
            self._context.came(len(chunk))
            batch = course.feed(chunk)
            if batch.ending:
                return _is_whole(batch)
        return False

    async def drain_body(self) -> Whole:
        """
        The same of a whole answer.

        Raises:
            UpstreamError: as ``body``.
        """
        return await self.body(MAX_DRAIN_BYTES)

    # --- whole answers ---------------------------------------------------------------

    async def whole(self) -> Whole:
        """
        A non-stream answer: its bytes, and the JSON object that they are.

        Raises:
            Refusal, UpstreamError: as ``stream``.
        """
        with FirstEventTimeout(self._limits.first_event_timeout_s):
            await self._open()
            return await self.body()

    async def body(self, limit_bytes: int = MAX_BODY_BYTES) -> Whole:
        """
        The rest of ``whole`` once the head is there. What was read is kept: after an
        interruption, calling it again reads on, or gives the same once more.

        Raises:
            UpstreamError: "upstream_too_large" above *limit_bytes*.
        """
        if self._whole:
            return self._whole
        reply, whole = self.reply, self._body
        assert reply
        while piece := await reply.read():
            if len(whole) + len(piece) > limit_bytes:
                raise too_large(limit_bytes)
            whole += piece
        data = bytes(whole)
        self._context.mark("first_event")
        self._context.first_output()
        self._context.came(len(data))
        document = read_json(data, exact=self._outgoing.converted is not None)
        if not PROTOCOLS[self._outgoing.protocol].is_answer(document):
            raise no_answer(document)
        self._whole = data, document
        return self._whole

    def headers_down(self) -> dict[str, str]:
        """What the client gets of the upstream's head."""
        return self._headers_down(self.reply) if self.reply else {}

    # --- both ------------------------------------------------------------------------

    async def _open(self) -> UpstreamResponse:
        context, account, outgoing = self._context, self.account, self._outgoing
        context.mark("connecting", account=account.name)
        reply = await self._upstream.open(
            account,
            outgoing.protocol,
            outgoing.path,
            outgoing.headers,
            outgoing.body,
            query=context.query if outgoing.same_protocol else "",
        )
        self.reply = reply
        outgoing.forget()
        ident = log.clean_id(upstream_request_id(reply.headers))
        context.record.upstream_request_id = ident
        context.attempt.status = reply.status
        context.mark("head", status=reply.status)
        if reply.status != 200:
            raise await read_refusal(reply)
        return reply

    async def _no_stream(
        self, reply: UpstreamResponse
    ) -> StatedFailure | UpstreamError:
        """What a 200 with a JSON body means where a stream should be."""
        return no_answer(read_json(await read_bounded(reply)))

    def _headers_down(self, reply: UpstreamResponse) -> dict[str, str]:
        headers = downwards(
            reply.headers,
            same_protocol=self._outgoing.same_protocol,
            renamed=self._outgoing.renamed,
        )
        if ident := self._context.record.upstream_request_id:
            headers["x-upstream-request-id"] = ident
        if DROPPED in self._context.headers:
            headers |= _dropped(self._context.record.dropped)
        return headers

    def close(self, *, answered: bool = False) -> None:
        """Be done with the upstream; *answered*: the answer was whole."""
        if self.reply:
            self.reply.close(LINGER_S if answered else 0.0)


def _is_whole(batch: Batch) -> bool:
    return batch.ending is not None and batch.ending.outcome != "failed"


def _is_json(reply: UpstreamResponse) -> bool:
    kind = reply.headers.get("Content-Type", "")
    return kind.lower().startswith("application/json")


def _dropped(paths: Iterable[str]) -> dict[str, str]:
    """The header that names what was left out of a converted request, if anything."""
    told = ",".join(path for path in paths if _PRINTABLE.fullmatch(path))
    return {DROPPED: told[:MAX_DROPPED_CHARS]} if told else {}
