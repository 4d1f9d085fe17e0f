"""Requests as bytes."""

from __future__ import annotations

import pytest
from yarl import URL

from gateway.transport import request
from gateway.transport.request import Origin, origin_of, target_of

X = URL("http://up.test/v1/x")


def request_head(
    method: str, url: URL, headers: list[tuple[str, str]], body_bytes: int
) -> bytes:
    return request.request_head(target_of(method, url), headers, body_bytes)


def lines(head: bytes) -> list[bytes]:
    assert head.endswith(b"\r\n\r\n")
    return head[:-4].split(b"\r\n")


def test_callers_headers_follow_the_transports_own() -> None:
    head = request_head("POST", X, [("X-B", "1"), ("x-a", "2"), ("x-a", "3")], 12)

    assert [
        b"POST /v1/x HTTP/1.1",
        b"Host: up.test",
        b"Accept-Encoding: identity",
        b"Content-Length: 12",
        b"X-B: 1",
        b"x-a: 2",
        b"x-a: 3",
    ] == lines(head)


@pytest.mark.parametrize(
    "name",
    [
        "Content-Length",
        "transfer-encoding",
        "CONNECTION",
        "Accept-Encoding",
        "Expect",
        "Upgrade",
        "TE",
    ],
)
def test_framing_is_the_transports_alone(name: str) -> None:
    expected = request_head("POST", X, [], 3)

    assert expected == request_head("POST", X, [(name, "7")], 3)


def test_host_of_the_caller_wins() -> None:
    head = request_head("POST", X, [("HOST", "other")], 0)

    assert [b"HOST: other"] == [
        line for line in lines(head) if line.lower().startswith(b"host")
    ]


@pytest.mark.parametrize(
    "method, body_bytes, expected",
    [
        pytest.param("GET", 0, False, id="get-without-body"),
        pytest.param("DELETE", 0, False, id="delete-without-body"),
        pytest.param("POST", 0, True, id="empty-post"),
        pytest.param("DELETE", 2, True, id="delete-with-body"),
    ],
)
def test_a_length_is_sent_where_a_body_may_be(
    method: str, body_bytes: int, expected: bool
) -> None:
    assert expected == (b"Content-Length" in request_head(method, X, [], body_bytes))


@pytest.mark.parametrize(
    "url, target, host",
    [
        pytest.param("http://a.test", b"/", b"a.test", id="no-path"),
        pytest.param("http://a.test:80/x", b"/x", b"a.test", id="usual-port"),
        pytest.param("http://a.test:81/x?y", b"/x?y", b"a.test:81", id="other-port"),
        pytest.param("http://[::1]:81/x", b"/x", b"[::1]:81", id="v6"),
        pytest.param("http://u:p@a.test/x#f", b"/x", b"a.test", id="user-and-fragment"),
        pytest.param(
            "http://bücher.test/ä", b"/%C3%A4", b"xn--bcher-kva.test", id="idn"
        ),
    ],
)
def test_target_and_host(url: str, target: bytes, host: bytes) -> None:
    head = request_head("GET", URL(url), [], 0)

    assert b"GET " + target + b" HTTP/1.1" == lines(head)[0]
    assert b"Host: " + host == lines(head)[1]


def test_bytes_of_the_client_go_out_as_they_came() -> None:
    value = b"caf\xe9 \xc3\xa9".decode("utf-8", "surrogateescape")
    head = request_head("GET", X, [("x-name", value)], 0)

    assert b"x-name: caf\xe9 \xc3\xa9" in lines(head)


@pytest.mark.parametrize(
    "method, url, headers",
    [
        pytest.param("GE T", X, [], id="blank-in-method"),
        pytest.param("GET\r\n", X, [], id="line-end-in-method"),
        pytest.param("", X, [], id="no-method"),
        pytest.param("GET", X, [("", "x")], id="no-name"),
        pytest.param("GET", X, [("a:", "x")], id="colon-in-name"),
        pytest.param("GET", X, [("a\nb", "x")], id="line-end-in-name"),
        pytest.param("GET", X, [("é", "x")], id="name-not-ascii"),
        pytest.param("GET", X, [("a", "x\ry")], id="cr-in-value"),
        pytest.param("GET", X, [("a", "x\ny")], id="lf-in-value"),
        pytest.param("GET", X, [("a", "x\0y")], id="nul-in-value"),
        pytest.param("GET", X, [("host", "x\r\ny: z")], id="line-end-in-host"),
        pytest.param("GET", X, [("a", "\ud800")], id="no-text"),
        pytest.param(
            "GET", URL("http://a.test/a b", encoded=True), [], id="blank-in-path"
        ),
        pytest.param(
            "GET", URL("http://a.test/a\x7fb", encoded=True), [], id="control-in-path"
        ),
    ],
)
def test_what_would_break_out_is_refused(
    method: str, url: URL, headers: list[tuple[str, str]]
) -> None:
    with pytest.raises(ValueError):
        request_head(method, url, headers, 0)


def test_origin() -> None:
    assert Origin("http", "up.test", 80) == origin_of(X)
    assert Origin("https", "::1", 443) == origin_of(URL("https://[::1]/"))


@pytest.mark.parametrize("url", ["ftp://a.test/", "/v1", "http:///x", "embedded:"])
def test_other_urls_have_no_origin(url: str) -> None:
    with pytest.raises(ValueError):
        origin_of(URL(url))
