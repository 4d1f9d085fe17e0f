"""When an account returns, as its upstream tells it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.accounts.reset import MAX_RESET_S, sentence_s, upstream_return_s

NOW = 1_800_000_000.0  # 2027-01-15T08:00:00Z
UNIFIED = "anthropic-ratelimit-unified"


def returns_in(
    headers: dict[str, str] | None = None,
    fields: dict[str, Any] | None = None,
    message: str = "",
    limited: bool = True,
) -> float | None:
    return upstream_return_s(headers or {}, fields or {}, message, NOW, limited=limited)


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        pytest.param({"Retry-After": "7"}, 7.0, id="seconds"),
        pytest.param({"retry-after": " 1.5 "}, 1.5, id="fraction"),
        pytest.param(
            {"retry-after": "Fri, 15 Jan 2027 08:00:30 GMT"}, 30.0, id="http-date"
        ),
        pytest.param({"retry-after-ms": "250"}, 0.25, id="milliseconds"),
        pytest.param(
            {"retry-after-ms": "250", "retry-after": "1"}, 0.25, id="finer-one-first"
        ),
        pytest.param(
            {"retry-after-ms": "soon", "retry-after": "2"}, 2.0, id="finer-is-nonsense"
        ),
        pytest.param(
            {
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-requests": "6m0s",
            },
            360.0,
            id="minutes-duration",
        ),
        pytest.param(
            {"x-ratelimit-remaining-tokens": "0", "x-ratelimit-reset-tokens": "12ms"},
            0.012,
            id="ms-duration",
        ),
        pytest.param(
            {"x-ratelimit-reset-requests": "1h30m", "x-ratelimit-reset-tokens": "2s"},
            5400.0,
            id="remaining-untold",
        ),
        pytest.param(
            {
                "x-ratelimit-remaining-requests": "99",
                "x-ratelimit-reset-requests": "8m",
                "x-ratelimit-remaining-tokens": "0",
                "x-ratelimit-reset-tokens": "1.5s",
            },
            1.5,
            id="only-what-is-used-up",
        ),
        pytest.param({"x-ratelimit-reset": f"{NOW + 9:.0f}"}, 9.0, id="epoch"),
        pytest.param({"x-ratelimit-reset": f"{NOW + 9:.0f}000"}, 9.0, id="epoch-ms"),
        pytest.param(
            {
                "x-codex-primary-used-percent": "100.0",
                "x-codex-primary-reset-at": f"{NOW + 600:.0f}",
                "x-codex-secondary-used-percent": "40",
                "x-codex-secondary-reset-at": f"{NOW + 86400:.0f}",
            },
            600.0,
            id="codex-5h-window",
        ),
        pytest.param(
            {
                "x-codex-primary-used-percent": "100",
                "x-codex-primary-reset-after-seconds": "600",
                "x-codex-secondary-used-percent": "100",
                "x-codex-secondary-reset-after-seconds": "86400",
            },
            86400.0,
            id="codex-both-windows",
        ),
        pytest.param(
            {
                "x-codex-primary-used-percent": "97",
                "x-codex-primary-reset-at": f"{NOW + 600:.0f}",
            },
            None,
            id="codex-burst-is-no-used-up-window",
        ),
        pytest.param(
            {
                "x-codex-primary-used-percent": "97",
                "x-codex-primary-reset-at": f"{NOW + 600:.0f}",
                "retry-after": "2",
            },
            2.0,
            id="codex-burst-with-its-own-word",
        ),
        pytest.param(
            {
                f"{UNIFIED}-status": "rejected",
                f"{UNIFIED}-5h-status": "rejected",
                f"{UNIFIED}-5h-reset": f"{NOW + 900:.0f}",
                f"{UNIFIED}-7d-status": "allowed",
                f"{UNIFIED}-7d-reset": f"{NOW + 90000:.0f}",
                f"{UNIFIED}-overage-status": "rejected",
                f"{UNIFIED}-overage-reset": f"{NOW + 2000000:.0f}",
            },
            900.0,
            id="unified-5h",
        ),
        pytest.param(
            {
                f"{UNIFIED}-5h-utilization": "1.02",
                f"{UNIFIED}-5h-reset": f"{NOW + 900:.0f}",
                f"{UNIFIED}-7d-utilization": "1",
                f"{UNIFIED}-7d-reset": f"{NOW + 90000:.0f}",
            },
            90000.0,
            id="unified-both-used-up",
        ),
        pytest.param(
            {f"{UNIFIED}-status": "rejected", f"{UNIFIED}-reset": f"{NOW + 60:.0f}"},
            60.0,
            id="unified-as-a-whole",
        ),
        pytest.param(
            {f"{UNIFIED}-status": "allowed", f"{UNIFIED}-reset": f"{NOW + 60:.0f}"},
            None,
            id="unified-allowed",
        ),
        pytest.param(
            {
                "anthropic-ratelimit-requests-remaining": "0",
                "anthropic-ratelimit-requests-reset": "2027-01-15T08:00:20Z",
            },
            20.0,
            id="rfc3339",
        ),
        pytest.param(
            {
                "anthropic-ratelimit-requests-remaining": "3",
                "anthropic-ratelimit-requests-reset": "2027-01-15T08:00:20Z",
                "anthropic-ratelimit-input-tokens-reset": "2027-01-15T09:00:20Z",
            },
            None,
            id="rfc3339-with-some-left",
        ),
        pytest.param({}, None, id="nothing"),
    ],
)
def test_headers_of_a_limit(headers: dict[str, str], expected: float | None) -> None:
    assert expected == pytest.approx(returns_in(headers))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"resets_at": NOW + 777}, 777.0, id="usage-limit-moment"),
        pytest.param({"resets_in_seconds": 55}, 55.0, id="usage-limit-seconds"),
        pytest.param({"resets_at": NOW - 5, "resets_in_seconds": 5}, 5.0, id="past"),
        pytest.param({"headers": {"Retry-After": "2"}}, 2.0, id="headers-inside"),
        pytest.param({"headers": {"retry-after": 3}}, 3.0, id="headers-inside-number"),
        pytest.param({"retry_after": 4}, 4.0, id="retry-after-inside"),
        pytest.param({"details": [{"retryDelay": "30s"}]}, 30.0, id="retry-delay"),
        pytest.param({"resets_at": True, "retry_after": []}, None, id="wrong-types"),
        pytest.param({"details": "text", "headers": 5}, None, id="wrong-containers"),
    ],
)
def test_fields_of_the_error(fields: dict[str, Any], expected: float | None) -> None:
    assert expected == pytest.approx(returns_in(fields=fields))


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("Please try again in 1.2s.", 1.2),
        ("Please try again in 20s. Visit https://example.com", 20.0),
        ("try again in 500ms", 0.5),
        ("please try again in 6m0s.", 360.0),
        ("Please try again in 1h2m3.5s", 3723.5),
        ("Try again in 2 minutes.", 120.0),
        ("retry after 30 seconds", 30.0),
        ("try again in 3 hours", 10800.0),
        ("try again in 7", 7.0),
        ("try again in a moment", None),
        ("try again in 3 blue moons", None),
        ("", None),
    ],
)
def test_the_sentence(message: str, expected: float | None) -> None:
    assert expected == pytest.approx(sentence_s(message))
    assert expected == pytest.approx(returns_in(message=message))


@pytest.mark.parametrize(
    "value",
    [
        "-5",
        "0",
        "soon",
        "",
        "nan",
        "inf",
        "1e400",
        "9" * 400,
        "Fri, 31 Dec 9999 23:59:59 GMT",
        "Thu, 01 Jan 1970 00:00:00 GMT",
        "Fri, 99 Foo 2027 25:61:61 GMT",
        str(int(MAX_RESET_S) + 1),
    ],
)
@pytest.mark.parametrize(
    "name",
    ["retry-after", "retry-after-ms", "x-ratelimit-reset", f"{UNIFIED}-reset"],
)
def test_nonsense_is_no_reset_time(name: str, value: str) -> None:
    if name == "retry-after-ms" and value == str(int(MAX_RESET_S) + 1):
        value += "000"
    assert returns_in({name: value, f"{UNIFIED}-status": "rejected"}) is None


def test_nonsense_does_not_hide_the_next_word() -> None:
    headers = {"retry-after": "-1", "x-ratelimit-reset-requests": "3s"}
    assert 3.0 == returns_in(headers, {"resets_at": 253_402_300_799}, "")


def test_a_window_that_is_used_up_outlasts_retry_after() -> None:
    assert 3600.0 == returns_in({"retry-after": "5"}, {"resets_at": NOW + 3600})


def test_what_is_no_limit_only_means_its_retry_after() -> None:
    headers = {"x-ratelimit-reset-requests": "6m0s", "retry-after": "3"}
    assert 3.0 == returns_in(headers, limited=False)
    del headers["retry-after"]
    assert returns_in(headers, limited=False) is None


NAMES = [
    "retry-after",
    "retry-after-ms",
    "x-ratelimit-reset-requests",
    "x-codex-primary-used-percent",
    "x-codex-primary-reset-at",
    f"{UNIFIED}-status",
    f"{UNIFIED}-5h-status",
    f"{UNIFIED}-5h-reset",
    "anthropic-ratelimit-requests-reset",
]


@given(
    st.dictionaries(st.sampled_from(NAMES), st.text(max_size=12), max_size=5),
    st.text(max_size=30),
)
def test_whatever_comes_the_wait_is_sane(headers: dict[str, str], text: str) -> None:
    wait = returns_in(headers, {"resets_at": text, "retry_after": text}, text)
    assert wait is None or 0 < wait <= MAX_RESET_S
