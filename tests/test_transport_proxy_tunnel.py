"""What an HTTP proxy may do to a connection, and whom a kept one serves."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from functools import partial

import pytest
from yarl import URL

from gateway.errors import UpstreamError
from gateway.transport.connection_pool import ConnectionPool
from gateway.transport.dialing import Dialer
from gateway.transport.http_transport import HttpTransport
from gateway.transport.proxy_routing import maybe_proxy, proxy_rule
from gateway.transport.proxy_tunnel import HEAD_LIMIT_BYTES, ProxyTunnel
from tests.kit.inprocess import logging_to
from tests.kit.logs import Log
from tests.transport_peer import (
    Peer,
    Script,
    client_tls,
    no_crash_of_ours,
    post,
    server_tls,
    sized,
    upstream,
)

HTTPS = URL("https://up.test/v1/x")
OPEN = b"HTTP/1.1 200 Connection established\r\n\r\n"


def by_proxy(address: str) -> HttpTransport:
    """A transport that reaches everything by the proxy at *address*."""
    pool = ConnectionPool(Dialer(client_tls()))
    return HttpTransport(pool, proxy_of=proxy_rule({"all": address}))


@pytest.fixture(autouse=True)
async def loop_sees_no_crash() -> AsyncIterator[None]:
    with no_crash_of_ours():
        yield


async def failure(address: str, url: URL = HTTPS, timeout_s: float = 5.0) -> str:
    """The detail with which a connection by the proxy at *address* fails."""
    transport = by_proxy(address)
    with pytest.raises(UpstreamError) as caught:
        await post(transport, url, connect_timeout_s=timeout_s)
    await transport.stop()

    assert caught.value.code == "upstream_connect"
    assert not transport.pool.live
    return caught.value.detail


def answers_connect(*pieces: bytes) -> Script:
    """Read a ``CONNECT`` and write *pieces*, each in a packet of its own."""

    async def script(peer: Peer) -> None:
        await peer.head()
        for piece in pieces:
            await peer.send(piece)
            await asyncio.sleep(0.001)
        await peer.gone()

    return script


def hangs_up_after(data: bytes, *, rudely: bool) -> Script:
    async def script(peer: Peer) -> None:
        await peer.head()
        await peer.send(data)
        if rudely:
            peer.reset()

    return script


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        pytest.param(
            sized(b"me:word", status="407 me:word"),
            "refused the tunnel: 407 Proxy Authentication Required",
            id="407",
        ),
        pytest.param(
            sized(b"", status="403 No"), "refused the tunnel: 403 Forbidden", id="403"
        ),
        pytest.param(
            sized(b"", status="502 No"), "refused the tunnel: 502 Bad Gateway", id="502"
        ),
        pytest.param(
            sized(b"", "Location: /\r\n", "302 No"), "tunnel: 302 Found", id="redirect"
        ),
        pytest.param(sized(b"", status="599 No"), "tunnel: 599", id="unknown-status"),
        pytest.param(b"HTTP/1.1 407\r\n\r\n", "tunnel: 407", id="without-a-reason"),
        pytest.param(b"SSH-2.0-x\r\n\r\n", "answered what is not HTTP", id="not-http"),
        pytest.param(b"HTTP/1.1 20\r\n\r\n", "is not HTTP", id="short-status"),
        pytest.param(b"HTTP/2 200\r\n\r\n", "is not HTTP", id="another-version"),
        pytest.param(b"\r\n\r\n", "is not HTTP", id="nothing-but-an-end"),
        pytest.param(
            OPEN[:-2] + b"A: b\r\n" * 20_000, "of head", id="head-without-an-end"
        ),
        pytest.param(
            b"x" * (HEAD_LIMIT_BYTES + 1), "of head", id="line-without-an-end"
        ),
        pytest.param(OPEN + b"\x15", "sent bytes behind its answer", id="bytes-behind"),
    ],
)
async def test_a_tunnel_that_is_refused(answer: bytes, text: str) -> None:
    async with upstream(answers_connect(answer)) as proxy:
        detail = await failure(f"http://me:word@127.0.0.1:{proxy.url.port}")

    assert text in detail
    assert f"127.0.0.1:{proxy.url.port}" in detail
    assert "up.test" in detail
    assert "word" not in detail


@pytest.mark.parametrize("rudely", [False, True])
@pytest.mark.parametrize("answer", [b"", OPEN[:20]], ids=["nothing", "half-a-head"])
async def test_a_proxy_that_hangs_up(answer: bytes, rudely: bool) -> None:
    async with upstream(hangs_up_after(answer, rudely=rudely)) as proxy:
        detail = await failure(f"http://127.0.0.1:{proxy.url.port}")

    assert rudely or "hung up before it answered" in detail


@pytest.mark.parametrize("rudely", [False, True])
async def test_a_tunnel_that_ends_before_the_handshake(rudely: bool) -> None:
    async with upstream(hangs_up_after(OPEN, rudely=rudely)) as proxy:
        detail = await failure(f"http://127.0.0.1:{proxy.url.port}")

    assert rudely or "TLS handshake" in detail


@pytest.mark.parametrize("answer", [b"", OPEN[:20]], ids=["nothing", "half-a-head"])
async def test_a_proxy_that_hangs_has_the_connect_timeout(answer: bytes) -> None:
    async with upstream(answers_connect(answer)) as proxy:
        address = f"http://127.0.0.1:{proxy.url.port}"
        detail = await failure(address, timeout_s=0.1)
        await proxy.played()  # the connection is closed

    assert "no connection after 0.1 s" in detail


async def test_a_host_that_no_certificate_can_name() -> None:
    """It has an empty label; no connection is made for it."""
    async with upstream(answers_connect(OPEN)) as proxy:
        detail = await failure(
            f"http://127.0.0.1:{proxy.url.port}", URL("https://.up.test/")
        )

    assert "idna" in detail
    assert proxy.connections == 0


async def test_a_proxy_that_is_not_there() -> None:
    async with upstream(answers_connect()) as proxy:
        pass

    assert "127.0.0.1" in await failure(f"http://127.0.0.1:{proxy.url.port}")


@pytest.mark.parametrize("url", [HTTPS, HTTPS.with_scheme("http")], ids=str)
async def test_a_proxy_whose_certificate_is_another_s(url: URL) -> None:
    async with upstream(answers_connect(), tls=server_tls("other.test")) as proxy:
        detail = await failure(f"https://127.0.0.1:{proxy.url.port}", url)

    assert "CERTIFICATE_VERIFY_FAILED" in detail


async def test_a_proxy_that_speaks_no_tls() -> None:
    async def script(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await peer.gone()

    async with upstream(script) as proxy:
        assert "SSL" in await failure(f"https://127.0.0.1:{proxy.url.port}")


@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param([bytes([one]) for one in OPEN], id="byte-by-byte"),
        pytest.param([b"HTTP/1.0 200 OK\nVia: x\n\n"], id="bare-line-feeds"),
        pytest.param([b"HTTP/1.1 100 Continue\r\n\r\n" + OPEN], id="interim-first"),
        pytest.param([b"HTTP/1.1 201 Yes\r\nContent-Length: 9\r\n\r\n"], id="2xx"),
        pytest.param([b"HTTP/1.1 200\r\n\r\n"], id="without-a-reason"),
    ],
)
async def test_an_answer_that_opens_the_tunnel(pieces: list[bytes]) -> None:
    async def script(peer: Peer) -> None:
        await peer.head()
        for piece in pieces[:-1]:
            await peer.send(piece)
            await asyncio.sleep(0)
        await peer.send(pieces[-1])
        await peer.writer.start_tls(server_tls("up.test"))
        await peer.answer(sized(b"tunnelled"))

    async with upstream(script) as proxy:
        transport = by_proxy(f"http://127.0.0.1:{proxy.url.port}")
        response = await post(transport, HTTPS)
        assert await response.body(100) == b"tunnelled"
        response.close()
        await transport.stop()


class TestKeptConnections:
    @staticmethod
    async def tunnels(peer: Peer) -> None:
        """Say in each answer which origin the tunnel leads to."""
        authority = (await peer.open_tunnel()).split()[1]
        await peer.writer.start_tls(server_tls("up.test", "other.test"))
        while True:
            await peer.answer(sized(authority))

    @staticmethod
    async def forwards(peer: Peer) -> None:
        """Say in each answer which URL was asked for."""
        while True:
            request = await peer.request()
            await peer.send(sized(request.head.split()[1]))

    async def ask(self, transport: HttpTransport, url: str) -> bytes:
        response = await post(transport, URL(url))
        try:
            return await response.body(1000)
        finally:
            response.close()

    async def test_a_tunnel_serves_its_own_origin_alone(self) -> None:
        async with upstream(self.tunnels) as proxy:
            transport = by_proxy(f"http://127.0.0.1:{proxy.url.port}")
            for host in ("up.test", "other.test", "up.test"):
                assert await self.ask(transport, f"https://{host}/") == (
                    f"{host}:443".encode()
                )
            await transport.stop()

        assert proxy.connections == 2

    async def test_a_forwarding_proxy_keeps_one_connection_for_each_origin(
        self,
    ) -> None:
        async with upstream(self.forwards) as proxy:
            transport = by_proxy(f"http://127.0.0.1:{proxy.url.port}")
            for host in ("up.test", "other.test", "up.test"):
                url = f"http://{host}/v1"
                assert await self.ask(transport, url) == url.encode()
            await transport.stop()

        assert proxy.connections == 2

    async def test_a_direct_connection_is_no_way_by_a_proxy(self) -> None:
        """The origin's own connection is kept; the proxy is asked all the same."""
        rules: dict[str, str] = {}
        async with upstream(self.forwards) as server:
            pool = ConnectionPool(Dialer(client_tls()))
            transport = HttpTransport(
                pool, proxy_of=partial(maybe_proxy, proxies=rules)
            )
            url = str(server.url)
            assert await self.ask(transport, url) == b"/v1/x"
            rules["http"] = f"http://127.0.0.1:{server.url.port}"
            assert await self.ask(transport, url) == url.encode()
            await transport.stop()

        assert server.connections == 2


async def test_the_name_of_an_unreachable_proxy_is_looked_up_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def addresses(host: str, port: int, **_: object) -> list[object]:
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    asked: list[str] = []
    monkeypatch.setattr(socket, "getaddrinfo", addresses)
    transport = by_proxy("http://proxy.test:1")
    for _ in range(2):
        with pytest.raises(UpstreamError):
            await post(transport, HTTPS)
    await transport.stop()

    assert asked == ["proxy.test", "proxy.test"]


async def test_a_proxy_s_password_is_in_no_text() -> None:
    with logging_to(Log()) as log:
        address = "http://me:s3cret-w0rd@127.0.0.1:1"
        transport = by_proxy(address)
        with pytest.raises(UpstreamError) as caught:
            await post(transport, HTTPS)
        await transport.stop()
        rule = proxy_rule({"all": address})
        assert rule is not None
        texts = [repr(rule(HTTPS)), caught.value.detail, str(log.lines)]
        with pytest.raises(UpstreamError) as refused:
            await post(by_proxy("socks5://me:s3cret-w0rd@p:1"), HTTPS)

    for text in (*texts, refused.value.detail):
        assert "s3cret" not in text
        assert "bWU6" not in text  # the same in base64


def test_a_lost_connection_reaches_the_protocol_above() -> None:
    class Above(asyncio.Protocol):
        lost: Exception | None = None

        def connection_lost(self, exc: Exception | None) -> None:
            self.lost = exc

    above = Above()
    ProxyTunnel(b"", above).connection_lost(OSError("cable"))

    assert str(above.lost) == "cable"
