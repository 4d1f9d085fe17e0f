"""
An attempt that answers with a stream.

    WAITING    ``_hold``      the preamble is kept back
    STREAMING  ``_pump``      what arrives leaves at once
    CLOSED     ``_conclude``  the ending is entered, committed, and written

Hold-back: nothing reaches the client before the first real output. So an account that
fails inside a 200 stream costs the client nothing, and another may answer.
Commit: the row is durable before the client gets the terminal.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable

from gateway.client.answer import ClientAnswer
from gateway.errors import UpstreamError
from gateway.protocols.json_access import read_json
from gateway.protocols.stream_state import Batch, StreamState
from gateway.relay import drains
from gateway.relay.account_slots import GrantedAccount
from gateway.relay.attempt import Attempt
from gateway.relay.conversation import Question, response_in
from gateway.relay.dependencies import Dependencies
from gateway.relay.failover_state import FailoverState
from gateway.relay.failures import no_answer, read_bounded, words_of
from gateway.relay.first_event_timeout import FirstEventTimeout
from gateway.relay.passing_client import PassingClient
from gateway.relay.stream_codec import StreamCodec, codec_of
from gateway.relay.upstream_call import UpstreamCall
from gateway.transport.interface import STOP, LaneSide, StopSignal, UpstreamResponse

HOLD_BACK_BYTES = 1024 * 1024  # a longer preamble is let go, signs of life dropped


class StreamedAttempt(Attempt):
    """See ``Attempt``; ``FailoverState.client`` is set."""

    _codec: StreamCodec  # there before the call is opened

    def __init__(
        self, dependencies: Dependencies, state: FailoverState, granted: GrantedAccount
    ) -> None:
        super().__init__(dependencies, state, granted)
        self._last: Batch | None = None  # the one that held the ending

    @property
    def has_output(self) -> bool:
        """See ``Attempt.has_output``."""
        return self._client.state is not StreamState.WAITING

    @property
    def _client(self) -> ClientAnswer:
        client = self._state.client
        assert client
        return client

    async def _answer(self, call: UpstreamCall) -> None:
        client = self._client
        client.facts = self._facts
        self._codec = codec_of(self._context, call.request, self._facts)
        question = self._question(call.request)
        with FirstEventTimeout(self._limits.first_event_timeout_s) as timeout:
            response = await call.open()
            if _is_json(response):
                raise no_answer(read_json(await read_bounded(response)))
            batch = await self._hold(response, timeout)
        ending = batch.ending
        # A failure in the same read has not reached the client: another may yet answer.
        if ending is None or ending.outcome != "failed":
            self._served(call)
            client.add_headers(call.take_client_headers())
            client.queues_no_more()
            self._context.holder.on_wait = None
        if ending is None:
            await client.send(batch.data)
            del batch, timeout  # a preamble may repeat the whole request
            batch = await self._pump(response)
        self._last = batch
        await self._conclude(batch, question)

    # --- WAITING ----------------------------------------------------------------------

    async def _hold(
        self, response: UpstreamResponse, timeout: FirstEventTimeout
    ) -> Batch:
        """The preamble, up to the first output, an ending, or the bound."""
        context, codec = self._context, self._codec
        held = bytearray()  # a preamble may come in any number of pieces
        has_event = False  # an event has come; comments and pings do not count
        while True:
            chunk = await response.read()
            context.attempt.receive(len(chunk), time.monotonic())
            batch = codec.feed(chunk) if chunk else codec.finish()
            if batch.has_event and not has_event:
                has_event = True
                context.mark("first_event")
                timeout.end()
            held += batch.data
            full = len(held) > HOLD_BACK_BYTES
            started = batch.started or self._thinks_aloud()
            if batch.ending or not chunk or started or (full and has_event):
                context.first_output()
                first = len(held) == len(batch.data)
                return batch if first else batch._replace(data=bytes(held))
            if has_event:
                response.idle_timeout_s = self._limits.idle_timeout_s
            elif full:
                held.clear()

    def _thinks_aloud(self) -> bool:
        """Whether the answer thinks, and its client has to know of it."""
        return self._client.shows_thinking and self._facts.thinks

    # --- STREAMING --------------------------------------------------------------------

    async def _pump(self, response: UpstreamResponse) -> Batch:
        """Everything behind the preamble, as it arrives; up to the ending."""
        self._last = None
        response.idle_timeout_s = self._limits.idle_timeout_s
        try:
            await response.pump(self._feed, self._lane())
        except UpstreamError:
            batch = self._codec.finish(clean=False)
            if batch.ending and batch.ending.outcome == "failed":
                raise
            return batch
        return self._last or self._codec.finish()

    def _feed(self, chunk: bytes) -> Awaitable[None] | StopSignal | None:
        """
        What one read brought, where no lane takes it. A closure would be a little
        quicker, and cost each stream that is open a kilobyte.
        """
        self._context.attempt.receive(len(chunk), time.monotonic())
        if self._codec.passes(chunk):
            return self._client.push(chunk)
        batch = self._codec.feed(chunk)
        if batch.ending:
            self._last = batch
            return STOP
        return self._client.push(batch.data) if batch.data else None

    def _lane(self) -> LaneSide | None:
        end = self._client.lane
        if end is None:
            return None
        client = PassingClient(self._client, self._codec, end)
        return LaneSide(client, self._context.attempt)

    # --- CLOSED -----------------------------------------------------------------------

    async def _conclude(self, batch: Batch, question: Question | None) -> None:
        """
        Write the ending that *batch* brought, durable first.

        Raises:
            StatedFailure: it is a failure, and not the client's own.
        """
        context, client, ending = self._context, self._client, batch.ending
        dependencies, record = self._dependencies, self._context.record
        assert ending
        failed = ending.outcome == "failed"
        passes = failed and context.wire.is_own_failure(batch.terminal)
        self._enter_ending(ending, passes=passes)
        # An answer that is whole already when it begins leaves in one write.
        last = batch.data if client.state is StreamState.WAITING else b""
        if batch.data and not last:
            await client.send(batch.data)
        self.learn()
        context.mark_ending(ending.outcome, keepalives=client.keepalives)
        if question:
            response = response_in(batch.terminal)
            stored = await dependencies.conversations.keep(context, question, response)
            if continuation := self._state.continuation:
                continuation.stored = stored
        record.status = 200
        if not failed:
            await self._upstream_is_done()
        await dependencies.accounting.persist(record)
        await client.finish(last + words_of(batch.terminal, ending))
        self._answered = not failed

    # --- the client has left ----------------------------------------------------------

    async def read_on(self) -> bool:
        """See ``Attempt.read_on``; MAX_DRAIN_BYTES end it, too."""
        assert self._call and self._call.response
        if self._last:  # the client left while it was to get this
            return _is_whole(self._last)
        response, codec = self._call.response, self._codec
        left = drains.MAX_DRAIN_BYTES
        while left > 0:
            chunk = await response.read()
            if not chunk:
                return _is_whole(codec.finish())
            left -= len(chunk)
            self._context.attempt.receive(len(chunk), time.monotonic())
            batch = codec.feed(chunk)
            if batch.ending:
                return _is_whole(batch)
        return False


def _is_whole(batch: Batch) -> bool:
    return batch.ending is not None and batch.ending.outcome != "failed"


def _is_json(response: UpstreamResponse) -> bool:
    kind = response.headers.get("Content-Type", "")
    return kind.lower().startswith("application/json")
