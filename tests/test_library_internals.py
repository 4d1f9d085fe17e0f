"""
Canaries: a library's inside that we rely on has not changed.

Each test here guards one private or undocumented thing that the gateway touches. When a
new version of a library breaks one, the file that touches it must be read again before
the upper bound in ``setup.cfg`` is raised.
"""

from __future__ import annotations

import ast
import asyncio
import contextvars
import importlib
import inspect
import os
import re
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from configparser import ConfigParser
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
import uvloop
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong

from gateway.client.connection import ClientConnection, malformed
from gateway.client.framing import JOIN_BYTES, FramedStream, send_whole
from gateway.daemon.http_server import HttpRunner
from gateway.errors import CODES
from gateway.transport.connection_pool import ConnectionPool
from gateway.transport.dialing import Dialer
from gateway.transport.http_transport import HttpTransport
from tests.transport_peer import Peer, client_tls, post, sized, upstream

HEADERS = {
    "Server": "gateway",
    "Content-Type": "text/event-stream",
    "x-request-id": "0123456789",
}
PIECES = (b"data: 1\n\n", b"data: 2\n\n" * 3, b"data: [DONE]\n\n")
LARGE = b"data: " + b"x" * JOIN_BYTES + b"\n\n"

Answer = Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]


def streams(pieces: tuple[bytes, ...], *, ours: bool) -> Answer:
    """A handler that writes *pieces* by our own framing, or by aiohttp's."""

    async def framed(request: web.BaseRequest) -> web.StreamResponse:
        response = FramedStream()
        response.begin(request, HEADERS)
        for index, piece in enumerate(pieces):
            if response.put(piece, last=index == len(pieces) - 1):
                await response.drain()
        return response

    async def plain(request: web.BaseRequest) -> web.StreamResponse:
        response = web.StreamResponse(headers=HEADERS)
        if request.version.minor:
            response.enable_chunked_encoding()
        await response.prepare(request)
        for piece in pieces:
            await response.write(piece)
        await response.write_eof()
        return response

    return framed if ours else plain


def wholes(body: bytes, *, ours: bool) -> Answer:
    """A handler that answers with a whole JSON *body*."""
    headers = {"Server": "gateway", "x-request-id": "0123456789"}

    async def framed(request: web.BaseRequest) -> web.StreamResponse:
        return await send_whole(request, headers, body)

    async def plain(request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(headers=headers, body=body, content_type="application/json")

    return framed if ours else plain


async def bytes_of(answer: Answer, requests: bytes) -> bytes:
    """All that a server with this handler writes for *requests*, then closes."""
    return await bytes_from(web.ServerRunner(web.Server(answer)), requests)


async def bytes_from(runner: web.BaseRunner, requests: bytes) -> bytes:
    """All that *runner* writes for *requests*, then closes."""
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(requests)
        data = await reader.read()
        writer.close()
        return data
    finally:
        await runner.cleanup()


def comparable(wire: bytes) -> list[tuple[list[bytes], bytes]]:
    """Each answer as its status, its headers without an order, and its body's bytes."""
    dated = re.sub(rb"Date: [^\r]+", b"Date: now", wire)
    found = []
    for one in re.split(rb"(?=HTTP/1\.[01] )", dated)[1:]:
        head, _, body = one.partition(b"\r\n\r\n")
        status, *fields = head.split(b"\r\n")
        found.append(([status, *sorted(fields)], body))
    return found


def asked(version: str = "1.1", close: bool = True) -> bytes:
    end = "Connection: close\r\n" if close and version == "1.1" else ""
    return f"POST / HTTP/{version}\r\nHost: x\r\n{end}\r\n".encode()


REQUESTS = [
    pytest.param(asked(), 1, id="one"),
    pytest.param(asked(close=False) + asked(), 2, id="kept-alive"),
    pytest.param(asked("1.0"), 1, id="http-1.0"),
]


@pytest.mark.parametrize(("requests", "count"), REQUESTS)
@pytest.mark.parametrize(
    "pieces",
    [
        pytest.param(PIECES, id="pieces"),
        pytest.param(PIECES[:1], id="one-piece"),
        pytest.param((LARGE, PIECES[0]), id="a-large-piece-first"),
        pytest.param((PIECES[0], LARGE), id="a-large-piece-last"),
    ],
)
async def test_our_stream_is_byte_for_byte_what_aiohttp_writes(
    pieces: tuple[bytes, ...], requests: bytes, count: int
) -> None:
    ours = comparable(await bytes_of(streams(pieces, ours=True), requests))
    theirs = comparable(await bytes_of(streams(pieces, ours=False), requests))

    assert len(ours) == count
    assert ours == theirs


@pytest.mark.parametrize(("requests", "count"), REQUESTS)
@pytest.mark.parametrize(
    "body", [pytest.param(b"{}", id="small"), pytest.param(LARGE, id="large")]
)
async def test_our_whole_answer_is_byte_for_byte_what_aiohttp_writes(
    body: bytes, requests: bytes, count: int
) -> None:
    ours = comparable(await bytes_of(wholes(body, ours=True), requests))
    theirs = comparable(await bytes_of(wholes(body, ours=False), requests))

    assert len(ours) == count
    assert ours == theirs


async def test_aiohttp_writes_no_error_page_behind_what_we_wrote() -> None:
    """It looks at ``output_size``, which we set."""

    async def breaks(request: web.BaseRequest) -> web.StreamResponse:
        response = FramedStream()
        response.begin(request, HEADERS)
        response.put(PIECES[0])
        raise RuntimeError

    wire = await bytes_of(breaks, asked())

    assert wire.count(b"HTTP/1.1 ") == 1


async def test_aiohttp_does_not_complete_a_body_that_we_have_not_ended() -> None:
    """It awaits ``write_eof`` of what a handler returns, which then cuts it off."""

    async def stops(request: web.BaseRequest) -> web.StreamResponse:
        response = FramedStream()
        response.begin(request, HEADERS)
        response.put(PIECES[0])
        return response

    wire = await bytes_of(stops, asked(close=False))

    assert not wire.endswith(b"0\r\n\r\n")


async def test_aiohttp_ends_the_connection_of_a_client_of_http_1_0() -> None:
    """Only the end of the connection ends its stream, whatever it asks for."""
    request = b"POST / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n"
    wire = await asyncio.wait_for(bytes_of(streams(PIECES, ours=True), request), 5)

    assert wire.endswith(b"\r\n\r\n" + b"".join(PIECES))


async def test_a_whole_answer_keeps_the_connection_of_a_client_of_http_1_0() -> None:
    request = b"POST / HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n"
    ours, theirs = [
        comparable(await bytes_of(wholes(b"{}", ours=ours), request + asked("1.0")))
        for ours in (True, False)
    ]

    assert len(ours) == 2
    assert ours == theirs


# --- what of aiohttp's own classes is used under a private name ---------------------

USED = {
    ("gateway.client.connection", "ClientConnection"): {
        *("_messages", "_waiter", "_request_count", "_upgraded", "_lingering_time"),
        *("_loop", "_parser", "_keepalive_handle", "_next_keepalive_close_time"),
    },
    ("gateway.daemon.http_server", "HttpRunner"): {"_make_server"},
}
IMPORTED = {("gateway.client.connection", "_ErrInfo")}
PRIVATE = re.compile(r"(?:self|super\(\))\.(_[a-z]\w*)")


def modules() -> Iterator[ModuleType]:
    """The modules of the gateway that import aiohttp."""
    root = Path(__file__).parents[1]
    for path in sorted((root / "gateway").rglob("*.py")):
        if "aiohttp" in path.read_text("utf-8"):
            parts = path.relative_to(root).with_suffix("").parts
            yield importlib.import_module(".".join(parts))


def private_names(classes: Iterable[type]) -> set[str]:
    """The private attributes and methods that *classes* have or use."""
    found: set[str] = set()
    for one in classes:
        found |= {*vars(one), *vars(one).get("__slots__", ())}
        found |= set(PRIVATE.findall(inspect.getsource(one)))
    return {name for name in found if re.match("_[a-z]", name)} - {"_abc_impl"}


def test_private_names_of_aiohttp_are_used_by_these_classes_alone() -> None:
    """And each of the names is still there."""
    used = {}
    for module in modules():
        for name, one in vars(module).items():
            if not (inspect.isclass(one) and one.__module__ == module.__name__):
                continue
            theirs = [base for base in one.__mro__ if "aiohttp" in base.__module__]
            if both := private_names([one]) & private_names(theirs):
                used[module.__name__, name] = both

    assert used == USED


def test_private_names_of_aiohttp_are_imported_by_these_files_alone() -> None:
    imported = {
        (module.__name__, alias.name)
        for module in modules()
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.ImportFrom)
        and (node.module or "").startswith("aiohttp")
        for alias in node.names
        if alias.name.startswith("_")
    }

    assert imported == IMPORTED


async def test_connections_are_our_own() -> None:
    """``AppRunner`` makes its server by a method that we override."""
    seen: list[type] = []

    async def look(request: web.Request) -> web.Response:
        seen.append(type(request.protocol))
        return web.Response()

    app = web.Application()
    app.router.add_post("/", look)
    runner = HttpRunner(app, lambda head, error: web.Response(status=400))
    await bytes_from(runner, asked())

    assert seen == [ClientConnection]


def test_the_parsers_words_for_a_large_head_are_known() -> None:
    """The first of them tells a head that is too large from a malformed one."""
    many = malformed(BadHttpMessage("Too many headers received"))
    long = malformed(LineTooLong(b"x", 10))
    other = malformed(BadHttpMessage("Bad:\n\n  b'secret'\n  ^"))

    assert [many.code, long.code] == ["head_too_large"] * 2
    assert (other.code, other.detail) == ("invalid_request", "BadHttpMessage: Bad")
    assert CODES["head_too_large"].status == 431


def loaded_by(code: str) -> set[str]:
    """The modules of a process that runs *code*."""
    return set(
        subprocess.run(
            [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.split()
    )


def test_what_serves_loads_neither_rich_nor_postgresql() -> None:
    """structlog and SQLAlchemy would load them by themselves."""
    loaded = loaded_by("import gateway.daemon.server")

    assert {"structlog", "sqlalchemy"} <= loaded
    assert not {"rich", "sqlalchemy.dialects.postgresql"} & loaded


def test_a_config_is_read_without_what_serves() -> None:
    """The parent listens as soon as it is read, and a mistake in it is said at once."""
    loaded = loaded_by("import gateway.commands.worker")

    assert "gateway.config.load" in loaded
    assert not {"aiohttp", "sqlalchemy", "gateway.daemon.server"} & loaded


def test_aiohttp_s_client_reads_no_authorities() -> None:
    """It would at its import, twice; what comes behind it reads them as before."""
    code = """
from gateway.daemon import aiohttp_alone
aiohttp_alone.load()
import ssl
from aiohttp.connector import _SSL_CONTEXT_UNVERIFIED, _SSL_CONTEXT_VERIFIED
made = []
class Context(ssl.SSLContext):
    def set_default_verify_paths(self):
        made.append(self)
        super().set_default_verify_paths()
Context(ssl.PROTOCOL_TLS_CLIENT).set_default_verify_paths()
assert made and "set_default_verify_paths" not in vars(ssl.SSLContext)
for context in (_SSL_CONTEXT_VERIFIED, _SSL_CONTEXT_UNVERIFIED):
    assert context.cert_store_stats()["x509"] == 0
assert _SSL_CONTEXT_VERIFIED.verify_mode is ssl.CERT_REQUIRED
"""
    assert "aiohttp.web" in loaded_by(code)


# --- what of other libraries is used ------------------------------------------------


CALLER: contextvars.ContextVar[str] = contextvars.ContextVar("CALLER", default="none")


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    tls = client_tls()
    transport = HttpTransport(ConnectionPool(Dialer(tls)))
    yield transport
    await transport.stop()


async def test_a_socket_s_callbacks_run_in_the_context_of_their_own_request(
    transport: HttpTransport,
) -> None:
    """Not of the one that opened the connection: a log line would have its id."""

    async def script(peer: Peer) -> None:
        for _ in range(2):
            await peer.request()
            await peer.send(sized(b"{}"))
        await peer.gone()

    async def ask(name: str) -> list[str]:
        CALLER.set(name)
        reply = await post(transport, server.url)
        seen: list[str] = []

        def feed(piece: bytes) -> None:
            seen.append(CALLER.get())

        await reply.pump(feed)
        reply.close()
        return seen

    async with upstream(script) as server:
        for name in ("first", "second"):
            seen = await asyncio.create_task(ask(name))

            assert set(seen) == {name}


@pytest.mark.parametrize("new_loop", [uvloop.new_event_loop, asyncio.new_event_loop])
def test_a_loop_closes_a_socket_after_it_has_reported_the_loss(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """Until then an answer that it has not read can be read by the descriptor."""

    class Reads(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.descriptor = transport.get_extra_info("socket").fileno()
            self.lost = asyncio.get_running_loop().create_future()

        def connection_lost(self, exc: Exception | None) -> None:
            self.lost.set_result(os.read(self.descriptor, 100))

    async def run() -> bytes:
        ours, theirs = socket.socketpair()
        with theirs:
            loop = asyncio.get_running_loop()
            transport, protocol = await loop.create_connection(Reads, sock=ours)
            transport.pause_reading()
            theirs.sendall(b"HTTP/1.1 413")
            transport.abort()
            return await protocol.lost

    with asyncio.Runner(loop_factory=new_loop) as runner:
        assert runner.run(run()) == b"HTTP/1.1 413"


@pytest.mark.parametrize(
    ("name", "below"), [("aiohttp", (3, 15)), ("genai-prices", (0, 3))]
)
def test_a_library_whose_inside_we_use_has_an_upper_bound(
    name: str, below: tuple[int, int]
) -> None:
    setup = ConfigParser()
    setup.read(Path(__file__).parents[1] / "setup.cfg")
    [line] = [
        line
        for line in setup["options"]["install_requires"].splitlines()
        if line.startswith(f"{name} ")
    ]
    major, minor, *_ = version(name).split(".")

    assert line.endswith(f", < {below[0]}.{below[1]}")
    assert (int(major), int(minor)) < below
