"""
A raw TCP server for the tests of the transport: a script for each connection.

Of HTTP it knows the end of a request and ``CONNECT``, so a script can write what no
HTTP server would. It is the upstream and the proxy in one: a connection by a proxy
reaches the same socket, and the script's bytes and resets arrive as they were written.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import ssl
import struct
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import (
    AbstractAsyncContextManager,
    asynccontextmanager,
    contextmanager,
    suppress,
)
from functools import cache
from typing import Any, NamedTuple

import trustme
from yarl import URL

from gateway.transport.connection_pool import ConnectionPool
from gateway.transport.dialing import Dialer
from gateway.transport.http_transport import HttpTransport
from gateway.transport.interface import UpstreamResponse
from gateway.transport.request import Origin, Proxy
from tests.aiohttp_transport import AiohttpTransport

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

    async def open_tunnel(self) -> bytes:
        """Read a ``CONNECT``, say that the tunnel is open, and return what was read."""
        head = await self.head()
        assert head.startswith(b"CONNECT "), head
        await self.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
        return head

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
    *scripts: Script,
    tls: ssl.SSLContext | None = None,
    way: str = "direct",
) -> AsyncIterator[Upstream]:
    """
    Play the first script on the first connection, … the last on all that follow.

    Args:
        tls: of the upstream.
        way: how connections come; with a tunnel the script begins inside it.
    """

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        script = scripts[min(len(seen.peers), len(scripts) - 1)]
        seen.peers.append(peer)
        done = asyncio.get_running_loop().create_future()
        seen.scripts.append(done)
        try:
            if "tunnel" in way:
                await peer.open_tunnel()
                if tls:
                    await writer.start_tls(tls)
            await script(peer)
            done.set_result(None)
        except Exception as exc:
            done.set_exception(exc)
            done.exception()  # not every test cares
        finally:
            writer.close()

    outer = tls if way == "direct" else None
    if "tls-proxy" in way:
        outer = server_tls("127.0.0.1")
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=outer)
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


@contextmanager
def no_crash_of_ours() -> Iterator[None]:
    """Fail if a callback of the gateway's raises, which the loop only logs."""

    def note(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        trace = traceback.extract_tb(error.__traceback__) if error else []
        if any(f"{os.sep}gateway{os.sep}" in frame.filename for frame in trace):
            crashes.append(error)

    crashes: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(note)
    yield
    loop.set_exception_handler(None)
    assert crashes == []


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


@cache
def server_tls(*names: str, newest: bool = True) -> ssl.SSLContext:
    """A server's side, with a certificate of ``AUTHORITY`` for *names*."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(*names).configure_cert(context)
    if not newest:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context


@cache
def client_tls() -> ssl.SSLContext:
    """A client's side that trusts ``AUTHORITY`` alone."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    AUTHORITY.configure_trust(context)
    return context


class Client:
    """
    A transport, and the way by which it reaches the scripted upstream.

    Args:
        kind: one of ``KINDS``.
    """

    def __init__(self, kind: str) -> None:
        way, _, scheme = kind.partition(" ")
        self.way = way
        self.has_tls = scheme == "https"
        self.transport: AnyTransport = self.own_transport(client_tls())
        if way == "aiohttp":
            self.transport = AiohttpTransport(client_tls())
        self.open = self.transport.open
        self.stop = self.transport.stop

    async def __aenter__(self) -> Client:
        self._checks = no_crash_of_ours()
        self._checks.__enter__()
        return self

    async def __aexit__(self, *raised: Any) -> None:
        await self.stop()
        self._checks.__exit__(None, None, None)

    def own_transport(self, tls: ssl.SSLContext) -> HttpTransport:
        """The gateway's transport on this way, with other authorities."""
        pool = ConnectionPool(Dialer(tls))
        return HttpTransport(pool, proxy_of=None if self.is_direct else self._proxy_of)

    @property
    def own(self) -> HttpTransport:
        """The gateway's transport."""
        assert isinstance(self.transport, HttpTransport)
        return self.transport

    @property
    def is_direct(self) -> bool:
        return self.way in ("direct", "aiohttp")

    def upstream(
        self, *scripts: Script, **changes: Any
    ) -> AbstractAsyncContextManager[Upstream]:
        """As ``upstream``, by the way and with the TLS of this client."""
        tls = server_tls("127.0.0.1") if self.has_tls else None
        way = "direct" if self.is_direct else self.way
        return upstream(*scripts, **{"tls": tls, "way": way} | changes)

    def request_target(self, url: URL) -> str:
        """What the first line of a request names."""
        return str(url) if "forward" in self.way else url.raw_path_qs

    def _proxy_of(self, url: URL) -> Proxy:
        scheme = "https" if "tls-proxy" in self.way else "http"
        return Proxy(Origin(scheme, url.raw_host or "", url.port or 0))


OWN_KINDS = (
    "direct http",
    "direct https",
    "forward http",
    "forward-tls-proxy http",
    "tunnel https",
    "tunnel-tls-proxy https",
)
"""The ways of the gateway's own transport."""

KINDS = (*OWN_KINDS, "aiohttp http", "aiohttp https")
"""Beside them aiohttp's client: the promises are not habits of our own code."""


async def post(
    transport: AnyTransport | Client,
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
