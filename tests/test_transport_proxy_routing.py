"""Straight, or through the proxy that the environment names."""

from __future__ import annotations

import asyncio
import base64
import socket

import pytest
from yarl import URL

from gateway.errors import UpstreamError
from gateway.transport import proxy_routing as routed
from gateway.transport.no_proxy import matches
from gateway.transport.proxy_routing import RoutedTransport, maybe_proxy
from tests.transport_peer import (
    CHUNKED,
    LAST_CHUNK,
    Peer,
    chunk,
    client_tls,
    closes_after,
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

    assert expected == (str(found).rstrip("/") if found else None)


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


async def through(url: URL, body: bytes = b"{}") -> bytes:
    """Ask *url* by a transport that reads the environment as it is now."""
    transport = RoutedTransport()
    try:
        reply = await transport.open(
            "POST", url, [], body, connect_timeout_s=5, idle_timeout_s=5
        )
        try:
            return await reply.body(1000)
        finally:
            reply.close()
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
    heads = []

    async def tunnel(peer: Peer) -> None:
        heads.append(await peer.head())
        port = server.url.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        back = asyncio.ensure_future(copy(reader, peer.writer))
        await copy(peer.reader, writer)
        await back

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
        writer.close()

    monkeypatch.setattr(routed, "tls_context", client_tls)
    tls = server_tls("up.test")
    async with upstream(replays(sized(b"tunnelled")), tls=tls) as server:
        async with upstream(tunnel) as proxy:
            monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{proxy.url.port}")
            got = await through(URL("https://up.test/v1/x"))

    assert b"tunnelled" == got
    assert heads[0].startswith(b"CONNECT up.test:443 HTTP/1.1\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(sized(b"", status="407 Authenticate"), id="refuses"),
        pytest.param(b"", id="hangs-up"),
    ],
)
async def test_tunnel_that_is_not_made(
    monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    async def proxy(peer: Peer) -> None:
        await peer.answer(answer)

    async with upstream(proxy) as server:
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{server.url.port}")
        with pytest.raises(UpstreamError) as caught:
            await through(URL("https://up.test/v1/x"))

    assert caught.value.code in ("upstream_connect", "upstream_reset")


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
        transport = RoutedTransport()
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
