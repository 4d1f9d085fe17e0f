"""Straight, or through the proxy that the environment names."""

from __future__ import annotations

import base64
import socket
from urllib.request import getproxies_environment

import pytest
from yarl import URL

from gateway.errors import UpstreamError
from gateway.transport.connection_pool import ConnectionPool
from gateway.transport.dialing import Dialer
from gateway.transport.http_transport import HttpTransport
from gateway.transport.no_proxy import matches
from gateway.transport.proxy_routing import maybe_proxy, proxy_rule
from gateway.transport.request import Proxy, origin_of
from tests.transport_peer import (
    CHUNKED,
    LAST_CHUNK,
    Peer,
    chunk,
    client_tls,
    closes_after,
    post,
    replays,
    server_tls,
    sized,
    upstream,
)

HTTP = URL("http://up.test/v1")
HTTPS = URL("https://api.up.test/v1")


@pytest.mark.parametrize(
    "url, proxies, expected",
    [
        pytest.param(HTTP, {}, None, id="none"),
        pytest.param(HTTP, {"http": "http://p:1"}, "http://p:1", id="by-scheme"),
        pytest.param(HTTPS, {"http": "http://p:1"}, None, id="other-scheme"),
        pytest.param(HTTPS, {"https": "p:1"}, "http://p:1", id="without-scheme"),
        pytest.param(HTTPS, {"all": "http://p:1"}, "http://p:1", id="all"),
        pytest.param(
            HTTP, {"all": "http://p:1", "http": "http://q:2"}, "http://q:2", id="first"
        ),
        pytest.param(
            HTTP, {"http": "http://p:1", "no": "up.test"}, None, id="no-proxy"
        ),
        pytest.param(
            HTTPS, {"https": "http://p:1", "no": ".up.test"}, None, id="no-proxy-domain"
        ),
        pytest.param(
            HTTP, {"http": "http://p:1", "no": "up.test:81"}, "http://p:1", id="port"
        ),
        pytest.param(HTTP, {"http": "http://p:1", "no": "*"}, None, id="no-proxy-all"),
        pytest.param(HTTP, {"http": ""}, None, id="empty"),
    ],
)
def test_environment_decides(
    url: URL, proxies: dict[str, str], expected: str | None
) -> None:
    found = maybe_proxy(url, proxies)

    if expected is None:
        assert found is None
    else:
        assert found == Proxy(origin_of(URL(expected)))


@pytest.mark.parametrize(
    "no_proxy, host, expected",
    [
        ("10.0.0.0/8", "10.1.2.3", True),
        ("10.0.0.0/8", "11.1.2.3", False),
        ("10.9.9.9/8", "10.1.2.3", True),  # bits behind the prefix do not count
        ("192.168.1.0/24,10.0.0.0/8", "10.1.2.3", True),
        ("192.168.1.0/24 10.0.0.0/8", "10.1.2.3", True),
        ("10.1.2.3", "10.1.2.3", True),
        ("10.1.2.3/32", "10.1.2.4", False),
        ("10.0.0.0/33", "10.1.2.3", False),
        ("10.0.0.0/", "10.1.2.3", False),
        ("0.0.0.0/0", "10.1.2.3", True),
        ("0.0.0.0/0", "name.test", False),
        ("10.0.0.0/8", "::1", False),
        (".2.3", "10.1.2.3", False),  # an address has no domain
        ("fd00::/8", "fd12::1", True),
        ("FD00::/8", "fd12::1", True),
        ("[fd00::]/8", "fd12::1", True),
        ("fd00::/8", "fe80::1", False),
        ("::1", "::1", True),
        ("[::1]", "::1", True),
        ("0:0::1", "::1", True),
        ("[::1]:80", "::1", True),
        ("[::1]:81", "::1", False),
        ("10.1.2.3:80", "10.1.2.3", True),
        ("10.1.2.3:81", "10.1.2.3", False),
        ("up.test", "up.test", True),
        ("up.test", "api.up.test", True),
        (".up.test", "api.up.test", True),
        (".up.test", "up.test", True),
        ("up.test", "setup.test", False),
        ("UP.Test", "up.test", True),
        ("up.test", "UP.TEST", True),
        ("up.test.", "up.test", True),
        ("up.test", "up.test.", True),
        ("up.test:80", "up.test", True),
        ("up.test:81", "up.test", False),
        ("other.test, up.test", "up.test", True),
        ("*", "up.test", True),
        ("*", "10.1.2.3", True),
        ("other.test,*", "up.test", True),
        ("*.up.test", "api.up.test", False),  # curl knows no other wildcard
        (".", "up.test", False),
        ("", "up.test", False),
        (",", "up.test", False),
    ],
)
def test_no_proxy_is_read_as_curl_reads_it(
    no_proxy: str, host: str, expected: bool
) -> None:
    assert expected == matches(no_proxy, host, 80)


def test_a_network_in_no_proxy_reaches_both_schemes() -> None:
    proxies = {"all": "http://p:1", "no": "10.0.0.0/8,fd00::/8"}

    for host in ("10.1.2.3", "[fd12::1]"):
        for scheme in ("http", "https"):
            assert maybe_proxy(URL(f"{scheme}://{host}/v1"), proxies) is None
    assert maybe_proxy(URL("http://11.1.2.3/v1"), proxies)


def test_proxy_of_another_kind_is_not_gone_round() -> None:
    with pytest.raises(UpstreamError) as caught:
        maybe_proxy(HTTP, {"all": "socks5://p:1"})

    assert "upstream_connect" == caught.value.code
    assert "socks5" in caught.value.detail


def transport_of_the_environment() -> HttpTransport:
    """As the daemon makes it, from the environment as it is now."""
    pool = ConnectionPool(Dialer(client_tls()))
    return HttpTransport(pool, proxy_of=proxy_rule(getproxies_environment()))


async def through(url: URL, body: bytes = b"{}") -> bytes:
    """The body of the answer to a request by the environment's way."""
    transport = transport_of_the_environment()
    try:
        response = await post(transport, url, body)
        try:
            return await response.body(1000)
        finally:
            response.close()
    finally:
        await transport.stop()


@pytest.fixture(autouse=True)
def no_proxy_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


async def test_without_a_proxy_it_goes_straight() -> None:
    async with upstream(replays(sized(b"straight"))) as server:
        assert b"straight" == await through(server.url)


async def test_plain_request_is_handed_to_the_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heads = []

    async def proxy(peer: Peer) -> None:
        request = await peer.answer(CHUNKED + chunk(b"proxied") + LAST_CHUNK)
        heads.append(request.head)

    async with upstream(proxy) as server:
        monkeypatch.setenv("HTTP_PROXY", f"http://me:word@127.0.0.1:{server.url.port}")
        got = await through(URL("http://up.test/v1/x?y=z"))

    credentials = base64.b64encode(b"me:word")
    assert b"proxied" == got
    assert heads[0].startswith(b"POST http://up.test/v1/x?y=z HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic " + credentials in heads[0]


async def test_https_goes_through_a_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy sees a name and bytes; certificate and key are the upstream's."""
    heads, requests = [], []

    async def script(peer: Peer) -> None:
        heads.append(await peer.open_tunnel())
        await peer.writer.start_tls(server_tls("up.test"))
        requests.append(await peer.answer(sized(b"tunnelled")))

    async with upstream(script) as proxy:
        address = f"http://me:w%2Frd@127.0.0.1:{proxy.url.port}"
        monkeypatch.setenv("https_proxy", address)
        got = await through(URL("https://up.test/v1/x"))

    credentials = base64.b64encode(b"me:w/rd").decode()
    assert got == b"tunnelled"
    assert heads[0].decode().split("\r\n")[:-2] == [
        "CONNECT up.test:443 HTTP/1.1",
        "Host: up.test:443",
        f"Proxy-Authorization: Basic {credentials}",
    ]
    assert requests[0].head.startswith(b"POST /v1/x HTTP/1.1\r\nHost: up.test\r\n")
    assert b"roxy" not in requests[0].head


async def test_the_name_of_a_proxy_is_looked_up_once_and_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def addresses(host: str, port: int, **_: object) -> list[object]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    asked: list[str] = []
    monkeypatch.setattr(socket, "getaddrinfo", addresses)
    answer = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nproxied"
    async with upstream(closes_after(answer)) as server:
        monkeypatch.setenv("HTTP_PROXY", f"http://proxy.test:{server.url.port}")
        transport = transport_of_the_environment()
        try:
            for _ in range(2):
                reply = await transport.open(
                    "POST", HTTP, [], b"", connect_timeout_s=5, idle_timeout_s=5
                )
                assert b"proxied" == await reply.body(1000)
                reply.close()
        finally:
            await transport.stop()

    assert ["proxy.test"] == asked


async def test_a_network_in_no_proxy_is_reached_straight(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8,127.0.0.0/8")
    async with upstream(replays(sized(b"straight"))) as server:
        assert b"straight" == await through(server.url)


async def test_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with pytest.raises(UpstreamError) as caught:
        await through(HTTP)

    assert "upstream_connect" == caught.value.code
