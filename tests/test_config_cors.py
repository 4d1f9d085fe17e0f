"""Which pages may read answers, and which headers say so to a browser."""

from __future__ import annotations

import pytest

from gateway.config.cors import Origins, origin_mistake

PAGE = "https://app.example.com"


@pytest.mark.parametrize(
    "origin",
    [
        "https://app.example.com",
        "http://localhost:3000",
        "http://[::1]:8080",
        "chrome-extension://abcdef",
        "app://obsidian.md",
        "*",
    ],
)
def test_origins_are_taken_as_browsers_write_them(origin: str) -> None:
    assert "" == origin_mistake(origin)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "app.example.com",
        "https://app.example.com/",
        "https://app.example.com/path",
        "https://App.example.com",
        "https://*.example.com",
        "https://u@app.example.com",
        "https://a, https://b",
    ],
)
def test_what_no_browser_sends_is_a_mistake(origin: str) -> None:
    """The entry would never match, and give no hint why."""
    assert origin_mistake(origin)


def test_without_origins_no_header_is_sent() -> None:
    assert not Origins(())
    assert {} == Origins(()).answer(PAGE)
    assert not Origins(()).allows(PAGE)


def test_a_named_page_may_read_answers() -> None:
    origins = Origins((PAGE, "http://localhost:3000"))

    headers = origins.answer(PAGE)

    assert PAGE == headers["Access-Control-Allow-Origin"]
    assert "Origin" == headers["Vary"]
    assert "x-request-id" in headers["Access-Control-Expose-Headers"]


@pytest.mark.parametrize("origin", ["", "null", PAGE + ":8443", PAGE.upper()])
def test_others_may_not(origin: str) -> None:
    origins = Origins((PAGE,))

    assert {"Vary": "Origin"} == origins.answer(origin)
    assert not origins.allows(origin)


def test_a_star_lets_every_page_read() -> None:
    origins = Origins(("*",))

    assert "*" == origins.answer(PAGE)["Access-Control-Allow-Origin"]
    assert {} == origins.answer("")


def test_a_browser_may_send_what_it_asks_for() -> None:
    asked = {
        "Origin": PAGE,
        "Access-Control-Request-Headers": "authorization,x-stainless-lang",
        "Access-Control-Request-Private-Network": "true",
    }

    headers = Origins((PAGE,)).preflight(asked)

    assert "authorization,x-stainless-lang" == headers["Access-Control-Allow-Headers"]
    assert "POST" in headers["Access-Control-Allow-Methods"]
    assert int(headers["Access-Control-Max-Age"]) > 0
    assert "true" == headers["Access-Control-Allow-Private-Network"]


@pytest.mark.parametrize("names", ["", "a\r\nb: c", "x" * 3000])
def test_names_that_are_none_are_not_said_again(names: str) -> None:
    asked = {"Origin": PAGE, "Access-Control-Request-Headers": names}

    headers = Origins((PAGE,)).preflight(asked)

    assert "authorization" in headers["Access-Control-Allow-Headers"]
    assert "Access-Control-Allow-Private-Network" not in headers
