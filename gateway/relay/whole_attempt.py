"""
An attempt that answers as a whole.

Commit: the row is durable before the answer is handed out.
"""

from __future__ import annotations

import time
from typing import Any

from gateway.protocols import PROTOCOLS
from gateway.protocols.event_json import dump
from gateway.protocols.json_access import read_json
from gateway.relay import drains
from gateway.relay.account_slots import GrantedAccount
from gateway.relay.attempt import Answer, Attempt
from gateway.relay.dependencies import Dependencies
from gateway.relay.failover_state import FailoverState
from gateway.relay.failures import no_answer, words_of
from gateway.relay.first_event_timeout import FirstEventTimeout
from gateway.relay.stream_codec import converter_of
from gateway.relay.upstream import MAX_BODY_BYTES
from gateway.relay.upstream_call import UpstreamCall
from gateway.transport.decoded import too_large

Whole = tuple[bytes, dict[str, Any]]
"""The bytes of an answer, and the JSON object that they are."""


class WholeAttempt(Attempt):
    """See ``Attempt``."""

    def __init__(
        self, dependencies: Dependencies, state: FailoverState, granted: GrantedAccount
    ) -> None:
        super().__init__(dependencies, state, granted)
        self._body = bytearray()
        self._whole: Whole | None = None

    async def _answer(self, call: UpstreamCall) -> Answer:
        context, facts, record = self._context, self._facts, self._context.record
        with FirstEventTimeout(self._limits.first_event_timeout_s):
            await call.open()
            data, document = await self._read(call, MAX_BODY_BYTES)
        converted = call.request.converted is not None
        if not converted:
            ending = context.wire.read_body(document, facts)
        else:
            body = context.ask.document
            converter = converter_of(context, call.request, facts, body)
            document, ending = converter.body(document)
            del converter, body  # the client's document is not needed any more
            data = dump(document)
            question = self._question(call.request)
            await self._dependencies.conversations.keep(context, question, document)
        self._enter_ending(ending, passes=not converted)
        self._served(call)
        self.learn()
        context.mark_ending(ending.outcome)
        record.status = 200
        await self._upstream_is_done()
        await self._dependencies.accounting.persist(record)
        self._answered = True
        return Answer(call.take_client_headers(), words_of(data, ending))

    async def _read(self, call: UpstreamCall, limit_bytes: int) -> Whole:
        """
        The body. What was read is kept: after an interruption, calling it again reads
        on, or gives the same once more.

        Raises:
            UpstreamError: "upstream_too_large" above *limit_bytes*.
            StatedFailure: it is no answer.
        """
        if self._whole:
            return self._whole
        response, body = call.response, self._body
        assert response
        while piece := await response.read():
            if len(body) + len(piece) > limit_bytes:
                raise too_large(limit_bytes)
            body += piece
        data = bytes(body)
        self._context.mark("first_event")
        self._context.first_output()
        self._context.attempt.receive(len(data), time.monotonic())
        document = read_json(data, exact=call.request.converted is not None)
        if not PROTOCOLS[call.request.protocol].is_answer(document):
            raise no_answer(document)
        self._whole = data, document
        return self._whole

    async def read_on(self) -> bool:
        """See ``Attempt.read_on``."""
        assert self._call
        _, document = await self._read(self._call, drains.MAX_DRAIN_BYTES)
        upstream = PROTOCOLS[self._call.request.protocol]
        return upstream.read_body(document, self._facts).outcome != "failed"
