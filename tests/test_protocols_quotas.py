"""A quota as headers and as an event: either says what the other does."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.protocols.responses.quotas import (
    MAX_LIMITS,
    quota_documents,
    quota_headers,
    says_quotas,
)

USED = "x-codex-primary-used-percent"
CREDITS = {
    "x-codex-credits-has-credits": "true",
    "x-codex-credits-unlimited": "false",
    "x-codex-credits-balance": "12.50",
}


def headers(name: str, window: str, *values: str) -> dict[str, str]:
    parts = ("used-percent", "window-minutes", "reset-at")
    return {f"x-{name}-{window}-{p}": v for p, v in zip(parts, values)}


FULL = {
    **headers("codex", "primary", "42.5", "300", "1704069000"),
    **headers("codex", "secondary", "7.0", "10080"),
    **headers("codex-other", "primary", "80.0", "60", "1704069000"),
    **headers("codex-secondary", "primary", "1.0"),
    **CREDITS,
}


def test_headers_become_one_event_for_each_limit() -> None:
    main, other, last = quota_documents({**FULL, "x-codex-turn-state": "s"})

    assert {
        "type": "codex.rate_limits",
        "rate_limits": {
            "primary": {
                "used_percent": 42.5,
                "window_minutes": 300,
                "reset_at": 1704069000,
            },
            "secondary": {
                "used_percent": 7.0,
                "window_minutes": 10080,
                "reset_at": None,
            },
        },
        "credits": {"has_credits": True, "unlimited": False, "balance": "12.50"},
    } == main
    assert "codex_other" == other["metered_limit_name"]
    assert ("codex_secondary", None) == (last["metered_limit_name"], last["credits"])
    assert says_quotas(orjson.dumps(main)) and not says_quotas(b'{"type":"x"}')


def test_the_events_become_the_same_headers() -> None:
    said: dict[str, str] = {}
    for document in quota_documents(FULL):
        said |= quota_headers(orjson.dumps(document))

    assert FULL == said


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"x-codex-turn-state": "s", "openai-model": "m"},
        headers("codex", "primary", "many", "300"),
        headers("codex", "primary", "nan", "300"),
        headers("codex", "primary", "0", "0"),
        headers("ratelimit", "primary", "5", "1"),
        {"x-codex-credits-has-credits": "perhaps", "x-codex-credits-unlimited": "0"},
        {"x-codex-credits-has-credits": "true"},
    ],
)
def test_headers_that_say_nothing_of_a_quota(given: dict[str, str]) -> None:
    assert [] == quota_documents(given)


def test_a_number_that_is_none_is_left_out() -> None:
    (document,) = quota_documents(headers("codex", "primary", "5", "x", "-1"))
    window = document["rate_limits"]["primary"]

    assert (5.0, None, None) == tuple(window.values())


def test_limits_are_bounded() -> None:
    given = {f"x-codex-{n}-primary-used-percent": "5" for n in range(1000)}
    assert MAX_LIMITS == len(quota_documents(given))


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"[]",
        b'{"rate_limits":[]}',
        b'{"rate_limits":{"primary":5,"secondary":{"used_percent":"5"}}}',
        b'{"rate_limits":{"primary":{"used_percent":true}},"credits":5}',
        b'{"rate_limits":{"primary":{"used_percent":5}},"limit_name":"x\\r\\ny"}',
        b'{"rate_limits":{"primary":{"used_percent":5}},"limit_name":"authorization"}',
        b'{"credits":{"has_credits":1,"unlimited":true}}',
    ],
)
def test_an_event_that_says_nothing(message: bytes) -> None:
    assert {} == quota_headers(message)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(
            "rate_limits primary secondary used_percent window_minutes reset_at "
            "credits has_credits unlimited balance metered_limit_name".split()
        ),
        inner,
    ),
)


@given(JSON)
def test_whatever_an_event_holds_is_a_header_or_nothing(value: Any) -> None:
    try:
        message = orjson.dumps(value)
    except orjson.JSONEncodeError:
        return  # an integer that JSON does not have here
    for name, text in quota_headers(message).items():
        assert name.startswith("x-codex") and text.isascii() and text.isprintable()


@given(st.dictionaries(st.sampled_from([*FULL, USED.upper()]), st.text()))
def test_whatever_a_header_holds_is_an_event_or_nothing(given: dict[str, str]) -> None:
    for document in quota_documents(given):
        orjson.dumps(document)
