"""
The frame around every recorded endpoint: one record of a request, one ending.

    request ──▶ Record, RequestScope ──▶ endpoint ──▶ its answer
                                            └──▶ an exception: the client's HTTP status,
                                                 or its stream's ending
    and always ──▶ the record is closed: log, metrics, budgets, ledger

The way back from anywhere below is an exception; here it becomes what the client reads.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from aiohttp import web

from gateway.accounting.settlement import Accounting
from gateway.client.answer import ClientAnswer
from gateway.client.kinds import recognise
from gateway.endpoints.error_answers import error_answer
from gateway.endpoints.live_config import LiveConfig
from gateway.endpoints.open_requests import OpenRequests
from gateway.endpoints.request_ids import new_uuid, request_id_of
from gateway.endpoints.request_scope import RequestScope
from gateway.errors import (
    FINAL_CODES,
    ClientError,
    GatewayError,
    PassedOn,
    UpstreamError,
)
from gateway.protocols import PROTOCOLS
from gateway.protocols.protocol import WireProtocol, response_id_of
from gateway.protocols.responses.frames import INTERRUPTED
from gateway.protocols.stream_state import CLOSED, STREAMING
from gateway.record import Record
from gateway.telemetry import log

INTERRUPT_COMMIT_S = 0.02
"""How long the end of an interrupted answer waits for its row at most."""

Handler = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]
Endpoint = Callable[[RequestScope], Awaitable[web.StreamResponse]]


class Recorder:
    """
    Makes handlers of endpoints.

    Args:
        accounting: closes each record.
    """

    def __init__(
        self, live: LiveConfig, open_requests: OpenRequests, accounting: Accounting
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._live = live
        self._open = open_requests
        self._accounting = accounting
        self._log = log.get()

    def recorded(
        self, protocol: str, endpoint: Endpoint, *, kept: bool = True
    ) -> Handler:
        """
        *endpoint* with a record, which is closed once, and failures in *protocol*'s
        form.

        Args:
            kept: whether the ledger keeps the record.
        """
        wire = PROTOCOLS[protocol]

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            unix_s = time.time()
            ident = request_id_of(request.headers, unix_s)
            record = Record(ident, unix_s, time.monotonic())
            scope = self._scope(request, wire, record)
            scope.record.durable = not kept
            return await self.serve(scope, endpoint)

        return handle

    def message_scope(
        self, request: web.BaseRequest, protocol: str, connection_id: str
    ) -> RequestScope:
        """
        The scope of a request that came as a message on the websocket of *request*.
        Before ``serve`` it needs an ``answer`` that has no HTTP head, so that every way
        back ends that answer.
        """
        unix_s = time.time()
        record = Record(new_uuid(unix_s), unix_s, time.monotonic())
        record.connection_id, record.stream = connection_id, True
        return self._scope(request, PROTOCOLS[protocol], record)

    def _scope(
        self, request: web.BaseRequest, wire: WireProtocol, record: Record
    ) -> RequestScope:
        client = recognise(request.headers)
        record.protocol, record.client = wire.name, client.name
        record.response_id = response_id_of(record.request_id)
        record.names_account = self._live.config.server.tell_account
        if origins := self._live.origins:
            record.extra_headers = origins.answer(request.headers.get("Origin", ""))
        record.mark(record.received, "received", path=request.path)
        log.bind(record.request_id)
        return RequestScope(request, record, wire, client)

    async def serve(
        self, scope: RequestScope, endpoint: Endpoint
    ) -> web.StreamResponse:
        """Serve *scope* by *endpoint*: one ending, one record."""
        scope.task = asyncio.current_task(self._loop)
        self._open.add(scope)
        try:
            return await endpoint(scope)
        except GatewayError as error:
            return await self._failed(error, scope)
        except asyncio.CancelledError:
            if scope.stop_error is None or scope.task is None:
                raise  # the client has left
            scope.task.uncancel()
            return await self._failed(scope.stop_error, scope)
        except Exception as error:
            own = scope.client_body
            self._log.error("request.crashed", exc_info=error, own_words=own)
            crash = GatewayError("internal_error", detail=repr(error))
            return await self._failed(crash, scope)
        finally:
            self._open.discard(scope)
            if scope.answer:
                scope.answer.stop_keepalives()
            if scope.body_share:
                scope.body_share.release()
            if not scope.record.drained:
                self._close(scope.record)

    def _close(self, record: Record) -> None:
        _note_end_of_wait(record)
        if record.outcome == "client_gone":
            record.mark(time.monotonic(), "client_left")
        elif record.outcome in ("failed", "refused"):
            facts = {"message": record.message} if record.message else {}
            code = record.error_code
            record.mark(time.monotonic(), record.outcome, code=code, **facts)
        self._accounting.close(record)

    # --- the way back -----------------------------------------------------------------

    async def _failed(
        self, error: GatewayError, scope: RequestScope
    ) -> web.StreamResponse:
        """Answer with *error* in the form that is still open."""
        error.__traceback__ = None  # its frames hold it, and the request
        record, answer = scope.record, scope.answer
        if error.code == INTERRUPTED and answer and answer.state is STREAMING:
            return await self._interrupted(error, answer, scope)
        if error.code == "client_gone" or (answer and answer.state is CLOSED):
            return scope.begun_response(error)  # the record says already how it ended
        refused = not record.attempts and error.origin != "upstream"
        record.set_outcome("refused" if refused else "failed", error.origin, error.code)
        record.detail = _detail(error, scope)
        if not isinstance(error, PassedOn):  # else they are the upstream's words
            record.message = log.detail(error.message, scope.client_body)
        _note_end_of_wait(record)
        in_stream = _ends_in_stream(error, scope)
        if answer is None or answer.can_refuse and not in_stream:
            refusal = error_answer(error, scope.wire, record)
            if self._open.draining or not scope.request.content.is_eof():
                refusal.force_close()  # the rest of the body is not wanted
            return refusal
        await self._end(answer, error, scope)
        return scope.begun_response(error)

    async def _end(
        self, answer: ClientAnswer, error: GatewayError, scope: RequestScope
    ) -> None:
        """End a stream that has begun with the failure of its protocol."""
        record = scope.record
        if answer.seen.response_id:
            record.response_id = answer.seen.response_id
        self._log.warning(
            "stream.failed",
            response_id=record.response_id,
            error_code=error.code,
            origin=error.origin,
            detail=record.detail,
        )
        if scope.context:
            scope.context.mark_ending("failed", keepalives=answer.keepalives)
        has_output = answer.state is STREAMING
        with suppress(ClientError):  # it has left before it could read the ending
            await answer.fail(error)
        if record.connection_id and not has_output:  # the ending has a status
            record.status = scope.wire.error_status(error)

    async def _interrupted(
        self, error: GatewayError, answer: ClientAnswer, scope: RequestScope
    ) -> web.StreamResponse:
        """
        End a stream that its client has interrupted. Its row is durable first, where
        that takes no longer than a client that waits for the end will bear.
        """
        record = scope.record
        record.set_outcome("incomplete")
        record.response_id = answer.seen.response_id or record.response_id
        record.status = 200
        if scope.context:
            scope.context.mark_ending("incomplete", keepalives=answer.keepalives)
        try:
            async with asyncio.timeout(INTERRUPT_COMMIT_S):
                await self._accounting.persist(record)
        except TimeoutError:
            pass  # it is being written, and once more when the record is closed
        except GatewayError as lost:
            return await self._failed(lost, scope)
        try:
            await answer.fail(error)
        except (ClientError, asyncio.CancelledError):
            record.client_left(has_status=True)
        return scope.begun_response(error)


def _ends_in_stream(error: GatewayError, scope: RequestScope) -> bool:
    """
    Whether *error* is an ending also where nothing is out: what the operator ended must
    not come back, and some clients take no HTTP status as final.
    """
    if error.code not in FINAL_CODES or not scope.client.final_code:
        return False
    error.client_code = scope.client.final_code
    return True


def _detail(error: GatewayError, scope: RequestScope) -> str:
    """What log and ledger say of *error*; an upstream's words are redacted already."""
    if isinstance(error, UpstreamError | PassedOn):
        return error.detail
    return log.detail(error.detail, scope.client_body)


def _note_end_of_wait(record: Record) -> None:
    """A request that was refused in the queue, or left it, has waited, too."""
    if record.queue_ms is None and (
        record.error_code in ("queue_full", "queue_timeout")
        or any(event == "queued" for _, event, _ in record.marks)
    ):
        record.queue_ms = record.waited_s(time.monotonic()) * 1000
