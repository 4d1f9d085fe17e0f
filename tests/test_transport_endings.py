"""Where an answer ends: nothing behind it counts, and nothing before it is lost."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, cast

import pytest
import uvloop
from yarl import URL

from gateway.transport import socket_state
from gateway.transport.connection import Connection
from gateway.transport.connection_pool import ConnectionPool
from gateway.transport.dialing import Dialer
from gateway.transport.http_transport import HttpTransport
from gateway.transport.request import Origin, Route
from gateway.transport.socket_state import left_in_socket
from tests.transport_peer import (
    CHUNKED,
    LAST_CHUNK,
    OWN_KINDS,
    Client,
    Peer,
    chunk,
    client_tls,
    post,
    replays,
    server_tls,
    sized,
    until,
    upstream,
)


def direct() -> HttpTransport:
    return HttpTransport(ConnectionPool(Dialer(client_tls())))


BEHIND = {
    "event": b"data: [DONE]\n\n",
    "event-after-blank-line": b"\r\ndata: [DONE]\n\n",
    "chunk": chunk(b"data: [DONE]\n\n") + LAST_CHUNK,
    "answer": sized(b"data: [DONE]\n\n"),
    "answer-until-close": b"HTTP/1.0 200 OK\r\n\r\ndata: [DONE]\n\n",
    "half-a-head": b"HTTP/1.1 200 OK\r\n",
}
CLOSES = "Connection: close\r\n"
ENDED = {
    "sized": (sized(b"abc"), b"abc"),
    "sized-close": (sized(b"abc", CLOSES), b"abc"),
    "empty": (sized(b""), b""),
    "chunked": (CHUNKED + chunk(b"abc") + LAST_CHUNK, b"abc"),
    "chunked-close": (
        CHUNKED.replace(b"\r\n\r\n", b"\r\n" + CLOSES.encode() + b"\r\n")
        + chunk(b"abc")
        + LAST_CHUNK,
        b"abc",
    ),
    "no-content": (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
    "old": (b"HTTP/1.0 200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
}


class TestBehindTheEnd:
    @pytest.mark.parametrize("pumped", [True, False], ids=["pump", "body"])
    @pytest.mark.parametrize("behind", BEHIND.values(), ids=BEHIND)
    @pytest.mark.parametrize(("answer", "expected"), ENDED.values(), ids=ENDED)
    async def test_it_is_no_part_of_the_answer(
        self, answer: bytes, expected: bytes, behind: bytes, pumped: bool
    ) -> None:
        """In the same read, or in one that begins inside the answer's last bytes."""
        transport = direct()
        whole = answer + behind
        for first in (whole, answer[:-1], answer):
            rest = whole[len(first) :]

            async def script(peer: Peer) -> None:
                await peer.answer(first)
                if rest:
                    await asyncio.sleep(0.01)
                    await peer.send(rest)
                await peer.gone()

            async with upstream(script, replays(sized(b"next"))) as server:
                reply = await post(transport, server.url)
                got: list[bytes] = []
                if pumped:
                    await reply.pump(got.append)
                else:
                    got.append(await reply.body(1000))
                reply.close()
                await until(lambda: not transport.pool.live)
                second = await post(transport, server.url)
                got_second = await second.body(1000)
                second.close()

                assert (expected, b"next") == (b"".join(got), got_second)
        await transport.stop()

    @pytest.mark.parametrize("kind", OWN_KINDS)
    @pytest.mark.parametrize("behind", BEHIND.values(), ids=BEHIND)
    async def test_it_is_no_part_of_the_answer_by_any_way(
        self, kind: str, behind: bytes
    ) -> None:
        """In the same read; the next request gets a connection of its own."""
        for answer, expected in (ENDED["sized"], ENDED["chunked"]):
            async with Client(kind) as client, client.upstream(
                replays(answer + behind), replays(sized(b"next"))
            ) as server:
                for body in (expected, b"next"):
                    reply = await post(client, server.url)
                    assert await reply.body(1000) == body
                    reply.close()

                assert server.connections == 2

    @pytest.mark.parametrize("kind", OWN_KINDS)
    async def test_a_connection_that_speaks_unasked_is_dropped(self, kind: str) -> None:

        async def script(peer: Peer) -> None:
            await peer.answer(sized(b"abc"))
            await let_go.wait()
            await peer.send(BEHIND["answer"])
            await peer.gone()

        let_go = asyncio.Event()
        async with Client(kind) as client, client.upstream(
            script, replays(sized(b"next"))
        ) as server:
            reply = await post(client, server.url)
            await reply.body(1000)
            reply.close()
            let_go.set()
            await until(lambda: not client.own.pool.live)
            second = await post(client, server.url)

            assert await second.body(1000) == b"next"
            second.close()


@contextmanager
def refusing(read_bytes: int, kind: str) -> Iterator[URL]:
    """
    A server that answers 413 after some of the request and closes over the rest of it,
    which resets the connection. In a thread: it does not wait for our loop.
    """
    way, scheme = kind.split(" ")

    def secured(plain: socket.socket) -> socket.socket:
        plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if way == "tunnel":
            read_head(plain)
            plain.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        if scheme == "https":
            return server_tls("127.0.0.1").wrap_socket(plain, server_side=True)
        return plain

    def read_head(sock: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            head += sock.recv(1000)

    def refuse(plain: socket.socket) -> None:
        with suppress(OSError), secured(plain) as sock:
            read_head(sock)
            left = read_bytes
            while left > 0:
                left -= len(sock.recv(65536))
            sock.sendall(sized(b"too large", status="413 Too Large"))

    def serve() -> None:
        with suppress(OSError):
            while True:
                refuse(listener.accept()[0])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield URL(f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/")
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


LOOPS = {"uvloop": uvloop.new_event_loop, "asyncio": asyncio.new_event_loop}


class TestEarlyRefusal:
    @pytest.mark.parametrize("loop", LOOPS)
    @pytest.mark.parametrize(
        "kind", ["direct http", "direct https", "forward http", "tunnel https"]
    )
    @pytest.mark.parametrize(
        ("body_bytes", "read_bytes"),
        [(1_000_000, 0), (8_000_000, 0), (8_000_000, 3_000_000)],
    )
    def test_it_outranks_the_write_that_fails(
        self, kind: str, body_bytes: int, read_bytes: int, loop: str
    ) -> None:
        """The reset meets the writing at any moment, so it is tried many times."""

        async def run() -> None:
            async with Client(kind) as client:
                for _ in range(25):
                    reply = await post(client, url, bytes(body_bytes))
                    assert (reply.status, await reply.body(100)) == (413, b"too large")
                    reply.close()

        with refusing(read_bytes, kind) as url:
            with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
                runner.run(run())

    async def test_a_slice_is_written_only_when_nothing_waits_to_be_read(self) -> None:
        class Below(asyncio.Transport):
            def __init__(self, sock: socket.socket) -> None:
                super().__init__({"socket": sock})
                self.written = 0

            def write(self, data: bytes | bytearray | memoryview) -> None:
                self.written += len(data)

            def is_closing(self) -> bool:
                return False

        ours, theirs = socket.socketpair()
        with ours, theirs:
            below = Below(ours)
            route, unused = Route(Origin("http", "up.test", 80)), cast(Any, None)
            connection = Connection(route, unused)
            connection.connection_made(below)
            theirs.sendall(b"HTTP/1.1 413")
            connection.send_request(unused, b"head", bytes(1_000_000))
            for _ in range(3):
                await asyncio.sleep(0)
                assert below.written == len(b"head")
            assert ours.recv(100) == b"HTTP/1.1 413"
            await asyncio.sleep(0)
            assert below.written == len(b"head") + 1_000_000

    async def test_a_loss_without_an_error_is_read_to_its_end_too(self) -> None:
        """asyncio forgets the error of a write that ``resume_writing`` makes."""

        class Below(asyncio.Transport):
            def is_closing(self) -> bool:
                return False

            def write(self, data: bytes | bytearray | memoryview) -> None:
                pass

        class Receiver:
            received = b""

            def receive(self, data: bytes) -> None:
                self.received += data

            def receive_eof(self) -> None:
                raise AssertionError

            def connection_lost(self, error: Exception | None) -> None:
                self.received += b" lost"

        class Owner:
            def take_back(self, connection: Connection) -> None:
                raise AssertionError

            def discard(self, connection: Connection) -> None:
                pass

        ours, theirs = socket.socketpair()
        with ours, theirs:
            ours.setblocking(False)
            receiver = Receiver()
            connection = Connection(Route(Origin("http", "up.test", 80)), Owner())
            connection.connection_made(Below({"socket": ours}))
            connection.send_request(receiver, b"head", b"")
            theirs.sendall(b"HTTP/1.1 413")
            connection.connection_lost(None)

            assert b"HTTP/1.1 413 lost" == receiver.received

    async def test_what_a_failed_write_left_in_the_socket_is_read(self) -> None:
        left, right = socket.socketpair()
        with left, right:
            left.setblocking(False)
            right.sendall(b"HTTP/1.1 413")

            assert [b"HTTP/1.1 413"] == list(left_in_socket(left.fileno()))
            assert [] == list(left_in_socket(left.fileno()))
            right.sendall(bytes(1000))
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(socket_state, "LEFT_BYTES", 100)
                assert [bytes(100)] == list(left_in_socket(left.fileno()))

    async def test_the_rest_of_a_refused_request_is_not_sent(self) -> None:
        async def script(peer: Peer) -> None:
            await peer.head()
            await peer.send(sized(b"too large", status="413 Too Large"))
            await closed.wait()
            received = 0
            while data := await peer.reader.read(65536):
                received += len(data)
            assert received < 50_000_000

        closed = asyncio.Event()
        transport = direct()
        async with upstream(script) as server:
            reply = await post(transport, server.url, bytes(100_000_000))
            assert b"too large" == await reply.body(100)
            reply.close()
            closed.set()
            with suppress(ConnectionError):
                await server.played()
        await transport.stop()
