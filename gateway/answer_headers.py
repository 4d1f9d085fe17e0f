"""The headers that every answer of the gateway bears."""

from __future__ import annotations

from gateway.record import Record


def id_headers(record: Record) -> dict[str, str]:
    """The ids that every answer bears."""
    headers = {"Server": "gateway", "x-request-id": record.request_id}
    if record.protocol == "messages":
        headers["request-id"] = record.request_id
    if record.upstream_request_id:
        headers["x-upstream-request-id"] = record.upstream_request_id
    return headers
