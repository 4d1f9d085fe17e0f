"""
Answers to what is no request for a model: the state of the gateway, a browser that asks
what it may send, and heads that cannot be served.

They have an id as every other answer, and none is kept in the ledger.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Mapping

from aiohttp import hdrs, web

from gateway.accounting.settlement import Accounting
from gateway.client.answer_headers import id_headers
from gateway.client.connection import Head
from gateway.endpoints.error_answers import error_answer
from gateway.endpoints.live_config import LiveConfig
from gateway.endpoints.paths import canonical_path, protocol_of
from gateway.endpoints.request_ids import request_id_of
from gateway.errors import GatewayError
from gateway.protocols import PROTOCOLS
from gateway.protocols.protocol import response_id_of
from gateway.record import Record
from gateway.telemetry import log

Plain = Callable[[web.Request], Awaitable[web.Response]]


class PlainAnswers:
    """
    Args:
        accounting: closes the records of heads that cannot be served.
    """

    def __init__(self, live: LiveConfig, accounting: Accounting) -> None:
        self._live = live
        self._accounting = accounting
        self._log = log.get()

    def unrecorded(self, inner: Plain) -> Plain:
        """*inner* with the headers that every answer bears."""

        async def handle(request: web.Request) -> web.Response:
            answer = await inner(request)
            answer.headers.update(self._headers(request.headers))
            return answer

        return handle

    def maybe_preflight(self, request: web.BaseRequest) -> web.Response | None:
        """The answer to ``OPTIONS`` of a page that may read answers; no key needed."""
        if not self._live.origins.allows(request.headers.get(hdrs.ORIGIN, "")):
            return None
        headers = self._headers(request.headers)
        headers.update(self._live.origins.preflight(request.headers))
        return web.Response(status=204, headers=headers)

    def refuse_head(self, head: Head, error: GatewayError) -> web.Response:
        """Answer a request whose head cannot be served, and note it."""
        path = canonical_path(head.path.partition("?")[0])
        given = {"x-request-id": head.request_id} if head.request_id else {}
        record = self._record(given)
        wire = PROTOCOLS[protocol_of(path)]
        record.protocol = wire.name
        record.response_id = response_id_of(record.request_id)
        record.mark(record.received, "received", path=path)
        record.set_outcome("refused", error.origin, error.code)
        record.detail = log.detail(error.detail)
        answer = error_answer(error, wire, record)
        log.bind(record.request_id)
        if head.path:
            self._accounting.close(record)
        else:
            self._log.info("connection.malformed", detail=error.detail or error.code)
        return answer

    def _headers(self, given: Mapping[str, str]) -> dict[str, str]:
        return id_headers(self._record(given))

    def _record(self, given: Mapping[str, str]) -> Record:
        unix_s = time.time()
        record = Record(request_id_of(given, unix_s), unix_s, time.monotonic())
        record.durable = True  # it is not kept
        record.extra_headers = self._live.origins.answer(given.get(hdrs.ORIGIN, ""))
        return record
