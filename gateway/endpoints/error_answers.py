"""A failure as an HTTP answer of its own, in the form of the client's protocol."""

from __future__ import annotations

from aiohttp import web

from gateway.client.answer_headers import id_headers
from gateway.errors import GatewayError, PassedOn
from gateway.protocols.protocol import WireProtocol
from gateway.record import Record


def error_answer(
    error: GatewayError, wire: WireProtocol, record: Record
) -> web.Response:
    """*error* as it is answered before anything of an answer is out."""
    headers = id_headers(record)
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(error.retry_after_s)
    if error.status == 401 or error.final:
        headers["x-should-retry"] = "false"
    text = wire.error_body(error, record.request_id)
    if isinstance(error, PassedOn) and error.raw:
        text = error.raw
    record.status = wire.error_status(error)
    return web.Response(
        status=record.status,
        headers=headers,
        body=text,
        content_type="application/json",
    )
