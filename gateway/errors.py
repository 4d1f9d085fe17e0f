"""
What can go wrong, whose fault it is, and what a client reads.

Rule 1: ``code`` is stable snake_case; it is logged, stored and counted.
Rule 2: a client reads the fixed sentence of its code (``CODES``), or a message that
        the raiser built from facts of the client's own request. ``detail`` is for
        the log alone: addresses, exception texts, an upstream's words.
Rule 3: only an ``UpstreamError`` is worth another attempt.

    GatewayError            origin="gateway"
    ├── ClientError         origin="client"
    ├── Overloaded          origin="gateway"   carries when to come back
    └── UpstreamError       origin="upstream"
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple


class Fault(NamedTuple):
    """The face of an error code: HTTP status, ``error.type``, sentence."""

    status: int
    type: str
    sentence: str


CODES: dict[str, Fault] = {
    # the client's own
    "missing_key": Fault(
        401, "authentication_error", "No API key: send it as a bearer token"
    ),
    "unknown_key": Fault(401, "authentication_error", "This API key is not known"),
    "expired_key": Fault(401, "authentication_error", "This API key has expired"),
    "user_removed": Fault(
        401, "authentication_error", "The user of this API key has been removed"
    ),
    "invalid_request": Fault(400, "invalid_request_error", "The request is not valid"),
    "unsupported_parameter": Fault(
        400, "invalid_request_error", "A parameter is not supported"
    ),
    "previous_response_not_found": Fault(
        400, "invalid_request_error", "The previous response was not found"
    ),
    "not_found": Fault(404, "invalid_request_error", "There is nothing at this path"),
    "method_not_allowed": Fault(
        405, "invalid_request_error", "This path does not take that method"
    ),
    "body_too_large": Fault(
        413, "invalid_request_error", "The request body is too large"
    ),
    "request_timeout": Fault(
        408, "invalid_request_error", "The request did not arrive in time"
    ),
    "head_too_large": Fault(
        431, "invalid_request_error", "The request head is too large"
    ),
    "unsupported_encoding": Fault(
        415, "invalid_request_error", "The content encoding is not supported"
    ),
    "model_not_found": Fault(
        404, "invalid_request_error", "No account serves this model"
    ),
    "upgrade_required": Fault(
        426,
        "invalid_request_error",
        "This path takes POST, or GET with an upgrade to a websocket",
    ),
    "too_many_websockets": Fault(
        429, "rate_limit_error", "Too many websockets of this user are open"
    ),
    "websocket_connection_limit_reached": Fault(
        400,
        "invalid_request_error",
        "This websocket has reached its age limit. Open a new one to continue",
    ),
    "websocket_stream_limit_reached": Fault(
        400, "invalid_request_error", "This websocket has as many streams as it may"
    ),
    "invalid_stream_id": Fault(
        400,
        "invalid_request_error",
        "'stream_id' must be 1 to 256 characters of A-Z a-z 0-9 _ . -",
    ),
    "interrupted": Fault(
        499, "invalid_request_error", "The client interrupted the answer"
    ),
    "client_gone": Fault(499, "invalid_request_error", "The client went away"),
    # the gateway's own
    "queue_full": Fault(429, "rate_limit_error", "Concurrency limit exceeded for user"),
    "queue_timeout": Fault(
        429, "rate_limit_error", "Concurrency limit exceeded for user"
    ),
    "cooling_down": Fault(
        429, "rate_limit_error", "Every account for this model is cooling down"
    ),
    "budget_exceeded": Fault(429, "rate_limit_error", "The budget is used up"),
    "draining": Fault(503, "server_error", "The gateway is restarting"),
    "gateway_shutdown": Fault(
        503, "server_error", "The gateway stopped before the answer was complete"
    ),
    "gateway_overloaded": Fault(
        503, "server_error", "The gateway has no connection left at the moment"
    ),
    "ended_by_operator": Fault(
        503, "server_error", "The operator of the gateway ended this request"
    ),
    "accounts_paused": Fault(
        503, "server_error", "The operator has paused every account for this model"
    ),
    "ledger_unavailable": Fault(
        503, "server_error", "The gateway cannot keep its records at the moment"
    ),
    "engine_unavailable": Fault(
        503, "server_error", "The gateway cannot reach what its processes share"
    ),
    "internal_error": Fault(500, "server_error", "The gateway failed"),
    # an upstream's
    "upstream_connect": Fault(
        502, "upstream_error", "The upstream could not be reached"
    ),
    "upstream_reset": Fault(502, "upstream_error", "The upstream broke the connection"),
    "upstream_timeout": Fault(502, "upstream_error", "The upstream did not answer"),
    "upstream_idle": Fault(502, "upstream_error", "The upstream fell silent"),
    "upstream_cut": Fault(
        502,
        "upstream_error",
        "The upstream closed the stream before it finished",
    ),
    "upstream_empty": Fault(
        502, "upstream_error", "The upstream closed the stream before it began"
    ),
    "upstream_malformed": Fault(
        502, "upstream_error", "The upstream sent something else than an answer"
    ),
    "upstream_too_large": Fault(
        502, "upstream_error", "The upstream sent more than can be held"
    ),
    "upstream_status": Fault(502, "upstream_error", "The upstream failed"),
    "upstream_failed": Fault(502, "upstream_error", "The upstream gave up"),
    "upstream_refused": Fault(
        502, "upstream_error", "The upstream refused the account"
    ),
    "upstream_quota": Fault(
        502, "upstream_error", "The upstream account has no quota left"
    ),
    "upstream_overloaded": Fault(503, "upstream_error", "The upstream is overloaded"),
    "upstream_rate_limited": Fault(
        429, "rate_limit_error", "The upstream limits the rate"
    ),
}
"""Every code that the gateway raises."""

UPSTREAM_CODES = frozenset(code for code in CODES if code.startswith("upstream_"))
"""What counts as a failure of the account that was asked."""

FINAL_CODES = frozenset({"ended_by_operator"})
"""After these a client should not ask again by itself."""

RETRY_AFTER_MAX_S = 60


def whole_retry_after(seconds: float) -> int:
    """*seconds* as clients obey it: whole, at least 1, at most 60."""
    if not seconds > 1:  # also nan
        return 1
    return min(RETRY_AFTER_MAX_S, math.ceil(seconds))


class GatewayError(Exception):
    """
    A failure with a code.

    Args:
        code: a key of ``CODES``.
        message: what the client reads instead of the code's sentence, without a
            closing full stop.
        detail: what the log reads besides.
        retry_after_s: seconds until another try is promising; None if unknown.
        param: the field of the request that is at fault.
        facts: further members of ``error`` in an HTTP body.
    """

    origin = "gateway"
    client_code = ""  # the code that clients branch on, where it is not ours
    final = False  # trying again is pointless
    quote = ""  # the upstream's own words, redacted, where a client may read them

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        detail: str = "",
        retry_after_s: float | None = None,
        param: str | None = None,
        facts: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(code)
        fault = CODES[code]
        self.code = code
        self.final = self.final or code in FINAL_CODES
        self.status = fault.status
        self.type = fault.type
        self.message = message or fault.sentence
        self.detail = detail
        self.param = param
        self.facts = dict(facts or {})
        self.retry_after_s = (
            None if retry_after_s is None else whole_retry_after(retry_after_s)
        )

    def sentence(self, request_id: str) -> str:
        """The message as the client reads it, with when to come back and the id."""
        wait = self.retry_after_s
        text = self.message
        if wait is not None:
            text = f"{text}, please try again in {wait}s"
        if self.quote:
            text = f'{text}: "{self.quote}"'
        return f"{text} (request id: {request_id})"


class ClientError(GatewayError):
    """The client's own mistake, or its leaving."""

    origin = "client"


class PassedOn(ClientError):
    """
    The client's own mistake, in the upstream's words.

    Args:
        status: the upstream's HTTP status, 200 when it came inside a stream.
        kind: the upstream's ``error.type``.
        client_code: the upstream's ``error.code``, which clients branch on.
        raw: the upstream's own body, for a client of the same protocol.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        kind: str = "",
        client_code: str = "",
        param: str | None = None,
        raw: bytes = b"",
    ) -> None:
        super().__init__("invalid_request", message, param=param)
        if 400 <= status < 500:
            self.status = status
        self.type = kind or self.type
        self.client_code = client_code
        self.raw = raw


class Overloaded(GatewayError):
    """The gateway has no room at the moment."""


class UpstreamError(GatewayError):
    """
    An account's failure.

    Args:
        upstream_status: the HTTP status that the upstream gave, 0 if none.
    """

    origin = "upstream"
    words = ""  # the upstream's, as they came: nothing for a client

    def __init__(
        self,
        code: str,
        message: str = "",
        *,
        detail: str = "",
        retry_after_s: float | None = None,
        upstream_status: int = 0,
    ) -> None:
        super().__init__(code, message, detail=detail, retry_after_s=retry_after_s)
        self.upstream_status = upstream_status
