"""
The model endpoints: ``POST /v1/responses``, ``/v1/chat/completions``, ``/v1/messages``.

    read ──▶ budget, model ──▶ the user's slot ──▶ relay ──▶ a stream, or a whole answer

A failure anywhere on the way is an exception; ``recording`` answers it.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from types import MethodType

from aiohttp import web

from gateway.accounting.budget_guard import BudgetGuard
from gateway.accounts.accounts import Accounts
from gateway.admission.interface import SlotSource
from gateway.client.answer import ClientAnswer
from gateway.client.answer_headers import id_headers
from gateway.client.framing import send_whole
from gateway.client.interface import ClientStream, QueuePlace
from gateway.client.sse_stream import SseStream
from gateway.context import RequestContext
from gateway.endpoints.recording import Handler, Recorder
from gateway.endpoints.request_reader import RequestReader
from gateway.endpoints.request_scope import RequestScope
from gateway.endpoints.websocket.create import Create
from gateway.errors import ClientError
from gateway.relay.attempt import Answer
from gateway.relay.failover import Relay
from gateway.relay.failover_state import Continuation


class ModelRequests:
    """The handlers of the model endpoints."""

    def __init__(
        self,
        recorder: Recorder,
        reader: RequestReader,
        registry: SlotSource,
        relay: Relay,
        accounts: Accounts,
        budget_guard: BudgetGuard,
    ) -> None:
        self._recorder = recorder
        self._reader = reader
        self._registry = registry
        self._relay = relay
        self._accounts = accounts
        self._budget_guard = budget_guard

    def endpoint(self, protocol: str, path: str) -> Handler:
        """The handler of ``POST /v1`` + *path*."""

        def serve(scope: RequestScope) -> Awaitable[web.StreamResponse]:
            return self._serve(scope, path)

        return self._recorder.recorded(protocol, serve)

    async def _serve(self, scope: RequestScope, path: str) -> web.StreamResponse:
        context = scope.context = await self._reader.context(scope, path)
        if context.ask.stream and path == scope.wire.path:
            record = context.record
            stream = SseStream(scope.request, record, context.wire, context.client)
            scope.stream = stream
            scope.answer = self._answer(stream, context)
        try:
            whole = await self._run(context, scope.answer)
            if scope.stream:
                assert scope.stream.response is not None
                return scope.stream.response
            assert whole is not None
            return await self._send_whole(whole, scope)
        finally:
            _release_slot(context)

    async def serve_message(
        self, scope: RequestScope, stream: ClientStream, create: Create
    ) -> web.StreamResponse:
        """Serve a request that came as a message; its answer goes to *stream*."""
        context = scope.context = self._reader.message(scope, create)
        scope.answer = self._answer(stream, context)
        scope.answer.shows_thinking = create.may_be_interrupted
        try:
            await self._run(context, scope.answer, create.continuation)
        finally:
            _release_slot(context)
        return web.Response()  # of a request that has no HTTP answer

    async def _run(
        self,
        context: RequestContext,
        answer: ClientAnswer | None,
        continuation: Continuation | None = None,
    ) -> Answer | None:
        """
        From the budget to the end of the answer; a whole one is returned. The user's
        slot is the context's then.
        """
        # What can never be is refused before anything is waited for.
        self._budget_guard.admit(context.user.name, context.client.name)
        self._accounts.chooser.check_model(context.ask.model)
        context.slot = await self._registry.user_slot(
            context.user.name,
            context.holder,
            context.deadline,
            session=context.session.value,
            ahead=None if continuation else MethodType(self._relay.ahead, context),
        )
        self._budget_guard.check(context)
        return await self._relay.run(context, answer, continuation)

    def _answer(self, stream: ClientStream, context: RequestContext) -> ClientAnswer:
        """A streamed answer; from now on its client gets keepalives."""
        interval_s = context.limits.ping_interval_s
        answer = ClientAnswer(stream, context.record, interval_s)
        if headers := self._budget_guard.usage_headers(context):
            answer.add_headers(headers)
        # Held for as long as it waits: a lambda or partial takes twice as much.
        answer.queue_place = MethodType(self._queue_place, context)
        answer.start_keepalives()
        return answer

    def _queue_place(self, context: RequestContext) -> QueuePlace | None:
        place = self._registry.queue_position(context.holder)
        if place is None:
            return None
        context.show_position(place.position)
        waited_s = context.record.waited_s(time.monotonic())
        return QueuePlace(place.position, place.expected_s, waited_s)

    async def _send_whole(
        self, whole: Answer, scope: RequestScope
    ) -> web.StreamResponse:
        """Send a whole answer; a client that leaves meanwhile has not had it."""
        headers = {**whole.headers, **id_headers(scope.record)}
        scope.sending_whole = True
        try:
            return await send_whole(scope.request, headers, whole.body)
        except ConnectionError as gone:
            scope.record.client_left(has_status=True)
            raise ClientError("client_gone", detail=repr(gone)) from None
        except asyncio.CancelledError:
            scope.record.client_left(has_status=True)
            raise


def _release_slot(context: RequestContext) -> None:
    """The request is over; its user's slot may be another's by now, or a drain's."""
    if context.slot:
        context.slot.release()
