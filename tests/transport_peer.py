"""
A raw TCP server for the tests of the transport: a script for each connection.

Nothing of HTTP is checked or made here but the end of a request, so a script can
write what no HTTP server would.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import NamedTuple

import trustme
from yarl import URL

from gateway.transport.aiohttp_transport import AiohttpTransport
from gateway.transport.connection_pool import ConnectionPool
from gateway.transport.dialing import Dialer
from gateway.transport.http_transport import HttpTransport
from gateway.transport.interface import UpstreamResponse

AUTHORITY = trustme.CA()
AnyTransport = HttpTransport | AiohttpTransport


class Request(NamedTuple):
    """A request as it came."""

    head: bytes
    body: bytes


class Peer:
    """One accepted connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.reader = reader
        self.writer = writer

    async def head(self) -> bytes:
        return await self.reader.readuntil(b"\r\n\r\n")

    async def request(self) -> Request:
        head = await self.head()
        length = re.search(rb"(?i)content-length: (\d+)", head)
        body = await self.reader.readexactly(int(length[1]) if length else 0)
        return Request(head, body)

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, data: bytes) -> Request:
        """Read a request and write *data*."""
        request = await self.request()
        await self.send(data)
        return request

    def close(self) -> None:
        self.writer.close()

    def reset(self) -> None:
        """Close with RST."""
        sock = self.writer.get_extra_info("socket")
        linger = struct.pack("ii", 1, 0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Wait until the other side has closed or reset the connection."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass


Script = Callable[[Peer], Awaitable[None]]


class Upstream:
    """What the server at ``url`` saw."""

    def __init__(self, url: URL) -> None:
        self.url = url
        self.peers: list[Peer] = []
        self.scripts: list[asyncio.Future[None]] = []

    @property
    def connections(self) -> int:
        return len(self.peers)

    async def played(self) -> None:
        """Wait for the scripts' ends; raises what went wrong in one."""
        await asyncio.gather(*self.scripts)


@asynccontextmanager
async def upstream(
    *scripts: Script, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Upstream]:
    """Play the first script on the first connection, … the last on all that follow."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        script = scripts[min(len(seen.peers), len(scripts) - 1)]
        seen.peers.append(peer)
        done = asyncio.get_running_loop().create_future()
        seen.scripts.append(done)
        try:
            await script(peer)
            done.set_result(None)
        except Exception as exc:
            done.set_exception(exc)
            done.exception()  # not every test cares
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    port = server.sockets[0].getsockname()[1]
    seen = Upstream(URL(f"{'https' if tls else 'http'}://127.0.0.1:{port}/v1/x"))
    try:
        yield seen
    finally:
        server.close()
        for peer in seen.peers:
            with suppress(AttributeError):  # a closed one with TLS, Python 3.11.2
                peer.writer.transport.abort()
        await asyncio.gather(*seen.scripts, return_exceptions=True)
        await asyncio.sleep(0)


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop run until *condition* holds."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def replays(*answers: bytes) -> Script:
    """Answer one request after another, then wait for the other side to leave."""

    async def script(peer: Peer) -> None:
        for data in answers:
            await peer.answer(data)
        await peer.gone()

    return script


def closes_after(data: bytes) -> Script:
    """Answer one request and close the connection."""

    async def script(peer: Peer) -> None:
        await peer.answer(data)
        peer.close()

    return script


def sized(body: bytes, more: str = "", status: str = "200 OK") -> bytes:
    """A whole answer with its length."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode() + body


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def server_tls(*names: str) -> ssl.SSLContext:
    """A server's side, with a certificate of ``AUTHORITY`` for *names*."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(*names).configure_cert(context)
    return context


def client_tls() -> ssl.SSLContext:
    """A client's side that trusts ``AUTHORITY``."""
    context = ssl.create_default_context()
    AUTHORITY.configure_trust(context)
    return context


def make_transport(kind: str) -> AnyTransport:
    """The implementation named *kind*."""
    if kind == "direct":
        return HttpTransport(client_tls(), ConnectionPool(Dialer(client_tls())))
    return AiohttpTransport(client_tls())


async def post(
    transport: AnyTransport,
    url: URL,
    body: bytes = b"{}",
    headers: tuple[tuple[str, str], ...] = (),
    *,
    method: str = "POST",
    idle_timeout_s: float = 5.0,
    connect_timeout_s: float = 5.0,
) -> UpstreamResponse:
    return await transport.open(
        method,
        url,
        headers,
        body,
        connect_timeout_s=connect_timeout_s,
        idle_timeout_s=idle_timeout_s,
    )
