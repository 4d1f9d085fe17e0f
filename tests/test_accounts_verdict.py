"""
What each behaviour of a first account means: whose fault, and what next.

A row's name is the behaviour; ``expected`` is scope, code, reason, and the flags:
s switch, = same account again, p pass on, r repeat without reasoning.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.accounts.verdict import (
    STATUSES,
    Verdict,
    judge_event,
    judge_status,
    judge_transport,
    row_of,
)
from gateway.errors import PassedOn, UpstreamError

NOW = 1_800_000_000.0
MODEL = "gpt-x"
Expected = tuple[str, str, str, str]


def flags(verdict: Verdict) -> str:
    shown = (
        ("s", verdict.switch),
        ("=", verdict.retry_same),
        ("p", verdict.pass_on),
        ("r", verdict.drop_reasoning),
    )
    return "".join(sign for sign, is_so in shown if is_so)


def summary(verdict: Verdict) -> Expected:
    code = verdict.error.code
    return (verdict.scope, code, verdict.reason, flags(verdict))


def body_of(protocol: str, code: str, kind: str, message: str) -> bytes:
    """An error body as *protocol*'s vendor writes it."""
    if protocol == "messages":
        error: dict[str, Any] = {"type": kind or code, "message": message}
        if code and kind:
            error["details"] = {"error_code": code}
        return json.dumps({"type": "error", "error": error}).encode()
    error = {"code": code or None, "type": kind, "message": message, "param": None}
    return json.dumps({"error": error}).encode()


CLIENT = ("client", "invalid_request", "", "p")
BROKEN = ("account", "upstream_status", "failed", "s")
REFUSED = ("account", "upstream_refused", "refused", "s")
LIMITED = ("account", "upstream_rate_limited", "rate_limited", "s=")
SPENT = ("account", "upstream_rate_limited", "quota", "s")
NO_MODEL = ("model", "invalid_request", "no_model", "sp")
FOREIGN = ("none", "invalid_request", "", "pr")
INVALID = "invalid_request_error"

HTTP: list[tuple[str, int, str, str, str, Expected]] = [
    ("bad-request", 400, "", INVALID, "bad", CLIENT),
    ("too-long", 400, "context_length_exceeded", INVALID, "too long", CLIENT),
    ("invalid-prompt", 400, "invalid_prompt", INVALID, "no", CLIENT),
    ("lost-response", 400, "previous_response_not_found", INVALID, "gone", CLIENT),
    ("quotes-a-text", 400, "", INVALID, "Invalid: 'Overloaded'", CLIENT),
    (
        "credit-as-400",
        400,
        "",
        INVALID,
        "Your credit balance is too low to access the API",
        ("account", "upstream_quota", "quota", "s"),
    ),
    (
        "disabled-as-400",
        400,
        "",
        INVALID,
        "This organization has been disabled.",
        REFUSED,
    ),
    (
        "hiccup-as-400",
        400,
        "",
        INVALID,
        "An error occurred while processing your request. You can retry",
        ("account", "upstream_failed", "failed", "s"),
    ),
    ("foreign-reasoning", 400, "invalid_encrypted_content", INVALID, "x", FOREIGN),
    (
        "foreign-signature",
        400,
        "",
        INVALID,
        "messages.1.content.0: Invalid `signature` in `thinking` block",
        FOREIGN,
    ),
    ("no-model-as-400", 400, "model_not_found", INVALID, "no such", NO_MODEL),
    ("bad-key", 401, "invalid_api_key", INVALID, "Incorrect API key", REFUSED),
    ("authentication", 401, "", "authentication_error", "invalid x-api-key", REFUSED),
    (
        "payment",
        402,
        "",
        "billing_error",
        "pay",
        ("account", "upstream_quota", "quota", "s"),
    ),
    ("permission", 403, "", "permission_error", "no", REFUSED),
    (
        "region",
        403,
        "unsupported_country_region_territory",
        "request_forbidden",
        "no",
        REFUSED,
    ),
    ("model-forbidden", 403, "model_not_found", INVALID, "no access", NO_MODEL),
    ("policy-as-403", 403, "content_policy_violation", INVALID, "no", CLIENT),
    ("unknown-model", 404, "model_not_found", INVALID, "no such", NO_MODEL),
    ("unknown-thing", 404, "", "not_found_error", "no such item", CLIENT),
    ("wrong-method", 405, "", INVALID, "no", BROKEN),
    ("timeout", 408, "", "", "slow", ("network", "upstream_timeout", "network", "s")),
    ("conflict", 409, "", "", "busy", ("none", "invalid_request", "", "sp")),
    ("gone", 410, "", INVALID, "gone", CLIENT),
    ("too-large", 413, "", "request_too_large", "big", CLIENT),
    ("media-type", 415, "", INVALID, "no", CLIENT),
    ("misdirected", 421, "", "", "", ("network", "upstream_status", "network", "s")),
    ("unprocessable", 422, "", INVALID, "bad schema", CLIENT),
    ("too-early", 425, "", "", "", ("network", "upstream_status", "network", "s")),
    ("teapot", 418, "", "", "short", CLIENT),
    ("rate", 429, "rate_limit_exceeded", "rate_limit_error", "slow", LIMITED),
    ("rate-without-code", 429, "", "", "", LIMITED),
    (
        "rate-of-this-model",
        429,
        "",
        "rate_limit_error",
        f"Rate limit reached for {MODEL} in org",
        ("model", "upstream_rate_limited", "rate_limited", "s="),
    ),
    ("quota", 429, "insufficient_quota", "quota", "spent", SPENT),
    ("usage-limit", 429, "usage_limit_reached", "", "limit reached", SPENT),
    (
        "capacity-as-429",
        429,
        "server_is_overloaded",
        "",
        "busy",
        ("model", "upstream_rate_limited", "overloaded", "s"),
    ),
    ("region-451", 451, "", "", "", ("account", "upstream_refused", "failed", "s")),
    ("says-we-left", 499, "", "", "", ("network", "upstream_reset", "network", "s")),
    ("server-error", 500, "", "server_error", "oops", BROKEN),
    ("api-error", 500, "", "api_error", "oops", BROKEN),
    ("client-word-in-500", 500, "context_length_exceeded", INVALID, "x", CLIENT),
    ("weak-word-in-500", 500, "", INVALID, "x", BROKEN),
    ("bad-gateway", 502, "", "", "", BROKEN),
    (
        "overloaded-503",
        503,
        "server_is_overloaded",
        "",
        "busy",
        ("model", "upstream_overloaded", "overloaded", "s"),
    ),
    (
        "slow-down-503",
        503,
        "slow_down",
        "",
        "slow",
        ("account", "upstream_status", "rate_limited", "s="),
    ),
    ("gateway-timeout", 504, "", "timeout_error", "slow", BROKEN),
    ("edge-522", 522, "", "", "", BROKEN),
    (
        "overloaded-529",
        529,
        "",
        "overloaded_error",
        "Overloaded",
        ("account", "upstream_overloaded", "overloaded", "s"),
    ),
    ("redirect", 302, "", "", "", BROKEN),
]


@pytest.mark.parametrize("protocol", ["responses", "chat", "messages"])
@pytest.mark.parametrize(
    ("status", "code", "kind", "message", "expected"),
    [pytest.param(*row[1:], id=row[0]) for row in HTTP],
)
def test_http_failures(
    protocol: str, status: int, code: str, kind: str, message: str, expected: Expected
) -> None:
    body = body_of(protocol, code, kind, message)
    assert expected == summary(judge_status(status, {}, body, NOW, MODEL))


WEB_PAGE = b"<!DOCTYPE html><html><body>Forbidden</body></html>"


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        pytest.param(404, WEB_PAGE, BROKEN, id="page-404"),
        pytest.param(400, WEB_PAGE, BROKEN, id="page-400"),
        pytest.param(
            403,
            WEB_PAGE,
            ("account", "upstream_refused", "failed", "s"),
            id="guard-before-the-api",
        ),
        pytest.param(502, WEB_PAGE, BROKEN, id="page-502"),
        pytest.param(400, b"plain words", CLIENT, id="text-400"),
        pytest.param(400, b"", CLIENT, id="empty-400"),
        pytest.param(401, b"", REFUSED, id="empty-401"),
        pytest.param(429, b"", LIMITED, id="empty-429"),
        pytest.param(503, b"\xff\xfe{", BROKEN, id="garbage-503"),
        pytest.param(
            400, b'{"error":{"code":502,"message":"x"}}', BROKEN, id="502-inside-400"
        ),
    ],
)
def test_bodies_that_are_no_api_error(
    status: int, body: bytes, expected: Expected
) -> None:
    assert expected == summary(judge_status(status, {}, body, NOW, MODEL))


def responses_forms(code: str, kind: str, message: str) -> list[dict[str, Any]]:
    error = {"code": code or None, "type": kind, "message": message}
    return [
        {"type": "response.failed", "response": {"id": "resp_1", "error": error}},
        {"type": "error", "error": error, "sequence_number": 3},
        {"type": "error", "code": code or kind, "message": message, "param": None},
        {"id": "resp_1", "object": "response", "status": "failed", "error": error},
    ]


def chat_forms(code: str, kind: str, message: str) -> list[dict[str, Any]]:
    error = {"code": code or None, "type": kind, "message": message}
    return [
        {"error": error},
        {"id": "c", "choices": [], "error": error},
        {"choices": [{"index": 0, "error": error, "finish_reason": "error"}]},
    ]


def messages_forms(code: str, kind: str, message: str) -> list[dict[str, Any]]:
    error: dict[str, Any] = {"type": kind or code, "message": message}
    if code and kind:
        error["details"] = {"error_code": code}
    return [{"type": "error", "error": error}, {"error": error}]


OVERLOADED = ("account", "upstream_overloaded", "overloaded", "s")
BUSY_MODEL = ("model", "upstream_overloaded", "overloaded", "s")
FAILED = ("account", "upstream_failed", "failed", "s")

IN_STREAM: list[tuple[str, str, str, str, Expected]] = [
    ("is-overloaded", "server_is_overloaded", "", "Try later", BUSY_MODEL),
    (
        "at-capacity-text",
        "",
        "server_error",
        "Selected model is at capacity. Please try a different model.",
        BUSY_MODEL,
    ),
    ("overloaded-type", "", "overloaded_error", "Overloaded", OVERLOADED),
    (
        "unavailable",
        "",
        "service_unavailable_error",
        "x",
        OVERLOADED,
    ),
    ("slow-down", "slow_down", "", "Slow down", LIMITED),
    ("rate", "rate_limit_exceeded", "", "Rate limit", LIMITED),
    ("rate-type", "", "rate_limit_error", "x", LIMITED),
    (
        "quota",
        "insufficient_quota",
        "",
        "x",
        ("account", "upstream_quota", "quota", "s"),
    ),
    (
        "usage-limit",
        "usage_limit_reached",
        "",
        "x",
        ("account", "upstream_quota", "quota", "s"),
    ),
    ("key", "invalid_api_key", "", "x", REFUSED),
    ("authentication", "", "authentication_error", "x", REFUSED),
    ("permission", "", "permission_error", "x", REFUSED),
    ("server-error", "server_error", "", "x", FAILED),
    ("api-error", "", "api_error", "x", FAILED),
    ("timeout", "", "timeout_error", "x", FAILED),
    ("unknown", "never_seen_before", "", "x", FAILED),
    ("wordless", "", "", "", FAILED),
    ("no-model", "model_not_found", "", "x", NO_MODEL),
    ("foreign", "invalid_encrypted_content", "", "x", FOREIGN),
    ("too-long", "context_length_exceeded", "", "x", CLIENT),
    ("prompt", "invalid_prompt", "", "x", CLIENT),
    ("policy", "content_policy_violation", "", "x", CLIENT),
    ("cyber", "cyber_policy", "", "x", CLIENT),
    ("image", "invalid_image_url", "", "x", CLIENT),
    ("invalid", "", INVALID, "x", CLIENT),
]
FORMS = {
    "responses": responses_forms,
    "chat": chat_forms,
    "messages": messages_forms,
}


@pytest.mark.parametrize("protocol", FORMS)
@pytest.mark.parametrize(
    ("code", "kind", "message", "expected"),
    [pytest.param(*row[1:], id=row[0]) for row in IN_STREAM],
)
def test_failures_inside_a_200(
    protocol: str, code: str, kind: str, message: str, expected: Expected
) -> None:
    for data in FORMS[protocol](code, kind, message):
        assert expected == summary(judge_event(data, NOW, MODEL)), data


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param(401, REFUSED, id="401"),
        pytest.param(429, LIMITED, id="429"),
        pytest.param(502, BROKEN, id="502"),
        pytest.param(
            529, ("account", "upstream_overloaded", "overloaded", "s"), id="529"
        ),
        pytest.param(400, CLIENT, id="400"),
    ],
)
def test_a_number_inside_a_200_counts_as_the_status(
    status: int, expected: Expected
) -> None:
    data = {"error": {"code": status, "message": "Provider returned error"}}
    assert expected == summary(judge_event(data, NOW, MODEL))


@pytest.mark.parametrize(
    ("data", "code"),
    [
        pytest.param(None, "upstream_malformed", id="no-json"),
        pytest.param({"ok": True}, "upstream_malformed", id="other-json"),
        pytest.param(
            {"error": {"code": "slow_down"}}, "upstream_rate_limited", id="error"
        ),
    ],
)
def test_a_200_that_is_no_stream(data: object, code: str) -> None:
    verdict = judge_event(data, NOW)
    assert (code, True) == (verdict.error.code, verdict.switch)


@pytest.mark.parametrize(
    ("code", "scope", "reason", "switch"),
    [
        ("upstream_connect", "network", "network", True),
        ("upstream_reset", "network", "network", True),
        ("upstream_timeout", "network", "network", True),
        ("upstream_idle", "network", "network", True),
        ("upstream_cut", "account", "failed", True),
        ("upstream_empty", "account", "failed", True),
        ("upstream_malformed", "account", "failed", True),
        ("upstream_too_large", "none", "", False),
    ],
)
def test_transport_failures(code: str, scope: str, reason: str, switch: bool) -> None:
    error = UpstreamError(code)
    verdict = judge_transport(error)
    assert (scope, reason, switch) == (verdict.scope, verdict.reason, verdict.switch)
    assert error is verdict.error


@pytest.mark.parametrize(
    ("status", "client_status", "kind"),
    [
        (401, 502, "upstream_error"),
        (403, 502, "upstream_error"),
        (429, 429, "rate_limit_error"),
        (529, 503, "upstream_error"),
        (500, 502, "upstream_error"),
        (502, 502, "upstream_error"),
        (503, 502, "upstream_error"),
        (504, 502, "upstream_error"),
    ],
)
def test_what_the_last_failure_becomes(
    status: int, client_status: int, kind: str
) -> None:
    error = judge_status(status, {}, b"{}", NOW).error
    assert (client_status, kind, status) == (
        error.status,
        error.type,
        getattr(error, "upstream_status", None),
    )


@pytest.mark.parametrize("status", [400, 404, 413, 422])
def test_a_clients_mistake_keeps_its_status_and_its_body(status: int) -> None:
    body = body_of("chat", "some_code", INVALID, "what was wrong")
    error = judge_status(status, {}, body, NOW).error
    assert isinstance(error, PassedOn)
    assert (status, body, "some_code", "what was wrong") == (
        error.status,
        error.raw,
        error.client_code,
        error.message,
    )


def test_a_body_that_is_no_json_is_not_passed_on() -> None:
    error = judge_status(404, {}, b"nginx says no", NOW).error
    assert isinstance(error, PassedOn)
    assert (404, b"", "The request is not valid") == (
        error.status,
        error.raw,
        error.message,
    )


def test_our_accounts_403_is_never_the_clients_even_when_it_is_to_blame() -> None:
    body = body_of("responses", "cyber_policy", INVALID, "no")
    assert 400 == judge_status(403, {}, body, NOW).error.status


def test_the_upstreams_words_reach_the_log_alone() -> None:
    body = body_of("chat", "", "server_error", "secret host 10.0.0.1")
    error = judge_status(500, {}, body, NOW).error
    assert "secret" not in error.message
    assert "10.0.0.1" in error.detail


def test_a_clients_words_reach_no_log() -> None:
    body = body_of("chat", "invalid_value", INVALID, "Invalid: 'my prompt'")
    assert "400 invalid_value" == judge_status(400, {}, body, NOW).error.detail


def test_the_upstreams_word_of_its_return_is_taken_over() -> None:
    verdict = judge_status(429, {"Retry-After": "7"}, b"{}", NOW)
    assert (7.0, 7, False) == (
        verdict.until_s,
        verdict.error.retry_after_s,
        verdict.retry_same,
    )


def test_clients_read_a_far_return_as_a_minute() -> None:
    body = b'{"error":{"type":"usage_limit_reached","resets_at":%d}}' % (NOW + 9000)
    verdict = judge_status(429, {}, body, NOW)
    assert (9000.0, 60) == (verdict.until_s, verdict.error.retry_after_s)


def test_a_return_named_inside_a_stream_counts() -> None:
    error = {"code": "rate_limit_exceeded", "message": "Please try again in 2.5s."}
    verdict = judge_event({"response": {"error": error}}, NOW)
    assert 2.5 == verdict.until_s


def test_statuses_of_the_client_are_not_in_the_table() -> None:
    """They are the rule of their hundred, so that an unknown 4xx is one, too."""
    assert not {400, 404, 413, 422} & STATUSES.keys()
    assert {"client"} == {row_of(status).scope for status in (400, 404, 413, 499 - 1)}
