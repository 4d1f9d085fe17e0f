"""One connection of a client: what of aiohttp's is let go between two requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from gateway.client.connection import ClientConnection, Head
from gateway.daemon import http_server
from gateway.daemon.http_server import HttpServer
from gateway.errors import GatewayError

FIRST = b"POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\none\r\n\n"
CHUNKED = (
    b"POST /b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"4\r\ntwo\n\r\n0\r\n\r\n"
)
LAST = b"POST /c HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n\r\n\r\nthree"
NO_BODY = b"GET /d HTTP/1.1\r\nHost: x\r\n\r\n"
BODIES = [b"one\r\n\n", b"two\n", b"\r\n\r\nthree", b"-"]


class Written(asyncio.Transport):
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.data = b""
        self.closed = False

    def write(self, data: Any) -> None:
        self.data += bytes(data)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def pause_reading(self) -> None:
        """Nothing is read."""

    def resume_reading(self) -> None:
        """Nothing is read."""


class Asked:
    """A connection whose requests are answered with their bodies."""

    def __init__(self, connection: ClientConnection, transport: Written) -> None:
        self.connection = connection
        self.transport = transport

    async def bodies(self, count: int) -> list[bytes]:
        """The bodies of *count* answers, once they are there."""
        async with asyncio.timeout(10):
            while self.transport.data.count(b"HTTP/1.1 200") < count:
                await asyncio.sleep(0)
        answers = self.transport.data.split(b"HTTP/1.1 ")[1:]
        return [answer.partition(b"\r\n\r\n")[2] for answer in answers]

    async def feed(self, data: bytes) -> None:
        """A read brings *data*; the loop goes on meanwhile."""
        self.connection.data_received(data)
        for _ in range(3):
            await asyncio.sleep(0)

    @property
    def has_parser(self) -> bool:
        return self.connection._parser is not None


async def echo(request: web.BaseRequest) -> web.StreamResponse:
    return web.Response(body=await request.read() or b"-")


def refuse(head: Head, error: GatewayError) -> web.Response:
    return web.Response(status=error.status)


def connect(server: HttpServer) -> Asked:
    connection, transport = server(), Written()
    assert isinstance(connection, ClientConnection)
    connection.connection_made(transport)
    return Asked(connection, transport)


@pytest.fixture
async def server() -> AsyncIterator[HttpServer]:
    server = HttpServer(web.Server(echo), refuse)
    yield server
    await server.shutdown(1)


async def test_what_is_pipelined_is_answered_wherever_a_read_ends(
    server: HttpServer,
) -> None:
    """A parser that is let go too early would lose the beginning of a request."""
    data = FIRST + CHUNKED + LAST + NO_BODY
    for at in range(1, len(data)):
        asked = connect(server)
        await asked.feed(data[:at])
        await asked.feed(data[at:])

        assert await asked.bodies(4) == BODIES, at
        asked.connection.connection_lost(None)


async def test_a_parser_is_let_go_behind_a_whole_request(server: HttpServer) -> None:
    """With the bytes of its head; the next request gets a new one."""
    asked = connect(server)
    for count, (data, body) in enumerate([(FIRST, 0), (NO_BODY, 3), (LAST, 2)] * 2):
        head, end = data.split(b"\r\n\r\n", 1)
        await asked.feed(head + b"\r\n\r\n" + end[:1])
        assert asked.has_parser == bool(end)
        if end:
            await asked.feed(end[1:])
        assert not asked.has_parser
        assert (await asked.bodies(count + 1))[-1] == BODIES[body]

    await asked.feed(FIRST + NO_BODY[:3])
    assert asked.has_parser
    await asked.feed(NO_BODY[3:])
    assert (await asked.bodies(8))[-2:] == [BODIES[0], BODIES[3]]


async def test_one_timer_looks_for_all_idle_connections(
    server: HttpServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_server, "IDLE_TIMEOUT_S", 0.1)
    idle, busy = connect(server), connect(server)
    await busy.feed(FIRST[:-1])  # its handler waits for the body
    async with asyncio.timeout(10):
        while not idle.transport.closed:
            await asyncio.sleep(0.01)

    assert not busy.transport.closed
    for one in (idle, busy):
        one.connection.connection_lost(None)
    assert not server.connected and server._look is None
