"""
The embedded trial account: an upstream inside the gateway, no key, no network.

It speaks all three protocols as a real upstream does, stream and non-stream. So a new
user gets an answer, and a client can be tried, before there is any key. It has no
clock: every piece of a stream says how long to wait before it.

    protocol, path, body ─read─▶ TrialRequest ─answer_to─▶ TrialAnswer ─writer─▶ bytes
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import orjson

from gateway.protocols import PROTOCOLS
from gateway.trial import chat, messages, responses
from gateway.trial.model import TrialRefusal, TrialSide, answer_to

SLOW_EVENT_S = 0.05
"""Before every event of a ``trial-slow`` stream: 20 events a second."""

_SIDES: dict[str, TrialSide] = {
    responses.name: responses,
    chat.name: chat,
    messages.name: messages,
}
_JSON = "application/json"
_STREAM = "text/event-stream; charset=utf-8"
_NOT_IDENT = re.compile(r"[^A-Za-z0-9]")


class TrialResponse(NamedTuple):
    """
    An HTTP answer of the trial account.

    Attributes:
        body: the whole body of a non-stream answer.
        delay_s: seconds to wait before *body* is sent.
        pieces: of a stream: seconds to wait, then the bytes of one event.
    """

    status: int
    headers: dict[str, str]
    body: bytes = b""
    delay_s: float = 0.0
    pieces: Iterator[tuple[float, bytes]] | None = None


def answer(
    protocol: str,
    path: str,
    body: dict[str, Any],
    headers: Mapping[str, str],
    *,
    now_unix: int,
    ident: str,
) -> TrialResponse:
    """
    The trial account's answer to one request.

    Args:
        protocol: a key of ``PROTOCOLS``.
        path: with or without ``/v1`` and a query, e.g. ``/messages/count_tokens``.
        headers: of the request, as a real upstream gets them; not read.
        now_unix: Unix seconds.
        ident: the stem of its ids; different for every request.
    """
    ident = _NOT_IDENT.sub("", ident)
    request_id = f"req_{ident}"
    endpoint = path.partition("?")[0].removeprefix("/v1").rstrip("/")
    try:
        return _answer(protocol, endpoint, body, now_unix, ident)
    except TrialRefusal as refused:
        error = _SIDES[protocol].error_body(refused, request_id)
        return TrialResponse(
            refused.status, _headers(_JSON, ident), orjson.dumps(error)
        )


def _answer(
    protocol: str, endpoint: str, body: dict[str, Any], now_unix: int, ident: str
) -> TrialResponse:
    if endpoint == PROTOCOLS[protocol].path:
        return _generate(protocol, body, now_unix, ident)
    if endpoint == "/messages/count_tokens":
        words = messages.read(body, counting=True).input_words
        return _whole({"input_tokens": words}, ident)
    if endpoint == "/responses/input_tokens":
        words = responses.read(body).input_words
        counted = {"object": "response.input_tokens", "input_tokens": words}
        return _whole(counted, ident)
    if endpoint == "/responses/compact":
        writer = responses.writer(body, responses.read(body), now_unix, ident)
        return _whole(writer.compacted(), ident)
    message = f"The trial account has nothing at {endpoint or '/'}"
    raise TrialRefusal(message, "", "not_found", 404)


def _generate(
    protocol: str, body: dict[str, Any], now_unix: int, ident: str
) -> TrialResponse:
    side = _SIDES[protocol]
    request = side.read(body)
    writer = side.writer(body, request, now_unix, ident)
    answer = answer_to(request)
    delay_s = SLOW_EVENT_S if request.model.startswith("trial-slow") else 0.0
    if not request.stream:
        took_s = delay_s * (len(answer.pieces) + 1)
        return _whole(writer.body(answer), ident, took_s)
    pieces = ((delay_s, event) for event in writer.stream(answer))
    return TrialResponse(200, _headers(_STREAM, ident), pieces=pieces)


def _whole(body: dict[str, Any], ident: str, delay_s: float = 0.0) -> TrialResponse:
    return TrialResponse(200, _headers(_JSON, ident), orjson.dumps(body), delay_s)


def _headers(content_type: str, ident: str) -> dict[str, str]:
    request_id = f"req_{ident}"
    return {
        "Content-Type": content_type,
        "Cache-Control": "no-cache",
        "x-request-id": request_id,
        "request-id": request_id,
    }
