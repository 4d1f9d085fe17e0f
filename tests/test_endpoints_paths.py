"""Paths as clients write them."""

from __future__ import annotations

import pytest
from yarl import URL

from gateway.endpoints.paths import (
    ODD_TARGET,
    canonical_path,
    canonical_url,
    protocol_of,
)


@pytest.mark.parametrize(
    ("given", "path"),
    [
        ("/v1/responses", "/v1/responses"),
        ("/responses", "/responses"),
        ("/v1/responses/", "/v1/responses"),
        ("/v1/responses///", "/v1/responses"),
        ("//v1//responses", "/v1/responses"),
        ("/v1/v1/responses", "/v1/responses"),
        ("/v1//v1/responses/", "/v1/responses"),
        ("/v1/v1/v1/models", "/v1/models"),
        ("/v1/v1", "/v1"),
        ("/v1/v1beta/models", "/v1/v1beta/models"),
        ("/v1/v10/models", "/v1/v10/models"),
        ("/v1/responses/v1/v1", "/v1/responses/v1/v1"),
        ("/healthz/", "/healthz"),
        ("/", "/"),
        ("//", "/"),
        ("*", "/*"),
    ],
)
def test_a_path_has_one_form(given: str, path: str) -> None:
    assert path == canonical_path(given)
    assert path == canonical_path(path)
    assert path == given or ODD_TARGET.search(given)


def test_a_url_keeps_its_query_as_it_was_written() -> None:
    url = URL("/v1//messages/?a=%2F&b=1//2", encoded=True)

    assert "/v1/messages?a=%2F&b=1//2" == canonical_url(url).raw_path_qs
    plain = URL("/v1/messages?b=1//2", encoded=True)
    assert plain is canonical_url(plain)
    assert URL("/") == canonical_url(URL.build(authority="example.com:443"))


@pytest.mark.parametrize(
    ("path", "protocol"),
    [
        ("/v1/messages/count_tokens", "messages"),
        ("/chat/completions", "chat"),
        ("/v1/responses", "responses"),
        ("/v1/nothing", "responses"),
    ],
)
def test_a_path_tells_whose_form_an_error_has(path: str, protocol: str) -> None:
    assert protocol == protocol_of(path)
