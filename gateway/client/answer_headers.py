"""The headers that every answer of the gateway bears."""

from __future__ import annotations

import time

from gateway.protocols import PROTOCOLS
from gateway.record import Record


def id_headers(record: Record) -> dict[str, str]:
    """What every answer tells of its request, as far as it is known."""
    wait_ms = record.queue_ms
    if wait_ms is None:
        wait_ms = record.waited_s(time.monotonic()) * 1000 if record.queued else 0.0
    headers = {
        "Server": "gateway",
        "x-request-id": record.request_id,
        "x-gateway-queue-ms": str(int(wait_ms)),
        "x-gateway-attempts": str(len(record.attempts)),
        **record.extra_headers,
    }
    wire = PROTOCOLS.get(record.protocol)
    if wire and wire.id_header:
        headers[wire.id_header] = record.request_id
    if record.upstream_request_id:
        headers["x-upstream-request-id"] = record.upstream_request_id
    if record.names_account and record.account:
        headers["x-gateway-account"] = record.account
    return headers
