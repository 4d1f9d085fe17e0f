"""What the gateway's own connections promise beyond the interface."""

from __future__ import annotations

import asyncio
import socket
import tracemalloc
from collections.abc import AsyncIterator

import pytest
import uvloop
from yarl import URL

from gateway.errors import UpstreamError
from gateway.transport.connection import Connection, ConnectionOwner
from gateway.transport.connection_pool import ConnectionPool
from gateway.transport.dialing import Dialer, literal_address
from gateway.transport.http_transport import HttpTransport
from gateway.transport.interface import STOP, UpstreamResponse
from gateway.transport.request import Origin, Route
from tests.transport_peer import (
    CHUNKED,
    LAST_CHUNK,
    OWN_KINDS,
    Client,
    Peer,
    chunk,
    client_tls,
    closes_after,
    post,
    replays,
    server_tls,
    sized,
    until,
    upstream,
)

UNTIL_CLOSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n"


def pooled(**limits: float) -> HttpTransport:
    tls = client_tls()
    pool = ConnectionPool(Dialer(tls), **limits)  # type: ignore[arg-type]
    return HttpTransport(pool)


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    transport = pooled()
    yield transport
    await transport.stop()

    assert not transport.pool.live
    assert 0 == transport.pool.idle_count


async def code_of(reply: UpstreamResponse) -> str:
    with pytest.raises(UpstreamError) as caught:
        await reply.read()
    reply.close()
    return caught.value.code


class TestMalformed:
    @pytest.mark.parametrize(
        "rest",
        [
            pytest.param(b"zz\r\nabc\r\n", id="size-is-no-number"),
            pytest.param(b"3\r\nabcdef\r\n", id="longer-than-said"),
            pytest.param(b"1;" + b"x" * 70_000, id="endless-extension"),
            pytest.param(b"0\r\nT: " + b"x" * 70_000, id="endless-trailer"),
        ],
    )
    async def test_bad_chunk(self, transport: HttpTransport, rest: bytes) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(CHUNKED + chunk(b"abc"))
            await read.wait()
            await peer.send(rest)
            await peer.gone()

        read = asyncio.Event()
        async with upstream(script) as server:
            reply = await post(transport, server.url)
            assert b"abc" == await reply.read()
            read.set()
            piece = b""
            with pytest.raises(UpstreamError) as caught:
                while piece := await reply.read():
                    assert b"abc".startswith(piece)
            await server.played()

        assert "upstream_malformed" == caught.value.code

    @pytest.mark.parametrize(
        "head",
        [
            pytest.param(
                b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
                id="transfer-coding-unknown",
            ),
            pytest.param(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n"
                b"Connection: upgrade\r\n\r\n",
                id="upgrade",
            ),
            pytest.param(
                b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
                id="two-lengths",
            ),
            pytest.param(
                b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 20_000 + b"\r\n",
                id="too-many-headers",
            ),
            pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" * 4000, id="endless-100"),
        ],
    )
    async def test_bad_head(self, transport: HttpTransport, head: bytes) -> None:
        async with upstream(replays(head)) as server:
            with pytest.raises(UpstreamError) as caught:
                await post(transport, server.url)
            await server.played()

        assert "upstream_malformed" == caught.value.code

    async def test_reset_is_no_end_of_a_body_until_close(
        self, transport: HttpTransport
    ) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(UNTIL_CLOSE + b"abc")
            await read.wait()
            peer.reset()

        read = asyncio.Event()
        async with upstream(script) as server:
            reply = await post(transport, server.url)
            assert b"abc" == await reply.read()
            read.set()

            assert "upstream_reset" == await code_of(reply)


class TestKeeping:
    @pytest.mark.parametrize(
        "garbage", [b"HT", b"\0", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"]
    )
    async def test_bytes_behind_the_answer_end_the_connection(
        self, transport: HttpTransport, garbage: bytes
    ) -> None:
        async with upstream(replays(sized(b"1") + garbage)) as server:
            reply = await post(transport, server.url)
            got = await reply.body(10)
            reply.close()
            await server.played()

        assert b"1" == got
        assert not transport.pool.live

    @pytest.mark.parametrize("more", [b"HT", b""])
    async def test_bytes_or_closing_between_the_end_and_the_close(
        self, transport: HttpTransport, more: bytes
    ) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(sized(b"1"))
            await read.wait()
            await peer.send(more)
            if not more:
                peer.close()
            await peer.gone()

        read = asyncio.Event()
        async with upstream(script) as server:
            reply = await post(transport, server.url)
            got = await reply.body(10)
            read.set()
            await asyncio.sleep(0.02)
            again = await reply.read()
            reply.close()
            await server.played()

        assert (b"1", b"") == (got, again)
        assert not transport.pool.live

    async def test_bytes_on_a_kept_connection_end_it(
        self, transport: HttpTransport
    ) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(sized(b"1"))
            await kept.wait()
            await peer.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
            await peer.gone()

        kept = asyncio.Event()
        async with upstream(script) as server:
            reply = await post(transport, server.url)
            await reply.body(10)
            reply.close()
            assert 1 == transport.pool.idle_count
            kept.set()
            await server.played()

        assert not transport.pool.live

    async def test_upstream_that_closes_a_kept_connection_is_noticed(
        self, transport: HttpTransport
    ) -> None:
        async with upstream(closes_after(sized(b"1"))) as server:
            reply = await post(transport, server.url)
            await reply.body(10)
            reply.close()
            await until(lambda: not transport.pool.live)

        assert 0 == transport.pool.idle_count

    async def test_unused_connection_is_closed_in_time(self) -> None:
        transport = pooled(keep_alive_s=0.02)
        async with upstream(replays(sized(b"1"))) as server:
            for _ in range(2):
                replies = [await post(transport, server.url) for _ in range(3)]
                for reply in replies:
                    await reply.body(10)
                    reply.close()
                assert 3 == transport.pool.idle_count
                await until(lambda: not transport.pool.live)
            await server.played()
        await transport.stop()

        assert 6 == server.connections

    async def test_unused_connections_are_bounded(self) -> None:
        transport = pooled(max_idle_per_route=2)
        async with upstream(replays(sized(b"1"))) as server:
            replies = [await post(transport, server.url) for _ in range(5)]
            for reply in replies:
                await reply.body(10)
                reply.close()
            await until(lambda: len(transport.pool.live) == 2)

            assert 2 == transport.pool.idle_count
            await transport.stop()

    async def test_youngest_serves_first(self, transport: HttpTransport) -> None:
        def named(name: bytes) -> object:
            return replays(sized(name), sized(name))

        scripts = [named(b"1"), named(b"2")]
        async with upstream(*scripts) as server:  # type: ignore[arg-type]
            first = await post(transport, server.url)
            second = await post(transport, server.url)
            for reply in (first, second):
                await reply.body(10)
                reply.close()
            third = await post(transport, server.url)
            got = await third.body(10)
            third.close()

        assert b"2" == got

    async def test_origins_do_not_share(self, transport: HttpTransport) -> None:
        async with upstream(replays(sized(b"1"), sized(b"2"))) as server:
            for host in ("127.0.0.1", "localhost"):
                reply = await post(transport, server.url.with_host(host))
                await reply.body(10)
                reply.close()

        assert 2 == server.connections

    async def test_lingering_takes_only_so_much(self, transport: HttpTransport) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(CHUNKED + chunk(b"terminal"))
            await closed.wait()
            await peer.send(chunk(bytes(200_000)))
            await peer.gone()

        closed = asyncio.Event()
        async with upstream(script) as server:
            reply = await post(transport, server.url)
            await reply.pump(lambda piece: STOP)
            reply.close(linger_s=50)
            closed.set()
            async with asyncio.timeout(10):
                await server.played()

        assert not transport.pool.live


class Late(Dialer):
    """Returns a connection only when the test allows it."""

    def __init__(self) -> None:
        super().__init__(client_tls())
        self.dialled = asyncio.Event()
        self.given = asyncio.Event()

    async def dial(
        self, route: Route, owner: ConnectionOwner, timeout_s: float
    ) -> Connection:
        connection = await super().dial(route, owner, timeout_s)
        self.dialled.set()
        await self.given.wait()
        return connection


class TestFresh:
    @pytest.mark.parametrize("rudely", [False, True])
    async def test_closed_as_soon_as_it_was_open(self, rudely: bool) -> None:
        async def script(peer: Peer) -> None:
            if rudely:
                peer.reset()
            else:
                await peer.send(b"SSH-2.0-x\r\n")
                peer.close()

        dialer = Late()
        transport = HttpTransport(ConnectionPool(dialer))
        async with upstream(script) as server:
            task = asyncio.ensure_future(post(transport, server.url))
            await dialer.dialled.wait()
            await asyncio.sleep(0.02)
            dialer.given.set()
            with pytest.raises(UpstreamError) as caught:
                await task
            await transport.stop()

        assert "upstream_connect" == caught.value.code
        assert not transport.pool.live

    async def test_opened_while_the_transport_stops(self) -> None:
        dialer = Late()
        transport = HttpTransport(ConnectionPool(dialer))
        async with upstream(replays()) as server:
            task = asyncio.ensure_future(post(transport, server.url))
            await dialer.dialled.wait()
            await transport.stop()
            dialer.given.set()
            with pytest.raises(UpstreamError) as caught:
                await task
            await server.played()

        assert "upstream_connect" == caught.value.code
        assert not transport.pool.live


class TestCancel:
    @pytest.mark.parametrize("kind", OWN_KINDS)
    async def test_every_await_leaves_nothing_behind(self, kind: str) -> None:
        """The request is cancelled after each number of the loop's rounds."""

        async def request() -> None:
            reply = await post(client, server.url)
            try:
                await reply.pump(lambda piece: asyncio.sleep(0))
            finally:
                reply.close()

        answer = CHUNKED + chunk(b"one") + chunk(b"two") + LAST_CHUNK
        async with Client(kind) as client, client.upstream(replays(answer)) as server:
            pool = client.own.pool
            finished = False
            for rounds in range(1000):
                task = asyncio.ensure_future(request())
                for _ in range(rounds):
                    await asyncio.sleep(0)
                if task.done():
                    finished = True
                    await task
                    break
                task.cancel()
                await asyncio.wait([task])
                assert task.cancelled()
                assert len(pool.live) == pool.idle_count
            assert finished
            await client.stop()
            await asyncio.gather(*server.scripts, return_exceptions=True)

    async def test_hold_that_was_never_awaited(self, transport: HttpTransport) -> None:
        """Cancelled in the round in which the feed asked for back-pressure."""

        async def drain() -> None:
            raise AssertionError("the pump was cancelled")

        def feed(piece: bytes) -> object:
            task.cancel()
            return drain()

        async def script(peer: Peer) -> None:
            await peer.answer(CHUNKED)
            await pumping.wait()
            await peer.send(chunk(b"one"))
            await peer.gone()

        pumping = asyncio.Event()
        async with upstream(script) as server:
            reply = await post(transport, server.url)
            task = asyncio.ensure_future(reply.pump(feed))  # type: ignore[arg-type]
            await asyncio.sleep(0)  # the pump runs until it waits
            pumping.set()
            await asyncio.wait([task])
            reply.close()

        assert task.cancelled()

    async def test_stop_ends_what_is_open(self) -> None:
        transport = pooled()
        async with upstream(replays(CHUNKED + chunk(b"abc"))) as server:
            reply = await post(transport, server.url)
            await reply.read()
            await transport.stop()

            assert "upstream_reset" == await code_of(reply)
            with pytest.raises(UpstreamError) as caught:
                await post(transport, server.url)

        assert "upstream_connect" == caught.value.code
        assert not transport.pool.live


class TestMemory:
    async def test_slow_readers(self, transport: HttpTransport) -> None:
        """20 readers that stop, 11 MB for each: what is held here stays small."""

        async def script(peer: Peer) -> None:
            await peer.answer(CHUNKED)
            piece = chunk(bytes(65536))
            for _ in range(170):
                await peer.send(piece)

        async with upstream(script) as server:
            tracemalloc.start(1)
            try:
                replies = [await post(transport, server.url) for _ in range(20)]
                await asyncio.sleep(0.3)
                held_bytes, _ = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
            for reply in replies:
                reply.close()

        # the upstream's own write buffers (64 KiB and a piece each) included
        assert held_bytes < 20 * 600_000


class TestDialing:
    async def test_packets_are_not_delayed(self, transport: HttpTransport) -> None:
        async with upstream(replays(sized(b""))) as server:
            reply = await post(transport, server.url)
            [connection] = transport.pool.live
            raw = connection._transport
            assert raw is not None
            sock = raw.get_extra_info("socket")
            no_delay = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            reply.close()

        assert no_delay

    async def test_next_address_is_tried(
        self, transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A name with a dead address before the good one."""

        def addresses(host: str, port: int, **_: object) -> list[object]:
            asked.append(host)
            return [
                *literal_address(Origin("http", "::1", port)),
                *literal_address(Origin("http", "127.0.0.1", port)),
            ]

        asked: list[str] = []
        monkeypatch.setattr(socket, "getaddrinfo", addresses)
        async with upstream(closes_after(UNTIL_CLOSE)) as server:
            url = server.url.with_host("both.test")
            for _ in range(2):
                reply = await post(transport, url)
                reply.close()

        assert ["both.test"] == asked  # the second time from memory

    async def test_addresses_are_forgotten_when_none_answers(
        self, transport: HttpTransport, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def addresses(host: str, port: int, **_: object) -> list[object]:
            asked.append(host)
            return list(literal_address(Origin("http", "127.0.0.1", port)))

        asked: list[str] = []
        async with upstream(replays()) as server:
            pass
        monkeypatch.setattr(socket, "getaddrinfo", addresses)
        for _ in range(2):
            with pytest.raises(UpstreamError):
                await post(transport, server.url.with_host("gone.test"))

        assert ["gone.test", "gone.test"] == asked

    @pytest.mark.parametrize(
        "host, family",
        [
            pytest.param("127.0.0.1", socket.AF_INET, id="v4"),
            pytest.param("::1", socket.AF_INET6, id="v6"),
            pytest.param("localhost", None, id="name"),
            pytest.param("fe80::1%eth0", None, id="zone"),
        ],
    )
    def test_literal_addresses_need_no_resolver(
        self, host: str, family: int | None
    ) -> None:
        found = literal_address(Origin("http", host, 80))

        assert ([family] if family else []) == [address[0] for address in found]


class TestUvloop:
    @pytest.mark.parametrize("secure", [False, True])
    def test_the_other_loop(self, secure: bool) -> None:
        """Reads, back-pressure, reuse, abort and stop on uvloop."""
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self.visit(server_tls("127.0.0.1") if secure else None))

    async def visit(self, tls: object) -> None:
        async def script(peer: Peer) -> None:
            await peer.answer(sized(b"first"))
            await peer.answer(CHUNKED)
            for i in range(0, len(sent), 50_000):
                await peer.send(chunk(sent[i : i + 50_000]))
            await peer.send(LAST_CHUNK)
            await peer.answer(CHUNKED + chunk(b"third"))
            await peer.gone()

        async def drain() -> None:
            await asyncio.sleep(0)

        def feed(piece: bytes) -> object:
            got.extend(piece)
            return drain()

        sent = b"".join(b"%07d " % i for i in range(100_000))
        got = bytearray()
        transport = pooled()
        async with upstream(script, tls=tls) as server:  # type: ignore[arg-type]
            reply = await post(transport, server.url)
            assert b"first" == await reply.body(10)
            reply.close()
            reply = await post(transport, server.url, bytes(3_000_000))
            await reply.pump(feed)  # type: ignore[arg-type]
            reply.close()
            reply = await post(transport, server.url)
            assert b"third" == await reply.read()
            reply.close()
            async with asyncio.timeout(10):
                await asyncio.gather(*server.scripts, return_exceptions=True)
            with pytest.raises(UpstreamError):
                await post(transport, URL("http://127.0.0.1:1/"))
            await transport.stop()

        assert sent == bytes(got)
        assert 1 == server.connections
        assert not transport.pool.live
