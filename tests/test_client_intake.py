"""A body is read within its limits, decoded, and refused with a clear word."""

from __future__ import annotations

import asyncio
import gzip
import tracemalloc
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import orjson
import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestServer
from aiohttp.web_protocol import RequestHandler
from backports import zstd

from gateway.admission.body_room import BodyRooms
from gateway.client import intake
from gateway.client.connection import READ_BUFFER_BYTES
from gateway.client.intake import Intake
from gateway.content_coding import PIECE_BYTES, DecodeScheduler
from gateway.errors import ClientError

LIMIT = 100_000
ROOM = 10 * LIMIT
TEXT = orjson.dumps({"model": "m", "x": "y" * 5000})

Send = Callable[..., Awaitable[tuple[int, bytes]]]


@asynccontextmanager
async def reading(
    limit: int = LIMIT, rooms: BodyRooms | None = None
) -> AsyncIterator[TestServer]:
    """A server that answers with the body it read: 200, or status and message."""
    reader, rooms = Intake(DecodeScheduler()), rooms or BodyRooms()

    async def handle(request: web.Request) -> web.Response:
        with rooms.enter("alice", ROOM) as share:
            try:
                data = await reader.read(request, share, limit)
            except ClientError as error:
                return web.Response(status=error.status, text=error.message)
            assert share.complete and len(data) == share.size
            return web.Response(body=data)

    async def ask_nothing(request: web.Request) -> None:
        """The body is asked for when it is read."""

    app = web.Application(
        handler_args={"auto_decompress": False, "read_bufsize": READ_BUFFER_BYTES}
    )
    app.router.add_post("/", handle, expect_handler=ask_nothing)
    async with TestServer(app) as server:
        yield server


async def sent(data: object, limit: int = LIMIT, **headers: str) -> tuple[int, bytes]:
    """What is made of *data*."""
    async with reading(limit) as server, ClientSession() as session:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with session.post(
            server.make_url("/"), data=data, headers=named, compress=None
        ) as response:
            return response.status, await response.read()


async def slowly(data: bytes, size: int) -> AsyncIterator[bytes]:
    for i in range(0, len(data), size):
        yield data[i : i + size]
        await asyncio.sleep(0)


ENCODED = [
    pytest.param("", TEXT, id="none"),
    pytest.param("identity", TEXT, id="identity"),
    pytest.param("gzip", gzip.compress(TEXT), id="gzip"),
    pytest.param("x-gzip", gzip.compress(TEXT), id="x-gzip"),
    pytest.param(
        "gzip", gzip.compress(TEXT[:9]) + gzip.compress(TEXT[9:]), id="two-members"
    ),
    pytest.param("deflate", zlib.compress(TEXT), id="deflate"),
    pytest.param("zstd", zstd.compress(TEXT), id="zstd"),
    pytest.param(
        "zstd", zstd.compress(TEXT[:9]) + zstd.compress(TEXT[9:]), id="two-frames"
    ),
    pytest.param("ZSTD", zstd.compress(TEXT), id="capitals"),
]


@pytest.mark.parametrize("chunks", [False, True], ids=["at-once", "in-chunks"])
@pytest.mark.parametrize(("encoding", "data"), ENCODED)
async def test_every_encoding_gives_the_same_bytes(
    encoding: str, data: bytes, chunks: bool
) -> None:
    body = slowly(data, 7) if chunks else data

    assert (200, TEXT) == await sent(body, Content_Encoding=encoding)


@pytest.mark.parametrize("size", [1, 2, 5, 8, 20])
@pytest.mark.parametrize("chunks", [False, True], ids=["at-once", "in-chunks"])
async def test_what_is_joined_and_what_is_buffered_are_the_same(
    monkeypatch: pytest.MonkeyPatch, size: int, chunks: bool
) -> None:
    """By the number of bytes and of pieces."""
    monkeypatch.setattr(intake, "JOINED_BYTES", 20_000)
    monkeypatch.setattr(intake, "JOINED_PIECES", 2)
    data = bytes(range(256)) * 16 * size

    assert (200, data) == await sent(slowly(data, 3000) if chunks else data)


async def test_what_has_its_room_is_read_without_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """But for the one that comes with the head, before the body is asked for."""
    paused, pause = [], RequestHandler.pause_reading

    def counted(connection: RequestHandler) -> None:
        paused.append(connection)
        pause(connection)

    monkeypatch.setattr(RequestHandler, "pause_reading", counted)
    data = bytes(range(256)) * 3500

    assert (200, data) == await sent(data, limit=len(data))
    assert len(paused) <= 1


@pytest.mark.parametrize(
    ("encoding", "data", "status"),
    [
        pytest.param("gzip", TEXT, 400, id="no-gzip"),
        pytest.param("zstd", TEXT, 400, id="no-zstd"),
        pytest.param("gzip", gzip.compress(TEXT)[:-9], 400, id="gzip-cut"),
        pytest.param("zstd", zstd.compress(TEXT)[:-3], 400, id="zstd-cut"),
        pytest.param("gzip", b"", 400, id="gzip-empty"),
        pytest.param("gzip", gzip.compress(TEXT) + b"more", 400, id="gzip-more"),
        pytest.param("deflate", zlib.compress(TEXT) + b"more", 400, id="deflate-more"),
        pytest.param("zstd", zstd.compress(TEXT) + b"more", 400, id="zstd-more"),
        pytest.param("br", TEXT, 415, id="unknown"),
        pytest.param("gzip, zstd", TEXT, 415, id="two"),
        pytest.param("", b"x" * (LIMIT + 1), 413, id="large"),
        pytest.param("gzip", gzip.compress(bytes(10**7)), 413, id="gzip-bomb"),
        pytest.param("zstd", zstd.compress(bytes(10**7)), 413, id="zstd-bomb"),
    ],
)
async def test_what_lies_or_is_too_large_is_refused(
    encoding: str, data: bytes, status: int
) -> None:
    got, message = await sent(data, Content_Encoding=encoding)

    assert status == got
    if status == 413:
        assert str(LIMIT).encode() in message


# --- bombs ---


BOMBS = [
    pytest.param("gzip", gzip.compress(bytes(100_000_000)), id="gzip"),
    pytest.param("deflate", zlib.compress(bytes(100_000_000)), id="deflate"),
    pytest.param("zstd", zstd.compress(bytes(500_000_000)), id="zstd"),
    pytest.param("zstd", zstd.compress(bytes(500_000)) * 1000, id="zstd-frames"),
]


@pytest.mark.parametrize(("encoding", "data"), BOMBS)
async def test_a_bomb_takes_no_more_memory_than_its_limit(
    encoding: str, data: bytes
) -> None:
    limit = 8 * 1024 * 1024
    async with reading(limit) as server, ClientSession() as session:
        url, headers = server.make_url("/"), {"Content-Encoding": encoding}
        async with session.post(url, data=b"", headers=headers):
            pass  # what is imported and cached at the first request
        tracemalloc.start()
        try:
            async with session.post(url, data=data, headers=headers) as response:
                status = response.status
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert 413 == status
    # A buffer that grows asks for an eighth more than it uses yet.
    assert peak < limit * 9 / 8 + 1024 * 1024


async def test_a_hundred_steps_of_decoding_give_way_a_hundred_times() -> None:
    """Between two pieces of bombs that arrived at once the loop makes a pass."""
    loop, passes = asyncio.get_running_loop(), 0
    per_pass: dict[int, int] = {}
    rooms = BodyRooms()
    enter = rooms.enter

    def watched(user: str, max_bytes: int):  # type: ignore[no-untyped-def]
        share = enter(user, 10**9)
        return Watched(share)

    class Watched:
        def __init__(self, share: object) -> None:
            self._share = share

        def take(self, size: int) -> None:
            per_pass[passes] = per_pass.get(passes, 0) + size
            self._share.take(size)  # type: ignore[attr-defined]

        def __enter__(self) -> Watched:
            return self

        def __exit__(self, *error: object) -> None:
            self._share.release()  # type: ignore[attr-defined]

        def __getattr__(self, name: str) -> object:
            return getattr(self._share, name)

    def count() -> None:
        nonlocal passes
        passes += 1
        counting.append(loop.call_soon(count))

    rooms.enter = watched  # type: ignore[method-assign]
    bomb = zstd.compress(bytes(10**8))
    async with reading(100 * PIECE_BYTES, rooms) as server, ClientSession() as session:
        counting = [loop.call_soon(count)]

        async def bombed() -> int:
            async with session.post(
                server.make_url("/"), data=bomb, headers={"Content-Encoding": "zstd"}
            ) as response:
                return response.status

        statuses = await asyncio.gather(*(bombed() for _ in range(5)))
        counting[-1].cancel()

    assert [413] * 5 == statuses
    # The first step of each body is free, those after it share one a pass.
    assert max(per_pass.values()) <= 6 * PIECE_BYTES
    assert sum(size > 2 * PIECE_BYTES for size in per_pass.values()) <= 2
    assert len(per_pass) > 400


# --- silence ---


async def test_a_silent_body_is_a_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "SILENCE_S", 0.05)
    monkeypatch.setattr(intake, "LAST_LOOK_S", 0.05)
    gate = asyncio.Event()

    async def half() -> AsyncIterator[bytes]:
        yield TEXT[:100]
        await gate.wait()

    status, message = await sent(half())
    gate.set()

    assert 408 == status
    assert b"did not arrive" in message


async def test_a_slow_but_steady_body_takes_as_long_as_it_likes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Longer in all than the longest silence, by far."""
    monkeypatch.setattr(intake, "SILENCE_S", 2.0)

    async def steady() -> AsyncIterator[bytes]:
        for i in range(0, len(TEXT), 500):
            yield TEXT[i : i + 500]
            await asyncio.sleep(0.25)

    assert (200, TEXT) == await sent(steady())


# --- Expect ---


async def test_a_client_that_waits_is_asked_for_its_body() -> None:
    async with reading() as server, ClientSession() as session:
        async with session.post(
            server.make_url("/"), data=TEXT, expect100=True
        ) as response:
            assert TEXT == await response.read()


@pytest.mark.parametrize(
    ("line", "status"),
    [
        pytest.param(b"content-length: 200000", b"413", id="too-large"),
        pytest.param(
            b"content-length: 10\r\ncontent-encoding: br", b"415", id="unknown-coding"
        ),
    ],
)
async def test_a_client_that_waits_is_refused_before_it_is_asked(
    line: bytes, status: bytes
) -> None:
    async with reading() as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(
            b"POST / HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\n"
            + line
            + b"\r\n\r\n"
        )
        answer = await reader.readline()
        writer.close()

    assert b"HTTP/1.1 " + status in answer
