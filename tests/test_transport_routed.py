"""Straight, or through the proxy that the environment names."""

from __future__ import annotations

import asyncio
import base64

import pytest
from yarl import URL

from gateway.errors import UpstreamError
from gateway.transport import routed
from gateway.transport.routed import RoutedTransport, maybe_proxy
from tests.transport_peer import (
    CHUNKED,
    LAST_CHUNK,
    Peer,
    chunk,
    client_tls,
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


async def test_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    with pytest.raises(UpstreamError) as caught:
        await through(HTTP)

    assert "upstream_connect" == caught.value.code
