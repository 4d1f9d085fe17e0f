"""
The gateway's own failure frames, where an endpoint cannot bring them about.

The rest of the endings is tested through the endpoints.
"""

from __future__ import annotations

import pytest

from gateway.errors import CODES, GatewayError, UpstreamError
from gateway.protocols import PROTOCOLS
from gateway.protocols.stream_facts import StreamFacts
from tests.kit import answers
from tests.kit.asking import read_event

UUID = "fd277bc5-ff7e-45d1-8aa9-f54e1df318f1"


def test_response_failed_omits_an_unknown_model() -> None:
    """Through the endpoint a model is always known: a body without one is refused."""
    error = GatewayError("queue_timeout")

    frame = PROTOCOLS["responses"].failure_frame(error, UUID, StreamFacts(), "")

    assert "model" not in read_event(frame).json["response"]


NASTY = 'a "quote", a \\backslash\\, a\nnewline,\r\n a\ttab, \x00, \u2028 and 日本語 🙂'


@pytest.mark.parametrize("protocol", answers.PROTOCOLS)
def test_the_message_comes_back_unchanged(protocol: str) -> None:
    """Quotes, backslashes, newlines and tabs neither break the frame nor change."""
    error = UpstreamError("upstream_failed", NASTY)

    frame = PROTOCOLS[protocol].failure_frame(error, UUID, StreamFacts(), NASTY)

    data = read_event(frame).json
    assert f"{NASTY} (request id: {UUID})" == data["error"]["message"]
    if protocol == "responses":
        assert NASTY == data["response"]["model"]


CODE_TABLE = [
    ("rate_limit_error", "rate_limit_exceeded"),
    ("invalid_request_error", "invalid_request"),
    ("permission_error", "permission_denied"),
    ("authentication_error", "authentication_failed"),
    ("upstream_error", "upstream_error"),
    ("server_error", "server_error"),
    ("api_error", "server_error"),
    ("", "server_error"),
    ("something_else", "something_else"),
]


@pytest.mark.parametrize("kind, code", CODE_TABLE)
def test_the_code_table(kind: str, code: str) -> None:
    error = GatewayError("internal_error")
    error.type = kind

    frame = PROTOCOLS["responses"].failure_frame(error, UUID, StreamFacts(), "m")

    assert code == read_event(frame).json["response"]["error"]["code"]


def test_every_code_has_a_known_type() -> None:
    kinds = {kind for kind, _ in CODE_TABLE}

    assert {fault.type for fault in CODES.values()} <= kinds
