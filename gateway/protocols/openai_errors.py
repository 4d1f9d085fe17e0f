"""The gateway's own errors as clients of OpenAI's protocols read them."""

from __future__ import annotations

from typing import Any

import orjson

from gateway.errors import GatewayError

# error.type -> the code that a Responses client reads
TYPE_CODES = {
    "rate_limit_error": "rate_limit_exceeded",
    "invalid_request_error": "invalid_request",
    "permission_error": "permission_denied",
    "authentication_error": "authentication_failed",
    "upstream_error": "upstream_error",
    "server_error": "server_error",
    "api_error": "server_error",
    "": "server_error",
}
# Own codes that clients branch on.
SPOKEN_CODES = frozenset(
    {
        "model_not_found",
        "previous_response_not_found",
        "unsupported_parameter",
        "ledger_unavailable",
        "accounts_paused",
        "ended_by_operator",
        "websocket_connection_limit_reached",
        "websocket_stream_limit_reached",
        "invalid_stream_id",
    }
)


def spoken_code(error: GatewayError) -> str:
    """The ``code`` that an OpenAI client reads."""
    if error.client_code:
        return error.client_code
    if error.code in SPOKEN_CODES:
        return error.code
    return TYPE_CODES.get(error.type, error.type)


def openai_error(error: GatewayError, request_id: str) -> dict[str, Any]:
    """``error`` as Responses and Chat clients read it."""
    return {
        "type": error.type or "server_error",
        "code": spoken_code(error),
        "message": error.sentence(request_id),
        "param": None,
    }


def openai_error_status(error: GatewayError) -> int:
    """The HTTP status of a failure for Responses and Chat clients."""
    return error.status


def openai_error_body(error: GatewayError, request_id: str) -> bytes:
    """The HTTP body of a failure for Responses and Chat clients."""
    fields = openai_error(error, request_id)
    return orjson.dumps({"error": {**fields, "param": error.param, **error.facts}})
