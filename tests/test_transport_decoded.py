"""Bodies that an upstream compressed although it was asked not to."""

from __future__ import annotations

import asyncio
import gzip
import sys
import zlib
from collections.abc import AsyncIterator

import pytest

from gateway.content_coding import PIECE_BYTES
from gateway.errors import UpstreamError
from gateway.transport.interface import STOP, StopSignal
from tests.transport_peer import (
    CHUNKED,
    LAST_CHUNK,
    AnyTransport,
    Client,
    Peer,
    chunk,
    post,
    replays,
    sized,
    upstream,
)

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

PLAIN = b"".join(b"data: %d\n\n" % i for i in range(20_000))


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKED = [
    pytest.param("gzip", gzip.compress(PLAIN), id="gzip"),
    pytest.param("x-gzip", gzip.compress(PLAIN), id="x-gzip"),
    pytest.param("GZIP", gzip.compress(PLAIN), id="capitals"),
    pytest.param(
        "gzip", gzip.compress(PLAIN[:9]) + gzip.compress(PLAIN[9:]), id="two-members"
    ),
    pytest.param("deflate", zlib.compress(PLAIN), id="deflate"),
    pytest.param("deflate", bare_deflate(PLAIN), id="bare-deflate"),
    pytest.param("zstd", zstd.compress(PLAIN), id="zstd"),
    pytest.param(
        "zstd", zstd.compress(PLAIN[:9]) + zstd.compress(PLAIN[9:]), id="two-frames"
    ),
    pytest.param("identity", PLAIN, id="identity"),
    pytest.param("identity, gzip", gzip.compress(PLAIN), id="identity-and-gzip"),
]


@pytest.fixture(params=["direct http", "aiohttp http"])
async def transport(request: pytest.FixtureRequest) -> AsyncIterator[AnyTransport]:
    async with Client(request.param) as client:
        yield client.transport


def coded(coding: str, data: bytes) -> bytes:
    return sized(data, f"Content-Encoding: {coding}\r\n")


@pytest.mark.parametrize("coding, packed", PACKED)
async def test_plain_bytes_come_out(
    transport: AnyTransport, coding: str, packed: bytes
) -> None:
    async with upstream(replays(coded(coding, packed))) as server:
        reply = await post(transport, server.url)
        got = await reply.body(len(PLAIN))
        reply.close()

    assert PLAIN == got
    if packed != PLAIN:
        assert "content-encoding" not in reply.headers
        assert "content-length" not in reply.headers


async def test_a_bomb_gives_way_after_each_piece(
    transport: AnyTransport,
) -> None:
    """What others do comes in between, however much has arrived at once."""
    passes = 0
    at: list[int] = []
    loop = asyncio.get_running_loop()

    def count() -> None:
        nonlocal passes
        passes += 1
        counting.append(loop.call_soon(count))

    counting = [loop.call_soon(count)]
    zeros = gzip.compress(bytes(PIECE_BYTES * 40))
    async with upstream(replays(coded("gzip", zeros))) as server:
        reply = await post(transport, server.url)
        while await reply.read():
            at.append(passes)
        reply.close()
    counting[-1].cancel()

    assert 40 <= len(at) == len(set(at))


async def test_events_come_as_they_arrive(transport: AnyTransport) -> None:
    """Each event that was flushed upstream is handed out before the next is sent."""
    packer = zlib.compressobj(wbits=16 + zlib.MAX_WBITS)
    seen: asyncio.Queue[bytes] = asyncio.Queue()

    async def script(peer: Peer) -> None:
        await peer.answer(CHUNKED[:-2] + b"Content-Encoding: gzip\r\n\r\n")
        for i in range(5):
            event = b"data: %d\n\n" % i
            flushed = packer.compress(event) + packer.flush(zlib.Z_SYNC_FLUSH)
            await peer.send(chunk(flushed))
            assert event == await seen.get()
        await peer.send(chunk(packer.flush()) + LAST_CHUNK)
        await peer.gone()

    async with upstream(script) as server:
        reply = await post(transport, server.url)
        await reply.pump(seen.put_nowait)
        reply.close()

    assert seen.empty()


async def test_pump_holds_and_stops(transport: AnyTransport) -> None:
    held = []

    async def drain() -> None:
        held.append(len(held))

    def feed(piece: bytes) -> object:
        return drain() if not held else StopSignal.STOP

    async with upstream(replays(coded("gzip", gzip.compress(PLAIN)))) as server:
        reply = await post(transport, server.url)
        await reply.pump(feed)  # type: ignore[arg-type]
        reply.close()

    assert STOP is StopSignal.STOP
    assert [0] == held


@pytest.mark.parametrize(
    "coding, data, code",
    [
        pytest.param("gzip", b"no gzip at all", "upstream_malformed", id="not-gzip"),
        pytest.param("zstd", b"no zstd at all", "upstream_malformed", id="not-zstd"),
        pytest.param("gzip", gzip.compress(PLAIN)[:-9], "upstream_cut", id="gzip-cut"),
        pytest.param(
            "gzip", gzip.compress(PLAIN) + b"more", "upstream_malformed", id="behind"
        ),
        pytest.param("zstd", zstd.compress(PLAIN)[:-9], "upstream_cut", id="zstd-cut"),
    ],
)
async def test_broken_bodies(
    transport: AnyTransport, coding: str, data: bytes, code: str
) -> None:
    async with upstream(replays(coded(coding, data))) as server:
        reply = await post(transport, server.url)
        with pytest.raises(UpstreamError) as caught:
            await reply.body(10 * len(PLAIN))
        reply.close()

    assert code == caught.value.code


@pytest.mark.parametrize("coding", ["br", "gzip, zstd", "compress"])
async def test_unknown_coding(transport: AnyTransport, coding: str) -> None:
    async with upstream(replays(coded(coding, b"abc"))) as server:
        with pytest.raises(UpstreamError) as caught:
            await post(transport, server.url)

    assert "upstream_malformed" == caught.value.code
    assert coding[:4].strip(",") in caught.value.detail


async def test_limit_counts_plain_bytes(transport: AnyTransport) -> None:
    async with upstream(replays(coded("gzip", gzip.compress(PLAIN)))) as server:
        reply = await post(transport, server.url)
        with pytest.raises(UpstreamError) as caught:
            await reply.body(len(PLAIN) - 1)
        reply.close()

    assert "upstream_too_large" == caught.value.code


async def test_silence_limit_reaches_the_socket(transport: AnyTransport) -> None:
    answer = CHUNKED[:-2] + b"Content-Encoding: gzip\r\n\r\n"
    async with upstream(replays(answer)) as server:
        reply = await post(transport, server.url, idle_timeout_s=600)
        before = reply.idle_timeout_s
        reply.idle_timeout_s = 0.02
        with pytest.raises(UpstreamError) as caught:
            await reply.read()
        reply.close()

    assert 600 == before
    assert "upstream_idle" == caught.value.code


async def test_empty_body_was_not_compressed(transport: AnyTransport) -> None:
    async with upstream(replays(coded("gzip", b""))) as server:
        reply = await post(transport, server.url)
        got = await reply.read()
        reply.close()

    assert b"" == got
